//! Single methods in a host of the tests' own: what a run as a whole does not show, such as one penalty, one gradient, one state.
//!
//! The plugins are opened from their files, as a host of a user's does it; so no plugin needs the host, not even for its tests.
//!
//! | module | holds |
//! |---|---|
//! | `adalora` | penalties, importances, ranks and what is saved beside PEFT's, states |
//! | `averages` | EMA and SWA beside torch's, thawed weights, states, the best model |
//! | `contrastive` | CLIP's loss over streams and over texts, cosines: from features to losses and gradients beside torch's |
//! | `ewc` | Fisher information beside torch's, penalties over tasks, states |
//! | `example_weights` | losses of examples with weights beside torch's |
//! | `host` | the tiny BERT and the tiny CLIP, and the built plugins on them |
//! | `hot_swap` | a plugin that is built again between runs of one process |
//! | `l2sp` | penalties and gradients of what trains, thaws and resumes |
//! | `multi_label` | losses, gradients and probabilities beside torch's |
//! | `optimizers` | Lion and Muon beside their publications, states |
//! | `ordinal` | losses, gradients and probabilities beside CORAL's, metrics beside scikit-learn's, orders |
//! | `preference` | DPO and ORPO, from features to losses, gradients and rewards beside torch's |
//! | `r_drop` | losses and gradients of two passes beside torch's |
//! | `reference` | numbers of `tests/reference` |
//! | `regression` | losses, gradients and outputs beside torch's |
//! | `segmentation` | losses, gradients and probabilities beside torch's |
//! | `si` | paths, importances and penalties beside torch's, states |
//! | `streams` | freezing and LoRA on both towers of a CLIP, and on one of them |
//! | `token_classification` | losses, gradients and outputs beside torch's |
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adalora;
mod averages;
mod contrastive;
mod ewc;
mod example_weights;
mod host;
mod hot_swap;
mod l2sp;
mod multi_label;
mod optimizers;
mod ordinal;
mod preference;
mod prototypical;
mod r_drop;
mod reference;
mod regression;
mod segmentation;
mod si;
mod streams;
mod token_classification;
