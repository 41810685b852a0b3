//! fthost fine-tunes pretrained models with methods that are plugins: shared libraries loaded at run time.
//!
//! The parts, in the order in which a run passes through them:
//!
//! - [`run::file`]: the run file, checked against the plugins' schemas;
//! - [`plugin`]: finding, checking and opening plugins, and the bridge from their tables to the engine;
//! - [`hub`]: models by name, from the Hugging Face Hub;
//! - [`data`]: reading and tokenizing data sets;
//! - [`adapted`]: the pretrained model with what plugins added to it;
//! - [`run`]: the plan, the training loop, evaluation and what a run leaves behind;
//! - [`embedded`]: a run in a program of one's own, by [`Host`];
//! - [`new_plugin`]: a plugin to begin with;
//! - [`init`]: a first run file for a file of examples;
//! - [`compare`]: several such runs beside each other, and whether their differences are more than chance;
//! - [`auto`]: the search for the strategy and options that do best on validation examples;
//! - [`processes`]: how both start their runs, and how a plugin that takes its process with it is noticed;
//! - [`validate`]: the conformance suite for plugins;
//! - [`kernels`]: the processor's instructions that all of it computes with;
//! - [`report`]: progress, metrics, text for people and JSON for machines.

pub mod adapted;
pub mod auto;
pub mod compare;
pub mod cores;
pub mod data;
pub mod embedded;
pub mod error;
mod handles;
pub mod hub;
pub mod init;
pub mod kernels;
mod memory;
pub mod new_plugin;
pub mod plugin;
pub mod processes;
pub mod report;
pub mod run;
pub mod validate;

pub use embedded::Host;
pub use error::{Error, Result};
pub use run::state::log::Line;
pub use run::train::interrupt::Interrupt;
