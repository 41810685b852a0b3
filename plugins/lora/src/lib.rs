//! LoRA (Hu et al. 2021, arXiv:2106.09685): y = W x + b + s B A x.
//!
//! W `[out, in]` is frozen; A `[rank, in]` and B `[out, rank]` train. A starts Kaiming-uniform with a = sqrt 5, that is
//! U(-1/sqrt in, 1/sqrt in), and B at zero, so step 0 is the base model exactly. The scale s is alpha / rank, alpha /
//! sqrt rank (rsLoRA, Kalajdzievski 2023, arXiv:2312.03732) or alpha itself. As PEFT's tuners/lora/layer.py.
//!
//! A convolution is this W x with x the patches that its kernel meets: A is a convolution of the same kernel, `[rank, channels, kh, kw]`, and
//! B one of 1 x 1, `[out, rank, 1, 1]`.
//!
//! DoRA (Liu et al. 2024, arXiv:2402.09353) learns the norm m `[out]` of each row beside its direction:
//! y = m / |W + s B A| * (W + s B A) x + b. m starts as the norms of W, so step 0 is the base model here too.
//!
//! PiSSA and OLoRA begin with a part of W instead, which is taken out of W: see `inits`.
//!
//! LoRA+ (Hayou et al. 2024, arXiv:2402.12354) gives B a higher learning rate than A: B starts at zero, and in wide layers the product learns
//! as it should only where B moves faster. As PEFT's `create_loraplus_optimizer` with `loraplus_lr_ratio`.

mod hooks;
mod inits;
mod options;
mod peft;

use std::collections::BTreeMap;

use fthost_plugin_api::Convolution;
use fthost_plugin_api::prelude::*;

use hooks::{Dora, LowRank};
use options::{Bias, LoraConfig, Size, Start};

struct Lora {
    config: LoraConfig,
    /// What each layer got, by its path.
    layers: Vec<(String, Size)>,
    /// A and B of each layer whose update began as a part of its weight, and B0 and A0, which were taken out of that.
    taken: Vec<[Part; 2]>,
}

/// A parameter, and the tensor that it began as.
struct Part {
    now: Param,
    first: Kept,
}

impl Lora {
    /// Hooks one layer, and gives its B. `bias` is its own, where it has one.
    fn adapt(&mut self, model: &mut Model, site: &Site, size: Size, bias: Option<Param>) -> Result<Param> {
        let scale = self.config.scaling.of(size);
        let first = self.first(model, site, size.rank, scale)?;
        let (init_a, init_b) = match &first {
            None => (Init::kaiming_uniform(site.in_features), Init::Zeros),
            Some((b, a)) => (Init::copy_of(a), Init::copy_of(b)),
        };
        let (a, b) = match site.convolution {
            None => (vec![size.rank, site.in_features], vec![site.out_features, size.rank]),
            Some(Convolution { channels, kernel: [height, width], .. }) => {
                (vec![size.rank, channels, height, width], vec![site.out_features, size.rank, 1, 1])
            }
        };
        let a = model.param(site, "lora_A.weight", a, init_a)?;
        let b = model.param(site, "lora_B.weight", b, init_b)?;
        let taken = match first {
            None => None,
            Some((first_b, first_a)) => {
                let part = |now: &Param, first: &Tensor| -> Result<Part> {
                    Ok(Part { now: now.clone(), first: first.keep()? })
                };
                self.taken.push([part(&a, &first_a)?, part(&b, &first_b)?]);
                Some((first_b.keep()?, first_a.keep()?))
            }
        };
        let update = LowRank { a, b, scale, dropout: self.config.dropout, taken };
        let of_b = update.b.clone();
        if !self.config.use_dora {
            model.hook_linear(site, update)?;
            return Ok(of_b);
        }
        if site.convolution.is_some() {
            return Err(Error::new(format!(
                "use_dora is for linear layers, and {} is a convolution: take it out of targets, or use_dora",
                site.path
            )));
        }
        let weight = model.base_param(&format!("{}.weight", site.path))?;
        let norms = weight.tensor().low_rank_norm(&update.a, &update.b, update.scale)?; // of W itself: B is zero
        let magnitude = model.param(site, "lora_magnitude_vector", [site.out_features], Init::copy_of(&norms))?;
        model.hook_linear(site, Dora { update, magnitude, weight, bias, first: !site.hooked })?;
        Ok(of_b)
    }

    /// The B and A that are a part of a layer's weight, where updates begin so.
    fn first(&self, model: &Model, site: &Site, rank: usize, scale: f64) -> Result<Option<(Tensor, Tensor)>> {
        if self.config.init == Start::Lora {
            return Ok(None);
        }
        if site.convolution.is_some() {
            return Err(Error::new(format!(
                "init = \"olora\" and \"pissa\" are for linear layers, and {} is a convolution: take it out of targets, or init",
                site.path
            )));
        }
        let weight = model.base_param(&format!("{}.weight", site.path))?;
        inits::of_weight(self.config.init, &weight.tensor(), rank, scale)
    }

