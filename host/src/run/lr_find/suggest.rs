//! What the trials of a search say: which rate, or that there is none.
//!
//! A trial's loss is compared with the untrained model's on the same batches; its fall counts where it is more than three standard errors
//! of these differences, one for each batch. Of the rates whose fall counts the one with the lowest loss is the trials' best, and the lowest
//! that is next to as good is taken. A longer run wants a lower one: the best rate of gradient steps goes by 1 / sqrt(steps) (Zinkevich
//! 2003, for any convex loss; Schaipp et al. 2025, arXiv:2501.18965, find the same of schedules and language models).

use serde::Serialize;

use crate::report::numbers::significant;
use crate::report::table::Table;

/// Standard errors by which a fall must exceed nothing.
const ERRORS: f64 = 3.0;
/// The least share of the untrained loss that a fall must be.
const SHARE: f64 = 0.005;
/// The share of the best rate's fall that a lower one keeps which is next to as good.
const KEPT: f64 = 0.85;
/// Columns of the longest bar.
const BAR: f64 = 40.0;

/// A rate that was tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The learning rate.
    pub lr: f64,
    /// The mean loss of the last batches; `None` where training diverged.
    pub loss: Option<f64>,
    /// By how much it is less than the untrained model's.
    pub fall: Option<f64>,
    /// The standard error of the fall: what batches differ by.
    pub noise: Option<f64>,
    #[serde(skip)]
    losses: Vec<f64>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct LrCurve {
    /// The rates, rising.
    pub points: Vec<Point>,
    /// The untrained model's mean loss on the last batches.
    pub untrained: f64,
    /// Optimizer steps of a trial.
    pub steps: u64,
    /// Optimizer steps of the run.
    pub run_steps: u64,
    /// What to begin with; `None` where no rate makes the loss fall by more than noise.
    pub suggestion: Option<f64>,
    /// Why that one, or none.
    pub reason: String,
    /// Whether the highest rates diverged.
    pub diverged: bool,
    #[serde(skip)]
    before: Vec<f64>,
}

impl Point {
    fn counts(&self, untrained: f64) -> bool {
        let Self { fall: Some(fall), noise: Some(noise), .. } = self else { return false };
        *fall > ERRORS * noise && *fall > SHARE * untrained.abs()
    }
}

impl LrCurve {
    /// A search whose batches have these losses before anything is learned.
    pub(super) fn new(before: Vec<f64>, steps: u64, run_steps: u64) -> Self {
        let untrained = mean(&before).unwrap_or(f64::NAN);
        let (points, reason) = (Vec::new(), String::new());
        Self { points, untrained, steps, run_steps, suggestion: None, reason, diverged: false, before }
    }

    /// Adds the losses of the same batches at a rate. Where one is not finite, the rate diverged; a batch in which nothing counts has none
    /// before either.
    pub(super) fn add(&mut self, lr: f64, losses: Vec<f64>) {
        let pairs = || self.before.iter().zip(&losses).filter(|(before, _)| !before.is_nan());
        let falls: Vec<f64> = pairs().map(|(before, loss)| before - loss).collect();
        let now: Vec<f64> = pairs().map(|(_, loss)| *loss).collect();
        let loss = mean(&now).filter(|loss| loss.is_finite());
        let fall = loss.and_then(|_| mean(&falls));
        let noise = fall.map(|fall| standard_error(&falls, fall));
        let at = self.points.partition_point(|point| point.lr < lr);
        self.points.insert(at, Point { lr, loss, fall, noise, losses });
    }

    /// The place of the lowest loss among the falls that count.
    fn best(&self) -> Option<usize> {
        let counting = self.points.iter().enumerate().filter(|(_, point)| point.counts(self.untrained));
        let loss = |point: &Point| point.loss.unwrap_or(f64::INFINITY);
        counting.min_by(|a, b| loss(a.1).total_cmp(&loss(b.1))).map(|(place, _)| place)
    }

