//! Why a file is refused.

use std::path::Path;

use crate::Error;

/// Why a file is refused, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong, to be read after the file's name: `is empty`.
    pub message: String,
    /// What to do; may be empty.
    pub help: String,
}

impl Refusal {
    /// As the error of a file.
    pub fn of(self, path: &Path) -> Error {
        let error = Error::plugin(format!("{} {}", path.display(), self.message));
        if self.help.is_empty() { error } else { error.with_help(self.help) }
    }
}

/// Refuses with a reason and advice.
pub(super) fn refuse<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { message: message.into(), help: help.into() })
}

/// Refuses what cannot be read to its end.
pub(super) fn cut_off<T>() -> Result<T, Refusal> {
    refuse("is cut off: the file is shorter than its headers say", "build or copy it again")
}

/// Refuses what the loader would stumble over: the sentence goes on with what.
pub(super) fn damaged<T>(what: impl std::fmt::Display) -> Result<T, Refusal> {
    refuse(format!("is a damaged library: {what}"), "build or copy it again")
}
