//! What `fthost auto` takes.

use std::path::{Path, PathBuf};

use clap::Args;
use fthost::run::DeviceChoice;
use fthost::run::file::RunFile;
use fthost::{Error, Result, auto};

use super::values::{device, overrides};

/// The arguments of a search.
#[derive(Debug, Args)]
pub(super) struct AutoArguments {
    /// Run file; without one the embedded demo. What it says of a strategy's options stays, the others are searched
    #[arg(value_name = "RUN.toml")]
    file: Option<PathBuf>,

    /// Searches this plugin's strategy in the place of the run file's; may be given several times. PATH#NAME where it has several.
    /// Without it the run file's own strategies are searched together
    #[arg(long = "plugin", value_name = "PATH")]
    plugins: Vec<String>,

    /// How many whole runs' worth of optimizer steps the search may take in all
    #[arg(long, value_name = "N", value_parser = budget, required_unless_present = "resume")]
    budget: Option<f64>,

    /// Learning rates to draw from; without it from a tenth of train.lr to ten times it
    #[arg(long, value_name = "FROM..TO", value_parser = rates)]
    lr: Option<(f64, f64)>,

    /// Sets a value of the run file, as for a run
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,

    /// Folder that the search leaves; it must not exist. Without it searches/NAME, numbered where that exists
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,

    /// Goes on with the search in the folder that --out names: runs that have ended are kept
    #[arg(long, requires = "out")]
    resume: bool,

    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", value_parser = device)]
    device: DeviceChoice,

    /// What draws and runs follow from, as train.seed
    #[arg(long)]
    seed: Option<u64>,

    /// CPU threads of each run, as train.threads
    #[arg(long)]
    threads: Option<usize>,

    /// Prints the result only
    #[arg(short, long)]
    quiet: bool,
}

impl AutoArguments {
    /// What to search, nothing where a search goes on as it was begun.
    pub(super) fn options(self, json: bool) -> Result<auto::Options> {
        let overrides = overrides(&self.sets, self.seed, self.threads)?;
        let base = match &self.file {
            Some(path) => RunFile::load(path, &overrides)?,
            None => RunFile::demo(&overrides)?,
        };
        let as_begun = self.resume && self.file.is_none() && self.plugins.is_empty() && overrides.is_empty();
        let shown = !self.quiet && !json;
        let candidates = match as_begun {
            true => Vec::new(),
            false => {
                let (candidates, shared) = auto::candidates(&base, &self.plugins, self.device)?;
                if shown && shared {
                    eprintln!(
                        "the task has no validation examples: a tenth of its training examples is set aside for them"
                    );
                }
                candidates
            }
        };
        Ok(auto::Options {
            program: std::env::current_exe().map_err(Error::io("cannot find this program's own file"))?,
            candidates,
            seed: base.train.seed,
            budget: self.budget,
            lr: self.lr,
            out: self.out,
            default_folder: Path::new("searches").join(&base.run.name),
            resume: self.resume,
            device: self.device,
            shown,
        })
    }
}

/// Reads a number of whole runs.
fn budget(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (1.0..=1000.0).contains(number));
    number.ok_or_else(|| "a budget is a number of whole runs, from 1 to 1000".into())
}

/// Reads `FROM..TO`.
fn rates(text: &str) -> Result<(f64, f64), String> {
    let ends = text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let in_order = |(from, to): &(f64, f64)| *from > 0.0 && from < to && to.is_finite();
    ends.filter(in_order)
        .ok_or_else(|| "learning rates are FROM..TO, both above 0 and FROM the lower: 1e-5..1e-2".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::arguments::Arguments;

    #[test]
    fn budgets_and_rates() {
        for (text, expected) in [("6", Some(6.0)), ("1.5", Some(1.5)), ("0.9", None), ("1001", None), ("NaN", None)] {
            assert_eq!(budget(text).ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("1e-5..1e-2", Some((1e-5, 1e-2))),
            ("1..2", Some((1.0, 2.0))),
            ("2..1", None),
            ("0..1", None),
            ("1..inf", None),
            ("1e-3", None),
            ("a..b", None),
        ] {
            assert_eq!(rates(text).ok(), expected, "{text}");
        }
        assert!(Arguments::try_parse_from(["fthost", "auto", "--plugin", "a"]).is_err(), "there is no budget");
        assert!(Arguments::try_parse_from(["fthost", "auto", "--resume", "--out", "a"]).is_ok());
    }
}
