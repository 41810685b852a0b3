//! How a stream makes one row of an example, and what a folder says of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::LoadError;

/// What is taken of an example's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolBy {
    /// The first row.
    #[serde(rename = "cls")]
    First,
    /// The first row, through the architecture's dense layer and tanh.
    Pooler,
    /// The mean over all rows; of an image over its patches, without the class token.
    Mean,
    /// The greatest of all rows, column by column.
    Max,
    /// The last row.
    Last,
    /// The row of the token that ends a text by the architecture's word, as CLIP's.
    End,
}

impl fmt::Display for PoolBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "cls",
            Self::Pooler => "pooler",
            Self::Mean => "mean",
            Self::Max => "max",
            Self::Last => "last",
            Self::End => "end",
        })
    }
}

/// How examples are pooled. Rows are those of the example itself, special tokens included; prompts are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// What is taken.
    pub by: PoolBy,
    /// Whether the result is divided by its length.
    pub normalize: bool,
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.by, if self.normalize { ", normalised" } else { "" })
    }
}

/// The list of a sentence-transformers model's parts.
pub const MODULES: &str = "modules.json";
const CONFIG: &str = "config.json";

/// One part of a sentence-transformers model.
#[derive(Debug, Deserialize)]
pub struct Module {
    /// Folder below the model's.
    pub path: String,
    /// Its Python class: `sentence_transformers.models.Pooling`.
    #[serde(rename = "type")]
    class: String,
}

impl Module {
    /// The parts that a folder lists, in order; `None` where it is no model of sentence-transformers.
    ///
    /// # Errors
    /// Where the list does not read.
    pub fn list(folder: &Path) -> Result<Option<Vec<Self>>, LoadError> {
        let file = folder.join(MODULES);
        if file.is_file() { read(&file).map(Some) } else { Ok(None) }
    }

    /// The class without where it stands, which changes with versions: `Pooling`.
    pub fn class(&self) -> &str {
        self.class.rsplit('.').next().unwrap_or_default()
    }
}

impl Pooling {
    /// What a folder says, where it is a model of sentence-transformers.
    ///
    /// # Errors
    /// Where it pools in a way that is not computed here.
    pub fn of_folder(folder: &Path) -> Result<Option<Self>, LoadError> {
        let Some(modules) = Module::list(folder)? else { return Ok(None) };
        let Some(pooling) = modules.iter().find(|module| module.class() == "Pooling") else { return Ok(None) };
        let file = folder.join(&pooling.path).join(CONFIG);
        let config: Config = read(&file)?;
        let modes = config.modes();
        let by = match modes.as_slice() {
            ["mean"] => PoolBy::Mean,
            ["cls"] => PoolBy::First,
            ["max"] => PoolBy::Max,
            ["lasttoken"] => PoolBy::Last,
            other => {
                let (key, value) = ("pooling_mode", other.join(" and "));
                let why =
                    "is not computed here; say which of cls, pooler, mean, max and last takes its place: model.pooling";
                return Err(LoadError::Setting { file, key, value, why: why.into() });
            }
        };
        // What stands behind a dense layer is done to its outputs, and not to features.
        let mut of_features = modules.iter().take_while(|module| module.class() != "Dense");
        Ok(Some(Self { by, normalize: of_features.any(|module| module.class() == "Normalize") }))
    }
}

/// A pooling's config.json: newer versions name modes, older ones have a flag for each.
#[derive(Deserialize)]
struct Config {
    pooling_mode: Option<Modes>,
    #[serde(flatten)]
    flags: BTreeMap<String, Json>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Modes {
    One(String),
    Several(Vec<String>),
}

/// The flags of older versions, and what newer ones call them.
const FLAGS: [(&str, &str); 6] = [
    ("pooling_mode_cls_token", "cls"),
    ("pooling_mode_max_tokens", "max"),
    ("pooling_mode_mean_tokens", "mean"),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("pooling_mode_weightedmean_tokens", "weightedmean"),
    ("pooling_mode_lasttoken", "lasttoken"),
];

impl Config {
    /// Modes whose results stand beside each other.
    fn modes(&self) -> Vec<&str> {
        match &self.pooling_mode {
            Some(Modes::One(mode)) => vec![mode],
            Some(Modes::Several(modes)) => modes.iter().map(String::as_str).collect(),
            None => {
                let set = |flag: &str| self.flags.get(flag).is_some_and(|value| value == true);
                let modes: Vec<&str> = FLAGS.iter().filter(|(flag, _)| set(flag)).map(|(_, mode)| *mode).collect();
                if modes.is_empty() { vec!["mean"] } else { modes }
            }
        }
    }
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<T, LoadError> {
    let text = std::fs::read_to_string(file).map_err(|source| LoadError::Read { file: file.into(), source })?;
    serde_json::from_str(&text).map_err(|source| LoadError::Config { file: file.into(), source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    fn folder(modules: &[&str], pooling: Json) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let modules: Vec<Json> = modules.iter().map(|class| json!({ "path": "1_Pooling", "type": class })).collect();
        std::fs::write(folder.path().join(MODULES), json!(modules).to_string()).unwrap();
        std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        std::fs::write(folder.path().join("1_Pooling").join(CONFIG), pooling.to_string()).unwrap();
        folder
    }

    #[test]
    fn old_and_new_forms_are_read() {
        let old = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"];
        let new = "sentence_transformers.sentence_transformer.modules.pooling.Pooling";
        let of = |modules: &[&str], pooling: Json| Pooling::of_folder(folder(modules, pooling).path());
        let pooling = |by, normalize| Some(Pooling { by, normalize });
        let flags =
            json!({ "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true, "word_embedding_dimension": 4 });
        assert_eq!(of(&old, flags).unwrap(), pooling(PoolBy::Mean, false));
        assert_eq!(of(&old, json!({ "pooling_mode_cls_token": true })).unwrap(), pooling(PoolBy::First, false));
        let with_norm = [new, "sentence_transformers.base.modules.normalize.Normalize"];
        assert_eq!(of(&with_norm, json!({ "pooling_mode": "max" })).unwrap(), pooling(PoolBy::Max, true));
        let of_dense = [new, "sentence_transformers.models.Dense", "sentence_transformers.models.Normalize"];
        assert_eq!(of(&of_dense, json!({ "pooling_mode": "max" })).unwrap(), pooling(PoolBy::Max, false));
        assert_eq!(of(&[new], json!({ "pooling_mode": ["lasttoken"] })).unwrap(), pooling(PoolBy::Last, false));
        assert_eq!(of(&[new], json!({})).unwrap(), pooling(PoolBy::Mean, false));
        assert_eq!(of(&old[..1], json!({})).unwrap(), None);
        assert_eq!(Pooling::of_folder(tempfile::tempdir().unwrap().path()).unwrap(), None);

        let error = of(&[new], json!({ "pooling_mode": ["mean", "max"] })).unwrap_err().to_string();
        assert!(error.contains("pooling_mode = mean and max is not computed here"), "{error}");
    }
}
