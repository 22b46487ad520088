/* A server whose engine fails or stands still. It fails: the requests of that step are told so in the shape of their
 * API, also in the middle of a stream; they are counted, their slots and pages are free, and the server goes on. It
 * stands still: streams give signs of life. The linker puts __wrap_mp_engine_step() in front of the engine's own step,
 * and __wrap_sleeper_take() in front of the watch's (Makefile). */
#include "testing.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "serve/serve.h"
#include "serve/watch.h"

enum { CTX = 256, SLOTS = 4, NEVER = INT32_MAX };

/* ---- the engine ---- */

static atomic_int steps_until_failure; /* NEVER: all go well */
static atomic_int failures_told, told_for_good;
static atomic_bool stands;   /* no step begins */
static atomic_bool for_good; /* the next failure is one that cannot heal */

mp_status __real_mp_engine_step(mp_engine *engine, const mp_batch_token *tokens, size_t n, mp_error *err);
mp_status __wrap_mp_engine_step(mp_engine *engine, const mp_batch_token *tokens, size_t n, mp_error *err);

mp_status __wrap_mp_engine_step(mp_engine *engine, const mp_batch_token *tokens, size_t n, mp_error *err)
{
    while (stands) usleep(1000);
    if (steps_until_failure == NEVER || atomic_fetch_sub(&steps_until_failure, 1) > 0)
        return __real_mp_engine_step(engine, tokens, n, err);
    steps_until_failure = NEVER;
    mp_error ignored;
    __real_mp_engine_step(engine, tokens, n, &ignored); /* it fails late: positions are taken already */
    return status_fail(err, for_good ? MP_E_CHANGED : MP_E_IO, "layer 3: cannot read sub-expert 17: the disk is gone");
}

/* ---- the watch ---- */

sleeper *__real_sleeper_take(watch *w, struct MHD_Connection *connection, uint64_t beat_ns);
sleeper *__wrap_sleeper_take(watch *w, struct MHD_Connection *connection, uint64_t beat_ns);

/* Who is to give signs of life gives one at every tick. */
sleeper *__wrap_sleeper_take(watch *w, struct MHD_Connection *connection, uint64_t beat_ns)
{
    return __real_sleeper_take(w, connection, beat_ns > 0 ? 1 : 0);
}

/* ---- the server ---- */

static struct {
    mp_model *model;
    access_rules *access;
    listener listener;
    uint16_t port;
    int stop[2];
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool ready;
    mp_status status;
} server = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void on_ready(void *user)
{
    (void)user;
    pthread_mutex_lock(&server.lock);
    server.ready = true;
    pthread_cond_signal(&server.changed);
    pthread_mutex_unlock(&server.lock);
}

static void on_failure(void *user, const mp_error *err)
{
    (void)user;
    if (strcmp(err->message, "layer 3: cannot read sub-expert 17: the disk is gone") != 0) return;
    if (err->status == MP_E_CHANGED)
        told_for_good++;
    else
        failures_told++;
}

static void *run_server(void *user)
{
    const serve_params params = {
        .model = server.model,
        .model_id = "demo",
        .chat_family = "chatml",
        .engine = {.threads = 2, .n_ctx = CTX, .n_seqs = SLOTS, .n_batch = 64},
        .policy = SCHED_POLICY_ELASTIC,
        .queue = 8,
        .cost = {.shape = {.used = 0.25}, .ns = {1e6, 1e5, 1e5, 1e5, 10, 1e4}, .correction = 1},
        .no_prefix_cache = true,
        .access = server.access,
        .listener = &server.listener,
        .max_body = 1 << 20,
        .connections = 16,
        .timeout_s = 600,
        .grace_s = 600,
        .stop_fd = server.stop[0],
        .ready = on_ready,
        .failed = on_failure,
    };
    mp_error err;
    (void)user;
    server.status = serve_run(&params, &err);
    if (server.status != MP_OK) fprintf(stderr, "# %s\n", err.message);
    return NULL;
}

static int start_server(void **state)
{
    mp_error err;
    (void)state;
    steps_until_failure = NEVER;
    server.listener = LISTENER_NONE;
    if (mp_model_open("models/demo-olmoe-q8_0.gguf", NULL, &server.model, &err) ||
        listener_open("127.0.0.1", 0, &server.listener, &err) ||
        access_open(NULL, NULL, "127.0.0.1", true, &server.access, &err) || pipe2(server.stop, O_NONBLOCK) ||
        pthread_create(&server.thread, NULL, run_server, NULL))
        return -1;
    server.port = server.listener.port;
    pthread_mutex_lock(&server.lock);
    while (!server.ready) pthread_cond_wait(&server.changed, &server.lock);
    pthread_mutex_unlock(&server.lock);
    return 0;
}

