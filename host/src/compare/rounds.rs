//! What every candidate runs: seeds, or with cross-validation each fold with each seed.

use std::fmt;
use std::path::{Path, PathBuf};

use super::candidates::Candidate;
use crate::data::Fold;

/// One run of each candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) seed: u64,
    /// The part of the training examples that is tested; none where the run file's own test examples are.
    pub(super) fold: Option<Fold>,
}

impl Round {
    /// All there are, in their order: seed by seed, so that a comparison that is stopped has as much of each candidate.
    pub(super) fn all(seeds: u64, folds: Option<u32>) -> Vec<Self> {
        let of_seed = |seed: u64| match folds {
            Some(of) => Fold::all(of).map(|fold| Self { seed, fold: Some(fold) }).collect(),
            None => vec![Self { seed, fold: None }],
        };
        (0..seeds).flat_map(of_seed).collect()
    }

    /// The run folder of a candidate.
    pub(super) fn folder(self, comparison: &Path, candidate: &Candidate) -> PathBuf {
        let Self { seed, fold } = self;
        let fold = fold.map_or_else(String::new, |fold| format!("fold-{}-", fold.fold));
        comparison.join(&candidate.name).join(format!("{fold}seed-{seed}"))
    }

    /// The run file of a candidate.
    pub(super) fn file(self, comparison: &Path, candidate: &Candidate) -> PathBuf {
        let name = self.fold.map_or_else(|| "run.toml".to_owned(), |fold| format!("fold-{}.toml", fold.fold));
        comparison.join(&candidate.name).join(name)
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fold {
            Some(fold) => write!(f, "fold {}, seed {}", fold.fold, self.seed),
            None => write!(f, "seed {}", self.seed),
        }
    }
}
