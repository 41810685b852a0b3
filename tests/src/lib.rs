//! What the integration tests share: the built host and plugins, and a folder of one's own to run the host in.
//!
//! The tests themselves stand in `tests/`, one module per subject; a new test goes into the module of its subject.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod built;
mod workdir;

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

pub use built::{Built, build, cargo, target_folder};
pub use workdir::{Outcome, Workdir, on_one_line, result_json, steps};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the root").to_owned()
}

/// Says that a test, or a part of it, could not run here. Written past the harness's capture, so that it is seen.
pub fn skipped(reason: &str) {
    writeln!(std::io::stderr(), "skipped: {reason}").expect("standard error takes a line");
}

/// The folder of a real pretrained BERT, all-MiniLM-L6-v2, where it is on this machine.
pub fn minilm() -> Option<PathBuf> {
    let folder = std::env::var_os("FTHOST_MINILM")
        .map_or_else(|| target_folder().join("fixtures/all-MiniLM-L6-v2"), PathBuf::from);
    folder.join("model.safetensors").is_file().then_some(folder)
}

/// The folder of real data, where it is on this machine: `FTHOST_DATA`, or beside the repository.
pub fn data() -> PathBuf {
    std::env::var_os("FTHOST_DATA").map_or_else(|| root().join("../shared/data"), PathBuf::from)
}

/// What a script of `tests/reference` prints as JSON on its last line.
#[track_caller]
pub fn reference<I: AsRef<OsStr>>(python: &Path, script: &str, arguments: impl IntoIterator<Item = I>) -> Value {
    let script = root().join("tests/reference").join(script);
    let output = Command::new(python).arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(String::from_utf8(output.stdout).unwrap().lines().last().unwrap()).unwrap()
}

/// The folders of the plugins: every one under `plugins/`.
pub fn plugin_folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("plugins")).expect("plugins/ is there");
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("Cargo.toml").is_file());
    folders.sort();
    folders
}

/// Name of the package in a folder.
pub fn package_name(folder: &Path) -> String {
    manifest(folder)["package"]["name"].as_str().expect("a package has a name").to_owned()
}

/// Name of a package's library: that of its file, `lib<name>.so`.
pub fn library_name(folder: &Path) -> String {
    let manifest = manifest(folder);
    let named = manifest.get("lib").and_then(|lib| lib.get("name")).and_then(|name| name.as_str());
    named.map_or_else(|| package_name(folder).replace('-', "_"), str::to_owned)
}

fn manifest(folder: &Path) -> toml::Table {
    let text = std::fs::read_to_string(folder.join("Cargo.toml")).expect("a package has a manifest");
    text.parse().expect("a manifest is TOML")
}
