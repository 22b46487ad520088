#include "sched/trace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char header[] = "arrival_s,prompt_tokens,output_tokens,floor,ttft_ms,tpot_ms";

enum { COLUMNS = 6, FIELD_MAX = 64 };

void trace_clear(trace *t)
{
    free(t->requests);
    *t = (trace){0};
}

/* ---- numbers: the whole string, in range, or false ---- */

static bool parse_digits(const char *text, size_t len, uint64_t *out)
{
    uint64_t value = 0;
    if (len == 0) return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        if (__builtin_mul_overflow(value, (uint64_t)10, &value)) return false;
        if (__builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value)) return false;
    }
    *out = value;
    return true;
}

/* "12.5" in units of 10^-decimals, exact; more digits than that are refused. */
static bool parse_fixed(const char *text, unsigned decimals, uint64_t *out)
{
    uint64_t whole, part = 0, scale = 1;
    const size_t before = strcspn(text, ".");
    const char *after = text[before] == '.' ? text + before + 1 : "";
    const size_t n = strlen(after);
    if (!parse_digits(text, before, &whole) || n > decimals) return false;
    if (text[before] == '.' && !parse_digits(after, n, &part)) return false;
    for (unsigned i = 0; i < decimals; i++) scale *= 10;
    for (size_t i = n; i < decimals; i++) part *= 10;
    if (__builtin_mul_overflow(whole, scale, &whole) || __builtin_add_overflow(whole, part, out)) return false;
    return *out <= INT64_MAX;
}

static bool parse_tokens(const char *text, uint32_t *out)
{
    uint64_t value;
    if (!parse_digits(text, strlen(text), &value) || value < 1 || value > TRACE_TOKENS_MAX) return false;
    *out = (uint32_t)value;
    return true;
}

/* ---- floors ---- */

static bool parse_share(const char *text, double *out)
{
    char *end;
    if (text[0] == '\0' || text[strspn(text, "0123456789.%")] != '\0') return false;
    *out = strtod(text, &end);
    if (strcmp(end, "%") == 0) *out /= 100;
    return (*end == '\0' || strcmp(end, "%") == 0) && *out > 0 && *out <= 1;
}

bool trace_floor_parse(const char *text, trace_floor *out)
{
    static const char prefix[] = "point:";
    const size_t n = sizeof prefix - 1;
    *out = TRACE_FULL;
    if (strncmp(text, prefix, n) != 0) return parse_share(text, &out->share);
    uint64_t point;
    if (!parse_digits(text + n, strlen(text + n), &point) || point >= UINT32_MAX) return false;
    *out = (trace_floor){.is_point = true, .point = (uint32_t)point};
    return true;
}

void trace_floor_write(const trace_floor *floor, FILE *out)
{
    if (floor->is_point)
        fprintf(out, "point:%u", floor->point);
    else
        fprintf(out, "%.15g", floor->share);
}

/* Measured shares scatter around the round numbers that people ask for: the slack that mp_model_find_point() gives. */
#define SHARE_SLACK 0.06

bool trace_floor_point(const trace_floor *floor, const sched_point *points, uint32_t n_points, uint32_t *out)
{
    if (floor->is_point) {
        *out = floor->point;
        return floor->point < n_points;
    }
    *out = 0;
    for (uint32_t p = 0; p < n_points; p++)
        if (points[p].share >= floor->share * (1 - SHARE_SLACK)) *out = p;
    return n_points > 0;
}

/* ---- reading ---- */

typedef struct reader {
    const char *name;
    size_t line; /* from 1 */
    trace *out;
    size_t cap;
    mp_error *err;
} reader;

static mp_status refuse(const reader *r, const char *column, const char *want, const char *text)
{
    return status_fail(r->err, MP_E_FORMAT, "%s, line %zu: %s must be %s, not '%s'", r->name, r->line, column, want,
                       text);
}

static mp_status parse_row(const reader *r, char fields[COLUMNS][FIELD_MAX], trace_request *out)
{
    static const char count[] = "a whole number from 1 to 16777216", ms[] = "milliseconds, 0 or empty for none";
    *out = (trace_request){.floor = TRACE_FULL};
    if (!parse_fixed(fields[0], 9, &out->arrival_ns))
        return refuse(r, "arrival_s", "seconds from the start, as 12.5", fields[0]);
    if (!parse_tokens(fields[1], &out->prompt_tokens)) return refuse(r, "prompt_tokens", count, fields[1]);
    if (!parse_tokens(fields[2], &out->output_tokens)) return refuse(r, "output_tokens", count, fields[2]);
    if (fields[3][0] != '\0' && !trace_floor_parse(fields[3], &out->floor))
        return refuse(r, "floor", "a share of the expert compute (0.5 or 50%) or a point (point:3)", fields[3]);
    if (fields[4][0] != '\0' && !parse_fixed(fields[4], 6, &out->ttft_ns)) return refuse(r, "ttft_ms", ms, fields[4]);
    if (fields[5][0] != '\0' && !parse_fixed(fields[5], 6, &out->tpot_ns)) return refuse(r, "tpot_ms", ms, fields[5]);
    if (r->out->n > 0 && out->arrival_ns < r->out->requests[r->out->n - 1].arrival_ns)
        return status_fail(r->err, MP_E_FORMAT, "%s, line %zu: arrives before the request above it; sort the lines",
                           r->name, r->line);
    return MP_OK;
}

