//! Batch norm: over the batch while it trains, unless it is to keep to its running statistics; by these otherwise.

use std::sync::{Mutex, PoisonError};

use fthost_autograd::{Activation, Observation, Parameter, Result, ScaleShift, Tape, Value};

use super::plan::NormPlan;
use crate::LoadError;
use crate::builder::Builder;

#[derive(Debug)]
pub(super) struct BatchNorm {
    /// `[channels]`, as all four.
    weight: Parameter,
    bias: Parameter,
    mean: Parameter,
    variance: Parameter,
    plan: NormPlan,
    /// What it comes to with fixed statistics, and of which versions of the four.
    fixed: Mutex<Option<([u64; 4], ScaleShift)>>,
}

impl BatchNorm {
    pub(super) fn build(
        builder: &mut Builder<'_>,
        path: &str,
        channels: usize,
        plan: NormPlan,
    ) -> std::result::Result<Self, LoadError> {
        let [weight, bias, mean, variance] = builder.batch_norm(path, channels)?;
        Ok(Self { weight, bias, mean, variance, plan, fixed: Mutex::default() })
    }

    fn trains(&self) -> bool {
        self.weight.trainable() || self.bias.trainable()
    }

    /// Whether it takes the statistics of the batch in training.
    pub(super) fn by_batch(&self) -> bool {
        self.trains() && !self.plan.keeps_statistics
    }

    /// Its scale and shift of each channel, where it takes no statistics of the batch and needs no gradient.
    pub(super) fn fixed(&self, tape: &Tape) -> Result<Option<ScaleShift>> {
        if tape.options().recording && self.trains() {
            return Ok(None);
        }
        let four = [&self.weight, &self.bias, &self.mean, &self.variance];
        let versions = four.map(Parameter::version);
        let mut known = self.fixed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, fixed)) = &*known
            && *of == versions
        {
            return Ok(Some(fixed.clone()));
        }
        let [weight, bias, mean, variance] = four.map(Parameter::tensor);
        let fixed = ScaleShift::of_norm(&weight, &bias, &mean, &variance, self.plan.eps)?;
        *known = Some((versions, fixed.clone()));
        Ok(Some(fixed))
    }

    /// `x`: `[rows, channels]`. Gives as much, activated.
    pub(super) fn forward(&self, tape: &Tape, x: &Value, activation: Activation) -> Result<Value> {
        let (weight, bias, eps) = (tape.parameter(&self.weight), tape.parameter(&self.bias), self.plan.eps);
        if !(tape.options().recording && self.by_batch()) {
            let (mean, variance) = (self.mean.tensor(), self.variance.tensor());
            return tape.batch_norm(x, &weight, &bias, &mean, &variance, eps, activation);
        }
        let (y, batch) = tape.batch_norm_training(x, &weight, &bias, eps, activation)?;
        let (mean, variance) = (self.mean.clone(), self.variance.clone());
        tape.observe(Observation { mean, variance, momentum: self.plan.momentum, batch });
        Ok(y)
    }
}