    /// Thaws the biases that `bias` names. `own`: those of the adapted layers.
    fn thaw_biases(&self, model: &mut Model, own: Vec<Param>) -> Result<()> {
        match self.config.bias {
            Bias::None => Ok(()),
            Bias::All => model.thaw(&Targets::Pattern(r"(.*\.)?bias".into())).map(drop),
            Bias::LoraOnly if own.is_empty() => {
                Err(Error::new("bias = \"lora_only\", and no adapted layer has a bias: leave it out"))
            }
            Bias::LoraOnly => model.set_trainable_of(&own, true),
        }
    }
}

impl Strategy for Lora {
    type Config = LoraConfig;
    const PEFT_TYPE: Option<&'static str> = Some("LORA");

    fn options_from_peft(config: &mut PeftConfig) -> Result<Value> {
        peft::to_options(config)
    }

    fn new(config: LoraConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config, layers: Vec::new(), taken: Vec::new() })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        model.freeze_all()?;
        let base: Vec<ParamInfo> = model.parameters()?.into_iter().filter(|param| param.base).collect();
        let bias = |site: &Site| {
            let path = format!("{}.bias", site.path);
            base.iter().find(|param| param.path == path).cloned().map(Param::from)
        };
        let sites = model.products(&self.config.targets, self.config.exclude.as_ref())?;
        let sizes = self.config.sizes(model, &sites)?;
        let mut all_b = Vec::new();
        for (site, size) in sites.iter().zip(sizes) {
            all_b.push(self.adapt(model, site, size, bias(site))?);
            self.layers.push((site.path.clone(), size));
        }
        if self.config.lr_ratio != 1.0 {
            model.set_lr_factor_of(&all_b, self.config.lr_ratio)?;
        }
        self.thaw_biases(model, sites.iter().filter_map(bias).collect())
    }

    /// What is taken out of a weight and added again is as much but for rounding.
    fn starts_at_base(&self) -> bool {
        self.config.init == Start::Lora
    }

    fn adapter_config(&self) -> Result<Option<Value>> {
        Ok(Some(peft::from_options(&self.config, &self.layers)))
    }

    /// Where updates began as parts of the weights, PEFT reads what they are beyond these: an update of twice the rank, of B and -B0 beside
    /// each other and A above A0.
    fn adapter_tensors(&self) -> Result<Option<BTreeMap<String, Tensor>>> {
        if self.taken.is_empty() {
            return Ok(None);
        }
        let mut tensors = BTreeMap::new();
        for [a, b] in &self.taken {
            let above = Tensor::concat(&[&a.now, &a.first], 0)?; // [2 rank, in]
            let beside = Tensor::concat(&[&b.now, &b.first.tensor().neg()?], 1)?; // [out, 2 rank]
            tensors.insert(a.now.name().to_owned(), above);
            tensors.insert(b.now.name().to_owned(), beside);
        }
        Ok(Some(tensors))
    }
}

