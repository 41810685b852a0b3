//! A search for a learning rate: the run in small, once for each of some rates, and how far the loss has fallen by its end.
//!
//! Each trial begins where the run begins and takes the same batches by the run's own schedule, drawn together to fewer steps. What it
//! comes to is its mean loss over the last of these batches, each of which it meets for the first time (in a first epoch), so trials
//! are compared batch by batch: what one batch has more of than another is in all of them alike. `suggest` says what follows. Nothing
//! of it is kept.
//!
//! A test of rising rates in one pass (Smith 2015, arXiv:1506.01186) is cheaper and was tried: each rate has a single noisy step there, and
//! what it named for LoRA on SST-2 did not train.

pub mod page;
mod suggest;

use std::collections::BTreeMap;

use fthost_autograd::Tensor;
use fthost_plugin_api::{Event, Progress};

use super::file::{RunFile, TrainTable};
use super::machine::DeviceChoice;
use super::setup::phase::Batch;
use super::setup::{self, Setup, model as base};
use super::state::optimizer::Optimizer;
use super::state::snapshot::{self, Parts, TrainState};
use super::train::ahead::Ahead;
use super::train::preferences;
use super::train::reference::Reference;
use super::train::step::{Learner, Update};
use crate::plugin::Stateful;
use crate::report::progress::{StepReport, TrainProgress};
use crate::{Error, Result};
pub use suggest::{LrCurve, Point};

/// Where a trial's loss is this many times what it was untrained, it has diverged.
const DIVERGED: f64 = 4.0;
/// The last share of a trial's steps, by whose losses it is judged.
const JUDGED: f64 = 1.0 / 3.0;
/// Trials beyond an end of the range, where the loss still falls there.
const BEYOND: usize = 4;

/// Which rates are tried, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The lowest, above 0.
    pub from: f64,
    /// The highest.
    pub to: f64,
    /// Optimizer steps of each trial; no more than the run's.
    pub steps: usize,
}

impl Range {
    /// # Errors
    /// Where it is no rising range of positive rates.
    fn check(&self) -> Result<()> {
        if !(self.from > 0.0 && self.from < self.to && self.to.is_finite()) {
            return Err(Error::usage(format!("the rates from {} to {} are no range", self.from, self.to))
                .with_help("give --from above 0 and --to above it, as in --from 1e-5 --to 1e-1"));
        }
        if self.steps < 10 {
            return Err(Error::usage(format!("{} steps are too few to see where the loss falls", self.steps))
                .with_help("give --steps 10 or more; 40 are usual"));
        }
        Ok(())
    }

    /// Rates at about two to a decade, both ends among them.
    fn rates(&self) -> Vec<f64> {
        let decades = (self.to / self.from).log10();
        let gaps = ((2.0 * decades).round() as usize).max(1);
        (0..=gaps).map(|i| self.from * (self.to / self.from).powf(i as f64 / gaps as f64)).collect()
    }
}

/// Tries rates with what a run file names. Nothing is written.
///
/// # Errors
/// As a run's; a range that is none.
pub fn lr_find(file: RunFile, plugins: &[String], device: DeviceChoice, range: Range, shown: bool) -> Result<LrCurve> {
    range.check()?;
    let mut setup = setup::set_up(file, plugins, device)?;
    let phase = setup.phases.first().ok_or_else(|| Error::usage("the run file has no task"))?;
    let (run_steps, steps_per_epoch, epochs) = (phase.steps(), phase.steps_per_epoch(), phase.epochs());
    let first = phase.tasks().next().map(|task| setup.tasks[task].name.clone()).unwrap_or_default();
    let steps = (run_steps as usize).clamp(10, range.steps);
    let batches: Vec<Vec<Batch>> = (0..).flat_map(|epoch| phase.epoch_from(epoch, 0)).take(steps).collect();
    for event in [Event::TaskBegin { task: first }, Event::EpochBegin { epoch: 0, epochs }] {
        for strategy in &mut setup.strategies {
            strategy.event(&event, &mut setup.model, None)?;
        }
    }
    preferences::compute(&setup.model, &mut setup.tasks, setup.precision, shown)?;
    let judged = steps - ((steps as f64 * JUDGED).round() as usize).max(3);
    let times = Times { steps, run_steps, steps_per_epoch };
    let mut trials = Trials::new(&mut setup, &batches, times, judged)?;

    let mut curve = LrCurve::new(trials.untrained()?, steps as u64, run_steps);
    let rates = range.rates();
    let gap = rates[1] / rates[0];
    let progress = TrainProgress::new(shown, 0, ((rates.len() + 2) * steps) as u64);
    for &rate in &rates {
        curve.add(rate, trials.run(rate, &progress)?);
    }
    // Where the lowest loss is at an end, the range was the wrong one.
    for _ in 0..BEYOND {
        let Some(rate) = curve.beyond(gap) else { break };
        curve.add(rate, trials.run(rate, &progress)?);
    }
    for rate in curve.between(gap) {
        curve.add(rate, trials.run(rate, &progress)?);
    }
    progress.finish();
    Ok(curve.suggested())
}

/// How long trials are, and the run.
#[derive(Clone, Copy)]
struct Times {
    steps: usize,
    run_steps: u64,
    steps_per_epoch: u64,
}

