/* The header is built in memory from the keys and tensors as they stand, so that the same calls give the same bytes.
 * Its area, everything before the data, is fixed when the file begins. A writer that wants to change keys later, when
 * data is there already, reserves more than it needs; what is left over is taken by the key general.padding, always the
 * last key, an array of as many zero bytes as make the header end where the area ends. */
#include <stdlib.h>
#include <string.h>

#include "gguf/gguf_write_impl.h"

#define SHOWN_NAME 80

/* of the padding key without its zero bytes: name, type, array head */
#define PADDING_LEAST (8 + sizeof GGUF_PADDING_KEY - 1 + 4 + 4 + 8)

mp_status gguf_writer_new(size_t alignment, gguf_writer **out, mp_error *err)
{
    *out = NULL;
    if (alignment < GGUF_MIN_ALIGNMENT || alignment > INT32_MAX || (alignment & (alignment - 1)))
        return status_fail(err, MP_E_INVALID, "an alignment of %zu is not a power of two from %u to 2^30", alignment,
                           GGUF_MIN_ALIGNMENT);
    gguf_writer *w = calloc(1, sizeof *w);
    if (!w) return status_no_memory(err, sizeof *w, "a GGUF writer");
    w->alignment = alignment;
    *out = w;
    return MP_OK;
}

void gguf_writer_free(gguf_writer *w)
{
    if (!w) return;
    file_atomic_abort(w->file);
    for (size_t i = 0; i < w->n_keys; i++) {
        free(w->keys[i].name);
        free(w->keys[i].raw);
    }
    free(w->keys);
    for (size_t i = 0; i < w->n_tensors; i++) free((char *)w->tensors[i].name);
    free(w->tensors);
    free(w);
}

/* ---- tensors ---- */

static mp_status check_tensor(const gguf_writer *w, const char *name, uint32_t n_dims, const uint64_t *dims,
                              size_t bytes, mp_error *err)
{
    size_t len = strlen(name), end;
    if (w->area)
        return status_fail(err, MP_E_INVALID, "tensor '%.*s' is declared after the data began", SHOWN_NAME, name);
    if (len == 0 || len > GGUF_MAX_NAME)
        return status_fail(err, MP_E_INVALID, "tensor '%.*s': a name must have 1 to %u bytes", SHOWN_NAME, name,
                           GGUF_MAX_NAME);
    if (n_dims > GGUF_MAX_DIMS)
        return status_fail(err, MP_E_INVALID, "tensor '%.*s' has %u dimensions, more than %d", SHOWN_NAME, name, n_dims,
                           GGUF_MAX_DIMS);
    for (uint32_t i = 0; i < n_dims; i++)
        if (dims[i] == 0) return status_fail(err, MP_E_INVALID, "tensor '%.*s' is empty", SHOWN_NAME, name);
    if (bytes == 0 || !size_add(bytes, w->alignment, &end) || !size_add(end, w->data_bytes, &end) || end > INT64_MAX)
        return status_fail(err, MP_E_INVALID, "tensor '%.*s' of %zu bytes cannot be written", SHOWN_NAME, name, bytes);
    return MP_OK;
}

mp_status gguf_add_tensor(gguf_writer *w, const char *name, int dtype, uint32_t n_dims, const uint64_t *dims,
                          size_t bytes, mp_error *err)
{
    MP_TRY(check_tensor(w, name, n_dims, dims, bytes, err));
    MP_TRY(gguf_grow((void **)&w->tensors, &w->tensor_capacity, w->n_tensors, sizeof *w->tensors, err));
    char *copy = strdup(name);
    if (!copy) return status_no_memory(err, strlen(name), name);
    gguf_tensor *t = &w->tensors[w->n_tensors++];
    *t = (gguf_tensor){.name = copy, .dtype = dtype, .n_dims = n_dims, .bytes = bytes, .offset = w->data_bytes};
    for (uint32_t i = 0; i < GGUF_MAX_DIMS; i++) t->dims[i] = i < n_dims ? dims[i] : 1;
    w->data_bytes += gguf_align_up(bytes, w->alignment);
    return MP_OK;
}

