//! One call into a plugin, from the host's side.

use std::sync::Arc;

use fthost_autograd::Value;
use fthost_plugin_api::abi::tables::{OK, PANICKED, Status};

use super::caller::{Caller, What};
use super::errors::take_reported;
use super::scope::Scope;
use super::stack::{self, CALLS};
use super::tensors::said;
use crate::handles::Invalid;
use crate::plugin::probe;
use crate::{Error, Result};

/// Why a call gave no result.
#[derive(Debug)]
pub(in crate::plugin) enum Failure {
    /// The plugin returned this status; its words wait in the session.
    Status(Status),
    /// The plugin's answer cannot be used.
    Answer(String),
}

/// The session's side of the host: lends values and takes results.
pub(in crate::plugin) struct Session(());

impl Caller {
    /// Runs one call into the plugin. `what` names it: `attach`.
    ///
    /// # Errors
    /// What the plugin said, with plugin and call named.
    pub(in crate::plugin) fn call<T>(
        self: &Arc<Self>,
        what: What<'_>,
        scope: Scope<'_>,
        body: impl FnOnce(&Session) -> Result<T, Failure>,
    ) -> Result<T> {
        if self.poisoned() {
            return Err(Error::plugin(format!(
                "{self} is not called for {what}: it panicked before, so its state cannot be trusted"
            ))
            .with_help("run again from the last checkpoint"));
        }
        let during = probe::during(self.method(), &what);
        let outcome = stack::enter(self, scope, || {
            let _noted = self.enter(what);
            body(&Session(()))
        });
        drop(during);
        let failure = match outcome {
            Ok(result) => return Ok(result),
            Err(failure) => failure,
        };
        let text = take_reported();
        Err(Error::plugin(match failure {
            Failure::Status(PANICKED) => {
                self.poison();
                let text = text.unwrap_or_else(|| "at an unknown place".to_owned());
                let place = text.strip_prefix("panicked ").unwrap_or(&text);
                let text = format!("{self} panicked in {what} {place}");
                probe::panicked(&text);
                text
            }
            Failure::Status(status) => {
                let text = text.unwrap_or_else(|| format!("it gave status {status} and no reason"));
                format!("{self} failed in {what}: {text}")
            }
            Failure::Answer(text) => format!("{self} failed in {what}: {text}"),
        }))
    }
}

/// Turns a status into a result.
pub(in crate::plugin) fn check(status: Status) -> Result<(), Failure> {
    if status == OK { Ok(()) } else { Err(Failure::Status(status)) }
}

impl Session {
    /// A handle for a value that the plugin may use in this call.
    pub(in crate::plugin) fn lend(&self, value: Value) -> u64 {
        // A session that is full of tensors answers with handle 0, which every op refuses.
        stack::insert(value, true).unwrap_or(0)
    }

    /// A handle for a value that passes to the plugin.
    pub(in crate::plugin) fn hand_over(&self, value: Value) -> u64 {
        stack::insert(value, false).unwrap_or(0)
    }

    /// The value of a result.
    pub(in crate::plugin) fn take(&self, handle: u64) -> Result<Value, Failure> {
        let value = stack::with_tape(|tape| CALLS.with_borrow_mut(|calls| calls.take(tape, handle)));
        match value {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Invalid::Null)) => Err(Failure::Answer("it gave no tensor".to_owned())),
            Ok(Err(invalid)) => Err(Failure::Answer(format!("the tensor it gave cannot be used: {}", said(invalid)))),
            Err(text) => Err(Failure::Answer(text)),
        }
    }

    /// The value of a result that may be absent.
    pub(in crate::plugin) fn take_optional(&self, handle: u64) -> Result<Option<Value>, Failure> {
        if handle == 0 { Ok(None) } else { self.take(handle).map(Some) }
    }
}
