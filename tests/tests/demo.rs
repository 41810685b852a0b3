//! The embedded demo: what `fthost --plugin FILE` alone does, and what a run leaves behind.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use fthost_tests::{Outcome, Workdir, result_json, steps};
use safetensors::SafeTensors;
use serde_json::Value;

/// A run of the demo that several tests look at.
struct Demo {
    workdir: Workdir,
    outcome: Outcome,
}

impl Demo {
    fn run(&self) -> PathBuf {
        self.workdir.path().join("runs/demo")
    }
}

/// LoRA, with nothing but the plugin named.
fn lora() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    DEMO.get_or_init(|| {
        let workdir = Workdir::new();
        let outcome = workdir.fthost(["--plugin", "liblora.so"]).succeeded();
        Demo { workdir, outcome }
    })
}

/// The result of the only task.
fn task(result: &Value) -> &Value {
    result["tasks"].as_object().unwrap().values().next().unwrap()
}

#[track_caller]
fn learned(result: &Value) {
    let task = task(result);
    let (before, after) = (task["before"]["accuracy"].as_f64().unwrap(), task["metrics"]["accuracy"].as_f64().unwrap());
    assert!(before < 0.6 && after >= 0.95, "accuracy {before} before, {after} after");
    let (before, after) = (task["before"]["loss"].as_f64().unwrap(), task["metrics"]["loss"].as_f64().unwrap());
    assert!(after < before / 4.0, "loss {before} before, {after} after");
}

#[test]
fn lora_learns_all_ten_digits_and_says_so() {
    let demo = lora();
    let result = result_json(&demo.run());
    learned(&result);
    let task = task(&result);
    let accuracy = |of: &Value| format!("{:.4}", of["accuracy"].as_f64().unwrap());
    let sentence = format!("accuracy {} before, {} after", accuracy(&task["before"]), accuracy(&task["metrics"]));
    assert!(demo.outcome.stdout.contains(&sentence), "{sentence:?} is not in\n{}", demo.outcome.stdout);
    assert!(demo.outcome.stdout.contains("saved in"), "{}", demo.outcome.stdout);
}

#[test]
fn full_fine_tuning_learns_all_ten_digits_and_json_is_one_object() {
    let workdir = Workdir::new();
    let outcome = workdir.fthost(["--plugin", "libfull.so", "--out", "run", "--json"]).succeeded();
    let printed: Value =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {}", outcome.stdout));
    learned(&printed);
    let saved = result_json(&workdir.path().join("run"));
    assert_eq!(printed["tasks"], saved["tasks"]);
    assert_eq!(saved["parameters"]["trainable"], saved["parameters"]["total"], "{}", saved["parameters"]);
    // Base weights trained and nothing was added, so the result is a whole Hugging Face folder.
    for file in ["model/config.json", "model/model.safetensors"] {
        assert!(workdir.path().join("run").join(file).is_file(), "{:?}", workdir.listing());
    }
}