static mp_status refuse_repeated_tensors(const gguf_writer *w, mp_error *err)
{
    gguf_names names;
    const char *repeated;
    mp_status status = gguf_names_build(w->tensors, sizeof *w->tensors, w->n_tensors, &names, &repeated, err);
    if (status == MP_OK && repeated)
        status = status_fail(err, MP_E_INVALID, "tensor '%.*s' is declared twice", SHOWN_NAME, repeated);
    gguf_names_clear(&names);
    return status;
}

/* ---- header ---- */

static size_t header_bytes(const gguf_writer *w)
{
    size_t bytes = GGUF_HEAD_BYTES + gguf_written_keys_bytes(w);
    for (size_t i = 0; i < w->n_tensors; i++)
        bytes += 8 + strlen(w->tensors[i].name) + 4 + 8 * (size_t)w->tensors[i].n_dims + 4 + 8;
    return bytes;
}

static uint8_t *put(uint8_t *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
    return to + bytes;
}

static uint8_t *put_u32(uint8_t *to, uint32_t value)
{
    return put(to, &value, sizeof value);
}

static uint8_t *put_u64(uint8_t *to, uint64_t value)
{
    return put(to, &value, sizeof value);
}

static uint8_t *put_name(uint8_t *to, const char *name)
{
    size_t len = strlen(name);
    return put(put_u64(to, len), name, len);
}

/* Into header_bytes(w) bytes. */
static void build_header(const gguf_writer *w, uint8_t *to)
{
    to = put(to, GGUF_MAGIC, 4);
    to = put_u32(to, GGUF_VERSION);
    to = put_u64(to, w->n_tensors);
    to = put_u64(to, w->n_keys);
    for (size_t i = 0; i < w->n_keys; i++) {
        const gguf_written_key *key = &w->keys[i];
        to = put_u32(put_name(to, key->name), key->type);
        to = put(to, key->raw, key->bytes);
    }
    for (size_t i = 0; i < w->n_tensors; i++) {
        const gguf_tensor *t = &w->tensors[i];
        to = put_u32(put_name(to, t->name), t->n_dims);
        for (uint32_t d = 0; d < t->n_dims; d++) to = put_u64(to, t->dims[d]);
        to = put_u64(put_u32(to, (uint32_t)t->dtype), t->offset);
    }
}

/* The header and the zero bytes that fill its area; the caller frees. */
static mp_status build_area(const gguf_writer *w, uint8_t **out, mp_error *err)
{
    *out = calloc(1, w->area);
    if (!*out) return status_no_memory(err, w->area, "a GGUF header");
    build_header(w, *out);
    return MP_OK;
}

static mp_status set_padding(gguf_writer *w, size_t n, mp_error *err)
{
    uint8_t *zeros = calloc(1, n + 1);
    if (!zeros) return status_no_memory(err, n, GGUF_PADDING_KEY);
    mp_status status = gguf_set_array(w, GGUF_PADDING_KEY, GGUF_U8, zeros, n, err);
    free(zeros);
    return status;
}

/* Bytes before the data where the header takes `bytes`. Without tensors there is no data to align. */
static size_t area_of(const gguf_writer *w, size_t bytes)
{
    return w->n_tensors || w->reserved ? gguf_align_up(bytes, w->alignment) : bytes;
}

/* Makes the header end where its area ends. Without a reserve a header that still fills the area stays as it is. */
static mp_status fit_header(gguf_writer *w, mp_error *err)
{
    if (!w->reserved && area_of(w, header_bytes(w)) == w->area) return MP_OK;
    gguf_remove(w, GGUF_PADDING_KEY);
    size_t bytes = header_bytes(w);
    if (bytes > w->area || w->area - bytes < PADDING_LEAST)
        return status_fail(err, MP_E_LIMIT, "the GGUF header takes %zu bytes, more than the %zu that are reserved",
                           bytes + PADDING_LEAST, w->area);
    return set_padding(w, w->area - bytes - PADDING_LEAST, err);
}

static mp_status declare_alignment(gguf_writer *w, mp_error *err)
{
    bool declared = w->alignment != GGUF_DEFAULT_ALIGNMENT;
    for (size_t i = 0; i < w->n_keys; i++) declared |= !strcmp(w->keys[i].name, GGUF_ALIGNMENT_KEY);
    return declared ? gguf_set_u32(w, GGUF_ALIGNMENT_KEY, (uint32_t)w->alignment, err) : MP_OK;
}

