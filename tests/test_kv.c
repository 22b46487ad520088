/* Pages of the key-value cache: who uses them, copies before writing, running out; and that a sequence that starts from
 * held pages gives the bits of one that ran its prompt. */
#include "testing.h"

#include <unistd.h>

#include "base/rng.h"
#include "engine/kv.h"

/* ---- counting ---- */

enum { SEQS = 3, PER_SEQ = 4, PAGES = 6 };

typedef struct cache {
    arena memory;
    kv_cache kv;
} cache;

static kv_cache shape(uint32_t n_pages)
{
    return (kv_cache){
        .n_layers = 2, .n_seqs = SEQS, .pages_per_seq = PER_SEQ, .n_pages = n_pages, .key_bytes = 4, .value_bytes = 2};
}

static void open_cache(cache *c, uint32_t n_pages)
{
    mp_error err;
    *c = (cache){.kv = shape(n_pages)};
    kv_layout(&c->memory, &c->kv);
    assert_ok(arena_reserve(&c->memory, "a cache", &err), &err);
    kv_layout(&c->memory, &c->kv);
    kv_start(&c->kv);
}

static uint32_t page_of(const cache *c, uint32_t seq, uint32_t i)
{
    return c->kv.table[(size_t)seq * PER_SEQ + i];
}

static void grow(cache *c, uint32_t seq, uint32_t len)
{
    mp_error err;
    assert_ok(kv_grow(&c->kv, seq, len, &err), &err);
    assert_int_equal(c->kv.len[seq], len);
}

static void test_default_size(void **state)
{
    (void)state;
    cache c;
    open_cache(&c, 0);
    assert_int_equal(c.kv.n_pages, SEQS * PER_SEQ);
    assert_int_equal(c.kv.n_free, SEQS * PER_SEQ);
    arena_clear(&c.memory);
    c = (cache){.kv = shape(UINT32_MAX)};
    c.kv.key_bytes = SIZE_MAX / 256;
    kv_layout(&c.memory, &c.kv);
    assert_true(c.memory.overflow);
}

static void test_last_user_frees(void **state)
{
    (void)state;
    cache c;
    open_cache(&c, PAGES);
    grow(&c, 0, 3 * MP_KV_PAGE);
    assert_int_equal(c.kv.n_free, PAGES - 3);
    const uint32_t shared[2] = {page_of(&c, 0, 0), page_of(&c, 0, 1)};
    kv_hold(&c.kv, shared[0]);
    kv_hold(&c.kv, shared[1]);
    kv_truncate(&c.kv, 0, 0);
    assert_int_equal(c.kv.n_free, PAGES - 2);

    kv_begin(&c.kv, 1, shared, 2);
    kv_begin(&c.kv, 2, shared, 1);
    assert_int_equal(c.kv.len[1], 2 * MP_KV_PAGE);
    assert_int_equal(c.kv.users[shared[0]], 3);
    grow(&c, 1, 2 * MP_KV_PAGE + 1); /* behind whole pages: nothing to copy */
    assert_int_equal(page_of(&c, 1, 0), shared[0]);
    assert_int_equal(page_of(&c, 1, 1), shared[1]);
    assert_int_equal(c.kv.n_free, PAGES - 3);
    kv_release(&c.kv, shared[0]);
    kv_release(&c.kv, shared[1]);
    kv_truncate(&c.kv, 1, 0);
    assert_int_equal(c.kv.n_free, PAGES - 1); /* sequence 2 uses the first still */
    kv_truncate(&c.kv, 2, 0);
    assert_int_equal(c.kv.n_free, PAGES);
    arena_clear(&c.memory);
}

