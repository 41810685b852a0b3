//! The few forms that every op is made of: functions of single elements, elements moved and added up, and sums of products.

use super::call::widest;
use crate::{Error, Result, test::value::Value};

/// What gathers 0 rather than an element.
pub(crate) const NOWHERE: usize = usize::MAX;

/// `f(x)` of each element; `slope(x, f(x))` is its derivative.
pub(crate) fn map(x: &Value, f: impl Fn(f64) -> f64, slope: impl Fn(f64, f64) -> f64 + Send + Sync + 'static) -> Value {
    let data: Vec<f64> = x.data().iter().map(|&x| f(x)).collect();
    let (before, after) = (x.clone(), data.clone());
    Value::computed(x.dtype(), x.shape().to_vec(), data, &[x], move |gradient| {
        let pairs = before.data().iter().zip(&after);
        vec![gradient.iter().zip(pairs).map(|(gradient, (&x, &y))| gradient * slope(x, y)).collect()]
    })
}

/// The shape that both broadcast to, as in numpy.
fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size = |of: &[usize], i: usize| (i + of.len()).checked_sub(rank).map_or(1, |i| of[i]);
    (0..rank)
        .map(|i| match (size(a, i), size(b, i)) {
            (a, b) if a == b || b == 1 => Ok(a),
            (1, b) => Ok(b),
            _ => Err(Error::new("these shapes do not broadcast")),
        })
        .collect()
}

/// The element of a tensor of shape `from` that stands at each element of `to`, to which it broadcasts.
fn places(from: &[usize], to: &[usize]) -> Vec<usize> {
    let lead = to.len() - from.len();
    let place = |mut index: usize| {
        let (mut place, mut stride) = (0, 1);
        for (i, &size) in to.iter().enumerate().rev() {
            let at = index % size;
            index /= size;
            if i >= lead {
                let size = from[i - lead];
                place += if size == 1 { 0 } else { at * stride };
                stride *= size;
            }
        }
        place
    };
    (0..to.iter().product()).map(place).collect()
}

/// `f(a, b)` elementwise, shapes broadcast; `slopes(a, b)` are its derivatives.
pub(crate) fn zip(
    a: &Value,
    b: &Value,
    f: impl Fn(f64, f64) -> f64,
    slopes: impl Fn(f64, f64) -> [f64; 2] + Send + Sync + 'static,
) -> Result<Value> {
    let shape = broadcast(a.shape(), b.shape())?;
    let (at_a, at_b) = (places(a.shape(), &shape), places(b.shape(), &shape));
    let data = at_a.iter().zip(&at_b).map(|(&i, &j)| f(a.data()[i], b.data()[j])).collect();
    let (of_a, of_b) = (a.clone(), b.clone());
    Ok(Value::computed(widest(a.dtype(), b.dtype()), shape, data, &[a, b], move |gradient| {
        let (mut by_a, mut by_b) = (vec![0.0; of_a.data().len()], vec![0.0; of_b.data().len()]);
        for (gradient, (&i, &j)) in gradient.iter().zip(at_a.iter().zip(&at_b)) {
            let [slope_a, slope_b] = slopes(of_a.data()[i], of_b.data()[j]);
            by_a[i] += gradient * slope_a;
            by_b[j] += gradient * slope_b;
        }
        vec![by_a, by_b]
    }))
}

pub(crate) fn add(a: &Value, b: &Value) -> Result<Value> {
    zip(a, b, |a, b| a + b, |_, _| [1.0, 1.0])
}

pub(crate) fn sub(a: &Value, b: &Value) -> Result<Value> {
    zip(a, b, |a, b| a - b, |_, _| [1.0, -1.0])
}

pub(crate) fn mul(a: &Value, b: &Value) -> Result<Value> {
    zip(a, b, |a, b| a * b, |a, b| [b, a])
}

pub(crate) fn div(a: &Value, b: &Value) -> Result<Value> {
    zip(a, b, |a, b| a / b, |a, b| [1.0 / b, -a / (b * b)])
}

pub(crate) fn affine(x: &Value, mul: f64, add: f64) -> Value {
    map(x, |x| mul * x + add, move |_, _| mul)
}

/// The elements of `x` at `from`, in this order, under a shape; 0 where one is from [`NOWHERE`].
pub(crate) fn gather(x: &Value, shape: impl Into<Vec<usize>>, from: Vec<usize>) -> Value {
    let data = from.iter().map(|&i| x.data().get(i).copied().unwrap_or(0.0)).collect();
    let elements = x.data().len();
    Value::computed(x.dtype(), shape.into(), data, &[x], move |gradient| {
        let mut by_x = vec![0.0; elements];
        for (gradient, &i) in gradient.iter().zip(&from) {
            if i != NOWHERE {
                by_x[i] += gradient;
            }
        }
        vec![by_x]
    })
}

/// The elements of `x` added up: element i goes to `to[i]`.
pub(crate) fn add_up(x: &Value, shape: impl Into<Vec<usize>>, to: Vec<usize>) -> Value {
    let shape = shape.into();
    let mut data = vec![0.0; shape.iter().product()];
    x.data().iter().zip(&to).for_each(|(x, &i)| data[i] += x);
    Value::computed(x.dtype(), shape, data, &[x], move |gradient| vec![to.iter().map(|&i| gradient[i]).collect()])
}

/// Places in a result, in one factor and in the other.
pub(crate) type Products<'a> = &'a mut dyn FnMut(usize, usize, usize);

/// Sums of products: y\[k\] = sum of a\[i\] b\[j\] over all (k, i, j) that `products` names. Matrix products and convolutions are such.
pub(crate) fn sum_of_products(
    a: &Value,
    b: &Value,
    shape: impl Into<Vec<usize>>,
    products: impl Fn(Products<'_>) + Send + Sync + 'static,
) -> Value {
    let shape = shape.into();
    let mut data = vec![0.0; shape.iter().product()];
    products(&mut |k, i, j| data[k] += a.data()[i] * b.data()[j]);
    let (of_a, of_b) = (a.clone(), b.clone());
    Value::computed(widest(a.dtype(), b.dtype()), shape, data, &[a, b], move |gradient| {
        let (a, b) = (of_a.data(), of_b.data());
        let (mut by_a, mut by_b) = (vec![0.0; a.len()], vec![0.0; b.len()]);
        products(&mut |k, i, j| {
            by_a[i] += gradient[k] * b[j];
            by_b[j] += gradient[k] * a[i];
        });
        vec![by_a, by_b]
    })
}
