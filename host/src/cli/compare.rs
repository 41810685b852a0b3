//! What `fthost compare` takes.

use std::path::{Path, PathBuf};

use clap::Args;
use fthost::run::DeviceChoice;
use fthost::run::file::RunFile;
use fthost::{Error, Result, compare};

use super::values::{device, overrides};

/// The arguments of a comparison.
#[derive(Debug, Args)]
pub(super) struct CompareArguments {
    /// Run files: one for all plugins, or several that are compared as they are. Without one the embedded demo runs
    #[arg(value_name = "RUN.toml")]
    files: Vec<PathBuf>,

    /// A candidate: this plugin's strategy in the place of the run file's. PATH#NAME where it has several
    #[arg(long = "plugin", value_name = "PATH")]
    plugins: Vec<String>,

    /// How many seeds each candidate runs with, from 0 on; 5 where nothing is said, with --folds 1. With --resume it may be more than
    /// before
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: Option<u64>,

    /// Cross-validation: deals the training examples out in so many folds, classes in proportion and groups whole, and runs each
    /// candidate once for each, tested on that fold and trained on the others. One candidate is enough; the run file's test examples
    /// are left out
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(2..=1000))]
    folds: Option<u32>,

    /// The metric to compare by, METRIC or TASK.METRIC: without it the one that train.monitor names, or accuracy, or mse
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,

    /// Gives each candidate a learning rate of its own, by lr-find: one rate may not suit all
    #[arg(long, conflicts_with = "resume")]
    lr_find: bool,

    /// Sets a value of every run file, as for a run
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,

    /// Folder that the comparison leaves; it must not exist. Without it comparisons/NAME, numbered where that exists
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,

    /// Goes on with the comparison in the folder that --out names: runs that have ended are kept
    #[arg(long, requires = "out")]
    resume: bool,

    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", value_parser = device)]
    device: DeviceChoice,

    /// CPU threads of each run, as train.threads
    #[arg(long)]
    threads: Option<usize>,

    /// Prints the result only
    #[arg(short, long)]
    quiet: bool,
}

impl CompareArguments {
    /// What to compare, nothing where a comparison goes on as it was begun.
    pub(super) fn options(self, json: bool) -> Result<compare::Options> {
        if self.sets.iter().any(|set| set.split('=').next().is_some_and(|key| key.trim() == "train.seed")) {
            return Err(Error::usage(
                "--set train.seed does nothing here: each candidate runs with several seeds, from 0 on",
            )
            .with_help("say how many by --seeds"));
        }
        let overrides = overrides(&self.sets, None, self.threads)?;
        let load = |path: &PathBuf| Ok((path.clone(), RunFile::load(path, &overrides)?));
        let files = self.files.iter().map(load).collect::<Result<Vec<_>>>()?;
        let base = match files.first() {
            Some((_, file)) => file.clone(),
            None => RunFile::demo(&overrides)?,
        };
        let as_begun = self.resume && files.is_empty() && self.plugins.is_empty() && overrides.is_empty();
        let candidates = match as_begun {
            true => Vec::new(),
            false => {
                // Whether one is enough for what goes on is told by what it began with.
                let alone = self.folds.is_some() || (self.resume && files.len() + self.plugins.len() > 0);
                compare::candidates(&files, &base, &self.plugins, self.device, alone)?
            }
        };
        let program = std::env::current_exe().map_err(Error::io("cannot find this program's own file"))?;
        Ok(compare::Options {
            program,
            candidates,
            seeds: self.seeds,
            folds: self.folds,
            metric: self.metric,
            lr_find: self.lr_find,
            out: self.out,
            default_folder: Path::new("comparisons").join(&base.run.name),
            resume: self.resume,
            device: self.device,
            shown: !self.quiet && !json,
        })
    }
}
