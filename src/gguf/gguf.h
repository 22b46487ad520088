/* gguf.h: read and write GGUF files.
 *
 * Layout (little-endian): "GGUF", u32 version (2 or 3), u64 n_tensors, u64 n_keys; the keys: string name, u32 type,
 * value; the tensors: string name, u32 n_dims, u64 dims[n_dims] (fastest first), u32 type, u64 offset; padding to
 * `general.alignment` (default 32); the data, every offset relative to its start and a multiple of the alignment. A
 * string is u64 length and bytes, without terminator. An array is u32 element type, u64 count, elements. Split models
 * are files NAME-00001-of-0000N.gguf with keys split.no, split.count and split.tensors.count.
 *
 * A reader maps its files and owns all it returns; what it says never changes, so any thread may ask. Nothing of a file
 * is used before it is checked: counts against the bytes left, products for overflow, offsets against the
 * alignment and the file's end, types against the ones the caller knows, names for being unique, the data of tensors
 * for not sharing bytes. Refused: version 1 and big-endian files, arrays of arrays, empty tensors, more than 4
 * dimensions, names of more than 65535 bytes or with a zero byte, an alignment below 8.
 *
 * A writer belongs to one thread; it writes version 3, and the same calls always give the same bytes. Copying every key
 * (gguf_key_raw) and tensor of a version 3 file in order gives that file again, bit for bit. A copy of a split model
 * should leave the keys split.* out. */
#ifndef GGUF_GGUF_H
#define GGUF_GGUF_H

#include "base/file_map.h"

enum gguf_type {
    GGUF_U8 = 0,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
};

#define GGUF_MAX_DIMS 4

typedef struct gguf gguf;

/* Bytes in the mapping, not terminated. */
typedef struct gguf_string {
    const char *data;
    size_t len;
} gguf_string;

typedef struct gguf_tensor {
    const char *name; /* terminated */
    int dtype;        /* the file's number, as in tensor/dtype.h */
    uint32_t n_dims;
    uint64_t dims[GGUF_MAX_DIMS]; /* fastest first; 1 past n_dims */
    const void *data;
    size_t bytes;
    int part;        /* which file of a split model */
    uint64_t offset; /* of the data, from the beginning of that file */
} gguf_tensor;

/* What the caller knows of tensor types: gguf.c itself knows their names only. As in
 * `&(gguf_types){dtype_row_bytes, dtype_list()}`. */
typedef struct gguf_types {
    /* bytes of a row of n elements, or 0 where the type is unknown, n is not whole blocks or the product overflows */
    size_t (*row_bytes)(int dtype, uint64_t n);
    const char *supported; /* "F32, F16, ...", for the message that refuses a type */
} gguf_types;

/* ---- reading ---- */

/* A split model is opened by its first part and asked as one: the keys of that part, the tensors of all. MP_E_FORMAT
 * for a damaged file, MP_E_UNSUPPORTED for a version, tensor type or array that is not known. `types` is not kept. */
mp_status gguf_open(const char *path, const gguf_types *types, gguf **out, mp_error *err);
/* The same over memory, which must outlive the result (fuzzing, tests) and begin at a multiple of the alignment for
 * tensors to be aligned. No split files. */
mp_status gguf_open_memory(const void *data, size_t len, const gguf_types *types, gguf **out, mp_error *err);
/* Brings picked pages of the file (or its parts) into memory of our own, in place of the mapping: as file_map_copy(),
 * with all parts as one to `tick`. Every pointer stays valid, and threads other than those of `p` may go on reading;
 * one thread at a time may call this. */
mp_status gguf_copy_to_memory(gguf *g, const file_pick *pick, struct pool *p, file_tick_fn tick, void *user,
                              mp_error *err);
/* Whether what was so copied, by the same pick, may be written to; at first it may not. */
mp_status gguf_write_protect(const gguf *g, const file_pick *pick, bool on, mp_error *err);
/* Reads what stands at `data` [bytes] from its file, whether it is mapped or was copied. MP_E_IO where the file is cut.
 */
mp_status gguf_read(const gguf *g, const void *data, size_t bytes, void *to, mp_error *err);
void gguf_close(gguf *g);

const char *gguf_path(const gguf *g);
uint32_t gguf_version(const gguf *g);
int gguf_n_parts(const gguf *g);
const char *gguf_part_path(const gguf *g, int part);
const file_stamp *gguf_part_stamp(const gguf *g, int part); /* when it was opened; NULL over memory */
/* Where bytes stand in their file; false for bytes of no file. */
bool gguf_locate(const gguf *g, const void *data, int *part, uint64_t *offset);
uint64_t gguf_file_bytes(const gguf *g); /* all parts */
size_t gguf_alignment(const gguf *g);

size_t gguf_n_tensors(const gguf *g);
const gguf_tensor *gguf_tensor_at(const gguf *g, size_t i);
const gguf_tensor *gguf_find_tensor(const gguf *g, const char *name); /* NULL: none */
/* The tensor's bytes may leave memory; what is read of them later comes from the file again. */
void gguf_release(const gguf *g, const gguf_tensor *t);

