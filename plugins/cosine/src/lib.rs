//! Cosine decay of the learning rate (Loshchilov and Hutter 2016, arXiv:1608.03983), after an optional warm-up; once
//! ("cosine") or with warm restarts ("cosine-restarts").
//!
//! eta(t) = eta t / w for t < w, then eta (m + (1 - m) max(0, (1 + cos(2 pi c p)) / 2)) with p = (t - w) / (T - w), w
//! warm-up steps of T, c cycles and the floor m. With m = 0 it is Transformers' `get_cosine_schedule_with_warmup`, with
//! w = 0 and c = 1/2 torch's `CosineAnnealingLR` down to m eta. At step 0 the rate is 0 with a warm-up and eta without.
//!
//! With restarts the rest of the run is n cycles, each g times as long as the one before, and in each the rate falls from eta
//! to m eta: c = 1/2, and p is the share of the cycle that lies behind. With g = 1 and m = 0 it is Transformers'
//! `get_cosine_with_hard_restarts_schedule_with_warmup`; torch's `CosineAnnealingWarmRestarts` has w = 0, `T_mult` = g and
//! `T_0` = T / (1 + g + ... + g^(n-1)).

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

/// Options of the cosine schedule with restarts.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RestartsConfig {
    /// Linear rise from 0 at the start: below 1 a share of the run, from 1 on a number of steps.
    warmup: Warmup,
    /// How often the rate falls to the floor: one more than there are restarts.
    #[schemars(range(min = 1, max = 1000))]
    cycles: u32,
    /// How many times as long each cycle is as the one before.
    #[schemars(range(min = 1))]
    growth: f64,
    /// The floor, as a share of the rate.
    #[schemars(range(min = 0, max = 1))]
    min: f64,
}

impl Default for RestartsConfig {
    fn default() -> Self {
        Self { warmup: Warmup::default(), cycles: 3, growth: 1.0, min: 0.0 }
    }
}

fn check(warmup: Warmup, min: f64) -> Result<()> {
    warmup.check()?;
    if (0.0..=1.0).contains(&min) {
        return Ok(());
    }
    Err(Error::new(format!("min is {min}, and must lie between 0 and 1: it is a share of the rate")))
}

/// The factor of the rate where a share of so many waves lies behind.
fn wave(cycles: f64, done: f64, min: f64) -> f64 {
    min + (1.0 - min) * (0.5 * (1.0 + (TAU * cycles * done).cos())).max(0.0)
}

struct Cosine(CosineConfig);

impl Scheduler for Cosine {
    type Config = CosineConfig;

    fn new(config: CosineConfig) -> Result<Self> {
        check(config.warmup, config.min)?;
        Ok(Self(config))
    }

    fn rate(&self, progress: &Progress, group: &Group<'_>) -> Result<Rate> {
        let CosineConfig { warmup, cycles, min } = self.0;
        warmup.fits(progress)?;
        Ok(group.scaled(warmup.factor(progress, |done| wave(cycles, done, min))))
    }
}

struct Restarts {
    config: RestartsConfig,
    /// Of all cycles together, in lengths of the first.
    length: f64,
}

impl Restarts {
    /// The share of its cycle that lies behind, where `done` is that of all.
    fn done_of_cycle(&self, done: f64) -> f64 {
        let (mut passed, mut length) = (done * self.length, 1.0);
        for _ in 1..self.config.cycles {
            // A rounded last digit must not put a restart off by a step.
            if passed < length * (1.0 - 1e-9) {
                break;
            }
            passed -= length;
            length *= self.config.growth;
        }
        (passed / length).clamp(0.0, 1.0)
    }
}

impl Scheduler for Restarts {
    type Config = RestartsConfig;

    fn new(config: RestartsConfig) -> Result<Self> {
        check(config.warmup, config.min)?;
        let RestartsConfig { cycles, growth, .. } = config;
        if cycles == 0 {
            return Err(Error::new("cycles is 0, so the rate would never fall: give at least 1"));
        }
        if growth < 1.0 {
            return Err(Error::new(format!("growth is {growth}: give at least 1, with which all cycles are as long")));
        }
        if cycles == 1 && growth != 1.0 {
            return Err(Error::new("growth does nothing with one cycle: give more cycles, or leave growth out"));
        }
        let length: f64 = (0..cycles).map(|cycle| growth.powf(f64::from(cycle))).sum();
        if !length.is_finite() {
            return Err(Error::new(format!(
                "with {cycles} cycles and growth {growth} nothing is left for the first cycle: give smaller numbers"
            )));
        }
        Ok(Self { config, length })
    }

