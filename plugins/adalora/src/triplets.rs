//! The triplets of a layer, and what runs there.

use fthost_plugin_api::prelude::*;

/// What one layer got.
pub(crate) struct Layer {
    pub(crate) path: String,
    pub(crate) a: Param, // [rank, in]
    pub(crate) b: Param, // [out, rank]
    pub(crate) e: Param, // [rank, 1]
}

impl Layer {
    /// Sets the values of the other triplets to zero.
    pub(crate) fn keep(&self, model: &mut Model, left: &[bool]) -> Result<()> {
        if left.iter().all(|left| *left) {
            return Ok(());
        }
        let values = self.e.tensor().to_vec_f32()?;
        let values: Vec<f32> = values.iter().zip(left).map(|(value, left)| if *left { *value } else { 0.0 }).collect();
        model.set_value(&self.e, &Tensor::from_slice(&values, self.e.shape())?)
    }

    /// A, B and E of these triplets alone.
    pub(crate) fn only(&self, left: &[bool]) -> Result<[(&Param, Tensor); 3]> {
        let Self { a, b, e, .. } = self;
        let ids: Vec<u32> = (0..).zip(left).filter(|(_, left)| **left).map(|(i, _)| i).collect();
        if ids.is_empty() {
            let none = |rows: usize, columns: usize| Tensor::from_slice::<f32>(&[], [rows, columns]);
            return Ok([(a, none(0, a.shape()[1])?), (b, none(b.shape()[0], 0)?), (e, none(0, 1)?)]);
        }
        let columns = Tensor::from_slice(&ids, [ids.len()])?;
        let b_left = b.tensor().index_select(&columns, 1)?;
        Ok([(a, a.tensor().rows(&ids)?), (b, b_left), (e, e.tensor().rows(&ids)?)])
    }
}

/// y = W x + b + s B (E * A) x
pub(crate) struct Update {
    pub(crate) a: Param, // [rank, in]
    pub(crate) b: Param, // [out, rank]
    pub(crate) e: Param, // [rank, 1]
    pub(crate) scale: f64,
    pub(crate) dropout: f64,
}

impl LinearHook for Update {
    fn forward(&self, x: &Tensor, y: Tensor, _weight: &Tensor) -> Result<Tensor> {
        let a = self.a.tensor().mul(&self.e)?; // [rank, in]
        let x = if self.dropout > 0.0 { &x.dropout(self.dropout)? } else { x };
        y.add_low_rank(x, &a, &self.b, self.scale) // [tokens, out]
    }

    fn merge(&self, weight: &Tensor) -> Result<Option<Tensor>> {
        let a = self.a.tensor().mul(&self.e)?; // [rank, in]
        weight.add(&self.b.tensor().matmul(&a)?.mul_scalar(self.scale)?).map(Some) // [out, in]
    }
}
