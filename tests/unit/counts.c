/* SPDX-License-Identifier: MIT */
/* The counts of a qcow2 check: against a plain array, with enough memory and with little. */
#include "unit.h"

#include <stdlib.h>

#include "base/ckd.h"
#include "format/qcow2/check.h"
#include "support/prng.h"

enum { CLUSTERS = 40 << COUNT_CHUNK_BITS, MOST_RUN = 3000, STEPS = 4000 };

static uint32_t *right;

static int set_up(void **state)
{
    (void)state;
    right = calloc(CLUSTERS, sizeof *right);
    return right ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    free(right);
    return 0;
}

/* The same changes to both; the same seed gives the same ones. */
static void change(struct counts *c, uint64_t seed)
{
    struct prng random = {seed};
    memset(right, 0, CLUSTERS * sizeof *right);
    for (int step = 0; step < STEPS; step++) {
        uint64_t n = 1 + prng_below(&random, MOST_RUN);
        uint64_t first = prng_below(&random, CLUSTERS - n);
        uint64_t by = prng_below(&random, 50) ? 1 : 1 + prng_below(&random, 400);
        assert_int_equal(counts_add(c, first, n, by, NULL), 0);
        for (uint64_t i = first; i < first + n; i++)
            right[i] += (uint32_t)by;
        if (step % 7)
            continue;
        for (uint64_t i = first; i < first + n / 2; i++)
            right[i]--;
        counts_take(c, first, n / 2);
    }
}

static void expect_right(const struct counts *c)
{
    uint64_t end = min_u64(c->limit, CLUSTERS), word, last = 0;
    for (uint64_t i = c->first; i < end; i++) {
        assert_int_equal(counts_get(c, i), right[i]);
        if (right[i])
            last = i + 1;
        if (i % 64 == 0 && end - i >= 64 && counts_word(c, i, &word))
            for (unsigned bit = 0; bit < 64; bit++)
                assert_int_equal(word >> bit & 1, right[i + bit]);
    }
    assert_int_equal(counts_end(c), last);
}

static void enough(void **state)
{
    (void)state;
    struct budget *budget = budget_new(64 << 20);
    struct counts c;
    assert_int_equal(counts_open(&c, budget, 0, NULL), 0);
    change(&c, 1);
    assert_false(c.cut);
    assert_true(c.shared);
    expect_right(&c);
    assert_int_equal(counts_get(&c, UINT64_MAX), 0);
    assert_false(counts_any(&c, CLUSTERS, UINT64_MAX - CLUSTERS));
    counts_close(&c);
    assert_int_equal(budget_take(budget, 64 << 20, "all of it", NULL), 0);
    budget_unref(budget);
}

/* Several passes see every cluster, each of them right. */
static void passes(void **state)
{
    (void)state;
    struct budget *budget = budget_new(1 << 20);
    struct counts c;
    unsigned n = 0;
    for (uint64_t first = 0; first < CLUSTERS; first = round_down(c.next, 64), n++) {
        if (n)
            counts_close(&c);
        assert_int_equal(counts_open(&c, budget, first, NULL), 0);
        change(&c, 2);
        assert_true(c.limit > first);
        assert_true(c.next == UINT64_MAX || c.next >= c.limit);
        for (uint64_t i = c.limit; i < CLUSTERS && i < c.next; i++)
            assert_int_equal(right[i], 0);
        expect_right(&c);
    }
    assert_true(n > 2);
    counts_close(&c);
    assert_int_equal(budget_take(budget, 1 << 20, "all of it", NULL), 0);
    budget_unref(budget);
}

static void no_memory(void **state)
{
    (void)state;
    struct budget *budget = budget_new(2000);
    struct platter_error err = {0};
    struct counts c;
    assert_int_equal(counts_open(&c, budget, 0, &err), 0);
    assert_int_equal(counts_add(&c, 5, 1, 1, &err), -ENOMEM);
    assert_true(err.message[0]);
    counts_close(&c);
    budget_unref(budget);
}

static void marks(void **state)
{
    (void)state;
    struct budget *budget = budget_new(64 << 20);
    struct counts c;
    assert_int_equal(counts_open(&c, budget, 0, NULL), 0);
    assert_int_equal(counts_mark(&c, MARK_FIXED, 32760, 20, NULL), 0);
    assert_int_equal(counts_mark(&c, MARK_L2, 99999, 1, NULL), 0);
    assert_true(counts_marked(&c, MARK_FIXED, 32760) && counts_marked(&c, MARK_FIXED, 32779));
    assert_false(counts_marked(&c, MARK_FIXED, 32759) || counts_marked(&c, MARK_FIXED, 32780));
    assert_false(counts_marked(&c, MARK_L2, 32770) || counts_marked(&c, MARK_WALKED, 99999));
    assert_true(counts_table(&c, 32000, 761) && counts_table(&c, 90000, 10000));
    assert_false(counts_table(&c, 0, 32760) || counts_table(&c, 32780, 60000));
    assert_int_equal(counts_get(&c, 32765), 0);
    counts_close(&c);
    budget_unref(budget);
}

static void saturates(void **state)
{
    (void)state;
    struct budget *budget = budget_new(64 << 20);
    struct counts c;
    assert_int_equal(counts_open(&c, budget, 0, NULL), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(counts_add(&c, 7, 1, UINT32_MAX - 1, NULL), 0);
    assert_int_equal(counts_get(&c, 7), UINT32_MAX);
    assert_int_equal(counts_get(&c, 8), 0);
    counts_close(&c);
    budget_unref(budget);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enough), cmocka_unit_test(passes),    cmocka_unit_test(no_memory),
        cmocka_unit_test(marks),  cmocka_unit_test(saturates),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
