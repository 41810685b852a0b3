//! How many triplets are left at each step, and which.

use std::collections::BTreeMap;

use fthost_plugin_api::prelude::*;

use crate::triplets::Layer;

/// The budget along a training, as PEFT's `RankAllocator.budget_schedule`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) init_r: usize,
    pub(crate) target_r: usize,
    /// The last step before the budget falls.
    pub(crate) begin: u64,
    /// The step after which ranks are settled.
    pub(crate) end: u64,
    pub(crate) total_steps: u64,
    /// Steps from one allocation to the next.
    pub(crate) every: u64,
}

impl Schedule {
    /// Whether the gradients of this step, counted from 0, count for importances.
    pub(crate) fn learns(&self, step: u64) -> bool {
        step < self.end
    }

    /// Whether ranks are settled after this step. Where no step comes after the end, the last one settles them: PEFT would have to be
    /// called once more.
    pub(crate) fn settles(&self, step: u64) -> bool {
        step >= self.end || step + 1 == self.total_steps
    }

    /// How many triplets are left of all after this step; `None` where they stay as they are.
    pub(crate) fn budget(&self, step: u64, layers: usize) -> Option<usize> {
        let (all, target) = (self.init_r * layers, self.target_r * layers);
        if self.settles(step) {
            return Some(target);
        }
        if step <= self.begin || step % self.every != 0 {
            return None;
        }
        let share = 1.0 - (step - self.begin) as f64 / (self.end - self.begin) as f64;
        Some(((all - target) as f64 * share.powf(3.0) + target as f64) as usize)
    }
}

/// The importance of a parameter's elements, smoothed.
struct Importance {
    sensitivity: Kept,
    uncertainty: Kept,
}

impl Importance {
    /// After one more step, or the first.
    fn after(before: Option<&Self>, param: &Param, gradient: &Tensor, [beta1, beta2]: [f64; 2]) -> Result<Self> {
        let smoothed = |before: Option<&Kept>, now: &Tensor, beta: f64| {
            let now = now.mul_scalar(1.0 - beta)?;
            before.map_or(Ok(now.mul_scalar(1.0)?), |before| before.tensor().mul_scalar(beta)?.add(&now))
        };
        let now = param.tensor().mul(gradient)?.abs()?;
        let sensitivity = smoothed(before.map(|before| &before.sensitivity), &now, beta1)?;
        let uncertainty = smoothed(before.map(|before| &before.uncertainty), &now.sub(&sensitivity)?.abs()?, beta2)?;
        Ok(Self { sensitivity: sensitivity.keep()?, uncertainty: uncertainty.keep()? })
    }

    fn score(&self) -> Result<Tensor> {
        self.sensitivity.tensor().mul(&self.uncertainty)
    }
}

const SENSITIVITY: &str = "sensitivity.";
const UNCERTAINTY: &str = "uncertainty.";

/// The importances of all triplets' elements, by their parameters' names.
#[derive(Default)]
pub(crate) struct Importances(BTreeMap<String, Importance>);

impl Importances {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes in the step just taken; of one that was left out nothing has a gradient.
    pub(crate) fn learn(&mut self, model: &Model, layers: &[Layer], betas: [f64; 2]) -> Result<()> {
        for param in layers.iter().flat_map(|layer| [&layer.a, &layer.b, &layer.e]) {
            let Some(gradient) = model.gradient(param)? else { continue };
            let after = Importance::after(self.0.get(param.name()), param, &gradient, betas)?;
            self.0.insert(param.name().to_owned(), after);
        }
        Ok(())
    }

    /// Which triplets of each layer are left where the budget is so many of all; `None` where no step has been taken in. As PEFT, it takes
    /// away all that matter no more than the most important of those that have to go.
    pub(crate) fn ranks(&self, layers: &[Layer], budget: usize) -> Result<Option<Vec<Vec<bool>>>> {
        let mut scores = Vec::new();
        for layer in layers {
            let Some(of_layer) = self.scores(layer)? else { return Ok(None) };
            scores.push(of_layer);
        }
        let mut all: Vec<f32> = scores.iter().flatten().copied().collect();
        let threshold = match all.len().saturating_sub(budget) {
            0 => f32::NEG_INFINITY,
            gone => *all.select_nth_unstable_by(gone - 1, f32::total_cmp).1,
        };
        let left = |scores: Vec<f32>| scores.into_iter().map(|score| score > threshold).collect();
        Ok(Some(scores.into_iter().map(left).collect()))
    }

    /// The importance of each triplet of a layer.
    fn scores(&self, layer: &Layer) -> Result<Option<Vec<f32>>> {
        let of = |param: &Param| self.0.get(param.name());
        let (Some(a), Some(b), Some(e)) = (of(&layer.a), of(&layer.b), of(&layer.e)) else { return Ok(None) };
        let vectors = a.score()?.mean_dim(1, false)?.add(&b.score()?.mean_dim(0, false)?)?; // [rank]
        e.score()?.reshape([layer.e.shape()[0]])?.add(&vectors)?.to_vec_f32().map(Some)
    }

    pub(crate) fn save(&self) -> BTreeMap<String, Tensor> {
        let named = |(name, of): (&String, &Importance)| {
            [(SENSITIVITY, &of.sensitivity), (UNCERTAINTY, &of.uncertainty)]
                .map(|(kind, kept)| (format!("{kind}{name}"), kept.tensor()))
        };
        self.0.iter().flat_map(named).collect()
    }

    /// Takes back what [`save`](Self::save) gave.
    ///
    /// # Errors
    /// Where it is of other layers.
    pub(crate) fn load(tensors: &BTreeMap<String, Tensor>, layers: &[Layer]) -> Result<Self> {
        let mut importances = BTreeMap::new();
        let mut taken = 0;
        for param in layers.iter().flat_map(|layer| [&layer.a, &layer.b, &layer.e]) {
            let of = |kind: &str| tensors.get(&format!("{kind}{}", param.name()));
            let (Some(sensitivity), Some(uncertainty)) = (of(SENSITIVITY), of(UNCERTAINTY)) else { continue };
            if sensitivity.shape()? != param.shape() || uncertainty.shape()? != param.shape() {
                return Err(Error::new(format!("the state has {param} in another shape: it is of another model")));
            }
            let importance = Importance { sensitivity: sensitivity.keep()?, uncertainty: uncertainty.keep()? };
            importances.insert(param.name().to_owned(), importance);
            taken += 2;
        }
        match tensors.len() == taken {
            true => Ok(Self(importances)),
            false => Err(Error::new("the state has importances of other layers: it is of another model")),
        }
    }
}
