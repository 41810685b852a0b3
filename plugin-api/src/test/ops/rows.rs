//! Sums and means, and what goes over the last dimension: softmax and layer norm.

use super::{
    basic::{add, add_up, affine, div, mul, sub},
    elementwise::{exp, log, sqrt, square},
};
use crate::{Error, Result, test::value::Value};

pub(crate) fn sum(x: &Value) -> Value {
    add_up(x, [], vec![0; x.data().len()])
}

pub(crate) fn mean(x: &Value) -> Value {
    affine(&sum(x), 1.0 / x.data().len() as f64, 0.0)
}

/// Over one dimension, which stays with size 1 or goes.
pub(crate) fn sum_dim(x: &Value, dim: usize, keep: bool) -> Value {
    let (before, after) = (&x.shape()[..dim], &x.shape()[dim + 1..]);
    let (size, inner) = (x.shape()[dim], after.iter().product::<usize>());
    let to = (0..x.data().len()).map(|i| i / (size * inner) * inner + i % inner).collect();
    let kept: &[usize] = if keep { &[1] } else { &[] };
    add_up(x, [before, kept, after].concat(), to)
}

pub(crate) fn mean_dim(x: &Value, dim: usize, keep: bool) -> Value {
    affine(&sum_dim(x, dim, keep), 1.0 / x.shape()[dim] as f64, 0.0)
}

/// The last dimension, of which there must be one.
fn last(x: &Value) -> Result<usize> {
    x.shape().len().checked_sub(1).ok_or_else(|| Error::new("a scalar has no last dimension"))
}

/// x less the greatest element of its row, so that no exponential overflows. That shifts nothing in a softmax, so it is a constant.
fn shifted(x: &Value) -> Result<Value> {
    let last = last(x)?;
    let greatest = x.data().chunks(x.width()).map(|row| row.iter().copied().fold(f64::NEG_INFINITY, f64::max));
    sub(x, &Value::constant(x.dtype(), [&x.shape()[..last], &[1]].concat(), greatest.collect()))
}

pub(crate) fn softmax(x: &Value) -> Result<Value> {
    let exp = exp(&shifted(x)?);
    div(&exp, &sum_dim(&exp, last(x)?, true))
}

pub(crate) fn log_softmax(x: &Value) -> Result<Value> {
    let x = shifted(x)?;
    sub(&x, &log(&sum_dim(&exp(&x), last(&x)?, true)))
}

pub(crate) fn layer_norm(x: &Value, weight: &Value, bias: Option<&Value>, eps: f64) -> Result<Value> {
    let last = last(x)?;
    if weight.shape() != [x.width()] || bias.is_some_and(|bias| bias.shape() != [x.width()]) {
        return Err(Error::new("a norm takes x [.., n], weight [n] and bias [n]"));
    }
    let centred = sub(x, &mean_dim(x, last, true))?;
    let variance = mean_dim(&square(&centred), last, true);
    let scaled = mul(&div(&centred, &sqrt(&affine(&variance, 1.0, eps)))?, weight)?;
    bias.map_or_else(|| Ok(scaled.clone()), |bias| add(&scaled, bias))
}

/// Sum of `weights (x - anchor)^2`; no gradient flows into anchor and weights.
pub(crate) fn squared_distance(x: &Value, anchor: &Value, weights: Option<&Value>) -> Result<Value> {
    if anchor.shape() != x.shape() || weights.is_some_and(|weights| weights.shape() != x.shape()) {
        return Err(Error::new("x, anchor and weights must have one shape"));
    }
    let squares = square(&sub(x, &anchor.detached())?);
    weights.map_or_else(|| Ok(sum(&squares)), |weights| Ok(sum(&mul(&squares, &weights.detached())?)))
}
