/* moe.h: one mixture-of-experts layer as data: shape, weights, rungs. The engine runs it, the refactorer builds it. */
#ifndef MODEL_MOE_H
#define MODEL_MOE_H

#include "moeprism.h"
#include "tensor/dtype.h"

/* A view of stored weights: `mats` matrices of `rows` rows of `cols` elements, cols fastest. */
typedef struct tensor {
    dtype type;
    const uint8_t *data; /* NULL: absent */
    uint32_t cols, rows, mats;
    size_t row_bytes;
} tensor;

static inline const uint8_t *tensor_row(const tensor *t, uint32_t mat, uint32_t row)
{
    return t->data + ((size_t)mat * t->rows + row) * t->row_bytes;
}

static inline size_t tensor_bytes(const tensor *t)
{
    return t->row_bytes * t->rows * t->mats;
}

/* How the trained router turns its logits into k0 experts and their mixing weights. */
typedef enum moe_gating { MOE_GATING_SOFTMAX = 1, MOE_GATING_SIGMOID = 2 } moe_gating; /* numbered as GGUF does */

typedef struct moe_routing {
    moe_gating gating;
    bool renormalise;                 /* mixing weights are divided by their sum */
    float scale;                      /* then multiplied by this */
    uint32_t n_groups, n_groups_used; /* experts are chosen within the best groups; 1, 1: no groups */
} moe_routing;

/* Sizes as DESIGN names them. N = 1 means whole experts. */
typedef struct moe_shape {
    uint32_t d;          /* width of the residual stream */
    uint32_t n_experts;  /* E */
    uint32_t n_used;     /* k0 */
    uint32_t width;      /* C */
    uint32_t n_parts;    /* N */
    uint32_t part_width; /* S */
    uint32_t tile;       /* W: run of outputs of a transposed down row; 0 in whole layers */
    moe_routing routing;
} moe_shape;

static inline uint32_t moe_full_budget(const moe_shape *s)
{
    return s->n_parts * s->n_used;
}

typedef struct moe_weights {
    tensor router;            /* [d, E] */
    const float *router_bias; /* [E] added to the probabilities for the choice alone; NULL: none */
    /* whole experts */
    tensor gate, up; /* [d, C, E] */
    tensor down;     /* [C, d, E] */
    /* sub-experts: matrix e * N + n */
    tensor gate_up; /* [d, 2S, N*E]: S gate rows, then S up rows */
    tensor down_t;  /* [W, S*d/W, N*E]: for each run of W outputs, a tile, the pieces of the S neurons */
    /* Tiles of a sub-expert that stand together: an expert's are [d/W / down_tiles][N][down_tiles] in memory that
     * is arranged for several threads, so that a thread reads on from one sub-expert to the next. 0: in the order of
     * files. */
    uint32_t down_tiles;
    /* probe: log ||y|| = probe . (probe_in . x) + bias; probe_in absent: probe . x */
    tensor probe_in;         /* [d, r] */
    tensor probe;            /* [r or d, N*E] */
    const float *probe_bias; /* [N*E] */
    /* share of the calibration tokens that ran each sub-expert, at the rung nearest half of the compute */
    const float *use; /* [N*E]; NULL: not recorded */
} moe_weights;

/* A SwiGLU block that every token runs whole: a dense layer, or the shared experts beside the routed ones. */
typedef struct ffn_weights {
    tensor gate, up; /* [d, width]; data NULL: the layer has none */
    tensor down;     /* [width, d] */
    tensor mix;      /* [d, 1]: its output is scaled by sigmoid(mix . x); data NULL: by 1 */
} ffn_weights;

/* One operating point in one layer. */
typedef struct moe_rung {
    float log_tau;     /* threshold: run what scores at least this; -inf: everything */
    float gain;        /* scales the layer's output */
    uint32_t top;      /* topk: how many run; N*k0: everything */
    uint32_t at_least; /* threshold: never fewer */
} moe_rung;

typedef struct moe_layer {
    uint32_t number; /* among the layers with experts */
    moe_shape shape;
    moe_weights w;
    mp_gate gate;
    mp_select select;
    uint32_t proxy_neurons; /* r of the proxy gate */
    const moe_rung *rungs;  /* [n_rungs]; rung 0 is full */
    uint32_t n_rungs;
} moe_layer;

/* Up to so many neurons a sub-expert's gate and up rows, which stand together, are one product: work of one thread,
 * which also decides how the rows are arranged. */
enum { MOE_ONE_PRODUCT_WIDTH = 64 };

static inline bool moe_one_product(const moe_shape *s)
{
    return s->tile && s->part_width <= MOE_ONE_PRODUCT_WIDTH;
}

/* Whether those of this layer are. A proxy gate takes rows one by one. */
static inline bool moe_hidden_in_one(const moe_layer *l)
{
    return moe_one_product(&l->shape) && l->gate != MP_GATE_PROXY;
}

/* Tiles of a sub-expert's down matrix, all and those that stand together. */
static inline uint32_t moe_tiles(const moe_shape *s)
{
    return s->d / s->tile;
}

static inline uint32_t moe_tiles_together(const moe_layer *l)
{
    return l->w.down_tiles ? l->w.down_tiles : moe_tiles(&l->shape);
}

static inline size_t moe_down_tile_bytes(const moe_layer *l)
{
    return l->shape.part_width * l->w.down_t.row_bytes;
}

/* The first tile of a sub-expert. */
static inline const uint8_t *moe_down_first(const moe_layer *l, uint32_t sub)
{
    const uint32_t part = sub % l->shape.n_parts;
    return tensor_row(&l->w.down_t, sub - part, 0) + (size_t)part * moe_tiles_together(l) * moe_down_tile_bytes(l);
}

/* Bytes from there to another of its tiles. */
static inline size_t moe_down_offset(const moe_layer *l, uint32_t tile)
{
    const uint32_t within = tile % moe_tiles_together(l);
    return ((size_t)(tile - within) * l->shape.n_parts + within) * moe_down_tile_bytes(l);
}

/* The widest W of 256, 128, 64, 32 that divides d, or d itself where none does. */
uint32_t moe_tile(uint32_t d);
/* Multiply-adds of the gate over those of the full expert compute. */
double moe_gate_share(const moe_layer *l);
/* The rung for a mean budget under either selection; tau and gain are left for the caller. */
moe_rung moe_rung_for_budget(double budget, uint32_t full);

#endif
