/* The serving loop on the demo model: greedy streams equal a plain run at the same point, alone and in company, with
 * and without the prefix cache; limits, refusals, the account. */
#include "loop_testing.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/rng.h"

enum { CTX = 256, SLOTS = 8, STREAMS = 24, REPLY = 24 };

/* ---- a plain run ---- */

static int32_t prompt_token(uint32_t stream, uint32_t i)
{
    const uint32_t n_vocab = mp_model_get_info(model)->n_vocab;
    return (int32_t)((i < 70 ? 11 + i * 13 : 5 + stream * 101 + i * 7) % n_vocab); /* all begin alike */
}

static uint32_t prompt_len(uint32_t stream)
{
    return 1 + stream * 37 % 150;
}

static mp_batch_token token_at(int32_t token, uint32_t pos, uint32_t point, bool logits)
{
    return (mp_batch_token){.token = token, .pos = pos, .point = point, .logits = logits};
}

/* What a greedy draw gives after the prompt; the tokens it drew, the end excluded. */
static uint32_t run_plain(uint32_t stream, uint32_t point, int32_t *out)
{
    mp_error err;
    mp_engine *e;
    const mp_engine_params params = {.threads = 1, .n_ctx = CTX, .n_batch = CTX};
    assert_ok(mp_engine_open(model, &params, &e, &err), &err);
    mp_batch_token batch[CTX];
    uint32_t n = prompt_len(stream), drawn = 0, pos = 0;
    for (uint32_t i = 0; i < n; i++) batch[i] = token_at(prompt_token(stream, i), i, point, i + 1 == n);
    while (drawn < REPLY) {
        assert_ok(mp_engine_step(e, batch, n, &err), &err);
        pos += n;
        const float *logits = mp_engine_logits(e, n - 1);
        int32_t best = 0;
        for (uint32_t i = 1; i < mp_model_get_info(model)->n_vocab; i++)
            if (logits[i] > logits[best]) best = (int32_t)i;
        if (mp_token_ends_text(model, best)) break;
        out[drawn++] = best;
        batch[0] = token_at(best, pos, point, true);
        n = 1;
    }
    mp_engine_close(e);
    return drawn;
}

/* ---- a stream ---- */

typedef struct stream {
    uint32_t number, point;
    job *job;
    int32_t tokens[CTX];
    uint32_t n_tokens;
    char *text;
    size_t len;
    job_end end;
    char error[MP_ERROR_MAX];
    pthread_mutex_t lock;
    pthread_cond_t news;
    bool woken;
} stream;

static void on_wake(void *user)
{
    stream *s = user;
    pthread_mutex_lock(&s->lock);
    s->woken = true;
    pthread_cond_signal(&s->news);
    pthread_mutex_unlock(&s->lock);
}

static void stream_init(stream *s, uint32_t number, uint32_t point)
{
    *s = (stream){.number = number, .point = point};
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->news, NULL);
}

static void stream_clear(stream *s)
{
    free(s->text);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->news);
}

static job_params params_of(stream *s)
{
    job_params p = {.n_prompt = prompt_len(s->number),
                    .max_tokens = REPLY,
                    .best = s->point,
                    .floor = s->point,
                    .logprobs = true,
                    .top_logprobs = 2,
                    .wake = on_wake,
                    .user = s};
    p.prompt = calloc(p.n_prompt, sizeof *p.prompt);
    for (uint32_t i = 0; i < p.n_prompt; i++) p.prompt[i] = prompt_token(s->number, i);
    return p;
}

static loop_verdict submit(loop *l, stream *s, job_params p)
{
    uint64_t retry_ns;
    mp_error err;
    return loop_submit(l, &p, &s->job, &retry_ns, &err);
}

/* Takes what there is. */
static void take(stream *s)
{
    job_piece piece;
    while (job_take(s->job, &piece)) {
        s->text = realloc(s->text, s->len + piece.len + 1);
        if (piece.len > 0) memcpy(s->text + s->len, piece.text, piece.len);
        s->len += piece.len;
        s->text[s->len] = '\0';
        for (size_t i = 0; i < piece.n_tokens; i++) s->tokens[s->n_tokens++] = piece.tokens[i].drawn.token;
        if (piece.end != JOB_RUNNING) s->end = piece.end;
        if (piece.error) snprintf(s->error, sizeof s->error, "%s", piece.error->message);
        job_piece_clear(&piece);
    }
}

