//! One run: the run file, the plan, the training loop, evaluation, and what is left in the run folder.
//!
//! [`execute`] reads top to bottom as a run goes.

pub mod demo;
pub mod evaluate;
pub mod events;
pub mod examples;
pub mod export;
pub mod file;
pub mod folder;
pub mod plan;
pub mod result;
mod setup;
pub mod step;
pub mod train;

use std::path::{Path, PathBuf};
use std::time::Instant;

use fthost_autograd::Device;

use crate::adapted::AdaptedModel;
use crate::report::progress::{EvaluationProgress, TrainProgress};
use crate::{Error, Result};
use events::Line;
use file::RunFile;
use folder::RunFolder;
use plan::Plan;
use result::{Parameters, PluginUsed, Summary, TaskResult};
use setup::Setup;
use step::Pass;
use train::Trainer;

/// What to run, and how to report.
#[derive(Clone, Debug)]
pub struct Options {
    /// The run file, overrides applied.
    pub file: RunFile,
    /// Plugins as named on the command line.
    pub plugins: Vec<String>,
    /// The run folder, where the user named one.
    pub out: Option<PathBuf>,
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
                Error::Usage { message: format!("device cuda:{number} cannot be used: {e}"), help: Some(help.into()) }
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
    let Options { file, plugins, out, device, output, started } = options;
    let Setup { file, library, mut model, tasks, mut strategies, mut regularizers, scheduler, precision } =
        setup::set_up(file, &plugins, device)?;
    // One task for now: several train jointly or in sequence once a run file names them.
    let task = tasks.into_iter().next().ok_or_else(|| Error::usage("the run file has no task"))?;

    let (steps_per_epoch, steps) = train::steps(&file.train, task.train.len());
    let plan = Plan::new(
        &model,
        &task.train,
        &plan::Schedule {
            strategies: file.strategies.iter().map(|method| method.plugin.clone()).collect(),
            tasks: vec![task.name.clone()],
            steps_per_epoch,
            steps,
            batch_size: file.train.batch_size,
            moments: file.train.optimizer.moments(),
            threads: rayon::current_num_threads(),
        },
    );
    output.say(&plan.to_text());

    let mut folder = RunFolder::create(out.as_deref(), &file.run_folder())?;
    folder.write("run.toml", file.to_toml().as_bytes())?;

    let evaluate = |model: &AdaptedModel, when: &str| -> Result<Option<evaluate::Evaluation>> {
        let Some(data) = &task.test else { return Ok(None) };
        let progress = EvaluationProgress::new(output.says_progress(), when, data.len());
        let pass = Pass { model, head: &task.head, spec: &task.spec, data, precision };
        evaluate::evaluate(&pass, &|examples| progress.advance(examples)).map(Some)
    };
    let before = if file.train.evaluate_before { evaluate(&model, "evaluating before training")? } else { None };
    if let Some(before) = &before {
        folder.log(&Line::Evaluation { step: 0, task: &task.name, when: "before", metrics: &before.metrics() })?;
    }

    let progress = TrainProgress::new(output.says_progress(), steps);
    let trained = Trainer {
        settings: &file.train,
        model: &mut model,
        strategies: &mut strategies,
        regularizers: &mut regularizers,
        scheduler: &scheduler,
        task: &task.name,
        head: &task.head,
        spec: &task.spec,
        data: &task.train,
        precision,
        started,
    }
    .train(&mut folder, &progress);
    progress.finish();
    let mut trained = trained?;

    let after = evaluate(&model, "evaluating after training")?;
    if let Some(after) = &after {
        folder.log(&Line::Evaluation {
            step: trained.steps,
            task: &task.name,
            when: "after",
            metrics: &after.metrics(),
        })?;
    }
    folder.flush()?;

    let saved = export::Saved {
        model: &model,
        base: &file.model.name(),
        adapter_config: adapter_config(&strategies)?,
        adapter_tensors: strategies.iter().map(|strategy| strategy.adapter_tensors()).collect::<Result<_>>()?,
        labels: task.train.labels(),
    }
    .write(folder.path())?;
    if let Some(tokenizer) = &task.tokenizer_file
        && saved.format == "huggingface"
    {
        copy_beside(tokenizer, &saved.path)?;
    }

    trained.peak_rss_bytes = peak_rss_bytes();
    let task_result = TaskResult::new(task.train.labels(), before.as_ref(), after.as_ref());
    let summary = Summary {
        folder: folder.path().to_owned(),
        parameters: Parameters { trainable: plan.trainable_parameters, total: plan.total_parameters },
        plugins: library.plugins().iter().map(PluginUsed::from).collect(),
        seed: file.train.seed,
        device: device.to_string(),
        precision: file.train.precision.to_string(),
        train: trained,
        tasks: std::iter::once((task.name.clone(), task_result)).collect(),
        saved,
        plan,
    };
    folder.write_json("result.json", &summary)?;
    output.conclude(&summary, &summary.to_text());
    Ok(summary)
}

/// The fields of PEFT's adapter_config.json, where all strategies together are something that PEFT knows: exactly one says so.
fn adapter_config(strategies: &[crate::plugin::StrategyInstance]) -> Result<Option<serde_json::Value>> {
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
