//! How files are opened as plugins: for the first time in a process of their own, only where they are trusted, and listed by their notes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fthost_tests::{Workdir, build, on_one_line, skipped};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::c_plugin::compile_traced;

/// A folder with a plugin in C that leaves a trace, `None` where there is no C compiler.
fn traced() -> Option<(Workdir, PathBuf)> {
    let workdir = Workdir::new();
    let Some(plugin) = compile_traced(workdir.path()) else {
        skipped("no C compiler");
        return None;
    };
    Some((workdir, plugin))
}

/// SHA-256 of a file, as `sha256sum` prints it.
pub(crate) fn sha256(path: &Path) -> String {
    Sha256::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the host says of a plugin that does something as it is loaded. The cache is the folder's own: nothing is remembered of other tests.
#[track_caller]
fn said_of(act: &str) -> Option<String> {
    let (workdir, _) = traced()?;
    let mut command = workdir.command(["inspect", "./libc_constant.so"]);
    command.env("FTHOST_CACHE", workdir.path()).env("FTHOST_ACT", act);
    Some(on_one_line(&workdir.run(command).failed(1)))
}

#[test]
fn one_that_ends_the_process_as_it_is_loaded_is_a_line() {
    let Some(crash) = said_of("crash") else { return };
    assert!(
        crash
            .contains("./libc_constant.so cannot be loaded: it ended the process that tried it by signal 11 (SIGSEGV)"),
        "{crash}"
    );
    assert!(crash.contains("none of it ran in this process"), "{crash}");
    let abort = said_of("abort").unwrap();
    assert!(abort.contains(r"by signal 6 (SIGABRT), saying: the \u001b[31mphalange"), "{abort}");
    let leave = said_of("leave").unwrap();
    assert!(leave.contains("it ended the process that tried it with code 0"), "{leave}");
    let at_the_end = said_of("crash_at_the_end").unwrap();
    assert!(at_the_end.contains("by signal 11 (SIGSEGV)"), "{at_the_end}");
}

#[test]
fn one_that_does_not_come_back_is_a_line() {
    for act in ["wait", "spin"] {
        let Some(said) = said_of(act) else { return };
        assert!(said.contains("./libc_constant.so cannot be loaded: after"), "{said}");
        assert!(said.contains("s it has not said yet what it holds"), "{said}");
    }
}

#[test]
fn one_that_passed_is_not_tried_again() {
    let Some((workdir, plugin)) = traced() else { return };
    let trace = workdir.path().join("trace");
    let loads = || {
        let mut command = workdir.command(["inspect", "./libc_constant.so"]);
        command.env("FTHOST_CACHE", workdir.path()).env("FTHOST_TRACE", &trace);
        workdir.run(command).succeeded();
        fs::read_to_string(&trace).unwrap().len()
    };
    assert_eq!(loads(), 2, "it is loaded to try it, and to use it");
    assert_eq!(loads(), 3);
    // Another content is another file.
    fs::OpenOptions::new()
        .append(true)
        .open(&plugin)
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"\0"))
        .unwrap();
    assert_eq!(loads(), 5);
    let user = rustix::process::getuid().as_raw();
    let cache = workdir.path().join(format!("fthost-plugins-{user}"));
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    // What others could have written says nothing.
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(loads(), 7);
}

