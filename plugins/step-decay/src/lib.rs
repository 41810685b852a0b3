//! Step decay: the learning rate falls by a factor at regular intervals ("step") or at milestones ("multi-step").
//!
//! eta(t) = eta min(1, t / w) gamma^k with w warm-up steps. n whole epochs, or steps, lie behind: "step" takes k = floor(n /
//! `step_size`), as torch's `StepLR`, "multi-step" the number of milestones <= n, as `MultiStepLR`. Both count from the start
//! of the run, its warm-up included. At step 0 the rate is 0 with a warm-up and eta without.

use fthost_plugin_api::prelude::*;

/// Options of the step schedule.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StepConfig {
    /// Linear rise from 0 at the start: below 1 a share of the run, from 1 on a number of steps.
    #[serde(default)]
    warmup: Warmup,
    /// Epochs, or steps, from one fall to the next.
    #[schemars(range(min = 1))]
    step_size: u64,
    /// What `step_size` counts.
    #[serde(default)]
    unit: TimeUnit,
    /// Factor of the rate at each fall.
    #[serde(default = "gamma")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    gamma: f64,
}

/// Options of the multi-step schedule.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MultiStepConfig {
    /// Linear rise from 0 at the start: below 1 a share of the run, from 1 on a number of steps.
    #[serde(default)]
    warmup: Warmup,
    /// The epochs, or steps, before which the rate falls, counted from 0; one that stands twice counts twice.
    #[schemars(length(min = 1), inner(range(min = 1)))]
    milestones: Vec<u64>,
    /// What `milestones` count.
    #[serde(default)]
    unit: TimeUnit,
    /// Factor of the rate at each fall.
    #[serde(default = "gamma")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    gamma: f64,
}

/// torch's.
fn gamma() -> f64 {
    0.1
}

fn check(warmup: Warmup, gamma: f64) -> Result<()> {
    warmup.check()?;
    if gamma > 0.0 { Ok(()) } else { Err(Error::new(format!("gamma is {gamma}, and must be above 0, such as 0.1"))) }
}

/// A fall that would never come.
fn too_late(option: &str, value: u64, unit: TimeUnit, progress: &Progress) -> Error {
    let Progress { total_steps, steps_per_epoch, .. } = *progress;
    let unit = unit.name();
    Error::new(format!(
        "{option} is {value} {unit}, and the run's last step is before that ({total_steps} steps, {steps_per_epoch} an epoch), so the \
         rate would not fall: give less, or train longer"
    ))
}

/// The rate after so many falls.
fn fallen(group: &Group, progress: &Progress, warmup: Warmup, gamma: f64, falls: u64) -> Rate {
    group.scaled(warmup.factor(progress, |_| 1.0) * gamma.powf(falls as f64))
}

struct Step(StepConfig);

impl Scheduler for Step {
    type Config = StepConfig;

    fn new(config: StepConfig) -> Result<Self> {
        check(config.warmup, config.gamma)?;
        if config.step_size == 0 {
            return Err(Error::new("step_size is 0: give the epochs, or steps, from one fall to the next, at least 1"));
        }
        Ok(Self(config))
    }

    fn rate(&self, progress: &Progress, group: &Group<'_>) -> Result<Rate> {
        let StepConfig { warmup, step_size, unit, gamma } = self.0;
        warmup.fits(progress)?;
        if step_size > unit.passed_in_all(progress) {
            return Err(too_late("step_size", step_size, unit, progress));
        }
        Ok(fallen(group, progress, warmup, gamma, unit.passed(progress) / step_size))
    }
}

struct MultiStep(MultiStepConfig);

impl Scheduler for MultiStep {
    type Config = MultiStepConfig;

    fn new(config: MultiStepConfig) -> Result<Self> {
        check(config.warmup, config.gamma)?;
        if config.milestones.is_empty() {
            return Err(Error::new("milestones is empty, so the rate would never fall: give at least one"));
        }
        if config.milestones.contains(&0) {
            return Err(Error::new(
                "a milestone is 0, the start of the run: lower train.lr instead, or give at least 1",
            ));
        }
        Ok(Self(config))
    }

    fn rate(&self, progress: &Progress, group: &Group<'_>) -> Result<Rate> {
        let MultiStepConfig { warmup, ref milestones, unit, gamma } = self.0;
        warmup.fits(progress)?;
        if let Some(late) = milestones.iter().find(|&&milestone| milestone > unit.passed_in_all(progress)) {
            return Err(too_late("one of the milestones", *late, unit, progress));
        }
        let passed = unit.passed(progress);
        let falls = milestones.iter().filter(|&&milestone| milestone <= passed).count();
        Ok(fallen(group, progress, warmup, gamma, falls as u64))
    }
}

register! {
    /// Falls by a factor at regular intervals, after an optional warm-up.
    Scheduler "step" => Step,
    /// Falls by a factor at milestones, after an optional warm-up.
    Scheduler "multi-step" => MultiStep
}
export_plugin! { license = "MIT OR Apache-2.0" }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::{from_str, from_value};

    /// Learning rates of 40 steps at rate 1 against the numbers that `tests/reference/schedules.json` got from torch. torch
    /// has no warm-up in these two: the numbers are multiplied with its rise.
    fn check<S: Scheduler>(options: Value, steps_per_epoch: u64, warmup: u64, reference: &str) {
        let schedule = S::new(from_value(options).unwrap()).unwrap();
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
    fn step_as_torch() {
        let reference = "step_10_gamma0.5";
        check::<Step>(json!({ "step_size": 10, "unit": "steps", "gamma": 0.5 }), 7, 0, reference);
        check::<Step>(json!({ "step_size": 1, "gamma": 0.5 }), 10, 0, reference);
        check::<Step>(json!({ "step_size": 2, "unit": "epochs", "gamma": 0.5, "warmup": 0.1 }), 5, 4, reference);
        check::<Step>(json!({ "step_size": 5, "gamma": 0.5, "warmup": 16 }), 2, 16, reference);
    }

    #[test]
    fn multi_step_as_torch() {
        let reference = "multistep_5_20_gamma0.1";
        check::<MultiStep>(json!({ "milestones": [5, 20], "unit": "steps" }), 7, 0, reference);
        check::<MultiStep>(json!({ "milestones": [4, 1] }), 5, 0, reference);
        check::<MultiStep>(json!({ "milestones": [1, 4], "gamma": 0.1, "warmup": 8 }), 5, 8, reference);
    }

    #[test]
    fn a_milestone_that_stands_twice_counts_twice() {
        let schedule = MultiStep::new(from_value(json!({ "milestones": [1, 1], "gamma": 0.5 })).unwrap()).unwrap();
        let progress = Progress { step: 10, total_steps: 40, steps_per_epoch: 10 };
        assert_eq!(schedule.rate(&progress, &Group::new(2.0, 0.9)).unwrap().lr, 0.5);
    }

    #[test]
    fn refuses_what_would_never_fall() {
        for options in [json!({ "step_size": 0 }), json!({ "step_size": 1, "gamma": 0 }), json!({ "gamma": 0.5 })] {
            assert!(from_value(options.clone()).map_err(Error::from).and_then(Step::new).is_err(), "{options}");
        }
        for options in [json!({ "milestones": [] }), json!({ "milestones": [0, 5] }), json!({})] {
            assert!(from_value(options.clone()).map_err(Error::from).and_then(MultiStep::new).is_err(), "{options}");
        }
    }
}
