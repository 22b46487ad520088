/* An engine whose experts are read from disk: the bits of a mapped one, errors that cost nothing, and the two options
 * that may change results. */
#include "disk_testing.h"

#include <fcntl.h>
#include <pthread.h>

#include "refusal.h"

static void assert_same_bits(const mp_model *m, const float *expected, uint32_t threads, mp_store_params store)
{
    mp_store_stats stats;
    mp_engine *e = open_engine(m, threads, store);
    float *got = run_text(m, e, 0);
    assert_memory_equal(got, expected, TEXT * mp_model_get_info(m)->n_vocab * sizeof *got);
    assert_true(mp_engine_store_stats(e, &stats));
    assert_true(stats.memory <= store.memory);
    assert_true(stats.resident_bytes <= stats.memory);
    assert_true(stats.misses > 0 && stats.bytes_read > 0);
    const bool room = store.memory >= mp_model_get_info(m)->bytes_experts / 2 && store.depth != 1;
    assert_true(stats.ahead_used <= stats.ahead);
    if (store.no_read_ahead) assert_int_equal(stats.ahead, 0);
    if (!store.no_read_ahead && room) assert_true(stats.ahead > 0);
    free(got);
    mp_engine_close(e);
}

static void check_same_bits(const mp_model *m)
{
    const uint64_t least = least_memory(m), all = mp_model_get_info(m)->bytes_experts;
    const uint64_t caps[] = {least, all / 2 > least ? all / 2 : least, all - 1};
    mp_engine *mapped = open_engine(m, 2, (mp_store_params){0});
    float *expected = run_text(m, mapped, 0);
    for (size_t i = 0; i < sizeof caps / sizeof *caps; i++) {
        for (uint32_t threads = 1; threads <= 2; threads++)
            assert_same_bits(m, expected, threads, (mp_store_params){.memory = caps[i]});
        for (size_t k = 0; mp_store_eviction(k); k++)
            assert_same_bits(m, expected, 2, (mp_store_params){.memory = caps[i], .eviction = mp_store_eviction(k)});
        for (size_t k = 0; mp_store_backend(k); k++)
            assert_same_bits(m, expected, 2, (mp_store_params){.memory = caps[i], .backend = mp_store_backend(k)});
        assert_same_bits(m, expected, 2, (mp_store_params){.memory = caps[i], .no_read_ahead = true});
        assert_same_bits(m, expected, 2,
                         (mp_store_params){.memory = caps[i], .depth = 1, .pin_share = m == split ? 0.5 : 0});
    }
    free(expected);
    mp_engine_close(mapped);
}

static void test_same_bits_split(void **state)
{
    (void)state;
    check_same_bits(split);
}

static void test_same_bits_whole(void **state)
{
    (void)state;
    check_same_bits(whole);
}

/* ---- several files ---- */

static void check_several_files(const char *from)
{
    char path[160];
    mp_error err;
    mp_model *m;
    write_parts(from);
    part_path(path, 0);
    assert_ok(mp_model_open(path, NULL, &m, &err), &err);
    assert_int_equal(gguf_n_parts(m->file), FILES);
    mp_engine *mapped = open_engine(m, 2, (mp_store_params){0});
    float *expected = run_text(m, mapped, 0);
    for (size_t k = 0; mp_store_backend(k); k++)
        assert_same_bits(m, expected, 2, (mp_store_params){.memory = least_memory(m), .backend = mp_store_backend(k)});
    free(expected);
    mp_engine_close(mapped);
    mp_model_close(m);
    remove_parts();
}

static void test_several_files(void **state)
{
    (void)state;
    check_several_files(split_path);
    check_several_files(DEMO);
}

static void test_what_fits_is_mapped(void **state)
{
    (void)state;
    mp_store_stats stats;
    mp_engine *e = open_engine(split, 1, (mp_store_params){.memory = mp_model_get_info(split)->bytes_experts});
    assert_false(mp_engine_store_stats(e, &stats));
    mp_engine_close(e);
}

