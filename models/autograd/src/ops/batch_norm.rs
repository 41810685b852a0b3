//! Batch norm over the rows of a feature map, with fixed statistics or the batch's own.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};

use super::elementwise::unbroadcast;
use crate::kernels::channels as fast;
use crate::{Activation, BatchStatistics, Tape, Value};

impl Tape {
    /// `activation((x - mean) / sqrt(variance + eps) * weight + bias)` with statistics that are given: torch's `batch_norm` in
    /// evaluation. `x` `[rows, channels]`, the others `[channels]`. Statistics get no gradient.
    #[allow(clippy::too_many_arguments)] // those of torch
    pub fn batch_norm(
        &self,
        x: &Value,
        weight: &Value,
        bias: &Value,
        mean: &Tensor,
        variance: &Tensor,
        eps: f64,
        activation: Activation,
    ) -> Result<Value> {
        let channels = check(x, weight, bias)?;
        if mean.dims() != [channels] || variance.dims() != [channels] {
            bail!(
                "batch norm of {:?} takes a mean and a variance of [{channels}], got {:?} and {:?}",
                x.dims(),
                mean.dims(),
                variance.dims()
            );
        }
        self.normalized(x, weight, bias, [mean, variance], eps, activation, false)
    }

    /// [`batch_norm`](Self::batch_norm) with the mean and the biased variance of `x`'s own rows, through which the gradient flows:
    /// torch's `batch_norm` in training. Gives the statistics too, for the running ones. Errors where there is a single row.
    pub fn batch_norm_training(
        &self,
        x: &Value,
        weight: &Value,
        bias: &Value,
        eps: f64,
        activation: Activation,
    ) -> Result<(Value, BatchStatistics)> {
        check(x, weight, bias)?;
        let rows = x.dims()[0];
        if rows < 2 {
            bail!("batch norm in training needs more than one value for each channel, got {:?}", x.dims());
        }
        let (mean, variance) = match fast::moments(x.tensor(), self.options().parallel_ops)? {
            Some(moments) => moments,
            None => {
                let x = in_float(x.tensor())?;
                let mean = x.mean_keepdim(0)?;
                (mean.squeeze(0)?, x.broadcast_sub(&mean)?.sqr()?.mean(0)?)
            }
        };
        let y = self.normalized(x, weight, bias, [&mean, &variance], eps, activation, true)?;
        Ok((y, BatchStatistics { mean, variance, rows }))
    }

    #[allow(clippy::too_many_arguments)]
    fn normalized(
        &self,
        x: &Value,
        weight: &Value,
        bias: &Value,
        [mean, variance]: [&Tensor; 2],
        eps: f64,
        activation: Activation,
        of_batch: bool,
    ) -> Result<Value> {
        let parallel = self.options().parallel_ops;
        let reciprocal_std = in_float(variance)?.affine(1.0, eps)?.sqrt()?.recip()?;
        let scale = (&reciprocal_std * in_float(weight.tensor())?)?;
        let line = Line { center: in_float(mean)?, scale, shift: in_float(bias.tensor())?, activation, parallel };
        let line = Arc::new(line);
        let input = x.tensor().contiguous()?;
        let y = line.forward(&input)?; // [rows, channels]
        let dtype = x.dtype();
        // The line costs less than the memory of what it gives, which is as large as the input, and of a network of convolutions most.
        let again = (Arc::clone(&line), input.clone());
        let y = self.record(y, &[x, weight, bias], move |g, vjp| {
            let g = g.contiguous()?;
            if of_batch || vjp.wants(1) || vjp.wants(2) {
                let (sum, projection) = line.sums(&g, &input)?; // [channels]: sums of g, and of g (x - mean)
                let dw = (&projection * &reciprocal_std)?;
                if vjp.wants(0) {
                    // With the statistics of the batch: scale (g - mean(g) - x^ mean(g x^)), x^ = (x - mean) / std.
                    let rows = input.dims2()?.0 as f64;
                    let tilt = ((&dw * &reciprocal_std)? * &line.scale)?.affine(-1.0 / rows, 0.0)?;
                    let level = (&sum * &line.scale)?.affine(-1.0 / rows, 0.0)?;
                    let of_batch = of_batch.then_some((&tilt, &level));
                    vjp.give(0, line.input_gradient(&g, &input, of_batch)?)?;
                }
                vjp.give(1, dw.to_dtype(dtype)?)?;
                return vjp.give(2, sum.to_dtype(dtype)?);
            }
            vjp.give(0, line.input_gradient(&g, &input, None)?)
        });
        Ok(y.made_again_by(move || again.0.forward(&again.1)))
    }
}

