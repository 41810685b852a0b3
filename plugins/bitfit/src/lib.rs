//! BitFit (Ben Zaken et al. 2021, arXiv:2106.10199): of the pretrained model only bias terms train.
//!
//! b <- b - lr * grad L(b), and every weight W of y = W x + b stays as it is. All biases train, those of norms included, or those
//! of the modules that `targets` names: the paper's section 3 gets nearly as far with query's and the intermediate layer's alone.
//! Nothing is added to the model, so step 0 is the base model exactly.

use fthost_plugin_api::{prelude::*, tracing};

/// Options of BitFit.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct BitFitConfig {
    /// Modules whose biases train, without it all: a regular expression over whole paths of parameters, or a list of paths or
    /// their ends.
    targets: Option<Targets>,
}

struct BitFit(BitFitConfig);

/// Whether a parameter is a bias term, by Hugging Face's names.
fn is_bias(path: &str) -> bool {
    path.rsplit('.').next() == Some("bias")
}

impl Strategy for BitFit {
    type Config = BitFitConfig;

    fn new(config: BitFitConfig) -> Result<Self> {
        Ok(Self(config))
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        model.freeze_all()?;
        let named = match &self.0.targets {
            Some(targets) => model.parameters_of(targets)?,
            None => model.parameters()?,
        };
        let biases: Vec<Param> =
            named.into_iter().filter(|param| param.base && is_bias(&param.path)).map(Param::from).collect();
        if biases.is_empty() {
            return Err(Error::new(
                "no bias is among the parameters that targets names: name modules that have one, such as `query`, or leave \
                 targets out",
            ));
        }
        model.set_trainable_of(&biases, true)?;
        tracing::info!(tensors = biases.len(), "biases train");
        Ok(())
    }

    fn starts_at_base(&self) -> bool {
        true
    }
}

register! {
    /// BitFit: only the bias terms of the model train.
    Strategy "bitfit" => BitFit
}
export_plugin! { license = "MIT OR Apache-2.0" }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;

    #[test]
    fn biases_are_told_by_their_names() {
        let check = |path: &str, expected: bool| assert_eq!(is_bias(path), expected, "{path}");
        check("encoder.layer.0.attention.self.query.bias", true);
        check("encoder.layer.0.output.LayerNorm.bias", true);
        check("pooler.dense.bias", true);
        check("encoder.layer.0.attention.self.query.weight", false);
        check("encoder.layer.0.unbiased.weight", false);
        check("encoder.layer.0.relative_attention_bias.weight", false);
    }

    #[test]
    fn targets_are_a_pattern_or_names_and_nothing_else() {
        let targets = |options: Value| from_value::<BitFitConfig>(options).map(|config| config.targets);
        assert_eq!(targets(json!({})).unwrap(), None);
        assert_eq!(targets(json!({ "targets": ["query"] })).unwrap(), Some(Targets::from(["query"])));
        assert_eq!(targets(json!({ "targets": ".*query.*" })).unwrap(), Some(Targets::Pattern(".*query.*".into())));
        assert!(targets(json!({ "target": ["query"] })).is_err());
    }
}
