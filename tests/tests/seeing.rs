//! A decoder that sees: captions of pictures are learned, measured, said, and what is left of that opens again here and in Transformers.

use std::fs;

use fthost_tests::{Workdir, on_one_line, result_json, root};
use serde_json::{Value, json};

use crate::resume::ends_with_the_same_bits;
use crate::towers::{self, about, eval, opened_elsewhere};

const MODEL: &str = r#"streams = { text = "words.gguf", image = "image" }"#;
/// The projector alone.
pub(crate) const PROJECTOR: &str = "plugin = \"freezing\"\ntop = 0";
const LORA: &str = "plugin = \"lora\"\nrank = 4\ntargets = \"text:*proj\"";

/// Pictures with their texts, a tiny llama with its tokenizer, a tiny transformer of pictures.
fn workdir() -> Workdir {
    let workdir = towers::workdir();
    workdir.write("words.gguf", fs::read(root().join("tests/reference/gguf/llama.gguf")).unwrap());
    workdir
}

fn run_file(model: &str, strategy: &str) -> String {
    let head = r#"{ plugin = "causal-lm" }"#;
    towers::run_file(model, head, strategy).replace("\"match\"", "\"captions\"")
}

fn metrics(workdir: &Workdir, run: &str) -> Value {
    result_json(&workdir.path().join(run))["tasks"]["captions"]["metrics"].clone()
}

/// First the projector, then LoRA in the decoder from what that left; both open again with the same losses.
#[test]
fn captions_are_learned_first_by_the_projector_then_by_lora() {
    let workdir = workdir();
    workdir.write("first.toml", run_file(MODEL, PROJECTOR));
    let plan = workdir.fthost(["plan", "first.toml"]).succeeded().stdout;
    assert!(plan.contains("each text stands behind its picture") && plan.contains("⟦"), "{plan}");
    workdir.fthost(["first.toml", "--out", "first", "--set", "train.evaluate_before=true"]).succeeded();
    let result = result_json(&workdir.path().join("first"));
    assert_eq!(result["saved"]["format"], "joined", "{}", result["saved"]);
    let first = metrics(&workdir, "first");
    let before = result["tasks"]["captions"]["before"]["loss"].as_f64().unwrap();
    assert!(first["loss"].as_f64().unwrap() < before, "{before}: {first}");
    assert_eq!(eval(&workdir, "first", "test.tsv"), first);
    about("what it saved", &eval(&workdir, "first/model", "test.tsv"), &first);
    assert!(workdir.path().join("first/model/projector.safetensors").is_file());

    workdir.write("second.toml", run_file("path = \"first/model\"", LORA));
    workdir.fthost(["second.toml", "--out", "second", "--set", "train.evaluate_before=true"]).succeeded();
    let (result, second) = (result_json(&workdir.path().join("second")), metrics(&workdir, "second"));
    let before = &result["tasks"]["captions"]["before"];
    about("begins where the first ended", before, &first);
    assert!(second["loss"].as_f64().unwrap() < first["loss"].as_f64().unwrap(), "{first} {second}");
    assert_eq!(result["saved"]["format"], "fthost", "{}", result["saved"]);
    assert_eq!(eval(&workdir, "second", "test.tsv"), second);
    about("its adapter", &eval(&workdir, "second/adapter", "test.tsv"), &second);
    assert!(workdir.path().join("second/adapter/text/adapter_config.json").is_file());
    workdir.fthost(["merge", "second", "merged"]).succeeded();
    about("merged", &eval(&workdir, "merged", "test.tsv"), &second);

    let path = |name: &str| workdir.path().join(name);
    let case = |folder: &str, loss: &Value| json!({ "of": folder, "folder": path(folder), "data": path("test.tsv"), "loss": loss["loss"] });
    let mut of_adapter = case("second/adapter", &second);
    of_adapter["base"] = json!(path("first/model"));
    opened_elsewhere("seeing_check.py", vec![case("first/model", &first), case("merged", &second), of_adapter]);
}

