//! From a run file to everything that a run needs: plugins opened, model and data loaded, heads and strategies attached.

use std::path::{Path, PathBuf};

use fthost_autograd::{Device, Precision};
use fthost_models::{Encoder, Modality};
use fthost_plugin_api::{HeadSpec, MethodKind, TaskInfo};

use super::file::{Method, Offer, RunFile, split_argument};
use super::{DeviceChoice, demo};
use crate::adapted::AdaptedModel;
use crate::data::{self, Dataset, Part, Tokenizer};
use crate::plugin::{HeadInstance, Library, Plugin, RegularizerInstance, SchedulerInstance, Search, StrategyInstance};
use crate::{Error, Result};

/// Everything that a run needs.
pub(super) struct Setup {
    /// The run file, with the strategies that the command line's plugins chose.
    pub(super) file: RunFile,
    pub(super) library: Library,
    pub(super) model: AdaptedModel,
    pub(super) tasks: Vec<Task>,
    pub(super) strategies: Vec<StrategyInstance>,
    pub(super) regularizers: Vec<RegularizerInstance>,
    pub(super) scheduler: SchedulerInstance,
    pub(super) precision: Precision,
}

/// A task with its data and its head.
pub(super) struct Task {
    pub(super) name: String,
    pub(super) head: HeadInstance,
    pub(super) spec: HeadSpec,
    pub(super) train: Dataset,
    pub(super) test: Option<Dataset>,
    /// tokenizer.json, to be saved beside a whole model.
    pub(super) tokenizer_file: Option<PathBuf>,
}

pub(super) fn set_up(mut file: RunFile, plugins: &[String], device: DeviceChoice) -> Result<Setup> {
    // Plugins first: a wrong option must not wait for a model to load.
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

    let device = device.open()?;
    let mut model = AdaptedModel::new(Box::new(load_model(&file, &device)?), device, file.train.seed);

    model.tasks = file.tasks.len();
    if let Modality::Text { .. } = model.model.info().modality {
        let path = file.model.path.join("tokenizer.json");
        // Read when a plugin asks: few do.
        model.tokenize = Some(Box::new(move |text| Tokenizer::load(&path, usize::MAX)?.ids(text)));
    }

    // Strategies freeze the base before heads add what always trains.
    let mut strategies = Vec::new();
    for (i, method) in file.strategies.iter().enumerate() {
        let mut strategy = StrategyInstance::create(
            &library.find(MethodKind::Strategy, &method.plugin)?.0,
            &method.plugin,
            &method.config,
        )?;
        strategy.attach(&mut model, i).map_err(|error| file.at_method(method, error))?;
        strategies.push(strategy);
    }
    let mut tasks = Vec::new();
    for i in 0..file.tasks.len() {
        tasks.push(set_up_task(&file, i, &mut library, &mut model)?);
    }
    let mut regularizers = Vec::new();
    for method in &file.regularizers {
        let mut regularizer = RegularizerInstance::create(
            &library.find(MethodKind::Regularizer, &method.plugin)?.0,
            &method.plugin,
            &method.config,
        )?;
        regularizer.attach(&mut model).map_err(|error| file.at_method(method, error))?;
        if regularizer.needs_reference()? {
            let error = Error::plugin(format!(
                "the regularizer {} needs the outputs of the model as it was before training, which this host does not offer",
                method.plugin
            ));
            return Err(file.at_method(method, error));
        }
        regularizers.push(regularizer);
    }
    let schedule = &file.schedule;
    let scheduler = SchedulerInstance::create(
        &library.find(MethodKind::Scheduler, &schedule.plugin)?.0,
        &schedule.plugin,
        &schedule.config,
    )
    .map_err(|error| file.at_method(schedule, error))?;
    let precision = file.train.precision.into();
    Ok(Setup { file, library, model, tasks, strategies, regularizers, scheduler, precision })
}

/// The model that the run file names.
fn load_model(file: &RunFile, device: &Device) -> Result<Encoder> {
    if file.model.is_demo() {
        return Ok(Encoder::from_parts(demo::CONFIG, demo::WEIGHTS, device)?);
    }
    if !file.model.random() {
        return Ok(Encoder::open(&file.model.path, device)?);
    }
    let path = file.model.path.join("config.json");
    let config = std::fs::read_to_string(&path).map_err(Error::io(format!("cannot read {}", path.display())))?;
    Ok(Encoder::random(&config, file.train.seed, device)?)
}

fn set_up_task(file: &RunFile, index: usize, library: &mut Library, model: &mut AdaptedModel) -> Result<Task> {
    let table = &file.tasks[index];
    let modality = model.model.info().modality;
    let (tokenizer, tokenizer_file) = match modality {
        Modality::Text { max_tokens, .. } => {
            let path = file.model.path.join("tokenizer.json");
            (Some(Tokenizer::load(&path, table.max_tokens.min(max_tokens))?), Some(path))
        }
        Modality::Images { .. } => (None, None),
    };
    let device = model.device.clone();
    let load = |path: &Path, part: Part, labels: Option<&[String]>| {
        let source = data::Source { path, part, columns: &table.columns, labels, modality, device: &device };
        data::load(&source, tokenizer.as_ref())
    };
    let mut train = load(&table.train, Part::Train, None)?;
    let mut test = table.test.as_deref().map(|path| load(path, Part::Test, Some(train.labels()))).transpose()?;

    let method: &Method = &table.head;
    let plugin = library.find(MethodKind::TaskHead, &method.plugin)?.0;
    let mut head = HeadInstance::create(&plugin, &method.plugin, &method.config)?;
    let info = model.model.info();
    let task = TaskInfo {
        name: table.name.clone(),
        labels: train.labels().to_vec(),
        class_counts: train.class_counts(),
        width: info.width,
        hidden_activation: info.head.hidden.as_ref().map(|(_, activation)| activation.clone()),
        dropout: if file.train.dropout { f64::from(info.head.dropout_permille) / 1000.0 } else { 0.0 },
    };
    let spec = head.attach(&task, model, index).map_err(|error| file.at_method(method, error))?;
    for data in std::iter::once(&mut train).chain(&mut test) {
        data.set_targets(spec.targets)?;
    }
    Ok(Task { name: table.name.clone(), head, spec, train, test, tokenizer_file })
}