    fn rate(&self, progress: &Progress, group: &Group<'_>) -> Result<Rate> {
        let RestartsConfig { warmup, min, cycles, .. } = self.config;
        warmup.fits(progress)?;
        let steps = progress.total_steps.saturating_sub(warmup.steps(progress.total_steps));
        if cycles > 1 && (steps as f64) < self.length {
            return Err(Error::new(format!(
                "cycles is {cycles}, and the {steps} steps of the run do not hold them: the first would be shorter than a step; give \
                 fewer"
            )));
        }
        Ok(group.scaled(warmup.factor(progress, |done| wave(0.5, self.done_of_cycle(done), min))))
    }
}

register! {
    /// Cosine decay, after an optional warm-up.
    Scheduler "cosine" => Cosine,
    /// Cosine decay that starts again several times, after an optional warm-up.
    Scheduler "cosine-restarts" => Restarts
}
export_plugin! { license = "MIT OR Apache-2.0" }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::{from_str, from_value};
    use fthost_plugin_api::test::Host;

    fn rates<S: Scheduler>(options: Value, total_steps: u64) -> Vec<Rate> {
        let schedule = S::new(from_value(options).unwrap()).unwrap();
        let progress = |step| Progress { step, total_steps, steps_per_epoch: 10 };
        (0..total_steps).map(|step| schedule.rate(&progress(step), &Group::new(1.0, 0.9)).unwrap()).collect()
    }

    /// Learning rates of a run at rate 1 against the numbers that `tests/reference/schedules.json` got from torch.
    fn check<S: Scheduler>(options: Value, reference: &str) {
        let all: Value = from_str(include_str!("../../../tests/reference/schedules.json")).unwrap();
        let expected = all[reference].as_array().unwrap();
        assert!(expected.len() >= 40);
        for (step, (rate, expected)) in rates::<S>(options, expected.len() as u64).iter().zip(expected).enumerate() {
            assert!((rate.lr - expected[0].as_f64().unwrap()).abs() < 1e-12, "{reference}, step {step}: {rate:?}");
            assert_eq!(rate.momentum, 0.9);
        }
    }

    #[test]
    fn as_transformers() {
        check::<Cosine>(json!({ "warmup": 4 }), "cosine_warmup4_total40");
        check::<Cosine>(json!({ "warmup": 0.1 }), "cosine_warmup4_total40");
        check::<Restarts>(json!({ "warmup": 4, "cycles": 3 }), "cosine_hard_restarts3_warmup4_total40");
        check::<Restarts>(json!({ "warmup": 4, "cycles": 1 }), "cosine_warmup4_total40");
    }

    #[test]
    fn as_torch() {
        check::<Cosine>(json!({ "min": 0.1 }), "cosine_annealing_T40_min0.1");
        // Cycles of 10, 20 and 40 steps.
        let options = json!({ "cycles": 3, "growth": 2, "min": 0.1 });
        check::<Restarts>(options, "cosine_restarts_T010_mult2_min0.1_total70");
    }

    #[test]
    fn a_restart_is_never_late() {
        for cycles in 1..=200 {
            // Two steps to a cycle: eta, and half of it.
            for (step, rate) in rates::<Restarts>(json!({ "cycles": cycles }), 2 * cycles).iter().enumerate() {
                let expected = if step % 2 == 0 { 1.0 } else { 0.5 };
                assert!((rate.lr - expected).abs() < 1e-9, "{cycles} cycles, step {step}: {rate:?}");
            }
        }
    }

    #[test]
    fn refuses_what_is_no_cycle() {
        for options in [
            json!({ "cycles": 0 }),
            json!({ "growth": 0.5 }),
            json!({ "cycles": 1000, "growth": 10 }),
            json!({ "min": 2 }),
            json!({ "warmup": -1 }),
        ] {
            assert!(Restarts::new(from_value(options.clone()).unwrap()).is_err(), "{options}");
        }
    }

    #[test]
    fn rates_follow_from_their_arguments() {
        for steps in [1, 7, 100] {
            Host::new().scheduler::<Cosine>(json!({ "warmup": 0.1, "min": 0.1 })).unwrap().check(steps).unwrap();
        }
        Host::new().scheduler::<Restarts>(json!({ "cycles": 4, "growth": 2 })).unwrap().check(100).unwrap();
        let rates = Host::new().scheduler::<Cosine>(json!({ "warmup": 10 })).unwrap().rates(100).unwrap();
        assert_eq!((rates[0].lr, rates[10].lr), (0.0, 1.0));
    }
}
