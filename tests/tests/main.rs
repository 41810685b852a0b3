//! Runs the built host with the built plugins, as a user does.
//!
//! | module | holds |
//! |---|---|
//! | `arrows` | which modules import which: no circles, and the order that ARCHITECTURE.md states |
//! | `auto` | searches: what they try, that they see no test examples, runs that fail or are stopped |
//! | `bad_input` | mistakes in run files, models, data and folders, and their errors |
//! | `balance` | classes made equally frequent by sampling: epochs, resumed runs, what is refused |
//! | `best` | the best model, also where parameters thaw after it |
//! | `boundary` | who may know whom, what a plugin's file holds, where `unsafe` stands |
//! | `c_plugin` | a plugin in C |
//! | `compare` | candidates beside each other; comparisons that are stopped, killed, or lose runs |
//! | `compare_rates` | comparisons whose candidates train at rates that `lr-find` suggests |
//! | `continual` | pixels that change places, tasks of some classes, one head for several tasks, classes that are turned |
//! | `cuda` | the demo on a GPU beside the demo on the CPU |
//! | `denominators` | what losses and penalties are divided by; steps that are left out |
//! | `demo` | the embedded demo and what a run leaves behind |
//! | `docs` | README.md and docs/: their commands run, their links lead somewhere |
//! | `embedding` | the host in a program of one's own |
//! | `every_plugin` | every plugin's example, options and resumed run; new plugins are found by themselves |
//! | `examples` | test shares, ids, weights, groups, words beyond the longest length |
//! | `export` | language models as llama.cpp, Ollama, PEFT and Transformers open them, and as these save them |
//! | `few_shot` | episodes and prototypes; evaluation on new classes |
//! | `folds` | cross-validation: one candidate and several, stopped and gone on with, groups, values, words, images |
//! | `full_disk` | runs whose disk is full |
//! | `generate` | texts that language models continue, beside Transformers; drawn, stopped, refused |
//! | `golden` | plugins that were built once for ABI 1.0; hosts and plugins of a later minor |
//! | `growth` | what plugins may say since ABI 1.1, in whole runs, and killed ones |
//! | `handed_over` | results of plugins that cannot be right, each refused by name; heads of a third party, saved and opened |
//! | `hub` | models by name, from a server on this machine; downloads that fail or end early |
//! | `init` | first run files for data as they are published |
//! | `json` | every command prints one object where it is asked for JSON |
//! | `lora` | LoRA and DoRA in every form beside PEFT: outputs and steps |
//! | `masks` | a class for each pixel: training, overlays, predicted masks, comparisons, what is refused |
//! | `merging` | runs of several strategies, merged: the same predictions, or a refusal that names the layer |
//! | `misbehaving` | plugins that fail while they run |
//! | `multi_label` | any number of classes an example: runs, thresholds, predictions, folds, comparisons, what is refused |
//! | `mutated` | plugins changed at random in every part of them: no crash, no hang, no code before the notes are accepted |
//! | `networks` | every strategy on a ResNet and on EfficientNet-Lite0, as README.md says |
//! | `new_plugin` | an author's road: what docs/authors.md prints, for each kind of plugin and in C |
//! | `old_compiler` | plugins and what they depend on, by Rust 1.85 |
//! | `opening` | files tried in a process of their own, trusted by digest and place, listed |
//! | `outside` | a plugin from outside the workspace |
//! | `peft_folders` | folders that PEFT saved, evaluated and merged; what of them is refused |
//! | `pictures` | pictures in folders, archives, tables and IDX files; the same bits at any number of threads; bad ones |
//! | `plugin_files` | plugins that a run file names by their files; what `help` says of a method |
//! | `preferences` | pairs of answers: DPO and ORPO, their references, resumed runs, comparisons, what is refused |
//! | `prompts` | prompts, prefixes and adapters: what they save, and what Python computes with it |
//! | `published` | data sets in the forms in which they are published |
//! | `quantized` | weights in few bits: what trains beside them, what is refused, the same bits again |
//! | `reach` | options that a run of its length never comes to |
//! | `refused` | files that are no usable plugin |
//! | `resume` | runs that end early and go on to the same bits; validation and accumulation |
//! | `results` | validation examples alone, temperatures and thresholds, predictions of files and standard input |
//! | `saved` | every head's saved folders on many bases: what Transformers, PEFT and fthost itself compute with them |
//! | `search` | two streams in use: vectors of one side, what is nearest to a text or a picture, classes by their names; retrieval both ways |
//! | `strategies` | what strategies train and how fast, read off the weights that they save |
//! | `tasks` | several tasks: joint, in sequence, used after the run |
//! | `text` | text runs, and that PEFT reads what they save |
//! | `threads` | more threads than cores |
//! | `tokenizer_settings` | what tokenizer_config.json changes, and what of it is refused |
//! | `tokens` | tasks with a label for each word, in training, prediction and in Transformers' eyes |
//! | `towers` | models of two streams and texts that are compared: what is saved opens again, and in other tools; merged, exported, killed |
//! | `trained` | runs that have ended, evaluated and merged; plans |
//! | `validate` | the conformance suite: all plugins pass, those that break a promise fail by its test |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod arrows;
mod auto;
mod bad_input;
mod balance;
mod best;
mod boundary;
mod c_plugin;
mod compare;
mod compare_rates;
mod continual;
mod cuda;
mod decoders;
mod demo;
mod denominators;
mod docs;
mod embedding;
mod every_plugin;
mod examples;
mod export;
mod few_shot;
mod folds;
mod full_disk;
mod generate;
mod golden;
mod growth;
mod handed_over;
mod hub;
mod init;
mod json;
mod language;
mod lora;
mod masks;
mod merging;
mod misbehaving;
mod multi_label;
mod mutated;
mod networks;
mod new_plugin;
mod old_compiler;
mod opening;
mod outside;
mod peft_folders;
mod pictures;
mod plugin_files;
mod preferences;
mod prompts;
mod published;
mod quantized;
mod reach;
mod refused;
mod results;
mod resume;
mod saved;
mod search;
mod seeing;
mod sentences;
mod standardised;
mod strategies;
mod streams;
mod tasks;
mod text;
mod threads;
mod tokenizer_settings;
mod tokens;
mod towers;
mod trained;
mod validate;
