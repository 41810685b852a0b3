//! A sum and an activation in one pass: how the two ways through a residual block join.

use candle_core::{Result, bail};

use super::convolution::Slope;
use crate::kernels::joined as fast;
use crate::{Activation, Tape, Tensor, Value, slices};

impl Tape {
    /// `activation(a + b)`, two values of one shape. The gradient of both is one tensor.
    pub fn add_activation(&self, a: &Value, b: &Value, activation: Activation) -> Result<Value> {
        if a.dims() != b.dims() {
            bail!("cannot add {:?} to {:?}: the shapes must be equal", b.dims(), a.dims());
        }
        let parallel = self.options().parallel_ops;
        // Where the value does not tell the derivative, the sum is kept.
        let fused = if activation.keeps_slope() { activation } else { Activation::Identity };
        let (left, right) = (a.tensor(), b.tensor());
        let sum = match slices::read([left, right], |[a, b]| fast::sum(a, b, fused, parallel)) {
            Some(sum) => Tensor::from_vec(sum, left.dims(), left.device())?,
            None => fused.forward(&(left + right)?)?,
        };
        let y = if fused == activation { sum.clone() } else { activation.forward(&sum)? };
        let slope = Slope::At(activation, sum);
        Ok(self.record(y, &[a, b], move |g, vjp| {
            let g = slope.chain(g.contiguous()?, parallel)?;
            vjp.give(0, g.clone())?;
            vjp.give(1, g)
        }))
    }
}
