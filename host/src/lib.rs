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
//! - [`init`]: a first run file for a file of examples;
//! - [`compare`]: several such runs beside each other, and whether their differences are more than chance;
//! - [`auto`]: the search for the strategy and options that do best on validation examples;
//! - [`processes`]: how both start their runs;
//! - [`kernels`]: the processor's instructions that all of it computes with;
//! - [`report`]: progress, metrics, text for people and JSON for machines.

pub mod adapted;
pub mod auto;
pub mod compare;
pub mod cores;
pub mod data;
pub mod error;
mod handles;
pub mod hub;
pub mod init;
pub mod kernels;
mod memory;
pub mod plugin;
pub mod processes;
pub mod report;
pub mod run;

pub use error::{Error, Result};
