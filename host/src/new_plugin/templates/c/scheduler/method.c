
/* ---- The method. ---- */

typedef struct {
    double warmup;
} Schedule;

static void drop(void *data) { free(data); }

/* A function of its arguments alone, so that a resumed run goes on with the same rates. */
static FtStatus rate(const void *data, const FtProgress *progress, const FtGroup *group, FtRate *out) {
    double warmup = ((const Schedule *)data)->warmup, step = (double)progress->step;
    if (warmup < 1) {
        warmup = ceil(warmup * (double)progress->total_steps);
    } else if (warmup >= (double)progress->total_steps) {
        return fail("warmup takes the whole run, so the rate would never be reached: give fewer steps, or a share below 1");
    }
    /* All of these fields are of minor 0. One that came later is read only where the struct's size reaches it. */
    out->lr = group->lr * (step < warmup ? step / warmup : sqrt(warmup / step));
    out->momentum = group->momentum;
    return FT_OK;
}

/* What a method does not offer is null: this one keeps no state and listens to no event and no evaluation. */
static const FtSchedulerVtable table = {
    .base = {.struct_size = sizeof(FtSchedulerVtable), .drop = drop},
    .rate = rate,
};

static FtStatus make(FtStr options, void **made) {
    Schedule *schedule = malloc(sizeof *schedule);
    if (!schedule) {
        return fail("out of memory");
    }
    schedule->warmup = number_of(options, "\"warmup\":", 0.1);
    if (!(schedule->warmup > 0)) {
        free(schedule);
        return fail("warmup must be above 0: a share of the run, or from 1 on a number of steps");
    }
    *made = schedule;
    return FT_OK;
}
