//! A search for a learning rate: a few batches at rates that rise from far too low to far too high, and what the loss does.
//!
//! Smith 2015, arXiv:1506.01186, in fastai's form (callback/schedule.py): the loss is smoothed, the search ends where it is four times
//! the best, and the suggestion lies in the valley, where the loss falls longest. Nothing of it is kept.

pub mod page;

use fthost_autograd::optim;
use fthost_plugin_api::{Event, Progress};
use serde::Serialize;

use super::file::RunFile;
use super::machine::DeviceChoice;
use super::setup::{self, Setup};
use super::state::snapshot::TrainState;
use super::train::reference::Reference;
use super::train::step::{Learner, Update};
use crate::report::numbers::significant;
use crate::report::progress::{StepReport, TrainProgress};
use crate::report::table::Table;
use crate::{Error, Result};

/// Share of the past in the smoothed loss.
const SMOOTHING: f64 = 0.98;
/// Where the smoothed loss is this many times the best, training has diverged.
const DIVERGED: f64 = 4.0;
/// Rows of the table.
const ROWS: usize = 20;
/// Columns of the longest bar.
const BAR: f64 = 40.0;

/// Which rates are tried.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The lowest, above 0.
    pub from: f64,
    /// The highest.
    pub to: f64,
    /// How many, one optimizer step each.
    pub steps: usize,
}

/// A rate that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The learning rate.
    pub lr: f64,
    /// The batch's mean loss, before the step with this rate.
    pub loss: f64,
    /// The loss smoothed over the batches so far.
    pub smoothed: f64,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct LrCurve {
    /// The rates, rising.
    pub points: Vec<Point>,
    /// The middle of the valley: what to begin with. `None` where the loss never fell.
    pub suggestion: Option<f64>,
    /// Where the loss falls fastest.
    pub steepest: Option<f64>,
    /// A tenth of the rate with the lowest loss.
    pub tenth_of_minimum: Option<f64>,
    /// Whether the loss grew beyond four times the best, which ends the search.
    pub diverged: bool,
}

impl Range {
    /// # Errors
    /// Where it is no rising range of positive rates.
    fn check(&self) -> Result<()> {
        if !(self.from > 0.0 && self.from < self.to && self.to.is_finite()) {
            return Err(Error::usage(format!("the rates from {} to {} are no range", self.from, self.to))
                .with_help("give --from above 0 and --to above it, as in --from 1e-7 --to 10"));
        }
        if self.steps < 10 {
            return Err(Error::usage(format!("{} steps are too few to see where the loss falls", self.steps))
                .with_help("give --steps 10 or more; 100 are usual"));
        }
        Ok(())
    }

    fn rate(&self, step: usize) -> f64 {
        self.from * (self.to / self.from).powf(step as f64 / (self.steps - 1) as f64)
    }
}

