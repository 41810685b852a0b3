//! What a batch norm has seen of a batch.

use candle_core::{Result, Tensor};

use crate::Parameter;

/// The statistics of a batch's rows.
#[derive(Clone, Debug)]
pub struct BatchStatistics {
    /// `[channels]`.
    pub mean: Tensor,
    /// `[channels]`, biased: divided by the number of rows.
    pub variance: Tensor,
    /// Number of rows, more than 1.
    pub rows: usize,
}

impl BatchStatistics {
    /// The running mean and variance after this batch, as torch's: `(1 - momentum) old + momentum new`, of the unbiased variance.
    pub fn update(&self, mean: &Tensor, variance: &Tensor, momentum: f64) -> Result<(Tensor, Tensor)> {
        let unbiased = self.rows as f64 / (self.rows as f64 - 1.0);
        let mix = |old: &Tensor, new: &Tensor, factor: f64| {
            old.affine(1.0 - momentum, 0.0)? + new.affine(factor * momentum, 0.0)?.to_dtype(old.dtype())?
        };
        Ok((mix(mean, &self.mean, 1.0)?, mix(variance, &self.variance, unbiased)?))
    }
}

/// What a batch adds to running statistics, once the passes over it are done.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The running mean, `[channels]`.
    pub mean: Parameter,
    /// The running variance, `[channels]`.
    pub variance: Parameter,
    /// The share of the new statistics.
    pub momentum: f64,
    /// What the batch gave.
    pub batch: BatchStatistics,
}

impl Observation {
    /// Updates the running statistics. Between steps only.
    pub fn settle(&self) -> Result<()> {
        let (mean, variance) = self.batch.update(&self.mean.tensor(), &self.variance.tensor(), self.momentum)?;
        self.mean.set(&mean)?;
        self.variance.set(&variance)
    }
}
