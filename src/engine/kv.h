/* kv.h: the paged key-value cache.
 *
 * A page holds MP_KV_PAGE positions of every layer. Pages are handed out from one pool as sequences grow and counted by
 * their users: sequences, and whoever holds one to start later sequences with it. A page comes back when its last user
 * drops it. Sequences share whole pages only; one that grows into a page with other users (after it was cut, or while
 * somebody holds its last page) copies it first. All memory is planned. Within a page, layer by layer: MP_KV_PAGE keys,
 * then as many values. One thread at a time, except kv_page_keys/kv_page_values, which many may call. */
#ifndef ENGINE_KV_H
#define ENGINE_KV_H

#include "base/arena.h"

typedef struct kv_cache {
    uint32_t n_layers, n_seqs, pages_per_seq, n_pages, n_free;
    size_t key_bytes, value_bytes; /* of one position in one layer; value_bytes 0: values are part of the keys */
    size_t page_bytes;
    uint8_t *pages;      /* [n_pages, page_bytes] */
    uint32_t *free_list; /* [n_pages], a stack */
    uint32_t *users;     /* [n_pages], 0: free */
    uint32_t *table;     /* [n_seqs, pages_per_seq] */
    uint32_t *len;       /* [n_seqs] positions held */
} kv_cache;

/* The fields above `pages` are set by the caller, except page_bytes. */
void kv_layout(arena *a, kv_cache *kv);
void kv_start(kv_cache *kv); /* after the arena has memory */
/* Pages that kv_grow() would take. */
uint32_t kv_need(const kv_cache *kv, uint32_t seq, uint32_t len);
/* Makes room for positions [0, len) of a sequence; MP_E_LIMIT leaves it as it was. */
mp_status kv_grow(kv_cache *kv, uint32_t seq, uint32_t len, mp_error *err);
void kv_truncate(kv_cache *kv, uint32_t seq, uint32_t len);
/* An empty sequence begins with n pages in use, n <= pages_per_seq. */
void kv_begin(kv_cache *kv, uint32_t seq, const uint32_t *pages, uint32_t n);
void kv_hold(kv_cache *kv, uint32_t page);    /* of a page in use */
void kv_release(kv_cache *kv, uint32_t page); /* what kv_hold() held */
mp_status kv_full(const kv_cache *kv, mp_error *err);

/* Keys of the page's positions in one layer: MP_KV_PAGE rows of key_bytes. */
static inline uint8_t *kv_page_keys(const kv_cache *kv, uint32_t seq, uint32_t layer, uint32_t page)
{
    const size_t id = kv->table[(size_t)seq * kv->pages_per_seq + page];
    return kv->pages + id * kv->page_bytes + (size_t)layer * MP_KV_PAGE * (kv->key_bytes + kv->value_bytes);
}

/* MP_KV_PAGE rows of value_bytes. */
static inline uint8_t *kv_page_values(const kv_cache *kv, uint32_t seq, uint32_t layer, uint32_t page)
{
    return kv_page_keys(kv, seq, layer, page) + MP_KV_PAGE * kv->key_bytes;
}

#endif
