//! One run: the run file, the plan, the training loop, evaluation, and what is left in the run folder.
//!
//! [`execute`] reads top to bottom as a run goes.

pub mod checkpoint;
pub mod demo;
pub mod estimate;
pub mod evaluate;
pub mod events;
pub mod examples;
pub mod export;
pub mod file;
pub mod folder;
pub mod identity;
pub mod interrupt;
pub mod open;
pub mod plan;
pub mod predictions;
pub mod proof;
pub mod result;
mod setup;
pub mod snapshot;
pub mod step;
pub mod train;
pub mod watch;

use std::path::{Path, PathBuf};
use std::time::Instant;

use fthost_autograd::{Device, optim};

use crate::error::plain;
use crate::plugin::StrategyInstance;
use crate::report::page;
use crate::report::progress::{EvaluationProgress, TrainProgress};
use crate::{Error, Result};
use checkpoint::Checkpoints;
use estimate::Estimate;
use events::Line;
use file::RunFile;
use folder::RunFolder;
use identity::Identity;
use interrupt::Interrupt;
use plan::Plan;
use proof::{Pairing, Proof};
use result::{Parameters, Summary, TaskResult};
use setup::Setup;
use snapshot::{Header, TrainState};
use step::Pass;
use train::Trainer;
use watch::Watch;

/// What to run, and how to report.
#[derive(Clone, Debug)]
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
    /// When the process began.
    pub started: Instant,
}

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The processor.
    Cpu,
    /// The CUDA device with this number.
    Cuda(usize),
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => Device::new_cuda(number).map_err(|e| {
                let help = if cfg!(feature = "cuda") {
                    "check the driver with nvidia-smi, or use --device cpu"
                } else {
                    "this fthost was built without CUDA: build it with --features cuda, or use --device cpu"
                };
                Error::Usage {
                    message: format!("device cuda:{number} cannot be used: {}", plain(&e)),
                    help: Some(help.into()),
                }
            }),
        }
    }
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
}

impl Output {
    fn says_progress(self) -> bool {
        self == Self::Human { quiet: false }
    }

    /// Prints text for a person.
    #[allow(clippy::print_stdout, reason = "what a run prints on standard output is printed here")]
    fn say(self, text: &str) {
        if self.says_progress() {
            println!("{text}");
        }
    }

    #[allow(clippy::print_stdout, reason = "what a run prints on standard output is printed here")]
    fn conclude(self, summary: &Summary, text: &str) {
        match self {
            Self::Human { .. } => println!("{text}"),
            Self::Json => println!("{}", serde_json::to_string(summary).unwrap_or_default()),
        }
    }
}

