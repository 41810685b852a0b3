/* LoRA (Hu et al. 2021, arXiv:2106.09685) in C: y = W x + b + s B A x.
 *
 * W [out, in] is frozen; A [rank, in] and B [out, rank] train, A from U(-1/sqrt in, 1/sqrt in), B from zero: step 0 is the base model
 * exactly. s is alpha / rank. It is plugins/lora, without its other forms: the same parameters under the same names, the same ops, and so
 * the same bits.
 *
 * fthost_plugin.h says what each call takes, gives and promises. From top to bottom: notes, the host's table, JSON, the hook, the strategy,
 * the plugin.
 */
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fthost_plugin.h"

#define NAME "lora_c"
#define VERSION "0.1.0"
#define LICENSE "MIT OR Apache-2.0"
#define SUMMARY "LoRA, written in C: trains a low-rank update beside each chosen linear layer."

/* The ops, and their names with versions: in the note, so that a host that lacks one refuses the file by that name. */
enum { LOW_RANK, DROPOUT, MATMUL, AFFINE, ADD, OPS };
static const char *const op_names[OPS] = {"low_rank@1", "dropout@1", "matmul@1", "affine@1", "add@1"};

FTHOST_PLUGIN_NOTE("{\"abi_major\":" FTHOST_TEXT(FT_ABI_MAJOR) ",\"abi_minor\":" FTHOST_TEXT(FT_ABI_MINOR) ",\"min_host_minor\":0,"
                   "\"name\":\"" NAME "\",\"version\":\"" VERSION "\",\"license\":\"" LICENSE "\",\"panic\":\"unwind\",\"compiler\":\"cc\","
                   "\"ops\":[\"low_rank@1\",\"dropout@1\",\"matmul@1\",\"affine@1\",\"add@1\"]}");
FTHOST_METHOD_NOTE("{\"kind\":\"strategy\",\"name\":\"" NAME "\",\"summary\":\"" SUMMARY "\"}");

/* ---- The host's table. ---- */

static const FtHostApi *host;

static FtStr borrowed(const char *text, size_t len) {
    FtStr str = {(const uint8_t *)text, len};
    return str;
}

static FtStr str(const char *text) { return borrowed(text, strlen(text)); }

static FtStatus fail(const char *why) {
    host->set_error(FT_FAILED, str(why));
    return FT_FAILED;
}

/* ---- Text that grows: what is said to the host, and what it answers. ---- */

typedef struct {
    char *at; /* ends in a zero that does not count; null where nothing was written */
    size_t len, room;
    bool full; /* no memory was left: what is here is not the whole */
} Text;

static void append(Text *text, const char *more, size_t len) {
    if (text->room - text->len <= len) {
        size_t room = 2 * (text->len + len + 1);
        char *larger = text->full ? NULL : realloc(text->at, room);
        if (!larger) {
            text->full = true;
            return;
        }
        text->at = larger;
        text->room = room;
    }
    memcpy(text->at + text->len, more, len);
    text->at[text->len += len] = 0;
}

static void say(Text *text, const char *more) { append(text, more, strlen(more)); }

/* A number in as few digits as give it back, and always with a point or an exponent: 16.0. */
static void say_number(Text *text, double number) {
    char digits[32];
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, number);
        if (strtod(digits, NULL) == number) {
            break;
        }
    }
    say(text, digits);
    if (!strpbrk(digits, ".e")) {
        say(text, ".0");
    }
}

static void say_integer(Text *text, uint64_t integer) {
    char digits[24];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)integer);
    say(text, digits);
}

static void free_text(Text *text) {
    free(text->at);
    *text = (Text){0};
}

/* What the host writes into an FtTextSink. */
static void collect(void *ctx, FtStr more) { append(ctx, (const char *)more.ptr, more.len); }

/* The host's own words on why its last call failed become this plugin's. */
static FtStatus pass_on(void) {
    Text why = {0};
    host->last_error((FtTextSink){&why, collect});
    host->set_error(FT_FAILED, borrowed(why.at, why.len));
    free_text(&why);
    return FT_FAILED;
}

/* A call about the model. Frees what was asked; the answer is the caller's to free, also of a call that fails. */
static FtStatus ask(const char *call, Text *asked, Text *answer) {
    FtStatus status = FT_FAILED;
    if (asked->full) {
        fail("out of memory");
    } else if (host->model_call(str(call), borrowed(asked->at, asked->len), (FtTextSink){answer, collect}) != FT_OK) {
        pass_on();
    } else if (answer->full) {
        fail("out of memory");
    } else {
        status = FT_OK;
    }
    free_text(asked);
    return status;
}