/* Reads until the end, or until n tokens. */
static void read_stream(stream *s, uint32_t n)
{
    for (take(s); s->end == JOB_RUNNING && s->n_tokens < n; take(s)) {
        pthread_mutex_lock(&s->lock);
        while (!s->woken) pthread_cond_wait(&s->news, &s->lock);
        s->woken = false;
        pthread_mutex_unlock(&s->lock);
    }
}

static loop *open_loop_with(uint32_t slots, uint32_t queue, uint32_t pages, bool no_cache, mp_store_params store)
{
    loop *l;
    mp_error err;
    const loop_params params = {
        .model = model,
        .engine = {.threads = 2, .n_ctx = CTX, .n_seqs = slots, .n_batch = 64, .n_pages = pages, .store = store},
        .policy = SCHED_POLICY_ELASTIC,
        .queue = queue,
        .cost = {.shape = {.used = 0.25}, .ns = {1e6, 1e5, 1e5, 1e5, 10, 1e4}, .correction = 1},
        .no_prefix_cache = no_cache,
        .metrics = counts};
    assert_ok(loop_open(&params, &l, &err), &err);
    return l;
}

static loop *open_loop(uint32_t slots, uint32_t queue, uint32_t pages, bool no_cache)
{
    return open_loop_with(slots, queue, pages, no_cache, (mp_store_params){0});
}

/* ---- tests ---- */

static void assert_plain(const stream *s)
{
    int32_t expected[REPLY];
    const uint32_t n = run_plain(s->number, s->point, expected);
    assert_int_equal(s->end, n < REPLY ? JOB_STOP : JOB_LENGTH);
    assert_int_equal(s->n_tokens, n);
    assert_memory_equal(s->tokens, expected, n * sizeof *expected);
    char text[4096];
    size_t len = 0;
    for (uint32_t i = 0; i < n; i++) len += mp_token_bytes(model, expected[i], false, text + len, sizeof text - len);
    if (memchr(s->text, 0xEF, s->len) == NULL) assert_int_equal(s->len, len); /* no U+FFFD: the same bytes */
}

static void test_alone(void **state)
{
    (void)state;
    loop *l = open_loop(1, 4, 0, true);
    for (uint32_t point = 0; point < 2; point++) {
        stream s;
        stream_init(&s, 3, point);
        assert_int_equal(submit(l, &s, params_of(&s)), LOOP_ACCEPTED);
        read_stream(&s, UINT32_MAX);
        assert_plain(&s);
        const job_usage u = job_get_usage(s.job);
        const mp_point *p = mp_model_point(model, point);
        assert_int_equal(u.prompt_tokens, prompt_len(3));
        assert_int_equal(u.cached_tokens, 0);
        assert_int_equal(u.point_min, point);
        assert_int_equal(u.point_max, point);
        assert_true(fabs(u.compute_share - p->compute_share) < 1e-6);
        assert_true(fabs(u.experts_floor - p->experts) < 1e-9);
        assert_true(point == 0 ? u.ppl_increase == 0 : isnan(u.ppl_increase)); /* a whole model is not measured */
        assert_true(u.ttft_ns >= u.queue_ns && u.ttft_ns > 0 && u.tpot_ns > 0);
        job_release(s.job);
        stream_clear(&s);
    }
    loop_close(l);
}

typedef struct crowd {
    loop *loop;
    stream *streams;
    uint32_t first, count;
} crowd;

/* Submits and reads, leaving every fifth early. */
static void *join_crowd(void *arg)
{
    crowd *c = arg;
    for (uint32_t i = 0; i < c->count; i++) {
        stream *s = &c->streams[c->first + i];
        job_params p = params_of(s);
        if (s->number % 3 == 2) { /* a neighbour that draws by chance */
            p.sampling = (mp_sampler_params){.temperature = 1, .top_p = 0.9f, .seed = s->number};
            p.floor = mp_model_get_info(model)->n_points - 1;
        }
        if (submit(c->loop, s, p) != LOOP_ACCEPTED) return c;
        if (s->number % 2) continue; /* this one is read beside the next */
        read_stream(s, s->number % 5 == 4 ? 3 : UINT32_MAX);
        if (s->number % 5 == 4) job_release(s->job);
    }
    for (uint32_t i = 0; i < c->count; i++) {
        stream *s = &c->streams[c->first + i];
        if (s->number % 2) read_stream(s, s->number % 5 == 4 ? 3 : UINT32_MAX);
        if (s->number % 2 && s->number % 5 == 4) job_release(s->job);
    }
    return NULL;
}

