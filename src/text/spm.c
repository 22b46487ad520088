#include "text/spm.h"

#include <stdlib.h>
#include <string.h>

#include "text/utf8.h"

#define KEY_SCORES "tokenizer.ggml.scores"
#define KEY_SPACE  "tokenizer.ggml.add_space_prefix"
#define KEY_EXTRA  "tokenizer.ggml.remove_extra_whitespaces"

#define SPACE     "\xe2\x96\x81" /* U+2581 */
#define SPACE_LEN 3

/* ---- the table ---- */

/* Control tokens are no text, byte tokens only the last resort. */
static bool is_mergeable(const vocab *v, uint32_t id)
{
    int kind = v->kind[id];
    return kind != TOKEN_CONTROL && kind != TOKEN_UNKNOWN && kind != TOKEN_BYTE && vocab_text(v, id).len > 0;
}

typedef struct scored {
    float score;
    uint32_t id;
} scored;

static int compare_scores(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static mp_status rank_tokens(spm *s, const vocab *v, const float *scores, mp_error *err)
{
    scored *order = malloc(v->n * sizeof *order);
    s->rank = malloc(v->n * sizeof *s->rank);
    if (!order || !s->rank) {
        free(order);
        return status_no_memory(err, v->n * (sizeof *order + sizeof *s->rank), "the vocabulary's scores");
    }
    for (uint32_t id = 0; id < v->n; id++) order[id] = (scored){scores[id], id};
    qsort(order, v->n, sizeof *order, compare_scores);
    uint32_t rank = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        if (i && order[i].score != order[i - 1].score) rank = i;
        s->rank[order[i].id] = is_mergeable(v, order[i].id) ? rank : MERGE_NONE;
    }
    free(order);
    return MP_OK;
}

static mp_status load_scores(spm *s, const vocab *v, const gguf *g, mp_error *err)
{
    float *scores = NULL;
    size_t n = 0;
    MP_TRY(gguf_get_f32s(g, KEY_SCORES, &scores, &n, err));
    mp_status status =
        n == v->n ? rank_tokens(s, v, scores, err)
                  : status_fail(err, MP_E_FORMAT, "%s has %zu entries, the vocabulary %u tokens", KEY_SCORES, n, v->n);
    free(scores);
    return status;
}

static bool is_space(const char *text, size_t len)
{
    return len >= SPACE_LEN && memcmp(text, SPACE, SPACE_LEN) == 0;
}

/* Whether a token has a space behind another character. */
static bool crosses_words(gguf_string text)
{
    bool other = false;
    for (size_t at = 0; at < text.len;) {
        bool space = is_space(text.data + at, text.len - at);
        if (space && other) return true;
        other |= !space;
        at += space ? SPACE_LEN : 1;
    }
    return false;
}

static void survey_tokens(spm *s, const vocab *v)
{
    s->separate_words = true;
    for (uint32_t id = 0; id < v->n; id++) {
        if (s->rank[id] == MERGE_NONE) continue;
        gguf_string text = vocab_text(v, id);
        if (text.len > s->longest) s->longest = text.len;
        if (crosses_words(text)) s->separate_words = false;
    }
    for (int byte = 0; byte < 256; byte++) {
        static const char digits[] = "0123456789ABCDEF";
        const char text[6] = {'<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>'}, itself = (char)byte;
        s->bytes[byte] = vocab_find(v, text, sizeof text);
        if (s->bytes[byte] < 0) s->bytes[byte] = vocab_find(v, &itself, 1);
    }
}

mp_status spm_init(spm *s, const vocab *v, const gguf *g, mp_error *err)
{
    *s = (spm){.add_space = true};
    if (gguf_has(g, KEY_SPACE)) MP_TRY(gguf_get_bool(g, KEY_SPACE, &s->add_space, err));
    if (gguf_has(g, KEY_EXTRA)) MP_TRY(gguf_get_bool(g, KEY_EXTRA, &s->remove_extra, err));
    MP_TRY(load_scores(s, v, g, err));
    survey_tokens(s, v);
    return MP_OK;
}

void spm_clear(spm *s)
{
    free(s->rank);
    *s = (spm){0};
}

/* ---- encoding ---- */

