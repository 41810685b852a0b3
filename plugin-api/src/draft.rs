//! What a plugin may use of a host's [drafts](crate::abi::draft): extensions that are tried and not promised.
//!
//! A host need not have one, so each is asked for, and a plugin does without where it gets `None`.

use crate::{
    Result,
    abi::{draft::run::RunDraft, growth::Theirs, host},
};

/// The run that a call is part of.
#[derive(Clone, Copy)]
pub struct Run(Theirs<'static, RunDraft>);

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Run")
    }
}

impl Run {
    /// Where the host offers it.
    pub fn of_host() -> Option<Self> {
        host::run_draft().map(Self)
    }

    /// The run's seed. `[any thread]`
    ///
    /// # Errors
    /// Outside of a run.
    pub fn seed(self) -> Result<u64> {
        host::run_seed(self.0)
    }

    /// The optimizer step that is under way, counted from 0 in its phase as [`Event::StepBegin`](crate::Event::StepBegin) counts.
    /// `[any thread]`
    ///
    /// # Errors
    /// Outside of a run.
    pub fn step(self) -> Result<u64> {
        host::run_step(self.0)
    }
}