    /// The lowest of the rates below the best that are next to as good: what lies beyond the best may be a cliff, and a longer run comes
    /// nearer to it.
    fn chosen(&self) -> Option<&Point> {
        let best = self.best()?;
        let point = &self.points[best];
        let alike = |lower: &&Point| {
            let worse: Vec<f64> =
                lower.losses.iter().zip(&point.losses).map(|(a, b)| a - b).filter(|d| !d.is_nan()).collect();
            let within = mean(&worse).is_some_and(|mean| mean <= standard_error(&worse, mean));
            within || lower.fall.zip(point.fall).is_some_and(|(lower, best)| lower >= KEPT * best)
        };
        let below = self.points[..best].iter().rev().take_while(|lower| lower.counts(self.untrained));
        below.take_while(alike).last().or(Some(point))
    }

    /// The next rate beyond the end at which the loss is lowest.
    pub(super) fn beyond(&self, gap: f64) -> Option<f64> {
        let best = self.best()?;
        match best {
            0 => Some(self.points[0].lr / gap),
            last if last + 1 == self.points.len() => Some(self.points[last].lr * gap),
            _ => None,
        }
    }

    /// The rates halfway from the best to its neighbours.
    pub(super) fn between(&self, gap: f64) -> Vec<f64> {
        let Some(best) = self.best() else { return Vec::new() };
        vec![self.points[best].lr / gap.sqrt(), self.points[best].lr * gap.sqrt()]
    }

    /// With what follows from the trials.
    pub(super) fn suggested(mut self) -> Self {
        self.diverged = self.points.last().is_some_and(|point| point.loss.is_none());
        let Some(Point { lr, loss, .. }) = self.chosen().cloned() else {
            let falls = self.points.iter().filter_map(|point| Some((point.lr, point.fall?, point.noise?)));
            self.reason = match falls.max_by(|a, b| a.1.total_cmp(&b.1)) {
                Some((lr, fall, noise)) => format!(
                    "in {} steps no rate makes the loss fall from {} by more than noise; at most it falls by {} (standard error {}), at {lr:.1e}",
                    self.steps,
                    significant(self.untrained),
                    significant(fall),
                    significant(noise)
                ),
                None => "training diverges at every rate".to_owned(),
            };
            return self;
        };
        let shorter = (self.steps as f64 / self.run_steps.max(1) as f64).sqrt().min(1.0);
        let loss = significant(loss.unwrap_or(f64::NAN));
        let mut reason = format!(
            "the run in {} steps does best, or next to best, at {lr:.1e}: it comes to a loss of {loss}, from {}",
            self.steps,
            significant(self.untrained)
        );
        if shorter < 1.0 {
            reason += &format!("; {} steps want {:.2} of that rate", self.run_steps, shorter);
        }
        self.suggestion = Some(lr * shorter);
        self.reason = reason;
        self
    }

