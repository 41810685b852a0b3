//! What a search is asked for, and the names of its files.

use std::path::PathBuf;

use crate::compare::Candidate;
use crate::run::DeviceChoice;

/// What was tried and what came of it.
pub(super) const TRAIL: &str = "auto.json";
/// The run file of the best configuration.
pub(super) const BEST: &str = "best.toml";

/// What to search, and how to report.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program that makes a run: this one.
    pub program: PathBuf,
    /// The strategies; nothing where a search goes on as it was begun.
    pub candidates: Vec<Candidate>,
    /// What every random number follows from.
    pub seed: u64,
    /// Optimizer steps that may be taken in all, in whole runs; nothing where a search goes on as it was begun.
    pub budget: Option<f64>,
    /// Learning rates, from the least to the greatest, where the user named them.
    pub lr: Option<(f64, f64)>,
    /// The search's folder, where the user named one.
    pub out: Option<PathBuf>,
    /// The folder where they did not.
    pub default_folder: PathBuf,
    /// Goes on with the search in that folder.
    pub resume: bool,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Whether progress is told on standard error.
    pub shown: bool,
}

impl Options {
    /// Tells progress.
    pub(super) fn say(&self, text: &str) {
        if self.shown {
            eprintln!("{text}");
        }
    }
}