/* Cuts line [len] at its commas and drops blanks around the fields. */
static mp_status split_row(const reader *r, const char *line, size_t len, char fields[COLUMNS][FIELD_MAX])
{
    size_t n = 0;
    for (const char *p = line, *end = line + len; n < COLUMNS; n++) {
        const char *comma = memchr(p, ',', (size_t)(end - p)), *stop = comma ? comma : end, *last = stop;
        while (p < last && (*p == ' ' || *p == '\t')) p++;
        while (last > p && (last[-1] == ' ' || last[-1] == '\t')) last--;
        const size_t size = (size_t)(last - p);
        if (size >= FIELD_MAX || memchr(p, '\0', size))
            return status_fail(r->err, MP_E_FORMAT, "%s, line %zu: column %zu is too long or not text", r->name,
                               r->line, n + 1);
        memcpy(fields[n], p, size);
        fields[n][size] = '\0';
        p = stop + 1;
        if (comma) continue;
        n++;
        if (n == COLUMNS) return MP_OK;
        break;
    }
    return status_fail(r->err, MP_E_FORMAT, "%s, line %zu: has %s %d columns; there must be %s", r->name, r->line,
                       n < COLUMNS ? "fewer than" : "more than", COLUMNS, header);
}

static mp_status add_row(reader *r, const char *line, size_t len)
{
    char fields[COLUMNS][FIELD_MAX];
    trace_request request;
    MP_TRY(split_row(r, line, len, fields));
    MP_TRY(parse_row(r, fields, &request));
    if (r->out->n == r->cap) {
        size_t bytes;
        const size_t cap = r->cap ? 2 * r->cap : 256;
        if (!size_mul(cap, sizeof request, &bytes)) return status_no_memory(r->err, SIZE_MAX, r->name);
        trace_request *grown = realloc(r->out->requests, bytes);
        if (!grown) return status_no_memory(r->err, bytes, r->name);
        r->out->requests = grown;
        r->cap = cap;
    }
    r->out->requests[r->out->n++] = request;
    return MP_OK;
}

static mp_status read_lines(reader *r, const char *text, size_t len)
{
    bool headed = false;
    for (const char *p = text, *end = text + len; p < end;) {
        const char *newline = memchr(p, '\n', (size_t)(end - p)), *stop = newline ? newline : end;
        const char *next = newline ? newline + 1 : end;
        r->line++;
        if (stop > p && stop[-1] == '\r') stop--;
        const size_t n = (size_t)(stop - p);
        const bool blank = n == 0 || *p == '#';
        if (!blank && headed) {
            MP_TRY(add_row(r, p, n));
        } else if (!blank) {
            headed = n == sizeof header - 1 && memcmp(p, header, n) == 0;
            if (!headed)
                return status_fail(r->err, MP_E_FORMAT, "%s, line %zu: a trace begins with the line %s", r->name,
                                   r->line, header);
        }
        p = next;
    }
    if (!headed) return status_fail(r->err, MP_E_FORMAT, "%s: is empty; a trace begins with %s", r->name, header);
    return MP_OK;
}

mp_status trace_parse(const char *text, size_t len, const char *name, trace *out, mp_error *err)
{
    reader r = {.name = name, .out = out, .err = err};
    *out = (trace){0};
    const mp_status status = read_lines(&r, text, len);
    if (status != MP_OK) trace_clear(out);
    return status;
}

/* ---- writing ---- */

/* ns in units of 10^decimals ns, without zeros at the end. */
static void write_fixed(uint64_t ns, unsigned decimals, FILE *out)
{
    uint64_t scale = 1;
    for (unsigned i = 0; i < decimals; i++) scale *= 10;
    uint64_t part = ns % scale;
    fprintf(out, "%llu", (unsigned long long)(ns / scale));
    if (part == 0) return;
    for (; part % 10 == 0; part /= 10) decimals--;
    fprintf(out, ".%0*llu", (int)decimals, (unsigned long long)part);
}

static void write_deadline(uint64_t ns, FILE *out)
{
    fputc(',', out);
    if (ns > 0) write_fixed(ns, 6, out);
}

void trace_write(const trace *t, FILE *out)
{
    fprintf(out, "%s\n", header);
    for (size_t i = 0; i < t->n; i++) {
        const trace_request *r = &t->requests[i];
        write_fixed(r->arrival_ns, 9, out);
        fprintf(out, ",%u,%u,", r->prompt_tokens, r->output_tokens);
        trace_floor_write(&r->floor, out);
        write_deadline(r->ttft_ns, out);
        write_deadline(r->tpot_ns, out);
        fputc('\n', out);
    }
}
