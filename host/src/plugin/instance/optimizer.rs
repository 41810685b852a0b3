//! Calls on an optimizer, and what it keeps of each parameter.

use std::collections::BTreeMap;
use std::rc::Rc;

use fthost_autograd::optim::StepSettings;
use fthost_autograd::{DType, Device, Parameter, Tensor, Value};
use fthost_plugin_api::abi::draft::optimizer::{OptimizerVtable, UpdateCall};
use fthost_plugin_api::abi::growth::Grows;
use fthost_plugin_api::abi::tables::{Slice, SliceMut, Str};
use fthost_plugin_api::{Elements, StateSpec, field};

use super::{Instance, State, Stateful, json_answer};
use crate::plugin::Plugin;
use crate::plugin::bridge::session::{Failure, Scope, check};
use crate::{Error, Result, memory};

/// An update rule of a plugin, and for each parameter, by name, its states and the number of updates that it has had.
#[derive(Debug)]
pub struct OptimizerInstance {
    rule: Rc<Instance<OptimizerVtable>>,
    slots: BTreeMap<String, Slot>,
}

#[derive(Debug)]
struct Slot {
    step: u64,
    /// By name, in the order that the rule says.
    states: Vec<(String, Tensor)>,
}

impl OptimizerInstance {
    /// Makes an instance of the plugin's optimizer `name`.
    ///
    /// # Errors
    /// Where the plugin has none of that name, or refuses the options.
    pub fn create(plugin: &Plugin, name: &str, config: &serde_json::Value) -> Result<Self> {
        Ok(Self { rule: Rc::new(Instance::create(plugin, name, config)?), slots: BTreeMap::new() })
    }

    /// The same rule, which has updated nothing yet.
    pub fn fresh(&self) -> Self {
        Self { rule: Rc::clone(&self.rule), slots: BTreeMap::new() }
    }

    /// The momentum or beta1 that a schedule may change.
    pub fn momentum(&self) -> Result<f64> {
        let Some(momentum) = self.rule.vtable.get(field!(OptimizerVtable, momentum)) else { return Ok(0.0) };
        self.rule.call("momentum", Scope::default(), |_| {
            let mut answer = 0.0;
            // SAFETY: the plugin's own function on its own instance; `answer` may be written.
            check(unsafe { momentum(self.rule.data, &raw mut answer) })?;
            if (0.0..1.0).contains(&answer) {
                return Ok(answer);
            }
            Err(Failure::Answer(format!("a momentum is at least 0 and below 1, and it gave {answer}")))
        })
    }

    /// What it keeps of a parameter of this name and shape.
    pub fn states(&self, name: &str, shape: &[usize]) -> Result<Vec<StateSpec>> {
        let Some(states) = self.rule.vtable.get(field!(OptimizerVtable, states)) else { return Ok(Vec::new()) };
        self.rule.call("states", Scope::default(), |_| {
            let dims: Vec<u64> = shape.iter().map(|&dim| dim as u64).collect();
            let ask = |sink| {
                // SAFETY: the plugin's own function on its own instance; name and shape live for the call.
                unsafe { states(self.rule.data, Str::new(name), Slice::new(&dims), sink) }
            };
            let specs: Vec<StateSpec> = json_answer(ask)?;
            for (i, spec) in specs.iter().enumerate() {
                let (state, of) = (&spec.name, &spec.shape);
                let most = memory::elements(shape).saturating_mul(MOST).max(MOST);
                if memory::elements(of) > most {
                    return Err(Failure::Answer(format!(
                        "its state {state:?} of {name} {shape:?} would have shape {of:?}: more than {MOST} times its elements"
                    )));
                }
                let twice = specs[..i].iter().any(|other| other.name == spec.name);
                if twice || spec.name.is_empty() || spec.name == STEP {
                    return Err(Failure::Answer(format!("a state cannot be named {:?}", spec.name)));
                }
            }
            Ok(specs)
        })
    }

    /// Updates a parameter in place by its gradient, dense and of its shape.
    pub fn step(&mut self, parameter: &Parameter, gradient: &Tensor, settings: &StepSettings) -> Result<()> {
        let (name, dims) = (parameter.name(), parameter.dims());
        if !self.slots.contains_key(name) {
            let states = self.states(name, dims)?.into_iter();
            let states = states.map(|spec| zeros(spec, name, gradient.device())).collect::<Result<_>>()?;
            self.slots.insert(name.to_owned(), Slot { step: 0, states });
        }
        let Some(slot) = self.slots.get_mut(name) else { return Ok(()) };
        slot.step += 1;
        let (value, states) = update(&self.rule, parameter, gradient, settings, slot)?;
        parameter.set(&value)?;
        for ((_, kept), state) in slot.states.iter_mut().zip(states) {
            *kept = state;
        }
        Ok(())
    }

