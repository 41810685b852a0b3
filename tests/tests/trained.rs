//! Runs that have ended, used: evaluated, merged.

use std::fs;

use fthost_tests::{Workdir, minilm, on_one_line, result_json, skipped};
use serde_json::Value;

use crate::text::{LORA, RUN, logits_agree, peft, python, text_workdir};

/// A run of a strategy on the tiny BERT.
fn trained(strategy: &str) -> Workdir {
    let workdir = text_workdir();
    workdir.write("run.toml", RUN.replace(LORA, strategy));
    workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
    workdir
}

#[test]
fn a_run_evaluates_as_it_did_when_it_ended() {
    for strategy in [LORA, "plugin = \"full\""] {
        let workdir = trained(strategy);
        // The run folder and the plugins are all that is needed, wherever one stands.
        let run = workdir.path().join("run").display().to_string();
        let test = workdir.path().join("test.tsv").display().to_string();
        let outcome = Workdir::new().fthost(["eval", &run, &test, "--json"]).succeeded();
        let printed: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let (found, expected) =
            (&printed["tasks"]["sentiment"], &result_json(&workdir.path().join("run"))["tasks"]["sentiment"]);
        assert_eq!(
            (&found["metrics"], &found["confusion"]),
            (&expected["metrics"], &expected["confusion"]),
            "{strategy}"
        );
        let text = workdir.fthost(["eval", "run", "test.tsv"]).succeeded().stdout;
        assert!(text.contains("sentiment: accuracy") && text.contains("macro avg"), "{text}");
    }
}

/// The rows of a TSV file.
fn rows(tsv: &str) -> Vec<Vec<&str>> {
    tsv.lines().map(|line| line.split('\t').collect()).collect()
}

#[test]
fn predictions_on_the_test_file_are_those_of_the_evaluation() {
    for strategy in [LORA, "plugin = \"full\""] {
        let workdir = trained(strategy);
        let test = fs::read_to_string(workdir.path().join("test.tsv")).unwrap();
        let printed = workdir.fthost(["predict", "run", "test.tsv", "--probabilities"]).succeeded().stdout;
        assert!(printed.starts_with("line\tlabel\tprobability\tp("), "{printed}");
        let (expected, found) = (rows(&test), rows(&printed).split_off(1));
        assert_eq!(found.len(), expected.len());
        let correct = expected.iter().zip(&found).filter(|(truth, row)| truth[1] == row[1]).count();
        let accuracy = correct as f64 / expected.len() as f64;
        let result = &result_json(&workdir.path().join("run"))["tasks"]["sentiment"]["metrics"]["accuracy"];
        assert_eq!(accuracy, result.as_f64().unwrap(), "{strategy}");
        // The loss, too, is that of the probabilities.
        let classes: Vec<&str> = printed.lines().next().unwrap().split('\t').skip(3).collect();
        assert_eq!(classes.last(), Some(&"text"));
        let probability = |row: &[&str], label: &str| {
            let place = classes.iter().position(|class| *class == format!("p({label})")).unwrap();
            row[3 + place].parse::<f64>().unwrap()
        };
        let losses = expected.iter().zip(&found).map(|(truth, row)| -probability(row, truth[1]).ln());
        let loss = losses.sum::<f64>() / expected.len() as f64;
        let result = &result_json(&workdir.path().join("run"))["tasks"]["sentiment"]["metrics"]["loss"];
        assert!((loss - result.as_f64().unwrap()).abs() < 1e-6, "{strategy}: {loss}, {result}");

        // Texts alone, in any form, are predicted alike.
        let texts: Vec<&str> = expected.iter().map(|row| row[0]).collect();
        let json = |text: &&str| format!("{}\n", serde_json::json!({ "text": text }));
        workdir.write("texts.tsv", texts.join("\n"));
        workdir.write("texts.jsonl", texts.iter().map(json).collect::<String>());
        let alone =
            workdir.fthost(["predict", "run", "texts.tsv", "--out", "out.tsv", "--probabilities"]).succeeded().stdout;
        assert_eq!(alone, "");
        assert_eq!(fs::read_to_string(workdir.path().join("out.tsv")).unwrap(), printed);
        let lines = workdir.fthost(["predict", "run", "texts.jsonl"]).succeeded().stdout;
        for (line, row) in lines.lines().zip(&found) {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["label"], row[1]);
            assert_eq!(line["probability"].as_f64().unwrap() as f32, row[2].parse::<f32>().unwrap());
            assert_eq!(line["text"], row[row.len() - 1]);
            for class in ["0", "1"] {
                let of_line = line["probabilities"][class].as_f64().unwrap();
                assert!((of_line - probability(row, class)).abs() < 1e-6, "{class}: {line} {row:?}");
            }
        }
        assert_eq!(lines.lines().count(), found.len());
    }
}

