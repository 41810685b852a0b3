//! Convolutions, plain and transposed.

use candle_core::{Result, Tensor, bail};

use super::elementwise::unbroadcast;
use crate::convolution::Convolution;
use crate::kernels::joined as fast;
use crate::map::Placed;
use crate::{Epilogue, Map, Tape, Value, Window, slices};

impl Tape {
    /// Cross-correlation, as torch's `conv2d`: `x` `[pixels, channels]`, `weight` `[out, channels / groups, kh, kw]`, `bias` `[out]`;
    /// gives `[places, out]` and the places as a map. Group `i` of the outputs sees group `i` of the channels.
    pub fn conv2d(
        &self,
        x: &Value,
        map: Map,
        weight: &Value,
        bias: Option<&Value>,
        window: &Window,
        groups: usize,
    ) -> Result<(Value, Map)> {
        self.conv2d_epilogue(x, map, weight, window, groups, Epilogue { bias, ..Epilogue::default() })
    }

    /// [`conv2d`](Self::conv2d), a frozen norm and an activation in one pass.
    pub fn conv2d_epilogue(
        &self,
        x: &Value,
        map: Map,
        weight: &Value,
        window: &Window,
        groups: usize,
        epilogue: Epilogue<'_>,
    ) -> Result<(Value, Map)> {
        let convolution = Convolution::new(self, window.place(map)?, map.channels(x.dims())?, weight.dims(), groups)?;
        let out = convolution.out;
        let bias = epilogue.bias;
        if bias.is_some_and(|bias| bias.dims() != [out]) {
            bail!("the bias of a convolution {:?} has shape {:?}", weight.dims(), bias.map(Value::dims));
        }
        if let Some(norm) = epilogue.norm
            && (norm.scale.dims() != [out] || norm.shift.dims() != [out])
        {
            bail!(
                "a convolution {:?} takes a scale and a shift of [{out}], got {:?} and {:?}",
                weight.dims(),
                norm.scale.dims(),
                norm.shift.dims()
            );
        }
        let x_rows = x.tensor().contiguous()?; // [pixels, channels]
        let inputs: Vec<&Value> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
        let records = self.options().recording && inputs.iter().any(|input| input.requires_grad());
        let (y, slope) = convolution.forward(&x_rows, weight, epilogue, records)?; // [places, out]

        let saved = weight.requires_grad().then(|| x.kept()).transpose()?;
        let kept = x.requires_grad().then(|| weight.clone());
        let scale = epilogue.norm.map(|norm| norm.scale.clone());
        let y = self.record(y, &inputs, move |g, vjp| {
            let mut g = slope.chain(g.contiguous()?, convolution.parallel)?; // [places, out]
            if let Some(scale) = &scale {
                g = scale_rows(&g, scale, convolution.parallel)?;
            }
            if vjp.wants(2) {
                vjp.give(2, column_sums(&g, convolution.parallel)?)?;
            }
            if let Some(x) = &saved {
                vjp.give(1, convolution.weight_gradient(&g, &x.tensor()?)?)?;
            }
            if let Some(weight) = &kept {
                vjp.give(0, convolution.input_gradient(&g, weight, None)?)?;
            }
            Ok(())
        });
        Ok((y, convolution.placed.output))
    }

    /// The transpose of a convolution, as torch's `conv_transpose2d`: `x` `[pixels, channels]`, `weight`
    /// `[channels, out / groups, kh, kw]`, `bias` `[out]`. A side of `n` pixels becomes one of
    /// `(n - 1) stride - padding + dilation (kernel - 1) + output_padding + 1`.
    #[allow(clippy::too_many_arguments)] // those of torch
    pub fn conv_transpose2d(
        &self,
        x: &Value,
        map: Map,
        weight: &Value,
        bias: Option<&Value>,
        window: &Window,
        output_padding: [usize; 2],
        groups: usize,
    ) -> Result<(Value, Map)> {
        let channels = map.channels(x.dims())?;
        let output = transposed_size(map, window, output_padding)?;
        let out = weight.dims().get(1).copied().unwrap_or(0) * groups;
        // The convolution that this one is the transpose of goes the other way.
        let placed = Placed { window: *window, input: output, output: map };
        if weight.dims().first() != Some(&channels) {
            bail!(
                "a transposed convolution of {channels} channels takes a weight [{channels}, out / groups, kh, kw], got {:?}",
                weight.dims()
            );
        }
        let convolution = Convolution::new(self, placed, out, weight.dims(), groups)?;
        if bias.is_some_and(|bias| bias.dims() != [out]) {
            bail!("the bias of a transposed convolution {:?} has shape {:?}", weight.dims(), bias.map(Value::dims));
        }
        let x_rows = x.tensor().contiguous()?; // [pixels, channels]
        let y = convolution.input_gradient(&x_rows, weight, bias.map(Value::tensor))?; // [output's pixels, out]

        let saved = weight.requires_grad().then_some(x_rows);
        let kept = x.requires_grad().then(|| weight.clone());
        let inputs: Vec<&Value> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
        let y = self.record(y, &inputs, move |g, vjp| {
            let g = g.contiguous()?; // [output's pixels, out]
            if vjp.wants(2) {
                vjp.give(2, column_sums(&g, convolution.parallel)?)?;
            }
            if let Some(x) = &saved {
                vjp.give(1, convolution.weight_gradient(x, &g)?)?;
            }
            if let Some(weight) = &kept {
                vjp.give(0, convolution.forward(&g, weight, Epilogue::default(), false)?.0)?;
            }
            Ok(())
        });
        Ok((y, output))
    }
}

/// Each row of `g` `[rows, channels]` times `scale`.
fn scale_rows(g: &Tensor, scale: &Tensor, parallel: bool) -> Result<Tensor> {
    match slices::read([g, scale], |[g, scale]| fast::scale_rows(g, scale, parallel)) {
        Some(scaled) => Tensor::from_vec(scaled, g.dims(), g.device()),
        None => g.broadcast_mul(scale),
    }
}

/// The sum of the rows of `g` `[rows, channels]`.
fn column_sums(g: &Tensor, parallel: bool) -> Result<Tensor> {
    let width = g.dims2()?.1;
    match slices::read([g], |[g]| fast::column_sums(g, width, parallel)) {
        Some(sums) => Tensor::from_vec(sums, width, g.device()),
        None => unbroadcast(g.clone(), &[width]),
    }
}

fn transposed_size(map: Map, window: &Window, output_padding: [usize; 2]) -> Result<Map> {
    let mut size = [0; 2];
    for (axis, out) in size.iter_mut().enumerate() {
        let (stride, dilation, extra) = (window.stride[axis], window.dilation[axis], output_padding[axis]);
        if map.size()[axis] == 0 || window.kernel[axis] == 0 || stride == 0 || dilation == 0 {
            bail!(
                "a transposed convolution takes a map of at least one pixel and a window of at least 1, got {map:?}, {window:?}"
            );
        }
        if extra >= stride.max(dilation) {
            bail!("an output padding of {extra} must be less than the stride {stride} or the dilation {dilation}");
        }
        let full = (map.size()[axis] - 1) * stride + dilation * (window.kernel[axis] - 1) + extra + 1;
        *out = full.saturating_sub(window.padding[axis].iter().sum());
        if *out == 0 {
            bail!("a padding of {:?} leaves nothing of a transposed convolution's {full} pixels", window.padding[axis]);
        }
    }
    Ok(map.resized(size))
}
