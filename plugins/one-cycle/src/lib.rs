//! The one-cycle policy (Smith and Topin 2017, arXiv:1708.07120): the learning rate rises to its largest value and falls far
//! below where it began, while the momentum, or beta1, does the opposite.
//!
//! Through the points (step, rate, momentum) = (0, eta / d, M), (p T - 1, eta, m), (T - 1, eta / (d f), M) of a run of T
//! steps, with three phases also (2 p T - 2, eta / d, M) before the last. Between two points a and b, at the share s of the
//! way, the value is b + (a - b) (1 + cos(pi s)) / 2, or on the line. As torch's `OneCycleLR`. At step 0 the rate is eta / d.

use std::f64::consts::PI;

use fthost_plugin_api::prelude::*;

/// Options of the one-cycle policy.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct OneCycleConfig {
    /// Share of the run in which the rate rises; at most a half with three phases.
    #[schemars(range(min = 0, max = 1))]
    pct_start: f64,
    /// The run begins at the largest rate, which is train.lr, divided by this.
    #[schemars(range(min = 1))]
    div: f64,
    /// It ends at the first rate divided by this.
    #[schemars(range(min = 1))]
    final_div: f64,
    /// Curve from one rate to the next.
    anneal: Anneal,
    /// Whether the rate first falls as it rose, and then in a third phase to the last one.
    three_phase: bool,
    /// Whether the momentum, or beta1, cycles too; without it it is the optimizer's.
    cycle_momentum: bool,
    /// Momentum where the rate is largest.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    base_momentum: f64,
    /// Momentum at the beginning and at the end.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    max_momentum: f64,
}

