//! The wire: `repr(C)` tables of functions. Append-only.
//!
//! Rules, for two years and more:
//! - Every table and every [call](super::calls) begins with its size in bytes as its maker knew it. [`minor_0`] has the sizes of minor 0:
//!   less is refused, more is not looked at. A field that came later is read only where the size reaches it; `growth` does it for Rust.
//!   Fields are appended, never moved, changed or removed, and none ends in padding, in which an appended field would be taken for known.
//! - A function may be null, and is then one that its maker does not offer. Where the other side cannot do without, it says so by name.
//! - Only integers, `f64`, borrowed [`Str`] and [`Slice`], `u64` handles and opaque pointers cross. Nothing allocated on one
//!   side is freed on the other: text goes through a [`TextSink`] of the side that wants it.
//! - Every function returns a [`Status`]; on anything but [`OK`] the reason was handed over by `set_error` (plugin to
//!   host) or waits in `last_error` (host to plugin).
//! - No function unwinds into the other side.
//! - What is named (ops, model calls, hook kinds) is data: a new name breaks nobody.
//! - Beside each function stands the thread that it is called on. Calls nest only as a call into the host says. While a call into an
//!   instance or a hook is under way, the same thread does not enter that instance or hook again, whatever ops the call runs: an op
//!   never waits for other work of the run. So a lock may be held across an op.
//! - [`Str`], [`Slice`], [`SliceMut`], [`TextSink`], [`Instance`] and [`BaseVtable`] never change.

use std::ffi::c_void;

use super::calls::{Evaluation, ExamplesCall, Group, HeadCall, HookCall, LogRecord, OpCall, Progress, Rate};
pub use super::lent::{Slice, SliceMut, Status, Str, TextSink};

/// Changes when a plugin must be rebuilt. It shall not.
pub const ABI_MAJOR: u32 = 1;
/// Counts what was appended. 1: gradients in [`Event::StepEnd`](crate::Event::StepEnd) and by a seed, metrics of heads, scalars, evaluation
/// events, constants, several passes of a row.
#[cfg(not(feature = "longer-tables"))]
pub const ABI_MINOR: u32 = 1;
/// Counts what was appended: a minor of tests alone.
#[cfg(feature = "longer-tables")]
pub const ABI_MINOR: u32 = 2;

/// Success.
pub const OK: Status = 0;
/// The call failed; the reason was handed over.
pub const FAILED: Status = 1;
/// The plugin panicked; the instance must not be called again except to drop it.
pub const PANICKED: Status = 2;

/// Bytes of the tables and calls at the minor in which each came, 0 where nothing else is said, on 64-bit machines: the least that is
/// accepted, for ever.
pub mod minor_0 {
    /// Of `HostApi`.
    pub const HOST_API: u32 = 120;
    /// Of `PluginApi`.
    pub const PLUGIN_API: u32 = 48;
    /// Of `BaseVtable`.
    pub const BASE_VTABLE: u32 = 40;
    /// Of `StrategyVtable`.
    pub const STRATEGY_VTABLE: u32 = 72;
    /// Of `SchedulerVtable`.
    pub const SCHEDULER_VTABLE: u32 = 56;
    /// Of `RegularizerVtable`.
    pub const REGULARIZER_VTABLE: u32 = 72;
    /// Of `TaskHeadVtable`.
    pub const TASK_HEAD_VTABLE: u32 = 80;
    /// Of `HookVtable`.
    pub const HOOK_VTABLE: u32 = 56;
    /// Of `OpCall`.
    pub const OP_CALL: u32 = 72;
    /// Of `LogRecord`.
    pub const LOG_RECORD: u32 = 64;
    /// Of `HookCall`.
    pub const HOOK_CALL: u32 = 72;
    /// Of `HeadCall`.
    pub const HEAD_CALL: u32 = 96;
    /// Of `Progress`.
    pub const PROGRESS: u32 = 32;
    /// Of `Group`.
    pub const GROUP: u32 = 56;
    /// Of `Rate`.
    pub const RATE: u32 = 24;
    /// Of `Evaluation`.
    pub const EVALUATION: u32 = 48;
    /// Of `ExamplesCall`, at minor 1.
    pub const EXAMPLES_CALL: u32 = 40;
}

