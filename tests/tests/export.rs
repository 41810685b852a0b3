//! Language models as other tools open them, and as these tools save them.

use std::fs;
use std::path::Path;

use fthost_tests::{Workdir, on_one_line, reference, result_json, skipped};
use serde_json::{Value, json};

use crate::language::{causal_workdir, masked_workdir};
use crate::text::{python, text_workdir};

/// A text of the tiny vocabulary, long enough for several blocks.
const TEXT: &str = "the rain in the north of an island and on the eastern road there are 12 inns near a tower the other one is at 3 miles \
                    an engineer then ran on to the inn at ten and here it is the end of a rather long text on rain and roads\n";
/// How many tokens a block of it has.
const BLOCK: &str = "16";

/// The metrics of the only task that `eval` prints.
fn eval(workdir: &Workdir, folder: &str, file: &str, sets: &[&str]) -> Value {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let arguments = ["eval", folder, file, "--json"].into_iter().chain(sets);
    let printed: Value = serde_json::from_str(&workdir.fthost(arguments).succeeded().stdout).unwrap();
    printed["tasks"].as_object().unwrap().values().next().unwrap()["metrics"].clone()
}

fn loss(of: &Value) -> f64 {
    of["loss"].as_f64().unwrap_or_else(|| panic!("no loss in {of}"))
}

/// A short run of the tiny decoder, far enough that it shows in the loss.
fn trained() -> Workdir {
    let workdir = causal_workdir();
    workdir.write("text.txt", TEXT);
    workdir
        .fthost([
            "run.toml",
            "--out",
            "run",
            "--set",
            "train.steps=4",
            "--set",
            "train.checkpoint_steps=2",
            "--set",
            "train.lr=0.05",
        ])
        .succeeded();
    workdir
}

/// What `export` says of what it wrote.
fn export(workdir: &Workdir, run: &str, to: &str, more: &[&str]) -> Value {
    let arguments = ["export", run, to, "--json"].into_iter().chain(more.iter().copied());
    serde_json::from_str(&workdir.fthost(arguments).succeeded().stdout).unwrap()
}

#[test]
fn a_gguf_file_gives_what_the_run_gives() {
    let workdir = trained();
    let run = result_json(&workdir.path().join("run"))["tasks"]["answers"]["metrics"].clone();
    for (dtype, apart) in [("f32", 1e-5), ("f16", 1e-2), ("bf16", 0.1), ("q8_0", 0.1)] {
        let to = format!("as-{dtype}");
        let said = export(&workdir, "run", &to, &["--format", "gguf", "--dtype", dtype]);
        assert_eq!((&said["format"], &said["path"]), (&json!("gguf"), &json!(to)));
        let notes = said["notes"].to_string();
        assert!(
            notes.contains("llama-cli") && notes.contains("ollama create") && notes.contains("model.gguf"),
            "{notes}"
        );
        let found = eval(&workdir, &to, "rows.jsonl", &[]);
        assert!((loss(&found) - loss(&run)).abs() < apart, "{dtype}: {found} {run}");
        assert_eq!(loss(&eval(&workdir, &format!("{to}/model.gguf"), "rows.jsonl", &[])), loss(&found));
    }
    let modelfile = fs::read_to_string(workdir.path().join("as-f16/Modelfile")).unwrap();
    assert!(modelfile.contains("FROM ./model.gguf") && modelfile.contains("PARAMETER stop \"</s>\""), "{modelfile}");
    assert!(modelfile.contains("{{ else if eq .Role \"user\" }}<user>{{ .Content }}</s>"), "{modelfile}");
    // The default is F16.
    export(&workdir, "run", "plain", &["--format", "gguf"]);
    let read = |folder: &str| fs::read(workdir.path().join(folder).join("model.gguf")).unwrap();
    assert!(read("plain") == read("as-f16"));
}

