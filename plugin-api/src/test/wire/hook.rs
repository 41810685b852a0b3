//! A plugin's hook as the toy model calls it: each call is a session of its own.

use std::{ffi::c_void, sync::Arc};

use crate::{
    Error, Result,
    abi::{
        calls::HookCall,
        growth::{Grows, Theirs},
        tables::{HookVtable, Slice, SliceMut, Status},
    },
    field,
    test::{
        run::{Answer, Function, Hook, Run},
        session::{self, Scope},
        value::Value,
    },
};

type Raw = unsafe extern "C" fn(*const c_void, *const HookCall) -> Status;

/// A hook that a plugin set.
pub(super) struct Set {
    kind: u32,
    data: *mut c_void,
    vtable: Theirs<'static, HookVtable>,
    site: String,
    position_shift: usize,
}

// SAFETY: the API has hooks be Send and Sync: `forward` and `input` may come from several threads at once, the others come on the
// run's thread.
unsafe impl Send for Set {}
// SAFETY: as above.
unsafe impl Sync for Set {}

impl Drop for Set {
    fn drop(&mut self) {
        if let Some(drop) = self.vtable.get(field!(HookVtable, drop)) {
            // SAFETY: the host owns `data`, nobody uses it any more, and the vtable was made for it.
            unsafe { drop(self.data) }
        }
    }
}

impl Set {
    /// Takes a hook over. Dropping it frees it.
    pub(super) fn new(kind: u32, data: *mut c_void, vtable: Theirs<'static, HookVtable>) -> Self {
        Self { kind, data, vtable, site: String::new(), position_shift: 0 }
    }

    /// Asks what is asked once, when it is set.
    pub(super) fn prepare(&mut self, site: &str) -> Result<()> {
        self.site = site.to_owned();
        self.vtable.need(field!(HookVtable, forward))?;
        if !(1..=4).contains(&self.kind) {
            return Err(Error::new(format!("there is no kind {} of hooks; the mock host knows 1 to 4", self.kind)));
        }
        let Some(function) = self.vtable.get(field!(HookVtable, position_shift)) else { return Ok(()) };
        let mut shift = 0;
        session::call(&format!("position_shift at {site}"), Scope::default(), || {
            // SAFETY: `data` fits the vtable, and the result may be written.
            session::check(unsafe { function(self.data, &raw mut shift) })
        })?;
        self.position_shift = shift as usize;
        Ok(())
    }

    /// The function, and its name in errors.
    fn function(&self, function: Function) -> Option<(Raw, &'static str)> {
        let (function, name) = match function {
            Function::Forward => (self.vtable.get(field!(HookVtable, forward)), "the hook's forward"),
            Function::Input => (self.vtable.get(field!(HookVtable, input)), "the hook's input"),
            Function::Merge => (self.vtable.get(field!(HookVtable, merge)), "the hook's merge"),
            Function::MergeBias => (self.vtable.get(field!(HookVtable, merge_bias)), "the hook's merge_bias"),
        };
        function.map(|function| (function, name))
    }
}

impl Hook for Set {
    fn kind(&self) -> u32 {
        self.kind
    }

    fn position_shift(&self) -> usize {
        self.position_shift
    }

    fn call(
        &self,
        run: &Arc<Run>,
        function: Function,
        inputs: &[&Value],
        offsets: &[u32],
        outputs: usize,
    ) -> Result<Option<Answer>> {
        let Some((function, name)) = self.function(function) else { return Ok(None) };
        let scope = Scope { run: Some(Arc::clone(run)), ..Scope::default() };
        session::call(&format!("{name} at {}", self.site), scope, || {
            let inputs: Vec<u64> = inputs.iter().map(|input| session::lend(input)).collect();
            let (mut results, mut flags) = (vec![0; outputs], [0]);
            let call = HookCall {
                inputs: Slice::new(&inputs),
                offsets: Slice::new(offsets),
                outputs: SliceMut::new(&mut results),
                flags: SliceMut::new(&mut flags),
                ..HookCall::EMPTY
            };
            // SAFETY: `data` fits the vtable, the call and its slices live for the call, and the results are its alone.
            session::check(unsafe { function(self.data, &raw const call) })?;
            let values = results.into_iter().map(session::take_optional).collect::<Result<_>>()?;
            Ok(Some(Answer { values, flag: flags[0] }))
        })
    }
}
