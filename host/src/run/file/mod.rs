//! The run file: what to train, on what, how.
//!
//! A TOML file, read in three steps: its text becomes a document whose values keep their places; values that the command
//! line sets ([`Override`]) are put in; the tables are checked against their schema and resolved, every default filled in. The
//! options of methods are checked later, by [`RunFile::check_method`], when their plugins are open. Each error points at a
//! place in the file or in the argument that is to blame.

mod acts;
mod choose;
mod document;
mod effect;
mod files;
mod overrides;
mod plugin_files;
mod reference;
mod schedules;
mod schema;
mod tables;
mod unnamed;
mod words;
mod write;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use fthost_plugin_api::MethodKind;
use fthost_plugin_api::schemars::schema_for;
use serde_json::Value as Json;

use crate::data::LanguageModel;
pub use crate::plugin::search::split_argument;
pub use choose::Offer;
pub use overrides::Override;
pub use reference::{OptionHelp, Section, options_of, schema, sections};
pub use tables::{
    BatchNorm, Drawn, HeldOut, Method, ModelInit, ModelTable, Optimizer, PoolingKey, Precision, RegularizerTable,
    RunTable, Sampling, SplitKeys, StreamTable, TaskOrder, TaskTable, Threshold, TrainTable, task_and_metric,
};

use crate::hub::Name;
use crate::{Error, Result};
use document::{Document, Node, Value};
use files::absolute;
use schema::Checker;
use tables::{
    BestKey, DEMO, HeadKeys, Keys, ModelKeys, OptimizerKey, OptimizerName, RegularizerKeys, Share, SharedHead,
    StrategyKeys, TaskKeys, ThresholdKey, TrainKeys,
};

/// Passes over the training examples where a run file names neither epochs nor steps.
const EPOCHS: u64 = 3;
/// Examples in a batch where nothing else is said.
const BATCH_SIZE: usize = 16;

/// What runs where no run file is named.
const DEMO_TEXT: &str = include_str!("../../../assets/demo.toml");

/// A run file with every default filled in. Two are equal where they would run the same.
#[derive(Clone, Debug)]
pub struct RunFile {
    /// The pretrained model.
    pub model: ModelTable,
    /// What is learned; at least one.
    pub tasks: Vec<TaskTable>,
    /// What trains, in order. [`choose_strategies`](Self::choose_strategies) adds the command line's.
    pub strategies: Vec<Method>,
    /// What is added to the loss, in order.
    pub regularizers: Vec<RegularizerTable>,
    /// The learning rate of each step: one for all parameters, or one for each of some streams and, in any place, one of no stream for
    /// all others.
    pub schedules: Vec<Method>,
    /// How training goes.
    pub train: TrainTable,
    /// The run's name and folder.
    pub run: RunTable,
    /// What the model says, where a head is over its vocabulary: its plugin tells.
    pub language: Option<LanguageModel>,
    /// The values with their places.
    document: Document,
    /// Options that the command line sets for a strategy that only its plugins name.
    unnamed: Vec<Node>,
}

impl PartialEq for RunFile {
    fn eq(&self, other: &Self) -> bool {
        self.model == other.model
            && self.tasks == other.tasks
            && self.strategies == other.strategies
            && self.regularizers == other.regularizers
            && self.schedules == other.schedules
            && self.train == other.train
            && self.run == other.run
    }
}