static void test_too_small(void **state)
{
    (void)state;
    mp_engine *e;
    mp_error err;
    char number[32];
    const uint64_t least = least_memory(split);
    const mp_engine_params params = {.n_ctx = 64, .store = {.memory = least - 1}};
    assert_int_equal(mp_engine_open(split, &params, &e, &err), MP_E_LIMIT);
    snprintf(number, sizeof number, "%llu", (unsigned long long)least);
    assert_non_null(strstr(err.message, number));
}

static void test_bad_params(void **state)
{
    (void)state;
    mp_engine *e;
    mp_error err;
    const uint64_t memory = least_memory(split);
    const mp_store_params bad[] = {
        {.memory = memory, .eviction = "newest"}, {.memory = memory, .backend = "pigeons"},
        {.memory = memory, .prefer_resident = 1}, {.memory = memory, .prefer_resident = NAN},
        {.memory = memory, .pin_share = -0.1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const mp_engine_params params = {.n_ctx = 64, .store = bad[i]};
        assert_int_equal(mp_engine_open(split, &params, &e, &err), MP_E_INVALID);
        assert_null(e);
    }
}

/* Whole models do not record what calibration used. */
static void test_pin_needs_a_record(void **state)
{
    (void)state;
    mp_engine *e;
    mp_error err;
    const mp_engine_params params = {.n_ctx = 64, .store = {.memory = least_memory(whole), .pin_share = 0.25}};
    assert_int_equal(mp_engine_open(whole, &params, &e, &err), MP_E_UNSUPPORTED);
    assert_null(e);
    assert_non_null(strstr(err.message, "refactor the model again"));
}

/* A step that fails leaves its sequence as it was. */
static void test_changed_file(void **state)
{
    (void)state;
    char path[128];
    char *bytes;
    size_t len;
    mp_error err;
    mp_model *m;
    snprintf(path, sizeof path, "%s/changed.gguf", directory);
    assert_ok(file_read(split_path, &bytes, &len, &err), &err);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), (ssize_t)len);
    free(bytes);
    assert_ok(mp_model_open(path, NULL, &m, &err), &err);
    mp_engine *e = open_engine(m, 2, (mp_store_params){.memory = least_memory(m)});
    mp_batch_token token = {.token = ids[0], .logits = true};
    assert_ok(mp_engine_step(e, &token, 1, &err), &err);
    assert_int_equal(write(fd, "x", 1), 1);
    token = (mp_batch_token){.token = ids[1], .pos = 1, .logits = true};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mp_engine_step(e, &token, 1, &err), MP_E_CHANGED);
        assert_non_null(strstr(err.message, path));
        assert_int_equal(mp_engine_seq_len(e, 0), 1);
        assert_null(mp_engine_logits(e, 0));
    }
    mp_engine_close(e);
    mp_model_close(m);
    close(fd);
    unlink(path);
}

static void test_prefer_resident(void **state)
{
    (void)state;
    const mp_store_params plain = {.memory = least_memory(split) + mp_model_get_info(split)->bytes_experts / 4};
    mp_store_params prefer = plain;
    prefer.prefer_resident = 0.5F;
    mp_engine *a = open_engine(split, 2, plain), *b = open_engine(split, 2, prefer), *c = open_engine(split, 1, prefer);
    float *x = run_text(split, a, 0), *y = run_text(split, b, 0), *z = run_text(split, c, 0);
    mp_store_stats without = {0}, with = {0};
    assert_true(mp_engine_store_stats(a, &without) && mp_engine_store_stats(b, &with));
    assert_string_equal(without.eviction, mp_store_eviction(0));
    assert_string_equal(with.eviction, "lfru");
    assert_int_equal(without.swaps, 0);
    assert_true(with.swaps > 0);
    assert_true(with.bytes_read < without.bytes_read);
    const size_t n = TEXT * mp_model_get_info(split)->n_vocab;
    assert_memory_not_equal(x, y, n * sizeof *x);
    assert_memory_equal(y, z, n * sizeof *x); /* the same state of the cache, the same choice */
    for (size_t i = 0; i < n; i++) assert_true(isfinite(y[i]));
    free(x);
    free(y);
    free(z);
    mp_engine_close(a);
    mp_engine_close(b);
    mp_engine_close(c);
}

