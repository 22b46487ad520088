#include "cli/cost_steps.h"

#include <math.h>
#include <stdlib.h>

#include "base/status.h"

enum { CONTEXT_MAX = 1024, CONTEXT_MAX_QUICK = 512, PROMPT_MAX_QUICK = 128 };

/* What steps are made of, for one model and engine. */
typedef struct maker {
    uint32_t slots, prompt_max, pages_max, n_points;
    rng *random;
} maker;

cost_shape cost_shape_of(const mp_model *model)
{
    const mp_model_info *info = mp_model_get_info(model);
    return (cost_shape){.used = info->n_experts > 0 ? (double)info->n_experts_used / info->n_experts : 1};
}

uint32_t cost_plan_context(const mp_engine_params *engine, bool quick)
{
    const uint32_t room = engine->n_ctx > engine->n_batch ? engine->n_ctx - engine->n_batch : 0;
    const uint32_t most = quick ? CONTEXT_MAX_QUICK : CONTEXT_MAX, n = room < most ? room : most;
    return n - n % MP_KV_PAGE;
}

static uint32_t below(const maker *m, uint32_t bound)
{
    return (uint32_t)rng_below(m->random, bound);
}

/* 1..most, as many of each order of magnitude. */
static uint32_t magnitude(const maker *m, uint32_t most)
{
    const double x = exp(rng_uniform(m->random) * log(most + 1.0));
    return x < 1 ? 1 : x > most ? most : (uint32_t)x;
}

/* n_prompt = 0: no prompt. point = n_points: each sequence at a random one. */
static mp_status make(const maker *m, uint32_t decodes, uint32_t n_prompt, uint32_t point, cost_plan *plan,
                      mp_error *err)
{
    const uint32_t n = decodes + (n_prompt > 0);
    plan->parts = calloc(n, sizeof *plan->parts);
    if (plan->parts == NULL) return status_no_memory(err, n * sizeof *plan->parts, "steps");
    plan->n_seqs = n;
    for (uint32_t s = 0; s < n; s++) {
        const bool prompt = s == decodes;
        plan->parts[s] = (cost_part){.n_tokens = prompt ? n_prompt : 1,
                                     .pages = below(m, m->pages_max + 1),
                                     .point = point < m->n_points ? point : below(m, m->n_points),
                                     .prompt = prompt,
                                     .logits = !prompt || below(m, 2) == 0};
    }
    return MP_OK;
}

static mp_status make_random(const maker *m, cost_plan *plan, mp_error *err)
{
    const bool prompt = below(m, 2) == 0;
    const uint32_t most = prompt ? m->slots - 1 : m->slots; /* the prompt takes a slot as well */
    const uint32_t decodes = prompt ? below(m, most + 1) : 1 + below(m, most);
    const uint32_t point = below(m, 2) == 0 ? below(m, m->n_points) : m->n_points;
    return make(m, decodes, prompt ? magnitude(m, m->prompt_max) : 0, point, plan, err);
}

/* The i-th corner: one token, all slots, the longest prompt, each at full, in the middle and at the cheapest point. */
enum { CORNERS = 9 };
static mp_status make_corner(const maker *m, size_t i, cost_plan *plan, mp_error *err)
{
    const uint32_t points[] = {0, m->n_points / 2, m->n_points - 1}, point = points[i % 3];
    const uint32_t decodes[] = {1, m->slots, 0};
    return make(m, decodes[i / 3], i / 3 == 2 ? m->prompt_max : 0, point, plan, err);
}

static maker maker_of(const mp_model *model, const mp_engine_params *engine, bool quick, rng *random)
{
    maker m = {.slots = engine->n_seqs, .random = random};
    m.pages_max = cost_plan_context(engine, quick) / MP_KV_PAGE;
    const uint32_t room = engine->n_ctx - m.pages_max * MP_KV_PAGE, batch = engine->n_batch - (engine->n_seqs - 1);
    m.prompt_max = room < batch ? room : batch;
    if (quick && m.prompt_max > PROMPT_MAX_QUICK) m.prompt_max = PROMPT_MAX_QUICK;
    while (mp_model_point(model, m.n_points) != NULL) m.n_points++;
    return m;
}

mp_status cost_plans_new(const mp_model *model, const mp_engine_params *engine, bool quick, size_t n, rng *random,
                         cost_plan **out, mp_error *err)
{
    *out = NULL;
    if (engine->n_seqs < 1 || engine->n_batch < engine->n_seqs || engine->n_ctx < 1)
        return status_fail(err, MP_E_INVALID, "a step of %u tokens does not hold %u sequences", engine->n_batch,
                           engine->n_seqs);
    const maker m = maker_of(model, engine, quick, random);
    cost_plan *plans = calloc(n, sizeof *plans);
    if (plans == NULL) return status_no_memory(err, n * sizeof *plans, "steps");
    mp_status status = MP_OK;
    for (size_t i = 0; i < n && status == MP_OK; i++)
        status = i < CORNERS ? make_corner(&m, i, &plans[i], err) : make_random(&m, &plans[i], err);
    if (status != MP_OK) {
        cost_plans_free(plans, n);
        return status;
    }
    *out = plans;
    return MP_OK;
}

void cost_plans_free(cost_plan *plans, size_t n)
{
    for (size_t i = 0; plans && i < n; i++) free(plans[i].parts);
    free(plans);
}
