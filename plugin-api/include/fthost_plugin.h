/* The boundary between fthost and its plugins, for plugins in C. This file is all that such a plugin needs; it is generated from the
   Rust types of fthost-plugin-api, whose documentation and CHANGELOG.md say more. C99 and C++11, for 64-bit machines.

       cc -std=c99 -O2 -shared -fPIC -I PATH_OF_THIS_FILE -o libmethod.so method.c

   A plugin is a shared library with

   - notes, which a host reads before it runs any code of the file: FTHOST_PLUGIN_NOTE once, FTHOST_METHOD_NOTE for each method;
   - fthost_plugin_entry_v1, which gets the host's table and gives the plugin's, FtPluginApi;
   - FtPluginApi: `describe` says what the notes say, with the options; `create` makes an instance of a method;
   - a vtable for each kind of method: FtStrategyVtable, FtSchedulerVtable, FtRegularizerVtable, FtTaskHeadVtable.

   It computes by `call_op` of the host's table, with the ops listed below, and asks about the model by `model_call`. What crosses as text
   is JSON in UTF-8; its forms are listed below. examples/lora-c of fthost is a whole plugin.

   What may be null. A function or pointer where its comment says "Null ..."; beside all other functions of a plugin's tables stands "Never
   null". In the host's table no function of ABI 1.0 is null; one that came later is asked for by FTHOST_HAS and may be null. The `ptr` of a text or
   slice whose `len` is 0. The `data` of an instance or hook, which is the plugin's own. A handle is 0 where a comment says "or 0" or "or
   none". No other pointer is null, in either direction.

   What has no "Since" came with ABI 1.0. */
#ifndef FTHOST_PLUGIN_H
#define FTHOST_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

/* The wire: `repr(C)` tables of functions. Append-only.

   Rules, for two years and more:
   - Every table and every call begins with its size in bytes as its maker knew it. `minor_0` has the sizes of
     minor 0: less is refused, more is not looked at. A field that came later is read only where the size reaches
     it; `growth` does it for Rust. Fields are appended, never moved, changed or removed, and none ends in
     padding, in which an appended field would be taken for known.
   - A function may be null, and is then one that its maker does not offer. Where the other side cannot do
     without, it says so by name.
   - Only integers, `f64`, borrowed `Str` and `Slice`, `u64` handles and opaque pointers cross. Nothing allocated
     on one side is freed on the other: text goes through a `TextSink` of the side that wants it.
   - Every function returns a `Status`; on anything but `OK` the reason was handed over by `set_error` (plugin to
     host) or waits in `last_error` (host to plugin).
   - No function unwinds into the other side.
   - What is named (ops, model calls, hook kinds) is data: a new name breaks nobody.
   - Beside each function stands the thread that it is called on. Calls nest only as a call into the host says.
     While a call into an instance or a hook is under way, the same thread does not enter that instance or hook
     again, whatever ops the call runs: an op never waits for other work of the run. So a lock may be held across
     an op.
   - `Str`, `Slice`, `SliceMut`, `TextSink`, `Instance` and `BaseVtable` never change. */

/* ---- Numbers and names ---- */

#define FT_ABI_MAJOR 1 /* Changes when a plugin must be rebuilt. It shall not. */
/* Counts what was appended. 1: gradients in `Event::StepEnd` and by a seed, metrics of heads, scalars,
   evaluation events, constants, several passes of a row. */
#define FT_ABI_MINOR 1
#define FT_OK 0 /* Success. */
#define FT_FAILED 1 /* The call failed; the reason was handed over. */
#define FT_PANICKED 2 /* The plugin panicked; the instance must not be called again except to drop it. */
#define FT_ENTRY_V1 "fthost_plugin_entry_v1" /* Name of `EntryV1`'s symbol. */
#define FT_NOTE_SECTION ".note.fthost" /* ELF section of the notes that hosts read before any code runs. */
#define FT_NOTE_NAME "fthost" /* Owner name in each note. */
#define FT_NOTE_PLUGIN 1 /* Note type: the plugin as a whole, JSON `PluginNote`. */
#define FT_NOTE_METHOD 2 /* Note type: one method, JSON `MethodNote`. */

/* Bytes of the tables and calls at the minor in which each came, 0 where nothing else is said, on 64-bit
   machines: the least that is accepted, for ever. */

#define FT_MINOR_0_HOST_API 120 /* Of `HostApi`. */
#define FT_MINOR_0_PLUGIN_API 48 /* Of `PluginApi`. */
#define FT_MINOR_0_BASE_VTABLE 40 /* Of `BaseVtable`. */
#define FT_MINOR_0_STRATEGY_VTABLE 72 /* Of `StrategyVtable`. */
#define FT_MINOR_0_SCHEDULER_VTABLE 56 /* Of `SchedulerVtable`. */
#define FT_MINOR_0_REGULARIZER_VTABLE 72 /* Of `RegularizerVtable`. */
#define FT_MINOR_0_TASK_HEAD_VTABLE 80 /* Of `TaskHeadVtable`. */
#define FT_MINOR_0_HOOK_VTABLE 56 /* Of `HookVtable`. */
#define FT_MINOR_0_OP_CALL 72 /* Of `OpCall`. */
#define FT_MINOR_0_LOG_RECORD 64 /* Of `LogRecord`. */
#define FT_MINOR_0_HOOK_CALL 72 /* Of `HookCall`. */
#define FT_MINOR_0_HEAD_CALL 96 /* Of `HeadCall`. */
#define FT_MINOR_0_PROGRESS 32 /* Of `Progress`. */
#define FT_MINOR_0_GROUP 56 /* Of `Group`. */
#define FT_MINOR_0_RATE 24 /* Of `Rate`. */
#define FT_MINOR_0_EVALUATION 48 /* Of `Evaluation`. */
#define FT_MINOR_0_EXAMPLES_CALL 40 /* Of `ExamplesCall`, at minor 1. Since 1.1. */

/* Element types of tensors. */

#define FT_DTYPE_F32 1 /* 32-bit float. */
#define FT_DTYPE_F64 2 /* 64-bit float. */
#define FT_DTYPE_U32 3 /* Unsigned 32-bit integer (indices, classes). */
#define FT_DTYPE_BF16 4 /* 16-bit brain float. */
#define FT_DTYPE_F16 5 /* 16-bit float. */
#define FT_DTYPE_U8 6 /* Byte. */
#define FT_DTYPE_I64 7 /* Signed 64-bit integer. */

/* Kinds of methods, as `create` takes them. */

#define FT_KIND_STRATEGY 1 /* A `Strategy`. */
#define FT_KIND_SCHEDULER 2 /* A `Scheduler`. */
#define FT_KIND_REGULARIZER 3 /* A `Regularizer`. */
#define FT_KIND_TASK_HEAD 4 /* A `TaskHead`. */
#define FT_KIND_OPTIMIZER 5 /* An `Optimizer`: made by its extension, not by `create`. Since 1.1. */

/* Whose labels `HostApi::example_gradients` takes, by `FisherLabels`. */

#define FT_LABELS_SAMPLED 1 /* One label drawn from the model's own predictive distribution. */
#define FT_LABELS_EMPIRICAL 2 /* The data's labels. */
#define FT_LABELS_EXACT 3 /* Every label, each weighted by its probability under the model. */
/* None: the squared length of the head's outputs in the loss's place. Since 1.1. */
#define FT_LABELS_SQUARED_OUTPUT_NORM 4

/* Kinds of hooks, as `HostApi::hook` takes them. */

/* `LinearHook::forward`: `[x, y, weight]` to `[y']`.

   `x`: `[tokens, in]`, the layer's input after all hooks' `input`; `y`: `[tokens, out]`, its output with what
   earlier hooks made of it (`Site::hooked` says whether there are any); `weight`: `[out, in]`, the layer's own.
   Returns `[tokens, out]`. */
#define FT_HOOK_LINEAR 1
/* `BlockHook::forward`: `[x, residual]` to `[x']`.

   `x`: `[tokens, width]`, the sub-layer's output; `residual`: `[tokens, width]`, what will be added to it.
   Returns what takes the place of `x`, `[tokens, width]`. */
