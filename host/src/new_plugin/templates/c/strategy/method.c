
/* ---- The hook: what runs at a scaled layer, on several threads at once. It changes nothing of its own. ---- */

typedef struct {
    uint64_t scale; /* a parameter, [out] */
    int64_t outputs;
} Scaled;

static void drop_hook(void *data) { free(data); }

/* Multiplies an input of a call with the scales; the host takes the result over. */
static FtStatus times(const FtHookCall *call, size_t input, uint64_t scales) {
    uint64_t inputs[] = {call->inputs.ptr[input], scales};
    return run(MUL, (FtSliceU64){inputs, 2}, NO_INTS, NO_FLOATS, call->outputs);
}

/* [x, y, weight] to [s * y], [tokens, out] */
static FtStatus forward(const void *data, const FtHookCall *call) {
    return times(call, 1, ((const Scaled *)data)->scale);
}

/* [weight] to [diag(s) weight], [out, in], for `fthost merge` */
static FtStatus merge(const void *data, const FtHookCall *call) {
    const Scaled *hook = data;
    uint64_t rows = 0; /* [out, 1] */
    FtStatus status =
        run(RESHAPE, (FtSliceU64){&hook->scale, 1}, INTS(hook->outputs, 1), NO_FLOATS, (FtSliceMutU64){&rows, 1});
    if (status == FT_OK) {
        status = times(call, 0, rows);
        host->tensor_release(rows);
    }
    return status;
}

/* [bias] to [s * bias], [out] */
static FtStatus merge_bias(const void *data, const FtHookCall *call) {
    return times(call, 0, ((const Scaled *)data)->scale);
}

static const FtHookVtable hook_table = {
    .struct_size = sizeof(FtHookVtable),
    .drop = drop_hook,
    .forward = forward,
    .merge = merge,
    .merge_bias = merge_bias,
};

/* ---- The method. ---- */

typedef struct {
    char *targets; /* as they stand in the options: that is how the host takes them */
} Scale;

static void drop(void *data) {
    free(((Scale *)data)->targets);
    free(data);
}

/* Behind the JSON value that begins here. */
static const char *after_value(const char *at, const char *end) {
    int depth = 0, quoted = 0;
    for (; at < end; at++) {
        if (quoted && *at == '\\') {
            at++;
        } else if (*at == '"') {
            quoted = !quoted;
        } else if (!quoted && (*at == '{' || *at == '[')) {
            depth++;
        } else if (!quoted && (*at == '}' || *at == ']')) {
            depth--;
        } else {
            continue;
        }
        if (depth == 0 && !quoted) {
            return at + 1;
        }
    }
    return end;
}

/* Declares the scales of a layer and hooks it; `site` is JSON `Site`. */
static FtStatus adapt(FtStr site) {
    const char *path = value_of(site, "\"path\":");
    long outputs = (long)number_of(site, "\"out_features\":", 0);
    if (!path || outputs <= 0) {
        return fail("the host describes a layer without path and width");
    }
    const char *after = after_value(path, (const char *)site.ptr + site.len);
    char asked[1024];
    int length = snprintf(asked, sizeof asked,
                          "{\"owner\":%.*s,\"name\":\"scale\",\"shape\":[%ld],\"init\":{\"init\":\"ones\"},"
                          "\"decay\":false,\"head\":false}",
                          (int)(after - path), path, outputs);
    if (length >= (int)sizeof asked) {
        return fail("the path of a layer is too long");
    }
    Answer answer;
    if (ask(FT_CALL_PARAM, asked, &answer) != FT_OK) {
        return FT_FAILED;
    }
    Scaled *hook = malloc(sizeof *hook);
    if (hook) {
        *hook = (Scaled){strtoull(answer.at, NULL, 10), outputs};
    }
    free(answer.at);
    if (!hook) {
        return fail("out of memory");
    }
    /* Its name is the path without the quotes. The hook is the host's from here, also when the call fails. */
    FtStr name = borrowed(path + 1, (size_t)(after - path) - 2);
    return host->hook(name, FT_HOOK_LINEAR, hook, &hook_table) == FT_OK ? FT_OK : pass_on();
}

/* Freezes the model, and adapts each layer that the options name: `[Site, ...]`. */
static FtStatus attach(void *data) {
    const char *targets = ((const Scale *)data)->targets;
    Answer answer;
    if (find_ops() != FT_OK || ask(FT_CALL_SET_TRAINABLE, "{\"targets\":null,\"trainable\":false}", &answer) != FT_OK) {
        return FT_FAILED;
    }
    free(answer.at);
    static const char form[] = "{\"kind\":\"linear\",\"targets\":%s,\"exclude\":null}";
    size_t room = sizeof form + strlen(targets);
    char *asked = malloc(room);
    if (!asked) {
        return fail("out of memory");
    }
    snprintf(asked, room, form, targets);
    FtStatus status = ask(FT_CALL_SITES, asked, &answer);
    free(asked);
    if (status != FT_OK) {
        return status;
    }
    const char *end = answer.at + answer.len;
    for (const char *at = strchr(answer.at, '{'); at && status == FT_OK; at = strchr(at, '{')) {
        const char *after = after_value(at, end);
        status = adapt(borrowed(at, (size_t)(after - at)));
        at = after;
    }
    free(answer.at);
    return status;
}

/* All scales are one, so nothing is changed yet: the host compares the two models to the bit. */
static FtStatus starts_at_base(const void *data, uint32_t *out) {
    (void)data;
    *out = 1;
    return FT_OK;
}

/* What a method does not offer is null: all that a resumed run has to know are the parameters, which the host saves. */
static const FtStrategyVtable table = {
    .base = {.struct_size = sizeof(FtStrategyVtable), .drop = drop},
    .attach = attach,
    .starts_at_base = starts_at_base,
};

static FtStatus make(FtStr options, void **made) {
    const char *targets = value_of(options, "\"targets\":");
    const char *after = targets ? after_value(targets, (const char *)options.ptr + options.len) : NULL;
    size_t len = targets ? (size_t)(after - targets) : strlen(TARGETS);
    Scale *scale = calloc(1, sizeof *scale);
    if (!scale || !(scale->targets = calloc(len + 1, 1))) {
        free(scale);
        return fail("out of memory");
    }
    memcpy(scale->targets, targets ? targets : TARGETS, len);
    *made = scale;
    return FT_OK;
}
