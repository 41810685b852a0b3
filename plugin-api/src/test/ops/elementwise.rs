//! Functions of single elements.

use std::f64::consts::{FRAC_2_SQRT_PI, PI, SQRT_2};

use super::basic::map;
use crate::test::value::Value;

/// The error function, by its series of positive terms (Abramowitz and Stegun 7.1.6), to the last digits of an `f64`.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// Phi.
fn normal_share(x: f64) -> f64 {
    0.5 * (1.0 + erf(x / SQRT_2))
}

pub(crate) fn sigmoid_of(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub(crate) fn relu(x: &Value) -> Value {
    map(x, |x| x.max(0.0), |x, _| f64::from(u8::from(x > 0.0)))
}

pub(crate) fn gelu(x: &Value) -> Value {
    map(x, |x| x * normal_share(x), |x, _| normal_share(x) + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt())
}

pub(crate) fn gelu_tanh(x: &Value) -> Value {
    const CUBE: f64 = 0.044715;
    let inner = |x: f64| (2.0 / PI).sqrt() * (x + CUBE * x * x * x);
    map(
        x,
        move |x| 0.5 * x * (1.0 + inner(x).tanh()),
        move |x, _| {
            let tanh = inner(x).tanh();
            0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * (2.0 / PI).sqrt() * (1.0 + 3.0 * CUBE * x * x)
        },
    )
}

pub(crate) fn tanh(x: &Value) -> Value {
    map(x, f64::tanh, |_, y| 1.0 - y * y)
}

pub(crate) fn sigmoid(x: &Value) -> Value {
    map(x, sigmoid_of, |_, y| y * (1.0 - y))
}

pub(crate) fn silu(x: &Value) -> Value {
    map(x, |x| x * sigmoid_of(x), |x, y| sigmoid_of(x) + y * (1.0 - sigmoid_of(x)))
}

pub(crate) fn exp(x: &Value) -> Value {
    map(x, f64::exp, |_, y| y)
}

pub(crate) fn log(x: &Value) -> Value {
    map(x, f64::ln, |x, _| 1.0 / x)
}

pub(crate) fn sqrt(x: &Value) -> Value {
    map(x, f64::sqrt, |_, y| 0.5 / y)
}

pub(crate) fn square(x: &Value) -> Value {
    map(x, |x| x * x, |x, _| 2.0 * x)
}

pub(crate) fn abs(x: &Value) -> Value {
    map(x, f64::abs, |x, _| if x == 0.0 { 0.0 } else { x.signum() })
}

pub(crate) fn sign(x: &Value) -> Value {
    map(x, |x| if x == 0.0 { 0.0 } else { x.signum() }, |_, _| 0.0)
}

pub(crate) fn clamp_min(x: &Value, min: f64) -> Value {
    map(x, |x| x.max(min), move |x, _| f64::from(u8::from(x >= min)))
}
