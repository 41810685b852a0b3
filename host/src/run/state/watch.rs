//! What is known of the monitored metric: which model was the best, and whether to stop.

use serde::{Deserialize, Serialize};

use crate::report::metrics::higher_is_better_or_said;

/// The monitored metric and how it went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// The metric's name.
    pub metric: String,
    /// Whether a greater value is a better one, where a plugin says so of a metric of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub higher: Option<bool>,
    /// By how much a value must be better for patience to begin anew.
    pub min_delta: f64,
    /// Evaluations without such a value after which training stops.
    pub patience: Option<u64>,
    /// The best value so far, and when it was.
    pub best: Option<Best>,
    /// The last value at which patience began anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<f64>,
    /// Evaluations since then.
    pub since: u64,
    /// Optimizer steps taken when patience ended training before its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_early: Option<u64>,
}

/// The best value of the monitored metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Optimizer steps taken by then.
    pub step: u64,
    /// The value.
    pub value: f64,
}

impl Watch {
    /// A watch that has seen nothing.
    pub fn new(metric: &str, min_delta: f64, patience: Option<u64>) -> Self {
        let metric = metric.to_owned();
        Self { metric, higher: None, min_delta, patience, best: None, mark: None, since: 0, stopped_early: None }
    }

    /// Whether a greater value of the metric is a better one.
    pub fn higher_is_better(&self) -> bool {
        higher_is_better_or_said(&self.metric, self.higher)
    }

    /// Sees the metric's value after `step` optimizer steps, and says whether it is the best so far: `min_delta` has no say in that,
    /// only in when patience ends. A value that is no number never is.
    pub fn see(&mut self, step: u64, value: f64) -> bool {
        let beats = |than: Option<f64>, by: f64| match than {
            None => !value.is_nan(),
            Some(than) if self.higher_is_better() => value > than + by,
            Some(than) => value < than - by,
        };
        let better = beats(self.best.map(|best| best.value), 0.0);
        if beats(self.mark, self.min_delta) {
            self.mark = Some(value);
            self.since = 0;
        } else {
            self.since += 1;
        }
        if better {
            self.best = Some(Best { step, value });
        }
        better
    }

    /// Whether patience has ended.
    pub fn stops(&self) -> bool {
        self.patience.is_some_and(|patience| self.since >= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_counts_and_patience_ends() {
        let check = |metric: &str, delta, values: &[f64], expected: &[bool], best: f64, stops: bool| {
            let mut watch = Watch::new(metric, delta, Some(2));
            let better: Vec<bool> = values.iter().zip(1..).map(|(value, step)| watch.see(step, *value)).collect();
            assert_eq!(better, expected, "{metric}");
            assert_eq!((watch.best.map(|best| best.value), watch.stops()), (Some(best), stops), "{metric}");
        };
        check("accuracy", 0.0, &[0.5, 0.7, 0.7, 0.6], &[true, true, false, false], 0.7, true);
        check("loss", 0.0, &[0.9, 0.7, 0.8, 0.6], &[true, true, false, true], 0.6, false);
        // The best is the best seen; by less than the delta it does not renew patience.
        check("accuracy", 0.1, &[0.5, 0.55, 0.7, f64::NAN], &[true, true, true, false], 0.7, false);
        check("accuracy", 0.1, &[0.5, 0.55, 0.59], &[true, true, true], 0.59, true);
        check("loss", 0.1, &[0.5, 0.45, 0.35, 0.3], &[true, true, true, true], 0.3, false);
        check("loss", 0.0, &[f64::NAN, 1.0], &[false, true], 1.0, false);
        let endless = Watch { patience: None, ..Watch::new("loss", 0.0, None) };
        assert!(!Watch { since: 1000, ..endless }.stops());
    }
}