impl Times {
    /// The run's step that a trial's stands for.
    fn of_run(self, step: usize) -> Progress {
        let step = (step as u64 * self.run_steps) / self.steps as u64;
        Progress { step, total_steps: self.run_steps, steps_per_epoch: self.steps_per_epoch }
    }
}

/// Trials, each from where the run begins.
struct Trials<'a> {
    setup: &'a mut Setup,
    batches: &'a [Vec<Batch>],
    times: Times,
    /// The first of the batches by which trials are judged.
    judged: usize,
    /// A loss at which training has diverged.
    diverged: f64,
    changed: snapshot::Changed,
    tensors: BTreeMap<String, Tensor>,
}

impl<'a> Trials<'a> {
    fn new(setup: &'a mut Setup, batches: &'a [Vec<Batch>], times: Times, judged: usize) -> Result<Self> {
        let mut optimizer = setup.optimizer.fresh();
        let (changed, tensors) = parts(setup, &mut optimizer).changed()?;
        let tensors = copies(&tensors)?;
        Ok(Self { setup, batches, times, judged, diverged: f64::INFINITY, changed, tensors })
    }

    /// Losses of the judged batches before anything is learned.
    fn untrained(&mut self) -> Result<Vec<f64>> {
        let judged = self.judged;
        let losses = self.steps(0.0, judged, &mut |_| true)?;
        self.put_back()?;
        let counting: Vec<f64> = losses.iter().copied().flatten().collect();
        self.diverged = DIVERGED * (counting.iter().sum::<f64>() / counting.len() as f64).abs();
        Ok(losses.into_iter().map(|loss| loss.unwrap_or(f64::NAN)).collect())
    }

    /// Losses of the judged batches at a rate; not a number where training did not come to one.
    fn run(&mut self, rate: f64, progress: &TrainProgress) -> Result<Vec<f64>> {
        let diverged = self.diverged;
        let losses = self.steps(rate, 0, &mut |step| {
            progress.step(step);
            step.loss.is_none_or(|loss| loss <= diverged)
        })?;
        self.put_back()?;
        let of = |i: usize| losses.get(i).copied().flatten().unwrap_or(f64::NAN);
        Ok((self.judged..self.times.steps).map(of).collect())
    }

    /// Takes the steps from one on, and gives the loss of each before it is taken: none of a batch in which nothing counts. Ends early
    /// where a loss is not finite, or `go_on` does not want to.
    fn steps(
        &mut self,
        rate: f64,
        from: usize,
        go_on: &mut dyn FnMut(&StepReport) -> bool,
    ) -> Result<Vec<Option<f64>>> {
        let mut optimizer = self.setup.optimizer.fresh();
        let Setup { file, model, tasks, regularizers, schedules, precision, .. } = &mut *self.setup;
        let settings = TrainTable { lr: rate, ..file.train.clone() };
        let mut state = TrainState::begin(*precision);
        let mut learner = Learner {
            settings: &settings,
            model,
            regularizers,
            schedules,
            fixed_lr: (rate == 0.0).then_some(0.0),
            optimizer: &mut optimizer,
            tasks,
            reference: Reference::default(),
            precision: *precision,
        };
        let mut losses = Vec::new();
        // Threads that look ahead keep their own.
        let batches: Vec<Vec<Batch>> = self.batches.iter().skip(from).cloned().collect();
        for (i, shows) in
            (from..).zip(Ahead::new(batches.into_iter(), from as u64, (learner.tasks, learner.model), &settings))
        {
            let shows = shows?;
            state.trained.steps = i as u64; // dropout follows from it
            let step = learner.step(&shows, &self.times.of_run(i), &mut state)?;
            let loss = (step.update != Update::Empty).then_some(step.loss);
            let report =
                StepReport { loss, lr: step.lr, samples: shows.iter().map(|of| of.batch.rows.len()).sum(), tokens: 0 };
            if step.update == Update::NotFinite || !go_on(&report) {
                break;
            }
            losses.push(loss);
        }
        Ok(losses)
    }

    fn put_back(&mut self) -> Result<()> {
        let mut optimizer = self.setup.optimizer.fresh();
        let (file, device) = (self.setup.file.clone(), self.setup.model.device.clone());
        let pretrained = || base::load_model(&file, device.clone());
        // A parameter is updated in place: what is kept must not become one.
        parts(self.setup, &mut optimizer).restore_best(&self.changed, &copies(&self.tensors)?, &pretrained)
    }
}

/// All that changes in a trial.
fn parts<'a>(setup: &'a mut Setup, optimizer: &'a mut Optimizer) -> Parts<'a> {
    let Setup { model, tasks, strategies, regularizers, schedules, .. } = setup;
    let mut plugins: Vec<(String, &mut dyn Stateful)> = Vec::new();
    for (i, strategy) in strategies.iter_mut().enumerate() {
        plugins.push((snapshot::strategy_place(i), strategy));
    }
    for (i, regularizer) in regularizers.iter_mut().enumerate() {
        plugins.push((snapshot::regularizer_place(i), regularizer));
    }
    plugins.extend(schedules.stateful());
    for (_, task) in tasks.iter_mut().enumerate().filter(|(place, task)| task.head_of == *place) {
        plugins.push((snapshot::head_place(&task.name), &mut task.head));
    }
    Parts { model, plugins, optimizer }
}

fn copies(tensors: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    tensors.iter().map(|(name, tensor)| Ok((name.clone(), tensor.copy()?))).collect()
}
