/* The tensors of a shape, in the order of the file, with the names and types that conversion and quantization by
 * llama.cpp give them. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/model.h"
#include "refactor/synth.h"

#define GATE_EXPERTS "ffn_gate_exps.weight"
#define UP_EXPERTS   "ffn_up_exps.weight"

/* What is being listed; the first failure stays. */
typedef struct builder {
    const synth_shape *s;
    const synth_split *split;
    dtype type;
    synth_list *list;
    int layer;           /* -1: none */
    synth_tensor unused; /* what add() returns once something failed */
    mp_error *err;
    mp_status status;
} builder;

static size_t row_bytes(int type, uint64_t cols)
{
    return type == MODEL_TYPE_I32 ? cols * sizeof(int32_t) : dtype_row_bytes(type, cols);
}

/* Both are quantized as other matrices but for the output, which four bits would hurt. */
static dtype output_type(dtype type)
{
    return type == DTYPE_Q4_0 || type == DTYPE_Q4_1 || type == DTYPE_Q4_K || type == DTYPE_Q5_K ? DTYPE_Q6_K : type;
}

static void name_tensor(const builder *b, const char *suffix, char name[SYNTH_NAME])
{
    if (b->layer < 0)
        snprintf(name, SYNTH_NAME, "%s", suffix);
    else
        snprintf(name, SYNTH_NAME, "blk.%d.%s", b->layer, suffix);
}

/* FNV-1a of the name. */
static uint64_t stream_of(const builder *b, const char *suffix)
{
    char name[SYNTH_NAME];
    uint64_t hash = 0xcbf29ce484222325u;
    name_tensor(b, suffix, name);
    for (const char *c = name; *c; c++) hash = (hash ^ (uint8_t)*c) * 0x100000001b3u;
    return hash;
}

static synth_tensor *add(builder *b, const char *suffix, int type, uint64_t cols, uint64_t rows, uint64_t mats)
{
    synth_list *l = b->list;
    if (b->status) return &b->unused;
    if (l->n == l->cap) {
        const size_t cap = l->cap ? 2 * l->cap : 64;
        synth_tensor *grown = realloc(l->tensors, cap * sizeof *grown);
        if (!grown) {
            b->status = status_no_memory(b->err, cap * sizeof *grown, "a list of tensors");
            return &b->unused;
        }
        l->tensors = grown;
        l->cap = cap;
    }
    synth_tensor *t = &l->tensors[l->n++];
    *t = (synth_tensor){.type = type, .n_dims = mats ? 3 : rows ? 2 : 1, .dims = {cols, rows, mats}};
    t->rows = (size_t)(rows ? rows : 1) * (mats ? mats : 1);
    t->row_bytes = row_bytes(type, cols);
    l->bytes += t->rows * t->row_bytes;
    name_tensor(b, suffix, t->name);
    t->streams[0] = stream_of(b, suffix);
    return t;
}

static void add_norm(builder *b, const char *suffix, uint64_t n)
{
    if (n) add(b, suffix, DTYPE_F32, n, 0, 0)->fill = SYNTH_ONES;
}

/* Weights [cols, rows, mats] of deviation 1 / sqrt(inputs): outputs are as large as inputs. */
static void add_typed(builder *b, const char *suffix, dtype type, uint64_t inputs, uint64_t cols, uint64_t rows,
                      uint64_t mats)
{
    add(b, suffix, type, cols, rows, mats)->deviation = 1 / sqrtf((float)inputs);
}

static void add_matrix(builder *b, const char *suffix, uint64_t cols, uint64_t rows, uint64_t mats)
{
    add_typed(b, suffix, dtype_fitting(b->type, cols), cols, cols, rows, mats);
}

