//! The gradients of one batch: micro-batches over the cores.
//!
//! Each thread takes micro-batches one after the other through the whole network, forward and backward, on a tape of its
//! own; what is summed is only the gradients of what trains. The split and the order of summing depend on the batch alone,
//! so the bits are the same at any number of threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use fthost_autograd::{Dropout, Gradients, Tape, TapeOptions};

use super::reference::Holding;
use crate::cores;
use crate::data::{Shown, split_micro_batches};
use crate::run::pass::{Pass, episode_shape, head_outputs, scalar, splits};
use crate::{Error, Result};

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

impl Pass<'_> {
    /// Loss and gradients of the examples of one batch, with penalties on what earlier heads say of them. `dropout` is `None`
    /// where the run switched it off.
    pub fn gradients(
        &self,
        shown: &Shown,
        dropout: Option<DropoutKey>,
        loss_scale: f64,
        holding: Option<&Holding<'_>>,
    ) -> Result<BatchGradients> {
        let lengths: Vec<usize> = shown.rows().iter().map(|&row| self.data.tokens(row)).collect::<Result<_>>()?;
        let micro_batches = match splits(self.spec, self.model) {
            true => split_micro_batches(&lengths),
            false => vec![(0..shown.rows().len()).collect::<Vec<_>>()],
        };

        let passes = self.spec.forwards as usize;
        let (parallel_ops, reads) = (micro_batches.len() == 1, self.reads());
        let one = |places: &[usize]| -> Result<BatchGradients> {
            let tape = Tape::new(TapeOptions {
                precision: self.precision,
                recording: true,
                parallel_ops,
                recompute: self.model.recompute,
                dropout: dropout.map(|key| Dropout {
                    seed: key.seed,
                    step: key.step,
                    examples: (0..passes as u64)
                        .flat_map(|pass| sequences_of(places, key.first + pass * PASS, self.data.of_pairs()))
                        .collect(),
                }),
            });
            let seen = shown.select(&places.repeat(passes));
            let shown = shown.select(places);
            let features = self.features(&tape, &seen, &reads)?;
            let outputs = head_outputs(self.head, &tape, &features, self.next(&seen)?.as_ref())?;
            let support: Vec<u8> = match episode_shape(self.spec) {
                Some(shape) => places.iter().map(|&place| u8::from(shape.supports(place))).collect(),
                None => Vec::new(),
            };
            let (sum, weight) = self.loss(&tape, &outputs, &shown, &support)?;
            let loss = scalar(&sum)?;
            let held = match holding {
                Some(holding) => holding.penalty(&tape, self.model, seen.rows(), (&reads, &features), |other| {
                    self.features(&tape, &seen, other)
                })?,
                None => None,
            };
            // What earlier heads say of an example counts once, however often it passes.
            let held = match held {
                Some(held) if passes > 1 => Some(tape.affine(&held, 1.0 / passes as f64, 0.0)?),
                held => held,
            };
            let penalty = held.as_ref().map_or(Ok(0.0), scalar)?;
            let factor = loss_scale * holding.map_or(1.0, |holding| holding.factor);
            let mut seeds = Vec::new();
            for (value, factor) in std::iter::once((sum, loss_scale)).chain(held.map(|held| (held, factor))) {
                let seed = value.tensor().ones_like()?.affine(factor, 0.0)?;
                seeds.push((value, seed));
            }
            Ok(BatchGradients { gradients: tape.backward_from(seeds)?, loss, penalty, weight })
        };
        if micro_batches.len() == 1 {
            return one(&micro_batches[0]);
        }

        let next = AtomicUsize::new(0);
        let sum = OrderedSum::default();
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        cores::on_each(micro_batches.len(), || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(places) = micro_batches.get(i) else { break };
                let add = |total: &mut BatchGradients, part| total.add(part, false);
                let outcome = one(places).and_then(|part| sum.add(i, part, add));
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
        Ok(sum.into_total())
    }
}

/// The numbers by which the sequences of examples drop out: those of the examples in their step, or where an example is a pair two of its own.
fn sequences_of(places: &[usize], first: u64, pairs: bool) -> Vec<u64> {
    let number = |&place: &usize| first + place as u64;
    match pairs {
        true => places.iter().map(number).flat_map(|number| [2 * number, 2 * number + 1]).collect(),
        false => places.iter().map(number).collect(),
    }
}

/// Adds parts in the order of their numbers, whichever is ready first.
///
/// The lock guards the parts and is never held while one is added: a thread of the pool that waits for work of the pool may take up
/// another task that adds here.
struct OrderedSum<T>(Mutex<Parts<T>>);

struct Parts<T> {
    /// The sum of the parts before `next`; away while a thread adds to it.
    total: Option<T>,
    next: usize,
    waiting: BTreeMap<usize, T>,
}

impl<T: Default> Default for OrderedSum<T> {
    fn default() -> Self {
        Self(Mutex::new(Parts { total: Some(T::default()), next: 0, waiting: BTreeMap::new() }))
    }
}

impl<T: Default> OrderedSum<T> {
    /// Adds this part, or leaves it to who is adding those before it; then those that have waited for it.
    fn add(&self, number: usize, part: T, add: impl Fn(&mut T, T) -> Result<()>) -> Result<()> {
        let mut parts = lock(&self.0);
        parts.waiting.insert(number, part);
        loop {
            let Some(mut total) = parts.total.take() else { return Ok(()) };
            let next = parts.next;
            let Some(part) = parts.waiting.remove(&next) else {
                parts.total = Some(total);
                return Ok(());
            };
            drop(parts);
            add(&mut total, part)?;
            parts = lock(&self.0);
            parts.total = Some(total);
            parts.next += 1;
        }
    }

    fn into_total(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).total.unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_that_adds_may_take_up_another_part() {
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || {
            // The only thread takes up the other parts, the last first, in the midst of adding this one.
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            let sum = OrderedSum::<Vec<usize>>::default();
            let add = |total: &mut Vec<usize>, part: Vec<usize>| {
                while rayon::yield_now() == Some(rayon::Yield::Executed) {}
                total.extend(part);
                Ok(())
            };
            pool.scope(|scope| {
                for i in (0..4).rev() {
                    let (sum, add) = (&sum, &add);
                    scope.spawn(move |_| sum.add(i, vec![i], add).unwrap());
                }
            });
            ended.send(sum.into_total()).unwrap();
        });
        let found = end.recv_timeout(Duration::from_secs(30)).expect("a thread waits for itself");
        assert_eq!(found, [0, 1, 2, 3]);
    }
}
