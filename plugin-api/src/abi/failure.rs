//! Errors and panics on their way to the host. Nothing unwinds out of a plugin.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    ffi::c_void,
    fmt,
    panic::{self, AssertUnwindSafe, Location},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    host,
    tables::{FAILED, OK, PANICKED, Status},
};
use crate::{Error, Result};

thread_local! {
    /// How many guarded calls this thread is in. A panic outside of one is none of ours.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Where the panic under way came up.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The author returned an error.
    Error(Error),
    /// The author's code panicked: message and place.
    Panic(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Panic(message) => f.write_str(message),
        }
    }
}

/// Notes where panics in guarded calls come up; others go on to the hook that was there before.
pub(crate) fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if DEPTH.get() == 0 {
                before(info);
            } else {
                PLACE.set(info.location().map(Location::to_string));
            }
        }));
    });
}

/// Runs a body and keeps its panic inside.
pub(crate) fn catch(body: impl FnOnce() -> Result<()>) -> Result<(), Failure> {
    DEPTH.set(DEPTH.get() + 1);
    // Unwind safety: after a panic the instance is poisoned, so nobody sees what the panic left half done.
    let outcome = panic::catch_unwind(AssertUnwindSafe(body));
    DEPTH.set(DEPTH.get() - 1);
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::Error(error)),
        Err(payload) => {
            let place = PLACE.take().unwrap_or_else(|| "an unknown place".into());
            let message = format!("panicked at {place}: {}", payload_text(&*payload));
            // The payload's own drop might panic, and nothing would catch that.
            std::mem::forget(payload);
            Err(Failure::Panic(message))
        }
    }
}

fn payload_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without text")
}

/// Runs the body of a function of the tables: gives its status, and the host the reason.
pub(crate) fn guard(body: impl FnOnce() -> Result<()>) -> Status {
    report(catch(body))
}

fn report(outcome: Result<(), Failure>) -> Status {
    let (status, text) = match outcome {
        Ok(()) => return OK,
        Err(Failure::Error(error)) => (FAILED, error.to_string()),
        Err(Failure::Panic(message)) => (PANICKED, message),
    };
    host::set_error(status, &text);
    status
}

/// A value of the author's that is not called again once it panicked.
pub(crate) struct Guarded<T> {
    value: T,
    poisoned: AtomicBool,
}

impl<T> Guarded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value, poisoned: AtomicBool::new(false) }
    }

    /// Calls into the value. `[any thread]`
    pub(crate) fn call(&self, body: impl FnOnce(&T) -> Result<()>) -> Status {
        if self.poisoned.load(Ordering::Acquire) {
            return refuse();
        }
        let outcome = catch(|| body(&self.value));
        if matches!(outcome, Err(Failure::Panic(_))) {
            self.poisoned.store(true, Ordering::Release);
        }
        report(outcome)
    }

    /// Calls into the value, which may change. `[run thread]`
    pub(crate) fn call_mut(&mut self, body: impl FnOnce(&mut T) -> Result<()>) -> Status {
        if *self.poisoned.get_mut() {
            return refuse();
        }
        let outcome = catch(|| body(&mut self.value));
        if matches!(outcome, Err(Failure::Panic(_))) {
            *self.poisoned.get_mut() = true;
        }
        report(outcome)
    }
}

/// Frees the box of an instance or of a hook.
///
/// # Safety
/// `data` came from `Box::into_raw` of a `Guarded<T>` and is not used again.
pub(super) unsafe extern "C" fn free<T>(data: *mut c_void) {
    let outcome = catch(|| {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(data.cast::<Guarded<T>>()) });
        Ok(())
    });
    if let Err(failure) = outcome {
        tracing::error!("while an instance was dropped: {failure}");
    }
}

fn refuse() -> Status {
    host::set_error(
        PANICKED,
        "panicked in an earlier call, so its state cannot be trusted; start the run again from its checkpoint",
    );
    PANICKED
}
