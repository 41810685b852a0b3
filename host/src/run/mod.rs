//! One run: the run file, the plan, the training loop, evaluation, and what is left in the run folder.
//!
//! [`execute`] reads top to bottom as a run goes.

pub mod augment;
mod chunks;
pub mod estimate;
pub mod file;
pub mod generation;
pub mod lr_find;
pub mod machine;
mod measure;
pub mod pass;
pub mod results;
pub mod setup;
pub mod state;
pub mod train;
pub mod trained;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fthost_models::MODULES;

use crate::data::Survey;
use crate::kernels;
use crate::plugin::{Stateful, StrategyInstance, underway};
use crate::report::output::say;
use crate::report::progress::TrainProgress;
use crate::report::text::wrapped;
use crate::{Error, Result};
use file::RunFile;
pub use machine::DeviceChoice;
use machine::peak_rss_bytes;
use results::continual::Continual;
use results::evaluate::Evaluation;
use results::export::{self, Exported};
use results::own_form::Origin;
use results::plain::Trained as TrainedHead;
use results::proof::{Pairing, Proof};
use results::result::{self, Parameters, Split, Summary, TaskResult};
use results::{inputs, keys, page};
use setup::plan::Plan;
use setup::start::Checksums;
use setup::task::Task;
use setup::{Setup, model as base};
use state::checkpoint::{self, Checkpoints};
use state::folder::{Place, RunFolder, must_be_free};
use state::identity::Identity;
use state::log::{Line, Listener};
use state::snapshot::{self, After, Header, TrainState};
use train::Trainer;
use train::interrupt::Interrupt;
use train::preferences;
use train::reference::Reference;
use train::step::Learner;

/// What to run, and how to report.
#[derive(Debug)]
pub struct Options {
    /// The run file, overrides applied.
    pub file: RunFile,
    /// Plugins as named on the command line.
    pub plugins: Vec<String>,
    /// The run folder, where the user named one.
    pub out: Option<PathBuf>,
    /// Goes on with the run in that folder.
    pub resume: bool,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Who reads what is printed.
    pub output: Output,
    /// Who hears what is logged, as it is logged.
    pub listener: Option<Listener>,
    /// What stops the run; without it Ctrl-C and SIGTERM do, once it trains.
    pub interrupt: Option<Interrupt>,
    /// When the process began.
    pub started: Instant,
}

/// Who reads what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A person: plan, progress and results as text.
    Human {
        /// Results only.
        quiet: bool,
    },
    /// A machine: the summary as one JSON object on standard output.
    Json,
    /// Nobody: nothing is printed.
    Silent,
}

impl Output {
    fn says_progress(self) -> bool {
        self == Self::Human { quiet: false }
    }

    /// Prints text for a person.
    fn say(self, text: &str) -> Result<()> {
        if self.says_progress() { say(&wrapped(text)) } else { Ok(()) }
    }

    fn conclude(self, summary: &Summary) -> Result<()> {
        match self {
            Self::Human { .. } => say(&wrapped(&summary.to_text())),
            Self::Json => say(&serde_json::to_string(summary).unwrap_or_default()),
            Self::Silent => Ok(()),
        }
    }
}

/// Training examples up to which a run looks at its data before it begins; `fthost data` does at any number.
const SURVEYED: usize = 100_000;

/// Runs a run file: plan, evaluation before, training, evaluation after, and everything saved in the run folder.
pub fn execute(options: Options) -> Result<Summary> {
    let Options { file, plugins, out, resume, device, output, listener, interrupt, started } = options;
    let place = Place::new(out.clone().unwrap_or_else(|| file.run_folder()))?;
    if let Some(folder) = out.as_deref().filter(|_| !resume) {
        must_be_free(folder)?;
    }
    let setup = match out.as_deref().filter(|_| resume && plugins.is_empty()) {
        Some(folder) => {
            let (file, library) = setup::methods::reopen_methods(file, &recorded_plugins(folder)?)?;
            setup::set_up_with(file, library, device)?
        }
        None => setup::set_up(file, &plugins, device)?,
    };
    let summary =
        carry_out(setup, Way { place, named: out.is_some(), resume, device, output, listener, interrupt, started })?;
    output.conclude(&summary)?;
    Ok(summary)
}

