/* Least-cost balanced assignment of C neurons to N sets, exactly, in the graph of the sets.
 *
 * C is large and N small, so the residual graph is kept on N nodes: the edge n -> m costs the least c[j][m] - c[j][n]
 * over the neurons j now in n. Prices u on the sets start anywhere; every neuron goes to its cheapest c[j][n] + u[n].
 * Then, while a set is too full, the shortest path in reduced costs from any overfull set to any set with room moves
 * one neuron along each of its edges, and the prices fall by the distances, which keeps every neuron in a cheapest
 * set. When all sets have their C / N neurons that is the proof of optimality: no balanced assignment can pay less
 * than the sum of the minima minus the prices.
 *
 * Good prices leave few neurons to move: successive rounds of the descent reuse them. */
#include "refactor/partition_impl.h"

#include <math.h>
#include <stdlib.h>

#define NONE UINT32_MAX

static void *array(size_t n, size_t m, size_t size, bool *ok)
{
    size_t count, bytes;
    void *p = NULL;
    if (size_mul(n, m, &count) && size_mul(count, size, &bytes)) p = calloc(1, bytes ? bytes : 1);
    *ok = *ok && p;
    return p;
}

mp_status transport_init(transport *t, uint32_t n_neurons, uint32_t n_parts, mp_error *err)
{
    size_t c = n_neurons, n = n_parts;
    bool ok = true;
    *t = (transport){.n_neurons = n_neurons, .n_parts = n_parts};
    t->price = array(n, 1, sizeof *t->price, &ok);
    t->head = array(n, 1, sizeof *t->head, &ok);
    t->next = array(c, 1, sizeof *t->next, &ok);
    t->prev = array(c, 1, sizeof *t->prev, &ok);
    t->count = array(n, 1, sizeof *t->count, &ok);
    t->best = array(n, n, sizeof *t->best, &ok);
    t->edge = array(n, n, sizeof *t->edge, &ok);
    t->dist = array(n, 1, sizeof *t->dist, &ok);
    t->from = array(n, 1, sizeof *t->from, &ok);
    t->stale = array(n, 1, sizeof *t->stale, &ok);
    t->done = array(n, 1, sizeof *t->done, &ok);
    if (ok) return MP_OK;
    transport_clear(t);
    return status_fail(err, MP_E_MEMORY, "out of memory: transport of %zu neurons to %zu sets", c, n);
}

void transport_clear(transport *t)
{
    free(t->price);
    free(t->head);
    free(t->next);
    free(t->prev);
    free(t->count);
    free(t->best);
    free(t->edge);
    free(t->dist);
    free(t->from);
    free(t->stale);
    free(t->done);
    *t = (transport){0};
}

static void link_neuron(transport *t, uint32_t j, uint32_t n)
{
    t->prev[j] = NONE;
    t->next[j] = t->head[n];
    if (t->head[n] != NONE) t->prev[t->head[n]] = j;
    t->head[n] = j;
    t->count[n]++;
}

static void unlink_neuron(transport *t, uint32_t j, uint32_t n)
{
    if (t->prev[j] != NONE) t->next[t->prev[j]] = t->next[j];
    if (t->next[j] != NONE) t->prev[t->next[j]] = t->prev[j];
    if (t->head[n] == j) t->head[n] = t->next[j];
    t->count[n]--;
}

/* j came to n: its moves compete with those known. */
static void edges_add(transport *t, const double *cost, uint32_t j, uint32_t n)
{
    const double *c = cost + (size_t)j * t->n_parts;
    double *edge = t->edge + (size_t)n * t->n_parts;
    uint32_t *best = t->best + (size_t)n * t->n_parts;
    for (uint32_t m = 0; m < t->n_parts; m++) {
        double move = c[m] - c[n];
        if (move < edge[m]) edge[m] = move, best[m] = j;
    }
}

/* j left n: the edges it held are searched anew among those who stay. */
static void edges_remove(transport *t, const double *cost, uint32_t j, uint32_t n)
{
    double *edge = t->edge + (size_t)n * t->n_parts;
    uint32_t *best = t->best + (size_t)n * t->n_parts, n_stale = 0;
    for (uint32_t m = 0; m < t->n_parts; m++)
        if (best[m] == j) {
            t->stale[n_stale++] = m;
            edge[m] = INFINITY;
            best[m] = NONE;
        }
    for (uint32_t i = t->head[n]; n_stale && i != NONE; i = t->next[i]) {
        const double *c = cost + (size_t)i * t->n_parts;
        for (uint32_t s = 0; s < n_stale; s++) {
            uint32_t m = t->stale[s];
            double move = c[m] - c[n];
            if (move < edge[m]) edge[m] = move, best[m] = i;
        }
    }
}

