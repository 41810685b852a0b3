//! Ops that move elements. Their results are contiguous.

use candle_core::{Result, Tensor};

use crate::{Tape, Value};

impl Tape {
    /// Swaps two dimensions.
    pub fn transpose(&self, x: &Value, d0: usize, d1: usize) -> Result<Value> {
        let output = x.tensor().transpose(d0, d1)?.contiguous()?;
        Ok(self.record(output, &[x], move |gradient, vjp| vjp.give(0, gradient.transpose(d0, d1)?.contiguous()?)))
    }

    /// The same elements in another shape.
    pub fn reshape(&self, x: &Value, dims: &[usize]) -> Result<Value> {
        let original = x.dims().to_vec();
        let output = x.tensor().reshape(dims)?;
        Ok(self.record(output, &[x], move |gradient, vjp| vjp.give(0, gradient.reshape(original)?)))
    }

    /// Entries `start..start + len` of dimension `dim`.
    pub fn narrow(&self, x: &Value, dim: usize, start: usize, len: usize) -> Result<Value> {
        let output = x.tensor().narrow(dim, start, len)?.contiguous()?;
        let after = x.dims()[dim] - start - len;
        Ok(self.record(output, &[x], move |gradient, vjp| {
            vjp.give(0, gradient.pad_with_zeros(dim, start, after)?.contiguous()?)
        }))
    }

    /// Joins values along dimension `dim`; their other dimensions agree.
    pub fn concat(&self, xs: &[&Value], dim: usize) -> Result<Value> {
        let tensors: Vec<&Tensor> = xs.iter().map(|x| x.tensor()).collect();
        let output = Tensor::cat(&tensors, dim)?.contiguous()?;
        let sizes: Vec<usize> = xs.iter().map(|x| x.dims()[dim]).collect();
        Ok(self.record(output, xs, move |gradient, vjp| {
            let mut start = 0;
            for (i, size) in sizes.into_iter().enumerate() {
                if vjp.wants(i) {
                    vjp.give(i, gradient.narrow(dim, start, size)?.contiguous()?)?;
                }
                start += size;
            }
            Ok(())
        }))
    }

    /// Entries `ids` (`u32`, `[n]`, repeats allowed) of dimension `dim`.
    pub fn index_select(&self, x: &Value, ids: &Tensor, dim: usize) -> Result<Value> {
        let output = x.tensor().contiguous()?.index_select(ids, dim)?;
        let (ids, dims) = (ids.clone(), x.dims().to_vec());
        Ok(self.record(output, &[x], move |gradient, vjp| {
            let zeros = Tensor::zeros(dims, gradient.dtype(), gradient.device())?;
            vjp.give(0, zeros.index_add(&ids, &gradient.contiguous()?, dim)?)
        }))
    }
}