/// Of each row the tokens that count, the first and the end among them.
#[test]
fn the_same_tokens_count_with_pictures_and_without() {
    let workdir = workdir();
    let rows = |name: &str| {
        let table = fs::read_to_string(workdir.path().join(name)).unwrap();
        let row = |line: &str| {
            let (image, text) = line.split_once('\t').unwrap();
            format!("{}\n", json!({ "image": image, "prompt": "a picture of", "completion": format!(" {text}") }))
        };
        workdir.write(&name.replace("tsv", "jsonl"), table.lines().skip(1).map(row).collect::<String>());
    };
    rows("train.tsv");
    rows("test.tsv");
    let of_rows = |model: &str| run_file(model, LORA).replace(".tsv", ".jsonl").replace("epochs = 4", "epochs = 1");
    workdir.write("seeing.toml", of_rows(MODEL));
    workdir.write("blind.toml", of_rows("path = \"words.gguf\"").replace("text:*proj", "all-linear"));
    let tokens = |run: &str| -> Vec<String> {
        workdir.fthost([&format!("{run}.toml"), "--out", run]).succeeded();
        let rows = fs::read_to_string(workdir.path().join(run).join("predictions.csv")).unwrap();
        rows.lines().skip(1).map(|row| row.split(',').nth(1).unwrap().to_owned()).collect()
    };
    assert_eq!(tokens("seeing"), tokens("blind"));
    // So runs of both are compared in pairs of rows.
    let said =
        workdir.fthost(["compare", "seeing.toml", "blind.toml", "--seeds", "1", "--metric", "perplexity"]).succeeded();
    assert!(said.stdout.contains("seeing") && said.stdout.contains("blind"), "{}", said.stdout);
    // Of a text without a prompt the first token counts, as that of an answer does.
    let (seen, plain) = (
        workdir.fthost([
            "seeing.toml",
            "--set",
            "task.0.train=train.tsv",
            "--set",
            "task.0.test=test.tsv",
            "--out",
            "bare",
        ]),
        "bare",
    );
    seen.succeeded();
    let bare = fs::read_to_string(workdir.path().join(plain).join("predictions.csv")).unwrap();
    assert_eq!(bare.lines().count(), 9, "{bare}");
}

