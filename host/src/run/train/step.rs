//! One optimizer step: the gradients of what it learns from, penalties, clipping, the update.

use std::collections::BTreeMap;

use fthost_autograd::optim::{self, LossScaler};
use fthost_autograd::{Gradients, Precision, Tape, Tensor};
use fthost_plugin_api::{Group, Progress, Rate, Sampling};

use super::ahead::Shows;
use super::gradients::{BatchGradients, DropoutKey};
use super::reference::{Holding, Reference};
use crate::adapted::{AdaptedModel, ModelParameter, Owner};
use crate::data::Dataset;
use crate::plugin::RegularizerInstance;
use crate::run::file::TrainTable;
use crate::run::pass::{Pass, passed_by, scalar};
use crate::run::results::evaluate;
use crate::run::setup::phase::Batch;
use crate::run::setup::rates::HEADS;
use crate::run::setup::schedules::Schedules;
use crate::run::setup::task::Task;
use crate::run::state::log::NO_WEIGHT;
use crate::run::state::optimizer::Optimizer;
use crate::run::state::snapshot::{TrainState, Without};
use crate::{Error, Result};

/// Steps in a row that a part which is left out at random is never left out of: of one that is left out half the time, once in a million.
const NEVER_BY_CHANCE: u64 = 20;

/// Names that a message has room for.
const NAMED: usize = 5;

/// The first of some names, and how many more there are; `None` where there are none.
pub(super) fn named<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<String> {
    let first: Vec<&str> = names.by_ref().take(NAMED).collect();
    let more = names.count();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!first.is_empty()).then(|| format!("{}{more}", first.join(", ")))
}

/// What learns from batches.
pub struct Learner<'a> {
    /// `[train]` of the run file.
    pub settings: &'a TrainTable,
    /// The model with its hooks.
    pub model: &'a mut AdaptedModel,
    /// The regularizers, in order.
    pub regularizers: &'a mut [RegularizerInstance],
    /// The schedules.
    pub(crate) schedules: &'a mut Schedules,
    /// A learning rate in the schedules' place.
    pub fixed_lr: Option<f64>,
    /// The optimizer.
    pub optimizer: &'a mut Optimizer,
    /// The tasks, in the order of the run file.
    pub tasks: &'a mut [Task],
    /// What the heads of earlier phases said of the present one's examples, where a regularizer wants to hold it.
    pub reference: Reference,
    /// Float type of matrix products.
    pub precision: Precision,
}

/// What one optimizer step came to.
#[derive(Debug)]
pub struct Step {
    /// Mean loss, penalties left out; where several tasks have taken part, the sum of theirs, each multiplied by its task's weight.
    pub loss: f64,
    /// The tasks that have taken part, by their places in the run file, and their mean losses.
    pub losses: Vec<(usize, f64)>,
    /// Penalties of regularizers, where there are any.
    pub penalty: Option<f64>,
    /// The same of each by its name, where there are several.
    pub penalties: BTreeMap<String, f64>,
    /// Global norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Learning rate of heads' parameters with factor 1, and of all others where one schedule is for all.
    pub lr: f64,
    /// Where there are several streams, the rate of the fastest parameter of each that was updated, and of the `heads`.
    pub rates: BTreeMap<String, f64>,
    /// Whether parameters were updated.
    pub update: Update,
    /// The gradients by which they were.
    pub gradients: Option<Gradients>,
}

/// Whether a step updated parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// They were.
    Taken,
    /// Gradients overflowed in `f16`; the loss scale is lower now.
    Skipped,
    /// No example of the step counts in the loss, so there was nothing to learn.
    Empty,
    /// The loss or a gradient is not finite: training cannot go on.
    NotFinite,
}

impl Update {
    /// Why no parameter was updated, as the log says it.
    pub fn left_out(self) -> Option<&'static str> {
        match self {
            Self::Taken | Self::NotFinite => None,
            Self::Skipped => Some("overflow"),
            Self::Empty => Some(NO_WEIGHT),
        }
    }
}

