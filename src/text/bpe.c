#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "text/utf8.h"

#define KEY_MERGES "tokenizer.ggml.merges"

/* ---- the table ---- */

static size_t find_pair(const bpe *b, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    key *= 0x9e3779b97f4a7c15u;
    size_t i = (size_t)(key ^ key >> 32) & (b->n_pairs - 1);
    while (b->pairs[i].merged >= 0 && (b->pairs[i].left != left || b->pairs[i].right != right))
        i = (i + 1) & (b->n_pairs - 1);
    return i;
}

static mp_status fail_merge(size_t rank, gguf_string merge, gguf_string missing, mp_error *err)
{
    return status_fail(err, MP_E_FORMAT, "%s[%zu] = \"%.*s\": there is no token \"%.*s\"", KEY_MERGES, rank,
                       (int)(merge.len < 64 ? merge.len : 64), merge.data, (int)(missing.len < 64 ? missing.len : 64),
                       missing.data);
}

/* One "left right"; scratch has room for its bytes. A pair that was named before keeps its lower rank. */
static mp_status add_merge(bpe *b, const vocab *v, size_t rank, gguf_string merge, char *scratch, mp_error *err)
{
    const char *space = merge.len > 2 ? memchr(merge.data + 1, ' ', merge.len - 2) : NULL;
    if (!space)
        return status_fail(err, MP_E_FORMAT, "%s[%zu] = \"%.*s\": expected two tokens with a space between", KEY_MERGES,
                           rank, (int)(merge.len < 64 ? merge.len : 64), merge.data);
    gguf_string left = {merge.data, (size_t)(space - merge.data)}, right = {space + 1, merge.len - left.len - 1};
    gguf_string both = {scratch, left.len + right.len};
    memcpy(scratch, left.data, left.len);
    memcpy(scratch + left.len, right.data, right.len);
    int32_t left_id = vocab_find(v, left.data, left.len), right_id = vocab_find(v, right.data, right.len);
    int32_t merged = vocab_find(v, both.data, both.len);
    if (left_id < 0) return fail_merge(rank, merge, left, err);
    if (right_id < 0) return fail_merge(rank, merge, right, err);
    if (merged < 0) return fail_merge(rank, merge, both, err);
    if (v->kind[merged] == TOKEN_CONTROL || v->kind[merged] == TOKEN_UNKNOWN) return MP_OK; /* text never makes those */
    bpe_pair *pair = &b->pairs[find_pair(b, left_id, right_id)];
    if (pair->merged < 0) *pair = (bpe_pair){left_id, right_id, (uint32_t)rank, merged};
    return MP_OK;
}

static mp_status add_merges(bpe *b, const vocab *v, const gguf_string *merges, size_t n, mp_error *err)
{
    size_t longest = 0;
    if (n >= MERGE_NONE / 2) return status_fail(err, MP_E_FORMAT, "%s: %zu merges are too many", KEY_MERGES, n);
    for (size_t i = 0; i < n; i++)
        if (merges[i].len > longest) longest = merges[i].len;
    for (b->n_pairs = 2; b->n_pairs < 2 * n;) b->n_pairs *= 2;
    b->pairs = malloc(b->n_pairs * sizeof *b->pairs);
    char *scratch = malloc(longest + 1);
    mp_status status = MP_OK;
    if (!b->pairs || !scratch) status = status_no_memory(err, b->n_pairs * sizeof *b->pairs, "the vocabulary's merges");
    for (size_t i = 0; !status && i < b->n_pairs; i++) b->pairs[i] = (bpe_pair){.merged = -1};
    for (size_t i = 0; !status && i < n; i++) status = add_merge(b, v, i, merges[i], scratch, err);
    free(scratch);
    return status;
}

static int32_t find_byte(const vocab *v, uint8_t byte)
{
    char text[2];
    int32_t id = vocab_find(v, text, byte_to_text(byte, text));
    return id >= 0 && (v->kind[id] == TOKEN_NORMAL || v->kind[id] == TOKEN_BYTE) ? id : -1;
}

/* Some vocabularies lack bytes that ordinary text has not got. Such a byte is written as U+FFFD, the replacement
 * character; a special token that looks like the byte's character is not that byte. */
static void init_bytes(bpe *b, const vocab *v)
{
    static const uint8_t replacement[3] = {0xef, 0xbf, 0xbd};
    for (int byte = 0; byte < 256; byte++) {
        int32_t id = find_byte(v, (uint8_t)byte);
        if (id >= 0) {
            b->bytes[byte].ids[b->bytes[byte].n++] = id;
            continue;
        }
        for (int i = 0; i < 3; i++) {
            id = find_byte(v, replacement[i]);
            if (id >= 0) b->bytes[byte].ids[b->bytes[byte].n++] = id;
        }
    }
}

mp_status bpe_init(bpe *b, const vocab *v, const gguf *g, mp_error *err)
{
    *b = (bpe){0};
    gguf_string *merges = NULL;
    size_t n = 0;
    MP_TRY(gguf_get_strings(g, KEY_MERGES, &merges, &n, err));
    mp_status status = add_merges(b, v, merges, n, err);
    free(merges);
    init_bytes(b, v);
    return status;
}

void bpe_clear(bpe *b)
{
    free(b->pairs);
    *b = (bpe){0};
}

/* ---- merging ---- */

static bool find(const void *rules, const merge_symbol *left, const merge_symbol *right, int32_t *made, uint32_t *rank)
{
    const bpe *b = rules;
    const bpe_pair *pair = &b->pairs[find_pair(b, left->id, right->id)];
    *made = pair->merged;
    *rank = pair->rank;
    return pair->merged >= 0;
}

mp_status bpe_encode(const bpe *b, merge_work *w, const char *word, size_t len, mp_error *err)
{
    MP_TRY(merge_begin(w, 3 * len, err));
    for (size_t i = 0; i < len; i++) {
        uint8_t byte = (uint8_t)word[i];
        for (uint32_t j = 0; j < b->bytes[byte].n; j++) merge_add(w, b->bytes[byte].ids[j], (uint32_t)i, 1);
    }
    merge_run(w, b, find);
    return MP_OK;
}
