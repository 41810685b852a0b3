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
    layers: Option<Layers>,
}

/// What `attach` makes.
struct Layers {
    /// The architecture's extra layer: `[width, width]`, `[width]` and its activation.
    hidden: Option<(Param, Param, String)>,
    weight: Param, // [classes, width]
    bias: Param,   // [classes]
    dropout: f64,
    class_weights: Option<Vec<f32>>,
}

impl Classification {
    fn layers(&self) -> Result<&Layers> {
        self.layers.as_ref().ok_or_else(|| Error::new("the head is used before it was attached"))
    }
}

impl TaskHead for Classification {
    type Config = ClassificationConfig;
    const PROBLEM_TYPE: Option<&'static str> = Some(problem_type::SINGLE_LABEL);

    fn new(config: ClassificationConfig) -> Result<Self> {
        for (option, value) in [("dropout", config.dropout.unwrap_or(0.0)), ("label_smoothing", config.label_smoothing)]
        {
            if !(0.0..1.0).contains(&value) {
                return Err(Error::new(format!("{option} is {value}, and must be at least 0 and below 1")));
            }
        }
        Ok(Self { config, layers: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        let (width, classes) = (task.width, task.labels.len());
        if classes < 2 {
            let only = task.labels.first().map_or_else(|| "no class".into(), |label| format!("no class but `{label}`"));
            return Err(Error::new(format!("task `{}` has {only}, and a classifier needs two", task.name)));
        }
        let normal = || Init::Normal { mean: 0.0, std: self.config.init_std };
        let hidden = match &task.hidden_activation {
            Some(activation) => Some((
                model.head_param("dense.weight", [width, width], normal())?,
                model.head_param("dense.bias", [width], Init::Zeros)?,
                activation.clone(),
            )),
            None => None,
        };
        let layer = if hidden.is_some() { "out_proj" } else { "classifier" };
        self.layers = Some(Layers {
            hidden,
            weight: model.head_param(&format!("{layer}.weight"), [classes, width], normal())?,
            bias: model.head_param(&format!("{layer}.bias"), [classes], Init::Zeros)?,
            dropout: self.config.dropout.unwrap_or(task.dropout),
            class_weights: self.config.class_weights.resolve(&task.class_counts, classes)?,
        });
        Ok(HeadSpec::new(FeatureKind::Pooled, TargetKind::Class, PredictionKind::Classes))
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        let Layers { hidden, weight, bias, dropout, .. } = self.layers()?;
        let Some((dense, dense_bias, activation)) = hidden else {
            return features.tensor.dropout(*dropout)?.linear(weight, Some(bias)); // [examples, classes]
        };
        let hidden = features.tensor.linear(dense, Some(dense_bias))?.activation(activation)?; // [examples, width]
        hidden.dropout(*dropout)?.linear(weight, Some(bias)) // [examples, classes]
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let weights = self.layers()?.class_weights.as_ref();
        let weights = weights.map(|weights| Tensor::from_slice(weights, [weights.len()])).transpose()?; // [classes]
        let weights = weights.as_ref().map(|weights| weights as &dyn Operand);
        let (sum, weight) = outputs.cross_entropy(targets.tensor, weights, self.config.label_smoothing)?;
        Ok(Loss { sum, weight: weight.to_scalar()? })
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

    #[test]
    fn refuses_shares_of_one() {
        for options in [json!({ "dropout": 1.0 }), json!({ "label_smoothing": 1.5 })] {
            assert!(Classification::new(from_value(options.clone()).unwrap()).is_err(), "{options}");
        }
    }
}
