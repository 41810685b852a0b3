//! From a run file to everything that a run needs: plugins opened, model and data loaded, strategies and heads attached.

pub mod demo;
mod digests;
mod fits;
pub mod from_data;
pub mod memory;
pub mod methods;
pub mod model;
pub mod phase;
pub mod plan;
pub mod rates;
mod reach;
pub mod samples;
mod schedule;
pub mod schedules;
pub mod start;
pub mod task;
mod whole_batch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use fthost_autograd::Precision;
use fthost_plugin_api::{FeatureKind, MethodKind, Sampling, TargetKind};
use tracing::subscriber::NoSubscriber;

use crate::adapted::kept::{Cut, Kept};
use crate::adapted::{AdaptedModel, ModelParameter, Owner};
use crate::data::{self, Dataset, Survey};
use crate::kernels;
use crate::plugin::{Library, RegularizerInstance, StrategyInstance};
use crate::report::numbers::count;
use crate::run::file::{HeldOut, Method, RegularizerTable, RunFile};
use crate::run::machine::DeviceChoice;
use crate::run::pass::{passed_by, reads_of, sight_of};
use crate::run::state::identity::{Identity, PluginUsed};
use crate::run::state::optimizer::Optimizer;
use crate::run::state::snapshot;
use crate::{Error, Result};
use methods::{attach_strategies, open_methods};
use model::{load_model, tokenizer, tokenizer_file};
use phase::Phase;
use plan::Plan;
use schedule::Schedule;
use schedules::Schedules;
use start::{Checksums, Start};
use task::{Task, TaskData};

/// Everything that a training needs.
pub(crate) struct Setup {
    /// The run file, with the strategies that the command line's plugins chose.
    pub(crate) file: RunFile,
    pub(crate) library: Library,
    pub(crate) model: AdaptedModel,
    pub(crate) tasks: Vec<Task>,
    pub(crate) phases: Vec<Phase>,
    pub(crate) strategies: Vec<StrategyInstance>,
    pub(crate) regularizers: Vec<RegularizerInstance>,
    pub(crate) schedules: Schedules,
    /// The same once more, which the plan asks for rates: those that train have then said nothing yet.
    drawn: Schedules,
    /// The update rule, which has updated nothing.
    pub(crate) optimizer: Optimizer,
    pub(crate) precision: Precision,
    /// How the model with its strategies starts.
    pub(crate) start: Start,
    /// Of the base parameters as they were loaded.
    pub(crate) checksums: Checksums,
    /// How examples are pooled, and who says so; `None` where no head reads them as a whole.
    pub(crate) pooling: Option<String>,
}

pub(in crate::run) fn set_up(file: RunFile, plugins: &[String], device: DeviceChoice) -> Result<Setup> {
    // Plugins first: a wrong option must not wait for a model to load.
    let (file, library) = open_methods(file, plugins)?;
    set_up_with(file, library, device)
}

/// As [`set_up`], with plugins that are open and options that were checked.
pub(crate) fn set_up_with(mut file: RunFile, mut library: Library, device: DeviceChoice) -> Result<Setup> {
    model::fetch(&mut file)?;
    let mut model = load_model(&file, device.open()?)?;
    let pooling = model::pooling_text(&file, &model);
    // The class's own way stays open: what is saved may hold a pooler that this folder lacks, or lack one that it holds.
    if !model.model.info().pools_as_its_class() {
        file.model.pools(model.model.info().plain().pooling);
    }
    let precision: Precision = file.train.precision.into();
    // Reading a tokenizer takes one core: the others pack meanwhile.
    let (checksums, tokenizer) =
        rayon::join(|| Checksums::prepare(&model, precision), || tokenizer(&file, &file.tasks[0], &model));
    let (checksums, mut tokenizer) = (checksums?, tokenizer?);
    let strategies = attach_strategies(&file, &mut library, &mut model)?;
    let mut claims = Vec::new();
    for (method, strategy) in file.strategies.iter().zip(&strategies) {
        claims.push((method.plugin.clone(), strategy.starts_at_base()?));
    }
    // Prompts shorten what fits: texts are read once strategies have attached.
    let load = |task| TaskData::load(&file, task, &model, tokenizer.as_mut());
    let data = file.tasks.iter().map(load).collect::<Result<Vec<_>>>()?;
    let pretrained = |device| load_model(&file, device);
    let start = Start::of(&mut model, &data[0].train, precision, &claims, pretrained)?;
    let mut tasks: Vec<Task> = Vec::new();
    for (i, data) in data.into_iter().enumerate() {
        let task = Task::set_up(&mut file, i, data, &tasks, &mut library, &mut model)?;
        tasks.push(task);
    }
    freeze_unread(&mut model, &tasks);
    if file.train.recompute {
        check_recompute(&file, &model)?;
        model.recompute = true;
    }
    whole_batch::check(&file, &tasks, &model)?;
    model.micro_batch = file.train.micro_batch;
    if file.train.keep_features {
        model.kept = Some(Arc::new(Kept::new(data::cache_folder())));
    }
    let pooling = tasks.iter().any(|task| task.spec.features == FeatureKind::Pooled).then_some(pooling);
    let samplers: Vec<_> = tasks.iter().map(|task| task.sampler(&file.train, file.train.accumulate)).collect();
    let phases = Phase::all(&file.train, &samplers);
    let regularizers = attach_regularizers(&file, &tasks, &mut library, &mut model)?;
    let schedules = Schedules::create(&file, &mut library, model.model.info())?;
    let drawn = Schedules::create(&file, &mut library, model.model.info())?;
    let optimizer = Optimizer::of(&file, &mut library)?;
    reach::check(&file, &tasks, &phases, (&schedules, optimizer.momentum()))?;
    Ok(Setup {
        file,
        library,
        model,
        tasks,
        phases,
        strategies,
        regularizers,
        schedules,
        drawn,
        optimizer,
        precision,
        start,
        checksums,
        pooling,
    })
}

