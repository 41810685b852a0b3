//! What is saved says what was trained: every head, in every form, on bases that say something else, opened by whoever receives it.
//!
//! Each case is one run. It is opened again by fthost itself as the run, as what it saved and, where an adapter was saved, as what `merge`
//! makes of it; then one Python process opens all of them with Transformers and PEFT (`tests/reference/saved_check.py`).

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use fthost_tests::{Workdir, on_one_line, reference, result_json, root, skipped};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};

use crate::text::{LORA, python};

pub(crate) const FULL: &str = "plugin = \"full\"";

/// LoRA on an architecture's queries and values.
fn lora(architecture: &str) -> String {
    match architecture {
        "distilbert" => LORA.replace("query", "q_lin").replace("value", "v_lin"),
        LLAMA | GEMMA => LORA.replace("query", "q_proj").replace("value", "v_proj"),
        _ => LORA.to_owned(),
    }
}

/// A head with options that are not its defaults, and its data.
struct Head {
    name: &'static str,
    table: &'static str,
    data: Data,
    /// The dropout before its last layer, where it is not the base model's.
    dropout: Option<f64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Data {
    Classes,
    /// Any number of classes.
    Labels,
    Values,
    Words,
}

static HEADS: [Head; 7] = [
    Head { name: "plain", table: r#"{ plugin = "classification" }"#, data: Data::Classes, dropout: None },
    Head {
        name: "weighted",
        table: r#"{ plugin = "classification", class_weights = [1.0, 3.0], label_smoothing = 0.1, dropout = 0.3, init_std = 0.5 }"#,
        data: Data::Classes,
        dropout: Some(0.3),
    },
    Head {
        name: "words",
        table: r#"{ plugin = "token-classification", class_weights = "balanced", label_smoothing = 0.1, init_std = 0.5 }"#,
        data: Data::Words,
        dropout: None,
    },
    Head {
        name: "labels",
        table: r#"{ plugin = "multi-label", positive_weights = "balanced", init_std = 0.5 }"#,
        data: Data::Labels,
        dropout: None,
    },
    Head { name: "value", table: r#"{ plugin = "regression" }"#, data: Data::Values, dropout: None },
    Head { name: "scaled", table: SCALED, data: Data::Values, dropout: Some(0.0) },
    Head {
        name: "prototypes",
        table: r#"{ plugin = "prototypical", ways = 2, shots = 2, queries = 3, support = 5 }"#,
        data: Data::Classes,
        dropout: Some(0.0),
    },
];

pub(crate) const SCALED: &str = r#"{ plugin = "regression", loss = "huber", delta = 0.5, center = 300.0, scale = 20.0, dropout = 0.0, init_std = 0.5 }"#;

/// A base model: one of the tiny ones with changes to its folder.
pub(crate) struct Base {
    pub(crate) name: &'static str,
    pub(crate) architecture: &'static str,
    pub(crate) change: fn(&mut Folder),
}

/// Decoders beside the tiny encoders.
pub(crate) const LLAMA: &str = "../decoders/llama";
const GEMMA: &str = "../decoders/gemma3_text";

static BASES: [Base; 13] = [
    Base { name: "stale", architecture: "bert", change: stale },
    Base { name: "bare", architecture: "bert", change: bare },
    Base { name: "masked-lm", architecture: "bert", change: masked_lm },
    Base { name: "cased", architecture: "bert", change: cased },
    Base { name: "cased-alone", architecture: "bert", change: cased_alone },
    Base { name: "pair", architecture: "bert", change: |_| {} },
    Base { name: "half", architecture: "bert", change: half },
    Base { name: "roberta", architecture: "roberta", change: stale },
    Base { name: "xlm-roberta", architecture: "xlm-roberta", change: bare },
    Base { name: "distilbert", architecture: "distilbert", change: stale },
    Base { name: "vit", architecture: "vit", change: digits },
    Base { name: "llama", architecture: LLAMA, change: stale },
    Base { name: "gemma", architecture: GEMMA, change: stale },
];

impl Base {
    /// Key of the dropout before the last layer in its class of Transformers.
    fn dropout_key(&self, data: Data) -> Option<&'static str> {
        match self.architecture {
            "vit" => None,
            LLAMA | GEMMA if data != Data::Words => None,
            "distilbert" => Some("seq_classif_dropout"),
            _ => Some("classifier_dropout"),
        }
    }
}

/// A model folder before it is written.
pub(crate) struct Folder {
    pub(crate) config: Map<String, Value>,
    tokenizer: Value,
    /// Other files, and what they say.
    pub(crate) beside: Vec<(&'static str, Value)>,
    pub(crate) weights: Vec<(String, Vec<usize>, Vec<f32>)>,
    dtype: Dtype,
    shards: usize,
}

/// A fine-tuned classifier of three labels at once, whose head must not survive.
pub(crate) fn stale(folder: &mut Folder) {
    let said = json!({
        "problem_type": "multi_label_classification", "num_labels": 3, "finetuning_task": "mnli", "classifier_dropout": 0.2,
        "summary_type": "first", "_name_or_path": "elsewhere", "torch_dtype": "float16",
        "task_specific_params": { "text-classification": { "problem_type": "multi_label_classification" } },
        "id2label": { "0": "x", "1": "y", "2": "z" }, "label2id": { "x": 0, "y": 1, "z": 2 },
    });
    folder.config.extend(said.as_object().unwrap().clone());
}

/// A config that says nothing of a head.
fn bare(folder: &mut Folder) {
    folder.config.retain(|key, _| !["architectures", "id2label", "label2id", "problem_type"].contains(&key.as_str()));
    folder.weights.retain(|(name, ..)| !name.starts_with("classifier."));
}

/// What pretraining leaves: no pooler, no classifier, but a head for words.
fn masked_lm(folder: &mut Folder) {
    bare(folder);
    folder.config.insert("architectures".into(), json!(["BertForMaskedLM"]));
    folder.config.insert("tie_word_embeddings".into(), json!(true));
    folder.weights.retain(|(name, ..)| !name.contains("pooler"));
    folder.weights.push(("cls.predictions.bias".into(), vec![50], vec![0.1; 50]));
}

fn cased(folder: &mut Folder) {
    cased_alone(folder);
    let said = json!({ "tokenizer_class": "BertTokenizer", "do_lower_case": false, "model_max_length": 20, "pad_token": "[PAD]" });
    folder.beside.push(("tokenizer_config.json", said));
}

/// Nothing but tokenizer.json says that it is.
fn cased_alone(folder: &mut Folder) {
    folder.tokenizer["normalizer"]["lowercase"] = false.into();
}

/// For images of one channel, with what makes the digits' pixels the model's inputs.
fn digits(folder: &mut Folder) {
    stale(folder);
    folder.config.insert("num_channels".into(), json!(1));
    let patches = folder.weights.iter_mut().find(|(name, ..)| name.ends_with("projection.weight")).unwrap();
    let kernel: usize = patches.1[2..].iter().product();
    patches.2 = patches.2.chunks(patches.1[1] * kernel).flat_map(|kernels| kernels[..kernel].to_vec()).collect();
    patches.1[1] = 1;
    let said = json!({
        "image_processor_type": "ViTImageProcessor", "do_resize": false, "do_rescale": true, "rescale_factor": 0.0625,
        "do_normalize": true, "image_mean": [0.3051], "image_std": [0.3762], "size": { "height": 8, "width": 8 },
    });
    folder.beside.push(("preprocessor_config.json", said));
}

/// Half floats in two files.
fn half(folder: &mut Folder) {
    folder.config.insert("dtype".into(), json!("bfloat16"));
    (folder.dtype, folder.shards) = (Dtype::BF16, 2);
}

impl Folder {
    pub(crate) fn tiny(architecture: &str) -> Self {
        let read = |path: PathBuf| fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let tiny = root().join("tests/reference/tiny");
        let bytes = read(tiny.join(architecture).join("model.safetensors"));
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let floats =
            |data: &[u8]| data.chunks_exact(4).map(|raw| f32::from_le_bytes(raw.try_into().unwrap())).collect();
        Self {
            config: serde_json::from_slice(&read(tiny.join(architecture).join("config.json"))).unwrap(),
            tokenizer: serde_json::from_slice(&read(tiny.join("bert/tokenizer.json"))).unwrap(),
            beside: Vec::new(),
            weights: tensors.iter().map(|(name, t)| (name.to_owned(), t.shape().to_vec(), floats(t.data()))).collect(),
            dtype: Dtype::F32,
            shards: 1,
        }
    }

    pub(crate) fn write(&self, workdir: &Workdir, folder: &str) {
        workdir.write(&format!("{folder}/config.json"), Value::Object(self.config.clone()).to_string());
        workdir.write(&format!("{folder}/tokenizer.json"), self.tokenizer.to_string());
        for (name, said) in &self.beside {
            workdir.write(&format!("{folder}/{name}"), said.to_string());
        }
        let bytes = |values: &[f32]| -> Vec<u8> {
            let half = self.dtype == Dtype::BF16;
            let one = |value: &f32| value.to_le_bytes()[if half { 2.. } else { 0.. }].to_vec();
            values.iter().flat_map(one).collect()
        };
        let mut places = Map::new();
        let size = self.weights.len().div_ceil(self.shards);
        for (shard, weights) in self.weights.chunks(size).enumerate() {
            let name =
                if self.shards == 1 { "model.safetensors".to_owned() } else { format!("model-{shard}.safetensors") };
            let raw: Vec<_> =
                weights.iter().map(|(name, shape, values)| (name, shape.clone(), bytes(values))).collect();
            let views =
                raw.iter().map(|(name, shape, raw)| (*name, TensorView::new(self.dtype, shape.clone(), raw).unwrap()));
            workdir.write(&format!("{folder}/{name}"), safetensors::serialize(views, None).unwrap());
            places.extend(weights.iter().map(|(tensor, ..)| (tensor.clone(), json!(name))));
        }
        if self.shards > 1 {
            let index = json!({ "metadata": {}, "weight_map": places });
            workdir.write(&format!("{folder}/model.safetensors.index.json"), index.to_string());
        }
    }
}

/// Writes what runs read.
fn write_data(workdir: &Workdir) {
    let judged = [
        ("good", "pos", 340),
        ("bad", "neg", 270),
        ("great", "pos", 355),
        ("awful", "neg", 260),
        ("funny", "pos", 325),
    ];
    let frames = [
        "the film was {}",
        "a very {} movie",
        "we loved it , but the plot is {} and the actor is not",
        "this {} story !",
    ];
    let rows =
        frames.iter().flat_map(|frame| judged.map(|(word, label, value)| (frame.replace("{}", word), label, value)));
    let rows: Vec<_> =
        rows.chain([("The Film was GOOD".into(), "pos", 330), ("it Was dull .".into(), "neg", 280)]).collect();
    let classes = rows.iter().map(|(text, label, _)| format!("{text}\tthat is warm\t{label}\n"));
    let values = rows.iter().enumerate().map(|(i, (text, _, value))| format!("{text}\tthat scene {i}\t{value}\n"));
    let header = "text\tpair\tlabel\n";
    workdir.write("classes.tsv", header.to_owned() + &classes.collect::<String>());
    workdir.write("values.tsv", header.to_owned() + &values.collect::<String>());
    let labels = rows.iter().enumerate().map(|(i, (text, label, _))| match i % 4 {
        0 => format!("{text}\tthat is warm\t\n"),
        1 => format!("{text}\tthat is warm\t{label}+warm\n"),
        _ => format!("{text}\tthat is warm\t{label}\n"),
    });
    workdir.write("labels.tsv", header.to_owned() + &labels.collect::<String>());
    workdir.write("words.jsonl", fs::read(root().join("plugins/token-classification/example.jsonl")).unwrap());
}

/// A task of a run file.
pub(crate) fn task(name: &str, head: &str, data: &str, columns: &str) -> String {
    format!("[[task]]\nname = \"{name}\"\nhead = {head}\ntrain = \"{data}\"\ntest = \"{data}\"\n{columns}\n")
}

/// Writes the model, data and run file of a run, trains it, and gives what it printed.
pub(crate) fn train(workdir: &Workdir, of: &str, base: &Base, tasks: &str, strategy: &str) -> String {
    let mut folder = Folder::tiny(base.architecture);
    (base.change)(&mut folder);
    folder.write(workdir, "model");
    write_data(workdir);
    let train = "epochs = 3\nbatch_size = 8\nlr = 0.02\n";
    workdir.write(
        "run.toml",
        format!("[model]\npath = \"model\"\n\n{tasks}\n[[strategy]]\n{strategy}\n\n[train]\n{train}"),
    );
    let ended = workdir.fthost(["--config", "run.toml", "--out", "run"]);
    assert_eq!(ended.code, Some(0), "{of}: {}", ended.stderr);
    ended.stdout
}

fn config(workdir: &Workdir, folder: &str) -> Value {
    serde_json::from_slice(&fs::read(workdir.path().join(folder).join("config.json")).unwrap()).unwrap()
}

/// What fthost predicts from a folder: numbers row by row, or for words their labels.
pub(crate) fn predict(workdir: &Workdir, folder: &str, data: &str, sets: &[&str]) -> Vec<Value> {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let printed = workdir
        .fthost(["predict", folder, data, "--format", "jsonl", "--probabilities"].into_iter().chain(sets))
        .succeeded()
        .stdout;
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The numbers of a prediction, by name.
fn numbers(row: &Value) -> Vec<(String, f64)> {
    match (&row["probabilities"], &row["value"]) {
        (Value::Object(all), _) => all.iter().map(|(name, p)| (name.clone(), p.as_f64().unwrap())).collect(),
        (_, value) => value.as_f64().map(|value| ("value".to_owned(), value)).into_iter().collect(),
    }
}

#[track_caller]
pub(crate) fn agree(of: &str, run: &[Value], other: &[Value]) {
    assert_eq!(run.len(), other.len(), "{of}");
    for (run, other) in run.iter().zip(other) {
        assert_eq!(run["labels"], other["labels"], "{of}");
        let (ours, theirs) = (numbers(run), numbers(other));
        assert_eq!(ours.len(), theirs.len(), "{of}: {run} is not {other}");
        for ((name, ours), (other_name, theirs)) in ours.iter().zip(&theirs) {
            let close = (ours - theirs).abs() < 2e-5 * ours.abs().max(1.0);
            assert!(name == other_name && close, "{of}: {run} is not {other}");
        }
    }
}

/// Runs a case, opens all that it left here, and says what is to be opened elsewhere.
fn run_case(workdir: &Workdir, head: &Head, base: &Base, strategy: &str) -> Vec<Value> {
    let of = format!("{} on {} by {strategy}", head.name, base.name);
    let data = match head.data {
        _ if base.architecture == "vit" => "demo-pretrain",
        Data::Classes => "classes.tsv",
        Data::Labels => "labels.tsv",
        Data::Values => "values.tsv",
        Data::Words => "words.jsonl",
    };
    let pair = base.name == "pair";
    let columns = match (pair, head.data) {
        (true, _) => "columns = { text_pair = \"pair\" }\n",
        (false, Data::Labels) => "label_separator = \"+\"\n",
        (false, _) => "",
    };
    train(workdir, &of, base, &task("judge", head.table, data, columns), strategy);
    let result = result_json(&workdir.path().join("run"));
    let columns = if pair { vec!["task.0.columns.text_pair=\"pair\""] } else { Vec::new() };
    let run = predict(workdir, "run", data, &[]);

    let whole = strategy == FULL;
    let saved = if whole { "run/model" } else { "run/adapter" };
    assert_eq!(result["saved"]["format"], if whole { "huggingface" } else { "peft" }, "{of}: {}", result["saved"]);
    agree(&format!("{of}: {saved}"), &run, &predict(workdir, saved, data, &columns));
    let mut left = vec![saved];
    if !whole {
        workdir.fthost(["merge", "run", "merged"]).succeeded();
        agree(&format!("{of}: merged"), &run, &predict(workdir, "merged", data, &columns));
        left.push("merged");
    }
    let base_config = config(workdir, "model");
    let dropout = base.dropout_key(head.data).map(|key| {
        let of_base = base_config[key].as_f64().or(base_config["hidden_dropout_prob"].as_f64());
        head.dropout.or(of_base).unwrap()
    });
    for folder in left.iter().filter(|folder| !folder.ends_with("adapter")) {
        let config = config(workdir, folder);
        assert_eq!(base.dropout_key(head.data).map(|key| config[key].as_f64().unwrap()), dropout, "{of}: {folder}");
    }
    let path = |name: &str| workdir.path().join(name).display().to_string();
    let case = |saved: &str| {
        json!({
            "of": format!("{of}: {saved}"), "folder": path(saved), "base": path("model"), "data": path(data), "predictions": run, "dropout": dropout,
            "labels": result["tasks"]["judge"]["labels"], "loss": result["tasks"]["judge"]["metrics"]["loss"],
            "pair": pair, "values": head.data == Data::Values, "multi_label": head.data == Data::Labels,
        })
    };
    left.into_iter().map(case).collect()
}

#[test]
fn what_is_saved_predicts_everywhere_as_the_run_does() {
    let mut cases: Vec<(&Head, &Base, String)> = Vec::new();
    for (head, base) in HEADS.iter().flat_map(|head| BASES.iter().map(move |base| (head, base))) {
        // Every head on one base, every base with one head, and heads that look different where the base does: all pairs take minutes.
        let apart = [
            ("words", "masked-lm"),
            ("words", "roberta"),
            ("labels", "roberta"),
            ("value", "masked-lm"),
            ("scaled", "roberta"),
            ("weighted", "distilbert"),
            ("value", "vit"),
            ("prototypes", "vit"),
            ("words", "llama"),
            ("labels", "llama"),
        ];
        if base.name == "stale" || head.name == "plain" || apart.contains(&(head.name, base.name)) {
            cases.extend([FULL.to_owned(), lora(base.architecture)].map(|strategy| (head, base, strategy)));
        }
    }
    let folders: Vec<Workdir> = cases.iter().map(|_| Workdir::new()).collect();
    let (next, left) = (Mutex::new(cases.iter().zip(&folders)), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let taken = next.lock().unwrap().next();
            let Some(((head, base, strategy), workdir)) = taken else { return };
            let found = run_case(workdir, head, base, strategy);
            left.lock().unwrap().extend(found);
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    let left = left.into_inner().unwrap();
    assert_eq!(left.len(), cases.len() / 2 * 3);

    opened_elsewhere(left);
}

/// What Python finds wrong with folders.
fn opened_elsewhere(cases: Vec<Value>) {
    let Some(python) = python() else {
        return skipped(
            "FTHOST_PYTHON names no Python with transformers and peft: saved folders are opened by fthost alone",
        );
    };
    let list = Workdir::new();
    let wrong = reference(&python, "saved_check.py", [list.write("cases.json", Value::Array(cases).to_string())]);
    assert_eq!(wrong, json!([]), "folders that are opened elsewhere");
}

/// Heads that no class of Transformers computes are not saved as if one did, and the run says so.
#[test]
fn heads_of_fthosts_own_are_saved_as_such() {
    let euclidean = r#"{ plugin = "prototypical", ways = 2, shots = 2, queries = 3, distance = "euclidean" }"#;
    let judge = task("judge", r#"{ plugin = "classification" }"#, "classes.tsv", "");
    let cases = [
        (
            task("judge", euclidean, "classes.tsv", ""),
            "the head of judge has prototypes, and Transformers' class has classifier.bias, classifier.weight",
            vec!["prototypes"],
        ),
        (
            judge + &task("grade", SCALED, "values.tsv", ""),
            "it has the heads of 2 tasks, and a class of Transformers' has one",
            vec![
                "grade.classifier.bias",
                "grade.classifier.weight",
                "judge.classifier.bias",
                "judge.classifier.weight",
            ],
        ),
    ];
    let base = &BASES[0];
    let each = cases.iter().flat_map(|case| [(case, FULL), (case, LORA)]);
    let (mut left, mut kept) = (Vec::new(), Vec::new());
    for ((tasks, why, heads), strategy) in each {
        let workdir = Workdir::new();
        let of = format!("{} by {strategy}", heads[0]);
        let said = on_one_line(&train(&workdir, &of, base, tasks, strategy));
        assert!(said.contains(why), "{said}");
        let (format, saved) = if strategy == FULL { ("encoder", "run/model") } else { ("fthost", "run/adapter") };
        let result = result_json(&workdir.path().join("run"));
        assert_eq!((&result["saved"]["format"], &result["saved"]["own_heads"]), (&json!(format), &json!(why)));
        let said = on_one_line(&workdir.fthost(["merge", "run", "merged"]).succeeded().stdout);
        assert!(said.contains(why), "{said}");

        // The run folder has the heads.
        let results = result["tasks"].as_object().unwrap();
        let mut predictions = Map::new();
        for (name, result) in results {
            let data = if name == "grade" { "values.tsv" } else { "classes.tsv" };
            let found = workdir.fthost(["eval", "run", data, "--task", name, "--json"]).succeeded().stdout;
            let found: Value = serde_json::from_str(&found).unwrap();
            assert_eq!(found["tasks"][name]["metrics"], result["metrics"], "{of}");
            let arguments = ["predict", "run", data, "--task", name, "--format", "jsonl", "--probabilities"];
            let printed = workdir.fthost(arguments).succeeded();
            let rows: Vec<Value> = printed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            predictions.insert(name.clone(), rows.into());
        }
        for folder in [saved, "merged"] {
            for (name, rows) in &predictions {
                let data = if name == "grade" { "values.tsv" } else { "classes.tsv" };
                let arguments = ["predict", folder, data, "--task", name, "--format", "jsonl", "--probabilities"];
                let printed = workdir.fthost(arguments).succeeded();
                let found: Vec<Value> =
                    printed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
                agree(&format!("{of}: {folder}: {name}"), rows.as_array().unwrap(), &found);
            }
        }
        for folder in if strategy == FULL { vec!["merged", saved] } else { vec!["merged"] } {
            let config = config(&workdir, folder);
            assert_eq!(config["architectures"], json!(["BertModel"]));
            let keys = ["id2label", "label2id", "num_labels", "problem_type"];
            assert!(keys.iter().all(|key| config.get(key).is_none()), "{config}");
            left.push(json!({
                "of": format!("{of}: {folder}"), "folder": workdir.path().join(folder), "heads": heads,
                "data": workdir.path().join("classes.tsv"), "predictions": predictions,
            }));
        }
        kept.push(workdir);
    }
    opened_elsewhere(left);
}
