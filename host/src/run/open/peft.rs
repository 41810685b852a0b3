//! A folder that PEFT saved, opened as a run that has ended.
//!
//! `adapter_config.json` says what was added to the model, and a strategy that says it serves its `peft_type` turns that into options of its
//! own; `adapter_model.safetensors` holds what was trained, the head too. From both a run file is made, in which the command line
//! can set values as in any other; every tensor must then have a place, and every parameter a tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fthost_autograd::Device;
use fthost_models::{Modality, ModelInfo, Weights};
use fthost_plugin_api::MethodKind;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{TrainedModel, head};
use crate::adapted::{AdaptedModel, Owner};
use crate::plugin::{Library, Search};
use crate::run::file::{Override, RunFile, split_argument};
use crate::run::keys::{Keys, TUNED, WRAPPED};
use crate::run::{DeviceChoice, setup};
use crate::{Error, Result};

/// What makes a folder one of PEFT's.
pub(super) const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Fields that say where an adapter belongs and not what it computes. What `modules_to_save` names is seen by its tensors.
const ABOUT: [&str; 7] = [
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "modules_to_save",
    "peft_version",
    "revision",
    "task_type",
];

/// Parts of names under which PEFT, where it saves all biases, saves those of the head once more, and those of the head that it replaced.
const TWICE: [&str; 2] = [".modules_to_save.", ".original_module."];

/// Opens a folder that has an `adapter_config.json`.
///
/// # Errors
/// Where no plugin serves its kind of adapter, the adapter asks for what the plugin does not support, the base model is not here or
/// another one, or the folder holds no head.
pub(super) fn open(
    folder: &Path,
    plugins: &[String],
    overrides: &[Override],
    device: DeviceChoice,
) -> Result<TrainedModel> {
    let adapter = Adapter::read(folder)?;
    let mut library = Library::new(Search::from_environment());
    for plugin in plugins {
        library.open(split_argument(plugin).0)?;
    }
    let mut file = adapter.run_file(&mut library, overrides)?;
    let base = base_config(&file)?;
    let mut model = setup::load_model(&file, device.open()?)?;
    let outputs = adapter.outputs(model.model.info())?;
    let found = head::find(folder, &base, outputs, adapter.per_token)?;
    let task = &mut file.tasks[0];
    task.max_tokens = task.max_tokens.min(adapter.longest_text(model.model.info()));
    found.choose(&mut file, &mut library)?;
    let strategies = setup::attach_strategies(&file, &mut library, &mut model)?;
    found.open(&file, &mut library, model, strategies, |model| adapter.restore(model))
}

/// What stands in the folder.
struct Adapter<'a> {
    folder: &'a Path,
    peft_type: String,
    base: String,
    /// Whether its head gives a class for each token.
    per_token: bool,
    /// The fields that the strategy answers for.
    config: Value,
    weights: Weights,
    /// Names of the tensors in the file, by their paths below the root.
    names: BTreeMap<String, String>,
}

impl<'a> Adapter<'a> {
    fn read(folder: &'a Path) -> Result<Self> {
        let mut config: Map<String, Value> = read(&folder.join(CONFIG))?;
        let Some(Value::String(peft_type)) = config.remove("peft_type") else {
            return Err(Error::usage(format!("{} names no peft_type: PEFT knows no such adapter", at(folder, CONFIG)))
                .with_help("open the run folder that left it"));
        };
        let per_token = match config.get("task_type") {
            None | Some(Value::Null) => false,
            Some(task) if task == "SEQ_CLS" => false,
            Some(task) if task == "TOKEN_CLS" => true,
            Some(task) => {
                return Err(Error::usage(format!(
                    "{} has task_type {task}, and only SEQ_CLS and TOKEN_CLS open here",
                    at(folder, CONFIG)
                )));
            }
        };
        let base = config.get("base_model_name_or_path").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        config.retain(|field, _| !ABOUT.contains(&field.as_str()));

        let bytes = std::fs::read(folder.join(WEIGHTS)).map_err(|error| {
            Error::usage(format!("cannot read {}: {error}", at(folder, WEIGHTS)))
                .with_help("an adapter_model.bin is saved anew by PEFT: model.save_pretrained(FOLDER)")
        })?;
        let weights = Weights::from_bytes(&at(folder, WEIGHTS), bytes)?;
        let below = |name: &str| {
            let path = [TUNED, WRAPPED].iter().find_map(|root| name.strip_prefix(root));
            (path.unwrap_or(name).to_owned(), name.to_owned())
        };
        let twice = |name: &&str| TWICE.iter().any(|part| name.contains(part));
        let names = weights.names().filter(|name| !twice(name)).map(below).collect();
        Ok(Self { folder, peft_type, base, per_token, config: config.into(), weights, names })
    }

