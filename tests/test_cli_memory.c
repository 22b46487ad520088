/* How much of the experts to hold, judged by a plan and what is free. */
#include "cli/memory_choice.h"
#include "testing.h"

#define MIB ((uint64_t)1 << 20)

/* 10 GiB of experts, 2 GiB of everything else, at least 100 MiB. */
static const uint64_t experts = 10240 * MIB;
static const mp_plan whole = {.weights_experts = 10240 * MIB,
                              .weights_other = 1024 * MIB,
                              .kv_cache = 768 * MIB,
                              .scratch = 192 * MIB,
                              .logits = 64 * MIB,
                              .experts_least = 100 * MIB};

static void test_choose(void **state)
{
    (void)state;
    assert_int_equal(memory_choose_cap(&whole, experts, 0), 0); /* not known */
    assert_int_equal(memory_choose_cap(&whole, experts, 20480 * MIB), 0);
    assert_int_equal(memory_choose_cap(&whole, experts, 12288 * MIB), (12288 - 2048) * MIB - 12288 * MIB / 20);
    assert_int_equal(memory_choose_cap(&whole, experts, 4096 * MIB), (4096 - 2048 - 256) * MIB);
    assert_int_equal(memory_choose_cap(&whole, experts, 2048 * MIB), 100 * MIB); /* the least there is */
    mp_plan uncappable = whole;
    uncappable.experts_least = experts;
    assert_int_equal(memory_choose_cap(&uncappable, experts, 4096 * MIB), 0);
}

static void test_shortage(void **state)
{
    (void)state;
    char text[256] = "";
    mp_plan capped = whole;
    capped.weights_experts = 3072 * MIB; /* 5 GiB in all */
    assert_false(memory_tell_shortage(&capped, 0, text, sizeof text));
    assert_false(memory_tell_shortage(&capped, 5120 * MIB, text, sizeof text));
    assert_string_equal(text, "");
    assert_true(memory_tell_shortage(&capped, 4096 * MIB, text, sizeof text));
    assert_string_equal(text,
                        "this takes 5.00 GiB of memory, but only 4.00 GiB are free: 1.75 GiB of experts would fit "
                        "(--memory)");
    assert_true(memory_tell_shortage(&capped, 2048 * MIB, text, sizeof text));
    assert_string_equal(text, "this takes 5.00 GiB of memory, but only 2.00 GiB are free: not even the smallest "
                              "--memory would fit (--plan adds it up)");
    char narrow[16];
    assert_true(memory_tell_shortage(&capped, MIB, narrow, sizeof narrow));
    assert_int_equal(strlen(narrow), sizeof narrow - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_choose), cmocka_unit_test(test_shortage)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
