//! All that an author of an fthost plugin sees.
//!
//! fthost fine-tunes pretrained models; *how* is up to plugins. A plugin is a shared library with one or more methods:
//!
//! | trait | says | in a run file |
//! |---|---|---|
//! | [`Strategy`] | what trains, and what is added to the model: LoRA, adapters, prompts | `[[strategy]]` |
//! | [`Scheduler`] | the learning rate of each step | `[schedule]` |
//! | [`Regularizer`] | what is added to the loss: L2-SP, EWC | `[[regularizer]]` |
//! | [`TaskHead`] | outputs, loss and predictions of a task | `head = { ... }` |
//!
//! A plugin depends on this crate alone. It computes with [`Tensor`]s, handles whose methods run in the host, on the
//! host's device and tape; so it is differentiable without more, builds in seconds, runs on every device, and need not be
//! rebuilt when the host moves: built against minor n of the [ABI](abi::tables), it loads in every host with minor n or later.
//!
//! # A whole plugin
//!
//! IA3 on any linear layer: the output is multiplied with a learned vector that starts at one.
//!
//! ```
//! # mod plugin {
//! use fthost_plugin_api::prelude::*;
//!
//! /// The options. The doc comments become their help, the defaults the defaults of the run file.
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields, default)]
//! struct ScaleConfig {
//!     /// Which linear layers.
//!     targets: Targets,
//! }
//!
//! impl Default for ScaleConfig {
//!     fn default() -> Self {
//!         Self { targets: Targets::from(["key", "value"]) }
//!     }
//! }
//!
//! struct Scale(ScaleConfig);
//!
//! impl Strategy for Scale {
//!     type Config = ScaleConfig;
//!
//!     fn new(config: ScaleConfig) -> Result<Self> {
//!         Ok(Self(config))
//!     }
//!
//!     fn attach(&mut self, model: &mut Model) -> Result<()> {
//!         model.freeze_all()?;
//!         for site in model.linears(&self.0.targets)? {
//!             let scale = model.param(&site, "scale", [site.out_features], Init::Ones)?;
//!             model.hook_linear(&site, Multiply { scale })?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! struct Multiply {
//!     scale: Param, // [out]
//! }
//!
//! impl LinearHook for Multiply {
//!     fn forward(&self, _x: &Tensor, y: Tensor, _weight: &Tensor) -> Result<Tensor> {
//!         y.mul(&self.scale) // [tokens, out]
//!     }
//! }
//!
//! register! {
//!     /// Multiplies the outputs of linear layers with learned vectors.
//!     Strategy "scale" => Scale
//! }
//! export_plugin! { license = "MIT OR Apache-2.0" }
//! # }
//! # fn main() {}
//! ```
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! fthost-plugin-api = "0.1"
//! serde = { version = "1", features = ["derive"] }
//! schemars = "1"
//! ```
//!
//! `cargo build --release`, then `fthost --plugin target/release/libscale.so` tries it on the embedded demo. Before that, `cargo test` tries it
//! on a mock host (`test`, a feature for dev-dependencies): gradients by finite differences, merges, state, in seconds.
//!
//! # What holds for all methods
//!
//! - Calls marked `[run thread]` come one at a time; those marked `[any thread]` (hooks, a head's forward and loss) come
//!   from several threads at once, so they take `&self` and keep no hidden state.
//! - Errors are [`Error`]s with a message that says what to do; `?` works on every op. A panic never leaves the plugin:
//!   the host stops the run with message and place.
//! - `tracing`'s events and spans reach the host's log.
//! - A plugin runs in the host's process with all its rights. Load what you trust.

pub mod abi;
mod class_weights;
pub mod draft;
mod error;
mod event;
mod example_gradient;
mod export;
mod head_layers;
mod hook;
mod info;
mod maps;
pub mod model;
pub mod ops;
mod peft;
mod positive_weights;
mod registry;
mod regularizer;
mod scheduler;
mod state;
mod strategy;
mod stream;
mod task_head;
mod tensor;
#[cfg(any(feature = "test", doc))]
pub mod test;
mod vocabulary_layer;

pub use abi::entry::builtin;
pub use class_weights::ClassWeights;
pub use error::{Error, Result};
pub use event::Event;
pub use example_gradient::{ExampleGradient, FisherLabels};
pub use head_layers::{CrossEntropy, HeadLayers, HeadShape, check_shares};
pub use hook::{AttentionHook, BlockHook, EmbeddingHook, LinearHook, Prefix, Prompt};
pub use info::{MethodInfo, MethodKind, MethodNote, PluginInfo, PluginNote};
pub use maps::Window;
pub use model::{Convolution, Init, Model, Param, ParamInfo, Site, SiteKind, Targets};
pub use peft::PeftConfig;
pub use positive_weights::PositiveWeights;
pub use regularizer::Regularizer;
pub use scheduler::{Evaluation, Group, Progress, Rate, Scheduler, TimeUnit, Warmup};
pub use state::SavedState;
pub use strategy::Strategy;
pub use stream::{FeatureKind, Stream};
pub use task_head::{
    Features, HeadSpec, ImageInfo, Loss, LossScope, Masking, PredictionKind, Sampling, StreamFeatures, TargetKind,
    TaskHead, TaskInfo, TaskTargets, Vocabulary, VocabularyTransform, problem_type,
};
pub use tensor::{DType, Kept, Operand, Tensor};
pub use vocabulary_layer::VocabularyLayer;
pub use {schemars, serde, serde_json, tracing};

/// What a plugin's file begins with: `use fthost_plugin_api::prelude::*;`
pub mod prelude {
    pub use crate::{
        AttentionHook, BlockHook, ClassWeights, DType, EmbeddingHook, Error, Evaluation, Event, ExampleGradient,
        FeatureKind, Features, FisherLabels, Group, HeadSpec, ImageInfo, Init, Kept, LinearHook, Loss, LossScope,
        Model, Operand, Param, ParamInfo, PeftConfig, PredictionKind, Prefix, Progress, Prompt, Rate, Regularizer,
        Result, Sampling, SavedState, Scheduler, Site, SiteKind, Strategy, StreamFeatures, TargetKind, Targets,
        TaskHead, TaskInfo, TaskTargets, Tensor, TimeUnit, Warmup, Window, export_plugin, problem_type, register,
        serde_json::{Value, json},
    };
    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};
}

/// For this crate's macros alone.
#[doc(hidden)]
pub mod __private {
    pub use crate::{
        abi::{
            entry::{Identity, c_entry},
            root::{Exported, root_module},
        },
        registry::{MethodEntry, kinds},
    };
    pub use abi_stable::library::{CheckTypeLayout, LibHeader};
    pub use inventory;
}
