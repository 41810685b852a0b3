
/* ---- Calls about the model: JSON in and out. ---- */

typedef struct {
    char *at; /* ends in a zero that does not count */
    size_t len;
    int lacks_memory;
} Answer;

/* What the host writes into an FtTextSink, in one or several pieces. */
static void collect(void *ctx, FtStr more) {
    Answer *answer = ctx;
    char *longer = realloc(answer->at, answer->len + more.len + 1);
    if (!longer) {
        answer->lacks_memory = 1;
        return;
    }
    memcpy(longer + answer->len, more.ptr, more.len);
    answer->at = longer;
    answer->at[answer->len += more.len] = 0;
}

/* The host's own words on why its last call failed become this plugin's. */
static FtStatus pass_on(void) {
    Answer why = {0};
    host->last_error((FtTextSink){&why, collect});
    host->set_error(FT_FAILED, borrowed(why.at, why.len));
    free(why.at);
    return FT_FAILED;
}

/* Asks the host; where that works, the answer is the caller's to free. */
static FtStatus ask(const char *call, const char *asked, Answer *answer) {
    *answer = (Answer){0};
    FtStatus status = host->model_call(text(call), text(asked), (FtTextSink){answer, collect});
    if (status == FT_OK && answer->at && !answer->lacks_memory) {
        return FT_OK;
    }
    free(answer->at);
    return status == FT_OK ? fail("out of memory") : pass_on();
}

/* ---- Ops. ---- */

static uint32_t ops[OP_COUNT];

/* Finds them once, before any runs. */
static FtStatus find_ops(void) {
    for (int op = 0; op < OP_COUNT; op++) {
        if (host->resolve_op(text(op_names[op]), &ops[op]) != FT_OK) {
            return pass_on();
        }
    }
    return FT_OK;
}

#define INTS(...) ((FtSliceI64){(const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)})
#define FLOATS(...) ((FtSliceF64){(const double[]){__VA_ARGS__}, sizeof((const double[]){__VA_ARGS__}) / sizeof(double)})
#define NO_INTS ((FtSliceI64){0})
#define NO_FLOATS ((FtSliceF64){0})

/* Runs an op, which the host records: so all is differentiable without more. The results are the caller's to release, or to hand on. */
static FtStatus run(int op, FtSliceU64 inputs, FtSliceI64 ints, FtSliceF64 floats, FtSliceMutU64 results) {
    FtOpCall call = {.struct_size = sizeof call, .inputs = inputs, .ints = ints, .floats = floats, .outputs = results};
    return host->call_op(ops[op], &call) == FT_OK ? FT_OK : pass_on();
}
