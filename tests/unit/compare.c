/* SPDX-License-Identifier: MIT */
/* Comparing: the first difference, the same in every run; ends of different disks; which side
 * failed. */
#include "unit.h"

#include "disks.h"
#include "ops/ops.h"

struct verdict {
    int code, failed;
    enum platter_difference difference;
    uint64_t offset;
    struct platter_error err;
};

static struct verdict compare(struct platter_disk *a, struct platter_disk *b, unsigned flags,
                              unsigned workers)
{
    struct platter_compare_options options = {
        .size = sizeof options, .flags = flags, .workers = workers};
    struct verdict v = {0};
    v.code = ops_compare(a, b, &options, &v.difference, &v.offset, &v.failed, &v.err);
    return v;
}

static void assert_verdict(struct platter_disk *a, struct platter_disk *b, unsigned flags,
                           enum platter_difference difference, uint64_t offset)
{
    for (unsigned workers = 1; workers <= 4; workers++) {
        struct verdict v = compare(a, b, flags, workers);
        assert_int_equal(v.code, 0);
        assert_int_equal(v.difference, difference);
        assert_int_equal(v.offset, offset);
        v = compare(b, a, flags, workers);
        assert_int_equal(v.code, 0);
        assert_int_equal(v.difference, difference);
        assert_int_equal(v.offset, offset);
    }
}

static void close_both(struct platter_disk *a, struct platter_disk *b)
{
    disk_close(a, NULL);
    disk_close(b, NULL);
}

static void test_first_difference(void **state)
{
    (void)state;
    static const uint64_t places[] = {(9 << 20) + 77, (5 << 20) - 1, 1 << 20, 65537, 1, 0};
    struct platter_disk *a = pattern_disk(10 << 20);
    struct platter_disk *b = pattern_disk(10 << 20);
    assert_verdict(a, b, 0, PLATTER_SAME, 0);
    assert_verdict(a, b, PLATTER_COMPARE_STRICT, PLATTER_SAME, 0);
    /* Each one lies before the ones that are there already. */
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        disk_poke(b, places[i], (uint8_t)(pattern_byte(places[i]) + 1));
        assert_verdict(a, b, 0, PLATTER_CONTENT_DIFFERS, places[i]);
        assert_verdict(a, b, PLATTER_COMPARE_STRICT, PLATTER_CONTENT_DIFFERS, places[i]);
    }
    close_both(a, b);
}

static void test_holes(void **state)
{
    (void)state;
    struct platter_disk *hole = sparse_disk(20 << 20, 0, NULL, 0);
    struct platter_disk *stored = zero_disk(20 << 20);
    assert_verdict(hole, stored, 0, PLATTER_SAME, 0);
    assert_verdict(hole, stored, PLATTER_COMPARE_STRICT, PLATTER_ALLOCATION_DIFFERS, 0);
    disk_poke(stored, (17 << 20) + 5, 1);
    assert_verdict(hole, stored, 0, PLATTER_CONTENT_DIFFERS, (17 << 20) + 5);
    close_both(hole, stored);
}

static void test_sizes(void **state)
{
    (void)state;
    struct platter_disk *shorter = pattern_disk(1000001);
    struct platter_disk *longer = zero_disk(3000000);
    for (uint64_t i = 0; i < 1000001; i++)
        disk_poke(longer, i, pattern_byte(i));
    assert_verdict(shorter, longer, 0, PLATTER_SAME, 0);
    assert_verdict(shorter, longer, PLATTER_COMPARE_STRICT, PLATTER_SIZE_DIFFERS, 0);
    disk_poke(longer, 2999999, 7);
    assert_verdict(shorter, longer, 0, PLATTER_TAIL_DIFFERS, 2999999);
    disk_poke(longer, 1000001, 7);
    assert_verdict(shorter, longer, 0, PLATTER_TAIL_DIFFERS, 1000001);
    disk_poke(longer, 1000000, 7);
    assert_verdict(shorter, longer, 0, PLATTER_CONTENT_DIFFERS, 1000000);
    close_both(shorter, longer);
    shorter = zero_disk(0);
    longer = sparse_disk(8ull << 40, 7ull << 40, "", 1);
    assert_verdict(shorter, longer, 0, PLATTER_SAME, 0);
    close_both(shorter, longer);
}

static int keep_progress(void *opaque, const struct platter_progress *p)
{
    *(struct platter_progress *)opaque = *p;
    return 0;
}

/* How many bytes a comparison of equal disks reads. */
static uint64_t bytes_read(struct platter_disk *a, struct platter_disk *b)
{
    struct platter_progress last = {0};
    struct platter_compare_options options = {
        .size = sizeof options, .progress = keep_progress, .opaque = &last};
    struct verdict v;
    assert_int_equal(ops_compare(a, b, &options, &v.difference, &v.offset, &v.failed, &v.err), 0);
    assert_int_equal(v.difference, PLATTER_SAME);
    assert_int_equal(last.done, last.total);
    return last.moved;
}

/* What both find in the same place of the same file is not read, nor is what is a hole in both. */
static void test_what_is_not_read(void **state)
{
    (void)state;
    struct platter_disk *a = sparse_disk(8 << 20, 1 << 20, "abc", 3);
    struct platter_disk *b = sparse_disk(8 << 20, 1 << 20, "abc", 3);
    assert_int_equal(bytes_read(a, a), 0);
    assert_in_range(bytes_read(a, b), 2 * 512, 2 << 20);
    close_both(a, b);
}

static void test_read_errors(void **state)
{
    (void)state;
    struct platter_disk *whole = pattern_disk(8 << 20);
    struct platter_disk *cut = pattern_disk(8 << 20);
    disk_spoil(cut, 5 << 20);
    for (unsigned workers = 1; workers <= 4; workers++) {
        struct verdict v = compare(whole, cut, 0, workers);
        assert_int_equal(v.code, -EIO);
        assert_int_equal(v.err.code, EIO);
        assert_int_equal(v.failed, 1);
        v = compare(cut, whole, 0, workers);
        assert_int_equal(v.code, -EIO);
        assert_int_equal(v.failed, 0);
    }
    /* A difference before it comes first, in every run. */
    disk_poke(whole, (5 << 20) - 300000, 255);
    for (int i = 0; i < 20; i++)
        assert_verdict(whole, cut, 0, PLATTER_CONTENT_DIFFERS, (5 << 20) - 300000);
    close_both(whole, cut);
}

static int cancel(void *opaque, const struct platter_progress *p)
{
    (void)opaque, (void)p;
    return 1;
}

static void test_cancel(void **state)
{
    (void)state;
    struct platter_disk *a = pattern_disk(8 << 20);
    struct platter_disk *b = pattern_disk(8 << 20);
    struct platter_compare_options options = {.size = sizeof options, .progress = cancel};
    struct verdict v = {0};
    v.code = ops_compare(a, b, &options, &v.difference, &v.offset, &v.failed, &v.err);
    assert_int_equal(v.code, -ECANCELED);
    assert_int_equal(v.failed, -1);
    close_both(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_difference),
        cmocka_unit_test(test_holes),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_what_is_not_read),
        cmocka_unit_test(test_read_errors),
        cmocka_unit_test(test_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
