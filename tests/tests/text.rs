//! Text runs: on a tiny random BERT that lies in the repository, on a real one where it is here, and in PEFT's eyes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fthost_tests::{Workdir, data, minilm, reference, result_json, root, skipped, steps};
use safetensors::SafeTensors;
use serde_json::Value;

/// A run file for the files that [`text_workdir`] writes.
pub(crate) const RUN: &str = r#"[model]
path = "model"

[[task]]
name = "sentiment"
head = { plugin = "classification" }
train = "train.tsv"
test = "test.tsv"

[[strategy]]
plugin = "lora"
rank = 4
targets = ["query", "value"]

[train]
epochs = 2
batch_size = 8
lr = 0.01
"#;

/// The options of the strategy in [`RUN`].
pub(crate) const LORA: &str = r#"plugin = "lora"
rank = 4
targets = ["query", "value"]"#;

/// In their place a strategy that allocates ranks, and its regularizer.
pub(crate) const ADALORA: &str = r#"plugin = "adalora"
init_r = 4
target_r = 1
tinit = 1
tfinal = 2
targets = ["query", "dense"]

[[regularizer]]
plugin = "adalora""#;

/// A folder with a tiny BERT, a few sentences of its vocabulary and [`RUN`].
pub(crate) fn text_workdir() -> Workdir {
    let workdir = Workdir::new();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        workdir.write(&format!("model/{file}"), fs::read(root().join("tests/reference/tiny/bert").join(file)).unwrap());
    }
    let (train, test): (Vec<_>, Vec<_>) = sentences().into_iter().enumerate().partition(|(i, _)| i % 3 != 2);
    let table = |rows: Vec<(usize, String)>| rows.into_iter().map(|(_, row)| row + "\n").collect::<String>();
    workdir.write("train.tsv", table(train));
    workdir.write("test.tsv", table(test));
    workdir.write("run.toml", RUN);
    workdir
}

/// `text<TAB>label`, of different lengths.
fn sentences() -> Vec<String> {
    let judged = [
        ("good", "1"),
        ("bad", "0"),
        ("great", "1"),
        ("awful", "0"),
        ("funny", "1"),
        ("boring", "0"),
        ("warm", "1"),
        ("dull", "0"),
    ];
    let frames = [
        "the film was {}",
        "a very {} movie",
        "{}",
        "we loved it , but the plot is {} and the actor is not",
        "this {} story !",
        "it was {} .",
    ];
    frames
        .iter()
        .flat_map(|frame| judged.map(|(word, label)| format!("{}\t{label}", frame.replace("{}", word))))
        .collect()
}

/// The tiny run, that several tests look at.
fn tiny() -> &'static Workdir {
    static RUN: OnceLock<Workdir> = OnceLock::new();
    RUN.get_or_init(|| {
        let workdir = text_workdir();
        workdir.fthost(["--config", "run.toml", "--out", "run", "--threads", "2"]).succeeded();
        workdir
    })
}

#[test]
fn a_text_run_needs_no_download() {
    let run = tiny().path().join("run");
    let result = result_json(&run);
    assert_eq!(result["train"]["steps"], 8, "32 examples in batches of 8, twice: {}", result["train"]);
    assert_eq!(result["train"]["samples"], 64);
    assert_eq!(result["tasks"]["sentiment"]["labels"], serde_json::json!(["0", "1"]));
    let confusion = result["tasks"]["sentiment"]["confusion"].as_array().unwrap();
    let examples: u64 = confusion.iter().flat_map(|row| row.as_array().unwrap()).map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(examples, 16);
    // A, B for two layers' query and value of width 16; the head of two classes.
    assert_eq!(result["parameters"]["trainable"], 4 * (2 * 4 * 16) + 2 * 16 + 2);

    let bytes = fs::read(run.join("adapter/adapter_model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let shape = |name: &str| tensors.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}")).shape().to_vec();
    assert_eq!(shape("base_model.model.bert.encoder.layer.1.attention.self.query.lora_A.weight"), [4, 16]);
    assert_eq!(shape("base_model.model.bert.encoder.layer.0.attention.self.value.lora_B.weight"), [16, 4]);
    assert_eq!(shape("base_model.model.classifier.weight"), [2, 16]);
}

