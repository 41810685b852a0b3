//! The files of a model folder that say how its inputs are made. They belong to the weights: whoever receives a saved folder splits a text
//! as it was split in training, or sees an image as the model did.

use std::path::Path;

use fthost_models::{FileTokenizer, Modality, ModelInfo, Stream, stream_folder};
use serde_json::{Map, Value, json};

use crate::run::file::ModelTable;
use crate::run::state::folder::{cannot_write, write_file_atomically, write_json};
use crate::{Error, Result};

/// What Hugging Face's tokenizers and image processors write, all that a folder may hold of them.
const FILES: [&str; 22] = [
    "added_tokens.json",
    "bpe.codes",
    TEMPLATE,
    "dict.txt",
    "emoji_tokenizer.json",
    "image_processor_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "special_tokens_map.json",
    "spiece.model",
    "spm.model",
    TOKENIZER_CONFIG,
    TOKENIZER,
    "tokenizer.model",
    "unigram.json",
    "video_preprocessor_config.json",
    "vocab.json",
    "vocab.txt",
    "vocab.model",
];
const TEMPLATE: &str = "chat_template.jinja";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Copies them from where a model was loaded to the folder that it is saved in, those of each stream to where it lies there.
///
/// # Errors
/// Where a file cannot be read or written.
pub fn copy(from: &ModelTable, to: &Path, info: &ModelInfo) -> Result<()> {
    info.streams.iter().try_for_each(|stream| {
        let (from, to) = (from.folder_of(&stream.name)?, stream_folder(to, &stream.name)?);
        copy_of_stream(&from, &to, stream)
    })
}

/// The same for one stream.
///
/// Where there is no tokenizer_config.json, one is written that has Transformers read tokenizer.json as it stands, as was done here: it
/// would take its own defaults for the architecture otherwise, which lower-case what a cased model reads.
///
/// # Errors
/// Where a file cannot be read or written.
pub fn copy_of_stream(from: &Path, to: &Path, stream: &Stream) -> Result<()> {
    for name in FILES {
        let (file, copy) = (from.join(name), to.join(name));
        if file.is_file() {
            write_file_atomically(&copy, |path| std::fs::copy(&file, path).map(drop).map_err(cannot_write(&copy)))?;
        }
    }
    let Modality::Text { max_tokens, .. } = stream.modality else { return Ok(()) };
    if !from.join(TOKENIZER).is_file()
        && let Some(found) = fthost_models::tokenizer(from)?
    {
        return write(&found, max_tokens, to);
    }
    if !from.join(TOKENIZER_CONFIG).is_file() {
        let (tokenizer, config) = (read(&from.join(TOKENIZER))?, read(&from.join("config.json"))?);
        // As Transformers' configs: BERT's has two types where its file does not say.
        let types = config["type_vocab_size"].as_u64().unwrap_or(if config["model_type"] == "bert" { 2 } else { 0 });
        write_json(&to.join(TOKENIZER_CONFIG), &as_it_stands(&tokenizer, max_tokens, types > 1))?;
    }
    Ok(())
}

/// Writes the tokenizer that was in one file with the weights.
fn write(found: &FileTokenizer, max_tokens: usize, to: &Path) -> Result<()> {
    write_json(&to.join(TOKENIZER), &found.json)?;
    let mut config = as_it_stands(&found.json, max_tokens, false);
    for (part, token) in &found.special {
        config[part] = json!(token);
    }
    write_json(&to.join(TOKENIZER_CONFIG), &config)?;
    match &found.template {
        Some(template) => {
            let file = to.join(TEMPLATE);
            write_file_atomically(&file, |path| std::fs::write(path, template).map_err(cannot_write(&file)))
        }
        None => Ok(()),
    }
}

fn read(file: &Path) -> Result<Value> {
    let unreadable = |error: &dyn std::fmt::Display| Error::run(format!("cannot read {}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| unreadable(&error))?;
    serde_json::from_str(&text).map_err(|error| unreadable(&error))
}

/// The tokenizer_config.json with which Transformers reads a tokenizer.json as it stands. `types`: whether the model tells the texts of
/// a pair apart.
fn as_it_stands(tokenizer: &Value, max_tokens: usize, types: bool) -> Value {
    // Parts that special tokens have, under the names that BERT's and RoBERTa's tokenizers give them.
    let parts: [(&str, [&str; 2]); 7] = [
        ("bos_token", ["", "<s>"]),
        ("cls_token", ["[CLS]", "<s>"]),
        ("eos_token", ["", "</s>"]),
        ("mask_token", ["[MASK]", "<mask>"]),
        ("pad_token", ["[PAD]", "<pad>"]),
        ("sep_token", ["[SEP]", "</s>"]),
        ("unk_token", ["[UNK]", "<unk>"]),
    ];
    let added: Vec<&str> = tokenizer["added_tokens"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|token| token["special"] == true)
        .filter_map(|token| token["content"].as_str())
        .collect();
    let named = parts.iter().filter_map(|(part, names)| Some((part, added.iter().find(|name| names.contains(name))?)));
    let mut config: Map<String, Value> = named.map(|(part, name)| ((*part).to_owned(), json!(name))).collect();
    let types = types.then_some("token_type_ids");
    let inputs: Vec<&str> = ["input_ids"].into_iter().chain(types).chain(["attention_mask"]).collect();
    config.insert("model_input_names".into(), json!(inputs));
    config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    config.insert("model_max_length".into(), max_tokens.into());
    config.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_by_what_bert_and_roberta_call_them() {
        let tokens = |names: &[&str]| -> Value {
            let one = |name: &&str| json!({ "content": name, "special": true });
            json!({ "added_tokens": names.iter().map(one).collect::<Vec<_>>() })
        };
        let check = |names: &[&str], types: bool, expected: Value| {
            assert_eq!(as_it_stands(&tokens(names), 512, types), expected);
        };
        check(
            &["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
            true,
            json!({
                "cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]",
                "model_input_names": ["input_ids", "token_type_ids", "attention_mask"], "model_max_length": 512,
                "tokenizer_class": "PreTrainedTokenizerFast",
            }),
        );
        check(
            &["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            false,
            json!({
                "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>", "pad_token": "<pad>",
                "sep_token": "</s>", "unk_token": "<unk>", "model_input_names": ["input_ids", "attention_mask"],
                "model_max_length": 512, "tokenizer_class": "PreTrainedTokenizerFast",
            }),
        );
    }
}
