//! Sums, means and softmax.

use candle_core::{D, DType, Result, Tensor};

use crate::{Tape, Value, slices};

/// The sum over `dims`, kept as dimensions of size 1. Half floats are summed in `f32`.
pub(crate) fn sum_over(x: &Tensor, dims: &[usize]) -> Result<Tensor> {
    match x.dtype() {
        dtype @ (DType::BF16 | DType::F16) => x.to_dtype(DType::F32)?.sum_keepdim(dims)?.to_dtype(dtype),
        _ => x.sum_keepdim(dims),
    }
}

/// The sum of all elements, in `f64` on the CPU and rounded once.
pub(crate) fn sum_all(x: &Tensor) -> Result<Tensor> {
    let sum = slices::read([x], |[x]| {
        // Lanes let the loop vectorise; their number fixes the bits.
        let mut lanes = [0f64; 8];
        let (whole, rest) = x.as_chunks::<8>();
        for x in whole {
            for (lane, x) in lanes.iter_mut().zip(x) {
                *lane += f64::from(*x);
            }
        }
        rest.iter().map(|x| f64::from(*x)).sum::<f64>() + lanes.iter().sum::<f64>()
    });
    match (sum, x.dtype()) {
        (Some(sum), _) => Tensor::new(sum as f32, x.device()),
        (None, dtype @ (DType::BF16 | DType::F16)) => x.to_dtype(DType::F32)?.sum_all()?.to_dtype(dtype),
        (None, _) => x.sum_all(),
    }
}

fn check_dim(x: &Value, dim: usize) -> Result<()> {
    if dim >= x.dims().len() {
        candle_core::bail!("dimension {dim} of a tensor of shape {:?} does not exist", x.dims());
    }
    Ok(())
}

impl Tape {
    /// The sum of all elements: a scalar.
    pub fn sum(&self, x: &Value) -> Result<Value> {
        let dims = x.dims().to_vec();
        Ok(self.record(sum_all(x.tensor())?, &[x], move |gradient, vjp| {
            vjp.give(0, gradient.broadcast_as(dims)?.contiguous()?)
        }))
    }

    /// The mean of all elements: a scalar. Errors where there are none.
    pub fn mean(&self, x: &Value) -> Result<Value> {
        let count = x.tensor().elem_count();
        if count == 0 {
            candle_core::bail!("the mean of a tensor of shape {:?}, which has no elements", x.dims());
        }
        self.affine(&self.sum(x)?, 1.0 / count as f64, 0.0)
    }

    /// The sum over dimension `dim`, which stays with size 1 where `keepdim` says so.
    pub fn sum_dim(&self, x: &Value, dim: usize, keepdim: bool) -> Result<Value> {
        check_dim(x, dim)?;
        let kept = sum_over(x.tensor(), &[dim])?;
        let output = if keepdim { kept.clone() } else { kept.squeeze(dim)? };
        let (dims, kept) = (x.dims().to_vec(), kept.dims().to_vec());
        Ok(self.record(output, &[x], move |gradient, vjp| {
            vjp.give(0, gradient.reshape(kept)?.broadcast_as(dims)?.contiguous()?)
        }))
    }

    /// The mean over dimension `dim`. Errors where it has size 0.
    pub fn mean_dim(&self, x: &Value, dim: usize, keepdim: bool) -> Result<Value> {
        check_dim(x, dim)?;
        let count = x.dims()[dim];
        if count == 0 {
            candle_core::bail!("the mean over dimension {dim} of shape {:?}, which has size 0", x.dims());
        }
        self.affine(&self.sum_dim(x, dim, keepdim)?, 1.0 / count as f64, 0.0)
    }

    /// Softmax over the last dimension.
    pub fn softmax(&self, x: &Value) -> Result<Value> {
        let output = candle_nn::ops::softmax_last_dim(&x.tensor().contiguous()?)?;
        let y = output.clone();
        Ok(self.record(output, &[x], move |gradient, vjp| {
            // y (g - sum(g y))
            let weighted = (&gradient * &y)?;
            let mean = sum_over(&weighted, &[y.rank() - 1])?;
            vjp.give(0, (weighted - y.broadcast_mul(&mean)?)?)
        }))
    }

    /// The logarithm of softmax over the last dimension.
    pub fn log_softmax(&self, x: &Value) -> Result<Value> {
        let output = log_softmax(x.tensor())?;
        let y = output.clone();
        Ok(self.record(output, &[x], move |gradient, vjp| {
            // g - softmax sum(g)
            let sum = sum_over(&gradient, &[y.rank() - 1])?;
            vjp.give(0, (gradient - y.exp()?.broadcast_mul(&sum)?)?)
        }))
    }
}

/// Last dimension.
pub(crate) fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?;
    let sum = sum_over(&shifted.exp()?, &[x.rank() - 1])?;
    shifted.broadcast_sub(&sum.log()?)
}
