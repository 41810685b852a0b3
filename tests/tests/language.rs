//! Language models: a decoder learns answers, a masked language model fills places.

use std::fs;
use std::path::Path;

use fthost_tests::{Workdir, on_one_line, reference, result_json, root, skipped};
use serde_json::{Value, json};

use crate::resume::{bits, set_back};
use crate::text::{python, text_workdir};

const CAUSAL: &str = r#"[model]
path = "model.gguf"

[[task]]
name = "answers"
head = { plugin = "causal-lm" }
train = "rows.jsonl"
test = "rows.jsonl"

[[strategy]]
plugin = "lora"
targets = "all-linear"

[train]
epochs = 12
batch_size = 4
lr = 1e-2
checkpoint_steps = 5
"#;

const MASKED: &str = r#"[model]
path = "model"

[[task]]
name = "texts"
head = { plugin = "masked-lm" }
train = "texts.txt"
test = "texts.txt"
max_tokens = 24

[[strategy]]
plugin = "full"

[train]
epochs = 8
batch_size = 2
lr = 3e-3
checkpoint_steps = 5
"#;

/// A tiny Llama in a file of its own, with its tokenizer and its template, and a few instructions.
pub(crate) fn causal_workdir() -> Workdir {
    let workdir = Workdir::new();
    workdir.write("model.gguf", fs::read(root().join("tests/reference/gguf/llama.gguf")).unwrap());
    workdir.write("rows.jsonl", fs::read(root().join("plugins/causal-lm/example.jsonl")).unwrap());
    workdir.write("run.toml", CAUSAL);
    workdir
}

/// The tiny BERT with texts of its vocabulary.
pub(crate) fn masked_workdir() -> Workdir {
    let workdir = text_workdir();
    let texts = fs::read_to_string(workdir.path().join("train.tsv")).unwrap();
    let texts: String = texts.lines().map(|line| line.split('\t').next().unwrap().to_owned() + "\n").collect();
    workdir.write("texts.txt", texts);
    workdir.write("run.toml", MASKED);
    workdir
}

fn metrics(run: &Path, task: &str) -> Value {
    result_json(run)["tasks"][task]["metrics"].clone()
}

