//! Polynomial decay of the learning rate to a share of it, after an optional warm-up.
//!
//! eta(t) = eta t / w for t < w, then eta (m + (1 - m) (1 - p)^k) with p = (t - w) / (T - w), w warm-up steps of T, the power
//! k and the share m at the end. As Transformers' `get_polynomial_decay_schedule_with_warmup` with `lr_end` = m eta; with
//! m = 0 and w = 0 torch's `PolynomialLR`. At step 0 the rate is 0 with a warm-up and eta without.

use fthost_plugin_api::prelude::*;

/// Options of the polynomial schedule.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct PolynomialConfig {
    /// Linear rise from 0 at the start: below 1 a share of the run, from 1 on a number of steps.
    warmup: Warmup,
    /// Power of the share of the run that is left: 1 falls on a line, above 1 fastest at first.
    #[schemars(extend("exclusiveMinimum" = 0))]
    power: f64,
    /// Where the rate ends, as a share of it.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    end: f64,
}

impl Default for PolynomialConfig {
    fn default() -> Self {
        Self { warmup: Warmup::default(), power: 1.0, end: 0.0 }
    }
}

struct Polynomial(PolynomialConfig);

impl Scheduler for Polynomial {
    type Config = PolynomialConfig;

    fn new(config: PolynomialConfig) -> Result<Self> {
        config.warmup.check()?;
        if config.power <= 0.0 {
            return Err(Error::new(format!("power is {}, and must be above 0: 1 falls on a line", config.power)));
        }
        if !(0.0..1.0).contains(&config.end) {
            return Err(Error::new(format!(
                "end is {}, and must be at least 0 and below 1: it is a share of the rate",
                config.end
            )));
        }
        Ok(Self(config))
    }

    fn rate(&self, progress: &Progress, group: &Group<'_>) -> Result<Rate> {
        let PolynomialConfig { warmup, power, end } = self.0;
        warmup.fits(progress)?;
        let left = |done: f64| (1.0 - done).max(0.0);
        Ok(group.scaled(warmup.factor(progress, |done| end + (1.0 - end) * left(done).powf(power))))
    }
}

register! {
    /// Polynomial decay to a share of the rate, after an optional warm-up.
    Scheduler "polynomial" => Polynomial
}
export_plugin! { license = "MIT OR Apache-2.0" }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::{from_str, from_value};

    /// Learning rates of 40 steps at rate 1 against the numbers that `tests/reference/schedules.json` got from torch.
    fn check(options: Value, reference: &str) {
        let schedule = Polynomial::new(from_value(options).unwrap()).unwrap();
        let all: Value = from_str(include_str!("../../../tests/reference/schedules.json")).unwrap();
        let expected = all[reference].as_array().unwrap();
        assert_eq!(expected.len(), 40);
        for (step, expected) in expected.iter().enumerate() {
            let progress = Progress { step: step as u64, total_steps: 40, steps_per_epoch: 10 };
            let rate = schedule.rate(&progress, &Group::new(1.0, 0.9)).unwrap();
            assert!((rate.lr - expected[0].as_f64().unwrap()).abs() < 1e-12, "{reference}, step {step}: {rate:?}");
            assert_eq!(rate.momentum, 0.9);
        }
    }

    #[test]
    fn as_transformers() {
        check(json!({ "warmup": 4, "power": 2, "end": 0.1 }), "polynomial_warmup4_power2_end0.1_total40");
        check(json!({ "warmup": 0.1 }), "linear_warmup4_total40");
    }

    #[test]
    fn as_torch() {
        check(json!({ "power": 2.0 }), "polynomial_power2_total40");
    }

    #[test]
    fn refuses_what_does_not_fall() {
        for options in [json!({ "power": 0 }), json!({ "end": 1 }), json!({ "end": -0.1 }), json!({ "warmup": -1 })] {
            assert!(Polynomial::new(from_value(options.clone()).unwrap()).is_err(), "{options}");
        }
    }
}
