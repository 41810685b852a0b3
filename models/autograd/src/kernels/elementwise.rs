//! Pointwise loops over slices.

use super::math;
use super::{multiversion, scratch};
use crate::Activation;

/// A nonlinearity and its derivative at one point.
trait Curve {
    fn at<const FMA: bool>(x: f32) -> (f32, f32);
}

struct Relu;
impl Curve for Relu {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> (f32, f32) {
        (if x <= 0.0 { 0.0 } else { x }, if x > 0.0 { 1.0 } else { 0.0 })
    }
}

struct Gelu;
impl Curve for Gelu {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> (f32, f32) {
        let (cdf, density) = math::normal::<FMA>(x);
        (x * cdf, math::mul_add::<FMA>(x, density, cdf))
    }
}

struct GeluTanh;
impl Curve for GeluTanh {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> (f32, f32) {
        // 0.5 (1 + tanh u) = sigmoid(2 u)
        const TWICE: f32 = 1.595_769; // 2 sqrt(2 / pi)
        const CUBIC: f32 = 0.044_715;
        let square = x * x;
        let (s, slope) = math::sigmoid::<FMA>(TWICE * x * math::mul_add::<FMA>(square, CUBIC, 1.0));
        let inner = TWICE * math::mul_add::<FMA>(square, 3.0 * CUBIC, 1.0);
        (x * s, math::mul_add::<FMA>(x * slope, inner, s))
    }
}

struct Tanh;
impl Curve for Tanh {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> (f32, f32) {
        let y = math::tanh::<FMA>(x);
        (y, math::mul_add::<FMA>(-y, y, 1.0))
    }
}

struct Sigmoid;
impl Curve for Sigmoid {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> (f32, f32) {
        math::sigmoid::<FMA>(x)
    }
}

struct Silu;
impl Curve for Silu {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> (f32, f32) {
        let (s, slope) = math::sigmoid::<FMA>(x);
        (x * s, math::mul_add::<FMA>(x, slope, s))
    }
}

struct QuickGelu;
impl Curve for QuickGelu {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> (f32, f32) {
        const QUICK: f32 = 1.702;
        let (s, slope) = math::sigmoid::<FMA>(QUICK * x);
        (x * s, math::mul_add::<FMA>(QUICK * x, slope, s))
    }
}

struct Relu6;
impl Curve for Relu6 {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> (f32, f32) {
        let y = if x <= 0.0 { 0.0 } else { x };
        (if y > 6.0 { 6.0 } else { y }, if x > 0.0 && x < 6.0 { 1.0 } else { 0.0 })
    }
}

/// The hard sigmoid; its derivative is a sixth where x + 3 lies between 0 and 6.
struct HardSigmoid;
impl Curve for HardSigmoid {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> (f32, f32) {
        const SIXTH: f32 = 1.0 / 6.0;
        let (y, slope) = Relu6::at::<FMA>(x + 3.0);
        (y * SIXTH, slope * SIXTH)
    }
}

struct HardSwish;
impl Curve for HardSwish {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> (f32, f32) {
        let (y, slope) = HardSigmoid::at::<FMA>(x);
        (x * y, math::mul_add::<FMA>(x, slope, y))
    }
}

#[inline(always)]
fn values_body<const FMA: bool, C: Curve>(x: &mut [f32]) {
    for x in x {
        *x = C::at::<FMA>(*x).0;
    }
}

#[inline(always)]
fn values_and_slopes_body<const FMA: bool, C: Curve>(x: &mut [f32], slope: &mut [f32]) {
    for (x, slope) in x.iter_mut().zip(slope) {
        (*x, *slope) = C::at::<FMA>(*x);
    }
}

#[inline(always)]
fn chain_body<const FMA: bool, C: Curve>(x: &[f32], g: &mut [f32]) {
    for (x, g) in x.iter().zip(g) {
        *g *= C::at::<FMA>(*x).1;
    }
}

multiversion! { fn values<C: Curve>(x: &mut [f32]) = values_body }
multiversion! { fn values_and_slopes<C: Curve>(x: &mut [f32], slope: &mut [f32]) = values_and_slopes_body }
multiversion! { fn chain<C: Curve>(x: &[f32], g: &mut [f32]) = chain_body }

struct Identity;
impl Curve for Identity {
    #[inline(always)]
    fn at<const FMA: bool>(x: f32) -> (f32, f32) {
        (x, 1.0)
    }
}

/// Calls a loop with the curve of an activation.
macro_rules! with_curve {
    ($activation:expr, $name:ident($($argument:expr),*)) => {
        match $activation {
            Activation::Relu => $name::<Relu>($($argument),*),
            Activation::Gelu => $name::<Gelu>($($argument),*),
            Activation::GeluTanh => $name::<GeluTanh>($($argument),*),
            Activation::Tanh => $name::<Tanh>($($argument),*),
            Activation::Sigmoid => $name::<Sigmoid>($($argument),*),
            Activation::Silu => $name::<Silu>($($argument),*),
            Activation::QuickGelu => $name::<QuickGelu>($($argument),*),
            Activation::Relu6 => $name::<Relu6>($($argument),*),
            Activation::HardSigmoid => $name::<HardSigmoid>($($argument),*),
            Activation::HardSwish => $name::<HardSwish>($($argument),*),
            Activation::Identity => $name::<Identity>($($argument),*),
        }
    };
}

/// Applies `activation` to each element, in place.
pub(crate) fn activate(activation: Activation, x: &mut [f32]) {
    with_curve!(activation, values(x));
}

/// Applies `activation` in place and writes its derivative at each element to `slope`, of the same length.
pub(crate) fn activate_with_slope(activation: Activation, x: &mut [f32], slope: &mut [f32]) {
    with_curve!(activation, values_and_slopes(x, slope));
}

