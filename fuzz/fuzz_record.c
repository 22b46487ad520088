/* Any bytes as a record of routing. What is accepted keeps to the shape that it names, and reads the same once written
 * again. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(const record_trace *t)
{
    const record_shape *s = &t->shape;
    for (size_t i = 0; i < t->n; i++) {
        const record_step *step = &t->steps[i];
        if (step->layer >= s->n_layers) abort();
        for (uint32_t k = 0; k < step->n_experts; k++)
            if (step->experts[k] >= s->n_experts) abort();
        for (uint32_t k = 0; k < step->n_subs; k++)
            if (step->subs[k] >= s->n_experts * s->n_parts) abort();
    }
}

static char *written(const record_trace *t, size_t *len)
{
    char *text = NULL;
    FILE *f = open_memstream(&text, len);
    if (f == NULL || record_write_header(f, &t->shape) != MP_OK) abort();
    for (size_t i = 0; i < t->n; i++)
        if (record_write(f, &t->steps[i]) != MP_OK) abort();
    fclose(f);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    record_trace t, again;
    mp_error err;
    if (record_parse((const char *)data, len, "fuzz", &t, &err) != MP_OK) return 0;
    check(&t);
    size_t n, m;
    char *text = written(&t, &n);
    if (record_parse(text, n, "again", &again, &err) != MP_OK) abort();
    char *twice = written(&again, &m);
    if (n != m || memcmp(text, twice, n) != 0) abort();
    free(twice);
    free(text);
    record_free(&again);
    record_free(&t);
    return 0;
}
