//! Depthwise convolutions: each channel by a kernel of its own. Lanes run along the channels; a row of pixels at a time.

use std::mem::MaybeUninit;

use candle_core::{Result, Tensor};

use super::math::mul_add;
use super::{elementwise, multiversion, pieces, scratch};
use crate::map::Placed;
use crate::slices::read;
use crate::{Activation, Map};

/// Taps and the pixels under them.
type Taps = Vec<(usize, usize)>;

/// One row of pixels of a result.
struct Row<'a> {
    down: &'a Taps,
    across: &'a [Taps],
    image: &'a [f32],
    width: usize,
    channels: usize,
    /// `[taps, channels]`.
    weight: &'a [f32],
    kernel_width: usize,
}

/// `N` channels of a pixel, from `start` on.
#[inline(always)]
fn block<const FMA: bool, const N: usize>(row: &Row<'_>, across: &Taps, start: usize, out: &mut [MaybeUninit<f32>]) {
    let mut sums = [0f32; N];
    for (ty, y) in row.down {
        for (tx, x) in across {
            let x = &row.image[(y * row.width + x) * row.channels + start..][..N];
            let weight = &row.weight[(ty * row.kernel_width + tx) * row.channels + start..][..N];
            for ((sum, x), weight) in sums.iter_mut().zip(x).zip(weight) {
                *sum = mul_add::<FMA>(*x, *weight, *sum);
            }
        }
    }
    for (out, sum) in out[start..start + N].iter_mut().zip(sums) {
        out.write(sum);
    }
}

#[inline(always)]
fn row_body<const FMA: bool>(row: &Row<'_>, out: &mut [MaybeUninit<f32>]) {
    for (across, out) in row.across.iter().zip(out.chunks_exact_mut(row.channels)) {
        let mut start = 0;
        while start + 64 <= row.channels {
            block::<FMA, 64>(row, across, start, out);
            start += 64;
        }
        while start + 16 <= row.channels {
            block::<FMA, 16>(row, across, start, out);
            start += 16;
        }
        while start + 8 <= row.channels {
            block::<FMA, 8>(row, across, start, out);
            start += 8;
        }
        while start < row.channels {
            block::<FMA, 1>(row, across, start, out);
            start += 1;
        }
    }
}

multiversion! {
    fn write_row(row: &Row<'_>, out: &mut [MaybeUninit<f32>]) = row_body
}

/// What comes after the sums: `activation(sum scale + shift)`. What is absent is empty.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    pub(super) scale: &'a [f32],
    pub(super) shift: &'a [f32],
    pub(super) activation: Activation,
}

impl Finish<'_> {
    pub(super) const NONE: Finish<'static> = Finish { scale: &[], shift: &[], activation: Activation::Identity };

    /// Of rows of channels; the activation's derivative goes to `slope`, unless it is empty.
    fn apply(&self, rows: &mut [f32], slope: &mut [f32]) {
        if !self.scale.is_empty() {
            scale_rows(rows, self.scale);
        }
        if !self.shift.is_empty() {
            shift_rows(rows, self.shift);
        }
        if slope.is_empty() {
            elementwise::activate(self.activation, rows);
        } else {
            elementwise::activate_with_slope(self.activation, rows, slope);
        }
    }
}

#[inline(always)]
fn scale_body<const FMA: bool>(rows: &mut [f32], scale: &[f32]) {
    for row in rows.chunks_exact_mut(scale.len()) {
        row.iter_mut().zip(scale).for_each(|(x, scale)| *x *= scale);
    }
}

#[inline(always)]
fn shift_body<const FMA: bool>(rows: &mut [f32], shift: &[f32]) {
    for row in rows.chunks_exact_mut(shift.len()) {
        row.iter_mut().zip(shift).for_each(|(x, shift)| *x += shift);
    }
}

multiversion! { fn scale_rows(rows: &mut [f32], scale: &[f32]) = scale_body }
multiversion! { fn shift_rows(rows: &mut [f32], shift: &[f32]) = shift_body }

/// The sums over the taps, a map of `output`, and the activation's derivative if `records`.
#[allow(clippy::too_many_arguments)]
fn sums(
    source: (Map, &[f32]),
    output: Map,
    [down, across]: [&[Taps]; 2],
    weight: &[f32],
    kernel_width: usize,
    finish: Finish<'_>,
    records: bool,
    parallel: bool,
) -> (Vec<f32>, Vec<f32>) {
    let (input, x) = source;
    let channels = x.len() / input.rows().max(1);
    let image = input.pixels() * channels;
    let line = output.width * channels;
    let one = |i: usize, out: &mut [MaybeUninit<f32>], slope: &mut [f32]| {
        let image = &x[i / output.height * image..][..image];
        let down = &down[i % output.height];
        write_row(&Row { down, across, image, width: input.width, channels, weight, kernel_width }, out);
        // SAFETY: the row was just written whole.
        finish.apply(unsafe { pieces::initialized(out) }, slope);
    };
    let len = output.rows() * channels;
    if !records {
        // SAFETY: each row is written.
        return (unsafe { pieces::written(len, line, parallel, |i, out| one(i, out, &mut [])) }, Vec::new());
    }
    let mut slope = vec![0f32; len];
    // SAFETY: each row is written.
    let y = unsafe {
        scratch::written(len, |y| {
            let mut lines: Vec<_> = y.chunks_mut(line.max(1)).zip(slope.chunks_mut(line.max(1))).collect();
            pieces::each(&mut lines, 1, parallel, |i, line| {
                let (out, slope) = &mut line[0];
                one(i, out, slope);
            });
        })
    };
    (y, slope)
}

