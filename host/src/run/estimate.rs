//! What a run will take, measured on this machine: a few batches go through all that a step does, at a rate of zero.

use std::time::Instant;

use fthost_autograd::Gradients;
use fthost_autograd::optim::StepSettings;
use fthost_plugin_api::Event;

use super::machine::peak_rss_bytes;
use super::pass::Pass;
use super::results::evaluate::evaluate_rows;
use super::setup::Setup;
use super::setup::phase::Phase;
use super::setup::plan::Estimate;
use super::setup::task::Task;
use super::state::optimizer::Optimizer;
use super::train::example_gradients::TaskExamples;
use super::train::gradients::{BatchGradients, DropoutKey};
use super::train::preferences;
use crate::Result;
use crate::data::{Dataset, Shown};
use crate::plugin::Stateful;

/// Batches that are measured, after one that warms up.
const BATCHES: usize = 6;
/// Test examples that are measured.
const EXAMPLES: usize = 256;

/// Tells plugins what a run begins with: what they refuse then, a plan says too, and it counts what they keep from then on.
pub(super) fn begin(setup: &mut Setup) -> Result<()> {
    let Some(phase) = setup.phases.first() else { return Ok(()) };
    let (first, epochs, total_steps) = (phase.tasks().next().unwrap_or_default(), phase.epochs(), phase.steps());
    let begun = Event::TaskBegin { task: setup.tasks[first].name.clone() };
    tell(setup, first, &begun)?;
    tell(setup, first, &Event::EpochBegin { epoch: 0, epochs })?;
    tell(setup, first, &Event::StepBegin { step: 0, total_steps })
}

/// Tells everyone, as a run does.
fn tell(setup: &mut Setup, task: usize, event: &Event) -> Result<()> {
    let Setup { file, model, tasks, strategies, regularizers, .. } = setup;
    let Task { head, spec, train, .. } = &tasks[task];
    let mut examples = TaskExamples { head, spec, data: train, seed: file.train.seed };
    for (strategy, method) in strategies.iter_mut().zip(&file.strategies) {
        strategy.event(event, model, Some(&mut examples)).map_err(|error| file.at_option(method, error))?;
    }
    for (regularizer, table) in regularizers.iter_mut().zip(&file.regularizers) {
        let told = regularizer.event(event, model, Some(&mut examples));
        told.map_err(|error| file.at_option(&table.method, error))?;
    }
    Ok(())
}

/// Measures a run that is set up and has [begun](begin). The time of a batch is taken as proportional to its tokens.
pub(super) fn measure(setup: &mut Setup) -> Result<Estimate> {
    let mut optimizer = setup.optimizer.fresh();
    let first = setup.phases.first().and_then(|phase| phase.tasks().next());
    let (mut train_seconds, mut evaluation_seconds, mut batches) = (0.0, 0.0, 0);
    for i in 0..setup.tasks.len() {
        let (speed, stepped) = Speed::measure(setup, &setup.tasks[i], &mut optimizer)?;
        if first == Some(i) {
            end_step(setup, i, stepped)?;
        }
        let (settings, task) = (&setup.file.train, &setup.tasks[i]);
        batches += speed.batches;
        let (mut passes, mut steps, mut validations) = (0.0, 0.0, 0.0);
        for phase in setup.phases.iter().filter(|phase| phase.tasks().any(|task| task == i)) {
            passes += phase.passes(i);
            steps += phase.passes(i) * task.sampler(settings, settings.accumulate).batches() as f64;
            validations += phase.evaluations(settings.evaluate_steps) as f64;
        }
        // Examples that an epoch has more often, or leaves out, are about as long as the others.
        let epoch = task.train.total_tokens() as f64 * task.examples_per_epoch() as f64 / task.train.len() as f64;
        // What is kept of frozen layers is computed in the first pass alone.
        let first = f64::min(passes, 1.0);
        train_seconds += epoch * (speed.per_token * first + speed.per_token_again * (passes - first));
        train_seconds += speed.per_update * steps;
        // In sequence all are tested after each.
        let before = if settings.evaluate_before { 1.0 } else { 0.0 };
        let tests = setup.phases.len() as f64;
        if let Some(samples) = task.samples.as_ref().filter(|_| validations > 0.0) {
            let began = Instant::now();
            samples.say(&setup.model)?;
            evaluation_seconds += began.elapsed().as_secs_f64() * validations;
        }
        // What the model says before training of all pairs, where the head asks for that.
        let reference = if preferences::asks(task) { 1.0 } else { 0.0 };
        if reference > 0.0 {
            evaluation_seconds += evaluated(setup, task, &task.train, reference)?;
        }
        if let Some(test) = &task.test {
            evaluation_seconds += evaluated(setup, task, test, before + tests + reference)?;
        }
        // With the weights that plugins want evaluated.
        let told = validations > 0.0 && task.validation.is_some();
        // Where there is no test, the saved model is measured on them.
        let times = validations + f64::from(u8::from(task.test.is_none())) + reference;
        if told {
            tell(setup, i, &Event::EvaluationBegin { step: 1 })?;
        }
        if let Some(validation) = &setup.tasks[i].validation {
            evaluation_seconds += evaluated(setup, &setup.tasks[i], validation, times)?;
        }
        if told {
            tell(setup, i, &Event::EvaluationEnd { step: 1 })?;
        }
    }
    // As a checkpoint takes it.
    let moments = optimizer.state()?;
    let strategies = setup.strategies.iter().map(Stateful::save).collect::<Result<Vec<_>>>()?;
    let regularizers = setup.regularizers.iter().map(Stateful::save).collect::<Result<Vec<_>>>()?;
    drop((moments, strategies, regularizers));
    Ok(Estimate { train_seconds, evaluation_seconds, peak_rss_bytes: peak_rss_bytes(), batches })
}

