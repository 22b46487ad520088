/* Maps the files of a model and joins what they say. A split model is opened by its first part, whose keys are the
 * model's; the other parts bring tensors only, and must say of themselves that they are the parts they are taken for.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf/gguf_impl.h"

#define MAX_PARTS    99999 /* five digits in a name */
#define SUFFIX_BYTES 64    /* two int64 fit */

/* Which part of how many a file says it is; 0 of 1 where it says nothing. */
typedef struct split {
    int64_t no, count;
} split;

static mp_status split_key(const gguf_part *part, const gguf_header *h, const char *name, int64_t most, int64_t *out,
                           mp_error *err)
{
    const gguf_key *key = gguf_header_find(h, name);
    if (!key) return gguf_damaged(part->path, h->end, err, "a part of a split model has no key %s", name);
    if (gguf_value_i64(&key->value, out) && *out >= 0 && *out <= most) return MP_OK;
    return gguf_damaged(part->path, (size_t)(key->value.raw - part->data), err, "%s is not a number from 0 to %lld",
                        name, (long long)most);
}

static mp_status read_split(const gguf_part *part, const gguf_header *h, split *out, mp_error *err)
{
    *out = (split){0, 1};
    if (!gguf_header_find(h, "split.count")) return MP_OK;
    MP_TRY(split_key(part, h, "split.count", MAX_PARTS, &out->count, err));
    if (out->count < 2) { /* a file that was split into one */
        *out = (split){0, 1};
        return MP_OK;
    }
    return split_key(part, h, "split.no", out->count - 1, &out->no, err);
}

static void suffix_of(split s, char out[SUFFIX_BYTES])
{
    snprintf(out, SUFFIX_BYTES, "-%05lld-of-%05lld.gguf", (long long)s.no + 1, (long long)s.count);
}

/* Length of NAME where path is NAME and the suffix of the part; -1 where it is not. */
static int stem_length(const char *path, split s)
{
    char suffix[SUFFIX_BYTES];
    suffix_of(s, suffix);
    size_t len = strlen(path), tail = strlen(suffix);
    return len > tail && len < 65536 && !strcmp(path + len - tail, suffix) ? (int)(len - tail) : -1;
}

static mp_status refuse_later_part(const char *path, split s, mp_error *err)
{
    int stem = stem_length(path, s);
    char first[SUFFIX_BYTES];
    suffix_of((split){0, s.count}, first);
    return status_fail(err, MP_E_INVALID, "%s: this is part %lld of %lld of a split model; open its first part, %.*s%s",
                       path, (long long)s.no + 1, (long long)s.count, stem < 0 ? 4 : stem, stem < 0 ? "NAME" : path,
                       first);
}

/* Parses and proves the bytes of the last of g's parts. */
static mp_status load(gguf *g, const gguf_types *types, gguf_header *header, mp_error *err)
{
    const gguf_part *part = &g->parts[g->n_parts - 1];
    MP_TRY(gguf_parse(part->path, part->data, part->len, header, err));
    return gguf_check(part, g->n_parts - 1, types, header, err);
}

/* One more part, not mapped yet. */
static mp_status add_part(gguf *g, const char *path, gguf_part **out, mp_error *err)
{
    gguf_part *grown = realloc(g->parts, ((size_t)g->n_parts + 1) * sizeof *grown);
    if (!grown) return status_no_memory(err, sizeof *grown, path);
    g->parts = grown;
    gguf_part *part = &grown[g->n_parts];
    *part = (gguf_part){.path = strdup(path), .map = FILE_MAP_NONE};
    if (!part->path) return status_no_memory(err, strlen(path), path);
    g->n_parts++;
    *out = part;
    return MP_OK;
}

static mp_status map_part(gguf *g, const char *path, const gguf_types *types, gguf_header *header, mp_error *err)
{
    gguf_part *part;
    MP_TRY(add_part(g, path, &part, err));
    MP_TRY(file_map_open(path, &part->map, err));
    part->data = part->map.data;
    part->len = part->map.len;
    return load(g, types, header, err);
}

/* Moves the tensors of another part to the first one's. */
static mp_status join(gguf *g, gguf_header *other, mp_error *err)
{
    size_t n, bytes;
    bool fits = size_add(g->head.n_tensors, other->n_tensors, &n) && size_mul(n + 1, sizeof(gguf_tensor), &bytes);
    gguf_tensor *grown = fits ? realloc(g->head.tensors, bytes) : NULL;
    if (!grown) return status_no_memory(err, other->n_tensors, "a list of tensors");
    g->head.tensors = grown;
    if (other->n_tensors) memcpy(grown + g->head.n_tensors, other->tensors, other->n_tensors * sizeof *grown);
    g->head.n_tensors = n;
    other->n_tensors = 0;
    return MP_OK;
}

static mp_status open_other_part(gguf *g, const char *path, split expected, const gguf_types *types, mp_error *err)
{
    gguf_header header = {0};
    split found;
    mp_status status = map_part(g, path, types, &header, err);
    if (status != MP_OK) goto out;
    status = read_split(&g->parts[g->n_parts - 1], &header, &found, err);
    if (status != MP_OK) goto out;
    if (found.no != expected.no || found.count != expected.count) {
        status = status_fail(err, MP_E_FORMAT,
                             "%s: says that it is part %lld of %lld, not %lld of %lld: not of the "
                             "model of %s",
                             path, (long long)found.no + 1, (long long)found.count, (long long)expected.no + 1,
                             (long long)expected.count, g->parts[0].path);
        goto out;
    }
    status = join(g, &header, err);
out:
    gguf_header_clear(&header);
    return status;
}

