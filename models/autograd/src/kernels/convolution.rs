//! Convolutions as products over gathered rows, depthwise ones by their own loops. Each gives `None` for other groups, and where a
//! tensor is not contiguous `f32` on the CPU.

use candle_core::{Result, Tensor};

use super::depthwise::{self, Finish};
use super::gemm::{
    Along, Direction, Left, PackedView, Patches, Product, Shape, Strided, Taps, by_tap, scratch_len, to_pairs,
};
use super::{linear, scratch};
use crate::convolution::Convolution;
use crate::map::Axis;
use crate::slices::{is_f32_slice, read};
use crate::{Epilogue, Value};

impl Convolution {
    /// Whether it has a fast form for `x` or its gradient.
    fn is_fast(&self, x: &Tensor) -> bool {
        (self.groups == 1 || self.is_depthwise()) && is_f32_slice(x)
    }

    /// The patches of `x` `[pixels, channels]` in lanes that are `pairs`, or floats.
    fn patches<'a>(&self, data: &'a [f32], pairs: bool) -> Patches<'a> {
        let channels = if pairs { self.channels / 2 } else { self.channels };
        let along = [0, 1].map(|i| {
            let axis = self.placed.axis(i);
            Along {
                taps: axis.kernel,
                stride: axis.stride as isize,
                step: axis.dilation as isize,
                offset: -(axis.before as isize),
            }
        });
        let (source, places) = (self.placed.input, self.placed.output.size());
        Patches { data, source, channels, padded: channels, pairs, places, along }
    }

    /// Runs `f` with the weight as B of `x W^T` or `g W`, its inputs tap by tap.
    fn packed<R>(
        &self,
        weight: &Value,
        direction: Direction,
        f: impl FnOnce(PackedView<'_>) -> R,
    ) -> Result<Option<R>> {
        if let Some(parameter) = weight.parameter() {
            return Ok(parameter.packed(self.precision)?.map(|packed| f(packed.view(direction))));
        }
        let Some(Shape { out, width, taps }) = Shape::of(weight.dims()) else { return Ok(None) };
        Ok(read([&weight.tensor().contiguous()?], |[data]| {
            by_tap(data, width, taps, |data| {
                let rows = Strided::rows(data, width);
                let (b, k, n) = match direction {
                    Direction::Forward => (rows.transposed(), width, out),
                    Direction::Backward => (rows, out, width),
                };
                scratch::with(scratch_len(k, n, self.precision), |lanes| {
                    f(PackedView::pack(b, k, n, self.precision, lanes))
                })
            })
        }))
    }

    /// Runs `f` with these taps of the weight as B of a product of gradients: tap after tap the outputs along k, padded to eights,
    /// and a column for each channel.
    fn packed_taps<R>(&self, weight: &Value, taps: Taps, f: impl FnOnce(PackedView<'_>) -> R) -> Result<Option<R>> {
        if let Some(parameter) = weight.parameter()
            && let Some(packed) = parameter.packed(self.precision)?
            && packed.turns_taps()
        {
            return Ok(Some(f(packed.view_of_taps(taps))));
        }
        let (channels, all) = (self.channels, self.placed.window.taps());
        let k = taps.len() * self.padded_out();
        Ok(read([&weight.tensor().contiguous()?], |[weight]| {
            scratch::with(k * channels, |rows| {
                rows.fill(0.0);
                for (tap, rows) in rows.chunks_exact_mut(self.padded_out() * channels).enumerate() {
                    let tap = taps.of_weight(tap);
                    for (row, weight) in rows.chunks_exact_mut(channels).zip(weight.chunks_exact(channels * all)) {
                        row.iter_mut().zip(weight[tap..].iter().step_by(all)).for_each(|(x, w)| *x = *w);
                    }
                }
                scratch::with(scratch_len(k, channels, self.precision), |lanes| {
                    f(PackedView::pack(Strided::rows(rows, channels), k, channels, self.precision, lanes))
                })
            })
        }))
    }

    /// Outputs of a tap in a product of gradients.
    fn padded_out(&self) -> usize {
        self.out.next_multiple_of(8)
    }

    /// A depthwise weight as `[taps, channels]`, made once for each version of a parameter.
    fn by_tap(&self, weight: &Value) -> Result<Tensor> {
        let make = || weight.tensor().reshape((self.channels, self.placed.window.taps()))?.t()?.contiguous();
        match weight.parameter() {
            Some(parameter) => parameter.derived(vec![parameter.version()], make),
            None => make(),
        }
    }
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_vec1()
}

/// Scale and shift of what follows, empty where there is none.
fn line(epilogue: &Epilogue<'_>) -> Result<(Vec<f32>, Vec<f32>)> {
    let bias = epilogue.bias.map(|bias| floats(bias.tensor())).transpose()?;
    let Some(norm) = epilogue.norm else { return Ok((Vec::new(), bias.unwrap_or_default())) };
    let (scale, mut shift) = (floats(&norm.scale)?, floats(&norm.shift)?);
    for ((shift, scale), bias) in shift.iter_mut().zip(&scale).zip(bias.unwrap_or_default()) {
        *shift += bias * scale;
    }
    Ok((scale, shift))
}

/// `activation((y + bias) scale + shift)`, `[places, out]`, and the activation's derivative if `slope` asks for it and the value does
/// not tell.
pub(crate) fn forward(
    convolution: &Convolution,
    x: &Tensor,
    weight: &Value,
    epilogue: Epilogue<'_>,
    slope: bool,
) -> Result<Option<(Tensor, Option<Tensor>)>> {
    if !convolution.is_fast(x) {
        return Ok(None);
    }
    let activation = epilogue.activation;
    let records = slope && !activation.keeps_slope();
    let (scale, shift) = line(&epilogue)?;
    let Convolution { placed, parallel, precision, out, .. } = *convolution;
    if convolution.is_depthwise() {
        let finish = Finish { scale: &scale, shift: &shift, activation };
        return depthwise::forward(x, &convolution.by_tap(weight)?, &placed, finish, records, parallel);
    }
    let m = placed.output.rows();
    let result = read([x], |[x]| {
        convolution.packed(weight, Direction::Forward, |b| {
            let pairs = match convolution.channels % 2 {
                0 if !placed.window.is_pointwise() => to_pairs(x, precision, parallel),
                _ => None,
            };
            let a = match &pairs {
                _ if placed.window.is_pointwise() => Left::Matrix(Strided::rows(x, convolution.channels)),
                Some(pairs) => Left::Patches(convolution.patches(pairs, true)),
                None => Left::Patches(convolution.patches(x, false)),
            };
            let normed = !scale.is_empty();
            let product = Product {
                bias: (!normed && !shift.is_empty()).then_some(shift.as_slice()),
                norm: normed.then_some((&scale, &shift)),
                activation,
                parallel,
                ..Product::new(m, a, b)
            };
            product.compute_and_slope(records)
        })
    });
    let Some((y, slope)) = result.transpose()?.flatten() else { return Ok(None) };
    let tensor = |data| Tensor::from_vec(data, (m, out), x.device());
    Ok(Some((tensor(y)?, slope.map(tensor).transpose()?)))
}

/// The pixels `p + stride q` of one direction: where the taps that fall on them lie.
struct Phase {
    /// Number of these pixels.
    pixels: usize,
    along: Along,
    /// The weight's tap that comes first, and the step to the next.
    first: usize,
    step: isize,
}

impl Phase {
    fn of(axis: &Axis, p: usize) -> Self {
        let divides = |tap: &usize| (p + axis.before).abs_diff(tap * axis.dilation).is_multiple_of(axis.stride);
        let taps: Vec<usize> = (0..axis.kernel).filter(divides).collect();
        // From the last tap to the first, so that places ascend.
        let first = taps.last().copied().unwrap_or(0);
        let apart = taps.first_chunk().map_or(axis.stride, |[a, b]| b - a);
        let offset = (p as isize + axis.before as isize - (first * axis.dilation) as isize) / axis.stride as isize;
        let along = Along { taps: taps.len(), stride: 1, step: (apart * axis.dilation / axis.stride) as isize, offset };
        let pixels = axis.input.saturating_sub(p).div_ceil(axis.stride);
        Self { pixels, along, first, step: -(apart as isize) }
    }
}

/// The gradient of x, `[pixels, channels]`, plus `bias`, from `g` `[places, out]`. Pixels that the same taps fall on, one in `stride`
/// each way, are the rows of one product.
pub(crate) fn input_gradient(
    convolution: &Convolution,
    g: &Tensor,
    weight: &Value,
    bias: Option<&Tensor>,
) -> Result<Option<Tensor>> {
    if !convolution.is_fast(g) {
        return Ok(None);
    }
    let Convolution { placed, parallel, precision, out, channels, .. } = *convolution;
    let bias = bias.map(floats).transpose()?;
    if convolution.is_depthwise() {
        let bias = bias.unwrap_or_default();
        return depthwise::input_gradient(g, &convolution.by_tap(weight)?, &placed, &bias, parallel);
    }
    let rows = placed.input.rows();
    let dx = read([g], |[g]| {
        if placed.window.is_pointwise() {
            return convolution.packed(weight, Direction::Backward, |b| {
                let product = Product::new(rows, Strided::rows(g, out), b);
                Product { bias: bias.as_deref(), parallel, ..product }.compute()
            });
        }
        let pairs = if out % 2 == 0 { to_pairs(g, precision, parallel) } else { None };
        let [sy, sx] = placed.window.stride;
        let mut dx = vec![0f32; if sy * sx == 1 { 0 } else { rows * channels }];
        for (py, px) in (0..sy).flat_map(|py| (0..sx).map(move |px| (py, px))) {
            let [down, across] = [(0, py), (1, px)].map(|(i, p)| Phase::of(&placed.axis(i), p));
            let taps = Taps {
                first: [down.first, across.first],
                step: [down.step, across.step],
                count: [down.along.taps, across.along.taps],
                kernel_width: placed.window.kernel[1],
            };
            let (unit, data) = pairs.as_ref().map_or((1, g), |pairs| (2, pairs.as_slice()));
            let patches = Patches {
                data,
                source: placed.output,
                channels: out / unit,
                padded: convolution.padded_out() / unit,
                pairs: pairs.is_some(),
                places: [down.pixels, across.pixels],
                along: [down.along, across.along],
            };
            let part = match taps.len() {
                0 => bias.as_ref().map_or_else(|| vec![0.0; channels], Vec::clone).repeat(patches.rows()),
                _ => {
                    let product = convolution.packed_taps(weight, taps, |b| {
                        let product = Product::new(patches.rows(), Left::Patches(patches), b);
                        Product { bias: bias.as_deref(), parallel, ..product }.compute()
                    });
                    let Some(part) = product? else { return Ok(None) };
                    part
                }
            };
            if sy * sx == 1 {
                return Ok(Some(part));
            }
            let [height, width] = patches.places;
            for (row, part) in part.chunks_exact(channels).enumerate() {
                let (image, qy, qx) = (row / (height * width), row / width % height, row % width);
                let pixel = (image * placed.input.height + py + qy * sy) * placed.input.width + px + qx * sx;
                dx[pixel * channels..][..channels].copy_from_slice(part);
            }
        }
        Ok(Some(dx))
    });
    let Some(dx) = dx.transpose()?.flatten() else { return Ok(None) };
    Tensor::from_vec(dx, (rows, channels), g.device()).map(Some)
}

/// The gradient of the weight, `[out, channels / groups, kh, kw]`.
pub(crate) fn weight_gradient(convolution: &Convolution, g: &Tensor, x: &Tensor) -> Result<Option<Tensor>> {
    if !convolution.is_fast(g) || !is_f32_slice(x) {
        return Ok(None);
    }
    let Convolution { placed, parallel, precision, out, channels, .. } = *convolution;
    let ([kh, kw], places) = (placed.window.kernel, placed.output.rows());
    if convolution.is_depthwise() {
        let dw = depthwise::weight_gradient(g, x, &placed, parallel)?; // [taps, channels]
        return dw.map(|dw| dw.t()?.contiguous()?.reshape((channels, 1, kh, kw))).transpose();
    }
    if placed.window.is_pointwise() {
        let dw = linear::weight_gradient(g, x, 1.0, precision, parallel)?;
        return dw.map(|dw| dw.reshape((out, channels, 1, 1))).transpose();
    }
    let width = kh * kw * channels;
    let dw = read([g, x], |[g, x]| {
        let product = scratch::with(scratch_len(places, out, precision), |lanes| {
            let b = PackedView::pack_by_all(Strided::rows(g, out), places, out, precision, lanes, parallel);
            let a = Left::PatchesTransposed(convolution.patches(x, false));
            Product { parallel, ..Product::new(width, a, b) }.compute() // [taps * channels, out]
        });
        let mut dw = vec![0f32; width * out];
        for (i, row) in product.chunks_exact(out).enumerate() {
            let (tap, channel) = (i / channels, i % channels);
            let column = dw[channel * kh * kw + tap..].iter_mut().step_by(width);
            column.zip(row).for_each(|(dw, x)| *dw = *x);
        }
        dw
    });
    dw.map(|dw| Tensor::from_vec(dw, (out, channels, kh, kw), g.device())).transpose()
}
