//! Work in processes of its own, so that what takes its process with it takes one run only, and does not take the word for it too.

mod guarded;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;

pub use self::guarded::guarded;
use crate::plugin::Trust;
use crate::run::DeviceChoice;
use crate::run::file::RunFile;
use crate::run::results::result;
use crate::run::state::checkpoint::Checkpoints;
use crate::run::state::folder;
use crate::run::state::identity::PluginUsed;
use crate::run::train::interrupt::Interrupt;
use crate::{Error, Result};

/// The argument by which a run ends when the process that started it is killed.
pub const WITH_PARENT: &str = "--ends-with-parent";
/// How often is looked whether a run has ended.
const GLANCE: Duration = Duration::from_millis(20);

/// How runs are started.
#[derive(Debug)]
pub(crate) struct Runner<'a> {
    /// The program that makes a run: this one.
    pub(crate) program: &'a Path,
    pub(crate) device: DeviceChoice,
    pub(crate) interrupt: &'a Interrupt,
}

/// A run to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job<'a> {
    /// Its run file.
    pub(crate) file: &'a Path,
    /// The folder that it leaves; what it says on the way is appended to a file beside it.
    pub(crate) folder: &'a Path,
    pub(crate) seed: u64,
    /// The plugins that the command line names.
    pub(crate) plugins: &'a [PluginUsed],
}

impl Runner<'_> {
    /// Makes a run, from its newest checkpoint where it has one, if it has no result yet. The text is that of the run's error.
    ///
    /// # Errors
    /// Where no run can be started.
    pub(crate) fn run(&self, job: &Job<'_>) -> Result<Result<(), String>> {
        let folder = job.folder;
        if has_result(folder) {
            return Ok(Ok(()));
        }
        let mut resumes = false;
        if folder.exists() {
            wait_for(folder)?;
            // It may have ended meanwhile.
            if has_result(folder) {
                return Ok(Ok(()));
            }
            resumes = Checkpoints::new(folder, usize::MAX).latest().is_some();
            if !resumes {
                fs::remove_dir_all(folder).map_err(Error::io(format!("cannot remove {}", folder.display())))?;
            }
        }
        let (status, printed) = self.process(self.command(job, resumes)?)?;
        Ok(if status.success() && has_result(folder) { Ok(()) } else { Err(what_went_wrong(status, &printed)) })
    }

    /// The JSON that this program prints for these arguments, asked in a process of its own. The text is that of its error.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(crate) fn ask<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Result<Result<Json, String>> {
        let mut command = Command::new(self.program);
        command.args(arguments).arg("--json").stderr(Stdio::null());
        let (status, printed) = self.process(command)?;
        let answer = serde_json::from_str(&printed).ok().filter(|_| status.success());
        Ok(answer.ok_or_else(|| what_went_wrong(status, &printed)))
    }

    /// As [`ask`](Self::ask), of a command about a run file: `plan`, `lr-find`.
    pub(crate) fn ask_of(&self, command: &str, file: &RunFile, plugins: &[PluginUsed]) -> Result<Result<Json, String>> {
        let failed = || Error::io("cannot write a temporary file");
        let mut written = tempfile::Builder::new().suffix(".toml").tempfile().map_err(failed())?;
        written.write_all(file.to_toml().as_bytes()).map_err(failed())?;
        let mut arguments = vec![command.to_owned(), written.path().display().to_string()];
        arguments.extend(["--device".to_owned(), self.device.to_string()]);
        for plugin in plugins {
            arguments.extend(["--plugin".to_owned(), plugin.path.clone()]);
        }
        self.ask(&arguments)
    }

    /// The command that makes a run.
    fn command(&self, job: &Job<'_>, resumes: bool) -> Result<Command> {
        let log = job.folder.with_extension("log");
        let failed = Error::io(format!("cannot write {}", log.display()));
        let log = fs::OpenOptions::new().create(true).append(true).open(&log).map_err(failed)?;
        let mut command = Command::new(self.program);
        command.arg(job.file);
        command.args(["--seed", &job.seed.to_string(), "--device", &self.device.to_string(), "--json", WITH_PARENT]);
        command.arg("--out").arg(job.folder);
        if resumes {
            command.arg("--resume");
        }
        for plugin in job.plugins {
            command.args(["--plugin", &plugin.path]);
        }
        command.stderr(log);
        Ok(command)
    }

    /// Starts a process, waits for its end, and gives what it printed.
    fn process(&self, mut command: Command) -> Result<(ExitStatus, String)> {
        let failed = || Error::io(format!("cannot run {}", self.program.display()));
        let mut printed = tempfile::tempfile().map_err(failed())?;
        command.envs(Trust::environment()?);
        command.stdin(Stdio::null()).stdout(printed.try_clone().map_err(failed())?);
        // A group of its own: Ctrl-C reaches this process alone, which passes one signal on.
        let child = command.process_group(0).spawn().map_err(failed())?;
        let status = self.wait(child)?;
        let mut text = String::new();
        printed.rewind().and_then(|()| printed.read_to_string(&mut text)).map_err(failed())?;
        Ok((status, text))
    }

    /// Waits for a run. Where the user wants to stop, it is told once and writes a checkpoint.
    fn wait(&self, mut child: Child) -> Result<ExitStatus> {
        let mut told = false;
        loop {
            if let Some(status) = child.try_wait().map_err(Error::io("cannot wait for a run"))? {
                return Ok(status);
            }
            if self.interrupt.came() && !told {
                told = true;
                let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                // It may just have ended: then there is nobody to tell.
                let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
            }
            std::thread::sleep(GLANCE);
        }
    }
}

/// Whether a run has ended well.
pub(crate) fn has_result(folder: &Path) -> bool {
    folder.join(result::FILE).is_file()
}

/// Waits until nobody is at work in a run folder: a run that a killed process left behind writes its last checkpoint.
fn wait_for(folder: &Path) -> Result<()> {
    if folder::lock(folder).is_err() {
        tracing::warn!("waiting for the run that is at work in {}", folder.display());
    }
    let failed = || Error::io(format!("cannot open the run folder {}", folder.display()));
    fs::File::open(folder).map_err(failed())?.lock().map_err(failed())
}

/// The error that a run printed, or how its process ended.
fn what_went_wrong(status: ExitStatus, printed: &str) -> String {
    let error: Option<Json> = serde_json::from_str(printed).ok();
    let message = error.as_ref().and_then(|error| error["error"]["message"].as_str());
    match (message, status.signal(), status.code()) {
        (Some(message), ..) => message.to_owned(),
        (None, Some(signal), _) => {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("unknown");
            format!("its process was ended by signal {signal} ({name})")
        }
        (None, None, code) => format!("its process ended with code {} and said nothing", code.unwrap_or(-1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_run_failed_is_said() {
        let check = |status: i32, printed: &str, expected: &str| {
            assert_eq!(what_went_wrong(ExitStatus::from_raw(status), printed), expected);
        };
        check(1 << 8, r#"{"error": {"code": "run", "message": "the loss is NaN"}}"#, "the loss is NaN");
        check(6, "", "its process was ended by signal 6 (SIGABRT)");
        check(9, r#"{"half"#, "its process was ended by signal 9 (SIGKILL)");
        check(3 << 8, "", "its process ended with code 3 and said nothing");
    }
}
