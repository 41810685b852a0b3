//! From a run file to everything that a run needs: plugins opened, model and data loaded, strategies and heads attached.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fthost_autograd::{Device, Precision};
use fthost_models::{Encoder, Modality, Read};
use fthost_plugin_api::{HeadSpec, MethodKind, Sampling, TargetKind, TaskInfo};

use super::file::{Method, Offer, RegularizerTable, RunFile, TaskTable, Validation, split_argument};
use super::identity::Identity;
use super::phase::Phase;
use super::plan::{Plan, Schedule};
use super::proof::{self, Checksums, Start};
use super::result::PluginUsed;
use super::step::read_of;
use super::task::{Task, TaskData};
use super::{DeviceChoice, demo, snapshot};
use crate::adapted::{AdaptedModel, Owner};
use crate::data::{self, Dataset, Tokenizer};
use crate::plugin::{HeadInstance, Library, Plugin, RegularizerInstance, SchedulerInstance, Search, StrategyInstance};
use crate::{Error, Result};

/// Everything that a training needs.
pub(super) struct Setup {
    /// The run file, with the strategies that the command line's plugins chose.
    pub(super) file: RunFile,
    pub(super) library: Library,
    pub(super) model: AdaptedModel,
    pub(super) tasks: Vec<Task>,
    pub(super) phases: Vec<Phase>,
    pub(super) strategies: Vec<StrategyInstance>,
    pub(super) regularizers: Vec<RegularizerInstance>,
    pub(super) scheduler: SchedulerInstance,
    pub(super) precision: Precision,
    /// How the model with its strategies starts.
    pub(super) start: Start,
    /// Of the base parameters as they were loaded.
    pub(super) checksums: Checksums,
}

pub(super) fn set_up(file: RunFile, plugins: &[String], device: DeviceChoice) -> Result<Setup> {
    // Plugins first: a wrong option must not wait for a model to load.
    let (file, mut library) = open_methods(file, plugins)?;
    let mut model = load_model(&file, device.open()?)?;
    let precision: Precision = file.train.precision.into();
    // Reading a tokenizer takes one core: the others pack meanwhile.
    let (checksums, data) = rayon::join(
        || Checksums::prepare(&model, precision),
        || file.tasks.iter().map(|task| TaskData::load(&file, task, &model)).collect::<Result<Vec<_>>>(),
    );
    let (checksums, mut data) = (checksums?, data?);

    let base = proof::features(&model, &data[0].train, precision)?;
    let strategies = attach_strategies(&file, &mut library, &mut model)?;
    let mut claims = Vec::new();
    for (method, strategy) in file.strategies.iter().zip(&strategies) {
        claims.push((method.plugin.clone(), strategy.starts_at_base()?));
    }
    let start = Start::compare(&base, &proof::features(&model, &data[0].train, precision)?, &claims)?;

    let mut tasks = Vec::new();
    for (i, data) in data.drain(..).enumerate() {
        tasks.push(Task::set_up(&file, i, data, &mut library, &mut model)?);
    }
    freeze_unread(&model, &tasks);
    let samplers: Vec<_> = tasks.iter().map(|task| task.sampler(&file.train, file.train.accumulate)).collect();
    let phases = Phase::all(&file.train, &samplers);
    let regularizers = attach_regularizers(&file, &tasks, &mut library, &mut model)?;
    let schedule = &file.schedule;
    let scheduler = SchedulerInstance::create(
        &library.find(MethodKind::Scheduler, &schedule.plugin)?.0,
        &schedule.plugin,
        &schedule.config,
    )
    .map_err(|error| file.at_method(schedule, error))?;
    Ok(Setup { file, library, model, tasks, phases, strategies, regularizers, scheduler, precision, start, checksums })
}

/// Opens every plugin that the run file and the command line name, chooses strategies, and checks all options.
pub(super) fn open_methods(mut file: RunFile, plugins: &[String]) -> Result<(RunFile, Library)> {
    let mut library = Library::new(Search::from_environment());
    let opened =
        plugins.iter().map(|argument| library.open(split_argument(argument).0)).collect::<Result<Vec<Plugin>>>()?;
    let offers: Vec<Offer<'_>> = plugins
        .iter()
        .zip(&opened)
        .map(|(argument, plugin)| Offer { argument, methods: &plugin.info().methods })
        .collect();
    file.choose_strategies(&offers)?;
    for (method, kind) in file.methods() {
        let (_, info) = library.find(kind, &method.plugin).map_err(|error| file.plugin_not_found(method, error))?;
        file.check_method(method, &info.config_schema)?;
    }
    file.fill_defaults(|kind, name| Some(library.find(kind, name).ok()?.1.config_default));
    Ok((file, library))
}

