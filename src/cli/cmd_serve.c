/* serve: the model over HTTP, until a signal ends it. What can be wrong with the options is found out before the model
 * is read: address, keys, configuration. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/status.h"
#include "cli/cli.h"
#include "cli/cost_measure.h"
#include "cli/interrupt.h"
#include "cli/store_options.h"
#include "serve/api_parts.h"
#include "serve/serve.h"

typedef struct serve_options {
    cli_common common;
    const char *host, *alias, *chat_template, *floor, *flex_floor, *priority_floor, *key_file, *cors_origin, *cost;
    uint32_t port, slots, n_ctx, batch, queue, grace, connections, timeout, override_experts;
    uint64_t max_body;
    int policy, kv_type;
    double ttft_ms, tpot_ms, max_wait_ms;
    bool no_prefix_cache;
    store_options store;
} serve_options;

static uint64_t ns_of_ms(double ms)
{
    return (uint64_t)(ms * 1e6);
}

/* A floor of a tier; NULL: `otherwise`. */
static mp_status read_floor(const mp_model *model, const char *name, const char *text, uint32_t otherwise,
                            uint32_t *point, mp_error *err)
{
    *point = otherwise;
    if (text == NULL) return MP_OK;
    const mp_status status = quality_read(model, text, point, err);
    return status == MP_OK ? MP_OK : status_prefix(err, status, name);
}

static mp_status read_cost(const mp_model *model, const serve_options *o, const mp_engine_params *engine,
                           cost_model *out, mp_error *err)
{
    cost_file file;
    if (o->cost == NULL) return cost_obtain(model, &o->common, engine, out, err);
    MP_TRY(cost_file_read(o->cost, &file, err));
    *out = file.cost;
    return MP_OK;
}

/* The name of the model in the API: as asked, else the file's own, else the file's name. */
static const char *served_name(const mp_model *model, const serve_options *o)
{
    const mp_model_info *info = mp_model_get_info(model);
    if (o->alias != NULL) return o->alias;
    if (info->name != NULL && info->name[0] != '\0') return info->name;
    const char *slash = strrchr(info->path, '/');
    return slash != NULL ? slash + 1 : info->path;
}

static void tell_ready(void *user)
{
    const listener *l = user;
    printf("moeprism: listening on %s\n", l->url);
    fflush(stdout);
}

static void tell_notice(void *user, const char *notice)
{
    (void)user;
    fprintf(stderr, "moeprism: %s\n", notice);
}

static void tell_failure(void *user, const mp_error *err)
{
    (void)user;
    const bool for_good = err->status == MP_E_CHANGED;
    fprintf(stderr, "moeprism: a step failed, and the requests in it: %s%s\n", err->message,
            for_good ? "; requests are refused until the server is started again" : "");
}

static mp_status run_until_told(serve_params *p, mp_error *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return status_fail(err, MP_E_IO, "cannot make a pipe: %s", strerror(errno));
    p->stop_fd = ends[0];
    interrupt_forward(ends[1]);
    const mp_status status = serve_run(p, err);
    interrupt_forward(-1); /* it has stopped: to be told once more changes nothing */
    close(ends[0]);
    close(ends[1]);
    return status;
}

static mp_status serve_model(const mp_model *model, const serve_options *o, const access_rules *access, listener *l,
                             mp_error *err)
{
    serve_params p = {.model = model,
                      .model_id = served_name(model, o),
                      .chat_family = o->chat_template,
                      .engine = {.threads = o->common.threads,
                                 .pin = o->common.pin,
                                 .isa = o->common.isa,
                                 .kv_type = (mp_kv_type)o->kv_type,
                                 .n_seqs = o->slots,
                                 .n_ctx = cli_context(model, o->n_ctx),
                                 .n_batch = o->batch < o->slots ? o->slots : o->batch,
                                 .n_logits = o->slots},
                      .policy = (sched_policy)o->policy,
                      .queue = o->queue,
                      .ttft_ns = ns_of_ms(o->ttft_ms),
                      .tpot_ns = ns_of_ms(o->tpot_ms),
                      .max_wait_ns = ns_of_ms(o->max_wait_ms),
                      .no_prefix_cache = o->no_prefix_cache,
                      .access = access,
                      .listener = l,
                      .max_body = o->max_body,
                      .connections = o->connections,
                      .timeout_s = o->timeout,
                      .grace_s = o->grace,
                      .ready = tell_ready,
                      .failed = tell_failure,
                      .noticed = tell_notice,
                      .user = l};
    MP_TRY(store_options_apply(&o->store, model, &p.engine, err));
    if (o->store.plan) return store_options_print_plan(model, &p.engine, err);
    MP_TRY(read_floor(model, "--floor", o->floor, 0, &p.floor, err));
    MP_TRY(read_floor(model, "--flex-floor", o->flex_floor, p.floor, &p.flex_floor, err));
    MP_TRY(read_floor(model, "--priority-floor", o->priority_floor, p.floor, &p.priority_floor, err));
    MP_TRY(read_cost(model, o, &p.engine, &p.cost, err));
    return run_until_told(&p, err);
}

