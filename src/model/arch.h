/* arch.h: the architectures this engine knows, one table row each.
 *
 * A row says how a family differs from the common pre-norm transformer with SwiGLU experts; the forward pass itself
 * exists once (engine/) and asks the row. Adding a family is a row, plus a hook where a flag cannot say it. */
#ifndef MODEL_ARCH_H
#define MODEL_ARCH_H

#include "base/status.h"

typedef enum arch_qk_norm {
    ARCH_QK_NORM_NONE,
    ARCH_QK_NORM_FULL, /* one RMS norm over all heads together */
} arch_qk_norm;

typedef struct arch {
    const char *name; /* general.architecture */
    arch_qk_norm qk_norm;
    bool renormalise; /* mixing weights of the chosen experts are divided by their sum */
} arch;

/* NULL where unknown. */
const arch *arch_find(const char *name, size_t len);
/* "olmoe, ...", for messages. */
const char *arch_list(void);

#endif
