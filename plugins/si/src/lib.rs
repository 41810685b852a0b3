//! Synaptic intelligence (Zenke et al. 2017, arXiv:1703.04200): what the loss of earlier tasks owes most to moves least.
//!
//! ```text
//! path    = sum over the steps of a task of -g (theta_after - theta_before)
//! omega   = sum over the tasks that are over of path / ((theta_end - theta_begin)^2 + damping)
//! penalty = c sum_i omega_i (theta_i - theta*_i)^2
//! ```
//!
//! g is the gradient by which the step was taken, and theta* the parameters at the end of the last task. The path says how much of the fall of
//! the loss a parameter has to its credit. It is added up while training goes on, so nothing is measured at a task's end. The first task has no
//! penalty. Heads of one task are left out, and a head that several have together is held. As GMvandeVen's continual-learning.

use std::collections::BTreeMap;

use fthost_plugin_api::{prelude::*, serde_json::from_value, tracing};

/// Options of synaptic intelligence.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct SiConfig {
    /// Weight of the penalty.
    #[schemars(extend("exclusiveMinimum" = 0))]
    c: f64,
    /// What is added to the square of a parameter's movement, so that one that has hardly moved is not held for that.
    #[schemars(extend("exclusiveMinimum" = 0))]
    damping: f64,
}

impl Default for SiConfig {
    fn default() -> Self {
        Self { c: 0.1, damping: 0.1 }
    }
}

struct Si {
    config: SiConfig,
    /// The parameters that tasks share, all but those of heads of one task, by name.
    shared: BTreeMap<String, Param>,
    /// Those of them that train now, and all that does, as the host lists it.
    trains: Vec<Param>,
    handles: Vec<u64>,
    /// What trains, as it was before the step that is under way.
    before: Vec<Kept>,
    held: Held,
}

/// By parameter's name what a state holds.
#[derive(Default)]
struct Held {
    /// The path of the task under way.
    path: BTreeMap<String, Kept>,
    /// Where the task under way began, which is where the one before ended.
    anchor: BTreeMap<String, Kept>,
    /// The importances, from the end of the first task on.
    omega: BTreeMap<String, Kept>,
    /// The tasks that are over.
    tasks: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    tasks: Vec<String>,
}

impl Si {
    /// Learns what trains now, and keeps where it is. What has just been thawed has not moved yet.
    fn follow(&mut self, model: &Model) -> Result<()> {
        let handles = model.trainable_handles()?;
        if handles != self.handles {
            let trains = model.trainable_params()?;
            self.trains = trains.into_iter().filter(|param| self.shared.contains_key(param.name())).collect();
            self.handles = handles;
        }
        self.before = self.trains.iter().map(|param| param.tensor().keep()).collect::<Result<_>>()?;
        for (param, before) in self.trains.iter().zip(&self.before) {
            if !self.held.anchor.contains_key(param.name()) {
                self.held.anchor.insert(param.name().to_owned(), before.tensor().keep()?);
            }
        }
        Ok(())
    }

    /// Adds a step to the paths.
    fn walk(&mut self, model: &Model) -> Result<()> {
        for (param, before) in self.trains.iter().zip(std::mem::take(&mut self.before)) {
            let Some(gradient) = model.gradient(param)? else { continue };
            let step = gradient.mul(&before.tensor().sub(param)?)?;
            let path = match self.held.path.get(param.name()) {
                Some(path) => step.add(path)?,
                None => step,
            };
            self.held.path.insert(param.name().to_owned(), path.keep()?);
        }
        Ok(())
    }

    /// Holds what the task that has just ended needs.
    fn consolidate(&mut self, task: &str) -> Result<()> {
        let Held { path, anchor, omega, tasks } = &mut self.held;
        if path.is_empty() && tasks.is_empty() {
            tracing::warn!("si: nothing but the head of {task} has trained, so there is nothing to hold");
        }
        for (name, path) in std::mem::take(path) {
            let (Some(param), Some(from)) = (self.shared.get(&name), anchor.get(&name)) else {
                return Err(Error::new(format!("{name} has trained, and where it began was not kept")));
            };
            let moved = param.tensor().sub(from)?.square()?.add_scalar(self.config.damping)?;
            let mut importance = path.tensor().div(&moved)?;
            if let Some(omega) = omega.get(&name) {
                importance = importance.add(omega)?;
            }
            if !importance.sum()?.to_scalar()?.is_finite() {
                return Err(Error::new(format!("the importance of {name} is not finite: has training diverged?")));
            }
            omega.insert(name, importance.keep()?);
        }
        for (name, anchor) in anchor.iter_mut() {
            if let Some(param) = self.shared.get(name) {
                *anchor = param.tensor().keep()?;
            }
        }
        tasks.push(task.to_owned());
        Ok(())
    }

