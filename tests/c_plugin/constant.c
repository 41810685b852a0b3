/* A plugin in C: a constant learning rate, with one option, by which everything a plugin needs can be seen.
 *
 *     cc -std=c99 -shared -fPIC -I plugin-api/include -o libc_constant.so constant.c
 *
 * The host reads the notes first, before it runs any code of the file; then it calls fthost_plugin_entry_v1, asks the table
 * it gets for an instance, and calls that.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "draft/about.h"
#include "fthost_plugin.h"

#define NAME "c_constant"
#define SUMMARY "The same rate at every step, times a factor. Written in C."
#define SCHEMA                                                                                                         \
    "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":"                                              \
    "{\"factor\":{\"type\":\"number\",\"minimum\":0,\"default\":1.0,\"description\":\"What the rate is multiplied with.\"}}}"

/* ---- Notes, which the host reads first. ---- */

FTHOST_PLUGIN_NOTE("{\"abi_major\":" FTHOST_TEXT(FT_ABI_MAJOR) ",\"abi_minor\":" FTHOST_TEXT(FT_ABI_MINOR) ",\"min_host_minor\":0,"
                   "\"name\":\"" NAME "\",\"version\":\"0.1.0\",\"license\":\"MIT\",\"panic\":\"unwind\",\"compiler\":\"cc\","
                   "\"ops\":[]}");
FTHOST_METHOD_NOTE("{\"kind\":\"scheduler\",\"name\":\"" NAME "\",\"summary\":\"" SUMMARY "\"}");

/* ---- The host's table, and how to use it. ---- */

static const FtHostApi *host;

static FtStr text(const char *zero_ended) {
    FtStr borrowed = {(const uint8_t *)zero_ended, strlen(zero_ended)};
    return borrowed;
}

static FtStatus fail(const char *why) {
    host->set_error(FT_FAILED, text(why));
    return FT_FAILED;
}

static FtStatus put(FtTextSink sink, const char *json) {
    sink.write(sink.ctx, text(json));
    return FT_OK;
}

/* ---- The scheduler. ---- */

typedef struct {
    double factor;
} Constant;

static void drop(void *data) { free(data); }

static FtStatus rate(const void *data, const FtProgress *progress, const FtGroup *group, FtRate *out) {
    (void)progress;
    /* All of these are of minor 0. A field that came later is read only where FTHOST_HAS(group, field), and written only where
       FTHOST_HAS(out, field). */
    out->lr = group->lr * ((const Constant *)data)->factor;
    out->momentum = group->momentum;
    return FT_OK;
}

/* What it does not offer is null: it has no state beside its options, and listens to no event and no evaluation. */
static const FtSchedulerVtable scheduler = {
    .base = {.struct_size = sizeof(FtSchedulerVtable), .drop = drop},
    .rate = rate,
};

/* ---- The plugin. ---- */

static FtStatus describe(FtTextSink sink) {
    return put(sink, "{\"name\":\"" NAME "\",\"version\":\"0.1.0\",\"license\":\"MIT\",\"methods\":[{\"kind\":\"scheduler\","
                     "\"name\":\"" NAME "\",\"summary\":\"" SUMMARY "\",\"config_schema\":" SCHEMA ","
                     "\"config_default\":{\"factor\":1.0}}]}");
}

/* The options come as JSON that the host has checked against the schema, so `factor` is a number where it stands. */
static double factor_of(FtStr config) {
    char json[256] = {0};
    memcpy(json, config.ptr, config.len < sizeof json ? config.len : sizeof json - 1);
    const char *found = strstr(json, "\"factor\":");
    return found ? strtod(found + strlen("\"factor\":"), NULL) : 1.0;
}

static FtStatus create(uint32_t kind, FtStr name, FtStr config, FtInstance *out) {
    if (kind != FT_KIND_SCHEDULER || name.len != strlen(NAME) || memcmp(name.ptr, NAME, name.len) != 0) {
        return fail("this plugin has the scheduler " NAME " alone");
    }
    Constant *instance = malloc(sizeof *instance);
    if (!instance) {
        return fail("out of memory");
    }
    instance->factor = factor_of(config);
    out->data = instance;
    out->vtable = &scheduler;
    return FT_OK;
}

/* A draft, which a plugin need not offer: what `fthost inspect` prints of it. */
static FtStatus about(FtTextSink sink) { return put(sink, "the example of tests/c_plugin"); }

static const FtAboutDraft about_draft = {.struct_size = sizeof(FtAboutDraft), .text = about};

static const void *get_extension(FtStr name) {
    int asked = name.len == strlen(FT_DRAFT_ABOUT) && memcmp(name.ptr, FT_DRAFT_ABOUT, name.len) == 0;
    return asked ? &about_draft : NULL;
}

static const FtPluginApi plugin = {
    .struct_size = sizeof(FtPluginApi),
    .abi_major = FT_ABI_MAJOR,
    .abi_minor = FT_ABI_MINOR,
    .describe = describe,
    .create = create,
    .get_extension = get_extension,
};

FtStatus fthost_plugin_entry_v1(const FtHostApi *table, const FtPluginApi **out) {
    if (table->abi_major != FT_ABI_MAJOR || table->struct_size < FT_MINOR_0_HOST_API) {
        return FT_FAILED;
    }
    host = table;
    *out = &plugin;
    return FT_OK;
}
