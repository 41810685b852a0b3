//! LoRA in all its forms on the tiny BERT: what it saves, that PEFT computes the same with it, and takes the same steps.

use std::fs;
use std::path::Path;

use fthost_tests::{Workdir, on_one_line, reference, result_json, skipped};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::text::{LORA, RUN, peft_agrees, python, text_workdir};

/// Every option that changes what is computed, alone or with others. Layers have biases, and the tiny model has two.
const FORMS: [&str; 6] = [
    "use_dora = true",
    "bias = \"all\"",
    "bias = \"lora_only\"\nscaling = \"rslora\"",
    "targets = [\"query\", \"output.dense\"]\nrank_pattern = { \"0.*query\" = 2, \"attention.output.dense\" = 6 }\nalpha_pattern = { \
     \"layer.1.output.dense\" = 40.0 }",
    "scaling = \"raw\"\nalpha = 2.0\nrank_pattern = { \"encoder.layer.1.attention.self.value\" = 1 }",
    "use_dora = true\nbias = \"all\"\ntargets = [\"key\", \"dense\"]\nrank_pattern = { key = 2 }",
];

/// A run of [`RUN`] by gradient descent, all examples in each step, so that a step depends on nothing but where it starts.
fn run(workdir: &Workdir, name: &str, options: &str, settings: &[&str]) {
    let head = "\"classification\", init_std = 1.0";
    let text = RUN.replace(LORA, &format!("plugin = \"lora\"\n{options}")).replace("\"classification\"", head);
    let text =
        text.replace("batch_size = 8\nlr = 0.01", "batch_size = 32\nlr = 0.5\noptimizer = \"sgd\"\ndropout = false");
    workdir.write("run.toml", text.replace("epochs = 2", "epochs = 9"));
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    workdir.fthost(["--config", "run.toml", "--out", name].into_iter().chain(settings)).succeeded();
}

/// Names of the tensors of a run's adapter.
fn saved(workdir: &Workdir) -> Vec<String> {
    let bytes = fs::read(workdir.path().join("run/adapter/adapter_model.safetensors")).unwrap();
    SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(str::to_owned).collect()
}

#[test]
fn every_form_starts_at_the_base_model_and_peft_computes_the_same() {
    for options in FORMS {
        let workdir = text_workdir();
        run(&workdir, "run", options, &[]);
        let result = result_json(&workdir.path().join("run"));
        assert_eq!(result["proof"]["start"]["equals_base"], true, "{options}: {}", result["proof"]);
        assert_eq!(result["saved"]["format"], "peft", "{options}");
        let first = result["tasks"]["sentiment"]["metrics"]["loss"].as_f64().unwrap();
        assert!((first - 0.693).abs() > 1e-3, "{options}: nothing was learned that could show: {first}");
        let Some(python) = python() else {
            skipped("FTHOST_PYTHON names no Python with peft");
            continue;
        };
        peft_agrees(&python, &workdir.path().join("model"), &workdir, "sentiment", &workdir.path().join("test.tsv"));
    }
}

#[test]
fn peft_takes_the_same_step() {
    let Some(python) = python() else {
        return skipped("FTHOST_PYTHON names no Python with peft");
    };
    for options in FORMS {
        let workdir = text_workdir();
        for (name, steps) in [("run", "train.steps=3"), ("next", "train.steps=4")] {
            run(&workdir, name, options, &[steps]);
        }
        let off = step_off(&python, workdir.path());
        let off = off.as_object().unwrap();
        assert!(!off.is_empty());
        for (tensor, off) in off {
            assert!(off.as_f64().unwrap() < 1e-3, "{options}: the step of {tensor} is off by {off} of its length");
        }
    }
}

/// By tensor, how far the step between two runs is from PEFT's.
fn step_off(python: &Path, folder: &Path) -> Value {
    let files = ["model", "run/adapter", "next/adapter", "train.tsv"].map(|name| folder.join(name).into_os_string());
    reference(python, "peft_step.py", files.into_iter().chain(["0.5".into()]))
}

