/* moeprism.h: elastic mixture-of-experts inference (arXiv 2510.19366).
 *
 * Two halves share this header. Offline, mp_refactor() splits every expert of a model into sub-experts and
 * writes an artifact: a GGUF with a ladder of operating points. Online, an mp_model (weights, read-only, may be
 * shared by threads) and an mp_engine (KV cache, scratch memory, threads; one caller at a time) run any
 * GGUF, split or whole, each token of a step at its own operating point.
 *
 * Conventions. Every function that can fail returns an mp_status and fills `err` (which may be NULL) with one line
 * that says what, where and what to do. Sizes are bytes, times nanoseconds, positions and lengths tokens, unless
 * the name says otherwise. Floats are F32 unless said otherwise. Pointers returned by queries belong to the object
 * they were asked of. `_close` and `_free` accept NULL. Zero in a parameter struct means "the default", so `{0}` is
 * always a valid start.
 */
#ifndef MOEPRISM_H
#define MOEPRISM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MP_VERSION "0.1.0"

/* ---- status ------------------------------------------------------------------------------------------------ */

#define MP_STATUS_MAP(X)                                                                                               \
    X(OK, 0, "no error")                                                                                               \
    X(E_INVALID, -1, "invalid argument")                                                                               \
    X(E_IO, -2, "input or output failed")                                                                              \
    X(E_FORMAT, -3, "malformed file")                                                                                  \
    X(E_UNSUPPORTED, -4, "not supported")                                                                              \
    X(E_MEMORY, -5, "out of memory")                                                                                   \
    X(E_EXISTS, -6, "already exists")                                                                                  \
    X(E_LIMIT, -7, "limit exceeded")                                                                                   \
    X(E_INTERRUPTED, -8, "interrupted")                                                                                \
    X(E_CHANGED, -9, "file changed while in use")

typedef enum mp_status {
#define X(name, value, text) MP_##name = (value),
    MP_STATUS_MAP(X)
#undef X
} mp_status;

#define MP_ERROR_MAX 512

typedef struct mp_error {
    mp_status status;
    char message[MP_ERROR_MAX]; /* one line, no newline */
} mp_error;

const char *mp_status_text(mp_status status);
const char *mp_version(void);

/* Called between units of work of a long operation, always from the caller's thread. `stage` is a short static
 * noun ("profile"), `unit` what is counted ("tokens"). Return false to stop: the call fails with
 * MP_E_INTERRUPTED and leaves nothing under its final name. */
typedef struct mp_progress {
    const char *stage;
    const char *unit;
    uint64_t done, total;
    uint64_t elapsed_ns; /* since the stage began */
    int layer, n_layers; /* -1 where the stage is not per layer */
} mp_progress;
typedef bool (*mp_progress_fn)(void *user, const mp_progress *progress);

/* ---- model ------------------------------------------------------------------------------------------------- */

typedef struct mp_model mp_model;

/* What an engine's weights are. */
typedef enum mp_weights {
    MP_WEIGHTS_MAPPED, /* pages of the file: engines open at once, and the system may take memory back */
    MP_WEIGHTS_COPIED, /* a copy in memory, arranged for the kernels of the first engine (others must use the same):
                          that one takes longer to open, all run faster. Where a cap keeps experts on disk, everything
                          else is so copied, whatever is asked for here; it is as in the file where an engine was opened
                          on pages of it before */
    MP_WEIGHTS_AUTO,   /* copied where kernels gain by it and the model takes at most half of the memory that is free
                          when it is opened, else mapped */
} mp_weights;

typedef struct mp_model_params {
    uint32_t override_experts; /* run this many experts per token instead of the file's; whole models only */
    bool vocab_only;           /* only the text functions: any architecture, no engine, info holds path and n_vocab */
    mp_weights weights;        /* default: mapped */
} mp_model_params;