#[test]
fn predictions_overwrite_nothing_and_end_where_the_input_is_broken() {
    let workdir = trained(LORA);
    workdir.write("kept.tsv", "mine");
    let error = on_one_line(&workdir.fthost(["predict", "run", "test.tsv", "--out", "kept.tsv"]).failed(2));
    assert!(error.contains("kept.tsv exists already"), "{error}");
    assert_eq!(fs::read_to_string(workdir.path().join("kept.tsv")).unwrap(), "mine");

    workdir.write("broken.jsonl", "{\"text\": \"good\"}\n{\"text\"\n");
    let before = workdir.listing();
    let error = on_one_line(&workdir.fthost(["predict", "run", "broken.jsonl", "--out", "new.jsonl"]).failed(2));
    assert!(error.contains("broken.jsonl:2: this line is no JSON object"), "{error}");
    assert_eq!(workdir.listing(), before, "a file that is not whole is not left");
    let outcome = workdir.fthost(["predict", "run", "broken.jsonl"]);
    assert_eq!(outcome.stdout, "", "what is wrong is said before anything is written");
}

#[test]
fn a_merged_run_is_a_plain_folder_that_transformers_reads() {
    let dora = format!("{LORA}\nuse_dora = true\nbias = \"all\"");
    for strategy in [LORA, &dora, "plugin = \"full\"", "plugin = \"ia3\""] {
        let workdir = trained(strategy);
        workdir.fthost(["merge", "run", "merged"]).succeeded();
        for file in ["config.json", "model.safetensors", "tokenizer.json", "labels.json"] {
            assert!(workdir.path().join("merged").join(file).is_file(), "{file} is missing: {:?}", workdir.listing());
        }
        let Some(python) = python() else {
            return skipped("FTHOST_PYTHON names no Python with transformers");
        };
        let merged = workdir.path().join("merged");
        let found = peft(&python, &merged, &merged, &workdir.path().join("test.tsv"));
        logits_agree(&workdir, "run", "test.tsv", "model", &found["logits"], 1e-5);
        let ours = &result_json(&workdir.path().join("run"))["tasks"]["sentiment"];
        assert_eq!(found["confusion"], ours["confusion"], "predictions differ");
        let (theirs, ours) = (found["loss"].as_f64().unwrap(), ours["metrics"]["loss"].as_f64().unwrap());
        assert!((theirs - ours).abs() < 1e-5, "mean loss {theirs} in Transformers, {ours} here");
    }
}

