//! Plugins that fail while they run: the error names plugin and call, the host ends by itself, and no result is left.

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

      x plugin misbehaving (libmisbehaving.so) panicked in its options at tests/misbehaving/src/lib.rs:62:44:
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

      x plugin misbehaving (libmisbehaving.so) panicked in attach at tests/misbehaving/src/lib.rs:62:44: lost
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

      x plugin misbehaving (libmisbehaving.so) panicked in an event at tests/misbehaving/src/lib.rs:62:44: lost
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
      | encoder.layer.0.attention.self.query at tests/misbehaving/src/lib.rs:62:44: lost the left phalange
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
fn beside_lora(how: &str) -> String {
    let both = format!("{LORA}\n\n[[strategy]]\nplugin = \"misbehaving\"\nat = \"forward\"\nhow = \"{how}\"");
    RUN.replace(LORA, &both)
}

#[test]
fn a_hook_is_not_entered_again_while_it_holds_a_lock() {
    let workdir = text_workdir();
    workdir.write("run.toml", beside_lora("hold"));
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
    workdir.write("run.toml", beside_lora("draft"));
    let said = workdir.fthost(["--config", "run.toml", "--out", "run", "--set", "train.seed=41"]).succeeded();
    assert!(said.stderr.contains("step 1 of the run with seed 41"), "{}", said.stderr);
}