/* ---- JSON, looked at where it stands. Host and schema have checked it, so what is asked for is there in its form. ---- */

typedef struct {
    const char *at, *end;
} Json;

static const char *after_blank(const char *at, const char *end) {
    while (at < end && strchr(" \t\r\n", *at)) {
        at++;
    }
    return at;
}

/* Behind the value that begins here. */
static const char *after_value(const char *at, const char *end) {
    int depth = 0;
    bool quoted = false;
    for (; at < end; at++) {
        if (quoted) {
            if (*at == '\\') {
                at++;
            } else if (*at == '"') {
                quoted = false;
                if (depth == 0) {
                    return at + 1;
                }
            }
        } else if (*at == '"') {
            quoted = true;
        } else if (*at == '{' || *at == '[') {
            depth++;
        } else if (*at == '}' || *at == ']') {
            if (depth == 0) {
                return at; /* the end of what a number or word stands in */
            }
            if (--depth == 0) {
                return at + 1;
            }
        } else if (depth == 0 && strchr(", \t\r\n", *at)) {
            return at;
        }
    }
    return end;
}

/* Takes the next item of a list, or the next key or value of an object; begins with `rest` behind its bracket. */
static bool next(Json *rest, Json *item) {
    const char *at = rest->at;
    while (at < rest->end && strchr(" \t\r\n,:", *at)) {
        at++;
    }
    if (at >= rest->end || *at == ']' || *at == '}') {
        return false;
    }
    *item = (Json){at, after_value(at, rest->end)};
    rest->at = item->end;
    return true;
}

static Json inside(Json value) {
    const char *at = after_blank(value.at, value.end);
    return (Json){at < value.end ? at + 1 : at, value.end};
}

/* The value of a key; empty where the object has none. */
static Json value_of(Json object, const char *key) {
    Json rest = inside(object), name, value;
    while (next(&rest, &name) && next(&rest, &value)) {
        size_t len = (size_t)(name.end - name.at) - 2; /* without its quotes */
        if (len == strlen(key) && memcmp(name.at + 1, key, len) == 0) {
            return value;
        }
    }
    return (Json){NULL, NULL};
}

static double number_of(Json object, const char *key, double otherwise) {
    Json value = value_of(object, key);
    char digits[64] = {0};
    size_t len = (size_t)(value.end - value.at);
    if (!value.at || len >= sizeof digits) {
        return otherwise;
    }
    memcpy(digits, value.at, len);
    return strtod(digits, NULL);
}

/* ---- The hook: what runs at an adapted layer, on several threads at once. It changes nothing of its own. ---- */

static uint32_t ops[OPS]; /* found in attach, before any hook runs */

typedef struct {
    uint64_t a, b; /* parameters: [rank, in], [out, rank] */
    double scale, dropout;
} LowRank;

/* One op of one result, which is owned by whoever asked. */
static FtStatus run(int op, const uint64_t *inputs, size_t count, const double *floats, size_t numbers, uint64_t *result) {
    FtOpCall call = {.struct_size = sizeof call};
    call.inputs = (FtSliceU64){inputs, count};
    call.floats = (FtSliceF64){floats, numbers};
    call.outputs = (FtSliceMutU64){result, 1};
    return host->call_op(ops[op], &call) == FT_OK ? FT_OK : pass_on();
}

/* [x, y, weight] to [y + s (x A^T) B^T]: the host takes the result over. */
static FtStatus forward(const void *data, const FtHookCall *call) {
    const LowRank *hook = data;
    uint64_t x = call->inputs.ptr[0], y = call->inputs.ptr[1], dropped = 0;
    if (hook->dropout > 0.0) {
        if (run(DROPOUT, &x, 1, &hook->dropout, 1, &dropped) != FT_OK) {
            return FT_FAILED;
        }
        x = dropped;
    }
    uint64_t inputs[] = {y, x, hook->a, hook->b};
    FtStatus status = run(LOW_RANK, inputs, 4, &hook->scale, 1, call->outputs.ptr);
    if (dropped) {
        host->tensor_release(dropped); /* the tape keeps what backward needs */
    }
    return status;
}

/* [weight] to [weight + s B A], for `fthost merge`. */
static FtStatus merge(const void *data, const FtHookCall *call) {
    const LowRank *hook = data;
    uint64_t factors[] = {hook->b, hook->a}, product = 0, scaled = 0;
    double affine[] = {hook->scale, 0.0};
    FtStatus status = run(MATMUL, factors, 2, NULL, 0, &product);
    if (status == FT_OK) {
        status = run(AFFINE, &product, 1, affine, 2, &scaled);
        host->tensor_release(product);
    }
    if (status == FT_OK) {
        uint64_t terms[] = {call->inputs.ptr[0], scaled};
        status = run(ADD, terms, 2, NULL, 0, call->outputs.ptr);
        host->tensor_release(scaled);
    }
    return status;
}

