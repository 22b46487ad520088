#include "serve/prefix.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define ROOT 0 /* the empty text */
#define NONE UINT32_MAX

typedef struct node {
    uint32_t parent, children; /* the root has no parent and is never taken out */
    uint32_t page;
    prefix_range ran;
    uint32_t hash_next;    /* in the bucket; of an unused node: the next unused one */
    uint32_t older, newer; /* among those that can be evicted */
    uint64_t used;         /* when, by the cache's own count */
    int32_t tokens[MP_KV_PAGE];
} node;

struct prefix {
    node *nodes; /* [n_nodes], the first is the root */
    uint32_t n_nodes, count, unused;
    uint32_t *buckets; /* [n_buckets], a power of two */
    uint32_t n_buckets;
    uint32_t oldest, newest;
    uint64_t now;
};

mp_status prefix_new(uint32_t n_pages, prefix **out, mp_error *err)
{
    *out = NULL;
    prefix *p = calloc(1, sizeof *p);
    if (!p) return status_no_memory(err, sizeof *p, "the prefix cache");
    if (n_pages > UINT32_MAX / 4) n_pages = UINT32_MAX / 4;
    *p = (prefix){.n_nodes = n_pages + 1, .n_buckets = 1, .oldest = NONE, .newest = NONE};
    while (p->n_buckets < n_pages) p->n_buckets *= 2;
    p->nodes = calloc(p->n_nodes, sizeof *p->nodes);
    p->buckets = calloc(p->n_buckets, sizeof *p->buckets);
    if (!p->nodes || !p->buckets) {
        prefix_free(p);
        return status_no_memory(err, (size_t)n_pages * sizeof(node), "the prefix cache");
    }
    for (uint32_t i = 0; i < p->n_buckets; i++) p->buckets[i] = NONE;
    for (uint32_t i = 1; i < p->n_nodes; i++) p->nodes[i].hash_next = i + 1 < p->n_nodes ? i + 1 : NONE;
    p->nodes[ROOT].parent = NONE;
    p->unused = p->n_nodes > 1 ? 1 : NONE;
    *out = p;
    return MP_OK;
}

void prefix_free(prefix *p)
{
    if (!p) return;
    free(p->nodes);
    free(p->buckets);
    free(p);
}

uint32_t prefix_count(const prefix *p)
{
    return p->count;
}

/* ---- the list of those that can be evicted, oldest first ---- */

static bool evictable(const prefix *p, uint32_t i)
{
    return i != ROOT && p->nodes[i].children == 0;
}

static void list_remove(prefix *p, uint32_t i)
{
    const node *n = &p->nodes[i];
    *(n->older == NONE ? &p->oldest : &p->nodes[n->older].newer) = n->newer;
    *(n->newer == NONE ? &p->newest : &p->nodes[n->newer].older) = n->older;
}

/* By time of use: mostly at the newest end. */
static void list_insert(prefix *p, uint32_t i)
{
    uint32_t older = p->newest;
    while (older != NONE && p->nodes[older].used > p->nodes[i].used) older = p->nodes[older].older;
    const uint32_t newer = older == NONE ? p->oldest : p->nodes[older].newer;
    p->nodes[i].older = older;
    p->nodes[i].newer = newer;
    *(older == NONE ? &p->oldest : &p->nodes[older].newer) = i;
    *(newer == NONE ? &p->newest : &p->nodes[newer].older) = i;
}

static void touch(prefix *p, uint32_t i)
{
    if (evictable(p, i)) list_remove(p, i);
    p->nodes[i].used = ++p->now;
    if (evictable(p, i)) list_insert(p, i);
}

/* ---- the tree ---- */