/// The model that the run file names, nothing attached.
pub(super) fn load_model(file: &RunFile, device: Device) -> Result<AdaptedModel> {
    if !file.model.is_demo() && !file.model.path.is_dir() {
        let message = format!("there is no folder {}", file.model.path.display());
        let help = "a model folder holds config.json, model.safetensors and, for text, tokenizer.json; its path is relative to the run file's folder";
        return Err(file.error_at("model.path", message, "named here", Some(help.into())));
    }
    let encoder = if file.model.is_demo() {
        Encoder::from_parts(demo::CONFIG, demo::WEIGHTS, &device)?
    } else if file.model.random() {
        let path = file.model.path.join("config.json");
        let config = std::fs::read_to_string(&path).map_err(Error::io(format!("cannot read {}", path.display())))?;
        Encoder::random(&config, file.train.seed, &device)?
    } else {
        Encoder::open(&file.model.path, &device)?
    };
    let mut model = AdaptedModel::new(Box::new(encoder), device, file.train.seed);
    model.tasks = file.tasks.len();
    if let Some(path) = tokenizer_file(file, &model) {
        // Read when a plugin asks: few do.
        model.tokenize = Some(Box::new(move |text| Tokenizer::load(&path, usize::MAX)?.ids(text)));
    }
    Ok(model)
}

/// The tokenizer of a model that reads text.
pub(super) fn tokenizer_file(file: &RunFile, model: &AdaptedModel) -> Option<PathBuf> {
    let text = matches!(model.model.info().modality, Modality::Text { .. });
    text.then(|| file.model.path.join("tokenizer.json"))
}

/// The tokenizer with a task's longest text.
pub(super) fn tokenizer(file: &RunFile, task: &TaskTable, model: &AdaptedModel) -> Result<Option<Tokenizer>> {
    match (model.model.info().modality, tokenizer_file(file, model)) {
        (Modality::Text { max_tokens, .. }, Some(path)) => {
            let tokenizer = Tokenizer::load(&path, task.max_tokens.min(max_tokens));
            tokenizer.map(Some).map_err(|error| file.at_task(task, "max_tokens", error))
        }
        _ => Ok(None),
    }
}

/// Strategies freeze the base before heads add what always trains.
pub(super) fn attach_strategies(
    file: &RunFile,
    library: &mut Library,
    model: &mut AdaptedModel,
) -> Result<Vec<StrategyInstance>> {
    let mut strategies = Vec::new();
    for (i, method) in file.strategies.iter().enumerate() {
        let plugin = library.find(MethodKind::Strategy, &method.plugin)?.0;
        let strategy = StrategyInstance::create(&plugin, &method.plugin, &method.config);
        let mut strategy = strategy.map_err(|error| file.at_method(method, error))?;
        strategy.attach(model, i).map_err(|error| file.at_method(method, error))?;
        strategies.push(strategy);
    }
    Ok(strategies)
}

/// Makes a task's head for classes with these names and counts.
pub(super) fn attach_head(
    file: &RunFile,
    index: usize,
    library: &mut Library,
    model: &mut AdaptedModel,
    labels: Vec<String>,
    class_counts: Vec<u64>,
) -> Result<(HeadInstance, HeadSpec)> {
    let table = &file.tasks[index];
    let method: &Method = &table.head;
    let plugin = library.find(MethodKind::TaskHead, &method.plugin)?.0;
    let head = HeadInstance::create(&plugin, &method.plugin, &method.config);
    let mut head = head.map_err(|error| file.at_method(method, error))?;
    let info = model.model.info();
    let task = TaskInfo {
        name: table.name.clone(),
        labels,
        class_counts,
        width: info.width,
        hidden_activation: info.head.hidden.as_ref().map(|(_, activation)| activation.clone()),
        dropout: if file.train.dropout { f64::from(info.head.dropout_permille) / 1000.0 } else { 0.0 },
    };
    let spec = head.attach(&task, model, index).map_err(|error| file.at_method(method, error))?;
    Ok((head, spec))
}

