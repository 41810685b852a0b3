//! Prefix tuning (Li and Liang 2021, arXiv:2101.00190): every layer attends over keys [P_K; K] and values [P_V; V].
//!
//! P_K and P_V `[tokens, width]` of each layer train, as wide as its keys, of which decoders have fewer heads than of queries; the
//! model is frozen. They are parameters, which start N(0, 1), or come from an MLP, [P_K, P_V] = W tanh(V e + c) + b, whose
//! embeddings e `[tokens, width]`, V `[hidden, width]` and c serve all layers and start as torch's do. So step 0 is
//! not the base model. The tokens of a text move up by the prefix's length, as Transformers moves them for past keys. As PEFT's
//! tuners/prefix_tuning/model.py.

use std::collections::BTreeMap;
use std::sync::Arc;

use fthost_plugin_api::prelude::*;

/// Options of prefix tuning.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct PrefixConfig {
    /// Virtual tokens: learned keys and values in every layer.
    #[schemars(range(min = 1), extend("search" = [5, 10, 20, 40]))]
    tokens: usize,
    /// Whether an MLP makes keys and values while they train.
    projection: bool,
    /// Width inside that MLP; without it the model's.
    #[schemars(range(min = 1))]
    hidden: Option<usize>,
}

impl Default for PrefixConfig {
    fn default() -> Self {
        Self { tokens: 10, projection: false, hidden: None }
    }
}

struct PrefixTuning {
    config: PrefixConfig,
    /// The layers' prefixes, from the bottom up.
    layers: Vec<Rows>,
    /// What PEFT's adapter_config.json says, where PEFT has prefixes for such a model.
    peft: Option<Value>,
}

impl PrefixTuning {
    /// All layers' rows as one parameter, as PEFT saves it.
    fn plain(&self, model: &mut Model, sites: &[Site]) -> Result<Vec<Rows>> {
        let init = Init::Normal { mean: 0.0, std: 1.0 };
        let total = sites.iter().map(|site| 2 * site.out_features).sum();
        let all = model.shared_param("prompt_embeddings", [self.config.tokens, total], init)?;
        let mut next = 0;
        let rows = sites.iter().map(|site| {
            let (start, columns) = (next, 2 * site.out_features);
            next += columns;
            Rows::Columns { all: all.clone(), start, columns }
        });
        Ok(rows.collect())
    }

    /// An MLP whose last layer is cut into those of the sites.
    fn projected(&self, model: &mut Model, sites: &[Site]) -> Result<Vec<Rows>> {
        let (tokens, width) = (self.config.tokens, model.width()?);
        let hidden = self.config.hidden.unwrap_or(width);
        let uniform = Init::kaiming_uniform;
        let init = Init::Normal { mean: 0.0, std: 1.0 };
        let shared = Arc::new(Hidden {
            embedding: model.shared_param("prefix.embedding.weight", [tokens, width], init)?,
            weight: model.shared_param("prefix.hidden.weight", [hidden, width], uniform(width))?,
            bias: model.shared_param("prefix.hidden.bias", [hidden], uniform(width))?,
        });
        let output = |site: &Site| {
            let columns = 2 * site.out_features;
            let weight = model.param(site, "prefix.output.weight", [columns, hidden], uniform(hidden))?;
            let bias = model.param(site, "prefix.output.bias", [columns], uniform(hidden))?;
            Ok(Rows::Projected { hidden: Arc::clone(&shared), weight, bias })
        };
        sites.iter().map(output).collect()
    }
}

impl Strategy for PrefixTuning {
    type Config = PrefixConfig;
    const PEFT_TYPE: Option<&'static str> = Some("PREFIX_TUNING");

    fn new(config: PrefixConfig) -> Result<Self> {
        if config.tokens == 0 || config.hidden == Some(0) {
            return Err(Error::new("tokens or hidden is 0, so nothing would train: give at least 1"));
        }
        if config.hidden.is_some() && !config.projection {
            return Err(Error::new("hidden is the width of the projection: give projection = true, or no hidden"));
        }
        Ok(Self { config, layers: Vec::new(), peft: None })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        let PrefixConfig { tokens, projection, hidden } = self.config;
        model.freeze_all()?;
        let sites = model.attentions()?;
        self.layers = if projection { self.projected(model, &sites)? } else { self.plain(model, &sites)? };
        for (site, rows) in sites.iter().zip(&self.layers) {
            model.hook_attention(site, Attend { rows: rows.clone(), tokens })?;
        }
        let width = model.width()?;
        // PEFT gives prefixes as past keys and values, which models of images and DistilBERT do not take; where keys have fewer heads
        // than queries its config counts those, which nobody here knows.
        let alike = sites.iter().all(|site| site.out_features == width);
        if alike && model.vocabulary()? > 0 && model.model_type()? != "distilbert" {
            self.peft = Some(json!({
                "peft_type": "PREFIX_TUNING",
                "num_virtual_tokens": tokens,
                "token_dim": width,
                "num_layers": model.layers()?,
                "num_attention_heads": model.heads()?,
                "num_transformer_submodules": 1,
                "encoder_hidden_size": hidden.unwrap_or(width),
                "prefix_projection": projection,
            }));
        }
        Ok(())
    }

