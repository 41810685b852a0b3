//! A run in a program of one's own. `examples/embed.rs` is a whole one.
//!
//! A plugin is opened by its content each time that a run begins: one that was built again meanwhile is another plugin, and the next run takes it. The old
//! one stays in memory, because nothing could say when the last pointer into it is gone.
//!
//! The command `fthost` works in a child process, so that it can name a plugin that ends its process. A program of one's own does so too where it begins
//! with [`guarded`](crate::processes::guarded); else such a plugin ends the program.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::Result;
use crate::run::file::RunFile;
use crate::run::results::result::Summary;
use crate::run::state::folder::RunFolder;
use crate::run::state::log::{Line, Listener};
use crate::run::train::interrupt::Interrupt;
use crate::run::{DeviceChoice, Options, Output, execute};

/// What a run is made with. It prints nothing, and listens to no signal.
///
/// ```no_run
/// use fthost::{Host, Line, run::file::RunFile};
///
/// let host = Host::new().plugin("liblora.so").on_line(|line| {
///     if let Line::Step { step, loss, .. } = line {
///         eprintln!("step {step}: loss {loss}");
///     }
/// });
/// let summary = host.run(RunFile::load("sst2.toml".as_ref(), &[])?)?;
/// eprintln!("{}", summary.to_text());
/// # Ok::<(), fthost::Error>(())
/// ```
#[derive(Debug)]
pub struct Host {
    plugins: Vec<String>,
    out: Option<PathBuf>,
    device: DeviceChoice,
    listener: Option<Listener>,
    interrupt: Interrupt,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// One that computes on the processor and leaves its run where the run file says.
    pub fn new() -> Self {
        let (plugins, out, device) = (Vec::new(), None, DeviceChoice::Cpu);
        Self { plugins, out, device, listener: None, interrupt: Interrupt::default() }
    }

    /// Opens a plugin too, by a path or a name: as `--plugin`.
    #[must_use]
    pub fn plugin(mut self, plugin: impl Into<String>) -> Self {
        self.plugins.push(plugin.into());
        self
    }

    /// The folder that the run leaves, which must not exist: as `--out`.
    #[must_use]
    pub fn out(mut self, folder: impl Into<PathBuf>) -> Self {
        self.out = Some(folder.into());
        self
    }

    /// Where to compute.
    #[must_use]
    pub fn device(mut self, device: DeviceChoice) -> Self {
        self.device = device;
        self
    }

    /// Calls a function with each line of `metrics.jsonl` as it is logged: a step, an evaluation, a text that the model says. It is called on the
    /// run's thread, and the run goes on when it comes back.
    #[must_use]
    pub fn on_line(mut self, hear: impl FnMut(&Line<'_>) + Send + 'static) -> Self {
        self.listener = Some(Listener::new(hear));
        self
    }

    /// What stops the run, from any thread: it ends after the step that it is at, with a checkpoint and [`Error::Interrupted`](crate::Error::Interrupted),
    /// and [`resume`](Self::resume) goes on. [`Interrupt::listen`] is one that Ctrl-C stops.
    #[must_use]
    pub fn stopped_by(mut self, interrupt: &Interrupt) -> Self {
        self.interrupt = interrupt.clone();
        self
    }

    /// Makes a run, to its end.
    ///
    /// # Errors
    /// What `fthost` would print.
    pub fn run(self, file: RunFile) -> Result<Summary> {
        self.execute(file, false)
    }

    /// Goes on with the run in a folder from its newest checkpoint, to the same bits. Where no plugin is named, those that it used are opened.
    ///
    /// # Errors
    /// As [`run`](Self::run), and where the run is another one now.
    pub fn resume(self, folder: &Path) -> Result<Summary> {
        let file = RunFile::load(&RunFolder::run_file(folder)?, &[])?;
        self.out(folder).execute(file, true)
    }

    fn execute(self, file: RunFile, resume: bool) -> Result<Summary> {
        let Self { plugins, out, device, listener, interrupt } = self;
        let (output, interrupt, started) = (Output::Silent, Some(interrupt), Instant::now());
        execute(Options { file, plugins, out, resume, device, output, listener, interrupt, started })
    }
}