/// What no head's features pass cannot learn: a pooler, where heads read every token.
fn freeze_unread(model: &AdaptedModel, tasks: &[Task]) {
    let base = model.trainable().filter(|p| p.owner == Owner::Base);
    let reads: Vec<Read> = tasks.iter().map(|task| read_of(task.spec.features)).collect();
    let unread = base.filter(|p| !reads.iter().any(|&read| model.model.passes(read, p.parameter.name())));
    unread.for_each(|p| p.parameter.set_trainable(false));
}

fn attach_regularizers(
    file: &RunFile,
    tasks: &[Task],
    library: &mut Library,
    model: &mut AdaptedModel,
) -> Result<Vec<RegularizerInstance>> {
    let mut regularizers = Vec::new();
    for RegularizerTable { method, state } in &file.regularizers {
        let plugin = library.find(MethodKind::Regularizer, &method.plugin)?.0;
        let regularizer = RegularizerInstance::create(&plugin, &method.plugin, &method.config);
        let mut regularizer = regularizer.map_err(|error| file.at_method(method, error))?;
        regularizer.attach(model).map_err(|error| file.at_method(method, error))?;
        if regularizer.needs_reference()? && (file.tasks.len() == 1 || file.joint()) {
            let error = Error::plugin(format!(
                "the regularizer {} holds what the heads of earlier tasks say, and no task comes before another",
                method.plugin
            ));
            let help = "give several [[task]] and train.tasks = \"sequence\", or choose another regularizer";
            return Err(file.at_method(method, error.with_help(help)));
        }
        let unfit = tasks.iter().find_map(|task| match (task.spec.targets, task.spec.sampling) {
            (TargetKind::TokenClass, _) => Some((task, "says something of each token")),
            (_, Sampling::Episodes { .. }) => Some((task, "gives embeddings")),
            _ => None,
        });
        if let (true, Some((task, says))) = (regularizer.needs_reference()?, unfit) {
            let error = Error::plugin(format!(
                "the regularizer {} holds what a head says of each example, and that of the task {} {says}",
                method.plugin, task.name
            ));
            return Err(file.at_method(method, error.with_help("choose another regularizer")));
        }
        if let Some(folder) = state {
            snapshot::load_earlier(folder, &method.plugin, &mut regularizer).map_err(|error| {
                let at = format!("{}.state", method.path);
                file.error_at(&at, error.to_string(), "of this run", None)
            })?;
        }
        regularizers.push(regularizer);
    }
    Ok(regularizers)
}

impl Setup {
    /// What the run will do.
    pub(super) fn plan(&self) -> Plan {
        let settings = &self.file.train;
        let schedule = Schedule {
            strategies: self.file.strategies.iter().map(|method| method.plugin.clone()).collect(),
            tasks: self.tasks.iter().map(|task| task.name.clone()).collect(),
            steps_per_epoch: self.phases.iter().map(Phase::steps_per_epoch).sum(),
            steps: self.phases.iter().map(Phase::steps).sum(),
            batch_size: self.tasks.iter().map(|task| task.pass_size(settings)).max().unwrap_or_default(),
            episodes: self
                .tasks
                .iter()
                .filter_map(|task| Some((task.name.clone(), task.episodes.as_ref()?.shape)))
                .collect(),
            moments: settings.optimizer.moments(),
            threads: rayon::current_num_threads(),
        };
        let data: Vec<&Dataset> = self.tasks.iter().map(|task| &task.train).collect();
        Plan::new(&self.model, &data, &schedule)
    }

    /// What the run's numbers follow from.
    pub(super) fn identity(&self, device: DeviceChoice) -> Result<Identity> {
        let mut paths: Vec<PathBuf> = tokenizer_file(&self.file, &self.model).into_iter().collect();
        let earlier = self.file.regularizers.iter().filter_map(|table| table.state.as_deref());
        paths.extend(earlier.map(|folder| folder.join(snapshot::FINAL)));
        for task in &self.file.tasks {
            paths.push(task.train.clone());
            paths.extend(task.test.clone());
            if let Some(Validation::File(path)) = &task.validation {
                paths.push(path.clone());
            }
        }
        let mut files = BTreeMap::new();
        for path in paths {
            files.insert(path.display().to_string(), data::fingerprint(&path)?);
        }
        Ok(Identity {
            fthost: env!("CARGO_PKG_VERSION").into(),
            run_file: self.file.to_toml(),
            plugins: self.library.plugins().iter().map(PluginUsed::from).collect(),
            model: self.checksums.digest(),
            files,
            device: device.to_string(),
        })
    }
}
