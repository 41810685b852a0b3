//! Layer norm and RMS norm, a row at a time. Each function gives `None` where a tensor is not contiguous `f32` on the CPU.

use std::mem::MaybeUninit;

use candle_core::{Result, Tensor};

use super::math::mul_add;
use super::{multiversion, scratch};
use crate::slices::read;

/// Sums that run side by side, so that the compiler may vectorise.
const LANES: usize = 32;

/// The sum of `f(i)` over a row.
#[inline(always)]
fn sum_by(width: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let whole = width - width % LANES;
    for start in (0..whole).step_by(LANES) {
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum += f(start + j);
        }
    }
    for i in whole..width {
        sums[i - whole] += f(i);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for j in 0..half {
            sums[j] += sums[j + half];
        }
        half /= 2;
    }
    sums[0]
}

/// What goes into a norm. An absent residual or bias is empty.
struct Inputs<'a> {
    x: &'a [f32],
    residual: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
    /// Whether the mean is taken off first.
    centred: bool,
}

/// What comes out. `normalized` and `reciprocal_std` are empty where no gradient will be wanted.
struct Outputs<'a> {
    y: &'a mut [MaybeUninit<f32>],
    normalized: &'a mut [MaybeUninit<f32>],
    reciprocal_std: &'a mut [MaybeUninit<f32>],
}

/// A normalized row times the weight, and the bias where there is one.
#[inline(always)]
fn scale_row<const FMA: bool>(row: &[f32], weight: &[f32], bias: &[f32], y: &mut [MaybeUninit<f32>]) {
    if bias.is_empty() {
        for ((y, x), w) in y.iter_mut().zip(row).zip(weight) {
            y.write(x * w);
        }
    } else {
        for (((y, x), w), b) in y.iter_mut().zip(row).zip(weight).zip(bias) {
            y.write(mul_add::<FMA>(*x, *w, *b));
        }
    }
}

#[inline(always)]
fn scale_body<const FMA: bool>(normalized: &[f32], weight: &[f32], bias: &[f32], y: &mut [MaybeUninit<f32>]) {
    let width = weight.len();
    for (row, y) in normalized.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        scale_row::<FMA>(row, weight, bias, y);
    }
}

multiversion! {
    fn scale_rows(normalized: &[f32], weight: &[f32], bias: &[f32], y: &mut [MaybeUninit<f32>]) = scale_body
}

#[inline(always)]
fn forward_body<const FMA: bool>(inputs: &Inputs<'_>, outputs: &mut Outputs<'_>, row: &mut [f32]) {
    let width = row.len();
    let scale = 1.0 / width as f32;
    for (i, (x, y)) in inputs.x.chunks_exact(width).zip(outputs.y.chunks_exact_mut(width)).enumerate() {
        if inputs.residual.is_empty() {
            row.copy_from_slice(x);
        } else {
            for ((row, x), r) in row.iter_mut().zip(x).zip(&inputs.residual[i * width..][..width]) {
                *row = x + r;
            }
        }
        let mean = if inputs.centred { sum_by(width, |j| row[j]) * scale } else { 0.0 };
        let variance = sum_by(width, |j| (row[j] - mean) * (row[j] - mean)) * scale;
        let reciprocal_std = 1.0 / (variance + inputs.eps).sqrt();
        for x in row.iter_mut() {
            *x = (*x - mean) * reciprocal_std;
        }
        scale_row::<FMA>(row, inputs.weight, inputs.bias, y);
        if !outputs.normalized.is_empty() {
            for (out, x) in outputs.normalized[i * width..][..width].iter_mut().zip(&*row) {
                out.write(*x);
            }
            outputs.reciprocal_std[i].write(reciprocal_std);
        }
    }
}

multiversion! {
    fn forward_rows(inputs: &Inputs<'_>, outputs: &mut Outputs<'_>, row: &mut [f32]) = forward_body
}