static void drop_hook(void *data) { free(data); }

static const FtHookVtable hook_table = {
    .struct_size = sizeof(FtHookVtable),
    .drop = drop_hook,
    .forward = forward,
    .merge = merge,
};

/* ---- The strategy. ---- */

typedef struct {
    uint64_t rank;
    double alpha, dropout;
    Text targets; /* as they stand in the options: that is how the host takes them */
} Lora;

/* Declares a parameter [rows, columns] beside a site; `init` is JSON `Init`. */
static FtStatus declare(Json path, const char *name, uint64_t rows, uint64_t columns, const Text *init, uint64_t *handle) {
    Text asked = {0}, answer = {0};
    say(&asked, "{\"owner\":");
    append(&asked, path.at, (size_t)(path.end - path.at)); /* with its quotes */
    say(&asked, ",\"name\":\"");
    say(&asked, name);
    say(&asked, "\",\"shape\":[");
    say_integer(&asked, rows);
    say(&asked, ",");
    say_integer(&asked, columns);
    say(&asked, "],\"init\":");
    append(&asked, init->at, init->len);
    say(&asked, ",\"decay\":true,\"head\":false}");
    FtStatus status = ask(FT_CALL_PARAM, &asked, &answer);
    if (status == FT_OK) {
        *handle = strtoull(answer.at, NULL, 10);
    }
    free_text(&answer);
    return status;
}

/* Adapts one layer; `site` is JSON `Site`. */
static FtStatus adapt(const Lora *lora, Json site) {
    uint64_t in = (uint64_t)number_of(site, "in_features", 0), out = (uint64_t)number_of(site, "out_features", 0);
    Json path = value_of(site, "path");
    double bound = 1.0 / sqrt((double)in);
    LowRank *hook = malloc(sizeof *hook);
    if (!hook) {
        return fail("out of memory");
    }
    *hook = (LowRank){0, 0, lora->alpha / (double)lora->rank, lora->dropout};
    Text uniform = {0}, zeros = {0};
    say(&uniform, "{\"init\":\"uniform\",\"low\":");
    say_number(&uniform, -bound);
    say(&uniform, ",\"high\":");
    say_number(&uniform, bound);
    say(&uniform, "}");
    say(&zeros, "{\"init\":\"zeros\"}");
    FtStatus status = declare(path, "lora_A.weight", lora->rank, in, &uniform, &hook->a);
    if (status == FT_OK) {
        status = declare(path, "lora_B.weight", out, lora->rank, &zeros, &hook->b);
    }
    free_text(&uniform);
    free_text(&zeros);
    if (status != FT_OK) {
        free(hook);
        return status;
    }
    /* A path of a module needs no escapes in JSON, so what stands between its quotes is its name. The hook is the host's from here, also
       when the call fails. */
    FtStr name = borrowed(path.at + 1, (size_t)(path.end - path.at) - 2);
    return host->hook(name, FT_HOOK_LINEAR, hook, &hook_table) == FT_OK ? FT_OK : pass_on();
}

static FtStatus attach(void *data) {
    const Lora *lora = data;
    for (int op = 0; op < OPS; op++) {
        if (host->resolve_op(str(op_names[op]), &ops[op]) != FT_OK) {
            return pass_on();
        }
    }
    Text asked = {0}, answer = {0};
    say(&asked, "{\"targets\":null,\"trainable\":false}");
    FtStatus status = ask(FT_CALL_SET_TRAINABLE, &asked, &answer);
    free_text(&answer);
    if (status != FT_OK) {
        return status;
    }
    say(&asked, "{\"kind\":\"linear\",\"targets\":");
    append(&asked, lora->targets.at, lora->targets.len);
    say(&asked, ",\"exclude\":null}");
    status = ask(FT_CALL_SITES, &asked, &answer);
    if (status == FT_OK) {
        Json sites = inside((Json){answer.at, answer.at + answer.len}), site;
        while (status == FT_OK && next(&sites, &site)) {
            status = adapt(lora, site);
        }
    }
    free_text(&answer);
    return status;
}

/* B is zero, so nothing is changed yet: the host compares the two models to the bit. */
static FtStatus starts_at_base(const void *data, uint32_t *out) {
    (void)data;
    *out = 1;
    return FT_OK;
}

