//! Exponential decay of the learning rate, after an optional warm-up.
//!
//! eta(t) = eta min(1, t / w) gamma^n with w warm-up steps, where n whole epochs, or steps, lie behind. As torch's
//! `ExponentialLR`, which has no warm-up. At step 0 the rate is 0 with a warm-up and eta without.

use fthost_plugin_api::prelude::*;

/// Options of the exponential schedule.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExponentialConfig {
    /// Linear rise from 0 at the start: below 1 a share of the run, from 1 on a number of steps.
    #[serde(default)]
    warmup: Warmup,
    /// Factor of the rate from one epoch, or step, to the next.
    #[schemars(extend("exclusiveMinimum" = 0))]
    gamma: f64,
    /// How often the rate falls.
    #[serde(default)]
    unit: TimeUnit,
}

struct Exponential(ExponentialConfig);

impl Scheduler for Exponential {
    type Config = ExponentialConfig;

    fn new(config: ExponentialConfig) -> Result<Self> {
        config.warmup.check()?;
        if config.gamma <= 0.0 {
            return Err(Error::new(format!("gamma is {}, and must be above 0, such as 0.9", config.gamma)));
        }
        Ok(Self(config))
    }

    fn rate(&self, progress: &Progress, group: &Group<'_>) -> Result<Rate> {
        let ExponentialConfig { warmup, gamma, unit } = self.0;
        warmup.fits(progress)?;
        if unit.passed_in_all(progress) == 0 {
            let unit = unit.name();
            return Err(Error::new(format!(
                "unit is {unit:?} and the run ends before the first is over, so gamma would do nothing: give unit = \"steps\" with a \
                 gamma nearer to 1, or train longer"
            )));
        }
        Ok(group.scaled(warmup.factor(progress, |_| 1.0) * gamma.powf(unit.passed(progress) as f64)))
    }
}

register! {
    /// Falls by the same factor with every epoch or step, after an optional warm-up.
    Scheduler "exponential" => Exponential
}
export_plugin! { license = "MIT OR Apache-2.0" }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::{from_str, from_value};

    /// Learning rates of 40 steps at rate 1 against the numbers that `tests/reference/schedules.json` got from torch. torch
    /// has no warm-up here: the numbers are multiplied with its rise.
    fn check(options: Value, steps_per_epoch: u64, warmup: u64, reference: &str) {
        let schedule = Exponential::new(from_value(options).unwrap()).unwrap();
        let all: Value = from_str(include_str!("../../../tests/reference/schedules.json")).unwrap();
        let expected = all[reference].as_array().unwrap();
        assert_eq!(expected.len(), 40);
        for (step, expected) in expected.iter().enumerate() {
            let progress = Progress { step: step as u64, total_steps: 40, steps_per_epoch };
            let rate = schedule.rate(&progress, &Group::new(1.0, 0.9)).unwrap();
            let rise = if progress.step < warmup { step as f64 / warmup as f64 } else { 1.0 };
            let expected = expected[0].as_f64().unwrap() * rise;
            assert!((rate.lr - expected).abs() < 1e-12, "{reference}, step {step}: {rate:?}, not {expected}");
            assert_eq!(rate.momentum, 0.9);
        }
    }

    #[test]
    fn as_torch() {
        check(json!({ "gamma": 0.9, "unit": "steps" }), 7, 0, "exponential_0.9");
        check(json!({ "gamma": 0.9, "unit": "steps", "warmup": 0.1 }), 7, 4, "exponential_0.9");
    }

    #[test]
    fn per_epoch_as_torch_steps_once_an_epoch() {
        // A fall with every epoch of ten steps is a step schedule.
        check(json!({ "gamma": 0.5 }), 10, 0, "step_10_gamma0.5");
        check(json!({ "gamma": 0.5, "unit": "epochs", "warmup": 12 }), 10, 12, "step_10_gamma0.5");
    }

    #[test]
    fn refuses_what_is_no_factor() {
        for options in
            [json!({ "gamma": 0 }), json!({ "gamma": -0.5 }), json!({ "gamma": 0.5, "warmup": -1 }), json!({})]
        {
            assert!(from_value(options.clone()).map_err(Error::from).and_then(Exponential::new).is_err(), "{options}");
        }
    }
}
