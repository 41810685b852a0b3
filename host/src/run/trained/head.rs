//! The head in a folder that Transformers, PEFT or a run saved: what it answers, and which plugin computes it.

use std::path::Path;

use fthost_autograd::Device;
use fthost_models::{Classification, ModelInfo, Module, Weights};
use fthost_plugin_api::{MethodKind, problem_type};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::model::{TrainedModel, TrainedTask};
use crate::adapted::{AdaptedModel, Owner};
use crate::data::LanguageModel;
use crate::plugin::{Library, StrategyInstance};
use crate::run::file::{Override, RunFile};
use crate::run::pass::Decision;
use crate::run::results::export::SavedDecision;
use crate::run::results::keys::head_path;
use crate::run::results::sentences;
use crate::run::setup::methods::{self, plugin_of};
use crate::run::setup::model as base;
use crate::{Error, Result};

/// What makes a folder one of a whole model.
pub(super) const CONFIG: &str = "config.json";
/// Names of the classes beside what a run saved.
const LABELS: &str = "labels.json";
/// Stands for the head's plugin until the folder says which head it is.
const UNDECIDED: &str = "by problem_type";
/// Longer than any model reads: texts are cut to what the model takes.
const LONGEST: usize = 1 << 20;

/// A head that was found.
pub(super) struct Found {
    labels: Vec<String>,
    /// Whether labels may be the classes' numbers: where the names were made by no one who saw the labels.
    numbered: bool,
    problem: String,
    decision: Decision,
}

/// The task of the run file that would have led to the folder. What it was trained on is not known, and not asked for.
pub(super) fn task(folder: &Path) -> Value {
    json!({ "head": { "plugin": UNDECIDED }, "train": folder, "max_tokens": LONGEST })
}

/// The run file that would have led to a folder of a whole model.
///
/// # Errors
/// Where the folder's path is no text, or an override does not fit.
pub(super) fn run_file(folder: &Path, overrides: &[Override]) -> Result<RunFile> {
    let path = std::path::absolute(folder).unwrap_or(folder.into());
    let text = toml::to_string(&json!({ "model": { "path": path }, "task": [task(folder)] }))
        .map_err(|error| Error::usage(format!("{} cannot be a run file: {error}", folder.join(CONFIG).display())))?;
    RunFile::parse(&text, Path::new(CONFIG), overrides)
}

/// The head of a folder that sentence-transformers opens: a dense layer beside the model or the adapter, with the names of its classes.
pub(super) struct Dense(Weights);

impl Dense {
    /// That of a folder, where it has one. A dense layer without names of classes is part of the features, and no head.
    pub(super) fn find(folder: &Path) -> Result<Option<Self>> {
        let modules = Module::list(folder)?.unwrap_or_default();
        match modules.last() {
            Some(last) if last.class() == "Dense" && folder.join(LABELS).is_file() => {
                Ok(Some(Self(Weights::open(&folder.join(&last.path))?)))
            }
            _ => Ok(None),
        }
    }

    /// Outputs.
    pub(super) fn outputs(&self) -> Result<usize> {
        Ok(self.0.tensor(sentences::WEIGHT, &Device::Cpu)?.dims()[0])
    }

    /// Gives the head's parameters their values.
    pub(super) fn restore(&self, model: &AdaptedModel) -> Result<()> {
        for p in model.parameters.iter().filter(|p| matches!(p.owner, Owner::Head(_))) {
            let name = if p.parameter.dims().len() > 1 { sentences::WEIGHT } else { sentences::BIAS };
            p.parameter.set(&self.0.tensor_of_shape(name, p.parameter.dims(), &model.device)?)?;
        }
        Ok(())
    }
}

/// What a model says whose config.json names a class for texts without labels: its head is its own layer over the vocabulary.
pub(super) fn language(config: &Value) -> Option<LanguageModel> {
    let class = config["architectures"][0].as_str()?;
    let says = [("ForCausalLM", LanguageModel::Causal), ("ForMaskedLM", LanguageModel::Masked)];
    says.into_iter().find_map(|(end, says)| class.ends_with(end).then_some(says))
}

/// Whether a config.json names a class whose head compares the streams of its model.
pub(super) fn compares(config: &Value) -> bool {
    config["architectures"][0].as_str() == Some("CLIPModel")
}

/// The path of a head's last layer.
///
/// # Errors
/// Where Transformers has no such head for the architecture.
pub(super) fn last_layer(info: &ModelInfo, per_token: bool) -> Result<&str> {
    let Some(head) = &info.classification else {
        let message = format!("Transformers has no head for a {} model that opens here", info.model_type);
        return Err(Error::usage(message).with_help("name the run folder, which has its heads"));
    };
    Ok(head.last_layer(per_token))
}

/// Whether a head's parameter is the bias of the last layer of a class that has none there: such a folder lacks it, and it is 0.
pub(super) fn bias_is_none(info: &ModelInfo, name: &str) -> bool {
    let of_output = |class: &Classification| head_path(info, name) == format!("{}.bias", class.output);
    info.classification.as_ref().is_some_and(|class| !class.bias && of_output(class))
}

