//! What plugins hand over: each result that cannot be right is an error that names plugin, call and place, and no result is left.

use std::fs;

use fthost_tests::{Outcome, Workdir, on_one_line, result_json};
use serde_json::Value;

use crate::text::{LORA, RUN, text_workdir};

/// Runs [`RUN`] with some of its text replaced.
fn run(workdir: &Workdir, changes: &[(&str, &str)], more: &[&str]) -> Outcome {
    let mut file = RUN.to_owned();
    for (old, new) in changes {
        assert!(file.contains(old), "{old:?} is not in the run file");
        file = file.replace(old, new);
    }
    workdir.write("run.toml", file);
    // The library lies beside the host, which finds its methods by the notes.
    workdir.fthost(["run.toml", "--out", "run"].iter().chain(more))
}

/// The error of such a run.
#[track_caller]
fn error(changes: &[(&str, &str)], code: i32) -> String {
    let workdir = text_workdir();
    let said = on_one_line(&run(&workdir, changes, &[]).failed(code));
    assert!(!said.contains("the host panicked"), "{said}");
    assert!(!workdir.path().join("run/result.json").exists(), "a result was left: {said}");
    said
}

#[track_caller]
fn strategy(gives: &str, code: i32, parts: &[&str]) {
    let said = error(&[(LORA, &format!("plugin = \"gives\"\ngives = \"{gives}\""))], code);
    assert!(said.contains("plugin gives (libmisbehaving.so) failed in"), "{said}");
    parts.iter().for_each(|part| assert!(said.contains(part), "{part:?} is not in {said}"));
}

#[test]
fn hooks() {
    let query = "in its linear hook at encoder.layer.0.attention.self.query: ";
    strategy("wide_output", 1, &[query, "it gave f64 elements where f32 ones are needed: cast them"]);
    strategy("index_output", 1, &["in its block hook at ", "it gave u32 elements where f32 ones are needed"]);
    strategy("prompt_width", 1, &["in its embedding hook at ", "the rows before a sequence are [rows, 16]"]);
    strategy("prefix", 1, &["in its attention hook at ", "a prefix has keys [2, 16] and values [1, 16]"]);
    strategy("shift", 2, &["position_shift at ", "it shifts positions by 18446744073709551615"]);
}

#[test]
fn parameters_and_values() {
    let memory = ["in attach: ", "cannot make the parameter vast", "it would take "];
    strategy("parameter", 2, &memory);
    strategy("overflow", 2, &memory);
    strategy("start", 2, &["in attach: ", "cannot make the parameter odd [1]", "numbers that are not finite"]);
    strategy("value", 2, &["the value of encoder.layer.0.attention.self.query.bias has numbers that are not finite"]);
    strategy("pixels", 2, &["in attach: ", "upsample_nearest2d@1 on [1, 1]: it would take "]);
}

#[test]
fn what_is_saved() {
    strategy("fields", 1, &["in adapter_config: ", "an object with a peft_type, and it gave [\"LORA\"]"]);
    strategy("tensors", 1, &["in adapter_tensors: ", "its tensor \"odd\": it has numbers that are not finite"]);
}

#[track_caller]
fn head(answers: &str, call: &str, parts: &[&str]) {
    let plugin = format!("{{ plugin = \"answers\", answers = \"{answers}\" }}");
    let said = error(&[("{ plugin = \"classification\" }", &plugin)], 1);
    let named = format!("plugin answers (libmisbehaving.so) failed in {call}: ");
    assert!(said.contains(&named), "{answers}: {named:?} is not in {said}");
    parts.iter().for_each(|part| assert!(said.contains(part), "{answers}: {part:?} is not in {said}"));
}

#[test]
fn outputs_and_losses() {
    head("outputs_twice", "forward", &["outputs of ", " examples are [", ", ...], and it gave shape ["]);
    head("index_logits", "forward", &["it gave u32 elements where floats are needed: cast them"]);
    head("losses", "loss", &["a loss must be a scalar, and this has shape ["]);
    head("weight_infinite", "loss", &["the weight of the loss must be a number from 0 up, not inf"]);
}

#[test]
fn predictions() {
    for answers in ["twice", "transposed"] {
        head(answers, "predict", &["probabilities of rows and classes are [", ", 2], and it gave shape ["]);
    }
    head("nan", "predict", &["of finite numbers it made NaN"]);
    head("indices", "predict", &["it gave u32 elements where floats are needed: cast them"]);
    head("logits", "predict", &["probabilities lie in [0, 1], and it gave "]);
}