    /// The trials with bars as long as their losses, and the suggestion with its reason.
    pub fn to_text(&self) -> String {
        let mut table = Table::new();
        table.row(["rate", "loss", "noise", ""]);
        let losses = || self.points.iter().filter_map(|point| point.loss);
        let (low, high) = (losses().fold(self.untrained, f64::min), losses().fold(self.untrained, f64::max));
        let high = high.min(2.0 * self.untrained.abs());
        for point in &self.points {
            let Some(loss) = point.loss else {
                table.row([&format!("{:.1e}", point.lr), "diverged", "", ""]);
                continue;
            };
            let share = ((loss - low) / (high - low).max(f64::MIN_POSITIVE)).min(1.0);
            let bar = "█".repeat((share * BAR).round() as usize + 1);
            let noise = point.noise.map_or_else(String::new, significant);
            table.row([&format!("{:.1e}", point.lr), &significant(loss), &noise, &bar]);
        }
        let mut text = table.to_text();
        text += &match self.suggestion {
            Some(lr) => format!("suggestion: train.lr = {lr:.1e}, because {}", self.reason),
            None => format!("no suggestion: {}; give more --steps or other rates, or look at the data", self.reason),
        };
        text
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Of the mean of values.
fn standard_error(values: &[f64], mean: f64) -> f64 {
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let count = values.len() as f64;
    (squares / (count - 1.0).max(1.0) / count).sqrt()
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    /// Losses of batches that differ, less what a rate has made of them, with noise of its own.
    fn losses(fall: f64, noise: f64) -> Vec<f64> {
        (0..12).map(|i| 2.0 + 0.3 * f64::from(i * 7 % 5) - fall + noise * (f64::from(i * 5 % 7) - 3.0)).collect()
    }

    pub(in crate::run::lr_find) fn curve(falls: &[f64], noise: f64, run_steps: u64) -> LrCurve {
        let mut curve = LrCurve::new(losses(0.0, 0.0), 40, run_steps);
        for (i, &fall) in falls.iter().enumerate() {
            curve.add(10f64.powi(i as i32 - 5), losses(fall, noise * (i + 1) as f64));
        }
        curve.suggested()
    }

    #[test]
    fn the_lowest_loss_counts_and_a_longer_run_wants_less() {
        let falls = [0.0, 0.01, 0.3, 0.8, f64::NAN];
        let found = curve(&falls, 0.01, 40);
        assert!((found.suggestion.unwrap() / 1e-2 - 1.0).abs() < 1e-9 && found.diverged, "{found:?}");
        // Batches differ by far more than the rates, and all rates have the same batches.
        assert!(found.points[2].noise.unwrap() < 0.03);
        let longer = curve(&falls, 0.01, 4000);
        assert!((longer.suggestion.unwrap() / 1e-3 - 1.0).abs() < 1e-9);
        assert!(longer.reason.contains("4000 steps want 0.10 of that rate"), "{}", longer.reason);
        // A run that is shorter than a trial has the trial's.
        assert_eq!(curve(&falls, 0.01, 10).suggestion, found.suggestion);
    }

    #[test]
    fn of_neighbours_that_are_alike_the_lower_is_taken() {
        let found = curve(&[0.0, 0.3, 0.79, 0.8], 0.02, 40);
        assert!((found.suggestion.unwrap() / 1e-3 - 1.0).abs() < 1e-9, "{found:?}");
        let found = curve(&[0.0, 0.3, 0.6, 0.8], 0.02, 40);
        assert!((found.suggestion.unwrap() / 1e-2 - 1.0).abs() < 1e-9, "{found:?}");
        // However many there are, until one is not.
        let found = curve(&[0.74, 0.5, 0.74, 0.77, 0.8], 0.001, 40);
        assert!((found.suggestion.unwrap() / 1e-3 - 1.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn what_may_be_noise_is_no_suggestion() {
        let found = curve(&[0.0, 0.02, 0.05, -0.1], 0.1, 40);
        assert_eq!(found.suggestion, None);
        assert!(
            found.to_text().contains("no suggestion: in 40 steps no rate makes the loss fall"),
            "{}",
            found.to_text()
        );
        assert_eq!(serde_json::to_value(&found).unwrap()["suggestion"], serde_json::Value::Null);
        // All batches alike fall by next to nothing.
        assert_eq!(curve(&[0.0, 0.001, 0.002], 0.0, 40).suggestion, None);
        assert_eq!(curve(&[f64::NAN, f64::NAN], 0.0, 40).suggestion, None);
        assert_eq!(LrCurve::new(Vec::new(), 40, 40).suggested().suggestion, None);
    }

    #[test]
    fn the_search_goes_beyond_an_end_where_the_loss_is_lowest_there_and_between_rates() {
        let rising = curve(&[0.0, 0.1, 0.5], 0.001, 40);
        assert!((rising.beyond(10.0).unwrap() / 1e-2 - 1.0).abs() < 1e-9);
        assert!((curve(&[0.5, 0.1], 0.001, 40).beyond(10.0).unwrap() / 1e-6 - 1.0).abs() < 1e-9);
        let inner = curve(&[0.1, 0.5, 0.1], 0.001, 40);
        assert_eq!(inner.beyond(10.0), None);
        let between = inner.between(4.0);
        assert!((between[0] / 5e-5 - 1.0).abs() < 1e-9 && (between[1] / 2e-4 - 1.0).abs() < 1e-9, "{between:?}");
    }
}
