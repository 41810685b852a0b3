//! What a run will take, measured on this machine: a few batches go through all that a step does, at a rate of zero.

use std::time::Instant;

use fthost_autograd::Gradients;
use fthost_autograd::optim::StepSettings;

use super::machine::peak_rss_bytes;
use super::pass::Pass;
use super::results::evaluate::evaluate_rows;
use super::setup::Setup;
use super::setup::plan::Estimate;
use super::setup::task::Task;
use super::state::optimizer::Optimizer;
use super::train::gradients::DropoutKey;
use super::train::preferences;
use crate::Result;
use crate::data::Shown;

/// Batches that are measured, after one that warms up.
const BATCHES: usize = 6;
/// Test examples that are measured.
const EXAMPLES: usize = 256;

/// Measures a run that is set up. The time of a batch is taken as proportional to its tokens.
pub(super) fn measure(setup: &Setup) -> Result<Estimate> {
    let settings = &setup.file.train;
    let mut optimizer = setup.optimizer.fresh();
    let (mut train_seconds, mut evaluation_seconds, mut batches) = (0.0, 0.0, 0);
    for (i, task) in setup.tasks.iter().enumerate() {
        let pass = |data| Pass {
            model: &setup.model,
            head: &task.head,
            spec: &task.spec,
            data,
            precision: setup.precision,
            decision: task.decision.clone(),
        };
        let speed = Speed::measure(setup, task, &pass(&task.train), &mut optimizer)?;
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
        // Where there is no test, the saved model is measured on them.
        validations += f64::from(u8::from(task.test.is_none()));
        // What the model says before training of all pairs, where the head asks for that.
        let reference = if preferences::asks(task) { 1.0 } else { 0.0 };
        for (data, times) in [
            (Some(&task.train).filter(|_| reference > 0.0), reference),
            (task.test.as_ref(), before + tests + reference),
            (task.validation.as_ref(), validations + reference),
        ] {
            let Some(data) = data else { continue };
            let rows: Vec<u32> = (0..data.len().min(EXAMPLES) as u32).collect();
            let evaluate = || -> Result<f64> {
                let began = Instant::now();
                evaluate_rows(&pass(data), &rows, &|_| {})?;
                Ok(began.elapsed().as_secs_f64() * data.len() as f64 / rows.len() as f64)
            };
            let first = evaluate()?;
            let again = if times > 1.0 && setup.keeps(task) { evaluate()? } else { first };
            evaluation_seconds += first * f64::min(times, 1.0) + again * f64::max(times - 1.0, 0.0);
        }
    }
    // As a checkpoint takes it.
    drop(optimizer.state()?);
    Ok(Estimate { train_seconds, evaluation_seconds, peak_rss_bytes: peak_rss_bytes(), batches })
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
    fn measure(setup: &Setup, task: &Task, training: &Pass<'_>, optimizer: &mut Optimizer) -> Result<Self> {
        let settings = &setup.file.train;
        let sampler = task.sampler(settings, 1);
        let dropout = settings.dropout.then_some(DropoutKey { seed: settings.seed, step: 0, first: 0 });
        let (mut seconds, mut again, mut update_seconds, mut tokens, mut batches) = (0.0, 0.0, 0.0, 0, 0);
        for (i, rows) in (0..1 + BATCHES).map_while(|number| sampler.batch(0, number)).enumerate() {
            let began = Instant::now();
            let gradients = training.gradients(&task.train.show(&rows)?, dropout, 1.0, None)?.gradients;
            gradients.norm()?;
            let updating = Instant::now();
            update_nothing(setup, gradients, optimizer)?;
            // The first batch packs weights and fills caches. Where it is the only one it has to do.
            if i == 1 {
                (seconds, again, update_seconds, tokens, batches) = (0.0, 0.0, 0.0, 0, 0);
            }
            seconds += (updating - began).as_secs_f64();
            update_seconds += updating.elapsed().as_secs_f64();
            if setup.keeps(task) && task.train.key(0).is_some() {
                let began = Instant::now();
                training.gradients(&Shown::from(&rows[..]), dropout, 1.0, None)?.gradients.norm()?;
                again += began.elapsed().as_secs_f64();
            } else {
                again = seconds;
            }
            tokens += rows.iter().map(|&row| task.train.tokens(row)).sum::<Result<usize>>()?;
            batches += 1;
        }
        let per_token = |seconds: f64| seconds / tokens.max(1) as f64;
        Ok(Self {
            per_token: per_token(seconds),
            per_token_again: per_token(again),
            per_update: update_seconds / batches.max(1) as f64,
            batches,
        })
    }
}

/// An optimizer step at a rate of zero: it leaves every weight as it is, and takes the time and the memory of any other.
fn update_nothing(setup: &Setup, mut gradients: Gradients, optimizer: &mut Optimizer) -> Result<()> {
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
