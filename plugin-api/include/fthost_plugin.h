/* The boundary between fthost and its plugins, for plugins in C. Generated from plugin-api/src/abi/tables.rs and calls.rs; the
   rules stand in the first, the ops in plugin-api/src/ops.rs. */
#ifndef FTHOST_PLUGIN_H
#define FTHOST_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#define FT_NOTE_SECTION ".note.fthost"
#define FT_NOTE_NAME "fthost"
#define FT_CALL_DESCRIBE "describe@1"
#define FT_CALL_SITES "sites@1"
#define FT_CALL_SET_TRAINABLE "set_trainable@1"
#define FT_CALL_PARAM "param@1"
#define FT_CALL_PARAM_INFO "param_info@1"
#define FT_CALL_SET_LR_FACTOR "set_lr_factor@1"
#define FT_CALL_PARAMS "params@1"
#define FT_CALL_SET_PARAMS "set_params@1"
#define FT_CALL_SET_VALUE "set_value@1"
#define FT_CALL_TRAINABLE "trainable@1"
#define FT_CALL_GRADIENT "gradient@1"
#define FT_CALL_LOG_SCALAR "log_scalar@1"

/*
 Changes when a plugin must be rebuilt. It shall not.
 */
#define FT_ABI_MAJOR 1

/*
 Counts what was appended. 1: gradients in `Event::StepEnd` and by a seed, metrics of heads, scalars, evaluation
 events, constants, several passes of a row.
 */
#define FT_ABI_MINOR 1

/*
 Note type: the plugin as a whole, JSON `PluginNote`.
 */
#define FT_NOTE_PLUGIN 1

/*
 Note type: one method, JSON `MethodNote`.
 */
#define FT_NOTE_METHOD 2

/*
 Of `HostApi`.
 */
#define FT_MINOR_0_HOST_API 120

/*
 Of `PluginApi`.
 */
#define FT_MINOR_0_PLUGIN_API 48

/*
 Of `BaseVtable`.
 */
#define FT_MINOR_0_BASE_VTABLE 40

/*
 Of `StrategyVtable`.
 */
#define FT_MINOR_0_STRATEGY_VTABLE 72

/*
 Of `SchedulerVtable`.
 */
#define FT_MINOR_0_SCHEDULER_VTABLE 56

/*
 Of `RegularizerVtable`.
 */
#define FT_MINOR_0_REGULARIZER_VTABLE 72

/*
 Of `TaskHeadVtable`.
 */
#define FT_MINOR_0_TASK_HEAD_VTABLE 80

/*
 Of `HookVtable`.
 */
#define FT_MINOR_0_HOOK_VTABLE 56

/*
 Of `OpCall`.
 */
#define FT_MINOR_0_OP_CALL 72

/*
 Of `LogRecord`.
 */
#define FT_MINOR_0_LOG_RECORD 64

/*
 Of `HookCall`.
 */
#define FT_MINOR_0_HOOK_CALL 72

/*
 Of `HeadCall`.
 */
#define FT_MINOR_0_HEAD_CALL 96

/*
 Of `Progress`.
 */
#define FT_MINOR_0_PROGRESS 32

/*
 Of `Group`.
 */
#define FT_MINOR_0_GROUP 56

/*
 Of `Rate`.
 */
#define FT_MINOR_0_RATE 24

/*
 Of `Evaluation`.
 */
#define FT_MINOR_0_EVALUATION 48

/*
 Of `ExamplesCall`, at minor 1.
 */
#define FT_MINOR_0_EXAMPLES_CALL 40

/*
 32-bit float.
 */
#define FT_DTYPE_F32 1

/*
 64-bit float.
 */
#define FT_DTYPE_F64 2

/*
 Unsigned 32-bit integer (indices, classes).
 */
#define FT_DTYPE_U32 3

/*
 16-bit brain float.
 */
#define FT_DTYPE_BF16 4

/*
 16-bit float.
 */
#define FT_DTYPE_F16 5

/*
 Byte.
 */
#define FT_DTYPE_U8 6

/*
 Signed 64-bit integer.
 */
#define FT_DTYPE_I64 7

/*
 A `Strategy`.
 */
#define FT_KIND_STRATEGY 1

/*
 A `Scheduler`.
 */
#define FT_KIND_SCHEDULER 2

/*
 A `Regularizer`.
 */
