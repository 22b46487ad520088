#include "serve/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

/* Upper bounds in seconds, near enough to each other for quantiles. */
static const double bounds[] = {
    0.001, 0.0015, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3,
    0.5,   0.7,    1,     1.5,   2,     3,     5,    7,     10,   15,   20,   30,   50,  70,   100,
};
enum { BOUNDS = sizeof bounds / sizeof *bounds };

typedef struct histogram {
    atomic_uint_fast64_t counts[BOUNDS + 1], sum_ns; /* counts: of each bucket alone */
} histogram;

/* ---- what there is ---- */

enum { TTFT, INTER_TOKEN, QUEUE, END_TO_END, STEP, STEP_PREDICTED, HISTOGRAMS };

static const struct {
    const char *name, *help;
} histograms[HISTOGRAMS] = {
    [TTFT] = {"time_to_first_token_seconds", "From a request's arrival to its first token."},
    [INTER_TOKEN] = {"inter_token_seconds", "From one token of a reply to the next."},
    [QUEUE] = {"queue_seconds", "From a request's arrival to its slot."},
    [END_TO_END] = {"request_seconds", "From a request's arrival to its end, of those that ran to one."},
    [STEP] = {"step_seconds", "Time a step of the engine took."},
    [STEP_PREDICTED] = {"step_predicted_seconds", "Time the cost model predicted for the same steps."},
};

enum {
    TOKENS_PROMPT, /* first, with the next: one metric */
    TOKENS_GENERATED,
    SHARE,
    LOSS,
    LOSS_PROMISED,
    PREFIX_ASKED,
    PREFIX_HIT,
    OVERHEAD,
    UNCORRECTED,
    STORE_HITS,
    STORE_MISSES,
    STORE_WANTED,
    STORE_READ,
    STORE_READS,
    STORE_STALL,
    STORE_EVICTIONS,
    STORE_AHEAD,
    STORE_AHEAD_USED,
    STORE_SWAPS,
    STORE_DROPPED,
    CONNECTIONS_TOTAL,
    RUNNING,
    WAITING,
    PAGES,
    PAGES_USED,
    STORE_MEMORY,
    STORE_RESIDENT,
    STORE_DEPTH,
    MODEL_CHANGED,
    CONNECTIONS,
    VALUES,
};

