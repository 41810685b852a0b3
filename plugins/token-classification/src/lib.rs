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
    layer: Option<Layer>,
}

/// What `attach` makes.
struct Layer {
    weight: Param, // [classes, width]
    bias: Param,   // [classes]
    dropout: f64,
    class_weights: Option<Vec<f32>>,
}

impl TokenClassification {
    fn layer(&self) -> Result<&Layer> {
        self.layer.as_ref().ok_or_else(|| Error::new("the head is used before it was attached"))
    }
}

impl TaskHead for TokenClassification {
    type Config = TokenClassificationConfig;
    const PROBLEM_TYPE: Option<&'static str> = Some(problem_type::TOKENS);

    fn new(config: TokenClassificationConfig) -> Result<Self> {
        for (option, value) in [("dropout", config.dropout.unwrap_or(0.0)), ("label_smoothing", config.label_smoothing)]
        {
            if !(0.0..1.0).contains(&value) {
                return Err(Error::new(format!("{option} is {value}, and must be at least 0 and below 1")));
            }
        }
        Ok(Self { config, layer: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        let (width, classes) = (task.width, task.labels.len());
        if classes < 2 {
            let only = task.labels.first().map_or_else(|| "no class".into(), |label| format!("no class but `{label}`"));
            return Err(Error::new(format!("task `{}` has {only}, and a classifier needs two", task.name)));
        }
        let normal = Init::Normal { mean: 0.0, std: self.config.init_std };
        self.layer = Some(Layer {
            weight: model.head_param("classifier.weight", [classes, width], normal)?,
            bias: model.head_param("classifier.bias", [classes], Init::Zeros)?,
            dropout: self.config.dropout.unwrap_or(task.dropout),
            class_weights: self.config.class_weights.resolve(&task.class_counts, classes)?,
        });
        Ok(HeadSpec::new(FeatureKind::Sequence, TargetKind::TokenClass, PredictionKind::Classes))
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        let Layer { weight, bias, dropout, .. } = self.layer()?;
        features.tensor.dropout(*dropout)?.linear(weight, Some(bias)) // [tokens, classes]
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let weights = self.layer()?.class_weights.as_ref();
        let weights = weights.map(|weights| Tensor::from_slice(weights, [weights.len()])).transpose()?; // [classes]
        let weights = weights.as_ref().map(|weights| weights as &dyn Operand);
        let (sum, weight) = outputs.cross_entropy(targets.tensor, weights, self.config.label_smoothing)?;
        Ok(Loss { sum, weight: weight.to_scalar()? })
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
