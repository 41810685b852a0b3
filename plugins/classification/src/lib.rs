//! A classification head: logits = W h + b over pooled features h, trained by cross entropy.
//!
//! ```text
//! loss = (sum_i w[t_i] (1 - s) (-log p_i[t_i]) + s / C sum_c w[c] (-log p_i[c])) / sum_i w[t_i]
//! ```
//!
//! torch's cross entropy with class weights w and label smoothing s (Szegedy et al. 2015, arXiv:1512.00567). Where the architecture's own head
//! has one more dense layer (RoBERTa, DistilBERT), so has this one: logits = W act(V h + c) + b. Matrices start
//! N(0, 0.02) and biases at zero, as in Transformers, so at step 0 all classes are about equally likely.

use fthost_plugin_api::prelude::*;
use fthost_plugin_api::{CrossEntropy, HeadLayers, HeadShape, check_shares};

/// Options of the classification head.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ClassificationConfig {
    /// Dropout before the last layer; without it what the model's config asks for.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    dropout: Option<f64>,
    /// Weights of the classes in the loss: "none", "balanced" (examples / (classes * examples of the class)), or a list.
    class_weights: ClassWeights,
    /// Share of each target that is spread over all classes.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    label_smoothing: f64,
    /// Standard deviation of the new matrices.
    #[schemars(range(min = 0))]
    init_std: f64,
}

impl Default for ClassificationConfig {
    fn default() -> Self {
        Self { dropout: None, class_weights: ClassWeights::default(), label_smoothing: 0.0, init_std: 0.02 }
    }
}

struct Classification {
    config: ClassificationConfig,
    attached: Option<(HeadLayers, CrossEntropy)>,
}

impl Classification {
    fn attached(&self) -> Result<&(HeadLayers, CrossEntropy)> {
        self.attached.as_ref().ok_or_else(|| Error::new("the head is used before it was attached"))
    }
}

impl TaskHead for Classification {
    type Config = ClassificationConfig;
    const PROBLEM_TYPE: Option<&'static str> = Some(problem_type::SINGLE_LABEL);

    fn new(config: ClassificationConfig) -> Result<Self> {
        check_shares([("dropout", config.dropout.unwrap_or(0.0)), ("label_smoothing", config.label_smoothing)])?;
        Ok(Self { config, attached: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        let classes = task.classes()?;
        let shape = HeadShape {
            width: task.width,
            outputs: classes,
            hidden: task.hidden_activation.as_deref(),
            bias: task.bias,
            init_std: self.config.init_std,
            dropout: self.config.dropout.unwrap_or(task.dropout),
        };
        let weights = self.config.class_weights.resolve(&task.class_counts, classes)?;
        let loss = CrossEntropy { weights, label_smoothing: self.config.label_smoothing };
        self.attached = Some((shape.declare(model)?, loss));
        Ok(HeadSpec::new(FeatureKind::Pooled, TargetKind::Class, PredictionKind::Classes))
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        self.attached()?.0.forward(features.tensor) // [examples, classes]
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        self.attached()?.1.loss(outputs, targets)
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        outputs.softmax() // [examples, classes]
    }
}

register! {
    /// Classes from pooled features, by cross entropy.
    TaskHead "classification" => Classification
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = ["linear@1", "dropout@1", "cross_entropy@1", "softmax@1", "tanh@1", "relu@1", "gelu@1"]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;
    use fthost_plugin_api::test::Host;

    #[test]
    fn refuses_shares_of_one() {
        for options in [json!({ "dropout": 1.0 }), json!({ "label_smoothing": 1.5 })] {
            assert!(Classification::new(from_value(options.clone()).unwrap()).is_err(), "{options}");
        }
    }

    #[test]
    fn its_loss_is_a_sum_and_a_weight() {
        for options in [
            json!({}),
            json!({ "label_smoothing": 0.2, "class_weights": "balanced", "dropout": 0.4 }),
            json!({ "class_weights": [1.0, 2.0, 0.5] }),
        ] {
            let run = Host::new().head::<Classification>(options.clone()).unwrap();
            run.check().unwrap_or_else(|error| panic!("{options}: {error}"));
        }
        let losses = Host::new().head::<Classification>(json!({})).unwrap().train(1, 20).unwrap();
        assert!(losses[19] < losses[0], "{losses:?}");
    }
}