typedef struct mp_model_info {
    const char *path, *architecture, *name, *type; /* type: the expert weights', as "Q8_0" */
    uint32_t n_layers, n_moe_layers, n_embd, n_vocab, n_ctx_train;
    uint32_t n_heads, n_kv_heads, head_dim;
    uint32_t n_experts, n_experts_used, expert_width; /* E, k0, C */
    uint32_t n_parts, part_width;                     /* N, S = C / N; N = 1: whole experts */
    uint64_t n_params;
    uint64_t bytes_total, bytes_experts;
    /* the artifact's provenance: NULL or 0 in whole models */
    const char *solver, *gate, *select, *source_sha256, *calibration_sha256, *eval_sha256;
    uint32_t artifact_version, gate_rank; /* rank 0: not factorised */
    uint64_t seed, calibration_tokens, eval_tokens;
    uint32_t eval_context;
    uint32_t n_points;
} mp_model_info;

/* One rung of the ladder. In a whole model rung p runs k0 - p experts, mixing weights unchanged, unmeasured. */
typedef struct mp_point {
    double budget;        /* mean sub-experts per token and MoE layer, calibration text */
    double compute_share; /* share of the full expert compute really used, held-out text */
    double gate_share;    /* the gate's own multiply-adds over the full expert compute */
    double experts;       /* compute_share * k0 */
    bool measured;        /* the rest is there */
    double ppl, ppl_se, kl_mean, kl_p99, same_top;
} mp_point;

mp_status mp_model_open(const char *path, const mp_model_params *params, mp_model **out, mp_error *err);
void mp_model_close(mp_model *model);
const mp_model_info *mp_model_get_info(const mp_model *model);
/* Point 0 is full; larger is cheaper. NULL past the end. */
const mp_point *mp_model_point(const mp_model *model, uint32_t point);

/* What a user may ask for, in the user's own terms; exactly one is used. */
typedef enum mp_quality_kind {
    MP_QUALITY_FULL,
    MP_QUALITY_POINT,            /* value = rung */
    MP_QUALITY_EXPERTS,          /* at least this many experts, "2.25 of 8", within 6 % */
    MP_QUALITY_COMPUTE,          /* at least this share of expert compute, 0..1, within 6 % */
    MP_QUALITY_MAX_PPL_INCREASE, /* cheapest rung whose perplexity is at most (1 + value) times full's */
} mp_quality_kind;

/* The cheapest rung that satisfies the request; MP_E_INVALID names the range that exists. */
mp_status mp_model_find_point(const mp_model *model, mp_quality_kind kind, double value, uint32_t *point,
                              mp_error *err);

/* ---- text -------------------------------------------------------------------------------------------------- */

enum {
    MP_TOKENIZE_BOS = 1,     /* begin with BOS where the file's rules say so */
    MP_TOKENIZE_SPECIAL = 2, /* recognise control tokens written out in the text */
    MP_TOKENIZE_EOS = 4,     /* end with EOS where the file's rules say so: a whole text, not one to go on with */
};

/* Ids of `text` [len] into ids [cap]; *n is the number needed, MP_E_LIMIT when it is over cap. Text need not be valid
 * UTF-8: strange bytes become byte tokens. */
mp_status mp_tokenize(const mp_model *model, const char *text, size_t len, unsigned flags, int32_t *ids, size_t cap,
                      size_t *n, mp_error *err);
/* Bytes of one token, not terminated and perhaps part of a UTF-8 sequence; control tokens give none unless `special`.
 * Returns the number of bytes; writes at most cap of them. An id out of range gives 0. */
size_t mp_token_bytes(const mp_model *model, int32_t id, bool special, char *buf, size_t cap);
/* Bytes of a text's tokens, in the same manner: those of its tokens one after the other, without the space that
 * SentencePiece puts before a text. */
size_t mp_detokenize(const mp_model *model, const int32_t *ids, size_t n, bool special, char *buf, size_t cap);
int32_t mp_token_bos(const mp_model *model); /* -1: none */
int32_t mp_token_eos(const mp_model *model);
bool mp_token_ends_text(const mp_model *model, int32_t id); /* any end-of-generation token */

