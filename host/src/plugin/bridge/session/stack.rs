//! The sessions of a thread, one in another, and the tensors in their slots.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fthost_autograd::{Tape, Value};

use super::caller::Caller;
use super::kept;
use super::scope::{Scope, View};
use crate::adapted::AdaptedModel;
use crate::handles::{Handle, Invalid, RunHandles, Slots, THREADS};
use crate::plugin::{ExampleGradients, probe};

/// How a session may use the model.
#[derive(Clone, Copy)]
pub(super) enum Access {
    None,
    /// While examples' gradients are measured.
    Shared(*const AdaptedModel),
    Exclusive(*mut AdaptedModel),
}

/// One session. The pointers are valid as long as the frame is on the stack: it is pushed and popped by [`enter`], which
/// holds what they point to.
pub(super) struct Frame {
    tape: *const Tape,
    pub(super) run: Option<*const Arc<RunHandles>>,
    caller: *const Arc<Caller>,
    pub(super) model: Access,
    pub(super) gradients: Option<*mut &'static mut dyn ExampleGradients>,
    pub(super) view: View,
    /// Tensors in slots that belong to this frame.
    held: usize,
    /// The first handles that were lent, so that the usual call ends without a search.
    lent: [u64; 4],
}

/// A tensor that a plugin holds.
struct Held {
    value: Value,
    /// Place of its session on the stack.
    frame: usize,
    /// Whether it was lent, so that nobody has to give it back.
    lent: bool,
}

/// All sessions of one thread.
pub(super) struct Calls {
    pub(super) frames: Vec<Frame>,
    tensors: Slots<Held>,
    thread: u16,
    /// Why the last host call failed.
    pub(super) last_error: String,
    /// What the plugin reported by `set_error`.
    pub(super) reported: Option<String>,
}

thread_local! {
    pub(super) static CALLS: RefCell<Calls> = RefCell::new(Calls::new());
}

impl Calls {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let thread = (NEXT.fetch_add(1, Ordering::Relaxed) % THREADS + 1) as u16;
        Self { frames: Vec::new(), tensors: Slots::new(), thread, last_error: String::new(), reported: None }
    }

    /// The value of a result, which nobody has to release any more. It stays until the session ends, because one tensor may be
    /// given as two results.
    pub(super) fn take(&mut self, tape: &Tape, handle: u64) -> Result<Value, Invalid> {
        let value = self.value(tape, handle)?;
        if let Handle::Tensor { slot, generation, .. } = Handle::decode(handle)
            && let Some(held) = self.tensors.get_mut(slot, generation)
        {
            held.lent = true;
        }
        Ok(value)
    }

    /// Frees a slot.
    pub(super) fn release(&mut self, (thread, slot, generation): (u16, u32, u32)) -> Result<(), Invalid> {
        if thread != self.thread {
            return Err(Invalid::OtherThread);
        }
        let held = self.tensors.remove(slot, generation).ok_or(Invalid::Stale)?;
        if let Some(frame) = self.frames.get_mut(held.frame) {
            frame.held -= 1;
        }
        Ok(())
    }

    /// The value of a tensor, a kept tensor or a parameter.
    pub(super) fn value(&self, tape: &Tape, handle: u64) -> Result<Value, Invalid> {
        match Handle::decode(handle) {
            Handle::Tensor { thread, slot, generation } if thread == self.thread => {
                self.tensors.get(slot, generation).map(|held| held.value.clone()).ok_or(Invalid::Stale)
            }
            Handle::Tensor { .. } => Err(Invalid::OtherThread),
            Handle::Kept { slot, generation } => kept::get(slot, generation).map(Value::constant).ok_or(Invalid::Stale),
            Handle::Parameter { .. } if handle == 0 => Err(Invalid::Null),
            Handle::Parameter { .. } => {
                let run = self.frames.last().and_then(|frame| frame.run).ok_or(Invalid::NoRun)?;
                // SAFETY: the innermost frame is alive, and so is what it points to.
                let run = unsafe { &*run };
                run.get(handle).map(|(_, parameter)| tape.parameter(parameter)).ok_or(Invalid::OtherRun)
            }
        }
    }
}

