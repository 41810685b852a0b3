//! Calls on a task head.

use std::collections::BTreeMap;
use std::sync::Arc;

use fthost_autograd::{Layout, Tape, Tensor, Value};
use fthost_models::ModelInfo;
use fthost_plugin_api::abi::calls::HeadCall;
use fthost_plugin_api::abi::growth::{Field, Grows};
use fthost_plugin_api::abi::tables::{Slice, SliceMut, Status, Str, TaskHeadVtable};
use fthost_plugin_api::{FeatureKind, HeadSpec, PredictionKind, Sampling, StreamFeatures, TaskInfo, field, later};

use super::answers::Answers;
use super::{Instance, State, Stateful, json_answer, json_text};
use crate::Result;
use crate::adapted::AdaptedModel;
use crate::plugin::Plugin;
use crate::plugin::bridge::model_calls::{kind_of, streams};
use crate::plugin::bridge::results;
use crate::plugin::bridge::session::{Declares, Failure, Scope, Session, View, check};
use crate::report::{entities, metrics};

/// A task head made from options.
#[derive(Debug)]
pub struct HeadInstance {
    instance: Instance<TaskHeadVtable>,
    /// What its results are held against, once it has attached.
    answers: Option<Answers>,
}

type Function = unsafe extern "C" fn(*const std::ffi::c_void, *const HeadCall) -> Status;

impl HeadInstance {
    /// Makes an instance of the plugin's task head `name`.
    ///
    /// # Errors
    /// Where the plugin has none of that name, or refuses the options.
    pub fn create(plugin: &Plugin, name: &str, config: &serde_json::Value) -> Result<Self> {
        Ok(Self { instance: Instance::create(plugin, name, config)?, answers: None })
    }

    /// Lets it declare its parameters; says what it reads, by the names of the model's streams: of all of them, or of those that the task
    /// names. `index` is the task's place in the run file.
    pub fn attach(&mut self, task: &TaskInfo, model: &mut AdaptedModel, index: usize) -> Result<HeadSpec> {
        self.instance.run = Some(Arc::clone(model.handles()));
        let prefix = if model.tasks > 1 { format!("{}.", task.name) } else { String::new() };
        let view = View { declares: Declares::Head { task: index, prefix }, ..View::default() };
        let (info, mut streams) = (model.model.info().clone(), streams(model));
        if !task.streams.is_empty() {
            streams.retain(|stream| task.streams.iter().any(|of| of.name == stream.name));
        }
        let names: Vec<String> = streams.iter().map(|stream| stream.name.clone()).collect();
        let declared = self.instance.call("attach", Scope { model: Some(model), view, ..Scope::default() }, |_| {
            let attach = self.instance.need(field!(TaskHeadVtable, attach))?;
            let task = json_text(&TaskInfo { streams, ..task.clone() })?;
            // SAFETY: the plugin's own function on its own instance; the text lives for the call.
            let spec = json_answer(|sink| unsafe { attach(self.instance.data, Str::new(&task), sink) })?;
            of_this_model(spec, &info, &names).map_err(Failure::Answer)
        });
        let spec = declared?;
        self.answers = Some(Answers::new(&spec, task));
        Ok(spec)
    }

    /// From features to outputs. `layout` is that of `[tokens, width]` features.
    pub fn forward(&self, tape: &Tape, features: &Value, layout: &Layout) -> Result<Value> {
        self.forward_streams(tape, &[(features, layout)], None)
    }

    /// From the features of several streams to outputs, in the order that its spec names them. `next` is the token after each, where the head
    /// learns preferences.
    pub fn forward_streams(&self, tape: &Tape, features: &[(&Value, &Layout)], next: Option<&Tensor>) -> Result<Value> {
        self.run("forward", tape, |session| {
            let tensors: Vec<u64> = features.iter().map(|(value, _)| session.lend((*value).clone())).collect();
            let offsets: Vec<Slice<u32>> = features.iter().map(|(_, layout)| Slice::new(layout.offsets())).collect();
            let next: Vec<u64> = next.iter().map(|next| session.lend(Value::constant((*next).clone()))).collect();
            let mut output = [0];
            let call = HeadCall {
                tensors: Slice::new(&tensors),
                offsets: Slice::new(&offsets),
                targets: Slice::new(&next),
                outputs: SliceMut::new(&mut output),
                ..HeadCall::EMPTY
            };
            self.raw(field!(TaskHeadVtable, forward), &call)?;
            let outputs = session.take(output[0])?;
            self.held_against(|answers| answers.outputs(&outputs, features))?;
            self.traced(features.iter().map(|(value, _)| *value), &outputs)?;
            Ok(outputs)
        })
    }

