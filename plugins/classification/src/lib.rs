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
        Self { dropout: None, class_weights: ClassWeights::Rule(Rule::None), label_smoothing: 0.0, init_std: 0.02 }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum ClassWeights {
    Rule(Rule),
    List(Vec<f64>),
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Rule {
    None,
    Balanced,
}

impl ClassWeights {
    /// One weight for each class, or `None` where all are 1.
    fn resolve(&self, counts: &[u64], classes: usize) -> Result<Option<Vec<f32>>> {
        match self {
            Self::Rule(Rule::None) => Ok(None),
            Self::Rule(Rule::Balanced) => {
                let total = counts.iter().sum::<u64>() as f64 / classes as f64;
                // A class without examples never meets its weight.
                Ok(Some(counts.iter().map(|&count| (total / count.max(1) as f64) as f32).collect()))
            }
            Self::List(weights) if weights.len() != classes => Err(Error::new(format!(
                "class_weights lists {} weights, and the task has {classes} classes",
                weights.len()
            ))),
            Self::List(weights) => Ok(Some(weights.iter().map(|&weight| weight as f32).collect())),
        }
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
        Ok(HeadSpec {
            features: FeatureKind::Pooled,
            targets: TargetKind::Class,
            scope: LossScope::Example,
            sampling: Sampling::Shuffled,
            predictions: PredictionKind::Classes,
        })
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

    fn weights(option: Value) -> Result<Option<Vec<f32>>> {
        from_value::<ClassWeights>(option)?.resolve(&[10, 30], 2)
    }

    #[test]
    fn class_weights() {
        assert_eq!(weights(json!("none")).unwrap(), None);
        // scikit-learn: 40 / (2 * 10), 40 / (2 * 30)
        assert_eq!(weights(json!("balanced")).unwrap(), Some(vec![2.0, 2.0 / 3.0]));
        assert_eq!(weights(json!([1.0, 5.0])).unwrap(), Some(vec![1.0, 5.0]));
        assert!(weights(json!([1.0])).unwrap_err().to_string().contains("2 classes"));
        assert!(weights(json!("balance")).is_err());
    }

    #[test]
    fn refuses_shares_of_one() {
        for options in [json!({ "dropout": 1.0 }), json!({ "label_smoothing": 1.5 })] {
            assert!(Classification::new(from_value(options.clone()).unwrap()).is_err(), "{options}");
        }
    }
}
