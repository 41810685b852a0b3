//! A method at work: in a run file of its stage, set up, trained and evaluated by what a run does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use fthost_autograd::Tape;
use fthost_plugin_api::{MethodInfo, MethodKind, Sampling};
use serde_json::{Map, Value as Json};

use super::options;
use super::outcome::MethodName;
use super::stage::{self, Stage};
use super::subject::Subject;
use crate::data::Shown;
use crate::plugin::{
    HeadInstance, Library, OptimizerInstance, Plugin, RegularizerInstance, SchedulerInstance, Search, Stateful,
    StrategyInstance,
};
use crate::run::file::{Method, RunFile};
use crate::run::pass::Pass;
use crate::run::results::result::Summary;
use crate::run::setup::{Setup, methods, set_up_with};
use crate::run::state::folder::Place;
use crate::run::train::preferences;
use crate::run::{DeviceChoice, Output, Way, carry_out};
use crate::{Error, Result};

/// The stage that was chosen in this process, where none was known.
static CHOSEN: OnceLock<&'static str> = OnceLock::new();

/// The stage that was chosen in this process.
pub(super) fn chosen() -> Option<&'static str> {
    CHOSEN.get().copied()
}

/// Steps that are taken of a run file that the author gives.
const STEPS: i64 = 12;

/// A method with the run file in which it is tried.
#[derive(Debug)]
pub(super) struct Bench {
    /// Everything in it is checked.
    pub(super) file: RunFile,
    pub(super) library: Library,
    pub(super) method: MethodName,
    /// The plugin that is tried.
    pub(super) plugin: Plugin,
    /// The run file before it was read, and the path that its own paths start from.
    table: toml::Table,
    base: PathBuf,
}

/// What a run left.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) summary: Summary,
    pub(super) folder: PathBuf,
}