#[inline(always)]
fn backward_body<const FMA: bool>(
    g: &[f32],
    normalized: &[f32],
    reciprocal_std: &[f32],
    weight: &[f32],
    centred: bool,
    dx: &mut [MaybeUninit<f32>],
) {
    let width = weight.len();
    let scale = 1.0 / width as f32;
    let rows = g.chunks_exact(width).zip(normalized.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
    for (((g, x), dx), reciprocal_std) in rows.zip(reciprocal_std) {
        let mean = if centred { sum_by(width, |j| g[j] * weight[j]) * scale } else { 0.0 };
        let projection = sum_by(width, |j| g[j] * weight[j] * x[j]) * scale;
        for (((dx, g), x), w) in dx.iter_mut().zip(g).zip(x).zip(weight) {
            let centered = mul_add::<FMA>(-*x, projection, mul_add::<FMA>(*g, *w, -mean));
            dx.write(centered * reciprocal_std);
        }
    }
}

multiversion! {
    fn backward_rows(
        g: &[f32], normalized: &[f32], reciprocal_std: &[f32], weight: &[f32], centred: bool, dx: &mut [MaybeUninit<f32>],
    ) = backward_body
}

#[inline(always)]
fn weight_body<const FMA: bool>(g: &[f32], normalized: &[f32], dw: &mut [f32]) {
    let width = dw.len();
    for (g, x) in g.chunks_exact(width).zip(normalized.chunks_exact(width)) {
        for ((dw, g), x) in dw.iter_mut().zip(g).zip(x) {
            *dw = mul_add::<FMA>(*g, *x, *dw);
        }
    }
}

multiversion! {
    fn weight_rows(g: &[f32], normalized: &[f32], dw: &mut [f32]) = weight_body
}

/// What a backward pass needs: the normalized input and, for each row, 1 / std.
pub(crate) type Statistics = (Tensor, Tensor);

/// The norm of `x`, or of `x + residual`, and the statistics if `records`.
pub(crate) fn forward(
    x: &Tensor,
    residual: Option<&Tensor>,
    weight: &Tensor,
    bias: Option<&Tensor>,
    (eps, centred): (f32, bool),
    records: bool,
) -> Result<Option<(Tensor, Option<Statistics>)>> {
    let width = weight.elem_count();
    if width == 0 {
        return Ok(None);
    }
    let rows = x.elem_count() / width;
    let saved = if records { rows } else { 0 };
    let mut normalized = Vec::new();
    let mut reciprocal_std = Vec::new();
    let y = read([x, residual.unwrap_or(x), weight, bias.unwrap_or(weight)], |[x, r, weight, b]| {
        let residual = if residual.is_some() { r } else { &[] };
        let bias = if bias.is_some() { b } else { &[] };
        let inputs = Inputs { x, residual, weight, bias, eps, centred };
        // SAFETY: the lengths are those of `rows` rows, and the loop writes each row of y and, where they have any length,
        // of the statistics.
        unsafe {
            scratch::written(rows * width, |y| {
                normalized = scratch::written(saved * width, |normalized| {
                    reciprocal_std = scratch::written(saved, |reciprocal_std| {
                        let mut outputs = Outputs { y, normalized, reciprocal_std };
                        scratch::with(width, |row| forward_rows(&inputs, &mut outputs, row));
                    });
                });
            })
        }
    });
    let Some(y) = y else { return Ok(None) };
    let statistics = if records {
        let mut lead = x.dims().to_vec();
        if let Some(last) = lead.last_mut() {
            *last = 1;
        }
        let normalized = Tensor::from_vec(normalized, x.dims(), x.device())?;
        Some((normalized, Tensor::from_vec(reciprocal_std, lead, x.device())?))
    } else {
        None
    };
    Ok(Some((Tensor::from_vec(y, x.dims(), x.device())?, statistics)))
}

/// What [`forward`] made of the normalized input, with its bits.
pub(crate) fn scaled(normalized: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
    let y = read([normalized, weight, bias.unwrap_or(weight)], |[normalized, weight, b]| {
        assert!(normalized.len().is_multiple_of(weight.len()));
        let bias = if bias.is_some() { b } else { &[] };
        // SAFETY: by the lengths above each row of y is written.
        unsafe { scratch::written(normalized.len(), |y| scale_rows(normalized, weight, bias, y)) }
    });
    y.map(|y| Tensor::from_vec(y, normalized.dims(), normalized.device())).transpose()
}

/// The gradient of the norm's input.
pub(crate) fn input_gradient(
    g: &Tensor,
    normalized: &Tensor,
    reciprocal_std: &Tensor,
    weight: &Tensor,
    centred: bool,
) -> Result<Option<Tensor>> {
    let dx = read([g, normalized, reciprocal_std, weight], |[g, normalized, reciprocal_std, weight]| {
        assert!(g.len() == normalized.len() && g.len() == reciprocal_std.len() * weight.len());
        // SAFETY: by the lengths above each row of dx is written.
        unsafe { scratch::written(g.len(), |dx| backward_rows(g, normalized, reciprocal_std, weight, centred, dx)) }
    });
    dx.map(|dx| Tensor::from_vec(dx, g.dims(), g.device())).transpose()
}

/// The gradient of the norm's weight.
pub(crate) fn weight_gradient(g: &Tensor, normalized: &Tensor) -> Result<Option<Tensor>> {
    let width = g.dims().last().copied().unwrap_or(0);
    if width == 0 {
        return Ok(None);
    }
    let dw = read([g, normalized], |[g, normalized]| {
        let mut dw = vec![0.0; width];
        weight_rows(g, normalized, &mut dw);
        dw
    });
    dw.map(|dw| Tensor::from_vec(dw, width, g.device())).transpose()
}
