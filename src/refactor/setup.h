/* setup.h: begins and ends a refactor. */
#ifndef REFACTOR_SETUP_H
#define REFACTOR_SETUP_H

#include "refactor/refactor.h"

/* r is zero at first; refactor_clear() takes it in any state. */
mp_status refactor_setup(refactor *r, const char *source, const char *out, const mp_refactor_params *params,
                         mp_error *err);
void refactor_clear(refactor *r);

#endif