#define FT_KIND_REGULARIZER 3

/*
 A `TaskHead`.
 */
#define FT_KIND_TASK_HEAD 4

/*
 An `Optimizer`: made by its extension, not by `create`. Since 1.1
 */
#define FT_KIND_OPTIMIZER 5

/*
 One label drawn from the model's own predictive distribution.
 */
#define FT_LABELS_SAMPLED 1

/*
 The data's labels.
 */
#define FT_LABELS_EMPIRICAL 2

/*
 Every label, each weighted by its probability under the model.
 */
#define FT_LABELS_EXACT 3

/*
 None: the squared length of the head's outputs in the loss's place. Since 1.1
 */
#define FT_LABELS_SQUARED_OUTPUT_NORM 4

/*
 `LinearHook`. forward: `[x, y, weight]` to `[y']`.
 */
#define FT_HOOK_LINEAR 1

/*
 `BlockHook`. forward: `[x, residual]` to `[x']`.
 */
#define FT_HOOK_BLOCK 2

/*
 `EmbeddingHook`. forward: `[embeddings]` to `[embeddings', prompt or 0]`; out flag 0: pool first token.
 */
#define FT_HOOK_EMBEDDINGS 3

/*
 `AttentionHook`. forward: `[keys, values]` to `[keys', values', prefix keys or 0, prefix values or 0]`.
 */
#define FT_HOOK_ATTENTION 4

/*
 0 is success; see `OK`, `FAILED`, `PANICKED`.
 */
typedef int32_t FtStatus;

/*
 UTF-8 text, borrowed for the call.
 */
typedef struct {
  /*
   Start; may dangle where `len` is 0.
   */
  const uint8_t *ptr;
  /*
   Bytes.
   */
  size_t len;
} FtStr;

/*
 Where the callee writes text, in one or several pieces.
 */
typedef struct {
  /*
   The caller's own.
   */
  void *ctx;
  /*
   Appends a piece.
   */
  void (*write)(void *ctx, FtStr text);
} FtTextSink;

/*
 A slice, borrowed for the call.
 */
typedef struct {
  /*
   Start; may dangle where `len` is 0.
   */
  const uint64_t *ptr;
  /*
   Elements.
   */
  size_t len;
} FtSliceU64;

/*
 A slice, borrowed for the call.
 */
typedef struct {
  /*
   Start; may dangle where `len` is 0.
   */
  const int64_t *ptr;
  /*
   Elements.
   */
  size_t len;
} FtSliceI64;

/*
 A slice, borrowed for the call.
 */
typedef struct {
  /*
   Start; may dangle where `len` is 0.
   */
  const double *ptr;
  /*
   Elements.
   */
  size_t len;
} FtSliceF64;

/*
 A slice that the callee writes, borrowed for the call.
 */
typedef struct {
  /*
   Start; may dangle where `len` is 0.
   */
  uint64_t *ptr;
  /*
   Elements.
   */
  size_t len;
} FtSliceMutU64;

/*
 One op call. Which inputs, integers and floats an op takes stands in the op's documentation.
 */
typedef struct {
  /*
   Bytes of this call.
   */
  uint32_t struct_size;
  /*
   0.
   */
  uint32_t reserved;
  /*
   Tensor and parameter handles; 0 stands for an absent optional one.
   */
  FtSliceU64 inputs;
  /*
   Integer attributes.
   */
  FtSliceI64 ints;
  /*
   Float attributes.
   */
  FtSliceF64 floats;
  /*
   Handles of the results, owned by the caller: release each.
   */
  FtSliceMutU64 outputs;
  ;
} FtOpCall;

/*
 A log event on its way to the host's `tracing`.
 */
typedef struct {
  /*
   Bytes of this record.
   */
  uint32_t struct_size;
  /*
   1 error, 2 warn, 3 info, 4 debug, 5 trace.
   */
  uint32_t level;
  /*
   0 event, 1 span entered, 2 span left.
   */
  uint32_t what;
  /*
   0.
   */
  uint32_t reserved;
  /*
   Module path.
   */
  FtStr target;
  /*
   The message, or the span's name.
   */
  FtStr message;
  /*
   A JSON object of the other fields.
   */
  FtStr fields;
  ;
} FtLogRecord;

/*
 A slice, borrowed for the call.
 */