/* A value times `unit` is what the text shows. */
static const struct {
    const char *name, *labels, *help;
    double unit;
    bool gauge;
} values[VALUES] = {
    [TOKENS_PROMPT] = {"tokens_total", "{kind=\"prompt\"}",
                       "Tokens of prompts that ran, tokens of replies that were drawn.", 1, false},
    [TOKENS_GENERATED] = {"tokens_total", "{kind=\"generated\"}", NULL, 1, false},
    [SHARE] = {"expert_compute_tokens_total", "",
               "Tokens that ran, each counted as the share of the full expert compute it used.", 1e-9, false},
    [LOSS] = {"log_perplexity_increase_total", "",
              "Sum over tokens of ln(perplexity / full's) of the operating point they ran at, where it is measured.",
              1e-9, false},
    [LOSS_PROMISED] = {"log_perplexity_increase_promised_total", "",
                       "The same sum at the floors: the most that was promised.", 1e-9, false},
    [PREFIX_ASKED] = {"prefix_queried_tokens_total", "", "Tokens of prompts that were looked up in the prefix cache.",
                      1, false},
    [PREFIX_HIT] = {"prefix_hit_tokens_total", "", "Tokens of prompts that came from the prefix cache.", 1, false},
    [OVERHEAD] = {"step_overhead_seconds_total", "",
                  "Time between steps: scheduling, drawing tokens, text; not waiting for work.", 1e-9, false},
    [UNCORRECTED] = {"step_uncorrected_seconds_total", "",
                     "Time the cost model as measured would have predicted for the same steps, without what it learnt "
                     "from those before.",
                     1e-9, false},
    [STORE_HITS] = {"store_hits_total", "",
                    "Sub-experts that steps wanted and that were in memory or on their way; 0 where all are mapped.", 1,
                    false},
    [STORE_MISSES] = {"store_misses_total", "", "Sub-experts that steps wanted and that had to be read.", 1, false},
    [STORE_WANTED] = {"store_wanted_bytes_total", "", "Bytes of the sub-experts that steps wanted.", 1, false},
    [STORE_READ] = {"store_read_bytes_total", "", "Bytes of sub-experts read from disk.", 1, false},
    [STORE_READS] = {"store_reads_total", "", "Reads of sub-experts that ended.", 1, false},
    [STORE_STALL] = {"store_stall_seconds_total", "", "Time that steps waited for reads.", 1e-9, false},
    [STORE_EVICTIONS] = {"store_evictions_total", "", "Sub-experts that made room for others.", 1, false},
    [STORE_AHEAD] = {"store_read_ahead_total", "", "Sub-experts read before a layer wanted them.", 1, false},
    [STORE_AHEAD_USED] = {"store_read_ahead_wanted_total", "", "Those of them that a layer wanted then.", 1, false},
    [STORE_SWAPS] = {"store_replaced_total", "", "Sub-experts whose place a resident one took, over tokens and layers.",
                     1, false},
    [STORE_DROPPED] = {"store_dropped_total", "",
                       "Sub-experts left out because they did not come in time, over tokens and layers.", 1, false},
    [CONNECTIONS_TOTAL] = {"connections_total", "", "Connections that were opened.", 1, false},
    [RUNNING] = {"requests_running", "", "Requests that hold a slot.", 1, true},
    [WAITING] = {"requests_waiting", "", "Requests in the queue.", 1, true},
    [PAGES] = {"kv_pages", "", "Pages of the key-value cache.", 1, true},
    [PAGES_USED] = {"kv_pages_used", "", "Pages in use by requests or the prefix cache.", 1, true},
    [STORE_MEMORY] = {"store_memory_bytes", "", "Memory for sub-experts; 0 where all are mapped.", 1, true},
    [STORE_RESIDENT] = {"store_resident_bytes", "", "Part of it that holds sub-experts.", 1, true},
    [STORE_DEPTH] = {"store_read_depth_mean", "", "Reads in flight when one began, mean since the start.", 1e-3, true},
    [MODEL_CHANGED] = {"model_file_changed", "",
                       "1 once the model's file was found to have changed: requests are refused until the server is "
                       "started again.",
                       1, true},
    [CONNECTIONS] = {"connections", "", "Connections that are open.", 1, true},
};

static const char *const outcomes[OUTCOMES] = {
    [OUTCOME_STOP] = "stop",
    [OUTCOME_LENGTH] = "length",
    [OUTCOME_CANCELLED] = "cancelled",
    [OUTCOME_FAILED] = "failed",
    [OUTCOME_REFUSED_QUEUE] = "refused_queue",
    [OUTCOME_REFUSED_SIZE] = "refused_size",
    [OUTCOME_INVALID] = "invalid",
};

struct metrics {
    uint32_t n_points, n_layers;
    histogram histograms[HISTOGRAMS];
    atomic_int_fast64_t values[VALUES];
    atomic_uint_fast64_t outcomes[OUTCOMES];
    atomic_uint_fast64_t *points; /* [n_points] */
    atomic_uint_fast64_t *layers; /* [n_layers, 2] run, full */
};

mp_status metrics_new(const mp_model *model, metrics **out, mp_error *err)
{
    const mp_model_info *info = mp_model_get_info(model);
    *out = NULL;
    metrics *m = calloc(1, sizeof *m);
    if (!m) return status_no_memory(err, sizeof *m, "metrics");
    m->n_points = info->n_points;
    m->n_layers = info->n_moe_layers;
    m->points = calloc(m->n_points > 0 ? m->n_points : 1, sizeof *m->points);
    m->layers = calloc(m->n_layers > 0 ? m->n_layers : 1, 2 * sizeof *m->layers);
    if (!m->points || !m->layers) {
        metrics_free(m);
        return status_no_memory(err, info->n_points * sizeof *m->points, "metrics");
    }
    *out = m;
    return MP_OK;
}

