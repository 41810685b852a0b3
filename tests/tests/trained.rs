//! Runs that have ended, used: evaluated, merged.

use std::fs;

use fthost_tests::{Workdir, on_one_line, result_json, skipped};
use serde_json::Value;

use crate::text::{LORA, RUN, peft, python, text_workdir};

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

#[test]
fn a_merged_run_is_a_plain_folder_that_transformers_reads() {
    let dora = format!("{LORA}\nuse_dora = true\nbias = \"all\"");
    for strategy in [LORA, &dora, "plugin = \"full\"", "plugin = \"ia3\""] {
        let workdir = trained(strategy);
        workdir.fthost(["merge", "run", "merged"]).succeeded();
        for file in ["config.json", "model.safetensors", "tokenizer.json", "labels.json"] {
            assert!(workdir.path().join("merged").join(file).is_file(), "{file} is missing: {:?}", workdir.listing());
        }
        let before = fs::read(workdir.path().join("merged/model.safetensors")).unwrap();
        let error = on_one_line(&workdir.fthost(["merge", "run", "merged"]).failed(2));
        assert!(error.contains("merged exists already"), "{error}");
        assert!(fs::read(workdir.path().join("merged/model.safetensors")).unwrap() == before);

        let Some(python) = python() else {
            return skipped("FTHOST_PYTHON names no Python with transformers");
        };
        let merged = workdir.path().join("merged");
        let theirs = peft(&python, &merged, &merged, &workdir.path().join("test.tsv"));
        let ours = &result_json(&workdir.path().join("run"))["tasks"]["sentiment"];
        assert_eq!(theirs["confusion"], ours["confusion"], "predictions differ");
        let (theirs, ours) = (theirs["loss"].as_f64().unwrap(), ours["metrics"]["loss"].as_f64().unwrap());
        assert!((theirs - ours).abs() < 1e-5, "mean loss {theirs} in Transformers, {ours} here");
    }
}

#[test]
fn what_is_no_run_that_has_ended_says_so() {
    let workdir = text_workdir();
    let error = on_one_line(&workdir.fthost(["eval", "model", "test.tsv"]).failed(2));
    assert!(error.contains("model is no run folder: it has no run.toml"), "{error}");
    fs::create_dir(workdir.path().join("half")).unwrap();
    workdir.write("half/run.toml", RUN.replace("\"model\"", "\"../model\""));
    let error = on_one_line(&workdir.fthost(["merge", "half", "merged"]).failed(2));
    assert!(error.contains("half holds no run that has ended"), "{error}");
    assert!(error.contains("fthost --resume --out half"), "{error}");
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
