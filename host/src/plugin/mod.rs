//! Plugins: finding, checking and opening them, and calling their methods.
//!
//! How a call travels. [`Search`] finds a file; [`note`] reads it as data and refuses what is no plugin of this host before any
//! of its code runs; [`trust`] says whose files are opened at all; `open` maps a sealed copy, for the first time in a process of its own
//! ([`trial`]), and trades tables with it: the plugin gets the host's functions, the host the
//! plugin's. [`Library`] finds the method that a run file names, and an instance ([`StrategyInstance`], [`SchedulerInstance`],
//! [`RegularizerInstance`], [`HeadInstance`]) is made from its options. Each call on an instance opens a session on its thread
//! (`bridge::session`), lends tensors as handles, and calls the plugin's function. What the plugin calls back, ops and changes of the
//! model, lands in that session and from there on the engine's tape. Hooks that `attach` set stand in the model as bridges and open
//! a session for every forward pass. A status that is not OK becomes one [`Error::Plugin`](crate::Error::Plugin) that names plugin and call; after a
//! panic the instance is not called again.
//!
//! What goes on is noted where a process that watches over this one reads it (`underway`). Plugins are trusted: they run in this process with all
//! its rights. Nearly all unsafe code of the host is here.
#![allow(unsafe_code)]

mod bridge;
mod example_gradients;
mod instance;
mod library;
mod loading;
pub mod note;
mod open;
mod opened;
pub(crate) mod probe;
pub mod search;
mod serving;
pub(crate) mod tables;
#[cfg(test)]
mod tests;
pub mod trial;
pub mod trust;
pub(crate) mod underway;

pub use fthost_plugin_api::{FisherLabels, MethodInfo, MethodKind, MethodNote, PluginInfo};

pub(crate) use self::bridge::model_calls::streams as streams_of;
pub use self::example_gradients::{ExampleGradients, Examples};
pub use self::instance::{
    HeadInstance, OptimizerInstance, RegularizerInstance, SchedulerInstance, State, Stateful, StrategyInstance,
};
pub use self::library::Library;
pub use self::opened::Plugin;
pub use self::search::Search;
pub use self::trust::Trust;