/// How a run that is set up goes.
pub(crate) struct Way {
    /// The run folder, found before any plugin's code has run.
    pub(crate) place: Place,
    /// Whether the user named it.
    pub(crate) named: bool,
    /// Goes on with the run in that folder.
    pub(crate) resume: bool,
    /// Where to compute.
    pub(crate) device: DeviceChoice,
    /// Who reads what is printed.
    pub(crate) output: Output,
    /// Who hears what is logged, as it is logged.
    pub(crate) listener: Option<Listener>,
    /// What stops the run; without it Ctrl-C and SIGTERM do, once it trains.
    pub(crate) interrupt: Option<Interrupt>,
    /// When the process began.
    pub(crate) started: Instant,
}

/// As [`execute`], where everything is set up; what the run came to is not printed.
pub(crate) fn carry_out(setup: setup::Setup, way: Way) -> Result<Summary> {
    let Way { place, named, resume, device, output, listener, interrupt, started } = way;
    let identity = setup.identity(device)?;
    let mut plan = setup.plan()?;
    if plan.examples <= SURVEYED {
        plan.data = setup.surveys()?;
    }
    output.say(&format!("{}{}", plan.to_text(), plan.suspicions()))?;

    let folder = match named {
        true if resume => RunFolder::reopen(&place.path),
        _ => RunFolder::create(named.then_some(&*place.path), &place.path),
    };
    let mut folder = folder.map_err(|error| place.in_error(error))?;
    folder.tell(listener);
    let place = place.or_numbered(folder.path());
    underway::begin_run(&place.name, &resume_arguments(&place.name, device));
    let checkpoints = Checkpoints::new(folder.path(), setup.file.train.keep_checkpoints);
    let checkpoints = &checkpoints;
    let begun = Begun { setup, identity, plan, place: &place, checkpoints, resume, device, output, interrupt, started };
    begun.finish(&mut folder).map_err(|error| way_on(error, &place, checkpoints, device))
}

/// A run that has a folder.
struct Begun<'a> {
    setup: Setup,
    identity: Identity,
    plan: Plan,
    place: &'a Place,
    checkpoints: &'a Checkpoints,
    resume: bool,
    device: DeviceChoice,
    output: Output,
    interrupt: Option<Interrupt>,
    started: Instant,
}

