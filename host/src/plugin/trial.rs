//! A file that is new is loaded for the first time in a process of its own.
//!
//! The loader runs code of a file, and damaged code ends the process that runs it, or never comes back. So a program that says by
//! [`answer`] that it can be started for that, as `fthost` does, starts itself once for each new file, by what the kernel has of it
//! (`/proc/self/exe`): the child gets the sealed copy that would be loaded here, loads it, asks it what it holds, and ends as processes do. What
//! passes is remembered by its SHA-256 in this user's folder below `FTHOST_CACHE`, or else the temporary folder, and not tried again by this
//! version of the host; what fails is one sentence.
//!
//! A program that embeds the host and does not call [`answer`] cannot be started so, and loads every file directly: what passes the checks of
//! [`super::note`] and crashes then takes it along. Nothing else differs.
//!
//! This is no sandbox: the child has the user's rights as well.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fthost_plugin_api::abi::tables::{ABI_MAJOR, ABI_MINOR};
use object::ReadCache;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};

use super::{loading, note};
use crate::data::own_folder;
use crate::report::text::{one_line, shortened};
use crate::{Error, Result};

/// The first argument of a process that tries a file; the second names the file.
const ARGUMENT: &str = "--try-plugin";
/// How long loading may take, and saying what there is: so that with all else a file that hangs is a line within two seconds.
const PATIENCE: Duration = Duration::from_millis(1500);
/// The same where the machine is so busy that the process does not get to run.
const LONGEST: Duration = Duration::from_secs(20);
/// How often is looked whether it has ended.
const GLANCE: Duration = Duration::from_millis(1);
/// In which `/proc` counts, on every machine that this host runs on.
const TICKS_PER_SECOND: u64 = 100;
/// Bytes of addresses that the process may take up, and that it may write to a file.
const MOST_MEMORY: u64 = 8 << 30;
const MOST_WRITTEN: u64 = 64 << 20;

/// Whether this program can be started to try a file.
static CAN_BE_STARTED: AtomicBool = AtomicBool::new(false);

/// What became of a trial that did not end in an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    Now,
    Before,
    /// This program cannot be started for it.
    Not,
}

/// What the child says on its standard output.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    error: Option<(String, Option<String>)>,
}