typedef struct {
  /*
   Start; may dangle where `len` is 0.
   */
  const uint32_t *ptr;
  /*
   Elements.
   */
  size_t len;
} FtSliceU32;

/*
 A slice that the callee writes, borrowed for the call.
 */
typedef struct {
  /*
   Start; may dangle where `len` is 0.
   */
  int64_t *ptr;
  /*
   Elements.
   */
  size_t len;
} FtSliceMutI64;

/*
 One call of a hook.
 */
typedef struct {
  /*
   Bytes of this call.
   */
  uint32_t struct_size;
  /*
   0.
   */
  uint32_t reserved;
  /*
   Borrowed handles.
   */
  FtSliceU64 inputs;
  /*
   Sequence offsets, `sequences + 1` entries; empty where a hook needs none.
   */
  FtSliceU32 offsets;
  /*
   Results, 0 when called; the handles written here pass to the host. An input may be handed back as it is.
   */
  FtSliceMutU64 outputs;
  /*
   Result flags, 0 when called.
   */
  FtSliceMutI64 flags;
  ;
} FtHookCall;

/*
 Functions of a hook.
 */
typedef struct {
  /*
   Bytes of this table.
   */
  uint32_t struct_size;
  /*
   0.
   */
  uint32_t reserved;
  /*
   Frees the hook. Null where nothing is to be freed. `[run thread]`
   */
  void (*drop)(void *data);
  /*
   The hook's forward, by `hook_kind`. `[any thread]`
   */
  FtStatus (*forward)(const void *data, const FtHookCall *call);
  /*
   Linear hooks: `[weight]` to `[merged weight or 0]`. Null in other kinds. `[run thread]`
   */
  FtStatus (*merge)(const void *data, const FtHookCall *call);
  /*
   Linear hooks that change the input: `[x]` to `[x' or 0]`. Null in other kinds. `[any thread]`
   */
  FtStatus (*input)(const void *data, const FtHookCall *call);
  /*
   Linear hooks whose merged layer has another bias: `[bias]` to `[merged bias or 0]`. Null in other kinds. `[run thread]`
   */
  FtStatus (*merge_bias)(const void *data, const FtHookCall *call);
  /*
   Attention hooks that shift the positions of a text's tokens: by how many. Null in other kinds. `[run thread]`, once, while
   the hook is set
   */
  FtStatus (*position_shift)(const void *data, uint64_t *out);
  ;
} FtHookVtable;

/*
 What `HostApi::example_gradients_of` is asked for. Since 1.1
 */
typedef struct {
  /*
   Bytes of this call.
   */
  uint32_t struct_size;
  /*
   By `fisher_labels`.
   */
  uint32_t labels;
  /*
   Examples at most; 0 for all.
   */
  uint64_t limit;
  /*
   What the order of the examples and the labels that are drawn follow from, with the run's own seed.
   */
  uint64_t seed;
  /*
   As `HostApi::example_gradients` says.
   */
  FtStatus (*visit)(void *ctx, uint64_t param, uint64_t gradient, double weight);
  /*
   Passed to `visit`.
   */
  void *ctx;
  ;
} FtExamplesCall;

/*
 What the host offers. Valid as long as the process.

 Handles: a tensor handle is valid within the call into the plugin that it was made in or given to; a parameter handle
 for the whole run. A handle used after its release is an error (it carries a generation), never a wrong tensor.
 */
