//! Reduce on plateau: the learning rate falls by a factor when an evaluation has not improved for a while.
//!
//! eta(t) = eta min(1, t / w) f^k, not below `min_lr`, with w warm-up steps. k counts the falls: one comes with the evaluation
//! that makes more than `patience` in a row that are no better than the best by `threshold`; those of the `cooldown` after a
//! fall do not count. Which way is better is the monitored metric's matter, and the host says it with each evaluation. As torch's `ReduceLROnPlateau`, which has no warm-up. At step 0 the rate is 0 with a warm-up and eta
//! without.

use std::cell::Cell;

use fthost_plugin_api::prelude::*;
use fthost_plugin_api::serde_json::{from_value, to_value};
use fthost_plugin_api::tracing;

/// Options of the plateau schedule.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PlateauConfig {
    /// Where the monitored value should go, "min" or "max"; without it, where the metric is better. The other way is refused.
    #[serde(default)]
    mode: Option<Mode>,
    /// Factor of the rate at each fall.
    #[serde(default = "factor")]
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    factor: f64,
    /// Evaluations without an improvement that are borne; the next one brings a fall.
    #[serde(default = "patience")]
    patience: u64,
    /// By how much the value must be better than the best to count as an improvement.
    #[serde(default = "threshold")]
    #[schemars(range(min = 0))]
    threshold: f64,
    /// What the threshold is: a share of the best value, or a difference from it.
    #[serde(default)]
    threshold_mode: ThresholdMode,
    /// Evaluations after a fall that do not count against the patience.
    #[serde(default)]
    cooldown: u64,
    /// Learning rate below which none falls.
    #[serde(default)]
    #[schemars(range(min = 0))]
    min_lr: f64,
    /// Linear rise from 0 at the start: below 1 a share of the run, from 1 on a number of steps.
    #[serde(default)]
    warmup: Warmup,
}

// torch's defaults.
fn factor() -> f64 {
    0.1
}
fn patience() -> u64 {
    10
}
fn threshold() -> f64 {
    1e-4
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Min,
    Max,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ThresholdMode {
    #[default]
    Rel,
    Abs,
}

/// What the evaluations so far have left behind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// The best value so far, by its bits: a float that goes through JSON may come back with another last digit, and JSON has no
    /// infinity.
    best: Option<u64>,
    /// Evaluations so far.
    heard: u64,
    /// Evaluations in a row without an improvement.
    bad: u64,
    /// Evaluations of the cooldown that are left.
    cooldown: u64,
    /// How often the rate has fallen.
    falls: u64,
}

struct Plateau {
    config: PlateauConfig,
    state: State,
    /// Whether it was said that nothing is heard.
    warned: Cell<bool>,
}

/// A smaller change of a rate is none, as in torch: rates stop falling near 1e-8.
const LEAST_FALL: f64 = 1e-8;

impl Plateau {
    /// Where the value should go.
    fn direction(&self, evaluation: &Evaluation<'_>) -> Result<Mode> {
        let (better, other) = if evaluation.higher_is_better { (Mode::Max, "higher") } else { (Mode::Min, "lower") };
        match self.config.mode {
            Some(mode) if mode != better => Err(Error::new(format!(
                "mode is {mode:?}, but a {other} {} is better, so the rate would fall as the model learns: leave mode out",
                evaluation.metric
            ))),
            _ => Ok(better),
        }
    }

    /// Is the value better than the best one? One that is no number never is.
    fn improves(&self, value: f64, mode: Mode) -> bool {
        let PlateauConfig { threshold, threshold_mode, .. } = self.config;
        let Some(best) = self.state.best.map(f64::from_bits) else { return !value.is_nan() };
        match (mode, threshold_mode) {
            (Mode::Min, ThresholdMode::Rel) => value < best * (1.0 - threshold),
            (Mode::Min, ThresholdMode::Abs) => value < best - threshold,
            (Mode::Max, ThresholdMode::Rel) => value > best * (1.0 + threshold),
            (Mode::Max, ThresholdMode::Abs) => value > best + threshold,
        }
    }

    /// What a rate has fallen to.
    fn fallen(&self, lr: f64) -> f64 {
        (0..self.state.falls).fold(lr, |lr, _| {
            let lower = (lr * self.config.factor).max(self.config.min_lr);
            if lr - lower > LEAST_FALL { lower } else { lr }
        })
    }
}

impl Scheduler for Plateau {
    type Config = PlateauConfig;