/// Element types of tensors.
pub mod dtype {
    /// 32-bit float.
    pub const F32: u32 = 1;
    /// 64-bit float.
    pub const F64: u32 = 2;
    /// Unsigned 32-bit integer (indices, classes).
    pub const U32: u32 = 3;
    /// 16-bit brain float.
    pub const BF16: u32 = 4;
    /// 16-bit float.
    pub const F16: u32 = 5;
    /// Byte.
    pub const U8: u32 = 6;
    /// Signed 64-bit integer.
    pub const I64: u32 = 7;
}

/// Kinds of methods, as `create` takes them.
pub mod kind {
    /// A [`Strategy`](crate::Strategy).
    pub const STRATEGY: u32 = 1;
    /// A [`Scheduler`](crate::Scheduler).
    pub const SCHEDULER: u32 = 2;
    /// A [`Regularizer`](crate::Regularizer).
    pub const REGULARIZER: u32 = 3;
    /// A [`TaskHead`](crate::TaskHead).
    pub const TASK_HEAD: u32 = 4;
    /// An [`Optimizer`](crate::Optimizer): made by its extension, not by `create`. Since 1.1
    pub const OPTIMIZER: u32 = 5;
}

/// Whose labels [`HostApi::example_gradients`] takes, by [`FisherLabels`](crate::FisherLabels).
pub mod fisher_labels {
    /// One label drawn from the model's own predictive distribution.
    pub const SAMPLED: u32 = 1;
    /// The data's labels.
    pub const EMPIRICAL: u32 = 2;
    /// Every label, each weighted by its probability under the model.
    pub const EXACT: u32 = 3;
    /// None: the squared length of the head's outputs in the loss's place. Since 1.1
    pub const SQUARED_OUTPUT_NORM: u32 = 4;
}

/// Kinds of hooks, as [`HostApi::hook`] takes them.
pub mod hook_kind {
    /// [`LinearHook::forward`](crate::LinearHook::forward): `[x, y, weight]` to `[y']`.
    pub const LINEAR: u32 = 1;
    /// [`BlockHook::forward`](crate::BlockHook::forward): `[x, residual]` to `[x']`.
    pub const BLOCK: u32 = 2;
    /// [`EmbeddingHook::forward`](crate::EmbeddingHook::forward): `[embeddings]` to `[embeddings', prompt or 0]`; out flag 0: pool first token.
    pub const EMBEDDINGS: u32 = 3;
    /// [`AttentionHook::forward`](crate::AttentionHook::forward): `[keys, values]` to `[keys', values', prefix keys or 0, prefix values or 0]`.
    pub const ATTENTION: u32 = 4;
}

/// What the host offers. Valid as long as the process.
///
/// Handles: a tensor handle is valid within the call into the plugin that it was made in or given to; a parameter handle
/// for the whole run. A handle used after its release is an error (it carries a generation), never a wrong tensor.
#[repr(C)]
pub struct HostApi {
    /// Bytes of this table.
    pub struct_size: u32,
    /// [`ABI_MAJOR`] of the host.
    pub abi_major: u32,
    /// [`ABI_MINOR`] of the host.
    pub abi_minor: u32,
    /// 0.
    pub reserved: u32,

    /// Says why the status about to be returned is not OK. `[any thread]`
    pub set_error: Option<unsafe extern "C" fn(status: Status, message: Str)>,
    /// Writes why the last host call on this thread failed. `[any thread]`
    pub last_error: Option<unsafe extern "C" fn(sink: TextSink)>,
    /// Logs. `[any thread]`
    pub log: Option<unsafe extern "C" fn(record: *const LogRecord)>,