/* Mean share of the experts over the tokens of the text, one a step. */
static double mean_share(mp_engine *e, uint32_t point, uint32_t floor)
{
    mp_error err;
    double sum = 0;
    mp_engine_seq_truncate(e, 0, 0);
    for (uint32_t i = 0; i < TEXT; i++) {
        const mp_batch_token token = {.token = ids[i], .pos = i, .point = point, .floor = floor};
        assert_ok(mp_engine_step(e, &token, 1, &err), &err);
        sum += mp_engine_compute_share(e, 0);
    }
    return sum / TEXT;
}

/* Counts are differences, the rest is as of now, and the mean depth is that of the reads in between. */
static void test_stats_since(void **state)
{
    (void)state;
    const mp_store_stats before = {.memory = 9,
                                   .hits = 1,
                                   .misses = 2,
                                   .bytes_wanted = 3,
                                   .bytes_read = 4,
                                   .evictions = 5,
                                   .stall_ns = 6,
                                   .reads = 10,
                                   .depth_mean = 1,
                                   .depth_max = 2,
                                   .swaps = 7,
                                   .dropped = 8};
    const mp_store_stats now = {.memory = 9,
                                .hits = 11,
                                .misses = 22,
                                .bytes_wanted = 33,
                                .bytes_read = 44,
                                .evictions = 55,
                                .stall_ns = 66,
                                .reads = 40,
                                .depth_mean = 2.5,
                                .depth_max = 4,
                                .swaps = 77,
                                .dropped = 88};
    const mp_store_stats d = mp_store_stats_since(&now, &before), none = mp_store_stats_since(&now, &now);
    assert_true(d.memory == 9 && d.hits == 10 && d.misses == 20 && d.bytes_wanted == 30 && d.bytes_read == 40);
    assert_true(d.evictions == 50 && d.stall_ns == 60 && d.reads == 30 && d.depth_mean == 3 && d.depth_max == 4);
    assert_true(d.swaps == 70 && d.dropped == 80 && none.reads == 0 && none.depth_mean == 0);
}

/* A deadline that is over at once. With one read at a time, of whole experts, whose weights are in three places, no
 * expert arrives between the first look and the second: what is missing then and not required is dropped, for certain.
 * And something is missing: the memory holds the experts of a token in one layer. */
#define OVER_AT_ONCE                                                                                                   \
    {                                                                                                                  \
        .memory = least_memory(whole), .deadline_ns = 1, .backend = "threads", .depth = 1                              \
    }

/* Tokens tell what they lost themselves; of two that share a step only the one with a floor may. */
static void check_dropped(mp_engine *e, uint32_t floor)
{
    mp_error err;
    mp_store_stats before, after;
    uint64_t told = 0;
    mp_engine_seq_truncate(e, 0, 0);
    mp_engine_store_stats(e, &before);
    for (uint32_t at = 0; at + 3 <= TEXT; at += 3) {
        const mp_batch_token alone = {.token = ids[at], .pos = at, .floor = floor},
                             two[] = {{.token = ids[at + 1], .pos = at + 1, .floor = floor},
                                      {.token = ids[at + 2], .pos = at + 2}};
        assert_ok(mp_engine_step(e, &alone, 1, &err), &err);
        told += mp_engine_dropped(e, 0);
        assert_ok(mp_engine_step(e, two, 2, &err), &err);
        told += mp_engine_dropped(e, 0);
        assert_int_equal(mp_engine_dropped(e, 1), 0);
    }
    mp_engine_store_stats(e, &after);
    assert_true(told > 0);
    assert_int_equal(told, after.dropped - before.dropped);
}