/// The result `[places, channels]` and, if `records`, the activation's derivative. `weight` `[taps, channels]`. `None` where a tensor
/// is not contiguous `f32` on the CPU.
pub(super) fn forward(
    x: &Tensor,
    weight: &Tensor,
    placed: &Placed,
    finish: Finish<'_>,
    records: bool,
    parallel: bool,
) -> Result<Option<(Tensor, Option<Tensor>)>> {
    let (down, across) = (placed.axis(0).by_place(), placed.axis(1).by_place());
    let found = read([x, weight], |[data, weight]| {
        let along = [down.as_slice(), &across];
        let width = placed.window.kernel[1];
        sums((placed.input, data), placed.output, along, weight, width, finish, records, parallel)
    });
    let Some((y, slope)) = found else { return Ok(None) };
    let dims = (placed.output.rows(), x.dims2()?.1);
    let slope = if records { Some(Tensor::from_vec(slope, dims, x.device())?) } else { None };
    Ok(Some((Tensor::from_vec(y, dims, x.device())?, slope)))
}

/// The gradient of the input, `[pixels, channels]`, plus `bias`.
pub(super) fn input_gradient(
    g: &Tensor,
    weight: &Tensor,
    placed: &Placed,
    bias: &[f32],
    parallel: bool,
) -> Result<Option<Tensor>> {
    let (down, across) = (placed.axis(0).by_pixel(), placed.axis(1).by_pixel());
    let found = read([g, weight], |[data, weight]| {
        let along = [down.as_slice(), &across];
        let finish = Finish { shift: bias, ..Finish::NONE };
        sums((placed.output, data), placed.input, along, weight, placed.window.kernel[1], finish, false, parallel).0
    });
    found.map(|dx| Tensor::from_vec(dx, (placed.input.rows(), g.dims2()?.1), g.device())).transpose()
}

/// One row of places' part in the weight's gradient.
struct Part<'a> {
    g: &'a [f32],
    x: &'a [f32],
    channels: usize,
    places: usize,
    /// From a place's pixel to the next's.
    stride: usize,
}

#[inline(always)]
fn dot<const FMA: bool, const N: usize>(part: &Part<'_>, start: usize, out: &mut [f32]) {
    let mut sums = [0f32; N];
    for place in 0..part.places {
        let g = &part.g[place * part.channels + start..][..N];
        let x = &part.x[place * part.stride * part.channels + start..][..N];
        for ((sum, g), x) in sums.iter_mut().zip(g).zip(x) {
            *sum = mul_add::<FMA>(*g, *x, *sum);
        }
    }
    out[start..start + N].iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
}

#[inline(always)]
fn dots_body<const FMA: bool>(part: &Part<'_>, out: &mut [f32]) {
    let mut start = 0;
    while start + 64 <= part.channels {
        dot::<FMA, 64>(part, start, out);
        start += 64;
    }
    while start + 16 <= part.channels {
        dot::<FMA, 16>(part, start, out);
        start += 16;
    }
    while start < part.channels {
        dot::<FMA, 1>(part, start, out);
        start += 1;
    }
}

multiversion! {
    /// Adds the sum over the places of `g x`, channel by channel.
    fn add_dots(part: &Part<'_>, out: &mut [f32]) = dots_body
}

/// The gradient of the weight, `[taps, channels]`: image by image in `f32`, over the images in `f64`.
pub(super) fn weight_gradient(g: &Tensor, x: &Tensor, placed: &Placed, parallel: bool) -> Result<Option<Tensor>> {
    let channels = x.dims2()?.1;
    let (taps, kernel_width) = (placed.window.taps(), placed.window.kernel[1]);
    let (input, output, axis) = (placed.input, placed.output, placed.axis(1));
    let down = placed.axis(0).by_place();
    // The places of a row that a tap falls on the map at: the first, its pixel, and their number.
    let runs: Vec<(usize, usize, usize)> = (0..kernel_width)
        .map(|tap| {
            let places = || (0..output.width).filter_map(|place| Some((place, axis.pixel(place, tap)?)));
            places().next().map_or((0, 0, 0), |(place, pixel)| (place, pixel, places().count()))
        })
        .collect();
    let found = read([g, x], |[g, x]| {
        let images = pieces::collect(input.images, parallel, |image| {
            let mut dw = vec![0f32; taps * channels];
            let x = &x[image * input.pixels() * channels..][..input.pixels() * channels];
            for (oy, down) in down.iter().enumerate() {
                let g = &g[(image * output.height + oy) * output.width * channels..][..output.width * channels];
                for (ty, y) in down {
                    for (tx, (place, pixel, places)) in runs.iter().enumerate() {
                        let part = Part {
                            g: &g[place * channels..],
                            x: &x[(y * input.width + pixel) * channels..],
                            channels,
                            places: *places,
                            stride: axis.stride,
                        };
                        add_dots(&part, &mut dw[(ty * kernel_width + tx) * channels..][..channels]);
                    }
                }
            }
            dw
        });
        let mut sum = vec![0f64; taps * channels];
        for dw in images {
            sum.iter_mut().zip(dw).for_each(|(sum, x)| *sum += f64::from(x));
        }
        sum.into_iter().map(|x| x as f32).collect::<Vec<_>>()
    });
    found.map(|dw| Tensor::from_vec(dw, (taps, channels), g.device())).transpose()
}
