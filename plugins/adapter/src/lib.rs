//! Bottleneck adapters: x + s (U act(D z + d) + u), with D `[bottleneck, width]` and U `[width, bottleneck]`, in place of x.
//!
//! x is a sub-layer's output before the residual is added, and the model is frozen. Of a block of convolutions, which has no halves, it is
//! what the block adds.
//! - houlsby (Houlsby et al. 2019, arXiv:1902.00751): after attention and after feed-forward, z = x; layer norms train too. D
//!   and U start N(0, 0.001), cut at two deviations, and the biases at zero: step 0 is nearly the base model, not exactly.
//! - pfeiffer (Pfeiffer et al. 2020, arXiv:2005.00247): after feed-forward, z = x. D and U start N(0, 0.02), as AdapterHub's,
//!   also near the base model.
//! - parallel (He et al. 2021, arXiv:2110.04366): beside feed-forward, z the residual, which in a post-norm model (BERT) is what
//!   feed-forward reads and in a pre-norm one (ViT) stands before its norm. U starts at zero: step 0 is the base model exactly.

use fthost_plugin_api::prelude::*;

/// Options of adapters.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct AdapterConfig {
    /// Where adapters stand, and so the defaults of the other options.
    #[schemars(extend("search" = ["houlsby", "pfeiffer", "parallel"]))]
    kind: Kind,
    /// Width inside an adapter; without it 64 for houlsby.
    #[schemars(range(min = 1), extend("search" = [8, 16, 32, 64, 128]))]
    bottleneck: Option<usize>,
    /// Instead of bottleneck: the model's width divided by this; without both 16 for pfeiffer, 2 for parallel.
    #[schemars(range(min = 1))]
    reduction: Option<usize>,
    /// Inside an adapter; without it gelu for houlsby, relu for the others.
    activation: Option<Activation>,
    /// Weight s of the update; without it 4 for parallel, 1 for the others.
    scale: Option<f64>,
    /// Whether the model's layer norms train too; without it as the paper: true for houlsby, false for the others.
    layer_norms: Option<bool>,
}

/// Where adapters stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// After attention and after feed-forward
    #[default]
    Houlsby,
    /// After feed-forward
    Pfeiffer,
    /// Beside feed-forward
    Parallel,
}

/// The function inside an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Activation {
    Gelu,
    Relu,
    Silu,
    Swish, // another name of silu
    Tanh,
}

impl AdapterConfig {
    fn bottleneck(&self, width: usize) -> usize {
        match (self.kind, self.bottleneck, self.reduction) {
            (_, Some(bottleneck), _) => bottleneck,
            (_, None, Some(reduction)) => (width / reduction).max(1),
            (Kind::Houlsby, None, None) => 64,
            (Kind::Pfeiffer, None, None) => (width / 16).max(1),
            (Kind::Parallel, None, None) => (width / 2).max(1),
        }
    }

    fn activation(&self) -> Activation {
        self.activation.unwrap_or(if self.kind == Kind::Houlsby { Activation::Gelu } else { Activation::Relu })
    }

    fn scale(&self) -> f64 {
        self.scale.unwrap_or(if self.kind == Kind::Parallel { 4.0 } else { 1.0 })
    }

    fn layer_norms(&self) -> bool {
        self.layer_norms.unwrap_or(self.kind == Kind::Houlsby)
    }

    /// How D and U start.
    fn init(&self, width: usize) -> (Init, Init) {
        match self.kind {
            Kind::Houlsby => (Init::TruncatedNormal { std: 1e-3 }, Init::TruncatedNormal { std: 1e-3 }),
            Kind::Pfeiffer => (Init::Normal { mean: 0.0, std: 0.02 }, Init::Normal { mean: 0.0, std: 0.02 }),
            Kind::Parallel => (Init::kaiming_uniform(width), Init::Zeros),
        }
    }
}

struct Adapter(AdapterConfig);

impl Strategy for Adapter {
    type Config = AdapterConfig;

