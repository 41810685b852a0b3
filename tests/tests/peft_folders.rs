//! Folders that PEFT saved, or that a run saved as PEFT does, opened by `fthost eval` and `fthost merge`.

use std::fs;
use std::path::{Path, PathBuf};

use fthost_tests::{Workdir, data, minilm, on_one_line, reference, result_json, root, skipped};
use safetensors::{SafeTensors, serialize};
use serde_json::{Value, json};

use crate::text::{ADALORA, LORA, RUN, logits_agree, python, text_workdir};

/// A short run of a strategy on the tiny BERT, far enough that it shows in the loss.
fn trained(strategy: &str) -> Workdir {
    let workdir = text_workdir();
    let text = RUN.replace(LORA, strategy).replace("\"classification\"", "\"classification\", init_std = 1.0");
    workdir.write("run.toml", text);
    workdir.fthost(["--config", "run.toml", "--out", "run", "--set", "train.lr=0.1"]).succeeded();
    workdir
}

/// What `fthost eval` says of a folder on a file; the base model is `model`.
fn eval(workdir: &Workdir, folder: &str, data: &str) -> Value {
    let arguments = ["eval", folder, data, "--json", "--set", "model.path=model"];
    let printed: Value = serde_json::from_str(&workdir.fthost(arguments).succeeded().stdout).unwrap();
    printed["tasks"].as_object().unwrap().values().next().unwrap().clone()
}

fn loss(of: &Value) -> f64 {
    of["metrics"]["loss"].as_f64().unwrap_or_else(|| panic!("no loss in {of}"))
}

#[test]
fn an_adapter_evaluates_as_the_run_that_left_it() {
    for strategy in [
        "plugin = \"lora\"\nscaling = \"rslora\"\nbias = \"lora_only\"\nrank_pattern = { \"layer.0.*query\" = 2 }",
        "plugin = \"lora\"\nuse_dora = true\nbias = \"all\"\ntargets = [\"query\", \"dense\"]",
        ADALORA,
        "plugin = \"ia3\"",
        "plugin = \"vera\"\nrank = 8\ntargets = [\"query\", \"dense\"]",
        "plugin = \"prompt\"\ntokens = 3",
        "plugin = \"prefix\"\ntokens = 3\nprojection = true\nhidden = 8",
    ] {
        let workdir = trained(strategy);
        let run = &result_json(&workdir.path().join("run"))["tasks"]["sentiment"];
        let adapter = eval(&workdir, "run/adapter", "test.tsv");
        assert_eq!(adapter["confusion"], run["confusion"], "{strategy}");
        assert_eq!(adapter["labels"], run["labels"], "{strategy}");
        assert!((loss(&adapter) - loss(run)).abs() < 1e-6, "{strategy}: {adapter} is not {run}");
    }
}

#[test]
fn an_adapter_of_values_opens_with_a_head_for_values() {
    let workdir = text_workdir();
    let text = RUN.replace("\"classification\"", "\"regression\"");
    workdir.write("run.toml", text);
    workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded();
    let run = &result_json(&workdir.path().join("run"))["tasks"]["sentiment"];
    // The units of the targets are folded into the last layer, so the loss is in other units there, and the values are the same.
    let found = eval(&workdir, "run/adapter", "test.tsv");
    for metric in ["mse", "mae", "pearson", "spearman"] {
        let [found, run] = [&found, run].map(|of| of["metrics"][metric].as_f64().unwrap());
        assert!((found - run).abs() < 1e-5, "{metric}: {found}, {run}");
    }
}

#[test]
fn an_adapter_merges_as_the_run_that_left_it() {
    let workdir = trained(&format!("{LORA}\nuse_dora = true\nbias = \"all\""));
    workdir.fthost(["merge", "run", "merged"]).succeeded();
    workdir.fthost(["merge", "run/adapter", "again", "--set", "model.path=model"]).succeeded();
    for file in ["model.safetensors", "config.json", "tokenizer.json"] {
        let read = |folder: &str| fs::read(workdir.path().join(folder).join(file)).unwrap();
        assert!(read("merged") == read("again"), "{file} differs");
    }
}