/// Multiplies `g` by the derivative of `activation` at `x`, of the same length.
pub(crate) fn activate_backward(activation: Activation, x: &[f32], g: &mut [f32]) {
    with_curve!(activation, chain(x, g));
}

#[inline(always)]
fn gate_body<const FMA: bool, C: Curve>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((gate, up), out) in gate.iter().zip(up).zip(out) {
        *out = C::at::<FMA>(*gate).0 * up;
    }
}

#[inline(always)]
fn gate_backward_body<const FMA: bool, C: Curve>(gate: &mut [f32], up: &mut [f32], g: &[f32]) {
    for ((gate, up), g) in gate.iter_mut().zip(up).zip(g) {
        let (value, slope) = C::at::<FMA>(*gate);
        (*gate, *up) = (g * *up * slope, g * value);
    }
}

multiversion! { fn gate_into<C: Curve>(gate: &[f32], up: &[f32], out: &mut [f32]) = gate_body }
multiversion! { fn gate_backward_into<C: Curve>(gate: &mut [f32], up: &mut [f32], g: &[f32]) = gate_backward_body }

/// `activation(gate) up` element by element; equal lengths.
pub(crate) fn gate(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    with_curve!(activation, gate_into(gate, up, out));
}

/// From the operands of [`gate`] and the gradient of its result the gradients of the operands, in their place.
pub(crate) fn gate_backward(activation: Activation, gate: &mut [f32], up: &mut [f32], g: &[f32]) {
    with_curve!(activation, gate_backward_into(gate, up, g));
}

#[inline(always)]
fn product_body<const FMA: bool>(a: &[f32], b: &[f32], out: &mut [std::mem::MaybeUninit<f32>]) {
    for ((a, b), out) in a.iter().zip(b).zip(out) {
        out.write(a * b);
    }
}

multiversion! {
    fn product_into(a: &[f32], b: &[f32], out: &mut [std::mem::MaybeUninit<f32>]) = product_body
}

/// `a b` element by element; equal lengths.
pub(crate) fn product(a: &[f32], b: &[f32]) -> Vec<f32> {
    assert_eq!(a.len(), b.len());
    // SAFETY: the slice has the length of a and b, so each of its elements is written.
    unsafe { scratch::written(a.len(), |out| product_into(a, b, out)) }
}

#[inline(always)]
fn column_sums_body<const FMA: bool>(x: &[f32], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len()) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += x;
        }
    }
}

multiversion! {
    /// Adds the rows of `x`.
    pub(super) fn add_column_sums(x: &[f32], sums: &mut [f32]) = column_sums_body
}

/// The sum of the rows of `[.., width]`: a bias's gradient.
pub(crate) fn column_sums(x: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0; width];
    if width > 0 {
        add_column_sums(x, &mut sums);
    }
    sums
}

#[inline(always)]
fn column_product_sums_body<const FMA: bool>(a: &[f32], b: &[f32], sums: &mut [f32]) {
    for (a, b) in a.chunks_exact(sums.len()).zip(b.chunks_exact(sums.len())) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum = math::mul_add::<FMA>(*a, *b, *sum);
        }
    }
}

multiversion! {
    fn add_column_product_sums(a: &[f32], b: &[f32], sums: &mut [f32]) = column_product_sums_body
}

/// The sum over the rows of `a b`, both `[.., width]`: the gradient of a row that scales all others.
pub(crate) fn column_product_sums(a: &[f32], b: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0; width];
    if width > 0 {
        add_column_product_sums(a, b, &mut sums);
    }
    sums
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::{DType, Device, Tensor};

    use super::*;

    #[test]
    fn curves_agree_with_the_composite() {
        for activation in [
            Activation::Relu,
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::Tanh,
            Activation::Sigmoid,
            Activation::Silu,
            Activation::QuickGelu,
            Activation::Relu6,
            Activation::HardSigmoid,
            Activation::HardSwish,
            Activation::Identity,
        ] {
            let points: Vec<f32> = (-900..=901).map(|i| i as f32 / 100.0).collect();
            let exact = Tensor::new(points.as_slice(), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
            let ones = exact.ones_like().unwrap();
            let value = activation.forward(&exact).unwrap().to_vec1::<f64>().unwrap();
            let slope = activation.backward(&exact, &ones).unwrap().to_vec1::<f64>().unwrap();
            let check = |what, mine: &[f32], exact: &[f64]| {
                for ((x, mine), exact) in points.iter().zip(mine).zip(exact) {
                    let error = (f64::from(*mine) - exact).abs() / exact.abs().max(1.0);
                    assert!(error < 6e-7, "{activation:?} {what} at {x}: {mine}, exact {exact}");
                }
            };
            let mut y = points.clone();
            activate(activation, &mut y);
            check("value", &y, &value);
            let (mut y, mut d) = (points.clone(), vec![0.0; points.len()]);
            activate_with_slope(activation, &mut y, &mut d);
            check("value", &y, &value);
            check("slope", &d, &slope);
            let mut g = vec![1.0; points.len()];
            activate_backward(activation, &points, &mut g);
            check("gradient", &g, &slope);
        }
    }

    #[test]
    fn sums_and_products() {
        assert_eq!(column_sums(&[1., 2., 3., 4., 5., 6.], 2), [9., 12.]);
        assert_eq!(product(&[1., 2., 3.], &[4., 5., 6.]), [4., 10., 18.]);
        assert_eq!(column_product_sums(&[1., 2., 3., 4.], &[5., 6., 7., 8.], 2), [26., 44.]);
    }
}