typedef struct {
  /*
   Bytes of this table.
   */
  uint32_t struct_size;
  /*
   `ABI_MAJOR` of the host.
   */
  uint32_t abi_major;
  /*
   `ABI_MINOR` of the host.
   */
  uint32_t abi_minor;
  /*
   0.
   */
  uint32_t reserved;
  /*
   Says why the status about to be returned is not OK. `[any thread]`
   */
  void (*set_error)(FtStatus status, FtStr message);
  /*
   Writes why the last host call on this thread failed. `[any thread]`
   */
  void (*last_error)(FtTextSink sink);
  /*
   Logs. `[any thread]`
   */
  void (*log)(const FtLogRecord *record);
  /*
   Finds an op by name and version, `"linear@1"`. `[any thread]`
   */
  FtStatus (*resolve_op)(FtStr name, uint32_t *op);
  /*
   Runs an op and records it. `[any thread]`, within a call into the plugin
   */
  FtStatus (*call_op)(uint32_t op, const FtOpCall *call);
  /*
   Makes a tensor on the run's device from host memory; `dtype` is `dtype::F32`, `F64`, `U32` or `U8` and says what `data` points to.
   */
  FtStatus (*tensor_new)(uint32_t dtype, const void *data, FtSliceU64 shape, uint64_t *out);
  /*
   Element type and rank; writes up to `dims.len` dimensions.
   */
  FtStatus (*tensor_info)(uint64_t tensor, uint32_t *dtype, size_t *rank, FtSliceMutU64 dims);
  /*
   Copies a tensor's elements, row-major, to host memory of `bytes` bytes, in its own element type.
   */
  FtStatus (*tensor_read)(uint64_t tensor, void *data, size_t bytes);
  /*
   Gives an owned handle back.
   */
  FtStatus (*tensor_release)(uint64_t tensor);
  /*
   A named, versioned call about the model with JSON in and out; the list stands in `model_call`. `[run thread]`
   */
  FtStatus (*model_call)(FtStr method, FtStr params, FtTextSink reply);
  /*
   Sets a hook at a site. The host owns `data` from here, also when the call fails. `[run thread]`, in attach
   */
  FtStatus (*hook)(FtStr site, uint32_t kind, void *data, const FtHookVtable *vtable);
  /*
   Calls `visit` with the gradient of every trainable parameter, one example (and label) at a time, on the calling
   thread; `labels` by `fisher_labels`, `limit` examples at most, 0 for all. `gradient` is borrowed for the visit; the
   weights of one example add up to 1. A status of `visit` other than OK ends the walk and is returned. `[run thread]`
   */
  FtStatus (*example_gradients)(uint32_t labels,
                                uint64_t limit,
                                void *ctx,
                                FtStatus (*visit)(void *ctx,
                                                  uint64_t param,
                                                  uint64_t gradient,
                                                  double weight));
  /*
   A table of experimental functions (`"ft.something.draft/1"`), or null; `draft`(super::draft) says which there are. `[any thread]`
   */
  const void *(*get_extension)(FtStr name);
  /*
   As `example_gradients`, of examples in an order that follows from a seed of the plugin's. `[run thread]`. Since 1.1
   */
  FtStatus (*example_gradients_of)(const FtExamplesCall *call);
  ;
} FtHostApi;

/*
 An instance that a plugin made. Frozen.
 */
typedef struct {
  /*
   The plugin's own.
   */
  void *data;
  /*
   `StrategyVtable`, `SchedulerVtable`, `RegularizerVtable` or `TaskHeadVtable`, by the kind asked for.
   */
  const void *vtable;
} FtInstance;

/*
 What a plugin offers. Valid as long as the process.
 */
typedef struct {
  /*
   Bytes of this table.
   */
  uint32_t struct_size;
  /*
   `ABI_MAJOR` the plugin was built with.
   */
  uint32_t abi_major;
  /*
   `ABI_MINOR` the plugin was built with.
   */
  uint32_t abi_minor;
  /*
   0.
   */
  uint32_t reserved;
  /*
   Writes `PluginInfo` as JSON. `[any thread]`
   */
  FtStatus (*describe)(FtTextSink sink);
  /*
   Makes an instance of a method from JSON options that fit its schema. `[run thread]`
   */
  FtStatus (*create)(uint32_t kind, FtStr name, FtStr config, FtInstance *out);
  /*
   A table of experimental functions, or null. `[any thread]`
   */
  const void *(*get_extension)(FtStr name);
  /*
   `Strategy::options_from_peft` of the strategy `name`: the fields of an `adapter_config.json` in, options out, both JSON; null
   where no strategy opens folders of PEFT. `[run thread]`
   */
  FtStatus (*options_from_peft)(FtStr name, FtStr config, FtTextSink sink);
  ;
} FtPluginApi;

/*
 The part that the vtables of all four traits begin with. Frozen: a field appended here would move all that stand after
 it in the four vtables, so additions go to the end of each of those.

 A saved state is JSON `{"json": any, "tensors": {"name": handle}}`; the handles pass to the receiver.
 */