#[test]
fn a_run_leaves_its_file_its_metrics_its_result_and_its_adapter() {
    let run = lora().run();
    for file in
        ["run.toml", "metrics.jsonl", "result.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
    {
        assert!(run.join(file).is_file(), "{file} is missing");
    }
    let result = result_json(&run);
    for name in ["accuracy", "loss"] {
        assert!(task(&result)["metrics"][name].is_f64(), "{name}: {result}");
    }
    for name in ["seconds", "steps", "samples", "tokens", "peak_rss_bytes", "first_step_seconds"] {
        assert!(result["train"][name].as_f64() > Some(0.0), "train.{name}: {}", result["train"]);
    }
    assert_eq!(result["train"]["steps"].as_u64(), Some(steps(&run).len() as u64));
    let (trainable, total) = (&result["parameters"]["trainable"], &result["parameters"]["total"]);
    assert!(trainable.as_u64() > Some(0) && trainable.as_u64() < total.as_u64(), "{}", result["parameters"]);
    assert_eq!(
        (result["seed"].as_u64(), &result["device"], &result["precision"]),
        (Some(0), &"cpu".into(), &"f32".into())
    );

    let lora = result["plugins"].as_array().unwrap().iter().find(|plugin| plugin["name"] == "lora").unwrap();
    let digest = lora["sha256"].as_str().unwrap();
    assert!(digest.len() == 64 && lora["path"].as_str().unwrap().ends_with("/liblora.so"), "{lora}");

    let run_file: toml::Table = fs::read_to_string(run.join("run.toml")).unwrap().parse().unwrap();
    assert_eq!(run_file["strategy"][0]["plugin"].as_str(), Some("lora"));

    let predictions = fs::read_to_string(run.join("predictions.csv")).unwrap();
    let rows: Vec<Vec<&str>> = predictions.lines().map(|row| row.split(',').collect()).collect();
    assert_eq!(rows[0], ["task", "target", "prediction", "example", "probability"]);
    let right = rows[1..].iter().filter(|row| row[1] == row[2]).count();
    let accuracy = task(&result)["metrics"]["accuracy"].as_f64().unwrap();
    assert_eq!((rows.len() - 1, right as f64 / 355.0), (355, accuracy));
}

#[test]
fn the_adapter_has_pefts_names_and_shapes() {
    let folder = lora().run().join("adapter");
    let config: Value = serde_json::from_slice(&fs::read(folder.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!((&config["peft_type"], &config["r"]), (&"LORA".into(), &8.into()), "{config}");

    let bytes = fs::read(folder.join("adapter_model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut expected = Vec::new();
    for layer in 0..4 {
        for site in ["query", "value"] {
            let path = format!("base_model.model.vit.encoder.layer.{layer}.attention.attention.{site}");
            expected.push((format!("{path}.lora_A.weight"), vec![8, 64]));
            expected.push((format!("{path}.lora_B.weight"), vec![64, 8]));
        }
    }
    expected.push(("base_model.model.classifier.weight".into(), vec![10, 64]));
    expected.push(("base_model.model.classifier.bias".into(), vec![10]));
    expected.sort();
    let mut found: Vec<(String, Vec<usize>)> =
        tensors.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec())).collect();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn runs_of_one_seed_are_the_same_to_the_bit_at_any_number_of_threads_and_never_share_a_folder() {
    let workdir = Workdir::new();
    let run = |threads, seed, folder: &str| {
        let settings = ["--threads", threads, "--seed", seed, "--set", "train.steps=20"];
        workdir.fthost(["--plugin", "liblora.so"].iter().chain(&settings)).succeeded();
        workdir.path().join("runs").join(folder)
    };
    let first = run("1", "7", "demo");
    let result = fs::read(first.join("result.json")).unwrap();
    let (again, two_threads, other) = (run("1", "7", "demo-2"), run("2", "7", "demo-3"), run("2", "8", "demo-4"));
    assert_eq!(fs::read(first.join("result.json")).unwrap(), result, "the first run was overwritten");
    assert_eq!(losses(&steps(&first)).len(), 20);
    assert_eq!(losses(&steps(&first)), losses(&steps(&again)));
    assert_eq!(losses(&steps(&first)), losses(&steps(&two_threads)), "two threads, other losses");
    assert_ne!(losses(&steps(&first)), losses(&steps(&other)), "another seed, the same losses");
    assert_eq!(task(&result_json(&first))["metrics"], task(&result_json(&two_threads))["metrics"]);
}

fn losses(steps: &[Value]) -> Vec<u64> {
    steps.iter().map(|step| step["loss"].as_f64().unwrap().to_bits()).collect()
}

#[test]
fn a_folder_that_exists_is_refused_and_left_alone() {
    let workdir = Workdir::new();
    workdir.write("run/notes.txt", "mine");
    let error = workdir.fthost(["--plugin", "liblora.so", "--out", "run"]).failed(2);
    insta::assert_snapshot!(error, @"
    usage

      x the run folder run exists already
      help: a run never overwrites another: name another folder by --out
    ");
    assert_eq!(workdir.listing(), ["run", "run/notes.txt"]);
    // Nobody reads a large file to hear that.
    let arguments = ["--plugin", "liblora.so", "--out", "run", "--set", "task.0.train=nowhere.tsv"];
    let error = workdir.fthost(arguments).failed(2);
    assert!(error.contains("the run folder run exists already"), "{error}");
}