impl RunFile {
    /// Reads a run file. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// Where it cannot be read, or anything in it or in the overrides is wrong.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::Usage {
            message: format!("cannot read the run file {}: {error}", path.display()),
            help: Some(
                "a run file is TOML and begins with [model]; without one, --plugin runs the embedded demo".into(),
            ),
        })?;
        Self::parse(&text, path, overrides)
    }

    /// Reads a run folder's own copy, whose paths are absolute: those of the overrides start from the working directory.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn reopen(path: &Path, overrides: &[Override]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(format!("cannot read {}", path.display())))?;
        Self::reopen_text(&text, path, overrides)
    }

    /// As [`reopen`](Self::reopen), from the text that the file at `path` holds.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn reopen_text(text: &str, path: &Path, overrides: &[Override]) -> Result<Self> {
        let document = Document::parse(&path.display().to_string(), text)?;
        Self::resolve(document, Path::new(""), &path.file_stem().unwrap_or_default().to_string_lossy(), overrides)
    }

    /// As [`load`](Self::load), from the text of the file at `path`, which need not exist.
    ///
    /// # Errors
    /// Where anything in the text or in the overrides is wrong.
    pub fn parse(text: &str, path: &Path, overrides: &[Override]) -> Result<Self> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::resolve(Document::parse(&path.display().to_string(), text)?, folder, &stem, overrides)?.where_all_acts()
    }

    /// The embedded demo.
    ///
    /// # Errors
    /// Where anything in the overrides is wrong.
    pub fn demo(overrides: &[Override]) -> Result<Self> {
        Self::resolve(Document::parse("the embedded demo", DEMO_TEXT)?, Path::new(""), DEMO, overrides)?
            .where_all_acts()
    }

    fn resolve(mut document: Document, folder: &Path, name: &str, overrides: &[Override]) -> Result<Self> {
        for set in overrides {
            set.apply(&mut document)?;
        }
        let unnamed = unnamed::take_unnamed(&mut document);
        let schema = schema_for!(Keys).to_value();
        let checker = Checker { document: &document, root: &schema, method: None };
        checker
            .check(&document.root, &schema, "")
            .map_err(|problem| document.error(problem.at, problem.message, problem.label, problem.help))?;
        schedules::in_one_form(&mut document);
        let mut files = plugin_files::take(&mut document, folder)?;
        let Keys { model, task, strategy, regularizer, schedule, train, run } =
            serde_json::from_value(document.root.to_json())
                .map_err(|error| document.error(document.root.at, error.to_string(), "in this file", None))?;

        let name = run.name.unwrap_or_else(|| name.to_owned());
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            let message = format!("the run cannot be named {name:?}");
            return Err(document.error(
                document.place("run.name"),
                message,
                "names a folder",
                Some("use letters, digits and -".into()),
            ));
        }
        let strategies = strategy.into_iter().enumerate();
        let regularizers = regularizer.into_iter().enumerate();
        let (path, named, streams) = models(&document, folder, &model)?;
        let tasks = tasks(&document, folder, task)?;
        acts::watched_by_something(&document, &tasks)?;
        acts::mixed_by_something(&document, &tasks, &train)?;
        // How much earlier tasks help one is measured from there.
        let in_sequence = tasks.len() > 1 && train.tasks == TaskOrder::Sequence;
        let compares = in_sequence && tasks.iter().any(|task| task.test.is_some());
        let mut resolved = Self {
            model: ModelTable {
                path,
                named,
                streams,
                init: model.init,
                pooling: model.pooling,
                normalize: model.normalize,
                image: model.image,
                quantize: model.quantize,
            },
            tasks,
            strategies: strategies.map(|(i, keys)| strategy_table(i, keys)).collect(),
            regularizers: regularizers.map(|(i, keys)| regularizer_table(folder, i, keys)).collect::<Result<_>>()?,
            schedules: schedules::resolved(&document, schedule)?,
            train: train_table(&document, train, compares)?,
            run: RunTable {
                out: run.out.map_or_else(|| Path::new("runs").join(&name), PathBuf::from),
                name,
                probabilities: run.probabilities,
            },
            language: None,
            document,
            unnamed,
        };
        for (method, _) in resolved.methods_mut() {
            method.file = files.remove(&method.path);
        }
        Ok(resolved)
    }

    /// The run's folder, relative to the working directory.
    pub fn run_folder(&self) -> PathBuf {
        self.run.out.clone()
    }

    /// Do several tasks train jointly?
    pub fn joint(&self) -> bool {
        self.tasks.len() > 1 && self.train.tasks == TaskOrder::Joint
    }

    /// Every method that the run needs.
    pub fn methods(&self) -> impl Iterator<Item = (&Method, MethodKind)> {
        let strategies = self.strategies.iter().map(|method| (method, MethodKind::Strategy));
        let regularizers = self.regularizers.iter().map(|table| (&table.method, MethodKind::Regularizer));
        let heads = self.tasks.iter().filter(|task| task.head_of.is_none());
        let heads = heads.map(|task| (&task.head, MethodKind::TaskHead));
        let optimizer = match &self.train.optimizer {
            Optimizer::Plugin(method) => Some((method, MethodKind::Optimizer)),
            _ => None,
        };
        let schedules = self.schedules.iter().map(|method| (method, MethodKind::Scheduler));
        strategies.chain(regularizers).chain(schedules).chain(optimizer).chain(heads)
    }

    /// As [`methods`](Self::methods), to change them.
    pub fn methods_mut(&mut self) -> impl Iterator<Item = (&mut Method, MethodKind)> {
        let strategies = self.strategies.iter_mut().map(|method| (method, MethodKind::Strategy));
        let regularizers = self.regularizers.iter_mut().map(|table| (&mut table.method, MethodKind::Regularizer));
        let heads = self.tasks.iter_mut().filter(|task| task.head_of.is_none());
        let heads = heads.map(|task| (&mut task.head, MethodKind::TaskHead));
        let optimizer = match &mut self.train.optimizer {
            Optimizer::Plugin(method) => Some((method, MethodKind::Optimizer)),
            _ => None,
        };
        let schedules = self.schedules.iter_mut().map(|method| (method, MethodKind::Scheduler));
        strategies.chain(regularizers).chain(schedules).chain(optimizer).chain(heads)
    }

    /// Checks a method's options against its plugin's schema.
    ///
    /// # Errors
    /// At the option that is unknown, of the wrong type or out of range, or at the method that lacks one.
    pub fn check_method(&self, method: &Method, schema: &Json) -> Result<()> {
        let mut options = self
            .document
            .find(&method.path)
            .cloned()
            .unwrap_or(Node { value: Value::Table(Vec::new()), at: self.document.place(&method.path) });
        if let Value::Table(entries) = &mut options.value {
            let own = Self::own_keys(self.kind_of(method));
            entries.retain(|entry| !own.contains(&entry.key.as_str()));
        }
        let named = Some(format!("{} {:?}", self.kind_of(method), method.plugin));
        Checker { document: &self.document, root: schema, method: named }
            .check(&options, schema, "")
            .map_err(|problem| self.document.error(problem.at, problem.message, problem.label, problem.help))
    }

    /// The keys of a method's table that are the run file's own and no options of the plugin.
    fn own_keys(kind: MethodKind) -> &'static [&'static str] {
        match kind {
            MethodKind::Strategy | MethodKind::Scheduler => &["plugin", "stream"],
            MethodKind::Regularizer => &["plugin", "state"],
            MethodKind::TaskHead | MethodKind::Optimizer => &["plugin"],
        }
    }

    /// Writes the defaults of methods into their options, so that [`to_toml`](Self::to_toml) shows all of them. `default` gives
    /// a method's `config_default`.
    pub fn fill_defaults(&mut self, mut default: impl FnMut(MethodKind, &Method) -> Option<Json>) {
        let mut fill = |kind: MethodKind, method: &mut Method| {
            let (Some(Json::Object(defaults)), Json::Object(options)) = (default(kind, method), &mut method.config)
            else {
                return;
            };
            for (key, value) in defaults {
                // TOML has no null: an option without a value is left out.
                if !value.is_null() {
                    options.entry(key).or_insert(value);
                }
            }
        };
        self.strategies.iter_mut().for_each(|method| fill(MethodKind::Strategy, method));
        self.regularizers.iter_mut().for_each(|table| fill(MethodKind::Regularizer, &mut table.method));
        self.schedules.iter_mut().for_each(|method| fill(MethodKind::Scheduler, method));
        if let Optimizer::Plugin(method) = &mut self.train.optimizer {
            fill(MethodKind::Optimizer, method);
        }
        self.tasks.iter_mut().for_each(|task| fill(MethodKind::TaskHead, &mut task.head));
    }

    /// An error at a key's value, or at the table around it where the key is not in the file: `train.lr`, `task[0].head`.
    pub fn error_at(
        &self,
        path: &str,
        message: impl Into<String>,
        label: impl Into<String>,
        help: Option<String>,
    ) -> Error {
        self.document.error(self.document.place(path), message, label, help)
    }

    /// A method that no plugin has, or whose plugin cannot be opened: the error at the method's name.
    pub fn plugin_not_found(&self, method: &Method, error: Error) -> Error {
        if self.document.find(&method.path).is_none() {
            let table = if method.path == "schedule" { "[schedule]" } else { "a [[schedule]] that names no stream" };
            return error.with_help(format!("{:?} is what a run file without {table} uses", method.plugin));
        }
        self.place(&format!("{}.plugin", method.path), error, "named here")
    }

    /// An error of a method's plugin, at the method.
    pub fn at_method(&self, method: &Method, error: Error) -> Error {
        if self.document.find(&method.path).is_none() {
            return error;
        }
        self.place(&format!("{}.plugin", method.path), error, &format!("this {}", self.kind_of(method)))
    }

    /// An error of a method's plugin, at the option that it names first; at the method where it names none.
    pub fn at_option(&self, method: &Method, error: Error) -> Error {
        let said = error.to_string();
        let place = |name: &str| said.split(|c: char| !c.is_alphanumeric() && c != '_').position(|word| word == name);
        let options = self.document.find(&method.path).and_then(Node::entries).unwrap_or_default();
        let named = options.iter().filter(|entry| entry.key != "plugin");
        match named.filter_map(|entry| Some((place(&entry.key)?, &entry.key))).min() {
            Some((_, option)) => self.place(&format!("{}.{option}", method.path), error, "this option"),
            None => self.at_method(method, error),
        }
    }

    /// An error about a key of a task, at the key.
    pub fn at_task(&self, task: &TaskTable, key: &str, error: Error) -> Error {
        let index = self.tasks.iter().position(|other| other.name == task.name).unwrap_or_default();
        self.place(&format!("task[{index}].{key}"), error, "this task")
    }

    /// Gives a plugin's error a place; an error that has one, or is of the system, stays as it is.
    fn place(&self, path: &str, error: Error, label: &str) -> Error {
        match error {
            Error::Plugin { message, help } | Error::Usage { message, help } => {
                self.error_at(path, message, label, help)
            }
            other => other,
        }
    }

    fn kind_of(&self, method: &Method) -> MethodKind {
        let found = self.methods().find(|(known, _)| known.path == method.path);
        found.map_or(MethodKind::Strategy, |(_, kind)| kind)
    }
}