/// Tries the rates with what a run file names, its schedule left aside. Nothing is written.
///
/// # Errors
/// As a run's; a range that is none.
pub fn lr_find(file: RunFile, plugins: &[String], device: DeviceChoice, range: Range, shown: bool) -> Result<LrCurve> {
    range.check()?;
    let setup = setup::set_up(file, plugins, device)?;
    let Setup { file, mut model, mut tasks, phases, mut strategies, mut regularizers, mut scheduler, .. } = setup;
    let phase = phases.first().ok_or_else(|| Error::usage("the run file has no task"))?;
    let mut optimizer = optim::Optimizer::new(file.train.optimizer.algorithm());
    let mut state = TrainState::begin(setup.precision);
    let first = tasks.first().map(|task| task.name.clone()).unwrap_or_default();
    let begun = [Event::TaskBegin { task: first }, Event::EpochBegin { epoch: 0, epochs: phase.epochs() }];
    for event in &begun {
        for (i, strategy) in strategies.iter_mut().enumerate() {
            strategy.event(event, &mut model, i)?;
        }
    }
    let mut learner = Learner {
        settings: &file.train,
        model: &mut model,
        regularizers: &mut regularizers,
        scheduler: &mut scheduler,
        fixed_lr: None,
        optimizer: &mut optimizer,
        tasks: &mut tasks,
        reference: Reference::default(),
        precision: setup.precision,
    };
    let batches = (0..).flat_map(|epoch| phase.epoch_from(epoch, 0)).take(range.steps);
    let progress = TrainProgress::new(shown, 0, range.steps as u64);
    let mut curve = Smoothing::default();
    for (i, batch) in batches.enumerate() {
        learner.fixed_lr = Some(range.rate(i));
        let now =
            Progress { step: i as u64, total_steps: range.steps as u64, steps_per_epoch: phase.steps_per_epoch() };
        let step = learner.step(&batch, &now, &mut state)?;
        state.trained.steps += 1;
        if step.update == Update::Empty {
            continue; // it says nothing of the rate
        }
        if step.update == Update::NotFinite || !curve.add(range.rate(i), step.loss) {
            curve.diverged = true;
            break;
        }
        progress.step(&StepReport { loss: Some(step.loss), lr: step.lr, samples: batch.rows.len(), tokens: 0 });
    }
    progress.finish();
    Ok(LrCurve::of(curve.points, curve.diverged))
}

#[derive(Default)]
struct Smoothing {
    points: Vec<Point>,
    sum: f64,
    weight: f64,
    diverged: bool,
}

impl Smoothing {
    /// Adds a loss; false where the search should end.
    fn add(&mut self, lr: f64, loss: f64) -> bool {
        self.sum = SMOOTHING * self.sum + (1.0 - SMOOTHING) * loss;
        self.weight = SMOOTHING * self.weight + (1.0 - SMOOTHING);
        let smoothed = self.sum / self.weight;
        self.points.push(Point { lr, loss, smoothed });
        let best = self.points.iter().map(|point| point.smoothed).fold(f64::INFINITY, f64::min);
        smoothed <= DIVERGED * best
    }
}

impl LrCurve {
    fn of(points: Vec<Point>, diverged: bool) -> Self {
        // At the beginning the smoothed loss is one of few batches, and at the end it explodes.
        let (begin, end) = (points.len() / 10, points.len().saturating_sub(if diverged { 5 } else { 0 }));
        let seen = points.get(begin..end).unwrap_or_default();
        let lowest = seen.iter().min_by(|a, b| a.smoothed.total_cmp(&b.smoothed));
        Self {
            suggestion: valley(seen).map(|point| point.lr),
            steepest: steepest(seen).map(|point| point.lr),
            tenth_of_minimum: lowest.map(|point| point.lr / 10.0),
            diverged,
            points,
        }
    }

    /// Every few points with a bar as long as the smoothed loss, and the suggestion.
    pub fn to_text(&self) -> String {
        let mut table = Table::new();
        table.row(["rate", "loss", "smoothed", ""]);
        let stride = self.points.len().div_ceil(ROWS).max(1);
        let smoothed = || self.points.iter().map(|point| point.smoothed);
        let (low, high) = (smoothed().fold(f64::INFINITY, f64::min), smoothed().fold(f64::NEG_INFINITY, f64::max));
        for rows in self.points.chunks(stride) {
            let Some(point) = rows.last() else { continue };
            let share = (point.smoothed - low) / (high - low).max(f64::MIN_POSITIVE);
            let holds = |lr: Option<f64>| lr.is_some_and(|lr| rows[0].lr <= lr && lr <= point.lr);
            let mark = if holds(self.suggestion) { "  <- suggestion" } else { "" };
            let bar = "█".repeat((share * BAR).round() as usize + 1);
            let cells = [format!("{:.1e}", point.lr), significant(point.loss), significant(point.smoothed), bar + mark];
            table.row(cells.each_ref().map(String::as_str));
        }
        let mut text = table.to_text();
        text += &match self.suggestion {
            Some(lr) => format!("suggestion: train.lr = {lr:.1e}, in the middle of the longest fall"),
            None => "no suggestion: the loss fell nowhere; try another range, or look at the data".into(),
        };
        if let (Some(steepest), Some(tenth)) = (self.steepest, self.tenth_of_minimum) {
            text += &format!("\nsteepest at {steepest:.1e}; a tenth of the minimum's rate is {tenth:.1e}");
        }
        text
    }
}

