//! The table of a regularizer.

use std::ffi::c_void;

use super::{
    handles::give_optional,
    head_call::Frame,
    method::{Method, base, call, call_mut, instance},
};
use crate::{
    Event, Model, Regularizer, Result, SavedState,
    abi::{
        calls::HeadCall,
        growth::Grows,
        tables::{Instance, RegularizerVtable, Status},
    },
};

struct AsRegularizer<R>(R);

impl<R: Regularizer> Method for AsRegularizer<R> {
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

pub(crate) fn regularizer<R: Regularizer>(regularizer: R) -> Instance {
    unsafe extern "C" fn attach<R: Regularizer>(data: *mut c_void) -> Status {
        // SAFETY: the host passes this instance.
        unsafe { call_mut(data, |method: &mut AsRegularizer<R>| method.0.attach(&mut Model::new())) }
    }
    unsafe extern "C" fn penalty<R: Regularizer>(data: *const c_void, out: *mut u64) -> Status {
        // SAFETY: the host passes this instance, and `out` may be written.
        unsafe {
            call(data, |method: &AsRegularizer<R>| {
                out.write(give_optional(method.0.penalty()?)?);
                Ok(())
            })
        }
    }
    unsafe extern "C" fn needs_reference<R: Regularizer>(data: *const c_void, out: *mut u32) -> Status {
        let body = |method: &AsRegularizer<R>| {
            // SAFETY: `out` is the host's place for the result.
            unsafe { out.write(u32::from(method.0.needs_reference())) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    unsafe extern "C" fn output_penalty<R: Regularizer>(data: *const c_void, head_call: *const HeadCall) -> Status {
        let body = |method: &AsRegularizer<R>| {
            // SAFETY: the host lends the call for this call.
            let mut call = unsafe { Frame::of(head_call) }?;
            let penalty = method.0.output_penalty(&call.tensor()?, &call.target()?)?;
            call.give([penalty])
        };
        // SAFETY: the host passes this instance.
        unsafe { call(data, body) }
    }
    instance(
        AsRegularizer(regularizer),
        const {
            &RegularizerVtable {
                base: base::<AsRegularizer<R>>(size_of::<RegularizerVtable>()),
                attach: Some(attach::<R>),
                penalty: Some(penalty::<R>),
                needs_reference: Some(needs_reference::<R>),
                output_penalty: Some(output_penalty::<R>),
                ..RegularizerVtable::EMPTY
            }
        },
    )
}
