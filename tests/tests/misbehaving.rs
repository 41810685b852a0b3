//! Plugins that fail while they run: the error names plugin and call, the host ends by itself, and no result is left.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fthost_tests::{Workdir, on_one_line, result_json};
use serde_json::Value;

use crate::text::{LORA, RUN, text_workdir};

/// The error of a small text run in which the plugin fails in a call in some way.
#[track_caller]
fn failure(at: &str, how: &str, code: i32) -> String {
    let workdir = text_workdir();
    let misbehaving = format!("plugin = \"misbehaving\"\nat = \"{at}\"\nhow = \"{how}\"");
    workdir.write("run.toml", RUN.replace(LORA, &misbehaving));
    let before = workdir.listing();
    let error = workdir.fthost(["--config", "run.toml", "--out", "run", "--quiet"]).failed(code);
    // What a run had written before it failed stays, but nothing that reads as a result; and nothing else is touched.
    let may_stay = ["run", "run/run.toml", "run/metrics.jsonl"];
    for entry in workdir.listing() {
        let known = before.contains(&entry)
            || may_stay.contains(&entry.as_str())
            || ["run/checkpoint", "run/events."].iter().any(|start| entry.starts_with(start));
        assert!(known, "{entry} was left");
    }
    error
}

#[test]
fn error_in_new() {
    insta::assert_snapshot!(failure("new", "error", 2), @r#"
    run_file

      x plugin misbehaving (libmisbehaving.so) failed in its options: looking for it: the left phalange is
      | missing
        ,-[run.toml:11:10]
     10 | [[strategy]]
     11 | plugin = "misbehaving"
        :          ^^^^^^|^^^^^^
        :                `-- this strategy
     12 | at = "new"
        `----
    "#);
}

#[test]
fn panic_in_new() {
    insta::assert_snapshot!(failure("new", "panic", 2), @r#"
    run_file

      x plugin misbehaving (libmisbehaving.so) panicked in its options at tests/misbehaving/src/lib.rs:76:44:
      | lost the left phalange
        ,-[run.toml:11:10]
     10 | [[strategy]]
     11 | plugin = "misbehaving"
        :          ^^^^^^|^^^^^^
        :                `-- this strategy
     12 | at = "new"
        `----
    "#);
}

#[test]
fn error_in_attach() {
    insta::assert_snapshot!(failure("attach", "error", 2), @r#"
    run_file

      x plugin misbehaving (libmisbehaving.so) failed in attach: looking for it: the left phalange is missing
        ,-[run.toml:11:10]
     10 | [[strategy]]
     11 | plugin = "misbehaving"
        :          ^^^^^^|^^^^^^
        :                `-- this strategy
     12 | at = "attach"
        `----
    "#);
}

#[test]
fn panic_in_attach() {
    insta::assert_snapshot!(failure("attach", "panic", 2), @r#"
    run_file

      x plugin misbehaving (libmisbehaving.so) panicked in attach at tests/misbehaving/src/lib.rs:76:44: lost
      | the left phalange
        ,-[run.toml:11:10]
     10 | [[strategy]]
     11 | plugin = "misbehaving"
        :          ^^^^^^|^^^^^^
        :                `-- this strategy
     12 | at = "attach"
        `----
    "#);
}

#[test]
fn error_in_an_event() {
    insta::assert_snapshot!(failure("event", "error", 1), @"
    plugin

      x plugin misbehaving (libmisbehaving.so) failed in an event: looking for it: the left phalange is missing
    ");
}

#[test]
fn panic_in_an_event() {
    insta::assert_snapshot!(failure("event", "panic", 1), @"
    plugin

      x plugin misbehaving (libmisbehaving.so) panicked in an event at tests/misbehaving/src/lib.rs:76:44: lost
      | the left phalange
    ");
}

#[test]
fn error_in_forward() {
    insta::assert_snapshot!(failure("forward", "error", 1), @"
    engine

      x plugin misbehaving (libmisbehaving.so) failed in its linear hook at
      | encoder.layer.0.attention.self.query: looking for it: the left phalange is missing
    ");
}

#[test]
fn panic_in_forward() {
    insta::assert_snapshot!(failure("forward", "panic", 1), @"
    engine

      x plugin misbehaving (libmisbehaving.so) panicked in its linear hook at
      | encoder.layer.0.attention.self.query at tests/misbehaving/src/lib.rs:76:44: lost the left phalange
    ");
}

#[test]
fn an_output_of_another_shape() {
    insta::assert_snapshot!(failure("forward", "shape", 1), @"
    engine

      x plugin misbehaving (libmisbehaving.so) failed in its linear hook at
      | encoder.layer.0.attention.self.query: it gave shape [16, 48] where [48, 16] is needed
    ");
}

#[test]
fn numbers_that_are_none() {
    insta::assert_snapshot!(failure("forward", "nan", 1), @"
    run

      x the loss is NaN at step 1: plugin misbehaving (libmisbehaving.so) failed in its linear hook at
      | encoder.layer.0.attention.self.query: of finite numbers it made NaN
      help: nothing has been trained yet: tell the plugin's author
    ");
}

#[test]
fn a_parameter_that_no_forward_pass_reads() {
    insta::assert_snapshot!(failure("forward", "unused", 1), @"
    run

      x after the first step no gradient has reached these trainable parameters: unused
      help: the loss does not depend on them: freeze them, or choose targets that the task's features pass
    ");
}

/// The options of a run in which the plugin behaves in some way beside LoRA.
fn beside_lora(at: &str, how: &str) -> String {
    let both = format!("{LORA}\n\n[[strategy]]\nplugin = \"misbehaving\"\nat = \"{at}\"\nhow = \"{how}\"");
    RUN.replace(LORA, &both)
}

#[test]
fn a_hook_is_not_entered_again_while_it_holds_a_lock() {
    let workdir = text_workdir();
    workdir.write("run.toml", beside_lora("forward", "hold"));
    workdir
        .fthost([
            "--config",
            "run.toml",
            "--out",
            "run",
            "--quiet",
            "--set",
            "train.threads=8",
            "--set",
            "train.batch_size=32",
        ])
        .succeeded();
}

#[test]
fn a_plugin_learns_seed_and_step_from_the_hosts_draft() {
    let workdir = text_workdir();
    workdir.write("run.toml", beside_lora("forward", "draft"));
    let said = workdir.fthost(["--config", "run.toml", "--out", "run", "--set", "train.seed=41"]).succeeded();
    assert!(said.stderr.contains("step 1 of the run with seed 41"), "{}", said.stderr);
}

/// Checks the error of a small run in which the plugin ends the process in a call in some way.
#[track_caller]
fn ends_the_process(at: &str, how: &str, expected: &str) {
    let error = on_one_line(&failure(at, how, 1));
    assert!(
        error.ends_with(&format!("x plugin misbehaving (libmisbehaving.so) ended the process in {expected}")),
        "{error}"
    );
}

const NO_CHECKPOINT: &str = "help: tell the plugin's author; remove run and begin again: there is no checkpoint yet";

#[test]
fn a_plugin_that_ends_the_process_is_no_success() {
    ends_the_process("new", "exit", "its options, with exit code 0 help: tell the plugin's author");
    ends_the_process("attach", "exit", "attach, with exit code 0 help: tell the plugin's author");
    let hook = "its linear hook at encoder.layer.0.attention.self.query";
    ends_the_process("forward", "exit", &format!("{hook}, with exit code 0 help: tell the plugin's author"));
    ends_the_process("event", "exit", &format!("an event, with exit code 0 {NO_CHECKPOINT}"));
}

#[test]
fn a_plugin_that_takes_the_process_with_it_is_named() {
    ends_the_process("event", "abort", &format!("an event, with signal 6 (SIGABRT) {NO_CHECKPOINT}"));
    ends_the_process("event", "fault", &format!("an event, with signal 11 (SIGSEGV) {NO_CHECKPOINT}"));
    // Rust's library says of itself that a stack has overflowed, and aborts.
    ends_the_process("event", "overflow", &format!("an event, with signal 6 (SIGABRT) {NO_CHECKPOINT}"));
}

/// A small run, with a checkpoint after each step, in which the plugin behaves in some way after its second step.
fn checkpointed(how: &str) -> Workdir {
    let workdir = text_workdir();
    let misbehaving = format!("plugin = \"misbehaving\"\nat = \"event\"\nhow = \"{how}\"");
    workdir
        .write("run.toml", RUN.replace(LORA, &misbehaving).replace("epochs = 2", "epochs = 2\ncheckpoint_steps = 1"));
    workdir
}

#[test]
fn what_resumes_is_said_where_there_is_a_checkpoint() {
    let workdir = checkpointed("exit");
    let error = on_one_line(&workdir.fthost(["run.toml", "--out", "run"]).failed(1));
    assert!(error.contains("go on from the last checkpoint with: fthost --resume --out run"), "{error}");
    // A machine reads the same, where it reads other errors.
    let outcome = workdir.fthost(["run.toml", "--out", "again", "--json"]);
    let error: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let error = &error["error"];
    assert_eq!((outcome.code, error["code"].as_str()), (Some(1), Some("plugin")));
    assert_eq!(
        error["message"],
        "plugin misbehaving (libmisbehaving.so) ended the process in an event, with exit code 0"
    );
    assert!(error["help"].as_str().unwrap().ends_with("fthost --resume --out again"), "{error}");
}

#[test]
fn a_plugin_that_blocks_is_named_and_one_ctrl_c_ends_the_run() {
    let workdir = checkpointed("block");
    let mut command = workdir.command(["run.toml", "--out", "run", "--quiet"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let expected = "warning: plugin misbehaving (libmisbehaving.so) is in an event and has not come back for 10 s; \
                    Ctrl-C ends the run\n";
    assert_eq!(line, expected);

    let began = Instant::now();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut error = String::new();
    said.read_to_string(&mut error).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    let error = on_one_line(&error);
    assert!(error.contains("plugin misbehaving (libmisbehaving.so) was in an event and did not come back"), "{error}");
    assert!(error.contains("go on from the last checkpoint with: fthost --resume --out run"), "{error}");
}

#[test]
fn a_plugin_that_changes_the_working_directory_moves_no_file_of_the_run() {
    for at in ["new", "attach", "event"] {
        let workdir = text_workdir();
        workdir.write("run.toml", beside_lora(at, "move"));
        let model = |workdir: &Workdir| {
            workdir.listing().into_iter().filter(|file| file.starts_with("model")).collect::<Vec<_>>()
        };
        let before = model(&workdir);
        let outcome = workdir.fthost(["run.toml", "--out", "run", "--set", "train.checkpoint_steps=1"]).succeeded();
        assert_eq!(model(&workdir), before, "{at}");
        let result = result_json(&workdir.path().join("run"));
        let saved = result["saved"]["path"].as_str().unwrap();
        assert!(result["folder"] == "run" && saved.starts_with("run/"), "{at}: {result}");
        assert!(workdir.path().join(saved).is_dir() && outcome.stdout.contains(&format!(" saved in {saved}")), "{at}");
        // The default folder, which gets a number.
        for folder in ["runs/run", "runs/run-2"] {
            workdir.fthost(["run.toml", "--quiet"]).succeeded();
            assert_eq!(result_json(&workdir.path().join(folder))["folder"], folder, "{at}");
        }
        assert_eq!(model(&workdir), before, "{at}");
    }
}

#[test]
fn a_run_ends_with_the_process_that_watches_over_it() {
    let workdir = checkpointed("block");
    let mut command = workdir.command(["run.toml", "--out", "run", "--quiet"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let checkpoint = workdir.path().join("run/checkpoints");
    while !fs::read_dir(&checkpoint).is_ok_and(|mut files| files.next().is_some()) {
        assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint after a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // Its folder is free as soon as it is gone.
    let lock = fs::File::open(workdir.path().join("run")).unwrap();
    while lock.try_lock().is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "the run goes on without anyone who watches over it");
        std::thread::sleep(Duration::from_millis(5));
    }
}
