//! The package for the registry holds what an author needs beside the sources: the headers, what came when, and all that its tests read.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn headers_and_changelog_are_in_the_package() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["package", "--list", "--allow-dirty", "--offline"];
    let output = Command::new(cargo).current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let files: BTreeSet<&str> = text.lines().collect();
    for file in [
        "CHANGELOG.md",
        "README.md",
        "build.rs",
        "include/draft/about.h",
        "include/draft/run.h",
        "include/fthost_plugin.h",
        "since.txt",
        "src/lib.rs",
        "tests/header/macros.h",
        "tests/header/top.h",
    ] {
        assert!(files.contains(file), "{file} is not in {files:?}");
    }
}
