//! Who is to blame for a step whose loss or gradients are not finite: the step once more, in which each call into a plugin is looked at.
//!
//! While all is well nobody looks: to read what each hook gives would cost every step time.

use fthost_autograd::{DType, Tape, Tensor};

use super::ahead::Shows;
use super::gradients::{BatchGradients, DropoutKey};
use super::step::{Learner, named};
use crate::Result;
use crate::adapted::ModelParameter;
use crate::run::pass::scalar;

/// What was found.
pub(super) struct Cause {
    /// In words.
    pub(super) text: String,
    /// Whether it is a plugin, and no rate would help.
    pub(super) plugin: bool,
}

impl Learner<'_> {
    /// The first that was not finite in a step that has just failed, and changed nothing; `None` where it cannot be told.
    pub(super) fn cause(&self, shows: &[Shows], steps: u64) -> Option<Cause> {
        let of_rate = |text: String| Some(Cause { text, plugin: false });
        let of_plugin = |text: String| Some(Cause { text, plugin: true });
        let broken = |p: &&ModelParameter| !is_finite(&p.parameter.tensor());
        if let Some(text) = named(self.model.trainable().filter(broken).map(|p| p.parameter.name())) {
            return of_rate(format!("these parameters are not finite any more: {text}"));
        }
        let passes = || self.again(shows, steps).try_for_each(|gradients| gradients.map(drop));
        if let Err(error) = self.model.handles().tracing(passes) {
            return of_plugin(error.to_string());
        }
        for regularizer in self.regularizers.iter() {
            let tape = Tape::recording();
            let penalty = match regularizer.penalty(&tape) {
                Ok(Some(penalty)) => penalty,
                Ok(None) => continue,
                Err(error) => return of_plugin(error.to_string()),
            };
            let value = scalar(&penalty).unwrap_or(f64::NAN);
            if !value.is_finite() {
                return of_plugin(format!("the penalty of {regularizer} is {value}"));
            }
            match tape.backward(&penalty).and_then(|gradients| gradients.norm()) {
                Ok(norm) if norm.is_finite() => {}
                _ => return of_plugin(format!("the gradient of the penalty of {regularizer} is not finite")),
            }
        }
        let text = self.broken_gradients(shows, steps).ok().flatten()?;
        of_rate(format!("these gradients are not finite: {text}"))
    }

    /// The gradients of the step once more, batch by batch.
    fn again(&self, shows: &[Shows], steps: u64) -> impl Iterator<Item = Result<BatchGradients>> {
        let mut key = DropoutKey { seed: self.settings.seed, step: steps, first: 0 };
        shows.iter().map(move |seen| {
            let gradients = self.gradients(seen, key, 1.0);
            key.first += seen.batch.rows.len() as u64;
            gradients
        })
    }

    /// The parameters whose gradients are not finite.
    fn broken_gradients(&self, shows: &[Shows], steps: u64) -> Result<Option<String>> {
        for gradients in self.again(shows, steps) {
            let gradients = gradients?.gradients;
            let mut broken = Vec::new();
            for p in self.model.trainable() {
                let Some(gradient) = gradients.get(&p.parameter) else { continue };
                if !is_finite(&gradient.to_dense(p.parameter.dims())?) {
                    broken.push(p.parameter.name());
                }
            }
            if !broken.is_empty() {
                return Ok(named(broken.into_iter()));
            }
        }
        Ok(None)
    }
}

/// By the sum of all sizes, which is finite in `f64` where each of them is one of `f32`.
fn is_finite(tensor: &Tensor) -> bool {
    let sum = || tensor.to_dtype(DType::F64)?.abs()?.sum_all()?.to_scalar::<f64>();
    sum().is_ok_and(f64::is_finite)
}