static uint32_t *bucket_of(const prefix *p, uint32_t parent, const int32_t *tokens)
{
    uint64_t hash = parent + UINT64_C(0x9e3779b97f4a7c15);
    for (uint32_t i = 0; i < MP_KV_PAGE; i++) {
        hash = (hash ^ (uint32_t)tokens[i]) * UINT64_C(0xff51afd7ed558ccd);
        hash ^= hash >> 32;
    }
    return &p->buckets[hash & (p->n_buckets - 1)];
}

static bool is_child(const node *n, uint32_t parent, const int32_t *tokens)
{
    return n->parent == parent && memcmp(n->tokens, tokens, sizeof n->tokens) == 0;
}

static bool within(prefix_range inner, prefix_range outer)
{
    return inner.best >= outer.best && inner.floor <= outer.floor;
}

/* Of the nodes that continue `parent` with these tokens the best that is accepted, NONE where there is none. */
static uint32_t child_of(const prefix *p, uint32_t parent, const int32_t *tokens, prefix_range accepted)
{
    uint32_t found = NONE;
    for (uint32_t i = *bucket_of(p, parent, tokens); i != NONE; i = p->nodes[i].hash_next) {
        const node *n = &p->nodes[i];
        if (!is_child(n, parent, tokens) || !within(n->ran, accepted)) continue;
        if (found == NONE || n->ran.floor < p->nodes[found].ran.floor) found = i;
    }
    return found;
}

uint32_t prefix_find(prefix *p, const int32_t *tokens, uint32_t n_pages, prefix_range accepted, uint32_t *pages,
                     prefix_range *ran)
{
    uint32_t at = ROOT, n = 0;
    for (; n < n_pages; n++) {
        at = child_of(p, at, tokens + (size_t)n * MP_KV_PAGE, accepted);
        if (at == NONE) break;
        pages[n] = p->nodes[at].page;
        ran[n] = p->nodes[at].ran;
        touch(p, at);
    }
    return n;
}

static uint32_t add(prefix *p, uint32_t parent, const int32_t *tokens, uint32_t page, prefix_range ran)
{
    const uint32_t i = p->unused;
    assert(i != NONE); /* every node has a page of its own */
    node *n = &p->nodes[i];
    uint32_t *bucket = bucket_of(p, parent, tokens);
    p->unused = n->hash_next;
    *n = (node){.parent = parent, .page = page, .ran = ran, .hash_next = *bucket, .used = ++p->now};
    memcpy(n->tokens, tokens, sizeof n->tokens);
    *bucket = i;
    if (evictable(p, parent)) list_remove(p, parent);
    p->nodes[parent].children++;
    list_insert(p, i);
    p->count++;
    return i;
}

void prefix_enter(prefix *p, const int32_t *tokens, uint32_t n_pages, const uint32_t *pages, const prefix_range *ran,
                  bool *taken)
{
    uint32_t at = ROOT;
    for (uint32_t n = 0; n < n_pages; n++) {
        const int32_t *page = tokens + (size_t)n * MP_KV_PAGE;
        uint32_t i = *bucket_of(p, at, page);
        while (i != NONE && !(is_child(&p->nodes[i], at, page) && p->nodes[i].ran.best == ran[n].best &&
                              p->nodes[i].ran.floor == ran[n].floor))
            i = p->nodes[i].hash_next;
        taken[n] = i == NONE;
        if (taken[n])
            i = add(p, at, page, pages[n], ran[n]);
        else
            touch(p, i);
        at = i;
    }
}

bool prefix_evict(prefix *p, uint32_t *page)
{
    const uint32_t i = p->oldest;
    if (i == NONE) return false;
    node *n = &p->nodes[i];
    const uint32_t parent = n->parent;
    *page = n->page;
    list_remove(p, i);
    uint32_t *link = bucket_of(p, parent, n->tokens);
    while (*link != i) link = &p->nodes[*link].hash_next;
    *link = n->hash_next;
    n->hash_next = p->unused;
    p->unused = i;
    p->count--;
    p->nodes[parent].children--;
    if (evictable(p, parent)) list_insert(p, parent);
    return true;
}