static void run_crowd(uint32_t pages, bool no_cache)
{
    enum { THREADS = 4 };
    static stream streams[STREAMS];
    loop *l = open_loop(SLOTS, STREAMS, pages, no_cache);
    pthread_t threads[THREADS];
    crowd crowds[THREADS];
    for (uint32_t i = 0; i < STREAMS; i++) stream_init(&streams[i], i, i % 4 / 2);
    for (uint32_t t = 0; t < THREADS; t++) {
        crowds[t] = (crowd){l, streams, t * STREAMS / THREADS, STREAMS / THREADS};
        assert_int_equal(pthread_create(&threads[t], NULL, join_crowd, &crowds[t]), 0);
    }
    void *failed = NULL, *result;
    for (uint32_t t = 0; t < THREADS; t++) {
        pthread_join(threads[t], &result);
        if (result) failed = result;
    }
    assert_null(failed);
    for (uint32_t i = 0; i < STREAMS; i++) {
        if (i % 5 == 4) continue;
        if (i % 3 != 2) assert_plain(&streams[i]);
        const job_usage u = job_get_usage(streams[i].job);
        assert_true(u.completion_tokens > 0 && u.cached_tokens < u.prompt_tokens);
        assert_int_equal(u.cached_tokens % MP_KV_PAGE, 0);
        job_release(streams[i].job);
    }
    loop_stop(l, 0);
    const loop_status status = loop_get_status(l);
    assert_int_equal(status.running + status.waiting, 0);
    loop_close(l);
    for (uint32_t i = 0; i < STREAMS; i++) stream_clear(&streams[i]);
}

static void test_in_company(void **state)
{
    (void)state;
    run_crowd(0, true);
}

static void test_with_prefix_cache(void **state)
{
    (void)state;
    run_crowd(0, false);
}

/* Fewer pages than the cache would like to keep: they are given up as they are needed. */
static void test_with_little_memory(void **state)
{
    (void)state;
    run_crowd(8, false);
}

static void test_prefix_is_used(void **state)
{
    (void)state;
    loop *l = open_loop(2, 4, 0, false);
    for (uint32_t turn = 0; turn < 4; turn++) {
        stream s;
        stream_init(&s, 4, turn / 2); /* 149 tokens: two whole pages */
        assert_int_equal(submit(l, &s, params_of(&s)), LOOP_ACCEPTED);
        read_stream(&s, UINT32_MAX);
        assert_plain(&s);
        assert_int_equal(job_get_usage(s.job).cached_tokens, turn % 2 ? 2 * MP_KV_PAGE : 0); /* per point */
        job_release(s.job);
        stream_clear(&s);
    }
    loop_close(l);
}

/* A deadline for reads that is over at once (as in test_disk.c: something is dropped for certain). */
static loop *open_late_loop(void)
{
    mp_plan plan;
    mp_error err;
    assert_ok(mp_engine_plan(model, &(mp_engine_params){.n_ctx = CTX}, &plan, &err), &err);
    return open_loop_with(
        1, 4, 0, false,
        (mp_store_params){.memory = plan.experts_least, .deadline_ns = 1, .backend = "threads", .depth = 1});
}