impl Bench {
    /// Opens the plugin and puts its method into the run file of its stage. Where that is not known, the first stage that fits is it.
    ///
    /// # Errors
    /// What is wrong with the plugin, its options or the run file; of several stages of which none fits, what the first says.
    pub(super) fn new(subject: &Subject) -> Result<Self> {
        let MethodName { kind, .. } = subject.method()?;
        if subject.run.is_some() {
            return Self::on(subject, None);
        }
        if let Some(stage) = subject.stage.as_deref().and_then(stage::named) {
            return Self::on(subject, Some(stage));
        }
        let mut first = None;
        for stage in stage::of(*kind) {
            let tried = Self::on(subject, Some(stage)).and_then(|bench| bench.set_up().map(|_| bench));
            match tried {
                Ok(bench) => {
                    // Who asks twice has the same.
                    let _ = CHOSEN.set(stage.name);
                    return Ok(bench);
                }
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        Err(first.unwrap_or_else(|| Error::usage(format!("there is no stage for a {kind}"))))
    }

    fn on(subject: &Subject, stage: Option<&Stage>) -> Result<Self> {
        let method = subject.method()?;
        let mut library = Library::new(Search::from_environment());
        let plugin = library.open(&subject.file.display().to_string())?;
        let info = plugin.method(method.kind, &method.name)?.clone();
        let (text, base) = match (stage, &subject.run) {
            (Some(stage), _) => {
                let base = subject.folder.join("run.toml");
                if !base.exists() {
                    stage.write(&subject.folder)?;
                }
                (stage.run.to_owned(), base)
            }
            (None, Some(run)) => {
                let failed = Error::io(format!("cannot read the run file {}", run.display()));
                (fs::read_to_string(run).map_err(failed)?, run.clone())
            }
            (None, None) => return Err(Error::usage("there is neither a stage nor a run file")),
        };
        let mut table: toml::Table =
            text.parse().map_err(|error| Error::usage(format!("{} does not read: {error}", base.display())))?;
        if subject.run.is_some() {
            shorten(&mut table);
        }
        let mut options = options::needed(&info);
        let sets = subject.sets.iter().filter(|set| set.is_for(&method.name, &info.config_schema));
        options.extend(sets.map(|set| (set.option.clone(), set.value.clone())));
        put(&mut table, method, &options)?;
        // A regularizer may belong to the strategy of its file that has its name, and have nothing to do beside another.
        let strategy = MethodName { kind: MethodKind::Strategy, name: method.name.clone() };
        if method.kind == MethodKind::Regularizer && plugin.method(strategy.kind, &strategy.name).is_ok() {
            put(&mut table, &strategy, &Map::new())?;
        }
        Self::read(table, base, library, method.clone(), plugin)
    }

    fn read(table: toml::Table, base: PathBuf, library: Library, method: MethodName, plugin: Plugin) -> Result<Self> {
        let text = toml::to_string(&table).map_err(|error| Error::usage(format!("the run file is none: {error}")))?;
        let (file, library) = methods::checked(RunFile::parse(&text, &base, &[])?, library)?;
        Ok(Self { file, library, method, plugin, table, base })
    }

    /// What the plugin says of the method.
    pub(super) fn info(&self) -> Result<MethodInfo> {
        self.plugin.method(self.method.kind, &self.method.name).cloned()
    }

    /// The same with other options of the method.
    ///
    /// # Errors
    /// Where the host refuses them.
    pub(super) fn with(&self, options: &Map<String, Json>) -> Result<Self> {
        let mut table = self.table.clone();
        put(&mut table, &self.method, options)?;
        Self::read(table, self.base.clone(), self.library.clone(), self.method.clone(), self.plugin.clone())
    }

    /// The same for two steps, where a run may be so short.
    pub(super) fn short(&self) -> Result<Self> {
        let mut table = self.table.clone();
        if let Some(train) = table.get_mut("train").and_then(toml::Value::as_table_mut) {
            train.remove("epochs");
            train.insert("steps".into(), toml::Value::Integer(2));
            train.insert("checkpoint_steps".into(), toml::Value::Integer(1));
        }
        let again = |table: toml::Table| {
            Self::read(table, self.base.clone(), self.library.clone(), self.method.clone(), self.plugin.clone())
        };
        let short = again(table)?;
        // Some options need a longer run than that.
        if short.set_up().is_ok() { Ok(short) } else { again(self.table.clone()) }
    }

    /// The method's options, defaults filled in.
    pub(super) fn options(&self) -> Json {
        let wanted =
            |(method, kind): &(&Method, MethodKind)| *kind == self.method.kind && method.plugin == self.method.name;
        let found = self.file.methods().find(wanted);
        found.map_or_else(|| Json::Object(Map::new()), |(method, _)| method.config.clone())
    }

    /// Everything that a training needs, before its first step.
    pub(super) fn set_up(&self) -> Result<Setup> {
        let mut setup = set_up_with(self.file.clone(), self.library.clone(), DeviceChoice::Cpu)?;
        preferences::compute(&setup.model, &mut setup.tasks, setup.precision, false)?;
        Ok(setup)
    }

    /// A whole run into a folder that does not exist.
    pub(super) fn run(&self, folder: &Path) -> Result<Left> {
        self.finish(set_up_with(self.file.clone(), self.library.clone(), DeviceChoice::Cpu)?, folder)
    }

    /// The run of what is set up.
    pub(super) fn finish(&self, setup: Setup, folder: &Path) -> Result<Left> {
        let way = Way {
            place: Place::new(folder.to_owned())?,
            named: true,
            resume: false,
            device: DeviceChoice::Cpu,
            output: Output::Json,
            listener: None,
            interrupt: None,
            started: Instant::now(),
        };
        Ok(Left { summary: carry_out(setup, way)?, folder: folder.to_owned() })
    }

    /// A new instance of the method, attached to nothing.
    pub(super) fn instance(&self, options: &Json) -> Result<Instance> {
        let (plugin, name) = (&self.plugin, self.method.name.as_str());
        Ok(match self.method.kind {
            MethodKind::Strategy => Instance::Strategy(StrategyInstance::create(plugin, name, options)?),
            MethodKind::Scheduler => Instance::Scheduler(SchedulerInstance::create(plugin, name, options)?),
            MethodKind::Regularizer => Instance::Regularizer(RegularizerInstance::create(plugin, name, options)?),
            MethodKind::TaskHead => Instance::TaskHead(HeadInstance::create(plugin, name, options)?.into()),
            MethodKind::Optimizer => Instance::Optimizer(OptimizerInstance::create(plugin, name, options)?),
        })
    }
}

/// An instance of any kind.
pub(super) enum Instance {
    Strategy(StrategyInstance),
    Scheduler(SchedulerInstance),
    Regularizer(RegularizerInstance),
    TaskHead(std::sync::Arc<HeadInstance>),
    Optimizer(OptimizerInstance),
}

impl Instance {
    /// Its state.
    pub(super) fn stateful(&mut self) -> &mut dyn Stateful {
        match self {
            Self::Strategy(of) => of,
            Self::Scheduler(of) => of,
            Self::Regularizer(of) => of,
            Self::TaskHead(of) => of,
            Self::Optimizer(of) => of,
        }
    }
}

/// The pass of a task's training examples.
pub(super) fn pass(setup: &Setup, task: usize) -> Pass<'_> {
    let of = &setup.tasks[task];
    Pass {
        model: &setup.model,
        head: &of.head,
        spec: &of.spec,
        data: &of.train,
        precision: setup.precision,
        decision: of.decision.clone(),
    }
}

/// The first training examples of a task; of one that learns by episodes the first episode, whatever number is asked for.
pub(super) fn first_examples(setup: &Setup, task: usize, number: usize) -> Result<Shown> {
    let of = &setup.tasks[task];
    let rows: Vec<u32> = match of.spec.sampling {
        Sampling::Shuffled => (0..of.train.len().min(number) as u32).collect(),
        Sampling::Episodes { .. } => {
            let batch = setup.phases.first().and_then(|phase| phase.epoch_from(0, 0).next());
            batch.into_iter().flatten().next().map(|batch| batch.rows).unwrap_or_default()
        }
    };
    of.train.show(&rows)
}

/// Values of all elements, as numbers.
pub(super) fn numbers(tensor: &fthost_autograd::Tensor) -> Result<Vec<f64>> {
    Ok(tensor.flatten_all()?.to_dtype(fthost_autograd::DType::F64)?.to_vec1::<f64>()?)
}

/// What a task's head gives for its first training examples, without dropout.
pub(super) fn outputs(setup: &Setup, task: usize, number: usize) -> Result<Vec<f64>> {
    let shown = first_examples(setup, task, number)?;
    numbers(pass(setup, task).outputs(&Tape::evaluation(), &shown)?.tensor())
}

impl Left {
    /// What differs between two runs that should be the same: weights, the log, predictions.
    pub(super) fn difference(&self, other: &Self) -> Result<Option<String>> {
        let (mine, others) = (files(&self.summary.saved.path)?, files(&other.summary.saved.path)?);
        for (name, bytes) in &mine {
            if others.get(name) != Some(bytes) {
                return Ok(Some(format!("{name} differs")));
            }
        }
        if mine.len() != others.len() {
            return Ok(Some("the runs have saved other files".into()));
        }
        let (mine, others) = (log(&self.folder)?, log(&other.folder)?);
        if let Some(at) = (0..mine.len().max(others.len())).find(|&i| mine.get(i) != others.get(i)) {
            let line = |of: &[Json]| of.get(at).map_or_else(|| "nothing".to_owned(), Json::to_string);
            let said = format!(
                "line {} of metrics.jsonl is {} in one and {} in the other",
                at + 1,
                line(&mine),
                line(&others)
            );
            return Ok(Some(said));
        }
        for name in ["predictions.csv", "validation_predictions.csv"] {
            if fs::read(self.folder.join(name)).ok() != fs::read(other.folder.join(name)).ok() {
                return Ok(Some(format!("{name} differs")));
            }
        }
        Ok(None)
    }
}

/// The files of weights in a folder.
fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let failed = || Error::io(format!("cannot read {}", folder.display()));
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.insert(name, fs::read(&path).map_err(failed())?);
        }
    }
    Ok(found)
}

