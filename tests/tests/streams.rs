//! Training of two streams: each alone and then both, each at a rate of its own, and what cannot be meant.

use serde_json::Value;

use fthost_tests::{Workdir, on_one_line, result_json};

use crate::towers::{CLIP, CONTRASTIVE, FROZEN, LORA, PAIR, run_file, workdir};

/// What is said where a run file is refused, on one line.
#[track_caller]
fn refused(workdir: &Workdir, run: &str) -> String {
    workdir.write("run.toml", run);
    let ended = workdir.fthost(["run.toml", "--out", "refused"]);
    assert_eq!(ended.code, Some(2), "{run}: {}", ended.stderr);
    assert!(!workdir.path().join("refused").exists(), "nothing is left of a run that has not begun: {run}");
    on_one_line(&ended.stderr)
}

fn read(workdir: &Workdir, file: &str) -> String {
    std::fs::read_to_string(workdir.path().join(file)).unwrap()
}

#[test]
fn what_two_streams_cannot_mean_is_refused_at_its_place() {
    let workdir = workdir();
    let good = run_file(PAIR, CONTRASTIVE, LORA);
    let check = |run: &str, expected: &[&str]| {
        let said = refused(&workdir, run);
        assert!(expected.iter().all(|part| said.contains(part)), "{run}: {said}");
    };
    let with = |old: &str, new: &str| good.replace(old, new);

    // A prompt built for one stream on two.
    check(&with(LORA, "plugin = \"prompt\""), &["each of its 2 streams has its own", "key stream", "this strategy"]);
    check(&with(LORA, "plugin = \"prefix\""), &["each of its 2 streams has its own", "this strategy"]);
    // Streams of unknown kind, of the other kind, and one alone.
    check(&with(LORA, &format!("{LORA}\nstream = \"smell\"")), &["has no stream \"smell\"", "\"text\" and \"image\""]);
    check(&with("name = \"match\"", "name = \"match\"\nstream = \"smell\""), &["no stream \"smell\"", "run.toml:6"]);
    check(&with("image = \"image\"", "smell = \"image\""), &["unknown key model.streams.smell"]);
    check(&with("text = \"text\"", "text = \"image\""), &["takes images, and is to be the stream \"text\""]);
    check(&with("text = \"text\"", "text = \"nothing\""), &["there is no folder", "nothing"]);
    check(&with(PAIR, &format!("{PAIR}\npath = \"text\"")), &["model.path and model.streams both name the model"]);
    check(&with(PAIR, ""), &["model.path is missing", "streams = {"]);
    check(&with(PAIR, &format!("{PAIR}\ninit = \"random\"")), &["begin with the weights of their folders"]);
    // A head that reads a stream that is not there, or does not say which.
    let fused = with(CONTRASTIVE, "{ plugin = \"fusion\" }").replace(PAIR, "path = \"text\"");
    workdir.write("labelled.tsv", read(&workdir, "scored.tsv"));
    check(&fused.replace("train.tsv", "labelled.tsv").replace("test = \"test.tsv\"\n", ""), &["fusion", "two streams"]);
    let classes = with(CONTRASTIVE, "{ plugin = \"classification\" }");
    let classes = classes.replace("test = \"test.tsv\"\n", "columns = { label = \"text\" }\n");
    check(&classes, &["it reads one stream, and this model has \"text\" and \"image\"", "the task's key stream"]);
    // A row without a picture, and a table without a column of them.
    let rows = read(&workdir, "train.tsv");
    workdir.write("lacking.tsv", rows.replacen("pictures/3.png", "", 1));
    check(&with("train.tsv", "lacking.tsv"), &["lacking.tsv:5", "this row has no picture"]);
    workdir.write("gone.tsv", rows.replacen("pictures/3.png", "pictures/none.png", 1));
    check(&with("train.tsv", "gone.tsv"), &["gone.tsv:5", "pictures/none.png"]);
    check(&with("train.tsv", "pairs.tsv"), &["pairs.tsv", "`image`"]);
    check(&with("train.tsv", "pictures"), &["is no table, and each example is a text with its picture"]);
    // A batch of one example has no others.
    check(&with("batch_size = 8", "batch_size = 1"), &["a batch of one example has no others", "batch_size = 32"]);
    check(&with("batch_size = 8", "batch_size = 5"), &["the last batch of an epoch has one of the 16 examples"]);
    check(&with("batch_size = 8", "batch_size = 8\naccumulate = 2"), &["one loss for a whole batch"]);
}

