//! What a run of its length never comes to: refused before it begins, by the key and its line, in `plan` too.

use std::fs;

use fthost_tests::{Workdir, on_one_line, result_json};

use crate::text::{LORA, RUN, text_workdir};

/// The tiny run, 8 steps of 4 an epoch, 6 where a quarter is watched, with further keys of `[train]`, and with other tables.
fn workdir(watched: bool, train: &str, tables: &str) -> Workdir {
    let workdir = text_workdir();
    let mut run = RUN.replace("[train]", &format!("{tables}\n[train]"));
    if watched {
        run = run.replace("test = ", "validation = 0.25\ntest = ");
    }
    workdir.write("run.toml", run + train);
    workdir
}

/// The place of a line in the run file.
fn place(workdir: &Workdir, line: &str) -> String {
    let text = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
    let number = text.lines().position(|found| found.starts_with(line)).expect("the run file has the line") + 1;
    format!("run.toml:{number}:")
}

#[track_caller]
fn refused(workdir: &Workdir, line: &str, expected: &str) {
    let before = workdir.listing();
    for arguments in [&["--config", "run.toml", "--out", "run"][..], &["plan", "run.toml"]] {
        let error = on_one_line(&workdir.fthost(arguments).failed(2));
        assert!(error.contains(expected), "{arguments:?}: no {expected:?} in {error}");
        assert!(error.contains(&place(workdir, line)), "{arguments:?}: not at {line}: {error}");
    }
    assert_eq!(workdir.listing(), before, "it was refused before it began");
}

#[track_caller]
fn accepted(workdir: &Workdir) {
    workdir.fthost(["plan", "run.toml"]).succeeded();
}

#[test]
fn evaluations_checkpoints_and_stops_that_never_come() {
    let check =
        |watched, train: &str, line: &str, expected: &str| refused(&workdir(watched, train, ""), line, expected);
    check(true, "evaluate_steps = 7", "evaluate_steps", "train.evaluate_steps is 7, and the run takes 6 steps");
    check(true, "patience = 1", "patience", "train.patience is 1, and 1 evaluation comes before the last step");
    check(true, "patience = 5\nevaluate_steps = 1", "patience", "could never stop early: give 4 at most");
    check(true, "patience = 1\nevaluate_steps = 6", "patience", "0 evaluations come before the last step");
    check(false, "checkpoint_steps = 9", "checkpoint_steps", "train.checkpoint_steps is 9, and the run takes 8 steps");
    check(false, "accumulate = 5", "accumulate", "train.accumulate is 5, and an epoch has 4 batches");
}

#[test]
fn what_still_comes_is_taken() {
    for train in
        ["evaluate_steps = 6", "patience = 4\nevaluate_steps = 1", "patience = 1\nevaluate_steps = 2\nmin_delta = 0.1"]
    {
        accepted(&workdir(true, train, ""));
    }
    for train in ["checkpoint_steps = 8", "accumulate = 4"] {
        accepted(&workdir(false, train, ""));
    }
}

#[test]
fn schedules_that_a_run_is_too_short_for() {
    let schedule = |options: &str| workdir(false, "", &format!("[schedule]\n{options}\n"));
    for plugin in [
        "constant",
        "linear",
        "cosine",
        "cosine-restarts",
        "polynomial",
        "exponential\"\ngamma = \"0.9",
        "plateau\"\nmode = \"min",
    ] {
        let options = format!("plugin = \"{plugin}\"\nwarmup = 8").replace("\"0.9\"", "0.9");
        refused(&schedule(&options), "warmup", "warmup takes 8 steps and the run 8");
        accepted(&schedule(&options.replace("= 8", "= 5")));
    }
    let check = |options: &str, line: &str, expected: &str| refused(&schedule(options), line, expected);
    check(
        "plugin = \"step\"\nstep_size = 2",
        "step_size",
        "step_size is 2 epochs, and the run's last step is before that",
    );
    check("plugin = \"step\"\nstep_size = 8\nunit = \"steps\"", "step_size", "step_size is 8 steps");
    check("plugin = \"multi-step\"\nmilestones = [1, 2]", "milestones", "one of the milestones is 2 epochs");
    check("plugin = \"cosine-restarts\"\ncycles = 9", "cycles", "the 8 steps of the run do not hold them");
    check(
        "plugin = \"cosine-restarts\"\ncycles = 1\ngrowth = 2",
        "plugin = \"cosine",
        "growth does nothing with one cycle",
    );
    accepted(&schedule("plugin = \"step\"\nstep_size = 7\nunit = \"steps\""));
    accepted(&schedule("plugin = \"multi-step\"\nmilestones = [1]"));
    accepted(&schedule("plugin = \"cosine-restarts\"\ncycles = 8"));
    let short = workdir(false, "steps = 4\n", "[schedule]\nplugin = \"exponential\"\ngamma = 0.9\n");
    refused(&short, "gamma", "gamma would do nothing");
}

