//! What a model folder says beside its tokenizer.json of how texts are read, as Transformers' AutoTokenizer takes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, TruncationDirection};

use crate::data::row::{data_error, list};
use crate::{Error, Result};

/// The file with the settings.
pub const FILE: &str = "tokenizer_config.json";

/// The file of the template of chats.
const TEMPLATE: &str = "chat_template.jinja";

/// Classes that make BERT's normalizer of the settings, whatever tokenizer.json has.
const BERT_LIKE: [&str; 4] = ["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer"];
/// Classes that do not read the settings of BERT's normalizer.
const OTHERS: [&str; 4] = ["PreTrainedTokenizerFast", "RobertaTokenizer", "TokenizersBackend", "XLMRobertaTokenizer"];
/// Classes that leave out token types.
const WITHOUT_TYPES: [&str; 3] = ["DistilBertTokenizer", "RobertaTokenizer", "XLMRobertaTokenizer"];
/// The settings of BERT's normalizer.
const NORMALIZER: [&str; 3] = ["do_lower_case", "strip_accents", "tokenize_chinese_chars"];
const TYPES: &str = "token_type_ids";
const INPUTS: [&str; 3] = ["input_ids", TYPES, "attention_mask"];

/// The settings of a model folder.
#[derive(Debug)]
pub(super) struct Settings {
    file: PathBuf,
    /// What stands in tokenizer_config.json, where there is one.
    values: Option<Map<String, Value>>,
    /// The class that Transformers takes, without `Fast` at its end.
    class: String,
}

