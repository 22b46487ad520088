/* Events of the three APIs' streams: pieces of text, log probabilities, an error in the middle. The demo model gives
 * the vocabulary. */
#include "testing.h"

#include "serve/api.h"
#include "serve/generation.h"

static mp_model *model;
static api_context api;

static int open_model(void **state)
{
    mp_error err;
    (void)state;
    if (mp_model_open("models/demo-olmoe-q8_0.gguf", NULL, &model, &err) != MP_OK) return -1;
    api = (api_context){.model = model, .model_id = "demo", .slots = 4, .queue = 4, .n_ctx = 128};
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    mp_model_close(model);
    return 0;
}

/* A generation whose choice 0 has the given end, without jobs. */
static void stream_piece(const api_protocol *protocol, const job_piece *piece, job_end end, bool logprobs, buffer *out)
{
    choice choices[1] = {{.end = end, .stopped_by = piece->stopped_by}};
    const generation g = {.api = &api,
                          .protocol = protocol,
                          .request = {.n = 1, .logprobs = logprobs},
                          .id = "id-1",
                          .created_s = 5,
                          .choices = choices,
                          .n_choices = 1};
    protocol->piece(&g, 0, piece, out);
    assert_false(out->failed);
}

#define CHAT_HEAD                                                                                                      \
    "data: {\"id\":\"id-1\",\"object\":\"chat.completion.chunk\",\"created\":5,\"model\":\"demo\","                    \
    "\"system_fingerprint\":\"moeprism-" MP_VERSION "\",\"choices\":[{\"index\":0,\"delta\":"

static void test_stream_pieces(void **state)
{
    char text[] = "caf\xc3\xa9";
    const job_piece middle = {.text = text, .len = strlen(text)};
    const job_piece last = {.end = JOB_LENGTH};
    buffer out = {0};
    (void)state;
    stream_piece(&api_chat, &middle, JOB_RUNNING, false, &out);
    assert_string_equal(out.data,
                        CHAT_HEAD "{\"content\":\"caf\xc3\xa9\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    buffer_clear(&out);
    stream_piece(&api_chat, &last, JOB_LENGTH, false, &out);
    assert_string_equal(out.data, CHAT_HEAD "{},\"logprobs\":null,\"finish_reason\":\"length\"}]}\n\n");
    buffer_clear(&out);
    stream_piece(&api_messages, &middle, JOB_RUNNING, false, &out);
    assert_string_equal(out.data, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,"
                                  "\"delta\":{\"type\":\"text_delta\",\"text\":\"caf\xc3\xa9\"}}\n\n");
    buffer_clear(&out);
}

static void test_stream_logprobs(void **state)
{
    job_token token = {.drawn = {509, -0.25F}, .n_top = 1, .top = {{509, -0.25F}}};
    char text[] = "The";
    const job_piece piece = {.text = text, .len = 3, .tokens = &token, .n_tokens = 1, .end = JOB_STOP};
    buffer out = {0};
    (void)state;
    stream_piece(&api_chat, &piece, JOB_STOP, true, &out);
    assert_non_null(strstr(out.data,
                           "\"logprobs\":{\"content\":[{\"token\":\"The\",\"logprob\":-0.25,\"bytes\":[84,104,101],"
                           "\"top_logprobs\":[{\"token\":\"The\",\"logprob\":-0.25,\"bytes\":[84,104,101]}]}],"
                           "\"refusal\":null}"));
    assert_non_null(strstr(out.data, "\"finish_reason\":\"stop\""));
    buffer_clear(&out);
    stream_piece(&api_completions, &piece, JOB_STOP, true, &out);
    assert_non_null(strstr(out.data,
                           "\"text\":\"The\",\"logprobs\":{\"tokens\":[\"The\"],\"token_logprobs\":[-0.25],"
                           "\"top_logprobs\":[{\"The\":-0.25}],\"text_offset\":[0]},\"finish_reason\":\"stop\""));
    buffer_clear(&out);
}

static void test_broken_stream(void **state)
{
    api_error err = {0};
    buffer out = {0};
    (void)state;
    api_fail(&err, 500, NULL, "no");
    api_chat.broken(&err, &out);
    assert_string_equal(out.data,
                        "data: {\"error\":{\"message\":\"no\",\"type\":\"server_error\",\"param\":null,\"code\":null}}"
                        "\n\ndata: [DONE]\n\n");
    buffer_clear(&out);
    api_messages.broken(&err, &out);
    assert_string_equal(out.data,
                        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":"
                        "\"no\"}}\n\n");
    buffer_clear(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream_pieces),
        cmocka_unit_test(test_stream_logprobs),
        cmocka_unit_test(test_broken_stream),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
