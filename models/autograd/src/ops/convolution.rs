//! What a convolution computes, and its two transposes. Ops are made of these three.

use candle_core::{Result, Tensor, bail};

use super::linear::batched;
use super::patches::{gather, scatter};
use crate::convolution::Convolution;
use crate::kernels::{convolution as fast, joined};
use crate::map::Placed;
use crate::{Activation, Epilogue, ScaleShift, Tape, Value, slices};

impl Convolution {
    pub(super) fn new(tape: &Tape, placed: Placed, channels: usize, weight: &[usize], groups: usize) -> Result<Self> {
        let [kh, kw] = placed.window.kernel;
        let out = weight.first().copied().unwrap_or(0);
        let divides =
            groups > 0 && channels > 0 && out > 0 && channels.is_multiple_of(groups) && out.is_multiple_of(groups);
        if !divides || *weight != [out, channels / groups, kh, kw] {
            bail!(
                "a convolution of {channels} channels by a kernel of {kh} x {kw} in {groups} groups takes a weight \
                 [out, {channels} / {groups}, {kh}, {kw}], got {weight:?}"
            );
        }
        let options = tape.options();
        Ok(Self { placed, channels, out, groups, precision: options.precision, parallel: options.parallel_ops })
    }

    fn taps(&self) -> usize {
        self.placed.window.taps()
    }

    /// `activation((y + bias) scale + shift)`: `x` `[pixels, channels]`; gives `[places, out]`, and what its backward pass needs if
    /// `slope` asks for it.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        weight: &Value,
        epilogue: Epilogue<'_>,
        slope: bool,
    ) -> Result<(Tensor, Slope)> {
        if let Some((y, derivative)) = fast::forward(self, x, weight, epilogue, slope)? {
            let slope = match derivative {
                Some(derivative) => Slope::Derivative(derivative),
                None if slope => Slope::of_output(epilogue.activation, &y),
                None => Slope::One,
            };
            return Ok((y, slope));
        }
        let columns = self.columns(x)?; // [groups, places, taps * channels]
        let y = batched(&columns, &self.matrix(weight)?.t()?, self.precision, self.parallel)?; // [groups, places, out]
        let mut y = y.transpose(0, 1)?.reshape((self.placed.output.rows(), self.out))?; // [places, out]
        if let Some(bias) = epilogue.bias {
            y = y.broadcast_add(bias.tensor())?;
        }
        if let Some(ScaleShift { scale, shift }) = epilogue.norm {
            y = y.broadcast_mul(scale)?.broadcast_add(shift)?;
        }
        match epilogue.activation {
            Activation::Identity => Ok((y, Slope::One)),
            activation => Ok((activation.forward(&y)?, Slope::At(activation, y))),
        }
    }

    /// The gradient of x, `[pixels, channels]`, plus `bias` `[channels]`, from `g` `[places, out]`: what a transposed convolution is.
    pub(super) fn input_gradient(&self, g: &Tensor, weight: &Value, bias: Option<&Tensor>) -> Result<Tensor> {
        if let Some(dx) = fast::input_gradient(self, g, weight, bias)? {
            return Ok(dx);
        }
        let columns = batched(&self.by_group(g)?, &self.matrix(weight)?, self.precision, self.parallel)?;
        let (places, width) = (self.placed.output.rows(), self.channels / self.groups);
        let columns = columns.reshape((self.groups, places, self.taps(), width))?.permute((1, 2, 0, 3))?;
        let dx = scatter(&columns.contiguous()?.reshape((places, self.taps(), self.channels))?, &self.placed)?;
        match bias {
            Some(bias) => dx.broadcast_add(bias),
            None => Ok(dx),
        }
    }

    /// The gradient of the weight, `[out, channels / groups, kh, kw]`, from `g` `[places, out]` and `x` `[pixels, channels]`.
    pub(super) fn weight_gradient(&self, g: &Tensor, x: &Tensor) -> Result<Tensor> {
        if let Some(dw) = fast::weight_gradient(self, g, x)? {
            return Ok(dw);
        }
        let dw = batched(&self.by_group(g)?.t()?, &self.columns(x)?, self.precision, self.parallel)?;
        let ([kh, kw], width) = (self.placed.window.kernel, self.channels / self.groups);
        let dw = dw.reshape((self.groups, self.out / self.groups, self.taps(), width))?.transpose(2, 3)?;
        dw.contiguous()?.reshape((self.out, width, kh, kw))
    }

    /// The patches of each group, `[groups, places, taps * channels]`.
    fn columns(&self, x: &Tensor) -> Result<Tensor> {
        let width = self.channels / self.groups;
        let patches = gather(&x.contiguous()?, &self.placed, 0.0)?; // [places, taps, channels]
        let places = self.placed.output.rows();
        let by_group = patches.reshape((places, self.taps(), self.groups, width))?.permute((2, 0, 1, 3))?;
        by_group.contiguous()?.reshape((self.groups, places, self.taps() * width))
    }

    /// `[places, out]` as `[groups, places, out]`.
    fn by_group(&self, g: &Tensor) -> Result<Tensor> {
        let places = self.placed.output.rows();
        g.reshape((places, self.groups, self.out / self.groups))?.transpose(0, 1)?.contiguous()
    }

    /// The weight as `[groups, out, taps * channels]`.
    fn matrix(&self, weight: &Value) -> Result<Tensor> {
        let (out, width) = (self.out / self.groups, self.channels / self.groups);
        let by_tap = weight.tensor().reshape((self.groups, out, width, self.taps()))?.transpose(2, 3)?;
        by_tap.contiguous()?.reshape((self.groups, out, self.taps() * width))
    }
}

/// What the backward pass knows of an activation.
pub(super) enum Slope {
    /// There is none.
    One,
    /// Its derivative at each element.
    Derivative(Tensor),
    /// Its argument, or its value where that tells the derivative as well.
    At(Activation, Tensor),
}

impl Slope {
    fn of_output(activation: Activation, y: &Tensor) -> Self {
        match activation {
            Activation::Identity => Self::One,
            _ => Self::At(activation, y.clone()),
        }
    }

    /// `g` times the derivative.
    pub(super) fn chain(self, g: Tensor, parallel: bool) -> Result<Tensor> {
        match self {
            Self::One | Self::At(Activation::Identity, _) => Ok(g),
            Self::Derivative(slope) => {
                match slices::read([&g, &slope], |[g, slope]| joined::product(g, slope, parallel)) {
                    Some(product) => Tensor::from_vec(product, g.dims(), g.device()),
                    None => g * slope,
                }
            }
            Self::At(activation, x) => {
                match slices::read([&x, &g], |[x, g]| joined::chain(activation, x, g, parallel)) {
                    Some(chained) => Tensor::from_vec(chained, g.dims(), g.device()),
                    None => activation.backward(&x, &g),
                }
            }
        }
    }
}