#define FT_HOOK_BLOCK 2
/* `EmbeddingHook::forward`: `[embeddings]` to `[embeddings', prompt or 0]`; out flag 0: pool first token.

   `embeddings`: `[tokens, width]`; `offsets`: start of each sequence, and the end of the last. Returns the
   embeddings and, if any, a prompt for every sequence. */
#define FT_HOOK_EMBEDDINGS 3
/* `AttentionHook::forward`: `[keys, values]` to `[keys', values', prefix keys or 0, prefix values or 0]`.

   `keys`, `values`: `[tokens, width]`; `offsets`: start of each sequence, and the end of the last. Returns keys
   and values, and a prefix if any. */
#define FT_HOOK_ATTENTION 4

/* Names for `HostApi::model_call`. Parameters and replies are JSON. */

/* `{}` to `{"model_type", "groups", "layers", "width", "heads", "vocabulary", "streams": [Stream], "sites":
   [Site], "parameters": [ParamInfo]}`. `layers`, `width` and `heads` are those of a plain model, and 0 where it
   has none such or several streams. */
#define FT_CALL_DESCRIBE "describe@1"
/* `{"kind": SiteKind, "also": [SiteKind] or missing, "targets": Targets or null, "exclude": Targets or null}` to
   `[Site]`. `also` names further kinds, of convolutions those of one group. A pattern that matches nothing is an
   error. */
#define FT_CALL_SITES "sites@1"
/* `{"targets": Targets or null, "trainable": bool}` to the number of parameters (tensors) that matched; null is
   all of the base model. */
#define FT_CALL_SET_TRAINABLE "set_trainable@1"
/* `{"owner": path or null, "name", "shape", "init": Init, "decay": bool, "head": bool}` to a handle. `owner`
   null: named by `name` alone, also in PEFT's files. */
#define FT_CALL_PARAM "param@1"
#define FT_CALL_PARAM_INFO "param_info@1" /* `{"handle"}` to `ParamInfo`. */
/* `{"targets": Targets or null, "factor"}` to the number of parameters that matched; null is all. */
#define FT_CALL_SET_LR_FACTOR "set_lr_factor@1"
/* `{"targets": Targets or null}` to `[ParamInfo]`, whoever declared them; null is all. A pattern that matches
   nothing is an error. */
#define FT_CALL_PARAMS "params@1"
/* `{"handles": [handle], "trainable": bool or null, "lr_factor": number or null, "decay": bool or null}` to the
   number of parameters, whoever declared them; null leaves as it is. */
#define FT_CALL_SET_PARAMS "set_params@1"
/* `{"handle", "tensor"}` to null: the parameter takes the tensor's values, which have its shape. */
#define FT_CALL_SET_VALUE "set_value@1"
/* `{}` to `[handle]`: the parameters that train now, whoever declared them. */
#define FT_CALL_TRAINABLE "trainable@1"
/* `{"handle"}` to the handle of a tensor, or null: the gradient by which the optimizer has just changed the
   parameter, penalties in it, clipped where the run clips. In `Event::StepEnd` alone; null where it has none, or
   the step was left out. Since 1.1. */
#define FT_CALL_GRADIENT "gradient@1"
/* `{"name", "value"}` to null: a number that the run keeps with its step, in metrics.jsonl, on the page and for
   TensorBoard. Since 1.1. */
#define FT_CALL_LOG_SCALAR "log_scalar@1"

/* Transformers' names of problems, for `TaskHead::PROBLEM_TYPE`. */

#define FT_PROBLEM_TYPE_SINGLE_LABEL "single_label_classification" /* One class of several. */
#define FT_PROBLEM_TYPE_REGRESSION "regression" /* One real value. */
#define FT_PROBLEM_TYPE_MULTI_LABEL "multi_label_classification" /* Any number of several classes. */
/* One class of several for each token; Transformers has a class of its own for it, and no name among its
   problems. */
#define FT_PROBLEM_TYPE_TOKENS "token_classification"
/* The token that comes next; Transformers has classes of its own for it, and no name among its problems. The
   host gives the model its layer over the vocabulary then: `TaskInfo::vocabulary`. */
#define FT_PROBLEM_TYPE_CAUSAL_LM "causal_lm"
/* The better one of two answers to a prompt, by how probable the model holds each; else as `CAUSAL_LM`.
   Transformers has no name for it: what is saved is its model of the next token. */
#define FT_PROBLEM_TYPE_PREFERENCE "preference"
/* The token that stands in a masked one's place; else as `CAUSAL_LM`. */
#define FT_PROBLEM_TYPE_MASKED_LM "masked_lm"
/* What belongs together: the inputs of a row, of two streams or as texts of their own. There are no labels.
   Transformers has no name for it. Since 1.1. */
#define FT_PROBLEM_TYPE_CONTRASTIVE "contrastive"
/* One real value for how alike the texts of a row are, each of which passes by itself; sentence-transformers'
   task, of which Transformers has no name. Since 1.1. */
#define FT_PROBLEM_TYPE_SIMILARITY "sentence_similarity"
/* One class of several for each pixel; Transformers has classes of its own for it, and no name among its
   problems. */
#define FT_PROBLEM_TYPE_MASKS "semantic_segmentation"

/* ---- Macros ---- */

/* Whether a table or call of the host's is so long that it has a field. What came after ABI 1.0 is read, or written, only then:
   FTHOST_HAS(host, example_gradients_of) && host->example_gradients_of. */
#define FTHOST_HAS(table, field) \
  ((size_t)(table)->struct_size >= (size_t)((const char *)(&(table)->field + 1) - (const char *)(table)))

/* A number of a macro as text: FTHOST_TEXT(FT_ABI_MINOR) is "0". */
#define FTHOST_TEXT(macro) FTHOST_TEXT_OF(macro)
#define FTHOST_TEXT_OF(number) #number

/* Notes, each on a line of its own and with its semicolon: FTHOST_PLUGIN_NOTE("{...}"); with JSON `PluginNote`, FTHOST_METHOD_NOTE("{...}");
   with JSON `MethodNote`. They survive strip and --gc-sections.

   In the file: section .note.fthost, of type SHT_NOTE, aligned to 4 bytes, holds one ELF note after the other. Each is three numbers of 32
   bits (bytes of the owner's name, 7; bytes of the text; the type), the owner's name "fthost" with its zero and one byte more, and the text,
   padded with zeros to a multiple of 4. A text that needs no padding still ends in the zero of a C string; then 12 bytes of zeros follow, which
   are an empty note that nobody reads. */
#define FTHOST_PLUGIN_NOTE(json) FTHOST_NOTE(FT_NOTE_PLUGIN, json, __LINE__)
#define FTHOST_METHOD_NOTE(json) FTHOST_NOTE(FT_NOTE_METHOD, json, __LINE__)
#define FTHOST_NOTE(type, json, line) FTHOST_NOTE_NAMED(type, json, line)
#define FTHOST_NOTE_NAMED(type, json, line) \
  static const struct { \
    uint32_t owner_bytes, text_bytes, note_type; \
    char owner[8]; \
    char text[(sizeof(json) - 1) % 4 ? (sizeof(json) + 2) / 4 * 4 : sizeof(json) - 1 + 12]; \
  } fthost_note_##line __attribute__((section(FT_NOTE_SECTION), used, aligned(4))) = \
    {sizeof(FT_NOTE_NAME), sizeof(json) - 1, type, FT_NOTE_NAME, json}

/* ---- Ops ---- */