/* One turn of a conversation; both texts are terminated. */
typedef struct mp_chat_message {
    const char *role; /* "system" (also "developer"), "user" or "assistant" */
    const char *content;
} mp_chat_message;

/* The family of the model's chat template, NULL where the file has none or one of no known family. */
const char *mp_chat_family(const mp_model *model);
/* The i-th family there is, NULL past the end. */
const char *mp_chat_family_name(size_t i);

/* Ids of a conversation, BOS included where the model wants one, as mp_tokenize() gives them. `family` overrules the
 * model's own template, NULL asks for that; MP_E_UNSUPPORTED names the families where it is none. add_assistant: ends
 * where the model's reply begins. Control tokens come from the template only: in a message they are plain text. */
mp_status mp_chat_tokenize(const mp_model *model, const char *family, const mp_chat_message *messages, size_t n,
                           bool add_assistant, int32_t *ids, size_t cap, size_t *n_ids, mp_error *err);
/* The same as a text, without the leading BOS, for showing and logging: to tokenize it would let messages smuggle
 * control tokens. The caller frees *out. */
mp_status mp_chat_format(const mp_model *model, const char *family, const mp_chat_message *messages, size_t n,
                         bool add_assistant, char **out, mp_error *err);

/* ---- engine ------------------------------------------------------------------------------------------------ */

typedef struct mp_engine mp_engine;

typedef enum mp_kv_type { MP_KV_DEFAULT = 0, MP_KV_F16, MP_KV_F32, MP_KV_Q8_0 } mp_kv_type; /* default F16 */

/* Experts from disk: sub-experts (whole experts where the model is not split) are read when they are wanted, into
 * memory that never grows. Tokens and logits are those of a mapped model, whatever is set here, but for the last two.
 */
typedef struct mp_store_params {
    uint64_t memory;      /* bytes of expert weights held at once; 0, or enough for all: they are mapped instead */
    const char *eviction; /* a name of mp_store_eviction(); default the first, or "lfru" with prefer_resident */
    const char *backend;  /* a name of mp_store_backend(); default the first that the system has */
    uint32_t depth;       /* reads in flight */
    /* Nothing is read before a layer wants it. Otherwise the disk, while a layer computes, reads what the next one is
     * likely to want. */
    bool no_read_ahead;
    double pin_share; /* of the memory, kept for the sub-experts used most in calibration, 0..1; default none */
    /* A resident sub-expert takes the place of a missing one where its score is at least 1 - prefer_resident of the
     * other's, 0..1. It changes what is computed; 0: never. */
    float prefer_resident;
    /* When a step has taken so long, sub-experts that have not arrived are left out, down to the tokens' floors
     * (mp_batch_token); a layer's share of the time is its share of the layers. 0: never. */
    uint64_t deadline_ns;
} mp_store_params;

/* Names of the eviction policies and of the ways to read there are, the default first; NULL past the end. */
const char *mp_store_eviction(size_t i);
const char *mp_store_backend(size_t i);

typedef struct mp_engine_params {
    uint32_t threads;  /* default: physical cores within the cgroup's limit */
    uint32_t n_ctx;    /* tokens a sequence may hold; default and limit: the model's */
    uint32_t n_seqs;   /* sequences, default 1 */
    uint32_t n_batch;  /* tokens a step may hold, default 512 */
    uint32_t n_logits; /* rows of logits a step may ask for, default n_batch */
    uint32_t n_pages;  /* of the KV cache, shared by all sequences; default as many as n_seqs full ones need */
    mp_kv_type kv_type;
    bool pin;        /* each thread but the caller's stays on a core of its own */
    const char *isa; /* "ref", "avx2", "avxvnni", "avx512"; default NULL: the best the CPU has. MP_E_INVALID where the
                        model is in memory, arranged for kernels that this is not: see mp_weights */
    mp_store_params store;
    mp_progress_fn progress; /* of weights that are copied into memory while the engine opens, or NULL */
    void *user;
} mp_engine_params;

