//! Runs of several strategies, merged: the plain folder predicts what the run predicted, or the layer is named that cannot be folded.

use std::collections::HashMap;
use std::fs;

use fthost_tests::{Workdir, on_one_line, result_json};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde_json::{Value, json};

use crate::text::{LORA, RUN, text_workdir};

/// Methods that can be merged, with options by which they meet on the same layers.
const METHODS: [(&str, &str); 6] = [
    ("ia3", "plugin = \"ia3\""),
    ("lora", "plugin = \"lora\"\nrank = 2\nbias = \"lora_only\"\ntargets = [\"key\", \"value\", \"output.dense\"]"),
    ("dora", "plugin = \"lora\"\nrank = 2\nuse_dora = true\ntargets = [\"key\", \"value\", \"output.dense\"]"),
    ("dropped", "plugin = \"lora\"\nrank = 2\nuse_dora = true\ndropout = 0.2\ntargets = [\"value\", \"output.dense\"]"),
    ("bitfit", "plugin = \"bitfit\""),
    ("full", "plugin = \"full\""),
];

/// A run of some strategies on the tiny BERT at a rate that takes them far from where they start.
fn trained(strategies: &[&str]) -> Workdir {
    let workdir = text_workdir();
    let run = RUN.replace(LORA, &strategies.join("\n\n[[strategy]]\n")).replace("lr = 0.01", "lr = 0.05");
    workdir.write("run.toml", run);
    workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
    workdir
}

/// Log probabilities by row.
fn predicted(workdir: &Workdir, folder: &str, more: &[&str]) -> Vec<Vec<f64>> {
    let arguments = ["predict", folder, "test.tsv", "--format", "jsonl"];
    let printed = workdir.fthost(arguments.iter().chain(more)).succeeded().stdout;
    let row = |line: &str| -> Vec<f64> {
        let row: Value = serde_json::from_str(line).unwrap();
        row["probabilities"].as_object().unwrap().values().map(|p| p.as_f64().unwrap().ln()).collect()
    };
    printed.lines().map(row).collect()
}

/// What a plain folder predicts: it is the base model of an adapter that adds nothing and holds the folder's head.
fn predicted_by_plain(workdir: &Workdir, folder: &str) -> Vec<Vec<f64>> {
    let bytes = fs::read(workdir.path().join(folder).join("model.safetensors")).unwrap();
    let plain = SafeTensors::deserialize(&bytes).unwrap();
    let zeros = [0; 4 * 16];
    let mut tensors: HashMap<String, TensorView<'_>> = HashMap::new();
    for name in ["classifier.weight", "classifier.bias"] {
        tensors.insert(format!("base_model.model.{name}"), plain.tensor(name).unwrap());
    }
    for layer in 0..2 {
        for (name, shape) in [("lora_A", vec![1, 16]), ("lora_B", vec![16, 1])] {
            let name = format!("base_model.model.bert.encoder.layer.{layer}.attention.self.query.{name}.weight");
            tensors.insert(name, TensorView::new(Dtype::F32, shape, &zeros).unwrap());
        }
    }
    let config = json!({ "peft_type": "LORA", "task_type": "SEQ_CLS", "r": 1, "target_modules": ["query"] });
    workdir.write("nothing/adapter_config.json", config.to_string());
    workdir.write("nothing/adapter_model.safetensors", serialize(&tensors, None).unwrap());
    workdir.write("nothing/labels.json", fs::read(workdir.path().join(folder).join("labels.json")).unwrap());
    predicted(workdir, "nothing", &["--set", &format!("model.path={folder}")])
}

#[track_caller]
fn merges(strategies: &[&str]) {
    let workdir = trained(strategies);
    workdir.fthost(["merge", "run", "merged"]).succeeded();
    let (run, merged) = (predicted(&workdir, "run", &[]), predicted_by_plain(&workdir, "merged"));
    assert_eq!(run.len(), 16);
    for (run, merged) in run.iter().flatten().zip(merged.iter().flatten()) {
        assert!((run - merged).abs() < 1e-4, "{strategies:?}: log probability {run} in the run, {merged} merged");
    }
}

#[test]
fn every_pair_of_methods_merges_in_both_orders() {
    let mut merged = 0;
    for (first, one) in METHODS {
        for (second, other) in METHODS {
            let plugin = |options: &str| options.lines().next().unwrap().to_owned();
            if plugin(one) == plugin(other) {
                if first != second || first == "full" {
                    continue; // one parameter twice, which the next test looks at
                }
                merges(&[one]);
            } else {
                merges(&[one, other]);
            }
            merged += 1;
        }
    }
    assert_eq!(merged, 29);
}

#[test]
fn three_methods_on_one_layer_merge() {
    let options: HashMap<&str, &str> = METHODS.into();
    for methods in
        [["ia3", "lora", "bitfit"], ["bitfit", "dora", "ia3"], ["full", "ia3", "dora"], ["dropped", "ia3", "full"]]
    {
        merges(&methods.map(|method| options[method]));
    }
}

#[test]
fn one_layer_gets_no_method_twice() {
    let workdir = text_workdir();
    for method in ["plugin = \"ia3\"", LORA] {
        workdir.write("run.toml", RUN.replace(LORA, &format!("{method}\n\n[[strategy]]\n{method}")));
        let error = on_one_line(&workdir.fthost(["--config", "run.toml", "--out", "run"]).failed(2));
        assert!(error.contains("encoder.layer.0.attention.self."), "{error}");
    }
}

/// The plugin says of a hook that it can be folded, and folds it into another one.
#[test]
fn a_layer_that_would_predict_otherwise_is_refused_by_its_name() {
    let workdir = trained(&["plugin = \"misbehaving\"\nat = \"forward\"\nhow = \"merge\""]);
    let before = workdir.listing();
    let error = on_one_line(&workdir.fthost(["merge", "run", "merged"]).failed(2));
    assert!(error.contains("what is added at encoder.layer.0.attention.self.query cannot be folded"), "{error}");
    assert!(error.contains("fthost eval and fthost predict read the run folder"), "{error}");
    // So it is where the training examples are gone.
    fs::remove_file(workdir.path().join("train.tsv")).unwrap();
    assert_eq!(
        on_one_line(&workdir.fthost(["merge", "run", "merged"]).failed(2)).split(':').next(),
        error.split(':').next()
    );
    assert_eq!(workdir.listing().len(), before.len() - 1, "a refused merge leaves nothing");
}

/// A hook without parameters is no part of a plain folder either.
#[test]
fn a_model_with_hooks_is_not_saved_as_a_plain_one() {
    let workdir = trained(&["plugin = \"misbehaving\"\nat = \"forward\"\nhow = \"merge\"", "plugin = \"full\""]);
    let run = workdir.path().join("run");
    assert!(!run.join("model").exists() && run.join("adapter").is_dir(), "{:?}", workdir.listing());
    let result = &result_json(&run)["tasks"]["sentiment"]["metrics"]["loss"];
    let printed = workdir.fthost(["eval", "run", "test.tsv", "--json"]).succeeded().stdout;
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(&printed["tasks"]["sentiment"]["metrics"]["loss"], result);
}
