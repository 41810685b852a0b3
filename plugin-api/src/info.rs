//! What a plugin says of itself: before its code runs (the notes in its file) and once it is connected.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::abi::tables::kind;

/// The kinds of methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodKind {
    /// A [`Strategy`](crate::Strategy).
    Strategy,
    /// A [`Scheduler`](crate::Scheduler).
    Scheduler,
    /// A [`Regularizer`](crate::Regularizer).
    Regularizer,
    /// A [`TaskHead`](crate::TaskHead).
    TaskHead,
    /// An [`Optimizer`](crate::Optimizer), by the extension `ft.optimizer/1`. Since 1.1
    Optimizer,
}

impl MethodKind {
    /// Its code on the wire.
    pub const fn code(self) -> u32 {
        match self {
            Self::Strategy => kind::STRATEGY,
            Self::Scheduler => kind::SCHEDULER,
            Self::Regularizer => kind::REGULARIZER,
            Self::TaskHead => kind::TASK_HEAD,
            Self::Optimizer => kind::OPTIMIZER,
        }
    }

    /// Its name in notes, as serde writes it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Strategy => "strategy",
            Self::Scheduler => "scheduler",
            Self::Regularizer => "regularizer",
            Self::TaskHead => "task_head",
            Self::Optimizer => "optimizer",
        }
    }
}

impl fmt::Display for MethodKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TaskHead => "task head",
            other => other.as_str(),
        })
    }
}

/// The answer of `PluginApi::describe`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginInfo {
    /// The library's name: `lora`.
    pub name: String,
    /// Its crate's version.
    pub version: String,
    /// SPDX expression.
    pub license: String,
    /// Its methods, sorted by name and then kind.
    pub methods: Vec<MethodInfo>,
}

/// One method of a connected plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodInfo {
    /// What it is.
    pub kind: MethodKind,
    /// Its name in run files.
    pub name: String,
    /// One line.
    pub summary: String,
    /// JSON Schema of its options, without references where the types are not recursive.
    pub config_schema: serde_json::Value,
    /// Its options with their defaults; an option without one is missing.
    pub config_default: serde_json::Value,
    /// As [`MethodNote::serves`].
    #[serde(default)]
    pub serves: String,
}

/// The note about a plugin as a whole, read from its file before any of its code runs. Option schemas are not in it: they
/// are computed at run time and come in [`MethodInfo`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginNote {
    /// ABI major it was built with.
    pub abi_major: u32,
    /// ABI minor it was built with.
    pub abi_minor: u32,
    /// The least minor of a host it can do with.
    pub min_host_minor: u32,
    /// The library's name: `lora`.
    pub name: String,
    /// Its crate's version.
    pub version: String,
    /// SPDX expression.
    pub license: String,
    /// Panic strategy; always `unwind`, since `export_plugin!` refuses to build under `abort`.
    pub panic: String,
    /// `rustc --version` of its build.
    pub compiler: String,
    /// The ops it declares to need; a host that lacks one refuses the plugin by that name.
    pub ops: Vec<String>,
}

/// The note about one method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodNote {
    /// What it is.
    pub kind: MethodKind,
    /// Its name in run files.
    pub name: String,
    /// One line.
    #[serde(default)]
    pub summary: String,
    /// Which of Hugging Face's folders it opens: a strategy's `peft_type` ([`PEFT_TYPE`](crate::Strategy::PEFT_TYPE)), a head's
    /// `problem_type` ([`PROBLEM_TYPE`](crate::TaskHead::PROBLEM_TYPE)); empty for none.
    #[serde(default)]
    pub serves: String,
}
