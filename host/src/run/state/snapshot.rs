//! All that a run is after a step: what a checkpoint holds, and how it is put back.

use std::collections::BTreeMap;
use std::path::Path;

use fthost_autograd::optim::LossScaler;
use fthost_autograd::{Parameter, Precision, Tensor};
use serde::{Deserialize, Serialize};

use super::checkpoint;
use super::identity::Identity;
use super::optimizer::Optimizer;
use super::watch::Watch;
use crate::adapted::{AdaptedModel, ModelParameter, Owner};
use crate::plugin::{State, Stateful};
use crate::{Error, Result};

/// The form of the files. A host reads those of its own form.
const FORM: u32 = 2;

/// Where a training stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TrainState {
    /// The figures so far; `steps` is the place in the data.
    pub trained: Trained,
    /// The phase under way.
    pub phase: Place,
    /// Losses of the epoch under way: their sum and number.
    pub epoch_loss: (f64, u64),
    /// The phase's monitored metric, where there are validation examples.
    pub watch: Option<Watch>,
    /// The monitored metrics of the phases that are over.
    pub watched: Vec<Option<Watch>>,
    /// Metrics on all test examples at the end of each phase, where there are several.
    pub sequence: Vec<After>,
    /// Loss scale and steps since its last change, where losses are scaled.
    pub loss_scale: Option<(f64, u64)>,
    /// Parameters that train and that the last steps of their tasks gave no gradient, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub without_gradient: BTreeMap<String, Without>,
    /// By task, metrics on the test examples before training, where the run file asks for them.
    #[serde(deserialize_with = "undefined_as_nan")]
    pub before: BTreeMap<String, BTreeMap<String, f64>>,
}

/// For how long a parameter has had no gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Without {
    /// The first step without, counted from 1.
    pub since: u64,
    /// Steps since then that should have given one.
    pub steps: u64,
}

/// Figures of a training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Wall-clock seconds of the loop, evaluation left out; of all processes, where the run was resumed.
    pub seconds: f64,
    /// Seconds of these in which steps waited for pictures that were not ready yet.
    #[serde(default)]
    pub waited_seconds: f64,
    /// Optimizer steps.
    pub steps: u64,
    /// Steps whose gradients overflowed in `f16` and were left out.
    pub skipped_steps: u64,
    /// Steps in which no example counted in the loss, and which were left out.
    pub empty_steps: u64,
    /// Examples seen.
    pub samples: u64,
    /// Tokens (or patches) seen.
    pub tokens: u64,
    /// Mean loss of the last epoch's steps.
    pub loss: f64,
    /// The process's peak resident memory.
    pub peak_rss_bytes: u64,
    /// Seconds from the start of the process to the end of the first step.
    pub first_step_seconds: f64,
    /// Share of the trainable parameters that received a gradient in the first step. Anything below 1 is an error.
    pub parameters_with_gradient: f64,
}

/// A phase of the run, and where it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Phases that are over.
    pub number: usize,
    /// Optimizer steps of these.
    pub began: u64,
}

/// What the model does at the end of a task, where tasks train in sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct After {
    /// The task that has just been trained.
    pub task: String,
    /// Metrics on the test examples, by task and name.
    #[serde(deserialize_with = "undefined_as_nan")]
    pub metrics: BTreeMap<String, BTreeMap<String, f64>>,
}

/// Metrics by task: JSON has no number for what is undefined, and holds null.
fn undefined_as_nan<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<BTreeMap<String, BTreeMap<String, f64>>, D::Error> {
    let read = BTreeMap::<String, BTreeMap<String, Option<f64>>>::deserialize(deserializer)?;
    let defined = |metrics: BTreeMap<String, Option<f64>>| {
        metrics.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect()
    };
    Ok(read.into_iter().map(|(task, metrics)| (task, defined(metrics))).collect())
}

impl TrainState {
    /// The state before the first step.
    pub fn begin(precision: Precision) -> Self {
        let scaler = (precision == Precision::F16).then(LossScaler::default);
        let loss_scale = scaler.map(|scaler| (scaler.scale(), scaler.steady()));
        Self { loss_scale, ..Self::default() }
    }

    /// Optimizer steps of the phase so far.
    pub fn phase_steps(&self) -> u64 {
        self.trained.steps - self.phase.began
    }

    /// The phase is over; the next one begins.
    pub fn end_phase(&mut self) {
        self.watched.push(self.watch.take());
        self.phase = Place { number: self.phase.number + 1, began: self.trained.steps };
    }

    /// The loss scaler as it stands.
    pub fn scaler(&self) -> Option<LossScaler> {
        self.loss_scale.map(|(scale, steady)| LossScaler::restore(scale, steady))
    }
}

/// What stands in a checkpoint beside its tensors.
#[derive(Debug, Serialize, Deserialize)]
pub struct Header {
    form: u32,
    /// What the run's numbers follow from.
    pub identity: Identity,
    /// Where the training stands.
    pub state: TrainState,
    /// Length of `metrics.jsonl`, in bytes.
    pub log_position: u64,
    #[serde(flatten)]
    changed: Changed,
}

