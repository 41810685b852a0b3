//! A head that learns how alike two texts are, by the cosine of their features: sentence-BERT's regression objective (Reimers and Gurevych
//! 2019, arXiv:1908.10084).
//!
//! ```text
//! c    = a b / (|a| |b|)                                                a, b: pooled features of the two texts
//! loss = mean of (c - t)^2                                              t: the target, brought from `scale` to `cosines`
//! ```
//!
//! as sentence-transformers' `CosineSimilarityLoss`. Predictions are brought back to the data's own scale. The head has no parameters: before
//! step 1 texts are as alike as the model has them.

use fthost_plugin_api::prelude::*;

/// Options of the similarity head.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct SimilarityConfig {
    /// The least and the greatest value that the data may have: [0, 5] for STS.
    scale: [f64; 2],
    /// The cosines that they stand for, from -1 to 1.
    cosines: [f64; 2],
}

impl Default for SimilarityConfig {
    fn default() -> Self {
        Self { scale: [0.0, 1.0], cosines: [0.0, 1.0] }
    }
}

/// Targets are `f32`, and the options' numbers are not.
const ROUNDING: f64 = 1e-6;

struct Similarity {
    scale: [f64; 2],
    cosines: [f64; 2],
}

/// The factor and the summand that bring one range to another.
fn between(from: [f64; 2], to: [f64; 2]) -> (f64, f64) {
    let factor = (to[1] - to[0]) / (from[1] - from[0]);
    (factor, to[0] - factor * from[0])
}

impl TaskHead for Similarity {
    type Config = SimilarityConfig;
    const PROBLEM_TYPE: Option<&'static str> = Some(problem_type::SIMILARITY);

    fn new(SimilarityConfig { scale, cosines }: SimilarityConfig) -> Result<Self> {
        for (option, [least, greatest]) in [("scale", scale), ("cosines", cosines)] {
            if !(least < greatest && least.is_finite() && greatest.is_finite()) {
                return Err(Error::new(format!(
                    "{option} is [{least}, {greatest}], and must be two numbers, the smaller one first"
                )));
            }
        }
        if cosines[0] < -1.0 || cosines[1] > 1.0 {
            return Err(Error::new(format!("cosines is {cosines:?}, and cosines lie from -1 to 1")));
        }
        Ok(Self { scale, cosines })
    }

    fn attach(&mut self, task: &TaskInfo, _: &mut Model) -> Result<HeadSpec> {
        if task.sequences != 2 {
            let (name, texts) = (&task.name, task.sequences);
            return Err(Error::new(format!(
                "this head compares two texts a row, and task `{name}` has {texts}: name both, and how alike they are, by columns = \
                 {{ text = \"...\", text_pair = \"...\", label = \"...\" }}"
            )));
        }
        Ok(HeadSpec::new(FeatureKind::Pooled, TargetKind::Value, PredictionKind::Values))
    }

    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        let [rows, width] = features.tensor.shape()?[..] else { return Err(Error::new("pooled features are rows")) };
        let texts = features.tensor.normalize()?.reshape([rows / 2, 2, width])?;
        let cosines = texts.narrow(1, 0, 1)?.mul(&texts.narrow(1, 1, 1)?)?.sum_dim(-1, false)?; // [examples, 1]
        cosines.sum_dim(-1, false) // [examples]
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let [least, greatest] = self.scale;
        let (room, values) = (ROUNDING * (greatest - least), targets.tensor.to_vec_f64()?);
        if let Some(wrong) = values.iter().find(|value| !(least - room..=greatest + room).contains(*value)) {
            return Err(Error::new(format!(
                "a target is {wrong}, and scale says that they lie from {least} to {greatest}: set scale to the data's own, as \
                 scale = [0, 5]"
            )));
        }
        let (factor, summand) = between(self.scale, self.cosines);
        let sum = outputs.squared_error(&targets.tensor.affine(factor, summand)?)?;
        Ok(Loss { sum, weight: values.len() as f64 })
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        let (factor, summand) = between(self.cosines, self.scale);
        outputs.affine(factor, summand) // [examples]
    }
}

register! {
    /// How alike two texts are, by the cosine of their features.
    TaskHead "similarity" => Similarity
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = [
        "square@1", "sum_dim@1", "clamp_min@1", "sqrt@1", "div@1", "reshape@1", "narrow@1", "mul@1", "affine@1", "sub@1", "sum@1"
    ],
    min_host_minor = 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::test::Host;

    #[test]
    fn refuses_what_cannot_be_meant() {
        let check = |host: Host, options: Value, expected: &str| {
            let Err(error) = host.head::<Similarity>(options.clone()) else { panic!("{options} is taken") };
            assert!(error.to_string().contains(expected), "{error}");
        };
        let pairs = Host::new().sequences(2);
        check(pairs, json!({ "scale": [5.0, 0.0] }), "scale is [5, 0], and must be two numbers, the smaller one first");
        check(pairs, json!({ "scale": [1.0, 1.0] }), "the smaller one first");
        check(pairs, json!({ "cosines": [-2.0, 1.0] }), "cosines lie from -1 to 1");
        check(Host::new(), json!({}), "task `toy-task` has 1: name both");
        check(pairs.sequences(3), json!({}), "task `toy-task` has 3");
        let run = pairs.head::<Similarity>(json!({})).unwrap();
        let error = run.loss([2], &[0.5, 0.5], &[1.0, 3.8]).unwrap_err().to_string();
        assert!(error.contains("a target is 3.8, and scale says that they lie from 0 to 1"), "{error}");
    }

    #[test]
    fn its_loss_is_a_sum_of_squares_on_the_datas_scale() {
        // The toy's targets are normal.
        for options in [json!({ "scale": [-10.0, 10.0] }), json!({ "scale": [-4.0, 6.0], "cosines": [-1.0, 1.0] })] {
            let run = Host::new().sequences(2).head::<Similarity>(options.clone()).unwrap();
            run.check().unwrap_or_else(|error| panic!("{options}: {error}"));
        }
        let run = Host::new().sequences(2).head::<Similarity>(json!({ "scale": [0.0, 5.0] })).unwrap();
        let (sum, weight) = run.loss([2], &[0.9, 0.25], &[4.0, 0.0]).unwrap();
        assert!((sum - (0.1f64.powi(2) + 0.25f64.powi(2))).abs() < 1e-12 && weight == 2.0, "{sum} over {weight}");
        assert_eq!(run.predict([2], &[0.8, -0.5]).unwrap(), [4.0, -2.5]);
        let run = Host::new().sequences(2).head::<Similarity>(json!({ "scale": [1.0, 5.0], "cosines": [-1.0, 1.0] }));
        assert_eq!(run.unwrap().predict([3], &[-1.0, 0.0, 1.0]).unwrap(), [1.0, 3.0, 5.0]);
    }
}
