//! The training loop, from the first step to the last.

pub mod ahead;
mod cause;
pub mod example_gradients;
mod gathered;
pub mod gradients;
pub mod interrupt;
mod micro_batch;
mod ordered;
pub mod preferences;
pub mod reference;
mod samples;
pub mod step;
mod watch;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use fthost_plugin_api::{Evaluation, Event, Progress};

use crate::adapted::AdaptedModel;
use crate::plugin::{State, Stateful, StrategyInstance};
use crate::report::progress::{StepReport, TrainProgress};
use crate::run::results::evaluate::evaluate;
use crate::run::setup::phase::{Batch, Phase};
use crate::run::setup::task::{Monitor, Task};
use crate::run::state::checkpoint::{Checkpoints, Found};
use crate::run::state::folder::RunFolder;
use crate::run::state::identity::Identity;
use crate::run::state::log::Line;
use crate::run::state::snapshot::{self, After, Parts, TrainState};
use crate::run::state::watch::Watch;
use crate::{Error, Result};
use ahead::{Ahead, Shows};
use example_gradients::TaskExamples;
use interrupt::Interrupt;
use reference::Reference;
use step::{Learner, Step, Update};
use watch::Mean;

/// Everything that takes part in the training.
pub struct Trainer<'a> {
    /// What learns.
    pub learner: Learner<'a>,
    /// The strategies, in order.
    pub strategies: &'a mut [StrategyInstance],
    /// The schedules' states before the first step: each phase begins with them.
    pub fresh_schedules: Vec<State>,
    /// What trains one after the other.
    pub phases: &'a [Phase],
    /// Where checkpoints go.
    pub checkpoints: &'a Checkpoints,
    /// What the run's numbers follow from.
    pub identity: &'a Identity,
    /// The pretrained model, read again.
    pub pretrained: &'a dyn Fn() -> Result<AdaptedModel>,
    /// Whether the user wants to stop.
    pub interrupt: &'a Interrupt,
    /// When the process began, for the time to the first step.
    pub started: Instant,
}

