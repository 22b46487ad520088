/* Byte-pair merging: of all neighbours that some merge joins, always the pair of the lowest rank, the leftmost of
 * equals.
 *
 * Symbols are a doubly linked list in an array. The queue is a min-heap of 64-bit words, rank above position, so that
 * its order is exactly that rule. An entry goes stale when one of its symbols has changed; it is not searched for but
 * recognised when it comes up, because every symbol keeps the rank of its current pair and a rank names one pair.
 * Every merge removes one entry and adds at most two, so 2n entries are enough, and n symbols cost O(n log n): a
 * megabyte without a space is no problem. */
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
    b->merged[rank] = merged;
    bpe_pair *pair = &b->pairs[find_pair(b, left_id, right_id)];
    if (pair->merged < 0) *pair = (bpe_pair){left_id, right_id, (uint32_t)rank, merged};
    return MP_OK;
}

static mp_status add_merges(bpe *b, const vocab *v, const gguf_string *merges, size_t n, mp_error *err)
{
    size_t longest = 0;
    if (n >= UINT32_MAX / 2) return status_fail(err, MP_E_FORMAT, "%s: %zu merges are too many", KEY_MERGES, n);
    for (size_t i = 0; i < n; i++)
        if (merges[i].len > longest) longest = merges[i].len;
    for (b->n_pairs = 2; b->n_pairs < 2 * n;) b->n_pairs *= 2;
    b->pairs = malloc(b->n_pairs * sizeof *b->pairs);
    b->merged = malloc((n + 1) * sizeof *b->merged);
    char *scratch = malloc(longest + 1);
    mp_status status = MP_OK;
    if (!b->pairs || !b->merged || !scratch)
        status = status_no_memory(err, b->n_pairs * sizeof *b->pairs, "the vocabulary's merges");
    for (size_t i = 0; !status && i < b->n_pairs; i++) b->pairs[i].merged = -1;
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
    free(b->merged);
    *b = (bpe){0};
}

/* ---- merging ---- */

static mp_status reserve(bpe_work *w, size_t n, mp_error *err)
{
    if (n <= w->capacity) return MP_OK;
    bpe_work_clear(w);
    size_t capacity = 256;
    while (capacity < n) capacity *= 2;
    w->symbols = malloc(capacity * sizeof *w->symbols);
    w->queue = malloc(2 * capacity * sizeof *w->queue);
    w->ids = malloc(capacity * sizeof *w->ids);
    if (!w->symbols || !w->queue || !w->ids)
        return status_no_memory(err, capacity * (sizeof *w->symbols + 2 * sizeof *w->queue + sizeof *w->ids),
                                "tokenizing a word");
    w->capacity = capacity;
    return MP_OK;
}

void bpe_work_clear(bpe_work *w)
{
    free(w->symbols);
    free(w->queue);
    free(w->ids);
    *w = (bpe_work){0};
}

static void sift_up(uint64_t *queue, size_t i)
{
    uint64_t moving = queue[i];
    for (; i > 0 && queue[(i - 1) / 2] > moving; i = (i - 1) / 2) queue[i] = queue[(i - 1) / 2];
    queue[i] = moving;
}

static void sift_down(uint64_t *queue, size_t n, size_t i)
{
    uint64_t moving = queue[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && queue[child + 1] < queue[child]) child++;
        if (queue[child] >= moving) break;
        queue[i] = queue[child];
    }
    queue[i] = moving;
}

/* Looks up the pair that symbol `left` now begins and appends it to the queue [*n]; false where there is none. */
static bool add_pair(const bpe *b, bpe_work *w, uint32_t left, size_t *n)
{
    bpe_symbol *s = &w->symbols[left];
    s->rank = BPE_NONE;
    if (s->next == BPE_NONE) return false;
    const bpe_pair *pair = &b->pairs[find_pair(b, s->id, w->symbols[s->next].id)];
    if (pair->merged < 0) return false;
    s->rank = pair->rank;
    w->queue[(*n)++] = (uint64_t)pair->rank << 32 | left;
    return true;
}

static void push_pair(const bpe *b, bpe_work *w, uint32_t left, size_t *n)
{
    if (left != BPE_NONE && add_pair(b, w, left, n)) sift_up(w->queue, *n - 1);
}

/* Joins symbol `left` and the one after it. */
static void merge(const bpe *b, bpe_work *w, uint32_t left, size_t *n_queue)
{
    bpe_symbol *s = &w->symbols[left], *gone = &w->symbols[s->next];
    s->id = b->merged[s->rank];
    s->next = gone->next;
    gone->rank = BPE_NONE;
    if (s->next != BPE_NONE) w->symbols[s->next].prev = left;
    push_pair(b, w, s->prev, n_queue);
    push_pair(b, w, left, n_queue);
}

static uint32_t split_bytes(const bpe *b, bpe_work *w, const char *word, size_t len)
{
    uint32_t n = 0;
    for (size_t i = 0; i < len; i++) {
        uint8_t byte = (uint8_t)word[i];
        for (uint32_t j = 0; j < b->bytes[byte].n; j++, n++)
            w->symbols[n] = (bpe_symbol){b->bytes[byte].ids[j], n - 1, n + 1, BPE_NONE};
    }
    if (n) w->symbols[n - 1].next = BPE_NONE; /* and n - 1 wrapped to BPE_NONE at the other end */
    return n;
}

mp_status bpe_encode(const bpe *b, bpe_work *w, const char *word, size_t len, size_t *n, mp_error *err)
{
    *n = 0;
    MP_TRY(reserve(w, 3 * len, err));
    uint32_t n_symbols = split_bytes(b, w, word, len);
    size_t n_queue = 0;
    for (uint32_t i = 0; i < n_symbols; i++) add_pair(b, w, i, &n_queue);
    for (size_t i = n_queue / 2; i-- > 0;) sift_down(w->queue, n_queue, i);
    while (n_queue) {
        uint64_t top = w->queue[0];
        w->queue[0] = w->queue[--n_queue];
        sift_down(w->queue, n_queue, 0);
        uint32_t left = (uint32_t)top;
        if (w->symbols[left].rank == top >> 32) merge(b, w, left, &n_queue);
    }
    for (uint32_t i = n_symbols ? 0 : BPE_NONE; i != BPE_NONE; i = w->symbols[i].next)
        w->ids[(*n)++] = w->symbols[i].id;
    return MP_OK;
}