impl Begun<'_> {
    /// Training, evaluation, and everything saved in the run folder.
    fn finish(self, folder: &mut RunFolder) -> Result<Summary> {
        let Self { setup, identity, plan, place, checkpoints, resume, device, output, interrupt, started } = self;
        let Setup {
            file,
            mut model,
            mut tasks,
            phases,
            mut strategies,
            mut regularizers,
            mut schedules,
            mut optimizer,
            ..
        } = setup;
        let (precision, model_device) = (setup.precision, model.device.clone());

        let interrupt = interrupt.map_or_else(Interrupt::listen, Ok)?;
        let pairing = Pairing::of(&model, &phases)?;
        let pretrained = || {
            let again = base::load_model(&file, model_device.clone())?;
            if Checksums::of_base(&again)? == setup.checksums {
                return Ok(again);
            }
            Err(Error::run(format!("the weights in {} have changed since the run began", file.model.name()))
                .with_help("put them back as they were, and go on with --resume"))
        };
        let mut trainer = Trainer {
            fresh_schedules: schedules.save()?,
            learner: Learner {
                settings: &file.train,
                model: &mut model,
                regularizers: &mut regularizers,
                schedules: &mut schedules,
                fixed_lr: None,
                optimizer: &mut optimizer,
                tasks: &mut tasks,
                reference: Reference::default(),
                precision,
            },
            strategies: &mut strategies,
            phases: &phases,
            checkpoints,
            identity: &identity,
            pretrained: &pretrained,
            interrupt: &interrupt,
            started,
        };
        let state = match resume {
            true => resume_from(checkpoints, &identity, &mut trainer, folder)?,
            false => begin(&mut trainer, folder, output)?,
        };
        let progress = TrainProgress::new(output.says_progress(), state.trained.steps, plan.steps);
        let outcome = trainer.train(state, folder, &progress);
        progress.finish();
        let mut state = outcome?;

        let shown = output.says_progress();
        let mut calibrations = measure::calibrate(&mut trainer, shown)?;
        let after = measure::test(&trainer, shown, "after training")?;
        log_tests(&trainer, &mut state, &after, folder)?;
        let mut after: BTreeMap<String, (Split, Evaluation)> =
            after.into_iter().map(|(task, found)| (task, (Split::Test, found))).collect();
        after.extend(measure::validate(&trainer, shown)?);
        let mut worst = measure::save_predictions(&trainer, &file, (&after, state.trained.steps), folder)?;
        let mut saved = save(&mut trainer, &file, &state, folder)?;
        saved.path = place.named(&saved.path);

        state.trained.peak_rss_bytes = peak_rss_bytes();
        let TrainState { trained, mut watched, mut before, sequence, .. } = state;
        let continual = Continual::of(&before, &sequence);
        // A phase of one task is that task's; what joint tasks are watched by is the run's.
        let watch = if file.joint() { watched.pop().flatten() } else { None };
        let mut watched = watched.into_iter();
        let result = |task: &Task| {
            let before = before.remove(&task.name).unwrap_or_default();
            let (labels, counts) = (task.train.labels(), task.train.class_counts());
            let after = after.get(&task.name).map(|(on, found)| (*on, found));
            let mut result = TaskResult::new(labels, counts, before, watched.next().flatten(), after);
            if task.train.is_multi_label() {
                result.examples = Some(task.train.len() as u64);
                result.label_separator = Some(task.label_separator(&file).to_owned());
            }
            result.shown_mut().worst = worst.remove(&task.name).unwrap_or_default();
            result.own_metrics = task.spec.metrics.clone();
            result.calibration = calibrations.remove(&task.name);
            (task.name.clone(), result)
        };
        let summary = Summary {
            folder: place.name.clone(),
            parameters: Parameters { trainable: plan.trainable_parameters, total: plan.total_parameters },
            plugins: identity.plugins.clone(),
            seed: file.train.seed,
            device: device.to_string(),
            precision: file.train.precision.to_string(),
            proof: Proof {
                start: setup.start,
                parameters_with_gradient: trained.parameters_with_gradient,
                frozen: setup.checksums.frozen(trainer.learner.model)?,
                pairing,
            },
            train: trained,
            tasks: trainer.learner.tasks.iter().map(result).collect(),
            watch,
            sequence,
            continual,
            saved,
            plan,
        };
        let page = page::page(&summary, &folder.logged()?);
        folder.write(result::PAGE, page.as_bytes())?;
        folder.write_json(result::FILE, &summary)?;
        Ok(summary)
    }
}

/// The state before the first step, the test examples evaluated where the run file asks for it.
fn begin(trainer: &mut Trainer<'_>, folder: &mut RunFolder, output: Output) -> Result<TrainState> {
    folder.write("run.toml", trainer.identity.run_file.as_bytes())?;
    let Learner { model, tasks, precision, .. } = &mut trainer.learner;
    preferences::record(folder.path(), model, tasks, *precision, output.says_progress())?;
    let mut state = TrainState::begin(trainer.learner.precision);
    if trainer.learner.settings.evaluate_before {
        (0..trainer.learner.tasks.len()).try_for_each(|task| trainer.learner.fit(task))?;
        for (name, evaluation) in measure::test(trainer, output.says_progress(), "before training")? {
            let metrics = evaluation.metrics();
            folder.log(&Line::Evaluation { step: 0, task: &name, when: "before", metrics })?;
            state.before.insert(name, metrics.clone());
        }
    }
    Ok(state)
}

