/* my-method: a classifier by angles (Gidaris and Komodakis 2018, arXiv:1804.09458): a class is a direction, and how long features are does
 * not count.
 *
 * logits[c] = (h / |h|) (w_c / |w_c|) / T, with pooled features h, a vector w_c for each class and the temperature T, trained by cross
 * entropy. The vectors begin as N(0, 0.2).
 *
 * From top to bottom: names and options, notes, the host's table, calls and ops, the method, the plugin. fthost_plugin.h says what each call
 * takes and gives.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fthost_plugin.h"

#define NAME "my-method"
#define LIBRARY "my_method"
#define VERSION "0.1.0"
#define LICENSE "MIT OR Apache-2.0"
#define KIND "task_head"
#define KIND_CODE FT_KIND_TASK_HEAD
#define SUMMARY "Classes by the angles between features and a vector for each class."

/* The ops that it needs: a host that lacks one refuses the file by its name. */
#define OPS                                                                                                            \
    "\"square@1\",\"sum_dim@1\",\"affine@1\",\"sqrt@1\",\"div@1\",\"linear@1\",\"cross_entropy@1\",\"softmax@1\""
enum { SQUARE, SUM_DIM, AFFINE, SQRT, DIV, LINEAR, CROSS_ENTROPY, SOFTMAX, OP_COUNT };
static const char *const op_names[OP_COUNT] = {"square@1", "sum_dim@1", "affine@1",        "sqrt@1",
                                               "div@1",    "linear@1",  "cross_entropy@1", "softmax@1"};

/* The JSON Schema of the options: the host checks run files by it, and shows it as their help. */
#define SCHEMA                                                                                                         \
    "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{"                                             \
    "\"temperature\":{\"type\":\"number\",\"exclusiveMinimum\":0,\"default\":0.1,"                                     \
    "\"description\":\"T: logits lie between -1 / T and 1 / T.\"}}}"
#define DEFAULTS "{\"temperature\":0.1}"