fn strategy_table(index: usize, StrategyKeys { stream, method: keys }: StrategyKeys) -> Method {
    Method { stream, ..keys.at(format!("strategy[{index}]")) }
}

fn regularizer_table(folder: &Path, index: usize, keys: RegularizerKeys) -> Result<RegularizerTable> {
    Ok(RegularizerTable {
        method: keys.method.at(format!("regularizer[{index}]")),
        state: keys.state.map(|path| absolute(folder, &path, &[])).transpose()?,
    })
}

/// A model, by the key that names it.
fn model_at(document: &Document, folder: &Path, key: &str, path: &str) -> Result<(PathBuf, Option<Name>)> {
    match Name::of_path(Path::new(path)) {
        None => Ok((absolute(folder, path, &[DEMO])?, None)),
        Some(name) => {
            let help = "hf:organisation/model, with @revision where it is another than main";
            let at = document.place(key);
            let name = name.map_err(|message| document.error(at, message, "named here", Some(help.into())))?;
            Ok((PathBuf::from(name.to_string()), Some(name)))
        }
    }
}

/// The model, or those that are joined, of which the first stands for its path.
fn models(document: &Document, folder: &Path, keys: &ModelKeys) -> Result<(PathBuf, Option<Name>, Vec<StreamTable>)> {
    let wrong = |key: &str, message: &str, label: &str, help: &str| {
        document.error(document.place(key), message, label, Some(help.into()))
    };
    let names_one =
        "path names a model's folder; streams = { text = \"FOLDER\", image = \"FOLDER\" } two that are joined";
    let streams = match (&keys.path, &keys.streams) {
        (Some(path), None) => {
            let (path, named) = model_at(document, folder, "model.path", path)?;
            return Ok((path, named, Vec::new()));
        }
        (None, Some(streams)) => streams,
        (None, None) => return Err(wrong("model", "model.path is missing", "path is missing here", names_one)),
        (Some(_), Some(_)) => {
            return Err(wrong(
                "model.streams",
                "model.path and model.streams both name the model",
                "beside path",
                names_one,
            ));
        }
    };
    if keys.init == ModelInit::Random {
        let help = "leave init out, or name a folder that was saved with random weights";
        return Err(wrong(
            "model.init",
            "models that are joined begin with the weights of their folders",
            "does nothing",
            help,
        ));
    }
    let one = |(name, path): (&str, &String)| {
        let key = format!("model.streams.{name}");
        let (path, named) = model_at(document, folder, &key, path)?;
        if path.as_os_str() == DEMO {
            let help = "name a folder: the embedded model is run by itself, path = \"demo\"";
            return Err(wrong(&key, "the embedded model is joined with none", "named here", help));
        }
        Ok(StreamTable { name: name.to_owned(), path, named })
    };
    let streams =
        [("text", &streams.text), ("image", &streams.image)].into_iter().map(one).collect::<Result<Vec<_>>>()?;
    Ok((streams[0].path.clone(), None, streams))
}