register! {
    /// LoRA: trains a low-rank update beside each chosen linear layer or convolution.
    Strategy "lora" => Lora
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = [
        "low_rank@1", "dropout@1", "matmul@1", "affine@1", "add@1", "low_rank_norm@1", "clamp_min@1", "div@1", "mul@1",
        "reshape@1", "sub@1", "linear@1", "transpose@1", "neg@1", "concat@1", "keep@1",
    ],
    about = "LoRA (Hu et al. 2021, arXiv:2106.09685), rsLoRA (arXiv:2312.03732), DoRA (arXiv:2402.09353) as PEFT computes them"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;
    use fthost_plugin_api::test::Host;
    use options::Scaling;

    fn lora(options: Value) -> Result<Lora> {
        Lora::new(from_value(options)?)
    }

    #[test]
    fn scale() {
        let size = Size { rank: 8, alpha: 16.0 };
        for (scaling, expected) in
            [(Scaling::AlphaOverR, 2.0), (Scaling::Rslora, 16.0 / 8.0_f64.sqrt()), (Scaling::Raw, 16.0)]
        {
            assert_eq!(scaling.of(size), expected, "{scaling:?}");
        }
    }

    #[test]
    fn refuses_what_cannot_train() {
        for options in [
            json!({ "rank": 0 }),
            json!({ "rank_pattern": { "query": 0 } }),
            json!({ "dropout": 1.0 }),
            json!({ "bias": "some" }),
            json!({ "rnak": 4 }),
            json!({ "lr_ratio": 0.0 }),
        ] {
            assert!(lora(options.clone()).is_err(), "{options}");
        }
    }

    /// PEFT's `get_pattern_key` for patterns that are plain ends of paths.
    fn peft_scale(config: &Value, path: &str) -> f64 {
        let of = |pattern: &str, whole: &str| {
            let patterns = config[pattern].as_object().unwrap();
            let named = patterns.iter().find(|(end, _)| path == *end || path.ends_with(&format!(".{end}")));
            named.map_or(&config[whole], |(_, value)| value).as_f64().unwrap()
        };
        let rank = of("rank_pattern", "r");
        let divisor = if config["use_rslora"] == json!(true) { rank.sqrt() } else { rank };
        of("alpha_pattern", "lora_alpha") / divisor
    }

    #[test]
    fn peft_reads_the_same_scales() {
        for scaling in ["alpha_over_r", "rslora", "raw"] {
            let options = json!({
                "scaling": scaling, "rank": 4, "targets": "encoder.*query",
                "rank_pattern": { "1.query": 16 }, "alpha_pattern": { "1.query": 3.0, "2.query": 5.0 },
            });
            let mut lora = lora(options).unwrap();
            let size = |rank, alpha| Size { rank, alpha };
            lora.layers = [("0.query", size(4, 16.0)), ("1.query", size(16, 3.0)), ("2.query", size(4, 5.0))]
                .map(|(end, size)| (format!("encoder.{end}"), size))
                .to_vec();
            let config = lora.adapter_config().unwrap().expect("PEFT knows LoRA");
            for (path, size) in &lora.layers {
                assert_eq!(peft_scale(&config, path), lora.config.scaling.of(*size), "{scaling}: {path}");
            }
            assert_eq!(config["target_modules"], json!("encoder.*query"));
        }
    }

    fn options(config: Value) -> Result<Value> {
        Lora::options_from_peft(&mut from_value(config)?)
    }

    #[test]
    fn pefts_config_becomes_the_options_that_it_came_from() {
        let written = json!({
            "rank": 4, "alpha": 3.0, "scaling": "rslora", "targets": ["key"], "exclude": ["0.key"], "dropout": 0.1,
            "rank_pattern": { "1.key": 2 }, "alpha_pattern": { "2.key": 5.0 }, "bias": "lora_only", "use_dora": true,
        });
        let config = lora(written.clone()).unwrap().adapter_config().unwrap().unwrap();
        assert_eq!(options(config).unwrap(), written);
    }

    #[test]
    fn what_other_inits_did_to_the_base_weights_is_not_ignored() {
        let config = |init: Value| options(json!({ "target_modules": ["query"], "init_lora_weights": init }));
        for init in [json!(true), json!("gaussian"), json!("mica"), json!(null)] {
            config(init).unwrap();
        }
        for init in ["pissa", "olora", "corda", "loftq"] {
            let error = config(json!(init)).unwrap_err().to_string();
            assert!(error.contains(&format!("init_lora_weights = {init:?}")), "{error}");
        }
        assert!(options(json!({ "r": 8 })).unwrap_err().to_string().contains("target_modules"));
    }

    #[test]
    fn starts_at_the_model_learns_and_merges() {
        for options in [
            json!({ "rank": 2 }),
            json!({ "rank": 2, "dropout": 0.3, "targets": "all-linear", "bias": "lora_only", "lr_ratio": 4.0 }),
            json!({ "rank": 3, "rank_pattern": { "1.*query": 1 }, "targets": ["query", "convolution"] }),
            json!({ "rank": 2, "use_dora": true, "targets": ["query", "output.dense"] }),
            json!({ "rank": 2, "use_dora": true, "dropout": 0.3 }),
        ] {
            let run = Host::new().strategy::<Lora>(options.clone()).unwrap();
            assert!(run.starts_at_base().unwrap(), "{options}");
            run.check().unwrap_or_else(|error| panic!("{options}: {error}"));
        }
        let pictures = Host::new().of_pictures().strategy::<Lora>(json!({ "targets": ["projection"] }));
        pictures.unwrap().check().unwrap();
    }

    #[test]
    fn a_part_that_is_taken_out_is_given_back() {
        for init in ["pissa", "olora"] {
            let run = Host::new().strategy::<Lora>(json!({ "rank": 2, "init": init })).unwrap();
            let bare = Host::new().strategy::<Lora>(json!({ "rank": 2 })).unwrap();
            for (found, expected) in run.outputs().unwrap().iter().zip(bare.outputs().unwrap()) {
                assert!((found - expected).abs() < 1e-6, "{init}: {found} is not {expected}");
            }
            // What PEFT reads is twice as wide.
            let saved = run.adapter_tensors().unwrap();
            assert_eq!(saved["encoder.layer.0.attention.self.query.lora_A.weight"], [4, 6]);
            run.check().unwrap_or_else(|error| panic!("{init}: {error}"));
        }
    }
}