#[test]
fn rates_are_tried_and_one_is_suggested_and_nothing_is_left_but_the_page_that_is_asked_for() {
    let workdir = text_workdir();
    let before = workdir.listing();
    let search = ["lr-find", "--plugin", "lora", "--from", "1e-4", "--to", "100"];
    let found = workdir.fthost(search.iter().chain(&["--json"])).succeeded().stdout;
    let found: Value = serde_json::from_str(&found).unwrap();
    let rates: Vec<f64> =
        found["points"].as_array().unwrap().iter().map(|point| point["lr"].as_f64().unwrap()).collect();
    assert!(rates.windows(2).all(|pair| pair[0] < pair[1]) && rates.len() <= 100, "{rates:?}");
    assert_eq!(found["diverged"], true, "a rate of 100 is too high");
    let suggestion = found["suggestion"].as_f64().unwrap();
    assert!((1e-4..1.0).contains(&suggestion), "{suggestion}");
    let again = workdir.fthost(search.iter().chain(&["--json"])).succeeded().stdout;
    assert_eq!(serde_json::from_str::<Value>(&again).unwrap(), found);
    let text = workdir.fthost(search).succeeded().stdout;
    assert!(text.contains("suggestion: train.lr = "), "{text}");
    assert_eq!(workdir.listing(), before);
    // A run of few steps on few examples learns nothing that could be told from noise, and that is said.
    let found = workdir.fthost(["lr-find", "run.toml", "--json"]).succeeded().stdout;
    let found: Value = serde_json::from_str(&found).unwrap();
    assert!(found["suggestion"].is_null() && found["reason"].as_str().unwrap().contains("noise"), "{found}");
    let error = on_one_line(&workdir.fthost(["lr-find", "run.toml", "--from", "1", "--to", "0.1"]).failed(2));
    assert!(error.contains("are no range"), "{error}");

    let draw = || workdir.fthost(search.iter().chain(&["--out", "curve.html"]));
    let drawn = draw().succeeded().stdout;
    assert_eq!(drawn, format!("{text}curve in curve.html\n"));
    let read = || fs::read_to_string(workdir.path().join("curve.html")).unwrap();
    let page = read();
    for said in [format!(">suggestion {suggestion:.1e}</text>"), "<h1>demo</h1>".to_owned()] {
        assert!(page.contains(&said), "{said} is missing in {page}");
    }
    let error = on_one_line(&draw().failed(2));
    assert!(error.contains("curve.html exists already"), "{error}");
    assert_eq!(read(), page);
    let error = on_one_line(&workdir.fthost(["lr-find", "run.toml", "--out", "new.html", "--resume"]).failed(2));
    assert!(error.contains("does not take --resume"), "{error}");
    assert_eq!(workdir.listing().len(), before.len() + 1, "the page is all that is left");
}

#[test]
fn a_plan_trains_nothing_and_writes_nothing() {
    let workdir = text_workdir();
    let before = workdir.listing();
    let outcome = workdir.fthost(["plan", "run.toml", "--json"]).succeeded();
    assert_eq!(workdir.listing(), before);
    let plan: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&plan["steps"], &plan["examples"]), (&8.into(), &32.into()), "{plan}");
    assert!(plan["estimate"]["train_seconds"].as_f64() > Some(0.0), "{plan}");
    assert!(plan["estimate"]["peak_rss_bytes"].as_u64() > Some(1_000_000), "{plan}");
    let text = workdir.fthost(["plan", "run.toml"]).succeeded().stdout;
    assert!(text.contains("pattern \"query\" matched 2 places") && text.contains("nothing was trained"), "{text}");
}

#[test]
fn a_plan_counts_what_plugins_and_optimizers_keep() {
    let workdir = text_workdir();
    let plan = |strategy: &str, more: &str| -> Value {
        workdir.write("run.toml", format!("{}{more}", RUN.replace(LORA, strategy)));
        serde_json::from_str(&workdir.fthost(["plan", "run.toml", "--json"]).succeeded().stdout).unwrap()
    };
    let number = |plan: &Value, key: &str| plan["memory"][key].as_u64().unwrap();
    let trainable = |plan: &Value| 4 * plan["trainable_parameters"].as_u64().unwrap();
    let (full, averaged) = ("plugin = \"full\"", "plugin = \"full\"\n\n[[strategy]]\nplugin = \"ema\"");
    let bare = plan(full, "optimizer = { plugin = \"lion\" }\n");
    assert_eq!(number(&bare, "plugins"), 0);
    let (once, held) = (plan(averaged, ""), plan(full, "\n[[regularizer]]\nplugin = \"l2sp\"\n"));
    assert_eq!(number(&once, "plugins"), trainable(&once));
    assert!(number(&held, "plugins") > 0, "{held}");
    // Lion has one moment, and AdamW two.
    assert_eq!(number(&held, "training") - number(&bare, "training"), trainable(&bare));
}

