//! A folder of one's own to run the host in.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::build;

/// A fresh working directory, removed at the end.
#[derive(Debug)]
pub struct Workdir {
    folder: TempDir,
}

/// How a run of the host ended.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error, the folder's path replaced by `[work]` and that of the plugins by `[built]`.
    pub stderr: String,
}

impl Workdir {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "it makes a folder on the disk")]
    pub fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("fthost-").tempdir().expect("a temporary folder can be made") }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file in it, and the folders on the way.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Runs the host here. Plugins are found by their names in the folder that they were built into.
    pub fn fthost<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Outcome {
        self.run(self.command(arguments))
    }

    /// The command that [`fthost`](Self::fthost) runs, for a test that changes its environment.
    pub fn command<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let built = build();
        let mut command = Command::new(built.host());
        command.args(arguments).current_dir(self.path());
        command.env("FTHOST_PLUGIN_PATH", built.folder()).env("NO_COLOR", "1");
        command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, mut command: Command) -> Outcome {
        let output = command.output().expect("the host starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Outcome {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr)
                .replace(&self.path().display().to_string(), "[work]")
                .replace(&build().folder().display().to_string(), "[built]"),
        }
    }

    /// Every file and folder in it, as sorted relative paths.
    pub fn listing(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![self.path().to_owned()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                found.push(path.strip_prefix(self.path()).unwrap().display().to_string());
                if path.is_dir() {
                    open.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

impl Outcome {
    /// The outcome of a run that has to succeed.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "standard error:\n{}\nstandard output:\n{}", self.stderr, self.stdout);
        self
    }

    /// Standard error of a run that has to end with this exit code. Nothing but the code, a panic or a signal included,
    /// counts as a clean end.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "standard error:\n{}\nstandard output:\n{}", self.stderr, self.stdout);
        self.stderr
    }
}

/// An error's text on one line: where it breaks depends on the lengths of paths.
pub fn on_one_line(error: &str) -> String {
    let lines = error.lines().map(|line| line.trim_start().trim_start_matches("| ").trim());
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A run's `result.json`.
#[track_caller]
pub fn result_json(run: &Path) -> Value {
    let file = run.join("result.json");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_str(&text).expect("result.json is JSON")
}

/// The lines of a run's `metrics.jsonl` about optimizer steps.
#[track_caller]
pub fn steps(run: &Path) -> Vec<Value> {
    let file = run.join("metrics.jsonl");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("metrics.jsonl holds JSON lines"));
    lines.filter(|line| line["event"] == "step").collect()
}
