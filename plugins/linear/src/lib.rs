//! Linear decay of the learning rate to 0, after an optional warm-up.
//!
//! eta(t) = eta t / w for t < w, then eta (T - t) / (T - w), with w warm-up steps of T. As Transformers'
//! `get_linear_schedule_with_warmup`, BERT's schedule. At step 0 the rate is 0 with a warm-up and eta without.

use fthost_plugin_api::prelude::*;

/// Options of the linear schedule.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("first_run" = { "warmup": 0.06 }))]
struct LinearConfig {
    /// Linear rise from 0 at the start: below 1 a share of the run, from 1 on a number of steps.
    warmup: Warmup,
}

struct Linear(LinearConfig);

impl Scheduler for Linear {
    type Config = LinearConfig;

    fn new(config: LinearConfig) -> Result<Self> {
        config.warmup.check()?;
        Ok(Self(config))
    }

    fn rate(&self, progress: &Progress, group: &Group<'_>) -> Result<Rate> {
        self.0.warmup.fits(progress)?;
        Ok(group.scaled(self.0.warmup.factor(progress, |done| (1.0 - done).max(0.0))))
    }
}

register! {
    /// Linear decay to 0, after an optional warm-up.
    Scheduler "linear" => Linear
}
export_plugin! { license = "MIT OR Apache-2.0" }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::{from_str, from_value};

    /// Learning rates of 40 steps at rate 1 against the numbers that `tests/reference/schedules.json` got from torch.
    fn check(options: Value, reference: &str) {
        let schedule = Linear::new(from_value(options).unwrap()).unwrap();
        let all: Value = from_str(include_str!("../../../tests/reference/schedules.json")).unwrap();
        let expected = all[reference].as_array().unwrap();
        assert!(expected.len() >= 40);
        for (step, expected) in expected.iter().take(40).enumerate() {
            let progress = Progress { step: step as u64, total_steps: 40, steps_per_epoch: 10 };
            let rate = schedule.rate(&progress, &Group::new(1.0, 0.9)).unwrap();
            assert!((rate.lr - expected[0].as_f64().unwrap()).abs() < 1e-12, "{reference}, step {step}: {rate:?}");
            assert_eq!(rate.momentum, 0.9);
        }
    }

    #[test]
    fn as_transformers() {
        check(json!({ "warmup": 4 }), "linear_warmup4_total40");
        check(json!({ "warmup": 0.1 }), "linear_warmup4_total40");
    }
}