/* Bytes an engine will take, before it is opened. Weights are mapped, not allocated, unless the model was opened to
 * be copied or the store's memory does not hold all experts. */
typedef struct mp_plan {
    uint64_t weights_experts; /* held in memory: all, or what the cap lets the store hold */
    uint64_t weights_other, kv_cache, scratch, logits;
    uint64_t experts_least; /* the smallest mp_store_params.memory that an engine would take */
    bool weights_mapped;    /* weights are pages of the file, which the system may take back; else they are allocated */
} mp_plan;

mp_status mp_engine_plan(const mp_model *model, const mp_engine_params *params, mp_plan *plan, mp_error *err);
/* The model must outlive the engine. */
mp_status mp_engine_open(const mp_model *model, const mp_engine_params *params, mp_engine **out, mp_error *err);
void mp_engine_close(mp_engine *engine);

typedef struct mp_batch_token {
    int32_t token;
    uint32_t seq;   /* < n_seqs */
    uint32_t pos;   /* must continue the sequence: its length so far */
    uint32_t point; /* operating point of this token */
    bool logits;    /* wanted after the step */
    /* Cheapest point that mp_store_params.deadline_ns may bring this token to; up to `point`: nothing is lost. */
    uint32_t floor;
} mp_batch_token;

/* What a store has done since open. */
typedef struct mp_store_stats {
    uint64_t memory, resident_bytes; /* the cap as it was used; what is held of it now */
    uint64_t hits, misses; /* sub-experts wanted by steps that were there, or on their way, and that were not */
    uint64_t bytes_wanted, bytes_read;
    uint64_t evictions;
    uint64_t ahead, ahead_used; /* sub-experts read before a layer wanted them, and those of them that one did */
    uint64_t stall_ns;          /* waited for reads */
    uint64_t reads;
    double depth_mean; /* reads in flight when one began */
    uint32_t depth_max;
    uint64_t swaps;   /* prefer_resident: sub-experts replaced, over all tokens and layers */
    uint64_t dropped; /* deadline_ns: left out, over all tokens and layers */
    const char *eviction, *backend;
    const char *notice; /* one line on what the system refused and what is done instead; empty: nothing */
} mp_store_stats;

/* False where the weights are mapped. */
bool mp_engine_store_stats(const mp_engine *engine, mp_store_stats *stats);
/* What was done between `before` and `now`, both of one engine; what is no count is as of now. */
mp_store_stats mp_store_stats_since(const mp_store_stats *now, const mp_store_stats *before);

/* What an expert layer of a step has just run: the experts that routers chose for any of its tokens, and the
 * sub-experts e * N + n, best score first. */
typedef struct mp_layer_run {
    uint64_t step;
    uint32_t layer; /* 0 .. n_moe_layers - 1 */
    uint32_t n_tokens;
    const uint32_t *experts, *subs;
    uint32_t n_experts, n_subs;
} mp_layer_run;
typedef void (*mp_layer_run_fn)(void *user, const mp_layer_run *run);
/* Called within steps from the caller's thread, after each expert layer; NULL: no longer. */
void mp_engine_watch_layers(mp_engine *engine, mp_layer_run_fn fn, void *user);

/* One step over a mixed batch: prompt chunks and single tokens of any number of sequences. Tokens of one sequence
 * stand in order of position. Logits of a token are the same bits whatever shares its step and whatever the
 * thread count. A refused batch changes nothing; nor does one that fails, with a store only: MP_E_IO, which may be
 * tried again; MP_E_CHANGED, which will not get better until model and engine are opened anew. */