/* The fields of PEFT's adapter_config.json. With them the host saves the parameters as PEFT does. */
static FtStatus adapter_config(const void *data, FtTextSink sink) {
    const Lora *lora = data;
    Text json = {0};
    say(&json, "{\"peft_type\":\"LORA\",\"r\":");
    say_integer(&json, lora->rank);
    say(&json, ",\"lora_alpha\":");
    say_number(&json, lora->alpha);
    say(&json, ",\"lora_dropout\":");
    say_number(&json, lora->dropout);
    say(&json, ",\"target_modules\":");
    append(&json, lora->targets.at, lora->targets.len);
    say(&json, ",\"exclude_modules\":null,\"rank_pattern\":{},\"alpha_pattern\":{},\"bias\":\"none\",\"use_rslora\":false,"
               "\"use_dora\":false,\"fan_in_fan_out\":false,\"init_lora_weights\":true}");
    FtStatus status = json.full ? fail("out of memory") : FT_OK;
    if (status == FT_OK) {
        sink.write(sink.ctx, borrowed(json.at, json.len));
    }
    free_text(&json);
    return status;
}

static void drop(void *data) {
    Lora *lora = data;
    free_text(&lora->targets);
    free(lora);
}

/* What is null is not needed: all that a resumed run has to know are the parameters, which the host saves, so there is no state (`save`,
   `load`); nothing happens in a run that it would have to hear of (`event`); the parameters themselves are what PEFT keeps
   (`adapter_tensors`). */
static const FtStrategyVtable strategy = {
    .base = {.struct_size = sizeof(FtStrategyVtable), .drop = drop},
    .attach = attach,
    .adapter_config = adapter_config,
    .starts_at_base = starts_at_base,
};

/* ---- The plugin. ---- */

#define DEFAULT_TARGETS "[\"query\",\"value\"]"

static const char info[] =
    "{\"name\":\"" NAME "\",\"version\":\"" VERSION "\",\"license\":\"" LICENSE "\",\"methods\":[{\"kind\":\"strategy\",\"name\":\"" NAME "\","
    "\"summary\":\"" SUMMARY "\",\"config_schema\":{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{"
    "\"rank\":{\"type\":\"integer\",\"minimum\":1,\"default\":8,\"description\":\"Rank of the update: rows of A, columns of B.\"},"
    "\"alpha\":{\"type\":\"number\",\"default\":16.0,\"description\":\"Weight of the update: the scale is alpha / rank.\"},"
    "\"targets\":{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"array\",\"items\":{\"type\":\"string\"}}],\"default\":" DEFAULT_TARGETS ","
    "\"description\":\"Linear layers that get an update: paths or their ends, or a regular expression over whole paths.\"},"
    "\"dropout\":{\"type\":\"number\",\"minimum\":0,\"exclusiveMaximum\":1,\"default\":0.0,\"description\":\"Dropout on the update's input.\"}}},"
    "\"config_default\":{\"rank\":8,\"alpha\":16.0,\"targets\":" DEFAULT_TARGETS ",\"dropout\":0.0}}]}";

static FtStatus describe(FtTextSink sink) {
    sink.write(sink.ctx, str(info));
    return FT_OK;
}

static FtStatus create(uint32_t kind, FtStr name, FtStr config, FtInstance *out) {
    if (kind != FT_KIND_STRATEGY || name.len != strlen(NAME) || memcmp(name.ptr, NAME, name.len) != 0) {
        return fail("this plugin has the strategy " NAME " alone");
    }
    Json options = {(const char *)config.ptr, (const char *)config.ptr + config.len};
    Json targets = value_of(options, "targets");
    Lora *lora = calloc(1, sizeof *lora);
    if (!lora) {
        return fail("out of memory");
    }
    lora->rank = (uint64_t)number_of(options, "rank", 8);
    lora->alpha = number_of(options, "alpha", 16);
    lora->dropout = number_of(options, "dropout", 0);
    if (targets.at) {
        append(&lora->targets, targets.at, (size_t)(targets.end - targets.at));
    } else {
        say(&lora->targets, DEFAULT_TARGETS);
    }
    if (lora->targets.full) {
        drop(lora);
        return fail("out of memory");
    }
    out->data = lora;
    out->vtable = &strategy;
    return FT_OK;
}

static const FtPluginApi plugin = {
    .struct_size = sizeof(FtPluginApi),
    .abi_major = FT_ABI_MAJOR,
    .abi_minor = FT_ABI_MINOR,
    .describe = describe,
    .create = create,
};

FtStatus fthost_plugin_entry_v1(const FtHostApi *table, const FtPluginApi **out) {
    if (table->abi_major != FT_ABI_MAJOR || table->struct_size < FT_MINOR_0_HOST_API) {
        return FT_FAILED;
    }
    host = table;
    *out = &plugin;
    return FT_OK;
}