impl Trainer<'_> {
    /// Trains from where `state` stands to the end, phase after phase. Every step is logged to the run folder.
    ///
    /// # Errors
    /// [`Error::Interrupted`] where the user stops it, with a checkpoint written; whatever else ends it.
    pub fn train(
        &mut self,
        mut state: TrainState,
        folder: &mut RunFolder,
        progress: &TrainProgress,
    ) -> Result<TrainState> {
        let mut watch = Stopwatch::start(state.trained.seconds);
        while let Some(phase) = self.phases.get(state.phase.number) {
            if state.phase_steps() == 0 {
                self.begin(phase, &mut state, folder.path())?;
            } else if let Some(task) = self.held_in(phase)? {
                self.learner.reference = Reference::read(folder.path(), task, self.learner.tasks)?;
            }
            self.run(phase, &mut state, &mut watch, folder, progress)?;
            watch.pause(|| self.end(phase, &mut state, folder, progress))?;
        }
        folder.flush()?;
        state.trained.seconds = watch.seconds();
        Ok(state)
    }

    /// A phase begins: optimizer and schedules begin anew, as they would in a run of its own.
    fn begin(&mut self, phase: &Phase, state: &mut TrainState, run: &Path) -> Result<()> {
        if state.phase.number > 0 {
            *self.learner.optimizer = self.learner.optimizer.fresh();
            self.learner.schedules.load(&self.fresh_schedules)?;
        }
        state.watch = watch::of_phase(phase, self.learner.tasks, self.learner.settings);
        if let Some(task) = self.held_in(phase)? {
            let pass = |earlier: usize| self.learner.pass(earlier, &self.learner.tasks[task].train);
            self.learner.reference = Reference::record(run, task, self.learner.tasks, pass)?;
        }
        phase
            .tasks()
            .try_for_each(|task| self.tell(&Event::TaskBegin { task: self.learner.tasks[task].name.clone() }, task))
    }

    /// The task of a phase after the first, where a regularizer holds what earlier heads say of its examples.
    fn held_in(&self, phase: &Phase) -> Result<Option<usize>> {
        for regularizer in self.learner.regularizers.iter() {
            if self.phases.len() > 1 && regularizer.needs_reference()? {
                return Ok(phase.tasks().next().filter(|&task| task > 0));
            }
        }
        Ok(None)
    }

    /// A phase is over: its best model is put back, everyone is told, and where further tasks follow in sequence, all are tested.
    fn end(
        &mut self,
        phase: &Phase,
        state: &mut TrainState,
        folder: &mut RunFolder,
        progress: &TrainProgress,
    ) -> Result<()> {
        let step = state.trained.steps;
        // Also where the last step was the best: since then everyone has heard of its evaluation, and may have changed something.
        if let Some(best) = state.watch.as_ref().and_then(|watch| watch.best) {
            let Found { header, tensors, .. } = self.checkpoints.best(best.step)?;
            let pretrained = self.pretrained;
            self.parts().restore_best(&header, &tensors, pretrained)?;
        }
        // Of all tasks, because what the others' heads predict by has changed with the encoder.
        (0..self.learner.tasks.len()).try_for_each(|task| self.learner.fit(task))?;
        phase
            .tasks()
            .try_for_each(|task| self.tell(&Event::TaskEnd { task: self.learner.tasks[task].name.clone() }, task))?;
        // Once more, because a plugin may have set weights. Nothing moves from here to the tests.
        (0..self.learner.tasks.len()).try_for_each(|task| self.learner.fit(task))?;
        self.log_scalars(step, folder)?;
        // What the last phase comes to is the run's own result.
        if state.phase.number + 1 < self.phases.len() {
            let ended = phase.tasks().next().map_or("", |task| self.learner.tasks[task].name.as_str());
            let mut after = After { task: ended.to_owned(), metrics: BTreeMap::new() };
            for (i, task) in self.learner.tasks.iter().enumerate() {
                let Some(test) = &task.test else { continue };
                progress.say(&format!("testing {} after {ended}", task.name));
                let metrics = evaluate(&self.learner.pass(i, test), &|_| {})?.metrics().clone();
                folder.log(&Line::Evaluation {
                    step,
                    task: &task.name,
                    when: &format!("after {ended}"),
                    metrics: &metrics,
                })?;
                after.metrics.insert(task.name.clone(), metrics);
            }
            state.sequence.push(after);
        }
        state.end_phase();
        Ok(())
    }

    /// The steps of a phase, from where it stands to its end, or until the monitored metric has not been better for too long.
    fn run(
        &mut self,
        phase: &Phase,
        state: &mut TrainState,
        watch: &mut Stopwatch,
        folder: &mut RunFolder,
        progress: &TrainProgress,
    ) -> Result<()> {
        let (steps_per_epoch, total_steps) = (phase.steps_per_epoch(), phase.steps());
        let epochs = phase.epochs();
        let last_phase = state.phase.number + 1 == self.phases.len();
        let mut batches = None;
        while state.phase_steps() < total_steps && !state.watch.as_ref().is_some_and(Watch::stops) {
            let step = state.phase_steps();
            let (epoch, place) = (step / steps_per_epoch, step % steps_per_epoch);
            if place == 0 {
                state.epoch_loss = (0.0, 0);
                self.tell_all(phase, &Event::EpochBegin { epoch, epochs })?;
            }
            let now_trained = state.trained.steps;
            let rest = batches.get_or_insert_with(|| {
                let of = (&*self.learner.tasks, &*self.learner.model);
                Ahead::new(phase.epoch_from(epoch, place), now_trained, of, self.learner.settings)
            });
            let Some(shows) = rest.next() else { return Err(Error::run("an epoch has fewer batches than it should")) };
            let shows = shows?;
            state.trained.waited_seconds += rest.waited().as_secs_f64();

            self.tell_all(phase, &Event::StepBegin { step, total_steps })?;
            let now = Progress { step, total_steps, steps_per_epoch };
            let Step { loss, losses, penalty, penalties, gradient_norm, lr, rates, update, gradients } =
                self.learner.step(&shows, &now, state)?;
            if update == Update::NotFinite {
                return Err(self.not_finite(&shows, state.trained.steps, (loss, penalty, gradient_norm)));
            }
            if update == Update::Empty && state.trained.empty_steps == 0 {
                tracing::warn!(
                    "step {}: no example of the batch counts in the loss, so there is nothing to learn; such steps are left out",
                    state.trained.steps + 1
                );
            }
            let learned = || shows.iter().map(|of| &of.batch);
            let samples: usize = learned().map(|batch| batch.rows.len()).sum();
            let tokens = learned().map(|batch| self.tokens(batch)).sum::<Result<usize>>()?;
            state.trained.steps += 1;
            state.trained.skipped_steps += u64::from(update == Update::Skipped);
            state.trained.empty_steps += u64::from(update == Update::Empty);
            state.trained.samples += samples as u64;
            state.trained.tokens += tokens as u64;
            if update == Update::Taken {
                state.epoch_loss = (state.epoch_loss.0 + loss, state.epoch_loss.1 + 1);
            }
            if state.trained.steps == 1 {
                state.trained.first_step_seconds = self.started.elapsed().as_secs_f64();
            }
            // Of a step that was left out nothing has a gradient.
            self.learner.model.stepped = Some(gradients.unwrap_or_default());
            self.tell_all(phase, &Event::StepEnd { step, total_steps, loss })?;
            self.learner.model.stepped = None;
            let name = |task: usize| self.learner.tasks[task].name.as_str();
            let task = learned().next().map(|batch| name(batch.task));
            let mixed = self.learner.tasks.len() > 1;
            folder.log(&Line::Step {
                step: state.trained.steps,
                task: task.filter(|_| mixed && shows.len() == 1),
                losses: (shows.len() > 1).then(|| losses.iter().map(|&(task, loss)| (name(task), loss)).collect()),
                epoch: epoch + 1,
                loss,
                penalty,
                penalties,
                lr,
                rates,
                gradient_norm,
                samples,
                tokens,
                seconds: watch.seconds(),
                left_out: update.left_out(),
            })?;
            self.log_scalars(state.trained.steps, folder)?;
            let loss = (update != Update::Empty).then_some(loss);
            progress.step(&StepReport { loss, lr, samples, tokens });

            let phase_ends = step + 1 == total_steps;
            let epoch_ends = place + 1 == steps_per_epoch || phase_ends;
            if epoch_ends {
                if place + 1 == steps_per_epoch {
                    self.something_counts(phase, state)?;
                }
                self.tell_all(phase, &Event::EpochEnd { epoch, epochs })?;
                batches = None;
            }
            if self.learner.settings.evaluate_steps.map_or(epoch_ends, |every| (step + 1).is_multiple_of(every)) {
                self.learner.gradients_still_come(state)?;
                watch.pause(|| self.validate(phase, state, &now, folder, progress))?;
            }
            let due = self.learner.settings.checkpoint_steps.is_some_and(|every| (step + 1).is_multiple_of(every));
            let interrupted = self.interrupt.came();
            if due || epoch_ends || interrupted {
                state.trained.seconds = watch.seconds();
                state.trained.loss = state.epoch_loss.0 / state.epoch_loss.1.max(1) as f64;
                self.write_checkpoint(state, folder)?;
            }
            if interrupted && !(phase_ends && last_phase) {
                let all: u64 = self.phases.iter().map(Phase::steps).sum();
                return Err(interrupted_after(state.trained.steps, all));
            }
        }
        let before_its_end = state.phase_steps() < total_steps;
        if let Some(watch) = state.watch.as_mut().filter(|_| before_its_end) {
            watch.stopped_early = Some(state.trained.steps);
        }
        Ok(())
    }

    /// Refuses to go on where no step of a whole epoch has had anything to learn from: the head gives no loss a weight.
    fn something_counts(&self, phase: &Phase, state: &TrainState) -> Result<()> {
        if state.trained.empty_steps < state.trained.steps {
            return Ok(());
        }
        let tasks: Vec<String> = phase.tasks().map(|task| format!("{}", self.learner.tasks[task].head)).collect();
        Err(Error::run(format!(
            "no example has counted in the loss of any of the {} steps: {} gives each loss the weight 0",
            state.trained.steps,
            tasks.join(" or ")
        ))
        .with_help(
            "a loss is its sum divided by its weight: give classes and examples that are to count weights above 0",
        ))
    }

    /// Tokens of a batch. A picture of a file is one thing to whoever counts; only the split into passes goes by its patches.
    fn tokens(&self, batch: &Batch) -> Result<usize> {
        let data = &self.learner.tasks[batch.task].train;
        if data.takes_work() { Ok(batch.rows.len()) } else { batch.rows.iter().map(|&row| data.tokens(row)).sum() }
    }

    /// Evaluates the validation examples of the phase's tasks, with the weights that plugins want evaluated.
    fn validate(
        &mut self,
        phase: &Phase,
        state: &mut TrainState,
        now: &Progress,
        folder: &mut RunFolder,
        progress: &TrainProgress,
    ) -> Result<()> {
        let step = state.trained.steps;
        if state.watch.is_none() {
            return Ok(());
        }
        self.tell_all(phase, &Event::EvaluationBegin { step })?;
        self.watch(phase, state, now, folder, progress)?;
        self.tell_all(phase, &Event::EvaluationEnd { step })?;
        self.log_scalars(step, folder)
    }

    /// Evaluates the model as it stands on the validation examples, tells everyone, and keeps it where it is the best.
    fn watch(
        &mut self,
        phase: &Phase,
        state: &mut TrainState,
        now: &Progress,
        folder: &mut RunFolder,
        progress: &TrainProgress,
    ) -> Result<()> {
        let Some(watch) = &mut state.watch else { return Ok(()) };
        let step = state.trained.steps;
        let (mut seen, mut found, mut said) = (Mean::default(), Vec::new(), Vec::new());
        for i in phase.tasks() {
            if self.learner.tasks[i].validation.is_some() {
                self.learner.fit(i)?;
            }
            let task = &self.learner.tasks[i];
            let Some(data) = &task.validation else { continue };
            let metrics = evaluate(&self.learner.pass(i, data), &|_| {})?.metrics().clone();
            folder.log(&Line::Evaluation { step, task: &task.name, when: "validation", metrics: &metrics })?;
            if let Some(Monitor { metric, .. }) = &task.monitor {
                let value = metrics.get(metric).ok_or_else(|| not_measured(&task.name, metric))?;
                seen.add(*value, task.weight);
            }
            found.push((i, metrics));
            said.extend(samples::say(task, self.learner.model, step, folder)?.into_iter().map(|sample| (i, sample)));
        }
        let value = seen.value();
        let task = if let [(i, _)] = found.as_slice() { self.learner.tasks[*i].name.as_str() } else { "" };
        let (metric, higher_is_better) = (watch.metric.as_str(), watch.higher_is_better());
        self.learner.schedules.on_evaluation(now, &Evaluation { value, metric, higher_is_better, task })?;
        let better = watch.see(step, value);
        if better {
            let (changed, tensors) = self.parts().changed()?;
            self.checkpoints.write_best(step, &changed, &tensors)?;
        }
        let losses = found.iter().map(|(i, metrics)| {
            let loss = metrics.get("loss").map_or("none".to_owned(), |loss| format!("{loss:.4}"));
            if found.len() == 1 { format!("loss {loss}") } else { format!("{} {loss}", self.learner.tasks[*i].name) }
        });
        let losses = losses.collect::<Vec<_>>().join(", ");
        let remark = if better { ", the best so far" } else { "" };
        progress.say(&format!("step {step}: validation {} {value:.4}, {losses}{remark}", watch.metric));
        for (task, sample) in said {
            let of = if found.len() == 1 { String::new() } else { format!("{}: ", self.learner.tasks[task].name) };
            progress.say(&format!("  {of}{sample}"));
        }
        for (i, mut metrics) in found {
            // A plugin reads numbers, and JSON has none for what is undefined.
            metrics.retain(|_, value| value.is_finite());
            self.tell(&Event::Evaluation { step, task: self.learner.tasks[i].name.clone(), metrics }, i)?;
        }
        Ok(())
    }

    /// Logs what plugins have told of the run since the last time.
    fn log_scalars(&self, step: u64, folder: &mut RunFolder) -> Result<()> {
        let told = self.learner.model.handles().take_scalars();
        told.iter().try_for_each(|(name, value)| folder.log(&Line::Scalar { step, name, value: *value }))
    }

    fn write_checkpoint(&mut self, state: &TrainState, folder: &mut RunFolder) -> Result<()> {
        self.log_scalars(state.trained.steps, folder)?;
        let position = folder.log_position()?;
        let identity = self.identity.clone();
        let (header, tensors) = self.parts().capture(identity, state.clone(), position)?;
        self.checkpoints.write(state.trained.steps, &header, &tensors)?;
        Ok(())
    }

    /// All that changes while it trains.
    pub fn parts(&mut self) -> Parts<'_> {
        let mut plugins: Vec<(String, &mut dyn Stateful)> = Vec::new();
        for (i, strategy) in self.strategies.iter_mut().enumerate() {
            plugins.push((snapshot::strategy_place(i), strategy));
        }
        for (i, regularizer) in self.learner.regularizers.iter_mut().enumerate() {
            plugins.push((snapshot::regularizer_place(i), regularizer));
        }
        plugins.extend(self.learner.schedules.stateful());
        for (_, task) in self.learner.tasks.iter_mut().enumerate().filter(|(place, task)| task.head_of == *place) {
            plugins.push((snapshot::head_place(&task.name), &mut task.head));
        }
        Parts { model: self.learner.model, plugins, optimizer: self.learner.optimizer }
    }

    /// Tells everyone what happened to a phase.
    fn tell_all(&mut self, phase: &Phase, event: &Event) -> Result<()> {
        let task = phase.tasks().next().unwrap_or_default();
        self.tell(event, task)
    }

    /// Tells everyone what happened to a task.
    fn tell(&mut self, event: &Event, task: usize) -> Result<()> {
        let Task { head, spec, train, .. } = &self.learner.tasks[task];
        let mut examples = TaskExamples { head, spec, data: train, seed: self.learner.settings.seed };
        for strategy in self.strategies.iter_mut() {
            strategy.event(event, self.learner.model, Some(&mut examples))?;
        }
        for regularizer in self.learner.regularizers.iter_mut() {
            regularizer.event(event, self.learner.model, Some(&mut examples))?;
        }
        Ok(())
    }

    /// The error of a step whose numbers are none, with who made the first of them.
    fn not_finite(&self, shows: &[Shows], step: u64, (loss, penalty, norm): (f64, Option<f64>, f64)) -> Error {
        let what = match penalty {
            _ if !loss.is_finite() => format!("the loss is {loss}"),
            Some(penalty) if !penalty.is_finite() => format!("the penalty is {penalty}"),
            _ => format!("the gradients have the norm {norm}"),
        };
        let cause = self.learner.cause(shows, step);
        let by_rate = "lower train.lr, or set train.clip_norm = 1.0";
        let help = match &cause {
            // Before the first update no rate has had an effect.
            Some(cause) if cause.plugin && step == 0 => {
                "nothing has been trained yet: tell the plugin's author".to_owned()
            }
            Some(cause) if cause.plugin => format!("if the plugin is right, {by_rate}"),
            _ => by_rate.to_owned(),
        };
        let kept = match self.checkpoints.latest() {
            Some(path) => format!("; the last checkpoint is {}", path.display()),
            None => String::new(),
        };
        let cause = cause.map_or(String::new(), |cause| format!(": {}", cause.text));
        Error::run(format!("{what} at step {}{cause}", step + 1)).with_help(format!("{help}{kept}"))
    }
}

/// A metric of validation examples that there is none of: the loss, where it is a mean over nothing.
fn not_measured(task: &str, metric: &str) -> Error {
    Error::run(format!("no validation example of the task {task} counts in its loss, so there is no {metric} to watch"))
        .with_help("give their classes weights above 0, or watch another metric by train.monitor")
}

fn interrupted_after(step: u64, steps: u64) -> Error {
    Error::Interrupted { message: format!("stopped after step {step} of {steps}; a checkpoint is written"), help: None }
}

/// Seconds of training, those of earlier processes included and pauses left out.
struct Stopwatch {
    before: f64,
    began: Instant,
    paused: f64,
}

impl Stopwatch {
    fn start(before: f64) -> Self {
        Self { before, began: Instant::now(), paused: 0.0 }
    }

    fn seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64() - self.paused
    }

    fn pause<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = work();
        self.paused += began.elapsed().as_secs_f64();
        result
    }
}
