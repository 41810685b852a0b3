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
//! | [`Optimizer`] | how a gradient changes a parameter; an extension that is tried, and not promised | `optimizer = { ... }` in `[train]` |
//!
//! A plugin depends on this crate alone. It computes with [`Tensor`]s, handles whose methods run in the host, on the
//! host's device and tape; so it is differentiable without more, runs on every device, and need not be rebuilt when the host
//! moves: built against minor n of the [ABI](abi::tables), it loads in every host with minor n or later.
//!
//! # From an empty folder
//!
//! ```text
//! fthost new-plugin my-method --kind strategy     # or scheduler, regularizer, head; --c for one file in C
//! cd my-method
//! cargo test                                      # the method on a mock host, without fthost
//! cargo build --release                           # makes target/release/libmy_method.so
//! fthost validate target/release/libmy_method.so  # does it keep the boundary's rules? a line for each that it breaks
//! fthost run.toml                                 # trains the embedded demo with it
//! ```
//!
//! 1. `new-plugin` writes a crate that builds and validates as it is: a small method with its options, a unit test, a run file, a README.
//! 2. `src/lib.rs` has a struct of options, a struct of the method with an `impl` of its trait, [`register!`] with the name that run files
//!    use, and [`export_plugin!`]. Put your equation into the trait's functions; the table [below](#your-method-needs) says by what.
//! 3. The first build takes one to two minutes on two cores, since what this crate is made of (serde, schemars, abi_stable, tracing) is built
//!    with it; after an edit it takes 2 to 7 seconds.
//! 4. `validate` runs each of its tests in a process of its own; what it says of a failure names the call. `fthost inspect FILE` shows what a
//!    host reads of the file: methods, options, their help.
//! 5. The file is all that users need: they name it by `--plugin FILE`, or put it into a folder of `FTHOST_PLUGIN_PATH` and write the
//!    method's name into a run file.
//!
//! A plugin in C needs one header, `include/fthost_plugin.h`, which says by itself all that this documentation says of the boundary;
//! `examples/lora-c` of fthost is one.
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
//! # Your method needs
//!
//! | your method needs | use |
//! |---|---|
//! | some of the model's weights to train, the rest to stay | [`Model::freeze_all`], [`thaw`](Model::thaw), by [`Targets`] that an option names |
//! | new weights beside a layer | [`Model::linears`] or [`products`](Model::products), [`Model::param`] with an [`Init`] |
//! | to change what a layer gives | [`LinearHook`] by [`Model::hook_linear`], with [`merge`](LinearHook::merge) where it can be folded into the weight |
//! | to change what a layer gets | [`LinearHook::input`] |
//! | a module after attention or feed-forward | [`BlockHook`] by [`Model::hook_block`] |
//! | tokens before the text | [`EmbeddingHook`] by [`Model::hook_embeddings`] |
//! | keys and values that all tokens see | [`AttentionHook`] by [`Model::hook_attention`] |
//! | to compute something | [`Tensor`]'s methods; what there is stands in [`ops`] |
//! | other rates for some parameters | [`Model::set_lr_factor_of`]; for each step, a [`Scheduler`] |
//! | to thaw or freeze in the course of a run | [`Strategy::on_event`] with [`Event::EpochBegin`], [`StepBegin`](Event::StepBegin), [`TaskBegin`](Event::TaskBegin) |
//! | something added to the loss, of weights | [`Regularizer::penalty`] |
//! | something added to the loss, of outputs before | [`Regularizer::output_penalty`] |
//! | the gradient of each example (Fisher information) | [`Model::example_gradients`] in [`Event::TaskEnd`]; with a seed since 1.1 |
//! | the gradient of the step just taken | `Model::gradient` in [`Event::StepEnd`], since 1.1 |
//! | weights that differ in evaluations (EMA, SWA) | `Event::EvaluationBegin`, `EvaluationEnd` and [`Model::set_value`], since 1.1 |
//! | a loss and predictions of one's own | [`TaskHead`] |
//! | metrics of one's own | `TaskHead::metrics`, since 1.1; a single number at any time: `Model::log_scalar`, since 1.1 |
//! | the whole batch at once (contrastive losses, prototypes) | [`LossScope::Batch`], [`Sampling::Episodes`] |
//! | texts and pictures together | [`HeadSpec::streams`] and [`TaskHead::forward_streams`], by [`TaskInfo::streams`] |
//! | what belongs together, without labels | [`TargetKind::Match`] and [`PredictionKind::Embeddings`], since 1.1 |
//! | each row several times under other dropout masks | `HeadSpec::forwards`, since 1.1 |
//! | layer over the vocabulary, word embeddings | [`TaskInfo::vocabulary`], [`VocabularyLayer`] |
//! | a tensor beyond one call | [`Tensor::keep`] |
//! | numbers that a resumed run must know | [`Strategy::save`] and [`load`](Strategy::load); parameters are saved by the host |
//! | to be saved as PEFT does | [`Strategy::adapter_config`], [`adapter_tensors`](Strategy::adapter_tensors); to open such a folder, [`PEFT_TYPE`](Strategy::PEFT_TYPE) |
//! | an update rule of its own (Lion, Muon) | the extension `ft.optimizer/1`, since 1.1 |
//! | what is not promised yet | [`draft`] |
//!
//! # What holds for all methods
//!
//! - Calls marked `[run thread]` come one at a time; those marked `[any thread]` (hooks, a head's forward and loss) come
//!   from several threads at once, so they take `&self` and keep no hidden state.
//! - Errors are [`Error`]s with a message that says what to do; `?` works on every op. A panic never leaves the plugin:
//!   the host stops the run with message and place.
//! - `tracing`'s events and spans reach the host's log.
//! - A plugin runs in the host's process with all its rights. Load what you trust.
//!
//! # The promise, and its limits
//!
//! A plugin that was built against ABI 1.n loads in every host of ABI 1.m with m >= n, for at least two years, and does what it did:
//! files that were built on the first day train in the tests of every later version.
//!
//! - What was given stays: no field, function, op, model call, key or event is taken back or changes its meaning. What is new is appended. The
//!   [changelog] says what came when; `since.txt` beside it has each symbol with its minor, and a test keeps it.
//! - A host that is too old refuses a plugin before any of its code runs, and says which minor or op it lacks: `min_host_minor` and `ops` of
//!   [`PluginNote`], the second by [`export_plugin!`]. What is used only where it is there needs neither: a call that an older host does not
//!   know is an [`Error`] that says so.
//! - The promise is about files. This crate's Rust follows semantic versions like any other, so a later version may ask for changes in a
//!   source that is built anew; the file that was built before needs none.
//! - It is not about bits: a later host may compute faster and round otherwise.
//! - [Drafts](draft) are not promised. Neither is what is not documented: memory layout of handles, the order of calls beyond what the traits say.
//! - 64-bit Linux, x86-64 and AArch64; a file is of one of them. Rust 1.85 or later builds it.

