/* gguf_impl.h: what the stages of the reader share with one another, and partly with the writer.
 *
 * open.c maps files; parse.c turns the bytes of one file into a gguf_header; check.c proves that header's tensors and
 * names; open.c joins the headers of a split model into a gguf; query.c and value.c answer from it. Names and texts are
 * copies that the entries own; everything else points into the mapping. */
#ifndef GGUF_GGUF_IMPL_H
#define GGUF_GGUF_IMPL_H

#include "base/file_map.h"
#include "gguf/gguf.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are copied from and to files as they stand");

#define GGUF_MAGIC             "GGUF"
#define GGUF_VERSION           3u  /* written */
#define GGUF_HEAD_BYTES        24u /* magic, version, n_tensors, n_keys */
#define GGUF_DEFAULT_ALIGNMENT 32u
#define GGUF_MIN_ALIGNMENT     8u
#define GGUF_MAX_NAME          65535u
#define GGUF_ALIGNMENT_KEY     "general.alignment"

/* A value where it stands in the file. */
typedef struct gguf_value {
    enum gguf_type type;
    enum gguf_type element; /* of an array; the type itself otherwise */
    size_t n;               /* elements; 1 unless an array */
    const uint8_t *raw;     /* the whole value, array header included */
    size_t bytes;
    const uint8_t *first; /* element 0 */
} gguf_value;

typedef struct gguf_key {
    const char *name; /* first, as gguf_names wants it; owned */
    gguf_value value;
    char *text; /* of a string that is short and without zero bytes: a terminated copy, else NULL */
} gguf_key;

/* Entries of an array in order of their names. Each entry begins with `const char *name`. */
typedef struct gguf_names {
    const void *entries;
    size_t stride, n;
    size_t *order;
} gguf_names;

/* All that one file says before its data. */
typedef struct gguf_header {
    uint32_t version;
    gguf_key *keys;
    size_t n_keys;
    gguf_names key_names;
    gguf_tensor *tensors; /* until gguf_check(): offset is relative, data points at the tensor's entry in the list */
    size_t n_tensors;
    size_t end; /* of the tensor list, bytes from the beginning of the file */
    size_t alignment, data_start;
} gguf_header;

typedef struct gguf_part {
    char *path;
    file_map map; /* FILE_MAP_NONE over the caller's memory */
    const uint8_t *data;
    size_t len;
} gguf_part;

struct gguf {
    gguf_header head; /* of the first part, with the tensors of all parts */
    gguf_names tensor_names;
    gguf_part *parts;
    int n_parts;
};

/* Bytes of a file, read front to back. */
typedef struct gguf_cursor {
    const char *path;
    const uint8_t *data;
    size_t len, pos;
    mp_error *err;
} gguf_cursor;

/* ---- type.c ---- */

const char *gguf_type_name(uint32_t type); /* "u32"; "unknown" */
size_t gguf_type_bytes(uint32_t type);     /* 0: of no fixed size, or unknown */
const char *gguf_dtype_name(int dtype);    /* by ggml's list, whether supported or not; NULL: not on it */

/* ---- name.c ---- */

/* *repeated is an entry whose name stands there twice, NULL if all are different. */
mp_status gguf_names_build(const void *entries, size_t stride, size_t n, gguf_names *out, const char **repeated,
                           mp_error *err);
void gguf_names_clear(gguf_names *names);
#define GGUF_NONE SIZE_MAX
size_t gguf_names_find(const gguf_names *names, const char *name); /* GGUF_NONE */
/* Makes room for one more element. */
mp_status gguf_grow(void **array, size_t *capacity, size_t n, size_t element_bytes, mp_error *err);

/* ---- parse.c ---- */

/* "PATH: at byte N: ..." and what to do. */
void gguf_describe_damage(const char *path, size_t offset, mp_error *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* A macro, for compilers and analyzers to see that it is never MP_OK. */
#define gguf_damaged(path, offset, err, ...) (gguf_describe_damage(path, offset, err, __VA_ARGS__), MP_E_FORMAT)
/* The value at the cursor; `name` for messages. */
mp_status gguf_parse_value(gguf_cursor *c, const char *name, enum gguf_type type, gguf_value *out);
/* Keys are proven; what is said of tensors is filled in as the file has it. `out` is valid for gguf_header_clear() even
 * after an error. */
mp_status gguf_parse(const char *path, const uint8_t *data, size_t len, gguf_header *out, mp_error *err);
const gguf_key *gguf_header_find(const gguf_header *header, const char *name); /* NULL: none */
void gguf_header_clear(gguf_header *header);

/* ---- check.c ---- */

/* Proves alignment and tensors of a parsed file, and sets data_start and the tensors' data, bytes, offset and part. */
mp_status gguf_check(const gguf_part *part, int index, const gguf_types *types, gguf_header *header, mp_error *err);

/* ---- value.c ---- */

/* An integer of any width; false where it is not one or does not fit int64. */
bool gguf_value_i64(const gguf_value *value, int64_t *out);

static inline size_t gguf_align_up(size_t n, size_t alignment) /* a power of two; n far below SIZE_MAX */
{
    return (n + alignment - 1) & ~(alignment - 1);
}

#endif
