/* record.c: records of routing, written a step at a time and read whole.
 *
 * Text, because a record is looked at, cut and joined with everyday tools; a thousand tokens of a large model are some
 * ten megabytes. Reading passes over the text twice: the first pass counts lines and words, which bounds what there is
 * to keep, so the second never grows anything and the steps can point into one array. */
#include "store/record.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

#define MAGIC      "# moeprism record 1 "
#define KEYS_MAX   (1u << 24) /* sub-experts of a model */
#define BYTES_MAX  (1ull << 40)
#define TOKENS_MAX (1u << 24)

/* ---- writing ---- */

mp_status record_write_header(FILE *f, const record_shape *shape)
{
    fprintf(f, MAGIC "layers=%u experts=%u parts=%u bytes=%llu\n", shape->n_layers, shape->n_experts, shape->n_parts,
            (unsigned long long)shape->sub_bytes);
    return ferror(f) ? MP_E_IO : MP_OK;
}

mp_status record_write(FILE *f, const record_step *step)
{
    fprintf(f, "%llu %u %u experts", (unsigned long long)step->step, step->layer, step->tokens);
    for (uint32_t i = 0; i < step->n_experts; i++) fprintf(f, " %u", step->experts[i]);
    fputs(" subs", f);
    for (uint32_t i = 0; i < step->n_subs; i++) fprintf(f, " %u", step->subs[i]);
    fputc('\n', f);
    return ferror(f) ? MP_E_IO : MP_OK;
}

/* ---- reading ---- */

typedef struct reader {
    const char *name;
    const char *at, *end; /* of the line */
    size_t line;          /* from 1 */
    record_trace *out;
    size_t n_ids;
    uint32_t *seen_expert, *seen_sub; /* [E], [E * N] the line that named it last, counted in steps from 1 */
    mp_error *err;
} reader;

static mp_status refuse(const reader *r, const char *what)
{
    return status_fail(r->err, MP_E_FORMAT, "%s, line %zu: %s", r->name, r->line, what);
}

/* Digits up to a blank or the end of the line; false where there are none, or more than fit. */
static bool take_number(reader *r, uint64_t most, uint64_t *out)
{
    uint64_t value = 0;
    const char *from = r->at;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++)
        if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*r->at - '0'), &value))
            return false;
    if (r->at == from || value > most || (r->at < r->end && *r->at != ' ')) return false;
    *out = value;
    return true;
}

static bool take_u32(reader *r, uint32_t most, uint32_t *out)
{
    uint64_t value;
    if (!take_number(r, most, &value)) return false;
    *out = (uint32_t)value;
    return true;
}

static bool take_text(reader *r, const char *text)
{
    const size_t n = strlen(text);
    if ((size_t)(r->end - r->at) < n || memcmp(r->at, text, n) != 0) return false;
    r->at += n;
    return true;
}

/* "layers=4 experts=..." in any order; pairs that are not known are passed over. */
static mp_status read_header(reader *r)
{
    record_shape *s = &r->out->shape;
    if (!take_text(r, MAGIC)) return refuse(r, "a record begins with '" MAGIC "layers=L experts=E parts=N bytes=B'");
    while (r->at < r->end) {
        bool good = true;
        if (take_text(r, "layers="))
            good = take_u32(r, KEYS_MAX, &s->n_layers);
        else if (take_text(r, "experts="))
            good = take_u32(r, KEYS_MAX, &s->n_experts);
        else if (take_text(r, "parts="))
            good = take_u32(r, KEYS_MAX, &s->n_parts);
        else if (take_text(r, "bytes="))
            good = take_number(r, BYTES_MAX, &s->sub_bytes);
        while (good && r->at < r->end && *r->at != ' ') r->at++;
        while (good && r->at < r->end && *r->at == ' ') r->at++;
        if (!good) return refuse(r, "layers, experts, parts and bytes are whole numbers within reason");
    }
    const uint64_t layers = s->n_layers, subs = (uint64_t)s->n_experts * s->n_parts;
    if (layers == 0 || subs == 0 || s->sub_bytes == 0)
        return refuse(r, "layers, experts, parts and bytes must all be given, and above 0");
    if (subs > KEYS_MAX || layers * subs > KEYS_MAX) return refuse(r, "more than 16777216 sub-experts");
    return MP_OK;
}

/* Numbers below `limit`, each at most once, up to the next word or the end. */
static mp_status take_ids(reader *r, uint32_t limit, uint32_t *seen, const char *what, const uint32_t **ids,
                          uint32_t *n)
{
    uint32_t *to = r->out->ids + r->n_ids;
    const uint32_t stamp = (uint32_t)r->out->n + 1;
    *n = 0;
    while (r->end - r->at >= 2 && r->at[0] == ' ' && r->at[1] >= '0' && r->at[1] <= '9') {
        uint32_t id;
        r->at++;
        if (!take_u32(r, limit - 1, &id))
            return status_fail(r->err, MP_E_FORMAT, "%s, line %zu: number %u of the %s is not one below %u", r->name,
                               r->line, *n + 1, what, limit);
        if (seen[id] == stamp)
            return status_fail(r->err, MP_E_FORMAT, "%s, line %zu: %u is among the %s twice", r->name, r->line, id,
                               what);
        seen[id] = stamp;
        to[(*n)++] = id;
    }
    *ids = to;
    r->n_ids += *n;
    return MP_OK;
}