/// Runs a run file: plan, evaluation before, training, evaluation after, and everything saved in the run folder.
pub fn execute(options: Options) -> Result<Summary> {
    let Options { file, mut plugins, out, resume, device, output, started } = options;
    if let Some(folder) = out.as_deref().filter(|_| resume && plugins.is_empty()) {
        plugins = recorded_plugins(folder)?;
    }
    let setup = setup::set_up(file, &plugins, device)?;
    let identity = setup.identity(device)?;
    let plan = setup.plan()?;
    output.say(&plan.to_text());

    let Setup { file, mut model, tasks, mut strategies, mut regularizers, mut scheduler, .. } = setup;
    let precision = setup.precision;
    // One task for now: several train jointly or in sequence once a run file names them.
    let mut task = tasks.into_iter().next().ok_or_else(|| Error::usage("the run file has no task"))?;

    let mut folder = match &out {
        Some(path) if resume => RunFolder::reopen(path)?,
        _ => RunFolder::create(out.as_deref(), &file.run_folder())?,
    };
    let checkpoints = Checkpoints::new(folder.path(), file.train.keep_checkpoints);
    let interrupt = Interrupt::listen()?;
    let pairing = Pairing::of(&model, &task.train, &file.train)?;
    let mut optimizer = optim::Optimizer::new(file.train.optimizer.algorithm());
    let evaluate = |pass: &Pass<'_>, when: &str| {
        let progress = EvaluationProgress::new(output.says_progress(), when, pass.data.len());
        evaluate::evaluate(pass, &|examples| progress.advance(examples))
    };
    let mut trainer = Trainer {
        settings: &file.train,
        model: &mut model,
        strategies: &mut strategies,
        regularizers: &mut regularizers,
        scheduler: &mut scheduler,
        optimizer: &mut optimizer,
        task: &task.name,
        head: &mut task.head,
        spec: &task.spec,
        data: &task.train,
        validation: task.validation.as_ref(),
        precision,
        checkpoints: &checkpoints,
        identity: &identity,
        interrupt: &interrupt,
        started,
    };
    let state = if resume {
        resume_from(&checkpoints, &identity, &mut trainer, &mut folder)?
    } else {
        folder.write("run.toml", identity.run_file.as_bytes())?;
        let watch = || Watch::new(&task.monitor, file.train.min_delta, file.train.patience);
        let mut state = TrainState::begin(task.validation.as_ref().map(|_| watch()), precision);
        if let Some(data) = task.test.as_ref().filter(|_| file.train.evaluate_before) {
            state.before = evaluate(&trainer.pass(data), "evaluating before training")?.metrics();
            folder.log(&Line::Evaluation { step: 0, task: &task.name, when: "before", metrics: &state.before })?;
        }
        state
    };
    let progress = TrainProgress::new(output.says_progress(), state.trained.steps, plan.steps);
    let outcome = trainer.train(state, &mut folder, &progress);
    progress.finish();
    let mut state = match outcome {
        Err(stopped @ Error::Interrupted { .. }) => {
            return Err(stopped.with_help(format!("go on with: fthost {}", resume_arguments(folder.path(), device))));
        }
        outcome => outcome?,
    };

    let best = state.watch.as_ref().and_then(|watch| watch.best);
    if let Some(best) = best.filter(|best| best.step != state.trained.steps) {
        snapshot::restore_parameters(trainer.model, &checkpoints.best(best.step)?)?;
    }
    let data = task.test.as_ref();
    let after = data.map(|data| evaluate(&trainer.pass(data), "evaluating after training")).transpose()?;
    if let Some(after) = &after {
        let step = best.map_or(state.trained.steps, |best| best.step);
        folder.log(&Line::Evaluation { step, task: &task.name, when: "after", metrics: &after.metrics() })?;
        let rows = predictions::rows(&task.name, task.train.labels(), after);
        folder.write(predictions::FILE, &predictions::to_csv(&rows)?)?;
    }
    folder.flush()?;

    let saved = export::Saved {
        model: trainer.model,
        base: &file.model.name(),
        adapter_config: adapter_config(trainer.strategies)?,
        adapter_tensors: trainer.strategies.iter().map(StrategyInstance::adapter_tensors).collect::<Result<_>>()?,
        labels: task.train.labels(),
    }
    .write(folder.path())?;
    let whole = saved.format == export::WHOLE;
    if let Some(tokenizer) = setup::tokenizer_file(&file, trainer.model).filter(|_| whole) {
        copy_beside(&tokenizer, &saved.path)?;
    }
    let (header, tensors) = trainer.parts().capture_final(identity.clone(), state.clone(), whole)?;
    checkpoint::write(&folder.path().join(snapshot::FINAL), &header, &tensors)?;

    state.trained.peak_rss_bytes = peak_rss_bytes();
    let TrainState { trained, watch, before, .. } = state;
    let task_result = TaskResult::new(task.train.labels(), task.train.class_counts(), before, watch, after.as_ref());
    let summary = Summary {
        folder: folder.path().to_owned(),
        parameters: Parameters { trainable: plan.trainable_parameters, total: plan.total_parameters },
        plugins: identity.plugins.clone(),
        seed: file.train.seed,
        device: device.to_string(),
        precision: file.train.precision.to_string(),
        proof: Proof {
            start: setup.start,
            parameters_with_gradient: trained.parameters_with_gradient,
            frozen: setup.checksums.frozen(trainer.model)?,
            pairing,
        },
        train: trained,
        tasks: std::iter::once((task.name.clone(), task_result)).collect(),
        saved,
        plan,
    };
    let page = page::page(&summary, &folder.logged()?);
    folder.write("report.html", page.as_bytes())?;
    folder.write_json("result.json", &summary)?;
    output.conclude(&summary, &summary.to_text());
    Ok(summary)
}

/// The plan of a run, with time and memory measured on this machine. Nothing is trained and nothing written.
pub fn plan(file: RunFile, plugins: &[String], device: DeviceChoice) -> Result<Plan> {
    let setup = setup::set_up(file, plugins, device)?;
    let mut plan = setup.plan()?;
    plan.estimate = Some(Estimate::measure(&setup)?);
    Ok(plan)
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
    let differences = found.header.identity.differences(identity);
    if !differences.is_empty() {
        return Err(Error::usage(format!(
            "{} belongs to another run:\n{}",
            found.path.display(),
            differences.join("\n")
        ))
        .with_help("resume with what the run began with, or begin a new run in another folder"));
    }
    trainer.parts().restore(&found.header, &found.tensors)?;
    folder.rewind(found.header.log_position, found.header.state.trained.steps + 1)?;
    Ok(found.header.state)
}

/// The arguments that go on in a folder, as a shell reads them.
pub(crate) fn resume_arguments(folder: &Path, device: DeviceChoice) -> String {
    let folder = folder.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=,:@".contains(c);
    let folder = if folder.chars().all(plain) { folder } else { format!("'{}'", folder.replace('\'', r"'\''")) };
    let device = if device == DeviceChoice::Cpu { String::new() } else { format!(" --device {device}") };
    format!("--resume --out {folder}{device}")
}

/// The fields of PEFT's adapter_config.json, where all strategies together are something that PEFT knows: exactly one says so.
fn adapter_config(strategies: &[StrategyInstance]) -> Result<Option<serde_json::Value>> {
    let mut known = Vec::new();
    for strategy in strategies {
        known.extend(strategy.adapter_config()?);
    }
    Ok(if known.len() == 1 { known.pop() } else { None })
}

fn copy_beside(file: &Path, folder: &Path) -> Result<()> {
    let name = file.file_name().unwrap_or_default();
    std::fs::copy(file, folder.join(name)).map(|_| ()).map_err(Error::io(format!(
        "cannot copy {} to {}",
        file.display(),
        folder.display()
    )))
}

/// The process's peak resident memory: `VmHWM` of Linux's /proc/self/status; 0 where there is none.
fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}
