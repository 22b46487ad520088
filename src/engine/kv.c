#include "engine/kv.h"

#include <assert.h>
#include <string.h>

static uint32_t pages_for(uint32_t len)
{
    return len / MP_KV_PAGE + (len % MP_KV_PAGE != 0);
}

void kv_layout(arena *a, kv_cache *kv)
{
    size_t layer, page, entries;
    if (!size_mul(MP_KV_PAGE, kv->key_bytes + kv->value_bytes, &layer) || !size_mul(layer, kv->n_layers, &page) ||
        !size_mul(kv->n_seqs, kv->pages_per_seq, &entries) || (kv->n_pages == 0 && entries > UINT32_MAX)) {
        a->overflow = true;
        return;
    }
    kv->page_bytes = page;
    if (kv->n_pages == 0) kv->n_pages = (uint32_t)entries;
    kv->table = arena_take(a, entries, sizeof *kv->table);
    kv->free_list = arena_take(a, kv->n_pages, sizeof *kv->free_list);
    kv->users = arena_take(a, kv->n_pages, sizeof *kv->users);
    kv->len = arena_take(a, kv->n_seqs, sizeof *kv->len);
    kv->pages = arena_take(a, kv->n_pages, kv->page_bytes);
}

void kv_start(kv_cache *kv)
{
    kv->n_free = kv->n_pages;
    for (uint32_t i = 0; i < kv->n_pages; i++) kv->free_list[i] = kv->n_pages - 1 - i; /* page 0 on top */
}

static uint32_t *table_of(const kv_cache *kv, uint32_t seq)
{
    return kv->table + (size_t)seq * kv->pages_per_seq;
}

static uint32_t take(kv_cache *kv)
{
    const uint32_t page = kv->free_list[--kv->n_free];
    assert(kv->users[page] == 0);
    kv->users[page] = 1;
    return page;
}

/* Whether the next position goes into a page that others use too. */
static bool must_copy(const kv_cache *kv, uint32_t seq)
{
    const uint32_t len = kv->len[seq];
    return len % MP_KV_PAGE != 0 && kv->users[table_of(kv, seq)[len / MP_KV_PAGE]] > 1;
}

static void copy_last(kv_cache *kv, uint32_t seq)
{
    uint32_t *last = &table_of(kv, seq)[kv->len[seq] / MP_KV_PAGE];
    const uint32_t page = take(kv);
    memcpy(kv->pages + page * kv->page_bytes, kv->pages + *last * kv->page_bytes, kv->page_bytes);
    kv_release(kv, *last);
    *last = page;
}

uint32_t kv_need(const kv_cache *kv, uint32_t seq, uint32_t len)
{
    if (len <= kv->len[seq]) return 0;
    return pages_for(len) - pages_for(kv->len[seq]) + must_copy(kv, seq);
}

mp_status kv_full(const kv_cache *kv, mp_error *err)
{
    return status_fail(err, MP_E_LIMIT, "the key-value cache is full: of %u pages of %d tokens %u are free",
                       kv->n_pages, MP_KV_PAGE, kv->n_free);
}

mp_status kv_grow(kv_cache *kv, uint32_t seq, uint32_t len, mp_error *err)
{
    uint32_t have = pages_for(kv->len[seq]);
    const uint32_t need = pages_for(len);
    if (need > kv->pages_per_seq)
        return status_fail(err, MP_E_LIMIT, "sequence %u: %u tokens do not fit into a context of %u", seq, len,
                           kv->pages_per_seq * MP_KV_PAGE);
    if (len <= kv->len[seq]) return MP_OK;
    if (kv_need(kv, seq, len) > kv->n_free) return kv_full(kv, err);
    if (must_copy(kv, seq)) copy_last(kv, seq);
    for (; have < need; have++) table_of(kv, seq)[have] = take(kv);
    kv->len[seq] = len;
    return MP_OK;
}

void kv_truncate(kv_cache *kv, uint32_t seq, uint32_t len)
{
    if (len >= kv->len[seq]) return;
    for (uint32_t have = pages_for(kv->len[seq]); have > pages_for(len); have--)
        kv_release(kv, table_of(kv, seq)[have - 1]);
    kv->len[seq] = len;
}

void kv_begin(kv_cache *kv, uint32_t seq, const uint32_t *pages, uint32_t n)
{
    assert(kv->len[seq] == 0 && n <= kv->pages_per_seq);
    for (uint32_t i = 0; i < n; i++) {
        kv_hold(kv, pages[i]);
        table_of(kv, seq)[i] = pages[i];
    }
    kv->len[seq] = n * MP_KV_PAGE;
}

void kv_hold(kv_cache *kv, uint32_t page)
{
    assert(page < kv->n_pages && kv->users[page] > 0);
    kv->users[page]++;
}

void kv_release(kv_cache *kv, uint32_t page)
{
    assert(page < kv->n_pages && kv->users[page] > 0);
    if (--kv->users[page] == 0) kv->free_list[kv->n_free++] = page;
}