/// What a run has made of the model, beside the tensors: with them all that differs from the pretrained model, or may. Checkpoints, the
/// best model and the result hold it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Changed {
    /// Names of the parameters that train now.
    trainable: Vec<String>,
    /// Learning-rate factors that are not 1.
    lr_factors: BTreeMap<String, f64>,
    /// Whether weight decay applies, where plugins have said it.
    decay: BTreeMap<String, bool>,
    /// The plugins' states: JSON by the instance's place.
    plugins: BTreeMap<String, serde_json::Value>,
}

/// The parts of a run that change while it trains.
pub struct Parts<'a> {
    /// The model with what plugins added.
    pub model: &'a mut AdaptedModel,
    /// Every plugin's instance, by its place: `strategy.0`.
    pub plugins: Vec<(String, &'a mut dyn Stateful)>,
    /// The optimizer.
    pub optimizer: &'a mut Optimizer,
}

/// The file of a run folder that holds what the run's result needs besides the model's own weights.
pub const FINAL: &str = "state.safetensors";

/// The place of a strategy's state.
pub fn strategy_place(index: usize) -> String {
    format!("strategy.{index}")
}

/// The place of a regularizer's state.
pub fn regularizer_place(index: usize) -> String {
    format!("regularizer.{index}")
}

/// The place of the state of a task's head.
pub fn head_place(task: &str) -> String {
    format!("head.{task}")
}

/// The place of the state of a schedule that is for a stream, or for none.
pub fn schedule_place(stream: Option<&str>) -> String {
    stream.map_or_else(|| "schedule".to_owned(), |stream| format!("schedule.{stream}"))
}

impl Header {
    /// Gives a plugin its state back.
    pub fn restore_plugin(
        &self,
        place: &str,
        plugin: &mut dyn Stateful,
        tensors: &BTreeMap<String, Tensor>,
    ) -> Result<()> {
        self.changed.restore_plugin(place, plugin, tensors)
    }

    /// The state that a plugin had.
    pub(crate) fn plugin_state(&self, place: &str, tensors: &BTreeMap<String, Tensor>) -> State {
        self.changed.plugin_state(place, tensors)
    }
}

impl Changed {
    fn restore_plugin(&self, place: &str, plugin: &mut dyn Stateful, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        plugin.load(&self.plugin_state(place, tensors))
    }

    fn plugin_state(&self, place: &str, tensors: &BTreeMap<String, Tensor>) -> State {
        let json = self.plugins.get(place).cloned().unwrap_or_default();
        State { json, tensors: below(tensors, &format!("{place}/")) }
    }
}

/// Gives a regularizer the state that one of the same name had at the end of an earlier run.
///
/// # Errors
/// Where the folder is none of a run that has ended, or the run had no such regularizer.
pub fn load_earlier(run: &Path, name: &str, regularizer: &mut dyn Stateful) -> Result<()> {
    let found = checkpoint::open::<Header>(&run.join(FINAL))?;
    let file: toml::Table = found
        .header
        .identity
        .run_file
        .parse()
        .map_err(|error| Error::usage(format!("the run file in {} does not read: {error}", run.display())))?;
    let named = |table: &toml::Value| table.get("plugin").and_then(toml::Value::as_str) == Some(name);
    let place = file.get("regularizer").and_then(toml::Value::as_array).and_then(|all| all.iter().position(named));
    let place =
        place.ok_or_else(|| Error::usage(format!("the run in {} had no regularizer {name:?}", run.display())))?;
    found.header.restore_plugin(&regularizer_place(place), regularizer, &found.tensors)
}

const PARAMETER: &str = "parameter/";
const OPTIMIZER: &str = "optimizer/";

