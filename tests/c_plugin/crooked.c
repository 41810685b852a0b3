/* A plugin in C that breaks a promise of the boundary: which one is a macro, CROOKED_NOTE, CROOKED_SIZE, CROOKED_NULL, CROOKED_OLD or
 * CROOKED_NEW. For tests of `fthost validate` alone; constant.c beside it shows how it is done right.
 */
#include <string.h>

#include "fthost_plugin.h"

#define NAME "crooked"

#ifdef CROOKED_NOTE
#define SAID "straight"
#else
#define SAID NAME
#endif

#define NOTE(variable, kind, json)                                                                                     \
    __attribute__((section(".note.fthost"), used, aligned(4))) static const struct {                                  \
        uint32_t owner_length, text_length, type;                                                                      \
        char owner[8];                                                                                                 \
        char text[(sizeof(json) + 2) / 4 * 4];                                                                         \
    } variable = {sizeof("fthost"), sizeof(json) - 1, kind, "fthost", json}

NOTE(plugin_note, FT_NOTE_PLUGIN,
     "{\"abi_major\":1,\"abi_minor\":0,\"min_host_minor\":0,\"name\":\"" NAME "\",\"version\":\"0.1.0\","
     "\"license\":\"MIT\",\"panic\":\"unwind\",\"compiler\":\"cc\",\"ops\":[]}");
NOTE(method_note, FT_NOTE_METHOD, "{\"kind\":\"scheduler\",\"name\":\"" NAME "\",\"summary\":\"The same rate.\"}");

static const FtHostApi *host;

static FtStr text(const char *zero_ended) {
    FtStr borrowed = {(const uint8_t *)zero_ended, strlen(zero_ended)};
    return borrowed;
}

static FtStatus rate(const void *data, const FtProgress *progress, const FtGroup *group, FtRate *out) {
    (void)data, (void)progress;
    out->lr = group->lr;
    out->momentum = group->momentum;
    return FT_OK;
}

static const FtSchedulerVtable scheduler = {
#ifdef CROOKED_SIZE
    .base = {.struct_size = FT_MINOR_0_SCHEDULER_VTABLE + 4},
#else
    .base = {.struct_size = FT_MINOR_0_SCHEDULER_VTABLE},
#endif
#ifndef CROOKED_NULL
    .rate = rate,
#endif
};

static FtStatus describe(FtTextSink sink) {
    sink.write(sink.ctx, text("{\"name\":\"" NAME "\",\"version\":\"0.1.0\",\"license\":\"MIT\",\"methods\":[{\"kind\":"
                              "\"scheduler\",\"name\":\"" NAME "\",\"summary\":\"The same rate.\",\"config_schema\":"
                              "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{}},\"config_default\":{}}"
#ifdef CROOKED_NOTE
                              ",{\"kind\":\"scheduler\",\"name\":\"" SAID "\",\"summary\":\"Another.\",\"config_schema\":"
                              "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{}},\"config_default\":{}}"
#endif
                              "]}"));
    return FT_OK;
}

static FtStatus create(uint32_t kind, FtStr name, FtStr config, FtInstance *out) {
    (void)kind, (void)name, (void)config;
    out->data = NULL;
    out->vtable = &scheduler;
    return FT_OK;
}

static const FtPluginApi plugin = {
    .struct_size = FT_MINOR_0_PLUGIN_API,
    .abi_major = FT_ABI_MAJOR,
    .abi_minor = 0,
    .describe = describe,
    .create = create,
};

FtStatus fthost_plugin_entry_v1(const FtHostApi *table, const FtPluginApi **out) {
    host = table;
#ifdef CROOKED_OLD
    /* It was built with a later host's header, and its note does not say so. */
    if (table->struct_size <= FT_MINOR_0_HOST_API) {
        host->set_error(FT_FAILED, text("this host is too old"));
        return FT_FAILED;
    }
#endif
#ifdef CROOKED_NEW
    /* Sizes grow: a comparison for equality is wrong. */
    if (table->struct_size != sizeof(FtHostApi)) {
        host->set_error(FT_FAILED, text("this is not the host that it was built for"));
        return FT_FAILED;
    }
#endif
    *out = &plugin;
    return FT_OK;
}
