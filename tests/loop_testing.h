/* loop_testing.h: the demo model, and the metrics that serving loops on it count in. */
#ifndef LOOP_TESTING_H
#define LOOP_TESTING_H

#include "testing.h"

#include "serve/loop.h"

static mp_model *model;
static metrics *counts;

static int open_model(void **state)
{
    (void)state;
    mp_error err;
    return mp_model_open("models/demo-olmoe-q8_0.gguf", NULL, &model, &err) || metrics_new(model, &counts, &err);
}

static int close_model(void **state)
{
    (void)state;
    metrics_free(counts);
    mp_model_close(model);
    return 0;
}

#endif
