//! Weights that are kept in few bits: what trains beside them, what is refused, and the same bits again.

use fthost_tests::on_one_line;
use serde_json::Value;

use crate::resume::{bits, set_back};
use crate::text::text_workdir;

const KEY: [&str; 2] = ["--set", "model.quantize=q8_0"];

/// Of the tiny BERT's layers only those have rows of 32 elements that end a block's feed-forward half.
const ELEMENTS: u64 = 2 * 16 * 32;

#[test]
fn a_run_on_quantised_weights_is_resumed_evaluated_and_merged() {
    let workdir = text_workdir();
    let fthost = |args: &[&str]| workdir.fthost([args, &KEY].concat()).succeeded().stdout;
    let plan: Value = serde_json::from_str(&fthost(&["plan", "run.toml", "--json"])).unwrap();
    assert_eq!(plan["quantized_parameters"], ELEMENTS);
    let run = |out: &str, more: &[&str]| {
        fthost(&[&["run.toml", "--out", out, "--set", "train.checkpoint_steps=2"], more].concat());
        workdir.path().join(out)
    };
    let folder = run("run", &["--set", "train.threads=1"]);
    let whole = bits(&folder);
    set_back(&folder);
    workdir.fthost(["--resume", "--out", "run"]).succeeded();
    assert!(bits(&folder) == whole, "resumed");
    assert!(bits(&run("three", &["--set", "train.threads=3"])) == whole, "three threads");

    // What has trained is opened on the same weights, and merged into them.
    let task = whole.2.as_object().unwrap().values().next().unwrap();
    let metrics = |of: &str| -> Value {
        let found = workdir.fthost(["eval", of, "test.tsv", "--json"]).succeeded().stdout;
        let found: Value = serde_json::from_str(&found).unwrap();
        found["tasks"].as_object().unwrap().values().next().unwrap()["metrics"].clone()
    };
    assert_eq!(metrics("run"), task["metrics"]);
    let said = workdir.fthost(["merge", "run", "merged"]).succeeded().stdout;
    assert!(on_one_line(&said).contains("were quantised by model.quantize"), "{said}");
    let loss = |of: &str| metrics(of)["loss"].as_f64().unwrap();
    assert!((loss("run") - loss("merged")).abs() < 1e-5, "{} {}", loss("run"), loss("merged"));
}

#[test]
fn what_would_change_quantised_weights_is_refused() {
    let workdir = text_workdir();
    let refused = |args: &[&str]| {
        let failed = workdir.fthost([&["run.toml", "--out", "run"], args].concat()).failed(2);
        assert!(!workdir.path().join("run").exists());
        on_one_line(&failed)
    };
    let trained = refused(&[KEY[0], KEY[1], "--set", "strategy=[{ plugin = \"full\" }]"]);
    assert!(trained.contains("is quantised (model.quantize) and neither trains nor changes"), "{trained}");
    let none = refused(&["--set", "model.quantize=nf4"]);
    assert!(none.contains("no linear layer of the model can be kept in nf4"), "{none}");
    let random = refused(&[KEY[0], KEY[1], "--set", "model.init=random"]);
    assert!(random.contains("weights that are quantised are read from a folder"), "{random}");
    let unknown = refused(&["--set", "model.quantize=int4"]);
    assert!(unknown.contains("nf4") && unknown.contains("q8_0"), "{unknown}");
}
