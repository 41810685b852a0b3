//! Cosine decay of the learning rate (Loshchilov and Hutter 2016, arXiv:1608.03983), after an optional warm-up.
//!
//! eta(t) = eta t / w for t < w, then eta (m + (1 - m) max(0, (1 + cos(2 pi c p)) / 2)) with p = (t - w) / (T - w), w
//! warm-up steps of T, c cycles and the floor m. With m = 0 it is Transformers' `get_cosine_schedule_with_warmup`, with
//! w = 0 and c = 1/2 torch's `CosineAnnealingLR` down to m eta. At step 0 the rate is 0 with a warm-up and eta without.

use std::f64::consts::TAU;

use fthost_plugin_api::prelude::*;

/// Options of the cosine schedule.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct CosineConfig {
    /// Linear rise from 0 at the start: below 1 a share of the run, from 1 on a number of steps.
    warmup: Warmup,
    /// Waves of the cosine: a half one ends at the floor.
    #[schemars(range(min = 0))]
    cycles: f64,
    /// The floor, as a share of the rate.
    #[schemars(range(min = 0, max = 1))]
    min: f64,
}

impl Default for CosineConfig {
    fn default() -> Self {
        Self { warmup: Warmup::default(), cycles: 0.5, min: 0.0 }
    }
}

struct Cosine(CosineConfig);

impl Scheduler for Cosine {
    type Config = CosineConfig;

    fn new(config: CosineConfig) -> Result<Self> {
        config.warmup.check()?;
        if !(0.0..=1.0).contains(&config.min) {
            return Err(Error::new(format!(
                "min is {}, and must lie between 0 and 1: it is a share of the rate",
                config.min
            )));
        }
        Ok(Self(config))
    }

    fn rate(&self, progress: &Progress, group: &Group) -> Result<Rate> {
        let CosineConfig { warmup, cycles, min } = self.0;
        let wave = |done: f64| min + (1.0 - min) * (0.5 * (1.0 + (TAU * cycles * done).cos())).max(0.0);
        Ok(group.scaled(warmup.factor(progress, wave)))
    }
}

register! {
    /// Cosine decay, after an optional warm-up.
    Scheduler "cosine" => Cosine
}
export_plugin! { license = "MIT OR Apache-2.0" }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::{from_str, from_value};

    /// Learning rates of 40 steps at rate 1 against the numbers that `tests/reference/schedules.json` got from torch.
    fn check(options: Value, reference: &str) {
        let schedule = Cosine::new(from_value(options).unwrap()).unwrap();
        let all: Value = from_str(include_str!("../../../tests/reference/schedules.json")).unwrap();
        let expected = all[reference].as_array().unwrap();
        assert!(expected.len() >= 40);
        for (step, expected) in expected.iter().take(40).enumerate() {
            let progress = Progress { step: step as u64, total_steps: 40, steps_per_epoch: 10 };
            let rate = schedule.rate(&progress, &Group { lr: 1.0, momentum: 0.9 }).unwrap();
            assert!((rate.lr - expected[0].as_f64().unwrap()).abs() < 1e-12, "{reference}, step {step}: {rate:?}");
            assert_eq!(rate.momentum, 0.9);
        }
    }

    #[test]
    fn as_transformers() {
        check(json!({ "warmup": 4 }), "cosine_warmup4_total40");
        check(json!({ "warmup": 0.1 }), "cosine_warmup4_total40");
    }

    #[test]
    fn as_torch() {
        check(json!({ "min": 0.1 }), "cosine_annealing_T40_min0.1");
    }
}