/// What a run measures is what `eval` measures, on the run's rows and of what it saved, and its loss is less than before training.
#[test]
fn answers_are_learned_and_measured() {
    let workdir = causal_workdir();
    let plan = workdir.fthost(["plan", "run.toml"]).succeeded().stdout;
    assert!(plan.contains("of them learned") && plan.contains("⟦") && plan.contains("instructions"), "{plan}");
    workdir.fthost(["run.toml", "--out", "run", "--set", "train.evaluate_before=true"]).succeeded();
    let result = result_json(&workdir.path().join("run"));
    let (before, after) = (&result["before"]["answers"], metrics(&workdir.path().join("run"), "answers"));
    let loss = after["loss"].as_f64().unwrap();
    assert!((after["perplexity"].as_f64().unwrap() - loss.exp()).abs() < 1e-9, "{after}");
    assert!(before["loss"].as_f64().is_none_or(|before| loss < before), "{before} {after}");
    assert!((0.0..=1.0).contains(&after["accuracy"].as_f64().unwrap()));
    for folder in ["run", "merged"] {
        if folder == "merged" {
            workdir.fthost(["merge", "run", "merged"]).succeeded();
            let config: Value =
                serde_json::from_slice(&fs::read(workdir.path().join("merged/config.json")).unwrap()).unwrap();
            assert_eq!(config["architectures"], json!(["LlamaForCausalLM"]));
            continue;
        }
        let found = workdir.fthost(["eval", folder, "rows.jsonl", "--json"]).succeeded().stdout;
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!(found["tasks"]["answers"]["metrics"], after, "{folder}");
    }
    let config: Value =
        serde_json::from_slice(&fs::read(workdir.path().join("run/adapter/adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["task_type"], "CAUSAL_LM");
    // Of each row the number of tokens that count and their mean loss, which make the perplexity.
    let rows = fs::read_to_string(workdir.path().join("run/predictions.csv")).unwrap();
    let (mut tokens, mut sum) = (0.0, 0.0);
    for row in rows.lines().skip(1) {
        let cells: Vec<&str> = row.split(',').collect();
        let (of_row, mean): (f64, f64) = (cells[1].parse().unwrap(), cells[2].parse().unwrap());
        (tokens, sum) = (tokens + of_row, sum + of_row * mean);
    }
    assert!((sum / tokens - loss).abs() < 1e-9);
}

/// What a run said to validation prompts, from its log.
fn samples(run: &Path) -> Vec<Value> {
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == "sample").collect()
}

/// At each evaluation the first prompts are continued: it changes nothing of what is trained, and a run that goes on says it once.
#[test]
fn validation_prompts_are_continued_at_each_evaluation() {
    let workdir = causal_workdir();
    let run = |out: &str, more: &[&str]| {
        let all = ["run.toml", "--out", out, "--set", "task.validation=rows.jsonl"];
        let told = workdir.fthost(all.iter().chain(more)).succeeded();
        (workdir.path().join(out), told.stderr)
    };
    let (with, told) = run("with", &[]);
    let (without, silent) = run("without", &["--set", "task.0.samples=0"]);
    assert!(bits(&with) == bits(&without), "samples change what is trained");
    let said = samples(&with);
    // Twelve epochs, three rows.
    assert_eq!((said.len(), samples(&without).len()), (12 * 3, 0));
    let first = &said[0];
    assert_eq!([&first["task"], &first["row"], &first["step"]], [&json!("answers"), &json!(1), &json!(5)], "{first}");
    let prompt = first["prompt"].as_str().unwrap();
    assert!(prompt.contains("name the colour of grass") && !prompt.contains("green"), "{first}");
    assert!(first["text"].is_string() && first["finish_reason"].is_string(), "{first}");
    assert_eq!((said[35]["row"].clone(), said[35]["step"].clone()), (json!(3), json!(60)));
    let shown = |told: &str| told.lines().filter(|line| line.starts_with("  ") && line.contains('⟦')).count();
    assert_eq!((shown(&told), shown(&silent)), (12 * 3, 0), "{told}");
    assert!(fs::read_to_string(with.join("run.toml")).unwrap().contains("\nsamples = 3\n"));
    let page = fs::read_to_string(with.join("report.html")).unwrap();
    assert!(page.contains("Samples") && page.contains("All 12 evaluations"), "the page shows no samples");
    let tagged = |run: &Path| {
        let events = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
        let mut events = events.filter(|file| file.to_string_lossy().contains("tfevents"));
        let bytes = fs::read(events.next().unwrap()).unwrap();
        let tag = b"answers/samples/1/text_summary";
        bytes.windows(tag.len()).filter(|bytes| bytes == tag).count()
    };
    assert_eq!((tagged(&with), tagged(&without)), (12, 0));
    set_back(&with);
    workdir.fthost(["--resume", "--out", "with"]).succeeded();
    assert_eq!(samples(&with), said, "said twice, or otherwise");
}

/// Texts go on from their beginnings, and a task that says no text has no samples.
#[test]
fn texts_without_prompts_go_on_from_their_first_tokens() {
    let workdir = causal_workdir();
    let text = |row: usize| format!("{{\"text\": \"the colour of the sky is {}blue\"}}\n", "very ".repeat(row));
    workdir.write("rows.jsonl", (0..12).map(text).collect::<String>());
    let sets = [
        "task.validation=rows.jsonl",
        "task.0.max_tokens=40",
        "task.0.samples=1",
        "train.epochs=1",
        "train.checkpoint_steps=2",
    ];
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    workdir.fthost(["run.toml", "--out", "run"].into_iter().chain(sets)).succeeded();
    let said = samples(&workdir.path().join("run"));
    assert_eq!(said.len(), 1);
    let prompt = said[0]["prompt"].as_str().unwrap();
    assert!(prompt.contains("the") && prompt.len() < text(11).len(), "{prompt}");

    let masked = masked_workdir();
    let sets = ["task.validation=texts.txt", "task.0.samples=2"].iter().flat_map(|set| ["--set", set]);
    let error = on_one_line(&masked.fthost(["run.toml", "--out", "run"].into_iter().chain(sets)).failed(2));
    assert!(error.contains("samples needs a model of next tokens"), "{error}");
}

/// A killed run goes on to the same bits, and any number of threads gives them.
#[test]
fn runs_of_language_models_are_resumed_and_threaded_to_the_same_bits() {
    for make in [causal_workdir, masked_workdir] {
        let workdir = make();
        workdir.fthost(["run.toml", "--out", "run", "--set", "train.threads=1"]).succeeded();
        let run = workdir.path().join("run");
        let whole = bits(&run);
        set_back(&run);
        workdir.fthost(["--resume", "--out", "run"]).succeeded();
        assert!(bits(&run) == whole, "resumed");
        workdir.fthost(["run.toml", "--out", "three", "--set", "train.threads=3"]).succeeded();
        assert!(bits(&workdir.path().join("three")) == whole, "three threads");
    }
}

/// Blocks that keep nothing are made once more: of what trains in all of them, in their sites, and before them.
#[test]
fn recomputed_blocks_learn_the_same_bits() {
    // A masked language model has no use for its pooler.
    for (workdir, targets) in [(causal_workdir(), "\"all-linear\""), (masked_workdir(), "[\"query\", \"value\"]")] {
        let of = |out: &str, recompute: &str| {
            let lora = format!("{{ plugin = \"lora\", dropout = 0.1, targets = {targets} }}");
            let strategy = format!("strategy=[{lora}, {{ plugin = \"full\" }}]");
            let sets = ["train.steps=3", "train.checkpoint_steps=2", &strategy, recompute].into_iter();
            let sets = sets.flat_map(|set| ["--set", set]);
            workdir.fthost(["run.toml", "--out", out].into_iter().chain(sets)).succeeded();
            bits(&workdir.path().join(out))
        };
        assert!(of("kept", "train.recompute=false") == of("again", "train.recompute=true"));
    }
}

/// Batches of so many tokens, and of rows of about equal lengths: each row once an epoch, and the same bits however the run goes.
#[test]
fn batches_by_tokens_are_resumed_and_threaded_to_the_same_bits() {
    let workdir = causal_workdir();
    workdir.write(
        "run.toml",
        CAUSAL.replace("batch_size = 4", "batch_tokens = 150\ngroup_by_length = true\naccumulate = 2"),
    );
    let plan = workdir.fthost(["plan", "run.toml", "--json"]).succeeded().stdout;
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let (tokens, steps) = (plan["tokens"].as_u64().unwrap(), plan["steps_per_epoch"].as_u64().unwrap());
    assert_eq!(steps, tokens.div_ceil(300));
    let run = |out: &str, threads: &str| {
        workdir.fthost(["run.toml", "--out", out, "--set", threads]).succeeded();
        workdir.path().join(out)
    };
    let folder = run("run", "train.threads=1");
    let whole = bits(&folder);
    let examples = |epoch: u64| -> u64 {
        let of_epoch = whole.1.iter().filter(|step| step["epoch"] == epoch);
        of_epoch.map(|step| step["samples"].as_u64().unwrap()).sum()
    };
    assert_eq!((examples(1), examples(2)), (plan["examples"].as_u64().unwrap(), plan["examples"].as_u64().unwrap()));
    set_back(&folder);
    workdir.fthost(["--resume", "--out", "run"]).succeeded();
    assert!(bits(&folder) == whole, "resumed");
    assert!(bits(&run("three", "train.threads=3")) == whole, "three threads");

    let both = workdir.fthost(["run.toml", "--out", "x", "--set", "train.batch_size=4"]).failed(2);
    assert!(on_one_line(&both).contains("both say how much a batch holds"), "{both}");
}

/// With and without accumulation the mean is over the tokens of the whole step.
#[test]
fn accumulated_batches_count_by_their_tokens() {
    let workdir = causal_workdir();
    for (out, batch, accumulate) in [("whole", 4, 1), ("parts", 1, 4)] {
        let (batch, accumulate) = (format!("train.batch_size={batch}"), format!("train.accumulate={accumulate}"));
        let sets = ["--set", "train.optimizer=sgd", "--set", &batch, "--set", &accumulate];
        let sets = sets.into_iter().chain(["--set", "train.checkpoint_steps=2", "--set", "train.steps=3"]);
        workdir.fthost(["run.toml", "--out", out].into_iter().chain(sets)).succeeded();
    }
    let loss = |out: &str| metrics(&workdir.path().join(out), "answers")["loss"].as_f64().unwrap();
    assert!((loss("whole") - loss("parts")).abs() < 1e-5, "{} {}", loss("whole"), loss("parts"));
}

/// Each kind of decoder learns by PEFT's gradients: of the low-rank parts of all its layers, through its own layer over the vocabulary.
#[test]
fn decoders_take_the_step_that_peft_takes() {
    let Some(python) = python() else {
        return skipped("FTHOST_PYTHON names no Python with peft");
    };
    for row in ["llama", "llama3", "mistral", "qwen2", "qwen3", "gemma3_text", "gpt2"] {
        let workdir = Workdir::new();
        for entry in fs::read_dir(root().join("tests/reference/decoders").join(row)).unwrap() {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
            if !name.to_string_lossy().starts_with("expected") {
                workdir.write(&format!("model/{}", name.to_string_lossy()), fs::read(path).unwrap());
            }
        }
        let words: serde_json::Map<String, Value> = (0..50).map(|i| (format!("w{i}"), json!(i))).collect();
        let tokenizer = json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": { "type": "WhitespaceSplit" },
            "post_processor": null, "decoder": null, "truncation": null, "padding": null,
            "model": { "type": "WordLevel", "vocab": words, "unk_token": "w0" }
        });
        workdir.write("model/tokenizer.json", tokenizer.to_string());
        let text =
            |row: usize| (0..3 + 4 * row).map(|i| format!("w{} ", 3 + (7 * i * i + row) % 47)).collect::<String>();
        let rows: String = (0..4).map(|row| json!({ "text": text(row).trim_end() }).to_string() + "\n").collect();
        workdir.write("rows.jsonl", rows);
        let run = CAUSAL.replace("model.gguf", "model").replace("test = \"rows.jsonl\"", "blocks = false");
        workdir.write(
            "run.toml",
            run.replace("lr = 1e-2", "lr = 0.1\noptimizer = \"sgd\"\ndropout = false")
                .replace("steps = 5", "steps = 2"),
        );
        for (out, steps) in [("run", "train.steps=3"), ("next", "train.steps=4")] {
            workdir.fthost(["run.toml", "--out", out, "--set", steps]).succeeded();
        }
        let files =
            ["model", "run/adapter", "next/adapter", "rows.jsonl"].map(|of| workdir.path().join(of).into_os_string());
        let off = reference(&python, "peft_step.py", files.into_iter().chain(["0.1".into()]));
        let off = off.as_object().unwrap();
        assert!(off.len() >= 2 * 4 * 2, "{row}: {off:?}");
        for (tensor, off) in off {
            assert!(off.as_f64().unwrap() < 1e-3, "{row}: the step of {tensor} is off by {off} of its length");
        }
    }
}