/* Nothing falls below a floor; what was lost is told, and stays with those who accept it. */
static void test_late_reads(void **state)
{
    (void)state;
    enum { LONG = 2 * MP_KV_PAGE + 2 };
    const uint32_t last = mp_model_get_info(model)->n_points - 1;
    loop *l = open_late_loop();
    stream exact, lossy, again;
    stream_init(&exact, 0, 0);
    assert_int_equal(submit(l, &exact, params_of(&exact)), LOOP_ACCEPTED);
    read_stream(&exact, UINT32_MAX);
    assert_plain(&exact);
    assert_int_equal(job_get_usage(exact.job).dropped, 0);
    job_release(exact.job);

    stream_init(&lossy, 0, 0);
    job_params p = params_of(&lossy);
    p.floor = last;
    p.max_tokens = LONG;
    p.ignore_eos = true;
    assert_int_equal(submit(l, &lossy, p), LOOP_ACCEPTED);
    read_stream(&lossy, UINT32_MAX);
    const job_usage u = job_get_usage(lossy.job);
    assert_true(u.dropped > 0 && u.experts_mean >= u.experts_floor && u.compute_share < 1);
    assert_int_equal(u.point_max, last);
    job_release(lossy.job);

    for (uint32_t floor = 0; floor <= last; floor += last) { /* the same text as a prompt */
        stream_init(&again, 0, 0);
        p = params_of(&again);
        p.floor = floor;
        p.n_prompt = 1 + LONG;
        p.prompt = realloc(p.prompt, p.n_prompt * sizeof *p.prompt);
        memcpy(p.prompt + 1, lossy.tokens, LONG * sizeof *p.prompt);
        assert_int_equal(submit(l, &again, p), LOOP_ACCEPTED);
        read_stream(&again, UINT32_MAX);
        assert_int_equal(job_get_usage(again.job).cached_tokens, floor ? 2 * MP_KV_PAGE : 0);
        job_release(again.job);
        stream_clear(&again);
    }
    stream_clear(&exact);
    stream_clear(&lossy);
    loop_close(l);
}

/* Log probabilities of a prompt are those that a plain run gives, whatever runs beside it; the first token has none. */
static void assert_scored(stream *s)
{
    mp_error err;
    mp_engine *e;
    job_piece piece;
    const uint32_t n = prompt_len(s->number), n_vocab = mp_model_get_info(model)->n_vocab;
    const mp_engine_params params = {.threads = 1, .n_ctx = CTX, .n_batch = CTX};
    mp_batch_token batch[CTX];
    assert_ok(mp_engine_open(model, &params, &e, &err), &err);
    for (uint32_t i = 0; i < n; i++) batch[i] = token_at(prompt_token(s->number, i), i, s->point, true);
    assert_ok(mp_engine_step(e, batch, n, &err), &err);
    uint32_t at = 0;
    for (job_end end = JOB_RUNNING; end == JOB_RUNNING;) {
        pthread_mutex_lock(&s->lock);
        while (!s->woken) pthread_cond_wait(&s->news, &s->lock);
        s->woken = false;
        pthread_mutex_unlock(&s->lock);
        while (end == JOB_RUNNING && job_take(s->job, &piece)) {
            for (size_t i = 0; i < piece.n_tokens && at < n; i++, at++) {
                int32_t top[2];
                float values[2];
                const job_token *t = &piece.tokens[i];
                assert_int_equal(t->drawn.token, prompt_token(s->number, at));
                if (at == 0) {
                    assert_true(isnan(t->drawn.logprob) && t->n_top == 0);
                    continue;
                }
                const float p = mp_logprobs(mp_engine_logits(e, at - 1), n_vocab, t->drawn.token, 2, top, values);
                assert_true(t->drawn.logprob == p && t->n_top == 2);
                assert_true(t->top[1].token == top[1] && t->top[1].logprob == values[1]);
            }
            end = piece.end;
            job_piece_clear(&piece);
        }
    }
    assert_int_equal(at, n);
    mp_engine_close(e);
}

static void test_scored_prompts(void **state)
{
    enum { SCORED = 3 };
    static const uint32_t numbers[SCORED] = {0, 4, 8}; /* of 1, 149 and 147 tokens: more than a step scores */
    stream s[SCORED], other;
    (void)state;
    loop *l = open_loop(SLOTS, STREAMS, 0, false);
    stream_init(&other, 3, 1);
    assert_int_equal(submit(l, &other, params_of(&other)), LOOP_ACCEPTED);
    for (uint32_t i = 0; i < SCORED; i++) {
        stream_init(&s[i], numbers[i], i % 2);
        job_params p = params_of(&s[i]);
        p.prompt_logprobs = true;
        assert_int_equal(submit(l, &s[i], p), LOOP_ACCEPTED);
    }
    for (uint32_t i = 0; i < SCORED; i++) {
        assert_scored(&s[i]);
        assert_int_equal(job_get_usage(s[i].job).cached_tokens, 0);
        job_release(s[i].job);
        stream_clear(&s[i]);
    }
    read_stream(&other, UINT32_MAX);
    assert_plain(&other);
    job_release(other.job);
    stream_clear(&other);
    loop_close(l);
}

