//! The host's one error type: what happened, where, and what to do next.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use miette::{Diagnostic, NamedSource, SourceSpan};

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a user sees when a run cannot go on.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The run file is wrong at a place.
    #[error("{message}")]
    #[diagnostic(code(run_file))]
    RunFile {
        /// What is wrong.
        message: String,
        /// The file's text.
        #[source_code]
        source_code: NamedSource<String>,
        /// The place.
        #[label("{label}")]
        span: SourceSpan,
        /// What stands at the place: `unknown key`.
        label: String,
        /// What to do next.
        #[help]
        help: Option<String>,
    },
    /// A plugin cannot be used, or failed in a call.
    #[error("{message}")]
    #[diagnostic(code(plugin))]
    Plugin {
        /// What happened, the plugin and the call named.
        message: String,
        /// What to do next.
        #[help]
        help: Option<String>,
    },
    /// Data that cannot be read or does not fit.
    #[error("{file}{place}: {message}", file = file.display(), place = line.map(|l| format!(":{l}")).unwrap_or_default())]
    #[diagnostic(code(data))]
    Data {
        /// The file.
        file: PathBuf,
        /// The line, counted from 1.
        line: Option<u64>,
        /// What is wrong.
        message: String,
        /// What to do next.
        #[help]
        help: Option<String>,
    },
    /// A wrong argument, a missing file, a folder that is in the way: anything to mend before the run starts.
    #[error("{message}")]
    #[diagnostic(code(usage))]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do next.
        #[help]
        help: Option<String>,
    },
    /// A pretrained model that cannot be loaded.
    #[error(transparent)]
    #[diagnostic(code(model))]
    Model(fthost_models::LoadError),
    /// Reading or writing a file failed.
    #[error("{doing}: {source}")]
    #[diagnostic(code(io))]
    Io {
        /// What was being done, the file named.
        doing: String,
        /// The system's answer.
        source: std::io::Error,
        /// What to do next.
        #[help]
        help: Option<String>,
    },
    /// The engine failed: an op, a device.
    #[error("{}", plain(.0))]
    #[diagnostic(code(engine))]
    Engine(#[from] fthost_autograd::Error),
    /// The user stopped the run; it can be resumed.
    #[error("{message}")]
    #[diagnostic(code(interrupted))]
    Interrupted {
        /// After which step.
        message: String,
        /// The command that resumes.
        #[help]
        help: Option<String>,
    },
    /// The run itself went wrong: a loss that is not finite, a parameter without gradient.
    #[error("{message}")]
    #[diagnostic(code(run))]
    Run {
        /// What happened, at which step.
        message: String,
        /// What to do next.
        #[help]
        help: Option<String>,
    },
}

/// The engine's error without the backtrace that it carries where `RUST_BACKTRACE` is set: that is for us, not for a user.
pub(crate) fn plain(error: &fthost_autograd::Error) -> String {
    match error {
        fthost_autograd::Error::WithBacktrace { inner, .. } => plain(inner),
        other => other.to_string(),
    }
}

impl From<fthost_models::LoadError> for Error {
    /// A model that cannot be written is no wrong model.
    fn from(error: fthost_models::LoadError) -> Self {
        match error {
            fthost_models::LoadError::Write { file, source } => {
                Self::io(format!("cannot write {}", file.display()))(source)
            }
            error => Self::Model(error),
        }
    }
}

impl Error {
    /// A usage error without advice.
    pub fn usage(message: impl Display) -> Self {
        Self::Usage { message: message.to_string(), help: None }
    }

    /// What is wrong with what was asked as what is wrong in a line of a file, where it was asked; another error as it is.
    #[must_use]
    pub fn in_line(self, file: &Path, line: u64) -> Self {
        match self {
            Self::Usage { message, help } => Self::Data { file: file.to_owned(), line: Some(line), message, help },
            other => other,
        }
    }

    /// A plugin error without advice.
    pub fn plugin(message: impl Display) -> Self {
        Self::Plugin { message: message.to_string(), help: None }
    }

    /// A run error without advice.
    pub fn run(message: impl Display) -> Self {
        Self::Run { message: message.to_string(), help: None }
    }

    /// An I/O error with what was being done: `.map_err(Error::io("cannot read x"))`.
    pub fn io(doing: impl Display) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.to_string();
        move |source| Self::Io { doing, source, help: None }
    }

    /// Adds advice where there is none yet.
    #[must_use]
    pub fn with_help(mut self, advice: impl Display) -> Self {
        match &mut self {
            Self::RunFile { help, .. }
            | Self::Plugin { help, .. }
            | Self::Data { help, .. }
            | Self::Usage { help, .. }
            | Self::Io { help, .. }
            | Self::Interrupted { help, .. }
            | Self::Run { help, .. } => {
                help.get_or_insert_with(|| advice.to_string());
            }
            Self::Model(_) | Self::Engine(_) => {}
        }
        self
    }

    /// Its message and its advice in other words.
    #[must_use]
    pub(crate) fn in_words(mut self, other: impl Fn(&str) -> String) -> Self {
        match &mut self {
            Self::RunFile { message, help, .. }
            | Self::Plugin { message, help }
            | Self::Data { message, help, .. }
            | Self::Usage { message, help }
            | Self::Io { doing: message, help, .. }
            | Self::Interrupted { message, help }
            | Self::Run { message, help } => {
                *message = other(message);
                *help = help.as_deref().map(other);
            }
            Self::Model(_) | Self::Engine(_) => {}
        }
        self
    }

    /// The exit code: 2 where the input was wrong before anything ran, 1 where the run failed, and the shell's 130 where the user
    /// stopped it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::RunFile { .. } | Self::Data { .. } | Self::Usage { .. } | Self::Model(_) => 2,
            Self::Interrupted { .. } => 130,
            Self::Plugin { .. } | Self::Io { .. } | Self::Engine(_) | Self::Run { .. } => 1,
        }
    }
}
