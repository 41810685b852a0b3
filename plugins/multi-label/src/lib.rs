//! A head of classes that are independent of each other: an example may have several, or none. Logits z = W h + b over pooled features h,
//! each the logit of one class, trained by binary cross entropy.
//!
//! ```text
//! loss = mean over examples and classes of  -(w[c] t log s(z) + (1 - t) log s(-z)),   s(z) = 1 / (1 + e^-z)
//! ```
//!
//! with t = 1 where an example has class c and 0 elsewhere: torch's `BCEWithLogitsLoss` with `pos_weight` w, and what Transformers' classes
//! learn by where their `problem_type` is `multi_label_classification`. log s(z) and log s(-z) are the log-softmax of z beside 0, so that neither
//! large logits nor those of exactly 0 lose anything. Where the architecture's own head has one more dense layer (RoBERTa, DistilBERT), so has
//! this one: z = W act(V h + c) + b. Matrices start N(0, 0.02) and biases at zero, as in Transformers, so at step 0 each class has a probability
//! of about one half.

use fthost_plugin_api::prelude::*;
use fthost_plugin_api::{HeadLayers, HeadShape, PositiveWeights, check_shares};

/// Options of the multi-label head.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct MultiLabelConfig {
    /// Dropout before the last layer; without it what the model's config asks for.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    dropout: Option<f64>,
    /// Weights in the loss of having a class: "none", "balanced" (examples without the class / examples with it), a list in the labels'
    /// order, or a table by names, { joy = 2.0 }, where other classes weigh 1.
    positive_weights: PositiveWeights,
    /// Standard deviation of the new matrices.
    #[schemars(range(min = 0))]
    init_std: f64,
}

impl Default for MultiLabelConfig {
    fn default() -> Self {
        Self { dropout: None, positive_weights: PositiveWeights::default(), init_std: 0.02 }
    }
}

struct MultiLabel {
    config: MultiLabelConfig,
    /// The layers, and a weight for each class.
    attached: Option<(HeadLayers, Option<Vec<f32>>)>,
}

impl MultiLabel {
    fn attached(&self) -> Result<&(HeadLayers, Option<Vec<f32>>)> {
        self.attached.as_ref().ok_or_else(|| Error::new("the head is used before it was attached"))
    }
}

impl TaskHead for MultiLabel {
    type Config = MultiLabelConfig;
    const PROBLEM_TYPE: Option<&'static str> = Some(problem_type::MULTI_LABEL);

    fn new(config: MultiLabelConfig) -> Result<Self> {
        check_shares([("dropout", config.dropout.unwrap_or(0.0))])?;
        Ok(Self { config, attached: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        if task.labels.is_empty() {
            return Err(Error::new(format!("task `{}` has no class, and this head needs one at least", task.name)));
        }
        let shape = HeadShape {
            width: task.width,
            outputs: task.labels.len(),
            hidden: task.hidden_activation.as_deref(),
            bias: task.bias,
            init_std: self.config.init_std,
            dropout: self.config.dropout.unwrap_or(task.dropout),
        };
        let weights = self.config.positive_weights.resolve(task)?;
        self.attached = Some((shape.declare(model)?, weights));
        Ok(HeadSpec::new(FeatureKind::Pooled, TargetKind::MultiLabel, PredictionKind::MultiLabel))
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        self.attached()?.0.forward(features.tensor) // [examples, classes]
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let there = targets.tensor; // [examples, classes]
        let terms: usize = outputs.shape()?.iter().product();
        let column = |tensor: &Tensor| tensor.reshape([terms, 1]);
        let zero = Tensor::from_slice(&vec![0f32; terms], [terms, 1])?;
        let logs = Tensor::concat(&[&column(outputs)?, &zero], 1)?.log_softmax()?; // [terms, 2]: log s(z), log s(-z)
        let positive = match &self.attached()?.1 {
            Some(weights) => column(&there.mul(&Tensor::from_slice(weights, [weights.len()])?)?)?,
            None => column(there)?,
        };
        let counts = Tensor::concat(&[&positive, &column(&there.affine(-1.0, 1.0)?)?], 1)?; // [terms, 2]
        Ok(Loss { sum: logs.mul(&counts)?.sum()?.neg()?, weight: terms as f64 })
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        outputs.sigmoid() // [examples, classes]
    }
}

register! {
    /// Several classes an example from pooled features, by binary cross entropy.
    TaskHead "multi-label" => MultiLabel
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = [
        "linear@1", "dropout@1", "reshape@1", "concat@1", "log_softmax@1", "mul@1", "affine@1", "sum@1", "sigmoid@1", "tanh@1",
        "relu@1", "gelu@1"
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;

    #[test]
    fn refuses_a_dropout_of_one() {
        assert!(MultiLabel::new(from_value(json!({ "dropout": 1.0 })).unwrap()).is_err());
    }
}
