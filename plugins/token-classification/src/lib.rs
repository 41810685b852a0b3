//! A token classification head: logits = W h + b over the features h of every token, trained by cross entropy.
//!
//! ```text
//! loss = (sum_i w[t_i] (1 - s) (-log p_i[t_i]) + s / C sum_c w[c] (-log p_i[c])) / sum_i w[t_i]
//! ```
//!
//! torch's cross entropy with class weights w and label smoothing s, where i runs over the tokens that count: the first of each word.
//! That is Transformers' token classification (Devlin et al. 2018, arXiv:1810.04805, section 5.3): dropout and one linear layer,
//! without a pooler, for every architecture. W starts N(0, 0.02) and b at zero, so at step 0 all classes are about equally likely.

use fthost_plugin_api::prelude::*;
use fthost_plugin_api::{CrossEntropy, HeadLayers, HeadShape, check_shares};

/// Options of the token classification head.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct TokenClassificationConfig {
    /// Dropout before the layer; without it what the model's config asks for.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    dropout: Option<f64>,
    /// Weights of the classes in the loss: "none", "balanced" (tokens / (classes * tokens of the class)), or a list.
    class_weights: ClassWeights,
    /// Share of each target that is spread over all classes.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    label_smoothing: f64,
    /// Standard deviation of the new matrix.
    #[schemars(range(min = 0))]
    init_std: f64,
}

impl Default for TokenClassificationConfig {
    fn default() -> Self {
        Self { dropout: None, class_weights: ClassWeights::default(), label_smoothing: 0.0, init_std: 0.02 }
    }
}

struct TokenClassification {
    config: TokenClassificationConfig,
    attached: Option<(HeadLayers, CrossEntropy)>,
}

impl TokenClassification {
    fn attached(&self) -> Result<&(HeadLayers, CrossEntropy)> {
        self.attached.as_ref().ok_or_else(|| Error::new("the head is used before it was attached"))
    }
}

impl TaskHead for TokenClassification {
    type Config = TokenClassificationConfig;
    const PROBLEM_TYPE: Option<&'static str> = Some(problem_type::TOKENS);

    fn new(config: TokenClassificationConfig) -> Result<Self> {
        check_shares([("dropout", config.dropout.unwrap_or(0.0)), ("label_smoothing", config.label_smoothing)])?;
        Ok(Self { config, attached: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        let classes = task.classes()?;
        let shape = HeadShape {
            width: task.width,
            outputs: classes,
            hidden: None,
            // As all of Transformers' classes of tokens have.
            bias: true,
            init_std: self.config.init_std,
            dropout: self.config.dropout.unwrap_or(task.dropout),
        };
        let weights = self.config.class_weights.resolve(&task.class_counts, classes)?;
        let loss = CrossEntropy { weights, label_smoothing: self.config.label_smoothing };
        self.attached = Some((shape.declare(model)?, loss));
        Ok(HeadSpec::new(FeatureKind::Sequence, TargetKind::TokenClass, PredictionKind::Classes))
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        self.attached()?.0.forward(features.tensor) // [tokens, classes]
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        self.attached()?.1.loss(outputs, targets)
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        outputs.softmax() // [tokens, classes]
    }
}

register! {
    /// A class for each word of a text, by cross entropy.
    TaskHead "token-classification" => TokenClassification
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = ["linear@1", "dropout@1", "cross_entropy@1", "softmax@1"]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;

    #[test]
    fn refuses_shares_of_one() {
        for options in [json!({ "dropout": 1.0 }), json!({ "label_smoothing": 1.5 })] {
            assert!(TokenClassification::new(from_value(options.clone()).unwrap()).is_err(), "{options}");
        }
    }
}
