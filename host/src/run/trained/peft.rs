//! A folder that PEFT saved, opened as a run that has ended.
//!
//! `adapter_config.json` says what was added to the model, and a strategy that says it serves its `peft_type` turns that into options of its
//! own; `adapter_model.safetensors` holds what was trained, the head too. From both a run file is made, in which the command line
//! can set values as in any other; every tensor must then have a place, and every parameter that was added a tensor.

mod layers;
mod restore;

use std::collections::BTreeMap;
use std::path::Path;

use fthost_autograd::Device;
use fthost_models::{MODULES, Model, ModelInfo, Pooling, Weights};
use fthost_plugin_api::{MethodKind, Targets};
use serde_json::{Map, Value, json};

use super::head::{self, Found, read};
use super::model::TrainedModel;
use crate::data::{LanguageModel, Learns};
use crate::hub::Name;
use crate::plugin::{Library, Search};
use crate::run::file::{Override, PoolingKey, RunFile, split_argument};
use crate::run::machine::DeviceChoice;
use crate::run::results::keys::{TUNED, WRAPPED};
use crate::run::setup::{methods, model as base};
use crate::{Error, Result};

/// What makes a folder one of PEFT's.
pub(super) const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// The form of the weights that is not read.
const PICKLED: &str = "adapter_model.bin";

/// Fields that say where an adapter belongs and not what it computes.
const ABOUT: [&str; 6] =
    ["auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type"];

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
    // Which layers the fields name is seen in the base model, which the run file names.
    let mut named = adapter.run_file(&mut library, None, overrides)?;
    base::fetch(&mut named)?;
    let base = base_config(&named)?;
    named.language = adapter.language(&base);
    let dense = head::Dense::find(folder)?;
    if dense.is_none() && named.language.is_none() && !adapter.per_token {
        // Of two streams the model's own head compares them, where it has one.
        named.tasks[0].form.learns = Learns::Matches;
    }
    let mut model = base::load_model(&named, device.open()?)?;
    // What the base model's folder says of pooling is of no account: PEFT's class for the task pools in its own way.
    if named.model.pooling == PoolingKey::Auto {
        let of_class = model.model.info().classification.as_ref().map(|class| class.pooling);
        if let Some(pooling) = Pooling::of_folder(folder)?.or(of_class) {
            model.model.set_pooling(0, pooling)?;
        }
    }
    adapter.refuse_shared(model.model.info())?;
    let mut file = adapter.run_file(&mut library, Some(model.model.as_ref()), overrides)?;
    (file.model.path, file.model.named, file.language) = (named.model.path, named.model.named, named.language);
    file.model.streams = named.model.streams;
    if let Some(says) = file.language {
        adapter.must_hold_new(model.model.info())?;
        let found = Found::of_language(says);
        found.choose(&mut file, &mut library)?;
        let strategies = methods::attach_strategies(&file, &mut library, &mut model)?;
        return found.open(&file, &mut library, model, strategies, |model| adapter.restore(model, true));
    }
    if model.model.info().contrastive.is_some() {
        file.tasks[0].form.learns = Learns::Matches;
        let found = Found::of_comparison();
        found.choose(&mut file, &mut library)?;
        let strategies = methods::attach_strategies(&file, &mut library, &mut model)?;
        return found.open(&file, &mut library, model, strategies, |model| adapter.restore(model, true));
    }
    let outputs = match &dense {
        Some(dense) => dense.outputs()?,
        None => adapter.outputs(model.model.info())?,
    };
    let found = head::find(folder, &base, outputs, adapter.per_token)?;
    found.choose(&mut file, &mut library)?;
    let strategies = methods::attach_strategies(&file, &mut library, &mut model)?;
    found.open(&file, &mut library, model, strategies, |model| {
        adapter.restore(model, dense.is_none())?;
        dense.map_or(Ok(()), |dense| dense.restore(model))
    })
}