    /// All state, to be saved: `{parameter}.{state}` and `{parameter}.step`, a scalar `i64`.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for (name, slot) in &self.slots {
            state.insert(format!("{name}.{STEP}"), Tensor::new(slot.step as i64, &Device::Cpu)?);
            state.extend(slot.states.iter().map(|(kind, tensor)| (format!("{name}.{kind}"), tensor.clone())));
        }
        Ok(state)
    }

    /// Replaces all state by what [`state`](Self::state) gave, of parameters with these shapes.
    ///
    /// # Errors
    /// Where it was another rule's.
    pub fn load(
        &mut self,
        state: &BTreeMap<String, Tensor>,
        shape: &dyn Fn(&str) -> Option<Vec<usize>>,
        device: &Device,
    ) -> Result<()> {
        let mut slots = BTreeMap::new();
        for (key, step) in state {
            let Some(name) = key.strip_suffix(&format!(".{STEP}")) else { continue };
            let other = |what: &str| Error::run(format!("the optimizer's state of {name} {what}"));
            let shape = shape(name).ok_or_else(|| other("is of a parameter that this run has not"))?;
            let mut states = Vec::new();
            for spec in self.states(name, &shape)? {
                let kept = state.get(&format!("{name}.{}", spec.name)).ok_or_else(|| other("is another rule's"))?;
                if kept.dims() != spec.shape || kept.dtype() != dtype(spec.elements) {
                    return Err(other(&format!("has {} in another shape or type", spec.name)));
                }
                states.push((spec.name, kept.to_device(device)?));
            }
            let step = step.reshape(())?.to_dtype(DType::I64)?.to_scalar::<i64>()? as u64;
            slots.insert(name.to_owned(), Slot { step, states });
        }
        self.slots = slots;
        Ok(())
    }
}

/// A rule keeps nothing but what it keeps of parameters.
impl Stateful for OptimizerInstance {
    fn save(&self) -> Result<State> {
        Ok(State::default())
    }

    fn load(&mut self, _: &State) -> Result<()> {
        Ok(())
    }
}

/// Elements of a state for each of its parameter's, at most.
const MOST: u128 = 16;
/// Under which the number of updates is saved.
const STEP: &str = "step";

fn dtype(elements: Elements) -> DType {
    match elements {
        Elements::F32 => DType::F32,
        Elements::U8 => DType::U8,
    }
}

/// A state of a parameter before its first update.
fn zeros(spec: StateSpec, parameter: &str, device: &Device) -> Result<(String, Tensor)> {
    let (StateSpec { name, shape, .. }, dtype) = (&spec, dtype(spec.elements));
    // What lies elsewhere takes nothing of this machine's memory.
    if device.is_cpu() {
        let bytes = memory::elements(shape).saturating_mul(dtype.size_in_bytes() as u128);
        let full = |text| Error::run(format!("the optimizer's state {name:?} of {parameter} cannot be made: {text}"));
        memory::room_for(bytes).map_err(full)?;
    }
    let zeros = Tensor::zeros(shape.as_slice(), dtype, device)?;
    Ok((spec.name, zeros))
}

/// Asks the rule for a parameter's new value and states.
fn update(
    rule: &Instance<OptimizerVtable>,
    parameter: &Parameter,
    gradient: &Tensor,
    settings: &StepSettings,
    slot: &Slot,
) -> Result<(Tensor, Vec<Tensor>)> {
    let name = parameter.name();
    rule.call("an update", Scope::default(), |session| {
        let step = rule.need(field!(OptimizerVtable, step))?;
        let lend = |tensor: &Tensor| session.lend(Value::constant(tensor.clone()));
        let value = parameter.tensor();
        let states: Vec<u64> = slot.states.iter().map(|(_, state)| lend(state)).collect();
        let mut outputs = vec![0; 1 + states.len()];
        let call = UpdateCall {
            name: Str::new(name),
            value: lend(&value),
            gradient: lend(gradient),
            states: Slice::new(&states),
            step: slot.step,
            lr: settings.lr,
            momentum: settings.momentum,
            weight_decay: settings.weight_decay,
            outputs: SliceMut::new(&mut outputs),
            ..UpdateCall::EMPTY
        };
        // SAFETY: the plugin's own function on its own instance; the call and its slices live for the call, and its results may be written.
        check(unsafe { step(rule.data, &raw const call) })?;
        // A copy: what it gives may be the parameter's own tensor, which changes in place.
        let take = |handle: u64, what: &str, old: &Tensor| {
            let Some(new) = session.take_optional(handle)? else { return Ok(old.clone()) };
            let (new, same) = (new.tensor().clone(), new.dims() == old.dims() && new.tensor().dtype() == old.dtype());
            if !same {
                let of = |tensor: &Tensor| format!("{:?} of {:?}", tensor.dims(), tensor.dtype());
                return Err(Failure::Answer(format!("its new {what} is {}, and that is {}", of(&new), of(old))));
            }
            new.copy().map_err(|error| Failure::Answer(error.to_string()))
        };
        let new = take(outputs[0], "value", &value)?;
        let states = slot.states.iter().zip(&outputs[1..]);
        let states = states.map(|((name, old), &handle)| take(handle, name, old)).collect::<Result<_, _>>()?;
        Ok((new, states))
    })
}
