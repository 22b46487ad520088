#include "text/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "text/utf8.h"

#define KEY_TOKENS "tokenizer.ggml.tokens"
#define KEY_TYPES  "tokenizer.ggml.token_type"

gguf_string vocab_text(const vocab *v, uint32_t id)
{
    return (gguf_string){v->text + v->text_at[id], v->text_at[id + 1] - v->text_at[id]};
}

gguf_string vocab_bytes(const vocab *v, uint32_t id)
{
    return (gguf_string){v->bytes + v->bytes_at[id], v->bytes_at[id + 1] - v->bytes_at[id]};
}

/* ---- text to id ---- */

#define HASH_START 0xcbf29ce484222325u

static uint64_t hash_add(uint64_t hash, const char *text, size_t len) /* FNV-1a */
{
    for (size_t i = 0; i < len; i++) hash = (hash ^ (uint8_t)text[i]) * 0x100000001b3u;
    return hash;
}

static size_t hash_slot(const vocab *v, uint64_t hash)
{
    return (size_t)(hash ^ hash >> 29) & (v->n_slots - 1);
}

static bool equal(gguf_string a, const char *b, size_t len)
{
    return a.len == len && memcmp(a.data, b, len) == 0;
}

/* The token's slot, or the free one where it would go. */
static size_t find_slot(const vocab *v, const char *text, size_t len)
{
    size_t i = hash_slot(v, hash_add(HASH_START, text, len));
    while (v->slots[i] && !equal(vocab_text(v, v->slots[i] - 1), text, len)) i = (i + 1) & (v->n_slots - 1);
    return i;
}

int32_t vocab_find(const vocab *v, const char *text, size_t len)
{
    return (int32_t)v->slots[find_slot(v, text, len)] - 1;
}

int32_t vocab_find_bytes(const vocab *v, const char *bytes, size_t len)
{
    uint64_t hash = HASH_START;
    for (size_t i = 0; i < len; i++) {
        char character[2];
        hash = hash_add(hash, character, byte_to_text((uint8_t)bytes[i], character));
    }
    for (size_t i = hash_slot(v, hash); v->slots[i]; i = (i + 1) & (v->n_slots - 1)) {
        uint32_t id = v->slots[i] - 1;
        if (v->kind[id] == TOKEN_NORMAL && equal(vocab_bytes(v, id), bytes, len)) return (int32_t)id;
    }
    return -1;
}

static mp_status index_texts(vocab *v, mp_error *err)
{
    v->n_slots = 2;
    while (v->n_slots < (size_t)v->n * 2) v->n_slots *= 2;
    v->slots = calloc(v->n_slots, sizeof *v->slots);
    if (!v->slots) return status_no_memory(err, v->n_slots * sizeof *v->slots, "the vocabulary");
    for (uint32_t id = 0; id < v->n; id++) {
        gguf_string text = vocab_text(v, id);
        if (text.len == 0) continue; /* a gap in the numbering: never matched, decodes to nothing */
        uint32_t *slot = &v->slots[find_slot(v, text.data, text.len)];
        if (*slot)
            return status_fail(err, MP_E_FORMAT, "%s[%u] repeats token %u, \"%.*s\"", KEY_TOKENS, id, *slot - 1,
                               (int)(text.len < 64 ? text.len : 64), text.data);
        *slot = id + 1;
    }
    return MP_OK;
}

/* ---- loading ---- */

static mp_status copy_texts(vocab *v, const gguf_string *tokens, mp_error *err)
{
    size_t total = 0, bytes = 0;
    for (uint32_t id = 0; id < v->n; id++)
        if (!size_add(total, tokens[id].len, &total)) return status_fail(err, MP_E_FORMAT, "%s: too long", KEY_TOKENS);
    v->text = malloc(total + 1);
    v->bytes = malloc(total + 1);
    if (!size_mul((size_t)v->n + 1, sizeof(size_t), &bytes))
        return status_fail(err, MP_E_FORMAT, "%s: too many tokens", KEY_TOKENS);
    v->text_at = malloc(bytes);
    v->bytes_at = malloc(bytes);
    v->kind = malloc(v->n);
    v->ends_text = calloc(v->n, sizeof *v->ends_text);
    if (!v->text || !v->bytes || !v->text_at || !v->bytes_at || !v->kind || !v->ends_text)
        return status_no_memory(err, 2 * (total + bytes), "the vocabulary");
    size_t at = 0;
    for (uint32_t id = 0; id < v->n; id++) {
        v->text_at[id] = at;
        if (tokens[id].len) memcpy(v->text + at, tokens[id].data, tokens[id].len);
        at += tokens[id].len;
    }
    v->text_at[v->n] = at;
    return MP_OK;
}

