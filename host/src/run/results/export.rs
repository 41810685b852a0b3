//! What a run leaves to be used elsewhere: an adapter in PEFT's format, or a whole Hugging Face folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_autograd::{DType, Tensor};
use fthost_models::{ModelInfo, SavedHead};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::keys::{Keys, TUNED, WRAPPED, head_path};
use crate::adapted::{AdaptedModel, ModelParameter, Owner};
use crate::run::state::folder::write_atomically;
use crate::{Error, Result};

/// The folder of a whole model within a run folder.
pub const MODEL: &str = "model";
/// The form of a whole model.
pub const WHOLE: &str = "huggingface";

/// What is saved beside the weights.
pub struct Saved<'a> {
    /// The model with what was trained.
    pub model: &'a AdaptedModel,
    /// Path of the base model as the run file names it.
    pub base: &'a str,
    /// The strategies' own fields of `adapter_config.json`, those that PEFT knows.
    pub adapter_config: Option<Value>,
    /// What PEFT's form holds in place of each strategy's parameters, in order, where it is not they themselves.
    pub adapter_tensors: Vec<Option<BTreeMap<String, Tensor>>>,
    /// By task, class names in index order; empty for real values.
    pub labels: &'a Labels,
    /// Whether a head gives a class for each token.
    pub per_token: bool,
}

/// Class names in index order, by task; empty for real values.
pub type Labels = BTreeMap<String, Vec<String>>;

/// Where the results are, and in what form.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Exported {
    /// `peft` (loads in Python's PEFT), `fthost` (the same layout for a method that PEFT does not know), or `huggingface`.
    pub format: &'static str,
    /// The folder.
    pub path: PathBuf,
}

impl Saved<'_> {
    /// Saves an adapter, or a whole model where base weights trained and no strategy added anything, neither a parameter nor a hook
    /// that a plain folder would lose.
    pub fn write(&self, run: &Path) -> Result<Exported> {
        let adds = self.model.parameters.iter().any(|p| matches!(p.owner, Owner::Strategy(_)))
            || self.model.model.sites().iter().any(|site| self.model.model.hooked(&site.path));
        let base_trained = self.model.parameters.iter().any(|p| p.owner == Owner::Base && p.trained());
        if base_trained && !adds {
            write_model(self.model, self.labels, self.per_token, &run.join(MODEL))
        } else {
            self.write_adapter(&run.join("adapter"))
        }
    }

    fn write_adapter(&self, folder: &Path) -> Result<Exported> {
        let info = self.model.model.info();
        write_safetensors(&folder.join("adapter_model.safetensors"), &self.adapter())?;

        let heads: Vec<String> = head_modules(info, &heads(self.model));
        let mut config = json!({
            "base_model_name_or_path": self.base,
            "task_type": if self.per_token { "TOKEN_CLS" } else { "SEQ_CLS" },
            "inference_mode": true,
            "modules_to_save": heads,
        });
        // PEFT knows models of one task.
        let format = match self.adapter_config.as_ref().filter(|_| self.labels.len() == 1) {
            Some(fields) => {
                merge(&mut config, fields);
                "peft"
            }
            None => "fthost",
        };
        write_json(&folder.join("adapter_config.json"), &config)?;
        write_labels(self.labels, folder)?;
        Ok(Exported { format, path: folder.to_owned() })
    }

    /// The adapter's tensors by their names in PEFT's files.
    fn adapter(&self) -> BTreeMap<String, Tensor> {
        // In fthost's own form all parameters stand as they are.
        let peft = self.adapter_config.is_some() && self.labels.len() == 1;
        let given: &[_] = if peft { &self.adapter_tensors } else { &[] };
        let keys = if peft { Keys::of(self.model) } else { Keys::plain(self.model) };
        let mut tensors: BTreeMap<String, Tensor> = given.iter().flatten().flat_map(Clone::clone).collect();
        for p in &self.model.parameters {
            let Owner::Strategy(strategy) = p.owner else { continue };
            if given.get(strategy).is_none_or(Option::is_none) {
                let root = if p.in_model { TUNED } else { "" };
                tensors.insert(format!("{root}{}", keys.path(p)), p.parameter.tensor());
            }
        }
        // PEFT wraps the model once more where it adds something inside of it, which prompts and prefixes do not.
        let outside = !tensors.is_empty() && !tensors.keys().any(|key| key.starts_with(TUNED));
        let root = if outside { WRAPPED } else { TUNED };
        for p in &self.model.parameters {
            if matches!(p.owner, Owner::Head(_)) || (p.owner == Owner::Base && p.trained()) {
                tensors.insert(format!("{root}{}", keys.path(p)), p.parameter.tensor());
            }
        }
        tensors
    }
}

/// Writes a whole model with its heads, of which one may give a class for each token: a Hugging Face folder.
pub fn write_model(model: &AdaptedModel, labels: &Labels, per_token: bool, folder: &Path) -> Result<Exported> {
    let info = model.model.info();
    let head: Vec<(String, Tensor)> =
        heads(model).iter().map(|p| (head_path(info, p.parameter.name()), p.parameter.tensor())).collect();
    let labelled = only(labels).map_or(&[][..], Vec::as_slice);
    model.model.save_folder(folder, &SavedHead { tensors: &head, labels: labelled, per_token })?;
    write_labels(labels, folder)?;
    Ok(Exported { format: WHOLE, path: folder.to_owned() })
}

fn heads(model: &AdaptedModel) -> Vec<&ModelParameter> {
    model.parameters.iter().filter(|p| matches!(p.owner, Owner::Head(_))).collect()
}

/// A list where there is one task, else lists by task.
fn write_labels(labels: &Labels, folder: &Path) -> Result<()> {
    write_json(&folder.join("labels.json"), &only(labels).map_or_else(|| json!(labels), |labels| json!(labels)))
}

/// The labels of the only task.
fn only(labels: &Labels) -> Option<&Vec<String>> {
    labels.values().next().filter(|_| labels.len() == 1)
}

/// The modules that hold a head, as PEFT's `modules_to_save` lists them: first parts of the paths.
fn head_modules(info: &ModelInfo, heads: &[&ModelParameter]) -> Vec<String> {
    let mut modules: Vec<String> = heads
        .iter()
        .map(|p| {
            let path = head_path(info, p.parameter.name());
            path.split('.').next().unwrap_or_default().to_owned()
        })
        .collect();
    modules.sort();
    modules.dedup();
    modules
}

/// Fields of `from` over those of `into`.
fn merge(into: &mut Value, from: &Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_atomically(path, format!("{value:#}\n").as_bytes())
}

/// Writes named tensors as `f32`, with the metadata that Hugging Face's readers ask for.
pub fn write_safetensors(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut bytes = BTreeMap::new();
    for (name, tensor) in tensors {
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        bytes.insert(name, (tensor.dims().to_vec(), raw));
    }
    let failed = |e: safetensors::SafeTensorError| Error::run(format!("cannot write {}: {e}", path.display()));
    let views = bytes
        .iter()
        .map(|(name, (shape, raw))| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), raw)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let content = safetensors::serialize(views, Some(metadata)).map_err(failed)?;
    write_atomically(path, &content)
}