impl Parts<'_> {
    /// What a checkpoint holds of them.
    pub fn capture(
        &self,
        identity: Identity,
        state: TrainState,
        log_position: u64,
    ) -> Result<(Header, BTreeMap<String, Tensor>)> {
        let (changed, mut tensors) = self.changed()?;
        for (name, tensor) in self.optimizer.state()? {
            tensors.insert(format!("{OPTIMIZER}{name}"), tensor);
        }
        Ok((Header { form: FORM, identity, state, log_position, changed }, tensors))
    }

    /// What the run has made of the model so far: what the best model is put back from.
    pub fn changed(&self) -> Result<(Changed, BTreeMap<String, Tensor>)> {
        let mut tensors = parameters(self.model);
        let mut plugins = BTreeMap::new();
        for (place, plugin) in &self.plugins {
            let State { json, tensors: own } = plugin.save()?;
            plugins.insert(place.clone(), json);
            tensors.extend(own.into_iter().map(|(name, tensor)| (format!("{place}/{name}"), tensor)));
        }
        let name = |p: &ModelParameter| p.parameter.name().to_owned();
        let all = || self.model.parameters.iter();
        let changed = Changed {
            trainable: self.model.trainable().map(name).collect(),
            lr_factors: all().filter(|p| p.lr_factor != 1.0).map(|p| (name(p), p.lr_factor)).collect(),
            decay: all().filter_map(|p| Some((name(p), p.decay_said?))).collect(),
            plugins,
        };
        Ok((changed, tensors))
    }

    /// Puts everything back as it was captured.
    ///
    /// # Errors
    /// Where the checkpoint does not fit; it was another run's then.
    pub fn restore(&mut self, header: &Header, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        if header.form != FORM {
            return Err(Error::usage(format!("the checkpoint has form {}, and this fthost reads {FORM}", header.form)));
        }
        self.restore_changed(&header.changed, tensors)?;
        self.optimizer.load(&below(tensors, OPTIMIZER), self.model)
    }

    /// Puts the best model back as it was evaluated. What has begun to train or was set since then had its pretrained value, and gets
    /// it again; `pretrained` reads the model anew and is called only where there is such a parameter.
    pub fn restore_best(
        &mut self,
        changed: &Changed,
        tensors: &BTreeMap<String, Tensor>,
        pretrained: &dyn Fn() -> Result<AdaptedModel>,
    ) -> Result<()> {
        let then = |p: &ModelParameter| tensors.contains_key(&format!("{PARAMETER}{}", p.parameter.name()));
        let since: Vec<&ModelParameter> = self.model.parameters.iter().filter(|p| p.trained() && !then(p)).collect();
        if !since.is_empty() {
            let pretrained = pretrained()?;
            let values = pretrained.parameters.iter().map(|p| (p.parameter.name(), &p.parameter));
            let values: BTreeMap<&str, &Parameter> = values.collect();
            for ModelParameter { parameter, .. } in since {
                let value = values.get(parameter.name()).ok_or_else(|| unknown(parameter.name()))?;
                parameter.set(&value.tensor())?;
            }
        }
        self.restore_changed(changed, tensors)
    }

    fn restore_changed(&mut self, changed: &Changed, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        restore_parameters(self.model, tensors)?;
        for parameter in &mut self.model.parameters {
            let name = parameter.parameter.name();
            parameter.lr_factor = changed.lr_factors.get(name).copied().unwrap_or(1.0);
            parameter.decay_said = changed.decay.get(name).copied();
            parameter.parameter.set_trainable(changed.trainable.iter().any(|trainable| trainable == name));
        }
        for (place, plugin) in &mut self.plugins {
            changed.restore_plugin(place, *plugin, tensors)?;
        }
        Ok(())
    }

    /// What the result needs: everything but the optimizer's state. Where a whole model is saved, `whole` gives the other parameters'
    /// names once that is opened again, and the base parameters are left out.
    pub fn capture_final(
        &self,
        identity: Identity,
        state: TrainState,
        whole: Option<&dyn Fn(&str) -> String>,
    ) -> Result<(Header, BTreeMap<String, Tensor>)> {
        let (changed, mut tensors) = self.changed()?;
        if let Some(named) = whole {
            for p in &self.model.parameters {
                let name = p.parameter.name();
                let tensor = tensors.remove(&format!("{PARAMETER}{name}"));
                if let Some(tensor) = tensor.filter(|_| p.owner != Owner::Base) {
                    tensors.insert(format!("{PARAMETER}{}", named(name)), tensor);
                }
            }
        }
        Ok((Header { form: FORM, identity, state, log_position: 0, changed }, tensors))
    }
}

/// The parameters that differ from the pretrained model's, or may, as a checkpoint names them.
fn parameters(model: &AdaptedModel) -> BTreeMap<String, Tensor> {
    let trained = model.parameters.iter().filter(|p| p.trained());
    trained.map(|p| (format!("{PARAMETER}{}", p.parameter.name()), p.parameter.tensor())).collect()
}

/// Gives the parameters that a checkpoint names their values.
pub fn restore_parameters(model: &AdaptedModel, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    for (name, tensor) in below(tensors, PARAMETER) {
        let Some(known) = model.parameters.iter().find(|p| p.parameter.name() == name) else {
            return Err(unknown(&name));
        };
        known.parameter.set(&tensor.to_device(&model.device)?)?;
    }
    Ok(())
}

fn unknown(name: &str) -> Error {
    Error::run(format!("the checkpoint has a parameter {name}, and this run has none"))
}

/// The tensors whose names begin with `prefix`, without it.
fn below(tensors: &BTreeMap<String, Tensor>, prefix: &str) -> BTreeMap<String, Tensor> {
    let named = |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()));
    tensors.iter().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undefined_metrics_survive_a_checkpoint() {
        let metrics = BTreeMap::from([("t".to_owned(), BTreeMap::from([("roc_auc".to_owned(), f64::NAN)]))]);
        let sequence = vec![After { task: "t".into(), metrics: metrics.clone() }];
        let state = TrainState { before: metrics, sequence, ..TrainState::default() };
        let back: TrainState = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        assert!(back.before["t"]["roc_auc"].is_nan() && back.sequence[0].metrics["t"]["roc_auc"].is_nan());
    }
}