/// Notes that say what cannot be are refused before any code runs.
#[test]
fn no_code_runs_before_the_notes_are_accepted() {
    let Some((workdir, plugin)) = traced() else { return };
    let whole = fs::read(&plugin).unwrap();
    let trace = workdir.path().join("trace");
    // The type of a note stands before its owner, which this one is found by.
    let types: Vec<usize> =
        (4..whole.len() - 8).filter(|at| &whole[*at..*at + 8] == b"fthost\0\0").map(|at| at - 4).collect();
    let of = |kind: u8| *types.iter().find(|at| whole[**at] == kind).expect("the plugin has such a note");
    for (at, kind, expected) in [
        (of(2), 9, "has a note about the plugin and none about a method"),
        (of(2), 1, "has 2 notes about the plugin"),
        (of(1), 9, "is a shared library but no fthost plugin"),
    ] {
        let mut bytes = whole.clone();
        bytes[at] = kind;
        fs::write(&plugin, bytes).unwrap();
        let mut command = workdir.command(["inspect", "./libc_constant.so"]);
        command.env("FTHOST_CACHE", workdir.path()).env("FTHOST_TRACE", &trace);
        let error = workdir.run(command).failed(1);
        assert!(on_one_line(&error).contains(expected), "{error}");
        assert!(!trace.exists(), "{expected}: its code ran");
    }
}

/// A copy of the plugin in which a text stands for another of the same length, wherever it stands.
fn patched(plugin: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(plugin).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    fs::write(plugin, bytes).unwrap();
}

#[test]
fn what_a_plugin_says_steers_no_terminal() {
    let Some((workdir, plugin)) = traced() else { return };
    patched(&plugin, "Written in C.", r"\u001b[2J  C.");
    patched(&plugin, "the example of", "\u{1b}[31m\u{7}ample of");
    patched(&plugin, "What the rate is", r"\u001b]0;rate is");
    for arguments in [["inspect", "./libc_constant.so"].as_slice(), &["plugins"], &["plugins", "--json"]] {
        let said = workdir.fthost(arguments).succeeded();
        let steers = |c: char| c.is_control() && c != '\n';
        assert!(!said.stdout.contains(steers), "{arguments:?}: {:?}", said.stdout);
        assert!(said.stdout.contains(r"u001b[2J  C."), "{arguments:?}: {}", said.stdout);
    }
}

#[test]
fn one_whose_code_names_other_methods_than_its_notes() {
    let Some((workdir, plugin)) = traced() else { return };
    // In `describe` alone, where quotes are not escaped once more by the note's own JSON; the first place is the note's.
    let mut bytes = fs::read(&plugin).unwrap();
    let name = b"\"name\":\"c_constant\",\"summary\"";
    let places: Vec<usize> = (0..bytes.len() - name.len()).filter(|at| bytes[*at..].starts_with(name)).collect();
    assert_eq!(places.len(), 2, "once in the note, and once in the code's answer");
    bytes[places[1] + 8] = b'x';
    fs::write(&plugin, bytes).unwrap();
    let error = on_one_line(&workdir.fthost(["inspect", "./libc_constant.so"]).failed(1));
    assert!(
        error.contains(
            r#"is not what its notes say: they name scheduler "c_constant", and its code scheduler "x_constant""#
        ),
        "{error}"
    );
}

#[test]
fn plugins_that_are_listed_by_digest_are_opened_and_no_others() {
    let (lora, full) = (build().plugin("lora"), build().plugin("full"));
    let workdir = Workdir::new();
    let list = workdir.write("plugins.sha256", format!("# ours\n{}  liblora.so\n", sha256(&lora)));
    let lora_digest = sha256(&lora);
    workdir.fthost(["inspect", "lora", "--allow", &lora_digest]).succeeded();
    workdir.fthost(["inspect", "lora", "--allow-list", "plugins.sha256"]).succeeded();
    workdir
        .fthost(["inspect", "lora", "full", "--allow-list", "plugins.sha256", "--allow", &sha256(&full)])
        .succeeded();
    let refused = on_one_line(&workdir.fthost(["inspect", "full", "--allow", &lora_digest]).failed(1));
    assert!(refused.contains("libfull.so has SHA-256"), "{refused}");
    assert!(refused.contains("which is not in --allow or FTHOST_PLUGIN_SHA256"), "{refused}");
    assert!(refused.contains(&format!("where you trust the file: --allow {}", sha256(&full))), "{refused}");
    let mut command = workdir.command(["inspect", "full"]);
    command.env("FTHOST_PLUGIN_LIST", &list);
    let refused = on_one_line(&workdir.run(command).failed(1));
    assert!(refused.contains("which is not in [work]/plugins.sha256"), "{refused}");
    workdir.write("plugins.sha256", "liblora.so\n");
    let refused = on_one_line(&workdir.fthost(["plugins", "--allow-list", "plugins.sha256"]).failed(2));
    assert!(refused.contains("plugins.sha256:1: \"liblora.so\" is no SHA-256"), "{refused}");
    let refused = workdir.fthost(["plugins", "--allow", "lora"]).failed(2);
    assert!(refused.contains("64 hexadecimal digits are needed"), "{refused}");
}