/* The ops that a host offers to plugins: the contract between `Tensor`'s methods and the host's table.

   An op is found once by name and version (`resolve_op("linear@1")`) and then called with handles, integers and
   floats in the order given here. A changed meaning is a new version beside the old one; a new op breaks nobody.

   What holds for all:
   - Inputs are tensor or parameter handles; where "or none" stands, 0 is allowed and the position is kept.
   - A dimension among the integers may be negative and then counts from the end: -1 is the last.
   - Floating inputs of different element types are widened to the widest; results have that type unless said
     otherwise. Indices and classes are `u32`.
   - Scalars are tensors of rank 0.
   - Inputs are never changed. A result may share storage with an input.
   - Every op is differentiable in its floating inputs unless said otherwise, and records itself on the tape of
     the call.
   - Shapes that do not fit are an error that names the op and the shapes.

      add@1
         a, b -> a + b; shapes broadcast as in numpy

      sub@1
         a, b -> a - b; shapes broadcast as in numpy

      mul@1
         a, b -> a * b elementwise; shapes broadcast as in numpy

      div@1
         a, b -> a / b elementwise; shapes broadcast as in numpy

      neg@1
         x -> -x

      affine@1
         x -> mul * x + add
         Floats: mul, add.

      matmul@1
         a [.., m, k], b [.., k, n] -> [.., m, n]; leading dimensions are equal, or b has rank 2

      linear@1
         x [.., in], weight [out, in], bias [out] or none -> x weight^T + bias [.., out]

      low_rank@1
         y [.., out], x [.., in], a [rank, in], b [out, rank] -> y + scale * (x a^T) b^T [.., out]
         Floats: scale.

      low_rank_norm@1
         weight [out, in], a [rank, in], b [out, rank] -> the Euclidean norms of the rows of weight + scale *
         b a, [out], without gradient; of parameters computed once for each of their values
         Floats: scale.

      relu@1
         x -> max(x, 0); the derivative at 0 is 0

      gelu@1
         x -> x Phi(x), exact (erf)

      gelu_tanh@1
         x -> 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))

      tanh@1
         x -> tanh x

      sigmoid@1
         x -> 1 / (1 + exp(-x))

      silu@1
         x -> x sigmoid(x)

      exp@1
         x -> exp x

      log@1
         x -> ln x

      sqrt@1
         x -> sqrt x

      square@1
         x -> x^2

      abs@1
         x -> |x|; the derivative at 0 is 0

      sign@1
         x -> -1, 0 or 1, without gradient; since 1.1 Since 1.1.

      clamp_min@1
         x -> max(x, min); the derivative is 1 where x >= min, else 0
         Floats: min.

      softmax@1
         x [.., n] -> softmax over the last dimension

      log_softmax@1
         x [.., n] -> log of the softmax over the last dimension

      layer_norm@1
         x [.., n], weight [n], bias [n] or none -> (x - mean) / sqrt(variance + eps) * weight + bias; mean
         and biased variance over the last dimension
         Floats: eps.

      dropout@1
         x -> in training x / (1 - p) where a draw of the run's generator keeps it (probability 1 - p), else
         0; in evaluation x
         Floats: p in [0, 1).

      sum@1
         x -> sum of all elements, a scalar

      mean@1
         x -> mean of all elements, a scalar

      squared_distance@1
         x, anchor, weights or none, all of one shape -> sum of weights * (x - anchor)^2, a scalar; no
         gradient flows into anchor and weights

      sum_dim@1
         x -> sum over one dimension
         Integers: dim, keep (1 keeps it with size 1, 0 drops it).

      mean_dim@1
         x -> mean over one dimension
         Integers: dim, keep (1 keeps it with size 1, 0 drops it).

      transpose@1
         x -> x with two dimensions swapped; any element type
         Integers: d0, d1.

      reshape@1
         x -> its elements in row-major order under another shape; any element type
         Integers: the new dimensions; one may be -1 and takes what is left.

      narrow@1
         x -> elements start .. start + len of one dimension; any element type
         Integers: dim, start, len.

      concat@1
         one or more tensors, equal but for one dimension -> joined along it
         Integers: dim.

      index_select@1
         x, ids u32 [n] -> the slices of x at ids along one dimension, which gets size n
         Integers: dim.

      detach@1
         x -> x without its history: no gradient flows back

      cast@1
         x -> x in another element type; differentiable between floating types
         Integers: the element type's code (abi::tables::dtype).

      keep@1
         x -> its values without history, under a handle that stays valid in every later call, on every
         thread, until it is released (anchors of L2-SP, importances of EWC)

      conv2d@1
         x [images * height * width, channels], pixel (image, y, x) in row (image * height + y) * width + x;
         weight [out, channels / groups, kh, kw], bias [out] or none -> the cross-correlation [places, out],
         places in the same order, as torch's conv2d
         Integers: height, width, stride down, stride right, padding down, padding right, dilation down,
         dilation right, groups.

      conv_transpose2d@1
         x as of conv2d, weight [channels, out / groups, kh, kw], bias [out] or none -> [pixels, out], a side
         of n pixels becoming (n - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1, as torch's
         conv_transpose2d
         Integers: height, width, stride down, stride right, padding down, padding right, dilation down,
         dilation right, output_padding down, output_padding right, groups.

      upsample_bilinear2d@1
         x as of conv2d -> the maps at another size, [images * new height * new width, channels], as torch's
         interpolate
         Integers: height, width, new height, new width, align_corners (0 or 1).

      upsample_nearest2d@1
         x as of conv2d -> the maps at another size by the nearest pixel
         Integers: height, width, new height, new width.

      cross_entropy@1
         logits [rows, classes], targets u32 [rows], class weights [classes] or none -> the sum over rows of
         w[t] * (1 - s) * -log p[t] + s / classes * sum_c w[c] * -log p[c], a scalar, s the smoothing; and
         the sum over rows of w[t], a scalar without gradient. Rows with target 4294967295 count in neither.
         As torch's cross_entropy with reduction sum, and what its mean divides by
         Floats: label_smoothing in [0, 1).
         Outputs: 2.

      linear_cross_entropy@1
         x [rows, in], weight [classes, in], targets u32 [rows], bias [classes] or none -> the sum over rows
         of -log p[t] of the logits x weight^T + bias, a scalar, and the number of rows, a scalar without
         gradient. Rows with target 4294967295 count in neither. The logits are never all in memory
         Outputs: 2.

      linear_log_likelihood@1
         x [rows, in], weight [classes, in], targets u32 [rows], bias [classes] or none -> the sum over the
         rows of each sequence of log p[t] of the logits x weight^T + bias, [sequences], and the number of
         these rows, [sequences] without gradient. Rows with target 4294967295 count in neither. The logits
         are never all in memory
         Integers: the row where each sequence starts, and the number of rows: any number of integers, from 0
         up.
         Outputs: 2.

      linear_argmax@1
         x [rows, in], weight [classes, in], bias [classes] or none -> the class with the largest logit of x
         weight^T + bias, u32 [rows], without gradient. The logits are never all in memory */

/* ---- JSON ---- */