void metrics_free(metrics *m)
{
    if (!m) return;
    free(m->points);
    free(m->layers);
    free(m);
}

/* ---- updates ---- */

static void observe(metrics *m, int which, uint64_t ns)
{
    histogram *h = &m->histograms[which];
    const double seconds = (double)ns * 1e-9;
    int i = 0;
    while (i < BOUNDS && seconds > bounds[i]) i++;
    atomic_fetch_add_explicit(&h->sum_ns, ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->counts[i], 1, memory_order_relaxed);
}

static void count(metrics *m, int which, int64_t n)
{
    atomic_fetch_add_explicit(&m->values[which], n, memory_order_relaxed);
}

static void set(metrics *m, int which, int64_t n)
{
    atomic_store_explicit(&m->values[which], n, memory_order_relaxed);
}

/* Counters do not fall, and what is not measured is not counted. */
static void count_real(metrics *m, int which, double x)
{
    if (x > 0 && x < 1e9) count(m, which, llround(x / values[which].unit));
}

void metrics_outcome(metrics *m, metric_outcome outcome)
{
    atomic_fetch_add_explicit(&m->outcomes[outcome], 1, memory_order_relaxed);
}

void metrics_ttft(metrics *m, uint64_t ns)
{
    observe(m, TTFT, ns);
}

void metrics_inter_token(metrics *m, uint64_t ns)
{
    observe(m, INTER_TOKEN, ns);
}

void metrics_queue(metrics *m, uint64_t ns)
{
    observe(m, QUEUE, ns);
}

void metrics_end_to_end(metrics *m, uint64_t ns)
{
    observe(m, END_TO_END, ns);
}

void metrics_tokens(metrics *m, uint32_t point, uint64_t n, bool prompt, double share_sum, double loss_sum,
                    double floor_loss_sum)
{
    if (prompt) count(m, TOKENS_PROMPT, (int64_t)n);
    if (point < m->n_points) atomic_fetch_add_explicit(&m->points[point], n, memory_order_relaxed);
    count_real(m, SHARE, share_sum);
    count_real(m, LOSS, loss_sum);
    count_real(m, LOSS_PROMISED, floor_loss_sum);
}

void metrics_drawn(metrics *m, uint64_t n)
{
    count(m, TOKENS_GENERATED, (int64_t)n);
}

void metrics_prefix(metrics *m, uint64_t asked_tokens, uint64_t hit_tokens)
{
    count(m, PREFIX_ASKED, (int64_t)asked_tokens);
    count(m, PREFIX_HIT, (int64_t)hit_tokens);
}

void metrics_step(metrics *m, uint64_t predicted_ns, uint64_t uncorrected_ns, uint64_t took_ns, uint64_t overhead_ns)
{
    observe(m, STEP_PREDICTED, predicted_ns);
    count(m, UNCORRECTED, (int64_t)uncorrected_ns);
    observe(m, STEP, took_ns);
    count(m, OVERHEAD, (int64_t)overhead_ns);
}

void metrics_layers(metrics *m, const uint64_t *run, const uint64_t *full, uint32_t n)
{
    for (uint32_t i = 0; i < n && i < m->n_layers; i++) {
        atomic_store_explicit(&m->layers[2 * i], run[i], memory_order_relaxed);
        atomic_store_explicit(&m->layers[2 * i + 1], full[i], memory_order_relaxed);
    }
}

void metrics_gauges(metrics *m, uint32_t running, uint32_t waiting, uint32_t kv_pages, uint32_t kv_pages_used)
{
    set(m, RUNNING, running);
    set(m, WAITING, waiting);
    set(m, PAGES, kv_pages);
    set(m, PAGES_USED, kv_pages_used);
}

void metrics_connections(metrics *m, int change)
{
    count(m, CONNECTIONS, change);
    if (change > 0) count(m, CONNECTIONS_TOTAL, change);
}