/// Every command takes what is said of the first row: the run file's word, or the command line's.
#[test]
fn a_first_row_is_what_is_said_of_it() {
    let workdir = text_workdir();
    for file in ["train.tsv", "test.tsv"] {
        let rows = fs::read_to_string(workdir.path().join(file)).unwrap();
        workdir.write(file, format!("sentence\tsentiment\n{rows}"));
    }
    let (refused, said) = (["run.toml", "--out", "run"], ["--set", "task.0.header=true"]);
    for command in [&[][..], &["plan"], &["lr-find"]] {
        let arguments: Vec<&str> = command.iter().copied().chain(["run.toml"]).collect();
        let error = workdir.fthost(&arguments).failed(2);
        assert!(error.contains("the first row may be a header or an example"), "{command:?}: {error}");
    }
    workdir.fthost(["plan", "run.toml"].iter().chain(&said)).succeeded();
    workdir.fthost(refused.iter().chain(&said)).succeeded();
    let result = result_json(&workdir.path().join("run"));
    assert_eq!(result["tasks"]["sentiment"]["labels"], serde_json::json!(["0", "1"]));
    let loss = |outcome: String| {
        serde_json::from_str::<Value>(&outcome).unwrap()["tasks"]["sentiment"]["metrics"]["loss"].take()
    };
    let eval = workdir.fthost(["eval", "run", "test.tsv", "--json"]).succeeded();
    assert_eq!(loss(eval.stdout), result["tasks"]["sentiment"]["metrics"]["loss"]);
    let lines = |arguments: &[&str]| workdir.fthost(arguments).succeeded().stdout.lines().count();
    assert_eq!(lines(&["predict", "run", "test.tsv"]), 1 + 16);
    assert_eq!(lines(&["predict", "run", "test.tsv", "--header", "false"]), 1 + 17);
    // A file of examples alone: its first is not taken for a header where its label tells.
    workdir.write("plain.tsv", "a good film\t1\na bad film\t0\n");
    let error = workdir.fthost(["eval", "run", "plain.tsv"]).failed(2);
    assert!(error.contains("this row should be a header, and its label `1` is that of other rows"), "{error}");
    workdir.fthost(["eval", "run", "plain.tsv", "--header", "false"]).succeeded();
}

/// Classes weigh by the examples that are trained on, as when the run is opened again.
#[test]
fn balanced_weights_leave_out_what_is_held_out() {
    let workdir = text_workdir();
    let rows = |word: &str, label: u32, number: usize| format!("the film was {word}\t{label}\n").repeat(number);
    workdir.write("train.tsv", rows("bad", 0, 21) + &rows("good", 1, 5)); // of which 6 and 2 are held out
    let head = RUN.replace("plugin = \"classification\"", "plugin = \"classification\", class_weights = \"balanced\"");
    workdir.write("run.toml", head.replace("test = ", "validation = 0.3\ntest = "));
    workdir.fthost(["run.toml", "--out", "run"]).succeeded();
    let task = result_json(&workdir.path().join("run"))["tasks"]["sentiment"].take();
    assert_eq!(task["class_counts"], serde_json::json!([15, 3]));
    let eval = workdir.fthost(["eval", "run", "test.tsv", "--json"]).succeeded().stdout;
    let eval: Value = serde_json::from_str(&eval).unwrap();
    assert_eq!(eval["tasks"]["sentiment"]["metrics"]["loss"], task["metrics"]["loss"]);
}

#[test]
fn text_runs_are_the_same_to_the_bit_at_any_number_of_threads() {
    let (first, workdir) = (tiny(), text_workdir());
    workdir.fthost(["--config", "run.toml", "--out", "run", "--threads", "1"]).succeeded();
    let losses = |workdir: &Workdir| -> Vec<Value> {
        steps(&workdir.path().join("run")).into_iter().map(|mut step| step["loss"].take()).collect()
    };
    assert_eq!(losses(first), losses(&workdir));
}

/// 77 classes with names of their own: the terminal has the averages and what is confused most, the page has all.
#[test]
fn of_many_classes_no_line_of_the_terminal_is_long() {
    let workdir = text_workdir();
    let class = |i: usize| format!("balance not updated after transfer {} number {i}", "of money ".repeat(i % 5));
    let rows: String = (0..77).map(|i| format!("the film was {}\t{}\n", ["good", "bad"][i % 2], class(i))).collect();
    let rows = format!("text\tlabel\n{rows}");
    ["train.tsv", "test.tsv"].iter().for_each(|file| drop(workdir.write(file, &rows)));
    let run = workdir.fthost(["--config", "run.toml", "--out", "run"]).succeeded().stdout;
    let eval = workdir.fthost(["eval", "run", "test.tsv"]).succeeded().stdout;
    for (text, whole) in
        [(&run, "all 77 classes are in run/report.html and result.json"), (&eval, "what --json prints")]
    {
        assert!(text.lines().all(|line| line.chars().count() <= 200), "{text}");
        assert!(text.contains("weighted avg") && text.contains(whole), "{text}");
        assert!(text.lines().count() <= 40, "{text}");
    }
    let page = fs::read_to_string(workdir.path().join("run/report.html")).unwrap();
    assert!((0..77).all(|i| page.matches(class(i).as_str()).count() >= 3), "in the report, in a row and in a column");
}