#[test]
fn a_comparison_holds_to_the_digests_that_are_listed() {
    let workdir = crate::text::text_workdir();
    let allow = sha256(&build().plugin("lora"));
    let arguments = [
        "compare", "run.toml", "--plugin", "lora", "--plugin", "full", "--seeds", "1", "--out", "c", "--allow", &allow,
    ];
    // It opens no plugin and reads notes: the list holds there as well.
    let refused = on_one_line(&workdir.fthost(arguments).failed(1));
    assert!(refused.contains("libfull.so has SHA-256"), "{refused}");
}

#[test]
fn what_every_user_can_write_to_is_refused_unless_told() {
    let workdir = Workdir::new();
    let open = workdir.path().join("open");
    fs::create_dir(&open).unwrap();
    let copy = open.join("liblora.so");
    fs::copy(build().plugin("lora"), &copy).unwrap();
    workdir.fthost(["inspect", "open/liblora.so"]).succeeded();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = on_one_line(&workdir.fthost(["inspect", "open/liblora.so"]).failed(1));
    assert!(refused.contains("open/liblora.so lies in [work]/open, to which every user can write"), "{refused}");
    workdir.fthost(["inspect", "open/liblora.so", "--allow-world-writable"]).succeeded();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o666)).unwrap();
    workdir.fthost(["inspect", "open/liblora.so"]).failed(1);
    workdir.fthost(["--allow-world-writable", "inspect", "open/liblora.so"]).succeeded();
}

#[test]
fn the_working_directory_can_be_left_out() {
    let workdir = Workdir::new();
    fs::copy(build().plugin("lora"), workdir.path().join("libmine.so")).unwrap();
    workdir.fthost(["inspect", "mine"]).succeeded();
    let refused = on_one_line(&workdir.fthost(["inspect", "mine", "--no-plugins-from-cwd"]).failed(2));
    assert!(refused.contains("there is no plugin \"mine\"") && !refused.contains("working directory"), "{refused}");
    workdir.fthost(["inspect", "./libmine.so", "--no-plugins-from-cwd"]).succeeded();
    let mut command = workdir.command(["plugins"]);
    command.env("FTHOST_NO_PLUGINS_FROM_CWD", "1");
    assert!(!workdir.run(command).succeeded().stdout.contains("libmine.so"));
}

#[test]
fn lists_read_notes_and_remember_digests() {
    let workdir = Workdir::new();
    let trace = workdir.path().join("trace");
    let plugin = compile_traced(workdir.path());
    let list = || -> Value {
        let mut command = workdir.command(["plugins", "--json"]);
        command.env("FTHOST_CACHE", workdir.path()).env("FTHOST_TRACE", &trace);
        serde_json::from_str(&workdir.run(command).succeeded().stdout).unwrap()
    };
    let first = list();
    let plugins = first["plugins"].as_array().unwrap();
    let lora = plugins.iter().find(|plugin| plugin["path"].as_str().unwrap().ends_with("/liblora.so")).unwrap();
    assert_eq!(lora["sha256"], sha256(&build().plugin("lora")));
    assert_eq!(lora["methods"][0]["name"], "lora");
    assert_eq!(list(), first);
    assert!(!trace.exists() || plugin.is_none(), "a list runs no code");
}
