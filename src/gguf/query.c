#include "gguf/gguf_impl.h"

const char *gguf_path(const gguf *g)
{
    return g->parts[0].path;
}

uint32_t gguf_version(const gguf *g)
{
    return g->head.version;
}

int gguf_n_parts(const gguf *g)
{
    return g->n_parts;
}

const char *gguf_part_path(const gguf *g, int part)
{
    return part >= 0 && part < g->n_parts ? g->parts[part].path : NULL;
}

const file_stamp *gguf_part_stamp(const gguf *g, int part)
{
    return part >= 0 && part < g->n_parts && g->parts[part].map.fd >= 0 ? &g->parts[part].map.stamp : NULL;
}

bool gguf_locate(const gguf *g, const void *data, int *part, uint64_t *offset)
{
    for (int i = 0; i < g->n_parts; i++) {
        const gguf_part *p = &g->parts[i];
        const uintptr_t at = (uintptr_t)data, begin = (uintptr_t)p->data;
        if (at < begin || at - begin >= p->len || p->map.fd < 0) continue;
        *part = i;
        *offset = at - begin;
        return true;
    }
    return false;
}

mp_status gguf_read(const gguf *g, const void *data, size_t bytes, void *to, mp_error *err)
{
    int part;
    uint64_t offset;
    if (!gguf_locate(g, data, &part, &offset))
        return status_fail(err, MP_E_INVALID, "%s: bytes of no file", gguf_path(g));
    return file_map_read(&g->parts[part].map, g->parts[part].path, offset, bytes, to, err);
}

uint64_t gguf_file_bytes(const gguf *g)
{
    uint64_t bytes = 0;
    for (int i = 0; i < g->n_parts; i++) bytes += g->parts[i].len;
    return bytes;
}

size_t gguf_alignment(const gguf *g)
{
    return g->head.alignment;
}

size_t gguf_n_tensors(const gguf *g)
{
    return g->head.n_tensors;
}

const gguf_tensor *gguf_tensor_at(const gguf *g, size_t i)
{
    return i < g->head.n_tensors ? &g->head.tensors[i] : NULL;
}

const gguf_tensor *gguf_find_tensor(const gguf *g, const char *name)
{
    size_t i = gguf_names_find(&g->tensor_names, name);
    return i == GGUF_NONE ? NULL : &g->head.tensors[i];
}

size_t gguf_n_keys(const gguf *g)
{
    return g->head.n_keys;
}

const char *gguf_key_name(const gguf *g, size_t i)
{
    return g->head.keys[i].name;
}

enum gguf_type gguf_key_type(const gguf *g, size_t i)
{
    return g->head.keys[i].value.type;
}

const void *gguf_key_raw(const gguf *g, size_t i, size_t *bytes)
{
    *bytes = g->head.keys[i].value.bytes;
    return g->head.keys[i].value.raw;
}

bool gguf_has(const gguf *g, const char *key)
{
    return gguf_header_find(&g->head, key) != NULL;
}

void gguf_release(const gguf *g, const gguf_tensor *t)
{
    file_map_release(&g->parts[t->part].map, t->data, t->bytes);
}