/// Peak memory of a plan and of the run that follows: at most 30 % apart. On one thread: of several, how many hold a micro-batch at once
/// depends on what else the machine does.
#[track_caller]
fn memory_is_as_planned(workdir: &Workdir, arguments: &[&str]) {
    let json = |more: &[&str]| -> Value {
        let outcome = workdir.fthost(more.iter().chain(arguments).chain(&["--json", "--threads", "1"])).succeeded();
        serde_json::from_str(&outcome.stdout).unwrap()
    };
    let planned = json(&["plan"])["estimate"]["peak_rss_bytes"].as_f64().unwrap();
    let found = json(&[])["train"]["peak_rss_bytes"].as_f64().unwrap();
    assert!((planned / found - 1.0).abs() < 0.3, "{arguments:?}: {planned} bytes planned, {found} taken");
}

/// Time is not compared here, where other tests run beside: scripts/check-plan.py does.
#[test]
fn a_run_takes_the_memory_that_its_plan_says() {
    for plugin in ["lora", "full"] {
        let arguments = ["--plugin", plugin, "--set", "train.epochs=3"];
        memory_is_as_planned(&Workdir::new(), &arguments);
    }
}

#[test]
fn a_real_bert_takes_the_memory_that_its_plan_says() {
    let Some(model) = minilm() else {
        return skipped("all-MiniLM-L6-v2 is not here (scripts/fetch-minilm.sh)");
    };
    let workdir = text_workdir();
    let words = "the film was a very good one , and we loved it for its warm and funny story . ";
    let rows = (0..96).map(|i| format!("{}\t{}\n", words.repeat(1 + i % 3), i % 2)).collect::<String>();
    workdir.write("train.tsv", rows);
    // An average is a copy of all that trains, and more of them in an evaluation and in a checkpoint.
    let averaged = "plugin = \"full\"\n\n[[strategy]]\nplugin = \"ema\"";
    for strategy in [LORA, "plugin = \"full\"", averaged] {
        let run = RUN.replace("\"model\"", &format!("{:?}", model.canonicalize().unwrap().display().to_string()));
        workdir.write("run.toml", run.replace(LORA, strategy));
        memory_is_as_planned(&workdir, &["run.toml", "--set", "train.epochs=1", "--set", "train.batch_size=16"]);
    }
}

/// Of long texts few are evaluated at once: a run that looks at many of them takes no more than one that trains alone, and its own line
/// says what that is.
#[test]
fn long_texts_are_evaluated_in_the_memory_that_training_takes() {
    let Some(model) = minilm() else {
        return skipped("all-MiniLM-L6-v2 is not here (scripts/fetch-minilm.sh)");
    };
    let workdir = text_workdir();
    let model = format!("{:?}", model.canonicalize().unwrap().display().to_string());
    let long = "the film was a very good one , and we loved it for its warm and funny story . ".repeat(30);
    let rows = |count: usize| (0..count).map(|i| format!("{long}\t{}\n", i % 2)).collect::<String>();
    workdir.write("train.tsv", rows(4));
    workdir.write("test.tsv", rows(32));
    let run = RUN.replace("\"model\"", &model).replace("[[strategy]]", "max_tokens = 512\n\n[[strategy]]");
    workdir.write("alone.toml", run.replace("test = \"test.tsv\"\n", ""));
    workdir.write("run.toml", &run);
    let of = |file: &str| {
        let arguments = [file, "--json", "--threads", "1", "--set", "train.epochs=1", "--set", "train.batch_size=2"];
        let outcome = workdir.fthost(arguments).succeeded();
        let result: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let memory = result["plan"]["memory"].as_object().unwrap();
        let planned = memory.values().map(|bytes| bytes.as_f64().unwrap()).sum::<f64>();
        (planned, result["train"]["peak_rss_bytes"].as_f64().unwrap())
    };
    let ((_, alone), (planned, peak)) = (of("alone.toml"), of("run.toml"));
    assert!(peak < 1.15 * alone, "{peak} bytes with the evaluation, {alone} without");
    assert!((planned / peak - 1.0).abs() < 0.15, "{planned} bytes planned, {peak} taken");
}