static mp_status open_nth_part(gguf *g, int stem, split s, const gguf_types *types, mp_error *err)
{
    char suffix[SUFFIX_BYTES], prefix[64], *path = NULL;
    suffix_of(s, suffix);
    if (asprintf(&path, "%.*s%s", stem, g->parts[0].path, suffix) < 0)
        return status_no_memory(err, (size_t)stem, "a file name");
    mp_status status = open_other_part(g, path, s, types, err);
    free(path);
    if (status == MP_OK) return MP_OK;
    snprintf(prefix, sizeof prefix, "part %lld of %lld", (long long)s.no + 1, (long long)s.count);
    return status_prefix(err, status, prefix);
}

static mp_status open_other_parts(gguf *g, split first, const gguf_types *types, mp_error *err)
{
    const char *path = g->parts[0].path;
    int64_t n_tensors;
    if (first.no != 0) return refuse_later_part(path, first, err);
    MP_TRY(split_key(&g->parts[0], &g->head, "split.tensors.count", INT64_MAX, &n_tensors, err));
    int stem = stem_length(path, first);
    if (stem < 0) {
        char suffix[SUFFIX_BYTES];
        suffix_of(first, suffix);
        return status_fail(err, MP_E_INVALID,
                           "%s: the first part of a split model must be named NAME%s for the others "
                           "to be found",
                           path, suffix);
    }
    for (split s = {1, first.count}; s.no < s.count; s.no++) MP_TRY(open_nth_part(g, stem, s, types, err));
    if (g->head.n_tensors == (size_t)n_tensors) return MP_OK;
    return status_fail(err, MP_E_FORMAT,
                       "%s: its %lld parts hold %zu tensors, but split.tensors.count is %lld; get all "
                       "parts again",
                       g->parts[0].path, (long long)first.count, g->head.n_tensors, (long long)n_tensors);
}

static mp_status index_tensors(gguf *g, mp_error *err)
{
    const char *repeated;
    MP_TRY(gguf_names_build(g->head.tensors, sizeof *g->head.tensors, g->head.n_tensors, &g->tensor_names, &repeated,
                            err));
    if (!repeated) return MP_OK;
    return gguf_damaged(g->parts[0].path, g->head.end, err, "tensor '%.80s' stands there twice", repeated);
}

mp_status gguf_open(const char *path, const gguf_types *types, gguf **out, mp_error *err)
{
    *out = NULL;
    split first;
    gguf *g = calloc(1, sizeof *g);
    if (!g) return status_no_memory(err, sizeof *g, path);
    mp_status status = map_part(g, path, types, &g->head, err);
    if (status == MP_OK) status = read_split(&g->parts[0], &g->head, &first, err);
    if (status == MP_OK && first.count > 1) status = open_other_parts(g, first, types, err);
    if (status == MP_OK) status = index_tensors(g, err);
    if (status == MP_OK)
        *out = g;
    else
        gguf_close(g);
    return status;
}

static mp_status load_memory(gguf *g, const void *data, size_t len, const gguf_types *types, mp_error *err)
{
    gguf_part *part;
    split s;
    MP_TRY(add_part(g, "(memory)", &part, err));
    part->data = data;
    part->len = len;
    MP_TRY(load(g, types, &g->head, err));
    MP_TRY(read_split(part, &g->head, &s, err));
    if (s.count > 1)
        return status_fail(err, MP_E_UNSUPPORTED, "%s: split models can be opened by name only", part->path);
    return index_tensors(g, err);
}

mp_status gguf_open_memory(const void *data, size_t len, const gguf_types *types, gguf **out, mp_error *err)
{
    *out = NULL;
    gguf *g = calloc(1, sizeof *g);
    if (!g) return status_no_memory(err, sizeof *g, "a GGUF reader");
    mp_status status = load_memory(g, data, len, types, err);
    if (status == MP_OK)
        *out = g;
    else
        gguf_close(g);
    return status;
}

mp_status gguf_copy_to_memory(gguf *g, const file_pick *pick, struct pool *p, file_tick_fn tick, void *user,
                              mp_error *err)
{
    file_ticks ticks = {.tick = tick, .user = user};
    for (int i = 0; i < g->n_parts; i++) ticks.total += file_map_copy_bytes(&g->parts[i].map, pick);
    for (int i = 0; i < g->n_parts; i++)
        if (g->parts[i].map.data)
            MP_TRY(file_map_copy(&g->parts[i].map, g->parts[i].path, pick, p, file_tick_part, &ticks, err));
    return MP_OK;
}

mp_status gguf_write_protect(const gguf *g, const file_pick *pick, bool on, mp_error *err)
{
    for (int i = 0; i < g->n_parts; i++)
        MP_TRY(file_map_write_protect(&g->parts[i].map, g->parts[i].path, pick, on, err));
    return MP_OK;
}

void gguf_close(gguf *g)
{
    if (!g) return;
    gguf_names_clear(&g->tensor_names);
    gguf_header_clear(&g->head);
    for (int i = 0; i < g->n_parts; i++) {
        file_map_close(&g->parts[i].map);
        free(g->parts[i].path);
    }
    free(g->parts);
    free(g);
}
