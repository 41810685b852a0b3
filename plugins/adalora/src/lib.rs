//! AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): y = W x + b + s B (E * A) x, whose ranks training allocates to the layers.
//!
//! W `[out, in]` is frozen. What is added has the form of a singular value decomposition: right singular vectors A `[init_r, in]`, singular values E
//! `[init_r, 1]`, left singular vectors B `[out, init_r]`; a row of A, its value and a column of B are a triplet. A and B start N(0, 0.02) and E
//! at zero, so step 0 is the base model exactly. The scale s is alpha / (init_r + 1e-5), however many triplets are left. A convolution's x are the patches
//! that its kernel meets.
//!
//! After each step the importance of each element w with the gradient g is smoothed, and the triplets that matter least lose their values:
//!
//! ```text
//! I = |w g|      S = beta1 S + (1 - beta1) I      U = beta2 U + (1 - beta2) |I - S|      of a triplet: S U of E + mean S U of A's row + mean S U of B's column
//! budget(t) = all triplets until tinit, then target + (all - target) (1 - (t - tinit) / (T - tfinal - tinit))^3, the target from T - tfinal on
//! ```
//!
//! Triplets are ranked over all layers, every `delta_t` steps. A value that was set to zero gets gradients and may come back, until the ranks are
//! settled at T - tfinal; from then on it stays zero. As PEFT's tuners/adalora, called after each step with its number from 0.
//!
//! # The penalty
//!
//! Singular vectors are kept orthogonal by a penalty on A and B, orth_reg_weight times the mean of |A A^T - I| and |B^T B - I|. It belongs to the
//! loss, for the optimizer has to see its gradient and importances count it. What belongs to the loss are regularizers, so it is one: this file has two
//! methods of one name, and a run has a table for each. A strategy that moved A and B by itself would be decoupled from the optimizer, which is another
//! method. Neither goes unnoticed alone: the regularizer refuses a model without triplets, and the strategy says after the first step that
//! nothing keeps them orthogonal, which PEFT allows too (`orth_reg_weight = 0`). It knows because E is zero until then: A and B have no
//! gradient but the penalty's.

mod allocation;
mod options;
mod orthogonality;
mod peft;
mod triplets;

use std::collections::BTreeMap;

use fthost_plugin_api::prelude::*;
use fthost_plugin_api::serde_json::from_value;
use fthost_plugin_api::tracing;

use allocation::Importances;
use options::AdaLoraConfig;
use orthogonality::Orthogonality;
use triplets::{Layer, Update};

/// Which triplets of each layer are left, by the layer's path.
type Ranks = BTreeMap<String, Vec<bool>>;

struct AdaLora {
    config: AdaLoraConfig,
    layers: Vec<Layer>,
    /// Layers that an earlier run has left without a triplet.
    without: Vec<String>,
    importances: Importances,
    progress: Progress,
}

/// What a state holds beside the importances.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Progress {
    /// Steps of the training in which ranks are allocated.
    total_steps: Option<u64>,
    /// Whether a step was taken.
    moved: bool,
    /// The ranks, once they are settled.
    settled: Option<Ranks>,
}

impl AdaLora {
    /// Before the first step of a training.
    fn begin(&mut self, total_steps: u64) -> Result<()> {
        // Ranks that are settled stay for the tasks after the first.
        if self.is_settled() {
            return Ok(());
        }
        self.config.schedule(total_steps)?;
        self.progress.total_steps = Some(total_steps);
        self.importances.clear();
        Ok(())
    }

    /// Whether no rank is to be allocated any more.
    fn is_settled(&self) -> bool {
        self.progress.settled.is_some() || !self.config.rank_pattern.is_empty()
    }

    /// After a step.
    fn allocate(&mut self, model: &mut Model, step: u64, total_steps: u64) -> Result<()> {
        self.watch_orthogonality(model)?;
        if self.is_settled() {
            let Some(ranks) = &self.progress.settled else { return Ok(()) };
            return self.layers.iter().try_for_each(|layer| match ranks.get(&layer.path) {
                Some(left) => layer.keep(model, left),
                None => Ok(()),
            });
        }
        let schedule = self.config.schedule(total_steps)?;
        if schedule.learns(step) {
            self.importances.learn(model, &self.layers, [self.config.beta1, self.config.beta2])?;
        }
        if let Some(budget) = schedule.budget(step, self.layers.len()) {
            self.mask(model, budget, schedule.settles(step))?;
        }
        Ok(())
    }

    /// Leaves as many triplets as the budget says.
    fn mask(&mut self, model: &mut Model, budget: usize, settles: bool) -> Result<()> {
        let Some(ranks) = self.importances.ranks(&self.layers, budget)? else { return Ok(()) };
        for (layer, left) in self.layers.iter().zip(&ranks) {
            layer.keep(model, left)?;
        }
        let left = ranks.iter().flatten().filter(|left| **left).count();
        model.log_scalar("rank", left as f64 / self.layers.len() as f64)?;
        if settles {
            self.progress.settled = Some(self.layers.iter().map(|layer| layer.path.clone()).zip(ranks).collect());
            self.importances.clear();
        }
        Ok(())
    }

    /// Says, after the first step that was taken, where A and B got no gradient: E was zero, so what they get is the penalty's.
    fn watch_orthogonality(&mut self, model: &Model) -> Result<()> {
        let Some(layer) = self.layers.first().filter(|_| !self.progress.moved) else { return Ok(()) };
        let Some(gradient) = model.gradient(&layer.a)? else { return Ok(()) };
        self.progress.moved = true;
        if self.config.rank_pattern.is_empty() && gradient.abs()?.sum()?.to_scalar()? == 0.0 {
            tracing::warn!(
                "adalora: nothing keeps the singular vectors orthogonal, which the importance of triplets rests on: add [[regularizer]] plugin = \
                 \"adalora\" to the run file"
            );
        }
        Ok(())
    }

