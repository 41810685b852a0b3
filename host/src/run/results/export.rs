//! What a run leaves to be used elsewhere: an adapter in PEFT's format, or a whole Hugging Face folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_autograd::{DType, Tensor};
use fthost_models::{Answer, Modality, ModelInfo, SavedHead};
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::keys::{Keys, TUNED, WRAPPED};
use super::plain::{SavedHeads, Trained};
use crate::adapted::{AdaptedModel, Owner};
use crate::run::pass::Decision;
use crate::run::state::folder::{write_atomically, write_json};
use crate::{Error, Result};

/// The folder of a whole model within a run folder.
pub const MODEL: &str = "model";

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
    /// The tasks, in order.
    pub tasks: &'a [Trained<'a>],
}

/// Where the results are, and in what form.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Exported {
    /// What opens it.
    pub format: Format,
    /// The folder.
    pub path: PathBuf,
    /// Why no class of Transformers' opens the heads, where none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_heads: Option<String>,
}

/// What opens a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// An adapter that loads in Python's PEFT.
    Peft,
    /// The same layout for what PEFT does not know.
    Fthost,
    /// A whole model that Transformers opens with its head.
    Huggingface,
    /// A whole model that Transformers opens without its heads, which are fthost's own.
    Encoder,
}

impl Format {
    /// Whether it is a whole model.
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Huggingface | Self::Encoder)
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Peft => "adapter (PEFT)",
            Self::Fthost => "adapter (fthost)",
            Self::Huggingface => "model (Hugging Face)",
            Self::Encoder => "encoder (Hugging Face) with heads of fthost's own",
        })
    }
}

impl std::fmt::Display for Exported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} saved in {}", self.format, self.path.display())?;
        self.own_heads.iter().try_for_each(|why| write!(f, "; no class of Transformers' has its heads: {why}"))
    }
}

impl Saved<'_> {
    /// Saves an adapter, or a whole model where base weights trained and no strategy added anything, neither a parameter nor a hook
    /// that a plain folder would lose.
    pub fn write(&self, run: &Path) -> Result<Exported> {
        let adds = self.model.parameters.iter().any(|p| matches!(p.owner, Owner::Strategy(_)))
            || self.model.model.sites().iter().any(|site| self.model.model.hooked(&site.path));
        let base_trained = self.model.parameters.iter().any(|p| p.owner == Owner::Base && p.trained());
        if base_trained && !adds {
            write_model(self.model, self.tasks, &run.join(MODEL))
        } else {
            self.write_adapter(&run.join("adapter"))
        }
    }

    fn write_adapter(&self, folder: &Path) -> Result<Exported> {
        let heads = SavedHeads::of(self.model, self.tasks)?;
        // PEFT knows models that Transformers knows.
        let fields = self.adapter_config.as_ref().filter(|_| heads.own.is_none());
        write_safetensors(&folder.join("adapter_model.safetensors"), &self.adapter(&heads, fields.is_some()))?;

        let info = self.model.model.info();
        // PEFT's class for a kind of task hands on what texts are made of, and no images.
        let task_type = match (info.plain().modality, heads.answer) {
            (Modality::Images { .. }, _) => None,
            (_, Answer::TokenClass(_)) => Some("TOKEN_CLS"),
            _ => Some("SEQ_CLS"),
        };
        let mut config = json!({
            "base_model_name_or_path": self.base,
            "task_type": task_type,
            "inference_mode": true,
            "modules_to_save": head_modules(info, &heads),
        });
        let format = match fields {
            Some(fields) => {
                merge(&mut config, fields);
                Format::Peft
            }
            None => Format::Fthost,
        };
        write_json(&folder.join("adapter_config.json"), &config)?;
        write_labels(self.tasks, folder)?;
        write_decision(self.tasks, heads.own.is_none(), folder)?;
        Ok(Exported { format, path: folder.to_owned(), own_heads: heads.own })
    }

    /// The adapter's tensors by their names in PEFT's files, or where it is none of PEFT's in fthost's own form: all parameters as they
    /// stand.
    fn adapter(&self, heads: &SavedHeads<'_>, peft: bool) -> BTreeMap<String, Tensor> {
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
        let base = self.model.parameters.iter().filter(|p| p.owner == Owner::Base && p.trained());
        let base = base.map(|p| (keys.path(p), p.parameter.tensor()));
        tensors.extend(base.chain(heads.tensors.clone()).map(|(path, tensor)| (format!("{root}{path}"), tensor)));
        tensors
    }
}