mp_status mp_engine_step(mp_engine *engine, const mp_batch_token *tokens, size_t n, mp_error *err);
/* Logits [n_vocab] of the i-th token of the last step; NULL where they were not asked for. */
const float *mp_engine_logits(const mp_engine *engine, size_t i);
/* Runs fn for every item in [0, n) on the engine's threads and the caller's; returns when all are done. For what comes
 * between steps: the draws of many sequences, each with a sampler of its own. */
void mp_engine_for(mp_engine *engine, size_t n, void (*fn)(void *arg, size_t item, unsigned thread), void *arg);
/* Share of the full expert compute that the i-th token of the last step used, mean over MoE layers. */
double mp_engine_compute_share(const mp_engine *engine, size_t i);
/* Sub-experts that the i-th token of the last step wanted and went without (mp_store_params.deadline_ns), over MoE
 * layers. */
uint32_t mp_engine_dropped(const mp_engine *engine, size_t i);
uint32_t mp_engine_seq_len(const mp_engine *engine, uint32_t seq);
/* Forgets positions from `len` on; 0 frees the sequence. */
void mp_engine_seq_truncate(mp_engine *engine, uint32_t seq, uint32_t len);

/* Pages of the KV cache hold MP_KV_PAGE positions each and are counted by their users: sequences, and whoever holds one
 * to start later sequences with it (a prefix cache). A page that others use too is copied before a sequence writes to
 * it. */
#define MP_KV_PAGE 64
uint32_t mp_engine_kv_pages(const mp_engine *engine, uint32_t *n_free); /* n_free may be NULL */
/* The id of a sequence's i-th page, i < ceil(length / MP_KV_PAGE); UINT32_MAX past them. */
uint32_t mp_engine_seq_page(const mp_engine *engine, uint32_t seq, uint32_t i);
/* One more user, one less; of a page that has none both do nothing. */
void mp_engine_page_hold(mp_engine *engine, uint32_t page);
void mp_engine_page_release(mp_engine *engine, uint32_t page);
/* An empty sequence begins with n whole pages, whose positions ran with the same tokens from position 0. */
mp_status mp_engine_seq_start(mp_engine *engine, uint32_t seq, const uint32_t *pages, uint32_t n, mp_error *err);

/* Sub-experts run since open, over all tokens, in MoE layer i (0 .. n_moe_layers - 1), and how many full would have
 * run. */
void mp_engine_layer_use(const mp_engine *engine, uint32_t i, uint64_t *run, uint64_t *full);

/* Wall time since open, by part. */
typedef struct mp_timings {
    uint64_t steps, tokens;
    uint64_t total_ns, attention_ns, router_ns, gate_ns, experts_ns, dense_ns, head_ns; /* dense: shared experts too */
} mp_timings;
mp_timings mp_engine_timings(const mp_engine *engine);
const char *mp_engine_isa(const mp_engine *engine);
uint32_t mp_engine_threads(const mp_engine *engine);

/* ---- sampling ---------------------------------------------------------------------------------------------- */

typedef struct mp_sampler mp_sampler;

typedef struct mp_logit_bias {
    int32_t token;
    float bias;
} mp_logit_bias;

#define MP_REPEAT_LAST_MAX (1 << 20)

/* Order as in llama.cpp: logit bias, penalties, top-k, top-p, min-p, temperature. Temperature 0 is greedy. */
typedef struct mp_sampler_params {
    float temperature;    /* >= 0; no default is filled in */
    uint32_t top_k;       /* 0: off */
    float top_p;          /* 0 or 1: off */
    float min_p;          /* 0: off */
    float repeat_penalty; /* 0 or 1: off */
    uint32_t repeat_last; /* tokens looked back on, default 64, at most MP_REPEAT_LAST_MAX */
    /* OpenAI's: subtracted from the logits of tokens that were drawn, once, and for each time. 0: off. */
    float presence_penalty, frequency_penalty;
    const mp_logit_bias *bias; /* [n_bias], added to the logits; copied */
    size_t n_bias;
    uint64_t seed;
} mp_sampler_params;