static void test_shared_page_is_copied(void **state)
{
    (void)state;
    cache c;
    open_cache(&c, PAGES);
    grow(&c, 0, MP_KV_PAGE + 10);
    const uint32_t held = page_of(&c, 0, 1);
    memset(kv_page_keys(&c.kv, 0, 0, 1), 7, c.kv.page_bytes);
    kv_hold(&c.kv, held);
    assert_int_equal(kv_need(&c.kv, 0, MP_KV_PAGE + 10), 0);
    assert_int_equal(kv_need(&c.kv, 0, MP_KV_PAGE + 11), 1);
    assert_int_equal(kv_need(&c.kv, 0, 2 * MP_KV_PAGE + 1), 2);
    grow(&c, 0, MP_KV_PAGE + 11);
    assert_int_not_equal(page_of(&c, 0, 1), held);
    assert_memory_equal(kv_page_keys(&c.kv, 0, 0, 1), c.kv.pages + held * c.kv.page_bytes, c.kv.page_bytes);
    assert_int_equal(c.kv.users[held], 1);
    assert_int_equal(c.kv.n_free, PAGES - 3);
    const uint32_t own = page_of(&c, 0, 1);
    grow(&c, 0, MP_KV_PAGE + 12); /* its own now */
    assert_int_equal(page_of(&c, 0, 1), own);

    kv_begin(&c.kv, 1, &(uint32_t){page_of(&c, 0, 0)}, 1);
    kv_truncate(&c.kv, 1, 5); /* cut into a page that sequence 0 uses: copied when it goes on */
    grow(&c, 1, 6);
    assert_int_not_equal(page_of(&c, 1, 0), page_of(&c, 0, 0));
    arena_clear(&c.memory);
}

static void test_running_out_changes_nothing(void **state)
{
    (void)state;
    cache c;
    mp_error err;
    open_cache(&c, 2);
    grow(&c, 0, MP_KV_PAGE + 1);
    assert_int_equal(kv_grow(&c.kv, 1, 1, &err), MP_E_LIMIT);
    assert_int_equal(c.kv.len[1], 0);
    kv_hold(&c.kv, page_of(&c, 0, 1));
    const uint32_t last = page_of(&c, 0, 1);
    assert_int_equal(kv_grow(&c.kv, 0, MP_KV_PAGE + 2, &err), MP_E_LIMIT); /* no page for the copy */
    assert_int_equal(c.kv.len[0], MP_KV_PAGE + 1);
    assert_int_equal(page_of(&c, 0, 1), last);
    assert_int_equal(kv_grow(&c.kv, 2, PER_SEQ * MP_KV_PAGE + 1, &err), MP_E_LIMIT);
    arena_clear(&c.memory);
}

/* Any order of calls: a page's users are the table entries and holds that name it. */
static void test_random_calls(void **state)
{
    (void)state;
    cache c;
    rng r;
    uint32_t held[PAGES] = {0};
    mp_error err;
    rng_init(&r, 5);
    open_cache(&c, PAGES);
    for (int i = 0; i < 20000; i++) {
        const uint32_t seq = (uint32_t)rng_below(&r, SEQS), page = (uint32_t)rng_below(&r, PAGES);
        const uint32_t what = (uint32_t)rng_below(&r, 5), len = (uint32_t)rng_below(&r, PER_SEQ * MP_KV_PAGE + 1);
        if (what == 0) kv_truncate(&c.kv, seq, len);
        if (what <= 1) (void)kv_grow(&c.kv, seq, len, &err);
        if (what == 2 && c.kv.users[page] > 0) {
            kv_hold(&c.kv, page);
            held[page]++;
        }
        if (what == 3 && held[page] > 0) {
            kv_release(&c.kv, page);
            held[page]--;
        }
        if (what == 4 && c.kv.len[seq] == 0 && c.kv.users[page] > 0) kv_begin(&c.kv, seq, &page, 1);

        uint32_t users[PAGES], n_free = 0;
        memcpy(users, held, sizeof users);
        for (uint32_t s = 0; s < SEQS; s++)
            for (uint32_t at = 0; at < c.kv.len[s]; at += MP_KV_PAGE) users[page_of(&c, s, at / MP_KV_PAGE)]++;
        for (uint32_t p = 0; p < PAGES; p++) n_free += users[p] == 0;
        assert_memory_equal(users, c.kv.users, sizeof users);
        assert_int_equal(n_free, c.kv.n_free);
    }
    arena_clear(&c.memory);
}

/* ---- bits ---- */

enum { VOCAB = 512, LENGTH = 200 };

static int32_t text_token(uint32_t pos)
{
    return (int32_t)((pos * 37 + pos / 7) % VOCAB);
}

