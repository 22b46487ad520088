/* What a draw costs: ns a token for greedy, temperature, top-k, top-p and min-p, on rows of logits as flat as those of
 * a model with random weights and as peaked as those of a trained one, of two sizes of vocabulary; log probabilities
 * too. Beside each, a digest of the tokens drawn: a change that claims to draw the same must not change it.
 *
 *   build/bench/sampler [ROUNDS]      best of so many rounds, default 15 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/rng.h"
#include "base/status.h"

enum { ROWS = 8, DRAWS = 32 };

typedef struct kind {
    const char *name;
    mp_sampler_params params;
} kind;

static const kind kinds[] = {
    {"greedy", {.temperature = 0}},
    {"temperature 1", {.temperature = 1, .top_p = 1}},
    {"top-k 40", {.temperature = 0.8f, .top_k = 40}},
    {"top-p 0.95", {.temperature = 1, .top_p = 0.95f}},
    {"top-p 0.5", {.temperature = 1, .top_p = 0.5f}},
    {"min-p 0.05", {.temperature = 1, .min_p = 0.05f}},
    {"top-k 40, top-p 0.95, min-p 0.05", {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f}},
};

/* Normal logits; a peaked row has some that stand out, as a trained model's has. */
static void fill(float *row, uint32_t n, bool peaked, rng *r)
{
    for (uint32_t i = 0; i < n; i++) row[i] = rng_normal(r);
    for (uint32_t i = 0; peaked && i < 200; i++) row[rng_below(r, n)] += 14.f * (float)pow(0.97, i);
}

/* Best of the rounds, in ns a draw. */
static double measure(const kind *k, const float *rows, uint32_t n, int rounds, uint64_t *digest)
{
    double best = INFINITY;
    for (int round = 0; round < rounds; round++) {
        mp_sampler *s;
        mp_error err;
        if (mp_sampler_new(&k->params, n, &s, &err) != MP_OK) {
            fprintf(stderr, "%s\n", err.message);
            exit(1);
        }
        *digest = 0xcbf29ce484222325;
        const uint64_t start = clock_now_ns();
        for (uint32_t i = 0; i < DRAWS; i++)
            *digest = (*digest ^ (uint32_t)mp_sampler_draw(s, rows + (size_t)(i % ROWS) * n)) * 0x100000001b3;
        const double ns = (double)(clock_now_ns() - start) / DRAWS;
        if (ns < best) best = ns;
        mp_sampler_free(s);
    }
    return best;
}

static double measure_logprobs(const float *rows, uint32_t n, int rounds)
{
    double best = INFINITY;
    for (int round = 0; round < rounds; round++) {
        int32_t top[20];
        float values[20];
        const uint64_t start = clock_now_ns();
        for (uint32_t i = 0; i < DRAWS; i++) mp_logprobs(rows + (size_t)(i % ROWS) * n, n, 0, 20, top, values);
        const double ns = (double)(clock_now_ns() - start) / DRAWS;
        if (ns < best) best = ns;
    }
    return best;
}

int main(int argc, char **argv)
{
    static const uint32_t sizes[] = {50304, 151936};
    const int rounds = argc > 1 ? atoi(argv[1]) : 15;
    printf("%-34s %8s %8s %12s %18s\n", "sampling", "tokens", "logits", "ns a draw", "drawn");
    for (size_t size = 0; size < 2; size++)
        for (int peaked = 0; peaked < 2; peaked++) {
            const uint32_t n = sizes[size];
            float *rows = malloc((size_t)ROWS * n * sizeof *rows);
            rng r;
            if (rows == NULL) return 1;
            rng_init(&r, 1);
            for (int i = 0; i < ROWS; i++) fill(rows + (size_t)i * n, n, peaked, &r);
            for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
                uint64_t digest;
                const double ns = measure(&kinds[k], rows, n, rounds, &digest);
                printf("%-34s %8u %8s %12.0f   %016" PRIx64 "\n", kinds[k].name, n, peaked ? "peaked" : "flat", ns,
                       digest);
            }
            printf("%-34s %8u %8s %12.0f\n", "log probabilities, 20 best", n, peaked ? "peaked" : "flat",
                   measure_logprobs(rows, n, rounds));
            free(rows);
        }
    return 0;
}