fn tasks(document: &Document, folder: &Path, keys: Vec<TaskKeys>) -> Result<Vec<TaskTable>> {
    let count = keys.len();
    let mut tasks: Vec<TaskTable> = Vec::with_capacity(count);
    for (i, mut task) in keys.into_iter().enumerate() {
        let at = document.place(&format!("task[{i}].name"));
        let name = match task.name.take() {
            Some(name) => name,
            None if count == 1 => "task".into(),
            None => {
                let message = format!("task[{i}].name is missing: there are {count} tasks");
                return Err(document.error(
                    at,
                    message,
                    "name is missing here",
                    Some("name: tells the tasks' results apart".into()),
                ));
            }
        };
        if name.contains(['/', '.']) {
            let help = "the names of its parameters and files begin with it: use letters, digits, - and _";
            return Err(document.error(
                at,
                format!("a task cannot be named {name:?}"),
                "has a / or a dot",
                Some(help.into()),
            ));
        }
        if tasks.iter().any(|other| other.name == name) {
            let help = "each task needs a name of its own";
            return Err(document.error(at, format!("two tasks are named {name:?}"), "named before", Some(help.into())));
        }
        let form = files::form(document, folder, i, &task)?;
        let [test, validation] = files::held_out(document, folder, i, &task)?;
        let set_aside = files::set_aside(document, i, &task)?;
        let train = files::files(document, folder, &format!("task[{i}].train"), task.train)?;
        let (head, shared) = match task.head {
            HeadKeys::Own(keys) => (keys.at(format!("task[{i}].head")), None),
            HeadKeys::Shared(shared) => {
                let owner = head_of(document, i, &tasks, &shared)?;
                (tasks[owner].head.clone(), Some(owner))
            }
        };
        tasks.push(TaskTable {
            name,
            head,
            head_of: shared,
            stream: task.stream,
            form,
            train,
            test,
            validation,
            set_aside,
            split: task.split,
            samples: task.samples,
            permute_pixels: task.permute_pixels,
            max_tokens: task.max_tokens,
            augment: task.augment,
            balance: task.balance,
            weight: task.weight.unwrap_or(1.0),
        });
        acts::header_of_something(document, i, &tasks[i])?;
        acts::samples_of_something(document, i, &tasks[i])?;
    }
    Ok(tasks)
}

