//! `[run]`: the run's name and folder.

use std::path::PathBuf;

use fthost_plugin_api::schemars::{self, JsonSchema};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::run::file) struct RunKeys {
    /// the run's name; without it the run file's
    #[schemars(length(min = 1))]
    pub(in crate::run::file) name: Option<String>,
    /// folder that the run leaves; without it runs/NAME, relative to the working directory
    #[schemars(length(min = 1))]
    pub(in crate::run::file) out: Option<String>,
    /// whether predictions.csv has the probabilities of all classes, and not of the predicted one alone
    #[serde(default)]
    pub(in crate::run::file) probabilities: bool,
}

/// `[run]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunTable {
    /// The run's name.
    pub name: String,
    /// The folder that it leaves, relative to the working directory.
    pub out: PathBuf,
    /// Does predictions.csv have the probabilities of all classes?
    pub probabilities: bool,
}
