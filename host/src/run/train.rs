//! The training loop, from the first step to the last.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use fthost_autograd::optim::{self, LossScaler};
use fthost_autograd::{Gradients, Precision, Tape, Tensor};
use fthost_plugin_api::{Event, Group, Progress, Rate};
use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoints;
use super::evaluate::evaluate;
use super::events::Line;
use super::examples::TaskExamples;
use super::file::TrainTable;
use super::folder::RunFolder;
use super::identity::Identity;
use super::interrupt::Interrupt;
use super::phase::{Batch, Phase};
use super::reference::{Holding, Reference};
use super::snapshot::{self, After, Parts, TrainState, parameters};
use super::step::{BatchGradients, DropoutKey, Pass, scalar};
use super::task::Task;
use super::watch::{self, Mean, Watch};
use crate::adapted::{AdaptedModel, Owner};
use crate::data::Dataset;
use crate::plugin::{RegularizerInstance, SchedulerInstance, State, Stateful, StrategyInstance};
use crate::report::progress::{StepReport, TrainProgress};
use crate::{Error, Result};

/// Everything that takes part in the training.
pub struct Trainer<'a> {
    /// `[train]` of the run file.
    pub settings: &'a TrainTable,
    /// The model with its hooks.
    pub model: &'a mut AdaptedModel,
    /// The strategies, in order.
    pub strategies: &'a mut [StrategyInstance],
    /// The regularizers, in order.
    pub regularizers: &'a mut [RegularizerInstance],
    /// The schedule.
    pub scheduler: &'a mut SchedulerInstance,
    /// The schedule's state before the first step: each phase begins with it.
    pub fresh_schedule: State,
    /// The optimizer.
    pub optimizer: &'a mut optim::Optimizer,
    /// The tasks, in the order of the run file.
    pub tasks: &'a mut [Task],
    /// What trains one after the other.
    pub phases: &'a [Phase],
    /// What the heads of earlier phases said of the present one's examples, where a regularizer wants to hold it.
    pub reference: Reference,
    /// Float type of matrix products.
    pub precision: Precision,
    /// Where checkpoints go.
    pub checkpoints: &'a Checkpoints,
    /// What the run's numbers follow from.
    pub identity: &'a Identity,
    /// Whether the user wants to stop.
    pub interrupt: &'a Interrupt,
    /// When the process began, for the time to the first step.
    pub started: Instant,
}

/// Figures of a training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Wall-clock seconds of the loop, evaluation left out; of all processes, where the run was resumed.
    pub seconds: f64,
    /// Optimizer steps.
    pub steps: u64,
    /// Steps whose gradients overflowed in `f16` and were left out.
    pub skipped_steps: u64,
    /// Examples seen.
    pub samples: u64,
    /// Tokens (or patches) seen.
    pub tokens: u64,
    /// Mean loss of the last epoch's steps.
    pub loss: f64,
    /// The process's peak resident memory.
    pub peak_rss_bytes: u64,
    /// Seconds from the start of the process to the end of the first step.
    pub first_step_seconds: f64,
    /// Share of the trainable parameters that received a gradient in the first step. Anything below 1 is an error.
    pub parameters_with_gradient: f64,
}

