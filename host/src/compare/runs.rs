//! The runs of a comparison: each a process of its own, so that what takes its process with it takes one run only.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use fthost_plugin_api::PredictionKind;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::candidates::Candidate;
use crate::run::DeviceChoice;
use crate::run::checkpoint::Checkpoints;
use crate::run::folder;
use crate::run::interrupt::Interrupt;
use crate::run::predictions::{self, Row};
use crate::run::proof::Pairing;
use crate::{Error, Result};

/// The argument by which a run ends when the comparison that started it is killed.
pub const WITH_PARENT: &str = "--ends-with-parent";
/// How often is looked whether a run has ended.
const GLANCE: Duration = Duration::from_millis(20);

/// Where runs are started, and how.
#[derive(Debug)]
pub(super) struct Runner<'a> {
    /// The program that makes a run: this one.
    pub(super) program: &'a Path,
    /// The comparison's folder.
    pub(super) folder: &'a Path,
    pub(super) device: DeviceChoice,
    pub(super) interrupt: &'a Interrupt,
}

/// A result that a run has left.
#[derive(Clone, Debug)]
pub(super) struct Left {
    pub(super) seconds: f64,
    pub(super) peak_rss_bytes: u64,
    pub(super) trainable: usize,
    pub(super) pairing: Pairing,
    pub(super) kind: PredictionKind,
    pub(super) predictions: Vec<Row>,
}

/// The run folder of a candidate and a seed.
pub(super) fn run_folder(comparison: &Path, candidate: &Candidate, seed: u64) -> PathBuf {
    comparison.join(&candidate.name).join(format!("seed-{seed}"))
}

impl Runner<'_> {
    /// Runs a candidate with a seed, from its newest checkpoint where it has one, if it has no result yet. The text is that of
    /// the run's error.
    ///
    /// # Errors
    /// Where the user stops it, or no run can be started.
    pub(super) fn run(&self, candidate: &Candidate, seed: u64) -> Result<Result<(), String>> {
        let folder = run_folder(self.folder, candidate, seed);
        if has_result(&folder) {
            return Ok(Ok(()));
        }
        let mut resumes = false;
        if folder.exists() {
            wait_for(&folder)?;
            // It may have ended meanwhile.
            if has_result(&folder) {
                return Ok(Ok(()));
            }
            resumes = Checkpoints::new(&folder, usize::MAX).latest().is_some();
            if !resumes {
                fs::remove_dir_all(&folder).map_err(Error::io(format!("cannot remove {}", folder.display())))?;
            }
        }
        let (status, printed) = self.process(candidate, seed, &folder, resumes)?;
        Ok(if status.success() && has_result(&folder) { Ok(()) } else { Err(what_went_wrong(status, &printed)) })
    }

    /// Starts a run, waits for its end, and gives what it printed. Its standard error is appended to a file beside its folder.
    fn process(&self, candidate: &Candidate, seed: u64, folder: &Path, resumes: bool) -> Result<(ExitStatus, String)> {
        let failed = || Error::io(format!("cannot run {}", self.program.display()));
        let log = folder.with_extension("log");
        let log = fs::OpenOptions::new().create(true).append(true).open(&log).map_err(failed())?;
        let mut printed = tempfile::tempfile().map_err(failed())?;
        let mut command = Command::new(self.program);
        command.arg(self.folder.join(&candidate.name).join("run.toml"));
        command.args(["--seed", &seed.to_string(), "--device", &self.device.to_string(), "--json", WITH_PARENT]);
        command.arg("--out").arg(folder);
        if resumes {
            command.arg("--resume");
        }
        for plugin in &candidate.identity.plugins {
            command.args(["--plugin", &plugin.path]);
        }
        command.stdin(Stdio::null()).stdout(printed.try_clone().map_err(failed())?).stderr(log);
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

fn has_result(folder: &Path) -> bool {
    folder.join("result.json").is_file()
}

/// Waits until nobody is at work in a run folder: a run that a killed comparison left behind writes its last checkpoint.
fn wait_for(folder: &Path) -> Result<()> {
    if folder::lock(folder).is_err() {
        tracing::warn!("waiting for the run that is at work in {}", folder.display());
    }
    let failed = || Error::io(format!("cannot open the run folder {}", folder.display()));
    fs::File::open(folder).map_err(failed())?.lock().map_err(failed())
}

/// The error that a run printed, or how its process ended.
fn what_went_wrong(status: ExitStatus, printed: &str) -> String {
    let error: Option<serde_json::Value> = serde_json::from_str(printed).ok();
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

/// The parts of `result.json` that are needed.
#[derive(Deserialize)]
struct Json {
    tasks: BTreeMap<String, JsonTask>,
    train: JsonTrain,
    parameters: JsonParameters,
    proof: JsonProof,
}

#[derive(Deserialize)]
struct JsonTask {
    /// Only predictions of classes can be confused.
    #[serde(default)]
    confusion: Vec<Vec<u64>>,
}

#[derive(Deserialize)]
struct JsonTrain {
    seconds: f64,
    peak_rss_bytes: u64,
}

#[derive(Deserialize)]
struct JsonParameters {
    trainable: usize,
}

#[derive(Deserialize)]
struct JsonProof {
    pairing: Pairing,
}

impl Left {
    /// Reads what a run of a task left in its folder.
    ///
    /// # Errors
    /// Where something is missing or does not read.
    pub(super) fn read(folder: &Path, task: &str) -> Result<Self> {
        let path = folder.join("result.json");
        let text = fs::read_to_string(&path).map_err(Error::io(format!("cannot read {}", path.display())))?;
        let unreadable = |what: &dyn std::fmt::Display| Error::run(format!("{} does not read: {what}", path.display()));
        let json: Json = serde_json::from_str(&text).map_err(|error| unreadable(&error))?;
        let result = json.tasks.get(task).ok_or_else(|| unreadable(&format!("it has no task {task}")))?;
        Ok(Self {
            seconds: json.train.seconds,
            peak_rss_bytes: json.train.peak_rss_bytes,
            trainable: json.parameters.trainable,
            pairing: json.proof.pairing,
            kind: if result.confusion.is_empty() { PredictionKind::Values } else { PredictionKind::Classes },
            predictions: predictions::read(&folder.join(predictions::FILE), task)?,
        })
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