/// A folder that knows no labels, as PEFT's do not: names come from the base model's config, and the classes' numbers do too.
#[test]
fn classes_are_named_by_the_base_model_or_numbered() {
    let workdir = trained(LORA);
    fs::remove_file(workdir.path().join("run/adapter/labels.json")).unwrap();
    let run = loss(&result_json(&workdir.path().join("run"))["tasks"]["sentiment"]);
    let named = |names: Value| {
        let mut config = json_file(&workdir.path().join("model/config.json"));
        config["id2label"] = names;
        workdir.write("model/config.json", config.to_string());
    };
    let rows = fs::read_to_string(workdir.path().join("test.tsv")).unwrap();
    workdir.write("words.tsv", rows.replace("\t0", "\tbad").replace("\t1", "\tgood"));
    for (names, labels) in [
        (json!({ "0": "bad", "1": "good" }), json!(["bad", "good"])),
        (json!({ "0": "a", "1": "b", "2": "c" }), json!(["LABEL_0", "LABEL_1"])), // of another head
        (Value::Null, json!(["LABEL_0", "LABEL_1"])),
    ] {
        named(names);
        let numbered = eval(&workdir, "run/adapter", "test.tsv");
        assert_eq!((&numbered["labels"], loss(&numbered)), (&labels, run));
        if labels[0] == "bad" {
            assert_eq!(loss(&eval(&workdir, "run/adapter", "words.tsv")), run);
        } else {
            let arguments = ["eval", "run/adapter", "words.tsv", "--set", "model.path=model"];
            let error = on_one_line(&workdir.fthost(arguments).failed(2));
            assert!(error.contains("known are `LABEL_0`, `LABEL_1`"), "{error}");
        }
    }
}

#[test]
fn what_would_be_computed_otherwise_is_refused_by_name() {
    let workdir = trained(LORA);
    let file = workdir.path().join("run/adapter/adapter_config.json");
    let written = json_file(&file);
    let check = |field: &str, value: Value, expected: &str| {
        let mut config = written.clone();
        config[field] = value;
        fs::write(&file, config.to_string()).unwrap();
        let outcome = workdir.fthost(["eval", "run/adapter", "test.tsv", "--set", "model.path=model"]);
        assert!(matches!(outcome.code, Some(1 | 2)), "{field}: {:?}", outcome.code);
        let error = on_one_line(&outcome.stderr);
        assert!(error.contains(expected), "{field}: {error}");
    };
    check("lora_bias", json!(true), "adapter_config.json says lora_bias = true, which is not supported");
    check("target_parameters", json!(["experts"]), "says target_parameters = [\"experts\"], which is not supported");
    check("a_new_field", json!({ "on": true }), "says a_new_field = {\"on\":true}, which is not supported");
    check(
        "layers_to_transform",
        json!([0]),
        "encoder.layer.1.attention.self.query.lora_A.weight, which has no place here",
    );
    check("init_lora_weights", json!("pissa"), "init_lora_weights = \"pissa\", which changes the base weights");
    check("peft_type", json!("LOHA"), "no strategy is known that opens \"LOHA\"");
    check("peft_type", json!("LOHA"), "LORA (lora), PREFIX_TUNING (prefix), PROMPT_TUNING (prompt)");
    check("peft_type", json!(null), "names no peft_type");
    check(
        "task_type",
        json!("QUESTION_ANS"),
        "task_type \"QUESTION_ANS\", and only SEQ_CLS, TOKEN_CLS and CAUSAL_LM open here",
    );
    check(
        "r",
        json!(2),
        "lora_A.weight has shape [4, 16], and [2, 16] is needed here help: the fields of adapter_config.json",
    );
    check("target_modules", json!(["query"]), "attention.self.value.lora_A.weight, which has no place here");
    check(
        "target_modules",
        json!(["query", "value", "key"]),
        "lacks bert.encoder.layer.0.attention.self.key.lora_A.weight",
    );

    fs::write(&file, written.to_string()).unwrap();
    let error = on_one_line(&workdir.fthost(["eval", "run/adapter", "test.tsv", "--set", "model.path=gone"]).failed(2));
    assert!(error.contains("gone/config.json") && error.contains("--set model.path=FOLDER"), "{error}");
}

