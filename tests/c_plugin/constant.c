/* A plugin in C: a constant learning rate, with one option, by which everything a plugin needs can be seen.
 *
 *     cc -std=c11 -shared -fPIC -I plugin-api/include -o libc_constant.so constant.c
 *
 * The host reads the notes first, before it runs any code of the file; then it calls fthost_plugin_entry_v1, asks the table
 * it gets for an instance, and calls that.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fthost_plugin.h"

#define NAME "c_constant"
#define SUMMARY "The same rate at every step, times a factor. Written in C."
#define SCHEMA                                                                                                         \
    "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":"                                              \
    "{\"factor\":{\"type\":\"number\",\"minimum\":0,\"default\":1.0,\"description\":\"What the rate is multiplied with.\"}}}"

/* ---- Notes: an ELF note for the plugin, and one for each method. Each is padded to four bytes. ---- */

#define NOTE(variable, kind, json)                                                                                     \
    __attribute__((section(".note.fthost"), used, aligned(4))) static const struct {                                  \
        uint32_t owner_length, text_length, type;                                                                      \
        char owner[8];                                                                                                 \
        char text[(sizeof(json) + 2) / 4 * 4];                                                                         \
    } variable = {sizeof("fthost"), sizeof(json) - 1, kind, "fthost", json}

NOTE(plugin_note, FT_NOTE_PLUGIN,
     "{\"abi_major\":1,\"abi_minor\":0,\"min_host_minor\":0,\"name\":\"" NAME "\",\"version\":\"0.1.0\","
     "\"license\":\"MIT\",\"panic\":\"unwind\",\"compiler\":\"cc\",\"ops\":[]}");
NOTE(method_note, FT_NOTE_METHOD, "{\"kind\":\"scheduler\",\"name\":\"" NAME "\",\"summary\":\"" SUMMARY "\"}");

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

/* It has no state: what it needs stands in its options. */
static FtStatus save(const void *data, FtTextSink sink) {
    (void)data;
    return put(sink, "{\"json\":null,\"tensors\":{}}");
}

static FtStatus load(void *data, FtStr state) {
    (void)data, (void)state;
    return FT_OK;
}

static FtStatus event(void *data, FtStr json) {
    (void)data, (void)json;
    return FT_OK;
}

static FtStatus rate(const void *data, const FtProgress *progress, const FtGroup *group, FtRate *out) {
    (void)progress;
    out->lr = group->lr * ((const Constant *)data)->factor;
    out->momentum = group->momentum;
    return FT_OK;
}

static FtStatus on_evaluation(void *data, const FtProgress *progress, double value) {
    (void)data, (void)progress, (void)value;
    return FT_OK;
}

static const FtSchedulerVtable scheduler = {
    .base = {.struct_size = sizeof(FtSchedulerVtable), .drop = drop, .save = save, .load = load, .event = event},
    .rate = rate,
    .on_evaluation = on_evaluation,
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

static const void *get_extension(FtStr name) {
    (void)name;
    return NULL;
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
    host = table;
    *out = &plugin;
    return FT_OK;
}