/// Logs what the tests after training gave, as what the last of several phases came to and as the run's own.
fn log_tests(
    trainer: &Trainer<'_>,
    state: &mut TrainState,
    after: &[(String, Evaluation)],
    folder: &mut RunFolder,
) -> Result<()> {
    if trainer.phases.len() > 1 {
        let ended = trainer.learner.tasks.last().map(|task| task.name.clone()).unwrap_or_default();
        let (step, when) = (state.trained.steps, format!("after {ended}"));
        let mut last = After { task: ended, metrics: BTreeMap::new() };
        for (name, evaluation) in after {
            let metrics = evaluation.metrics();
            folder.log(&Line::Evaluation { step, task: name, when: &when, metrics })?;
            last.metrics.insert(name.clone(), metrics.clone());
        }
        state.sequence.push(last);
    }
    let best = state.watched.last().and_then(|watch| watch.as_ref()?.best);
    let step = best.map_or(state.trained.steps, |best| best.step);
    let by_name: BTreeMap<&String, &Evaluation> = after.iter().map(|(name, evaluation)| (name, evaluation)).collect();
    for (name, evaluation) in by_name {
        folder.log(&Line::Evaluation { step, task: name, when: "after", metrics: evaluation.metrics() })?;
    }
    folder.flush()
}

/// Saves the adapter or the whole model, and what opens the run again.
fn save(trainer: &mut Trainer<'_>, file: &RunFile, state: &TrainState, folder: &RunFolder) -> Result<Exported> {
    let tasks: &[Task] = trainer.learner.tasks;
    let heads = tasks.iter().map(|task| TrainedHead {
        name: &task.name,
        labels: task.train.labels(),
        head: &task.head,
        spec: &task.spec,
        decision: task.decision.clone(),
        counts: (task.train.class_counts(), task.train.len() as u64),
    });
    let identity = trainer.identity.clone();
    let origin = Origin {
        run_file: identity.run_file.clone(),
        plugins: identity.plugins.iter().map(|plugin| plugin.path.clone()).collect(),
    };
    let saved = export::Saved {
        model: trainer.learner.model,
        base: &file.model.name(),
        revision: file.model.named.as_ref().map(|name| name.revision.as_str()),
        streams: &file.model.joined(trainer.learner.model.model.info())?,
        adapter_configs: trainer.strategies.iter().map(StrategyInstance::adapter_config).collect::<Result<_>>()?,
        adapter_tensors: trainer.strategies.iter().map(StrategyInstance::adapter_tensors).collect::<Result<_>>()?,
        tasks: &heads.collect::<Vec<_>>(),
        origin: &origin,
        states: trainer.strategies.iter().map(Stateful::save).collect::<Result<_>>()?,
    }
    .write(folder.path())?;
    let info = trainer.learner.model.model.info().clone();
    let whole = saved.format.is_whole();
    // A folder of sentence-transformers' holds its tokenizer, also one of an adapter.
    let reads = whole || saved.path.join(MODULES).is_file();
    if reads && !file.model.is_demo() {
        inputs::copy(&file.model, &saved.path, &info)?;
    }
    let only = tasks.len() == 1;
    // Heads of fthost's own are saved by their own names.
    let plain = only && saved.own_heads.is_none();
    let named = |name: &str| if plain { keys::reopened(&info, name) } else { name.to_owned() };
    let named = whole.then_some(&named as &dyn Fn(&str) -> String);
    let (header, tensors) = trainer.parts().capture_final(identity, state.clone(), named)?;
    checkpoint::write(&folder.path().join(snapshot::FINAL), &header, &tensors)?;
    Ok(saved)
}

