//! A mock host, so that `cargo test` of a plugin alone shows that it is right. With the feature `test`.
//!
//! ```toml
//! [dev-dependencies]
//! fthost-plugin-api = { version = "0.1", features = ["test"] }
//! ```
//!
//! It implements every [op](crate::ops) with its gradient, in `f64` on the CPU and in few lines, the calls about the model and all hooks,
//! behind the same tables by which a real host calls a plugin: what is tested is what crosses. Nothing is downloaded and nothing else is
//! built; of what a plugin's release build holds it is no part.
//!
//! # A strategy
//!
//! [`Host::strategy`] makes one of its options, as they stand in a run file, and attaches it to a toy model. [`StrategyRun::check`] tries all
//! that holds for any strategy; its parts are there by themselves, too.
//!
//! ```
//! use fthost_plugin_api::prelude::*;
//! use fthost_plugin_api::test::Host;
//!
//! # #[derive(Deserialize, JsonSchema)]
//! # #[serde(deny_unknown_fields)]
//! # struct ScaleConfig { targets: Targets }
//! # struct Scale(ScaleConfig);
//! # impl Strategy for Scale {
//! #     type Config = ScaleConfig;
//! #     fn new(config: ScaleConfig) -> Result<Self> { Ok(Self(config)) }
//! #     fn attach(&mut self, model: &mut Model) -> Result<()> {
//! #         model.freeze_all()?;
//! #         for site in model.linears(&self.0.targets)? {
//! #             let scale = model.param(&site, "scale", [site.out_features], Init::Ones)?;
//! #             model.hook_linear(&site, Multiply { scale })?;
//! #         }
//! #         Ok(())
//! #     }
//! #     fn starts_at_base(&self) -> bool { true }
//! # }
//! # struct Multiply { scale: Param }
//! # impl LinearHook for Multiply {
//! #     fn forward(&self, _x: &Tensor, y: Tensor, _weight: &Tensor) -> Result<Tensor> { y.mul(&self.scale) }
//! #     fn merge(&self, weight: &Tensor) -> Result<Option<Tensor>> {
//! #         let column = self.scale.tensor().reshape([self.scale.shape()[0], 1])?;
//! #         weight.mul(&column).map(Some)
//! #     }
//! #     fn merge_bias(&self, bias: &Tensor) -> Result<Option<Tensor>> { bias.mul(&self.scale).map(Some) }
//! # }
//! # fn main() -> Result<()> {
//! // Scale is the strategy on the crate's front page, with a merge.
//! let mut run = Host::new().strategy::<Scale>(json!({ "targets": ["key", "value"] }))?;
//! assert!(run.starts_at_base()?); // it says so, and the features are those of the base model to the bit
//! run.check_gradients()?; //         by finite differences, through the hooks and the whole model
//! run.check_merge()?; //             forward with hooks is forward with merged weights
//! run.check_threads()?; //           hooks give the same on four threads at once
//! let losses = run.train(2, 3)?; //  two epochs of three steps, with all events
//! assert!(losses[5] < losses[0]);
//! run.check_state()?; //             save, load, save: the same state, and the same outputs
//! run.finish()?; //                  freed, it leaves nothing behind
//!
//! Host::new().of_pictures().strategy::<Scale>(json!({ "targets": "all-linear" }))?.check()
//! # }
//! ```
//!
//! What is wrong is said with place and size:
//!
//! ```text
//! the gradient by encoder.layer.0.attention.self.key.scale is wrong: at [2] it is 0.103371842, and finite differences give 0.206743684
//! ```
//!
//! # The others
//!
//! ```text
//! Host::new().head::<Classification>(json!({}))?.check()?;          // a loss is a sum and a weight; what predict gives; state
//! Host::new().of_pictures().head::<Segmentation>(json!({}))?.check()?;
//! Host::new().of_pair().head::<Contrastive>(json!({}))?.check()?;      // texts and pictures as two streams, of different widths
//! Host::new().sequences(2).head::<Similarity>(json!({}))?.check()?; // two texts an example
//! Host::new().scheduler::<Cosine>(json!({ "warmup": 4 }))?.rates(100)?;
//! Host::new().regularizer::<L2sp>(json!({}))?.check()?;             // the penalty's gradient, events, state
//! Host::new().optimizer::<Lion>(json!({}))?.check()?;               // all that a rule knows is in its states
//! ```
//!
//! What a method computes is compared with its formula, in numbers that a test writes: [`OptimizerRun::check_formula`] of an update,
//! [`HeadRun::loss`], [`predict`](HeadRun::predict) and [`metrics`](HeadRun::metrics) of a head, [`StrategyRun::value`] amid
//! [events](StrategyRun::event), [`scalars`](StrategyRun::scalars) that it told.
//!
//! ```
//! use fthost_plugin_api::{Optimizer, StateSpec, Update, Updated, prelude::*, test::Host};
//! # #[derive(Deserialize, JsonSchema)]
//! # struct SgdConfig {}
//! # struct Sgd;
//! # impl Optimizer for Sgd {
//! #     type Config = SgdConfig;
//! #     fn new(_: SgdConfig) -> Result<Self> { Ok(Self) }
//! #     fn momentum(&self) -> f64 { 0.9 }
//! #     fn states(&self, _: &str, shape: &[usize]) -> Result<Vec<StateSpec>> { Ok(vec![StateSpec::new("momentum", shape)]) }
//! #     fn step(&self, of: &Update<'_>) -> Result<Updated> {
//! #         let momentum = of.states[0].mul_scalar(of.momentum)?.add(&of.gradient)?;
//! #         Ok(Updated { value: of.value.sub(&momentum.mul_scalar(of.lr)?)?, states: vec![momentum] })
//! #     }
//! # }
//! # fn main() -> Result<()> {
//! // Sgd is an optimizer with one state: m = momentum m + g, theta = theta - lr m.
//! let run = Host::new().optimizer::<Sgd>(json!({}))?;
//! run.check_formula("dense.weight", [3, 2], |of| {
//!     for i in 0..of.value.len() {
//!         of.states[0][i] = of.momentum * of.states[0][i] + of.gradient[i];
//!         of.value[i] -= of.lr * of.states[0][i];
//!     }
//! })?;
//! run.check()
//! # }
//! ```
//!
//! A plugin's own functions of tensors are called within [`Host::call`]:
//!
//! ```
//! use fthost_plugin_api::{prelude::*, test::Host};
//!
//! let norm = Host::new().call(|_model| Tensor::from_slice(&[3.0, 4.0], [1, 2])?.norm_dim(-1, false)?.to_scalar())?;
//! assert_eq!(norm, 5.0);
//! # Ok::<(), Error>(())
//! ```
//!
//! # The toy model
//!
//! A transformer of two blocks, 6 wide with 2 heads, with weights that are the same in every test. [`Host::new`] takes the one of texts,
//! [`of_pictures`](Host::of_pictures) the one of pictures, and [`of_pair`](Host::of_pair) both for a head that reads two streams.
//!
//! | site | kind | |
//! |---|---|---|
//! | `embeddings` | embeddings | |
//! | `embeddings.convolution` | convolution | 6 channels, 1 x 3, over the tokens of each text |
//! | `embeddings.patch_embeddings.projection` | convolution | of pictures instead: 2 channels, 2 x 2, stride 2 |
//! | `encoder.layer.0.attention.self.query`, `key`, `value` | linear | 6 to 6 |
//! | `encoder.layer.0.attention.self` | attention | |
//! | `encoder.layer.0.attention.output.dense` | linear | 6 to 6 |
//! | `encoder.layer.0.attention.output` | attention output | |
//! | `encoder.layer.0.intermediate.dense`, `output.dense` | linear | 6 to 8 to 6 |
//! | `encoder.layer.0.output` | feed-forward output | |
//! | `encoder.layer.1. ...` | | the same |
//! | `pooler.dense` | linear | 6 to 6 |
//!
//! Block group 0 holds the embeddings, 1 and 2 the blocks, 3 the heads. Norms are `LayerNorm.weight` and `.bias` of embeddings and of both
//! halves of a block. It trains as a whole until a strategy freezes it.
//!
//! # What is not as in a real host
//!
//! - Floats are `f64` inside, also where the element type says `f32`: rounding is none of what is tested here. What trains does so by plain
//!   gradient descent; an optimizer is tried by itself.
//! - A head's examples that pass [several times](crate::HeadSpec::forwards) have features of which other ones are dropped each time; the toy
//!   model itself drops nothing.
//! - A head's own metrics may have any names here: those that a real host has for such predictions are not known.
//! - Regular expressions know literals, `.`, classes, groups, `|`, `* + ? {n,m}`, `\d \w \s`, `^ $` and `(?i)` at the beginning.
//! - What goes through [`detach`](crate::Tensor::detach), and what has no gradient by its definition
//!   ([`low_rank_norm`](crate::Tensor::low_rank_norm)), stands still in finite differences. Numbers that are read out of a tensor and made a
//!   new one do not: the gradient that is lost there is found.
//! - Tensors that a call made and still holds at its end are an error here, and so is one that is released twice.

mod cases;
mod core;
mod examples;
mod finite;
mod forward;
mod head;
mod host;
mod model_calls;
mod ops;
mod optimizer;
mod pass;
mod pattern;
mod random;
#[doc(hidden)]
pub mod raw;
mod regularizer;
mod run;
mod scheduler;
mod session;
mod strategy;
mod targets;
mod toy;
mod value;
mod wire;

pub use self::{
    head::HeadRun,
    host::Host,
    optimizer::{Numbers, OptimizerRun},
    regularizer::RegularizerRun,
    scheduler::SchedulerRun,
    strategy::StrategyRun,
};
