//! A run that has ended, opened again, or a folder that PEFT or Transformers saved.

pub mod answers;
mod beside;
pub mod embed;
pub mod export;
mod few_shot;
pub mod generate;
mod head;
pub mod masks;
mod merge;
pub mod model;
mod modelfile;
mod own;
mod peft;
pub mod predict;
mod run_folder;
pub mod search;
mod side;
mod whole;
pub mod zero_shot;

use std::path::Path;

use crate::Result;
use crate::hub;
use crate::run::file::Override;
use crate::run::machine::DeviceChoice;
use crate::run::state::folder::RunFolder;
pub use few_shot::FewShot;
use model::TrainedModel;

/// Whether a folder is a whole model's, and no run's or adapter's.
fn is_whole(folder: &Path) -> bool {
    if folder.is_file() {
        // Weights alone are known by the names of their tensors.
        return true;
    }
    // Where it has heads, they say how it is opened.
    if fthost_models::is_joined(folder) {
        return !own::is_one(folder);
    }
    let other = folder.join(peft::CONFIG).is_file() || RunFolder::run_file(folder).is_ok();
    !other && (folder.join(head::CONFIG).is_file() || fthost_models::config(folder).is_ok())
}

/// Opens a run folder, or one that PEFT or Transformers saved. `plugins` are used instead of those that the run used, where any is named;
/// `overrides` change its run file, and paths in them start from the working directory.
///
/// # Errors
/// Where the folder is none of these, the run has not ended, or something that it needs is gone.
pub fn open(folder: &Path, plugins: &[String], overrides: &[Override], device: DeviceChoice) -> Result<TrainedModel> {
    let folder = &hub::local(folder)?;
    if own::is_one(folder) {
        own::open(folder, plugins, overrides, device)
    } else if folder.join(peft::CONFIG).is_file() {
        peft::open(folder, plugins, overrides, device)
    } else if is_whole(folder) {
        whole::open(folder, plugins, overrides, device)
    } else {
        run_folder::open(folder, plugins, overrides, device)
    }
}