typedef struct {
  /*
   Bytes of the whole vtable.
   */
  uint32_t struct_size;
  /*
   0.
   */
  uint32_t reserved;
  /*
   Frees the instance. Null where nothing is to be freed. `[run thread]`
   */
  void (*drop)(void *data);
  /*
   Writes the state. Null where there is none. `[run thread]`
   */
  FtStatus (*save)(const void *data, FtTextSink sink);
  /*
   Takes a state back. Null where there is none. `[run thread]`
   */
  FtStatus (*load)(void *data, FtStr state);
  /*
   Hears an `Event` as JSON. Null where it listens to none. `[run thread]`
   */
  FtStatus (*event)(void *data, FtStr event);
} FtBaseVtable;

/*
 A `Strategy`.
 */
typedef struct {
  /*
   Common part.
   */
  FtBaseVtable base;
  /*
   `Strategy::attach`. `[run thread]`
   */
  FtStatus (*attach)(void *data);
  /*
   `Strategy::adapter_config`: writes JSON, `null` for none. Null for none. `[run thread]`
   */
  FtStatus (*adapter_config)(const void *data, FtTextSink sink);
  /*
   `Strategy::adapter_tensors`: writes JSON `{"name": handle}`, `null` for none; the handles pass to the host. Null for none.
   `[run thread]`
   */
  FtStatus (*adapter_tensors)(const void *data, FtTextSink sink);
  /*
   `Strategy::starts_at_base`: writes 0 or 1. Null for 0. `[run thread]`, after attach
   */
  FtStatus (*starts_at_base)(const void *data, uint32_t *out);
  ;
} FtStrategyVtable;

/*
 Where a run stands, as `Progress` says.
 */
typedef struct {
  /*
   Bytes of this struct.
   */
  uint32_t struct_size;
  /*
   0.
   */
  uint32_t reserved;
  /*
   The step about to be taken; 0 is the first.
   */
  uint64_t step;
  /*
   Steps of the whole run.
   */
  uint64_t total_steps;
  /*
   Steps of one epoch.
   */
  uint64_t steps_per_epoch;
  ;
} FtProgress;

/*
 A group of parameters, as `Group` says.
 */
typedef struct {
  /*
   Bytes of this struct.
   */
  uint32_t struct_size;
  /*
   The group's number in its stream, counted from the bottom.
   */
  uint32_t number;
  /*
   Its name.
   */
  FtStr name;
  /*
   The name of the stream it is part of; empty for what belongs to none.
   */
  FtStr stream;
  /*
   `train.lr` times the parameters' learning-rate factor.
   */
  double lr;
  /*
   The optimizer's momentum or beta1.
   */
  double momentum;
  ;
} FtGroup;

/*
 What a scheduler writes, as `Rate` says. The host has set the fields that a schedule need not know.
 */
typedef struct {
  /*
   Bytes of this struct, set by the host: a plugin writes no further.
   */
  uint32_t struct_size;
  /*
   0.
   */
  uint32_t reserved;
  /*
   The learning rate of this step, absolute.
   */
  double lr;
  /*
   Momentum or beta1 of this step; what the group has when called.
   */
  double momentum;
  ;
} FtRate;

/*
 An evaluation, as `Evaluation` says.
 */
typedef struct {
  /*
   Bytes of this struct.
   */
  uint32_t struct_size;
  /*
   1 where a higher value is a better one, 0 where a lower one is.
   */
  uint32_t higher_is_better;
  /*
   The value.
   */
  double value;
  /*
   The monitored metric's name.
   */
  FtStr metric;
  /*
   The task's name; empty where the value is a mean over several.
   */
  FtStr task;
  ;
} FtEvaluation;

/*
 A `Scheduler`.
 */
typedef struct {
  /*
   Common part.
   */
  FtBaseVtable base;
  /*
   `Scheduler::rate`. `[run thread]`
   */
  FtStatus (*rate)(const void *data, const FtProgress *progress, const FtGroup *group, FtRate *out);
  /*
   `Scheduler::on_evaluation`. Null where it listens to none. `[run thread]`
   */
  FtStatus (*on_evaluation)(void *data, const FtProgress *progress, const FtEvaluation *evaluation);
  ;
} FtSchedulerVtable;

/*
 A slice, borrowed for the call.
 */
typedef struct {
  /*
   Start; may dangle where `len` is 0.
   */
  const FtSliceU32 *ptr;
  /*
   Elements.
   */
  size_t len;
} FtSliceSliceU32;

/*
 A slice, borrowed for the call.
 */
