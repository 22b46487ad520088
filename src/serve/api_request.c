/* The fields of a request that are the same in every API. Defaults are OpenAI's: temperature 1, top_p 1. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "serve/api_parts.h"

static uint64_t random_seed(void)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed) seed = clock_now_ns();
    return seed;
}

void request_begin(const api_context *api, api_request *r)
{
    r->n = 1;
    r->sampling = (mp_sampler_params){.temperature = 1, .top_p = 1, .seed = random_seed()};
    r->ttft_ns = api->ttft_ns;
    r->tpot_ns = api->tpot_ns;
}

void api_request_clear(api_request *r)
{
    for (size_t i = 0; i < r->n_prompts; i++) {
        free(r->prompts[i].ids);
        free(r->prompts[i].text);
    }
    for (size_t i = 0; i < r->n_stop; i++) free(r->stop[i]);
    free(r->prompts);
    free(r->bias);
    *r = (api_request){0};
}

static void read_float(const fields *f, const char *name, double min, double max, float *out)
{
    double value = *out;
    field_number(f, name, min, max, &value);
    *out = (float)value;
}

/* A key of logit_bias is a token id in plain decimal: a token has one key only. */
static bool bias_entry(const fields *f, const char *key, const json_t *value, uint32_t n_vocab, mp_logit_bias *out)
{
    char plain[24];
    const long id = strtol(key, NULL, 10);
    snprintf(plain, sizeof plain, "%ld", id);
    if (strcmp(plain, key) != 0 || id < 0 || id >= (long)n_vocab)
        return field_fail(f, "logit_bias", "has the key \"%.40s\", which is no token id from 0 to %u", key,
                          n_vocab - 1);
    const double bias = json_number_value(value);
    if (!json_is_number(value) || !(bias >= -100 && bias <= 100))
        return field_fail(f, "logit_bias", "of token %ld must be a number from -100 to 100", id);
    *out = (mp_logit_bias){(int32_t)id, (float)bias};
    return true;
}

static void read_bias(const fields *f, uint32_t n_vocab, api_request *r)
{
    fields map;
    const char *key;
    json_t *value;
    if (!field_object(f, "logit_bias", &map)) return;
    if (json_object_size(map.object) > n_vocab) {
        field_fail(f, "logit_bias", "has more entries than there are tokens, %u", n_vocab);
        return;
    }
    r->bias = calloc(json_object_size(map.object) + 1, sizeof *r->bias);
    if (r->bias == NULL) {
        api_fail_memory(f->err);
        return;
    }
    size_t n = 0;
    json_object_foreach((json_t *)map.object, key, value)
    {
        if (!bias_entry(f, key, value, n_vocab, &r->bias[n])) return;
        n++;
    }
    r->sampling.bias = r->bias;
    r->sampling.n_bias = n;
}

void request_sampling(const fields *f, const api_context *api, api_request *r)
{
    mp_sampler_params *s = &r->sampling;
    int64_t top_k = 0, seed = -1;
    read_float(f, "temperature", 0, 100, &s->temperature);
    read_float(f, "top_p", 0, 1, &s->top_p);
    if (s->top_p == 0) s->top_p = 1e-9F; /* the likeliest token only; 0 would be "off" to the sampler */
    read_float(f, "min_p", 0, 1, &s->min_p);
    field_integer(f, "top_k", -1, INT32_MAX, &top_k);
    s->top_k = top_k > 0 ? (uint32_t)top_k : 0;
    field_integer(f, "seed", INT64_MIN, INT64_MAX, &seed);
    if (field_get(f, "seed") != NULL && seed != -1) s->seed = (uint64_t)seed;
    read_float(f, "presence_penalty", -2, 2, &s->presence_penalty);
    read_float(f, "frequency_penalty", -2, 2, &s->frequency_penalty);
    read_float(f, "repeat_penalty", 0, 100, &s->repeat_penalty);
    read_float(f, "repetition_penalty", 0, 100, &s->repeat_penalty);
    field_u32(f, "repeat_last_n", 0, MP_REPEAT_LAST_MAX, &s->repeat_last);
    read_bias(f, mp_model_get_info(api->model)->n_vocab, r);
    field_bool(f, "ignore_eos", &r->ignore_eos);
}

static bool add_stop(const fields *f, const char *name, const json_t *value, api_request *r)
{
    const char *text = json_string_value(value);
    if (text == NULL) return field_fail(f, name, "must be a string or an array of strings");
    if (strlen(text) != json_string_length(value)) return field_fail(f, name, "must not contain the character U+0000");
    if (text[0] == '\0') return field_fail(f, name, "must not hold an empty string");
    if (json_string_length(value) > API_MAX_STOP_BYTES)
        return field_fail(f, name, "holds a string of %zu bytes: at most %d are allowed", json_string_length(value),
                          API_MAX_STOP_BYTES);
    r->stop[r->n_stop] = strdup(text);
    if (r->stop[r->n_stop] == NULL) return api_fail_memory(f->err);
    r->n_stop++;
    return true;
}

void request_stop(const fields *f, const char *name, api_request *r)
{
    const json_t *value = field_get(f, name), *item;
    size_t i;
    if (value == NULL) return;
    if (!json_is_array(value)) {
        add_stop(f, name, value, r);
        return;
    }
    if (json_array_size(value) > API_MAX_STOPS) {
        field_fail(f, name, "may hold at most %d strings", API_MAX_STOPS);
        return;
    }
    json_array_foreach(value, i, item)
    {
        if (!add_stop(f, name, item, r)) return;
    }
}

void request_stream(const fields *f, api_request *r)
{
    fields options;
    field_bool(f, "stream", &r->stream);
    if (!field_object(f, "stream_options", &options)) return;
    field_bool(&options, "include_usage", &r->include_usage);
    field_bool(&options, "continuous_usage_stats", &r->usage_always);
}

void request_refuse(const fields *f, const char *name, const char *why)
{
    const json_t *value = field_get(f, name);
    if (value == NULL || json_is_false(value)) return;
    if (json_is_array(value) && json_array_size(value) == 0) return;
    if (json_is_object(value) && json_object_size(value) == 0) return;
    if (json_is_string(value) && strcmp(json_string_value(value), "none") == 0) return;
    field_fail(f, name, "%s", why);
}

/* Only text: what would bind the reply to a form cannot be kept. */
static void refuse_formats(const fields *f)
{
    fields format;
    const char *type = "text";
    if (!field_object(f, "response_format", &format)) return;
    field_string(&format, "type", &type);
    if (strcmp(type, "text") != 0)
        field_fail(f, "response_format", "\"%.40s\" is not supported: replies are plain text ({\"type\": \"text\"})",
                   type);
}

void request_openai(const fields *f, const api_context *api, api_request *r)
{
    uint32_t best_of = 0;
    field_u32(f, "n", 1, api->slots, &r->n);
    field_u32(f, "best_of", 1, api->slots, &best_of);
    if (best_of > r->n) field_fail(f, "best_of", "above n is not supported");
    field_u32(f, "max_tokens", 1, INT32_MAX, &r->max_tokens);
    field_u32(f, "max_completion_tokens", 1, INT32_MAX, &r->max_tokens);
    request_stream(f, r);
    request_stop(f, "stop", r);
    request_sampling(f, api, r);
    request_tier(f, r);
    request_quality(f, api, r);
    refuse_formats(f);
}
