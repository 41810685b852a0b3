/* my-method: a learned factor for each output of chosen linear layers, as IA3 has at keys and values (Liu et al. 2022, arXiv:2205.05638).
 *
 * y = s * (W x + b), with s [out], and `*` elementwise. Of the model nothing else trains. s begins as ones, so step 0 is the base model
 * exactly. Merged, W becomes diag(s) W and b becomes s * b.
 *
 * From top to bottom: names and options, notes, the host's table, calls and ops, the method, the plugin. fthost_plugin.h says what each call
 * takes and gives.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fthost_plugin.h"

#define NAME "my-method"
#define LIBRARY "my_method"
#define VERSION "0.1.0"
#define LICENSE "MIT OR Apache-2.0"
#define KIND "strategy"
#define KIND_CODE FT_KIND_STRATEGY
#define SUMMARY "Scales the outputs of linear layers."

/* The ops that it needs: a host that lacks one refuses the file by its name. */
#define OPS "\"mul@1\",\"reshape@1\""
enum { MUL, RESHAPE, OP_COUNT };
static const char *const op_names[OP_COUNT] = {"mul@1", "reshape@1"};

/* The JSON Schema of the options: the host checks run files by it, and shows it as their help. */
#define TARGETS "[\"query\",\"value\",\"output.dense\"]"
#define SCHEMA                                                                                                         \
    "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{"                                             \
    "\"targets\":{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"minItems\":1}],"  \
    "\"default\":" TARGETS ",\"description\":\"Linear layers that are scaled: a regular expression over whole paths, or a list of "    \
    "paths or their ends.\"}}}"
#define DEFAULTS "{\"targets\":" TARGETS "}"