typedef struct {
  /*
   Start; may dangle where `len` is 0.
   */
  const uint8_t *ptr;
  /*
   Elements.
   */
  size_t len;
} FtSliceU8;

/*
 One call of a head, or of a regularizer about a head's outputs.
 */
typedef struct {
  /*
   Bytes of this call.
   */
  uint32_t struct_size;
  /*
   0.
   */
  uint32_t reserved;
  /*
   forward: the features of each stream that the head reads, in the order of `HeadSpec::streams`.
   Others: the outputs. Borrowed.
   */
  FtSliceU64 tensors;
  /*
   forward: the sequence offsets of each tensor, `sequences + 1` entries. Empty otherwise.
   */
  FtSliceSliceU32 offsets;
  /*
   loss, fit: the targets; output_penalty: the reference; forward: the token after each, where targets are preferences. Borrowed. Empty
   otherwise.
   */
  FtSliceU64 targets;
  /*
   loss in episodes: 1 for support rows; empty otherwise.
   */
  FtSliceU8 support;
  /*
   Room for the results, which pass to the host; 0 when called. forward, predict, output_penalty: one. loss: the sum of the terms
   and, where the weight is a tensor, that. fit: none.
   */
  FtSliceMutU64 outputs;
  /*
   loss: where the weight goes that the sum is divided by, if it is no tensor. Null otherwise.
   */
  double *weight;
  ;
} FtHeadCall;

/*
 A `Regularizer`.
 */
typedef struct {
  /*
   Common part.
   */
  FtBaseVtable base;
  /*
   `Regularizer::attach`. Null where it need not see the model. `[run thread]`
   */
  FtStatus (*attach)(void *data);
  /*
   `Regularizer::penalty`: a scalar's handle, or 0. Null for none. `[run thread]`
   */
  FtStatus (*penalty)(const void *data, uint64_t *out);
  /*
   `Regularizer::needs_reference`: writes 0 or 1. Null for 0. `[run thread]`
   */
  FtStatus (*needs_reference)(const void *data, uint32_t *out);
  /*
   `Regularizer::output_penalty`: a scalar's handle, or 0; the call's tensors are the outputs, its targets the reference. Null for
   none. `[any thread]`
   */
  FtStatus (*output_penalty)(const void *data, const FtHeadCall *call);
  ;
} FtRegularizerVtable;

/*
 A `TaskHead`.
 */
typedef struct {
  /*
   Common part.
   */
  FtBaseVtable base;
  /*
   `TaskHead::attach`: `TaskInfo` JSON in, `HeadSpec` JSON out. `[run thread]`
   */
  FtStatus (*attach)(void *data, FtStr task, FtTextSink spec);
  /*
   `TaskHead::forward`. `[any thread]`
   */
  FtStatus (*forward)(const void *data, const FtHeadCall *call);
  /*
   `TaskHead::loss`. `[any thread]`
   */
  FtStatus (*loss)(const void *data, const FtHeadCall *call);
  /*
   `TaskHead::predict`. `[any thread]`
   */
  FtStatus (*predict)(const void *data, const FtHeadCall *call);
  /*
   `TaskHead::fit`. Null where it takes nothing from examples. `[run thread]`
   */
  FtStatus (*fit)(void *data, const FtHeadCall *call);
  /*
   `TaskHead::metrics`: the call's tensors are the predictions, its targets the targets; writes JSON `{"name": number}`. Null where
   the spec names no metric. `[run thread]`. Since 1.1
   */
  FtStatus (*metrics)(const void *data, const FtHeadCall *call, FtTextSink sink);
  ;
} FtTaskHeadVtable;

/*
 The C entry of a plugin, `fthost_plugin_entry_v1`: takes the host's table, gives the plugin's.
 */
typedef FtStatus (*FtEntryV1)(const FtHostApi *host, const FtPluginApi **out);

/*
 Success.
 */
#define FT_OK 0

/*
 The call failed; the reason was handed over.
 */
#define FT_FAILED 1

/*
 The plugin panicked; the instance must not be called again except to drop it.
 */
#define FT_PANICKED 2

#ifdef __cplusplus
extern "C"
#endif
/* What a plugin exports; FtEntryV1 says how. */
FtStatus fthost_plugin_entry_v1(const FtHostApi *host, const FtPluginApi **out);

#endif /* FTHOST_PLUGIN_H */
