//! A test in a process of its own, with a time limit. It says what it came to on a pipe that is its standard input: standard output and
//! error are the plugin's to write to.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use super::bench::chosen;
use super::outcome::Outcome;
use super::subject::Subject;
use super::suite;
use crate::plugin::search::PATH_VARIABLE;
use crate::{Error, Result};

/// The argument by which this program runs one test: what is tried, as JSON.
pub const INSIDE: &str = "--inside";
/// How often is looked whether a test has ended.
const GLANCE: Duration = Duration::from_millis(4);
/// How long a line is waited for after the process has ended.
const PATIENCE: Duration = Duration::from_secs(2);
/// Characters of what a plugin wrote that are shown where its process fell.
const SHOWN: usize = 600;

/// A test and what it tries.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) test: String,
    pub(super) subject: Subject,
}

/// What a test's process says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) outcome: Outcome,
    /// The stage that fits, where it looked for one.
    pub(super) stage: Option<String>,
    /// Whether it came to no answer of its own: an error on the way to it.
    pub(super) stopped: bool,
}

/// Runs a test to its end, or to the limit.
///
/// # Errors
/// Where no process can be started.
pub(super) fn run(program: &Path, job: &Job, limit: Duration) -> Result<Said> {
    let failed = || Error::io(format!("cannot run {}", program.display()));
    let (mut from, to) = std::io::pipe().map_err(failed())?;
    let mut written = tempfile::tempfile().map_err(failed())?;
    let subject = serde_json::to_string(job).map_err(|error| Error::usage(format!("cannot write a test: {error}")))?;
    let mut command = Command::new(program);
    command.arg("validate").arg(&job.subject.file).args([INSIDE, &subject]).current_dir(&job.subject.folder);
    // Plugins that are found beside the user are found beside the test.
    let here = std::env::current_dir().ok();
    let more = std::env::var_os(PATH_VARIABLE).unwrap_or_default();
    let folders =
        std::env::split_paths(&more).map(|folder| here.as_deref().map_or(folder.clone(), |here| here.join(&folder)));
    if let Ok(folders) = std::env::join_paths(here.iter().cloned().chain(folders)) {
        command.env(PATH_VARIABLE, folders);
    }
    command.stdin(to).stdout(Stdio::null()).stderr(written.try_clone().map_err(failed())?);
    let mut child = command.process_group(0).spawn().map_err(failed())?;
    // Our own end for writing goes with it.
    drop(command);
    let (line, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        // What is cut off does not read, which is seen below.
        let _ = from.read_to_string(&mut text);
        let _ = line.send(text);
    });
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed())? {
            break Some(status);
        }
        if began.elapsed() >= limit {
            break None;
        }
        std::thread::sleep(GLANCE);
    };
    // Whatever it started ends with it.
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    let Some(status) = status else {
        let _ = child.wait();
        let seen = format!("it had not ended after {} s", limit.as_secs_f64());
        let expected = "every call of a plugin's returns; --timeout SECONDS gives slow ones more time";
        return Ok(Said { outcome: Outcome::failed(seen, expected), stage: None, stopped: false });
    };
    let said = heard.recv_timeout(PATIENCE).ok().and_then(|text| serde_json::from_str(text.lines().next()?).ok());
    Ok(said.unwrap_or_else(|| {
        let mut text = String::new();
        let _ = written.rewind().and_then(|()| written.read_to_string(&mut text));
        Said { outcome: fallen(status, &text), stage: None, stopped: false }
    }))
}

/// The outcome of a test whose process ended without a word.
fn fallen(status: ExitStatus, written: &str) -> Outcome {
    let how = match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("unknown");
            format!("its process was ended by signal {signal} ({name})")
        }
        (None, code) => format!("its process ended with code {} in the middle of the test", code.unwrap_or(-1)),
    };
    let tail: Vec<char> = written.trim().chars().rev().take(SHOWN).collect();
    let tail: String = tail.into_iter().rev().collect();
    let seen = if tail.is_empty() { how } else { format!("{how}; it wrote\n{tail}") };
    Outcome::failed(seen, "whatever goes wrong, a call returns a status, and the process stays")
}

/// What a process does that was started for one test.
///
/// # Errors
/// Where it was not started by `fthost validate`.
pub fn inside(job: &str) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Error::io("cannot watch the process that started this one")(error.into()))?;
    let job: Job =
        serde_json::from_str(job).map_err(|error| Error::usage(format!("{INSIDE} is for fthost itself: {error}")))?;
    let test = suite::named(&job.test).ok_or_else(|| Error::usage(format!("there is no test {:?}", job.test)))?;
    let pipe = std::io::stdin().as_fd().try_clone_to_owned().map_err(Error::io("cannot say what a test came to"))?;
    let mut stopped = false;
    let tried = catch_unwind(AssertUnwindSafe(|| (test.run)(&job.subject)));
    let outcome = match tried {
        Ok(outcome) => {
            stopped = outcome.is_err();
            Outcome::of(outcome, test.shows)
        }
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
            Outcome::failed(
                format!("the host panicked: {text}"),
                "a plugin's answer never panics the host: please report it",
            )
        }
    };
    let said = Said { outcome, stage: chosen().map(str::to_owned), stopped };
    let mut line = serde_json::to_string(&said).map_err(|error| Error::usage(error.to_string()))?;
    line.push('\n');
    File::from(pipe).write_all(line.as_bytes()).map_err(Error::io("cannot say what a test came to"))
}
