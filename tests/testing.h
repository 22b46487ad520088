/* testing.h: what the test programs share: cmocka, files, comparisons. Static functions, one copy a program. */
#ifndef TESTS_TESTING_H
#define TESTS_TESTING_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/status.h"
#include "tensor/kernels.h"

#define UNUSED_OK __attribute__((unused))

/* A file of the data that is shared beside the checkout; MOEPRISM_SHARED says where if it is elsewhere. The buffer is
 * reused by the next call. */
static UNUSED_OK char *shared_path(const char *name)
{
    static char path[4096];
    const char *root = getenv("MOEPRISM_SHARED");
    snprintf(path, sizeof path, "%s/%s", root ? root : "../shared", name);
    return path;
}

static void UNUSED_OK assert_ok(mp_status status, const mp_error *err)
{
    if (status != MP_OK) fail_msg("%s: %s", mp_status_text(status), err->message);
}

static void UNUSED_OK read_ids(const char *path, int32_t *out, size_t n)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    for (size_t i = 0; i < n; i++) assert_int_equal(fscanf(f, "%d", &out[i]), 1);
    fclose(f);
}

static void UNUSED_OK read_floats(const char *path, float *out, size_t n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(out, sizeof *out, n, f), n);
    fclose(f);
}

/* Largest difference over largest magnitude; NaN counts as infinite. */
static double UNUSED_OK relative_error(const float *a, const float *b, size_t n)
{
    double diff = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        const double x = fabs((double)a[i] - (double)b[i]);
        if (!(x <= diff)) diff = isnan(x) ? INFINITY : x;
        if (fabs((double)b[i]) > most) most = fabs((double)b[i]);
    }
    return diff / most;
}

static void UNUSED_OK assert_near(const float *a, const float *b, size_t n, double bound)
{
    const double error = relative_error(a, b, n);
    if (!(error <= bound)) fail_msg("relative error %g, bound %g", error, bound);
}

static UNUSED_OK const char *const *isas(void)
{
    return kernels_available();
}

#endif