/// To be called first in `main` of a program that opens plugins: where the program was started to try a file, this does so, and `main` returns
/// what this gives. Otherwise it is `None`, and new files are tried from now on.
pub fn answer() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|argument| argument != ARGUMENT) {
        CAN_BE_STARTED.store(true, Ordering::Relaxed);
        return None;
    }
    let path = PathBuf::from(arguments.next().unwrap_or_default());
    limit();
    let error = match try_here(&path) {
        Ok(()) => None,
        Err(Error::Plugin { message, help }) => Some((message, help)),
        Err(error) => Some((error.to_string(), None)),
    };
    let said = serde_json::to_writer(io::stdout(), &Answer { error });
    Some(if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A crash leaves no dump behind, a runaway fills neither memory nor disk, and what is left alone ends.
fn limit() {
    let at_most = |resource, most: u64| {
        let now = getrlimit(resource);
        let most = now.maximum.map_or(most, |maximum| maximum.min(most));
        // What cannot be limited is tried without.
        let _ = setrlimit(resource, Rlimit { current: Some(most), maximum: now.maximum });
    };
    at_most(Resource::Core, 0);
    at_most(Resource::As, MOST_MEMORY);
    at_most(Resource::Fsize, MOST_WRITTEN);
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// Loads the file that is standard input and asks it all that is asked when a plugin is opened.
fn try_here(path: &Path) -> Result<()> {
    let stdin = io::stdin();
    let file = File::open("/proc/self/fd/0").map_err(Error::io("cannot read the copy of a plugin"))?;
    let found = note::read(&ReadCache::new(file)).map_err(|refusal| refusal.of(path))?;
    let api = loading::load(path, stdin.as_fd())?;
    let info = loading::describe(path, api)?;
    loading::check_described(path, &found, &info)?;
    loading::about(path, api).map(drop)
}

/// Tries a file in a process of its own, unless it has passed before.
///
/// # Errors
/// In one sentence how that process ended.
pub(super) fn passes(path: &Path, copy: BorrowedFd<'_>, sha256: &str) -> Result<Tried> {
    if !CAN_BE_STARTED.load(Ordering::Relaxed) {
        return Ok(Tried::Not);
    }
    let version = env!("CARGO_PKG_VERSION");
    let passed = own_folder("fthost-plugins")
        .map(|folder| folder.join(format!("{sha256}-{version}-{ABI_MAJOR}.{ABI_MINOR}.passed")));
    if passed.as_ref().is_some_and(|passed| passed.is_file()) {
        return Ok(Tried::Before);
    }
    let trial = match Trial::start(path, copy) {
        Ok(trial) => trial,
        Err(error) => {
            tracing::debug!("no process could be started to try {}: {error}", path.display());
            return Ok(Tried::Not);
        }
    };
    trial.end(path)?;
    // Where it cannot be remembered, it is tried again the next time.
    if let Some(Err(error)) = passed.map(File::create) {
        tracing::debug!("that {} has passed was not remembered: {error}", path.display());
    }
    Ok(Tried::Now)
}

/// A process that tries a file.
struct Trial {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Trial {
    fn start(path: &Path, copy: BorrowedFd<'_>) -> io::Result<Self> {
        // Files rather than pipes: nobody has to read on, and nothing that the process starts keeps them waiting.
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut command = Command::new("/proc/self/exe");
        command.arg0("fthost").arg(ARGUMENT).arg(path).env("RUST_BACKTRACE", "0");
        command.stdin(copy.try_clone_to_owned()?).stdout(stdout.try_clone()?).stderr(Stdio::from(stderr.try_clone()?));
        // A group of its own: Ctrl-C is for this process.
        let child = command.process_group(0).spawn()?;
        Ok(Self { child, stdout, stderr })
    }

    /// Waits for its end.
    fn end(mut self, path: &Path) -> Result<()> {
        let began = Instant::now();
        let path = path.display();
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if began.elapsed() > LONGEST || (began.elapsed() > PATIENCE && !starved(self.child.id())) => {
                    // It may just have ended.
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    return Err(Error::plugin(format!(
                        "{path} cannot be loaded: after {:.1} s it has not said yet what it holds",
                        began.elapsed().as_secs_f32()
                    ))
                    .with_help("its start-up code waits or goes round in circles; none of it ran in this process"));
                }
                Ok(None) => std::thread::sleep(GLANCE),
                Err(error) => return Err(Error::io(format!("cannot wait for the process that tries {path}"))(error)),
            }
        };
        let answer: Option<Answer> = serde_json::from_str(&text(&mut self.stdout)).ok();
        match answer {
            Some(Answer { error: None }) if status.success() => Ok(()),
            Some(Answer { error: Some((message, help)) }) if status.success() => Err(Error::Plugin { message, help }),
            _ => {
                let said = text(&mut self.stderr);
                let said = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
                let said = if said.is_empty() {
                    String::new()
                } else {
                    format!(", saying: {}", shortened(&one_line(said), 200))
                };
                Err(Error::plugin(format!("{path} cannot be loaded: {}{said}", ended(status)))
                    .with_help("its code is damaged, or ends the process as it starts: build or copy it again; none of it ran in this process"))
            }
        }
    }
}

/// Whether a process is still waiting for a processor or a disk, and has had less time than it may take.
fn starved(process: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { return false };
    // What follows the name, which may hold anything: the state, and eleven and twelve places on the ticks that it has had.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let state = fields.next();
    let ticks: u64 = fields.skip(10).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    let had = Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND);
    matches!(state, Some("R" | "D")) && had < PATIENCE
}

fn ended(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("unknown");
            format!("it ended the process that tried it by signal {signal} ({name})")
        }
        (None, code) => format!("it ended the process that tried it with code {}", code.unwrap_or(-1)),
    }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    // Where it cannot be read, nothing was said.
    let _ = file.rewind().and_then(|()| file.take(1 << 20).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_trial_ended_is_said() {
        let check = |status: i32, expected: &str| assert_eq!(ended(ExitStatus::from_raw(status)), expected);
        check(11, "it ended the process that tried it by signal 11 (SIGSEGV)");
        check(127 << 8, "it ended the process that tried it with code 127");
    }

    #[test]
    fn a_process_that_sleeps_is_not_starved() {
        let mut child = Command::new("sleep").arg("10").spawn().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let starved = starved(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!starved);
        assert!(!super::starved(u32::MAX), "one that is not there");
    }
}
