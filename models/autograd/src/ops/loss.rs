//! Losses.

use candle_core::{DType, Result, Tensor};

use super::reduce::log_softmax;
use crate::{Tape, Value, slices};

/// A target that says: the row does not count.
pub(super) const IGNORED: u32 = u32::MAX;

/// The true class of each row, or [`IGNORED`].
pub(super) fn true_classes(rows: usize, classes: usize, targets: &Tensor) -> Result<Vec<u32>> {
    if targets.dims() != [rows] || targets.dtype() != DType::U32 {
        candle_core::bail!(
            "cross entropy of logits [{rows}, {classes}] wants u32 targets [{rows}], got {:?} {:?}",
            targets.dtype(),
            targets.dims()
        );
    }
    let targets = targets.to_vec1::<u32>()?;
    let wrong = |class: u32| class != IGNORED && class as usize >= classes;
    match targets.iter().enumerate().find(|(_, class)| wrong(**class)) {
        Some((row, class)) => candle_core::bail!("target {class} of row {row} is not one of {classes} classes"),
        None => Ok(targets),
    }
}

/// What each row of logits is compared with: torch's `cross_entropy` puts weight `(1 - smoothing) w[y]` on the true class y
/// and `smoothing w[c] / classes` on every class c.
struct Targets {
    /// Of each row, or [`IGNORED`].
    classes: Vec<u32>,
    weights: Vec<f64>,
    smoothing: f64,
}

impl Targets {
    fn new(logits: &Tensor, targets: &Tensor, weights: Option<&Tensor>, smoothing: f64) -> Result<Self> {
        let (rows, classes) = logits.dims2()?;
        if !(0.0..=1.0).contains(&smoothing) {
            candle_core::bail!("label smoothing must lie in [0, 1], got {smoothing}");
        }
        let weights = match weights {
            Some(weights) if weights.dims() != [classes] => {
                candle_core::bail!("{classes} classes want as many weights, got shape {:?}", weights.dims())
            }
            Some(weights) => weights.to_dtype(DType::F64)?.to_vec1()?,
            None => vec![1.0; classes],
        };
        Ok(Self { classes: true_classes(rows, classes, targets)?, weights, smoothing })
    }

    /// The sum of the true classes' weights, by which torch divides.
    fn total(&self) -> f64 {
        self.rows().flatten().map(|class| self.weights[class]).sum()
    }

    fn rows(&self) -> impl Iterator<Item = Option<usize>> + '_ {
        self.classes.iter().map(|class| (*class != IGNORED).then_some(*class as usize))
    }

    /// Weight of the true class; weight of each class by smoothing; their sum over the classes for a row of each class.
    fn parts(&self) -> (f64, Vec<f64>, f64) {
        let spread = self.smoothing / self.weights.len() as f64;
        let spread: Vec<f64> = self.weights.iter().map(|weight| weight * spread).collect();
        let sum = spread.iter().sum();
        (1.0 - self.smoothing, spread, sum)
    }

    /// As a tensor like the logits, for the composite.
    fn dense(&self, like: &Tensor) -> Result<Tensor> {
        let (hard, spread, _) = self.parts();
        let mut dense = vec![0f64; self.classes.len() * spread.len()];
        for (row, class) in dense.chunks_exact_mut(spread.len().max(1)).zip(self.rows()) {
            if let Some(class) = class {
                row.copy_from_slice(&spread);
                row[class] += hard * self.weights[class];
            }
        }
        Tensor::from_vec(dense, like.dims(), &candle_core::Device::Cpu)?
            .to_dtype(like.dtype())?
            .to_device(like.device())
    }

    /// `logits` `[rows, classes]` become their softmax; returns the sum of losses.
    fn forward(&self, logits: &mut [f32]) -> f64 {
        let (hard, spread, spread_sum) = self.parts();
        let mut total = 0.0;
        for (row, class) in logits.chunks_exact_mut(spread.len().max(1)).zip(self.rows()) {
            let Some(class) = class else { continue };
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            let true_logit = row[class] - max;
            let smoothed: f64 = match self.smoothing {
                0.0 => 0.0,
                _ => row.iter().zip(&spread).map(|(x, s)| f64::from(x - max) * s).sum(),
            };
            for x in row.iter_mut() {
                *x = (*x - max).exp();
                sum += f64::from(*x);
            }
            let weight = hard * self.weights[class];
            total += sum.ln() * (weight + spread_sum) - weight * f64::from(true_logit) - smoothed;
            let scale = (1.0 / sum) as f32;
            row.iter_mut().for_each(|x| *x *= scale);
        }
        total
    }

    /// Softmax becomes the gradient of the sum of losses, times `gradient`.
    fn backward(&self, softmax: &mut [f32], gradient: f64) {
        let (hard, spread, spread_sum) = self.parts();
        for (row, class) in softmax.chunks_exact_mut(spread.len().max(1)).zip(self.rows()) {
            let Some(class) = class else {
                row.fill(0.0);
                continue;
            };
            let weight = hard * self.weights[class];
            let scale = ((weight + spread_sum) * gradient) as f32;
            for (x, s) in row.iter_mut().zip(&spread) {
                *x = *x * scale - (s * gradient) as f32;
            }
            row[class] -= (weight * gradient) as f32;
        }
    }
}

impl Tape {
    /// Cross entropy of `logits` `[n, classes]` with `targets` `[n]` `u32`, where `u32::MAX` means: ignore the row. `weights`
    /// `[classes]` weigh the classes.
    ///
    /// Returns the sum over rows and the sum of the rows' weights; their quotient is torch's mean. The two are apart so that
    /// micro-batches add up to the whole batch exactly.
    pub fn cross_entropy(
        &self,
        logits: &Value,
        targets: &Tensor,
        weights: Option<&Tensor>,
        label_smoothing: f64,
    ) -> Result<(Value, f64)> {
        let x = logits.tensor();
        let targets = Targets::new(x, targets, weights, label_smoothing)?;
        let total = targets.total();
        let Some(mut softmax) = slices::read([x], |[x]| x.to_vec()) else {
            return Ok((self.cross_entropy_composite(logits, &targets)?, total));
        };
        let dims = x.dims().to_vec();
        let loss = targets.forward(&mut softmax);
        let loss = Tensor::new(loss as f32, x.device())?;
        let value = self.record(loss, &[logits], move |gradient, vjp| {
            targets.backward(&mut softmax, f64::from(gradient.to_scalar::<f32>()?));
            vjp.give(0, Tensor::from_vec(softmax, dims, gradient.device())?)
        });
        Ok((value, total))
    }

    fn cross_entropy_composite(&self, logits: &Value, targets: &Targets) -> Result<Value> {
        let dense = targets.dense(logits.tensor())?; // [n, classes]
        let log_p = log_softmax(logits.tensor())?;
        // An infinite logit of a class of weight zero must not make the loss NaN.
        let weighted = dense.eq(0.0)?.where_cond(&dense, &(&dense * &log_p)?)?;
        let loss = super::reduce::sum_all(&weighted)?.neg()?;
        Ok(self.record(loss, &[logits], move |gradient, vjp| {
            let weight = super::reduce::sum_over(&dense, &[1])?;
            let slope = (log_p.exp()?.broadcast_mul(&weight)? - dense)?;
            vjp.give(0, slope.broadcast_mul(&gradient)?)
        }))
    }
}
