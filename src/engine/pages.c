/* Pages of the key-value cache, for whoever shares them between sequences: the public face of kv.h. */
#include "engine/engine.h"

static bool in_use(const mp_engine *e, uint32_t page)
{
    return page < e->kv.n_pages && e->kv.users[page] > 0;
}

uint32_t mp_engine_kv_pages(const mp_engine *e, uint32_t *n_free)
{
    if (n_free) *n_free = e->kv.n_free;
    return e->kv.n_pages;
}

uint32_t mp_engine_seq_page(const mp_engine *e, uint32_t seq, uint32_t i)
{
    if (seq >= e->params.n_seqs || (uint64_t)i * MP_KV_PAGE >= e->kv.len[seq]) return UINT32_MAX;
    return e->kv.table[(size_t)seq * e->kv.pages_per_seq + i];
}

void mp_engine_page_hold(mp_engine *e, uint32_t page)
{
    if (in_use(e, page)) kv_hold(&e->kv, page);
}

void mp_engine_page_release(mp_engine *e, uint32_t page)
{
    if (in_use(e, page)) kv_release(&e->kv, page);
}

mp_status mp_engine_seq_start(mp_engine *e, uint32_t seq, const uint32_t *pages, uint32_t n, mp_error *err)
{
    if (seq >= e->params.n_seqs)
        return status_fail(err, MP_E_INVALID, "sequence %u cannot start: there are %u", seq, e->params.n_seqs);
    if (e->kv.len[seq] > 0)
        return status_fail(err, MP_E_INVALID, "sequence %u cannot start with pages: it holds %u tokens", seq,
                           e->kv.len[seq]);
    if ((uint64_t)n * MP_KV_PAGE > e->params.n_ctx)
        return status_fail(err, MP_E_LIMIT, "sequence %u: %u pages of %d tokens do not fit into a context of %u", seq,
                           n, MP_KV_PAGE, e->params.n_ctx);
    for (uint32_t i = 0; i < n; i++)
        if (!in_use(e, pages[i]))
            return status_fail(err, MP_E_INVALID, "sequence %u cannot start with page %u: it is not in use", seq,
                               pages[i]);
    kv_begin(&e->kv, seq, pages, n);
    return MP_OK;
}
