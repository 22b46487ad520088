/* Passes over a row of logits: against their definition, and the same bits from every instruction set. The product's
 * file is read in, since it keeps those to itself. */
#include "testing.h"

#include "base/rng.h"
#include "text/row.c" /* NOLINT(bugprone-suspicious-include): see above */

enum { MOST = 5 * ROW_BLOCK, BLOCKS = 5 };

static const uint32_t lengths[] = {1, 15, 63, 64, 65, 200, 256, 300, MOST};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

/* Rough, with ties, and things that no model should give but the largest is finite. */
static void fill(float *x, uint32_t n, uint64_t seed)
{
    rng r;
    rng_init(&r, seed);
    for (uint32_t i = 0; i < n; i++) x[i] = roundf(8 * rng_normal(&r)) / 2;
    if (n > 100) x[70] = NAN, x[71] = -INFINITY, x[99] = -200;
}

static double weight_of(float x, float top, float temperature)
{
    return isnan(x) ? 0 : exp(((double)x - (double)top) / (double)temperature);
}

static bool takes_part(float x, uint32_t i, row_cut cut)
{
    return x > cut.logit || (x == cut.logit && (int32_t)i <= cut.id);
}

static void test_definition(void **state)
{
    (void)state;
    float x[MOST], largest[BLOCKS];
    double sums[BLOCKS], bins[ROW_BINS_ROOM];
    candidate found[MOST];
    for (size_t l = 0; l < LENGTHS; l++) {
        const uint32_t n = lengths[l];
        fill(x, n, l);
        float top = -INFINITY;
        for (uint32_t i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
        assert_true(row_largest(x, n, largest) == top);
        const row_cut cuts[] = {{-INFINITY, INT32_MAX}, {top - 3, (int32_t)n / 2}, {top, 0}, {-1, -1}};
        for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
            double expected = 0;
            for (uint32_t i = 0; i < n; i++)
                if (takes_part(x[i], i, cuts[c])) expected += weight_of(x[i], top, 0.7f);
            const double total = row_sums(x, n, largest, top, 0.7f, cuts[c], sums);
            assert_true(fabs(total - expected) <= 1e-6 * expected);
        }
        const float low = top - 7;
        double mass = 0, expected = 0;
        row_masses(x, n, largest, top, low, bins);
        for (int b = 0; b < ROW_BINS; b++) mass += bins[b];
        for (uint32_t i = 0; i < n; i++) expected += x[i] >= low ? weight_of(x[i], top, 1) : 0;
        assert_true(fabs(mass - expected) <= 1e-6 * expected);
        size_t count = 0, between = row_collect(x, n, largest, low, top - 1, found);
        for (uint32_t i = 0; i < n; i++) {
            if (!(x[i] >= low && x[i] <= top - 1)) continue;
            assert_true(count < between && found[count].id == (int32_t)i && found[count].logit == x[i]);
            count++;
        }
        assert_int_equal(count, between);
    }
}

/* Bins are ordered as logits are, and their bounds hold them. */
static void test_bins(void **state)
{
    (void)state;
    static const float ranges[][2] = {{1, 0}, {20, -3.7f}, {1e-3f, -1e-3f}, {700, 1e-5f}, {3, 3}};
    for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++) {
        const float top = ranges[r][0], low = ranges[r][1];
        int32_t last = 0;
        for (int i = 0; i <= 10000; i++) {
            const float x = fmaxf(low, top - (top - low) * (float)i / 10000);
            const int32_t bin = row_bin(x, top, low);
            float least, most;
            row_bin_range(bin, top, low, &least, &most);
            assert_true(bin >= last && bin < ROW_BINS);
            assert_true(x >= least && x <= most);
            last = bin;
        }
    }
}

static void assert_same(const passes *p, uint32_t n)
{
    float x[MOST], largest[2][BLOCKS];
    double sums[2][BLOCKS], bins[2][ROW_BINS_ROOM];
    candidate found[2][MOST];
    fill(x, n, n);
    const passes *const both[2] = {&passes_any, p};
    double total[2];
    size_t count[2];
    for (int i = 0; i < 2; i++) {
        const float top = both[i]->largest(x, n, largest[i]);
        total[i] = both[i]->sums(x, n, largest[i], top, 1.3f, (row_cut){top - 5, (int32_t)n / 3}, sums[i]);
        both[i]->masses(x, n, largest[i], top, top - 6, bins[i]);
        count[i] = both[i]->collect(x, n, largest[i], top - 4, top - 1, found[i]);
    }
    assert_memory_equal(largest[0], largest[1], row_blocks(n) * sizeof(float));
    assert_memory_equal(sums[0], sums[1], row_blocks(n) * sizeof(double));
    assert_memory_equal(bins[0], bins[1], ROW_BINS * sizeof(double));
    assert_memory_equal(&total[0], &total[1], sizeof total[0]);
    assert_int_equal(count[0], count[1]);
    assert_memory_equal(found[0], found[1], count[0] * sizeof(candidate));
}

static void test_same_bits(void **state)
{
    (void)state;
    bool any = false;
    for (size_t l = 0; l < LENGTHS; l++) {
#ifdef __x86_64__
        if (__builtin_cpu_supports("avx2")) assert_same(&passes_avx2, lengths[l]), any = true;
        if (chosen() == &passes_avx512) assert_same(&passes_avx512, lengths[l]);
#endif
    }
    if (!any) skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition),
        cmocka_unit_test(test_bins),
        cmocka_unit_test(test_same_bits),
    };
    return cmocka_run_group_tests_name("rows of logits", tests, NULL, NULL);
}
