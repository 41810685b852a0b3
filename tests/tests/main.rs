//! Runs the built host with the built plugins, as a user does.
//!
//! | module | holds |
//! |---|---|
//! | `boundary` | who may know whom, what a plugin's file holds, where `unsafe` stands |
//! | `c_plugin` | a plugin in C |
//! | `compare` | candidates beside each other; comparisons that are stopped, killed, or lose runs |
//! | `cuda` | the demo on a GPU beside the demo on the CPU |
//! | `demo` | the embedded demo and what a run leaves behind |
//! | `examples` | every plugin's example.toml |
//! | `misbehaving` | plugins that fail while they run |
//! | `outside` | a plugin from outside the workspace |
//! | `prompts` | prompts, prefixes and adapters: what they save, and what Python computes with it |
//! | `refused` | files that are no usable plugin |
//! | `resume` | runs that end early and go on to the same bits; validation and accumulation |
//! | `run_file` | mistakes in run files, models and data |
//! | `strategies` | what strategies train and how fast, read off the weights that they save |
//! | `text` | text runs, and that PEFT reads what they save |
//! | `trained` | runs that have ended, evaluated and merged; plans |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod boundary;
mod c_plugin;
mod compare;
mod cuda;
mod demo;
mod examples;
mod misbehaving;
mod outside;
mod prompts;
mod refused;
mod resume;
mod run_file;
mod strategies;
mod text;
mod trained;