/// Updates that begin as a part of the weights: the run's own folder, what is merged and what PEFT reads are one model.
#[test]
fn updates_that_begin_as_a_part_of_the_weights_are_saved_beyond_it() {
    for init in ["olora", "pissa"] {
        let workdir = text_workdir();
        run(&workdir, "run", &format!("init = \"{init}\"\nrank = 4\nalpha = 6.0"), &["train.steps=5"]);
        let result = result_json(&workdir.path().join("run"));
        assert_eq!(result["saved"]["format"], "peft", "{init}");
        let loss = |of: &str| -> f64 {
            let found = workdir.fthost(["eval", of, "test.tsv", "--json"]).succeeded().stdout;
            let found: Value = serde_json::from_str(&found).unwrap();
            found["tasks"].as_object().unwrap().values().next().unwrap()["metrics"]["loss"].as_f64().unwrap()
        };
        let expected = result["tasks"]["sentiment"]["metrics"]["loss"].as_f64().unwrap();
        assert_eq!(loss("run"), expected, "{init}");
        workdir.fthost(["merge", "run", "merged"]).succeeded();
        assert!((loss("merged") - expected).abs() < 1e-5, "{init}");
        let opened = ["eval", "run/adapter", "test.tsv", "--json", "--set", "model.path=model"];
        let opened: Value = serde_json::from_str(&workdir.fthost(opened).succeeded().stdout).unwrap();
        let opened = opened["tasks"].as_object().unwrap().values().next().unwrap()["metrics"]["loss"].as_f64().unwrap();
        assert!((opened - expected).abs() < 1e-5, "{init}: {opened} and {expected}");

        let Some(python) = python() else {
            skipped("FTHOST_PYTHON names no Python with peft");
            continue;
        };
        peft_agrees(&python, &workdir.path().join("model"), &workdir, "sentiment", &workdir.path().join("test.tsv"));
        let folders = ["model", "run/adapter"].map(|name| workdir.path().join(name).into_os_string());
        let off = reference(&python, "lora_start_check.py", folders.into_iter().chain([init.into()]));
        for (layer, off) in off.as_object().unwrap() {
            assert!(off.as_f64().unwrap() < 1e-4, "{init}: what was taken out of {layer} is off by {off} of its size");
        }
    }
}

/// B's first step, which A has no part in: its gradient is 0 where B is.
#[test]
fn lora_plus_has_b_step_further_than_a() {
    let step = |options: &str| -> Vec<f32> {
        let workdir = text_workdir();
        run(&workdir, "run", options, &["train.steps=1"]);
        let bytes = fs::read(workdir.path().join("run/adapter/adapter_model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut all = tensors.tensors();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        let of_b = all.iter().filter(|(name, _)| name.contains("lora_B"));
        let floats = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect::<Vec<_>>();
        of_b.flat_map(|(_, tensor)| floats(tensor.data())).collect()
    };
    let (plain, plus) = (step(""), step("lr_ratio = 4.0"));
    assert!(plain.iter().any(|x| x.abs() > 1e-4), "nothing moved: {plain:?}");
    for (plain, plus) in plain.iter().zip(&plus) {
        assert!((4.0 * plain - plus).abs() <= 1e-6 * plus.abs().max(1e-3), "{plain} and {plus}");
    }
}

#[test]
fn biases_are_saved_where_peft_looks_for_them() {
    let layer = "base_model.model.bert.encoder.layer.0";
    for (bias, among, not_among) in [
        ("none", vec![], vec!["attention.self.query.base_layer.bias"]),
        ("lora_only", vec!["attention.self.query.base_layer.bias"], vec!["attention.self.key.bias"]),
        (
            "all",
            vec!["attention.self.query.base_layer.bias", "attention.self.key.bias", "output.LayerNorm.bias"],
            vec![],
        ),
    ] {
        let workdir = text_workdir();
        run(&workdir, "run", &format!("bias = {bias:?}"), &[]);
        let names = saved(&workdir);
        let has = |name: &&str| names.contains(&format!("{layer}.{name}"));
        assert!(among.iter().all(has), "{bias}: {names:?}");
        assert!(!not_among.iter().any(has), "{bias}: {names:?}");
    }
}

#[test]
fn a_pattern_that_does_nothing_or_two_that_disagree_are_errors() {
    for (options, expected) in [
        ("rank_pattern = { qwery = 2 }", "qwery"),
        ("init = \"pissa\"\nuse_dora = true", "do not go together"),
        ("init = \"olora\"\nrank = 17", "no more than 16 parts"),
        ("rank_pattern = { key = 2 }", "rank_pattern names by \"key\" layers that get no update: add them to targets"),
        (
            "alpha_pattern = { query = 2.0, \"0.attention.self.query\" = 3.0 }",
            "alpha_pattern names encoder.layer.0.attention.self.query by \"0.attention.self.query\" and by \"query\"",
        ),
    ] {
        let workdir = text_workdir();
        workdir.write("run.toml", RUN.replace(LORA, &format!("plugin = \"lora\"\n{options}")));
        let error = on_one_line(&workdir.fthost(["--config", "run.toml", "--out", "run"]).failed(2));
        assert!(error.contains(expected), "{options}: {error}");
    }
}

/// Base weights that thaw over LoRA go where PEFT keeps them, one level down, so that it restores them too.
#[test]
fn peft_restores_base_weights_that_trained_under_an_update() {
    let workdir = text_workdir();
    let strategies = "plugin = \"lora\"\n\n[[strategy]]\nplugin = \"freezing\"\ntop = \"all\"\nthaw = \".*(query|key|LayerNorm).weight\"";
    workdir.write("run.toml", RUN.replace(LORA, strategies));
    workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
    let names = saved(&workdir);
    let layer = "base_model.model.bert.encoder.layer.0";
    for name in ["attention.self.query.base_layer.weight", "attention.self.key.weight", "output.LayerNorm.weight"] {
        assert!(names.contains(&format!("{layer}.{name}")), "{name} is not among {names:?}");
    }
    let Some(python) = python() else {
        return skipped("FTHOST_PYTHON names no Python with peft");
    };
    peft_agrees(&python, &workdir.path().join("model"), &workdir, "sentiment", &workdir.path().join("test.tsv"));
}
