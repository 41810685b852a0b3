//! Runs the built host with the built plugins, as a user does.
//!
//! | module | holds |
//! |---|---|
//! | `auto` | searches: what they try, that they see no test examples, runs that fail or are stopped |
//! | `bad_input` | mistakes in run files, models, data and folders, and their errors |
//! | `boundary` | who may know whom, what a plugin's file holds, where `unsafe` stands |
//! | `c_plugin` | a plugin in C |
//! | `compare` | candidates beside each other; comparisons that are stopped, killed, or lose runs |
//! | `cuda` | the demo on a GPU beside the demo on the CPU |
//! | `demo` | the embedded demo and what a run leaves behind |
//! | `every_plugin` | every plugin's example, options and resumed run; new plugins are found by themselves |
//! | `few_shot` | episodes and prototypes; evaluation on new classes |
//! | `full_disk` | runs whose disk is full |
//! | `lora` | LoRA and DoRA in every form beside PEFT: outputs and steps |
//! | `misbehaving` | plugins that fail while they run |
//! | `outside` | a plugin from outside the workspace |
//! | `peft_folders` | folders that PEFT saved, evaluated and merged; what of them is refused |
//! | `prompts` | prompts, prefixes and adapters: what they save, and what Python computes with it |
//! | `refused` | files that are no usable plugin |
//! | `resume` | runs that end early and go on to the same bits; validation and accumulation |
//! | `saved` | every head's saved folders on many bases: what Transformers, PEFT and fthost itself compute with them |
//! | `strategies` | what strategies train and how fast, read off the weights that they save |
//! | `tasks` | several tasks: joint, in sequence, used after the run |
//! | `text` | text runs, and that PEFT reads what they save |
//! | `tokens` | tasks with a label for each word, in training, prediction and in Transformers' eyes |
//! | `trained` | runs that have ended, evaluated and merged; plans |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod auto;
mod bad_input;
mod boundary;
mod c_plugin;
mod compare;
mod cuda;
mod demo;
mod every_plugin;
mod few_shot;
mod full_disk;
mod lora;
mod misbehaving;
mod outside;
mod peft_folders;
mod prompts;
mod refused;
mod resume;
mod saved;
mod strategies;
mod tasks;
mod text;
mod tokens;
mod trained;