/* A family that does not exist is refused here; a model without a template can still serve texts. */
static mp_status check_template(const mp_model *model, const char *family, mp_error *err)
{
    size_t n;
    if (family == NULL && mp_chat_family(model) == NULL)
        fputs("moeprism: the model file has no chat template known here: chats are refused unless --chat-template "
              "names one\n",
              stderr);
    if (family == NULL) return MP_OK;
    const mp_chat_message hello = {"user", "hello"};
    const mp_status status = mp_chat_tokenize(model, family, &hello, 1, true, NULL, 0, &n, err);
    return status == MP_E_LIMIT ? MP_OK : status;
}

static mp_status open_and_serve(const serve_options *o, const access_rules *access, listener *l, mp_error *err)
{
    mp_model *model;
    MP_TRY(cli_open_model(&o->common, o->override_experts, &model, err));
    mp_status status = check_template(model, o->chat_template, err);
    if (status == MP_OK) status = serve_model(model, o, access, l, err);
    mp_model_close(model);
    return status;
}

static int run(const cli_command *self, const void *options)
{
    const serve_options *o = options;
    access_rules *access = NULL;
    listener l = LISTENER_NONE;
    mp_error err;
    (void)self;
    mp_status status = listener_open(o->host, (uint16_t)o->port, &l, &err);
    if (status == MP_OK) status = access_open(o->key_file, o->cors_origin, o->host, l.loopback, &access, &err);
    if (status == MP_OK && !l.loopback && !access_needs_key(access))
        fprintf(stderr, "moeprism: whoever reaches %s may use the server: --api-key-file asks for keys\n", l.url);
    if (status == MP_OK) status = open_and_serve(o, access, &l, &err);
    access_close(access);
    listener_close(&l);
    return status == MP_OK ? STATUS_OK : cli_fail(&err);
}

#define AT(member) offsetof(serve_options, member)