/// The lines of a run's log without what a clock says.
fn log(folder: &Path) -> Result<Vec<Json>> {
    let path = folder.join("metrics.jsonl");
    let text = fs::read_to_string(&path).map_err(Error::io(format!("cannot read {}", path.display())))?;
    let line = |line: &str| {
        let mut line: Json = serde_json::from_str(line).unwrap_or_default();
        if let Some(line) = line.as_object_mut() {
            line.retain(|key, _| !key.contains("seconds"));
        }
        line
    };
    Ok(text.lines().map(line).collect())
}

/// Makes a run of the author's so short that it can be tried many times.
fn shorten(table: &mut toml::Table) {
    let empty = || toml::Value::Table(toml::Table::new());
    if let Some(train) = table.entry("train").or_insert_with(empty).as_table_mut() {
        let steps = train.get("steps").and_then(toml::Value::as_integer).map_or(STEPS, |steps| steps.min(STEPS));
        train.insert("steps".into(), toml::Value::Integer(steps));
        train.insert("checkpoint_steps".into(), toml::Value::Integer(2.min(steps)));
        train.insert("keep_checkpoints".into(), toml::Value::Integer(100));
    }
    table.remove("run");
}

/// Puts a method with options into its place of a run file. Where it stands there, its other options stay.
fn put(table: &mut toml::Table, method: &MethodName, options: &Map<String, Json>) -> Result<()> {
    let wrong = |error: &dyn std::fmt::Display| Error::usage(format!("an option cannot stand in a run file: {error}"));
    let mut mine = toml::Table::new();
    mine.insert("plugin".into(), toml::Value::String(method.name.clone()));
    for (option, value) in options.iter().filter(|(_, value)| !value.is_null()) {
        mine.insert(option.clone(), toml::Value::try_from(without_null(value)).map_err(|error| wrong(&error))?);
    }
    let is_it = |value: &toml::Value| value.get("plugin").and_then(toml::Value::as_str) == Some(&method.name);
    let merge = |there: &mut toml::Value| match there.as_table_mut() {
        Some(table) if table.get("plugin").and_then(toml::Value::as_str) == Some(&method.name) => {
            table.extend(mine.clone());
        }
        _ => *there = toml::Value::Table(mine.clone()),
    };
    match method.kind {
        MethodKind::Scheduler => merge(table.entry("schedule").or_insert_with(|| toml::Value::Boolean(false))),
        MethodKind::TaskHead => {
            for task in table.get_mut("task").and_then(toml::Value::as_array_mut).into_iter().flatten() {
                if let Some(task) = task.as_table_mut() {
                    merge(task.entry("head").or_insert_with(|| toml::Value::Boolean(false)));
                }
            }
        }
        MethodKind::Optimizer => {
            let train = table.entry("train").or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if let Some(train) = train.as_table_mut() {
                merge(train.entry("optimizer").or_insert_with(|| toml::Value::Boolean(false)));
            }
        }
        MethodKind::Strategy | MethodKind::Regularizer => {
            let key = if method.kind == MethodKind::Strategy { "strategy" } else { "regularizer" };
            let list = table.entry(key).or_insert_with(|| toml::Value::Array(Vec::new()));
            match list.as_array_mut() {
                Some(list) => match list.iter_mut().find(|value| is_it(value)) {
                    Some(there) => merge(there),
                    None => *list = vec![toml::Value::Table(mine)],
                },
                None => *list = toml::Value::Array(vec![toml::Value::Table(mine)]),
            }
        }
    }
    Ok(())
}

/// TOML has no null: an option without a value is left out.
fn without_null(value: &Json) -> Json {
    match value {
        Json::Object(map) => map
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_null(value)))
            .collect(),
        Json::Array(items) => items.iter().map(without_null).collect(),
        other => other.clone(),
    }
}