#[test]
fn what_is_seen_is_said() {
    let workdir = workdir();
    workdir.write(
        "run.toml",
        run_file(MODEL, LORA).replace("epochs = 4", "epochs = 12\nvalidation = 0").replace("\nvalidation = 0", ""),
    );
    workdir.fthost(["run.toml", "--out", "run", "--set", "task.0.validation=test.tsv"]).succeeded();
    let log = fs::read_to_string(workdir.path().join("run/metrics.jsonl")).unwrap();
    assert!(log.contains("\"event\":\"sample\""), "validation captions are said while it trains");
    let generate = |arguments: &[&str]| {
        let all = ["generate", "run"].iter().chain(arguments).chain(&["--max-tokens", "12", "--json"]);
        let told = workdir.fthost(all).succeeded().stdout;
        serde_json::from_str::<Value>(&told).unwrap()
    };
    let by_itself = generate(&["--image", "pictures/1.png"]);
    assert_eq!(by_itself["prompt_tokens"], 1, "{by_itself}");
    let asked = generate(&["--image", "pictures/1.png", "what is it?"]);
    assert!(asked["prompt_tokens"].as_u64().unwrap() > 1, "{asked}");
    let raw = generate(&["--image", "pictures/1.png", "the film", "--raw"]);
    assert!(raw["prompt_tokens"].as_u64().unwrap() > 1 && raw != asked, "{raw}");
    generate(&["what is it?"]);

    // The rows of a file, each by its own picture: as one after the other.
    let rows = |name: &str| {
        let all = ["generate", "run", "--input", name, "--max-tokens", "12", "--batch", "3"];
        let told = workdir.fthost(all).succeeded().stdout;
        told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    workdir.write(
        "seen.jsonl",
        (0..5).map(|i| format!("{}\n", json!({ "image": format!("pictures/{i}.png") }))).collect::<String>(),
    );
    let found = rows("seen.jsonl");
    assert_eq!((found.len(), &found[1]["text"]), (5, &by_itself["text"]));
    assert_eq!(rows("test.tsv").len(), 8);

    // Beside the answers of a table.
    workdir.fthost(["eval", "run", "test.tsv", "--generate", "--out", "said.jsonl", "--max-tokens", "12"]).succeeded();
    let said = fs::read_to_string(workdir.path().join("said.jsonl")).unwrap();
    let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((said.len(), &said[0]["answer"]), (8, &json!("it was good .")));
    let first = generate(&["--image", "pictures/16.png"]);
    assert_eq!(said[0]["text"], first["text"]);
}

#[test]
fn killed_it_ends_with_the_same_bits() {
    let [through, killed] = [workdir(), workdir()];
    for workdir in [&through, &killed] {
        let run = run_file(MODEL, LORA).replace("epochs = 4", "epochs = 12\ncheckpoint_steps = 3");
        workdir.write("run.toml", run);
    }
    ends_with_the_same_bits(&through, &killed, &["run.toml", "--out", "run"], 2, "a decoder that sees");
}

#[test]
fn what_cannot_be_is_said_before_training() {
    let workdir = workdir();
    let check = |run: &str, expected: &str| {
        workdir.write("run.toml", run);
        let error = on_one_line(&workdir.fthost(["run.toml", "--out", "run"]).failed(2));
        assert!(error.contains(expected), "{error}");
        assert!(!workdir.path().join("run/metrics.jsonl").exists());
    };
    let plain = run_file(MODEL, LORA);
    workdir.write("bare.tsv", "text\nit was good .\n");
    workdir.write("empty.tsv", "image\ttext\npictures/1.png\tit was good .\n\tit was bad .\n");
    workdir.write("lines.txt", "it was good .\n");
    check(&plain.replace("train.tsv", "bare.tsv"), "bare.tsv:2: this row names no picture, and the model sees one");
    check(&plain.replace("train.tsv", "empty.tsv"), "empty.tsv:3: this row has no picture: `image` is empty");
    check(&plain.replace("train.tsv", "lines.txt"), "lines.txt: is a text, and each example is a picture");
    let blocks = plain.replace("train = \"train.tsv\"", "train = \"train.tsv\"\nblocks = true");
    check(&blocks, "blocks = true joins texts");
    workdir.write(
        "pairs.jsonl",
        "{\"image\": \"pictures/1.png\", \"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n",
    );
    let preferences = plain.replace("causal-lm", "preference").replace("train.tsv", "pairs.jsonl");
    check(
        &preferences.replace("test = \"test.tsv\"\n", ""),
        "the task learns from pairs of answers, and pictures stand before texts",
    );
    check(&plain.replace("words.gguf", "text"), "fills masked places: pictures stand before the texts of a decoder");
    let long =
        plain.replace("\n\n[[task]]", "\nimage = { size = 8 }\n\n[[task]]").replace("head =", "max_tokens = 1\nhead =");
    check(&long, "max_tokens");

    // Texts alone need no pictures: then it is its decoder.
    workdir.write(
        "run.toml",
        plain
            .replace("train.tsv", "bare.tsv")
            .replace("test.tsv", "bare.tsv")
            .replace("head =", "stream = \"text\"\nhead ="),
    );
    workdir.fthost(["run.toml", "--out", "texts"]).succeeded();

    workdir.write("run.toml", plain);
    workdir.fthost(["run.toml", "--out", "run"]).succeeded();
    let failed = |arguments: &[&str], expected: &str| {
        let error = on_one_line(&workdir.fthost(arguments).failed(2));
        assert!(error.contains(expected), "{arguments:?}: {error}");
    };
    failed(&["export", "run", "file", "--format", "gguf"], "cannot hold a model that sees");
    assert!(!workdir.path().join("file").exists());
    let said = workdir.fthost(["export", "run", "plain", "--format", "hf"]).succeeded().stdout;
    assert!(!said.contains("llama.cpp"), "{said}");
    let said = on_one_line(&workdir.fthost(["export", "run", "peft", "--format", "peft"]).succeeded().stdout);
    assert!(said.contains("PEFT has no class for two models that are joined: peft/text is the adapter of"), "{said}");
    failed(&["predict", "run", "test.tsv"], "is a language model's, which predicts no classes");
    failed(&["eval", "run", "bare.tsv"], "bare.tsv:2: this row names no picture");
    failed(&["generate", "run", "--image", "train.tsv"], "is no picture");
    failed(&["generate", "run", "--image", "nowhere.png", "a"], "nowhere.png");
    failed(&["generate", "words.gguf", "--image", "pictures/1.png", "a"], "sees no pictures");
    failed(&["generate", "texts", "--image", "pictures/1.png", "a"], "sees no pictures");
}
