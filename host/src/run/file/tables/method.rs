//! Methods with their options: heads, strategies, regularizers, the schedule.

use std::path::PathBuf;

use fthost_plugin_api::schemars::{self, JsonSchema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

/// A method and its options. Options are checked against the plugin's own schema once it is open.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(in crate::run::file) struct MethodKeys {
    /// the method's name, as its plugin registers it, or the plugin's file: ./libNAME.so
    #[schemars(length(min = 1))]
    pub(in crate::run::file) plugin: String,
    #[serde(flatten)]
    pub(in crate::run::file) options: Map<String, Json>,
}

/// A regularizer: a method that may begin with what an earlier run left of it.
#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::run::file) struct RegularizerKeys {
    /// folder of an earlier run, whose regularizer of the same name this one goes on from; relative to the run file
    #[schemars(length(min = 1))]
    pub(in crate::run::file) state: Option<String>,
    #[serde(flatten)]
    pub(in crate::run::file) method: MethodKeys,
}

/// A method with its options.
#[derive(Clone, Debug, PartialEq)]
pub struct Method {
    /// Its name.
    pub plugin: String,
    /// Its plugin's file, absolute, where the run file names that.
    pub file: Option<PathBuf>,
    /// Its options: a JSON object.
    pub config: Json,
    /// Where it stands in the run file: `strategy[0]`, `task[0].head`.
    pub path: String,
}

/// One `[[regularizer]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RegularizerTable {
    /// The method.
    pub method: Method,
    /// The folder of an earlier run, absolute, whose state it begins with.
    pub state: Option<PathBuf>,
}