    /// Finds an op by name and version, `"linear@1"`. `[any thread]`
    pub resolve_op: Option<unsafe extern "C" fn(name: Str, op: *mut u32) -> Status>,
    /// Runs an op and records it. `[any thread]`, within a call into the plugin
    pub call_op: Option<unsafe extern "C" fn(op: u32, call: *const OpCall) -> Status>,
    /// Makes a tensor on the run's device from host memory; `dtype` is [`dtype::F32`], `F64`, `U32` or `U8` and says what `data` points to.
    pub tensor_new:
        Option<unsafe extern "C" fn(dtype: u32, data: *const c_void, shape: Slice<u64>, out: *mut u64) -> Status>,
    /// Element type and rank; writes up to `dims.len` dimensions.
    pub tensor_info:
        Option<unsafe extern "C" fn(tensor: u64, dtype: *mut u32, rank: *mut usize, dims: SliceMut<u64>) -> Status>,
    /// Copies a tensor's elements, row-major, to host memory of `bytes` bytes, in its own element type.
    pub tensor_read: Option<unsafe extern "C" fn(tensor: u64, data: *mut c_void, bytes: usize) -> Status>,
    /// Gives an owned handle back.
    pub tensor_release: Option<unsafe extern "C" fn(tensor: u64) -> Status>,

    /// A named, versioned call about the model with JSON in and out; the list stands in [`model_call`]. `[run thread]`
    pub model_call: Option<unsafe extern "C" fn(method: Str, params: Str, reply: TextSink) -> Status>,
    /// Sets a hook at a site. The host owns `data` from here, also when the call fails. `[run thread]`, in attach
    pub hook:
        Option<unsafe extern "C" fn(site: Str, kind: u32, data: *mut c_void, vtable: *const HookVtable) -> Status>,
    /// Calls `visit` with the gradient of every trainable parameter, one example (and label) at a time, on the calling
    /// thread; `labels` by [`fisher_labels`], `limit` examples at most, 0 for all. `gradient` is borrowed for the visit; the
    /// weights of one example add up to 1. A status of `visit` other than OK ends the walk and is returned. `[run thread]`
    pub example_gradients: Option<
        unsafe extern "C" fn(
            labels: u32,
            limit: u64,
            ctx: *mut c_void,
            visit: unsafe extern "C" fn(ctx: *mut c_void, param: u64, gradient: u64, weight: f64) -> Status,
        ) -> Status,
    >,
    /// A table of experimental functions (`"ft.something.draft/1"`), or null; [`draft`](super::draft) says which there are. `[any thread]`
    pub get_extension: Option<unsafe extern "C" fn(name: Str) -> *const c_void>,
    /// As `example_gradients`, of examples in an order that follows from a seed of the plugin's. `[run thread]`. Since 1.1
    pub example_gradients_of: Option<unsafe extern "C" fn(call: *const ExamplesCall) -> Status>,
    /// What a minor of tests appends.
    #[cfg(feature = "longer-tables")]
    pub later: super::calls::Appended,
}

