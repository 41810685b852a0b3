/* my-method: an L1 penalty on what trains (Tibshirani 1996): small weights go to 0.
 *
 * penalty = alpha sum |w| over all parameters that train. It is added to the mean loss of each step.
 *
 * From top to bottom: names and options, notes, the host's table, calls and ops, the method, the plugin. fthost_plugin.h says what each call
 * takes and gives.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fthost_plugin.h"

#define NAME "my-method"
#define LIBRARY "my_method"
#define VERSION "0.1.0"
#define LICENSE "MIT OR Apache-2.0"
#define KIND "regularizer"
#define KIND_CODE FT_KIND_REGULARIZER
#define SUMMARY "An L1 penalty on what trains."

/* The ops that it needs: a host that lacks one refuses the file by its name. */
#define OPS "\"abs@1\",\"sum@1\",\"add@1\",\"affine@1\""
enum { ABS, SUM, ADD, AFFINE, OP_COUNT };
static const char *const op_names[OP_COUNT] = {"abs@1", "sum@1", "add@1", "affine@1"};

/* The JSON Schema of the options: the host checks run files by it, and shows it as their help. */
#define SCHEMA                                                                                                         \
    "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{"                                             \
    "\"alpha\":{\"type\":\"number\",\"exclusiveMinimum\":0,\"default\":0.0001,"                                        \
    "\"description\":\"Weight of the penalty.\"}}}"
#define DEFAULTS "{\"alpha\":0.0001}"