mp_status mp_sampler_new(const mp_sampler_params *params, uint32_t n_vocab, mp_sampler **out, mp_error *err);
void mp_sampler_free(mp_sampler *sampler);
/* Tells the sampler of a token that is now part of the text (prompt or drawn). */
void mp_sampler_accept(mp_sampler *sampler, int32_t token);
/* Draws a token and counts it for presence_penalty and frequency_penalty, which look at drawn tokens only. */
int32_t mp_sampler_draw(mp_sampler *sampler, const float *logits);

/* Natural log of the probability that the model itself gives a token (no bias, penalty or temperature), and the k
 * likeliest tokens with theirs, best first, ties by id. `top` and `top_logprobs` [k] may be NULL where k is 0. */
float mp_logprobs(const float *logits, uint32_t n_vocab, int32_t token, uint32_t k, int32_t *top, float *top_logprobs);

/* ---- evaluation -------------------------------------------------------------------------------------------- */

typedef struct mp_eval_params {
    const char *text; /* UTF-8 [len] */
    size_t len;
    uint32_t n_ctx;         /* chunk length, default 512 or the model's context if smaller */
    uint64_t max_tokens;    /* evenly spread over the text; default: all its whole chunks */
    const uint32_t *points; /* [n_points]; default: all of the ladder */
    size_t n_points;
    const mp_model *against; /* KL is taken to this model at full; default: the model itself at full */
    uint32_t threads;
    mp_kv_type kv_type;
    const char *isa;
    /* With prefer_resident or deadline_ns, points run token by token, as a text is generated; the deadline may bring
     * tokens down to the cheapest point. */
    mp_store_params store;
    mp_progress_fn progress;
    void *user;
} mp_eval_params;

typedef struct mp_eval_point {
    uint32_t point;
    double compute_share, gate_share, experts;
    double ppl, ppl_se, kl_mean, kl_p99, same_top; /* nats; share */
    double tokens_per_s;                           /* prompt processing, head included */
    /* with a store, over the scored tokens: share of wanted sub-experts that were in memory, bytes read a token, share
     * of wanted ones that took the place of others (prefer_resident), that were left out (deadline_ns) and their number
     */
    double hit_rate, bytes_read, swap_share, drop_share;
    uint64_t dropped;
} mp_eval_point;

typedef struct mp_eval_result {
    char text_sha256[65];
    uint64_t tokens; /* scored: the second half of each chunk, as llama-perplexity does */
    uint32_t n_ctx, n_chunks;
    double against_ppl, against_ppl_se;
    char notice[MP_ERROR_MAX]; /* as in mp_store_stats */
    mp_eval_point *points;
    size_t n_points;
} mp_eval_result;

mp_status mp_eval(const mp_model *model, const mp_eval_params *params, mp_eval_result *out, mp_error *err);
void mp_eval_result_clear(mp_eval_result *result);

/* ---- refactoring (paper section 4) -------------------------------------------------------------------------- */

typedef enum mp_solver { MP_SOLVER_BCD, MP_SOLVER_ANNEAL, MP_SOLVER_SORT } mp_solver;
typedef enum mp_gate { MP_GATE_PROBE, MP_GATE_PROXY, MP_GATE_LINEAR } mp_gate;
typedef enum mp_select { MP_SELECT_THRESHOLD, MP_SELECT_TOPK } mp_select;

