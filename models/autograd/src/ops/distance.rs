//! How far a tensor is from an anchor: the penalties of L2-SP and EWC, over as many elements as the model has.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::reduce::sum_all;
use crate::{Tape, Value, slices};

impl Tape {
    /// `sum_i w_i (x_i - anchor_i)^2`, a scalar; every w_i is 1 where there are no `weights`. All have one shape. No gradient flows
    /// into `anchor` and `weights`.
    ///
    /// As a chain of ops it would write eight tensors of this size; here backward writes one, and forward none.
    pub fn squared_distance(&self, x: &Value, anchor: &Tensor, weights: Option<&Tensor>) -> Result<Value> {
        for other in std::iter::once(anchor).chain(weights) {
            if x.dims() != other.dims() {
                candle_core::bail!("a distance takes tensors of one shape; got {:?} and {:?}", x.dims(), other.dims());
            }
        }
        let (from, anchor, weights) = (x.tensor().clone(), anchor.clone(), weights.cloned());
        let sum = match sum(&from, &anchor, weights.as_ref()) {
            Some(sum) => Tensor::new(sum as f32, from.device())?,
            None => {
                let squares = (&from - &anchor)?.sqr()?;
                sum_all(&weights.as_ref().map_or(Ok(squares.clone()), |weights| squares * weights)?)?
            }
        };
        Ok(self.record(sum, &[x], move |gradient, vjp| {
            let twice = gradient.affine(2.0, 0.0)?;
            let fast = match slices::read([&twice], |twice| twice[0][0]) {
                Some(twice) => slope(&from, &anchor, weights.as_ref(), twice),
                None => None,
            };
            vjp.give(
                0,
                match fast {
                    Some(slope) => Tensor::from_vec(slope, from.dims(), from.device())?,
                    None => {
                        let slope = (&from - &anchor)?.broadcast_mul(&twice)?;
                        weights.map_or(Ok(slope.clone()), |weights| slope * weights)?
                    }
                },
            )
        }))
    }
}

/// Calls `f` with the slices of the tensors, the weights' among them where there are some.
fn with_slices<R>(
    x: &Tensor,
    anchor: &Tensor,
    weights: Option<&Tensor>,
    f: impl FnOnce(&[f32], &[f32], Option<&[f32]>) -> R,
) -> Option<R> {
    match weights {
        Some(weights) => slices::read([x, anchor, weights], |[x, anchor, weights]| f(x, anchor, Some(weights))),
        None => slices::read([x, anchor], |[x, anchor]| f(x, anchor, None)),
    }
}

/// The sum, in `f64` across blocks of fixed size, so that its bits do not depend on the number of threads.
fn sum(x: &Tensor, anchor: &Tensor, weights: Option<&Tensor>) -> Option<f64> {
    const LANES: usize = 16;
    let block = |x: &[f32], anchor: &[f32], weights: Option<&[f32]>| {
        let mut lanes = [0f64; LANES];
        for (i, (x, anchor)) in x.chunks(LANES).zip(anchor.chunks(LANES)).enumerate() {
            let weights = weights.map(|weights| &weights[i * LANES..]);
            for (j, (x, anchor)) in x.iter().zip(anchor).enumerate() {
                let distance = x - anchor;
                lanes[j] += f64::from(distance * distance * weights.map_or(1.0, |weights| weights[j]));
            }
        }
        lanes.iter().sum::<f64>()
    };
    with_slices(x, anchor, weights, |x, anchor, weights| {
        let blocks = x.par_chunks(slices::CHUNK).zip(anchor.par_chunks(slices::CHUNK)).enumerate();
        let blocks =
            blocks.map(|(i, (x, anchor))| block(x, anchor, weights.map(|weights| &weights[i * slices::CHUNK..])));
        blocks.collect::<Vec<f64>>().into_iter().sum()
    })
}

/// `twice w (x - anchor)`, the gradient.
fn slope(x: &Tensor, anchor: &Tensor, weights: Option<&Tensor>, twice: f32) -> Option<Vec<f32>> {
    with_slices(x, anchor, weights, |x, anchor, weights| {
        let mut slope = vec![0f32; x.len()];
        let chunks =
            slope.par_chunks_mut(slices::CHUNK).zip(x.par_chunks(slices::CHUNK)).zip(anchor.par_chunks(slices::CHUNK));
        chunks.enumerate().for_each(|(i, ((slope, x), anchor))| {
            for ((slope, x), anchor) in slope.iter_mut().zip(x).zip(anchor) {
                *slope = twice * (x - anchor);
            }
            if let Some(weights) = weights {
                slope.iter_mut().zip(&weights[i * slices::CHUNK..]).for_each(|(slope, weight)| *slope *= weight);
            }
        });
        slope
    })
}