    /// The sum of the loss terms and the sum of their weights. `support` marks the support rows of an episode.
    pub fn loss(&self, tape: &Tape, outputs: &Value, targets: &Tensor, support: &[u8]) -> Result<(Value, f64)> {
        self.run("loss", tape, |session| {
            let lent = outputs;
            let outputs = [session.lend(lent.clone())];
            let targets = [session.lend(Value::constant(targets.clone()))];
            let (mut results, mut weight) = ([0, 0], 0.0);
            let call = HeadCall {
                tensors: Slice::new(&outputs),
                targets: Slice::new(&targets),
                support: Slice::new(support),
                outputs: SliceMut::new(&mut results),
                weight: &raw mut weight,
                ..HeadCall::EMPTY
            };
            self.raw(field!(TaskHeadVtable, loss), &call)?;
            let [sum, weight_tensor] = results;
            let sum = session.take(sum)?;
            results::scalar(&sum, "a loss").map_err(Failure::Answer)?;
            self.traced([lent], &sum)?;
            if let Some(tensor) = session.take_optional(weight_tensor)? {
                weight = number(&tensor)?;
            }
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(Failure::Answer(format!(
                    "the weight of the loss must be a number from 0 up, not {weight}"
                )));
            }
            Ok((sum, weight))
        })
    }

    /// Lets it take what it predicts by from the outputs of training examples and their targets.
    pub fn fit(&self, model: &mut AdaptedModel, outputs: &Tensor, targets: &Tensor) -> Result<()> {
        let Some(fit) = self.instance.vtable.get(field!(TaskHeadVtable, fit)) else { return Ok(()) };
        self.instance.call("fit", Scope { model: Some(model), ..Scope::default() }, |session| {
            let lend = |tensor: &Tensor| [session.lend(Value::constant(tensor.clone()))];
            let (outputs, targets) = (lend(outputs), lend(targets));
            let call = HeadCall { tensors: Slice::new(&outputs), targets: Slice::new(&targets), ..HeadCall::EMPTY };
            // SAFETY: the plugin's own function on its own instance; the call and its slices live for it.
            check(unsafe { fit(self.instance.data, &raw const call) })
        })
    }

    /// What it knows beyond its parameters.
    pub fn state(&self) -> Result<State> {
        self.instance.save()
    }

    /// From outputs to probabilities or values, which are in the form that its spec names.
    ///
    /// # Errors
    /// The plugin's own; where there are more or fewer than rows or classes, of another element type, outside of their range, or no numbers
    /// although the outputs are.
    pub fn predict(&self, tape: &Tape, outputs: &Value) -> Result<Tensor> {
        self.predictions(tape, outputs).map(Value::into_tensor)
    }

    /// As [`predict`](Self::predict), of so many examples: where predictions are those of pixels, there are as many of each.
    pub fn predict_of(&self, tape: &Tape, outputs: &Value, examples: usize) -> Result<Tensor> {
        self.predicted(tape, outputs, Some(examples)).map(Value::into_tensor)
    }

    /// As [`predict`](Self::predict), recorded on the tape.
    pub fn predictions(&self, tape: &Tape, outputs: &Value) -> Result<Value> {
        self.predicted(tape, outputs, None)
    }

    fn predicted(&self, tape: &Tape, lent: &Value, examples: Option<usize>) -> Result<Value> {
        self.run("predict", tape, |session| {
            let (outputs, mut prediction) = ([session.lend(lent.clone())], [0]);
            let call =
                HeadCall { tensors: Slice::new(&outputs), outputs: SliceMut::new(&mut prediction), ..HeadCall::EMPTY };
            self.raw(field!(TaskHeadVtable, predict), &call)?;
            let predicted = session.take(prediction[0])?;
            self.held_against(|answers| answers.predictions(&predicted, lent, examples))?;
            Ok(predicted)
        })
    }

    /// The metrics of its own that its spec names, of all predictions of an evaluation and their targets.
    ///
    /// # Errors
    /// The plugin's own, or where it gives others than it has named.
    pub fn metrics(&self, spec: &HeadSpec, predictions: &Tensor, targets: &Tensor) -> Result<BTreeMap<String, f64>> {
        let scope = Scope::default();
        self.instance.call("metrics", scope, |session| {
            let metrics = self.instance.vtable.need_later(later!(TaskHeadVtable, metrics));
            let metrics = metrics.map_err(|error| Failure::Answer(error.to_string()))?;
            let lend = |tensor: &Tensor| [session.lend(Value::constant(tensor.clone()))];
            let (predictions, targets) = (lend(predictions), lend(targets));
            let call = HeadCall { tensors: Slice::new(&predictions), targets: Slice::new(&targets), ..HeadCall::EMPTY };
            // SAFETY: the plugin's own function on its own instance; the call and its slices live for it.
            let found: BTreeMap<String, Option<f64>> =
                json_answer(|sink| unsafe { metrics(self.instance.data, &raw const call, sink) })?;
            let named: Vec<&String> = spec.metrics.iter().map(|own| &own.name).collect();
            if found.len() != named.len() || !named.iter().all(|name| found.contains_key(*name)) {
                let given: Vec<&String> = found.keys().collect();
                return Err(Failure::Answer(format!("it has named the metrics {named:?} and gave {given:?}")));
            }
            // JSON has no number for what is undefined, and holds null.
            Ok(found.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
        })
    }

    /// Holds a result against what it declared.
    fn held_against(&self, check: impl FnOnce(&Answers) -> Result<(), String>) -> Result<(), Failure> {
        self.answers.as_ref().map_or(Ok(()), check).map_err(Failure::Answer)
    }

    /// Refuses numbers that are none, of numbers that are, where who makes them is looked for.
    fn traced<'a>(&self, inputs: impl IntoIterator<Item = &'a Value>, result: &Value) -> Result<(), Failure> {
        if !self.instance.is_traced() {
            return Ok(());
        }
        results::stays_finite(inputs, result).map_err(Failure::Answer)
    }

    fn run<T>(&self, what: &'static str, tape: &Tape, body: impl FnOnce(&Session) -> Result<T, Failure>) -> Result<T> {
        self.instance.call(what, Scope { tape: Some(tape), ..Scope::default() }, body)
    }

    fn raw(&self, function: Field<TaskHeadVtable, Option<Function>>, call: &HeadCall) -> Result<(), Failure> {
        let function = self.instance.need(function)?;
        // SAFETY: the plugin's own function on its own instance; the call and its slices live for the call, and its results may
        // be written.
        check(unsafe { function(self.instance.data, call) })
    }
}

