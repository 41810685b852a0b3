//! Texts that language models continue: as Transformers does, from runs and from models as they came, and what is refused.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use fthost_tests::{Workdir, on_one_line, reference, root, skipped};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};

use crate::language::causal_workdir;
use crate::text::text_workdir;

/// The folder of a small decoder that answers questions, where it is on this machine.
fn smollm2() -> Option<PathBuf> {
    let folder = std::env::var_os("FTHOST_SMOLLM2").map(PathBuf::from)?;
    folder.join("config.json").is_file().then_some(folder)
}

/// What comes for each prompt of a file, `tokens` at most.
fn continued(workdir: &Workdir, model: &Path, file: &str, tokens: &str) -> Vec<Value> {
    let model = model.to_str().unwrap();
    let all = ["generate", model, "--input", file, "--max-tokens", tokens, "--out", "out.jsonl"];
    workdir.fthost(all).succeeded();
    let lines = fs::read_to_string(workdir.path().join("out.jsonl")).unwrap();
    fs::remove_file(workdir.path().join("out.jsonl")).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn equal_transformers(workdir: &Workdir, ours: &Path, theirs: &Path, prompts: &[&str], tokens: &str) {
    let Some(python) = std::env::var_os("FTHOST_PYTHON") else {
        return skipped("FTHOST_PYTHON names no Python with transformers");
    };
    let lines: String = prompts.iter().map(|prompt| format!("{}\n", json!({ "prompt": prompt }))).collect();
    let file = workdir.write("prompts.jsonl", lines);
    let expected = reference(
        Path::new(&python),
        "generate_check.py",
        [theirs.as_os_str(), file.as_os_str(), std::ffi::OsStr::new(tokens)],
    );
    let found = continued(workdir, ours, "prompts.jsonl", tokens);
    assert_eq!(found.len(), prompts.len());
    for (found, expected) in found.iter().zip(expected.as_array().unwrap()) {
        for key in ["prompt_tokens", "generated_tokens", "text"] {
            assert_eq!(found[key], expected[key], "{found} {expected}");
        }
    }
}

/// Eight prompts at once, and Transformers one after the other.
#[test]
fn smollm2_continues_as_in_transformers() {
    let Some(model) = smollm2() else { return skipped("FTHOST_SMOLLM2 names no folder of SmolLM2") };
    let prompts = [
        "What is the capital of France?",
        "Write a short poem about the sea.",
        "Explain in two sentences why the sky is blue.",
        "List three fruits that are red.",
        "Translate \"good morning\" into Spanish.",
        "What is 12 times 7?",
        "Who wrote Hamlet, and when?",
        "Give me a recipe for pancakes, with Crème fraîche.",
    ];
    equal_transformers(&Workdir::new(), &model, &model, &prompts, "64");
}

#[test]
fn smollm2_answers_from_its_folder_and_from_one_file() {
    let Some(folder) = smollm2() else { return skipped("FTHOST_SMOLLM2 names no folder of SmolLM2") };
    let file = folder.join("../gguf/SmolLM2-135M-Instruct.Q4_1.gguf");
    let workdir = Workdir::new();
    for model in [folder, file].iter().filter(|model| model.exists()) {
        let model = model.to_str().unwrap();
        let told = workdir.fthost(["generate", model, "What is the capital of France?"]).succeeded().stdout;
        assert_eq!(told, "The capital of France is Paris.\n", "{model}");
    }
}

/// A tiny Llama with LoRA on all its layers.
fn trained() -> Workdir {
    let workdir = causal_workdir();
    workdir.fthost(["run.toml", "--out", "run"]).succeeded();
    workdir
}

fn object(workdir: &Workdir, arguments: &[&str]) -> Value {
    let told = workdir.fthost(["generate"].iter().chain(arguments).chain(&["--json"])).succeeded().stdout;
    serde_json::from_str(&told).unwrap()
}

#[test]
fn a_run_continues_as_what_it_is_merged_into_and_as_transformers() {
    let workdir = trained();
    workdir.fthost(["merge", "run", "merged"]).succeeded();
    let prompt = "name the colour of grass";
    let [of_run, of_merged, of_base] =
        ["run", "merged", "model.gguf"].map(|model| object(&workdir, &[model, prompt, "--max-tokens", "24"]));
    assert_eq!(of_run["text"], of_merged["text"]);
    assert_ne!(of_run["text"], of_base["text"], "the adapter does nothing");
    // What the run has learned: to end its answers.
    assert_eq!(of_run["finish_reason"], "stop", "{of_run}");
    let keys: Vec<&String> = of_run.as_object().unwrap().keys().collect();
    let expected = ["finish_reason", "generated_tokens", "prompt_tokens", "seconds", "text", "tokens_per_second"];
    assert_eq!(keys, expected);
    let told = workdir.fthost(["generate", "run", prompt, "--max-tokens", "24"]).succeeded().stdout;
    assert_eq!(told, format!("{}\n", of_run["text"].as_str().unwrap()));
    let (run, merged) = (workdir.path().join("run"), workdir.path().join("merged"));
    equal_transformers(&workdir, &run, &merged, &[prompt, "add the numbers", "say the opposite"], "24");
}

/// What is said on standard output where these lines are typed on a terminal.
fn typed(mut command: Command, lines: &[&str]) -> String {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let end = ptsname(&terminal, Vec::new()).unwrap();
    command.stdin(File::options().read(true).write(true).open(end.to_str().unwrap()).unwrap());
    let mut keys = File::from(terminal);
    for line in lines {
        writeln!(keys, "{line}").unwrap();
    }
    keys.write_all(b"\x04").unwrap();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// In a conversation each answer is that to all that was said before, of which nothing is computed again; after /new that is nothing.
#[test]
fn a_conversation_on_a_terminal_is_asked_with_what_was_said() {
    let workdir = trained();
    let questions = ["name the colour of grass", "say the opposite"];
    let answer = |messages: &Value| {
        workdir.write("asked.jsonl", json!({ "messages": messages }).to_string());
        let found = continued(&workdir, &workdir.path().join("run"), "asked.jsonl", "24").remove(0);
        found["text"].as_str().unwrap().to_owned()
    };
    let said = |role: &str, content: &str| json!({ "role": role, "content": content });
    let first = answer(&json!([said("user", questions[0])]));
    let second = answer(&json!([said("user", questions[0]), said("assistant", &first), said("user", questions[1])]));
    let alone = answer(&json!([said("user", questions[1])]));
    assert_ne!(second, alone, "what was said before changes nothing here");
    let found = typed(
        workdir.command(["generate", "run", "--max-tokens", "24"]),
        &[questions[0], questions[1], "/new", questions[1], questions[0]],
    );
    let fourth = answer(&json!([said("user", questions[1]), said("assistant", &alone), said("user", questions[0])]));
    assert_eq!(found, format!("{first}\n{second}\n{alone}\n{fourth}\n\n"));
}

/// Strategies whose rows stand before a text are there for every token: of a whole pass, each token that came is the most probable one.
#[test]
fn prompts_and_prefixes_hold_for_every_token() {
    for strategy in ["prompt", "prefix"] {
        let workdir = causal_workdir();
        let run = fs::read_to_string(workdir.path().join("run.toml")).unwrap();
        let of = format!("plugin = \"{strategy}\"\ntokens = 3");
        workdir.write("run.toml", run.replace("plugin = \"lora\"\ntargets = \"all-linear\"", &of));
        workdir.fthost(["run.toml", "--out", "run"]).succeeded();
        let prompt = "name the colour";
        let found = object(&workdir, &["run", prompt, "--raw", "--max-tokens", "16"]);
        assert_eq!(found["finish_reason"], "length", "{strategy}: {found}");
        let row = json!({ "prompt": prompt, "completion": found["text"] });
        workdir.write("continued.jsonl", format!("{row}\n"));
        let measured = workdir.fthost(["eval", "run", "continued.jsonl", "--json"]).succeeded().stdout;
        let measured: Value = serde_json::from_str(&measured).unwrap();
        // The end of the text counts as well, and has not come.
        let accuracy = measured["tasks"]["answers"]["metrics"]["accuracy"].as_f64().unwrap();
        assert!((accuracy - 16.0 / 17.0).abs() < 1e-9, "{strategy}: {accuracy}");
    }
}

/// Random numbers are counted by prompt and token, so they do not depend on how many prompts are continued at once.
#[test]
fn a_file_of_prompts_is_drawn_the_same_at_any_batch_size() {
    let workdir = causal_workdir();
    let write = |out: &str, more: &[&str]| {
        let all = ["generate", "model.gguf", "--input", "rows.jsonl", "--out", out, "--max-tokens", "12"];
        workdir.fthost(all.iter().chain(more)).succeeded();
        fs::read_to_string(workdir.path().join(out)).unwrap()
    };
    let drawn = ["--temperature", "1.5", "--top-k", "20", "--seed", "5"];
    let five = write("five.jsonl", &[&drawn[..], &["--batch", "5"]].concat());
    assert_eq!(write("one.jsonl", &[&drawn[..], &["--batch", "1"]].concat()), five);
    assert_ne!(write("other.jsonl", &["--temperature", "1.5", "--top-k", "20", "--seed", "6"]), five);
    let rows = fs::read_to_string(workdir.path().join("rows.jsonl")).unwrap().lines().count();
    let lines: Vec<Value> = five.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), rows);
    assert_eq!(lines[1]["line"], 2);
    // A text on each line, to standard output.
    workdir.write("lines.txt", "one\ntwo\n");
    let told =
        workdir.fthost(["generate", "model.gguf", "--input", "lines.txt", "--max-tokens", "3"]).succeeded().stdout;
    assert_eq!(told.lines().count(), 2, "{told}");
}

