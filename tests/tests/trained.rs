//! Runs that have ended, used: evaluated, merged.

use fthost_tests::{Workdir, minilm, result_json, skipped};
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
    for strategy in [LORA, "plugin = \"full\"", "plugin = \"ia3\""] {
        let workdir = trained(strategy);
        workdir.fthost(["merge", "run", "merged"]).succeeded();
        for file in ["config.json", "model.safetensors", "tokenizer.json", "labels.json"] {
            assert!(workdir.path().join("merged").join(file).is_file(), "{file} is missing: {:?}", workdir.listing());
        }
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

/// Peak memory of a plan and of the run that follows: at most 30 % apart.
#[track_caller]
fn memory_is_as_planned(workdir: &Workdir, arguments: &[&str]) {
    let json = |more: &[&str]| -> Value {
        let outcome = workdir.fthost(more.iter().chain(arguments).chain(&["--json"])).succeeded();
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
    for strategy in [LORA, "plugin = \"full\""] {
        let run = RUN.replace("\"model\"", &format!("{:?}", model.canonicalize().unwrap().display().to_string()));
        workdir.write("run.toml", run.replace(LORA, strategy));
        memory_is_as_planned(&workdir, &["run.toml", "--set", "train.epochs=1", "--set", "train.batch_size=16"]);
    }
}