static mp_model *open_golden(const char *name)
{
    mp_model *m;
    mp_error err;
    if (access(shared_path(name), R_OK)) {
        print_message("SKIPPED: %s is not here\n", shared_path(name));
        skip();
    }
    assert_ok(mp_model_open(shared_path(name), NULL, &m, &err), &err);
    return m;
}

static mp_engine *open_engine(const mp_model *m, uint32_t n_pages)
{
    mp_engine *e;
    mp_error err;
    const mp_engine_params params = {.threads = 2, .n_ctx = 256, .n_seqs = 3, .n_batch = 256, .n_pages = n_pages};
    assert_ok(mp_engine_open(m, &params, &e, &err), &err);
    return e;
}

/* Runs positions [from, to) of the text; logits of the last into out [VOCAB]. */
static mp_status run(mp_engine *e, uint32_t seq, uint32_t from, uint32_t to, float *out, mp_error *err)
{
    mp_batch_token batch[LENGTH];
    for (uint32_t pos = from; pos < to; pos++)
        batch[pos - from] = (mp_batch_token){text_token(pos), seq, pos, 1, pos + 1 == to, 0};
    MP_TRY(mp_engine_step(e, batch, to - from, err));
    memcpy(out, mp_engine_logits(e, to - from - 1), VOCAB * sizeof *out);
    return MP_OK;
}

static void test_start_from_pages(void **state)
{
    const char *name = *state;
    mp_error err;
    mp_model *m = open_golden(name);
    mp_engine *e = open_engine(m, 0);
    float expected[VOCAB], got[VOCAB];
    assert_ok(run(e, 0, 0, LENGTH, expected, &err), &err);
    uint32_t pages[3], n_free, n_pages = mp_engine_kv_pages(e, &n_free);
    assert_int_equal(n_pages, 12);
    assert_int_equal(n_free, 8);
    for (uint32_t i = 0; i < 3; i++) mp_engine_page_hold(e, pages[i] = mp_engine_seq_page(e, 0, i));
    assert_int_equal(mp_engine_seq_page(e, 0, 4), UINT32_MAX);
    assert_int_equal(mp_engine_seq_page(e, 3, 0), UINT32_MAX);
    mp_engine_seq_truncate(e, 0, 0);
    for (uint32_t n = 1; n <= 3; n++) { /* the second beside the first, the third after it left */
        assert_ok(mp_engine_seq_start(e, n % 3, pages, n, &err), &err);
        assert_int_equal(mp_engine_seq_len(e, n % 3), n * MP_KV_PAGE);
        assert_ok(run(e, n % 3, n * MP_KV_PAGE, LENGTH, got, &err), &err);
        assert_memory_equal(got, expected, sizeof got);
        if (n == 2) mp_engine_seq_truncate(e, 1, 0);
    }
    mp_engine_seq_truncate(e, 0, 100); /* within a held page: its own copy changes, the held page does not */
    for (uint32_t pos = 100; pos < 128; pos++)
        assert_ok(mp_engine_step(e, &(mp_batch_token){.token = 1, .pos = pos}, 1, &err), &err);
    mp_engine_seq_truncate(e, 2, 0);
    assert_ok(mp_engine_seq_start(e, 2, pages, 2, &err), &err);
    assert_ok(run(e, 2, 128, LENGTH, got, &err), &err);
    assert_memory_equal(got, expected, sizeof got);
    for (uint32_t i = 0; i < 3; i++) mp_engine_page_release(e, pages[i]);
    for (uint32_t s = 0; s < 3; s++) mp_engine_seq_truncate(e, s, 0);
    mp_engine_kv_pages(e, &n_free);
    assert_int_equal(n_free, n_pages);
    mp_engine_close(e);
    mp_model_close(m);
}