/// What a head declared, with the streams that it may read by name, `there`: the one stream where it has named none.
pub(in crate::plugin) fn of_this_model(
    mut spec: HeadSpec,
    info: &ModelInfo,
    there: &[String],
) -> Result<HeadSpec, String> {
    check_forwards(&spec)?;
    check_metrics(&spec)?;
    let names = || there.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" and ");
    if spec.streams.is_empty() {
        let [stream] = there else {
            return Err(format!(
                "it reads one stream, and this model has {}: say which by the task's key stream, or choose a head that reads both",
                names()
            ));
        };
        spec.streams = vec![StreamFeatures { stream: stream.clone(), features: spec.features }];
    }
    for (i, StreamFeatures { stream: name, features }) in spec.streams.iter().enumerate() {
        let place = info.stream(name).filter(|_| there.contains(name));
        let Some(stream) = place.map(|place| &info.streams[place]) else {
            let (alone, whose) = match (there.len(), info.streams.len()) {
                (1, 1) => (" alone", "this model has"),
                (1, _) => (" alone", "its task reads"),
                _ => ("", "this model has"),
            };
            return Err(format!("it reads the stream {name:?}, and {whose} {}{alone}", names()));
        };
        if spec.streams[..i].iter().any(|read| read.stream == *name) {
            return Err(format!("it reads the stream {name:?} twice"));
        }
        let reads: Vec<FeatureKind> = stream.reads.iter().map(|read| kind_of(*read)).collect();
        if !reads.contains(features) {
            let given: Vec<&str> = reads.iter().map(|kind| kind.name()).collect();
            return Err(format!(
                "it reads {} features, and the stream {name:?} of this {} model gives {} ones",
                features.name(),
                info.model_type,
                given.join(" and ")
            ));
        }
    }
    spec.features = spec.streams[0].features;
    Ok(spec)
}

/// Passes of a row at most: memory and time grow with them.
const MOST_FORWARDS: u32 = 64;

fn check_forwards(spec: &HeadSpec) -> Result<(), String> {
    let forwards = spec.forwards;
    if !(1..=MOST_FORWARDS).contains(&forwards) {
        return Err(format!(
            "each row is to pass through the model {forwards} times; 1 to {MOST_FORWARDS} are possible"
        ));
    }
    if forwards > 1 && spec.sampling != Sampling::Shuffled {
        return Err("rows of episodes pass through the model once".to_owned());
    }
    Ok(())
}

fn check_metrics(spec: &HeadSpec) -> Result<(), String> {
    let whole = [PredictionKind::Classes, PredictionKind::MultiLabel, PredictionKind::Values];
    if !spec.metrics.is_empty() && !whole.contains(&spec.predictions) {
        return Err(format!("it has metrics of its own, and predictions of {:?} are not all kept", spec.predictions));
    }
    let theirs = metrics::names(spec.predictions, usize::MAX);
    for (i, own) in spec.metrics.iter().enumerate() {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if own.name.is_empty() || !own.name.chars().all(plain) {
            return Err(format!("a metric's name is of lower case, digits and _, and this is {:?}", own.name));
        }
        if theirs.contains(&own.name) || entities::NAMES.contains(&own.name.as_str()) {
            return Err(format!("there is a metric {:?} already: give its own another name", own.name));
        }
        if spec.metrics[..i].iter().any(|other| other.name == own.name) {
            return Err(format!("it names the metric {:?} twice", own.name));
        }
    }
    Ok(())
}

/// A weight as a number.
fn number(tensor: &Value) -> Result<f64, Failure> {
    results::scalar(tensor, "the weight of the loss").map_err(Failure::Answer)?;
    let number = results::numbers(tensor.tensor()).map_err(Failure::Answer)?;
    Ok(number.first().copied().unwrap_or(f64::NAN))
}

/// As errors name it.
impl std::fmt::Display for HeadInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.instance)
    }
}

/// Tasks may have one head together.
impl Stateful for Arc<HeadInstance> {
    fn save(&self) -> Result<State> {
        self.state()
    }

    fn load(&mut self, state: &State) -> Result<()> {
        self.instance.load(state)
    }
}