static bool in_order(const record_trace *t, const record_step *step)
{
    if (t->n == 0) return true;
    const record_step *last = &t->steps[t->n - 1];
    return step->step > last->step || (step->step == last->step && step->layer > last->layer);
}

static mp_status read_step(reader *r)
{
    const record_shape *shape = &r->out->shape;
    record_step step = {0};
    if (!take_number(r, UINT64_MAX, &step.step) || !take_text(r, " ") ||
        !take_u32(r, shape->n_layers - 1, &step.layer) || !take_text(r, " ") || !take_u32(r, TOKENS_MAX, &step.tokens))
        return refuse(r, "a line is STEP LAYER TOKENS experts ... subs ..., with a layer that the model has");
    if (!in_order(r->out, &step)) return refuse(r, "steps and their layers must ascend");
    if (!take_text(r, " experts")) return refuse(r, "'experts' must follow the tokens");
    MP_TRY(take_ids(r, shape->n_experts, r->seen_expert, "experts", &step.experts, &step.n_experts));
    if (!take_text(r, " subs")) return refuse(r, "numbers, then 'subs', must follow 'experts'");
    MP_TRY(take_ids(r, shape->n_experts * shape->n_parts, r->seen_sub, "sub-experts", &step.subs, &step.n_subs));
    if (r->at < r->end) return refuse(r, "numbers, and nothing else, must follow 'subs'");
    for (uint32_t i = 0; i < step.n_subs; i++)
        if (r->seen_expert[step.subs[i] / shape->n_parts] != (uint32_t)r->out->n + 1)
            return status_fail(r->err, MP_E_FORMAT, "%s, line %zu: sub-expert %u belongs to none of the experts",
                               r->name, r->line, step.subs[i]);
    r->out->steps[r->out->n++] = step;
    return MP_OK;
}

/* Room for what text [len] can hold at most. */
static mp_status make_room(reader *r, const char *text, size_t len)
{
    size_t lines = 0, words = 0;
    for (size_t i = 0; i < len; i++) {
        lines += text[i] == '\n';
        words += text[i] == ' ';
    }
    const record_shape *s = &r->out->shape;
    if (lines >= UINT32_MAX) return status_fail(r->err, MP_E_LIMIT, "%s: more than %u lines", r->name, UINT32_MAX);
    r->out->steps = calloc(lines + 1, sizeof *r->out->steps);
    r->out->ids = calloc(words + 1, sizeof *r->out->ids);
    r->seen_expert = calloc(s->n_experts, sizeof *r->seen_expert);
    r->seen_sub = calloc((size_t)s->n_experts * s->n_parts, sizeof *r->seen_sub);
    if (!r->out->steps || !r->out->ids || !r->seen_expert || !r->seen_sub)
        return status_no_memory(r->err, lines * sizeof(record_step) + words * sizeof(uint32_t), "a record");
    return MP_OK;
}

/* The next line, which begins at *next, without its end. */
static mp_status take_line(reader *r, const char **next, const char *end)
{
    const char *from = *next, *stop = from < end ? memchr(from, '\n', (size_t)(end - from)) : NULL;
    r->line++;
    if (stop == NULL) return refuse(r, "cut off: the line does not end; remove it");
    r->at = from;
    r->end = stop > from && stop[-1] == '\r' ? stop - 1 : stop;
    *next = stop + 1;
    return MP_OK;
}

static mp_status read_lines(reader *r, const char *text, size_t len)
{
    const char *next = text, *const end = text + len;
    if (len == 0) return status_fail(r->err, MP_E_FORMAT, "%s: empty", r->name);
    MP_TRY(take_line(r, &next, end));
    MP_TRY(read_header(r));
    MP_TRY(make_room(r, text, len));
    while (next < end) {
        MP_TRY(take_line(r, &next, end));
        if (r->at < r->end && *r->at != '#') MP_TRY(read_step(r));
    }
    return r->out->n > 0 ? MP_OK : status_fail(r->err, MP_E_FORMAT, "%s: no step is recorded", r->name);
}

mp_status record_parse(const char *text, size_t len, const char *name, record_trace *out, mp_error *err)
{
    *out = (record_trace){0};
    reader r = {.name = name, .out = out, .err = err};
    const mp_status status = read_lines(&r, text, len);
    free(r.seen_expert);
    free(r.seen_sub);
    if (status != MP_OK) record_free(out);
    return status;
}

mp_status record_read(const char *path, record_trace *out, mp_error *err)
{
    char *text;
    size_t len;
    *out = (record_trace){0};
    MP_TRY(file_read(path, &text, &len, err));
    const mp_status status = record_parse(text, len, path, out, err);
    free(text);
    return status;
}

void record_free(record_trace *t)
{
    free(t->steps);
    free(t->ids);
    *t = (record_trace){0};
}
