//! The differentiable engine of fthost: a small tape over *untracked* candle tensors.
//!
//! candle gives storage, devices and kernels; gradients are ours, because candle's autograd drops some of them silently,
//! computes those of frozen weights, and keeps activations until the loss drops. Here
//!
//! - a [`Value`] is a candle tensor and, only if something trainable lies below it, a node of a [`Tape`];
//! - each op is a forward and a hand-written vector-Jacobian product; a frozen operand never gets a gradient;
//! - [`Tape::backward`] frees each node's saved tensors as it passes and hands gradients over by move;
//! - a tape belongs to one micro-batch and one thread; [`Parameter`]s are shared and read-only during a step.
//!
//! Every op has one meaning, runs on any candle device and float type through a composite of candle ops, and may have a
//! faster form for `f32` on the CPU (`kernels`), tested against the composite.

mod activation;
mod angles;
mod attending;
pub mod check;
mod convolution;
mod epilogue;
mod gradients;
mod kernels;
mod layout;
mod logits;
mod map;
mod node;
mod ops;
pub mod optim;
mod parameter;
mod philox;
mod quantized;
pub mod random;
mod recompute;
mod sampling;
mod slices;
mod statistics;
mod tape;
mod value;

pub use activation::Activation;
pub use angles::Angles;
pub use attending::{Attention, Sees};
pub use candle_core::{DType, Device, Error, Result, Tensor};
pub use epilogue::{Epilogue, ScaleShift};
pub use gradients::{Gradient, Gradients};
pub use kernels::Instructions;
pub use layout::Layout;
pub use logits::rows_of_logits;
pub use map::{Map, Window};
pub use node::NodeId;
pub use parameter::{Parameter, Reading, Source};
pub use quantized::{Codes, Levels, Quantization};
pub use statistics::{BatchStatistics, Observation};
pub use tape::{Dropout, Tape, TapeOptions, Vjp};
pub use value::Value;

/// The float type of matrix products. Master weights, reductions, norms, softmax and losses stay in `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit products.
    #[default]
    F32,
    /// bfloat16 operands, `f32` accumulation.
    Bf16,
    /// half operands, `f32` accumulation; needs a scaled loss.
    F16,
}
