
/* ---- The method. ---- */

typedef struct {
    double alpha;
    uint64_t *params; /* handles of what trains now */
    size_t count;
} Penalty;

static void drop(void *data) {
    Penalty *penalty = data;
    free(penalty->params);
    free(penalty);
}

/* Learns what trains now: `[handle, ...]`. */
static FtStatus follow(Penalty *penalty) {
    Answer answer;
    if (ask(FT_CALL_TRAINABLE, "{}", &answer) != FT_OK) {
        return FT_FAILED;
    }
    /* Each handle takes two characters at least. */
    uint64_t *params = realloc(penalty->params, (answer.len / 2 + 1) * sizeof *params);
    if (!params) {
        free(answer.at);
        return fail("out of memory");
    }
    penalty->params = params;
    penalty->count = 0;
    for (char *at = strpbrk(answer.at, "0123456789"); at; at = strpbrk(at, "0123456789")) {
        params[penalty->count++] = strtoull(at, &at, 10);
    }
    free(answer.at);
    return FT_OK;
}

static FtStatus attach(void *data) { return find_ops() == FT_OK ? follow(data) : FT_FAILED; }

/* A strategy may have thawed something: it hears each event first. */
static FtStatus event(void *data, FtStr event) {
    (void)event;
    return follow(data);
}

/* |w| summed, added to the sum so far. */
static FtStatus add_term(uint64_t param, uint64_t *sum) {
    uint64_t term = 0;
    FtStatus status = run(ABS, (FtSliceU64){&param, 1}, NO_INTS, NO_FLOATS, (FtSliceMutU64){&term, 1});
    if (status == FT_OK) {
        status = replace(SUM, &term, 0, NO_INTS, NO_FLOATS);
    }
    if (status != FT_OK || !*sum) {
        *sum = status == FT_OK ? term : *sum;
        return status;
    }
    status = replace(ADD, sum, term, NO_INTS, NO_FLOATS);
    host->tensor_release(term);
    return status;
}

/* A scalar's handle, or 0 where nothing is penalised. */
static FtStatus penalty_now(const void *data, uint64_t *out) {
    const Penalty *penalty = data;
    uint64_t sum = 0;
    for (size_t i = 0; i < penalty->count; i++) {
        if (add_term(penalty->params[i], &sum) != FT_OK) {
            if (sum) {
                host->tensor_release(sum);
            }
            return FT_FAILED;
        }
    }
    if (sum && replace(AFFINE, &sum, 0, NO_INTS, FLOATS(penalty->alpha, 0.0)) != FT_OK) {
        return FT_FAILED;
    }
    *out = sum;
    return FT_OK;
}

/* What a method does not offer is null: this one keeps no state, and says nothing of outputs. */
static const FtRegularizerVtable table = {
    .base = {.struct_size = sizeof(FtRegularizerVtable), .drop = drop, .event = event},
    .attach = attach,
    .penalty = penalty_now,
};

static FtStatus make(FtStr options, void **made) {
    double alpha = number_of(options, "\"alpha\":", 1e-4);
    if (!(isfinite(alpha) && alpha > 0)) {
        return fail("alpha must be above 0, such as 1e-4");
    }
    Penalty *penalty = calloc(1, sizeof *penalty);
    if (!penalty) {
        return fail("out of memory");
    }
    penalty->alpha = alpha;
    *made = penalty;
    return FT_OK;
}
