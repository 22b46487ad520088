/* The cost model that a server begins with. A quick measurement is not written down: the one beside the model shall be
 * a good one, and whoever starts a server did not ask for a file. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/status.h"
#include "cli/cost_measure.h"
#include "cli/interrupt.h"
#include "cli/progress.h"

static mp_status measure_quickly(const mp_model *model, const mp_engine_params *engine, cost_model *out, mp_error *err)
{
    progress shown;
    cost_steps steps;
    const cost_measure_params params = {.engine = *engine, .quick = true, .progress = progress_update, .user = &shown};
    progress_begin(&shown, true);
    interrupt_catch(NULL);
    mp_status status = cost_measure(model, &params, &steps, err);
    progress_end(&shown, status == MP_OK);
    interrupt_release();
    if (status == MP_OK) status = cost_steps_fit(&steps, out, NULL, err);
    cost_steps_clear(&steps);
    return status;
}

mp_status cost_obtain(const mp_model *model, const cli_common *common, const mp_engine_params *engine, cost_model *out,
                      mp_error *err)
{
    cost_file have, want;
    mp_error why;
    MP_TRY(cost_file_begin(&want, model, common, engine, err));
    char *path = cost_file_path(mp_model_get_info(model)->path);
    if (path == NULL) return status_no_memory(err, 0, "a file name");
    const bool there = access(path, F_OK) == 0, good = there && cost_file_read(path, &have, &why) == MP_OK;
    const char *mismatch = good ? cost_file_mismatch(&have, &want) : NULL;
    *out = good ? have.cost : want.cost;
    mp_status status = MP_OK;
    if (!good || mismatch != NULL) {
        if (!there)
            fprintf(stderr, "moeprism: there is no %s; ", path);
        else
            fprintf(stderr, "moeprism: %s%s%s; ", good ? path : why.message, good ? ": " : "", good ? mismatch : "");
        fputs("step times are measured briefly now ('moeprism bench --cost' does it well, once)\n", stderr);
        *out = want.cost;
        status = measure_quickly(model, engine, out, err);
    }
    free(path);
    return status;
}