/// Pushes a session, runs `body` in it, and pops it, also when `body` unwinds.
pub(super) fn enter<T>(caller: &Arc<Caller>, mut scope: Scope<'_>, body: impl FnOnce() -> T) -> T {
    /// Pops the session when dropped.
    struct Leave<'a>(&'a Arc<Caller>);
    impl Drop for Leave<'_> {
        fn drop(&mut self) {
            let leftovers = CALLS.with_borrow_mut(|calls| {
                let depth = calls.frames.len() - 1;
                let lent = calls.frames[depth].lent;
                let mut held = calls.frames[depth].held;
                for handle in lent.into_iter().take_while(|handle| *handle != 0) {
                    if let Handle::Tensor { slot, generation, .. } = Handle::decode(handle)
                        && calls.tensors.remove(slot, generation).is_some()
                    {
                        held -= 1;
                    }
                }
                calls.frames.pop();
                if held > 0 { calls.tensors.remove_where(|held| held.frame == depth) } else { Vec::new() }
            });
            let forgotten = leftovers.iter().filter(|held| !held.lent).count();
            if forgotten > 0 {
                probe::forgotten(self.0, forgotten);
                tracing::debug!(plugin = %self.0, tensors = forgotten, "a call ended with tensors that were not released");
            }
        }
    }

    let evaluation;
    let tape = match scope.tape {
        Some(tape) => tape,
        None => {
            evaluation = Tape::evaluation();
            &evaluation
        }
    };
    let frame = Frame {
        tape,
        run: scope.run.map(std::ptr::from_ref),
        caller,
        model: scope.model.map_or(Access::None, |model| Access::Exclusive(model)),
        gradients: scope.gradients.as_mut().map(|gradients| std::ptr::from_mut(gradients).cast()),
        view: scope.view,
        held: 0,
        lent: [0; 4],
    };
    CALLS.with_borrow_mut(|calls| {
        calls.frames.push(frame);
        calls.reported = None;
    });
    let _leave = Leave(caller);
    body()
}

pub(super) const OUTSIDE: &str = "there is no call into a plugin on this thread; tensors and the model are at hand only within a call, on its thread";

/// A field of the innermost session.
pub(super) fn innermost<T>(read: impl FnOnce(&Frame) -> T) -> Result<T, String> {
    CALLS.with_borrow(|calls| calls.frames.last().map(read)).ok_or_else(|| OUTSIDE.to_owned())
}

/// Works with the tape of the innermost session.
pub(super) fn with_tape<T>(body: impl FnOnce(&Tape) -> T) -> Result<T, String> {
    let tape = innermost(|frame| frame.tape)?;
    // SAFETY: the frame cannot be popped before `body` returns: it is the innermost of this thread, and what `body` pushes it pops.
    Ok(body(unsafe { &*tape }))
}

/// Puts a tensor in a slot of the innermost session and gives its handle.
pub(super) fn insert(value: Value, lent: bool) -> Result<u64, String> {
    CALLS.with_borrow_mut(|calls| {
        let Some(depth) = calls.frames.len().checked_sub(1) else { return Err(OUTSIDE.to_owned()) };
        let Ok((slot, generation)) = calls.tensors.insert(Held { value, frame: depth, lent }) else {
            return Err("this call holds a million tensors; drop those that are done".to_owned());
        };
        let handle = Handle::Tensor { thread: calls.thread, slot, generation }.encode();
        let frame = &mut calls.frames[depth];
        frame.held += 1;
        if lent && let Some(free) = frame.lent.iter_mut().find(|handle| **handle == 0) {
            *free = handle;
        }
        Ok(handle)
    })
}

/// Who is being called, and the run's table.
pub(in crate::plugin::bridge) fn who() -> Result<(Arc<Caller>, Option<Arc<RunHandles>>), String> {
    let (caller, run) = innermost(|frame| (frame.caller, frame.run))?;
    // SAFETY: the innermost frame is alive, and so is what it points to.
    Ok(unsafe { ((*caller).clone(), run.map(|run| (*run).clone())) })
}

/// The run of the innermost session.
pub(in crate::plugin::bridge) fn run() -> Result<Arc<RunHandles>, String> {
    who()?.1.ok_or_else(|| "there is no run before `attach`".to_owned())
}
