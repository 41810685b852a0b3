//! The host and the plugins, built as the tests themselves were.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::root;

/// Where the built files lie.
#[derive(Debug)]
pub struct Built {
    folder: PathBuf,
}

impl Built {
    /// The folder of the host and of all plugins.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The host's program.
    pub fn host(&self) -> PathBuf {
        self.folder.join("fthost")
    }

    /// A plugin's shared library, by its library's name.
    pub fn plugin(&self, name: &str) -> PathBuf {
        self.folder.join(format!("lib{name}.so"))
    }
}

/// Builds the host and all plugins, once per process. `cargo test` alone does not refresh them, so a test that loaded what
/// lies in the target folder would test yesterday's plugin.
pub fn build() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut command = cargo("build");
        // The targets with whose features `cargo test` builds: with those of `cargo build` alone, half of all crates are built twice.
        command.args(["--workspace", "--lib", "--bins", "--examples"]);
        if cfg!(feature = "cuda") {
            command.args(["--features", "fthost/cuda"]);
        }
        let (profile_folder, triple) = place();
        if let Some(triple) = triple {
            command.args(["--target", &triple]);
        }
        run(command);
        Built { folder: profile_folder }
    })
}

/// A cargo command in the root, for the profile and the target folder of the running test.
pub fn cargo(verb: &str) -> Command {
    let (profile_folder, _) = place();
    let profile = match profile_folder.file_name().expect("a folder has a name").to_string_lossy().as_ref() {
        "debug" => "dev".to_owned(),
        other => other.to_owned(),
    };
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args([verb, "--quiet", "--profile", &profile, "--target-dir"]).arg(target_folder());
    command
}

/// The target folder of the running test: `target`, or where `CARGO_TARGET_DIR` pointed.
pub fn target_folder() -> PathBuf {
    let (profile_folder, triple) = place();
    profile_folder.ancestors().nth(if triple.is_some() { 2 } else { 1 }).expect("profiles lie in a folder").to_owned()
}

/// The profile's folder, and the target triple where the build named one. A test lies in `target[/triple]/profile/deps`.
fn place() -> (PathBuf, Option<String>) {
    let program = std::env::current_exe().expect("a process knows its program");
    let deps = program.parent().expect("a program lies in a folder");
    let profile_folder = deps.parent().filter(|_| deps.ends_with("deps")).expect("cargo builds tests into deps/");
    let above = profile_folder.parent().expect("a profile's folder lies in the target folder");
    let triple = above.file_name().map(|name| name.to_string_lossy().into_owned());
    // Cargo keeps this file in the target folder itself. CACHEDIR.TAG it writes only into folders that it makes, and it does not make
    // a target folder that holds a fetched model already.
    (profile_folder.to_owned(), triple.filter(|_| !above.join(".rustc_info.json").is_file()))
}

fn run(mut command: Command) {
    let output = command.output().expect("cargo starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}:\n{text}", output.status);
}
