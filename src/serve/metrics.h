/* metrics.h: what the server counts, as Prometheus text. Every update is atomic: any thread may call, none waits.
 *
 * Names, help texts, units and label values stand in one table in metrics.c. Durations are seconds in the text,
 * nanoseconds here. */
#ifndef SERVE_METRICS_H
#define SERVE_METRICS_H

#include <stdio.h>

#include "base/status.h"

typedef enum metric_outcome {
    OUTCOME_STOP,
    OUTCOME_LENGTH,
    OUTCOME_CANCELLED, /* the client left, or the server stopped */
    OUTCOME_FAILED,
    OUTCOME_REFUSED_QUEUE, /* 503 */
    OUTCOME_REFUSED_SIZE,  /* never fits */
    OUTCOME_INVALID,       /* 4xx of any other kind */
    OUTCOMES,
} metric_outcome;

typedef struct metrics metrics;

mp_status metrics_new(const mp_model *model, metrics **out, mp_error *err);
void metrics_free(metrics *m);

void metrics_outcome(metrics *m, metric_outcome outcome);
void metrics_ttft(metrics *m, uint64_t ns);
void metrics_inter_token(metrics *m, uint64_t ns);
void metrics_queue(metrics *m, uint64_t ns);
void metrics_end_to_end(metrics *m, uint64_t ns);
/* Tokens that ran at a point: their summed compute share and summed log perplexity increase, delivered and promised. */
void metrics_tokens(metrics *m, uint32_t point, uint64_t n, bool prompt, double share_sum, double loss_sum,
                    double floor_loss_sum);
void metrics_drawn(metrics *m, uint64_t n); /* tokens of replies */
void metrics_prefix(metrics *m, uint64_t asked_tokens, uint64_t hit_tokens);
/* Predicted with the cost model's correction, and without. */
void metrics_step(metrics *m, uint64_t predicted_ns, uint64_t uncorrected_ns, uint64_t took_ns, uint64_t overhead_ns);
void metrics_layers(metrics *m, const uint64_t *run, const uint64_t *full, uint32_t n); /* sub-experts, cumulative */
void metrics_gauges(metrics *m, uint32_t running, uint32_t waiting, uint32_t kv_pages, uint32_t kv_pages_used);
void metrics_connections(metrics *m, int change);
void metrics_store(metrics *m, const mp_store_stats *stats); /* all counts since the engine was opened */
void metrics_model_changed(metrics *m);                      /* its file, so that it must be opened again */

/* The page of /metrics. */
void metrics_render(const metrics *m, FILE *out);

#endif
