//! Calls on a strategy.

use std::collections::BTreeMap;
use std::sync::Arc;

use fthost_autograd::{Tensor, Value};
use fthost_plugin_api::abi::tables::StrategyVtable;
use fthost_plugin_api::{Event, field};

use super::{Instance, State, Stateful, json_answer, take_all};
use crate::Result;
use crate::adapted::AdaptedModel;
use crate::plugin::bridge::results;
use crate::plugin::bridge::session::{Declares, Failure, Scope, View, check};
use crate::plugin::{ExampleGradients, Plugin};

/// A strategy made from options.
#[derive(Debug)]
pub struct StrategyInstance(Instance<StrategyVtable>);

impl StrategyInstance {
    /// Makes an instance of the plugin's strategy `name`.
    ///
    /// # Errors
    /// Where the plugin has none of that name, or refuses the options.
    pub fn create(plugin: &Plugin, name: &str, config: &serde_json::Value) -> Result<Self> {
        Instance::create(plugin, name, config).map(Self)
    }

    /// Has it see this stream of the model as if there were no other; all of it for `None`. To be said before it attaches.
    #[must_use]
    pub fn within(mut self, stream: Option<usize>) -> Self {
        self.0.stream = stream;
        self
    }

    /// Lets it declare what trains and set its hooks. `index` is its place in the run file.
    pub fn attach(&mut self, model: &mut AdaptedModel, index: usize) -> Result<()> {
        self.0.run = Some(Arc::clone(model.handles()));
        let view = View { declares: Declares::Strategy(index), stream: self.0.stream };
        let scope = Scope { model: Some(model), view, ..Scope::default() };
        self.0.call("attach", scope, |_| {
            let attach = self.0.need(field!(StrategyVtable, attach))?;
            // SAFETY: the plugin's own function on its own instance.
            check(unsafe { attach(self.0.data) })
        })
    }

    /// Whether it says that the model with it attached still computes what the base model does.
    pub fn starts_at_base(&self) -> Result<bool> {
        let Some(starts_at_base) = self.0.vtable.get(field!(StrategyVtable, starts_at_base)) else { return Ok(false) };
        self.0.call("starts_at_base", Scope::default(), |_| {
            let mut answer = 0;
            // SAFETY: the plugin's own function on its own instance; `answer` may be written.
            check(unsafe { starts_at_base(self.0.data, &raw mut answer) })?;
            results::yes_or_no(answer).map_err(Failure::Answer)
        })
    }

    /// Tells it what happened; it may freeze and thaw, and with `gradients` measure.
    pub fn event(
        &mut self,
        event: &Event,
        model: &mut AdaptedModel,
        gradients: Option<&mut dyn ExampleGradients>,
    ) -> Result<()> {
        self.0.event(event, model, gradients)
    }

    /// The fields of PEFT's `adapter_config.json`, where PEFT knows the method.
    pub fn adapter_config(&self) -> Result<Option<serde_json::Value>> {
        let Some(adapter_config) = self.0.vtable.get(field!(StrategyVtable, adapter_config)) else { return Ok(None) };
        self.0.call("adapter_config", Scope::default(), |_| {
            // SAFETY: the plugin's own function on its own instance.
            let config: Option<serde_json::Value> = json_answer(|sink| unsafe { adapter_config(self.0.data, sink) })?;
            match &config {
                Some(fields) if !fields["peft_type"].is_string() => Err(Failure::Answer(format!(
                    "adapter_config.json is an object with a peft_type, and it gave {fields}"
                ))),
                _ => Ok(config),
            }
        })
    }

    /// What is saved in PEFT's form for its parameters, where it is not they themselves.
    pub fn adapter_tensors(&self) -> Result<Option<BTreeMap<String, Tensor>>> {
        let Some(adapter_tensors) = self.0.vtable.get(field!(StrategyVtable, adapter_tensors)) else { return Ok(None) };
        self.0.call("adapter_tensors", Scope::default(), |session| {
            // SAFETY: the plugin's own function on its own instance.
            let handles: Option<_> = json_answer(|sink| unsafe { adapter_tensors(self.0.data, sink) })?;
            let tensors = handles.map(|handles| take_all(session, handles)).transpose()?;
            for (name, tensor) in tensors.iter().flatten() {
                results::floats(&Value::constant(tensor.clone()))
                    .and_then(|()| match results::are_finite(tensor) {
                        true => Ok(()),
                        false => Err("it has numbers that are not finite".to_owned()),
                    })
                    .map_err(|text| Failure::Answer(format!("its tensor {name:?}: {text}")))?;
            }
            Ok(tensors)
        })
    }
}

impl Stateful for StrategyInstance {
    fn save(&self) -> Result<State> {
        self.0.save()
    }

    fn load(&mut self, state: &State) -> Result<()> {
        self.0.load(state)
    }
}