    /// The run file that would have led to this folder.
    fn run_file(&self, library: &mut Library, overrides: &[Override]) -> Result<RunFile> {
        let (plugin, method) = library.serving(MethodKind::Strategy, &self.peft_type)?;
        let options = plugin.options_from_peft(&method.name, &self.config)?;
        let mut strategy = Map::from_iter([("plugin".to_owned(), json!(method.name))]);
        // TOML has no null: an option without a value is left out.
        strategy
            .extend(options.as_object().cloned().unwrap_or_default().into_iter().filter(|(_, value)| !value.is_null()));
        let tables = json!({
            "model": { "path": self.base },
            "task": [head::task(self.folder)],
            "strategy": [strategy],
        });
        let text = toml::to_string(&tables)
            .map_err(|error| Error::usage(format!("{} cannot be a run file: {error}", at(self.folder, CONFIG))))?;
        // Named as a file of the working directory, from which paths on the command line start.
        RunFile::parse(&text, Path::new(CONFIG), overrides)
    }

    /// Outputs of the head: rows of its last layer.
    fn outputs(&self, info: &ModelInfo) -> Result<usize> {
        let weight = format!("{}.weight", head::last_layer(info, self.per_token));
        let Some(name) = self.names.get(&weight) else {
            let module = weight.split('.').next().unwrap_or_default();
            return Err(Error::usage(format!("{} holds no head: it has no {weight}", at(self.folder, WEIGHTS)))
                .with_help(format!(
                    "train with task_type=\"{}\" or modules_to_save=[{module:?}]: PEFT then saves the head",
                    if self.per_token { "TOKEN_CLS" } else { "SEQ_CLS" }
                )));
        };
        Ok(self.weights.tensor(name, &Device::Cpu)?.dims()[0])
    }

    /// The most tokens of a text: virtual ones take positions too.
    fn longest_text(&self, info: &ModelInfo) -> usize {
        let tokens = self.config["num_virtual_tokens"].as_u64().unwrap_or(0) as usize;
        match info.modality {
            Modality::Text { max_tokens, .. } => max_tokens.saturating_sub(tokens).max(1),
            Modality::Images { .. } => head::LONGEST,
        }
    }

    /// Gives the parameters their values.
    fn restore(&self, model: &AdaptedModel) -> Result<()> {
        let keys = Keys::of(model);
        let mut left: BTreeSet<&str> = self.names.keys().map(String::as_str).collect();
        for p in &model.parameters {
            let path = keys.path(p);
            match self.names.get(&path) {
                Some(name) => {
                    let shape = p.parameter.tensor().dims();
                    p.parameter.set(&self.weights.tensor_of_shape(name, shape, &model.device)?)?;
                    left.remove(path.as_str());
                }
                None if p.owner == Owner::Base && !p.parameter.trainable() => {}
                None => {
                    let of_head = matches!(p.owner, Owner::Head(_));
                    return Err(Error::usage(format!("{} lacks {path}", at(self.folder, WEIGHTS))).with_help(
                        match of_head && path.starts_with(&model.model.info().prefix) {
                            true => "the base model has no such layer, so Transformers made one at random, and the adapter does not hold it: train with modules_to_save=[\"pooler\"]",
                            false => "it does not fit its adapter_config.json, or belongs to another base model",
                        },
                    ));
                }
            }
        }
        match left.first() {
            None => Ok(()),
            Some(path) => {
                Err(Error::usage(format!("{} holds {path}, which has no place here", at(self.folder, WEIGHTS)))
                    .with_help("it does not fit its adapter_config.json, or belongs to another base model"))
            }
        }
    }
}

/// A JSON file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let wrong = |what: &dyn std::fmt::Display| Error::usage(format!("cannot read {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    serde_json::from_str(&text).map_err(|error| wrong(&error))
}

fn at(folder: &Path, file: &str) -> String {
    folder.join(file).display().to_string()
}

/// The base model's config.json; null for the embedded model.
///
/// # Errors
/// Where the base model is not on this machine.
fn base_config(file: &RunFile) -> Result<Value> {
    if file.model.is_demo() {
        return Ok(Value::Null);
    }
    read(&file.model.path.join("config.json"))
        .map_err(|error| error.with_help("say where the base model of this adapter is: --set model.path=FOLDER"))
}
