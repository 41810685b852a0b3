//! The training loop, from the first batch to the last.

use std::time::Instant;

use fthost_autograd::{Gradients, Precision, Tape, Tensor, optim};
use fthost_plugin_api::{Event, Group, Progress, Rate};
use serde::Serialize;

use super::events::Line;
use super::examples::TaskExamples;
use super::file::TrainTable;
use super::folder::RunFolder;
use super::step::{BatchGradients, DropoutKey, Pass, scalar};
use crate::adapted::AdaptedModel;
use crate::data::{Dataset, Sampler};
use crate::plugin::{HeadInstance, RegularizerInstance, SchedulerInstance, StrategyInstance};
use crate::report::progress::{StepReport, TrainProgress};
use crate::{Error, Result};

/// Everything that takes part in the training of one task.
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
    pub scheduler: &'a SchedulerInstance,
    /// The task's name.
    pub task: &'a str,
    /// The task's head.
    pub head: &'a HeadInstance,
    /// What the head declared.
    pub spec: &'a fthost_plugin_api::HeadSpec,
    /// The training examples.
    pub data: &'a Dataset,
    /// Float type of matrix products.
    pub precision: Precision,
    /// When the process began, for the time to the first step.
    pub started: Instant,
}

/// Figures of a training.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Trained {
    /// Wall-clock seconds of the loop, evaluation left out.
    pub seconds: f64,
    /// Optimizer steps.
    pub steps: u64,
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

/// How many optimizer steps a training takes: of one epoch, and in all.
pub fn steps(settings: &TrainTable, examples: usize) -> (u64, u64) {
    let per_epoch = examples.div_ceil(settings.batch_size).max(1) as u64;
    let all = per_epoch * settings.epochs;
    (per_epoch, settings.steps.map_or(all, |cap| cap.min(all)))
}

