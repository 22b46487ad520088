/* prefix.h: which pages of the key-value cache hold which beginnings of texts, so that a later text that begins the
 * same need not run it again.
 *
 * A tree: a node is a whole page of tokens behind its parent's, with the id of the page that holds their keys and
 * values and the range of operating points they ran at. Keys and values depend on the points of all tokens before them,
 * so a request may use a chain of nodes only if the points of all of them lie within what it accepts; the same tokens
 * at other points are another node. Where a request accepts one point only, what it gets is bit for bit what running
 * its prompt would give.
 *
 * Pure data: page ids come in and go out; who enters a page holds it, who gets one back by prefix_evict() releases it.
 * Nodes that nothing continues are evicted, least recently used first, so that every node keeps its beginning. All
 * memory is taken in prefix_new(). One thread at a time. */
#ifndef SERVE_PREFIX_H
#define SERVE_PREFIX_H

#include "base/status.h"

typedef struct prefix_range {
    uint32_t best, floor; /* points, best <= floor */
} prefix_range;

typedef struct prefix prefix;

/* At most n_pages nodes: there are no more pages to name. */
mp_status prefix_new(uint32_t n_pages, prefix **out, mp_error *err);
void prefix_free(prefix *p); /* NULL is fine */

/* The longest chain of whole pages that `tokens` [n_pages * MP_KV_PAGE] begin with, at points within `accepted`.
 * Returns how many; their ids and points into pages, ran [n_pages]. */
uint32_t prefix_find(prefix *p, const int32_t *tokens, uint32_t n_pages, prefix_range accepted, uint32_t *pages,
                     prefix_range *ran);
/* Takes in the pages of a text that ran, each at its points. taken [n_pages]: whether it is this page that was taken
 * in; false where the same tokens at the same points are there already. */
void prefix_enter(prefix *p, const int32_t *tokens, uint32_t n_pages, const uint32_t *pages, const prefix_range *ran,
                  bool *taken);
/* Takes out the node that was not used for longest; false: there is none. */
bool prefix_evict(prefix *p, uint32_t *page);
uint32_t prefix_count(const prefix *p);

#endif
