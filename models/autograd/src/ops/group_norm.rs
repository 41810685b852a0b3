//! Group norm.

use candle_core::{Result, Tensor, bail};

use super::batch_norm::in_float;
use super::elementwise::unbroadcast;
use crate::{Map, Tape, Value};

impl Tape {
    /// `(x - mean) / sqrt(variance + eps) * weight + bias` with the statistics of each image and each of `groups` groups of channels
    /// (Wu and He 2018, arXiv:1803.08494), as torch's `group_norm`. `x` `[pixels, channels]`, `weight` and `bias` `[channels]`.
    pub fn group_norm(
        &self,
        x: &Value,
        map: Map,
        groups: usize,
        weight: &Value,
        bias: &Value,
        eps: f64,
    ) -> Result<Value> {
        let channels = map.channels(x.dims())?;
        if groups == 0 || channels % groups != 0 || weight.dims() != [channels] || bias.dims() != [channels] {
            bail!(
                "group norm of {channels} channels in {groups} groups takes a weight and a bias of [{channels}], got {:?} and {:?}",
                weight.dims(),
                bias.dims()
            );
        }
        let (rows, dtype) = (map.rows(), x.dtype());
        let grouped = move |x: &Tensor| x.reshape((map.images, map.pixels(), groups, channels / groups));
        let input = grouped(&in_float(&x.tensor().contiguous()?)?)?; // [images, pixels, groups, channels / groups]
        let centered = input.broadcast_sub(&mean(&input)?)?;
        let reciprocal_std = mean(&centered.sqr()?)?.affine(1.0, eps)?.sqrt()?.recip()?; // [images, 1, groups, 1]
        let normalized = centered.broadcast_mul(&reciprocal_std)?;
        let weight_tensor = in_float(weight.tensor())?;
        let y = normalized.reshape((rows, channels))?.broadcast_mul(&weight_tensor)?;
        let y = y.broadcast_add(&in_float(bias.tensor())?)?.to_dtype(dtype)?;
        Ok(self.record(y, &[x, weight, bias], move |g, vjp| {
            let g = in_float(&g.contiguous()?)?; // [pixels, channels]
            if vjp.wants(2) {
                vjp.give(2, unbroadcast(g.clone(), &[channels])?.to_dtype(dtype)?)?;
            }
            if vjp.wants(1) {
                let dw = unbroadcast((&g * normalized.reshape((rows, channels))?)?, &[channels])?;
                vjp.give(1, dw.to_dtype(dtype)?)?;
            }
            if vjp.wants(0) {
                // (h - mean(h) - x^ mean(h x^)) / std, with h = g * weight
                let h = grouped(&g.broadcast_mul(&weight_tensor)?)?;
                let projection = normalized.broadcast_mul(&mean(&(&h * &normalized)?)?)?;
                let dx = (h.broadcast_sub(&mean(&h)?)? - projection)?.broadcast_mul(&reciprocal_std)?;
                vjp.give(0, dx.reshape((rows, channels))?.to_dtype(dtype)?)?;
            }
            Ok(())
        }))
    }
}

/// Of each image and group: `[images, pixels, groups, channels]` to `[images, 1, groups, 1]`.
fn mean(x: &Tensor) -> Result<Tensor> {
    x.mean_keepdim(3)?.mean_keepdim(1)
}
