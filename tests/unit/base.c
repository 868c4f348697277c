/* SPDX-License-Identifier: MIT */
/* Cursors, checked arithmetic, errors, memory and budgets. */
#include "unit.h"

#include "base/ckd.h"
#include "base/cursor.h"
#include "base/memory.h"

static void test_reader(void **state)
{
    (void)state;
    const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    struct reader r = reader_over(bytes, sizeof bytes);
    assert_int_equal(read_u8(&r), 1);
    assert_int_equal(read_be16(&r), 0x0203);
    assert_int_equal(read_le32(&r), 0x07060504);
    assert_true(read_be64(&r) == 0x08090a0b0c0d0e0fu);
    assert_false(r.failed);
    assert_int_equal(read_u8(&r), 0);
    assert_true(r.failed);
}

static void test_reader_failure_is_sticky(void **state)
{
    (void)state;
    const uint8_t bytes[] = {1, 2, 3};
    struct reader r = reader_over(bytes, sizeof bytes);
    assert_int_equal(read_be32(&r), 0);
    assert_int_equal(read_u8(&r), 0);
    assert_true(r.failed);
    r = reader_over(bytes, sizeof bytes);
    read_seek(&r, 3);
    assert_false(r.failed);
    read_seek(&r, 4);
    assert_true(r.failed);
    r = reader_over(bytes, sizeof bytes);
    read_skip(&r, SIZE_MAX);
    assert_true(r.failed);
}

static void test_writer(void **state)
{
    (void)state;
    uint8_t bytes[16];
    memset(bytes, 0xee, sizeof bytes);
    struct writer w = writer_over(bytes, 15);
    write_be16(&w, 0x0102);
    write_le32(&w, 0x06050403);
    write_u8(&w, 7);
    write_pad_to(&w, 9);
    write_bytes(&w, "ab", 2);
    write_be32(&w, 0x0c0d0e0f);
    assert_false(w.failed);
    assert_memory_equal(bytes, "\1\2\3\4\5\6\7\0\0ab\x0c\x0d\x0e\x0f\xee", 16);
    write_u8(&w, 1);
    assert_true(w.failed);
    assert_int_equal(bytes[15], 0xee);
}

static void test_writer_refuses(void **state)
{
    (void)state;
    uint8_t bytes[4] = {0};
    struct writer w = writer_over(bytes, sizeof bytes);
    write_pad_to(&w, 5);
    assert_true(w.failed);
    w = writer_over(bytes, sizeof bytes);
    write_be16(&w, 1);
    write_pad_to(&w, 1);
    assert_true(w.failed);
    w = writer_over(bytes, sizeof bytes);
    write_be64(&w, UINT64_MAX);
    assert_true(w.failed);
    assert_int_equal(bytes[0], 0);
}

static void test_rounding(void **state)
{
    (void)state;
    uint64_t v;
    assert_true(round_down(4097, 4096) == 4096);
    assert_true(round_up(4097, 4096) == 8192);
    assert_false(ckd_round_up(&v, UINT64_MAX - 511, 512));
    assert_true(v == UINT64_MAX - 511);
    assert_true(ckd_round_up(&v, UINT64_MAX - 510, 512));
    assert_true(div_up(UINT64_MAX, 2) == UINT64_MAX / 2 + 1);
    assert_true(div_up(0, 7) == 0);
    assert_true(is_power_of_2(1) && is_power_of_2(1ull << 63));
    assert_false(is_power_of_2(0) || is_power_of_2(6));
}

static void test_range_inside(void **state)
{
    (void)state;
    assert_true(range_inside(0, 10, 10));
    assert_true(range_inside(10, 0, 10));
    assert_false(range_inside(1, 10, 10));
    assert_false(range_inside(11, 0, 10));
    assert_false(range_inside(5, UINT64_MAX, 10));
}

static void test_error(void **state)
{
    (void)state;
    struct platter_error err;
    assert_int_equal(fail(&err, EINVAL, "%s: field %d", "x.img", 7), -EINVAL);
    assert_int_equal(err.code, EINVAL);
    assert_string_equal(err.message, "x.img: field 7");
    assert_int_equal(fail_in(&err, -EINVAL, "backing of %s", "y"), -EINVAL);
    assert_string_equal(err.message, "backing of y: x.img: field 7");
    assert_int_equal(fail_errno(&err, ENOENT, "z"), -ENOENT);
    assert_string_equal(err.message, "z: No such file or directory");
    assert_int_equal(fail(NULL, EIO, "nobody listens"), -EIO);
    assert_int_equal(fail_in(NULL, -EIO, "nobody"), -EIO);
}

static void test_error_is_cut(void **state)
{
    (void)state;
    struct platter_error err;
    char longest[3 * sizeof err.message];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    fail(&err, EIO, "%s", longest);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    fail_in(&err, -EIO, "%s", longest);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    fail_errno(&err, EIO, "%s", longest);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
}

static void test_budget(void **state)
{
    (void)state;
    struct budget *b = budget_new(10000);
    void *one = NULL, *two = NULL;
    assert_works(budget_alloc(b, 4096, "a table", &one, &err));
    assert_true((uintptr_t)one % 4096 == 0);
    assert_true(is_zero(one, 4096));
    assert_fails(budget_alloc(b, 6000, "a cache", &two, &err), ENOMEM, "a cache needs 6000 bytes");
    assert_fails(budget_take(b, UINT64_MAX, "all", &err), ENOMEM, "limit");
    assert_works(budget_alloc(b, 5904, "a cache", &two, &err));
    assert_fails(budget_take(b, 1, "more", &err), ENOMEM, "only 0 are left");
    budget_free(b, one, 4096);
    budget_free(b, NULL, 77);
    assert_works(budget_take(b, 4096, "more", &err));
    budget_give(b, 4096);
    budget_free(b, two, 5904);
    assert_works(budget_take(b, 10000, "all of it", &err));
    budget_unref(budget_ref(b));
    assert_true(budget_limit(b) == 10000);
    budget_unref(b);
}

static void test_is_zero(void **state)
{
    (void)state;
    uint8_t bytes[300] = {0};
    assert_true(is_zero(bytes, 0));
    for (size_t n = 1; n < sizeof bytes; n++) {
        assert_true(is_zero(bytes, n));
        for (size_t i = 0; i<n; i += n> 40 ? 13 : 1) {
            bytes[i] = 1;
            assert_false(is_zero(bytes, n));
            bytes[i] = 0;
        }
        bytes[n - 1] = 0x80;
        assert_false(is_zero(bytes, n));
        assert_true(is_zero(bytes, n - 1));
        bytes[n - 1] = 0;
    }
}

static void test_take_and_scope(void **state)
{
    (void)state;
    char *p = string_format("%d-%s", 1, "x");
    auto_free char *q = TAKE(p);
    assert_null(p);
    assert_string_equal(q, "1-x");
    assert_null(string_copy(NULL));
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    {
        WITH_LOCK(&mutex);
        assert_int_equal(pthread_mutex_trylock(&mutex), EBUSY);
    }
    assert_int_equal(pthread_mutex_trylock(&mutex), 0);
    pthread_mutex_unlock(&mutex);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reader),         cmocka_unit_test(test_reader_failure_is_sticky),
        cmocka_unit_test(test_writer),         cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_rounding),       cmocka_unit_test(test_range_inside),
        cmocka_unit_test(test_error),          cmocka_unit_test(test_error_is_cut),
        cmocka_unit_test(test_budget),         cmocka_unit_test(test_is_zero),
        cmocka_unit_test(test_take_and_scope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