/* The text ends before a stop string, wherever it stands in the tokens. */
static void test_stop_string(void **state)
{
    (void)state;
    loop *l = open_loop(1, 4, 0, false);
    stream whole, cut;
    stream_init(&whole, 5, 0);
    assert_int_equal(submit(l, &whole, params_of(&whole)), LOOP_ACCEPTED);
    read_stream(&whole, UINT32_MAX);
    assert_true(whole.len > 12);
    stream_init(&cut, 5, 0);
    job_params p = params_of(&cut);
    p.stop = calloc(1, sizeof *p.stop);
    p.stop[0] = strndup(whole.text + whole.len / 2, 5);
    const char *first = strstr(whole.text, p.stop[0]);
    const size_t at = (size_t)(first - whole.text);
    p.n_stop = 1;
    assert_int_equal(submit(l, &cut, p), LOOP_ACCEPTED);
    read_stream(&cut, UINT32_MAX);
    assert_int_equal(cut.end, JOB_STOP);
    assert_int_equal(cut.len, at);
    if (at > 0) assert_memory_equal(cut.text, whole.text, at);
    job_release(whole.job);
    job_release(cut.job);
    stream_clear(&whole);
    stream_clear(&cut);
    loop_close(l);
}

static void test_refusals(void **state)
{
    (void)state;
    loop *l = open_loop(1, 1, 2, false);
    stream s[4];
    for (uint32_t i = 0; i < 4; i++) stream_init(&s[i], 2, 0);
    job_params p = params_of(&s[0]);
    p.max_tokens = CTX;
    assert_int_equal(submit(l, &s[0], p), LOOP_NEVER_FITS); /* the context */
    p = params_of(&s[0]);
    p.max_tokens = 3 * MP_KV_PAGE - (uint32_t)p.n_prompt;
    assert_int_equal(submit(l, &s[0], p), LOOP_NEVER_FITS); /* the pages */
    p = params_of(&s[0]);
    p.prompt[1] = (int32_t)mp_model_get_info(model)->n_vocab;
    assert_int_equal(submit(l, &s[0], p), LOOP_INVALID);
    p = params_of(&s[0]);
    p.sampling.temperature = -1;
    assert_int_equal(submit(l, &s[0], p), LOOP_INVALID);
    p = params_of(&s[0]);
    p.floor = mp_model_get_info(model)->n_points;
    assert_int_equal(submit(l, &s[0], p), LOOP_INVALID);
    p = params_of(&s[0]);
    p.n_prompt = 0;
    assert_int_equal(submit(l, &s[0], p), LOOP_INVALID);
    assert_null(s[0].job);

    uint32_t full = 0; /* one runs, one waits */
    for (uint32_t i = 0; i < 4; i++) {
        p = params_of(&s[i]);
        p.max_tokens = 2 * MP_KV_PAGE - (uint32_t)p.n_prompt;
        p.ignore_eos = true;
        full += submit(l, &s[i], p) == LOOP_QUEUE_FULL;
    }
    assert_true(full > 0);
    loop_stop(l, 0);
    assert_int_equal(submit(l, &s[3], params_of(&s[3])), LOOP_STOPPING);
    for (uint32_t i = 0; i < 4; i++) {
        if (s[i].job) {
            read_stream(&s[i], UINT32_MAX);
            assert_true(s[i].end == JOB_CANCELLED || s[i].end == JOB_LENGTH);
            job_release(s[i].job);
        }
        stream_clear(&s[i]);
    }
    loop_close(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_in_company),
        cmocka_unit_test(test_with_prefix_cache),
        cmocka_unit_test(test_with_little_memory),
        cmocka_unit_test(test_prefix_is_used),
        cmocka_unit_test(test_late_reads),
        cmocka_unit_test(test_scored_prompts),
        cmocka_unit_test(test_stop_string),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("serving loop", tests, open_model, close_model);
}
