//! What runs at an adapted layer.

use fthost_plugin_api::prelude::*;

/// y = W x + b + s B A x, or where the update began as a part of W, y = W x + b + s (B A - B0 A0) x
pub(crate) struct LowRank {
    pub(crate) a: Param, // [rank, in], of a convolution [rank, channels, kh, kw]
    pub(crate) b: Param, // [out, rank], of a convolution [out, rank, 1, 1]
    pub(crate) scale: f64,
    pub(crate) dropout: f64,
    /// B0 and A0, which are part of W.
    pub(crate) taken: Option<(Kept, Kept)>,
}

impl LowRank {
    /// A as a matrix, `[rank, in]`: a row of a convolution's is a kernel over all channels, as a patch lies.
    fn a(&self) -> Result<Tensor> {
        matrix(&self.a)
    }

    /// B as a matrix, `[out, rank]`.
    fn b(&self) -> Result<Tensor> {
        matrix(&self.b)
    }

    /// W + s B A, `[out, in]`, without what was taken.
    fn add_to(&self, weight: &Tensor) -> Result<Tensor> {
        let added = weight.add(&self.b()?.matmul(&self.a()?)?.mul_scalar(self.scale)?)?;
        match &self.taken {
            None => Ok(added),
            Some((b, a)) => added.sub(&b.tensor().matmul(a)?.mul_scalar(self.scale)?),
        }
    }
}

impl LinearHook for LowRank {
    fn forward(&self, x: &Tensor, y: Tensor, _weight: &Tensor) -> Result<Tensor> {
        let (a, b) = (self.a()?, self.b()?);
        let y = match &self.taken {
            None => y,
            // What was taken out of W dropout does not see.
            Some((b, a)) => y.add_low_rank(x, a, b, -self.scale)?,
        };
        if self.dropout == 0.0 {
            return y.add_low_rank(x, &a, &b, self.scale); // [tokens, out]
        }
        y.add_low_rank(&x.dropout(self.dropout)?, &a, &b, self.scale) // [tokens, out]
    }

    fn merge(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        self.add_to(weight).map(Some)
    }
}

/// A parameter as a matrix with as many rows.
fn matrix(param: &Param) -> Result<Tensor> {
    match *param.shape() {
        [_, _] => Ok(param.tensor()),
        [rows, ref rest @ ..] => param.tensor().reshape([rows, rest.iter().product()]),
        [] => Err(Error::new("an update needs a matrix")),
    }
}

/// DoRA: y = g * (W + s B A) x + b, with g = m / norm of the rows of W + s B A.
///
/// Written as what is added to y = W x + b, so that g = 1 and B = 0 change nothing, to the bit: (g - 1) * W x + s (g * B) A x. As in PEFT's
/// tuners/lora/dora.py, dropout changes the x of both. W is the layer's own weight, whatever other methods make of y before.
pub(crate) struct Dora {
    pub(crate) update: LowRank,
    pub(crate) magnitude: Param,    // [out]
    pub(crate) weight: Param,       // [out, in], the layer's own
    pub(crate) bias: Option<Param>, // [out], the layer's own
    pub(crate) first: bool,         // whether y is W x + b, as no hook stands before this one
}

impl Dora {
    /// g, `[out]`. The norm counts as a constant, so no gradient flows through it.
    fn factor(&self, weight: &Tensor) -> Result<Tensor> {
        let LowRank { a, b, scale, .. } = &self.update;
        // A row of zeros has no direction: its factor is 0 and not 0 / 0.
        let norm = weight.low_rank_norm(a, b, *scale)?.maximum_scalar(f64::from(f32::MIN_POSITIVE))?;
        self.magnitude.tensor().div(&norm)
    }

    /// `v` `[out]` as a column `[out, 1]`.
    fn column(&self, v: &Tensor) -> Result<Tensor> {
        v.reshape([self.magnitude.shape()[0], 1])
    }

    /// y with (g - 1) W x and s (g * B) A x added. `x`: `[tokens, in]`, `base`: W x, `[tokens, out]`.
    fn add(&self, y: &Tensor, x: &Tensor, base: &Tensor, g: &Tensor) -> Result<Tensor> {
        let LowRank { a, b, scale, .. } = &self.update;
        let y = y.add(&base.mul(&g.add_scalar(-1.0)?)?)?; // [tokens, out]
        y.add_low_rank(x, a, &b.tensor().mul(&self.column(g)?)?, *scale)
    }
}

impl LinearHook for Dora {
    fn forward(&self, x: &Tensor, y: Tensor, weight: &Tensor) -> Result<Tensor> {
        let g = self.factor(weight)?; // [out]
        if self.update.dropout > 0.0 {
            let x = x.dropout(self.update.dropout)?;
            return self.add(&y, &x, &x.linear(weight, None)?, &g);
        }
        match &self.bias {
            _ if !self.first => self.add(&y, x, &x.linear(weight, None)?, &g),
            Some(bias) => self.add(&y, x, &y.sub(bias)?, &g),
            None => self.add(&y, x, &y, &g),
        }
    }

    fn merge(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        let own = self.weight.tensor();
        let adapted = self.update.add_to(&own)?.mul(&self.column(&self.factor(&own)?)?)?; // [out, in]
        weight.sub(&own)?.add(&adapted).map(Some)
    }
}
