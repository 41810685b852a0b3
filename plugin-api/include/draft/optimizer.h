/* A draft: an extension that is tried and not promised; see plugin-api/src/abi/draft/mod.rs. Generated from optimizer.rs there. */
#ifndef FTHOST_DRAFT_OPTIMIZER_H
#define FTHOST_DRAFT_OPTIMIZER_H

#include "../fthost_plugin.h"

/* `ft.optimizer/1`, of a plugin: update rules.

   A host finds them in the note, as methods of the kind `optimizer`, and makes instances by this table. Values,
   gradients and states stay the host's: a rule gets them as tensors and gives new ones, which the host writes in
   place. */
#define FT_DRAFT_OPTIMIZER "ft.optimizer/1" /* The name to ask `PluginApi::get_extension` for. */

/* JSON:

   Elements, one of some words
      Elements of a state.
      "f32"
         32-bit floats.
      "u8"
         Bytes.

   StateSpec, an object
      A tensor that an optimizer keeps of a parameter.
      "name": string
         Its name, one of each for a parameter: `exp_avg`.
      "shape": [integer]
         Its shape, which need not be the parameter's.
      "elements": Elements, may be missing
         Its elements. */

typedef struct FtOptimizerExtension FtOptimizerExtension;
typedef struct FtOptimizerVtable FtOptimizerVtable;
typedef struct FtUpdateCall FtUpdateCall;

/* Makes update rules. */
struct FtOptimizerExtension {
  /* Bytes of this table. */
  uint32_t struct_size;
  /* 0. */
  uint32_t reserved;
  /* Makes an instance of a rule from JSON options that fit its schema; its vtable is an `OptimizerVtable`. `[run
     thread]` Never null. */
  FtStatus (*create)(FtStr name, FtStr config, FtInstance *out);
};

/* An `Optimizer`.

   An update rule. All calls come on the run's thread, one at a time; clipping, schedules and learning-rate
   factors are the host's.

   A plugin with one says `min_host_minor = 1` in `export_plugin!`. Since 1.1 */
struct FtOptimizerVtable {
  /* Common part. */
  FtBaseVtable base;
  /* `Optimizer::momentum`: writes it. Null for 0. `[run thread]`

     The momentum or beta1 that a schedule may change from step to step. */
  FtStatus (*momentum)(const void *data, double *out);
  /* `Optimizer::states`: a parameter's name and shape in, JSON `[StateSpec]` out. Null where it keeps none.
     `[run thread]`

     What it keeps of a parameter of this name and shape from one step to the next. Zeros before the first;
     checkpoints hold them. */
  FtStatus (*states)(const void *data, FtStr name, FtSliceU64 shape, FtTextSink sink);
  /* `Optimizer::step`. `[run thread]` Never null.

     One parameter's update, without gradients. */
  FtStatus (*step)(const void *data, const FtUpdateCall *call);
};

/* One parameter's update, as `Update` says. */
struct FtUpdateCall {
  /* Bytes of this call. */
  uint32_t struct_size;
  /* 0. */
  uint32_t reserved;
  /* The parameter's name. */
  FtStr name;
  /* Its value. Borrowed. */
  uint64_t value;
  /* Its gradient, of its shape. Borrowed. */
  uint64_t gradient;
  /* Its states, in the order of `states`. Borrowed. */
  FtSliceU64 states;
  /* How many updates it has had, this one counted: 1 is the first. */
  uint64_t step;
  /* Learning rate. */
  double lr;
  /* Momentum or beta1, as the schedule says. */
  double momentum;
  /* Weight decay; 0 where the parameter gets none. */
  double weight_decay;
  /* Room for the new value and the new states, which pass to the host; 0, as when called, leaves one as it is. */
  FtSliceMutU64 outputs;
};

#endif /* FTHOST_DRAFT_OPTIMIZER_H */