    fn new(config: AdapterConfig) -> Result<Self> {
        if config.bottleneck == Some(0) || config.reduction == Some(0) {
            return Err(Error::new("bottleneck or reduction is 0, so there would be no adapter: give at least 1"));
        }
        if config.bottleneck.is_some() && config.reduction.is_some() {
            return Err(Error::new(
                "bottleneck and reduction both say how wide an adapter is inside: give one of them",
            ));
        }
        if !config.scale().is_finite() || config.scale() == 0.0 {
            return Err(Error::new(format!(
                "scale is {}, and nothing would train: give another number",
                config.scale()
            )));
        }
        Ok(Self(config))
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        model.freeze_all()?;
        // LayerNorm, sa_layer_norm, layernorm_before: each architecture has its own names. Blocks of convolutions have none.
        let is_norm = |param: &ParamInfo| param.path.to_lowercase().replace('_', "").contains("layernorm");
        let norms = model.parameters()?.iter().any(|param| param.base && is_norm(param));
        if self.0.layer_norms() && (norms || self.0.layer_norms.is_some()) {
            model.thaw(&Targets::Pattern("(?i).*layer_?norm.*".into()))?;
        }
        // Blocks of convolutions have no attention.
        let attends = model.streams()?.iter().any(|stream| stream.heads.is_some());
        let mut sites = match self.0.kind {
            Kind::Houlsby if attends => model.attention_outputs()?,
            Kind::Houlsby | Kind::Pfeiffer | Kind::Parallel => Vec::new(),
        };
        sites.extend(model.feed_forward_outputs()?);
        for site in sites {
            let width = site.out_features;
            let bottleneck = self.0.bottleneck(width);
            let (down, up) = self.0.init(width);
            let adapter = Bottleneck {
                down: model.param(&site, "adapter.down.weight", [bottleneck, width], down)?,
                down_bias: model.param(&site, "adapter.down.bias", [bottleneck], Init::Zeros)?,
                up: model.param(&site, "adapter.up.weight", [width, bottleneck], up)?,
                up_bias: model.param(&site, "adapter.up.bias", [width], Init::Zeros)?,
                activation: self.0.activation(),
                scale: self.0.scale(),
                parallel: self.0.kind == Kind::Parallel,
            };
            model.hook_block(&site, adapter)?;
        }
        Ok(())
    }
}

struct Bottleneck {
    down: Param,      // [bottleneck, width]
    down_bias: Param, // [bottleneck]
    up: Param,        // [width, bottleneck]
    up_bias: Param,   // [width]
    activation: Activation,
    scale: f64,
    parallel: bool,
}

impl BlockHook for Bottleneck {
    fn forward(&self, x: Tensor, residual: &Tensor) -> Result<Tensor> {
        let input = if self.parallel { residual } else { &x }; // [tokens, width]
        let inner = input.linear(&self.down, Some(&self.down_bias))?; // [tokens, bottleneck]
        let inner = match self.activation {
            Activation::Gelu => inner.gelu()?,
            Activation::Relu => inner.relu()?,
            Activation::Silu | Activation::Swish => inner.silu()?,
            Activation::Tanh => inner.tanh()?,
        };
        let update = inner.linear(&self.up, Some(&self.up_bias))?; // [tokens, width]
        if self.scale == 1.0 { x.add(&update) } else { x.add(&update.mul_scalar(self.scale)?) }
    }
}

register! {
    /// Bottleneck adapters: trains small networks after, or beside, the sub-layers of each block.
    Strategy "adapter" => Adapter
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = ["linear@1", "gelu@1", "relu@1", "silu@1", "tanh@1", "affine@1", "add@1"]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::test::Host;

    fn adapter(options: Value) -> Result<AdapterConfig> {
        let config = fthost_plugin_api::serde_json::from_value(options).map_err(Error::new)?;
        Adapter::new(config).map(|adapter| adapter.0)
    }

    #[test]
    fn a_kind_says_what_options_leave_open() {
        for (options, bottleneck, activation, scale, norms) in [
            (json!({}), 64, Activation::Gelu, 1.0, true),
            (json!({ "kind": "houlsby", "reduction": 16, "activation": "swish" }), 24, Activation::Swish, 1.0, true),
            (json!({ "kind": "pfeiffer" }), 24, Activation::Relu, 1.0, false),
            (json!({ "kind": "pfeiffer", "reduction": 1000, "layer_norms": true }), 1, Activation::Relu, 1.0, true),
            (json!({ "kind": "parallel" }), 192, Activation::Relu, 4.0, false),
            (json!({ "kind": "parallel", "bottleneck": 8, "scale": 0.5 }), 8, Activation::Relu, 0.5, false),
        ] {
            let config = adapter(options.clone()).unwrap();
            let found = (config.bottleneck(384), config.activation(), config.scale(), config.layer_norms());
            assert_eq!(found, (bottleneck, activation, scale, norms), "{options}");
        }
    }

    #[test]
    fn refuses_what_contradicts_or_cannot_train() {
        for (options, expected) in [
            (json!({ "bottleneck": 8, "reduction": 4 }), "give one of them"),
            (json!({ "reduction": 0 }), "give at least 1"),
            (json!({ "scale": 0.0 }), "give another number"),
            (json!({ "kind": "serial" }), "unknown variant `serial`"),
        ] {
            let error = adapter(options).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
    }

    #[test]
    fn learns_what_it_should() {
        for (options, at_base) in [
            (json!({ "bottleneck": 3 }), false),
            (json!({ "kind": "pfeiffer", "bottleneck": 2, "activation": "tanh" }), false),
            (json!({ "kind": "parallel", "bottleneck": 4, "activation": "silu" }), true),
        ] {
            let run = Host::new().strategy::<Adapter>(options.clone()).unwrap();
            let bare = Host::new().strategy::<Adapter>(json!({ "kind": "parallel" })).unwrap();
            assert_eq!(run.outputs().unwrap() == bare.outputs().unwrap(), at_base, "{options}");
            run.check().unwrap_or_else(|error| panic!("{options}: {error}"));
        }
    }
}