/// What a head of so many outputs answers.
///
/// Names are those that a run left beside it, else those of a config.json that has as many, else Transformers' own, `LABEL_0`. What a
/// run left also says what is answered; a config.json may speak of another head, that of the base model.
pub(super) fn find(folder: &Path, config: &Value, outputs: usize, per_token: bool) -> Result<Found> {
    let left: Option<Vec<String>> =
        Some(folder.join(LABELS)).filter(|file| file.is_file()).map(|file| read(&file)).transpose()?;
    let said = Some(folder.join(SavedDecision::FILE)).filter(|file| file.is_file());
    let said: Option<SavedDecision> = said.map(|file| read(&file)).transpose()?;
    let problem = match (&left, config["problem_type"].as_str()) {
        _ if per_token => problem_type::TOKENS,
        (Some(_), _) if said.as_ref().is_some_and(|said| said.multi_label) => problem_type::MULTI_LABEL,
        (Some(labels), _) if labels.is_empty() => problem_type::REGRESSION,
        (Some(_), _) => problem_type::SINGLE_LABEL,
        (None, Some(problem)) => problem,
        (None, None) if outputs == 1 => problem_type::REGRESSION,
        (None, None) => problem_type::SINGLE_LABEL,
    };
    let (problem, numbered) = (problem.to_owned(), left.is_none() && outputs > 1);
    let named = config["id2label"].as_object().filter(|names| names.len() == outputs);
    let in_order = config["label_names"].as_array().filter(|names| names.len() == outputs); // timm's
    let name = |i: usize| {
        let name = named.map_or_else(|| in_order?.get(i), |named| named.get(&i.to_string()));
        name?.as_str().map(str::to_owned)
    };
    let labels = left.unwrap_or_else(|| match problem == problem_type::REGRESSION {
        true => Vec::new(),
        false => (0..outputs).map(|i| name(i).unwrap_or_else(|| format!("LABEL_{i}"))).collect(),
    });
    let decision = said.map_or_else(Decision::default, |said| match said.folded {
        true => Decision { temperature: 1.0, ..said.decision },
        false => said.decision,
    });
    Ok(Found { labels, numbered, problem, decision })
}

/// A JSON file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let wrong = |what: &dyn std::fmt::Display| Error::usage(format!("cannot read {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    serde_json::from_str(&text).map_err(|error| wrong(&error))
}

impl Found {
    /// The layer over the vocabulary of a language model.
    pub(super) fn of_language(says: LanguageModel) -> Self {
        let problem = match says {
            LanguageModel::Causal => problem_type::CAUSAL_LM,
            LanguageModel::Masked => problem_type::MASKED_LM,
            LanguageModel::Preference => problem_type::PREFERENCE,
        };
        Self { labels: Vec::new(), numbered: false, problem: problem.into(), decision: Decision::default() }
    }

    /// What compares two streams by matrices of the model's own.
    pub(super) fn of_comparison() -> Self {
        let problem = problem_type::CONTRASTIVE.into();
        Self { labels: Vec::new(), numbered: false, problem, decision: Decision::default() }
    }

    /// Chooses the plugin, where the command line has not, and checks options and fills in defaults as for any run file. Without its
    /// schedule, which has no part in what the model computes.
    pub(super) fn choose(&self, file: &mut RunFile, library: &mut Library) -> Result<()> {
        let head = &mut file.tasks[0].head.plugin;
        if head == UNDECIDED {
            *head = library.serving(MethodKind::TaskHead, &self.problem)?.1.name;
        }
        for (method, kind) in file.methods().filter(|(_, kind)| *kind != MethodKind::Scheduler) {
            let (_, info) = plugin_of(library, method, kind).map_err(|error| file.plugin_not_found(method, error))?;
            file.check_method(method, &info.config_schema)?;
        }
        file.fill_defaults(|kind, method| match kind {
            MethodKind::Scheduler => None,
            kind => Some(plugin_of(library, method, kind).ok()?.1.config_default),
        });
        Ok(())
    }

    /// The model with this head, whose parameters have their values from `restore`.
    pub(super) fn open(
        self,
        file: &RunFile,
        library: &mut Library,
        mut model: AdaptedModel,
        strategies: Vec<StrategyInstance>,
        restore: impl FnOnce(&AdaptedModel) -> Result<()>,
    ) -> Result<TrainedModel> {
        let Self { labels, numbered, decision, .. } = self;
        let counts = (vec![0; labels.len()], 0);
        let (head, spec) = methods::attach_head(file, 0, library, &mut model, labels.clone(), counts.clone())?;
        restore(&model)?;
        let task = &file.tasks[0];
        let tokenizer = base::tokenizer(file, task, &model)?;
        let transform = base::transform(file, task, &model)?;
        let info = model.model.info();
        let modalities = base::modalities(info, &base::of_task(file, task, info)?);
        let (name, form) = (task.name.clone(), task.form.clone());
        let task = TrainedTask {
            modalities,
            name,
            form,
            head,
            spec,
            labels,
            counts,
            numbered,
            tokenizer,
            transform,
            train: None,
            decision,
        };
        Ok(TrainedModel::new(file, model, strategies, vec![task], &library.files()))
    }
}