static int stop_server(void **state)
{
    (void)state;
    if (write(server.stop[1], "", 1) != 1) return -1;
    pthread_join(server.thread, NULL);
    close(server.stop[0]);
    close(server.stop[1]);
    access_close(server.access);
    mp_model_close(server.model);
    return server.status;
}

/* ---- a client ---- */

/* Sends a request on a connection of its own. */
static int send_request(const char *path, const char *body)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(server.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char head[256];
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    const int n = snprintf(head, sizeof head,
                           "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
                           body ? "POST" : "GET", path, body ? strlen(body) : 0);
    assert_int_equal(write(fd, head, (size_t)n), n);
    if (body) assert_int_equal(write(fd, body, strlen(body)), strlen(body));
    return fd;
}

/* What the server sends, until `part` is in it (NULL: all), it closes the connection or keeps silent for a minute;
 * freed by the caller. */
static char *read_until(int fd, const char *part)
{
    const struct timeval minute = {.tv_sec = 60};
    char *reply = calloc(1, 1);
    size_t len = 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &minute, sizeof minute);
    while (!part || !strstr(reply, part)) {
        reply = realloc(reply, len + 4097);
        const ssize_t got = read(fd, reply + len, 4096);
        if (got > 0) len += (size_t)got;
        reply[len] = '\0';
        if (got <= 0) break;
    }
    return reply;
}

static char *ask(const char *path, const char *body)
{
    const int fd = send_request(path, body);
    char *reply = read_until(fd, NULL);
    close(fd);
    return reply;
}

/* Asks, and checks that the reply begins with `status` and has `part` in it. */
static void expect(const char *path, const char *body, const char *status, const char *part)
{
    char *reply = ask(path, body);
    if (strncmp(reply, status, strlen(status)) != 0 || !strstr(reply, part)) fail_msg("%s: %s", path, reply);
    free(reply);
}

/* Nothing runs or waits: after a reply has arrived it may be a moment until it is so. */
static void expect_idle(void)
{
    for (;;) {
        char *reply = ask("/health", NULL);
        const bool idle = strstr(reply, "\"running\":0,\"waiting\":0") != NULL;
        free(reply);
        if (idle) return;
    }
}

#define OK      "HTTP/1.1 200 "
#define FAILED  "HTTP/1.1 500 "
#define MESSAGE "\"message\":\"layer 3: cannot read sub-expert 17: the disk is gone\""

/* ---- tests ---- */

static void test_whole_replies(void **state)
{
    (void)state;
    static const char *const text = "{\"prompt\":\"The old\",\"max_tokens\":8,\"ignore_eos\":true,\"temperature\":0}";
    static const char *const chat = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":8}";
    for (int steps = 0; steps < 4; steps += 3) { /* in the prompt; in the middle of the reply */
        steps_until_failure = steps;
        expect("/v1/completions", text, FAILED, "{\"error\":{" MESSAGE ",\"type\":\"server_error\"");
        steps_until_failure = 0;
        expect("/v1/chat/completions", chat, FAILED, "{\"error\":{" MESSAGE ",\"type\":\"server_error\"");
        steps_until_failure = 0;
        expect("/v1/messages", chat, FAILED, "\"error\":{\"type\":\"api_error\"," MESSAGE "}");
        expect_idle();
        expect("/v1/completions", text, OK, "\"completion_tokens\":8");
    }
}

static void test_streams(void **state)
{
    (void)state;
    static const char *const text =
        "{\"prompt\":\"The "
        "old\",\"max_tokens\":8,\"ignore_eos\":true,\"temperature\":0,\"stream\":true,\"logprobs\":0}";
    steps_until_failure = 3;
    char *reply = ask("/v1/completions", text);
    const char *error = strstr(reply, "data: {\"error\":{" MESSAGE), *last = NULL;
    for (const char *at = reply; (at = strstr(at, "data: {\"id\"")); at++) last = at;
    if (!last || !error || error < last || !strstr(error, "data: [DONE]\n\n")) fail_msg("%s", reply);
    free(reply);
    steps_until_failure = 0;
    expect("/v1/messages", "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":8,\"stream\":true}",
           OK, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"," MESSAGE "}}");
    expect_idle();
    expect("/v1/completions", text, OK, "data: [DONE]");
}

