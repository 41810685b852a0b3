//! The table of an optimizer.

use std::ffi::c_void;

use super::method::{Method, base, call, instance};
use crate::{
    Error, Event, Optimizer, Result, SavedState, Tensor, Update, Updated,
    abi::{
        draft::optimizer::{OptimizerVtable, UpdateCall},
        growth::Theirs,
        tables::{Instance, Slice, Status, Str, TextSink},
    },
    field,
};

struct AsOptimizer<O>(O);

/// A rule has no state but that of parameters.
impl<O: Optimizer> Method for AsOptimizer<O> {
    fn save(&self) -> Result<SavedState> {
        Ok(SavedState::default())
    }
    fn load(&mut self, _: SavedState) -> Result<()> {
        Ok(())
    }
    fn event(&mut self, _: &Event) -> Result<()> {
        Ok(())
    }
}

pub(crate) fn optimizer<O: Optimizer>(optimizer: O) -> Instance {
    unsafe extern "C" fn momentum<O: Optimizer>(data: *const c_void, out: *mut f64) -> Status {
        let body = |method: &AsOptimizer<O>| {
            // SAFETY: `out` is the host's place for the result.
            unsafe { out.write(method.0.momentum()) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    unsafe extern "C" fn states<O: Optimizer>(
        data: *const c_void,
        name: Str,
        shape: Slice<u64>,
        sink: TextSink,
    ) -> Status {
        let body = |method: &AsOptimizer<O>| {
            // SAFETY: the host lends name and shape for this call.
            let (name, shape) = unsafe { (name.as_str()?, shape.as_slice()) };
            let shape: Vec<usize> = shape.iter().map(|&dim| dim as usize).collect();
            let text = serde_json::to_string(&method.0.states(name, &shape)?)?;
            // SAFETY: the sink belongs to this call.
            unsafe { sink.put(&text) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    unsafe extern "C" fn step<O: Optimizer>(data: *const c_void, update: *const UpdateCall) -> Status {
        let body = |method: &AsOptimizer<O>| {
            // SAFETY: the host lends the call and what it points to for this call, and lets us write the outputs.
            let (update, outputs) = unsafe {
                let call = Theirs::new(update)?;
                let states: &[u64] = call.get(field!(UpdateCall, states)).as_slice();
                let update = Update {
                    name: call.get(field!(UpdateCall, name)).as_str()?,
                    value: Tensor::borrowed(call.get(field!(UpdateCall, value))),
                    gradient: Tensor::borrowed(call.get(field!(UpdateCall, gradient))),
                    states: states.iter().map(|&state| Tensor::borrowed(state)).collect(),
                    step: call.get(field!(UpdateCall, step)),
                    lr: call.get(field!(UpdateCall, lr)),
                    momentum: call.get(field!(UpdateCall, momentum)),
                    weight_decay: call.get(field!(UpdateCall, weight_decay)),
                };
                (update, call.get(field!(UpdateCall, outputs)).as_mut_slice())
            };
            let Updated { value, states } = method.0.step(&update)?;
            if states.len() != update.states.len() || outputs.len() != 1 + states.len() {
                let (given, kept) = (states.len(), update.states.len());
                return Err(Error::new(format!("an update gives each state anew: {given} came, and there are {kept}")));
            }
            for (place, tensor) in outputs.iter_mut().zip(std::iter::once(value).chain(states)) {
                *place = tensor.give()?;
            }
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    instance(
        AsOptimizer(optimizer),
        const {
            &OptimizerVtable {
                base: base::<AsOptimizer<O>>(size_of::<OptimizerVtable>()),
                momentum: Some(momentum::<O>),
                states: Some(states::<O>),
                step: Some(step::<O>),
            }
        },
    )
}
