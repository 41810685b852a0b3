//! The table of a task head.

use std::ffi::c_void;

use super::{
    head_call::Frame,
    method::{Method, base, call, call_mut, instance},
};
use crate::{
    Error, Event, Features, Model, Result, SavedState, TaskHead, TaskTargets, Tensor,
    abi::{
        calls::HeadCall,
        growth::Grows,
        tables::{Instance, Status, Str, TaskHeadVtable, TextSink},
    },
};

struct AsHead<H>(H);

impl<H: TaskHead> Method for AsHead<H> {
    fn save(&self) -> Result<SavedState> {
        self.0.save()
    }
    fn load(&mut self, state: SavedState) -> Result<()> {
        self.0.load(state)
    }
    fn event(&mut self, _: &Event) -> Result<()> {
        Ok(())
    }
}

pub(crate) fn task_head<H: TaskHead>(head: H) -> Instance {
    unsafe extern "C" fn attach<H: TaskHead>(data: *mut c_void, task: Str, spec: TextSink) -> Status {
        let body = |method: &mut AsHead<H>| {
            // SAFETY: the host lends the text for this call.
            let task = serde_json::from_str(unsafe { task.as_str()? })
                .map_err(|error| Error::new(error).context("the host's description of the task"))?;
            let text = serde_json::to_string(&method.0.attach(&task, &mut Model::new())?)?;
            // SAFETY: the sink belongs to this call.
            unsafe { spec.put(&text) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { call_mut(data, body) }
    }
    /// # Safety
    /// `data` is this instance, and `head_call` points to a call of this moment, whose results may be written.
    unsafe fn run<H: TaskHead>(
        data: *const c_void,
        head_call: *const HeadCall,
        body: impl FnOnce(&H, &mut Frame<'_>) -> Result<Tensor>,
    ) -> Status {
        // SAFETY: the caller's promise.
        unsafe {
            call(data, |method: &AsHead<H>| {
                let mut frame = Frame::of(head_call)?;
                let result = body(&method.0, &mut frame)?;
                frame.give([Some(result)])
            })
        }
    }
    unsafe extern "C" fn forward<H: TaskHead>(data: *const c_void, call: *const HeadCall) -> Status {
        let body = |head: &H, call: &mut Frame<'_>| {
            let tensors: Vec<Tensor> = call.tensors.iter().map(|&tensor| Tensor::borrowed(tensor)).collect();
            // SAFETY: the host lends the offsets for this call.
            let offsets = |at: usize| call.offsets.get(at).map_or(&[][..], |offsets| unsafe { offsets.as_slice() });
            let next = call.targets.first().map(|&tensor| Tensor::borrowed(tensor));
            let of = |(at, tensor)| Features { tensor, offsets: offsets(at), next: next.as_ref() };
            let features = tensors.iter().enumerate().map(of);
            head.forward_streams(&features.collect::<Vec<_>>())
        };
        // SAFETY: the host passes this instance and its call.
        unsafe { run(data, call, body) }
    }
    unsafe extern "C" fn loss<H: TaskHead>(data: *const c_void, call: *const HeadCall) -> Status {
        let body = |head: &H, call: &mut Frame<'_>| {
            let targets = TaskTargets { tensor: &call.target()?, support: call.support };
            let loss = head.loss(&call.tensor()?, &targets)?;
            if call.weight.is_null() {
                return Err(Error::new("the host left no place for the loss's weight"));
            }
            // SAFETY: not null, and in a loss call the weight may be written.
            unsafe { call.weight.write(loss.weight) };
            Ok(loss.sum)
        };
        // SAFETY: the host passes this instance and its call.
        unsafe { run(data, call, body) }
    }
    unsafe extern "C" fn predict<H: TaskHead>(data: *const c_void, call: *const HeadCall) -> Status {
        // SAFETY: the host passes this instance and its call.
        unsafe { run(data, call, |head: &H, call| head.predict(&call.tensor()?)) }
    }
    unsafe extern "C" fn fit<H: TaskHead>(data: *mut c_void, call: *const HeadCall) -> Status {
        let body = |method: &mut AsHead<H>| {
            // SAFETY: the host lends the call for this call.
            let call = unsafe { Frame::of(call) }?;
            method.0.fit(&call.tensor()?, &call.target()?, &mut Model::new())
        };
        // SAFETY: the host passes this instance.
        unsafe { call_mut(data, body) }
    }
    unsafe extern "C" fn metrics<H: TaskHead>(data: *const c_void, call: *const HeadCall, sink: TextSink) -> Status {
        let body = |method: &AsHead<H>| {
            // SAFETY: the host lends the call for this call.
            let frame = unsafe { Frame::of(call) }?;
            let found = method.0.metrics(&frame.tensor()?, &frame.target()?)?;
            // SAFETY: the sink belongs to this call.
            unsafe { sink.put(&serde_json::to_string(&found)?) };
            Ok(())
        };
        // SAFETY: the host passes this instance.
        unsafe { self::call(data, body) }
    }
    instance(
        AsHead(head),
        const {
            &TaskHeadVtable {
                base: base::<AsHead<H>>(size_of::<TaskHeadVtable>()),
                attach: Some(attach::<H>),
                forward: Some(forward::<H>),
                loss: Some(loss::<H>),
                predict: Some(predict::<H>),
                fit: Some(fit::<H>),
                metrics: Some(metrics::<H>),
                ..TaskHeadVtable::EMPTY
            }
        },
    )
}
