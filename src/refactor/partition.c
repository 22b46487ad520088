#include "refactor/partition_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void partition_default_keeps(partition_problem *p)
{
    static const double shares[] = {0.125, 0.25, 0.5, 0.75};
    p->n_keeps = 0;
    for (size_t i = 0; i < sizeof shares / sizeof *shares && p->n_parts > 1; i++) {
        uint32_t k = (uint32_t)lround(shares[i] * p->n_parts);
        if (k < 1) k = 1;
        if (k > p->n_parts - 1) k = p->n_parts - 1;
        if (p->n_keeps && p->keeps[p->n_keeps - 1] == k) continue;
        p->keeps[p->n_keeps] = k;
        p->keep_weights[p->n_keeps++] = 1;
    }
}

/* ---- checks ---- */

static mp_status check_shape(const partition_problem *p, mp_error *err)
{
    size_t count, bytes;
    if (p->n_neurons == 0 || p->n_parts == 0 || p->n_parts > UINT16_MAX || p->n_neurons % p->n_parts)
        return status_fail(err, MP_E_INVALID, "partition: %u neurons do not go into %u equal sets", p->n_neurons,
                           p->n_parts);
    if (!size_mul(p->n_tokens, p->n_neurons, &count) || !size_mul(count, sizeof *p->w, &bytes))
        return status_fail(err, MP_E_LIMIT, "partition: %zu tokens of %u neurons are too many", p->n_tokens,
                           p->n_neurons);
    if (!p->w && count) return status_fail(err, MP_E_INVALID, "partition: no weights");
    return MP_OK;
}

static mp_status check_keeps(const partition_problem *p, mp_error *err)
{
    if (p->n_parts == 1) return MP_OK;
    if (p->n_keeps < 1 || p->n_keeps > PARTITION_MAX_KEEPS)
        return status_fail(err, MP_E_INVALID, "partition: %u keeps; must be 1 to %d", p->n_keeps, PARTITION_MAX_KEEPS);
    for (uint32_t k = 0; k < p->n_keeps; k++) {
        if (p->keeps[k] < 1 || p->keeps[k] >= p->n_parts)
            return status_fail(err, MP_E_INVALID, "partition: cannot keep %u of %u sets; must be 1 to %u", p->keeps[k],
                               p->n_parts, p->n_parts - 1);
        if (!(p->keep_weights[k] > 0) || !isfinite(p->keep_weights[k]))
            return status_fail(err, MP_E_INVALID, "partition: the weight of keeping %u sets is %g; must be positive",
                               p->keeps[k], (double)p->keep_weights[k]);
    }
    return MP_OK;
}

mp_status partition_check(const partition_problem *p, mp_error *err)
{
    MP_TRY(check_shape(p, err));
    MP_TRY(check_keeps(p, err));
    for (size_t e = 0, count = p->n_tokens * p->n_neurons; e < count; e++)
        if (!(p->w[e] >= 0) || !isfinite(p->w[e]))
            return status_fail(err, MP_E_INVALID, "partition: weight of token %zu, neuron %zu is %g; must be >= 0",
                               e / p->n_neurons, e % p->n_neurons, (double)p->w[e]);
    return MP_OK;
}

mp_status partition_check_balance(const partition_problem *p, const uint16_t *part, mp_error *err)
{
    mp_status status = MP_OK;
    uint32_t size = p->n_neurons / p->n_parts, *count = calloc(p->n_parts, sizeof *count);
    if (!count) return status_no_memory(err, p->n_parts * sizeof *count, "a partition");
    for (uint32_t j = 0; j < p->n_neurons && status == MP_OK; j++)
        if (part[j] >= p->n_parts || ++count[part[j]] > size)
            status = status_fail(err, MP_E_INVALID, "partition: neuron %u is in set %u, of %u sets of %u neurons", j,
                                 part[j], p->n_parts, size);
    free(count);
    return status;
}

/* ---- objective ---- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The definition itself, in F64 and with an ordinary sort: the solvers' fast evaluation is tested against it. */
double partition_objective(const partition_problem *p, const uint16_t *part)
{
    double lost = 0, total = 0, weight = 0;
    double *load = malloc(p->n_parts * sizeof *load);
    if (!load) return NAN;
    for (uint32_t k = 0; k < p->n_keeps; k++) weight += (double)p->keep_weights[k];
    for (size_t b = 0; b < p->n_tokens; b++) {
        const float *w = p->w + b * p->n_neurons;
        memset(load, 0, p->n_parts * sizeof *load);
        for (uint32_t j = 0; j < p->n_neurons; j++) load[part[j]] += (double)w[j];
        qsort(load, p->n_parts, sizeof *load, ascending);
        double below = 0; /* sum of the n smallest */
        for (uint32_t n = 0; n < p->n_parts; n++) {
            for (uint32_t k = 0; n > 0 && k < p->n_keeps; k++)
                if (p->n_parts - p->keeps[k] == n) lost += (double)p->keep_weights[k] / weight * below;
            below += load[n];
        }
        total += below;
    }
    free(load);
    return total > 0 ? lost / total : 0;
}