fn check(x: &Value, weight: &Value, bias: &Value) -> Result<usize> {
    let (_, channels) = x.dims2()?;
    if weight.dims() != [channels] || bias.dims() != [channels] {
        bail!(
            "batch norm of {:?} takes a weight and a bias of [{channels}], got {:?} and {:?}",
            x.dims(),
            weight.dims(),
            bias.dims()
        );
    }
    Ok(channels)
}

/// Half floats are normalized in `f32`.
pub(super) fn in_float(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::BF16 | DType::F16 => x.to_dtype(DType::F32),
        _ => Ok(x.clone()),
    }
}

/// `activation((x - center) scale + shift)` for each channel, and what its gradients are made of. `x` and `g` `[rows, channels]`.
struct Line {
    center: Tensor,
    scale: Tensor,
    shift: Tensor,
    activation: Activation,
    parallel: bool,
}

impl Line {
    fn fast<'a>(&'a self, x: &'a Tensor) -> fast::Line<'a> {
        fast::Line {
            x,
            center: &self.center,
            scale: &self.scale,
            shift: &self.shift,
            activation: self.activation,
            parallel: self.parallel,
        }
    }

    fn before_activation(&self, x: &Tensor) -> Result<Tensor> {
        in_float(x)?.broadcast_sub(&self.center)?.broadcast_mul(&self.scale)?.broadcast_add(&self.shift)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self.fast(x).forward()? {
            Some(y) => Ok(y),
            None => self.activation.forward(&self.before_activation(x)?)?.to_dtype(x.dtype()),
        }
    }

    /// The gradient before the activation.
    fn chain(&self, g: &Tensor, x: &Tensor) -> Result<Tensor> {
        match self.activation {
            Activation::Identity => in_float(g),
            activation => activation.backward(&self.before_activation(x)?, &in_float(g)?),
        }
    }

    /// The sums over the rows of the gradient before the activation, and of its product with `x - center`.
    fn sums(&self, g: &Tensor, x: &Tensor) -> Result<(Tensor, Tensor)> {
        if let Some(sums) = self.fast(x).sums(g)? {
            return Ok(sums);
        }
        let g = self.chain(g, x)?;
        let dims = self.center.dims();
        let projection = unbroadcast((&g * in_float(x)?.broadcast_sub(&self.center)?)?, dims)?;
        Ok((unbroadcast(g, dims)?, projection))
    }

    /// `g scale`, plus `(x - center) tilt + level` where the statistics are the batch's.
    fn input_gradient(&self, g: &Tensor, x: &Tensor, of_batch: Option<(&Tensor, &Tensor)>) -> Result<Tensor> {
        if let Some(dx) = self.fast(x).input_gradient(g, of_batch)? {
            return Ok(dx);
        }
        let dx = self.chain(g, x)?.broadcast_mul(&self.scale)?;
        let dx = match of_batch {
            None => dx,
            Some((tilt, level)) => {
                let tilted = in_float(x)?.broadcast_sub(&self.center)?.broadcast_mul(tilt)?;
                (dx + tilted)?.broadcast_add(level)?
            }
        };
        dx.to_dtype(x.dtype())
    }
}
