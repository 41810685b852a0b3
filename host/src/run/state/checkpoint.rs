//! Checkpoints on disk: one safetensors file each, written whole or not at all.
//!
//! A file holds every tensor that training changes and, in the header's metadata, everything else as JSON. The newest few are
//! kept. One that is damaged is passed over in favour of the one before it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fthost_autograd::{Device, Tensor};
use safetensors::SafeTensors;
use serde::{Serialize, de::DeserializeOwned};

use super::folder::{cannot_write, write_file_atomically};
use crate::{Error, Result};

/// The metadata's key of the JSON.
const KEY: &str = "fthost";
const STEP: &str = "step-";
const BEST: &str = "best-";
const ENDING: &str = ".safetensors";

/// The folder of a run folder that holds what a resumed run goes on from.
pub const CHECKPOINTS: &str = "checkpoints";

/// The checkpoints of a run folder.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

/// A checkpoint read back.
#[derive(Debug)]
pub struct Found<H> {
    /// Its file.
    pub path: PathBuf,
    /// What stood beside the tensors.
    pub header: H,
    /// The tensors, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Checkpoints {
    /// Those of a run folder, of which the `keep` newest stay.
    pub fn new(run: &Path, keep: usize) -> Self {
        Self { folder: run.join(CHECKPOINTS), keep }
    }

    /// Writes the checkpoint after `step` optimizer steps and removes what is too old.
    ///
    /// # Errors
    /// Where it cannot be written; the ones before it are as they were then.
    pub fn write(&self, step: u64, header: &impl Serialize, tensors: &BTreeMap<String, Tensor>) -> Result<PathBuf> {
        let path = self.path(STEP, step);
        write(&path, header, tensors)?;
        let steps = self.steps(STEP)?;
        let (old, kept) = steps.split_at(steps.len().saturating_sub(self.keep));
        old.iter().try_for_each(|&old| self.remove(STEP, old))?;
        // The oldest checkpoint that stays knows the best model of its time.
        let bests = self.steps(BEST)?;
        let needed = bests.iter().rev().find(|best| kept.first().is_some_and(|oldest| *best <= oldest));
        let old = bests.iter().filter(|best| needed.is_some_and(|needed| *best < needed));
        old.copied().try_for_each(|old| self.remove(BEST, old))?;
        Ok(path)
    }

    /// Writes the best model so far, found after `step` optimizer steps.
    pub fn write_best(&self, step: u64, header: &impl Serialize, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        write(&self.path(BEST, step), header, tensors)
    }

    /// The best model.
    pub fn best<H: DeserializeOwned>(&self, step: u64) -> Result<Found<H>> {
        open(&self.path(BEST, step))
    }

    /// The newest checkpoint that is whole.
    ///
    /// # Errors
    /// Where there is none.
    pub fn newest<H: DeserializeOwned>(&self) -> Result<Found<H>> {
        let mut damaged = Vec::new();
        for step in self.steps(STEP)?.into_iter().rev() {
            let path = self.path(STEP, step);
            match read(&path) {
                Ok(found) => {
                    damaged.iter().for_each(|text| tracing::warn!("{text}; the checkpoint before it is used"));
                    return Ok(found);
                }
                Err(text) => damaged.push(format!("{} is damaged: {text}", path.display())),
            }
        }
        let run = self.folder.parent().unwrap_or(&self.folder).display();
        let help = "run it again from the start into another folder";
        Err(match damaged.first() {
            None => Error::usage(format!("there is no checkpoint in {run} to resume from")).with_help(help),
            Some(first) => Error::usage(format!("no checkpoint in {run} is whole: {first}")).with_help(help),
        })
    }

    /// The newest checkpoint's file; `None` where there is none. It is whole unless something else has damaged it.
    pub fn latest(&self) -> Option<PathBuf> {
        self.steps(STEP).ok()?.last().map(|step| self.path(STEP, *step))
    }

    fn path(&self, prefix: &str, step: u64) -> PathBuf {
        self.folder.join(format!("{prefix}{step:010}{ENDING}"))
    }