    /// Which triplets of each layer are saved: those that are left, and whose values are not zero, as averages of the weights may be. All,
    /// where ranks are not settled.
    fn saved(&self) -> Result<Option<Vec<Vec<bool>>>> {
        let Some(ranks) = &self.progress.settled else { return Ok(None) };
        let of = |layer: &Layer| {
            let values = layer.e.tensor().to_vec_f32()?;
            let left = ranks.get(&layer.path);
            let is_left = |i: usize| left.is_none_or(|left| left.get(i) == Some(&true));
            Ok(values.iter().enumerate().map(|(i, value)| is_left(i) || *value != 0.0).collect())
        };
        self.layers.iter().map(of).collect::<Result<_>>().map(Some)
    }
}

impl Strategy for AdaLora {
    type Config = AdaLoraConfig;
    const PEFT_TYPE: Option<&'static str> = Some("ADALORA");

    fn options_from_peft(config: &mut PeftConfig) -> Result<Value> {
        peft::to_options(config)
    }

    fn new(config: AdaLoraConfig) -> Result<Self> {
        config.check()?;
        let (importances, progress) = (Importances::default(), Progress::default());
        Ok(Self { config, layers: Vec::new(), without: Vec::new(), importances, progress })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        model.freeze_all()?;
        let sites = model.products(&self.config.targets, self.config.exclude.as_ref())?;
        let ranks = self.config.ranks(model, &sites)?;
        let (scale, dropout) = (self.config.scale(), self.config.dropout);
        for (site, rank) in sites.into_iter().zip(ranks) {
            if rank == 0 {
                self.without.push(site.path);
                continue;
            }
            let vectors = Init::Normal { mean: 0.0, std: 0.02 };
            let a = model.param(&site, "lora_A", [rank, site.in_features], vectors.clone())?;
            let b = model.param(&site, "lora_B", [site.out_features, rank], vectors)?;
            let e = model.param(&site, "lora_E", [rank, 1], Init::Zeros)?;
            model.hook_linear(&site, Update { a: a.clone(), b: b.clone(), e: e.clone(), scale, dropout })?;
            self.layers.push(Layer { path: site.path, a, b, e });
        }
        Ok(())
    }

    fn starts_at_base(&self) -> bool {
        true
    }

    fn on_event(&mut self, event: &Event, model: &mut Model) -> Result<()> {
        match event {
            Event::StepBegin { step: 0, total_steps } => self.begin(*total_steps),
            Event::StepEnd { step, total_steps, .. } => self.allocate(model, *step, *total_steps),
            Event::TaskEnd { task } if !self.is_settled() => {
                tracing::warn!(
                    "adalora: the model that {task} leaves is of a step before its ranks were settled, so each layer has {} triplets: let the best \
                     model be of the end (a greater tfinal), or compare by the last one",
                    self.config.init_r
                );
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn adapter_config(&self) -> Result<Option<Value>> {
        let saved = self.saved()?;
        let left: Option<Ranks> = if self.config.rank_pattern.is_empty() {
            saved.map(|saved| self.layers.iter().map(|layer| layer.path.clone()).zip(saved).collect())
        } else {
            let of_layer = |layer: &Layer| (layer.path.clone(), vec![true; layer.e.shape()[0]]);
            let without = self.without.iter().map(|path| (path.clone(), Vec::new()));
            Some(self.layers.iter().map(of_layer).chain(without).collect())
        };
        Ok(Some(peft::from_options(&self.config, left, self.progress.total_steps)))
    }

    /// PEFT saves the triplets that are left.
    fn adapter_tensors(&self) -> Result<Option<BTreeMap<String, Tensor>>> {
        let Some(saved) = self.saved()? else { return Ok(None) };
        let mut tensors = BTreeMap::new();
        for (layer, left) in self.layers.iter().zip(saved) {
            for (param, tensor) in layer.only(&left)? {
                tensors.insert(param.name().to_owned(), tensor);
            }
        }
        Ok(Some(tensors))
    }

    fn save(&self) -> Result<SavedState> {
        Ok(SavedState { json: json!(self.progress), tensors: self.importances.save() })
    }

    fn load(&mut self, state: SavedState) -> Result<()> {
        let progress: Progress = from_value(state.json)?;
        for (path, left) in progress.settled.iter().flatten() {
            let layer = self.layers.iter().find(|layer| layer.path == *path);
            if layer.is_none_or(|layer| layer.e.shape()[0] != left.len()) {
                return Err(Error::new(format!("the state has ranks of {path}, and it is of another model")));
            }
        }
        self.importances = Importances::load(&state.tensors, &self.layers)?;
        self.progress = progress;
        Ok(())
    }
}

register! {
    /// AdaLoRA: trains low-rank updates in the form of singular value decompositions, and allocates their ranks to the layers that need them.
    Strategy "adalora" => AdaLora,
    /// AdaLoRA's penalty: keeps the singular vectors of its updates orthogonal.
    Regularizer "adalora" => Orthogonality,
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = [
        "abs@1", "add@1", "affine@1", "clamp_min@1", "dropout@1", "index_select@1", "keep@1", "low_rank@1", "matmul@1", "mean_dim@1", "mul@1",
        "reshape@1", "sqrt@1", "squared_distance@1", "sub@1", "sum@1", "transpose@1",
    ],
    min_host_minor = 1,
    about = "AdaLoRA (Zhang et al. 2023, arXiv:2303.10512) as PEFT computes it"
}

#[cfg(test)]
mod tests;