/// What no head's features pass cannot learn: a pooler, where heads read every token.
fn freeze_unread(model: &mut AdaptedModel, tasks: &[Task]) {
    let reads: Vec<_> = tasks.iter().flat_map(|task| passed_by(&task.spec, model.model.info(), &task.train)).collect();
    let is_read = |p: &ModelParameter| p.owner != Owner::Base || reads.iter().any(|&read| model.passes(read, p));
    let unread: Vec<bool> = model.parameters.iter().map(|p| !is_read(p)).collect();
    for (p, unread) in model.parameters.iter_mut().zip(unread) {
        p.unread = unread;
        if unread {
            p.parameter.set_trainable(false);
        }
    }
}

/// Refuses to compute blocks once more where the model cannot.
fn check_recompute(file: &RunFile, model: &AdaptedModel) -> Result<()> {
    if model.model.recomputes() {
        return Ok(());
    }
    let message = format!("the blocks of a {} are not computed once more", model.model.info().model_type);
    let help = "leave it out: its norms and frozen blocks keep little as it is";
    Err(file.error_at("train.recompute", message, "asked for here", Some(help.into())))
}

fn attach_regularizers(
    file: &RunFile,
    tasks: &[Task],
    library: &mut Library,
    model: &mut AdaptedModel,
) -> Result<Vec<RegularizerInstance>> {
    let mut regularizers = Vec::new();
    for RegularizerTable { method, state } in &file.regularizers {
        let plugin = methods::plugin_of(library, method, MethodKind::Regularizer)?.0;
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
            (TargetKind::Preference, _) => Some((task, "says something of pairs of answers")),
            (TargetKind::Match, _) => Some((task, "gives embeddings")),
            (TargetKind::MultiLabel, _) => Some((task, "gives each class a probability of its own")),
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
    ///
    /// # Errors
    /// Examples that cannot be read.
    pub(in crate::run) fn plan(&self) -> Result<Plan> {
        let settings = &self.file.train;
        let Self { file, model, drawn: schedules, optimizer, .. } = self;
        let (phases, momentum) = (self.phases.iter().map(Phase::begin).collect(), optimizer.momentum());
        let run = rates::Run { file, model, schedules, phases, momentum };
        // What a schedule logs of a step that nobody takes is no matter of the run's: that it has heard of no evaluation by then.
        let rates = tracing::subscriber::with_default(NoSubscriber::default(), || run.rates())?;
        let schedule = Schedule {
            pooling: self.pooling.clone(),
            strategies: self.file.strategies.iter().map(Method::title).collect(),
            rates,
            tasks: self.tasks.iter().map(|task| task.name.clone()).collect(),
            steps_per_epoch: self.phases.iter().map(Phase::steps_per_epoch).sum(),
            steps: self.phases.iter().map(Phase::steps).sum(),
            batches: self.tasks.iter().map(|task| whole_batch::batch_of(task, &self.model, settings)).collect(),
            computed: whole_batch::computed(&self.tasks, &self.model, settings),
            episodes: self
                .tasks
                .iter()
                .filter_map(|task| Some((task.name.clone(), task.episodes.as_ref()?.shape)))
                .collect(),
            balance: self.tasks.iter().filter_map(Task::balance).collect(),
            files: self.tasks.iter().flat_map(Task::files).collect(),
            watched: self.tasks.iter().filter_map(Task::watched).collect(),
            from_data: self.tasks.iter().flat_map(|task| task.from_data.clone()).collect(),
            optimizer_bytes: self.optimizer.kept_bytes(&self.model)?,
            threads: rayon::current_num_threads(),
        };
        let data: Vec<&Dataset> = self.tasks.iter().map(|task| &task.train).collect();
        let evaluated = self.tasks.iter().flat_map(|task| task.validation.iter().chain(&task.test));
        let plan = Plan::new(&self.model, &data, &evaluated.collect::<Vec<_>>(), &schedule)?;
        Ok(Plan { notes: self.notes(), ..plan })
    }

    /// What was recognised in the tasks' files, each sentence once.
    pub(in crate::run) fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = Vec::new();
        for task in &self.tasks {
            let parts = || std::iter::once(&task.train).chain(&task.validation).chain(&task.test);
            for note in parts().flat_map(Dataset::notes) {
                if !notes.contains(note) {
                    notes.push(note.clone());
                }
            }
            if task.spec.reference && task.spec.targets == TargetKind::Preference {
                let pairs: usize = parts().map(Dataset::len).sum();
                notes.push(format!(
                    "{}: rewards are over the model as it is before step 1: one pass over all {} pairs comes first",
                    task.name,
                    count(pairs)
                ));
            }
            if let Some(transform) = task.train.transform() {
                let ops = transform.augment().names();
                let changed =
                    if ops.is_empty() { String::new() } else { format!("; changed in training: {}", ops.join(", ")) };
                notes.push(format!("{}: pictures of {}{changed}", task.name, transform.preprocess()));
                notes.extend(self.kept(task));
            }
            for (what, data) in [("validation", &task.validation), ("test", &task.test)] {
                let Some(data) = data.as_ref().filter(|data| data.cut_words() > 0) else { continue };
                let scored =
                    if data.outside().is_some() { ", and count as predicted O" } else { ", and are not scored" };
                let (words, texts) = (count(data.cut_words()), count(data.truncated()));
                notes.push(format!("{what}: the longest length cuts off words ({words} of {texts} texts){scored}"));
            }
        }
        notes
    }

    /// Where the way to a task's head is cut, where what frozen layers make of its examples can be kept.
    fn cut(&self, task: &Task) -> Option<Cut> {
        self.model.kept.as_ref()?;
        let info = self.model.model.info();
        if let Some(read) = sight_of(info, &task.train) {
            return Some(self.model.cut(read)?.0);
        }
        let reads = reads_of(&task.spec, info);
        // Of several streams: where all can be cut.
        let cuts: Option<Vec<Cut>> = reads.into_iter().map(|read| Some(self.model.cut(read)?.0)).collect();
        cuts?.first().copied()
    }

    /// Whether what frozen layers make of a task's examples can be kept, where these look the same each time.
    pub(in crate::run) fn keeps(&self, task: &Task) -> bool {
        self.cut(task).is_some()
    }

    /// What the frozen layers make of a task's pictures, where that is the same in each epoch, or why it is not.
    fn kept(&self, task: &Task) -> Option<String> {
        let (info, name) = (self.model.model.info(), &task.name);
        let below = match self.cut(task)? {
            Cut::Whole(_) if sight_of(info, &task.train).is_some() => "the layers that see pictures".to_owned(),
            Cut::Whole(_) => "all layers below the head".to_owned(),
            Cut::Above(groups) => format!("the layers up to {}", info.groups.get(groups - 1)?.name),
        };
        Some(match task.train.key(0) {
            Some(_) => format!("{name}: {below} are frozen: what they make of a picture is computed once and kept"),
            None => format!(
                "{name}: {below} are frozen, and run anew in each epoch, since training pictures are changed at random"
            ),
        })
    }

    /// What is in the data of each task.
    pub(in crate::run) fn surveys(&self) -> Result<Vec<Survey>> {
        let one = |task: &Task| {
            let parts = [
                ("training", Some(&task.train)),
                ("validation", task.validation.as_ref()),
                ("test", task.test.as_ref()),
            ];
            let parts: Vec<(&str, &Dataset)> =
                parts.into_iter().filter_map(|(name, data)| Some((name, data?))).collect();
            Survey::of(&task.name, &parts)
        };
        self.tasks.iter().map(one).collect()
    }

    /// What the run's numbers follow from.
    pub(in crate::run) fn identity(&self, device: DeviceChoice) -> Result<Identity> {
        let mut paths: Vec<PathBuf> = tokenizer_file(&self.file, &self.model).into_iter().collect();
        let settings = paths.iter().map(|path| path.with_file_name(data::TOKENIZER_SETTINGS));
        paths.extend(settings.filter(|path| path.is_file()).collect::<Vec<_>>());
        let earlier = self.file.regularizers.iter().filter_map(|table| table.state.as_deref());
        paths.extend(earlier.map(|folder| folder.join(snapshot::FINAL)));
        for task in &self.file.tasks {
            paths.extend(task.train.read()?);
            for files in [&task.test, &task.validation].into_iter().flatten().filter_map(HeldOut::files) {
                paths.extend(files.read()?);
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
            kernels: if device == DeviceChoice::Cpu { kernels::of(self.precision) } else { String::new() },
        })
    }
}