/// Says of a run that was stopped, or that the disk has stopped, how it goes on.
fn way_on(error: Error, place: &Place, checkpoints: &Checkpoints, device: DeviceChoice) -> Error {
    let error = place.in_error(error);
    let resume = format!("fthost {}", resume_arguments(&place.name, device));
    let first = match &error {
        Error::Interrupted { .. } => return error.with_help(format!("go on with: {resume}")),
        Error::Io { source, .. } => match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space on the disk",
            _ => "mend what the system says",
        },
        _ => return error,
    };
    error.with_help(match checkpoints.latest().map(|last| place.named(&last)) {
        Some(last) => format!("{first}, then go on from the last checkpoint, {}: {resume}", last.display()),
        None => format!("{first}, remove {} and begin again: there is no checkpoint yet", place.name.display()),
    })
}

/// The plan of a run, with time and memory measured on this machine. Nothing is trained and nothing written.
pub fn plan(file: RunFile, plugins: &[String], device: DeviceChoice) -> Result<Plan> {
    let mut setup = setup::set_up(file, plugins, device)?;
    estimate::begin(&mut setup)?;
    let mut plan = setup.plan()?;
    preferences::leave_out(&mut setup.tasks)?;
    plan.estimate = Some(estimate::measure(&mut setup)?);
    plan.data = setup.surveys()?;
    Ok(plan)
}

/// What is in a run file's data: sentences about what was recognised in the files, and what the examples of each task are, as the model
/// reads them. Nothing is trained and nothing written.
///
/// # Errors
/// Where the run file, its plugins, the model or the data are wrong.
pub fn data(file: RunFile, plugins: &[String], device: DeviceChoice) -> Result<(Vec<String>, Vec<Survey>)> {
    let setup = setup::set_up(file, plugins, device)?;
    Ok((setup.notes(), setup.surveys()?))
}

/// The plugins that a run in this folder used, those that are still there.
fn recorded_plugins(folder: &Path) -> Result<Vec<String>> {
    let found = Checkpoints::new(folder, usize::MAX).newest::<Header>()?;
    let paths = found.header.identity.plugins.into_iter().map(|plugin| plugin.path);
    Ok(paths.filter(|path| Path::new(path).is_file()).collect())
}

/// Puts the run back to where its newest checkpoint was, if it is the same run.
fn resume_from(
    checkpoints: &Checkpoints,
    identity: &Identity,
    trainer: &mut Trainer<'_>,
    folder: &mut RunFolder,
) -> Result<TrainState> {
    let found = checkpoints.newest::<Header>()?;
    let then = &found.header.identity;
    let differences = then.differences(identity);
    let of_kernels = then.kernels != identity.kernels;
    // Who names the kernels knows that they are others.
    let by_name = of_kernels && differences.len() == 1 && kernels::are_named();
    if by_name {
        tracing::warn!("{}: the last bits will not be those of a run that goes through", differences.join("\n"));
    } else if !differences.is_empty() {
        let way_on = if of_kernels { format!("\n{}", kernels::way_on(&then.kernels)) } else { String::new() };
        return Err(Error::usage(format!(
            "{} belongs to another run:\n{}",
            found.path.display(),
            differences.join("\n")
        ))
        .with_help(format!("resume with what the run began with, or begin a new run in another folder{way_on}")));
    }
    trainer.parts().restore(&found.header, &found.tensors)?;
    preferences::read(folder.path(), trainer.learner.tasks)?;
    folder.rewind(found.header.log_position, found.header.state.trained.steps + 1)?;
    Ok(found.header.state)
}

/// The arguments that go on in a folder, as a shell reads them.
pub(crate) fn resume_arguments(folder: &Path, device: DeviceChoice) -> String {
    let device = if device == DeviceChoice::Cpu { String::new() } else { format!(" --device {device}") };
    format!("--resume --out {}{device}", shell_path(folder))
}

/// A path as a shell reads it.
pub(crate) fn shell_path(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=,:@".contains(c);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}