    fn new(config: PlateauConfig) -> Result<Self> {
        config.warmup.check()?;
        if !(0.0 < config.factor && config.factor < 1.0) {
            return Err(Error::new(format!(
                "factor is {}, and must be above 0 and below 1, such as 0.1",
                config.factor
            )));
        }
        let most = match config.threshold_mode {
            ThresholdMode::Rel => 1.0,
            ThresholdMode::Abs => f64::INFINITY,
        };
        if !(0.0..most).contains(&config.threshold) {
            return Err(Error::new(format!(
                "threshold is {}: give 0 or more, and less than 1 where it is a share of the best value",
                config.threshold
            )));
        }
        if config.min_lr < 0.0 {
            return Err(Error::new(format!("min_lr is {}: give 0 or more", config.min_lr)));
        }
        let state = State { best: None, heard: 0, bad: 0, cooldown: 0, falls: 0 };
        Ok(Self { config, state, warned: Cell::new(false) })
    }

    fn rate(&self, progress: &Progress, group: &Group<'_>) -> Result<Rate> {
        self.config.warmup.fits(progress)?;
        if self.state.heard == 0 && progress.fraction() >= 0.5 && !self.warned.replace(true) {
            tracing::warn!(
                "plateau has heard no evaluation in half of the run, so its rate has not fallen: give the task validation \
                 examples, or evaluate more often"
            );
        }
        let lr = self.fallen(group.lr) * self.config.warmup.factor(progress, |_| 1.0);
        Ok(Rate { lr, momentum: group.momentum })
    }

    fn on_evaluation(&mut self, _progress: &Progress, evaluation: &Evaluation<'_>) -> Result<()> {
        let mode = self.direction(evaluation)?;
        self.state.heard += 1;
        if self.improves(evaluation.value, mode) {
            self.state.best = Some(evaluation.value.to_bits());
            self.state.bad = 0;
        } else {
            self.state.bad += 1;
        }
        if self.state.cooldown > 0 {
            self.state.cooldown -= 1;
            self.state.bad = 0;
        }
        if self.state.bad > self.config.patience {
            self.state.falls += 1;
            self.state.cooldown = self.config.cooldown;
            self.state.bad = 0;
        }
        Ok(())
    }

    fn save(&self) -> Result<SavedState> {
        Ok(SavedState { json: to_value(self.state)?, ..SavedState::default() })
    }

    fn load(&mut self, state: SavedState) -> Result<()> {
        self.state = from_value(state.json)?;
        Ok(())
    }
}