    /// A part of a state, of the parameters that this model has.
    fn part(&self, tensors: &BTreeMap<String, Tensor>, kind: &str) -> Result<BTreeMap<String, Kept>> {
        let mut part = BTreeMap::new();
        for (key, tensor) in tensors {
            let Some(param) = key.strip_prefix(kind).and_then(|name| self.shared.get(name)) else { continue };
            if tensor.shape()? != param.shape() {
                return Err(Error::new(format!("the state has {key} in another shape: it is of another model")));
            }
            part.insert(param.name().to_owned(), tensor.keep()?);
        }
        Ok(part)
    }
}

const PATH: &str = "path.";
const ANCHOR: &str = "anchor.";
const OMEGA: &str = "omega.";

impl Regularizer for Si {
    type Config = SiConfig;

    fn new(config: SiConfig) -> Result<Self> {
        for (option, value) in [("c", config.c), ("damping", config.damping)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::new(format!("{option} is {value}, and must be above 0")));
            }
        }
        let (trains, handles, before) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { config, shared: BTreeMap::new(), trains, handles, before, held: Held::default() })
    }

    fn attach(&mut self, model: &mut Model) -> Result<()> {
        let shared = model.parameters()?.into_iter().filter(|info| !info.head || info.shared);
        self.shared = shared.map(|info| (info.path.clone(), Param::from(info))).collect();
        Ok(())
    }

    fn penalty(&self) -> Result<Option<Tensor>> {
        let mut sum: Option<Tensor> = None;
        for (name, omega) in &self.held.omega {
            let (Some(param), Some(anchor)) = (self.shared.get(name), self.held.anchor.get(name)) else { continue };
            let term = param.tensor().squared_distance(anchor, Some(omega))?;
            sum = Some(match sum {
                Some(sum) => sum.add(&term)?,
                None => term,
            });
        }
        sum.map(|sum| sum.mul_scalar(self.config.c)).transpose()
    }

    fn on_event(&mut self, event: &Event, model: &mut Model) -> Result<()> {
        match event {
            // Strategies heard it first: what they thaw for this step is thawed now, and has not moved yet.
            Event::StepBegin { .. } => self.follow(model),
            Event::StepEnd { .. } => self.walk(model),
            Event::TaskEnd { task } => self.consolidate(task),
            _ => Ok(()),
        }
    }

    fn save(&self) -> Result<SavedState> {
        let Held { path, anchor, omega, tasks } = &self.held;
        let named = |kind: &'static str, part: &BTreeMap<String, Kept>| {
            part.iter().map(|(name, kept)| (format!("{kind}{name}"), kept.tensor())).collect::<Vec<_>>()
        };
        let tensors = [named(PATH, path), named(ANCHOR, anchor), named(OMEGA, omega)].into_iter().flatten().collect();
        Ok(SavedState { json: json!(Saved { tasks: tasks.clone() }), tensors })
    }

    fn load(&mut self, state: SavedState) -> Result<()> {
        let Saved { tasks } = from_value(state.json)?;
        let part = |kind: &str| self.part(&state.tensors, kind);
        self.held = Held { path: part(PATH)?, anchor: part(ANCHOR)?, omega: part(OMEGA)?, tasks };
        // What trains is asked for again, and where it stands.
        self.handles = Vec::new();
        Ok(())
    }
}

register! {
    /// Synaptic intelligence: holds what earlier tasks' losses owe most to.
    Regularizer "si" => Si
}
export_plugin! {
    license = "MIT OR Apache-2.0",
    ops = ["add@1", "affine@1", "div@1", "keep@1", "mul@1", "square@1", "squared_distance@1", "sub@1", "sum@1"],
    min_host_minor = 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use fthost_plugin_api::test::Host;

    #[test]
    fn what_holds_for_every_regularizer_holds_for_this_one() {
        Host::new().regularizer::<Si>(json!({ "c": 2.0 })).unwrap().check().unwrap();
    }

    #[test]
    fn nothing_is_held_in_the_first_task_and_what_has_moved_after_it() {
        let mut run = Host::new().regularizer::<Si>(json!({})).unwrap();
        assert_eq!(run.penalty().unwrap(), None);
        run.train(1, 3).unwrap();
        assert_eq!(run.penalty().unwrap(), Some(0.0)); // all is where the task has ended
        run.train(1, 3).unwrap();
        run.check_state().unwrap();
    }

    #[test]
    fn refuses_what_cannot_be_meant() {
        for options in [json!({ "c": 0.0 }), json!({ "damping": 0.0 }), json!({ "c": -1.0 }), json!({ "lambda": 1.0 })]
        {
            let made = from_value(options.clone()).map_err(Error::new).and_then(Si::new);
            assert!(made.is_err(), "{options}");
        }
    }
}
