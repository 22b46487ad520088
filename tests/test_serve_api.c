/* Requests of the three APIs: what they are read as, what is refused with which field's name. The demo model answers no
 * question here; it gives vocabulary and ladder (a whole model: point p runs 8 - p experts). */
#include "testing.h"

#include "serve/api_parts.h"

static mp_model *model;
static api_context api;

static int open_model(void **state)
{
    mp_error err;
    (void)state;
    if (mp_model_open("models/demo-olmoe-q8_0.gguf", NULL, &model, &err) != MP_OK) return -1;
    api = (api_context){.model = model,
                        .model_id = "demo",
                        .chat_family = "chatml",
                        .slots = 4,
                        .queue = 4,
                        .n_ctx = 128,
                        .floor = {[TIER_FLEX] = 5},
                        .ttft_ns = 7,
                        .tpot_ns = 8};
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    mp_model_close(model);
    return 0;
}

/* What a body is read as; its error where it is refused. */
static api_request parse(const api_protocol *protocol, const char *body, api_error *err)
{
    api_request r = {0};
    *err = (api_error){0};
    json_t *root = fields_parse(body, strlen(body), err);
    const bool taken = root != NULL && protocol->parse(&api, root, &r, err);
    assert_int_equal(taken, err->http == 0);
    json_decref(root);
    return r;
}

static api_request good(const api_protocol *protocol, const char *body)
{
    api_error err;
    const api_request r = parse(protocol, body, &err);
    if (err.http != 0) fail_msg("%s: %s", body, err.message);
    return r;
}

static void refused(const api_protocol *protocol, const char *body, const char *param, const char *part)
{
    api_error err;
    api_request r = parse(protocol, body, &err);
    api_request_clear(&r);
    if (err.http != 400 || strcmp(err.param, param) != 0 || strstr(err.message, part) == NULL)
        fail_msg("%s: %u, param '%s', '%s'", body, err.http, err.param, err.message);
}

/* The bodies of most tests are the three APIs' least, and one field more. */
#define CHAT(more)     "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" more "}"
#define TEXT(more)     "{\"prompt\":\"The old\"" more "}"
#define MESSAGES(more) "{\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" more "}"

/* ---- fields ---- */

static void test_defaults(void **state)
{
    (void)state;
    api_request chat = good(&api_chat, CHAT("")), text = good(&api_completions, TEXT(""));
    assert_true(chat.sampling.temperature == 1 && chat.sampling.top_p == 1 && chat.sampling.top_k == 0);
    assert_true(chat.n == 1 && !chat.stream && !chat.logprobs && chat.n_stop == 0 && chat.skip_white);
    assert_true(chat.best == 0 && chat.floor == 0 && chat.priority == 0);
    assert_true(chat.ttft_ns == 7 && chat.tpot_ns == 8);
    assert_int_equal(chat.max_tokens, api.n_ctx - chat.prompts[0].n);
    assert_int_equal(text.max_tokens, 16);
    assert_false(text.skip_white);
    assert_true(chat.sampling.seed != text.sampling.seed);
    api_request_clear(&chat);
    api_request_clear(&text);
}