/// Names for [`HostApi::model_call`]. Parameters and replies are JSON.
pub mod model_call {
    /// `{}` to `{"model_type", "groups", "layers", "width", "heads", "vocabulary", "streams": [Stream], "sites": [Site], "parameters":
    /// [ParamInfo]}`. `layers`, `width` and `heads` are those of a plain model, and 0 where it has none such or several streams.
    pub const DESCRIBE: &str = "describe@1";
    /// `{"kind": SiteKind, "also": [SiteKind] or missing, "targets": Targets or null, "exclude": Targets or null}` to `[Site]`. `also`
    /// names further kinds, of convolutions those of one group. A pattern that matches nothing is an error.
    pub const SITES: &str = "sites@1";
    /// `{"targets": Targets or null, "trainable": bool}` to the number of parameters (tensors) that matched; null is all of the base model.
    pub const SET_TRAINABLE: &str = "set_trainable@1";
    /// `{"owner": path or null, "name", "shape", "init": Init, "decay": bool, "head": bool}` to a handle. `owner` null: named by
    /// `name` alone, also in PEFT's files.
    pub const PARAM: &str = "param@1";
    /// `{"handle"}` to [`ParamInfo`](crate::ParamInfo).
    pub const PARAM_INFO: &str = "param_info@1";
    /// `{"targets": Targets or null, "factor"}` to the number of parameters that matched; null is all.
    pub const SET_LR_FACTOR: &str = "set_lr_factor@1";
    /// `{"targets": Targets or null}` to `[ParamInfo]`, whoever declared them; null is all. A pattern that matches nothing is an error.
    pub const PARAMS: &str = "params@1";
    /// `{"handles": [handle], "trainable": bool or null, "lr_factor": number or null, "decay": bool or null}` to the number of
    /// parameters, whoever declared them; null leaves as it is.
    pub const SET_PARAMS: &str = "set_params@1";
    /// `{"handle", "tensor"}` to null: the parameter takes the tensor's values, which have its shape.
    pub const SET_VALUE: &str = "set_value@1";
    /// `{}` to `[handle]`: the parameters that train now, whoever declared them.
    pub const TRAINABLE: &str = "trainable@1";
    /// `{"handle"}` to the handle of a tensor, or null: the gradient by which the optimizer has just changed the parameter, penalties in it,
    /// clipped where the run clips. In [`Event::StepEnd`](crate::Event::StepEnd) alone; null where it has none, or the step was left out.
    /// Since 1.1
    pub const GRADIENT: &str = "gradient@1";
    /// `{"name", "value"}` to null: a number that the run keeps with its step, in metrics.jsonl, on the page and for TensorBoard. Since 1.1
    pub const LOG_SCALAR: &str = "log_scalar@1";
}

/// Functions of a hook.
#[repr(C)]
pub struct HookVtable {
    /// Bytes of this table.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Frees the hook. Null where nothing is to be freed. `[run thread]`
    pub drop: Option<unsafe extern "C" fn(data: *mut c_void)>,
    /// The hook's forward, by [`hook_kind`]. `[any thread]`
    pub forward: Option<unsafe extern "C" fn(data: *const c_void, call: *const HookCall) -> Status>,
    /// Linear hooks, [`LinearHook::merge`](crate::LinearHook::merge): `[weight]` to `[merged weight or 0]`. Null where there is none, and in other
    /// kinds. `[run thread]`
    pub merge: Option<unsafe extern "C" fn(data: *const c_void, call: *const HookCall) -> Status>,
    /// Linear hooks that change the input, [`LinearHook::input`](crate::LinearHook::input): `[x]` to `[x' or 0]`. Null where it stays, and in
    /// other kinds. `[any thread]`
    pub input: Option<unsafe extern "C" fn(data: *const c_void, call: *const HookCall) -> Status>,
    /// Linear hooks whose merged layer has another bias, [`LinearHook::merge_bias`](crate::LinearHook::merge_bias): `[bias]` to
    /// `[merged bias or 0]`. Null where it stays, and in other kinds. `[run thread]`
    pub merge_bias: Option<unsafe extern "C" fn(data: *const c_void, call: *const HookCall) -> Status>,
    /// Attention hooks that shift the positions of a text's tokens, [`AttentionHook::position_shift`](crate::AttentionHook::position_shift):
    /// by how many. Null where they stay, and in other kinds. `[run thread]`, once, while the hook is set
    pub position_shift: Option<unsafe extern "C" fn(data: *const c_void, out: *mut u64) -> Status>,
    /// What a minor of tests appends.
    #[cfg(feature = "longer-tables")]
    pub later: super::calls::Appended,
}

/// An instance that a plugin made. Frozen.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Instance {
    /// The plugin's own.
    pub data: *mut c_void,
    /// [`StrategyVtable`], [`SchedulerVtable`], [`RegularizerVtable`] or [`TaskHeadVtable`], by the kind asked for.
    pub vtable: *const c_void,
}