/// What stands in the folder.
struct Adapter<'a> {
    folder: &'a Path,
    peft_type: String,
    base: String,
    /// Whether its head gives a class for each token.
    per_token: bool,
    /// Whether its head is the model's own layer over the vocabulary, where `task_type` says so; `None` where there is no `task_type`.
    language: Option<bool>,
    /// The fields that the strategy answers for, and those that say which layers it adapts.
    config: Map<String, Value>,
    /// `modules_to_save`: ends of the names of modules that are saved whole.
    saved: Vec<String>,
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
        let (task_type, mut language) = (config.get("task_type"), Some(false));
        let per_token = match task_type {
            None | Some(Value::Null) => {
                language = None;
                false
            }
            Some(task) if task == "CAUSAL_LM" => {
                language = Some(true);
                false
            }
            Some(task) if task == "SEQ_CLS" => false,
            // The head is a dense layer of sentence-transformers beside it.
            Some(task) if task == "FEATURE_EXTRACTION" && folder.join(MODULES).is_file() => false,
            Some(task) if task == "TOKEN_CLS" => true,
            Some(task) => {
                return Err(Error::usage(format!(
                    "{} has task_type {task}, and only SEQ_CLS, TOKEN_CLS and CAUSAL_LM open here",
                    at(folder, CONFIG)
                )));
            }
        };
        let text = |field: &str| config.get(field).and_then(Value::as_str);
        let base = base(text("base_model_name_or_path").unwrap_or("unknown"), text("revision"));
        config.retain(|field, _| !ABOUT.contains(&field.as_str()));
        let saved = layers::take::<Vec<String>>(&mut config, "modules_to_save")?.unwrap_or_default();

        let bytes = std::fs::read(folder.join(WEIGHTS)).map_err(|error| {
            let help = match folder.join(PICKLED).is_file() {
                true => {
                    format!("{PICKLED} is saved anew by PEFT: model.save_pretrained(FOLDER, safe_serialization=True)")
                }
                false => format!("PEFT writes it beside {CONFIG}: save the adapter again"),
            };
            Error::usage(format!("cannot read {}: {error}", at(folder, WEIGHTS))).with_help(help)
        })?;
        let weights = Weights::from_bytes(&at(folder, WEIGHTS), bytes)?;
        let twice = |name: &&str| TWICE.iter().any(|part| name.contains(part));
        let named = |name: &str| (below_root(name).to_owned(), name.to_owned());
        let names = weights.names().filter(|name| !twice(name)).map(named).collect();
        Ok(Self { folder, peft_type, base, per_token, language, config, saved, weights, names })
    }

    /// The run file that would have led to this folder; without the base model it lacks the strategy's options.
    fn run_file(&self, library: &mut Library, base: Option<&dyn Model>, overrides: &[Override]) -> Result<RunFile> {
        let (plugin, method) = library.serving(MethodKind::Strategy, &self.peft_type)?;
        let mut strategy = Map::from_iter([("plugin".to_owned(), json!(method.name))]);
        if let Some(base) = base {
            let mut config = self.config.clone();
            // What older versions of PEFT added inside of a module that is saved whole stands in the file beside the layers' own tensors.
            let wrapped =
                |name: &&String| self.names.keys().any(|path| within(path, name) && path.contains(".base_layer."));
            let saved: Vec<&str> = self.saved.iter().filter(|name| !wrapped(name)).map(String::as_str).collect();
            let headed = !self.folder.join(MODULES).is_file();
            layers::resolve(&mut config, &saved, base.info(), base.sites(), headed)?;
            let options = plugin.options_from_peft(&method.name, &config.into())?;
            let options = options.as_object().cloned().unwrap_or_default();
            // TOML has no null: an option without a value is left out.
            strategy.extend(options.into_iter().filter(|(_, value)| !value.is_null()));
        }
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

    /// What the model says whose own layer over the vocabulary is the head. PEFT has no `task_type` for those that fill masked places: there it
    /// is the base model's class that says so, where the folder holds no head.
    fn language(&self, base: &Value) -> Option<LanguageModel> {
        match self.language {
            Some(false) => None,
            Some(true) => Some(LanguageModel::Causal),
            None => head::language(base).filter(|_| self.saved.is_empty()),
        }
    }

    /// Refuses what was added to or trained of a matrix that word embeddings and layer over the vocabulary have in common.
    fn refuse_shared(&self, info: &ModelInfo) -> Result<()> {
        let Some([words, output]) = info.shared_vocabulary() else { return Ok(()) };
        let targets: Option<Targets> = layers::take(&mut self.config.clone(), "target_modules")?;
        let targets = match targets {
            Some(Targets::Names(names)) => names,
            _ => Vec::new(),
        };
        let of = |field: &str, names: &[String]| {
            let full = format!("{}{words}", info.plain().prefix);
            let ends = |path: &str, name: &str| path == name || path.ends_with(&format!(".{name}"));
            let named = |name: &&String| [full.as_str(), words, output].iter().any(|path| ends(path, name));
            names.iter().find(named).map(|name| format!("{field} of {CONFIG} names {name}"))
        };
        match of("target_modules", &targets).or_else(|| of("modules_to_save", &self.saved)) {
            None => Ok(()),
            Some(what) => Err(Error::usage(format!(
                "{what}, and word embeddings ({words}) and layer over the vocabulary ({output}) are one matrix in this {} model",
                info.model_type
            ))
            .with_help(
                "train without it, or from a base model with tie_word_embeddings = false whose files hold both: what was added to one of the \
                 two would be lost in the other",
            )),
        }
    }

    /// Refuses an adapter without the layers over the vocabulary that the base model's weights lack: they would be new here.
    fn must_hold_new(&self, info: &ModelInfo) -> Result<()> {
        let mut new = info.vocabulary.iter().flat_map(|layer| &layer.new);
        match new.find(|name| !self.names.keys().any(|path| path.ends_with(name.as_str()))) {
            None => Ok(()),
            Some(lacking) => Err(Error::usage(format!(
                "neither the base model nor {} holds {lacking}, which its language model needs",
                at(self.folder, WEIGHTS)
            ))
            .with_help("name the base model that it was trained on: --set model.path=FOLDER")),
        }
    }

    /// Outputs of the head: rows of its last layer.
    fn outputs(&self, info: &ModelInfo) -> Result<usize> {
        let weight = format!("{}.weight", head::last_layer(info, self.per_token)?);
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
}

/// The path of a tensor in the file below the root.
fn below_root(name: &str) -> &str {
    [TUNED, WRAPPED].iter().find_map(|root| name.strip_prefix(root)).unwrap_or(name)
}

/// Whether a path leads through a module whose own path ends with a name, as PEFT compares them.
fn within(path: &str, name: &str) -> bool {
    path.match_indices('.').any(|(end, _)| path[..end].ends_with(name))
}

/// Where the base model of an adapter is: a folder, or `org/name` of the hub.
fn base(named: &str, revision: Option<&str>) -> String {
    let of_hub = named.contains('/') && !Path::new(named).exists();
    match format!("{named}@{}", revision.unwrap_or("main")).parse::<Name>() {
        Ok(name) if of_hub => name.to_string(),
        _ => named.to_owned(),
    }
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
    let (path, config) = (&file.model.path, file.model.path.join("config.json"));
    if path.exists() && !config.is_file() {
        // Of weights alone, what they say of themselves.
        return Ok(fthost_models::config(path)?);
    }
    read(&config)
        .map_err(|error| error.with_help("say where the base model of this adapter is: --set model.path=FOLDER"))
}
