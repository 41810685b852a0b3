//! What a comparison is, beside its runs, and whether what goes on is the same.

use serde::{Deserialize, Serialize};

use super::candidates::Candidate;
use super::rounds::Round;
use crate::Result;
use crate::run::DeviceChoice;

/// The file's name.
pub(super) const FILE: &str = "candidates.json";

/// What a comparison is, as its folder keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) seeds: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) folds: Option<u32>,
    /// Whether candidates took rates that `lr-find` suggested.
    #[serde(default)]
    pub(super) lr_find: bool,
    pub(super) metric: Option<String>,
    pub(super) candidates: Vec<Candidate>,
}

impl Record {
    /// What every candidate runs.
    pub(super) fn rounds(&self) -> Vec<Round> {
        Round::all(self.seeds, self.folds)
    }
}

/// The candidates of what goes on: those that are named, or without any those that it began with, as their plugins are now.
pub(crate) fn going_on(begun: &[Candidate], named: &[Candidate], device: DeviceChoice) -> Result<Vec<Candidate>> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    let mut now = begun.iter().map(Candidate::as_of_now).collect::<Result<Vec<_>>>()?;
    now.iter_mut().for_each(|candidate| candidate.identity.device = device.to_string());
    Ok(now)
}

/// What differs between the candidates of a comparison that was begun and those of now, one line each.
pub(crate) fn differences(begun: &[Candidate], now: &[Candidate]) -> Vec<String> {
    let names = |of: &[Candidate]| of.iter().map(|candidate| candidate.name.clone()).collect::<Vec<_>>().join(", ");
    if names(begun) != names(now) {
        return vec![format!("candidates: {} then, {} now", names(begun), names(now))];
    }
    let of_one = |(then, now): (&Candidate, &Candidate)| {
        let found = then.identity.differences(&now.identity);
        found.into_iter().map(|difference| format!("{}: {difference}", then.name)).collect::<Vec<_>>()
    };
    begun.iter().zip(now).flat_map(of_one).collect()
}