/* Nothing is lost without a floor, and nothing below it with one. */
static void test_deadline(void **state)
{
    (void)state;
    mp_store_stats stats = {0};
    const mp_store_params store = OVER_AT_ONCE;
    const uint32_t last = mp_model_get_info(whole)->n_points - 1;
    mp_engine *mapped = open_engine(whole, 2, (mp_store_params){0}), *e = open_engine(whole, 2, store);
    float *expected = run_text(whole, mapped, 0), *got = run_text(whole, e, 0);
    assert_memory_equal(got, expected, TEXT * mp_model_get_info(whole)->n_vocab * sizeof *got);
    assert_true(mp_engine_store_stats(e, &stats));
    assert_int_equal(stats.dropped, 0);
    const double floor = mean_share(mapped, last, 0), share = mean_share(e, 0, last);
    assert_true(mp_engine_store_stats(e, &stats));
    assert_true(share >= floor - 1e-9 && share < 1 - 1e-9);
    assert_true(stats.dropped > 0);
    check_dropped(e, last);
    free(expected);
    free(got);
    mp_engine_close(mapped);
    mp_engine_close(e);
}

/* Three points: full, one between and the floor. */
static mp_status try_eval(mp_store_params store, mp_eval_result *result, mp_error *err)
{
    char *text;
    size_t len;
    const uint32_t points[] = {0, 3, mp_model_get_info(whole)->n_points - 1};
    MP_TRY(file_read("models/heldout.txt", &text, &len, err));
    const mp_eval_params params = {.text = text,
                                   .len = len,
                                   .n_ctx = 32,
                                   .max_tokens = 64,
                                   .points = points,
                                   .n_points = 3,
                                   .threads = 2,
                                   .store = store};
    const mp_status status = mp_eval(whole, &params, result, err);
    free(text);
    return status;
}

static mp_eval_result eval_with(mp_store_params store)
{
    mp_error err;
    mp_eval_result result;
    assert_ok(try_eval(store, &result, &err), &err);
    return result;
}

static void assert_same_quality(const mp_eval_point *a, const mp_eval_point *b)
{
    assert_true(a->ppl == b->ppl && a->ppl_se == b->ppl_se && a->kl_mean == b->kl_mean && a->kl_p99 == b->kl_p99 &&
                a->same_top == b->same_top && a->compute_share == b->compute_share);
    assert_true(a->dropped == 0 && b->dropped == 0 && a->drop_share == 0 && b->drop_share == 0);
}

/* A deadline that never comes costs nothing, to the bit; one that is over at once costs whatever is above the floor. */
static void test_eval_deadline(void **state)
{
    (void)state;
    const mp_store_params at_once = OVER_AT_ONCE, none = {.memory = at_once.memory},
                          never = {.memory = at_once.memory, .deadline_ns = UINT64_C(1000000000000000)};
    mp_eval_result a = eval_with(none), b = eval_with(never), c = eval_with(at_once);
    for (size_t i = 0; i < 3; i++) assert_same_quality(&a.points[i], &b.points[i]);
    assert_same_quality(&a.points[2], &c.points[2]);
    for (size_t i = 0; i < 2; i++) {
        const mp_eval_point *p = &c.points[i];
        assert_true(p->dropped > 0 && p->drop_share > 0 && p->drop_share < 1);
        assert_true(p->compute_share < a.points[i].compute_share && p->compute_share >= a.points[2].compute_share);
        assert_true(p->kl_mean != a.points[i].kl_mean && p->ppl != a.points[i].ppl && isfinite(p->ppl));
    }
    assert_true(a.against_ppl == c.against_ppl && a.points[0].ppl == c.against_ppl); /* the reference loses nothing */
    mp_eval_result_clear(&a);
    mp_eval_result_clear(&b);
    mp_eval_result_clear(&c);
}

typedef struct attempt {
    mp_store_params store;
    mp_eval_result result;
    mp_status status;
    mp_error err;
} attempt;