static void test_bad_starts(void **state)
{
    (void)state;
    mp_error err;
    mp_model *m = open_golden("golden/tiny-olmoe-f32.gguf");
    mp_engine *e = open_engine(m, 8);
    float logits[VOCAB];
    assert_ok(run(e, 0, 0, MP_KV_PAGE, logits, &err), &err);
    const uint32_t page = mp_engine_seq_page(e, 0, 0), five[5] = {page, page, page, page, page};
    assert_int_equal(mp_engine_seq_start(e, 3, &page, 1, &err), MP_E_INVALID);
    assert_int_equal(mp_engine_seq_start(e, 0, &page, 1, &err), MP_E_INVALID);
    assert_int_equal(mp_engine_seq_start(e, 1, &(uint32_t){7}, 1, &err), MP_E_INVALID);
    assert_int_equal(mp_engine_seq_start(e, 1, &(uint32_t){8}, 1, &err), MP_E_INVALID);
    assert_int_equal(mp_engine_seq_start(e, 1, five, 5, &err), MP_E_LIMIT);
    assert_int_equal(mp_engine_seq_len(e, 1), 0);
    mp_engine_page_release(e, 7); /* of no user: nothing */
    mp_engine_page_hold(e, UINT32_MAX);
    uint32_t n_free;
    mp_engine_kv_pages(e, &n_free);
    assert_int_equal(n_free, 7);
    mp_engine_close(e);
    mp_model_close(m);
}

static void test_full_cache_refuses_the_step(void **state)
{
    (void)state;
    mp_error err;
    mp_model *m = open_golden("golden/tiny-olmoe-f32.gguf");
    mp_engine *e = open_engine(m, 3);
    float before[VOCAB], after[VOCAB];
    assert_ok(run(e, 0, 0, MP_KV_PAGE + 20, before, &err), &err);
    mp_batch_token batch[2 * MP_KV_PAGE]; /* one page for sequence 1, one more for 2: together too many */
    for (uint32_t i = 0; i < 2 * MP_KV_PAGE; i++)
        batch[i] = (mp_batch_token){.token = 1, .seq = 1 + i / MP_KV_PAGE, .pos = i % MP_KV_PAGE};
    assert_int_equal(mp_engine_step(e, batch, 2 * MP_KV_PAGE, &err), MP_E_LIMIT);
    assert_non_null(strstr(err.message, "full"));
    uint32_t n_free;
    mp_engine_kv_pages(e, &n_free);
    assert_int_equal(n_free, 1);
    assert_int_equal(mp_engine_seq_len(e, 1), 0);
    mp_engine_seq_truncate(e, 0, MP_KV_PAGE + 19);
    assert_ok(run(e, 0, MP_KV_PAGE + 19, MP_KV_PAGE + 20, after, &err), &err);
    assert_memory_equal(before, after, sizeof before);
    mp_engine_close(e);
    mp_model_close(m);
}

static void test_layer_use(void **state)
{
    (void)state;
    mp_error err;
    mp_model *m = open_golden("golden/tiny-olmoe-f32.gguf");
    mp_engine *e = open_engine(m, 0);
    const mp_model_info *info = mp_model_get_info(m);
    float logits[VOCAB];
    uint64_t used, full;
    assert_ok(run(e, 0, 0, 50, logits, &err), &err); /* at point 1: one expert fewer */
    for (uint32_t i = 0; i < info->n_moe_layers; i++) {
        mp_engine_layer_use(e, i, &used, &full);
        assert_int_equal(full, 50 * info->n_experts_used);
        assert_int_equal(used, 50 * (info->n_experts_used - 1));
    }
    mp_engine_layer_use(e, info->n_moe_layers, &used, &full);
    assert_int_equal(used + full, 0);
    mp_engine_close(e);
    mp_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_size),
        cmocka_unit_test(test_last_user_frees),
        cmocka_unit_test(test_shared_page_is_copied),
        cmocka_unit_test(test_running_out_changes_nothing),
        cmocka_unit_test(test_random_calls),
        {"pages start sequences", test_start_from_pages, NULL, NULL, "golden/tiny-olmoe-f32.gguf"},
        {"latent pages start sequences", test_start_from_pages, NULL, NULL, "golden/tiny-deepseek2-f32.gguf"},
        cmocka_unit_test(test_bad_starts),
        cmocka_unit_test(test_full_cache_refuses_the_step),
        cmocka_unit_test(test_layer_use),
    };
    return cmocka_run_group_tests_name("kv", tests, NULL, NULL);
}