/// A Python with torch, transformers and peft.
pub(crate) fn python() -> Option<PathBuf> {
    std::env::var_os("FTHOST_PYTHON").map(PathBuf::from)
}

/// Mean loss and confusion matrix of an adapter (or, where that is a whole model, of it) on test data, as PEFT computes them.
pub(crate) fn peft(python: &Path, base: &Path, adapter: &Path, test: &Path) -> Value {
    reference(python, "peft_check.py", [base, adapter, test])
}

/// What `fthost predict` says of a folder on a file has these logits, each example's up to a constant.
#[track_caller]
pub(crate) fn logits_agree(workdir: &Workdir, folder: &str, file: &str, model: &str, logits: &Value, tolerance: f64) {
    let model = format!("model.path={model}");
    let printed = workdir
        .fthost(["predict", folder, file, "--format", "jsonl", "--probabilities", "--set", &model])
        .succeeded()
        .stdout;
    let centered = |logits: Vec<f64>| {
        let mean = logits.iter().sum::<f64>() / logits.len() as f64;
        logits.into_iter().map(move |logit| logit - mean).collect::<Vec<_>>()
    };
    let rows: Vec<Vec<f64>> = serde_json::from_value(logits.clone()).unwrap();
    assert_eq!(printed.lines().count(), rows.len());
    for (line, theirs) in printed.lines().zip(rows) {
        let row: Value = serde_json::from_str(line).unwrap();
        let probabilities = row["probabilities"].as_object().unwrap().values();
        let ours = centered(probabilities.map(|p| p.as_f64().unwrap().ln()).collect());
        for (ours, theirs) in ours.iter().zip(centered(theirs)) {
            assert!((ours - theirs).abs() < tolerance, "{folder}: {line}: logit {ours} here, {theirs} there");
        }
    }
}

#[track_caller]
pub(crate) fn peft_agrees(python: &Path, base: &Path, workdir: &Workdir, task: &str, test: &Path) {
    let run = workdir.path().join("run");
    let (found, ours) = (peft(python, base, &run.join("adapter"), test), &result_json(&run)["tasks"][task]);
    assert_eq!(found["confusion"], ours["confusion"], "predictions differ");
    let (theirs, ours) = (found["loss"].as_f64().unwrap(), ours["metrics"]["loss"].as_f64().unwrap());
    assert!((theirs - ours).abs() < 1e-4, "mean loss {theirs} in PEFT, {ours} here");
    let shown = |path: &Path| path.display().to_string();
    logits_agree(workdir, "run", &shown(test), &shown(base), &found["logits"], 1e-4);
}

#[test]
fn peft_reads_the_adapter_and_computes_the_same() {
    let Some(python) = python() else {
        return skipped("FTHOST_PYTHON names no Python with peft");
    };
    let workdir = tiny();
    peft_agrees(&python, &workdir.path().join("model"), workdir, "sentiment", &workdir.path().join("test.tsv"));
}

#[test]
fn peft_reads_ia3_and_computes_the_same() {
    let Some(python) = python() else {
        return skipped("FTHOST_PYTHON names no Python with peft");
    };
    let workdir = text_workdir();
    // Every form: an output's vector, and an input's of the layers that PEFT too finds by `output.dense`.
    workdir.write("run.toml", RUN.replace(LORA, "plugin = \"ia3\""));
    workdir.fthost(["--config", "run.toml", "--out", "run", "--set", "train.lr=0.5"]).succeeded();
    peft_agrees(&python, &workdir.path().join("model"), &workdir, "sentiment", &workdir.path().join("test.tsv"));
}

#[test]
fn peft_reads_vera_and_computes_the_same() {
    let Some(python) = python() else {
        return skipped("FTHOST_PYTHON names no Python with peft");
    };
    // Layers of different shapes take parts of the shared matrices.
    let workdir = text_workdir();
    workdir.write(
        "run.toml",
        RUN.replace(
            LORA,
            "plugin = \"vera\"\nrank = 8\ntargets = [\"query\", \"dense\"]\nexclude = [\"1.output.dense\"]",
        ),
    );
    workdir.fthost(["--config", "run.toml", "--out", "run", "--set", "train.lr=0.2"]).succeeded();
    peft_agrees(&python, &workdir.path().join("model"), &workdir, "sentiment", &workdir.path().join("test.tsv"));
}