#[test]
fn masked_tokens_are_learned_by_the_models_own_layer() {
    let workdir = masked_workdir();
    workdir.fthost(["run.toml", "--out", "run", "--set", "train.evaluate_before=true"]).succeeded();
    let after = metrics(&workdir.path().join("run"), "texts");
    let found = workdir.fthost(["eval", "run", "texts.txt", "--json"]).succeeded().stdout;
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["tasks"]["texts"]["metrics"], after);
    let config: Value =
        serde_json::from_slice(&fs::read(workdir.path().join("run/model/config.json")).unwrap()).unwrap();
    assert_eq!(config["architectures"], json!(["BertForMaskedLM"]));
    // An encoder's next token cannot be learned, and the other way round.
    let run = MASKED.replace("masked-lm", "causal-lm");
    workdir.write("other.toml", run);
    assert!(on_one_line(&workdir.fthost(["other.toml", "--out", "x"]).failed(2)).contains("take masked-lm"));
}

#[test]
fn what_is_wrong_with_rows_is_said_before_training() {
    let check = |rows: &str, set: &[&str], expected: &[&str]| {
        let workdir = causal_workdir();
        workdir.write("rows.jsonl", rows);
        let arguments = ["run.toml", "--out", "run"].into_iter().chain(set.iter().flat_map(|set| ["--set", set]));
        let error = on_one_line(&workdir.fthost(arguments).failed(2));
        for expected in expected {
            assert!(error.contains(expected), "{rows}: {error}");
        }
        assert!(!workdir.path().join("run").exists(), "{rows}");
    };
    let talk = |turns: &str| format!("{{\"messages\": [{turns}]}}\n");
    let turn = |role: &str| format!("{{\"role\": \"{role}\", \"content\": \"a\"}}");
    check(&talk(&turn("user")), &[], &["rows.jsonl:1", "ends without an answer"]);
    check(&talk(&format!("{}, {}", turn("assistant"), turn("user"))), &[], &["it is the user's turn"]);
    check("{\"instruction\": \"a\", \"output\": \"\"}\n", &[], &["`output` is empty"]);
    check("{\"a\": 1}\n", &[], &["none of the known forms", "columns"]);
    let good = "{\"instruction\": \"name the colour\", \"output\": \"green\"}\n";
    check(good, &["task.0.max_tokens=4"], &["raise max_tokens"]);
    check(good, &["task.0.template=\"nowhere.jinja\""], &["nowhere.jinja", "chatml"]);
    let raises = causal_workdir();
    raises.write("strict.jinja", "{{ raise_exception('no such roles here') }}");
    let error = on_one_line(
        &raises.fthost(["run.toml", "--out", "run", "--set", "task.0.template=\"strict.jinja\""]).failed(2),
    );
    assert!(error.contains("no such roles here") && error.contains("strict.jinja"), "{error}");
}
