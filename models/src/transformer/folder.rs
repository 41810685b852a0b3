//! Model folders as Hugging Face writes them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value as Json, json};

use super::architecture::Architecture;
use super::config::Config;
use super::encoder::Encoder;
use crate::builder::Origin;
use crate::weights::{SINGLE_FILE, Weights};
use crate::{Answer, LoadError, Model, Read, SavedHead};

const CONFIG_FILE: &str = "config.json";

/// What config.json says of a head, of how the weights are kept and of where they came from: true of the folder that was loaded, not
/// of one that is saved.
const OF_ANOTHER_FOLDER: [&str; 14] = [
    "_name_or_path",
    "_num_labels",
    "architectures",
    "auto_map",
    "custom_pipelines",
    "dtype",
    "finetuning_task",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "quantization_config",
    "task_specific_params",
    "torch_dtype",
];

impl Encoder {
    /// Loads a folder: config.json, and model.safetensors or its shards.
    pub fn open(folder: &Path, device: &Device) -> Result<Self, LoadError> {
        let file = folder.join(CONFIG_FILE);
        let text = std::fs::read_to_string(&file).map_err(|source| LoadError::Read { file: file.clone(), source })?;
        let config = Config::parse(&file, &text)?;
        Self::build(&config, parse(&file, &text)?, Origin::Checkpoint(Weights::open(folder)?), device)
    }

    /// From the text of config.json and the bytes of model.safetensors.
    pub fn from_parts(config: &str, weights: &[u8], device: &Device) -> Result<Self, LoadError> {
        let file = Path::new(CONFIG_FILE);
        let weights = Weights::from_bytes(SINGLE_FILE, weights.to_vec())?;
        Self::build(&Config::parse(file, config)?, parse(file, config)?, Origin::Checkpoint(weights), device)
    }

    /// New weights for the text of a config.json, as Hugging Face starts them: normal with `initializer_range` (0.02 where it is
    /// not given), biases zero, norms the identity.
    pub fn random(config: &str, seed: u64, device: &Device) -> Result<Self, LoadError> {
        let file = Path::new(CONFIG_FILE);
        Self::build(&Config::parse(file, config)?, parse(file, config)?, Origin::New { seed }, device)
    }

    /// config.json.
    pub fn config(&self) -> &Json {
        &self.config
    }

    /// Writes config.json and model.safetensors so that Transformers' class for the head loads them.
    ///
    /// Hooks are not written: merge them first. Files that are there are replaced at once, so a folder can be written over the one
    /// that the model was loaded from.
    pub(super) fn write_folder(&self, folder: &Path, head: &SavedHead<'_>) -> Result<(), LoadError> {
        std::fs::create_dir_all(folder).map_err(|source| LoadError::Write { file: folder.into(), source })?;
        let prefix = &self.info().prefix;
        // Transformers' classes for tokens have no pooler.
        let read = if matches!(head.answer, Answer::TokenClass(_)) { Read::Sequence } else { Read::Pooled };
        let mut stored = BTreeMap::new();
        for (base, shape) in self.parameters().iter().zip(&self.stored_shapes) {
            let name = base.parameter.name();
            if self.passes(read, name) {
                stored.insert(format!("{prefix}{name}"), (bytes(&base.parameter.tensor())?, shape.clone()));
            }
        }
        for (name, tensor) in head.tensors {
            stored.insert(name.clone(), (bytes(tensor)?, tensor.dims().to_vec()));
        }
        replace(folder.join(SINGLE_FILE), |file| {
            let views = stored.iter().map(|(name, (bytes, shape))| {
                TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (name.as_str(), view))
            });
            let views = views.collect::<Result<Vec<_>, _>>().map_err(std::io::Error::other)?;
            let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
            safetensors::serialize_to_file(views, Some(metadata), file).map_err(|error| match error {
                SafeTensorError::IoError(error) => error,
                other => std::io::Error::other(other),
            })
        })?;
        let config = format!("{:#}\n", self.saved_config(head));
        replace(folder.join(CONFIG_FILE), |file| std::fs::write(file, &config))
    }

    fn saved_config(&self, head: &SavedHead<'_>) -> Json {
        let mut config = self.config.clone();
        let Json::Object(entries) = &mut config else { return config };
        entries.retain(|key, _| !OF_ANOTHER_FOLDER.contains(&key.as_str()));
        let value = [VALUE.to_owned()];
        let class = &self.info().classification_class;
        let family = class.split_once("For").map_or(class.as_str(), |(family, _)| family);
        let (class, problem, labels) = match head.answer {
            Answer::None => (format!("{family}Model"), None, &[][..]),
            Answer::Class(labels) => (class.clone(), Some("single_label_classification"), labels),
            Answer::Value => (class.clone(), Some("regression"), &value[..]),
            Answer::TokenClass(labels) => (format!("{family}ForTokenClassification"), None, labels),
        };
        entries.insert("architectures".into(), json!([class]));
        entries.insert("dtype".into(), json!("float32"));
        if let Some(problem) = problem {
            entries.insert("problem_type".into(), json!(problem));
        }
        let key = Architecture::find(&self.info().model_type).and_then(|architecture| architecture.head_dropout);
        if let (Some(key), Some(dropout)) = (key, head.dropout) {
            entries.insert(key.into(), json!(dropout));
        }
        if !labels.is_empty() {
            // Their number is that of the output's rows: Transformers reads it nowhere else.
            let by_id: serde_json::Map<_, _> =
                labels.iter().enumerate().map(|(i, label)| (i.to_string(), json!(label))).collect();
            let by_label: serde_json::Map<_, _> =
                labels.iter().enumerate().map(|(i, label)| (label.clone(), json!(i))).collect();
            entries.insert("id2label".into(), Json::Object(by_id));
            entries.insert("label2id".into(), Json::Object(by_label));
        }
        config
    }
}

/// What Transformers calls the only output of a head for values.
const VALUE: &str = "LABEL_0";

fn parse(file: &Path, text: &str) -> Result<Json, LoadError> {
    serde_json::from_str(text).map_err(|source| LoadError::Config { file: file.into(), source })
}

/// A tensor's elements as little-endian `f32`.
fn bytes(tensor: &Tensor) -> Result<Vec<u8>, LoadError> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

/// Writes beside the file and renames, so that neither a reader nor a mapping ever sees half of it.
fn replace(file: PathBuf, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), LoadError> {
    let mut partial = file.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    // As readable as any file of the user, whatever the writer made of it.
    let readable = || std::fs::set_permissions(&partial, std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let written = write(&partial).and_then(|()| readable()).and_then(|()| std::fs::rename(&partial, &file));
    written.map_err(|source| {
        // Of a write that failed, on a full disk mostly, nothing may stay. Why it failed says more than that this fails too.
        let _ = std::fs::remove_file(&partial);
        LoadError::Write { file, source }
    })
}