/// The end of the first step, at which plugins may begin to keep more.
fn end_step(setup: &mut Setup, task: usize, stepped: Option<BatchGradients>) -> Result<()> {
    let Some(BatchGradients { gradients, loss, weight, .. }) = stepped else { return Ok(()) };
    let loss = if weight > 0.0 { loss / weight } else { 0.0 };
    let total_steps = setup.phases.first().map_or(1, Phase::steps);
    setup.model.stepped = Some(gradients);
    let told = tell(setup, task, &Event::StepEnd { step: 0, total_steps, loss });
    setup.model.stepped = None;
    told
}

fn pass<'a>(setup: &'a Setup, task: &'a Task, data: &'a Dataset) -> Pass<'a> {
    Pass {
        model: &setup.model,
        head: &task.head,
        spec: &task.spec,
        data,
        precision: setup.precision,
        decision: task.decision.clone(),
    }
}

/// Seconds of so many evaluations on some data.
fn evaluated(setup: &Setup, task: &Task, data: &Dataset, times: f64) -> Result<f64> {
    let rows: Vec<u32> = (0..data.len().min(EXAMPLES) as u32).collect();
    let evaluate = || -> Result<f64> {
        let began = Instant::now();
        evaluate_rows(&pass(setup, task, data), &rows, &|_| {})?;
        Ok(began.elapsed().as_secs_f64() * data.len() as f64 / rows.len() as f64)
    };
    let first = evaluate()?;
    let again = if times > 1.0 && setup.keeps(task) { evaluate()? } else { first };
    Ok(first * f64::min(times, 1.0) + again * f64::max(times - 1.0, 0.0))
}

/// How fast a task trains.
struct Speed {
    /// Seconds of forward and backward passes per token.
    per_token: f64,
    /// The same where what frozen layers make of the examples is kept.
    per_token_again: f64,
    /// Seconds of one update of the parameters.
    per_update: f64,
    /// Batches that were measured.
    batches: usize,
}

impl Speed {
    /// Also what the last of the steps leaves.
    fn measure(setup: &Setup, task: &Task, optimizer: &mut Optimizer) -> Result<(Self, Option<BatchGradients>)> {
        let (settings, training) = (&setup.file.train, pass(setup, task, &task.train));
        let mut stepped: Option<BatchGradients> = None;
        let sampler = task.sampler(settings, 1);
        let dropout = settings.dropout.then_some(DropoutKey { seed: settings.seed, step: 0, first: 0 });
        let (mut seconds, mut again, mut update_seconds, mut tokens, mut batches) = (0.0, 0.0, 0.0, 0, 0);
        for (i, rows) in (0..1 + BATCHES).map_while(|number| sampler.batch(0, number)).enumerate() {
            // No pass has the gradients of another beside its own.
            drop(stepped.take());
            let began = Instant::now();
            let mut found = training.gradients(&task.train.show(&rows)?, dropout, 1.0, None)?;
            found.gradients.norm()?;
            let updating = Instant::now();
            update_nothing(setup, &mut found.gradients, optimizer)?;
            // The first batch packs weights and fills caches. Where it is the only one it has to do.
            if i == 1 {
                (seconds, again, update_seconds, tokens, batches) = (0.0, 0.0, 0.0, 0, 0);
            }
            seconds += (updating - began).as_secs_f64();
            update_seconds += updating.elapsed().as_secs_f64();
            if setup.keeps(task) && task.train.key(0).is_some() {
                drop(found);
                let began = Instant::now();
                found = training.gradients(&Shown::from(&rows[..]), dropout, 1.0, None)?;
                found.gradients.norm()?;
                again += began.elapsed().as_secs_f64();
            } else {
                again = seconds;
            }
            tokens += rows.iter().map(|&row| task.train.tokens(row)).sum::<Result<usize>>()?;
            batches += 1;
            stepped = Some(found);
        }
        let per_token = |seconds: f64| seconds / tokens.max(1) as f64;
        let speed = Self {
            per_token: per_token(seconds),
            per_token_again: per_token(again),
            per_update: update_seconds / batches.max(1) as f64,
            batches,
        };
        Ok((speed, stepped))
    }
}

/// An optimizer step at a rate of zero: it leaves every weight as it is, and takes the time and the memory of any other.
fn update_nothing(setup: &Setup, gradients: &mut Gradients, optimizer: &mut Optimizer) -> Result<()> {
    gradients.densify()?;
    for parameter in setup.model.trainable() {
        let parameter = &parameter.parameter;
        let Some(gradient) = gradients.get(parameter) else { continue };
        let gradient = gradient.to_dense(parameter.dims())?;
        optimizer.step(
            parameter,
            &gradient,
            &StepSettings { lr: 0.0, momentum: optimizer.momentum(), weight_decay: 0.0 },
        )?;
    }
    Ok(())
}