#[test]
fn a_loss_that_is_never_weighed() {
    let said = error(&[("{ plugin = \"classification\" }", "{ plugin = \"answers\", answers = \"weight_zero\" }")], 1);
    let expected = "no example has counted in the loss of any of the 4 steps: plugin answers (libmisbehaving.so) gives each loss the \
                    weight 0";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn schedules() {
    let schedule = |of: &str| {
        let all = format!("{LORA}\n\n[schedule]\nplugin = \"answer\"\n{of}");
        let said = error(&[(LORA, &all)], 2);
        assert!(said.contains("plugin answer (libmisbehaving.so) failed in rate: step 0 would have "), "{said}");
        said
    };
    let said = schedule("momentum = 2.0");
    assert!(said.contains("learning rate 0.001 and momentum 2: a momentum lies in [0, 1)"), "{said}");
    assert!(schedule("momentum = -0.1").contains("a momentum lies in [0, 1)"));
    assert!(schedule("lr = -1.0").contains("a learning rate is a number from 0 up"));
}

#[test]
fn penalties() {
    let penalty = |gives: &str| {
        let all = format!("{LORA}\n\n[[regularizer]]\nplugin = \"penalty\"\ngives = \"{gives}\"");
        error(&[(LORA, &all)], 1)
    };
    let named = "plugin penalty (libmisbehaving.so)";
    let said = penalty("nan");
    let expected = format!("the penalty is NaN at step 1: the penalty of {named} is NaN");
    assert!(said.contains(&expected) && said.contains("tell the plugin's author"), "{said}");
    assert!(!said.contains("train.lr"), "no rate would help: {said}");
    let said = penalty("steep");
    assert!(said.contains(&format!("at step 1: the gradient of the penalty of {named} is not finite")), "{said}");
    assert!(penalty("many").contains(&format!("{named} failed in penalty: a penalty must be a scalar")));
    assert!(penalty("index").contains(&format!("{named} failed in penalty: it gave u32 elements")));
}

#[test]
fn a_loss_that_is_no_number_names_who_made_it() {
    let said = error(&[("{ plugin = \"classification\" }", "{ plugin = \"answers\", answers = \"loss_nan\" }")], 1);
    let expected =
        "the loss is NaN at step 1: plugin answers (libmisbehaving.so) failed in loss: of finite numbers it made NaN";
    assert!(said.contains(expected), "{said}");
    // A rate that no model stands is no plugin's fault.
    let said = error(&[("lr = 0.01", "lr = 1e38")], 1);
    assert!(said.contains("lower train.lr"), "{said}");
}

/// A gradient that stops is said at the next evaluation, and ends the run once chance cannot be why.
#[test]
fn a_gradient_that_stops_is_noticed() {
    let gives = [(LORA, "plugin = \"gives\"\ngives = \"stops\"")];
    let workdir = text_workdir();
    let said = on_one_line(&run(&workdir, &gives, &[]).succeeded().stderr);
    let expected =
        "no gradient has reached these trainable parameters since step 2: encoder.layer.0.attention.self.query.scale";
    assert!(said.contains(expected), "{said}");
    let workdir = text_workdir();
    let said = on_one_line(&run(&workdir, &gives, &["--set", "train.epochs=6"]).failed(1));
    assert!(said.contains(expected) && said.contains("the loss does not depend on them any more"), "{said}");
}

/// What a head of a third party is saved as opens again: the adapter, the whole model, and what is merged.
#[test]
fn heads_of_others_are_saved_as_what_opens_again() {
    let apart = ("{ plugin = \"classification\" }", "{ plugin = \"apart\", width = 5 }");
    for (strategy, saved, format) in [(LORA, "run/adapter", "fthost"), ("plugin = \"full\"", "run/model", "encoder")] {
        let workdir = text_workdir();
        run(&workdir, &[apart, (LORA, strategy)], &[]).succeeded();
        let result = result_json(&workdir.path().join("run"));
        assert_eq!(result["saved"]["format"], format, "{}", result["saved"]);
        let expected = rows(&workdir, "run", &[]);
        assert_eq!(expected.len(), 16);

        // Without the run, the plugin is found by the file that is named there; from another folder too.
        workdir.fthost(["merge", "run", "merged"]).succeeded();
        for folder in [saved, "merged"] {
            let copy = workdir.path().join("given-away");
            copied(&workdir.path().join(folder), &copy);
            assert!(!said_by(&copy, "config.json").contains("ForSequenceClassification"), "{folder}");
            assert!(!said_by(&copy, "adapter_config.json").contains("SEQ_CLS"), "{folder}");
            close(&expected, &rows(&workdir, "given-away", &[]), folder);
            let found = workdir.fthost(["eval", "given-away", "test.tsv", "--json"]).succeeded().stdout;
            let found: Value = serde_json::from_str(&found).unwrap();
            let accuracy = |of: &Value| of["tasks"]["sentiment"]["metrics"]["accuracy"].clone();
            assert_eq!(accuracy(&found), accuracy(&result), "{folder}");
            // What was opened is merged as what was trained.
            workdir.fthost(["merge", "given-away", "again"]).succeeded();
            close(&expected, &rows(&workdir, "again", &[]), folder);
            fs::remove_dir_all(workdir.path().join("again")).unwrap();
            fs::remove_dir_all(&copy).unwrap();
        }
        // A damaged one says what is missing.
        let weights = workdir.path().join(saved).join(if format == "fthost" {
            "adapter_model.safetensors"
        } else {
            "model.safetensors"
        });
        fs::remove_file(weights).unwrap();
        workdir.fthost(["eval", saved, "test.tsv"]).failed(2);
    }
}

/// Probabilities of the test examples, by a folder.
fn rows(workdir: &Workdir, folder: &str, more: &[&str]) -> Vec<Value> {
    let arguments = ["predict", folder, "test.tsv", "--format", "jsonl", "--probabilities"];
    let printed = workdir.fthost(arguments.iter().chain(more)).succeeded().stdout;
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn close(expected: &[Value], found: &[Value], of: &str) {
    assert_eq!(expected.len(), found.len(), "{of}");
    for (expected, found) in expected.iter().zip(found) {
        for (class, p) in expected["probabilities"].as_object().unwrap() {
            let other = found["probabilities"][class].as_f64().unwrap();
            assert!((p.as_f64().unwrap() - other).abs() < 1e-4, "{of}: {expected} beside {found}");
        }
    }
}

fn copied(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let into = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copied(&entry.path(), &into),
            false => assert!(fs::copy(entry.path(), into).is_ok()),
        }
    }
}

/// A file's text; empty where it is not there.
fn said_by(folder: &std::path::Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_default()
}