/// Writes the tensors of the run's adapter anew, but for those that `kept` gives no name.
fn rename(workdir: &Workdir, kept: impl Fn(&str) -> Option<String>) {
    let file = workdir.path().join("run/adapter/adapter_model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let renamed = tensors.iter().filter_map(|(name, tensor)| Some((kept(name)?, tensor)));
    fs::write(&file, serialize(renamed, None).unwrap()).unwrap();
}

#[test]
fn biases_that_were_not_saved_are_the_base_models() {
    let lora = |bias: &str| trained(&format!("{LORA}\nbias = \"{bias}\""));
    let workdir = lora("lora_only");
    let with = loss(&eval(&workdir, "run/adapter", "test.tsv"));
    rename(&workdir, |name| (!name.ends_with(".base_layer.bias")).then(|| name.to_owned()));
    let without = loss(&eval(&workdir, "run/adapter", "test.tsv"));
    assert_ne!(with, without);
    let arguments = ["eval", "run/adapter", "test.tsv", "--set", "model.path=model"];
    let said = on_one_line(&workdir.fthost(arguments).succeeded().stderr);
    assert!(
        said.contains("query.base_layer.bias and 3 more that the adapter trained: the base model's are used"),
        "{said}"
    );
    // A folder that trained none holds the same tensors, and means the same.
    let file = workdir.path().join("run/adapter/adapter_config.json");
    let mut config = json_file(&file);
    config["bias"] = json!("none");
    fs::write(&file, config.to_string()).unwrap();
    assert_eq!(loss(&eval(&workdir, "run/adapter", "test.tsv")), without);
}

/// Another base model is blamed where it is one, and nowhere else.
#[test]
fn the_help_says_which_of_the_files_is_wrong() {
    let check = |fields: Value, kept: &dyn Fn(&str) -> Option<String>, expected: [&str; 2]| {
        let workdir = trained(LORA);
        rename(&workdir, kept);
        let file = workdir.path().join("run/adapter/adapter_config.json");
        let mut config = json_file(&file);
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        fs::write(&file, config.to_string()).unwrap();
        let arguments = ["eval", "run/adapter", "test.tsv", "--set", "model.path=model"];
        let error = on_one_line(&workdir.fthost(arguments).failed(2));
        for expected in expected {
            assert!(error.contains(expected), "{fields}: no {expected:?} in {error}");
        }
        assert_eq!(error.contains("another base model"), expected[1].contains("another base model"), "{error}");
    };
    let all = |name: &str| Some(name.to_owned());
    let moved = |from: &'static str, to: &'static str| move |name: &str| Some(name.replace(from, to));
    check(
        json!({}),
        &moved("layer.1.", "layer.7."),
        ["lacks bert.encoder.layer.1.attention.self.query.lora_A.weight", "must come from one save"],
    );
    check(
        json!({ "layers_to_transform": [0] }),
        &moved("layer.1.", "layer.7."),
        ["holds bert.encoder.layer.7.", "another base model"],
    );
    check(json!({ "layers_to_transform": [0] }), &all, ["holds bert.encoder.layer.1.", "must come from one save"]);
    check(json!({ "modules_to_save": ["pooler"] }), &all, ["lacks bert.pooler.dense.weight", "modules_to_save"]);
    check(
        json!({ "modules_to_save": ["query"] }),
        &all,
        ["lacks bert.encoder.layer.0.attention.self.query.weight", "modules_to_save"],
    );
    check(
        json!({ "target_modules": ["q_lin"] }),
        &all,
        ["adapts no linear layer of this bert model", "model.path=FOLDER"],
    );
    check(
        json!({ "layers_to_transform": [0] }),
        &moved("encoder.layer.1.attention.self.query", "embeddings.word_embeddings"),
        ["holds bert.embeddings.word_embeddings.lora_A.weight", "none of the encoder's linear layers"],
    );
}

fn json_file(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// What PEFT saves with fields of an `adapter_config.json`, and what of it another version would have saved otherwise.
fn opens_as_in_peft(folders: impl IntoIterator<Item = (&'static str, Value, Value)>) {
    let Some(python) = python() else {
        return skipped("FTHOST_PYTHON names no Python with peft");
    };
    for (base, config, changes) in folders {
        let workdir = text_workdir();
        for file in ["config.json", "model.safetensors"] {
            workdir.write(
                &format!("model/{file}"),
                fs::read(root().join("tests/reference/tiny").join(base).join(file)).unwrap(),
            );
        }
        let files = ["model", "adapter", "test.tsv"].map(|name| workdir.path().join(name).into_os_string());
        let found = reference(
            &python,
            "peft_save.py",
            files.into_iter().chain([config.to_string().into(), changes.to_string().into()]),
        );
        let (theirs, ours) = (found["loss"].as_f64().unwrap(), loss(&eval(&workdir, "adapter", "test.tsv")));
        assert!((theirs - ours).abs() < 1e-5, "{base}, {config}, {changes}: mean loss {theirs} in PEFT, {ours} here");
        logits_agree(&workdir, "adapter", "test.tsv", "model", &found["logits"], 1e-4);
    }
}

#[test]
fn what_peft_saves_now_computes_the_same_here() {
    opens_as_in_peft(
        [
            (
                "bert",
                json!({
                    "peft_type": "LORA", "r": 4, "bias": "all", "use_dora": true, "target_modules": ["query", "dense"],
                    "rank_pattern": { "layer.0.*query": 2 }, "alpha_pattern": { "^bert.encoder.layer.1.output.dense": 24 },
                }),
            ),
            ("bert", json!({ "peft_type": "LORA", "bias": "lora_only", "target_modules": "all-linear" })),
            ("roberta", json!({ "peft_type": "LORA", "bias": "all", "target_modules": ".*layer\\.1.*(query|value)" })),
            ("roberta", json!({ "peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3 })),
            (
                "bert",
                json!({ "peft_type": "ADALORA", "init_r": 4, "target_r": 2, "total_step": 10, "lora_alpha": 16, "target_modules": ["query", "dense"] }),
            ),
            (
                "bert",
                json!({
                    "peft_type": "ADALORA", "init_r": 4, "target_r": 2, "total_step": 10, "lora_alpha": 16, "target_modules": ["query", "value"],
                    "rank_pattern": {
                        "bert.encoder.layer.0.attention.self.query.lora_E": [true, false, true, false],
                        "bert.encoder.layer.0.attention.self.value.lora_E": [true, true, true, true],
                        "bert.encoder.layer.1.attention.self.query.lora_E": [false, false, false, false],
                        "bert.encoder.layer.1.attention.self.value.lora_E": [false, false, false, true],
                    },
                }),
            ),
            ("bert", json!({ "peft_type": "VERA", "r": 8, "d_initial": 0.3, "target_modules": ["query", "dense"] })),
            ("distilbert", json!({ "peft_type": "VERA", "r": 4, "vera_dropout": 0.1, "target_modules": ["q_lin", "lin1"] })),
            ("distilbert", json!({ "peft_type": "LORA", "use_rslora": true, "target_modules": ["q_lin", "v_lin"] })),
            (
                "distilbert",
                json!({ "peft_type": "IA3", "target_modules": ["k_lin", "lin2"], "feedforward_modules": ["lin2"] }),
            ),
        ]
        .map(|(base, config)| (base, config, json!({}))),
    );
}

/// Every field by which PEFT chooses layers.
#[test]
fn the_layers_are_those_that_peft_adapts() {
    let lora = |more: Value| {
        let mut config = json!({ "peft_type": "LORA", "r": 2, "target_modules": ["query", "dense"] });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ("bert", config, json!({}))
    };
    opens_as_in_peft([
        lora(json!({ "layers_to_transform": [1], "layers_pattern": "layer" })),
        lora(json!({ "layers_to_transform": 0, "layers_pattern": ["blocks", "layer"] })),
        lora(json!({ "layers_to_transform": [0, 7] })),
        lora(json!({ "target_modules": ["bert.pooler.dense", "query"], "layers_to_transform": [1] })),
        lora(json!({ "exclude_modules": ["layer.0.attention.self.query", "not_there"] })),
        lora(json!({ "target_modules": "ALL-linear", "exclude_modules": ".*(key|intermediate.dense)" })),
        lora(
            json!({ "target_modules": ["value", "not_there"], "rank_pattern": { "not_there": 3 }, "alpha_pattern": { "key": 1 } }),
        ),
        (
            "bert",
            json!({ "peft_type": "IA3", "target_modules": ["key", "bert.encoder.layer.0.output.dense"],
            "feedforward_modules": ["bert.encoder.layer.0.output.dense"] }),
            json!({}),
        ),
        (
            "bert",
            json!({ "peft_type": "IA3", "target_modules": ["key", "output.dense"], "feedforward_modules": ["output.dense"],
            "exclude_modules": ".*output.dense" }),
            json!({}),
        ),
    ]);
}

/// Modules that are saved whole beside the adapter, within which PEFT adapts nothing.
#[test]
fn modules_that_peft_saves_whole_are_opened() {
    let lora = |targets: Value, saved: Value, bias: &str| {
        (
            "bert",
            json!({ "peft_type": "LORA", "r": 2, "target_modules": targets, "modules_to_save": saved, "bias": bias }),
            json!({}),
        )
    };
    opens_as_in_peft([
        lora(json!(["query"]), json!(["pooler"]), "none"),
        lora(json!(["query", "value"]), json!(["query"]), "none"),
        lora(json!(["query", "value"]), json!(["layer.1.attention.self.query"]), "all"),
        lora(json!("all-linear"), json!(["pooler", "layer.1.output"]), "lora_only"),
        lora(json!(["query"]), json!(["word_embeddings", "LayerNorm"]), "none"),
        (
            "bert",
            json!({ "peft_type": "IA3", "target_modules": ["key", "output.dense"], "feedforward_modules": ["output.dense"],
            "modules_to_save": ["layer.0.output.dense"] }),
            json!({}),
        ),
        (
            "roberta",
            json!({ "peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "modules_to_save": ["LayerNorm"] }),
            json!({}),
        ),
    ]);
}

/// What other versions of PEFT save of the same adapters.
#[test]
fn folders_of_other_versions_open_as_in_peft() {
    let lora = |more: Value, changes: Value| {
        let mut config = json!({ "peft_type": "LORA", "r": 2, "target_modules": ["query", "value"] });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ("bert", config, changes)
    };
    opens_as_in_peft([
        // Before 0.20 the biases that lora_only trains were not saved.
        lora(json!({ "bias": "lora_only" }), json!({ "drop": "base_layer.bias" })),
        lora(
            json!({ "bias": "lora_only", "use_dora": true, "modules_to_save": ["value"] }),
            json!({ "drop": "base_layer.bias" }),
        ),
        lora(json!({ "bias": "all" }), json!({ "drop": "LayerNorm.bias" })),
        lora(json!({ "init_lora_weights": "orthogonal" }), json!({ "fields": { "init_lora_weights": "gaussian" } })),
        lora(
            json!({}),
            json!({ "fields": { "init_lora_weights": false, "fan_in_fan_out": true, "peft_version": "0.99" } }),
        ),
        lora(
            json!({}),
            json!({ "fields": { "loftq_config": { "loftq_bits": 4 }, "runtime_config": { "ephemeral_gpu_offload": false } } }),
        ),
        lora(json!({ "modules_to_save": ["classifier"] }), json!({ "fields": { "task_type": null } })),
        lora(json!({ "init_lora_weights": "mica" }), json!({})),
    ]);
}

/// Folders of seven methods that PEFT saved, with the logits that it computes with them.
#[test]
fn pefts_own_folders_give_its_logits() {
    let folder = data().join("reference/adapters");
    let (Some(model), Ok(entries)) = (minilm(), fs::read_dir(&folder)) else {
        return skipped(
            "all-MiniLM-L6-v2 (scripts/fetch-minilm.sh) or PEFT's folders ($FTHOST_DATA/reference/adapters) are not here",
        );
    };
    let model = model.canonicalize().unwrap().display().to_string();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(!folders.is_empty());
    let workdir = Workdir::new();
    for folder in folders {
        let peft = json_file(&folder.join("logits.json"));
        let texts: Vec<&str> = peft["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        let rows = texts.iter().map(|text| format!("{text}\t0\n"));
        workdir.write("data.tsv", rows.collect::<String>());
        logits_agree(&workdir, &folder.display().to_string(), "data.tsv", &model, &peft["logits"], 1e-4);
    }
}
