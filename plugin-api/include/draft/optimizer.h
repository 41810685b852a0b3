/* A draft: an extension that is tried and not promised; see plugin-api/src/abi/draft/mod.rs. Generated from optimizer.rs there. */
#ifndef FTHOST_DRAFT_OPTIMIZER_H
#define FTHOST_DRAFT_OPTIMIZER_H

#include "../fthost_plugin.h"



#define FT_DRAFT_OPTIMIZER "ft.optimizer/1"

/*
 Makes update rules.
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
   Makes an instance of a rule from JSON options that fit its schema; its vtable is an `OptimizerVtable`. `[run thread]`
   */
  FtStatus (*create)(FtStr name, FtStr config, FtInstance *out);
} FtOptimizerExtension;

/*
 One parameter's update, as `Update` says.
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
   The parameter's name.
   */
  FtStr name;
  /*
   Its value. Borrowed.
   */
  uint64_t value;
  /*
   Its gradient, of its shape. Borrowed.
   */
  uint64_t gradient;
  /*
   Its states, in the order of `states`. Borrowed.
   */
  FtSliceU64 states;
  /*
   How many updates it has had, this one counted: 1 is the first.
   */
  uint64_t step;
  /*
   Learning rate.
   */
  double lr;
  /*
   Momentum or beta1, as the schedule says.
   */
  double momentum;
  /*
   Weight decay; 0 where the parameter gets none.
   */
  double weight_decay;
  /*
   Room for the new value and the new states, which pass to the host; 0, as when called, leaves one as it is.
   */
  FtSliceMutU64 outputs;
} FtUpdateCall;

/*
 An `Optimizer`.
 */
typedef struct {
  /*
   Common part.
   */
  FtBaseVtable base;
  /*
   `Optimizer::momentum`: writes it. Null for 0. `[run thread]`
   */
  FtStatus (*momentum)(const void *data, double *out);
  /*
   `Optimizer::states`: a parameter's name and shape in, JSON `[StateSpec]` out. Null where it keeps none. `[run thread]`
   */
  FtStatus (*states)(const void *data, FtStr name, FtSliceU64 shape, FtTextSink sink);
  /*
   `Optimizer::step`. `[run thread]`
   */
  FtStatus (*step)(const void *data, const FtUpdateCall *call);
} FtOptimizerVtable;

#endif /* FTHOST_DRAFT_OPTIMIZER_H */