impl Trainer<'_> {
    /// Trains. Every step is logged to the run folder.
    pub fn train(&mut self, folder: &mut RunFolder, progress: &TrainProgress) -> Result<Trained> {
        let (steps_per_epoch, total_steps) = steps(self.settings, self.data.len());
        let sampler = Sampler::new(self.settings.seed, self.data.len(), self.settings.batch_size);
        let mut optimizer = optim::Optimizer::new(self.settings.optimizer.algorithm());
        let mut trained = Trained::default();
        let mut epoch_loss = Mean::default();
        let began = Instant::now();

        self.tell(&Event::TaskBegin { task: self.task.to_owned() })?;
        for epoch in 0..self.settings.epochs {
            if trained.steps == total_steps {
                break;
            }
            epoch_loss = Mean::default();
            self.tell(&Event::EpochBegin { epoch, epochs: self.settings.epochs })?;
            for rows in sampler.epoch(epoch) {
                let step = trained.steps;
                if step == total_steps {
                    break;
                }
                self.tell(&Event::StepBegin { step, total_steps })?;

                let BatchGradients { mut gradients, loss, weight } = self.batch_gradients(&rows, step)?;
                let loss = loss / weight;
                gradients.scale(1.0 / weight)?;
                let penalty = self.add_penalties(&mut gradients)?;
                gradients.densify()?;
                if !(loss + penalty.unwrap_or(0.0)).is_finite() {
                    return Err(not_finite(step, loss));
                }
                if step == 0 {
                    trained.parameters_with_gradient = self.every_parameter_has_a_gradient(&gradients)?;
                }
                let gradient_norm = self.clip(&mut gradients)?;
                let progress_now = Progress { step, total_steps, steps_per_epoch };
                let rate = self.update(&mut optimizer, &gradients, &progress_now)?;

                let tokens: usize = rows.iter().map(|&row| self.data.tokens(row)).sum();
                trained.steps += 1;
                trained.samples += rows.len() as u64;
                trained.tokens += tokens as u64;
                epoch_loss.add(loss);
                if step == 0 {
                    trained.first_step_seconds = self.started.elapsed().as_secs_f64();
                }
                self.tell(&Event::StepEnd { step, total_steps, loss })?;
                folder.log(&Line::Step {
                    step: step + 1,
                    epoch: epoch + 1,
                    loss,
                    penalty,
                    lr: rate.lr,
                    gradient_norm,
                    samples: rows.len(),
                    tokens,
                    seconds: began.elapsed().as_secs_f64(),
                })?;
                progress.step(&StepReport { loss, lr: rate.lr, samples: rows.len(), tokens });
            }
            self.tell(&Event::EpochEnd { epoch, epochs: self.settings.epochs })?;
            folder.flush()?;
        }
        trained.seconds = began.elapsed().as_secs_f64();
        trained.loss = epoch_loss.value();
        self.tell(&Event::TaskEnd { task: self.task.to_owned() })?;
        folder.flush()?;
        Ok(trained)
    }

    fn batch_gradients(&self, rows: &[u32], step: u64) -> Result<BatchGradients> {
        let pass =
            Pass { model: self.model, head: self.head, spec: self.spec, data: self.data, precision: self.precision };
        let dropout = self.settings.dropout.then_some(DropoutKey { seed: self.settings.seed, step });
        pass.gradients(rows, dropout, 1.0)
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
    fn every_parameter_has_a_gradient(&self, gradients: &Gradients) -> Result<f64> {
        let left_out: Vec<&str> = self
            .model
            .trainable()
            .filter(|p| gradients.get(&p.parameter).is_none())
            .map(|p| p.parameter.name())
            .collect();
        if left_out.is_empty() {
            return Ok(1.0);
        }
        let named = left_out.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        let more = if left_out.len() > 5 { format!(" and {} more", left_out.len() - 5) } else { String::new() };
        Err(Error::Run {
            message: format!("after step 1 no gradient has reached these trainable parameters: {named}{more}"),
            help: Some(
                "the loss does not depend on them: freeze them, or choose targets that the task's features pass".into(),
            ),
        })
    }

    /// Clips by global norm where the run file asks for it. The norm before clipping.
    fn clip(&self, gradients: &mut Gradients) -> Result<f64> {
        match self.settings.clip_norm {
            Some(limit) => Ok(optim::clip_norm(gradients, limit)?),
            None => Ok(gradients.norm()?),
        }
    }

    /// One optimizer step over every parameter with a gradient. The rate of a group with factor 1.
    fn update(&self, optimizer: &mut optim::Optimizer, gradients: &Gradients, progress: &Progress) -> Result<Rate> {
        let momentum = self.settings.momentum();
        let base = self.scheduler.rate(progress, &Group { lr: self.settings.lr, momentum })?;
        for parameter in self.model.trainable() {
            let Some(gradient) = gradients.get(&parameter.parameter) else { continue };
            let rate = match parameter.lr_factor {
                1.0 => base,
                factor => self.scheduler.rate(progress, &Group { lr: self.settings.lr * factor, momentum })?,
            };
            let gradient: Tensor = gradient.to_dense(parameter.parameter.tensor().dims())?;
            optimizer.step(
                &parameter.parameter,
                &gradient,
                &optim::StepSettings {
                    lr: rate.lr,
                    momentum: rate.momentum,
                    weight_decay: if parameter.decay { self.settings.weight_decay } else { 0.0 },
                },
            )?;
        }
        Ok(base)
    }

    fn tell(&mut self, event: &Event) -> Result<()> {
        for (i, strategy) in self.strategies.iter_mut().enumerate() {
            strategy.event(event, self.model, i)?;
        }
        for regularizer in self.regularizers.iter_mut() {
            let mut examples =
                TaskExamples { head: self.head, spec: self.spec, data: self.data, seed: self.settings.seed };
            regularizer.event(event, self.model, Some(&mut examples))?;
        }
        Ok(())
    }
}

fn not_finite(step: u64, loss: f64) -> Error {
    Error::Run {
        message: format!("the loss is {loss} at step {}", step + 1),
        help: Some("lower train.lr, or set train.clip_norm = 1.0".into()),
    }
}

#[derive(Default)]
struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn value(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }
}