/// A plan asks schedules for all the rates of a run that goes without evaluations; what they say then is no matter of the run's.
#[test]
fn a_schedule_that_hears_evaluations_says_nothing_of_missing_ones() {
    const HEARD_NONE: &str = "plateau has heard no evaluation";
    let plateau = |watched: bool, train: &str| {
        let workdir = workdir(watched, train, "[schedule]\nplugin = \"plateau\"\nwarmup = 2\n");
        workdir.fthost(["plan", "run.toml"]).succeeded();
        on_one_line(&workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded().stderr)
    };
    let said = plateau(true, "evaluate_steps = 1\n");
    assert!(!said.contains(HEARD_NONE), "{said}");
    let said = plateau(false, "");
    assert!(said.contains(HEARD_NONE), "the run itself says it still: {said}");
}

/// A plan tells strategies what a run begins with.
fn refused_by_plan(workdir: &Workdir) {
    let error = on_one_line(&workdir.fthost(["plan", "run.toml"]).failed(2));
    assert!(error.contains("nothing would ever thaw") && error.contains(&place(workdir, "unfreeze")), "{error}");
}

#[test]
fn groups_that_never_thaw() {
    let run = |every: &str| {
        let workdir = text_workdir();
        let freezing = format!("plugin = \"freezing\"\nunfreeze = {{ every = {{ {every} }} }}");
        workdir.write("run.toml", RUN.replace(LORA, &freezing));
        if every.ends_with(['2', '8']) {
            refused_by_plan(&workdir);
        }
        workdir.fthost(["--config", "run.toml", "--out", "run"])
    };
    for (every, expected) in
        [("epochs = 2", "is 2 epochs and there are 2"), ("steps = 8", "is 8 steps and there are 8")]
    {
        let error = on_one_line(&run(every).failed(1));
        assert!(error.contains(&format!("unfreeze.every {expected}, so nothing would ever thaw")), "{error}");
    }
    run("epochs = 1").succeeded();
    run("steps = 7").succeeded();
}

#[test]
fn each_of_several_tasks_in_sequence_is_looked_at() {
    let second = "[[task]]\nname = \"second\"\nhead = { plugin = \"classification\" }\ntrain = \"test.tsv\"\nvalidation = 0.25\n";
    let sequence = |train: &str| workdir(true, &format!("tasks = \"sequence\"\n{train}"), second);
    // Of 24 and of 12 examples.
    let expected = "train.evaluate_steps is 5, and the task second takes 4 steps";
    refused(&sequence("evaluate_steps = 5"), "evaluate_steps", expected);
    accepted(&sequence("evaluate_steps = 4"));
    accepted(&sequence("checkpoint_steps = 6"));
    refused(&sequence("checkpoint_steps = 7"), "checkpoint_steps", "no task takes more than 6 steps");
}

#[test]
fn steps_alone_are_taken_however_many_epochs_they_are() {
    let workdir = text_workdir();
    workdir.write("run.toml", RUN.replace("epochs = 2", "steps = 30"));
    workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
    let result = result_json(&workdir.path().join("run"));
    assert_eq!((&result["train"]["steps"], &result["plan"]["steps"]), (&30.into(), &30.into()));
    // Both: what ends first.
    workdir.fthost(["--config", "run.toml", "--out", "both", "--set", "train.epochs=2"]).succeeded();
    assert_eq!(result_json(&workdir.path().join("both"))["train"]["steps"], 8);
}

/// A smaller gain than `min_delta` ends patience, and the better model is saved all the same.
#[test]
fn the_best_model_is_the_best_seen() {
    let workdir = workdir(true, "monitor = \"loss\"\nevaluate_steps = 1\npatience = 2\nmin_delta = 1e9\n", "");
    workdir.fthost(["--config", "run.toml", "--out", "run", "--set", "train.lr=0.03"]).succeeded();
    let result = result_json(&workdir.path().join("run"));
    let text = fs::read_to_string(workdir.path().join("run/metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let watched: Vec<_> = lines.filter(|line| line["when"] == "validation").collect();
    assert_eq!(watched.len(), 3, "two after the first it stops: {text}");
    let best = watched
        .iter()
        .min_by(|a, b| a["metrics"]["loss"].as_f64().unwrap().total_cmp(&b["metrics"]["loss"].as_f64().unwrap()));
    let found = &result["tasks"]["sentiment"]["watch"]["best"];
    assert_eq!((&found["step"], &found["value"]), (&best.unwrap()["step"], &best.unwrap()["metrics"]["loss"]));
    assert_ne!(found["step"], 1, "the loss falls at this rate");
}
