//! Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv:1612.00796): what earlier tasks need most moves least.
//!
//! penalty = lambda / 2 sum_k sum_i F_k,i (theta_i - theta*_k,i)^2 over the tasks k that are over, theta*_k being the parameters at
//! the end of task k and F_k the diagonal of its Fisher information: the mean over examples of the squared gradient of
//! -log p(label), one example at a time, so it depends neither on the batch size nor on the loss's class weights and smoothing. The online form (Schwarz et al. 2018,
//! arXiv:1805.06370) forgets where the earlier tasks ended: F = gamma F_before + F_k and theta* of the last task, with
//! penalty lambda / 2 gamma F (theta - theta*)^2. It is added to the mean loss of each step. The first task has no penalty. Heads of
//! one task are left out, and a head that several have together is held. As GMvandeVen's continual-learning.

use std::collections::BTreeMap;

use fthost_plugin_api::{prelude::*, serde_json::from_value, tracing};

mod terms;

use terms::Terms;

/// Options of EWC.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct EwcConfig {
    /// Weight of the penalty. Depends on the scale of F; 100 to 100000 are usual.
    #[schemars(extend("exclusiveMinimum" = 0))]
    lambda: f64,
    /// Labels of the squared gradients: "sampled" from the model, "empirical" (the data's), or "exact" (all, weighted by their
    /// probability: as many times slower as there are classes).
    labels: FisherLabels,
    /// Training examples that F is measured on, drawn at random; 0 for all.
    examples: u64,
    /// "separate": one term per task. "online": one for all tasks so far.
    form: Form,
    /// What is left of the online form's F after each task; 1 without it.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    gamma: Option<f64>,
}

impl Default for EwcConfig {
    fn default() -> Self {
        Self { lambda: 1000.0, labels: FisherLabels::Sampled, examples: 1000, form: Form::Separate, gamma: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Form {
    Separate,
    Online,
}

struct Ewc {
    config: EwcConfig,
    /// The parameters that tasks share, all but those of heads of one task, by name.
    shared: BTreeMap<String, Param>,
    /// What is held of the tasks that are over.
    terms: Terms,
}

/// What a state holds beside the tensors of the terms.
#[derive(Serialize, Deserialize)]
struct Saved {
    form: Form,
    /// The tasks that are over.
    tasks: Vec<String>,
    /// What of the sum of the terms is no matter of the parameters.
    rest: f64,
}

impl Ewc {
    /// What is left of F after a task.
    fn gamma(&self) -> f64 {
        if self.config.form == Form::Online { self.config.gamma.unwrap_or(1.0) } else { 1.0 }
    }

    /// F of the task that has just ended, of the shared parameters that its loss reaches.
    fn measure(&self, model: &mut Model) -> Result<BTreeMap<String, Tensor>> {
        let mut sums = BTreeMap::<String, Tensor>::new();
        let examples = model.example_gradients(self.config.labels, self.config.examples, |example| {
            let name = example.param.name();
            if self.shared.contains_key(name) {
                let square = example.gradient.square()?;
                let square = if example.weight == 1.0 { square } else { square.mul_scalar(example.weight)? };
                let sum = match sums.remove(name) {
                    Some(sum) => square.add(&sum)?,
                    None => square,
                };
                sums.insert(name.to_owned(), sum);
            }
            Ok(())
        })?;
        for (name, sum) in &mut sums {
            *sum = sum.mul_scalar(1.0 / examples as f64)?;
            if !sum.sum()?.to_scalar()?.is_finite() {
                return Err(Error::new(format!(
                    "the Fisher information of {name} is not finite: has training diverged?"
                )));
            }
        }
        Ok(sums)
    }

    /// Holds what the task that has just ended needs.
    fn consolidate(&mut self, task: &str, model: &mut Model) -> Result<()> {
        let fisher = self.measure(model)?;
        if fisher.is_empty() {
            tracing::warn!("ewc: nothing but the head of {task} has trained, so there is nothing to hold");
        }
        match self.config.form {
            Form::Separate => self.terms.add(&fisher, &self.shared)?,
            Form::Online => self.terms.replace(self.gamma(), fisher, &self.shared)?,
        }
        self.terms.tasks.push(task.to_owned());
        Ok(())
    }
}

impl Regularizer for Ewc {
    type Config = EwcConfig;

    fn new(config: EwcConfig) -> Result<Self> {
        if !(config.lambda.is_finite() && config.lambda > 0.0) {
            return Err(Error::new(format!("lambda is {}, and must be above 0", config.lambda)));
        }
        if config.gamma.is_some() && config.form != Form::Online {
            return Err(Error::new("gamma is the online form's: set form = \"online\", or leave gamma out"));
        }
        if config.gamma.is_some_and(|gamma| gamma <= 0.0 || gamma > 1.0) {
            return Err(Error::new("gamma must be above 0 and at most 1: it is what is left of F after each task"));
        }
        Ok(Self { config, shared: BTreeMap::new(), terms: Terms::default() })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        let shared = model.parameters()?.into_iter().filter(|info| !info.head || info.shared);
        self.shared = shared.map(|info| (info.path.clone(), Param::from(info))).collect();
        Ok(())
    }

    fn penalty(&self) -> Result<Option<Tensor>> {
        self.terms.sum()?.map(|sum| sum.mul_scalar(self.config.lambda / 2.0 * self.gamma())).transpose()
    }

    fn on_event(&mut self, event: &Event, model: &mut Model) -> Result<()> {
        match event {
            // Labels that this task cannot give are an error now, not after its training.
            Event::TaskBegin { .. } => model.example_gradients(self.config.labels, 1, |_| Ok(())).map(drop),
            Event::TaskEnd { task } => self.consolidate(task, model),
            _ => Ok(()),
        }
    }

    fn save(&self) -> Result<SavedState> {
        let json = json!(Saved { form: self.config.form, tasks: self.terms.tasks.clone(), rest: self.terms.rest });
        Ok(SavedState { json, tensors: self.terms.save() })
    }

    fn load(&mut self, state: SavedState) -> Result<()> {
        let Saved { form, tasks, rest } = from_value(state.json)?;
        if form != self.config.form {
            return Err(Error::new(format!("the state is of another form: set form = {}", json!(form))));
        }
        self.terms = Terms::load(tasks, rest, &state.tensors, &self.shared)?;
        Ok(())
    }
}

register! {
    /// EWC: holds what earlier tasks need, by the Fisher information of each parameter.
    Regularizer "ewc" => Ewc
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = [
        "add@1", "affine@1", "clamp_min@1", "div@1", "keep@1", "mul@1", "square@1", "squared_distance@1", "sub@1", "sum@1"
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn refuses_what_cannot_be_meant() {
        let check = |options: Value, expected: &str| {
            let Err(error) = Ewc::new(from_value(options.clone()).unwrap()) else { panic!("{options} is taken") };
            assert!(error.to_string().contains(expected), "{error}");
        };
        check(json!({ "lambda": 0.0 }), "lambda is 0, and must be above 0");
        check(json!({ "gamma": 0.9 }), "set form = \"online\", or leave gamma out");
        check(json!({ "form": "online", "gamma": 0.0 }), "above 0 and at most 1");
    }
}