/// Writes a whole model with its heads: a Hugging Face folder.
pub fn write_model(model: &AdaptedModel, tasks: &[Trained<'_>], folder: &Path) -> Result<Exported> {
    let SavedHeads { tensors, answer, dropout, own } = SavedHeads::of(model, tasks)?;
    model.model.save_folder(folder, &SavedHead { tensors: &tensors, answer, dropout })?;
    write_labels(tasks, folder)?;
    write_decision(tasks, own.is_none(), folder)?;
    let format = if own.is_none() { Format::Huggingface } else { Format::Encoder };
    Ok(Exported { format, path: folder.to_owned(), own_heads: own })
}

/// What is said beside a saved head of how classes follow from its probabilities.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedDecision {
    /// Temperature and threshold.
    #[serde(flatten)]
    pub decision: Decision,
    /// Whether the last layer was divided by the temperature: what opens it gives calibrated probabilities.
    pub folded: bool,
    /// The class whose probability the threshold is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positive: Option<String>,
    /// The same in words.
    #[serde(default)]
    note: String,
}

impl SavedDecision {
    /// The file's name.
    pub const FILE: &str = "decision.json";

    fn new(task: &Trained<'_>, folded: bool) -> Self {
        let Decision { temperature, threshold } = task.decision;
        let positive = threshold.and(task.labels.get(1)).cloned();
        let mut note = Vec::new();
        if temperature != 1.0 {
            note.push(match folded {
                true => format!(
                    "The last layer is divided by a temperature of {temperature:.4}: its probabilities are calibrated."
                ),
                false => format!(
                    "Its probabilities are calibrated at a temperature of {temperature:.4}, which fthost alone applies."
                ),
            });
        }
        if let (Some(threshold), Some(positive)) = (threshold, &positive) {
            note.push(format!(
                "{positive:?} is meant where its probability is {threshold:.4} or more: other tools take the more probable class."
            ));
        }
        Self { decision: task.decision, folded, positive, note: note.join(" ") }
    }
}

/// Says how classes follow from probabilities, where it is not as is usual. A folder with several heads opens nowhere but in its run.
fn write_decision(tasks: &[Trained<'_>], folded: bool, folder: &Path) -> Result<()> {
    match tasks {
        [task] if task.decision != Decision::default() => {
            write_json(&folder.join(SavedDecision::FILE), &SavedDecision::new(task, folded))
        }
        _ => Ok(()),
    }
}

/// Class names in index order, empty for real values: a list where there is one task, else lists by task.
fn write_labels(tasks: &[Trained<'_>], folder: &Path) -> Result<()> {
    let labels = match tasks {
        [task] => json!(task.labels),
        tasks => json!(tasks.iter().map(|task| (task.name, task.labels)).collect::<BTreeMap<_, _>>()),
    };
    write_json(&folder.join("labels.json"), &labels)
}

/// The modules that hold a head, as PEFT's `modules_to_save` lists them: first parts of the paths, in the encoder or beside it.
fn head_modules(info: &ModelInfo, heads: &SavedHeads<'_>) -> Vec<String> {
    let paths = heads.tensors.iter().map(|(path, _)| path.strip_prefix(&info.plain().prefix).unwrap_or(path));
    let mut modules: Vec<String> = paths.map(|path| path.split('.').next().unwrap_or_default().to_owned()).collect();
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
