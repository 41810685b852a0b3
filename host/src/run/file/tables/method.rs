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

impl MethodKeys {
    /// The method, at its place in the run file.
    pub(in crate::run::file) fn at(self, path: String) -> Method {
        Method { plugin: self.plugin, file: None, config: Json::Object(self.options), stream: None, path }
    }
}

/// A strategy: a method that may keep to one of the model's streams.
#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::run::file) struct StrategyKeys {
    /// the stream of the model that it sees, as if there were no other; all of the model where none is named
    #[schemars(length(min = 1))]
    pub(in crate::run::file) stream: Option<String>,
    #[serde(flatten)]
    pub(in crate::run::file) method: MethodKeys,
}

/// A schedule: a method that may be for one of the model's streams.
#[derive(Debug, Deserialize, JsonSchema)]
pub(in crate::run::file) struct ScheduleKeys {
    /// the stream of the model whose parameters it is for; where none is named, all that no other schedule is for, heads among them
    #[schemars(length(min = 1))]
    pub(in crate::run::file) stream: Option<String>,
    #[serde(flatten)]
    pub(in crate::run::file) method: MethodKeys,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::run::file) enum ScheduleKey {
    /// one for all
    One(ScheduleKeys),
    /// one for each stream
    Many(#[schemars(length(min = 1))] Vec<ScheduleKeys>),
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
    /// The model's stream that a strategy or a schedule keeps to.
    pub stream: Option<String>,
    /// Where it stands in the run file: `strategy[0]`, `task[0].head`.
    pub path: String,
}

impl Method {
    /// What it is called beside others: its name, and the stream that it keeps to.
    pub fn title(&self) -> String {
        self.stream.as_ref().map_or_else(|| self.plugin.clone(), |stream| format!("{} of {stream}", self.plugin))
    }
}

/// One `[[regularizer]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RegularizerTable {
    /// The method.
    pub method: Method,
    /// The folder of an earlier run, absolute, whose state it begins with.
    pub state: Option<PathBuf>,
}
