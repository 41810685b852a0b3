//! What follows a convolution in the same pass.

use candle_core::{Result, Tensor};

use crate::{Activation, Value};

/// What follows a convolution in the same pass: `activation((y + bias) scale + shift)`. Scale and shift get no gradient.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `[out]`.
    pub bias: Option<&'a Value>,
    /// A frozen norm of the channels.
    pub norm: Option<&'a ScaleShift>,
    /// What comes last.
    pub activation: Activation,
}

/// `x scale + shift` for each channel: what a batch norm with fixed statistics is.
#[derive(Clone, Debug)]
pub struct ScaleShift {
    /// `[channels]`.
    pub scale: Tensor,
    /// `[channels]`.
    pub shift: Tensor,
}

impl ScaleShift {
    /// Of `(x - mean) / sqrt(variance + eps) * weight + bias`, all `[channels]`.
    pub fn of_norm(weight: &Tensor, bias: &Tensor, mean: &Tensor, variance: &Tensor, eps: f64) -> Result<Self> {
        let scale = (weight / variance.affine(1.0, eps)?.sqrt()?)?;
        let shift = (bias - (mean * &scale)?)?;
        Ok(Self { scale, shift })
    }
}