/* Several share the step; all of it failed, so all of them have. What comes later does not suffer. */
static void test_in_company(void **state)
{
    (void)state;
    steps_until_failure = 10;
    expect("/v1/completions",
           "{\"prompt\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\"],\"max_tokens\":100,\"ignore_eos\":true}", FAILED,
           MESSAGE);
    expect_idle();
    expect("/v1/completions", "{\"prompt\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\"],\"max_tokens\":9,\"ignore_eos\":true}",
           OK, "\"completion_tokens\":54");
}

/* What all of them have left behind: a failure that may pass leaves the server well. */
static void test_counts(void **state)
{
    (void)state;
    expect_idle();
    expect("/metrics", NULL, OK, "moeprism_requests_total{outcome=\"failed\"} 9\n");
    expect("/metrics", NULL, OK, "moeprism_requests_total{outcome=\"cancelled\"} 0\n");
    expect("/metrics", NULL, OK, "moeprism_requests_total{outcome=\"length\"} 4\n");
    expect("/metrics", NULL, OK, "moeprism_kv_pages_used 0\n");
    expect("/metrics", NULL, OK, "moeprism_model_file_changed 0\n");
    expect("/health", NULL, OK, "{\"status\":\"ok\",\"slots\"");
    assert_int_equal(failures_told, 9);
}

/* Streams that have nothing to say yet: each gives signs in the words of its API, apart from what it opens with, and
 * ends as ever. */
static void test_signs_of_life(void **state)
{
    (void)state;
    static const char *const text = "{\"prompt\":\"x\",\"max_tokens\":8,\"stream\":true}";
    static const char *const chat =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":8,\"stream\":true}";
    static const struct {
        const char *path, *const *body, *sign, *last; /* a sign is a chunk of its own */
    } streams[] = {{"/v1/completions", &text, "\r\n: waiting\n\n", "data: [DONE]\n\n"},
                   {"/v1/chat/completions", &chat, "\r\n: waiting\n\n", "data: [DONE]\n\n"},
                   {"/v1/messages", &chat, "\r\nevent: ping\ndata: {\"type\":\"ping\"}\n\n", "event: message_stop\n"}};
    enum { STREAMS = sizeof streams / sizeof streams[0] };
    int fds[STREAMS];
    char *begun[STREAMS], *rest[STREAMS];
    stands = true;
    for (int i = 0; i < STREAMS; i++) fds[i] = send_request(streams[i].path, *streams[i].body);
    for (int i = 0; i < STREAMS; i++) begun[i] = read_until(fds[i], streams[i].sign);
    stands = false;
    for (int i = 0; i < STREAMS; i++) {
        rest[i] = read_until(fds[i], NULL);
        close(fds[i]);
        if (!strstr(begun[i], streams[i].sign)) fail_msg("%s: %s", streams[i].path, begun[i]);
        if (!strstr(rest[i], streams[i].last)) fail_msg("%s: %s", streams[i].path, rest[i]);
        free(begun[i]);
        free(rest[i]);
    }
}

/* Runs last. What is told for good is told once; who runs beside and fails later hears of it, and new ones are refused.
 */
static void test_for_good(void **state)
{
    (void)state;
    static const char *const text = "{\"prompt\":\"The old\",\"max_tokens\":8,\"ignore_eos\":true,\"stream\":true}";
    for_good = true;
    steps_until_failure = 3;
    expect("/v1/completions", text, OK, "\"code\":\"model_file_changed\"}}");
    expect("/health", NULL, "HTTP/1.1 503 ", "{\"status\":\"failed\",\"reason\":\"the model's file has changed");
    for (int i = 0; i < 3; i++)
        expect("/v1/completions", text, FAILED,
               "{\"error\":{" MESSAGE ",\"type\":\"server_error\",\"param\":null,\"code\":\"model_file_changed\"}}");
    expect("/metrics", NULL, OK, "moeprism_model_file_changed 1\n");
    expect("/metrics", NULL, OK, "moeprism_requests_total{outcome=\"failed\"} 13\n");
    assert_int_equal(told_for_good, 1);
    assert_int_equal(failures_told, 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_replies), cmocka_unit_test(test_streams),       cmocka_unit_test(test_in_company),
        cmocka_unit_test(test_counts),        cmocka_unit_test(test_signs_of_life), cmocka_unit_test(test_for_good),
    };
    return cmocka_run_group_tests_name("a failing engine", tests, start_server, stop_server);
}
