
/* ---- The plugin. ---- */

static FtStatus describe(FtTextSink sink) {
    sink.write(sink.ctx, text("{\"name\":\"" LIBRARY "\",\"version\":\"" VERSION "\",\"license\":\"" LICENSE "\",\"methods\":["
                              "{\"kind\":\"" KIND "\",\"name\":\"" NAME "\",\"summary\":\"" SUMMARY "\","
                              "\"config_schema\":" SCHEMA ",\"config_default\":" DEFAULTS "}]}"));
    return FT_OK;
}

/* `config` is the options as JSON that the host has checked against the schema. */
static FtStatus create(uint32_t kind, FtStr name, FtStr config, FtInstance *out) {
    if (kind != KIND_CODE || name.len != strlen(NAME) || memcmp(name.ptr, NAME, name.len) != 0) {
        return fail("this plugin has the " KIND " " NAME " alone");
    }
    out->vtable = &table;
    return make(config, &out->data);
}

static const FtPluginApi plugin = {
    .struct_size = sizeof(FtPluginApi),
    .abi_major = FT_ABI_MAJOR,
    .abi_minor = FT_ABI_MINOR,
    .describe = describe,
    .create = create,
};

FtStatus fthost_plugin_entry_v1(const FtHostApi *of_host, const FtPluginApi **out) {
    if (of_host->abi_major != FT_ABI_MAJOR || of_host->struct_size < FT_MINOR_0_HOST_API) {
        return FT_FAILED;
    }
    host = of_host;
    *out = &plugin;
    return FT_OK;
}