#[test]
fn a_text_stops_where_it_is_told_to() {
    let workdir = causal_workdir();
    let of = |more: &[&str]| {
        object(
            &workdir,
            &[&["model.gguf", "name the colour", "--max-tokens", "40", "--temperature", "2"], more].concat(),
        )
    };
    let whole = of(&[]);
    let text = whole["text"].as_str().unwrap();
    let stop = &text[text.len() / 2..][..2];
    let cut = of(&["--stop", stop]);
    assert_eq!(cut["text"], text[..text.find(stop).unwrap()]);
    assert_eq!(cut["finish_reason"], "stop");
    assert!(cut["generated_tokens"].as_u64() < whole["generated_tokens"].as_u64());
    let mut command = workdir.command(["generate", "model.gguf", "-", "--max-tokens", "40", "--temperature", "2"]);
    command.stdin(fs::File::open(workdir.write("asked.txt", "name the colour\n")).unwrap());
    assert_eq!(workdir.run(command).succeeded().stdout, format!("{text}\n"));
}

/// What `eval` measures of what a run says to the prompts of a file.
fn measured(workdir: &Workdir, file: &str, more: &[&str]) -> Value {
    let all = ["eval", "run", file, "--generate", "--max-tokens", "24", "--json"];
    let told = workdir.fthost(all.iter().chain(more)).succeeded().stdout;
    serde_json::from_str::<Value>(&told).unwrap()["tasks"]["answers"]["metrics"].clone()
}