/* ---- orders ---- */

typedef struct ranked {
    double weight;
    uint32_t index;
} ranked;

/* Heaviest first, the lower index among equals. */
static int heavier(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->weight != y->weight) return x->weight > y->weight ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

/* neurons [C]: by total weight over the tokens. The caller frees. */
static mp_status rank_neurons(const partition_problem *p, ranked **out, mp_error *err)
{
    size_t bytes;
    if (!size_mul(p->n_neurons, sizeof **out, &bytes)) return status_fail(err, MP_E_LIMIT, "too many neurons");
    ranked *r = malloc(bytes);
    if (!r) return status_no_memory(err, bytes, "the order of an expert's neurons");
    for (uint32_t j = 0; j < p->n_neurons; j++) r[j] = (ranked){0, j};
    for (size_t b = 0; b < p->n_tokens; b++)
        for (uint32_t j = 0; j < p->n_neurons; j++) r[j].weight += (double)p->w[b * p->n_neurons + j];
    qsort(r, p->n_neurons, sizeof *r, heavier);
    *out = r;
    return MP_OK;
}

mp_status partition_sort(const partition_problem *p, uint16_t *part, mp_error *err)
{
    ranked *neurons;
    MP_TRY(partition_check(p, err));
    MP_TRY(rank_neurons(p, &neurons, err));
    for (uint32_t j = 0, size = p->n_neurons / p->n_parts; j < p->n_neurons; j++)
        part[neurons[j].index] = (uint16_t)(j / size);
    free(neurons);
    return MP_OK;
}

mp_status partition_greedy(const partition_problem *p, uint16_t *part, mp_error *err)
{
    ranked *neurons = NULL, *sets = NULL;
    uint32_t *count = NULL, size;
    mp_status status;
    MP_TRY(partition_check(p, err));
    if ((status = rank_neurons(p, &neurons, err)) != MP_OK) goto out;
    size = p->n_neurons / p->n_parts;
    sets = calloc(p->n_parts, sizeof *sets);
    count = calloc(p->n_parts, sizeof *count);
    if (!sets || !count) {
        status = status_no_memory(err, p->n_parts * sizeof *sets, "a partition");
        goto out;
    }
    for (uint32_t j = 0; j < p->n_neurons; j++) {
        uint32_t lightest = UINT32_MAX;
        for (uint32_t n = 0; n < p->n_parts; n++)
            if (count[n] < size && (lightest == UINT32_MAX || sets[n].weight < sets[lightest].weight)) lightest = n;
        sets[lightest].weight += neurons[j].weight;
        count[lightest]++;
        part[neurons[j].index] = (uint16_t)lightest;
    }
out:
    free(neurons);
    free(sets);
    free(count);
    return status;
}

mp_status partition_order(const partition_problem *p, const uint16_t *part, uint32_t *order, mp_error *err)
{
    ranked *neurons = NULL, *sets = NULL;
    uint32_t *at = NULL; /* where the set's next neuron goes */
    mp_status status;
    MP_TRY(partition_check(p, err));
    MP_TRY(partition_check_balance(p, part, err));
    if ((status = rank_neurons(p, &neurons, err)) != MP_OK) goto out;
    sets = calloc(p->n_parts, sizeof *sets);
    at = calloc(p->n_parts, sizeof *at);
    if (!sets || !at) {
        status = status_no_memory(err, p->n_parts * sizeof *sets, "a partition");
        goto out;
    }
    for (uint32_t n = 0; n < p->n_parts; n++) sets[n].index = n;
    for (uint32_t j = 0; j < p->n_neurons; j++) sets[part[neurons[j].index]].weight += neurons[j].weight;
    qsort(sets, p->n_parts, sizeof *sets, heavier);
    for (uint32_t n = 0; n < p->n_parts; n++) at[sets[n].index] = n * (p->n_neurons / p->n_parts);
    for (uint32_t j = 0; j < p->n_neurons; j++) order[at[part[neurons[j].index]]++] = neurons[j].index;
out:
    free(neurons);
    free(sets);
    free(at);
    return status;
}