/// The place of the task above that a head is taken from: that whose head it is itself.
fn head_of(document: &Document, index: usize, above: &[TaskTable], shared: &SharedHead) -> Result<usize> {
    if let Some(place) = above.iter().position(|task| task.name == shared.task) {
        return Ok(above[place].head_of.unwrap_or(place));
    }
    let names: Vec<String> = above.iter().map(|task| format!("{:?}", task.name)).collect();
    let help = match names.as_slice() {
        [] => "it is the first task: give it a head of its own, { plugin = \"classification\" }".to_owned(),
        names => format!("above it are {}", names.join(", ")),
    };
    let path = format!("task[{index}].head.task");
    let message = format!("no task above is named {:?}", shared.task);
    Err(document.error(document.place(&path), message, "is not above", Some(help)))
}

/// `evaluate_before`: whether test examples are evaluated before training where nothing is said.
fn train_table(document: &Document, keys: TrainKeys, evaluate_before: bool) -> Result<TrainTable> {
    if keys.batch_size.is_some() && keys.batch_tokens.is_some() {
        return Err(document.error(
            document.place("train.batch_tokens"),
            "train.batch_tokens and train.batch_size both say how much a batch holds",
            "beside batch_size",
            Some("take one of them out".into()),
        ));
    }
    acts::of_the_optimizer(document, &keys.optimizer)?;
    let betas = keys.betas.unwrap_or([0.9, 0.999]);
    if let Some(i) = betas.iter().position(|beta| !(0.0..1.0).contains(beta)) {
        let path = format!("train.betas[{i}]");
        let message = format!("{path} must be at least 0 and below 1, and is {}", betas[i]);
        return Err(document.error(document.place(&path), message, "must be at least 0 and below 1", None));
    }
    let momentum = keys.momentum.unwrap_or(0.0);
    let nesterov = keys.nesterov.unwrap_or(false);
    if nesterov && momentum == 0.0 {
        let help = Some("set train.momentum = 0.9".into());
        return Err(document.error(
            document.place("train.nesterov"),
            "train.nesterov needs a momentum, and there is none",
            "needs a momentum",
            help,
        ));
    }
    let eps = keys.eps.unwrap_or(1e-8);
    let (optimizer, weight_decay) = match keys.optimizer {
        OptimizerKey::Name(OptimizerName::Adamw) => (Optimizer::AdamW { betas, eps }, 0.01),
        OptimizerKey::Name(OptimizerName::Adam) => (Optimizer::Adam { betas, eps }, 0.0),
        OptimizerKey::Name(OptimizerName::Sgd) => (Optimizer::Sgd { momentum, nesterov }, 0.0),
        OptimizerKey::Plugin(keys) => (Optimizer::Plugin(keys.at("train.optimizer".into())), 0.0),
    };
    Ok(TrainTable {
        epochs: keys.epochs.or(if keys.steps.is_some() { None } else { Some(EPOCHS) }),
        steps: keys.steps,
        tasks: keys.tasks,
        sampling: keys.sampling,
        batch_size: keys.batch_size.unwrap_or(BATCH_SIZE),
        batch_tokens: keys.batch_tokens,
        group_by_length: keys.group_by_length,
        accumulate: keys.accumulate,
        micro_batch: keys.micro_batch,
        lr: keys.lr,
        optimizer,
        weight_decay: keys.weight_decay.unwrap_or(weight_decay),
        decay_biases_and_norms: keys.decay_biases_and_norms,
        clip_norm: keys.clip_norm,
        clip_value: keys.clip_value,
        precision: keys.precision,
        seed: keys.seed,
        dropout: keys.dropout,
        batch_norm: keys.batch_norm,
        evaluate_before: keys.evaluate_before.unwrap_or(evaluate_before),
        evaluate_steps: keys.evaluate_steps,
        monitor: keys.monitor,
        calibrate: keys.calibrate,
        threshold: keys.threshold.map(|key| match key {
            ThresholdKey::At(Share(threshold)) => Threshold::At(threshold),
            ThresholdKey::Best(BestKey::F1) => Threshold::BestF1,
        }),
        patience: keys.patience,
        min_delta: keys.min_delta,
        checkpoint_steps: keys.checkpoint_steps,
        keep_checkpoints: keys.keep_checkpoints,
        keep_features: keys.keep_features,
        recompute: keys.recompute,
        threads: keys.threads,
    })
}