/// Where the answers are what `generate` says, all are exact; where one is another, one less is.
#[test]
fn answers_are_compared_with_what_the_model_says() {
    let workdir = trained();
    let said = continued(&workdir, &workdir.path().join("run"), "rows.jsonl", "24");
    let rows = fs::read_to_string(workdir.path().join("rows.jsonl")).unwrap();
    let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut answered: Vec<Value> = Vec::new();
    for (mut row, said) in rows.zip(said) {
        // ROUGE-L is of words.
        if said["text"].as_str().unwrap().contains(|letter: char| letter.is_ascii_alphanumeric()) {
            row["output"] = said["text"].clone();
            answered.push(row);
        }
    }
    assert!(answered.len() > 2, "the model says nothing");
    let write = |name: &str, rows: &[Value]| {
        workdir.write(name, rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    };
    write("same.jsonl", &answered);
    let found = measured(&workdir, "same.jsonl", &["--out", "texts.jsonl"]);
    assert_eq!(found["exact_match"], 1.0, "{found}");
    assert!((found["rouge_l"].as_f64().unwrap() - 1.0).abs() < 1e-12, "{found}");
    assert!(found["perplexity"].is_f64() && found["loss"].is_f64(), "{found}");
    let texts = fs::read_to_string(workdir.path().join("texts.jsonl")).unwrap();
    let texts: Vec<Value> = texts.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(texts.len(), answered.len());
    let keys: Vec<&String> = texts[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["answer", "exact", "finish_reason", "line", "prompt", "rouge_l", "text"]);
    assert_eq!((&texts[1]["line"], &texts[1]["answer"]), (&json!(2), &answered[1]["output"]));
    assert_eq!(texts[1]["prompt"][0]["role"], "user");

    answered[0]["output"] = json!("0");
    write("other.jsonl", &answered);
    let one = |found: &Value| found["exact_match"].as_f64().unwrap();
    let due = 1.0 - 1.0 / answered.len() as f64;
    let found = measured(&workdir, "other.jsonl", &[]);
    assert!((one(&found) - due).abs() < 1e-12 && found["rouge_l"].as_f64().unwrap() < 1.0, "{found}");
    assert_eq!(measured(&workdir, "other.jsonl", &["--batch", "1"]), found);
    let told = workdir.fthost(["eval", "run", "other.jsonl", "--generate", "--max-tokens", "24"]).succeeded().stdout;
    assert!(told.contains("exact_match") && told.contains("rouge_l") && told.contains("perplexity"), "{told}");

    // A prompt goes on as it is learned: as it stands.
    let prompt = "name the colour";
    let raw = object(&workdir, &["run", prompt, "--raw", "--max-tokens", "24"]);
    write("raw.jsonl", &[json!({ "prompt": prompt, "completion": format!("{} 0", raw["text"].as_str().unwrap()) })]);
    measured(&workdir, "raw.jsonl", &["--out", "raw-texts.jsonl"]);
    let texts = fs::read_to_string(workdir.path().join("raw-texts.jsonl")).unwrap();
    let text: Value = serde_json::from_str(&texts).unwrap();
    assert_eq!((&text["text"], &text["prompt"]), (&raw["text"], &json!(prompt)));
}

#[test]
fn what_cannot_be_compared_is_said() {
    let workdir = trained();
    workdir.write("there.jsonl", "");
    workdir.write("text.txt", "name the colour of grass\n");
    workdir.write("texts.jsonl", "{\"text\": \"name the colour of grass\"}\n");
    workdir.write("long.jsonl", format!("{}\n", json!({ "prompt": "a ".repeat(17_000), "completion": "b" })));
    let check = |arguments: &[&str], expected: &[&str]| {
        let error = on_one_line(&workdir.fthost(["eval", "run"].iter().chain(arguments)).failed(2));
        for expected in expected {
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    };
    check(&["text.txt", "--generate"], &["text.txt", "no answers to compare", "prompt and completion"]);
    check(&["texts.jsonl", "--generate"], &["texts.jsonl:1", "no answers to compare", "Without --generate"]);
    check(&["long.jsonl", "--generate"], &["long.jsonl:1", "more than the 16000 that the model takes"]);
    check(&["rows.jsonl", "--out", "new.jsonl"], &["--generate"]);
    check(&["rows.jsonl", "--generate", "--out", "there.jsonl"], &["there.jsonl exists already"]);
    workdir.fthost(["eval", "run", "texts.jsonl"]).succeeded();
}

#[test]
fn what_cannot_be_continued_is_said() {
    let workdir = text_workdir();
    workdir.write("model.gguf", fs::read(root().join("tests/reference/gguf/llama.gguf")).unwrap());
    for (folder, of) in [("decoder", "llama"), ("headless", "llama")] {
        let from = root().join("tests/reference/decoders").join(of);
        for file in ["config.json", "model.safetensors"] {
            workdir.write(&format!("{folder}/{file}"), fs::read(from.join(file)).unwrap());
        }
        let tokenizer = fs::read(workdir.path().join("model/tokenizer.json")).unwrap();
        workdir.write(&format!("{folder}/tokenizer.json"), tokenizer);
    }
    let weights = fs::read(workdir.path().join("headless/model.safetensors")).unwrap();
    // The same bytes under a name that no layer has.
    let at = weights.windows(14).position(|name| name == b"lm_head.weight").unwrap();
    let renamed = [&weights[..at], b"no_head.weight", &weights[at + 14..]].concat();
    workdir.write("headless/model.safetensors", renamed);
    workdir.write("there.jsonl", "");
    workdir.write("long.txt", format!("a b\n{}\n", "a ".repeat(17_000)));
    workdir.write("rows.jsonl", "{\"label\": \"x\"}\n");
    let check = |arguments: &[&str], expected: &[&str]| {
        let error = on_one_line(&workdir.fthost(["generate"].iter().chain(arguments)).failed(2));
        for expected in expected {
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    };
    check(&["decoder", "a"], &["no chat template", "--raw", "template=chatml"]);
    check(&["headless", "a", "--raw"], &["headless lacks lm_head.weight"]);
    check(&["model", "a"], &["bert", "in a token's place", "name a decoder"]);
    check(&["nowhere", "a"], &["there is no nowhere", ".gguf"]);
    check(&["model.gguf"], &["no prompt is named", "--input"]);
    check(&["model.gguf", "a", "--input", "rows.jsonl"], &["cannot be used with"]);
    check(&["model.gguf", "--input", "rows.jsonl"], &["rows.jsonl:1", "none of the known forms", "prompt, question"]);
    check(&["model.gguf", "--input", "long.txt"], &["long.txt:2", "more than the 16000 that the model takes"]);
    check(&["model.gguf", "--input", "rows.jsonl", "--out", "there.jsonl"], &["there.jsonl exists already"]);
    check(&["model.gguf", "a", "--out", "new.jsonl"], &["--input"]);
    check(&["model.gguf", "a", "--temperature=-1"], &["--temperature is -1"]);
    check(&["model.gguf", "a", "--top-p", "2"], &["--top-p is 2"]);
    check(&["model.gguf", "", "--raw"], &["nothing to go on from"]);
    workdir.fthost(["generate", "decoder", "a", "--raw", "--max-tokens", "4"]).succeeded();
    let named = ["generate", "decoder", "a", "--max-tokens", "4", "--set", "task.0.template=chatml"];
    workdir.fthost(named).succeeded();
}
