/* my-method: inverse square root decay of the learning rate after a linear warm-up (Vaswani et al. 2017, arXiv:1706.03762).
 *
 * eta(t) = eta t / w for t < w, then eta sqrt(w / t), with w warm-up steps. At step 0 the rate is 0.
 *
 * From top to bottom: names and options, notes, the host's table, the method, the plugin. fthost_plugin.h says what each call takes and
 * gives.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fthost_plugin.h"

#define NAME "my-method"
#define LIBRARY "my_method"
#define VERSION "0.1.0"
#define LICENSE "MIT OR Apache-2.0"
#define KIND "scheduler"
#define KIND_CODE FT_KIND_SCHEDULER
#define SUMMARY "Falls with the inverse square root of the steps, after a warm-up."

/* The ops that it needs: a host that lacks one refuses the file by its name. */
#define OPS ""

/* The JSON Schema of the options: the host checks run files by it, and shows it as their help. */
#define SCHEMA                                                                                                         \
    "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{"                                             \
    "\"warmup\":{\"type\":\"number\",\"exclusiveMinimum\":0,\"default\":0.1,"                                           \
    "\"description\":\"Steps in which the rate rises from 0; below 1 a share of the run.\"}}}"
#define DEFAULTS "{\"warmup\":0.1}"