typedef struct spm_rules {
    const spm *s;
    const vocab *v;
    const char *word;
} spm_rules;

/* The token that bytes of the word are, -1: none that text may make. */
static int32_t find_token(const spm_rules *r, uint32_t from, size_t len)
{
    if (len > r->s->longest) return -1;
    int32_t id = vocab_find(r->v, r->word + from, len);
    return id >= 0 && r->s->rank[id] != MERGE_NONE ? id : -1;
}

static bool find(const void *rules, const merge_symbol *left, const merge_symbol *right, int32_t *made, uint32_t *rank)
{
    const spm_rules *r = rules;
    int32_t id = find_token(r, left->from, (size_t)left->len + right->len);
    if (id < 0) return false;
    *made = id;
    *rank = r->s->rank[id];
    return true;
}

/* A character that is no token becomes its bytes; one whose bytes are no tokens either, the unknown token. */
static void emit_symbol(const spm_rules *r, const merge_symbol *symbol, spm_emit emit, void *user)
{
    if (symbol->id >= 0) {
        emit(user, symbol->id);
        return;
    }
    const uint8_t *bytes = (const uint8_t *)r->word + symbol->from;
    bool known = true;
    for (uint32_t i = 0; i < symbol->len; i++) known &= r->s->bytes[bytes[i]] >= 0;
    for (uint32_t i = 0; known && i < symbol->len; i++) emit(user, r->s->bytes[bytes[i]]);
    if (!known && r->v->unknown >= 0) emit(user, r->v->unknown);
}

static mp_status encode_word(const spm_rules *r, merge_work *w, size_t len, spm_emit emit, void *user, mp_error *err)
{
    MP_TRY(merge_begin(w, len, err));
    for (size_t at = 0; at < len;) {
        uint32_t character;
        size_t n = utf8_next(r->word + at, len - at, &character);
        if (n == 0) n = 1; /* a strange byte stands for itself */
        merge_add(w, find_token(r, (uint32_t)at, n), (uint32_t)at, (uint32_t)n);
        at += n;
    }
    merge_run(w, r, find);
    for (uint32_t i = w->n ? 0 : MERGE_NONE; i != MERGE_NONE; i = w->symbols[i].next)
        emit_symbol(r, &w->symbols[i], emit, user);
    return MP_OK;
}

/* Writes spaces as U+2581 into out [3 * (len + 1)]; returns the bytes. */
static size_t escape(const spm *s, const char *text, size_t len, bool begins, char *out)
{
    size_t n = 0;
    if (s->remove_extra) {
        while (len && *text == ' ') text++, len--;
        while (len && text[len - 1] == ' ') len--;
    }
    if (len && begins && s->add_space) {
        memcpy(out, SPACE, SPACE_LEN);
        n = SPACE_LEN;
    }
    for (size_t i = 0; i < len; i++) {
        if (text[i] != ' ') {
            out[n++] = text[i];
        } else if (!s->remove_extra || text[i - 1] != ' ') { /* the first is no space then */
            memcpy(out + n, SPACE, SPACE_LEN);
            n += SPACE_LEN;
        }
    }
    return n;
}

/* Bytes of the first word, the spaces before it included. */
static size_t word_length(const char *text, size_t len)
{
    size_t at = 0;
    while (is_space(text + at, len - at)) at += SPACE_LEN;
    while (at < len && !is_space(text + at, len - at)) at++;
    return at;
}

mp_status spm_encode(const spm *s, const vocab *v, merge_work *w, const char *text, size_t len, bool begins,
                     spm_emit emit, void *user, mp_error *err)
{
    char *escaped = malloc(SPACE_LEN * (len + 1));
    if (!escaped) return status_no_memory(err, SPACE_LEN * (len + 1), "tokenizing a text");
    size_t n = escape(s, text, len, begins, escaped);
    mp_status status = MP_OK;
    for (size_t at = 0, word = 0; !status && at < n; at += word) {
        const spm_rules rules = {s, v, escaped + at};
        word = s->separate_words ? word_length(escaped + at, n - at) : n - at;
        status = encode_word(&rules, w, word, emit, user, err);
    }
    free(escaped);
    return status;
}
