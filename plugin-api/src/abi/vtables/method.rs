//! What instances of all kinds have in common.

use std::{collections::BTreeMap, ffi::c_void};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::handles::give_all;
use crate::{
    Event, Result, SavedState, Tensor,
    abi::{
        failure::{Guarded, free},
        growth::Grows,
        tables::{BaseVtable, Instance, Status, Str, TextSink},
    },
};

/// An instance for the host, and the vtable of its kind. Where the functions of this folder say "this instance", `data` is the
/// pointer made here and the host keeps its promise of one exclusive `[run thread]` call at a time.
pub(super) fn instance<T, V>(value: T, vtable: &'static V) -> Instance {
    Instance { data: Box::into_raw(Box::new(Guarded::new(value))).cast(), vtable: std::ptr::from_ref(vtable).cast() }
}

/// Calls into an instance. `[any thread]`
///
/// # Safety
/// `data` is this instance, holding a `T`, and no exclusive call is under way.
pub(super) unsafe fn call<T>(data: *const c_void, body: impl FnOnce(&T) -> Result<()>) -> Status {
    // SAFETY: the caller's promise.
    unsafe { &*data.cast::<Guarded<T>>() }.call(body)
}

/// Calls into an instance that may change. `[run thread]`
///
/// # Safety
/// `data` is this instance, holding a `T`, and no other call is under way.
pub(super) unsafe fn call_mut<T>(data: *mut c_void, body: impl FnOnce(&mut T) -> Result<()>) -> Status {
    // SAFETY: the caller's promise.
    unsafe { &mut *data.cast::<Guarded<T>>() }.call_mut(body)
}

/// What the four traits have in common.
pub(super) trait Method: 'static {
    fn save(&self) -> Result<SavedState>;
    fn load(&mut self, state: SavedState) -> Result<()>;
    fn event(&mut self, event: &Event) -> Result<()>;
}

/// A saved state on the wire.
#[derive(Serialize, Deserialize)]
struct WireState {
    #[serde(default)]
    json: Value,
    #[serde(default)]
    tensors: BTreeMap<String, u64>,
}

pub(super) const fn base<M: Method>(struct_size: usize) -> BaseVtable {
    unsafe extern "C" fn save<M: Method>(data: *const c_void, sink: TextSink) -> Status {
        let body = |method: &M| {
            let state = method.save()?;
            let text = serde_json::to_string(&WireState { json: state.json, tensors: give_all(state.tensors)? })?;
            // SAFETY: the sink belongs to this call.
            unsafe { sink.put(&text) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    unsafe extern "C" fn load<M: Method>(data: *mut c_void, state: Str) -> Status {
        let body = |method: &mut M| {
            // SAFETY: the host lends the text for this call.
            let state: WireState = serde_json::from_str(unsafe { state.as_str()? })?;
            let tensors = state.tensors.into_iter().map(|(name, handle)| (name, Tensor::owned(handle))).collect();
            method.load(SavedState { json: state.json, tensors })
        };
        // SAFETY: the host passes this instance.
        unsafe { call_mut(data, body) }
    }
    unsafe extern "C" fn event<M: Method>(data: *mut c_void, event: Str) -> Status {
        let body = |method: &mut M| {
            // SAFETY: the host lends the text for this call.
            let text = unsafe { event.as_str()? };
            let Ok(event) = serde_json::from_str(text) else {
                tracing::debug!("an event of a newer host, not for this plugin: {text}");
                return Ok(());
            };
            method.event(&event)
        };
        // SAFETY: the host passes this instance.
        unsafe { call_mut(data, body) }
    }
    BaseVtable {
        struct_size: struct_size as u32,
        drop: Some(free::<M>),
        save: Some(save::<M>),
        load: Some(load::<M>),
        event: Some(event::<M>),
        ..BaseVtable::EMPTY
    }
}
