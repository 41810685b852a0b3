//! Warmup-stable-decay (Hu et al. 2024, MiniCPM, arXiv:2404.06395): the rate rises, stays, and falls in the last part of the run.
//!
//! eta(t) = eta (m + (1 - m) t / w) for t < w, eta for t < T - d, then eta (m + (1 - m) f(p)) with p = (t - T + d) / d, w warm-up
//! steps and d steps of decay of T, and the floor m. f(p) is 1 - p ("linear"), (1 + cos(pi p)) / 2 ("cosine") or 1 - sqrt(p)
//! ("1-sqrt", Hägele et al. 2024, arXiv:2405.18392). As Transformers' `get_wsd_schedule`. At step 0 the rate is m eta with a warm-up
//! and eta without.

use std::f64::consts::PI;

use fthost_plugin_api::prelude::*;

/// How the rate falls.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
enum Shape {
    #[default]
    #[serde(rename = "linear")]
    Linear,
    #[serde(rename = "cosine")]
    Cosine,
    #[serde(rename = "1-sqrt")]
    OneMinusSqrt,
}

impl Shape {
    /// What is left of the rate where a share of the decay lies behind: 1 where it begins, 0 at its end.
    fn left(self, done: f64) -> f64 {
        match self {
            Self::Linear => 1.0 - done,
            Self::Cosine => 0.5 * (1.0 + (PI * done).cos()),
            Self::OneMinusSqrt => 1.0 - done.sqrt(),
        }
    }
}

/// Options of the warmup-stable-decay schedule.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct WsdConfig {
    /// Linear rise from the floor at the start: below 1 a share of the run, from 1 on a number of steps.
    warmup: Warmup,
    /// The fall at the end: below 1 a share of the run, from 1 on a number of steps.
    #[schemars(extend("exclusiveMinimum" = 0, "search" = [0.1, 0.2, 0.4]))]
    decay: f64,
    /// How the rate falls.
    shape: Shape,
    /// The floor, as a share of the rate.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    min: f64,
}

impl Default for WsdConfig {
    fn default() -> Self {
        Self { warmup: Warmup::default(), decay: 0.1, shape: Shape::default(), min: 0.0 }
    }
}

struct Wsd(WsdConfig);

impl Scheduler for Wsd {
    type Config = WsdConfig;

    fn new(config: WsdConfig) -> Result<Self> {
        config.warmup.check()?;
        if !(config.decay.is_finite() && config.decay > 0.0) {
            return Err(Error::new(format!(
                "decay is {}, and must be above 0: a share of the run below 1, or a number of steps",
                config.decay
            )));
        }
        if !(0.0..1.0).contains(&config.min) {
            return Err(Error::new(format!(
                "min is {}, and must be at least 0 and below 1: it is a share of the rate",
                config.min
            )));
        }
        Ok(Self(config))
    }

    fn rate(&self, progress: &Progress, group: &Group<'_>) -> Result<Rate> {
        let WsdConfig { warmup, decay, shape, min } = self.0;
        warmup.fits(progress)?;
        let Progress { step, total_steps: total, .. } = *progress;
        // The decay's length is said as that of a warm-up is.
        let (rise, fall) = (warmup.steps(total), Warmup(decay).steps(total));
        if rise + fall > total {
            return Err(Error::new(format!(
                "warmup takes {rise} steps, decay {fall}, and the run {total}, so the decay would begin before the warm-up ends: give \
                 fewer, or shares of the run below 1, such as 0.1"
            )));
        }
        let (begin, above_floor) = (total - fall, 1.0 - min);
        let factor = if step < rise {
            min + above_floor * (step as f64 / rise as f64)
        } else if step < begin {
            1.0
        } else {
            min + above_floor * shape.left(((step - begin) as f64 / fall as f64).min(1.0))
        };
        Ok(group.scaled(factor))
    }
}

register! {
    /// Rises, stays constant, and falls in the last part of the run.
    Scheduler "wsd" => Wsd
}
export_plugin! { license = "MIT OR Apache-2.0" }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::{from_str, from_value};

    fn wsd(options: &Value) -> Result<Wsd> {
        from_value(options.clone()).map_err(Error::from).and_then(Wsd::new)
    }

    fn rate(schedule: &Wsd, step: u64, total_steps: u64) -> Result<f64> {
        let progress = Progress { step, total_steps, steps_per_epoch: 10 };
        let rate = schedule.rate(&progress, &Group::new(1.0, 0.9))?;
        assert_eq!(rate.momentum, 0.9);
        Ok(rate.lr)
    }

    /// Learning rates of 40 steps at rate 1 against the numbers that `tests/reference/schedules.json` got from Transformers.
    fn check(options: Value, reference: &str) {
        let schedule = wsd(&options).unwrap();
        let all: Value = from_str(include_str!("../../../tests/reference/schedules.json")).unwrap();
        let expected = all[reference].as_array().unwrap();
        assert_eq!(expected.len(), 40);
        for (step, expected) in expected.iter().enumerate() {
            let (lr, expected) = (rate(&schedule, step as u64, 40).unwrap(), expected[0].as_f64().unwrap());
            assert!((lr - expected).abs() < 1e-12, "{reference}, step {step}: {lr}, not {expected}");
        }
    }

    #[test]
    fn as_transformers() {
        check(json!({ "warmup": 4, "decay": 8 }), "wsd_linear_warmup4_decay8_total40");
        check(json!({ "warmup": 0.1, "decay": 0.2 }), "wsd_linear_warmup4_decay8_total40");
        check(json!({ "decay": 10, "shape": "cosine", "min": 0.1 }), "wsd_cosine_decay10_min0.1_total40");
        let options = json!({ "warmup": 4, "decay": 8, "shape": "1-sqrt", "min": 0.2 });
        check(options, "wsd_1sqrt_warmup4_decay8_min0.2_total40");
    }

    #[test]
    fn the_rate_may_fall_at_once_or_at_the_last_step() {
        // Nothing between the warm-up and the decay.
        let steep = wsd(&json!({ "warmup": 2, "decay": 2 })).unwrap();
        let rates: Vec<f64> = (0..4).map(|step| rate(&steep, step, 4).unwrap()).collect();
        assert_eq!(rates, [0.0, 0.5, 1.0, 0.5]);
        let late = wsd(&json!({ "decay": 1 })).unwrap();
        assert_eq!((rate(&late, 0, 1).unwrap(), rate(&late, 99, 100).unwrap()), (1.0, 1.0));
    }

    #[test]
    fn refuses_what_is_no_decay_and_what_a_run_does_not_hold() {
        for options in [
            json!({ "decay": 0 }),
            json!({ "decay": -0.1 }),
            json!({ "min": 1 }),
            json!({ "warmup": -1 }),
            json!({ "shape": "exponential" }),
        ] {
            assert!(wsd(&options).is_err(), "{options}");
        }
        for options in [json!({ "decay": 11 }), json!({ "warmup": 0.6, "decay": 0.5 }), json!({ "warmup": 10 })] {
            let error = rate(&wsd(&options).unwrap(), 0, 10).unwrap_err().to_string();
            assert!(error.contains("steps") && error.contains("give fewer"), "{options}: {error}");
        }
    }
}
