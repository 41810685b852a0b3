//! The one error type of the author's side.

use std::fmt;

/// What went wrong, with what was being done around it. Crosses the boundary as text, chain included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    message: String,
    context: Vec<String>,
}

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with a message: what happened, and what to do about it.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), context: Vec::new() }
    }

    /// Says what was being done when the error came up.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.context.push(doing.to_string());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for doing in self.context.iter().rev() {
            write!(f, "{doing}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::new(error)
    }
}
