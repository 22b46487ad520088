/* write.h: the artifact while it is being written: all but its curve, then the curve. Owned by mp_refactor(). */
#ifndef REFACTOR_WRITE_H
#define REFACTOR_WRITE_H

#include "refactor/refactor.h"

typedef struct artifact artifact;

/* Writes everything under a temporary name, *path, where it can be opened and measured. *out is set in any case, for
 * artifact_free(). */
mp_status artifact_write(refactor *r, artifact **out, const char **path, mp_error *err);
/* keep [n_points]: the points that stay; points [n_points] and curve: what was measured, or NULL. Then the final name.
 */
mp_status artifact_finish(artifact *a, const bool *keep, const mp_point *points, const mp_eval_result *curve,
                          mp_error *err);
void artifact_free(artifact *a); /* an unfinished file goes */

#endif