    fn options_from_peft(config: &mut PeftConfig) -> Result<Value> {
        // PEFT saves what the MLP gave and not the MLP, so there is none here; the shapes are those of the model.
        config.skip(&["prefix_projection", "encoder_hidden_size", "init_weights"]);
        config.skip(&["token_dim", "num_layers", "num_attention_heads"]);
        if config.take::<usize>("num_transformer_submodules")?.is_some_and(|submodules| submodules != 1) {
            return Err(Error::new("num_transformer_submodules is not 1: only encoders alone get prefixes here"));
        }
        Ok(json!({ "tokens": config.take::<usize>("num_virtual_tokens")? }))
    }

    fn adapter_config(&self) -> Result<Option<Value>> {
        Ok(self.peft.clone())
    }

    /// PEFT saves the rows that an MLP gives, and not the MLP.
    fn adapter_tensors(&self) -> Result<Option<BTreeMap<String, Tensor>>> {
        if !self.config.projection {
            return Ok(None);
        }
        let rows = self.layers.iter().map(Rows::tensor).collect::<Result<Vec<_>>>()?;
        let rows: Vec<&dyn Operand> = rows.iter().map(|rows| rows as &dyn Operand).collect();
        let all = Tensor::concat(&rows, 1)?; // [tokens, 2 layers width]
        Ok(Some([("prompt_embeddings".to_owned(), all)].into()))
    }
}

/// Keys and values of one layer.
#[derive(Clone)]
enum Rows {
    /// Columns of a parameter `[tokens, 2 layers width]`.
    Columns { all: Param, start: usize, columns: usize },
    /// This layer's end of the MLP: `[2 width, hidden]` and `[2 width]`.
    Projected { hidden: Arc<Hidden>, weight: Param, bias: Param },
}

/// What all layers share of the MLP.
struct Hidden {
    embedding: Param, // [tokens, width]
    weight: Param,    // [hidden, width]
    bias: Param,      // [hidden]
}

impl Rows {
    /// `[tokens, 2 width]`: keys, then values.
    fn tensor(&self) -> Result<Tensor> {
        match self {
            Self::Columns { all, start, columns } => all.tensor().narrow(1, *start, *columns),
            Self::Projected { hidden, weight, bias } => {
                let inner = hidden.embedding.tensor().linear(&hidden.weight, Some(&hidden.bias))?; // [tokens, hidden]
                inner.tanh()?.linear(weight, Some(bias))
            }
        }
    }
}

struct Attend {
    rows: Rows,
    tokens: usize,
}

impl AttentionHook for Attend {
    fn forward(&self, keys: Tensor, values: Tensor, _offsets: &[u32]) -> Result<(Tensor, Tensor, Option<Prefix>)> {
        let (rows, width) = (self.rows.tensor()?, keys.shape()?[1]); // [tokens, 2 width]
        let prefix = Prefix { keys: rows.narrow(1, 0, width)?, values: rows.narrow(1, width, width)? };
        Ok((keys, values, Some(prefix)))
    }

    fn position_shift(&self) -> usize {
        self.tokens
    }
}

register! {
    /// Prefix tuning: trains keys and values that every layer's attention sees before its own.
    Strategy "prefix" => PrefixTuning
}
export_plugin! { license = "MIT OR Apache-2.0", ops = ["narrow@1", "concat@1", "linear@1", "tanh@1"] }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn options_that_contradict_are_refused() {
        let prefix = |options: Value| {
            let config = fthost_plugin_api::serde_json::from_value(options).map_err(Error::new)?;
            PrefixTuning::new(config).map(drop)
        };
        prefix(json!({})).unwrap();
        prefix(json!({ "tokens": 4, "projection": true, "hidden": 32 })).unwrap();
        for (options, expected) in [
            (json!({ "tokens": 0 }), "give at least 1"),
            (json!({ "projection": true, "hidden": 0 }), "give at least 1"),
            (json!({ "hidden": 32 }), "give projection = true"),
            (json!({ "token": 4 }), "unknown field `token`"),
        ] {
            let error = prefix(options).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
    }
}