/// What a plugin offers. Valid as long as the process.
#[repr(C)]
pub struct PluginApi {
    /// Bytes of this table.
    pub struct_size: u32,
    /// [`ABI_MAJOR`] the plugin was built with.
    pub abi_major: u32,
    /// [`ABI_MINOR`] the plugin was built with.
    pub abi_minor: u32,
    /// 0.
    pub reserved: u32,
    /// Writes [`PluginInfo`](crate::PluginInfo) as JSON. `[any thread]`
    pub describe: Option<unsafe extern "C" fn(sink: TextSink) -> Status>,
    /// Makes an instance of a method from JSON options that fit its schema. `[run thread]`
    pub create: Option<unsafe extern "C" fn(kind: u32, name: Str, config: Str, out: *mut Instance) -> Status>,
    /// A table of experimental functions, or null. Null where it has none. `[any thread]`
    pub get_extension: Option<unsafe extern "C" fn(name: Str) -> *const c_void>,
    /// `Strategy::options_from_peft` of the strategy `name`: the fields of an `adapter_config.json` in, options out, both JSON. Null
    /// where no strategy opens folders of PEFT. `[run thread]`
    pub options_from_peft: Option<unsafe extern "C" fn(name: Str, config: Str, sink: TextSink) -> Status>,
    /// What a minor of tests appends.
    #[cfg(feature = "longer-tables")]
    pub later: super::calls::Appended,
}

/// The part that the vtables of all four traits begin with. Frozen: a field appended here would move all that stand after
/// it in the four vtables, so additions go to the end of each of those.
///
/// A saved state is JSON `{"json": any, "tensors": {"name": handle}}`; the handles pass to the receiver.
#[repr(C)]
pub struct BaseVtable {
    /// Bytes of the whole vtable.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Frees the instance. Null where nothing is to be freed. `[run thread]`
    pub drop: Option<unsafe extern "C" fn(data: *mut c_void)>,
    /// Writes the state. Null where there is none. `[run thread]`
    pub save: Option<unsafe extern "C" fn(data: *const c_void, sink: TextSink) -> Status>,
    /// Takes a state back. Null where there is none. `[run thread]`
    pub load: Option<unsafe extern "C" fn(data: *mut c_void, state: Str) -> Status>,
    /// Hears an [`Event`](crate::Event) as JSON. Null where it listens to none. `[run thread]`
    pub event: Option<unsafe extern "C" fn(data: *mut c_void, event: Str) -> Status>,
}

/// A [`Strategy`](crate::Strategy).
#[repr(C)]
pub struct StrategyVtable {
    /// Common part.
    pub base: BaseVtable,
    /// `Strategy::attach`. `[run thread]`
    pub attach: Option<unsafe extern "C" fn(data: *mut c_void) -> Status>,
    /// `Strategy::adapter_config`: writes JSON, `null` for none. Null for none. `[run thread]`
    pub adapter_config: Option<unsafe extern "C" fn(data: *const c_void, sink: TextSink) -> Status>,
    /// `Strategy::adapter_tensors`: writes JSON `{"name": handle}`, `null` for none; the handles pass to the host. Null for none.
    /// `[run thread]`
    pub adapter_tensors: Option<unsafe extern "C" fn(data: *const c_void, sink: TextSink) -> Status>,
    /// `Strategy::starts_at_base`: writes 0 or 1. Null for 0. `[run thread]`, after attach
    pub starts_at_base: Option<unsafe extern "C" fn(data: *const c_void, out: *mut u32) -> Status>,
    /// What a minor of tests appends.
    #[cfg(feature = "longer-tables")]
    pub later: super::calls::Appended,
}

/// A [`Scheduler`](crate::Scheduler).
#[repr(C)]
pub struct SchedulerVtable {
    /// Common part.
    pub base: BaseVtable,
    /// `Scheduler::rate`. `[run thread]`
    pub rate: Option<
        unsafe extern "C" fn(
            data: *const c_void,
            progress: *const Progress,
            group: *const Group,
            out: *mut Rate,
        ) -> Status,
    >,
    /// `Scheduler::on_evaluation`. Null where it listens to none. `[run thread]`
    pub on_evaluation: Option<
        unsafe extern "C" fn(data: *mut c_void, progress: *const Progress, evaluation: *const Evaluation) -> Status,
    >,
    /// What a minor of tests appends.
    #[cfg(feature = "longer-tables")]
    pub later: super::calls::Appended,
}

