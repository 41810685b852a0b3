//! The calls of the wire: what one function of the [tables](super::tables) is given, or writes. They grow as the tables do.
//!
//! Each begins with its size as its maker knew it. One that the callee writes ([`Rate`]) is the caller's memory: the size says how far
//! it may be written, and what is not written stays as the caller set it.

use std::ffi::c_void;

use super::lent::{Slice, SliceMut, Status, Str};

/// One op call. Which inputs, integers and floats an op takes stands in the op's documentation.
#[repr(C)]
pub struct OpCall {
    /// Bytes of this call.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Tensor and parameter handles; 0 stands for an absent optional one.
    pub inputs: Slice<u64>,
    /// Integer attributes.
    pub ints: Slice<i64>,
    /// Float attributes.
    pub floats: Slice<f64>,
    /// Handles of the results, owned by the caller: release each.
    pub outputs: SliceMut<u64>,
    /// What a minor of tests appends.
    #[cfg(feature = "longer-tables")]
    pub later: Appended,
}

/// A log event on its way to the host's `tracing`.
#[repr(C)]
pub struct LogRecord {
    /// Bytes of this record.
    pub struct_size: u32,
    /// 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub level: u32,
    /// 0 event, 1 span entered, 2 span left.
    pub what: u32,
    /// 0.
    pub reserved: u32,
    /// Module path.
    pub target: Str,
    /// The message, or the span's name.
    pub message: Str,
    /// A JSON object of the other fields.
    pub fields: Str,
    /// What a minor of tests appends.
    #[cfg(feature = "longer-tables")]
    pub later: Appended,
}

/// One call of a hook.
#[repr(C)]
pub struct HookCall {
    /// Bytes of this call.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Borrowed handles.
    pub inputs: Slice<u64>,
    /// Sequence offsets, `sequences + 1` entries; empty where a hook needs none.
    pub offsets: Slice<u32>,
    /// Results, 0 when called; the handles written here pass to the host. An input may be handed back as it is.
    pub outputs: SliceMut<u64>,
    /// Result flags, 0 when called.
    pub flags: SliceMut<i64>,
    /// What a minor of tests appends.
    #[cfg(feature = "longer-tables")]
    pub later: Appended,
}

/// One call of a head, or of a regularizer about a head's outputs.
#[repr(C)]
pub struct HeadCall {
    /// Bytes of this call.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// forward: the features of each stream that the head reads, in the order of [`HeadSpec::streams`](crate::HeadSpec::streams).
    /// Others: the outputs. Borrowed.
    pub tensors: Slice<u64>,
    /// forward: the sequence offsets of each tensor, `sequences + 1` entries. Empty otherwise.
    pub offsets: Slice<Slice<u32>>,
    /// loss, fit: the targets; output_penalty: the reference; forward: the token after each, where targets are preferences. Borrowed. Empty
    /// otherwise.
    pub targets: Slice<u64>,
    /// loss in episodes: 1 for support rows; empty otherwise.
    pub support: Slice<u8>,
    /// Room for the results, which pass to the host; 0 when called. forward, predict, output_penalty: one. loss: the sum of the terms
    /// and, where the weight is a tensor, that. fit: none.
    pub outputs: SliceMut<u64>,
    /// loss: where the weight goes that the sum is divided by, if it is no tensor. Null otherwise.
    pub weight: *mut f64,
    /// What a minor of tests appends.
    #[cfg(feature = "longer-tables")]
    pub later: Appended,
}

/// What [`HostApi::example_gradients_of`](crate::abi::tables::HostApi::example_gradients_of) is asked for. Since 1.1
#[repr(C)]
pub struct ExamplesCall {
    /// Bytes of this call.
    pub struct_size: u32,
    /// By [`fisher_labels`](crate::abi::tables::fisher_labels).
    pub labels: u32,
    /// Examples at most; 0 for all.
    pub limit: u64,
    /// What the order of the examples and the labels that are drawn follow from, with the run's own seed.
    pub seed: u64,
    /// As [`HostApi::example_gradients`](crate::abi::tables::HostApi::example_gradients) says.
    pub visit: Option<unsafe extern "C" fn(ctx: *mut c_void, param: u64, gradient: u64, weight: f64) -> Status>,
    /// Passed to `visit`.
    pub ctx: *mut c_void,
    /// What a minor of tests appends.
    #[cfg(feature = "longer-tables")]
    pub later: Appended,
}

/// Where a run stands, as [`Progress`](crate::Progress) says.
#[repr(C)]
pub struct Progress {
    /// Bytes of this struct.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// The step about to be taken; 0 is the first.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Steps of one epoch.
    pub steps_per_epoch: u64,
    /// What a minor of tests appends.
    #[cfg(feature = "longer-tables")]
    pub later: Appended,
}

/// A group of parameters, as [`Group`](crate::Group) says.
#[repr(C)]
pub struct Group {
    /// Bytes of this struct.
    pub struct_size: u32,
    /// The group's number in its stream, counted from the bottom.
    pub number: u32,
    /// Its name.
    pub name: Str,
    /// The name of the stream it is part of; empty for what belongs to none.
    pub stream: Str,
    /// `train.lr` times the parameters' learning-rate factor.
    pub lr: f64,
    /// The optimizer's momentum or beta1.
    pub momentum: f64,
    /// What a minor of tests appends.
    #[cfg(feature = "longer-tables")]
    pub later: Appended,
}

/// What a scheduler writes, as [`Rate`](crate::Rate) says. The host has set the fields that a schedule need not know.
#[repr(C)]
pub struct Rate {
    /// Bytes of this struct, set by the host: a plugin writes no further.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// The learning rate of this step, absolute.
    pub lr: f64,
    /// Momentum or beta1 of this step; what the group has when called.
    pub momentum: f64,
    /// What a minor of tests appends.
    #[cfg(feature = "longer-tables")]
    pub later: Appended,
}

/// An evaluation, as [`Evaluation`](crate::Evaluation) says.
#[repr(C)]
pub struct Evaluation {
    /// Bytes of this struct.
    pub struct_size: u32,
    /// 1 where a higher value is a better one, 0 where a lower one is.
    pub higher_is_better: u32,
    /// The value.
    pub value: f64,
    /// The monitored metric's name.
    pub metric: Str,
    /// The task's name; empty where the value is a mean over several.
    pub task: Str,
    /// What a minor of tests appends.
    #[cfg(feature = "longer-tables")]
    pub later: Appended,
}

/// Two fields that only tests know: what a later minor appends, so that they see tables of two lengths meet.
#[cfg(feature = "longer-tables")]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Appended {
    /// [`Appended::NUMBER`].
    pub number: u64,
    /// Gives [`Appended::NUMBER`].
    pub call: Option<unsafe extern "C" fn() -> u64>,
}
