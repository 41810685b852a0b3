//! What the runs of a comparison left in their folders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fthost_plugin_api::PredictionKind;
use serde::Deserialize;

use super::candidates::{Candidate, used};
use crate::run::results::predictions::{self, Row};
use crate::run::results::proof::Pairing;
use crate::run::results::result;
use crate::run::state::identity::PluginUsed;
use crate::{Error, Result};

/// A result that a run has left.
#[derive(Clone, Debug)]
pub(super) struct Left {
    pub(super) seconds: f64,
    pub(super) peak_rss_bytes: u64,
    pub(super) trainable: usize,
    pub(super) pairing: Pairing,
    pub(super) kind: PredictionKind,
    pub(super) predictions: Vec<Row>,
}

/// The run folder of a candidate and a seed.
pub(super) fn run_folder(comparison: &Path, candidate: &Candidate, seed: u64) -> PathBuf {
    comparison.join(&candidate.name).join(format!("seed-{seed}"))
}

/// Refuses the result of a run whose plugins are no longer what they were, heads and schedules among them: runs of a comparison
/// differ in what is compared and in nothing else.
///
/// # Errors
/// Where a plugin's file has changed or is gone, or the result does not read.
pub(super) fn check_plugins(folder: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Plugins {
        plugins: Vec<PluginUsed>,
    }
    let Plugins { plugins } = result::read(folder)?;
    for then in &plugins {
        if used(Path::new(&then.path))?.sha256 != then.sha256 {
            let message = format!(
                "{} has a result of plugin {}, and {} has changed since",
                folder.display(),
                then.name,
                then.path
            );
            return Err(Error::usage(message)
                .with_help("remove that run's folder to make it again, or begin a new comparison in another folder"));
        }
    }
    Ok(())
}

/// The parts of `result.json` that are needed.
#[derive(Deserialize)]
struct Json {
    tasks: BTreeMap<String, JsonTask>,
    train: JsonTrain,
    parameters: JsonParameters,
    proof: JsonProof,
}

#[derive(Deserialize)]
struct JsonTask {
    /// Only predictions of classes can be confused.
    #[serde(default)]
    confusion: Vec<Vec<u64>>,
}

#[derive(Deserialize)]
struct JsonTrain {
    seconds: f64,
    peak_rss_bytes: u64,
}

#[derive(Deserialize)]
struct JsonParameters {
    trainable: usize,
}

#[derive(Deserialize)]
struct JsonProof {
    pairing: Pairing,
}

impl Left {
    /// Reads what a run of a task left in its folder.
    ///
    /// # Errors
    /// Where something is missing or does not read.
    pub(super) fn read(folder: &Path, task: &str) -> Result<Self> {
        let json: Json = result::read(folder)?;
        let result =
            json.tasks.get(task).ok_or_else(|| result::unreadable(folder, &format!("it has no task {task}")))?;
        Ok(Self {
            seconds: json.train.seconds,
            peak_rss_bytes: json.train.peak_rss_bytes,
            trainable: json.parameters.trainable,
            pairing: json.proof.pairing,
            kind: if result.confusion.is_empty() { PredictionKind::Values } else { PredictionKind::Classes },
            predictions: predictions::read(&folder.join(predictions::FILE), task)?,
        })
    }
}
