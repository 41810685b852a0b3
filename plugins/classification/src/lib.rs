//! A classification head: logits = W h + b over pooled features h, trained by cross entropy.
//!
//! ```text
//! loss = (sum_i w[t_i] (1 - s) (-log p_i[t_i]) + s / C sum_c w[c] (-log p_i[c])) / sum_i w[t_i]
//! ```
//!
//! torch's cross entropy with class weights w and label smoothing s (Szegedy et al. 2015, arXiv:1512.00567). Where the architecture's own head
//! has one more dense layer (RoBERTa, DistilBERT), so has this one: logits = W act(V h + c) + b. Matrices start
//! N(0, 0.02) and biases at zero, as in Transformers, so at step 0 all classes are about equally likely.
//!
//! With `r_drop` each example passes through the model twice, under other dropout masks, and both passes shall say the same (R-Drop, Liang et al.
//! 2021, arXiv:2106.14448): the loss is the mean of both cross entropies, and
//! `alpha / 2 sum_i w[t_i] (KL(p_i | q_i) + KL(q_i | p_i)) / sum_i w[t_i]` is added.

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
    /// R-Drop: weight of the distance between what two passes of an example say under other dropout masks; above 0 a step takes twice as long.
    #[schemars(range(min = 0))]
    r_drop: f64,
    /// Standard deviation of the new matrices.
    #[schemars(range(min = 0))]
    init_std: f64,
}

impl Default for ClassificationConfig {
    fn default() -> Self {
        Self {
            dropout: None,
            class_weights: ClassWeights::default(),
            label_smoothing: 0.0,
            r_drop: 0.0,
            init_std: 0.02,
        }
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

impl Classification {
    /// How far what two passes say is apart, there and back, over the examples by their classes' weights: a scalar.
    fn apart(&self, first: &Tensor, second: &Tensor, targets: &TaskTargets<'_>) -> Result<Tensor> {
        let (p, q) = (first.log_softmax()?, second.log_softmax()?); // [examples, classes]
        // p (log p - log q) + q (log q - log p)
        let terms = p.exp()?.sub(&q.exp()?)?.mul(&p.sub(&q)?)?;
        let Some(weights) = &self.attached()?.1.weights else { return terms.sum() };
        let of = targets.tensor.to_vec_u32()?.into_iter().map(|class| weights[class as usize]).collect::<Vec<_>>();
        terms.mul(&Tensor::from_slice(&of, [of.len(), 1])?)?.sum()
    }
}

impl TaskHead for Classification {
    type Config = ClassificationConfig;
    const PROBLEM_TYPE: Option<&'static str> = Some(problem_type::SINGLE_LABEL);

    fn new(config: ClassificationConfig) -> Result<Self> {
        check_shares([("dropout", config.dropout.unwrap_or(0.0)), ("label_smoothing", config.label_smoothing)])?;
        if !(config.r_drop.is_finite() && config.r_drop >= 0.0) {
            return Err(Error::new(format!("r_drop is {}, and must be a number from 0 up", config.r_drop)));
        }
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
        Ok(HeadSpec {
            forwards: if self.config.r_drop > 0.0 { 2 } else { 1 },
            ..HeadSpec::new(FeatureKind::Pooled, TargetKind::Class, PredictionKind::Classes)
        })
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        self.attached()?.0.forward(features.tensor) // [examples, classes]
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let loss = &self.attached()?.1;
        let (rows, passed) = (targets.tensor.shape()?[0], outputs.shape()?[0]);
        // In evaluation there is one pass.
        if passed == rows {
            return loss.loss(outputs, targets);
        }
        let [first, second] = [outputs.narrow(0, 0, rows)?, outputs.narrow(0, rows, rows)?]; // [examples, classes]
        let (one, other) = (loss.loss(&first, targets)?, loss.loss(&second, targets)?);
        let apart = self.apart(&first, &second, targets)?.mul_scalar(self.config.r_drop / 2.0)?;
        Ok(Loss { sum: one.sum.add(&other.sum)?.mul_scalar(0.5)?.add(&apart)?, weight: one.weight })
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
    ops = [
        "add@1", "affine@1", "linear@1", "dropout@1", "cross_entropy@1", "exp@1", "gelu@1", "log_softmax@1", "mul@1", "narrow@1",
        "relu@1", "softmax@1", "sub@1", "sum@1", "tanh@1"
    ],
    min_host_minor = 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;
    use fthost_plugin_api::test::Host;

    #[test]
    fn refuses_what_cannot_be_meant() {
        for options in [json!({ "dropout": 1.0 }), json!({ "label_smoothing": 1.5 }), json!({ "r_drop": -1.0 })] {
            assert!(Classification::new(from_value(options.clone()).unwrap()).is_err(), "{options}");
        }
    }

    #[test]
    fn its_loss_is_a_sum_and_a_weight() {
        for options in [
            json!({}),
            json!({ "label_smoothing": 0.2, "class_weights": "balanced", "dropout": 0.4 }),
            json!({ "class_weights": [1.0, 2.0, 0.5] }),
            json!({ "r_drop": 2.0 }),
            json!({ "r_drop": 0.5, "label_smoothing": 0.2, "class_weights": [1.0, 2.0, 0.5], "dropout": 0.4 }),
        ] {
            let run = Host::new().head::<Classification>(options.clone()).unwrap();
            run.check().unwrap_or_else(|error| panic!("{options}: {error}"));
        }
        let losses = Host::new().head::<Classification>(json!({})).unwrap().train(1, 20).unwrap();
        assert!(losses[19] < losses[0], "{losses:?}");
    }

    #[test]
    fn two_passes_are_to_say_the_same() {
        let run =
            Host::new().head::<Classification>(json!({ "r_drop": 3.0, "class_weights": [1.0, 2.0, 0.5] })).unwrap();
        assert_eq!(run.spec().forwards, 2);
        let shares = |logits: &[f64]| {
            let sum: f64 = logits.iter().map(|x| x.exp()).sum();
            logits.iter().map(|x| x.exp() / sum).collect::<Vec<f64>>()
        };
        // Two examples, of the classes 1 and 2; the rows of the first pass, then those of the second.
        let passes = [[0.3, -0.2, 1.0], [0.1, 0.9, -1.2], [0.5, 0.4, -0.3], [-0.7, 1.1, 0.2]];
        let mut expected = 0.0;
        for (example, (class, weight)) in [(1, 2.0), (2, 0.5)].into_iter().enumerate() {
            let (p, q) = (shares(&passes[example]), shares(&passes[2 + example]));
            let apart: f64 = p.iter().zip(&q).map(|(p, q)| (p - q) * (p / q).ln()).sum();
            expected += weight * (-(p[class] * q[class]).ln() / 2.0 + 3.0 / 2.0 * apart);
        }
        let (sum, weight) = run.loss([4, 3], &passes.concat(), &[1.0, 2.0]).unwrap();
        assert!((sum - expected).abs() < 1e-6 && weight == 2.5, "{sum}, and not {expected}, over {weight}");
    }
}