/* The values behind the names that stand in the comments of tables, notes and model calls. A key that "may be
   missing" need not be written, and is not written by an older host. A reader skips keys that it does not know:
   later minors add some. Where a comment speaks of Rust, `None` is null, `u32::MAX` is 4294967295 and
   `HeadSpec::masking` a key of that form.

   Comparison, an object
      The head that compares two streams, as the architecture has one (CLIP): each stream's pooled features
      are projected without a bias and divided by their length, and their products are multiplied with the
      exponential of a number. Paths are those of `Model::base_param`. Since 1.1.
      "projections": [string]
         The matrix of each stream, `[width, width of the stream]`, in the order of `TaskInfo::streams`.
      "scale": string
         The number, `[1]`.
      "width": integer
         Width of what is compared.

   Convolution, an object
      How a convolution moves over a map. Pairs are (vertical, horizontal).
      "channels": integer
         Channels of its input.
      "kernel": [integer, integer]
         Taps.
      "stride": [integer, integer]
         Pixels from one place to the next.
      "padding": [integer, integer] or null, may be missing
         Pixels of zeros around the map; none where there are as many as TensorFlow's `"SAME"` takes.
      "dilation": [integer, integer]
         Pixels from one tap to the next.
      "groups": integer
         Groups of channels that do not see each other. Hooks are set where there is one.

   Event, an object by its "event"
      An event of the run. New kinds may come: match with a wildcard.
      {"event": "task_begin", "task": string}
         A task's training begins. Joint tasks begin together, sequential ones in turn.
         task: The task's name in the run file.
      {"event": "task_end", "task": string}
         A task's training is over.
         task: The task's name in the run file.
      {"event": "epoch_begin", "epoch": integer, "epochs": integer}
         An epoch begins.
         epoch: Counted from 0.
         epochs: Epochs of the run.
      {"event": "epoch_end", "epoch": integer, "epochs": integer}
         An epoch is over.
         epoch: Counted from 0.
         epochs: Epochs of the run.
      {"event": "step_begin", "step": integer, "total_steps": integer}
         An optimizer step begins.
         step: Counted from 0.
         total_steps: Optimizer steps of the run.
      {"event": "step_end", "step": integer, "total_steps": integer, "loss": number}
         An optimizer step is over.
         step: Counted from 0.
         total_steps: Optimizer steps of the run.
         loss: The step's mean loss.
      {"event": "evaluation_begin", "step": integer}
         An evaluation on validation examples begins, between two steps. A plugin that wants other weights
         evaluated and kept as the best sets them now, by `Model::set_value`. What is evaluated once training
         is over is the model as `TaskEnd` has left it. Since 1.1.
         step: Optimizer steps taken so far.
      {"event": "evaluation_end", "step": integer}
         The evaluation that has begun is over, and the model that it was of is kept where it was the best. A
         plugin that has set weights puts those back with which training goes on. After `Evaluation`. Since
         1.1.
         step: Optimizer steps taken so far.
      {"event": "evaluation", "step": integer, "task": string, "metrics": {name: number}}
         What an evaluation on validation examples has found.
         step: The step after which it ran.
         task: The task's name in the run file.
         metrics: Metric names and values.

   FeatureKind, one of some words
      Which features of a stream a head reads.
      "pooled"
         One row per example, `[examples, width]`: what the architecture pools.
      "sequence"
         One row per token, `[tokens, width]`, with the layout of the sequences.
      "spatial"
         A map of each image, `[pixels, channels]`, with the layout of the images' pixels, which go row by
         row.

   HeadSpec, an object
      What a head declares when it attaches.
      "features": FeatureKind
         The features it reads.
      "targets": TargetKind
         The targets it learns from.
      "scope": LossScope
         Whether the host may split a batch.
      "sampling": Sampling, may be missing
         How batches are drawn.
      "predictions": PredictionKind
         What it predicts.
      "streams": [StreamFeatures], may be missing
         The streams it reads, in the order in which `TaskHead::forward_streams` gets them. Empty: the model's
         one stream, by `features`.
      "masking": Masking or null, may be missing
         How tokens are chosen, where targets are masked ones.
      "reference": bool, may be missing
         Whether targets are what the head gives for the same examples before training:
         `TargetKind::Preference`.
      "forwards": integer, may be missing
         How often each row passes through the model in training, each time under dropout masks of its own
         (R-Drop, SimCSE). `forward` and `loss` then get all rows of the first pass, then all of the second:
         `forwards` times as many rows of outputs as of targets. In evaluation once. Since 1.1.
      "metrics": [MetricSpec], may be missing
         The metrics of its own that `TaskHead::metrics` gives. Since 1.1.

   ImageInfo, an object
      How large pictures are, as the model takes them, and the map that it makes of each. Sizes are height and
      width in pixels.
      "size": [integer, integer]
         Of a picture, and of its mask: targets of `TargetKind::Mask` are `[examples, size[0], size[1]]`.
      "map": [integer, integer]
         Of `FeatureKind::Spatial` features: each picture has `map[0] * map[1]` rows, row by row of the map.

   Init, an object by its "init"
      How a new parameter starts. Random ones draw from the run's generator under the parameter's name, so
      they do not depend on the order of declaration.
      {"init": "zeros"}
         All zero.
      {"init": "ones"}
         All one.
      {"init": "constant", "value": number}
         All one value. Since 1.1.
         value: The value, finite.
      {"init": "uniform", "low": number, "high": number}
         Uniform in `[low, high)`.
         low: Lower bound.
         high: Upper bound.
      {"init": "normal", "mean": number, "std": number}
         Normal.
         mean: Mean.
         std: Standard deviation.
      {"init": "truncated_normal", "std": number}
         Normal, redrawn outside two standard deviations.
         std: Standard deviation.
      {"init": "vocabulary_rows"}
         Rows of the model's word embeddings, drawn without replacement. Shape `[rows, width]`.
      {"init": "text_rows", "text": string}
         Rows of the model's word embeddings of this text's tokens, repeated to the number of rows.
         text: The text.
      {"init": "copy", "tensor": integer}
         A copy of a tensor of this call; `Init::copy_of` makes it.
         tensor: Its handle.

   LossScope, one of some words
      Whether a loss is a sum over examples or needs the whole batch at once.
      "example"
         The loss of a batch is the sum of its examples' losses over the sum of their weights. The host may
         split a batch.
      "batch"
         The loss needs all rows together (prototypes, contrastive losses). The host gathers the features and
         calls once.

   Masking, an object
      How tokens are chosen whose place in the input is taken: 80 of 100 by the mask, 10 by a random token,
      and 10 stay (Devlin et al. 2018, arXiv:1810.04805). Special tokens never are.
      "share": number
         The share of a text's tokens, above 0 and at most 1.
      "whole_words": bool
         Whether all tokens of a word are chosen together.

   MethodInfo, an object
      One method of a connected plugin.
      "kind": MethodKind
         What it is.
      "name": string
         Its name in run files.
      "summary": string
         One line.
      "config_schema": any JSON
         JSON Schema of its options, without references where the types are not recursive.
      "config_default": any JSON
         Its options with their defaults; an option without one is missing.
      "serves": string, may be missing
         As `MethodNote::serves`.

   MethodKind, one of some words
      The kinds of methods.
      "strategy"
         A `Strategy`.
      "scheduler"
         A `Scheduler`.
      "regularizer"
         A `Regularizer`.
      "task_head"
         A `TaskHead`.
      "optimizer"
         An `Optimizer`, by the extension `ft.optimizer/1`. Since 1.1.

   MethodNote, an object
      The note about one method.
      "kind": MethodKind
         What it is.
      "name": string
         Its name in run files.
      "summary": string, may be missing
         One line.
      "serves": string, may be missing
         Which of Hugging Face's folders it opens: a strategy's `peft_type` (`PEFT_TYPE`), a head's
         `problem_type` (`PROBLEM_TYPE`); empty for none.

   MetricSpec, an object
      A metric of a head's own: a number of each evaluation, which a run may monitor and a comparison
      compares. Since 1.1.
      "name": string
         Its name: lower case, digits and `_`; none that the host has for such predictions.
      "higher_is_better": bool
         Whether a greater value is a better one.

   ParamInfo, an object
      A parameter of the model or of a plugin, as the host lists it.
      "path": string
         Path of the Hugging Face parameter: `encoder.layer.3.attention.self.query.weight`.
      "shape": [integer]
         Its shape.
      "trainable": bool
         Whether it trains now.
      "group": integer
         The block group it belongs to; a head's parameters are in the last one.
      "stream": string, may be missing
         The name of the stream that it is part of; empty for what belongs to none.
      "base": bool
         Whether it belongs to the pretrained model rather than to a plugin.
      "handle": integer
         The handle by which ops take it.
      "head": bool, may be missing
         Whether it belongs to a task head.
      "shared": bool, may be missing
         Whether it belongs to a head that several tasks have together.
      "lr_factor": number, may be missing
         By which factor `train.lr` is multiplied for it now.

   PluginInfo, an object
      The answer of `PluginApi::describe`.
      "name": string
         The library's name: `lora`.
      "version": string
         Its crate's version.
      "license": string
         SPDX expression.
      "methods": [MethodInfo]
         Its methods, sorted by name and then kind.

   PluginNote, an object
      The note about a plugin as a whole, read from its file before any of its code runs. Option schemas are
      not in it: they are computed at run time and come in `MethodInfo`.
      "abi_major": integer
         ABI major it was built with.
      "abi_minor": integer
         ABI minor it was built with.
      "min_host_minor": integer
         The least minor of a host it can do with.
      "name": string
         The library's name: `lora`.
      "version": string
         Its crate's version.
      "license": string
         SPDX expression.
      "panic": string
         Panic strategy; always `unwind`, since `export_plugin!` refuses to build under `abort`.
      "compiler": string
         `rustc --version` of its build.
      "ops": [string]
         The ops it declares to need; a host that lacks one refuses the plugin by that name.

   PredictionKind, one of some words
      What kind of answer `TaskHead::predict` gives; the host computes the metrics from it.
      "classes"
         Probabilities of classes, `[rows, classes]`: accuracy, report, confusion matrix.
      "multi_label"
         Probabilities of classes that are independent of each other, `[rows, classes]`: F1 by class and
         averaged, mean average precision.
      "values"
         Real values, `[rows]`: mean squared error, Pearson, Spearman.
      "masks"
         Probabilities of the classes of each pixel, `[pixels, classes]`, of the pictures' own pixels as
         `ImageInfo::size` says how many they are: intersection over union, pixel accuracy.
      "tokens"
         The most probable token for each place, `u32` ids `[tokens]`: perplexity, by the loss, and accuracy.
      "preferences"
         Scores of the better and the worse answer, `[examples, 2]`. They are rewards, once those of the model
         before training are taken away where `HeadSpec::reference` asks for these: how often the better one's
         is greater, and by how much.
      "embeddings"
         Vectors of length 1, `[examples, sides, width]`: one of each side of an example, a text's and its
         picture's, so that the nearest ones of the other side are found. Of more sides than two the others
         stand beside the second, as what is wrong. Sides of two streams stand in the order of
         `HeadSpec::streams`. A side's vector follows from that side alone: the host asks for one side's by
         features of its own that stand for the other. Cosines become probabilities of classes by the
         exponential of the head's parameter `logit_scale`, or of the model's own (`Comparison::scale`).
         Recall at 1, 5 and 10 both ways, mean rank. Since 1.1.

   Sampling, an object by its "kind"
      How examples come in batches.
      {"kind": "shuffled"}
         Shuffled batches of `train.batch_size`.
      {"kind": "episodes", "ways": integer, "shots": integer, "queries": integer, "support": integer}
         Few-shot episodes: each batch holds `ways` classes with `shots` support and `queries` query rows
         each.
         ways: Classes of an episode.
         shots: Support examples of each class.
         queries: Query examples of each class.
         support: Training examples of each class, at most, whose outputs `TaskHead::fit` gets.

   Site, an object
      A place in the model that a hook can be set at.
      "path": string
         Path of its Hugging Face module, without the architecture's prefix:
         `encoder.layer.3.attention.self.query`.
      "kind": SiteKind
         What it is.
      "in_features": integer
         Width of its input.
      "out_features": integer
         Width of its output.
      "group": integer
         The block group it belongs to, counted from the bottom: 0 holds the embeddings, then one group per
         block.
      "stream": string, may be missing
         The name of the stream that it is part of; empty for what belongs to none.
      "hooked": bool, may be missing
         Whether hooks were set here before: a linear hook's `y` is then what these made of the layer's
         output.
      "convolution": Convolution or null, may be missing
         How it moves, where it is a convolution. A hook's `x` holds the patches that the kernel meets,
         `[places, channels * kh * kw]`, by channel, then down, then right, and `weight` is the kernel in the
         same order.

   SiteKind, one of some words
      What a site is, and so which hook it takes.
      "linear"
         A linear layer: `LinearHook`.
      "conv"
         A convolution, seen as a linear layer over unfolded patches: `LinearHook`.
      "attention_output"
         The output of the attention half of a block: `BlockHook`.
      "feed_forward_output"
         The output of the feed-forward half of a block, or of a block of convolutions: `BlockHook`.
      "embeddings"
         The input embeddings: `EmbeddingHook`.
      "attention"
         Attention's keys and values: `AttentionHook`.

   Stream, an object
      One way through a model, from inputs of one kind to features: a plain model has one, a pair of towers
      two.
      "name": string
         Its name: `text`, `image`.
      "width": integer
         Width of its features; channels of a map.
      "layers": integer or null, may be missing
         Number of its blocks, where its blocks are alike.
      "heads": integer or null, may be missing
         Attention heads of a block, where blocks attend.
      "vocabulary": integer or null, may be missing
         Size of its vocabulary, where it reads tokens.
      "features": [FeatureKind], may be missing
         Which features a head can read of it.

   StreamFeatures, an object
      Which features of one stream a head reads.
      "stream": string
         The stream's name: `text`, `image`.
      "features": FeatureKind
         The features.

   TargetKind, one of some words
      What the data's targets are.
      "class"
         A class per example: `u32` indices `[examples]`.
      "value"
         A real value per example: `f32` `[examples]`.
      "token_class"
         A class per token: `u32` indices `[tokens]`; `u32::MAX` does not count.
      "multi_label"
         Any number of classes per example, or none: `f32` `[examples, classes]`, 1 where it has the class and
         0 elsewhere.
      "mask"
         A class per pixel: `u32` indices `[examples, height, width]`; `u32::MAX` does not count.
      "next_token"
         The token after each token: `u32` ids `[tokens]`; `u32::MAX` does not count, as for tokens of a
         prompt, and for the last one.
      "masked_token"
         The token that was in the place of each masked token: `u32` ids `[tokens]`; `u32::MAX` does not
         count, as for tokens that were not chosen. `HeadSpec::masking` says how they are chosen.
      "preference"
         Which of two answers is the better one, where an example is a pair of sequences, the better one
         first: the head's own outputs for the same examples before training, `f32` `[examples, ...]`, where
         `HeadSpec::reference` asks for them, and elsewhere zeros `[examples, 2]`. What the sequences say
         comes with their `Features::next`.
      "match"
         Nothing but the examples themselves: what belongs together is in each of them, as a text and its
         picture. `u32` `[examples]`, the place of each in the batch, from 0: of the other side of all
         examples, the one that belongs to this one. Since 1.1.

   Targets, string or [string]
      Which sites or parameters an option names, by PEFT's rules: a string is a regular expression that must
      match the whole path, a list holds exact paths or their ends at a dot (`query` is `....self.query`).
      `exclude` goes first. Before either may stand a stream and a colon, for what is part of it alone:
      `text:query`. An entry of a list may have stars, for anything: `image:blocks.6.*`.
      string
         A regular expression over the whole path.
      [string]
         Exact paths or their last parts.

   TaskInfo, an object
      What the host knows of a task when its head is made.
      "name": string
         The task's name in the run file.
      "labels": [string]
         Names of the classes in index order; empty where targets are no classes.
      "class_counts": [integer]
         Training examples of each class, in the order of `labels`.
      "examples": integer, may be missing
         Training examples: not the sum of those of the classes where an example may have any number of them.
         0 where nobody counted.
      "width": integer
         Width of the features, the last dimension (channels for spatial ones); of several streams, the first
         one's.
      "streams": [Stream], may be missing
         The model's streams.
      "hidden_activation": string or null, may be missing
         The activation of the extra dense layer that this architecture's own head has (`tanh` for RoBERTa,
         `relu` for DistilBERT), or `None` where its head is one linear layer.
      "bias": bool, may be missing
         Whether the last layer of this architecture's own head has a bias where it answers for whole examples
         (decoders' has none).
      "dropout": number
         Dropout before the last layer that the model's config asks for.
      "image": ImageInfo or null, may be missing
         How large the task's pictures and their maps are; `None` where examples are no pictures, or the model
         gives no maps.
      "vocabulary": Vocabulary or null, may be missing
         The model's own layer over its vocabulary; `None` where the head's `TaskHead::PROBLEM_TYPE` asks for
         none.
      "comparison": Comparison or null, may be missing
         The model's own head that compares its streams, where it has one and the head's
         `TaskHead::PROBLEM_TYPE` is `CONTRASTIVE`. Since 1.1.
      "sequences": integer, may be missing
         Sequences of an example in a stream of texts: 2 or 3 where the texts of a row pass by themselves, one
         after the other, as where the head's `TaskHead::PROBLEM_TYPE` is about what belongs together or is
         alike and the model has one stream. Since 1.1.

   Vocabulary, an object
      The model's own layer over its vocabulary. Paths are those of `Model::base_param`.
      "size": integer
         Its tokens.
      "weight": string
         The matrix, `[size, width]`: that of the word embeddings where both are one.
      "bias": string or null, may be missing
         The bias, `[size]`, where it has one.
      "causal": bool
         Whether a token's features say what comes next; else what stands in its own place.
      "transform": VocabularyTransform or null, may be missing
         What stands between the features and the matrix, where anything does.

   VocabularyTransform, an object
      A dense layer, an activation and a layer norm.
      "dense": string
         The dense layer's path, with `weight` `[width, width]` and `bias` `[width]`.
      "activation": string
         The activation, by Transformers' name.
      "norm": string
         The norm's path, with `weight` and `bias`.
      "eps": number
         What the norm adds to the variance. */

