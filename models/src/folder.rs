//! Writes model folders as Hugging Face does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::{Value as Json, json};

use crate::family::CONFIG_FILE;
use crate::weights::{self, Change, SINGLE_FILE};
use crate::{Answer, LoadError, Model, ModelInfo, Read, SavedHead};

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

/// How a model lies in its files, as it was read.
#[derive(Debug)]
pub(crate) struct InFiles {
    /// config.json.
    pub(crate) config: Json,
    /// The shapes of its parameters.
    pub(crate) shapes: Vec<Vec<usize>>,
    /// Counters that nothing reads, by name without prefix.
    pub(crate) counters: Vec<(String, i64)>,
    /// Names without prefix of matrices that lie the other way round.
    pub(crate) transposed: BTreeSet<String>,
}

/// Writes a model's config.json and model.safetensors so that Transformers' class for the head loads them; those of a model that timm or
/// torchvision names under its names there.
///
/// Hooks are not written: merge them first. Files that are there are replaced at once, so a folder can be written over the one
/// that the model was loaded from.
pub(crate) fn write(
    model: &dyn Model,
    InFiles { config, shapes, counters, transposed }: &InFiles,
    folder: &Path,
    head: &SavedHead<'_>,
) -> Result<(), LoadError> {
    std::fs::create_dir_all(folder).map_err(|source| LoadError::Write { file: folder.into(), source })?;
    // Transformers' classes for tokens have no pooler.
    let per_token = matches!(head.answer, Answer::TokenClass(_) | Answer::Token);
    let mut stored = BTreeMap::new();
    for (base, shape) in model.parameters().iter().zip(shapes) {
        let name = base.parameter.name();
        if !per_token || base.stream.is_none_or(|stream| model.passes(stream, Read::Sequence, name)) {
            let tensor = match transposed.contains(name) {
                true => Change::Transposed.made(&base.parameter.tensor())?,
                false => base.parameter.tensor().reshape(shape.as_slice())?,
            };
            stored.insert(format!("{}{name}", model.info().prefix(base.stream)), tensor);
        }
    }
    for (name, count) in counters {
        stored.insert(format!("{}{name}", model.info().prefix(Some(0))), Tensor::new(*count, &Device::Cpu)?);
    }
    for (name, tensor) in head.tensors {
        stored.insert(name.clone(), tensor.clone());
    }
    write_tensors(&folder.join(SINGLE_FILE), &stored)?;
    let config = match config.get("model_type") {
        Some(_) => saved_config(config.clone(), model.info(), head),
        None => timm_config(config.clone(), model.info(), head),
    };
    let config = format!("{config:#}\n");
    replace(folder.join(CONFIG_FILE), |file| std::fs::write(file, &config))
}

/// Writes named tensors, whole numbers as they are and others as `f32`, into a .safetensors file, with the metadata that Hugging Face's readers ask for; whole or not at all,
/// and the folders on the way.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_tensors(file: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<(), LoadError> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let dtype = |own| if own == DType::I64 { DType::I64 } else { DType::F32 };
    replace(file.to_owned(), |file| weights::save(file, tensors, metadata, dtype))
}

/// config.json of what is saved: what the model is, and what its head answers.
fn saved_config(mut config: Json, info: &ModelInfo, head: &SavedHead<'_>) -> Json {
    let Json::Object(entries) = &mut config else { return config };
    let of_this = |key: &String, _: &mut Json| !OF_ANOTHER_FOLDER.contains(&key.as_str());
    entries.retain(of_this);
    // Those of a model's parts say it too.
    for (_, part) in entries.iter_mut().filter(|(key, _)| key.ends_with("_config")) {
        part.as_object_mut().into_iter().for_each(|part| part.retain(of_this));
    }
    let value = [VALUE.to_owned()];
    let own = info.classification.as_ref();
    let class = own.and_then(|own| own.class.as_deref());
    let family = info.base_class.as_ref().map(|class| class.strip_suffix("Model").unwrap_or(class));
    let (class, problem, labels) = match head.answer {
        Answer::None => (family.map(|family| format!("{family}Model")), None, &[][..]),
        Answer::Class(labels) => (class.map(str::to_owned), Some("single_label_classification"), labels),
        Answer::Labels(labels) => (class.map(str::to_owned), Some("multi_label_classification"), labels),
        Answer::Value => (class.map(str::to_owned), Some("regression"), &value[..]),
        Answer::TokenClass(labels) => (family.map(|family| format!("{family}ForTokenClassification")), None, labels),
        Answer::Token => (info.vocabulary.as_ref().map(|layer| layer.class.clone()), None, &[][..]),
    };
    entries.extend(class.map(|class| ("architectures".to_owned(), json!([class]))));
    entries.insert("dtype".into(), json!("float32"));
    if let Some(problem) = problem {
        entries.insert("problem_type".into(), json!(problem));
    }
    if let (Some(key), Some(dropout)) = (own.and_then(|own| own.dropout_key.clone()), head.dropout) {
        entries.insert(key, json!(dropout));
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

/// config.json of what is saved as timm writes it: the number of its classes, and their names.
fn timm_config(mut config: Json, info: &ModelInfo, head: &SavedHead<'_>) -> Json {
    let classes = match head.answer {
        Answer::None | Answer::Token => 0,
        Answer::Class(labels) | Answer::Labels(labels) | Answer::TokenClass(labels) => labels.len(),
        Answer::Value => 1,
    };
    let Json::Object(entries) = &mut config else { return config };
    entries.insert("num_classes".into(), json!(classes));
    entries.insert("num_features".into(), json!(info.plain().width));
    if let Some(Json::Object(pretrained)) = entries.get_mut("pretrained_cfg") {
        pretrained.insert("num_classes".into(), json!(classes));
        ["label_names", "label_descriptions"].iter().for_each(|key| drop(pretrained.remove(*key)));
    }
    ["label_names", "label_descriptions"].iter().for_each(|key| drop(entries.remove(*key)));
    if let Answer::Class(labels) | Answer::Labels(labels) = head.answer {
        entries.insert("label_names".into(), json!(labels));
    }
    config
}

/// What Transformers calls the only output of a head for values.
const VALUE: &str = "LABEL_0";

/// Writes beside the file and renames, so that neither a reader nor a mapping ever sees half of it.
pub(crate) fn replace(file: PathBuf, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), LoadError> {
    let mut partial = file.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    // As readable as any file of the user, whatever the writer made of it.
    let readable = || std::fs::set_permissions(&partial, std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let folder = || file.parent().map_or(Ok(()), std::fs::create_dir_all);
    let written = folder()
        .and_then(|()| write(&partial))
        .and_then(|()| readable())
        .and_then(|()| std::fs::rename(&partial, &file));
    written.map_err(|source| {
        // Of a write that failed, on a full disk mostly, nothing may stay. Why it failed says more than that this fails too.
        let _ = std::fs::remove_file(&partial);
        LoadError::Write { file, source }
    })
}