/// A text that is longer than the tower takes is cut, as every model's are, and that is said.
#[test]
fn a_text_longer_than_the_tower_takes_is_cut_and_counted() {
    let workdir = workdir();
    let rows = read(&workdir, "train.tsv");
    workdir.write("long.tsv", rows.replacen("the film was good", &"the film was good ".repeat(200), 1));
    workdir.write("run.toml", run_file(PAIR, CONTRASTIVE, LORA).replace("train.tsv", "long.tsv"));
    let ended = workdir.fthost(["run.toml", "--out", "run"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(on_one_line(&ended.stderr).contains("tokens are cut: 1 of 16"), "{}", ended.stderr);
}

/// CLIP's own projections and scale are the model's, and its head's all the same: they always train.
#[test]
fn a_frozen_clip_learns_its_projections() {
    let workdir = workdir();
    for strategy in [FROZEN, "plugin = \"freezing\"\ntop = 0\nunfreeze = { every = { epochs = 2 } }"] {
        let run = run_file(CLIP, CONTRASTIVE, strategy);
        workdir.write("run.toml", &run);
        let name = if strategy == FROZEN { "frozen" } else { "thawed" };
        let ended = workdir.fthost(["run.toml", "--out", name]);
        assert_eq!(ended.code, Some(0), "{run}: {}", ended.stderr);
        let result: Value = result_json(&workdir.path().join(name));
        assert_eq!(result["proof"]["start"]["equals_base"], true);
        assert!(workdir.path().join(name).join("model/model.safetensors").is_file(), "whole weights trained");
    }
}

/// Text alone, image alone, and then both: what a task does not read stays what it is.
#[test]
fn each_stream_alone_and_then_both() {
    let workdir = workdir();
    let labels = |from: &str| {
        let rows = from.lines().skip(1).enumerate();
        rows.map(|(i, row)| format!("{row}\t{}\n", ["good", "bad"][i % 2])).collect::<String>()
    };
    workdir.write("labelled.tsv", format!("image\ttext\tlabel\n{}", labels(&read(&workdir, "train.tsv"))));
    let task = |name: &str, stream: &str| {
        format!(
            "[[task]]\nname = \"{name}\"\nstream = \"{stream}\"\nhead = {{ plugin = \"classification\" }}\ntrain = \"labelled.tsv\"\n\n"
        )
    };
    for (strategy, both) in
        [(LORA, true), ("plugin = \"lora\"\nrank = 4\ntargets = [\"query\"]\nstream = \"text\"", false)]
    {
        let alone = [task("words", "text"), if both { task("looks", "image") } else { String::new() }].concat();
        let run = run_file(PAIR, CONTRASTIVE, strategy);
        let run =
            run.replace("[[task]]", &format!("{alone}[[task]]")).replace("epochs", "tasks = \"sequence\"\nepochs");
        workdir.write("run.toml", &run);
        let name = if both { "both" } else { "texts" };
        let ended = workdir.fthost(["run.toml", "--out", name]);
        assert_eq!(ended.code, Some(0), "{run}: {}", ended.stderr);
        let result: Value = result_json(&workdir.path().join(name));
        assert!(result["tasks"]["match"]["metrics"]["recall_at_5"].as_f64().unwrap() > 0.0, "{result}");
        assert_eq!(result["proof"]["start"]["equals_base"], true);
    }
}

/// What a schedule says of a stream, and what freezing has it be multiplied with, is in the log of each step.
#[test]
fn the_log_has_the_rate_of_each_stream() {
    let workdir = workdir();
    let run = run_file(PAIR, CONTRASTIVE, "plugin = \"freezing\"\ntop = \"all\"\nfactors = { \"image:.*\" = 0.25 }");
    workdir.write("run.toml", run);
    workdir.fthost(["run.toml", "--out", "run", "--set", "train.steps=2"]).succeeded();
    let log = read(&workdir, "run/metrics.jsonl");
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps: Vec<Value> = lines.filter(|line| line["event"] == "step").collect();
    assert_eq!(steps.len(), 2);
    for step in steps {
        assert_eq!(step["rates"], serde_json::json!({ "heads": 0.02, "image": 0.005, "text": 0.02 }), "{step}");
    }
}