static mp_status load_texts(vocab *v, const gguf *g, mp_error *err)
{
    gguf_string *tokens = NULL;
    size_t n = 0;
    MP_TRY(gguf_get_strings(g, KEY_TOKENS, &tokens, &n, err));
    mp_status status = MP_OK;
    if (n == 0 || n > INT32_MAX)
        status = status_fail(err, MP_E_FORMAT, "%s: %zu tokens, expected 1 to %d", KEY_TOKENS, n, INT32_MAX);
    if (!status) {
        v->n = (uint32_t)n;
        status = copy_texts(v, tokens, err);
    }
    free(tokens);
    return status;
}

static mp_status load_kinds(vocab *v, const gguf *g, mp_error *err)
{
    memset(v->kind, TOKEN_NORMAL, v->n);
    if (!gguf_has(g, KEY_TYPES)) return MP_OK;
    int32_t *types = NULL;
    size_t n = 0;
    MP_TRY(gguf_get_i32s(g, KEY_TYPES, &types, &n, err));
    mp_status status = MP_OK;
    if (n != v->n)
        status = status_fail(err, MP_E_FORMAT, "%s has %zu entries, %s has %u", KEY_TYPES, n, KEY_TOKENS, v->n);
    for (uint32_t id = 0; !status && id < v->n; id++) {
        if (types[id] < TOKEN_UNDEFINED || types[id] > TOKEN_BYTE)
            status = status_fail(err, MP_E_FORMAT, "%s[%u] = %d: expected 0 to 6", KEY_TYPES, id, types[id]);
        else
            v->kind[id] = (uint8_t)types[id];
    }
    free(types);
    return status;
}

/* Bytes of a token's text into out, never more than the text; a character outside the table stands for itself. */
static size_t decode_characters(gguf_string text, char *out)
{
    size_t n = 0;
    for (size_t at = 0; at < text.len;) {
        uint32_t character = 0;
        size_t len = utf8_next(text.data + at, text.len - at, &character);
        int byte = len ? byte_of_character(character) : -1;
        if (byte >= 0) {
            out[n++] = (char)byte;
            at += len;
            continue;
        }
        if (len == 0) len = 1;
        memcpy(out + n, text.data + at, len);
        n += len;
        at += len;
    }
    return n;
}

/* U+2581 becomes a space. */
static size_t decode_spaces(gguf_string text, char *out)
{
    size_t n = 0;
    for (size_t at = 0; at < text.len;) {
        bool space = text.len - at >= 3 && memcmp(text.data + at, "\xe2\x96\x81", 3) == 0;
        out[n++] = space ? ' ' : text.data[at];
        at += space ? 3 : 1;
    }
    return n;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte of "<0x2F>", -1 where the text is none. */
static int byte_of_token(gguf_string text)
{
    if (text.len != 6 || memcmp(text.data, "<0x", 3) != 0 || text.data[5] != '>') return -1;
    int high = hex_digit(text.data[3]), low = hex_digit(text.data[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

static size_t decode_text(gguf_string text, enum token_kind kind, enum vocab_style style, char *out)
{
    int byte = kind == TOKEN_BYTE ? byte_of_token(text) : -1;
    if (byte >= 0) {
        *out = (char)byte;
        return 1;
    }
    if (kind == TOKEN_NORMAL || kind == TOKEN_BYTE)
        return style == VOCAB_SPM ? decode_spaces(text, out) : decode_characters(text, out);
    memcpy(out, text.data, text.len);
    return text.len;
}

static void decode_texts(vocab *v, enum vocab_style style)
{
    size_t at = 0;
    for (uint32_t id = 0; id < v->n; id++) {
        v->bytes_at[id] = at;
        at += decode_text(vocab_text(v, id), v->kind[id], style, v->bytes + at);
    }
    v->bytes_at[v->n] = at;
}

/* What files of this style mean where they do not say: <unk>, <s> and </s> come first. */
static void init_defaults(vocab *v, enum vocab_style style)
{
    if (style != VOCAB_SPM || v->n < 3) return;
    v->unknown = 0;
    v->bos = 1;
    v->eos = 2;
}

mp_status vocab_init(vocab *v, const gguf *g, enum vocab_style style, mp_error *err)
{
    *v = (vocab){.bos = -1, .eos = -1, .unknown = -1};
    MP_TRY(load_texts(v, g, err));
    init_defaults(v, style);
    MP_TRY(load_kinds(v, g, err));
    MP_TRY(index_texts(v, err));
    MP_TRY(vocab_init_roles(v, g, err));
    MP_TRY(vocab_init_strips(v, g, err));
    MP_TRY(vocab_init_special(v, err));
    decode_texts(v, style);
    return MP_OK;
}

void vocab_clear(vocab *v)
{
    free(v->text);
    free(v->text_at);
    free(v->bytes);
    free(v->bytes_at);
    free(v->kind);
    free(v->ends_text);
    free(v->slots);
    free(v->special);
    *v = (vocab){.bos = -1, .eos = -1, .unknown = -1};
}
