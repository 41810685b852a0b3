//! Files that are no usable plugin: each is refused by one clear error before any of its code runs, and nothing is written.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use fthost_tests::{Workdir, build, on_one_line};

use crate::text::text_workdir;

/// A folder with `plugin.so` of this content.
fn with_plugin(content: &[u8]) -> Workdir {
    let workdir = Workdir::new();
    workdir.write("plugin.so", content);
    workdir
}

/// A folder with a copy of a built plugin in which one text stands for another of the same length.
fn patched(plugin: &str, from: &str, to: &str) -> Workdir {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(build().plugin(plugin)).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect("the note holds the text");
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    with_plugin(&bytes)
}

/// The error that `--plugin ./plugin.so` ends in.
#[track_caller]
fn refusal(workdir: &Workdir) -> String {
    let before = workdir.listing();
    let error = workdir.fthost(["--plugin", "./plugin.so"]).failed(1);
    assert_eq!(workdir.listing(), before, "a refused plugin leaves no trace");
    error
}

/// A shared library that is no plugin: the one that this process runs on.
fn foreign_library() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libraries = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    PathBuf::from(
        libraries.into_iter().find(|path| path.contains("libc.so") || path.contains("libc-")).expect("libc is mapped"),
    )
}

#[test]
fn missing() {
    let workdir = Workdir::new();
    insta::assert_snapshot!(workdir.fthost(["--plugin", "./nothing.so"]).failed(2), @"
    usage

      x there is no plugin file ./nothing.so
      help: . holds no shared library; build the plugin first: cargo build -p NAME
    ");
    let error = workdir.fthost(["--plugin", "lorra"]).failed(2);
    let words = on_one_line(&error);
    assert!(words.contains(r#"there is no plugin "lorra""#) && words.contains(r#"did you mean "lora"?"#), "{error}");
    assert!(words.contains("[built]") && words.contains("FTHOST_PLUGIN_PATH"), "where it looked: {error}");
    assert_eq!(workdir.listing(), [""; 0]);
}

#[test]
fn a_text_file() {
    insta::assert_snapshot!(refusal(&with_plugin(b"#!/bin/sh\necho I am a plugin\n")), @"
    plugin

      x ./plugin.so is a text file, not a shared library
      help: a plugin is a shared library: cargo build -p NAME makes target/debug/libNAME.so
    ");
}

#[test]
fn an_empty_file() {
    insta::assert_snapshot!(refusal(&with_plugin(b"")), @"
    plugin

      x ./plugin.so is empty
      help: a plugin is a shared library: cargo build -p NAME makes target/debug/libNAME.so
    ");
}

#[test]
fn a_truncated_plugin() {
    let bytes = fs::read(build().plugin("lora")).unwrap();
    insta::assert_snapshot!(refusal(&with_plugin(&bytes[..bytes.len() / 2])), @"
    plugin

      x ./plugin.so is cut off: the file is shorter than its headers say
      help: build or copy it again
    ");
    // At no length does it end the process: a truncated library is a SIGBUS inside dlopen.
    for length in [1, 20, 64, 500, bytes.len() / 4, bytes.len() - 1] {
        refusal(&with_plugin(&bytes[..length]));
    }
}

#[test]
fn random_bytes() {
    // A fixed sequence (Knuth's generator), so that the test says the same each time.
    let mut state = 1_u64;
    let mut random = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    let bytes: Vec<u8> = (0..10_000).map(&mut random).collect();
    insta::assert_snapshot!(refusal(&with_plugin(&bytes)), @"
    plugin

      x ./plugin.so is not a shared library (it does not begin as ELF files do)
      help: a plugin is a shared library: cargo build -p NAME makes target/debug/libNAME.so
    ");
    // The same behind the first bytes of a real library.
    let mut library = fs::read(build().plugin("lora")).unwrap();
    library[64..10_064].copy_from_slice(&bytes);
    refusal(&with_plugin(&library));
}

#[test]
fn a_foreign_library() {
    let bytes = fs::read(foreign_library()).unwrap();
    insta::assert_snapshot!(refusal(&with_plugin(&bytes)), @"
    plugin

      x ./plugin.so is a shared library but no fthost plugin
      help: a plugin calls `export_plugin!` of fthost-plugin-api in a crate of type cdylib; see examples/
    ");
}

#[test]
fn a_program() {
    let bytes = fs::read("/proc/self/exe").unwrap();
    refusal(&with_plugin(&bytes));
}

#[test]
fn a_folder() {
    let workdir = Workdir::new();
    fs::create_dir(workdir.path().join("plugin.so")).unwrap();
    insta::assert_snapshot!(refusal(&workdir), @"
    plugin

      x ./plugin.so is a folder, not a plugin
      help: name the shared library inside it: FOLDER/libNAME.so
    ");
}

#[test]
fn one_for_a_newer_abi() {
    insta::assert_snapshot!(refusal(&patched("lora", r#""abi_major":1"#, r#""abi_major":7"#)), @"
    plugin

      x ./plugin.so was built for fthost ABI 7.1, this host has 1.1
      help: update fthost
    ");
    insta::assert_snapshot!(refusal(&patched("lora", r#""min_host_minor":0"#, r#""min_host_minor":8"#)), @"
    plugin

      x ./plugin.so needs fthost ABI 1.8, this host has 1.1
      help: update fthost
    ");
}

#[test]
fn one_that_needs_an_op_that_this_host_lacks() {
    insta::assert_snapshot!(refusal(&patched("lora", r#""low_rank@1""#, r#""low_rank@9""#)), @"
    plugin

      x ./plugin.so needs the op low_rank@9, which this host does not have
      help: update fthost
    ");
}

#[test]
fn one_that_any_user_can_change() {
    let workdir = with_plugin(&fs::read(build().plugin("lora")).unwrap());
    fs::set_permissions(workdir.path().join("plugin.so"), fs::Permissions::from_mode(0o666)).unwrap();
    insta::assert_snapshot!(refusal(&workdir), @"
    plugin

      x ./plugin.so can be written by every user, so anybody could put code into this run
      help: chmod o-w ./plugin.so; --allow-world-writable opens it all the same
    ");
}

#[test]
fn one_that_is_not_on_the_list() {
    let workdir = with_plugin(&fs::read(build().plugin("lora")).unwrap());
    let mut command = workdir.command(["--plugin", "./plugin.so"]);
    command.env("FTHOST_PLUGIN_SHA256", "0".repeat(64));
    let error = workdir.run(command).failed(1);
    let words = on_one_line(&error);
    assert!(
        words.contains("has SHA-256") && words.contains("which is not in --allow or FTHOST_PLUGIN_SHA256"),
        "{error}"
    );
}

#[test]
fn one_that_lacks_the_strategy_asked_for() {
    let workdir = Workdir::new();
    insta::assert_snapshot!(workdir.fthost(["--plugin", "liblora.so#dora"]).failed(2), @r#"
    usage

      x --plugin liblora.so#dora: there is no strategy "dora"
      help: did you mean liblora.so#lora? its strategies: "lora"
    "#);
    assert_eq!(workdir.listing(), [""; 0]);
}

#[test]
fn one_that_is_not_what_its_name_says() {
    let workdir = text_workdir();
    workdir.write("liblora.so", fs::read(build().plugin("cosine")).unwrap());
    let before = workdir.listing();
    let error = workdir.fthost(["--config", "run.toml"]).failed(2);
    let words = on_one_line(&error);
    assert!(words.contains(r#"[work]/liblora.so has no strategy "lora"; it has scheduler "cosine""#), "{error}");
    assert!(words.contains("run.toml:11:10"), "where the run file asks for it: {error}");
    assert_eq!(workdir.listing(), before);
}