impl Learner<'_> {
    /// One optimizer step: gradients of a batch, or of one of each task, penalties, clipping, update.
    ///
    /// # Errors
    /// A trainable parameter that the task's first batch does not reach; whatever else fails.
    pub fn step(&mut self, shows: &[Shows], now: &Progress, state: &mut TrainState) -> Result<Step> {
        let mut scaler = state.scaler();
        let scale = scaler.map_or(1.0, |scaler| scaler.scale());
        let base = self.rate(now, self.model.model.info().head_group(), None, 1.0)?;
        let (mut sum, mut losses, mut held, mut taught) = (None::<Gradients>, Vec::new(), None, Vec::new());
        let mut key = DropoutKey { seed: self.settings.seed, step: state.trained.steps, first: 0 };
        for seen in shows {
            let BatchGradients { mut gradients, loss, penalty, weight } = self.gradients(seen, key, scale)?;
            let Batch { task, ref rows, first } = seen.batch;
            key.first += rows.len() as u64;
            // Before penalties, which reach every parameter whether the loss does or not.
            if first {
                state.trained.parameters_with_gradient = self.every_parameter_has_a_gradient(task, &gradients)?;
            }
            // A mean over nothing is no number.
            if weight == 0.0 {
                continue;
            }
            taught.push(task);
            gradients.settle()?;
            gradients.scale(self.tasks[task].weight / (weight * scale))?;
            losses.push((task, loss / weight));
            if !self.reference.is_empty() {
                *held.get_or_insert(0.0) += penalty / rows.len() as f64;
            }
            sum = Some(match sum.take() {
                None => gradients,
                Some(mut sum) => {
                    sum.accumulate(gradients, true)?;
                    sum
                }
            });
        }
        // Penalties, momentum and decay alone would only take away from what was learned.
        let Some(mut gradients) = sum else {
            let update = Update::Empty;
            let (penalty, penalties, gradients) = (None, BTreeMap::new(), None);
            return Ok(Step {
                loss: 0.0,
                losses,
                penalty,
                penalties,
                gradient_norm: 0.0,
                lr: base.lr,
                rates: BTreeMap::new(),
                update,
                gradients,
            });
        };
        self.watch_gradients(&taught, &gradients, state);
        let loss = match losses[..] {
            [(_, loss)] => loss,
            _ => losses.iter().map(|&(task, loss)| self.tasks[task].weight * loss).sum(),
        };
        let (added, penalties) = self.add_penalties(&mut gradients)?;
        let penalty = match (added, held) {
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
        let scaled = scaler.is_some_and(|scaler: LossScaler| scaler.scale() >= 1.0);
        let update = match (finite, scaled) {
            (true, _) => Update::Taken,
            (false, true) => Update::Skipped,
            (false, false) => Update::NotFinite,
        };
        let rates = if update == Update::Taken { self.update(&gradients, now)? } else { BTreeMap::new() };
        let gradients = (update == Update::Taken).then_some(gradients);
        Ok(Step { loss, losses, penalty, penalties, gradient_norm, lr: base.lr, rates, update, gradients })
    }

    /// Gradients of the sum of the examples' loss terms, and of what regularizers hold of the same examples.
    pub(super) fn gradients(&self, seen: &Shows, key: DropoutKey, loss_scale: f64) -> Result<BatchGradients> {
        let batch = &seen.batch;
        if self.reference.is_empty() {
            return self.sum(seen, key, loss_scale, None);
        }
        let mut regularizers = Vec::new();
        for regularizer in self.regularizers.iter() {
            if regularizer.needs_reference()? {
                regularizers.push(regularizer);
            }
        }
        // The loss is divided by the examples' weights and multiplied by the task's, a penalty is divided by the examples. Both
        // grow in one sum, so the penalty's part is multiplied by what makes up for that.
        let (rows, task) = (batch.rows.len() as f64, self.tasks[batch.task].weight);
        let sum = |weight: f64| {
            let (regularizers, earlier) = (regularizers.clone(), self.reference.of(self.tasks));
            let holding = Holding { regularizers, earlier, factor: weight / (rows * task) };
            self.sum(seen, key, loss_scale, Some(&holding))
        };
        let found = sum(rows)?;
        // Weights other than 1 are known only now: the same again with their sum.
        if found.weight == rows || found.weight == 0.0 { Ok(found) } else { sum(found.weight) }
    }

    /// The gradients of a batch, pass by pass.
    fn sum(
        &self,
        seen: &Shows,
        mut key: DropoutKey,
        loss_scale: f64,
        holding: Option<&Holding<'_>>,
    ) -> Result<BatchGradients> {
        let task = seen.batch.task;
        let pass = self.pass(task, &self.tasks[task].train);
        let mut sum = BatchGradients::default();
        for shown in &seen.passes {
            let dropout = self.settings.dropout.then_some(key);
            sum.add(pass.gradients(shown, dropout, loss_scale, holding)?, true)?;
            key.first += shown.rows().len() as u64;
        }
        Ok(sum)
    }

    /// A pass over a data set of a task.
    pub fn pass<'b>(&'b self, task: usize, data: &'b Dataset) -> Pass<'b> {
        let Task { head, spec, decision, .. } = &self.tasks[task];
        Pass { model: self.model, head, spec, data, precision: self.precision, decision: decision.clone() }
    }

    /// Lets a task's head take what it predicts by from training examples, where it learns by episodes: before each evaluation.
    pub fn fit(&mut self, task: usize) -> Result<()> {
        let Task { episodes, spec, train, .. } = &self.tasks[task];
        let (Some(episodes), Sampling::Episodes { support, .. }) = (episodes, spec.sampling) else { return Ok(()) };
        let rows = episodes.sample(support as usize);
        let outputs = evaluate::outputs(&self.pass(task, train), &rows)?;
        let targets = train.targets(&rows, &self.model.device)?;
        self.tasks[task].head.fit(self.model, &outputs, &targets)
    }

    /// Adds the gradients of the regularizers' penalties; their sum, if there was any, and where there are several regularizers each one's.
    fn add_penalties(&self, gradients: &mut Gradients) -> Result<(Option<f64>, BTreeMap<String, f64>)> {
        let (mut sum, mut each) = (None, BTreeMap::new());
        for regularizer in self.regularizers.iter() {
            let tape = Tape::recording();
            if let Some(penalty) = regularizer.penalty(&tape)? {
                let value = scalar(&penalty)?;
                *sum.get_or_insert(0.0) += value;
                *each.entry(regularizer.name().to_owned()).or_insert(0.0) += value;
                gradients.accumulate(tape.backward(&penalty)?, true)?;
            }
        }
        if self.regularizers.len() < 2 {
            each.clear();
        }
        Ok((sum, each))
    }

    /// The parameters that train and that a task's loss should reach. Heads of other tasks are not reached by this one's, and what stands
    /// above the features that its head reads, or in a stream that it does not read, is not either.
    fn reached(&self, task: usize) -> impl Iterator<Item = &ModelParameter> {
        let Task { spec, train, .. } = &self.tasks[task];
        let reads = passed_by(spec, self.model.model.info(), train);
        let streams: Vec<usize> = reads.iter().map(|read| read.stream).collect();
        self.model
            .trainable()
            .filter(move |p| p.stream.is_none_or(|stream| streams.contains(&stream)))
            .filter(move |p| p.owner != Owner::Base || reads.iter().any(|&read| self.model.passes(read, p)))
            .filter(move |p| !matches!(p.owner, Owner::Head(other) if other != self.tasks[task].head_of))
    }

    /// No silent no-op: a parameter that was declared to train and is not reached by the loss is an error.
    fn every_parameter_has_a_gradient(&self, task: usize, gradients: &Gradients) -> Result<f64> {
        let left_out = self.reached(task).filter(|p| gradients.get(&p.parameter).is_none());
        let Some(left_out) = named(left_out.map(|p| p.parameter.name())) else { return Ok(1.0) };
        Err(Error::Run {
            message: format!("after the first step no gradient has reached these trainable parameters: {left_out}"),
            help: Some(
                "the loss does not depend on them: freeze them, or choose targets that the task's features pass".into(),
            ),
        })
    }

    /// Notes which parameters the losses of these tasks should have reached and did not, and forgets those that they reach again.
    fn watch_gradients(&self, tasks: &[usize], gradients: &Gradients, state: &mut TrainState) {
        let lacks = |p: &&ModelParameter| gradients.get(&p.parameter).is_none();
        let mut lacking: Vec<&str> =
            tasks.iter().flat_map(|&task| self.reached(task).filter(lacks)).map(|p| p.parameter.name()).collect();
        if !state.without_gradient.is_empty() {
            for p in self.model.trainable().filter(|p| !lacks(p)) {
                state.without_gradient.remove(p.parameter.name());
            }
        }
        lacking.sort_unstable();
        lacking.dedup();
        let since = state.trained.steps + 1;
        for name in lacking {
            state.without_gradient.entry(name.to_owned()).or_insert(Without { since, steps: 0 }).steps += 1;
        }
    }

    /// Says which parameters have had no gradient for some steps, though they train and had one.
    ///
    /// # Errors
    /// Where it has been missing for longer than what is left out at random ever is.
    pub fn gradients_still_come(&self, state: &mut TrainState) -> Result<()> {
        let trains: Vec<&str> = self.model.trainable().map(|p| p.parameter.name()).collect();
        state.without_gradient.retain(|name, _| trains.contains(&name.as_str()));
        let longest = state.without_gradient.values().map(|without| without.steps).max().unwrap_or_default();
        // One step may leave out what the next has.
        if longest < 2 {
            return Ok(());
        }
        let since = state.without_gradient.values().filter(|without| without.steps == longest).map(|of| of.since).min();
        let names =
            state.without_gradient.iter().filter(|(_, without)| without.steps > 1).map(|(name, _)| name.as_str());
        let message = format!(
            "no gradient has reached these trainable parameters since step {}: {}",
            since.unwrap_or_default(),
            named(names).unwrap_or_default()
        );
        if longest < NEVER_BY_CHANCE {
            tracing::warn!("{message}");
            return Ok(());
        }
        Err(Error::run(message).with_help(
            "the loss does not depend on them any more: the method has to freeze them, or its hooks to use them",
        ))
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

    /// Rate and momentum of a block group's parameters with a learning-rate factor, by the schedule of their stream: what stands above a
    /// stream's blocks is in the group of heads.
    fn rate(&self, now: &Progress, group: usize, of: Option<usize>, factor: f64) -> Result<Rate> {
        let momentum = self.optimizer.momentum();
        if let Some(lr) = self.fixed_lr {
            return Ok(Rate { lr: lr * factor, momentum });
        }
        let (name, stream, number) = self.model.block_group(group);
        let group = Group { name, number, stream, lr: self.settings.lr * factor, momentum };
        self.schedules.of(of).rate(now, &group)
    }

    /// Updates every parameter with a gradient. The rates by which it did, as [`Step::rates`] has them.
    pub(crate) fn update(&mut self, gradients: &Gradients, now: &Progress) -> Result<BTreeMap<String, f64>> {
        let mut rates: BTreeMap<(usize, Option<usize>, u64), Rate> = BTreeMap::new();
        for parameter in self.model.trainable() {
            let Some(gradient) = gradients.get(&parameter.parameter) else { continue };
            let &ModelParameter { group, stream, lr_factor: factor, .. } = parameter;
            let of = (group, stream, factor.to_bits());
            let rate = match rates.get(&of) {
                Some(rate) => *rate,
                None => *rates.entry(of).or_insert(self.rate(now, group, stream, factor)?),
            };
            let gradient: Tensor = gradient.to_dense(parameter.parameter.dims())?;
            let decays = parameter.decays(self.settings.decay_biases_and_norms);
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
        let streams = &self.model.model.info().streams;
        let mut fastest: BTreeMap<String, f64> = BTreeMap::new();
        for (&(_, stream, _), rate) in rates.iter().filter(|_| streams.len() > 1) {
            let name = stream.map_or(HEADS, |stream| streams[stream].name.as_str());
            let known = fastest.entry(name.into()).or_insert(rate.lr);
            *known = known.max(rate.lr);
        }
        Ok(fastest)
    }
}