pub mod abi;
#[doc = include_str!("../CHANGELOG.md")]
pub mod changelog {}
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
mod optimizer;
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
mod weight_average;

pub use abi::entry::builtin;
pub use class_weights::ClassWeights;
pub use error::{Error, Result};
pub use event::Event;
pub use example_gradient::{ExampleGradient, FisherLabels};
pub use head_layers::{CrossEntropy, DenseLayer, HeadLayers, HeadShape, check_shares};
pub use hook::{AttentionHook, BlockHook, EmbeddingHook, LinearHook, Prefix, Prompt};
pub use info::{MethodInfo, MethodKind, MethodNote, PluginInfo, PluginNote};
pub use maps::Window;
pub use model::{Convolution, Init, Model, Param, ParamInfo, Site, SiteKind, Targets};
pub use optimizer::{Elements, Optimizer, StateSpec, Update, Updated};
pub use peft::PeftConfig;
pub use positive_weights::PositiveWeights;
pub use regularizer::Regularizer;
pub use scheduler::{Evaluation, Group, Progress, Rate, Scheduler, TimeUnit, Warmup};
pub use state::SavedState;
pub use strategy::Strategy;
pub use stream::{FeatureKind, Stream};
pub use task_head::{
    Comparison, Features, HeadSpec, ImageInfo, Loss, LossScope, Masking, MetricSpec, PredictionKind, Sampling,
    StreamFeatures, TargetKind, TaskHead, TaskInfo, TaskTargets, Vocabulary, VocabularyTransform, problem_type,
};
pub use tensor::{DType, Kept, Operand, Tensor};
pub use vocabulary_layer::VocabularyLayer;
pub use weight_average::WeightAverage;
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
