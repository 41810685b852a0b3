/* A draft: an extension that is tried and not promised; see plugin-api/src/abi/draft/mod.rs. Generated from run.rs there. */
#ifndef FTHOST_DRAFT_RUN_H
#define FTHOST_DRAFT_RUN_H

#include "../fthost_plugin.h"

/* `ft.run.draft/1`, of the host: which run a call is part of. */
#define FT_DRAFT_RUN "ft.run.draft/1" /* The name to ask `HostApi::get_extension` for. */

typedef struct FtRunDraft FtRunDraft;

/* The run of the call that is under way on this thread. Outside of one, and before `attach`, its functions fail. */
struct FtRunDraft {
  /* Bytes of this table. */
  uint32_t struct_size;
  /* 0. */
  uint32_t reserved;
  /* Writes the run's seed. `[any thread]` */
  FtStatus (*seed)(uint64_t *out);
  /* Writes the optimizer step, counted from 0 in its phase; 0 before the first. `[any thread]` */
  FtStatus (*step)(uint64_t *out);
};

#endif /* FTHOST_DRAFT_RUN_H */
