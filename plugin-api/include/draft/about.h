/* A draft: an extension that is tried and not promised; see plugin-api/src/abi/draft/mod.rs. Generated from about.rs there. */
#ifndef FTHOST_DRAFT_ABOUT_H
#define FTHOST_DRAFT_ABOUT_H

#include "../fthost_plugin.h"

/* `ft.about.draft/1`, of a plugin: what a person should know of it. `fthost inspect` prints it. */
#define FT_DRAFT_ABOUT "ft.about.draft/1" /* The name to ask `PluginApi::get_extension` for. */

typedef struct FtAboutDraft FtAboutDraft;

/* What a plugin says of itself. */
struct FtAboutDraft {
  /* Bytes of this table. */
  uint32_t struct_size;
  /* 0. */
  uint32_t reserved;
  /* Writes the text: a paper, a home page, whom to ask. `[any thread]` Never null. */
  FtStatus (*text)(FtTextSink sink);
};

#endif /* FTHOST_DRAFT_ABOUT_H */