register! {
    /// Falls by a factor where the monitored value stops improving, after an optional warm-up.
    Scheduler "plateau" => Plateau
}
export_plugin! { license = "MIT OR Apache-2.0" }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::from_str;

    const GROUP: Group<'static> = Group::new(1.0, 0.9);

    /// An evaluation of a metric that is better the higher, or the lower, it is.
    fn heard(value: f64, higher_is_better: bool) -> Evaluation<'static> {
        let metric = if higher_is_better { "accuracy" } else { "loss" };
        Evaluation { value, metric, higher_is_better, task: "" }
    }

    fn plateau(options: &Value) -> Plateau {
        Plateau::new(from_value(options.clone()).unwrap()).unwrap()
    }

    fn at(step: usize) -> Progress {
        Progress { step: step as u64, total_steps: 60, steps_per_epoch: 1 }
    }

    /// A run with an evaluation after each step at rate 1, against the numbers that `tests/reference/schedules.json` got from
    /// torch; once as it is, and once from a checkpoint at every step.
    fn check(higher_is_better: bool, options: Value, reference: &str) {
        let all: Value = from_str(include_str!("../../../tests/reference/schedules.json")).unwrap();
        let (mut whole, mut resumed) = (plateau(&options), plateau(&options));
        for (step, expected) in all[reference].as_array().unwrap().iter().enumerate() {
            let [lr, momentum, value] = [0, 1, 2].map(|i| expected[i].as_f64().unwrap());
            let rate = whole.rate(&at(step), &GROUP).unwrap();
            assert!((rate.lr - lr).abs() < 1e-12, "{reference}, step {step}: {rate:?}, not {lr}");
            assert_eq!(rate.momentum, momentum);
            assert_eq!(rate, resumed.rate(&at(step), &GROUP).unwrap(), "{reference}, step {step}");

            whole.on_evaluation(&at(step), &heard(value, higher_is_better)).unwrap();
            resumed.on_evaluation(&at(step), &heard(value, higher_is_better)).unwrap();
            resumed = through_a_checkpoint(&options, &resumed);
        }
        assert!(whole.state.falls > 0, "{reference} shows nothing");
    }

    fn through_a_checkpoint(options: &Value, schedule: &Plateau) -> Plateau {
        let text = schedule.save().unwrap().json.to_string();
        let mut again = plateau(options);
        again.load(SavedState { json: from_str(&text).unwrap(), ..SavedState::default() }).unwrap();
        assert_eq!(again.state, schedule.state);
        again
    }

    #[test]
    fn as_torch() {
        check(false, json!({ "mode": "min", "patience": 2, "factor": 0.5 }), "plateau_min");
        check(
            false,
            json!({ "patience": 1, "threshold": 0.02, "threshold_mode": "abs", "cooldown": 3 }),
            "plateau_min_abs_cooldown3",
        );
        check(true, json!({ "mode": "max", "patience": 3, "factor": 0.5, "min_lr": 0.2 }), "plateau_max_floor0.2");
        check(true, json!({ "patience": 2, "threshold": 0.01, "threshold_mode": "abs" }), "plateau_max_abs");
        check(false, json!({ "patience": 0 }), "plateau_flat");
    }

    #[test]
    fn a_checkpoint_keeps_every_digit() {
        let options = json!({});
        let mut schedule = through_a_checkpoint(&options, &plateau(&options)); // before the first evaluation
        let mut value = 1.0;
        for step in 0..1000 {
            value *= 1.0 + 1.0 / 997.0;
            schedule.on_evaluation(&at(step), &heard(value, true)).unwrap();
            schedule = through_a_checkpoint(&options, &schedule);
            assert_eq!(schedule.state.best.map(f64::from_bits), Some(value));
        }
    }

    #[test]
    fn rises_in_the_warmup() {
        let mut schedule = plateau(&json!({ "mode": "min", "patience": 0, "factor": 0.5, "warmup": 4 }));
        assert_eq!([0, 1, 4].map(|step| schedule.rate(&at(step), &GROUP).unwrap().lr), [0.0, 0.25, 1.0]);
        for _ in 0..2 {
            schedule.on_evaluation(&at(2), &heard(1.0, false)).unwrap();
        }
        assert_eq!([2, 4].map(|step| schedule.rate(&at(step), &GROUP).unwrap().lr), [0.25, 0.5]);
    }

    #[test]
    fn a_value_that_is_no_number_is_no_improvement() {
        let mut schedule = plateau(&json!({ "mode": "min", "patience": 1, "factor": 0.5 }));
        for value in [1.0, f64::NAN, f64::NAN, 0.5] {
            schedule.on_evaluation(&at(0), &heard(value, false)).unwrap();
        }
        assert_eq!((schedule.state.falls, schedule.state.best.map(f64::from_bits)), (1, Some(0.5)));
    }

    #[test]
    fn goes_where_the_metric_is_better() {
        for (higher_is_better, better, worse) in [(true, 0.9, 0.1), (false, 0.1, 0.9)] {
            let mut schedule = plateau(&json!({ "patience": 0 }));
            for value in [0.5, better] {
                schedule.on_evaluation(&at(0), &heard(value, higher_is_better)).unwrap();
            }
            assert_eq!(schedule.state.falls, 0, "{better} is better");
            schedule.on_evaluation(&at(0), &heard(worse, higher_is_better)).unwrap();
            assert_eq!(schedule.state.falls, 1, "{worse} is worse");
        }
        let mut schedule = plateau(&json!({ "mode": "min" }));
        let error = schedule.on_evaluation(&at(0), &heard(0.5, true)).unwrap_err().to_string();
        assert!(error.contains("a higher accuracy is better"), "{error}");
    }

    #[test]
    fn a_rate_below_the_floor_stays() {
        let mut schedule = plateau(&json!({ "mode": "min", "patience": 0, "min_lr": 2.0 }));
        schedule.state.falls = 3;
        assert_eq!(schedule.rate(&at(0), &GROUP).unwrap().lr, 1.0);
    }

    #[test]
    fn refuses_what_does_not_fall() {
        for options in [
            json!({ "mode": "mean" }),
            json!({ "mode": "min", "factor": 1 }),
            json!({ "mode": "min", "factor": 0 }),
            json!({ "mode": "min", "threshold": -1 }),
            json!({ "mode": "min", "threshold": 1 }),
            json!({ "mode": "min", "min_lr": -1 }),
            json!({ "mode": "min", "warmup": -1 }),
        ] {
            assert!(from_value(options.clone()).map_err(Error::from).and_then(Plateau::new).is_err(), "{options}");
        }
    }
}
