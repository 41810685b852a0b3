
/* ---- The notes: one for the plugin, one for each method. A host reads them before it runs any code of the file. ---- */

FTHOST_PLUGIN_NOTE("{\"abi_major\":" FTHOST_TEXT(FT_ABI_MAJOR) ",\"abi_minor\":" FTHOST_TEXT(FT_ABI_MINOR) ",\"min_host_minor\":0,"
                   "\"name\":\"" LIBRARY "\",\"version\":\"" VERSION "\",\"license\":\"" LICENSE "\",\"panic\":\"unwind\","
                   "\"compiler\":\"cc\",\"ops\":[" OPS "]}");
FTHOST_METHOD_NOTE("{\"kind\":\"" KIND "\",\"name\":\"" NAME "\",\"summary\":\"" SUMMARY "\"}");

/* ---- The host's table, and how to use it. ---- */

static const FtHostApi *host;

static FtStr borrowed(const char *start, size_t len) {
    FtStr str = {(const uint8_t *)start, len};
    return str;
}

static FtStr text(const char *zero_ended) { return borrowed(zero_ended, strlen(zero_ended)); }

/* Says why a call fails. Errors reach the user with the plugin's and the call's name. */
static FtStatus fail(const char *why) {
    host->set_error(FT_FAILED, text(why));
    return FT_FAILED;
}

/* Where the value of a key begins, null where there is none. The host has checked the JSON, and writes it without blanks; a key is given with
   its quotes and colon. */
static const char *value_of(FtStr json, const char *key) {
    size_t len = strlen(key);
    for (size_t at = 0; at + len < json.len; at++) {
        if (memcmp(json.ptr + at, key, len) == 0) {
            return (const char *)json.ptr + at + len;
        }
    }
    return NULL;
}

static double number_of(FtStr json, const char *key, double otherwise) {
    const char *value = value_of(json, key);
    return value ? strtod(value, NULL) : otherwise;
}