/* Whose length the scheduler cannot take at its word: nothing but the context bounds it, and the model ends it. */
static void test_open_ended(void **state)
{
    (void)state;
    static const struct {
        const api_protocol *protocol;
        const char *body;
        bool open_ended;
    } cases[] = {
        {&api_chat, CHAT(""), true},
        {&api_chat, CHAT(",\"max_tokens\":9"), false},
        {&api_chat, CHAT(",\"max_completion_tokens\":1000000"), true},
        {&api_chat, CHAT(",\"ignore_eos\":true"), false},
        {&api_completions, TEXT(""), false},
        {&api_completions, TEXT(",\"max_tokens\":1000000"), true},
        {&api_messages, MESSAGES(""), false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        api_request r = good(cases[i].protocol, cases[i].body);
        assert_int_equal(r.open_ended, cases[i].open_ended);
        api_request_clear(&r);
    }
}

static void test_sampling(void **state)
{
    (void)state;
    api_request r = good(
        &api_chat,
        CHAT(",\"temperature\":0.5,\"top_p\":0.25,\"top_k\":5,\"min_p\":0.125,\"seed\":-7,"
             "\"presence_penalty\":-2,\"frequency_penalty\":2,\"repeat_penalty\":1.5,"
             "\"logit_bias\":{\"17\":-100,\"8191\":2.5},\"ignore_eos\":true,\"n\":3,"
             "\"stop\":[\"a\",\"b\"],\"max_tokens\":9,\"max_completion_tokens\":8,"
             "\"logprobs\":true,\"top_logprobs\":20,\"stream\":true,"
             "\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true},\"user\":{},\"metadata\":7"));
    const mp_sampler_params *s = &r.sampling;
    assert_true(s->temperature == 0.5F && s->top_p == 0.25F && s->top_k == 5 && s->min_p == 0.125F);
    assert_true(s->presence_penalty == -2 && s->frequency_penalty == 2 && s->repeat_penalty == 1.5F);
    assert_true(s->seed == (uint64_t)-7 && r.ignore_eos && r.n == 3);
    assert_int_equal(s->n_bias, 2);
    for (size_t i = 0; i < 2; i++) assert_true(s->bias[i].bias == (s->bias[i].token == 17 ? -100 : 2.5F));
    assert_int_equal(r.n_stop, 2);
    assert_string_equal(r.stop[1], "b");
    assert_int_equal(r.max_tokens, 8);
    assert_true(r.logprobs && r.top_logprobs == 20 && r.stream && r.include_usage && r.usage_always);
    api_request_clear(&r);
    r = good(&api_chat, CHAT(",\"top_p\":0,\"top_k\":-1,\"stop\":\"x\",\"temperature\":0"));
    assert_true(r.sampling.top_p > 0 && r.sampling.top_p < 1e-6F && r.sampling.top_k == 0 && r.n_stop == 1);
    api_request_clear(&r);
}

static void test_wrong_fields(void **state)
{
    static const struct {
        const char *body, *param, *part;
    } bad[] = {
        {CHAT(",\"temperature\":\"hot\""), "temperature", "must be a number, not a string"},
        {CHAT(",\"temperature\":-1"), "temperature", "from 0 to 100"},
        {CHAT(",\"top_p\":1.5"), "top_p", "from 0 to 1"},
        {CHAT(",\"top_k\":1.5"), "top_k", "whole number"},
        {CHAT(",\"seed\":1e30"), "seed", "from"},
        {CHAT(",\"n\":5"), "n", "from 1 to 4"},
        {CHAT(",\"n\":0"), "n", "from 1 to 4"},
        {CHAT(",\"stream\":1"), "stream", "must be a boolean"},
        {CHAT(",\"stream_options\":[]"), "stream_options", "must be an object"},
        {CHAT(",\"stream_options\":{\"continuous_usage_stats\":1}"), "stream_options.continuous_usage_stats",
         "boolean"},
        {CHAT(",\"stop\":7"), "stop", "string"},
        {CHAT(",\"stop\":[\"\"]"), "stop", "empty"},
        {CHAT(",\"stop\":[\"a\",\"\\u0000\"]"), "stop", "U+0000"},
        {CHAT(",\"stop\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]"), "stop", "at most 16"},
        {CHAT(",\"max_tokens\":0"), "max_tokens", "from 1"},
        {CHAT(",\"max_completion_tokens\":\"9\""), "max_completion_tokens", "whole number"},
        {CHAT(",\"logit_bias\":{\"x\":1}"), "logit_bias", "no token id"},
        {CHAT(",\"logit_bias\":{\"8192\":1}"), "logit_bias", "no token id from 0 to 8191"},
        {CHAT(",\"logit_bias\":{\"00017\":1}"), "logit_bias", "the key \"00017\", which is no token id"},
        {CHAT(",\"logit_bias\":{\"17\":1,\"017\":1}"), "logit_bias", "the key \"017\""},
        {CHAT(",\"logit_bias\":{\"00\":1}"), "logit_bias", "no token id"},
        {CHAT(",\"logit_bias\":{\"+5\":1}"), "logit_bias", "no token id"},
        {CHAT(",\"logit_bias\":{\"-5\":1}"), "logit_bias", "no token id"},
        {CHAT(",\"logit_bias\":{\" 5\":1}"), "logit_bias", "no token id"},
        {CHAT(",\"logit_bias\":{\"5 \":1}"), "logit_bias", "no token id"},
        {CHAT(",\"logit_bias\":{\"\":1}"), "logit_bias", "no token id"},
        {CHAT(",\"logit_bias\":{\"18446744073709551621\":1}"), "logit_bias", "no token id"},
        {CHAT(",\"logit_bias\":{\"5\":101}"), "logit_bias", "-100 to 100"},
        {CHAT(",\"logit_bias\":[]"), "logit_bias", "must be an object"},
        {CHAT(",\"top_logprobs\":5"), "top_logprobs", "needs logprobs"},
        {CHAT(",\"logprobs\":true,\"top_logprobs\":21"), "top_logprobs", "from 0 to 20"},
        {CHAT(",\"repeat_last_n\":-1"), "repeat_last_n", "from 0 to 1048576"},
        {CHAT(",\"repeat_last_n\":1048577"), "repeat_last_n", "from 0 to 1048576"},
        {CHAT(",\"repeat_last_n\":2000000"), "repeat_last_n", "from 0 to 1048576"},
        {CHAT(",\"presence_penalty\":3"), "presence_penalty", "from -2 to 2"},
        {CHAT(",\"response_format\":{\"type\":\"json_object\"}"), "response_format",
         "\"json_object\" is not supported"},
        {CHAT(",\"tools\":[{}]"), "tools", "not supported"},
        {CHAT(",\"service_tier\":\"gold\""), "service_tier", "one of"},
        {CHAT(",\"best_of\":2"), "best_of", "not supported"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) refused(&api_chat, bad[i].body, bad[i].param, bad[i].part);
    /* The same words, said so that they ask for nothing. */
    api_request r = good(&api_chat, CHAT(",\"response_format\":{\"type\":\"text\"},\"tools\":[],\"temperature\":null,"
                                         "\"tool_choice\":\"none\",\"best_of\":1,\"stop\":null,\"unknown\":[{}]"));
    api_request_clear(&r);
}

/* `n` times `part`, in a body behind `before`. */
static void repeated(buffer *b, const char *before, const char *part, size_t n, const char *after)
{
    buffer_text(b, before);
    for (size_t i = 0; i < n; i++) buffer_text(b, part);
    buffer_text(b, after);
}

static void test_long_stops(void **state)
{
    static const char before[] = "{\"prompt\":\"x\",\"stop\":[\"a\",\"";
    buffer b = {0};
    (void)state;
    repeated(&b, before, "\u00e9", API_MAX_STOP_BYTES / 2, "\"]}");
    api_request r = good(&api_completions, b.data);
    assert_int_equal(strlen(r.stop[1]), API_MAX_STOP_BYTES);
    api_request_clear(&r);
    buffer_clear(&b);
    repeated(&b, before, "\u00e9", API_MAX_STOP_BYTES / 2, "!\"]}");
    refused(&api_completions, b.data, "stop", "holds a string of 1025 bytes: at most 1024");
    buffer_clear(&b);
    repeated(&b, "{\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stop_sequences\":[\"", "ab",
             API_MAX_STOP_BYTES, "\"]}");
    refused(&api_messages, b.data, "stop_sequences", "of 2048 bytes");
    buffer_clear(&b);
}

/* The window of the repetition penalty at its largest is one that the sampler takes. */
static void test_long_window(void **state)
{
    mp_error err;
    mp_sampler *sampler;
    (void)state;
    api_request r = good(&api_chat, CHAT(",\"repeat_last_n\":1048576,\"repeat_penalty\":1.1"));
    assert_int_equal(r.sampling.repeat_last, MP_REPEAT_LAST_MAX);
    assert_ok(mp_sampler_new(&r.sampling, mp_model_get_info(model)->n_vocab, &sampler, &err), &err);
    mp_sampler_free(sampler);
    api_request_clear(&r);
}

/* A bias for every token is taken, more entries are not looked at. */
static void test_many_biases(void **state)
{
    const uint32_t n_vocab = mp_model_get_info(model)->n_vocab;
    (void)state;
    for (uint32_t more = 0; more < 2; more++) {
        buffer b = {0};
        char entry[32];
        buffer_text(&b, "{\"prompt\":\"x\",\"logit_bias\":{\"0\":-100");
        for (uint32_t i = 1; i < n_vocab + more; i++) {
            snprintf(entry, sizeof entry, ",\"%u\":100", i);
            buffer_text(&b, entry);
        }
        buffer_text(&b, "}}");
        if (more) {
            refused(&api_completions, b.data, "logit_bias", "more entries than there are tokens, 8192");
        } else {
            api_request r = good(&api_completions, b.data);
            assert_int_equal(r.sampling.n_bias, n_vocab);
            api_request_clear(&r);
        }
        buffer_clear(&b);
    }
}

/* ---- prompts ---- */

static void assert_same_prompt(const char *a, const char *b)
{
    api_request x = good(&api_chat, a), y = good(&api_chat, b);
    assert_int_equal(x.prompts[0].n, y.prompts[0].n);
    assert_memory_equal(x.prompts[0].ids, y.prompts[0].ids, x.prompts[0].n * sizeof(int32_t));
    api_request_clear(&x);
    api_request_clear(&y);
}

static void test_messages(void **state)
{
    static const struct {
        const char *body, *param, *part;
    } bad[] = {
        {"{}", "messages", "at least one message"},
        {"{\"messages\":{}}", "messages", "must be an array"},
        {"{\"messages\":[7]}", "messages[0]", "must be an object"},
        {"{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "messages[0].role", "must be system"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content", "must be a string or an array"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\\u0000\"}]}", "messages[0].content", "U+0000"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", "messages[0].content",
         "messages[0].content[0].type must be \"text\""},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}", "messages[0].content",
         "messages[0].content[0].text must be a string"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\",\"tool_calls\":[{}]}]}", "messages[0].tool_calls",
         "not supported"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) refused(&api_chat, bad[i].body, bad[i].param, bad[i].part);
    assert_same_prompt("{\"messages\":[{\"role\":\"user\",\"content\":\"a\\nb\"}]}",
                       "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
                       "{\"type\":\"text\",\"text\":\"b\"}]}]}");
    assert_same_prompt(
        "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"u\"}]}",
        "{\"messages\":[{\"role\":\"developer\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"u\"}]}");
}

static void test_prompts(void **state)
{
    static const struct {
        const char *body, *param, *part;
    } bad[] = {
        {"{}", "prompt", "is required"},
        {"{\"prompt\":7}", "prompt", "must be a string"},
        {"{\"prompt\":\"\"}", "prompt", "is empty"},
        {"{\"prompt\":[]}", "prompt", "is empty"},
        {"{\"prompt\":[1,-1]}", "prompt", "token ids from 0 to 8191"},
        {"{\"prompt\":[8192]}", "prompt", "token ids from 0 to 8191"},
        {"{\"prompt\":[\"a\",{}]}", "prompt", "must be a string"},
        {"{\"prompt\":[\"a\",\"b\",\"c\"],\"n\":3}", "prompt", "asks for 9 replies"},
        {TEXT(",\"suffix\":\"x\""), "suffix", "not supported"},
        {TEXT(",\"logprobs\":-1"), "logprobs", "from 0 to 20"},
        {TEXT(",\"max_tokens\":0"), "max_tokens", "from 1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused(&api_completions, bad[i].body, bad[i].param, bad[i].part);
    api_request r = good(&api_completions, "{\"prompt\":[[5,6],[7]],\"echo\":true,\"n\":2}");
    assert_true(r.n_prompts == 2 && r.n == 2 && r.prompts[0].n == 2 && r.prompts[1].n == 1 && r.prompts[1].ids[0] == 7);
    assert_non_null(r.prompts[1].text);
    api_request_clear(&r);
    r = good(&api_completions, "{\"prompt\":[9,8,7],\"logprobs\":0}");
    assert_true(r.n_prompts == 1 && r.prompts[0].n == 3 && r.prompts[0].text == NULL && r.logprobs &&
                !r.prompt_logprobs);
    api_request_clear(&r);
    r = good(&api_completions, "{\"prompt\":[9,8,7],\"logprobs\":0,\"echo\":true}");
    assert_true(r.logprobs && r.prompt_logprobs && r.top_logprobs == 0);
    api_request_clear(&r);
    r = good(&api_completions, "{\"prompt\":\"The old\\u0000\",\"max_tokens\":100000}");
    assert_int_equal(r.max_tokens, api.n_ctx - r.prompts[0].n);
    api_request_clear(&r);
}

static void test_too_long(void **state)
{
    buffer b = {0};
    (void)state;
    buffer_text(&b, "{\"prompt\":[1");
    for (uint32_t i = 1; i < api.n_ctx; i++) buffer_text(&b, ",1");
    buffer_text(&b, "]}");
    refused(&api_completions, b.data, "", "the prompt has 128 tokens, the context of 128 has room for 127");
    buffer_clear(&b);
    buffer_text(&b, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (uint32_t i = 0; i < api.n_ctx; i++) buffer_text(&b, " word");
    buffer_text(&b, "\"}]}");
    refused(&api_chat, b.data, "", "the context of 128 has room for 127");
    api.longest_token = 4; /* 640 bytes are not even looked at */
    refused(&api_chat, b.data, "", "the prompt has 640 bytes");
    api.longest_token = 0;
    buffer_clear(&b);
}

static void test_anthropic(void **state)
{
    static const struct {
        const char *body, *param, *part;
    } bad[] = {
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}", "max_tokens", "is required"},
        {MESSAGES(",\"stop_sequences\":7"), "stop_sequences", "string"},
        {MESSAGES(",\"system\":7"), "system", "must be a string"},
        {MESSAGES(",\"thinking\":{\"type\":\"enabled\"}"), "thinking", "not supported"},
        {MESSAGES(",\"tools\":[{}]"), "tools", "not supported"},
        {"{\"max_tokens\":9,\"messages\":[{\"role\":\"system\",\"content\":\"x\"},{\"role\":\"user\",\"content\":\"x\"}"
         "]}",
         "messages[0].role", "user or assistant"},
        {"{\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":"
         "\"x\"}]}",
         "messages", "prefilled"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused(&api_messages, bad[i].body, bad[i].param, bad[i].part);
    api_request plain = good(&api_messages, MESSAGES(""));
    api_request r =
        good(&api_messages, MESSAGES(",\"system\":[{\"type\":\"text\",\"text\":\"Be the sea.\"}],\"top_k\":3,"
                                     "\"stop_sequences\":[\"END\"],\"service_tier\":\"standard_only\","
                                     "\"thinking\":{\"type\":\"disabled\"},\"stream\":true"));
    assert_true(r.prompts[0].n > plain.prompts[0].n && r.max_tokens == 9 && r.n_stop == 1 && r.stream);
    api_request_clear(&plain);
    api_request_clear(&r);
}

/* ---- quality ---- */

static void assert_points(const char *fields_text, uint32_t best, uint32_t floor)
{
    char body[512];
    snprintf(body, sizeof body, "{\"prompt\":\"x\",%s}", fields_text);
    api_request r = good(&api_completions, body);
    if (r.best != best || r.floor != floor) fail_msg("%s: best %u, floor %u", fields_text, r.best, r.floor);
    api_request_clear(&r);
}

static void test_quality(void **state)
{
    (void)state;
    assert_points("\"moeprism\":{}", 0, 0);
    assert_points("\"moeprism\":{\"experts\":4}", 4, 4);
    assert_points("\"moeprism\":{\"experts\":\"medium\"}", 4, 4);
    assert_points("\"moeprism\":{\"experts\":\"full\"}", 0, 0);
    assert_points("\"moeprism\":{\"compute\":0.25}", 6, 6);
    assert_points("\"moeprism\":{\"point\":3}", 3, 3);
    assert_points("\"moeprism\":{\"min_experts\":2}", 0, 6);
    assert_points("\"moeprism\":{\"min_experts\":\"low\"}", 0, 6);
    assert_points("\"moeprism\":{\"min_compute\":0.5,\"experts\":6}", 2, 4);
    assert_points("\"moeprism\":{\"point\":1,\"min_point\":7}", 1, 7);
    assert_points("\"service_tier\":\"flex\"", 0, 5);
    assert_points("\"service_tier\":\"flex\",\"moeprism\":{\"min_point\":1}", 0, 1);
    assert_points("\"service_tier\":\"auto\"", 0, 0);
    api_request r = good(&api_completions, TEXT(",\"moeprism\":{\"ttft_ms\":1.5,\"tpot_ms\":0,\"priority\":-3},"
                                                "\"service_tier\":\"flex\""));
    assert_true(r.ttft_ns == 1500000 && r.tpot_ns == 0 && r.priority == -2 && r.tier == TIER_FLEX && r.tier_given);
    api_request_clear(&r);
}

static void test_wrong_quality(void **state)
{
    static const struct {
        const char *body, *param, *part;
    } bad[] = {
        {TEXT(",\"moeprism\":7"), "moeprism", "must be an object"},
        {TEXT(",\"moeprism\":{\"experts\":\"most\"}"), "moeprism.experts", "one of low, medium, high, full"},
        {TEXT(",\"moeprism\":{\"experts\":9}"), "moeprism.experts", "out of range: choose 1 to 8"},
        {TEXT(",\"moeprism\":{\"experts\":0}"), "moeprism.experts", "out of range"},
        {TEXT(",\"moeprism\":{\"compute\":2}"), "moeprism.compute", "from 0 to 1"},
        {TEXT(",\"moeprism\":{\"compute\":\"low\"}"), "moeprism.compute", "must be a number"},
        {TEXT(",\"moeprism\":{\"point\":8}"), "moeprism.point", "out of range"},
        {TEXT(",\"moeprism\":{\"point\":1.5}"), "moeprism.point", "out of range"},
        {TEXT(",\"moeprism\":{\"max_ppl_increase\":0.02}"), "moeprism.max_ppl_increase", "no measured curve"},
        {TEXT(",\"moeprism\":{\"experts\":4,\"point\":4}"), "moeprism.point", "give one of them"},
        {TEXT(",\"moeprism\":{\"min_experts\":4,\"min_point\":4}"), "moeprism.min_point", "give one of them"},
        {TEXT(",\"moeprism\":{\"experts\":2,\"min_experts\":4}"), "moeprism.min_experts", "more than experts allows"},
        {TEXT(",\"moeprism\":{\"priority\":0.5}"), "moeprism.priority", "whole number"},
        {TEXT(",\"moeprism\":{\"ttft_ms\":-1}"), "moeprism.ttft_ms", "from 0"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused(&api_completions, bad[i].body, bad[i].param, bad[i].part);
}

static void test_quality_options(void **state)
{
    static const struct {
        const char *text;
        uint32_t point;
    } good_ones[] = {{"full", 0},      {"high", 2},        {"medium", 4},     {"low", 6}, {"4", 4},
                     {"experts=2", 6}, {"compute=50%", 4}, {"compute=.5", 4}, {"25%", 6}, {"point=7", 7}};
    static const char *const bad[] = {"",
                                      "most",
                                      "4x",
                                      "%",
                                      "9",
                                      "nan",
                                      "inf",
                                      "-1",
                                      "experts=25%",
                                      "point=9",
                                      "max-ppl-increase=2%",
                                      "compute=101%"};
    mp_error err;
    uint32_t point;
    (void)state;
    for (size_t i = 0; i < sizeof good_ones / sizeof good_ones[0]; i++) {
        assert_ok(quality_read(model, good_ones[i].text, &point, &err), &err);
        if (point != good_ones[i].point) fail_msg("%s: %u", good_ones[i].text, point);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (quality_read(model, bad[i], &point, &err) == MP_OK) fail_msg("took '%s'", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),      cmocka_unit_test(test_open_ended),
        cmocka_unit_test(test_sampling),      cmocka_unit_test(test_wrong_fields),
        cmocka_unit_test(test_long_stops),    cmocka_unit_test(test_long_window),
        cmocka_unit_test(test_many_biases),   cmocka_unit_test(test_messages),
        cmocka_unit_test(test_prompts),       cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_anthropic),     cmocka_unit_test(test_quality),
        cmocka_unit_test(test_wrong_quality), cmocka_unit_test(test_quality_options),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