typedef struct mp_refactor_params {
    const char *calibration; /* text [calibration_len] to profile; its tail is kept for choices and never fitted */
    size_t calibration_len;
    const char *eval; /* text [eval_len] for the curve; NULL: no curve */
    size_t eval_len;
    uint32_t n_parts; /* N; default the divisor of C nearest 32 */
    mp_solver solver;
    mp_gate gate;
    uint32_t gate_rank; /* probe: directions shared by a layer, default by cost; n_embd: not factorised.
                           proxy: gate neurons per sub-expert, default 1 */
    mp_select select;
    bool no_gain;
    const char *type;               /* of the down matrices, and of gate/up where it differs; default the source's */
    uint64_t max_tokens;            /* calibration tokens, default 98304 */
    uint32_t max_tokens_per_expert; /* default 32768 */
    uint64_t max_eval_tokens;       /* of the curve, evenly spread over the text; default 32768 */
    uint32_t eval_ctx;              /* default 512 or the model's context if smaller */
    uint64_t seed;
    uint32_t threads;
    bool force;  /* replace an existing output */
    bool resume; /* go on after the last finished layer of an interrupted run */
    mp_progress_fn progress;
    void *user;
} mp_refactor_params;

typedef struct mp_refactor_layer {
    uint32_t layer;
    double objective_start, objective_end, objective_heldout_start, objective_heldout_end;
    double solver_s;     /* CPU seconds */
    double gate_r2;      /* on tokens the gate was not fitted on, weighted as the fit */
    double lambda;       /* probe */
    double requant_rmse; /* relative, of the down matrices; 0 exact */
    double gain_min, gain_max;
} mp_refactor_layer;

typedef struct mp_refactor_report {
    uint64_t calibration_tokens, validation_tokens, eval_tokens, peak_rss;
    double profile_s, partition_s, gate_s, calibrate_s, curve_s, write_s, total_s;
    double heldout_kl_gain, heldout_kl_no_gain; /* mean over points, validation tokens */
    mp_refactor_layer *layers;
    size_t n_layers;
} mp_refactor_report;

/* Writes the artifact of `source` to `out`, atomically. `report` may be NULL. */
mp_status mp_refactor(const char *source, const char *out, const mp_refactor_params *params, mp_refactor_report *report,
                      mp_error *err);
void mp_refactor_report_clear(mp_refactor_report *report);

/* ---- synthetic models -------------------------------------------------------------------------------------- */

typedef struct mp_synth_params {
    const char *like;  /* "olmoe-1b-7b", "qwen3-30b-a3b", "deepseek-v2-lite" */
    const char *type;  /* default "Q4_0" */
    uint32_t n_layers; /* default the real model's */
    uint32_t n_parts;  /* 0 or 1: whole experts */
    uint64_t seed;
    bool force;
    mp_progress_fn progress;
    void *user;
} mp_synth_params;

/* A model of a real shape with random weights, for benchmarks. */
mp_status mp_synth(const char *out, const mp_synth_params *params, mp_error *err);

/* ---- export ------------------------------------------------------------------------------------------------- */

typedef struct mp_export_params {
    const char *source; /* the model the artifact was made from, by its recorded hash */
    uint32_t parts;   /* experts that an expert becomes, a divisor of N; default the paper's 4, or the nearest below */
    const char *type; /* of the expert weights; default the source's where it fits the narrower rows */
    bool force;       /* replace an existing output */
    mp_progress_fn progress;
    void *user;
} mp_export_params;

typedef struct mp_export_report {
    uint32_t parts, experts, experts_used;
    const char *down_type; /* of the last layer; static */
    bool widened;          /* a type did not fit the narrower rows: a larger one was taken */
    double *requant_rmse;  /* [n_layers] relative, of the down matrices of each MoE layer */
    size_t n_layers;
    uint32_t check_tokens; /* both models at full, on these: largest difference of a logit over the largest logit, mean
                              KL in nats */
    double max_difference, kl_mean;
} mp_export_report;

/* Writes a standard GGUF that other engines run unchanged: n times as many experts, n times narrower, n times as many
 * of which run. Runs it beside the source before it gets its name; MP_E_FORMAT where they differ too much. */
mp_status mp_export(const char *artifact, const char *out, const mp_export_params *params, mp_export_report *report,
                    mp_error *err);
void mp_export_report_clear(mp_export_report *report);

#ifdef __cplusplus
}
#endif
#endif