static const option_spec specs[] = {
    {.name = "host",
     .kind = OPTION_TEXT,
     .offset = AT(host),
     .argument = "ADDRESS",
     .help = "address to listen on (default 127.0.0.1: this machine only)"},
    {.name = "port",
     .kind = OPTION_U32,
     .offset = AT(port),
     .argument = "N",
     .max = 65535,
     .help = "port to listen on; 0 takes a free one, which the ready line names"},
    {.name = "alias",
     .kind = OPTION_TEXT,
     .offset = AT(alias),
     .argument = "NAME",
     .help = "the model's name in the API (default: what its file calls it)"},
    {.name = "config",
     .kind = OPTION_CONFIG,
     .argument = "FILE",
     .help = "read options from FILE: lines 'name = value' with the names here; the command line wins"},
    {.name = "chat-template",
     .kind = OPTION_TEXT,
     .offset = AT(chat_template),
     .argument = "NAME",
     .help = "write chats as this family of models wants them (default: the model file's)"},
    {.name = "grace",
     .kind = OPTION_U32,
     .offset = AT(grace),
     .argument = "S",
     .max = 86400,
     .help = "seconds that running requests get to finish when the server is told to stop"},
    CLI_OPTION_THREADS,
    CLI_OPTION_PIN,
    CLI_OPTION_ISA,
    CLI_OPTIONS_WEIGHTS,
    {.name = "How much at once", .kind = OPTION_HEADING},
    {.name = "slots",
     .kind = OPTION_U32,
     .offset = AT(slots),
     .argument = "N",
     .min = 1,
     .max = 1024,
     .help = "requests that run at once"},
    {.name = "context",
     .letter = 'c',
     .kind = OPTION_U32,
     .offset = AT(n_ctx),
     .argument = "N",
     .min = 2,
     .max = 1 << 24,
     .help = "tokens of context of each (default: the model's, at most 4096)"},
    {.name = "queue",
     .kind = OPTION_U32,
     .offset = AT(queue),
     .argument = "N",
     .max = 100000,
     .help = "requests that may wait; more are refused with status 503"},
    {.name = "batch",
     .kind = OPTION_U32,
     .offset = AT(batch),
     .argument = "N",
     .min = 1,
     .max = 65536,
     .help = "tokens a step may hold; prompts are cut to fit"},
    CLI_OPTION_KV_TYPE(AT(kv_type)),
    {.name = "no-prefix-cache",
     .kind = OPTION_FLAG,
     .offset = AT(no_prefix_cache),
     .help = "do not keep the beginnings of prompts for requests that begin alike"},
    {.name = "Quality and time", .kind = OPTION_HEADING},
    {.name = "policy",
     .kind = OPTION_CHOICE,
     .offset = AT(policy),
     .argument = "NAME",
     .choices = sched_policy_names,
     .help = "scheduling: elastic, fifo, fullbatch, virtual-queues or lanes"},
    {.name = "floor",
     .kind = OPTION_TEXT,
     .offset = AT(floor),
     .argument = "Q",
     .help = "the least quality of requests that name none: full (the default), high, medium, low, 2.25 (experts), 25% "
             "(of the expert compute), max-ppl-increase=2% or point=7"},
    {.name = "flex-floor",
     .kind = OPTION_TEXT,
     .offset = AT(flex_floor),
     .argument = "Q",
     .help = "the same for requests with the service tier flex (default: as --floor)"},
    {.name = "priority-floor",
     .kind = OPTION_TEXT,
     .offset = AT(priority_floor),
     .argument = "Q",
     .help = "the same for the service tier priority (default: as --floor)"},
    {.name = "ttft-ms",
     .kind = OPTION_F64,
     .offset = AT(ttft_ms),
     .argument = "MS",
     .max = 1e9,
     .help = "time to the first token to aim at (default: none)"},
    {.name = "tpot-ms",
     .kind = OPTION_F64,
     .offset = AT(tpot_ms),
     .argument = "MS",
     .max = 1e9,
     .help = "time per further token to aim at (default: none)"},
    {.name = "max-wait-ms",
     .kind = OPTION_F64,
     .offset = AT(max_wait_ms),
     .argument = "MS",
     .max = 1e9,
     .help = "how long others may come first: a better batch (fullbatch, virtual-queues), smaller requests (elastic), "
             "streams with a target per token (all policies)"},
    {.name = "cost",
     .kind = OPTION_TEXT,
     .offset = AT(cost),
     .argument = "FILE",
     .help = "step times as 'bench --cost' measured them (default: the file beside the model, else measured briefly)"},
    CLI_OPTION_OVERRIDE_EXPERTS(AT(override_experts)),
    {.name = "Access and limits", .kind = OPTION_HEADING},
    {.name = "api-key-file",
     .kind = OPTION_TEXT,
     .offset = AT(key_file),
     .argument = "FILE",
     .help = "keys that clients must give one of, one a line (default: none needed)"},
    {.name = "cors-origin",
     .kind = OPTION_TEXT,
     .offset = AT(cors_origin),
     .argument = "LIST",
     .help = "web pages that may use the server from a browser: origins with commas between, or *"},
    {.name = "max-body",
     .kind = OPTION_U64,
     .offset = AT(max_body),
     .argument = "BYTES",
     .min = 1024,
     .max = 1 << 30,
     .help = "size of a request"},
    {.name = "connections",
     .kind = OPTION_U32,
     .offset = AT(connections),
     .argument = "N",
     .min = 1,
     .max = 100000,
     .help = "connections at once"},
    {.name = "timeout",
     .kind = OPTION_U32,
     .offset = AT(timeout),
     .argument = "S",
     .min = 1,
     .max = 86400,
     .help = "seconds a client may take to send a request, to take up a reply, and between requests"},
    STORE_OPTIONS(AT(store)),
    {.name = "token-deadline",
     .kind = OPTION_F64,
     .offset = AT(store) + offsetof(store_options, deadline_ms),
     .argument = "MS",
     .max = 1e6,
     .help =
         "leave out what has not come from disk when a step takes that long, never below a request's floor; changes "
         "results: replies tell what was lost"},
};

static const serve_options defaults = {
    .host = "127.0.0.1",
    .port = 8080,
    .grace = 10,
    .slots = 8,
    .queue = 256,
    .batch = 512,
    .max_wait_ms = 5000,
    .policy = SCHED_POLICY_ELASTIC,
    .max_body = 8 << 20,
    .connections = 4096,
    .timeout = 75,
};

const cli_command cmd_serve = {
    .name = "serve",
    .arguments = "MODEL [options]",
    .summary = "serves the model over HTTP, in the shapes of OpenAI and Anthropic",
    .details =
        "Answers /v1/chat/completions, /v1/completions, /v1/messages and /v1/models, shows a page at / and metrics "
        "at /metrics. Requests run side by side, each at the quality it asks for, never below its floor; spare "
        "time buys quality, load costs it. When it is ready a line with the address is printed. SIGTERM or Ctrl-C "
        "finishes what runs, refuses what waits and ends; the second ends at once.",
    .example = "serve model-prism.gguf --floor medium --tpot-ms 100",
    .options = specs,
    .n_options = CLI_COUNT(specs),
    .defaults = &defaults,
    .size = sizeof defaults,
    .min_args = 1,
    .max_args = 1,
    .missing = "model",
    .run = run,
};