void metrics_store(metrics *m, const mp_store_stats *s)
{
    set(m, STORE_HITS, (int64_t)s->hits);
    set(m, STORE_MISSES, (int64_t)s->misses);
    set(m, STORE_WANTED, (int64_t)s->bytes_wanted);
    set(m, STORE_READ, (int64_t)s->bytes_read);
    set(m, STORE_READS, (int64_t)s->reads);
    set(m, STORE_STALL, (int64_t)s->stall_ns);
    set(m, STORE_EVICTIONS, (int64_t)s->evictions);
    set(m, STORE_AHEAD, (int64_t)s->ahead);
    set(m, STORE_AHEAD_USED, (int64_t)s->ahead_used);
    set(m, STORE_SWAPS, (int64_t)s->swaps);
    set(m, STORE_DROPPED, (int64_t)s->dropped);
    set(m, STORE_MEMORY, (int64_t)s->memory);
    set(m, STORE_RESIDENT, (int64_t)s->resident_bytes);
    set(m, STORE_DEPTH, (int64_t)(s->depth_mean * 1e3));
}

void metrics_model_changed(metrics *m)
{
    set(m, MODEL_CHANGED, 1);
}

/* ---- text ---- */

static void head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP moeprism_%s %s\n# TYPE moeprism_%s %s\n", name, help, name, type);
}

static void render_histogram(const metrics *m, int which, FILE *out)
{
    const histogram *h = &m->histograms[which];
    const char *name = histograms[which].name;
    uint64_t n = 0;
    head(out, name, "histogram", histograms[which].help);
    for (int i = 0; i < BOUNDS; i++) {
        n += atomic_load_explicit(&h->counts[i], memory_order_relaxed);
        fprintf(out, "moeprism_%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, bounds[i], n);
    }
    n += atomic_load_explicit(&h->counts[BOUNDS], memory_order_relaxed);
    const double sum = (double)atomic_load_explicit(&h->sum_ns, memory_order_relaxed) * 1e-9;
    fprintf(out, "moeprism_%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, n);
    fprintf(out, "moeprism_%s_sum %.9g\nmoeprism_%s_count %" PRIu64 "\n", name, sum, name, n);
}

static void render_value(const metrics *m, int which, FILE *out)
{
    const int64_t value = atomic_load_explicit(&m->values[which], memory_order_relaxed);
    if (values[which].help)
        head(out, values[which].name, values[which].gauge ? "gauge" : "counter", values[which].help);
    fprintf(out, "moeprism_%s%s %.15g\n", values[which].name, values[which].labels, (double)value * values[which].unit);
}

static uint64_t load(const atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void metrics_render(const metrics *m, FILE *out)
{
    head(out, "requests_total", "counter", "Requests by how they ended.");
    for (int i = 0; i < OUTCOMES; i++)
        fprintf(out, "moeprism_requests_total{outcome=\"%s\"} %" PRIu64 "\n", outcomes[i], load(&m->outcomes[i]));
    for (int i = 0; i < VALUES; i++) render_value(m, i, out);
    for (int i = 0; i < HISTOGRAMS; i++) render_histogram(m, i, out);
    head(out, "point_tokens_total", "counter", "Tokens by the operating point they ran at; 0 is full.");
    for (uint32_t i = 0; i < m->n_points; i++)
        fprintf(out, "moeprism_point_tokens_total{point=\"%u\"} %" PRIu64 "\n", i, load(&m->points[i]));
    if (m->n_layers == 0) return;
    head(out, "layer_subexperts_total", "counter", "Sub-experts that ran, over tokens, by layer with experts.");
    for (uint32_t i = 0; i < m->n_layers; i++)
        fprintf(out, "moeprism_layer_subexperts_total{layer=\"%u\"} %" PRIu64 "\n", i, load(&m->layers[2 * i]));
    head(out, "layer_subexperts_full_total", "counter", "Sub-experts that would have run at full.");
    for (uint32_t i = 0; i < m->n_layers; i++)
        fprintf(out, "moeprism_layer_subexperts_full_total{layer=\"%u\"} %" PRIu64 "\n", i,
                load(&m->layers[2 * i + 1]));
}
