//! A head that learns which of two answers to a prompt is the better one: DPO (Rafailov et al. 2023, arXiv:2305.18290) or ORPO (Hong et al.
//! 2024, arXiv:2403.07691), by the model's own layer over its vocabulary.
//!
//! ```text
//! l(y)  = sum_t log p(y_t | prompt, y_<t)                                   over the tokens of an answer y, its end among them
//! r(y)  = beta (l(y) - l_ref(y))                                            the reward: l_ref is l by the model before training
//! DPO   = (1 - s) -log sigmoid(r(chosen) - r(rejected)) + s -log sigmoid(r(rejected) - r(chosen))          s: label_smoothing
//!
//! m(y)  = l(y) / |y|,    o(y) = m(y) - log(1 - exp m(y))                    log odds of an answer
//! ORPO  = -m(chosen) + beta -log sigmoid(o(chosen) - o(rejected))
//! ```
//!
//! Each is the mean over the pairs of an optimizer step. `-log sigmoid(a - b)` is the cross entropy of the logits (a, b) with the first, and
//! with label smoothing 2 s that of both directions. Before step 1 rewards are 0, and DPO's loss is log 2.

use fthost_plugin_api::VocabularyLayer;
use fthost_plugin_api::prelude::*;

/// What is minimised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Objective {
    /// Direct preference optimization: the better answer becomes more probable than it was, by more than the worse one.
    #[default]
    Dpo,
    /// Odds ratio preference optimization: the better answer is learned, and its odds against the worse one's; no reference.
    Orpo,
}

/// Options of the preference head.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct PreferenceConfig {
    /// What is minimised: dpo or orpo.
    loss: Objective,
    /// DPO: what rewards are multiplied with; the smaller, the further the model may go from the reference. ORPO: the weight of the odds
    /// ratio, lambda in the paper.
    #[schemars(extend("exclusiveMinimum" = 0))]
    beta: f64,
    /// DPO: the share of pairs whose answers are taken to be the wrong way round, in [0, 0.5).
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 0.5))]
    label_smoothing: f64,
    /// DPO: the reference holds all answers for equally probable, and takes no pass.
    reference_free: bool,
}

impl Default for PreferenceConfig {
    fn default() -> Self {
        Self { loss: Objective::Dpo, beta: 0.1, label_smoothing: 0.0, reference_free: false }
    }
}

struct Preference {
    config: PreferenceConfig,
    layer: Option<VocabularyLayer>,
}

/// The log of the odds of answers whose tokens have these mean log-probabilities, of the same shape. Where an answer is certain in `f32`, as
/// if it were not quite.
fn log_odds(mean: &Tensor) -> Result<Tensor> {
    let against = mean.exp()?.neg()?.add_scalar(1.0)?.maximum_scalar(f64::from(f32::EPSILON))?;
    mean.sub(&against.log()?)
}

/// The sum over the pairs of `-log sigmoid(first - second)` of `pairs` `[examples, 2]`, a share of it the other way round.
fn prefer_the_first(pairs: &Tensor, examples: usize, other_way: f64) -> Result<Tensor> {
    let first = Tensor::from_slice(&vec![0u32; examples], [examples])?;
    Ok(pairs.cross_entropy(&first, None, 2.0 * other_way)?.0)
}

impl TaskHead for Preference {
    type Config = PreferenceConfig;
    const PROBLEM_TYPE: Option<&'static str> = Some(problem_type::PREFERENCE);

    fn new(config: PreferenceConfig) -> Result<Self> {
        let PreferenceConfig { loss, beta, label_smoothing, reference_free } = config;
        if !(beta > 0.0 && beta.is_finite()) {
            return Err(Error::new(format!("beta is {beta}; it must be above 0")));
        }
        if !(0.0..0.5).contains(&label_smoothing) {
            return Err(Error::new(format!("label_smoothing is {label_smoothing}; it must be in [0, 0.5)")));
        }
        if loss == Objective::Orpo && (label_smoothing != 0.0 || reference_free) {
            return Err(Error::new(
                "label_smoothing and reference_free are DPO's: with loss = \"orpo\" leave them out",
            ));
        }
        Ok(Self { config, layer: None })
    }

    fn attach(&mut self, task: &TaskInfo, model: &mut Model) -> Result<HeadSpec> {
        self.layer = Some(VocabularyLayer::of(task, model, true)?);
        let spec = HeadSpec::new(FeatureKind::Sequence, TargetKind::Preference, PredictionKind::Preferences);
        let reference = self.config.loss == Objective::Dpo && !self.config.reference_free;
        Ok(HeadSpec { reference, ..spec })
    }

    /// Log-probabilities of both answers: DPO's are sums over the tokens, ORPO's means.
    fn forward(&self, features: &Features<'_>) -> Result<Tensor> {
        let layer = self.layer.as_ref().ok_or_else(|| Error::new("the head is used before it was attached"))?;
        let (sums, numbers) = layer.log_likelihood(features)?; // [2 examples]
        let found = match self.config.loss {
            Objective::Dpo => sums,
            Objective::Orpo => sums.div(&numbers.maximum_scalar(1.0)?)?,
        };
        found.reshape([features.offsets.len() / 2, 2]) // [examples, 2]
    }

    fn loss(&self, outputs: &Tensor, targets: &TaskTargets<'_>) -> Result<Loss> {
        let PreferenceConfig { loss, beta, label_smoothing, .. } = self.config;
        let examples = outputs.shape()?[0];
        let sum = match loss {
            Objective::Dpo => {
                let rewards = outputs.sub(targets.tensor)?.mul_scalar(beta)?; // [examples, 2]
                prefer_the_first(&rewards, examples, label_smoothing)?
            }
            Objective::Orpo => {
                let of_odds = prefer_the_first(&log_odds(outputs)?, examples, 0.0)?;
                of_odds.mul_scalar(beta)?.sub(&outputs.narrow(1, 0, 1)?.sum()?)?
            }
        };
        Ok(Loss { sum, weight: examples as f64 })
    }

    fn predict(&self, outputs: &Tensor) -> Result<Tensor> {
        outputs.mul_scalar(self.config.beta) // [examples, 2]
    }
}

register! {
    /// The better one of two answers, by DPO or ORPO.
    TaskHead "preference" => Preference
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = [
        "linear_log_likelihood@1", "reshape@1", "narrow@1", "sub@1", "div@1", "neg@1", "affine@1", "exp@1", "log@1", "clamp_min@1", "sum@1",
        "cross_entropy@1",
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;

    #[test]
    fn refuses_options_that_are_none_or_do_nothing() {
        let made = |config| Preference::new(from_value(config).unwrap()).map(drop);
        for wrong in [
            json!({ "beta": 0.0 }),
            json!({ "label_smoothing": 0.5 }),
            json!({ "label_smoothing": -0.1 }),
            json!({ "loss": "orpo", "label_smoothing": 0.1 }),
            json!({ "loss": "orpo", "reference_free": true }),
        ] {
            assert!(made(wrong.clone()).is_err(), "{wrong}");
        }
        for right in [json!({}), json!({ "label_smoothing": 0.2, "reference_free": true }), json!({ "loss": "orpo" })] {
            made(right).unwrap();
        }
    }
}
