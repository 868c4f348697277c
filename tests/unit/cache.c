/* SPDX-License-Identifier: MIT */
/* The cache of inflated units: what is asked for again is there, whatever the size of units. */
#include "unit.h"

#include "disk/inside.h"

enum { KIB = 1 << 10, MIB = 1 << 20 };

/* A format of packed units only: a unit is full of its number. */
static unsigned unpacked; /* calls of the function below */
static bool broken;

static int unpack(struct image *img, const struct extent *e, void *out, struct platter_error *err)
{
    (void)img;
    unpacked++;
    if (broken)
        return fail(err, PLATTER_ECORRUPT, "broken by the test");
    memset(out, (int)(e->unit_start / e->unit_len + 1), e->unit_len);
    return 0;
}

static const struct format packed_only = {.name = "packed", .unpack = unpack};
static struct image image = {.format = &packed_only};

struct kit {
    struct budget *budget;
    struct unit_cache *cache;
};

static struct kit kit_open(void)
{
    struct kit k = {.budget = budget_new(64 * MIB)};
    assert_non_null(k.budget);
    assert_works(unit_cache_new(k.budget, &k.cache, &err));
    unpacked = 0;
    broken = false;
    return k;
}

static void kit_close(struct kit *k)
{
    unit_cache_free(k->cache);
    assert_works(budget_take(k->budget, 64 * MIB, "everything", &err)); /* nothing was kept */
    budget_unref(k->budget);
}

/* Reads 4 KiB at the start of a unit, and tells how often a unit was inflated for it. */
static unsigned cost(struct kit *k, unsigned number, uint32_t unit)
{
    uint8_t buf[4 * KIB];
    unsigned before = unpacked;
    struct extent e = {.kind = EXTENT_PACKED,
                       .len = sizeof buf,
                       .unit_start = (goff)number * unit,
                       .unit_len = unit};
    assert_works(unit_cache_read(k->cache, &image, &e, buf, sizeof buf, e.unit_start + 512, &err));
    for (size_t i = 0; i < sizeof buf; i++)
        assert_int_equal(buf[i], number + 1);
    return unpacked - before;
}

static void test_neighbours(void **state)
{
    (void)state;
    static const uint32_t units[] = {8 * KIB, 64 * KIB, MIB, 2 * MIB};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        struct kit k = kit_open();
        for (unsigned n = 0; n < 40; n++) {
            assert_int_equal(cost(&k, n, units[i]), 1);
            assert_int_equal(cost(&k, n, units[i]), 0);
        }
        kit_close(&k);
    }
}

/* Images of a chain may have units of different sizes. */
static void test_mixed_units(void **state)
{
    (void)state;
    struct kit k = kit_open();
    for (unsigned n = 0; n < 40; n++) {
        uint32_t unit = n % 2 ? 2 * MIB : 64 * KIB;
        unsigned number = 100 + n;
        assert_int_equal(cost(&k, number, unit), 1);
        assert_int_equal(cost(&k, number, unit), 0);
    }
    kit_close(&k);
}

/* Without memory nothing is kept, but everything is read. */
static void test_no_memory(void **state)
{
    (void)state;
    struct kit k = kit_open();
    assert_works(budget_take(k.budget, 64 * MIB, "everything", &err));
    for (unsigned n = 0; n < 3; n++)
        assert_int_equal(cost(&k, 1, 2 * MIB), 1);
    budget_give(k.budget, 64 * MIB);
    assert_int_equal(cost(&k, 1, 2 * MIB), 1);
    assert_int_equal(cost(&k, 1, 2 * MIB), 0);
    kit_close(&k);
}

static void test_forgetting(void **state)
{
    (void)state;
    struct kit k = kit_open();
    uint8_t byte;
    struct extent e = {.kind = EXTENT_PACKED, .len = 1, .unit_start = 0, .unit_len = 64 * KIB};
    broken = true;
    assert_fails(unit_cache_read(k.cache, &image, &e, &byte, 1, 0, &err), PLATTER_ECORRUPT,
                 "broken");
    broken = false;
    assert_int_equal(cost(&k, 0, 64 * KIB), 1);
    assert_int_equal(cost(&k, 1, 64 * KIB), 1);
    unit_cache_drop(k.cache, &image, 64 * KIB - 1, 1);
    assert_int_equal(cost(&k, 0, 64 * KIB), 1);
    assert_int_equal(cost(&k, 1, 64 * KIB), 0);
    kit_close(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_neighbours),
        cmocka_unit_test(test_mixed_units),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_forgetting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
