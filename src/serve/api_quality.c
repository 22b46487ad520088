/* Quality: from what a request says to a range of operating points.
 *
 * experts, compute and point name the best a request wants, a ceiling; min_experts, min_compute, min_point and
 * max_ppl_increase the least it accepts, the floor. A ceiling alone is exact: it is the floor as well. A floor alone
 * leaves the best at full. Neither: full, and the floor of the server, or of the request's tier. Larger points are
 * cheaper, so best <= floor. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "serve/api_parts.h"

typedef struct level {
    const char *name;
    double share; /* of the full expert compute */
} level;

static const level levels[] = {{"low", 0.25}, {"medium", 0.5}, {"high", 0.75}, {"full", 1}};
enum { LEVELS = sizeof levels / sizeof levels[0] };

const char *quality_level_name(size_t i)
{
    return i < LEVELS ? levels[i].name : NULL;
}

bool quality_level(const mp_model *model, const char *name, uint32_t *point)
{
    for (size_t i = 0; i < LEVELS; i++) {
        if (strcmp(levels[i].name, name) != 0) continue;
        *point = 0;
        if (levels[i].share < 1) mp_model_find_point(model, MP_QUALITY_COMPUTE, levels[i].share, point, NULL);
        return true;
    }
    return false;
}

/* ---- as an option ---- */

typedef struct form {
    const char *prefix;
    mp_quality_kind kind;
} form;

static const form forms[] = {
    {"experts=", MP_QUALITY_EXPERTS},
    {"compute=", MP_QUALITY_COMPUTE},
    {"max-ppl-increase=", MP_QUALITY_MAX_PPL_INCREASE},
    {"point=", MP_QUALITY_POINT},
};

mp_status quality_read(const mp_model *model, const char *text, uint32_t *point, mp_error *err)
{
    if (quality_level(model, text, point)) return MP_OK;
    mp_quality_kind kind = MP_QUALITY_FULL;
    const char *number = text;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        const size_t len = strlen(forms[i].prefix);
        if (strncmp(text, forms[i].prefix, len) != 0) continue;
        kind = forms[i].kind;
        number = text + len;
    }
    char *end;
    double value = strtod(number, &end);
    const bool percent = *end == '%';
    if (kind == MP_QUALITY_FULL) kind = percent ? MP_QUALITY_COMPUTE : MP_QUALITY_EXPERTS;
    const bool share = kind == MP_QUALITY_COMPUTE || kind == MP_QUALITY_MAX_PPL_INCREASE;
    if (end == number || end[percent] != '\0' || !isfinite(value) || (percent && !share))
        return status_fail(err, MP_E_INVALID,
                           "'%.80s' is no quality: write full, high, medium, low, a number of experts (2.25), a share "
                           "of the expert compute (25%%), max-ppl-increase=2%% or point=7",
                           text);
    if (percent) value /= 100;
    return mp_model_find_point(model, kind, value, point, err);
}

/* ---- in a request ---- */

/* One way to name a point. */
typedef struct way {
    const char *name;
    mp_quality_kind kind;
    double max;
} way;

static const way ceilings[] = {
    {"experts", MP_QUALITY_EXPERTS, 1e6},
    {"compute", MP_QUALITY_COMPUTE, 1},
    {"point", MP_QUALITY_POINT, 1e6},
};
static const way floors[] = {
    {"min_experts", MP_QUALITY_EXPERTS, 1e6},
    {"min_compute", MP_QUALITY_COMPUTE, 1},
    {"min_point", MP_QUALITY_POINT, 1e6},
    {"max_ppl_increase", MP_QUALITY_MAX_PPL_INCREASE, 1e6},
};

static void read_point(const fields *f, const mp_model *model, const way *w, uint32_t *point)
{
    mp_error err;
    double value = 0;
    const json_t *given = field_get(f, w->name);
    if (json_is_string(given) && w->kind == MP_QUALITY_EXPERTS) {
        if (!quality_level(model, json_string_value(given), point))
            field_fail(f, w->name, "must be a number or one of low, medium, high, full");
        return;
    }
    field_number(f, w->name, 0, w->max, &value);
    if (f->err->http == 0 && mp_model_find_point(model, w->kind, value, point, &err) != MP_OK)
        field_fail(f, w->name, "cannot be met: %s", err.message);
}

/* The point that one of the ways names; the way's name, NULL where none is given. */
static const char *read_ways(const fields *f, const mp_model *model, const way *ways, size_t n, uint32_t *point)
{
    const char *given = NULL;
    for (size_t i = 0; i < n; i++) {
        if (field_get(f, ways[i].name) == NULL) continue;
        if (given != NULL) {
            field_fail(f, ways[i].name, "and %s say the same thing: give one of them", given);
            return given;
        }
        given = ways[i].name;
        read_point(f, model, &ways[i], point);
    }
    return given;
}

static void read_points(const fields *f, const api_context *api, api_request *r)
{
    uint32_t best = 0, least = 0;
    const char *ceiling = read_ways(f, api->model, ceilings, sizeof ceilings / sizeof ceilings[0], &best);
    const char *floor = read_ways(f, api->model, floors, sizeof floors / sizeof floors[0], &least);
    if (ceiling != NULL) r->best = r->floor = best;
    if (floor != NULL) r->floor = least;
    if (floor != NULL && r->floor < r->best)
        field_fail(f, floor, "asks for more than %s allows (point %u, at best %u)", ceiling, least, best);
}

void request_quality(const fields *f, const api_context *api, api_request *r)
{
    fields q;
    int64_t priority = 0;
    r->best = 0;
    r->floor = api->floor[r->tier];
    if (field_object(f, "moeprism", &q)) {
        read_points(&q, api, r);
        field_ms(&q, "ttft_ms", &r->ttft_ns);
        field_ms(&q, "tpot_ms", &r->tpot_ns);
        field_integer(&q, "priority", -1000000, 1000000, &priority);
    }
    static const int32_t tier_priority[TIERS] = {[TIER_DEFAULT] = 0, [TIER_FLEX] = 1, [TIER_PRIORITY] = -1};
    r->priority = (int32_t)priority + tier_priority[r->tier];
}

/* ---- tiers ---- */

typedef struct tier_word {
    const char *word;
    api_tier tier;
} tier_word;

/* The first of a tier is its name in replies. */
static const tier_word tier_words[] = {
    {"default", TIER_DEFAULT},       {"flex", TIER_FLEX}, {"priority", TIER_PRIORITY}, {"auto", TIER_DEFAULT},
    {"standard_only", TIER_DEFAULT},
};

const char *tier_name(api_tier tier)
{
    size_t i = 0;
    while (tier_words[i].tier != tier) i++;
    return tier_words[i].word;
}

void request_tier(const fields *f, api_request *r)
{
    const char *word = NULL;
    field_string(f, "service_tier", &word);
    if (word == NULL) return;
    r->tier_given = true;
    for (size_t i = 0; i < sizeof tier_words / sizeof tier_words[0]; i++) {
        if (strcmp(word, tier_words[i].word) != 0) continue;
        r->tier = tier_words[i].tier;
        return;
    }
    field_fail(f, "service_tier", "must be one of auto, default, flex, priority");
}
