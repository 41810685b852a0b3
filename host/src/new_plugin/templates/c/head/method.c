
/* ---- The method. ---- */

typedef struct {
    double temperature;
    uint64_t weight; /* a parameter, [classes, width] */
} Angles;

static void drop(void *data) { free(data); }

/* How many texts stand in a JSON list. */
static long count_of(const char *list) {
    long count = 0;
    int quoted = 0;
    for (; list && *list && (quoted || *list != ']'); list++) {
        if (quoted && *list == '\\') {
            list++;
        } else if (*list == '"') {
            quoted = !quoted;
            count += quoted;
        }
    }
    return count;
}

/* `task` is JSON `TaskInfo`; what the head reads and gives goes out as `HeadSpec`. */
static FtStatus attach(void *data, FtStr task, FtTextSink spec) {
    long classes = count_of(value_of(task, "\"labels\":")), width = (long)number_of(task, "\"width\":", 0);
    if (classes < 2) {
        return fail("a classifier needs two classes");
    }
    char asked[256];
    snprintf(asked, sizeof asked,
             "{\"owner\":null,\"name\":\"weight\",\"shape\":[%ld,%ld],\"init\":{\"init\":\"normal\",\"mean\":0.0,\"std\":0.2},"
             "\"decay\":true,\"head\":true}",
             classes, width);
    Answer answer;
    if (find_ops() != FT_OK || ask(FT_CALL_PARAM, asked, &answer) != FT_OK) {
        return FT_FAILED;
    }
    ((Angles *)data)->weight = strtoull(answer.at, NULL, 10);
    free(answer.at);
    spec.write(spec.ctx, text("{\"features\":\"pooled\",\"targets\":\"class\",\"scope\":\"example\",\"predictions\":\"classes\"}"));
    return FT_OK;
}

/* Rows of length 1, [rows, width]. */
static FtStatus directions(uint64_t rows, uint64_t *result) {
    uint64_t lengths = 0; /* [rows, 1] */
    FtStatus status = run(SQUARE, (FtSliceU64){&rows, 1}, NO_INTS, NO_FLOATS, (FtSliceMutU64){&lengths, 1});
    if (status == FT_OK) {
        status = replace(SUM_DIM, &lengths, 0, INTS(-1, 1), NO_FLOATS);
    }
    if (status == FT_OK) {
        /* So that features of zeros have no direction, and no gradient that is no number. */
        status = replace(AFFINE, &lengths, 0, NO_INTS, FLOATS(1.0, 1e-12));
    }
    if (status == FT_OK) {
        status = replace(SQRT, &lengths, 0, NO_INTS, NO_FLOATS);
    }
    if (status == FT_OK) {
        uint64_t inputs[] = {rows, lengths};
        status = run(DIV, (FtSliceU64){inputs, 2}, NO_INTS, NO_FLOATS, (FtSliceMutU64){result, 1});
        host->tensor_release(lengths);
    }
    return status;
}

/* Features [examples, width] to logits [examples, classes]. */
static FtStatus forward(const void *data, const FtHeadCall *call) {
    const Angles *head = data;
    uint64_t rows = 0, classes = 0, logits = 0;
    FtStatus status = directions(call->tensors.ptr[0], &rows);
    if (status == FT_OK) {
        status = directions(head->weight, &classes);
    }
    if (status == FT_OK) {
        uint64_t inputs[] = {rows, classes, 0}; /* no bias */
        status = run(LINEAR, (FtSliceU64){inputs, 3}, NO_INTS, NO_FLOATS, (FtSliceMutU64){&logits, 1});
        host->tensor_release(classes);
    }
    if (rows) {
        host->tensor_release(rows);
    }
    if (status == FT_OK) {
        status = replace(AFFINE, &logits, 0, NO_INTS, FLOATS(1.0 / head->temperature, 0.0));
    }
    call->outputs.ptr[0] = logits;
    return status;
}

/* A sum over the examples and its weight, how many they are: so batches may be split, and their gradients added. */
static FtStatus loss(const void *data, const FtHeadCall *call) {
    (void)data;
    uint64_t inputs[] = {call->tensors.ptr[0], call->targets.ptr[0], 0}; /* no class weights */
    return run(CROSS_ENTROPY, (FtSliceU64){inputs, 3}, NO_INTS, FLOATS(0.0), call->outputs);
}

/* Probabilities, [examples, classes] */
static FtStatus predict(const void *data, const FtHeadCall *call) {
    (void)data;
    return run(SOFTMAX, (FtSliceU64){call->tensors.ptr, 1}, NO_INTS, NO_FLOATS, call->outputs);
}

/* What a method does not offer is null: all that a resumed run has to know is the parameter, which the host saves. */
static const FtTaskHeadVtable table = {
    .base = {.struct_size = sizeof(FtTaskHeadVtable), .drop = drop},
    .attach = attach,
    .forward = forward,
    .loss = loss,
    .predict = predict,
};

static FtStatus make(FtStr options, void **made) {
    double temperature = number_of(options, "\"temperature\":", 0.1);
    if (!(isfinite(temperature) && temperature > 0)) {
        return fail("temperature must be above 0, such as 0.1");
    }
    Angles *head = calloc(1, sizeof *head);
    if (!head) {
        return fail("out of memory");
    }
    head->temperature = temperature;
    *made = head;
    return FT_OK;
}
