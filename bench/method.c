/* The method comparison: the original with fewer whole experts, the paper's method, ours, and ours minus one ingredient
 * at a time, all on the same texts. Perplexity is interpolated between points at equal shares of the expert compute.
 *
 *   method MODEL CALIBRATION EVAL OUTDIR    writes OUTDIR/method.csv, prints a Markdown table */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "moeprism.h"

typedef struct variant {
    const char *name, *label;
    mp_refactor_params p;
} variant;

static const variant VARIANTS[] = {
    {"ours", "**ours** (bcd, probe, threshold, gain)", {0}},
    {"paper-r1",
     "paper: N = 4, anneal, proxy r = 1, top-k",
     {.n_parts = 4,
      .solver = MP_SOLVER_ANNEAL,
      .gate = MP_GATE_PROXY,
      .gate_rank = 1,
      .select = MP_SELECT_TOPK,
      .no_gain = true}},
    {"paper-r4",
     "paper: N = 4, anneal, proxy r = 4, top-k",
     {.n_parts = 4,
      .solver = MP_SOLVER_ANNEAL,
      .gate = MP_GATE_PROXY,
      .gate_rank = 4,
      .select = MP_SELECT_TOPK,
      .no_gain = true}},
    {"paper-linear",
     "paper: N = 4, anneal, linear gate, top-k",
     {.n_parts = 4, .solver = MP_SOLVER_ANNEAL, .gate = MP_GATE_LINEAR, .select = MP_SELECT_TOPK, .no_gain = true}},
    {"whole-probe", "ours, probe not factorised", {.gate_rank = UINT32_MAX}},
    {"anneal", "ours, annealed sets", {.solver = MP_SOLVER_ANNEAL}},
    {"sort", "ours, sets sorted by importance", {.solver = MP_SOLVER_SORT}},
    {"topk", "ours, top-k", {.select = MP_SELECT_TOPK}},
    {"no-gain", "ours, no gain", {.no_gain = true}},
    {"proxy", "ours, proxy gate", {.gate = MP_GATE_PROXY}},
    {"n16", "ours, N = 16", {.n_parts = 16}},
    {"n4", "ours, N = 4", {.n_parts = 4}},
    {"quarter", "ours, a quarter of the calibration tokens", {.max_tokens = 24576}},
};

static const double SHARES[] = {.5, .375, .25, .125};
#define N_SHARES (sizeof SHARES / sizeof *SHARES)

typedef struct texts {
    char *calibration, *eval;
    size_t calibration_len, eval_len;
} texts;

static void check(mp_status status, const mp_error *err)
{
    if (status == MP_OK) return;
    fprintf(stderr, "method: %s\n", err->message);
    exit(1);
}

/* Perplexity at a share, linear between the two points around it; NaN outside. */
static double at_share(const mp_eval_point *points, size_t n, double share)
{
    for (size_t i = 0; i + 1 < n; i++) {
        const double high = points[i].compute_share, low = points[i + 1].compute_share;
        if (share <= high + 1e-9 && share >= low - 1e-9 && high > low)
            return points[i + 1].ppl + (points[i].ppl - points[i + 1].ppl) * (share - low) / (high - low);
    }
    return NAN;
}

static void print_row(FILE *csv, const char *name, const char *label, const mp_eval_result *r, double seconds)
{
    const double full = r->points[0].ppl;
    printf("| %s | %.2f |", label, full);
    for (size_t i = 0; i < N_SHARES; i++) {
        const double ppl = at_share(r->points, r->n_points, SHARES[i]);
        if (isnan(ppl))
            printf(" - |");
        else
            printf(" %.2f (%.3f) |", ppl, ppl / full);
    }
    printf(" %.1f %% | %.0f |\n", 100 * r->points[r->n_points - 1].gate_share, seconds);
    fflush(stdout);
    for (size_t i = 0; i < r->n_points; i++) {
        const mp_eval_point *p = &r->points[i];
        fprintf(csv, "%s,%u,%.5f,%.5f,%.4f,%.4f,%.6f,%.5f,%.5f,%.1f\n", name, p->point, p->compute_share, p->gate_share,
                p->ppl, p->ppl_se, p->kl_mean, p->kl_p99, p->same_top, seconds);
    }
    fflush(csv);
}

static void measure(const char *path, const mp_model_params *params, const texts *t, mp_eval_result *out)
{
    mp_error err;
    mp_model *m;
    const mp_eval_params p = {.text = t->eval, .len = t->eval_len, .n_ctx = 256, .max_tokens = 16384};
    check(mp_model_open(path, params, &m, &err), &err);
    check(mp_eval(m, &p, out, &err), &err);
    mp_model_close(m);
}

/* Whole experts: rung p of the ladder runs k0 - p of them. */
static void original(FILE *csv, const char *model, const texts *t)
{
    mp_eval_result r;
    measure(model, NULL, t, &r);
    print_row(csv, "original", "original router, fewer whole experts", &r, 0);
    mp_eval_result_clear(&r);
}

static void run(FILE *csv, const variant *v, const char *model, const char *dir, const texts *t)
{
    mp_error err;
    mp_refactor_report report;
    mp_eval_result r;
    mp_refactor_params p = v->p;
    char out[4096];
    snprintf(out, sizeof out, "%s/%s.gguf", dir, v->name);
    p.calibration = t->calibration;
    p.calibration_len = t->calibration_len;
    p.force = true;
    if (p.gate_rank == UINT32_MAX) {
        mp_model *m;
        check(mp_model_open(model, NULL, &m, &err), &err);
        p.gate_rank = mp_model_get_info(m)->n_embd;
        mp_model_close(m);
    }
    check(mp_refactor(model, out, &p, &report, &err), &err);
    measure(out, NULL, t, &r);
    print_row(csv, v->name, v->label, &r, report.total_s);
    mp_eval_result_clear(&r);
    mp_refactor_report_clear(&report);
}

int main(int argc, char **argv)
{
    mp_error err;
    texts t;
    char path[4096];
    if (argc < 5) {
        fprintf(stderr, "usage: method MODEL CALIBRATION EVAL OUTDIR [VARIANT...]\n");
        return 2;
    }
    check(file_read(argv[2], &t.calibration, &t.calibration_len, &err), &err);
    check(file_read(argv[3], &t.eval, &t.eval_len, &err), &err);
    snprintf(path, sizeof path, "%s/method.csv", argv[4]);
    FILE *csv = fopen(path, "w");
    if (!csv) {
        perror(path);
        return 1;
    }
    fprintf(csv, "variant,point,compute_share,gate_share,ppl,ppl_se,kl_mean,kl_p99,same_top,refactor_s\n");
    printf("| share of expert compute | full | 50 %% | 37.5 %% | 25 %% | 12.5 %% | gate | refactor, s "
           "|\n|---|---|---|---|---|---|---|---|\n");
    if (argc == 5) original(csv, argv[1], &t);
    for (size_t i = 0; i < sizeof VARIANTS / sizeof *VARIANTS; i++) {
        bool wanted = argc == 5;
        for (int a = 5; a < argc; a++) wanted |= !strcmp(argv[a], VARIANTS[i].name);
        if (wanted) run(csv, &VARIANTS[i], argv[1], argv[4], &t);
    }
    fclose(csv);
    free(t.calibration);
    free(t.eval);
    return 0;
}
