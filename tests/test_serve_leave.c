/* Who leaves the serving loop early: a job that is released in the middle of its reply, and what waits when the server
 * is told to stop. The linker puts __wrap_mp_engine_step() in front of the engine's own step (Makefile), so that the
 * engine stands still while the tests arrange things. */
#include "loop_testing.h"

#include <pthread.h>
#include <unistd.h>

enum { CTX = 256, QUEUE = 8, REPLY = 100, EARLY = 5, FREE = INT32_MAX };

/* ---- the engine ---- */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int allowed; /* steps that may still begin */
    int begun;
    bool stands; /* a step waits for being allowed */
} engine = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

mp_status __real_mp_engine_step(mp_engine *e, const mp_batch_token *tokens, size_t n, mp_error *err);
mp_status __wrap_mp_engine_step(mp_engine *e, const mp_batch_token *tokens, size_t n, mp_error *err);

mp_status __wrap_mp_engine_step(mp_engine *e, const mp_batch_token *tokens, size_t n, mp_error *err)
{
    pthread_mutex_lock(&engine.lock);
    engine.stands = engine.allowed == 0;
    pthread_cond_broadcast(&engine.changed);
    while (engine.allowed == 0) pthread_cond_wait(&engine.changed, &engine.lock);
    engine.stands = false;
    if (engine.allowed != FREE) engine.allowed--;
    engine.begun++;
    pthread_mutex_unlock(&engine.lock);
    return __real_mp_engine_step(e, tokens, n, err);
}

static void allow(int steps)
{
    pthread_mutex_lock(&engine.lock);
    engine.allowed = steps;
    engine.begun = 0;
    pthread_cond_broadcast(&engine.changed);
    pthread_mutex_unlock(&engine.lock);
}

static void until_it_stands(void)
{
    pthread_mutex_lock(&engine.lock);
    while (!engine.stands) pthread_cond_wait(&engine.changed, &engine.lock);
    pthread_mutex_unlock(&engine.lock);
}

static int steps_begun(void)
{
    pthread_mutex_lock(&engine.lock);
    const int n = engine.begun;
    pthread_mutex_unlock(&engine.lock);
    return n;
}

/* ---- the loop ---- */

static loop *open_loop(uint32_t slots)
{
    loop *l;
    mp_error err;
    const loop_params params = {.model = model,
                                .engine = {.threads = 1, .n_ctx = CTX, .n_seqs = slots, .n_batch = 64},
                                .policy = SCHED_POLICY_ELASTIC,
                                .queue = QUEUE,
                                .cost = {.shape = {.used = 0.25}, .ns = {1e6, 1e5, 1e5, 1e5, 10, 1e4}, .correction = 1},
                                .metrics = counts};
    assert_ok(loop_open(&params, &l, &err), &err);
    return l;
}

/* A job whose prompt is one step and whose every other token is one more. */
static job *submit(loop *l, const void *request)
{
    mp_error err;
    uint64_t retry_ns;
    job *j = NULL;
    job_params p = {.n_prompt = 1, .max_tokens = REPLY, .ignore_eos = true, .request = request};
    p.prompt = calloc(1, sizeof *p.prompt);
    assert_int_equal(loop_submit(l, &p, &j, &retry_ns, &err), LOOP_ACCEPTED);
    return j;
}

static void until_idle(loop *l)
{
    for (loop_status s = loop_get_status(l); s.running + s.waiting > 0; s = loop_get_status(l)) usleep(1000);
}

/* How a job ended, when the loop has ended. */
static job_end end_of(job *j)
{
    job_end end = JOB_RUNNING;
    for (job_piece piece; end == JOB_RUNNING && job_take(j, &piece); job_piece_clear(&piece)) end = piece.end;
    return end;
}

/* ---- tests ---- */

/* The step that was under way is its last. */
static void test_release_in_mid_reply(void **state)
{
    (void)state;
    loop *l = open_loop(1);
    allow(EARLY);
    job *j = submit(l, NULL);
    until_it_stands();
    job_release(j);
    allow(FREE);
    until_idle(l);
    assert_int_equal(steps_begun(), 1);
    loop_close(l);
}

static void test_release_while_it_waits(void **state)
{
    (void)state;
    loop *l = open_loop(1);
    allow(EARLY);
    job *runs = submit(l, NULL), *waits = submit(l, NULL);
    until_it_stands();
    job_release(waits);
    allow(FREE);
    until_idle(l);
    assert_int_equal(steps_begun(), REPLY - EARLY);
    assert_int_equal(end_of(runs), JOB_LENGTH);
    job_release(runs);
    loop_close(l);
}

static void *stop(void *l)
{
    loop_stop(l, UINT64_MAX);
    return NULL;
}

/* A stop with grace lets what runs finish, all replies of its request; what only waits does not use the grace up. */
static void test_grace(void **state)
{
    (void)state;
    enum { JOBS = 5 };
    static const int requests[JOBS] = {0, 1, 2, 0, 2};
    job *jobs[JOBS], *refused = NULL;
    pthread_t thread;
    loop *l = open_loop(1);
    allow(EARLY);
    for (int i = 0; i < JOBS; i++) {
        jobs[i] = submit(l, requests[i] == 1 ? NULL : &requests[requests[i]]);
        if (i == 0) until_it_stands(); /* the others wait for its slot */
    }
    assert_int_equal(pthread_create(&thread, NULL, stop, l), 0);
    while (!loop_get_status(l).stopping) usleep(1000);
    job_params late = {.n_prompt = 1, .max_tokens = 1, .prompt = calloc(1, sizeof *late.prompt)};
    assert_int_equal(loop_submit(l, &late, &refused, &(uint64_t){0}, &(mp_error){0}), LOOP_STOPPING);
    allow(FREE);
    pthread_join(thread, NULL);
    assert_int_equal(steps_begun(), REPLY - EARLY + REPLY);
    for (int i = 0; i < JOBS; i++) {
        assert_int_equal(end_of(jobs[i]), requests[i] == 0 ? JOB_LENGTH : JOB_CANCELLED);
        assert_int_equal(job_get_usage(jobs[i]).completion_tokens, requests[i] == 0 ? REPLY : 0);
        job_release(jobs[i]);
    }
    loop_close(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_release_in_mid_reply),
        cmocka_unit_test(test_release_while_it_waits),
        cmocka_unit_test(test_grace),
    };
    return cmocka_run_group_tests_name("leaving the serving loop", tests, open_model, close_model);
}
