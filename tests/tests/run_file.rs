//! Mistakes in run files, models and data: each is one error that says where it is and what to do, with exit code 2.

use std::fs;

use fthost_tests::{Workdir, on_one_line};

use crate::text::{RUN, text_workdir};

/// The error of the tiny text run after a change of its folder.
#[track_caller]
fn error(code: i32, change: impl FnOnce(&Workdir)) -> String {
    let workdir = text_workdir();
    change(&workdir);
    let before = workdir.listing();
    let error = workdir.fthost(["--config", "run.toml"]).failed(code);
    assert_eq!(workdir.listing(), before, "a run that cannot begin leaves no trace");
    error
}

/// The error after one text of the run file was replaced by another.
#[track_caller]
fn edited(from: &str, to: &str) -> String {
    assert!(RUN.contains(from), "{from}");
    error(2, |workdir| {
        workdir.write("run.toml", RUN.replace(from, to));
    })
}

#[test]
fn an_unknown_key() {
    insta::assert_snapshot!(edited("batch_size = 8", "batchsize = 8"), @"
    run_file

      x unknown key train.batchsize
        ,-[run.toml:17:1]
     16 | epochs = 2
     17 | batchsize = 8
        : ^^^^|^^^^
        :     `-- unknown key
     18 | lr = 0.01
        `----
      help: did you mean batch_size? the keys here are accumulate, batch_size, betas, checkpoint_steps,
            clip_norm, clip_value, decay_biases_and_norms, dropout, epochs, eps, evaluate_before,
            evaluate_steps, keep_checkpoints, lr, min_delta, momentum, monitor, nesterov, optimizer, patience,
            precision, seed, steps, threads and weight_decay
    ");
}

#[test]
fn an_unknown_option_of_a_plugin() {
    insta::assert_snapshot!(edited("rank = 4", "rnak = 4"), @r#"
    run_file

      x strategy "lora" has no option rnak
        ,-[run.toml:12:1]
     11 | plugin = "lora"
     12 | rnak = 4
        : ^^|^
        :   `-- unknown option
     13 | targets = ["query", "value"]
        `----
      help: did you mean rank? the options here are alpha, alpha_pattern, bias, dropout, exclude, rank,
            rank_pattern, scaling, targets and use_dora
    "#);
}

#[test]
fn a_wrong_type() {
    insta::assert_snapshot!(edited("lr = 0.01", "lr = \"fast\""), @r#"
    run_file

      x train.lr must be a number, and is a string
        ,-[run.toml:18:6]
     17 | batch_size = 8
     18 | lr = "fast"
        :      ^^^|^^
        :         `-- must be a number
        `----
      help: lr: learning rate that the schedule scales
    "#);
    insta::assert_snapshot!(edited("rank = 4", "rank = \"four\""), @r#"
    run_file

      x rank of strategy "lora" must be a whole number, and is a string
        ,-[run.toml:12:8]
     11 | plugin = "lora"
     12 | rank = "four"
        :        ^^^|^^
        :           `-- must be a whole number
     13 | targets = ["query", "value"]
        `----
      help: rank: Rank of the update: rows of A, columns of B.
    "#);
}

#[test]
fn a_value_out_of_range() {
    insta::assert_snapshot!(edited("epochs = 2", "epochs = 0"), @"
    run_file

      x train.epochs must be at least 1, and is 0
        ,-[run.toml:16:10]
     15 | [train]
     16 | epochs = 0
        :          |
        :          `-- must be at least 1
     17 | batch_size = 8
        `----
      help: epochs: passes over the training examples
    ");
    insta::assert_snapshot!(edited("rank = 4", "rank = 4\ndropout = 1.5"), @r#"
    run_file

      x dropout of strategy "lora" must be at least 0 and below 1, and is 1.5
        ,-[run.toml:13:11]
     12 | rank = 4
     13 | dropout = 1.5
        :           ^|^
        :            `-- must be at least 0 and below 1
     14 | targets = ["query", "value"]
        `----
      help: dropout: Dropout on the update's input.
    "#);
}

#[test]
fn a_syntax_error() {
    insta::assert_snapshot!(edited("lr = 0.01", "lr = = 0.01"), @"
    run_file

      x extra `=`, expected nothing
        ,-[run.toml:18:6]
     17 | batch_size = 8
     18 | lr = = 0.01
        :      |
        :      `-- here
        `----
      help: a run file is TOML: https://toml.io
    ");
}

#[test]
fn an_unknown_plugin() {
    let text = edited("plugin = \"lora\"", "plugin = \"lorra\"");
    let words = on_one_line(&text);
    for part in [
        "there is no strategy \"lorra\"",
        "run.toml:11:10",
        "did you mean \"lora\"?",
        "looked in [work] (working directory)",
    ] {
        assert!(words.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn a_pattern_that_matches_nothing() {
    insta::assert_snapshot!(edited("[\"query\", \"value\"]", "[\"query\", \"valeu\"]"), @r#"
    run_file

      x plugin lora (liblora.so) failed in attach: target "valeu" matches no linear layer. Did you mean "value"?
      | What there is ends in query, key, value, dense.
        ,-[run.toml:11:10]
     10 | [[strategy]]
     11 | plugin = "lora"
        :          ^^^|^^
        :             `-- this strategy
     12 | rank = 4
        `----
    "#);
}

#[test]
fn a_task_without_training_data() {
    insta::assert_snapshot!(edited("train = \"train.tsv\"\n", ""), @r#"
    run_file

      x task[0].train is missing
       ,-[run.toml:4:1]
     3 | 
     4 | [[task]]
       : ^^^^|^^^
       :     `-- train is missing here
     5 | name = "sentiment"
       `----
      help: train: file with the training examples; relative to the run file
    "#);
}

#[test]
fn no_run_file() {
    let workdir = Workdir::new();
    insta::assert_snapshot!(workdir.fthost(["--config", "run.toml"]).failed(2), @"
    usage

      x cannot read the run file run.toml: No such file or directory (os error 2)
      help: a run file is TOML and begins with [model]; without one, --plugin runs the embedded demo
    ");
}

#[test]
fn a_missing_model_folder() {
    let text = edited("path = \"model\"", "path = \"modle\"");
    assert!(on_one_line(&text).contains("cannot read [work]/modle/config.json: No such file or directory"), "{text}");
}

#[test]
fn a_missing_model_file() {
    for file in ["config.json", "model.safetensors"] {
        let text = error(2, |workdir| fs::remove_file(workdir.path().join("model").join(file)).unwrap());
        assert!(on_one_line(&text).contains(file), "{text}");
    }
}

#[test]
fn damaged_weights() {
    let text = error(2, |workdir| {
        let file = workdir.path().join("model/model.safetensors");
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert!(on_one_line(&text).contains("model.safetensors is damaged or incomplete"), "{text}");
}

#[test]
fn a_missing_tokenizer() {
    let text = error(2, |workdir| fs::remove_file(workdir.path().join("model/tokenizer.json")).unwrap());
    let words = on_one_line(&text);
    assert!(words.contains("tokenizer.json: there is no such file") && words.contains("save_pretrained"), "{text}");
}

#[test]
fn missing_data() {
    let text = error(2, |workdir| fs::remove_file(workdir.path().join("train.tsv")).unwrap());
    assert!(on_one_line(&text).contains("[work]/train.tsv"), "{text}");
}

#[test]
fn empty_data() {
    insta::assert_snapshot!(on_one_line(&error(2, |workdir| drop(workdir.write("train.tsv", "")))), @"data x [work]/train.tsv: is empty help: it needs at least one row with a text and a label");
}

#[test]
fn a_row_without_a_label() {
    insta::assert_snapshot!(on_one_line(&error(2, |workdir| drop(workdir.write("train.tsv", "a good film\t1\na bad film\t0\na dull film\n")))), @"data x [work]/train.tsv:3: this row has 1 column; the label should stand in column 2 help: are the cells separated as the file's extension says: by tabs in .tsv, by commas in .csv?");
}

#[test]
fn a_label_that_training_never_saw() {
    insta::assert_snapshot!(on_one_line(&error(2, |workdir| drop(workdir.write("test.tsv", "a good film\t1\na warm film\t2\n")))), @"data x [work]/test.tsv:2: the label `2` does not occur in the training data help: known are `0`, `1`");
}

#[test]
fn with_json_an_error_is_one_object_with_its_place() {
    let workdir = text_workdir();
    workdir.write("run.toml", RUN.replace("batch_size = 8", "batchsize = 8"));
    let outcome = workdir.fthost(["--config", "run.toml", "--json"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(2), ""));
    let error = &serde_json::from_str::<serde_json::Value>(&outcome.stdout).unwrap()["error"];
    assert_eq!((error["line"].as_u64(), error["column"].as_u64()), (Some(17), Some(1)), "{error}");
    assert!(error["file"].as_str().is_some_and(|file| file.ends_with("run.toml")), "{error}");
}
