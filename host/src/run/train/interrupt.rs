//! What stops a run: the step is finished and a checkpoint written. Ctrl-C and SIGTERM do so, or whoever holds the [`Interrupt`]; a second
//! signal stops at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::plugin::underway;
use crate::{Error, Result};

/// Whether the user wants the run to stop. Clones are the same; one of its own that nobody [stops](Self::stop) stops nothing.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens to the process's signals from now on. The process that a second signal stops ends with the shell's code, 128 and
    /// the signal's number: here, or by the process that watches over this one, which hears all of them.
    ///
    /// # Errors
    /// Where the system takes no handler.
    pub fn listen() -> Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            let failed = || Error::io("cannot listen to Ctrl-C");
            // In this order: the first signal finds the flag down and raises it, the second finds it raised.
            if !underway::watched() {
                flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&interrupt.0)).map_err(failed())?;
            }
            flag::register(signal, Arc::clone(&interrupt.0)).map_err(failed())?;
        }
        Ok(interrupt)
    }

    /// Has the run stop after the step that it is at, from any thread.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a signal came, or someone wants the run to stop.
    pub fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
