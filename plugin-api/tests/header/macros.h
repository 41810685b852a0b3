/* Whether a table or call of the host's is so long that it has a field. What came after ABI 1.0 is read, or written, only then:
   FTHOST_HAS(host, example_gradients_of) && host->example_gradients_of. */
#define FTHOST_HAS(table, field) \
  ((size_t)(table)->struct_size >= (size_t)((const char *)(&(table)->field + 1) - (const char *)(table)))

/* A number of a macro as text: FTHOST_TEXT(FT_ABI_MINOR) is "0". */
#define FTHOST_TEXT(macro) FTHOST_TEXT_OF(macro)
#define FTHOST_TEXT_OF(number) #number

/* Notes, each on a line of its own and with its semicolon: FTHOST_PLUGIN_NOTE("{...}"); with JSON `PluginNote`, FTHOST_METHOD_NOTE("{...}");
   with JSON `MethodNote`. They survive strip and --gc-sections.

   In the file: section .note.fthost, of type SHT_NOTE, aligned to 4 bytes, holds one ELF note after the other. Each is three numbers of 32
   bits (bytes of the owner's name, 7; bytes of the text; the type), the owner's name "fthost" with its zero and one byte more, and the text,
   padded with zeros to a multiple of 4. A text that needs no padding still ends in the zero of a C string; then 12 bytes of zeros follow, which
   are an empty note that nobody reads. */
#define FTHOST_PLUGIN_NOTE(json) FTHOST_NOTE(FT_NOTE_PLUGIN, json, __LINE__)
#define FTHOST_METHOD_NOTE(json) FTHOST_NOTE(FT_NOTE_METHOD, json, __LINE__)
#define FTHOST_NOTE(type, json, line) FTHOST_NOTE_NAMED(type, json, line)
#define FTHOST_NOTE_NAMED(type, json, line) \
  static const struct { \
    uint32_t owner_bytes, text_bytes, note_type; \
    char owner[8]; \
    char text[(sizeof(json) - 1) % 4 ? (sizeof(json) + 2) / 4 * 4 : sizeof(json) - 1 + 12]; \
  } fthost_note_##line __attribute__((section(FT_NOTE_SECTION), used, aligned(4))) = \
    {sizeof(FT_NOTE_NAME), sizeof(json) - 1, type, FT_NOTE_NAME, json}
