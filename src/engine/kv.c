#include "engine/kv.h"

#include <assert.h>

static uint32_t pages_for(uint32_t len)
{
    return len / KV_PAGE + (len % KV_PAGE != 0);
}

void kv_layout(arena *a, kv_cache *kv)
{
    size_t layer, page;
    if (!size_mul(KV_PAGE, kv->key_bytes + kv->value_bytes, &layer) || !size_mul(layer, kv->n_layers, &page)) {
        a->overflow = true;
        return;
    }
    kv->page_bytes = page;
    if (__builtin_mul_overflow(kv->n_seqs, kv->pages_per_seq, &kv->n_pages)) {
        a->overflow = true;
        return;
    }
    kv->table = arena_take(a, kv->n_pages, sizeof *kv->table);
    kv->free_list = arena_take(a, kv->n_pages, sizeof *kv->free_list);
    kv->len = arena_take(a, kv->n_seqs, sizeof *kv->len);
    kv->pages = arena_take(a, kv->n_pages, kv->page_bytes);
}

void kv_start(kv_cache *kv)
{
    kv->n_free = kv->n_pages;
    for (uint32_t i = 0; i < kv->n_pages; i++) kv->free_list[i] = kv->n_pages - 1 - i; /* page 0 on top */
}

mp_status kv_grow(kv_cache *kv, uint32_t seq, uint32_t len, mp_error *err)
{
    uint32_t have = pages_for(kv->len[seq]);
    const uint32_t need = pages_for(len);
    if (need > kv->pages_per_seq)
        return status_fail(err, MP_E_LIMIT, "sequence %u: %u tokens do not fit into a context of %u", seq, len,
                           kv->pages_per_seq * KV_PAGE);
    if (need > have && need - have > kv->n_free)
        return status_fail(err, MP_E_LIMIT, "the key-value cache is full: %u pages of %d tokens are in use",
                           kv->n_pages, KV_PAGE);
    uint32_t *table = kv->table + (size_t)seq * kv->pages_per_seq;
    for (; have < need; have++) table[have] = kv->free_list[--kv->n_free];
    if (len > kv->len[seq]) kv->len[seq] = len;
    return MP_OK;
}

void kv_truncate(kv_cache *kv, uint32_t seq, uint32_t len)
{
    if (len >= kv->len[seq]) return;
    const uint32_t *table = kv->table + (size_t)seq * kv->pages_per_seq;
    for (uint32_t have = pages_for(kv->len[seq]); have > pages_for(len); have--) {
        assert(kv->n_free < kv->n_pages);
        kv->free_list[kv->n_free++] = table[have - 1];
    }
    kv->len[seq] = len;
}
