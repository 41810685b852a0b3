//! Prompts, prefixes and adapters on the tiny BERT: what they save, and that PEFT and Transformers compute the same with it.

use std::fs;
use std::path::Path;

use fthost_tests::{Workdir, on_one_line, reference, result_json, skipped};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::text::{LORA, RUN, peft_agrees, python, text_workdir};

/// A run of [`RUN`] with another strategy, far enough that it shows in the loss.
fn adapted(strategy: &str) -> Workdir {
    let workdir = text_workdir();
    workdir.write("run.toml", RUN.replace(LORA, strategy));
    let settings = ["--set", "train.lr=0.1", "--set", "train.epochs=5"];
    workdir.fthost(["--config", "run.toml", "--out", "run"].iter().chain(&settings)).succeeded();
    workdir
}

/// Names and shapes of a run's adapter.
fn saved(workdir: &Workdir) -> Vec<(String, Vec<usize>)> {
    let bytes = fs::read(workdir.path().join("run/adapter/adapter_model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut saved: Vec<_> = tensors.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec())).collect();
    saved.sort();
    saved
}

#[test]
fn prompts_and_prefixes_are_saved_as_peft_saves_them() {
    // Width 16, two layers.
    for (strategy, kind, shape) in [
        ("plugin = \"prompt\"\ntokens = 4", "PROMPT_TUNING", [4, 16]),
        ("plugin = \"prompt\"\ntokens = 3\ninit = { text = \"good or bad\" }", "PROMPT_TUNING", [3, 16]),
        ("plugin = \"prefix\"\ntokens = 4", "PREFIX_TUNING", [4, 64]),
        ("plugin = \"prefix\"\ntokens = 4\nprojection = true\nhidden = 8", "PREFIX_TUNING", [4, 64]),
    ] {
        let workdir = adapted(strategy);
        let expected = [
            ("base_model.classifier.bias".to_owned(), vec![2]),
            ("base_model.classifier.weight".to_owned(), vec![2, 16]),
            ("prompt_embeddings".to_owned(), shape.to_vec()),
        ];
        assert_eq!(saved(&workdir), expected, "{strategy}");
        let config = fs::read(workdir.path().join("run/adapter/adapter_config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!((&config["peft_type"], &config["num_virtual_tokens"]), (&kind.into(), &shape[0].into()));

        match python() {
            Some(python) => {
                let test = workdir.path().join("test.tsv");
                peft_agrees(&python, &workdir.path().join("model"), &workdir, "sentiment", &test);
            }
            None => skipped("FTHOST_PYTHON names no Python with peft"),
        }
    }
}

#[test]
fn a_prompt_or_prefix_that_peft_has_not_is_saved_whole() {
    // PEFT always pools the prompt's first row.
    let workdir = adapted("plugin = \"prompt\"\ntokens = 4\npool = \"first_token\"");
    assert_eq!(result_json(&workdir.path().join("run"))["saved"]["format"], "fthost");
    // With several strategies, what trained is saved, and not what PEFT would keep of it.
    let projected = "plugin = \"prefix\"\ntokens = 4\nprojection = true\nhidden = 8";
    let workdir = adapted(&format!("{projected}\n\n[[strategy]]\nplugin = \"prompt\"\ntokens = 2"));
    assert_eq!(result_json(&workdir.path().join("run"))["saved"]["format"], "fthost");
    let names: Vec<String> = saved(&workdir).into_iter().map(|(name, _)| name).collect();
    for name in [
        "base_model.model.bert.encoder.layer.1.attention.self.prefix.output.weight",
        "base_model.model.classifier.weight",
        "prefix.embedding.weight",
        "prompt_embeddings",
    ] {
        assert!(names.iter().any(|saved| saved == name), "{name} is not among {names:?}");
    }
}

#[test]
fn a_prefix_takes_positions() {
    let workdir = text_workdir();
    for (strategy, taken) in [
        ("plugin = \"prefix\"\ntokens = 22", 22),
        ("plugin = \"prompt\"\ntokens = 30", 24),
        (
            "plugin = \"prompt\"\ntokens = 10\n[[strategy]]\nplugin = \"prefix\"\ntokens = 12\nprojection = true\nhidden = 8",
            22,
        ),
    ] {
        workdir.write("run.toml", RUN.replace(LORA, strategy));
        let error = on_one_line(&workdir.fthost(["--config", "run.toml", "--out", "run"]).failed(2));
        let expected =
            format!("prompts and prefixes take {taken} of the model's 24 positions, which leaves no room for a text");
        assert!(error.contains(&expected), "{error}");
    }
}

/// The longest text is what prompts leave, in every file that the run and later commands read.
#[test]
fn texts_are_cut_to_what_prompts_leave() {
    let long = format!("{}\t1\n{}\t0\n", "the film was good ".repeat(20), "a bad movie ".repeat(20));
    for strategy in ["prompt", "prefix"] {
        for file in ["train.tsv", "test.tsv", "validation.tsv"] {
            let workdir = text_workdir();
            let run = RUN.replace(LORA, &format!("plugin = \"{strategy}\"\ntokens = 4"));
            workdir.write("run.toml", run.replace("test = ", "validation = \"validation.tsv\"\ntest = "));
            let rows = fs::read_to_string(workdir.path().join("test.tsv")).unwrap();
            workdir.write("validation.tsv", &rows);
            let rows = fs::read_to_string(workdir.path().join(file)).unwrap();
            workdir.write(file, format!("{long}{rows}"));
            let outcome = workdir.fthost(["run.toml", "--out", "run"]).succeeded();
            let said = on_one_line(&outcome.stderr);
            assert!(
                said.contains(&format!("{file}: texts of more than 20 tokens are cut: 2 of")),
                "{strategy}: {said}"
            );
            workdir.write("long.tsv", &long);
            let outcome = workdir.fthost(["predict", "run", "long.tsv"]).succeeded();
            assert_eq!(outcome.stdout.lines().count(), 3, "{strategy}: {}", outcome.stdout);
            workdir.fthost(["eval", "run", "long.tsv"]).succeeded();
        }
    }
}

#[test]
fn transformers_computes_the_same_with_adapters() {
    for strategy in [
        "kind = \"houlsby\"\nbottleneck = 4",
        "kind = \"pfeiffer\"\nreduction = 4",
        "kind = \"parallel\"\nactivation = \"tanh\"\nscale = 2.0",
    ] {
        let workdir = adapted(&format!("plugin = \"adapter\"\n{strategy}"));
        // Layer norms train with Houlsby's: two in each layer and one above the embeddings.
        let norms = saved(&workdir).iter().filter(|(name, _)| name.contains("LayerNorm")).count();
        assert_eq!(norms, if strategy.contains("houlsby") { 10 } else { 0 }, "{strategy}");
        let Some(python) = python() else {
            skipped("FTHOST_PYTHON names no Python with transformers");
            continue;
        };
        let theirs = transformers(&python, &workdir);
        let ours = &result_json(&workdir.path().join("run"))["tasks"]["sentiment"];
        assert_eq!(theirs["confusion"], ours["confusion"], "{strategy}: predictions differ");
        let (theirs, ours) = (theirs["loss"].as_f64().unwrap(), ours["metrics"]["loss"].as_f64().unwrap());
        assert!((theirs - ours).abs() < 1e-4, "{strategy}: mean loss {theirs} in Transformers, {ours} here");
    }
}

/// What Transformers computes with the adapters of a run.
fn transformers(python: &Path, workdir: &Workdir) -> Value {
    let run_file: toml::Table = fs::read_to_string(workdir.path().join("run/run.toml")).unwrap().parse().unwrap();
    let files = ["model", "run/adapter", "test.tsv"].map(|name| workdir.path().join(name).into_os_string());
    let strategy = serde_json::to_string(&run_file["strategy"][0]).unwrap();
    reference(python, "adapter_check.py", files.into_iter().chain([strategy.into()]))
}