/* ---- Tables and calls ---- */

#ifdef __cplusplus
extern "C" {
#endif

typedef struct FtSliceU64 FtSliceU64;
typedef struct FtSliceI64 FtSliceI64;
typedef struct FtSliceF64 FtSliceF64;
typedef struct FtSliceMutU64 FtSliceMutU64;
typedef struct FtSliceU32 FtSliceU32;
typedef struct FtSliceMutI64 FtSliceMutI64;
typedef struct FtSliceSliceU32 FtSliceSliceU32;
typedef struct FtSliceU8 FtSliceU8;
typedef struct FtStr FtStr;
typedef struct FtTextSink FtTextSink;
typedef struct FtOpCall FtOpCall;
typedef struct FtLogRecord FtLogRecord;
typedef struct FtHookCall FtHookCall;
typedef struct FtHeadCall FtHeadCall;
typedef struct FtExamplesCall FtExamplesCall;
typedef struct FtProgress FtProgress;
typedef struct FtGroup FtGroup;
typedef struct FtRate FtRate;
typedef struct FtEvaluation FtEvaluation;
typedef struct FtHostApi FtHostApi;
typedef struct FtHookVtable FtHookVtable;
typedef struct FtInstance FtInstance;
typedef struct FtPluginApi FtPluginApi;
typedef struct FtBaseVtable FtBaseVtable;
typedef struct FtStrategyVtable FtStrategyVtable;
typedef struct FtSchedulerVtable FtSchedulerVtable;
typedef struct FtRegularizerVtable FtRegularizerVtable;
typedef struct FtTaskHeadVtable FtTaskHeadVtable;

/* 0 is success; see `OK`, `FAILED`, `PANICKED`. */
typedef int32_t FtStatus;

/* The C entry of a plugin, `fthost_plugin_entry_v1`: takes the host's table, gives the plugin's. */
typedef FtStatus (*FtEntryV1)(const FtHostApi *host, const FtPluginApi **out);

/* A slice, borrowed for the call. */
struct FtSliceU64 {
  /* Start; may dangle where `len` is 0. */
  const uint64_t *ptr;
  /* Elements. */
  size_t len;
};

/* A slice, borrowed for the call. */
struct FtSliceI64 {
  /* Start; may dangle where `len` is 0. */
  const int64_t *ptr;
  /* Elements. */
  size_t len;
};

/* A slice, borrowed for the call. */
struct FtSliceF64 {
  /* Start; may dangle where `len` is 0. */
  const double *ptr;
  /* Elements. */
  size_t len;
};

/* A slice that the callee writes, borrowed for the call. */
struct FtSliceMutU64 {
  /* Start; may dangle where `len` is 0. */
  uint64_t *ptr;
  /* Elements. */
  size_t len;
};

/* A slice, borrowed for the call. */
struct FtSliceU32 {
  /* Start; may dangle where `len` is 0. */
  const uint32_t *ptr;
  /* Elements. */
  size_t len;
};

/* A slice that the callee writes, borrowed for the call. */
struct FtSliceMutI64 {
  /* Start; may dangle where `len` is 0. */
  int64_t *ptr;
  /* Elements. */
  size_t len;
};

/* A slice, borrowed for the call. */
struct FtSliceSliceU32 {
  /* Start; may dangle where `len` is 0. */
  const FtSliceU32 *ptr;
  /* Elements. */
  size_t len;
};

/* A slice, borrowed for the call. */
struct FtSliceU8 {
  /* Start; may dangle where `len` is 0. */
  const uint8_t *ptr;
  /* Elements. */
  size_t len;
};

/* UTF-8 text, borrowed for the call. Since 1.1. */
struct FtStr {
  /* Start; may dangle where `len` is 0. */
  const uint8_t *ptr;
  /* Bytes. */
  size_t len;
};

/* Where the callee writes text, in one or several pieces. Since 1.1. */
struct FtTextSink {
  /* The caller's own. */
  void *ctx;
  /* Appends a piece. */
  void (*write)(void *ctx, FtStr text);
};

/* One op call. Which inputs, integers and floats an op takes stands in the op's documentation. Since 1.1. */
struct FtOpCall {
  /* Bytes of this call. */
  uint32_t struct_size;
  /* 0. */
  uint32_t reserved;
  /* Tensor and parameter handles; 0 stands for an absent optional one. */
  FtSliceU64 inputs;
  /* Integer attributes. */
  FtSliceI64 ints;
  /* Float attributes. */
  FtSliceF64 floats;
  /* Handles of the results, owned by the caller: release each. */
  FtSliceMutU64 outputs;
};

/* A log event on its way to the host's `tracing`. Since 1.1. */
struct FtLogRecord {
  /* Bytes of this record. */
  uint32_t struct_size;
  /* 1 error, 2 warn, 3 info, 4 debug, 5 trace. */
  uint32_t level;
  /* 0 event, 1 span entered, 2 span left. */
  uint32_t what;
  /* 0. */
  uint32_t reserved;
  /* Module path. */
  FtStr target;
  /* The message, or the span's name. */
  FtStr message;
  /* A JSON object of the other fields. */
  FtStr fields;
};

/* One call of a hook. Since 1.1. */
struct FtHookCall {
  /* Bytes of this call. */
  uint32_t struct_size;
  /* 0. */
  uint32_t reserved;
  /* Borrowed handles. */
  FtSliceU64 inputs;
  /* Sequence offsets, `sequences + 1` entries; empty where a hook needs none. */
  FtSliceU32 offsets;
  /* Results, 0 when called; the handles written here pass to the host. An input may be handed back as it is. */
  FtSliceMutU64 outputs;
  /* Result flags, 0 when called. */
  FtSliceMutI64 flags;
};

/* One call of a head, or of a regularizer about a head's outputs. Since 1.1. */
struct FtHeadCall {
  /* Bytes of this call. */
  uint32_t struct_size;
  /* 0. */
  uint32_t reserved;
  /* forward: the features of each stream that the head reads, in the order of `HeadSpec::streams`. Others: the
     outputs. Borrowed. */
  FtSliceU64 tensors;
  /* forward: the sequence offsets of each tensor, `sequences + 1` entries. Empty otherwise. */
  FtSliceSliceU32 offsets;
  /* loss, fit: the targets; output_penalty: the reference; forward: the token after each, where targets are
     preferences. Borrowed. Empty otherwise. */
  FtSliceU64 targets;
  /* loss in episodes: 1 for support rows; empty otherwise. */
  FtSliceU8 support;
  /* Room for the results, which pass to the host; 0 when called. forward, predict, output_penalty: one. loss:
     the sum of the terms and, where the weight is a tensor, that. fit: none. */
  FtSliceMutU64 outputs;
  /* loss: where the weight goes that the sum is divided by, if it is no tensor. Null otherwise. */
  double *weight;
};

/* What `HostApi::example_gradients_of` is asked for. Since 1.1. */
struct FtExamplesCall {
  /* Bytes of this call. */
  uint32_t struct_size;
  /* By `fisher_labels`. */
  uint32_t labels;
  /* Examples at most; 0 for all. */
  uint64_t limit;
  /* What the order of the examples and the labels that are drawn follow from, with the run's own seed. */
  uint64_t seed;
  /* As `HostApi::example_gradients` says. */
  FtStatus (*visit)(void *ctx, uint64_t param, uint64_t gradient, double weight);
  /* Passed to `visit`. */
  void *ctx;
};

/* Where a run stands, as `Progress` says. Since 1.1. */
struct FtProgress {
  /* Bytes of this struct. */
  uint32_t struct_size;
  /* 0. */
  uint32_t reserved;
  /* The step about to be taken; 0 is the first. */
  uint64_t step;
  /* Steps of the whole run. */
  uint64_t total_steps;
  /* Steps of one epoch. */
  uint64_t steps_per_epoch;
};

/* A group of parameters, as `Group` says. Since 1.1. */
struct FtGroup {
  /* Bytes of this struct. */
  uint32_t struct_size;
  /* The group's number in its stream, counted from the bottom. */
  uint32_t number;
  /* Its name. */
  FtStr name;
  /* The name of the stream it is part of; empty for what belongs to none. */
  FtStr stream;
  /* `train.lr` times the parameters' learning-rate factor. */
  double lr;
  /* The optimizer's momentum or beta1. */
  double momentum;
};

/* What a scheduler writes, as `Rate` says. The host has set the fields that a schedule need not know. Since 1.1. */
struct FtRate {
  /* Bytes of this struct, set by the host: a plugin writes no further. */
  uint32_t struct_size;
  /* 0. */
  uint32_t reserved;
  /* The learning rate of this step, absolute. */
  double lr;
  /* Momentum or beta1 of this step; what the group has when called. */
  double momentum;
};

/* An evaluation, as `Evaluation` says. Since 1.1. */
struct FtEvaluation {
  /* Bytes of this struct. */
  uint32_t struct_size;
  /* 1 where a higher value is a better one, 0 where a lower one is. */
  uint32_t higher_is_better;
  /* The value. */
  double value;
  /* The monitored metric's name. */
  FtStr metric;
  /* The task's name; empty where the value is a mean over several. */
  FtStr task;
};

/* What the host offers. Valid as long as the process.

   Handles: a tensor handle is valid within the call into the plugin that it was made in or given to; a parameter
   handle for the whole run. A handle used after its release is an error (it carries a generation), never a wrong
   tensor. Since 1.1. */
struct FtHostApi {
  /* Bytes of this table. */
  uint32_t struct_size;
  /* `ABI_MAJOR` of the host. */
  uint32_t abi_major;
  /* `ABI_MINOR` of the host. */
  uint32_t abi_minor;
  /* 0. */
  uint32_t reserved;
  /* Says why the status about to be returned is not OK. `[any thread]` */
  void (*set_error)(FtStatus status, FtStr message);
  /* Writes why the last host call on this thread failed. `[any thread]` */
  void (*last_error)(FtTextSink sink);
  /* Logs. `[any thread]` */
  void (*log)(const FtLogRecord *record);
  /* Finds an op by name and version, `"linear@1"`. `[any thread]` */
  FtStatus (*resolve_op)(FtStr name, uint32_t *op);
  /* Runs an op and records it. `[any thread]`, within a call into the plugin */
  FtStatus (*call_op)(uint32_t op, const FtOpCall *call);
  /* Makes a tensor on the run's device from host memory; `dtype` is `dtype::F32`, `F64`, `U32` or `U8` and says
     what `data` points to. */
  FtStatus (*tensor_new)(uint32_t dtype, const void *data, FtSliceU64 shape, uint64_t *out);
  /* Element type and rank; writes up to `dims.len` dimensions. */
  FtStatus (*tensor_info)(uint64_t tensor, uint32_t *dtype, size_t *rank, FtSliceMutU64 dims);
  /* Copies a tensor's elements, row-major, to host memory of `bytes` bytes, in its own element type. */
  FtStatus (*tensor_read)(uint64_t tensor, void *data, size_t bytes);
  /* Gives an owned handle back. */
  FtStatus (*tensor_release)(uint64_t tensor);
  /* A named, versioned call about the model with JSON in and out; the list stands in `model_call`. `[run
     thread]` */
  FtStatus (*model_call)(FtStr method, FtStr params, FtTextSink reply);
  /* Sets a hook at a site. The host owns `data` from here, also when the call fails. `[run thread]`, in attach */
  FtStatus (*hook)(FtStr site, uint32_t kind, void *data, const FtHookVtable *vtable);
  /* Calls `visit` with the gradient of every trainable parameter, one example (and label) at a time, on the
     calling thread; `labels` by `fisher_labels`, `limit` examples at most, 0 for all. `gradient` is borrowed for
     the visit; the weights of one example add up to 1. A status of `visit` other than OK ends the walk and is
     returned. `[run thread]` */
  FtStatus (*example_gradients)(uint32_t labels, uint64_t limit, void *ctx,
      FtStatus (*visit)(void *ctx, uint64_t param, uint64_t gradient, double weight));
  /* A table of experimental functions (`"ft.something.draft/1"`), or null; `draft` says which there are. `[any
     thread]` */
  const void *(*get_extension)(FtStr name);
  /* As `example_gradients`, of examples in an order that follows from a seed of the plugin's. `[run thread]`.
     Since 1.1. */
  FtStatus (*example_gradients_of)(const FtExamplesCall *call);
};

/* Functions of a hook. Since 1.1. */
struct FtHookVtable {
  /* Bytes of this table. */
  uint32_t struct_size;
  /* 0. */
  uint32_t reserved;
  /* Frees the hook. Null where nothing is to be freed. `[run thread]` */
  void (*drop)(void *data);
  /* The hook's forward, by `hook_kind`. `[any thread]` Never null. */
  FtStatus (*forward)(const void *data, const FtHookCall *call);
  /* Linear hooks, `LinearHook::merge`: `[weight]` to `[merged weight or 0]`. Null where there is none, and in
     other kinds. `[run thread]`

     The weight that gives the same output without the hook, `[out, in]`, where there is one (`fthost merge`).
     `weight`: the layer's own, or what other hooks made of it: those that change inputs come after all others.
     What is merged is compared with what `forward` gave, and a difference is an error. */
  FtStatus (*merge)(const void *data, const FtHookCall *call);
  /* Linear hooks that change the input, `LinearHook::input`: `[x]` to `[x' or 0]`. Null where it stays, and in
     other kinds. `[any thread]`

     What takes the place of the input, `[tokens, in]`, `None` for an unchanged one. Called before the base layer
     runs, so a method that changes the input (IA3 on feed-forward, LoRA dropout does not) can. */
  FtStatus (*input)(const void *data, const FtHookCall *call);
  /* Linear hooks whose merged layer has another bias, `LinearHook::merge_bias`: `[bias]` to `[merged bias or
     0]`. Null where it stays, and in other kinds. `[run thread]`

     The bias that goes with `merge`'s weight, `[out]`; `None` for the layer's own. Called where the layer has
     one: a method that scales the output (IA3) scales the bias too. */
  FtStatus (*merge_bias)(const void *data, const FtHookCall *call);
  /* Attention hooks that shift the positions of a text's tokens, `AttentionHook::position_shift`: by how many.
     Null where they stay, and in other kinds. `[run thread]`, once, while the hook is set

     By how many positions the tokens of a text are shifted, as if the prefix stood before them: Transformers
     shifts them by the length of past keys and values, so a prefix that PEFT shall read needs its own length
     here. The largest shift of all hooks holds. Asked once, when the hook is set. `[run thread]` */
  FtStatus (*position_shift)(const void *data, uint64_t *out);
};

/* An instance that a plugin made. Frozen. Since 1.1. */
struct FtInstance {
  /* The plugin's own. */
  void *data;
  /* `StrategyVtable`, `SchedulerVtable`, `RegularizerVtable` or `TaskHeadVtable`, by the kind asked for. */
  const void *vtable;
};

/* What a plugin offers. Valid as long as the process. Since 1.1. */
struct FtPluginApi {
  /* Bytes of this table. */
  uint32_t struct_size;
  /* `ABI_MAJOR` the plugin was built with. */
  uint32_t abi_major;
  /* `ABI_MINOR` the plugin was built with. */
  uint32_t abi_minor;
  /* 0. */
  uint32_t reserved;
  /* Writes `PluginInfo` as JSON. `[any thread]` Never null. */
  FtStatus (*describe)(FtTextSink sink);
  /* Makes an instance of a method from JSON options that fit its schema. `[run thread]` Never null. */
  FtStatus (*create)(uint32_t kind, FtStr name, FtStr config, FtInstance *out);
  /* A table of experimental functions, or null. Null where it has none. `[any thread]` */
  const void *(*get_extension)(FtStr name);
  /* `Strategy::options_from_peft` of the strategy `name`: the fields of an `adapter_config.json` in, options
     out, both JSON. Null where no strategy opens folders of PEFT. `[run thread]`

     The options, as JSON, under which `attach` declares the parameters that a folder of PEFT holds, by PEFT's
     names, and computes what PEFT does with them. The reverse of `adapter_config`. A field of `config` that is
     left and says something is refused by name. */
  FtStatus (*options_from_peft)(FtStr name, FtStr config, FtTextSink sink);
};

/* The part that the vtables of all four traits begin with. Frozen: a field appended here would move all that
   stand after it in the four vtables, so additions go to the end of each of those.

   A saved state is JSON `{"json": any, "tensors": {"name": handle}}`; the handles pass to the receiver. Since
   1.1. */
struct FtBaseVtable {
  /* Bytes of the whole vtable. */
  uint32_t struct_size;
  /* 0. */
  uint32_t reserved;
  /* Frees the instance. Null where nothing is to be freed. `[run thread]` */
  void (*drop)(void *data);
  /* Writes the state. Null where there is none. `[run thread]` */
  FtStatus (*save)(const void *data, FtTextSink sink);
  /* Takes a state back. Null where there is none. `[run thread]` */
  FtStatus (*load)(void *data, FtStr state);
  /* Hears an `Event` as JSON. Null where it listens to none. `[run thread]` */
  FtStatus (*event)(void *data, FtStr event);
};

/* A `Strategy`. Since 1.1.

   A way to adapt a model: it freezes and thaws, declares parameters and hooks sites.

   The host creates one instance per `[[strategy]]` table of the run file, in order, and calls `attach` once
   before the first step. Hooks that `attach` installs run in every forward pass from then on.

   All calls come on the run's thread, one at a time. */
struct FtStrategyVtable {
  /* Common part. */
  FtBaseVtable base;
  /* `Strategy::attach`. `[run thread]` Never null.

     Declares what trains and hooks the sites. `[run thread]`, once, before the first step.

     A site that a hook does not start as the identity changes the model from step 0; say so in the plugin's
     README. */
  FtStatus (*attach)(void *data);
  /* `Strategy::adapter_config`: writes JSON, `null` for none. Null for none. `[run thread]`

     The fields of PEFT's `adapter_config.json` (`peft_type`, `r`, ...), where PEFT knows the method. The host
     adds what it knows itself (base model, task type), and puts the architecture's prefix before keys of a table
     that name something beside a site (`Param::name`). `None`: the adapter is saved in fthost's own form only. */
  FtStatus (*adapter_config)(const void *data, FtTextSink sink);
  /* `Strategy::adapter_tensors`: writes JSON `{"name": handle}`, `null` for none; the handles pass to the host.
     Null for none. `[run thread]`

     The tensors of PEFT's `adapter_model.safetensors`, by whole names, where they are not the parameters
     themselves: of a projected prefix PEFT keeps what the projection gives. One under a parameter's own name
     (`Param::name`) stands where the parameter would. Used only where `adapter_config` says that PEFT knows the
     method. `None`: every parameter as it is, one beside a site under `base_model.model.`, the architecture's
     prefix and its name, one of no site under its name alone. */
  FtStatus (*adapter_tensors)(const void *data, FtTextSink sink);
  /* `Strategy::starts_at_base`: writes 0 or 1. Null for 0. `[run thread]`, after attach

     Whether the model, once this strategy has attached, still computes exactly what the base model does. The
     host then compares the two to the bit before the first step, and a difference is an error. */
  FtStatus (*starts_at_base)(const void *data, uint32_t *out);
};

/* A `Scheduler`. Since 1.1.

   A learning-rate schedule. All calls come on the run's thread.

   `rate` must be a function of its arguments and the state in `save`, so that a resumed run continues on the
   same curve. */
struct FtSchedulerVtable {
  /* Common part. */
  FtBaseVtable base;
  /* `Scheduler::rate`. `[run thread]` Never null.

     The rate of one group at one step. */
  FtStatus (*rate)(const void *data, const FtProgress *progress, const FtGroup *group, FtRate *out);
  /* `Scheduler::on_evaluation`. Null where it listens to none. `[run thread]`

     Hears each evaluation of the monitored metric (plateau schedules react to it). */
  FtStatus (*on_evaluation)(void *data, const FtProgress *progress, const FtEvaluation *evaluation);
};

/* A `Regularizer`. Since 1.1.

   A penalty on the parameters or on the outputs, added to the task's loss. All calls come on the run's thread
   but `output_penalty`, which takes `&self` and runs on several threads at once. */
struct FtRegularizerVtable {
  /* Common part. */
  FtBaseVtable base;
  /* `Regularizer::attach`. Null where it need not see the model. `[run thread]`

     Sees the model once all strategies have attached; keep the `Param`s to penalise. */
  FtStatus (*attach)(void *data);
  /* `Regularizer::penalty`: a scalar's handle, or 0. Null for none. `[run thread]`

     The penalty on parameters, a differentiable scalar, or `None` where there is none yet (EWC before its first
     task). Once per optimizer step. */
  FtStatus (*penalty)(const void *data, uint64_t *out);
  /* `Regularizer::needs_reference`: writes 0 or 1. Null for 0. `[run thread]`

     Whether `output_penalty` is to be called. It wants several tasks in sequence. */
  FtStatus (*needs_reference)(const void *data, uint32_t *out);
  /* `Regularizer::output_penalty`: a scalar's handle, or 0; the call's tensors are the outputs, its targets the
     reference. Null for none. `[any thread]`

     The penalty on what the head of an earlier task says of the present task's examples, a differentiable
     scalar: the *sum* over the rows of the micro-batch. `outputs` and `reference`: `[rows, classes]`, or as the
     head's outputs are; `reference` as they were before the present task began, without dropout and without
     gradient. `[any thread]` */
  FtStatus (*output_penalty)(const void *data, const FtHeadCall *call);
};

/* A `TaskHead`. Since 1.1.

   A head. `attach` runs on the run's thread; `forward`, `loss` and `predict` take `&self` and run on several
   threads at once. */
struct FtTaskHeadVtable {
  /* Common part. */
  FtBaseVtable base;
  /* `TaskHead::attach`: `TaskInfo` JSON in, `HeadSpec` JSON out. `[run thread]` Never null.

     Declares the head's parameters by `Model::head_param` and says what it reads. `[run thread]`, once. */
  FtStatus (*attach)(void *data, FtStr task, FtTextSink spec);
  /* `TaskHead::forward`. `[any thread]` Never null.

     From features to outputs (logits, values, embeddings). `[any thread]` */
  FtStatus (*forward)(const void *data, const FtHeadCall *call);
  /* `TaskHead::loss`. `[any thread]` Never null.

     The loss of outputs against targets. `[any thread]` */
  FtStatus (*loss)(const void *data, const FtHeadCall *call);
  /* `TaskHead::predict`. `[any thread]` Never null.

     From outputs to the standard form that `HeadSpec::predictions` names. `[any thread]` */
  FtStatus (*predict)(const void *data, const FtHeadCall *call);
  /* `TaskHead::fit`. Null where it takes nothing from examples. `[run thread]`

     Takes what `predict` needs from the outputs of training examples, without gradients: prototypes of classes.
     It keeps them in parameters that do not train, by `Model::set_value`; these are saved, restored and exported
     as all others.

     Called before each evaluation where `HeadSpec::sampling` draws episodes. A class may be without examples,
     and then is not to be predicted. `[run thread]` */
  FtStatus (*fit)(void *data, const FtHeadCall *call);
  /* `TaskHead::metrics`: the call's tensors are the predictions, its targets the targets; writes JSON `{"name":
     number}`. Null where the spec names no metric. `[run thread]`. Since 1.1.

     The metrics that `HeadSpec::metrics` names, of what `predict` gave for all examples of an evaluation, at the
     run's temperature, and their targets. One that is undefined is no number. Not of masks and of tokens, of
     which too many would be in memory. `[run thread]`. Since 1.1 */
  FtStatus (*metrics)(const void *data, const FtHeadCall *call, FtTextSink sink);
};

/* What a plugin exports; FtEntryV1 says how. */
__attribute__((visibility("default"))) FtStatus fthost_plugin_entry_v1(const FtHostApi *host, const FtPluginApi **out);

#ifdef __cplusplus
}
#endif

#endif /* FTHOST_PLUGIN_H */