#[test]
fn peft_reads_adalora_and_computes_the_same() {
    let Some(python) = python() else {
        return skipped("FTHOST_PYTHON names no Python with peft");
    };
    // So few triplets for so many layers that some are left with none.
    let workdir = text_workdir();
    workdir.write("run.toml", RUN.replace(LORA, ADALORA));
    workdir.fthost(["--config", "run.toml", "--out", "run", "--set", "train.lr=0.1"]).succeeded();
    peft_agrees(&python, &workdir.path().join("model"), &workdir, "sentiment", &workdir.path().join("test.tsv"));
    let config = fs::read_to_string(workdir.path().join("run/adapter/adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    let pattern = config["rank_pattern"].as_object().unwrap();
    let ranks: Vec<usize> = pattern
        .values()
        .map(|left| left.as_array().unwrap().iter().filter(|left| **left == serde_json::json!(true)).count())
        .collect();
    assert_eq!((ranks.len(), ranks.iter().sum::<usize>()), (9, 9), "{pattern:?}");
    assert!(
        ranks.contains(&0) && pattern.contains_key("bert.encoder.layer.1.attention.self.query.lora_E"),
        "{pattern:?}"
    );
}

/// The losses of the 16 steps of [`sst2_on_a_real_bert`], as they were when this was written; PEFT agrees with where they lead.
const SST2_LOSSES: [f64; 16] = [
    0.6856, 0.6844, 0.6921, 0.6793, 0.6903, 0.6875, 0.6812, 0.6462, 0.6814, 0.6614, 0.6055, 0.7100, 0.6701, 0.6290,
    0.6830, 0.6418,
];

#[test]
fn sst2_on_a_real_bert() {
    let data = data().join("sst2");
    let (Some(model), true) = (minilm(), data.join("train.tsv").is_file()) else {
        return skipped("all-MiniLM-L6-v2 (scripts/fetch-minilm.sh) or SST-2 ($FTHOST_DATA/sst2) is not here");
    };
    let workdir = Workdir::new();
    for (file, rows) in [("train.tsv", 64), ("test.tsv", 32)] {
        let text = fs::read_to_string(data.join(file)).unwrap();
        workdir.write(file, text.lines().take(rows).map(|line| format!("{line}\n")).collect::<String>());
    }
    let model = model.canonicalize().unwrap();
    workdir.write("run.toml", RUN.replace("\"model\"", &format!("{:?}", model.display().to_string())));
    // PEFT's class for sequences pools by the pooler, whatever the folder's modules.json says.
    let settings = [
        "model.pooling=\"pooler\"",
        "train.epochs=4",
        "train.batch_size=16",
        "train.lr=0.001",
        "train.evaluate_before=true",
        "strategy.rank=8",
    ];
    let arguments = ["--config", "run.toml", "--out", "run"].into_iter();
    workdir.fthost(arguments.chain(settings.iter().flat_map(|setting| ["--set", setting]))).succeeded();

    let result = result_json(&workdir.path().join("run"));
    assert_eq!(result["train"]["steps"], 16);
    // 22.7 M of the base model, r (in + out) at query and value of six layers, the head.
    assert_eq!(result["parameters"]["trainable"], 12 * 8 * (384 + 384) + 2 * 384 + 2);
    let losses =
        steps(&workdir.path().join("run")).iter().map(|step| step["loss"].as_f64().unwrap()).collect::<Vec<_>>();
    let close = |found: f64, expected: f64| (found - expected).abs() < 1e-3; // kernels round in their own ways
    assert_eq!(losses.len(), SST2_LOSSES.len());
    assert!(losses.iter().zip(SST2_LOSSES).all(|(&loss, expected)| close(loss, expected)), "{losses:?}");
    let (before, after) = (&result["tasks"]["sentiment"]["before"], &result["tasks"]["sentiment"]["metrics"]);
    for (metrics, expected) in [(before, 0.6929), (after, 0.7503)] {
        assert!(close(metrics["loss"].as_f64().unwrap(), expected), "{expected} expected: {metrics}");
    }
    let epoch = |i: usize| losses[4 * i..][..4].iter().sum::<f64>() / 4.0;
    assert!(epoch(3) < epoch(0) - 0.02, "64 sentences can be learned: {losses:?}");

    if let Some(python) = python() {
        peft_agrees(&python, &model, &workdir, "sentiment", &workdir.path().join("test.tsv"));
    }
}
