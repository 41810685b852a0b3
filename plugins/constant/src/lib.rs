//! A constant learning rate, after an optional warm-up.
//!
//! eta(t) = eta min(1, t / w) with w warm-up steps, eta without them. As Transformers'
//! `get_constant_schedule_with_warmup`. At step 0 the rate is 0 with a warm-up and eta without.

use fthost_plugin_api::prelude::*;

/// Options of the constant schedule.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ConstantConfig {
    /// Linear rise from 0 at the start: below 1 a share of the run, from 1 on a number of steps.
    warmup: Warmup,
}

struct Constant(ConstantConfig);

impl Scheduler for Constant {
    type Config = ConstantConfig;

    fn new(config: ConstantConfig) -> Result<Self> {
        config.warmup.check()?;
        Ok(Self(config))
    }

    fn rate(&self, progress: &Progress, group: &Group<'_>) -> Result<Rate> {
        self.0.warmup.fits(progress)?;
        Ok(group.scaled(self.0.warmup.factor(progress, |_| 1.0)))
    }
}

register! {
    /// The same rate at every step, after an optional warm-up.
    Scheduler "constant" => Constant
}
export_plugin! { license = "MIT OR Apache-2.0" }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_value;

    fn factor(warmup: f64, step: u64) -> f64 {
        let schedule = Constant::new(from_value(json!({ "warmup": warmup })).unwrap()).unwrap();
        let progress = Progress { step, total_steps: 40, steps_per_epoch: 10 };
        schedule.rate(&progress, &Group::new(2.0, 0.9)).unwrap().lr / 2.0
    }

    #[test]
    fn rises_in_the_warmup_and_stays() {
        for (warmup, step, expected) in
            [(0.0, 0, 1.0), (4.0, 0, 0.0), (4.0, 1, 0.25), (4.0, 4, 1.0), (0.1, 2, 0.5), (0.1, 39, 1.0)]
        {
            assert_eq!(factor(warmup, step), expected, "warmup {warmup}, step {step}");
        }
    }

    #[test]
    fn refuses_a_negative_warmup() {
        assert!(Constant::new(from_value(json!({ "warmup": -1 })).unwrap()).is_err());
    }
}