impl Default for OneCycleConfig {
    fn default() -> Self {
        Self {
            pct_start: 0.3,
            div: 25.0,
            final_div: 1e4,
            anneal: Anneal::Cosine,
            three_phase: false,
            cycle_momentum: true,
            base_momentum: 0.85,
            max_momentum: 0.95,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Anneal {
    Cosine,
    Linear,
}

impl Anneal {
    /// From `start` to `end`, at this share of the way.
    fn between(self, start: f64, end: f64, share: f64) -> f64 {
        match self {
            Self::Cosine => end + (start - end) / 2.0 * (1.0 + (PI * share).cos()),
            Self::Linear => start + (end - start) * share,
        }
    }
}

/// What the schedule passes through.
struct Point {
    /// Not always whole, and below 0 where the rise takes less than a step.
    step: f64,
    /// Factor of the rate.
    rate: f64,
    momentum: f64,
}

struct OneCycle(OneCycleConfig);

impl OneCycle {
    fn points(&self, total_steps: u64) -> Vec<Point> {
        let OneCycleConfig { pct_start, div, final_div, three_phase, base_momentum, max_momentum, .. } = self.0;
        let (total, first) = (total_steps as f64, 1.0 / div);
        let low = |step, rate| Point { step, rate, momentum: max_momentum };
        let mut points = vec![low(0.0, first)];
        points.push(Point { step: pct_start * total - 1.0, rate: 1.0, momentum: base_momentum });
        if three_phase {
            points.push(low(2.0 * pct_start * total - 2.0, first));
        }
        points.push(low(total - 1.0, first / final_div));
        points
    }
}

impl Scheduler for OneCycle {
    type Config = OneCycleConfig;

    fn new(config: OneCycleConfig) -> Result<Self> {
        let OneCycleConfig { pct_start, div, final_div, three_phase, base_momentum, max_momentum, .. } = config;
        if !(0.0..=1.0).contains(&pct_start) {
            return Err(Error::new(format!(
                "pct_start is {pct_start}, and must lie between 0 and 1: a share of the run"
            )));
        }
        if three_phase && pct_start > 0.5 {
            return Err(Error::new(format!(
                "pct_start is {pct_start}, and three phases fall as long as they rise: give at most 0.5"
            )));
        }
        for (option, value) in [("div", div), ("final_div", final_div)] {
            if value < 1.0 {
                return Err(Error::new(format!(
                    "{option} is {value}, and divides a rate to get a lower one: give at least 1"
                )));
            }
        }
        let usual = OneCycleConfig::default();
        if !config.cycle_momentum && (base_momentum, max_momentum) != (usual.base_momentum, usual.max_momentum) {
            return Err(Error::new(
                "base_momentum and max_momentum do nothing without cycle_momentum: set cycle_momentum = true, or leave them out",
            ));
        }
        if !(0.0 <= base_momentum && base_momentum <= max_momentum && max_momentum < 1.0) {
            return Err(Error::new(format!(
                "base_momentum is {base_momentum} and max_momentum {max_momentum}: give two numbers from 0 to below 1, the \
                 base not above the max"
            )));
        }
        Ok(Self(config))
    }

    fn rate(&self, progress: &Progress, group: &Group<'_>) -> Result<Rate> {
        let (points, step) = (self.points(progress.total_steps), progress.step as f64);
        let last = points.len() - 1;
        let next = (1..last).find(|&i| step <= points[i].step).unwrap_or(last);
        let (from, to) = (&points[next - 1], &points[next]);
        // A phase without a length is over at once; past the end of the run its last rate stays.
        let way = to.step - from.step;
        let share = if way > 0.0 { ((step - from.step) / way).min(1.0) } else { 1.0 };
        let at = |from, to| self.0.anneal.between(from, to, share);
        let momentum = if self.0.cycle_momentum { at(from.momentum, to.momentum) } else { group.momentum };
        Ok(Rate { momentum, ..group.scaled(at(from.rate, to.rate)) })
    }
}

register! {
    /// Rises to the largest rate and falls far below the first, while the momentum does the opposite.
    Scheduler "one-cycle" => OneCycle
}
export_plugin! { license = "MIT OR Apache-2.0" }

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::serde_json::{from_str, from_value};

    /// Rate and momentum of every step, at a base rate of `lr` and momentum 0.9.
    fn rates(options: &Value, lr: f64, total_steps: u64) -> Vec<Rate> {
        let schedule = OneCycle::new(from_value(options.clone()).unwrap()).unwrap();
        let progress = |step| Progress { step, total_steps, steps_per_epoch: 10 };
        (0..total_steps).map(|step| schedule.rate(&progress(step), &Group::new(lr, 0.9)).unwrap()).collect()
    }

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-12
    }

    /// A whole run at rate 1 against the numbers that `tests/reference/schedules.json` got from torch.
    fn check(options: Value, reference: &str) {
        let all: Value = from_str(include_str!("../../../tests/reference/schedules.json")).unwrap();
        let expected = all[reference].as_array().unwrap();
        let rates = rates(&options, 1.0, expected.len() as u64);
        for (step, (rate, expected)) in rates.iter().zip(expected).enumerate() {
            let [lr, momentum] = [0, 1].map(|i| expected[i].as_f64().unwrap());
            assert!(close(rate.lr, lr) && close(rate.momentum, momentum), "{reference}, step {step}: {rate:?}");
        }
    }

    #[test]
    fn as_torch() {
        check(json!({}), "onecycle_cosine_total40");
        check(json!({ "anneal": "linear" }), "onecycle_linear_total40");
        check(json!({ "three_phase": true }), "onecycle_three_phase_total40");
        check(json!({ "pct_start": 0, "cycle_momentum": false }), "onecycle_start0_constant_momentum_total3");
    }

    /// The vectors of torch's own `test/optim/test_lrscheduler.py`. Their momenta run from 1 to 22; here a 32nd of that.
    #[test]
    fn as_torchs_own_tests() {
        let momentum = json!({ "anneal": "linear", "base_momentum": 1.0 / 32.0, "max_momentum": 22.0 / 32.0 });
        let check = |own: Value, lrs: [f64; 10], momenta: [f64; 10]| {
            let mut options = momentum.clone();
            options.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
            for (step, rate) in rates(&options, 25.0, 10).iter().enumerate() {
                assert!(close(rate.lr, lrs[step]), "{own}, step {step}: {rate:?}");
                assert!(close(rate.momentum * 32.0, momenta[step]), "{own}, step {step}: {rate:?}");
            }
        };
        check(
            json!({ "final_div": 2 }),
            [1.0, 13.0, 25.0, 21.5, 18.0, 14.5, 11.0, 7.5, 4.0, 0.5],
            [22.0, 11.5, 1.0, 4.0, 7.0, 10.0, 13.0, 16.0, 19.0, 22.0],
        );
        check(
            json!({ "final_div": 4, "pct_start": 0.4, "three_phase": true }),
            [1.0, 9.0, 17.0, 25.0, 17.0, 9.0, 1.0, 0.75, 0.5, 0.25],
            [22.0, 15.0, 8.0, 1.0, 8.0, 15.0, 22.0, 22.0, 22.0, 22.0],
        );
    }

    #[test]
    fn a_rise_of_no_length_is_over_at_once() {
        // torch divides by zero here.
        assert_eq!(rates(&json!({ "pct_start": 0.1 }), 2.0, 10)[0], Rate { lr: 2.0, momentum: 0.85 });
        assert_eq!(rates(&json!({ "pct_start": 1 }), 2.0, 1)[0], Rate { lr: 2.0, momentum: 0.85 });
    }

    #[test]
    fn refuses_what_is_no_cycle() {
        for options in [
            json!({ "pct_start": 1.5 }),
            json!({ "pct_start": 0.6, "three_phase": true }),
            json!({ "div": 0 }),
            json!({ "final_div": 0.5 }),
            json!({ "max_momentum": 1 }),
            json!({ "base_momentum": 0.9, "max_momentum": 0.8 }),
        ] {
            assert!(OneCycle::new(from_value(options.clone()).unwrap()).is_err(), "{options}");
        }
    }
}