    /// The steps of the files with this prefix, ascending.
    fn steps(&self, prefix: &str) -> Result<Vec<u64>> {
        let reading = || Error::io(format!("cannot read {}", self.folder.display()));
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(reading()(error)),
        };
        let mut steps = Vec::new();
        for entry in entries {
            let name = entry.map_err(reading())?.file_name().to_string_lossy().into_owned();
            let step = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(ENDING));
            steps.extend(step.and_then(|step| step.parse::<u64>().ok()));
        }
        steps.sort_unstable();
        Ok(steps)
    }

    fn remove(&self, prefix: &str, step: u64) -> Result<()> {
        let path = self.path(prefix, step);
        fs::remove_file(&path).map_err(Error::io(format!("cannot remove the old checkpoint {}", path.display())))
    }
}

/// Reads one file in the form of a checkpoint.
///
/// # Errors
/// Where it is missing or damaged.
pub fn open<H: DeserializeOwned>(path: &Path) -> Result<Found<H>> {
    read(path).map_err(|text| unreadable(path, &text))
}

/// Writes one file in the form of a checkpoint, whole or not at all.
pub fn write(path: &Path, header: &impl Serialize, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let failed = |text: &dyn std::fmt::Display| Error::run(format!("cannot write {}: {text}", path.display()));
    let json = serde_json::to_string(header).map_err(|error| failed(&error))?;
    let metadata = std::collections::HashMap::from([(KEY.to_owned(), json)]);
    write_file_atomically(path, |file| {
        fthost_models::save(file, tensors, metadata, |own| own).map_err(|error| match error.raw_os_error() {
            Some(_) => cannot_write(path)(error),
            None => failed(&error),
        })
    })
}

/// A file, or what is wrong with it.
fn read<H: DeserializeOwned>(path: &Path) -> std::result::Result<Found<H>, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| error.to_string())?;
    let json = metadata.metadata().as_ref().and_then(|entries| entries.get(KEY)).ok_or("it is no checkpoint")?;
    let header = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|error| error.to_string())?;
    Ok(Found { path: path.to_owned(), header, tensors: tensors.into_iter().collect() })
}

fn unreadable(path: &Path, text: &str) -> Error {
    Error::usage(format!("{} cannot be read: {text}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn tensors(value: f32) -> BTreeMap<String, Tensor> {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let step = Tensor::new(7i64, &Device::Cpu).unwrap();
        BTreeMap::from([("a".into(), tensor(&[value, 2.0])), ("a.step".into(), step)])
    }

    fn value(tensors: &BTreeMap<String, Tensor>) -> f32 {
        tensors["a"].to_vec1::<f32>().unwrap()[0]
    }

    #[test]
    fn the_newest_few_are_kept_and_a_damaged_one_is_passed_over() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(run.path(), 2);
        let error = checkpoints.newest::<u64>().unwrap_err();
        assert!(error.to_string().contains("no checkpoint"), "{error}");
        for step in [5u64, 10, 15] {
            checkpoints.write(step, &(step * 100), &tensors(step as f32)).unwrap();
        }
        assert_eq!(checkpoints.steps(STEP).unwrap(), [10, 15]);
        let newest = checkpoints.newest::<u64>().unwrap();
        assert_eq!((newest.header, value(&newest.tensors)), (1500, 15.0));
        assert_eq!(newest.tensors["a.step"].to_scalar::<i64>().unwrap(), 7);

        for damage in [3, 40] {
            let bytes = fs::read(&newest.path).unwrap();
            fs::write(&newest.path, &bytes[..bytes.len() - damage]).unwrap();
            assert_eq!(checkpoints.newest::<u64>().unwrap().header, 1000);
        }
        fs::write(checkpoints.path(STEP, 10), "nothing").unwrap();
        let error = checkpoints.newest::<u64>().unwrap_err();
        assert!(error.to_string().contains("is whole"), "{error}");
    }

    #[test]
    fn the_best_stays_as_long_as_a_checkpoint_may_need_it() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(run.path(), 2);
        let check = |best: Option<u64>, step: u64, expected: &[u64]| {
            best.iter().for_each(|&best| checkpoints.write_best(best, &(), &tensors(best as f32)).unwrap());
            checkpoints.write(step, &(), &tensors(step as f32)).unwrap();
            assert_eq!(checkpoints.steps(BEST).unwrap(), expected, "after step {step}");
        };
        check(Some(4), 5, &[4]);
        check(Some(8), 10, &[4, 8]); // a run that goes on from step 5 needs 4
        check(None, 15, &[8]);
        check(None, 20, &[8]);
        assert_eq!(value(&checkpoints.best::<()>(8).unwrap().tensors), 8.0);
        assert!(checkpoints.best::<()>(4).is_err());
    }
}
