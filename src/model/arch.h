/* arch.h: the architectures this engine knows, one table row each.
 *
 * A row says how a family differs from the common pre-norm transformer with SwiGLU experts; the forward pass itself
 * exists once (engine/) and asks the row. What a file's tensors and keys already say (biases, shared experts, dense
 * layers, expert groups) needs no flag. Adding a family is a row, plus a hook where a flag cannot say it. */
#ifndef MODEL_ARCH_H
#define MODEL_ARCH_H

#include "base/status.h"

typedef enum arch_qk_norm {
    ARCH_QK_NORM_NONE,
    ARCH_QK_NORM_FULL, /* one RMS norm over all heads together */
    ARCH_QK_NORM_HEAD, /* one per head, weights shared by the heads */
} arch_qk_norm;

typedef enum arch_rope {
    ARCH_ROPE_HALVES, /* rotates (i, i + n/2), "NeoX" */
    ARCH_ROPE_PAIRS,  /* rotates (2i, 2i + 1) */
} arch_rope;

typedef struct arch {
    const char *name; /* general.architecture */
    arch_qk_norm qk_norm;
    arch_rope rope;
    bool mla;          /* multi-head latent attention: the cache holds a compressed latent */
    bool qkv_bias;     /* biases of the projections are not optional */
    bool gated_shared; /* shared experts are not optional, and neither is their gate */
    bool renormalise;  /* the chosen experts' mixing weights add up to one, unless the file says otherwise */
    bool scales;       /* reads embedding, residual, attention and logit scales */
} arch;

/* NULL where unknown. */
const arch *arch_find(const char *name, size_t len);
/* "olmoe, ...", for messages. */
const char *arch_list(void);

#endif
