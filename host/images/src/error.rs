//! What a user is told: what happened, where, and what to do next.

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is wrong: one picture, files as a whole, or settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One picture cannot be used; the others may. What `on_bad_image` decides about.
    Picture,
    /// A folder, an archive or their contents as a whole.
    Files,
    /// What the model or the run file says of pictures.
    Settings,
}

/// What went wrong, where, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Error {
    /// What is wrong.
    pub kind: Kind,
    /// The file, or the row, as the caller named it.
    pub place: String,
    /// What happened.
    pub message: String,
    /// What to do next.
    pub help: String,
}

impl Error {
    pub(crate) fn new(kind: Kind, place: impl ToString, message: impl ToString, help: impl ToString) -> Self {
        Self { kind, place: place.to_string(), message: message.to_string(), help: help.to_string() }
    }

    pub(crate) fn picture(place: impl ToString, message: impl ToString, help: impl ToString) -> Self {
        Self::new(Kind::Picture, place, message, help)
    }

    pub(crate) fn files(place: impl ToString, message: impl ToString, help: impl ToString) -> Self {
        Self::new(Kind::Files, place, message, help)
    }

    pub(crate) fn settings(place: impl ToString, message: impl ToString, help: impl ToString) -> Self {
        Self::new(Kind::Settings, place, message, help)
    }
}