size_t gguf_n_keys(const gguf *g);
const char *gguf_key_name(const gguf *g, size_t i);
enum gguf_type gguf_key_type(const gguf *g, size_t i);
/* The value as it stands in the file, type word excluded: what a writer needs to copy it. */
const void *gguf_key_raw(const gguf *g, size_t i, size_t *bytes);
bool gguf_has(const gguf *g, const char *key);

/* Typed queries: a missing key or one of an unfit type is MP_E_FORMAT with the key's name. Integer queries take any
 * integer type that holds the value; f32 takes f32 and f64 and refuses NaN and infinities. *out is set on success only,
 * and arrays are NULL otherwise. */
mp_status gguf_get_u32(const gguf *g, const char *key, uint32_t *out, mp_error *err);
mp_status gguf_get_u64(const gguf *g, const char *key, uint64_t *out, mp_error *err);
mp_status gguf_get_f32(const gguf *g, const char *key, float *out, mp_error *err);
mp_status gguf_get_bool(const gguf *g, const char *key, bool *out, mp_error *err);
mp_status gguf_get_string(const gguf *g, const char *key, gguf_string *out, mp_error *err);
/* Terminated copy that lives as long as g; refused above 16 MiB or with a zero byte inside. */
mp_status gguf_get_cstring(const gguf *g, const char *key, const char **out, mp_error *err);
mp_status gguf_array_len(const gguf *g, const char *key, enum gguf_type *type, size_t *n, mp_error *err);
/* Array of strings: views [n] in an array the caller frees. */
mp_status gguf_get_strings(const gguf *g, const char *key, gguf_string **out, size_t *n, mp_error *err);
/* Numeric arrays, converted, in an array the caller frees; never NULL on success. i32s takes integers that fit; f32s
 * and f64s take any numbers, infinities too, but no NaN. */
mp_status gguf_get_i32s(const gguf *g, const char *key, int32_t **out, size_t *n, mp_error *err);
mp_status gguf_get_f32s(const gguf *g, const char *key, float **out, size_t *n, mp_error *err);
mp_status gguf_get_f64s(const gguf *g, const char *key, double **out, size_t *n, mp_error *err);

/* ---- writing ---- */

/* Keys and tensors are declared first, then the data follows in the order of declaration. */
typedef struct gguf_writer gguf_writer;

mp_status gguf_writer_new(size_t alignment, gguf_writer **out, mp_error *err); /* power of two, >= 8 */
void gguf_writer_free(gguf_writer *w);                                         /* also aborts an unfinished file */

/* Setting a key again replaces it in place. */
mp_status gguf_set_u32(gguf_writer *w, const char *key, uint32_t value, mp_error *err);
mp_status gguf_set_u64(gguf_writer *w, const char *key, uint64_t value, mp_error *err);
mp_status gguf_set_f32(gguf_writer *w, const char *key, float value, mp_error *err);
mp_status gguf_set_f64(gguf_writer *w, const char *key, double value, mp_error *err);
mp_status gguf_set_bool(gguf_writer *w, const char *key, bool value, mp_error *err);
mp_status gguf_set_string(gguf_writer *w, const char *key, const char *value, mp_error *err);
/* type: a fixed-size one; values as in memory. */
mp_status gguf_set_array(gguf_writer *w, const char *key, enum gguf_type type, const void *values, size_t n,
                         mp_error *err);
mp_status gguf_set_strings(gguf_writer *w, const char *key, const gguf_string *values, size_t n, mp_error *err);
/* Copies a key as it stands. */
mp_status gguf_set_raw(gguf_writer *w, const char *key, enum gguf_type type, const void *raw, size_t bytes,
                       mp_error *err);
mp_status gguf_remove(gguf_writer *w, const char *key); /* MP_E_INVALID: there is none */

/* bytes: of the whole tensor. Before gguf_writer_begin() only. */
mp_status gguf_add_tensor(gguf_writer *w, const char *name, int dtype, uint32_t n_dims, const uint64_t *dims,
                          size_t bytes, mp_error *err);

/* Opens PATH atomically (base/file.h), writes the header; general.alignment is set where it is not 32. `reserve`: the
 * header area is made at least this long with a key "general.padding" (39 bytes and its zeros), so that keys may grow
 * or shrink up to that before gguf_writer_rewrite_header(). 0: no such key. */
mp_status gguf_writer_begin(gguf_writer *w, const char *path, bool replace, size_t reserve, mp_error *err);
/* Bytes of the current tensor, in as many pieces as the caller likes; the next tensor begins when one is full. */
mp_status gguf_writer_data(gguf_writer *w, const void *data, size_t bytes, mp_error *err);
/* Name of the file while it is unfinished; flushed, so that it can be opened and read. All data must be written. */
mp_status gguf_writer_peek(gguf_writer *w, const char **path, mp_error *err);
/* Writes the header again after keys were changed; MP_E_LIMIT where it outgrew the reserve. */
mp_status gguf_writer_rewrite_header(gguf_writer *w, mp_error *err);
/* Fails unless all data was written. fsync and rename. */
mp_status gguf_writer_commit(gguf_writer *w, mp_error *err);

#endif