/* Every neuron to its cheapest set at the present prices; among equals where it is, else the first. */
static void assign_cheapest(transport *t, const double *cost, uint16_t *part)
{
    uint32_t n_parts = t->n_parts;
    for (uint32_t n = 0; n < n_parts; n++) t->head[n] = NONE, t->count[n] = 0;
    for (size_t e = 0; e < (size_t)n_parts * n_parts; e++) t->edge[e] = INFINITY, t->best[e] = NONE;
    for (uint32_t j = t->n_neurons; j-- > 0;) {
        const double *c = cost + (size_t)j * n_parts;
        uint32_t n = part[j] < n_parts ? part[j] : 0;
        double least = c[n] + t->price[n];
        for (uint32_t m = 0; m < n_parts; m++)
            if (c[m] + t->price[m] < least) least = c[m] + t->price[m], n = m;
        part[j] = (uint16_t)n;
        link_neuron(t, j, n);
        edges_add(t, cost, j, n);
    }
}

static uint32_t nearest(const transport *t)
{
    uint32_t n = NONE;
    for (uint32_t m = 0; m < t->n_parts; m++)
        if (!t->done[m] && t->dist[m] < INFINITY && (n == NONE || t->dist[m] < t->dist[n])) n = m;
    return n;
}

/* Dijkstra on reduced costs from all overfull sets; the nearest set with room, or NONE when none is overfull. */
static uint32_t shortest_path(transport *t, uint32_t size)
{
    uint32_t n_parts = t->n_parts, n;
    for (n = 0; n < n_parts; n++) {
        t->done[n] = false;
        t->from[n] = NONE;
        t->dist[n] = t->count[n] > size ? 0 : INFINITY;
    }
    while ((n = nearest(t)) != NONE) {
        if (t->count[n] < size) return n;
        t->done[n] = true;
        const double *edge = t->edge + (size_t)n * n_parts;
        for (uint32_t m = 0; m < n_parts; m++) {
            /* never below 0 but for rounding, which must not make a cycle look cheap */
            double reduced = fmax(edge[m] + t->price[m] - t->price[n], 0);
            if (!t->done[m] && t->dist[n] + reduced < t->dist[m]) {
                t->dist[m] = t->dist[n] + reduced;
                t->from[m] = n;
            }
        }
    }
    return NONE;
}

static void move_along(transport *t, const double *cost, uint32_t target, uint16_t *part)
{
    for (uint32_t m = target, n; (n = t->from[m]) != NONE; m = n) {
        uint32_t j = t->best[(size_t)n * t->n_parts + m];
        unlink_neuron(t, j, n);
        edges_remove(t, cost, j, n);
        link_neuron(t, j, m);
        edges_add(t, cost, j, m);
        part[j] = (uint16_t)m;
    }
}

void transport_solve(transport *t, const double *cost, uint16_t *part)
{
    uint32_t size = t->n_neurons / t->n_parts, target;
    assign_cheapest(t, cost, part);
    while ((target = shortest_path(t, size)) != NONE) {
        double reach = t->dist[target];
        for (uint32_t n = 0; n < t->n_parts; n++) t->price[n] -= fmin(t->dist[n], reach);
        move_along(t, cost, target, part);
    }
}

mp_status partition_transport(const double *cost, uint32_t n_neurons, uint32_t n_parts, uint16_t *part, mp_error *err)
{
    transport t;
    if (!cost || !part) return status_fail(err, MP_E_INVALID, "transport: no costs or no place for the answer");
    if (n_parts == 0 || n_parts > UINT16_MAX || n_neurons == 0 || n_neurons % n_parts)
        return status_fail(err, MP_E_INVALID, "transport: %u neurons do not go into %u equal sets", n_neurons, n_parts);
    for (size_t e = 0; e < (size_t)n_neurons * n_parts; e++)
        if (!(fabs(cost[e]) < 1e300)) /* sums along a path must stay finite too */
            return status_fail(err, MP_E_INVALID, "transport: cost of neuron %zu in set %zu is out of range",
                               e / n_parts, e % n_parts);
    MP_TRY(transport_init(&t, n_neurons, n_parts, err));
    for (uint32_t j = 0; j < n_neurons; j++) part[j] = (uint16_t)(j / (n_neurons / n_parts));
    transport_solve(&t, cost, part);
    transport_clear(&t);
    return MP_OK;
}