static mp_status plan_area(gguf_writer *w, size_t reserve, mp_error *err)
{
    MP_TRY(declare_alignment(w, err));
    w->reserved = reserve > 0;
    if (w->reserved) gguf_remove(w, GGUF_PADDING_KEY);
    size_t bytes = header_bytes(w) + (w->reserved ? PADDING_LEAST : 0);
    if (bytes < reserve) bytes = reserve;
    if (bytes > INT64_MAX / 2) return status_fail(err, MP_E_INVALID, "a header of %zu bytes cannot be written", bytes);
    w->area = area_of(w, bytes);
    return w->reserved ? fit_header(w, err) : MP_OK;
}

/* ---- file ---- */

mp_status gguf_writer_begin(gguf_writer *w, const char *path, bool replace, size_t reserve, mp_error *err)
{
    uint8_t *area = NULL;
    if (w->area) return status_fail(err, MP_E_INVALID, "%s: this writer has begun already", path);
    mp_status status = refuse_repeated_tensors(w, err);
    if (status == MP_OK) status = plan_area(w, reserve, err);
    if (status == MP_OK) status = build_area(w, &area, err);
    if (status == MP_OK) status = file_atomic_open(path, replace, &w->file, err);
    if (status == MP_OK) status = file_atomic_write(w->file, area, w->area, err);
    if (status != MP_OK) {
        file_atomic_abort(w->file);
        w->file = NULL;
        w->area = 0;
    }
    free(area);
    return status;
}

static mp_status need_file(const gguf_writer *w, mp_error *err)
{
    return w->file ? MP_OK : status_fail(err, MP_E_INVALID, "no GGUF file is being written");
}

static mp_status need_all_data(const gguf_writer *w, mp_error *err)
{
    MP_TRY(need_file(w, err));
    if (w->current == w->n_tensors) return MP_OK;
    const gguf_tensor *t = &w->tensors[w->current];
    return status_fail(err, MP_E_INVALID, "tensor '%.*s': %zu of %zu bytes are written", SHOWN_NAME, t->name,
                       w->written, t->bytes);
}

static mp_status write_zeros(gguf_writer *w, size_t n, mp_error *err)
{
    static const uint8_t zeros[4096];
    while (n) {
        size_t piece = n < sizeof zeros ? n : sizeof zeros;
        MP_TRY(file_atomic_write(w->file, zeros, piece, err));
        n -= piece;
    }
    return MP_OK;
}

mp_status gguf_writer_data(gguf_writer *w, const void *data, size_t bytes, mp_error *err)
{
    MP_TRY(need_file(w, err));
    if (bytes == 0) return MP_OK;
    if (w->current == w->n_tensors)
        return status_fail(err, MP_E_INVALID, "%zu bytes of data after the last tensor", bytes);
    const gguf_tensor *t = &w->tensors[w->current];
    if (bytes > t->bytes - w->written)
        return status_fail(err, MP_E_INVALID, "tensor '%.*s': %zu bytes for the %zu that are left", SHOWN_NAME, t->name,
                           bytes, t->bytes - w->written);
    MP_TRY(file_atomic_write(w->file, data, bytes, err));
    w->written += bytes;
    if (w->written < t->bytes) return MP_OK;
    w->written = 0;
    w->current++;
    return write_zeros(w, gguf_align_up(t->bytes, w->alignment) - t->bytes, err);
}

mp_status gguf_writer_peek(gguf_writer *w, const char **path, mp_error *err)
{
    MP_TRY(need_all_data(w, err));
    MP_TRY(file_atomic_flush(w->file, err));
    *path = file_atomic_path(w->file);
    return MP_OK;
}

mp_status gguf_writer_rewrite_header(gguf_writer *w, mp_error *err)
{
    uint8_t *area = NULL;
    MP_TRY(need_file(w, err));
    MP_TRY(declare_alignment(w, err));
    MP_TRY(fit_header(w, err));
    MP_TRY(build_area(w, &area, err));
    mp_status status = file_atomic_write_at(w->file, 0, area, w->area, err);
    free(area);
    return status;
}

mp_status gguf_writer_commit(gguf_writer *w, mp_error *err)
{
    MP_TRY(need_all_data(w, err));
    file_atomic *file = w->file;
    w->file = NULL;
    return file_atomic_commit(file, err);
}
