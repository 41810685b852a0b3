//! The table of a strategy.

use std::ffi::c_void;

use super::{
    handles::give_all,
    method::{Method, base, call, call_mut, instance},
};
use crate::{
    Event, Model, Result, SavedState, Strategy,
    abi::{
        growth::Grows,
        tables::{Instance, Status, StrategyVtable, TextSink},
    },
};

struct AsStrategy<S>(S);

impl<S: Strategy> Method for AsStrategy<S> {
    fn save(&self) -> Result<SavedState> {
        self.0.save()
    }
    fn load(&mut self, state: SavedState) -> Result<()> {
        self.0.load(state)
    }
    fn event(&mut self, event: &Event) -> Result<()> {
        self.0.on_event(event, &mut Model::new())
    }
}

pub(crate) fn strategy<S: Strategy>(strategy: S) -> Instance {
    unsafe extern "C" fn attach<S: Strategy>(data: *mut c_void) -> Status {
        // SAFETY: the host passes this instance.
        unsafe { call_mut(data, |method: &mut AsStrategy<S>| method.0.attach(&mut Model::new())) }
    }
    unsafe extern "C" fn adapter_config<S: Strategy>(data: *const c_void, sink: TextSink) -> Status {
        let body = |method: &AsStrategy<S>| {
            let text = serde_json::to_string(&method.0.adapter_config()?)?;
            // SAFETY: the sink belongs to this call.
            unsafe { sink.put(&text) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    unsafe extern "C" fn adapter_tensors<S: Strategy>(data: *const c_void, sink: TextSink) -> Status {
        let body = |method: &AsStrategy<S>| {
            let text = serde_json::to_string(&method.0.adapter_tensors()?.map(give_all).transpose()?)?;
            // SAFETY: the sink belongs to this call.
            unsafe { sink.put(&text) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    unsafe extern "C" fn starts_at_base<S: Strategy>(data: *const c_void, out: *mut u32) -> Status {
        let body = |method: &AsStrategy<S>| {
            // SAFETY: `out` is the host's place for the result.
            unsafe { out.write(u32::from(method.0.starts_at_base())) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    instance(
        AsStrategy(strategy),
        const {
            &StrategyVtable {
                base: base::<AsStrategy<S>>(size_of::<StrategyVtable>()),
                attach: Some(attach::<S>),
                adapter_config: Some(adapter_config::<S>),
                adapter_tensors: Some(adapter_tensors::<S>),
                starts_at_base: Some(starts_at_base::<S>),
                ..StrategyVtable::EMPTY
            }
        },
    )
}