/// The middle of the longest falling subsequence, as fastai's `valley`.
fn valley(points: &[Point]) -> Option<&Point> {
    // By its last point, the length of the longest one and where it begins.
    let mut longest: Vec<(usize, usize)> = Vec::new();
    for (i, point) in points.iter().enumerate() {
        let before = (0..i).filter(|&j| point.smoothed < points[j].smoothed).max_by_key(|&j| longest[j].0);
        longest.push(before.map_or((1, i), |j| (longest[j].0 + 1, longest[j].1)));
    }
    let (end, &(length, begin)) = longest.iter().enumerate().max_by_key(|(_, (length, _))| *length)?;
    (length > 1).then(|| &points[(begin + end) / 2])
}

/// Where the smoothed loss falls fastest from one rate to the next.
fn steepest(points: &[Point]) -> Option<&Point> {
    let slopes = points.windows(2).map(|pair| (pair[1].smoothed - pair[0].smoothed, &pair[1]));
    let (slope, point) = slopes.min_by(|a, b| a.0.total_cmp(&b.0))?;
    (slope < 0.0).then_some(point)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn curve(losses: &[f64]) -> LrCurve {
        let point = |(i, &loss): (usize, &f64)| Point { lr: 10f64.powi(i as i32 - 20), loss, smoothed: loss };
        LrCurve::of(losses.iter().enumerate().map(point).collect(), false)
    }

    #[test]
    fn the_suggestion_lies_in_the_middle_of_the_fall() {
        let flat = [1.0, 1.001, 1.0, 1.001];
        let falls = [0.99, 0.9, 0.8, 0.5, 0.4, 0.3];
        let rises = [0.35, 0.6, 2.0];
        let found = curve(&[&flat[..], &falls, &rises].concat());
        let exponent = |lr: Option<f64>| lr.unwrap().log10().round() as i32 + 20;
        assert_eq!(exponent(found.steepest), 7); // 0.8 -> 0.5
        assert!((5..=7).contains(&exponent(found.suggestion)), "{:?}", found.suggestion);
        assert_eq!(exponent(found.tenth_of_minimum), 8);
        assert!(found.to_text().contains("<- suggestion"), "{}", found.to_text());
    }

    #[test]
    fn where_the_loss_only_rises_nothing_is_suggested() {
        let found = curve(&[1.0, 1.1, 1.2, 1.3, 1.4]);
        assert_eq!((found.suggestion, found.steepest), (None, None));
        assert!(found.to_text().contains("no suggestion"));
    }

    #[test]
    fn rates_rise_by_a_factor_and_a_wrong_range_is_refused() {
        let range = Range { from: 1e-4, to: 1.0, steps: 11 };
        assert!(range.check().is_ok());
        assert!((range.rate(5) - 1e-2).abs() < 1e-12 && (range.rate(10) - 1.0).abs() < 1e-12);
        for (from, to, steps) in [(0.0, 1.0, 100), (1.0, 0.1, 100), (1e-7, f64::INFINITY, 100), (1e-7, 1.0, 9)] {
            assert!(Range { from, to, steps }.check().is_err(), "{from} {to} {steps}");
        }
    }

    #[test]
    fn a_loss_of_four_times_the_best_ends_the_search() {
        let mut smoothing = Smoothing::default();
        assert!((0..50).all(|_| smoothing.add(1.0, 1.0)));
        let ended = (0..50).position(|_| !smoothing.add(1.0, 100.0));
        assert!(ended.is_some_and(|steps| steps < 5), "{ended:?}");
    }
}