/* Evaluates where the system has no io_uring; another thread judges, so nothing is asserted here. */
static void *eval_without_io_uring(void *arg)
{
    attempt *a = arg;
    if (refusal_install(&(refusal){SYS_io_uring_setup, EPERM, 0})) a->status = try_eval(a->store, &a->result, &a->err);
    return NULL;
}

/* The results are the same, and say how they were come by. */
static void test_eval_notice(void **state)
{
    (void)state;
    pthread_t thread;
    attempt a = {.store = {.memory = least_memory(whole)}, .status = MP_E_UNSUPPORTED};
    mp_eval_result with = eval_with(a.store);
    assert_int_equal(pthread_create(&thread, NULL, eval_without_io_uring, &a), 0);
    pthread_join(thread, NULL);
    assert_ok(a.status, &a.err);
    assert_non_null(strstr(a.result.notice, "io_uring does not work here"));
    assert_non_null(strstr(a.result.notice, "reading with threads"));
    assert_int_equal(a.result.n_points, with.n_points);
    for (size_t i = 0; i < with.n_points; i++) assert_same_quality(&with.points[i], &a.result.points[i]);
    mp_eval_result_clear(&with);
    mp_eval_result_clear(&a.result);
}

typedef struct watched {
    uint64_t layers, subs, last_step;
    bool sound;
} watched;

static void see_layer(void *user, const mp_layer_run *run)
{
    watched *w = user;
    const mp_model_info *info = mp_model_get_info(split);
    w->sound = w->sound && run->layer == w->layers % info->n_moe_layers && run->n_tokens == 1;
    w->sound = w->sound && run->n_experts == info->n_experts_used;
    for (uint32_t i = 0; i < run->n_subs; i++) {
        bool routed = false;
        for (uint32_t k = 0; k < run->n_experts; k++) routed |= run->subs[i] / info->n_parts == run->experts[k];
        for (uint32_t k = 0; k < i; k++) w->sound = w->sound && run->subs[k] != run->subs[i];
        w->sound = w->sound && routed;
    }
    w->layers++;
    w->subs += run->n_subs;
    w->last_step = run->step;
}

static void test_watch(void **state)
{
    (void)state;
    mp_error err;
    watched w = {.sound = true};
    mp_engine *e = open_engine(split, 2, (mp_store_params){0});
    const mp_model_info *info = mp_model_get_info(split);
    uint64_t run = 0, layer, full;
    mp_engine_watch_layers(e, see_layer, &w);
    for (uint32_t i = 0; i < 8; i++) {
        const mp_batch_token token = {.token = ids[i], .pos = i, .point = i % 2};
        assert_ok(mp_engine_step(e, &token, 1, &err), &err);
    }
    mp_engine_watch_layers(e, NULL, NULL);
    assert_ok(mp_engine_step(e, &(mp_batch_token){.token = ids[8], .pos = 8}, 1, &err), &err);
    assert_true(w.sound);
    assert_int_equal(w.layers, 8 * info->n_moe_layers);
    assert_int_equal(w.last_step, 7);
    for (uint32_t i = 0; i < info->n_moe_layers; i++) {
        mp_engine_layer_use(e, i, &layer, &full);
        run += layer;
    }
    assert_int_equal(run, w.subs + (uint64_t)info->n_moe_layers * info->n_parts * info->n_experts_used);
    mp_engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits_split),    cmocka_unit_test(test_same_bits_whole),
        cmocka_unit_test(test_several_files),      cmocka_unit_test(test_what_fits_is_mapped),
        cmocka_unit_test(test_too_small),          cmocka_unit_test(test_bad_params),
        cmocka_unit_test(test_pin_needs_a_record), cmocka_unit_test(test_changed_file),
        cmocka_unit_test(test_prefer_resident),    cmocka_unit_test(test_stats_since),
        cmocka_unit_test(test_deadline),           cmocka_unit_test(test_eval_deadline),
        cmocka_unit_test(test_eval_notice),        cmocka_unit_test(test_watch),
    };
    return cmocka_run_group_tests(tests, make_models, remove_models);
}
