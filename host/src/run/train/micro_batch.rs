//! A micro-batch on a tape: the examples of a batch that pass through the network at once.

use fthost_autograd::{Dropout, Gradients, Tape, TapeOptions, Tensor, Value};
use fthost_models::Features;

use super::reference::Holding;
use crate::Result;
use crate::adapted::StreamRead;
use crate::data::Shown;
use crate::run::pass::{Pass, episode_shape, head_outputs, scalar};

/// What one batch gave.
#[derive(Debug, Default)]
pub struct BatchGradients {
    /// Gradients of the *sum* of the batch's loss terms; divide by `weight`.
    pub gradients: Gradients,
    /// The sum of the loss terms.
    pub loss: f64,
    /// The sum of the penalties on what earlier heads say, over the examples.
    pub penalty: f64,
    /// The sum of the terms' weights.
    pub weight: f64,
}

impl BatchGradients {
    /// Adds another batch's. The order of calls decides the last bits; `parallel` is that of [`Gradients::accumulate`].
    pub fn add(&mut self, other: Self, parallel: bool) -> Result<()> {
        self.gradients.accumulate(other.gradients, parallel)?;
        self.loss += other.loss;
        self.penalty += other.penalty;
        self.weight += other.weight;
        Ok(())
    }
}

/// How far the numbers by which an example drops out in its further passes lie beyond those of the first: no step has so many examples.
const PASS: u64 = 1 << 32;

/// Where a training pass draws its dropout masks from.
#[derive(Clone, Copy, Debug)]
pub struct DropoutKey {
    /// The run's seed.
    pub seed: u64,
    /// The optimizer step.
    pub step: u64,
    /// The place of the batch's first example among those of the step.
    pub first: u64,
}

/// What all micro-batches of a batch have in common.
pub(super) struct Batch<'a> {
    /// Model, head and examples.
    pub(super) pass: &'a Pass<'a>,
    /// What is seen of the examples.
    pub(super) shown: &'a Shown,
    /// `None` where the run switched dropout off.
    pub(super) dropout: Option<DropoutKey>,
    /// What the seeds of all gradients are multiplied by.
    pub(super) loss_scale: f64,
    /// The penalties on what earlier heads say.
    pub(super) holding: Option<&'a Holding<'a>>,
    /// What the head reads.
    pub(super) reads: Vec<StreamRead>,
    /// How often each example passes through the network, each time under masks of its own.
    pub(super) passes: usize,
}

impl Batch<'_> {
    /// A tape for the examples at some places of the batch. `parallel_ops`: whether these are all that is under way.
    pub(super) fn tape(&self, places: &[usize], recording: bool, parallel_ops: bool) -> Tape {
        let (each, passes) = (self.pass.data.sequences() as u64, self.passes as u64);
        Tape::new(TapeOptions {
            precision: self.pass.precision,
            recording,
            parallel_ops,
            recompute: self.pass.model.recompute,
            dropout: self.dropout.map(|key| Dropout {
                seed: key.seed,
                step: key.step,
                examples: (0..passes).flat_map(|pass| sequences_of(places, key.first + pass * PASS, each)).collect(),
            }),
        })
    }

    /// What is seen of the examples at some places, of one pass after the other.
    fn seen(&self, places: &[usize]) -> Shown {
        self.shown.select(&places.repeat(self.passes))
    }

    /// What the head reads of the examples at some places.
    pub(super) fn features(&self, tape: &Tape, places: &[usize]) -> Result<Vec<Features>> {
        self.pass.features(tape, &self.seen(places), &self.reads)
    }

    /// The head's loss of the examples at some places, of which this is shown: the sum of its terms, and of their weights.
    pub(super) fn loss(
        &self,
        tape: &Tape,
        features: &[Features],
        (places, shown): (&[usize], &Shown),
    ) -> Result<(Value, f64)> {
        let next = self.pass.next(&shown.rows().repeat(self.passes))?;
        let outputs = head_outputs(self.pass.head, tape, features, next.as_ref())?;
        let support: Vec<u8> = match episode_shape(self.pass.spec) {
            Some(shape) => places.iter().map(|&place| u8::from(shape.supports(place))).collect(),
            None => Vec::new(),
        };
        self.pass.loss(tape, &outputs, shown, &support)
    }

    /// The penalties on what earlier heads say of the examples at some places, with these features; `None` where there are none.
    pub(super) fn penalty(&self, tape: &Tape, places: &[usize], features: &[Features]) -> Result<Option<Value>> {
        let Some(holding) = self.holding else { return Ok(None) };
        let seen = self.seen(places);
        let again = |other: &[StreamRead]| self.pass.features(tape, &seen, other);
        let held = holding.penalty(tape, self.pass.model, seen.rows(), (&self.reads, features), again)?;
        // What earlier heads say of an example counts once, however often it passes.
        Ok(match held {
            Some(held) if self.passes > 1 => Some(tape.affine(&held, 1.0 / self.passes as f64, 0.0)?),
            held => held,
        })
    }

    /// The gradient from which the loss's begin.
    pub(super) fn seed(&self, sum: Value) -> Result<(Value, Tensor)> {
        seed(sum, self.loss_scale)
    }

    /// The same of the penalties.
    pub(super) fn penalty_seed(&self, penalty: Value) -> Result<(Value, Tensor)> {
        seed(penalty, self.loss_scale * self.holding.map_or(1.0, |holding| holding.factor))
    }

    /// The gradients of the examples at some places, through network and head on one tape.
    pub(super) fn on_one_tape(&self, places: &[usize], parallel_ops: bool) -> Result<BatchGradients> {
        let tape = self.tape(places, true, parallel_ops);
        let features = self.features(&tape, places)?;
        let (sum, weight) = self.loss(&tape, &features, (places, &self.shown.select(places)))?;
        let loss = scalar(&sum)?;
        let held = self.penalty(&tape, places, &features)?;
        let penalty = held.as_ref().map_or(Ok(0.0), scalar)?;
        let mut seeds = vec![self.seed(sum)?];
        seeds.extend(held.map(|held| self.penalty_seed(held)).transpose()?);
        drop(features);
        Ok(BatchGradients { gradients: tape.backward_from(seeds)?, loss, penalty, weight })
    }
}

fn seed(value: Value, factor: f64) -> Result<(Value, Tensor)> {
    let seed = value.tensor().ones_like()?.affine(factor, 0.0)?;
    Ok((value, seed))
}

/// The numbers by which the sequences of examples drop out: those of the examples in their step, or where an example has several as many of
/// its own.
fn sequences_of(places: &[usize], first: u64, each: u64) -> Vec<u64> {
    let numbers = places.iter().map(|&place| first + place as u64);
    numbers.flat_map(|number| each * number..each * (number + 1)).collect()
}
