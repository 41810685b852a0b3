//! What a model folder's tokenizer_config.json changes in runs, and what of it is refused.

use std::fs;

use fthost_tests::{on_one_line, result_json, root};
use serde_json::{Value, json};

use crate::text::{RUN, text_workdir};

fn tiny_tokenizer() -> Value {
    serde_json::from_slice(&fs::read(root().join("tests/reference/tiny/bert/tokenizer.json")).unwrap()).unwrap()
}

/// What is not understood is said before training, with its name.
#[test]
fn settings_that_cannot_be_kept_are_refused() {
    let plain = json!({ "type": "Lowercase" });
    for (settings, normalizer, expected) in [
        (
            json!({ "truncation_side": "middle" }),
            None,
            "truncation_side is \"middle\"; it must be \"left\" or \"right\"",
        ),
        (json!({ "do_lower_case": "yes" }), None, "do_lower_case is \"yes\"; it must be true or false"),
        (json!({ "model_max_length": "long" }), None, "model_max_length is \"long\"; it must be a number of tokens"),
        (
            json!({ "model_max_length": 3 }),
            None,
            "model_max_length is 3, and the tokenizer alone adds up to 3 special tokens",
        ),
        (json!({ "model_input_names": ["input_ids", "bbox"] }), None, "model_input_names has \"bbox\""),
        (json!({ "model_input_names": ["attention_mask"] }), None, "model_input_names lacks \"input_ids\""),
        (
            json!({ "do_lower_case": false }),
            Some(plain),
            "sets `do_lower_case`, and the normalizer of tokenizer.json is none of BERT's",
        ),
        (
            json!({ "tokenizer_class": "OwnTokenizer", "do_lower_case": false }),
            None,
            "sets `do_lower_case` against tokenizer.json, for the class \"OwnTokenizer\"",
        ),
    ] {
        let workdir = text_workdir();
        workdir.write("model/tokenizer_config.json", settings.to_string());
        if let Some(normalizer) = normalizer {
            let mut tokenizer = tiny_tokenizer();
            tokenizer["normalizer"] = normalizer;
            workdir.write("model/tokenizer.json", tokenizer.to_string());
        }
        let error = on_one_line(&workdir.fthost(["run.toml", "--out", "run"]).failed(2));
        assert!(error.contains(&format!("model/tokenizer_config.json: {expected}")), "{error}");
        assert!(!workdir.path().join("run").exists());
    }
}

/// The settings reach a run: how long texts are, and that a run with others is another run.
#[test]
fn a_run_reads_texts_as_the_folder_says() {
    let workdir = text_workdir();
    workdir.write("model/tokenizer_config.json", json!({ "model_max_length": 5 }).to_string());
    let outcome = workdir.fthost(["run.toml", "--out", "run"]).succeeded();
    assert!(on_one_line(&outcome.stderr).contains("texts of more than 5 tokens are cut"), "{}", outcome.stderr);
    assert!(result_json(&workdir.path().join("run"))["plan"]["truncated"].as_u64().unwrap() > 0);
    workdir.write("model/tokenizer_config.json", json!({ "model_max_length": 6 }).to_string());
    let error = on_one_line(&workdir.fthost(["--resume", "--out", "run"]).failed(2));
    assert!(error.contains("the contents of tokenizer_config.json"), "{error}");
}

/// A cased folder without the file is read by its tokenizer.json, and that AutoTokenizer would not is said.
#[test]
fn a_cased_tokenizer_alone_is_kept_and_said() {
    let workdir = text_workdir();
    let mut tokenizer = tiny_tokenizer();
    tokenizer["normalizer"]["lowercase"] = false.into();
    workdir.write("model/tokenizer.json", tokenizer.to_string());
    let outcome = workdir.fthost(["run.toml", "--out", "run"]).succeeded();
    let said = on_one_line(&outcome.stderr);
    assert!(said.contains("tokenizer_config.json is not there: tokenizer.json says how letters are read"), "{said}");
}

/// RoBERTa has one row of token types: the second text of a pair has the same.
#[test]
fn a_model_with_one_token_type_takes_pairs() {
    let workdir = text_workdir();
    for file in ["config.json", "model.safetensors"] {
        workdir
            .write(&format!("model/{file}"), fs::read(root().join("tests/reference/tiny/roberta").join(file)).unwrap());
    }
    // A tokenizer that marks second texts, and says so.
    let settings = json!({ "tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids", "token_type_ids"] });
    workdir.write("model/tokenizer_config.json", settings.to_string());
    let rows = |words: [&str; 2]| words.map(|word| format!("the film\twas {word}\t{word}\n")).concat().repeat(8);
    workdir.write("train.tsv", format!("text\ttext_pair\tlabel\n{}", rows(["good", "bad"])));
    workdir.write("test.tsv", format!("text\ttext_pair\tlabel\n{}", rows(["bad", "good"])));
    workdir.write("run.toml", RUN);
    workdir.fthost(["run.toml", "--out", "run"]).succeeded();
}