#[test]
fn a_hugging_face_folder_is_what_merge_writes_and_evaluates_as_the_run() {
    let workdir = trained();
    let run = result_json(&workdir.path().join("run"))["tasks"]["answers"]["metrics"].clone();
    let said = export(&workdir, "run", "hf", &["--format", "hf"]);
    assert!(said["notes"].to_string().contains("--format gguf"), "{said}");
    workdir.fthost(["merge", "run", "merged"]).succeeded();
    for file in ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"] {
        let read = |folder: &str| fs::read(workdir.path().join(folder).join(file)).unwrap();
        assert!(read("hf") == read("merged"), "{file}");
    }
    let found = eval(&workdir, "hf", "rows.jsonl", &[]);
    assert!((loss(&found) - loss(&run)).abs() < 1e-5, "{found} {run}");
    // An adapter of PEFT's form, by itself.
    let said = export(&workdir, "run", "peft", &["--format", "peft"]);
    assert_eq!(said["format"], "peft");
    let config: Value =
        serde_json::from_slice(&fs::read(workdir.path().join("peft/adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["task_type"], "CAUSAL_LM");
    let base = config["base_model_name_or_path"].as_str().unwrap();
    assert!(Path::new(base).is_absolute() && base.ends_with("model.gguf"), "{base}");
    let found = eval(&workdir, "peft", "rows.jsonl", &[]);
    assert!((loss(&found) - loss(&run)).abs() < 1e-6, "{found} {run}");
}

/// A masked language model, whole and as an adapter.
#[test]
fn a_masked_language_model_evaluates_as_the_run_that_left_it() {
    let workdir = masked_workdir();
    workdir
        .fthost(["run.toml", "--out", "run", "--set", "train.steps=4", "--set", "train.checkpoint_steps=2"])
        .succeeded();
    let run = result_json(&workdir.path().join("run"))["tasks"]["texts"]["metrics"].clone();
    let found = eval(&workdir, "run/model", "texts.txt", &["task.0.max_tokens=24"]);
    assert!((loss(&found) - loss(&run)).abs() < 1e-6, "{found} {run}");
    let with = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
    workdir.write("lora.toml", with.replace("plugin = \"full\"", "plugin = \"lora\"\ntargets = [\"query\"]"));
    workdir
        .fthost(["lora.toml", "--out", "adapted", "--set", "train.steps=4", "--set", "train.checkpoint_steps=2"])
        .succeeded();
    let run = result_json(&workdir.path().join("adapted"))["tasks"]["texts"]["metrics"].clone();
    // The tiny BERT has no such class: its layer over the vocabulary is new, and stands in the adapter.
    let mut config: Value =
        serde_json::from_slice(&fs::read(workdir.path().join("model/config.json")).unwrap()).unwrap();
    config["architectures"] = json!(["BertForMaskedLM"]);
    workdir.write("model/config.json", config.to_string());
    let found = eval(&workdir, "adapted/adapter", "texts.txt", &["task.0.max_tokens=24"]);
    assert!((loss(&found) - loss(&run)).abs() < 1e-6, "{found} {run}");
    let error = on_one_line(&workdir.fthost(["eval", "model", "texts.txt"]).failed(2));
    assert!(error.contains("lack cls.predictions"), "{error}");
}

#[test]
fn what_has_no_such_form_is_said_and_nothing_is_written() {
    let workdir = trained();
    let refused = |arguments: &[&str], expected: &[&str]| {
        let before = workdir.listing();
        let error = on_one_line(&workdir.fthost(arguments).failed(2));
        for expected in expected {
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
        assert_eq!(workdir.listing(), before, "{arguments:?}");
    };
    workdir.write("taken/file", "");
    for format in ["hf", "peft", "gguf"] {
        refused(&["export", "run", "taken", "--format", format], &["taken exists already", "nothing is overwritten"]);
    }
    refused(&["export", "run", "out", "--format", "onnx"], &["onnx"]);
    refused(&["export", "run", "out", "--format", "hf", "--dtype", "f16"], &["--dtype is for --format gguf"]);
    refused(&["export", "nowhere", "out", "--format", "gguf"], &["nowhere"]);
    refused(&["export", "model.gguf", "out", "--format", "peft"], &["model.gguf"]);
    // Other methods, other tasks.
    let own = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
    let own = own.replace("plugin = \"lora\"\ntargets = \"all-linear\"", "plugin = \"adapter\"");
    workdir.write("own.toml", own);
    workdir
        .fthost(["own.toml", "--out", "own", "--set", "train.steps=4", "--set", "train.checkpoint_steps=2"])
        .succeeded();
    refused(&["export", "own", "out", "--format", "peft"], &["PEFT knows no form", "--format hf"]);
    let classes = text_workdir();
    classes.write("run.toml", crate::text::RUN);
    classes.fthost(["run.toml", "--out", "run"]).succeeded();
    let error = on_one_line(&classes.fthost(["export", "run", "out", "--format", "gguf"]).failed(2));
    assert!(error.contains("this bert was trained for another task") && error.contains("--format hf"), "{error}");
    assert!(!classes.path().join("out").exists());
}

/// Word embeddings that are the layer over the vocabulary too take no adapter.
#[test]
fn an_adapter_on_a_tied_layer_is_refused_by_name() {
    let workdir = causal_workdir();
    export(&workdir, "model.gguf", "base", &["--format", "hf"]);
    let config: Value = serde_json::from_slice(&fs::read(workdir.path().join("base/config.json")).unwrap()).unwrap();
    if config["tie_word_embeddings"] == false {
        // Of an untied one the second matrix is left out.
        let tied = config.as_object().unwrap().clone();
        let tied = tied
            .into_iter()
            .chain([("tie_word_embeddings".to_owned(), json!(true))])
            .collect::<serde_json::Map<_, _>>();
        workdir.write("base/config.json", Value::Object(tied).to_string());
    }
    for target in ["lm_head", "embed_tokens", "model.embed_tokens"] {
        let targets = format!("strategy.targets=[\"q_proj\", \"{target}\"]");
        let sets = ["--set", "model.path=\"base\"", "--set", &targets];
        let error = on_one_line(&workdir.fthost(["run.toml", "--out", "run"].into_iter().chain(sets)).failed(2));
        assert!(error.contains(&format!("target \"{target}\"")) && error.contains("in one"), "{error}");
        assert!(error.contains("tie_word_embeddings = false"), "{error}");
        let adapter = json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "target_modules": ["q_proj", target],
            "base_model_name_or_path": workdir.path().join("base"),
        });
        workdir.write("adapter/adapter_config.json", adapter.to_string());
        let none: [(String, safetensors::tensor::TensorView<'_>); 0] = [];
        workdir.write("adapter/adapter_model.safetensors", safetensors::serialize(none, None).unwrap());
        let error = on_one_line(&workdir.fthost(["eval", "adapter", "rows.jsonl"]).failed(2));
        assert!(error.contains(&format!("names {target}")) && error.contains("one matrix"), "{error}");
    }
}

#[test]
fn llama_cpps_package_reads_equal_tensors() {
    let Some(python) = python() else {
        return skipped("FTHOST_PYTHON names no Python with gguf");
    };
    let workdir = trained();
    export(&workdir, "run", "hf", &["--format", "hf"]);
    for (dtype, matrices) in [("f32", "F32"), ("f16", "F16"), ("bf16", "BF16"), ("q8_0", "F16")] {
        let to = workdir.path().join(dtype);
        export(&workdir, "run", dtype, &["--format", "gguf", "--dtype", dtype]);
        let found = reference(&python, "gguf_check.py", [to.join("model.gguf"), workdir.path().join("hf")]);
        // Rows of 16 elements are no blocks of 32.
        assert!(found["types"][matrices].as_u64().is_some_and(|count| count > 9), "{found}");
        let keys: Vec<&str> = found["keys"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        for key in [
            "general.architecture",
            "general.file_type",
            "llama.context_length",
            "llama.embedding_length",
            "llama.block_count",
            "llama.feed_forward_length",
            "llama.attention.head_count",
            "llama.attention.head_count_kv",
            "llama.attention.layer_norm_rms_epsilon",
            "llama.rope.dimension_count",
            "llama.rope.freq_base",
            "llama.vocab_size",
            "tokenizer.ggml.model",
            "tokenizer.ggml.pre",
            "tokenizer.ggml.tokens",
            "tokenizer.ggml.token_type",
            "tokenizer.ggml.merges",
            "tokenizer.ggml.bos_token_id",
            "tokenizer.ggml.eos_token_id",
            "tokenizer.chat_template",
        ] {
            assert!(keys.contains(&key), "{key} is not in {keys:?}");
        }
    }
}

/// The same of a real model, whose rows are blocks.
#[test]
fn llama_cpps_package_reads_the_blocks_of_a_real_model() {
    let (Some(python), Some(model)) = (python(), std::env::var_os("FTHOST_SMOLLM2")) else {
        return skipped("FTHOST_PYTHON and FTHOST_SMOLLM2 name no Python with gguf and no folder of SmolLM2");
    };
    let (workdir, model) = (Workdir::new(), Path::new(&model).display().to_string());
    export(&workdir, &model, "hf", &["--format", "hf"]);
    export(&workdir, &model, "q8_0", &["--format", "gguf", "--dtype", "q8_0"]);
    let files = [workdir.path().join("q8_0/model.gguf"), workdir.path().join("hf")];
    let found = reference(&python, "gguf_check.py", files);
    assert!(found["types"]["Q8_0"].as_u64().is_some_and(|count| count > 200), "{found}");
    assert_eq!(found["tokens"], 49152);
}

#[test]
fn adapters_for_the_next_token_go_both_ways_between_peft_and_here() {
    let Some(python) = python() else {
        return skipped("FTHOST_PYTHON names no Python with peft");
    };
    let workdir = causal_workdir();
    let text = workdir.write("text.txt", TEXT);
    export(&workdir, "model.gguf", "base", &["--format", "hf"]);
    let base = workdir.path().join("base");
    let blocks = format!("task.0.max_tokens={BLOCK}");
    let theirs = |more: &[&str]| {
        let given = [base.to_str().unwrap(), text.to_str().unwrap(), BLOCK];
        loss(&reference(&python, "language_check.py", given.into_iter().chain(more.iter().copied())))
    };
    let agree = |folder: &str, theirs: f64| {
        let ours = loss(&eval(&workdir, folder, "text.txt", &[&blocks]));
        assert!((ours - theirs).abs() < 1e-4, "{folder}: {ours} here, {theirs} there");
    };
    let plain = theirs(&[]);
    agree("base", plain);
    agree("model.gguf", plain);
    // What PEFT saved.
    for (folder, fields) in [
        ("all", json!({ "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": "all-linear" })),
        ("some", json!({ "peft_type": "LORA", "r": 2, "use_dora": true, "target_modules": ["q_proj", "down_proj"] })),
        ("prompt", json!({ "peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3 })),
    ] {
        let to = workdir.path().join(folder);
        let there = theirs(&["--save", to.to_str().unwrap(), &fields.to_string()]);
        assert!((there - plain).abs() > 1e-3, "{folder} changes nothing");
        agree(folder, there);
    }
    // What a run left.
    let sets = [
        "--set",
        "model.path=\"base\"",
        "--set",
        "train.steps=4",
        "--set",
        "train.checkpoint_steps=2",
        "--set",
        "train.lr=0.05",
    ];
    workdir.fthost(["run.toml", "--out", "run"].into_iter().chain(sets)).succeeded();
    export(&workdir, "run", "ours", &["--format", "peft"]);
    let there = theirs(&["--adapter", workdir.path().join("ours").to_str().unwrap()]);
    assert!((there - plain).abs() > 1e-3);
    agree("ours", there);
    agree("run/adapter", there);
}
