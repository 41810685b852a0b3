//! What a run will take, measured on this machine: a few batches go through all that a step does, at a rate of zero.

use std::time::Instant;

use fthost_autograd::Gradients;
use fthost_autograd::optim::{Optimizer, StepSettings};
use serde::Serialize;

use super::evaluate::evaluate_rows;
use super::setup::Setup;
use super::step::{DropoutKey, Pass};
use super::{peak_rss_bytes, train};
use crate::data::Sampler;
use crate::{Error, Result};

/// Batches that are measured, after one that warms up.
const BATCHES: usize = 6;
/// Test examples that are measured.
const EXAMPLES: usize = 256;

/// Time and memory of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Seconds of the training loop.
    pub train_seconds: f64,
    /// Seconds of the evaluations on test and validation examples.
    pub evaluation_seconds: f64,
    /// Peak resident memory in bytes.
    pub peak_rss_bytes: u64,
    /// Batches that were measured.
    pub batches: usize,
}

impl Estimate {
    /// Measures. The time of a batch is taken as proportional to its tokens.
    pub(super) fn measure(setup: &Setup) -> Result<Self> {
        let settings = &setup.file.train;
        let task = setup.tasks.first().ok_or_else(|| Error::usage("the run file has no task"))?;
        let pass =
            |data| Pass { model: &setup.model, head: &task.head, spec: &task.spec, data, precision: setup.precision };
        let training = pass(&task.train);
        let sampler = Sampler::new(settings.seed, task.train.len(), settings.batch_size);
        let dropout = settings.dropout.then_some(DropoutKey { seed: settings.seed, step: 0, first: 0 });
        let mut optimizer = Optimizer::new(settings.optimizer.algorithm());
        let (mut seconds, mut update_seconds, mut tokens, mut batches) = (0.0, 0.0, 0, 0);
        for (i, rows) in sampler.epoch(0).take(1 + BATCHES).enumerate() {
            let began = Instant::now();
            let gradients = training.gradients(&rows, dropout, 1.0)?.gradients;
            gradients.norm()?;
            let updating = Instant::now();
            update_nothing(setup, gradients, &mut optimizer)?;
            // The first batch packs weights and fills caches. Where it is the only one it has to do.
            if i == 1 {
                (seconds, update_seconds, tokens, batches) = (0.0, 0.0, 0, 0);
            }
            seconds += (updating - began).as_secs_f64();
            update_seconds += updating.elapsed().as_secs_f64();
            tokens += rows.iter().map(|&row| task.train.tokens(row)).sum::<Result<usize>>()?;
            batches += 1;
        }
        // As a checkpoint takes it.
        drop(optimizer.state()?);
        let (steps_per_epoch, steps) = train::steps(settings, task.train.len());
        let epochs = steps as f64 / steps_per_epoch as f64;
        let train_seconds = seconds / tokens.max(1) as f64 * task.train.total_tokens() as f64 * epochs
            + update_seconds / batches.max(1) as f64 * steps as f64;

        let mut evaluation_seconds = 0.0;
        let evaluations = settings.evaluate_steps.map_or(epochs.ceil(), |every| (steps / every) as f64);
        let before = if settings.evaluate_before { 2.0 } else { 1.0 };
        for (data, times) in [(&task.test, before), (&task.validation, evaluations)] {
            let Some(data) = data else { continue };
            let rows: Vec<u32> = (0..data.len().min(EXAMPLES) as u32).collect();
            let began = Instant::now();
            evaluate_rows(&pass(data), &rows, &|_| {})?;
            evaluation_seconds += began.elapsed().as_secs_f64() * data.len() as f64 / rows.len() as f64 * times;
        }
        Ok(Self { train_seconds, evaluation_seconds, peak_rss_bytes: peak_rss_bytes(), batches })
    }
}

/// An optimizer step at a rate of zero: it leaves every weight as it is, and takes the time and the memory of any other.
fn update_nothing(setup: &Setup, mut gradients: Gradients, optimizer: &mut Optimizer) -> Result<()> {
    gradients.densify()?;
    for parameter in setup.model.trainable() {
        let parameter = &parameter.parameter;
        let Some(gradient) = gradients.get(parameter) else { continue };
        let gradient = gradient.to_dense(parameter.tensor().dims())?;
        optimizer.step(
            parameter,
            &gradient,
            &StepSettings { lr: 0.0, momentum: setup.file.train.momentum(), weight_decay: 0.0 },
        )?;
    }
    Ok(())
}