/// A [`Regularizer`](crate::Regularizer).
#[repr(C)]
pub struct RegularizerVtable {
    /// Common part.
    pub base: BaseVtable,
    /// `Regularizer::attach`. Null where it need not see the model. `[run thread]`
    pub attach: Option<unsafe extern "C" fn(data: *mut c_void) -> Status>,
    /// `Regularizer::penalty`: a scalar's handle, or 0. Null for none. `[run thread]`
    pub penalty: Option<unsafe extern "C" fn(data: *const c_void, out: *mut u64) -> Status>,
    /// `Regularizer::needs_reference`: writes 0 or 1. Null for 0. `[run thread]`
    pub needs_reference: Option<unsafe extern "C" fn(data: *const c_void, out: *mut u32) -> Status>,
    /// `Regularizer::output_penalty`: a scalar's handle, or 0; the call's tensors are the outputs, its targets the reference. Null for
    /// none. `[any thread]`
    pub output_penalty: Option<unsafe extern "C" fn(data: *const c_void, call: *const HeadCall) -> Status>,
    /// What a minor of tests appends.
    #[cfg(feature = "longer-tables")]
    pub later: super::calls::Appended,
}

/// A [`TaskHead`](crate::TaskHead).
#[repr(C)]
pub struct TaskHeadVtable {
    /// Common part.
    pub base: BaseVtable,
    /// `TaskHead::attach`: [`TaskInfo`](crate::TaskInfo) JSON in, [`HeadSpec`](crate::HeadSpec) JSON out. `[run thread]`
    pub attach: Option<unsafe extern "C" fn(data: *mut c_void, task: Str, spec: TextSink) -> Status>,
    /// `TaskHead::forward`. `[any thread]`
    pub forward: Option<unsafe extern "C" fn(data: *const c_void, call: *const HeadCall) -> Status>,
    /// `TaskHead::loss`. `[any thread]`
    pub loss: Option<unsafe extern "C" fn(data: *const c_void, call: *const HeadCall) -> Status>,
    /// `TaskHead::predict`. `[any thread]`
    pub predict: Option<unsafe extern "C" fn(data: *const c_void, call: *const HeadCall) -> Status>,
    /// `TaskHead::fit`. Null where it takes nothing from examples. `[run thread]`
    pub fit: Option<unsafe extern "C" fn(data: *mut c_void, call: *const HeadCall) -> Status>,
    /// `TaskHead::metrics`: the call's tensors are the predictions, its targets the targets; writes JSON `{"name": number}`. Null where
    /// the spec names no metric. `[run thread]`. Since 1.1
    pub metrics: Option<unsafe extern "C" fn(data: *const c_void, call: *const HeadCall, sink: TextSink) -> Status>,
    /// What a minor of tests appends.
    #[cfg(feature = "longer-tables")]
    pub later: super::calls::Appended,
}

/// The C entry of a plugin, `fthost_plugin_entry_v1`: takes the host's table, gives the plugin's.
pub type EntryV1 = unsafe extern "C" fn(host: *const HostApi, out: *mut *const PluginApi) -> Status;
/// Name of [`EntryV1`]'s symbol.
pub const ENTRY_V1: &str = "fthost_plugin_entry_v1";
/// ELF section of the notes that hosts read before any code runs.
pub const NOTE_SECTION: &str = ".note.fthost";
/// Owner name in each note.
pub const NOTE_NAME: &str = "fthost";
/// Note type: the plugin as a whole, JSON [`PluginNote`](crate::PluginNote).
pub const NOTE_PLUGIN: u32 = 1;
/// Note type: one method, JSON [`MethodNote`](crate::MethodNote).
pub const NOTE_METHOD: u32 = 2;