static void add_attention(builder *b)
{
    const synth_shape *s = b->s;
    add_norm(b, "attn_norm.weight", s->d);
    add_matrix(b, "attn_q.weight", s->d, (uint64_t)s->n_heads * s->head_dim, 0);
    if (s->kv_lora) {
        const uint64_t nope = s->head_dim - s->n_rot;
        add_matrix(b, "attn_kv_a_mqa.weight", s->d, s->kv_lora + s->n_rot, 0);
        add_norm(b, "attn_kv_a_norm.weight", s->kv_lora);
        add_matrix(b, "attn_kv_b.weight", s->kv_lora, s->n_heads * (nope + s->value_dim), 0);
    } else {
        add_matrix(b, "attn_k.weight", s->d, (uint64_t)s->n_kv_heads * s->head_dim, 0);
        add_matrix(b, "attn_v.weight", s->d, (uint64_t)s->n_kv_heads * s->value_dim, 0);
    }
    add_matrix(b, "attn_output.weight", (uint64_t)s->n_heads * s->value_dim, s->d, 0);
    add_norm(b, "attn_q_norm.weight", s->q_norm);
    add_norm(b, "attn_k_norm.weight", s->k_norm);
    add_norm(b, "ffn_norm.weight", s->d);
}

static void add_dense(builder *b, const char *gate, const char *up, const char *down, uint64_t width)
{
    add_matrix(b, gate, b->s->d, width, 0);
    add_matrix(b, up, b->s->d, width, 0);
    add_matrix(b, down, width, b->s->d, 0);
}

static void add_whole(builder *b)
{
    const synth_shape *s = b->s;
    add_matrix(b, GATE_EXPERTS, s->d, s->width, s->n_experts);
    add_matrix(b, UP_EXPERTS, s->d, s->width, s->n_experts);
    add_matrix(b, "ffn_down_exps.weight", s->width, s->d, s->n_experts);
}

static void add_split(builder *b)
{
    const synth_shape *s = b->s;
    const uint32_t tile = moe_tile(s->d), rank = b->split->rank, part = s->width / b->split->n_parts;
    const uint64_t subs = (uint64_t)b->split->n_parts * s->n_experts;
    synth_tensor *gate_up =
        add(b, "ffn_gate_up_subs.weight", dtype_fitting(b->type, s->d), s->d, 2 * (uint64_t)part, subs);
    gate_up->deviation = 1 / sqrtf((float)s->d);
    gate_up->streams[0] = stream_of(b, GATE_EXPERTS);
    gate_up->streams[1] = stream_of(b, UP_EXPERTS);
    gate_up->turn = part;
    add_typed(b, "ffn_down_subs.weight", dtype_fitting(b->type, tile), s->width, tile, (uint64_t)part * (s->d / tile),
              subs);
    if (rank) add_typed(b, "ffn_probe_in.weight", dtype_fitting(DTYPE_Q8_0, s->d), s->d, s->d, rank, 0);
    const uint32_t cols = rank ? rank : s->d;
    add_typed(b, "ffn_probe.weight", dtype_fitting(DTYPE_Q8_0, cols), cols, cols, subs, 0);
    add(b, "ffn_probe.bias", DTYPE_F32, subs, 0, 0)->fill = SYNTH_ZEROS;
    add(b, "ffn_perm", MODEL_TYPE_I32, s->width, s->n_experts, 0)->fill = SYNTH_INDICES;
}

static void add_layer(builder *b)
{
    const synth_shape *s = b->s;
    add_attention(b);
    if ((uint32_t)b->layer < s->n_dense) {
        add_dense(b, "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight", s->ffn);
        return;
    }
    add_typed(b, "ffn_gate_inp.weight", DTYPE_F32, s->d, s->d, s->n_experts, 0);
    if (b->split->n_parts > 1)
        add_split(b);
    else
        add_whole(b);
    if (s->n_shared)
        add_dense(b, "ffn_gate_shexp.weight", "ffn_up_shexp.weight", "ffn_down_shexp.weight",
                  (uint64_t)s->n_shared * s->width);
}

mp_status synth_list_build(const synth_shape *s, uint32_t n_layers, dtype type, const synth_split *split,
                           synth_list *out, mp_error *err)
{
    builder b = {.s = s, .split = split, .type = type, .list = out, .layer = -1, .err = err};
    add(&b, "token_embd.weight", dtype_fitting(type, s->d), s->d, s->n_vocab, 0)->deviation = 1;
    add_norm(&b, "output_norm.weight", s->d);
    add_typed(&b, "output.weight", dtype_fitting(output_type(type), s->d), s->d, s->d, s->n_vocab, 0);
    for (b.layer = 0; b.layer < (int)n_layers; b.layer++) add_layer(&b);
    return b.status;
}

void synth_list_clear(synth_list *list)
{
    free(list->tensors);
    *list = (synth_list){0};
}
