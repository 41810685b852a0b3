//! A loss of a whole batch: the network takes micro-batches on all cores, the head takes the features of all of them at once, and each
//! micro-batch gets the gradient of its own.
//!
//! Where only so many examples are to be on their way at once, the network is passed twice: first for the features alone, of which
//! nothing else is kept, then for the gradients, with the same dropout masks (Gao et al. 2021, arXiv:2101.06983). The second pass takes
//! the same micro-batches in the same order, so that the bits are those of one that kept all.

use std::sync::{Mutex, PoisonError};

use fthost_autograd::{Layout, Map, Tape, Tensor, Value};
use fthost_models::Features;

use super::micro_batch::{Batch, BatchGradients};
use super::ordered;
use crate::cores;
use crate::run::pass::scalar;
use crate::{Error, Result};

/// What the network gave of a micro-batch.
struct Passed {
    features: Vec<Features>,
    /// The tape that it was recorded on; `None` where it is to be passed again.
    tape: Option<Tape>,
    /// The dropout ops that it has had.
    dropouts: Vec<f64>,
    /// Whether anything that trains stands below the features.
    learns: bool,
}

/// One stream's features of all examples of a batch, in the order of the batch.
struct Gathered {
    features: Features,
    /// The rows of each micro-batch among them, `u32`.
    rows: Vec<Tensor>,
}

/// The gradients of a batch whose examples are at the places of `parts`. `twice`: whether nothing is kept of a micro-batch but its
/// features; `on_cores`: whether each core takes micro-batches of its own.
pub(super) fn gradients(
    batch: &Batch<'_>,
    parts: &[Vec<usize>],
    twice: bool,
    on_cores: bool,
) -> Result<BatchGradients> {
    let first = |places: &Vec<usize>| -> Result<Passed> {
        let tape = batch.tape(places, !twice, !on_cores);
        let features = batch.features(&tape, places)?;
        let learns = match twice {
            true => !tape.met().is_empty(),
            false => features.iter().any(|of| of.value.requires_grad()),
        };
        let dropouts = tape.dropouts();
        Ok(Passed { features, tape: (!twice).then_some(tape), dropouts, learns })
    };
    let passed = match on_cores {
        true => cores::map(parts, first)?,
        false => parts.iter().map(first).collect::<Result<Vec<_>>>()?,
    };

    let examples = parts.iter().map(Vec::len).sum();
    let all: Vec<usize> = (0..examples).collect();
    let gathered = (0..batch.reads.len())
        .map(|stream| {
            let of: Vec<&Features> = passed.iter().map(|passed| &passed.features[stream]).collect();
            gather(&of, parts, (examples, batch.passes))
        })
        .collect::<Result<Vec<_>>>()?;
    let learns = passed.iter().any(|passed| passed.learns);
    let tape = batch.tape(&all, true, true);
    // The head drops out as it would on the tape of the network.
    tape.set_dropouts(passed.first().map(|passed| passed.dropouts.clone()).unwrap_or_default());
    let leaf = |of: &Gathered| {
        let tensor = of.features.value.tensor().clone();
        let value = if learns { tape.variable(tensor) } else { Value::constant(tensor) };
        Features { value, ..of.features.clone() }
    };
    let leaves: Vec<Features> = gathered.iter().map(leaf).collect();
    let (sum, weight) = batch.loss(&tape, &leaves, (&all, batch.shown))?;
    let (loss, after) = (scalar(&sum)?, tape.dropouts());
    let of_head = tape.backward_from(vec![batch.seed(sum)?])?;
    let reached: Vec<Option<Tensor>> = leaves.iter().map(|leaf| of_head.of(&leaf.value).cloned()).collect();
    let mut head = BatchGradients { loss, weight, ..BatchGradients::default() };
    head.gradients.accumulate(of_head, true)?;
    if batch.holding.is_none() && reached.iter().all(Option::is_none) {
        return Ok(head);
    }

    let rows: Vec<Vec<Tensor>> = gathered.into_iter().map(|of| of.rows).collect();
    let kept = |Passed { tape, features, .. }: Passed| Mutex::new(tape.map(|tape| (tape, features)));
    let kept: Vec<_> = passed.into_iter().map(kept).collect();
    let one = |i: usize| -> Result<BatchGradients> {
        let (tape, features) = match kept[i].lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(recorded) => recorded,
            None => {
                let tape = batch.tape(&parts[i], true, !on_cores);
                let features = batch.features(&tape, &parts[i])?;
                (tape, features)
            }
        };
        tape.set_dropouts(after.clone());
        let mut seeds = Vec::new();
        for ((of, rows), gradient) in features.iter().zip(&rows).zip(&reached) {
            if let (true, Some(gradient)) = (of.value.requires_grad(), gradient) {
                seeds.push((of.value.clone(), gradient.index_select(&rows[i], 0)?));
            }
        }
        let held = batch.penalty(&tape, &parts[i], &features)?;
        let penalty = held.as_ref().map_or(Ok(0.0), scalar)?;
        seeds.extend(held.map(|held| batch.penalty_seed(held)).transpose()?);
        drop(features);
        Ok(BatchGradients { gradients: tape.backward_from(seeds)?, loss: 0.0, penalty, weight: 0.0 })
    };
    ordered::sum(head, parts.len(), on_cores, one, |total, part| total.add(part, !on_cores))
}

/// Features of micro-batches in the order of the batch, which has so many examples, each of which has passed so often: all of the first
/// pass, then all of the second.
fn gather(of: &[&Features], parts: &[Vec<usize>], (examples, passes): (usize, usize)) -> Result<Gathered> {
    // Of each sequence of the batch where its rows begin among those of all micro-batches, and how many they are.
    let mut sequences: Vec<(u32, usize)> = Vec::new();
    let mut place_of: Vec<Vec<usize>> = Vec::new();
    let mut begin = 0;
    for (features, places) in of.iter().zip(parts) {
        let each = features.layout.sequences() / (passes * places.len()).max(1);
        if features.layout.sequences() != each * passes * places.len() {
            return Err(Error::run("a network gave features of other examples than it was given"));
        }
        sequences.resize(passes * examples * each, (0, 0));
        let place = |pass: usize| places.iter().map(move |place| (pass * examples + place) * each);
        let own = (0..passes).flat_map(place).flat_map(|first| first..first + each).collect::<Vec<_>>();
        for (&sequence, rows) in own.iter().zip(features.layout.ranges()) {
            sequences[sequence] = ((begin + rows.start) as u32, rows.len());
        }
        begin += features.layout.tokens();
        place_of.push(own);
    }
    let layout = Layout::from_lengths(sequences.iter().map(|(_, rows)| *rows));
    let tensors: Vec<&Tensor> = of.iter().map(|features| features.value.tensor()).collect();
    let all = Tensor::cat(&tensors, 0)?;
    let device = all.device().clone();
    let from: Vec<u32> = sequences.iter().flat_map(|&(begin, rows)| begin..begin + rows as u32).collect();
    let all = all.index_select(&Tensor::new(from, &device)?, 0)?;
    let rows = place_of.iter().map(|own| {
        let rows = own.iter().flat_map(|&sequence| layout.range(sequence)).map(|row| row as u32);
        Ok(Tensor::new(rows.collect::<Vec<u32>>(), &device)?)
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    let map = of.first().and_then(|features| features.map);
    let map = map.map(|map| Map::new(layout.sequences(), map.height, map.width));
    Ok(Gathered { features: Features { value: Value::constant(all), layout, map }, rows })
}
