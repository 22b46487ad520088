/* Proves that what a parsed file says of its tensors can be used: known types, whole blocks, products that fit, data
 * that lies inside the file, where the alignment wants it, and overlaps no other tensor's. */
#include <stdlib.h>

#include "gguf/gguf_impl.h"

#define SHOWN_NAME  80
#define WHOLE_BLOCK 256u /* elements: a multiple of every type's block */

typedef struct checker {
    const gguf_part *part;
    const gguf_types *types;
    gguf_header *header;
    mp_error *err;
} checker;

/* At the byte of the tensor's entry, which `data` points to until it is proven. */
#define TENSOR_FAULT(k, t, format, ...)                                                                                \
    gguf_damaged((k)->part->path, (size_t)((const uint8_t *)(t)->data - (k)->part->data), (k)->err,                    \
                 "tensor '%.*s' " format, SHOWN_NAME, (t)->name, __VA_ARGS__)

static mp_status check_alignment(const checker *k)
{
    gguf_header *h = k->header;
    h->alignment = GGUF_DEFAULT_ALIGNMENT;
    const gguf_key *key = gguf_header_find(h, GGUF_ALIGNMENT_KEY);
    if (key) {
        size_t at = (size_t)(key->value.raw - k->part->data);
        int64_t n;
        if (!gguf_value_i64(&key->value, &n))
            return gguf_damaged(k->part->path, at, k->err, "%s is of type %s, not an integer", key->name,
                                gguf_type_name(key->value.type));
        if (n < GGUF_MIN_ALIGNMENT || (n & (n - 1)))
            return gguf_damaged(k->part->path, at, k->err, "%s is %lld, not a power of two of at least %u", key->name,
                                (long long)n, GGUF_MIN_ALIGNMENT);
        h->alignment = (size_t)n;
    }
    size_t raised;
    if (!size_add(h->end, h->alignment - 1, &raised))
        return gguf_damaged(k->part->path, h->end, k->err, "%s is too large", GGUF_ALIGNMENT_KEY);
    h->data_start = gguf_align_up(h->end, h->alignment);
    return MP_OK;
}

static mp_status refuse_type(const checker *k, const gguf_tensor *t)
{
    const char *name = gguf_dtype_name(t->dtype);
    if (k->types->row_bytes(t->dtype, WHOLE_BLOCK))
        return TENSOR_FAULT(k, t, "of type %s has rows of %llu elements, which are not whole blocks", name ? name : "?",
                            (unsigned long long)t->dims[0]);
    return status_fail(
        k->err, MP_E_UNSUPPORTED,
        "%s: tensor '%.*s' has type %u (%s), which is not supported; use a model whose tensors are of %s",
        k->part->path, SHOWN_NAME, t->name, (unsigned)t->dtype, name ? name : "unknown",
        k->types->supported ? k->types->supported : "other types");
}

static mp_status check_size(const checker *k, gguf_tensor *t)
{
    uint64_t elements = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        if (t->dims[i] == 0) return TENSOR_FAULT(k, t, "has no elements along dimension %u", i);
        if (__builtin_mul_overflow(elements, t->dims[i], &elements) || elements > INT64_MAX)
            return TENSOR_FAULT(k, t, "has too many elements, dimension %u is %llu", i, (unsigned long long)t->dims[i]);
    }
    t->bytes = k->types->row_bytes(t->dtype, t->dims[0]);
    if (t->bytes == 0) return refuse_type(k, t);
    for (uint32_t i = 1; i < GGUF_MAX_DIMS; i++)
        if (!size_mul(t->bytes, t->dims[i], &t->bytes)) return TENSOR_FAULT(k, t, "is too large in dimension %u", i);
    return MP_OK;
}

static mp_status check_place(const checker *k, gguf_tensor *t)
{
    const gguf_header *h = k->header;
    uint64_t relative = t->offset, end;
    if (relative % h->alignment)
        return TENSOR_FAULT(k, t, "has its data at offset %llu, not a multiple of %zu", (unsigned long long)relative,
                            h->alignment);
    if (__builtin_add_overflow(relative, (uint64_t)h->data_start, &t->offset) ||
        __builtin_add_overflow(t->offset, (uint64_t)t->bytes, &end) || end > k->part->len)
        return TENSOR_FAULT(k, t,
                            "has %zu bytes of data at offset %llu from byte %zu on, but the file ends at byte %zu",
                            t->bytes, (unsigned long long)relative, h->data_start, k->part->len);
    t->data = k->part->data + t->offset;
    return MP_OK;
}

static int compare_places(const void *a, const void *b)
{
    const gguf_tensor *x = *(const gguf_tensor *const *)a, *y = *(const gguf_tensor *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* No file has a reason for it, and a damaged offset would otherwise pass for another tensor's weights. */
static mp_status check_overlap(const checker *k)
{
    size_t n = k->header->n_tensors, bytes;
    const gguf_tensor **sorted = size_mul(n + 1, sizeof *sorted, &bytes) ? malloc(bytes) : NULL;
    if (!sorted) return status_no_memory(k->err, n, "a list of tensors");
    for (size_t i = 0; i < n; i++) sorted[i] = &k->header->tensors[i];
    qsort(sorted, n, sizeof *sorted, compare_places);
    mp_status status = MP_OK;
    for (size_t i = 1; i < n && status == MP_OK; i++) {
        const gguf_tensor *before = sorted[i - 1], *t = sorted[i];
        if (t->offset - before->offset >= before->bytes) continue;
        status = gguf_damaged(k->part->path, t->offset, k->err, "tensors '%.*s' and '%.*s' share bytes", SHOWN_NAME,
                              before->name, SHOWN_NAME, t->name);
    }
    free(sorted);
    return status;
}

mp_status gguf_check(const gguf_part *part, int index, const gguf_types *types, gguf_header *header, mp_error *err)
{
    const checker k = {part, types, header, err};
    MP_TRY(check_alignment(&k));
    for (size_t i = 0; i < header->n_tensors; i++) {
        gguf_tensor *t = &header->tensors[i];
        t->part = index;
        MP_TRY(check_size(&k, t));
        MP_TRY(check_place(&k, t));
    }
    return check_overlap(&k);
}