impl Settings {
    /// Those of a folder.
    ///
    /// # Errors
    /// Where tokenizer_config.json is there and cannot be read.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let file = folder.join(FILE);
        let values: Option<Map<String, Value>> = match std::fs::read(&file) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|error| {
                data_error(&file, None, format!("cannot be read: {error}"))
                    .with_help("save it with the model from Python: save_pretrained(FOLDER)")
            })?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io(format!("cannot read {}", file.display()))(error)),
        };
        // A broken config.json is the model's to refuse.
        let config: Value = std::fs::read(folder.join("config.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let named = values.as_ref().and_then(|values| values.get("tokenizer_class")).or(config.get("tokenizer_class"));
        let class = named.and_then(Value::as_str).unwrap_or_else(|| match config["model_type"].as_str() {
            Some("bert" | "distilbert") => "BertTokenizer",
            Some("roberta") => "RobertaTokenizer",
            Some("xlm-roberta") => "XLMRobertaTokenizer",
            _ => "",
        });
        let class = match class {
            "PreTrainedTokenizerFast" => class,
            class => class.strip_suffix("Fast").unwrap_or(class),
        };
        Ok(Self { class: class.to_owned(), file, values })
    }

    /// The file that they stand in.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.values.as_ref()?.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, message: String, help: &str) -> Error {
        data_error(&self.file, None, message).with_help(help)
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => {
                Err(self.wrong(format!("{key} is {other}; it must be true or false"), "correct it, or take it out"))
            }
        }
    }

    /// The tokens that have a part of their own, by the names of these.
    pub(super) fn special(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().or(value.get("content").and_then(Value::as_str)).map(str::to_owned);
        let all = self.values.iter().flatten().filter(|(name, _)| name.ends_with("_token"));
        all.filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect()
    }

    /// The template of chats, from a file of its own or from tokenizer_config.json, and the file that it stands in. Of several the one that
    /// is called `default`.
    ///
    /// # Errors
    /// Where it is there and cannot be read.
    pub(super) fn template(&self, folder: &Path) -> Result<Option<(String, PathBuf)>> {
        let own = folder.join(TEMPLATE);
        if own.is_file() {
            let text = std::fs::read_to_string(&own).map_err(Error::io(format!("cannot read {}", own.display())))?;
            return Ok(Some((text, own)));
        }
        let text = match self.get("chat_template") {
            None => return Ok(None),
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Array(several)) => {
                let default = several.iter().find(|one| one.get("name").and_then(Value::as_str) == Some("default"));
                default.and_then(|one| one.get("template")?.as_str()).map(str::to_owned)
            }
            Some(_) => None,
        };
        match text {
            Some(text) => Ok(Some((text, self.file.clone()))),
            None => Err(self.wrong(
                "chat_template is no text, and no list with one called default".into(),
                "correct it, or take it out",
            )),
        }
    }

    /// Gives the tokenizer the normalizer and the first space that they ask for.
    ///
    /// # Errors
    /// Where they ask for what is not known to be meant of this tokenizer.
    pub(super) fn apply(&self, tokenizer: &mut tokenizers::Tokenizer) -> Result<()> {
        self.apply_normalizer(tokenizer)?;
        let stated = self.flag("add_prefix_space")?;
        if let (Some(PreTokenizerWrapper::ByteLevel(bytes)), "RobertaTokenizer", Some(space)) =
            (tokenizer.get_pre_tokenizer(), self.class.as_str(), stated)
        {
            let bytes = bytes.add_prefix_space(space);
            tokenizer.with_pre_tokenizer(Some(bytes));
        }
        Ok(())
    }

    fn apply_normalizer(&self, tokenizer: &mut tokenizers::Tokenizer) -> Result<()> {
        if OTHERS.contains(&self.class.as_str()) {
            return Ok(());
        }
        let bert_like = BERT_LIKE.contains(&self.class.as_str());
        let stated: Vec<&str> = NORMALIZER.into_iter().filter(|key| self.get(key).is_some()).collect();
        let Some(NormalizerWrapper::BertNormalizer(own)) = tokenizer.get_normalizer() else {
            return if stated.is_empty() {
                Ok(())
            } else {
                let message = format!("sets {}, and the normalizer of tokenizer.json is none of BERT's", list(stated));
                Err(self.wrong(message, "versions of Transformers read this in different ways: take them out, and let tokenizer.json say it"))
            };
        };
        let own = *own;
        // What is not set has the class's default.
        let mut wanted = own;
        wanted.lowercase = self.flag("do_lower_case")?.unwrap_or(true);
        wanted.strip_accents = self.flag("strip_accents")?;
        wanted.handle_chinese_chars = self.flag("tokenize_chinese_chars")?.unwrap_or(true);
        let as_wanted = (own.lowercase, own.strip_accents, own.handle_chinese_chars)
            == (wanted.lowercase, wanted.strip_accents, wanted.handle_chinese_chars);
        if as_wanted {
            return Ok(());
        }
        if self.values.is_none() {
            if bert_like {
                tracing::warn!(
                    "{} is not there: tokenizer.json says how letters are read, and Transformers' AutoTokenizer would lower them and \
                     strip accents as for an uncased BERT",
                    self.file.display()
                );
            }
            return Ok(());
        }
        if bert_like {
            let failed = |error: tokenizers::Error| {
                self.wrong(
                    format!("its normalizer does not go with tokenizer.json: {error}"),
                    "save both anew from Python",
                )
            };
            tokenizer.with_normalizer(Some(wanted)).map_err(failed)?;
            return Ok(());
        }
        if stated.is_empty() {
            return Ok(());
        }
        let message = format!(
            "sets {} against tokenizer.json, for the class {:?}, of which it is not known how it reads them",
            list(stated),
            self.class
        );
        Err(self.wrong(message, "take them out, and let tokenizer.json say it"))
    }

    /// The longest length, special tokens included, where one is set.
    ///
    /// # Errors
    /// Where it is no length.
    pub(super) fn longest(&self) -> Result<Option<usize>> {
        let Some(value) = self.get("model_max_length") else { return Ok(None) };
        match value.as_f64() {
            // What Transformers writes where there is none is 1e30.
            Some(length) if length >= 1.0 => Ok(Some(length as usize)),
            _ => Err(self.wrong(
                format!("model_max_length is {value}; it must be a number of tokens"),
                "correct it, or take it out",
            )),
        }
    }

    /// The side where texts are cut.
    ///
    /// # Errors
    /// Where it is none.
    pub(super) fn side(&self, tokenizer: &tokenizers::Tokenizer) -> Result<TruncationDirection> {
        match self.get("truncation_side").map(|side| (side.as_str(), side)) {
            None => {
                Ok(tokenizer.get_truncation().map_or(TruncationDirection::Right, |truncation| truncation.direction))
            }
            Some((Some("right"), _)) => Ok(TruncationDirection::Right),
            Some((Some("left"), _)) => Ok(TruncationDirection::Left),
            Some((_, side)) => Err(self.wrong(
                format!("truncation_side is {side}; it must be \"left\" or \"right\""),
                "correct it, or take it out",
            )),
        }
    }

    /// Whether the model is told which text of a pair a token belongs to.
    ///
    /// # Errors
    /// Where the model is to be given what a text does not give.
    pub(super) fn token_types(&self) -> Result<bool> {
        let Some(names) = self.get("model_input_names") else {
            return Ok(!WITHOUT_TYPES.contains(&self.class.as_str()));
        };
        let names: Vec<&str> =
            names.as_array().into_iter().flatten().map(|name| name.as_str().unwrap_or("?")).collect();
        if let Some(name) = names.iter().find(|name| !INPUTS.contains(name)) {
            let message = format!("model_input_names has {name:?}, and a text gives {}", list(INPUTS));
            return Err(self.wrong(message, "take it out, or choose another model"));
        }
        if !names.contains(&INPUTS[0]) {
            return Err(self.wrong(
                "model_input_names lacks \"input_ids\", and a model of text takes nothing else".into(),
                "add it, or take model_input_names out",
            ));
        }
        Ok(names.contains(&TYPES))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
    use std::process::Command;

    use serde_json::json;

    use super::super::Tokenizer;
    use super::*;

    /// Writes the model folder of a case, as far as tokenizers look at it.
    fn write(folder: &Path, reference: &Path, case: &Value) {
        let mut tokenizer = case["tokenizer"].clone();
        if tokenizer.is_null() {
            tokenizer =
                serde_json::from_slice(&std::fs::read(reference.join("tiny/bert/tokenizer.json")).unwrap()).unwrap();
        }
        for (key, value) in case["normalizer"].as_object().into_iter().flatten() {
            tokenizer["normalizer"][key] = value.clone();
        }
        std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        std::fs::write(folder.join("config.json"), json!({ "model_type": case["model_type"] }).to_string()).unwrap();
        if !case["settings"].is_null() {
            std::fs::write(folder.join(FILE), case["settings"].to_string()).unwrap();
        }
    }

    /// Those that are stored, and where there is a Python with Transformers, those that it gives now.
    #[test]
    fn token_ids_are_those_of_transformers() {
        let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference");
        let stored = std::fs::read(reference.join("tokenizer_settings.json")).unwrap();
        let cases: Value = serde_json::from_slice(&stored).unwrap();
        for (name, case) in cases.as_object().unwrap() {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), &reference, case);
            let longest = case["longest"].as_u64().unwrap_or(512) as usize;
            let tokenizer = Tokenizer::load(&folder.path().join("tokenizer.json"), longest).unwrap();
            for row in case["rows"].as_array().unwrap() {
                let text = (row["text"].as_str().unwrap(), row["pair"].as_str());
                let tokens = tokenizer.encode(&[text]).unwrap().remove(0);
                assert_eq!(json!([tokens.ids, tokens.types]), json!([row["ids"], row["types"]]), "{name}: {row}");
            }
        }
        let Some(python) = std::env::var_os("FTHOST_PYTHON") else {
            println!("skipped: FTHOST_PYTHON names no Python with transformers");
            return;
        };
        let script = reference.join("make_tokenizer_settings.py");
        let output = Command::new(python).arg(script).arg("-").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        let now: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
        assert_eq!(now, cases, "tests/reference/tokenizer_settings.json is old");
    }
}