/// What one optimizer step came to.
struct Step {
    /// Mean loss, penalties left out.
    loss: f64,
    penalty: Option<f64>,
    gradient_norm: f64,
    lr: f64,
    /// Gradients overflowed in `f16`; nothing was updated.
    skipped: bool,
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
                self.reference = Reference::read(folder.path(), task, self.tasks)?;
            }
            self.run(phase, &mut state, &mut watch, folder, progress)?;
            watch.pause(|| self.end(phase, &mut state, folder, progress))?;
        }
        folder.flush()?;
        state.trained.seconds = watch.seconds();
        Ok(state)
    }

    /// A phase begins: optimizer and schedule begin anew, as they would in a run of its own.
    fn begin(&mut self, phase: &Phase, state: &mut TrainState, run: &Path) -> Result<()> {
        if state.phase.number > 0 {
            *self.optimizer = optim::Optimizer::new(self.optimizer.method());
            self.scheduler.load(&self.fresh_schedule)?;
        }
        state.watch = watch::of_phase(phase, self.tasks, self.settings);
        if let Some(task) = self.held_in(phase)? {
            let pass = |earlier: usize| self.pass(earlier, &self.tasks[task].train);
            self.reference = Reference::record(run, task, self.tasks, pass)?;
        }
        phase.tasks().try_for_each(|task| self.tell(&Event::TaskBegin { task: self.tasks[task].name.clone() }, task))
    }

    /// The task of a phase after the first, where a regularizer holds what earlier heads say of its examples.
    fn held_in(&self, phase: &Phase) -> Result<Option<usize>> {
        for regularizer in self.regularizers.iter() {
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
        let best = state.watch.as_ref().and_then(|watch| watch.best);
        if let Some(best) = best.filter(|best| best.step != step) {
            snapshot::restore_parameters(self.model, &self.checkpoints.best(best.step)?)?;
        }
        phase.tasks().try_for_each(|task| self.tell(&Event::TaskEnd { task: self.tasks[task].name.clone() }, task))?;
        if self.phases.len() > 1 {
            let ended = phase.tasks().next().map_or("", |task| self.tasks[task].name.as_str());
            let mut after = After { task: ended.to_owned(), metrics: BTreeMap::new() };
            for (i, task) in self.tasks.iter().enumerate() {
                let Some(test) = &task.test else { continue };
                progress.say(&format!("testing {} after {ended}", task.name));
                let metrics = evaluate(&self.pass(i, test), &|_| {})?.metrics();
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
        let epochs = self.settings.epochs;
        let last_phase = state.phase.number + 1 == self.phases.len();
        let mut batches = None;
        while state.phase_steps() < total_steps && !state.watch.as_ref().is_some_and(Watch::stops) {
            let step = state.phase_steps();
            let (epoch, place) = (step / steps_per_epoch, step % steps_per_epoch);
            if place == 0 {
                state.epoch_loss = (0.0, 0);
                self.tell_all(phase, &Event::EpochBegin { epoch, epochs })?;
            }
            let rest = batches.get_or_insert_with(|| phase.epoch_from(epoch, place));
            let Some(batch) = rest.next() else { return Err(Error::run("an epoch has fewer batches than it should")) };

            self.tell_all(phase, &Event::StepBegin { step, total_steps })?;
            let now = Progress { step, total_steps, steps_per_epoch };
            let Step { loss, penalty, gradient_norm, lr, skipped } = self.step(&batch, &now, state)?;
            let Batch { task, rows, .. } = &batch;
            let data = &self.tasks[*task].train;
            let tokens = rows.iter().map(|&row| data.tokens(row)).sum::<Result<usize>>()?;
            state.trained.steps += 1;
            state.trained.skipped_steps += u64::from(skipped);
            state.trained.samples += rows.len() as u64;
            state.trained.tokens += tokens as u64;
            if !skipped {
                state.epoch_loss = (state.epoch_loss.0 + loss, state.epoch_loss.1 + 1);
            }
            if state.trained.steps == 1 {
                state.trained.first_step_seconds = self.started.elapsed().as_secs_f64();
            }
            self.tell_all(phase, &Event::StepEnd { step, total_steps, loss })?;
            folder.log(&Line::Step {
                step: state.trained.steps,
                task: (self.tasks.len() > 1).then_some(self.tasks[*task].name.as_str()),
                epoch: epoch + 1,
                loss,
                penalty,
                lr,
                gradient_norm,
                samples: rows.len(),
                tokens,
                seconds: watch.seconds(),
            })?;
            progress.step(&StepReport { loss, lr, samples: rows.len(), tokens });

            let phase_ends = step + 1 == total_steps;
            let epoch_ends = place + 1 == steps_per_epoch || phase_ends;
            if epoch_ends {
                self.tell_all(phase, &Event::EpochEnd { epoch, epochs })?;
                batches = None;
            }
            if self.settings.evaluate_steps.map_or(epoch_ends, |every| (step + 1).is_multiple_of(every)) {
                watch.pause(|| self.validate(phase, state, &now, folder, progress))?;
            }
            let due = self.settings.checkpoint_steps.is_some_and(|every| (step + 1).is_multiple_of(every));
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
        Ok(())
    }

    /// One optimizer step: gradients of a batch, penalties, clipping, update.
    fn step(&mut self, batch: &Batch, now: &Progress, state: &mut TrainState) -> Result<Step> {
        let mut scaler = state.scaler();
        let scale = scaler.map_or(1.0, |scaler| scaler.scale());
        let step = state.trained.steps;
        let BatchGradients { mut gradients, loss, penalty: held, weight } = self.gradients(batch, step, scale)?;
        let loss = loss / weight;
        gradients.scale(self.tasks[batch.task].weight / (weight * scale))?;
        // Before penalties, which reach every parameter whether the loss does or not.
        if batch.first {
            state.trained.parameters_with_gradient = self.every_parameter_has_a_gradient(batch.task, &gradients)?;
        }
        let held = (!self.reference.is_empty()).then_some(held / weight);
        let penalty = match (self.add_penalties(&mut gradients)?, held) {
            (Some(penalty), Some(held)) => Some(penalty + held),
            (penalty, held) => penalty.or(held),
        };
        gradients.densify()?;
        let gradient_norm = self.clip(&mut gradients)?;
        let finite = gradient_norm.is_finite() && (loss + penalty.unwrap_or(0.0)).is_finite();
        if let Some(scaler) = &mut scaler {
            scaler.update(finite);
            state.loss_scale = Some((scaler.scale(), scaler.steady()));
        }
        // Below 1, scaling makes gradients smaller than they are: what overflows then is no matter of the float type.
        let skipped = !finite && scaler.is_some_and(|scaler: LossScaler| scaler.scale() >= 1.0);
        if !finite && !skipped {
            return Err(self.not_finite(step, loss, gradient_norm));
        }
        let base = self.rate(now, 1.0)?;
        if !skipped {
            self.update(&gradients, now, base)?;
        }
        Ok(Step { loss, penalty, gradient_norm, lr: base.lr, skipped })
    }

    /// Gradients of the sum of the examples' loss terms, batch by batch.
    fn gradients(&self, batch: &Batch, step: u64, loss_scale: f64) -> Result<BatchGradients> {
        let pass = self.pass(batch.task, &self.tasks[batch.task].train);
        let holding = (!self.reference.is_empty()).then_some(Holding {
            regularizers: self.regularizers,
            tasks: self.tasks,
            reference: &self.reference,
        });
        let mut sum = BatchGradients::default();
        for (i, rows) in batch.rows.chunks(self.settings.batch_size).enumerate() {
            let first = (i * self.settings.batch_size) as u64;
            let dropout = self.settings.dropout.then_some(DropoutKey { seed: self.settings.seed, step, first });
            sum.add(pass.gradients(rows, dropout, loss_scale, holding.as_ref())?)?;
        }
        Ok(sum)
    }

    /// A pass over a data set of a task.
    pub fn pass<'b>(&'b self, task: usize, data: &'b Dataset) -> Pass<'b> {
        let Task { head, spec, .. } = &self.tasks[task];
        Pass { model: self.model, head, spec, data, precision: self.precision }
    }

    /// Adds the gradients of the regularizers' penalties; their sum, if there was any.
    fn add_penalties(&self, gradients: &mut Gradients) -> Result<Option<f64>> {
        let mut sum = None;
        for regularizer in self.regularizers.iter() {
            let tape = Tape::recording();
            if let Some(penalty) = regularizer.penalty(&tape)? {
                *sum.get_or_insert(0.0) += scalar(&penalty)?;
                gradients.accumulate(tape.backward(&penalty)?)?;
            }
        }
        Ok(sum)
    }

    /// No silent no-op: a parameter that was declared to train and is not reached by the loss is an error.
    /// Heads of other tasks are not reached by this one's.
    fn every_parameter_has_a_gradient(&self, task: usize, gradients: &Gradients) -> Result<f64> {
        let left_out: Vec<&str> = self
            .model
            .trainable()
            .filter(|p| !matches!(p.owner, Owner::Head(other) if other != task))
            .filter(|p| gradients.get(&p.parameter).is_none())
            .map(|p| p.parameter.name())
            .collect();
        if left_out.is_empty() {
            return Ok(1.0);
        }
        let named = left_out.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        let more = if left_out.len() > 5 { format!(" and {} more", left_out.len() - 5) } else { String::new() };
        Err(Error::Run {
            message: format!("after the first step no gradient has reached these trainable parameters: {named}{more}"),
            help: Some(
                "the loss does not depend on them: freeze them, or choose targets that the task's features pass".into(),
            ),
        })
    }

    /// Clips where the run file asks for it. The global norm before clipping.
    fn clip(&self, gradients: &mut Gradients) -> Result<f64> {
        let norm = gradients.norm()?;
        if let Some(limit) = self.settings.clip_value {
            optim::clip_value(gradients, limit)?;
        }
        if let Some(limit) = self.settings.clip_norm {
            optim::clip_norm(gradients, limit)?;
        }
        Ok(norm)
    }

    /// Rate and momentum of the parameters with a learning-rate factor.
    fn rate(&self, now: &Progress, factor: f64) -> Result<Rate> {
        self.scheduler.rate(now, &Group { lr: self.settings.lr * factor, momentum: self.settings.momentum() })
    }

    /// Updates every parameter with a gradient. `base` is the rate of those with factor 1.
    fn update(&mut self, gradients: &Gradients, now: &Progress, base: Rate) -> Result<()> {
        for parameter in self.model.trainable() {
            let Some(gradient) = gradients.get(&parameter.parameter) else { continue };
            let rate = if parameter.lr_factor == 1.0 { base } else { self.rate(now, parameter.lr_factor)? };
            let gradient: Tensor = gradient.to_dense(parameter.parameter.tensor().dims())?;
            let decays = parameter.decay || self.settings.decay_biases_and_norms;
            self.optimizer.step(
                &parameter.parameter,
                &gradient,
                &optim::StepSettings {
                    lr: rate.lr,
                    momentum: rate.momentum,
                    weight_decay: if decays { self.settings.weight_decay } else { 0.0 },
                },
            )?;
        }
        Ok(())
    }

    /// Evaluates the validation examples of the phase's tasks, tells everyone, and keeps the best model.
    fn validate(
        &mut self,
        phase: &Phase,
        state: &mut TrainState,
        now: &Progress,
        folder: &mut RunFolder,
        progress: &TrainProgress,
    ) -> Result<()> {
        let Some(watch) = &mut state.watch else { return Ok(()) };
        let step = state.trained.steps;
        let (mut seen, mut found) = (Mean::default(), Vec::new());
        for i in phase.tasks() {
            let task = &self.tasks[i];
            let Some(data) = &task.validation else { continue };
            let metrics = evaluate(&self.pass(i, data), &|_| {})?.metrics();
            folder.log(&Line::Evaluation { step, task: &task.name, when: "validation", metrics: &metrics })?;
            if let Some(metric) = &task.monitor {
                seen.add(metrics.get(metric).copied().unwrap_or(f64::NAN), task.weight);
            }
            found.push((i, metrics));
        }
        let value = seen.value();
        self.scheduler.on_evaluation(now, value)?;
        let better = watch.see(step, value);
        if better {
            self.checkpoints.write_best(step, &parameters(self.model))?;
        }
        let losses = found.iter().map(|(i, metrics)| {
            let loss = metrics.get("loss").copied().unwrap_or(f64::NAN);
            if found.len() == 1 { format!("loss {loss:.4}") } else { format!("{} {loss:.4}", self.tasks[*i].name) }
        });
        let losses = losses.collect::<Vec<_>>().join(", ");
        let remark = if better { ", the best so far" } else { "" };
        progress.say(&format!("step {step}: validation {} {value:.4}, {losses}{remark}", watch.metric));
        for (i, metrics) in found {
            self.tell(&Event::Evaluation { step, task: self.tasks[i].name.clone(), metrics }, i)?;
        }
        Ok(())
    }

    fn write_checkpoint(&mut self, state: &TrainState, folder: &mut RunFolder) -> Result<()> {
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
        for (i, regularizer) in self.regularizers.iter_mut().enumerate() {
            plugins.push((snapshot::regularizer_place(i), regularizer));
        }
        plugins.push((snapshot::SCHEDULE_PLACE.into(), self.scheduler));
        for task in self.tasks.iter_mut() {
            plugins.push((snapshot::head_place(&task.name), &mut task.head));
        }
        Parts { model: self.model, plugins, optimizer: self.optimizer }
    }

    /// Tells everyone what happened to a phase.
    fn tell_all(&mut self, phase: &Phase, event: &Event) -> Result<()> {
        let task = phase.tasks().next().unwrap_or_default();
        self.tell(event, task)
    }

    /// Tells everyone what happened to a task.
    fn tell(&mut self, event: &Event, task: usize) -> Result<()> {
        for (i, strategy) in self.strategies.iter_mut().enumerate() {
            strategy.event(event, self.model, i)?;
        }
        for regularizer in self.regularizers.iter_mut() {
            let Task { head, spec, train, .. } = &self.tasks[task];
            let mut examples = TaskExamples { head, spec, data: train, seed: self.settings.seed };
            regularizer.event(event, self.model, Some(&mut examples))?;
        }
        Ok(())
    }

    fn not_finite(&self, step: u64, loss: f64, gradient_norm: f64) -> Error {
        let what = match loss.is_finite() {
            true => format!("the gradients have the norm {gradient_norm}"),
            false => format!("the loss is {loss}"),
        };
        let kept = match self.checkpoints.latest() {
            Some(path) => format!("; the last checkpoint is {}", path.display()),
            None => String::new(),
        };
        Error::run(format!("{what} at step {}", step + 1))
            .with_help(format!("lower train.lr, or set train.clip_norm = 1.0{kept}"))
    }
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
