//! The gradients of one batch: micro-batches over the cores.
//!
//! Each thread takes micro-batches one after the other through the whole network, forward and backward, on a tape of its
//! own; what is summed is only the gradients of what trains. The split and the order of summing depend on the batch alone,
//! so the bits are the same at any number of threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use fthost_autograd::{Dropout, Gradients, Precision, Tape, TapeOptions, Value};
use fthost_models::{Features, Input, Read};
use fthost_plugin_api::{FeatureKind, HeadSpec, LossScope};

use super::reference::Holding;
use super::task::episode_shape;
use crate::adapted::AdaptedModel;
use crate::cores;
use crate::data::{Dataset, split_micro_batches};
use crate::plugin::HeadInstance;
use crate::{Error, Result};

/// What a pass over examples needs to know, in training and in evaluation.
pub struct Pass<'a> {
    /// The model with its hooks.
    pub model: &'a AdaptedModel,
    /// The task's head.
    pub head: &'a HeadInstance,
    /// What the head declared.
    pub spec: &'a HeadSpec,
    /// The examples.
    pub data: &'a Dataset,
    /// Float type of matrix products.
    pub precision: Precision,
}

/// What one batch gave.
#[derive(Debug, Default)]
pub struct BatchGradients {
    /// Gradients of the *sum* of the batch's loss terms; divide by `weight`.
    pub gradients: Gradients,
    /// The sum of the loss terms.
    pub loss: f64,
    /// The sum of the penalties on what earlier heads say, over the examples; divide by `weight` as the loss.
    pub penalty: f64,
    /// The sum of the terms' weights.
    pub weight: f64,
}

impl BatchGradients {
    /// Adds another batch's. The order of calls decides the last bits.
    pub fn add(&mut self, other: Self) -> Result<()> {
        self.gradients.accumulate(other.gradients)?;
        self.loss += other.loss;
        self.penalty += other.penalty;
        self.weight += other.weight;
        Ok(())
    }
}

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

/// Which features a head reads, in the models' words.
pub fn read_of(features: FeatureKind) -> Read {
    match features {
        FeatureKind::Pooled => Read::Pooled,
        FeatureKind::Sequence => Read::Sequence,
        FeatureKind::Spatial => Read::Spatial,
    }
}

impl Pass<'_> {
    /// The head's outputs for `rows`, recorded on `tape`.
    pub fn outputs(&self, tape: &Tape, rows: &[u32]) -> Result<Value> {
        self.head_outputs(tape, &self.features(tape, rows, read_of(self.spec.features))?)
    }

    fn features(&self, tape: &Tape, rows: &[u32], read: Read) -> Result<Features> {
        let input: Input = self.data.input(rows)?;
        Ok(self.model.model.forward(tape, &input, read)?)
    }

    fn head_outputs(&self, tape: &Tape, features: &Features) -> Result<Value> {
        // A head that reads one row per example drops out by example.
        tape.set_layout(features.layout.clone());
        self.head.forward(tape, &features.value, &features.layout)
    }

    /// Loss and gradients of the examples `rows` of one batch, with penalties on what earlier heads say of them. `dropout` is `None`
    /// where the run switched it off.
    pub fn gradients(
        &self,
        rows: &[u32],
        dropout: Option<DropoutKey>,
        loss_scale: f64,
        holding: Option<&Holding<'_>>,
    ) -> Result<BatchGradients> {
        let lengths: Vec<usize> = rows.iter().map(|&row| self.data.tokens(row)).collect::<Result<_>>()?;
        let on_cpu = self.model.device.is_cpu();
        // A loss over the whole batch, and a device with parallelism of its own, take the batch in one piece.
        let whole = self.spec.scope == LossScope::Batch || !on_cpu;
        let micro_batches =
            if whole { vec![(0..rows.len()).collect::<Vec<_>>()] } else { split_micro_batches(&lengths) };

        let parallel_ops = micro_batches.len() == 1;
        let one = |places: &[usize]| -> Result<BatchGradients> {
            let tape = Tape::new(TapeOptions {
                precision: self.precision,
                recording: true,
                parallel_ops,
                dropout: dropout.map(|key| Dropout {
                    seed: key.seed,
                    step: key.step,
                    examples: places.iter().map(|&place| key.first + place as u64).collect(),
                }),
            });
            let rows: Vec<u32> = places.iter().map(|&place| rows[place]).collect();
            let read = read_of(self.spec.features);
            let features = self.features(&tape, &rows, read)?;
            let outputs = self.head_outputs(&tape, &features)?;
            let targets = self.data.targets(&rows, &self.model.device)?;
            let support: Vec<u8> = match episode_shape(self.spec) {
                Some(shape) => places.iter().map(|&place| u8::from(shape.supports(place))).collect(),
                None => Vec::new(),
            };
            let (sum, weight) = self.head.loss(&tape, &outputs, &targets, &support)?;
            let loss = scalar(&sum)?;
            let held = match holding {
                Some(holding) => holding
                    .penalty(&tape, self.model, &rows, &features, read, |read| self.features(&tape, &rows, read))?,
                None => None,
            };
            let penalty = held.as_ref().map_or(Ok(0.0), scalar)?;
            let mut seeds = Vec::new();
            for value in std::iter::once(sum).chain(held) {
                let seed = value.tensor().ones_like()?.affine(loss_scale, 0.0)?;
                seeds.push((value, seed));
            }
            Ok(BatchGradients { gradients: tape.backward_from(seeds)?, loss, penalty, weight })
        };
        if micro_batches.len() == 1 {
            return one(&micro_batches[0]);
        }

        let next = AtomicUsize::new(0);
        let sum = Mutex::new(OrderedSum::default());
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        cores::on_each(micro_batches.len(), || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(places) = micro_batches.get(i) else { break };
                let outcome = one(places).and_then(|part| lock(&sum).add(i, part));
                if let Err(error) = outcome {
                    lock(&failure).get_or_insert(error);
                    next.store(micro_batches.len(), Ordering::Relaxed);
                    break;
                }
            }
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        Ok(sum.into_inner().unwrap_or_else(PoisonError::into_inner).total)
    }
}

/// Adds parts in the order of their numbers, whichever is ready first. Holds back at most as many parts as there are
/// threads.
#[derive(Default)]
struct OrderedSum {
    total: BatchGradients,
    next: usize,
    waiting: BTreeMap<usize, BatchGradients>,
}

impl OrderedSum {
    fn add(&mut self, number: usize, part: BatchGradients) -> Result<()> {
        self.waiting.insert(number, part);
        while let Some(part) = self.waiting.remove(&self.next) {
            self.total.add(part)?;
            self.next += 1;
        }
        Ok(())
    }
}

/// A scalar value as a number.
pub fn scalar(value: &Value) -> Result<f64> {
    let tensor = value.tensor().to_dtype(fthost_autograd::DType::F64)?;
    Ok(tensor.flatten_all()?.to_vec1::<f64>()?.iter().sum())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
