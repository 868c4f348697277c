/* SPDX-License-Identifier: MIT */
/* The tools of the crash and fault tests must not flatter: what states a crash may leave, and that
 * planned calls fail. */
#include "unit.h"

#include <stdlib.h>

#include "support/fault.h"
#include "support/log.h"
#include "support/seen.h"

enum { SECTOR = 512, SEEDS = 400 };

static struct write_log *log_;
static struct stream *stream_;

static int set_up(void **state)
{
    (void)state;
    struct stream *base = NULL;
    uint8_t old[8 * SECTOR];
    memset(old, 'o', sizeof old);
    log_ = write_log_new();
    if (stream_memory_open("base", 1 << 20, &base, NULL) < 0 ||
        stream_pwrite(base, old, sizeof old, 0, NULL) < 0)
        return -1;
    return stream_log_open(log_, base, &stream_, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    stream_close(stream_);
    write_log_free(log_);
    return 0;
}

static void put(hoff off, size_t len, int byte)
{
    uint8_t bytes[8 * SECTOR];
    memset(bytes, byte, sizeof bytes);
    assert_works(stream_pwrite(stream_, bytes, len, off, &err));
}

static void assert_range(const struct log_state *s, hoff off, size_t len, int byte)
{
    assert_true(off + len <= s->size);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(s->bytes[off + i], byte);
}

static void test_prefixes(void **state)
{
    (void)state;
    put(100, 200, 'a');
    assert_works(stream_zero(stream_, 150, 10, 0, &err));
    assert_works(stream_resize(stream_, 250, &err));
    assert_works(stream_allocate(stream_, 0, 5000, &err));
    assert_int_equal(write_log_length(log_), 4);
    struct log_state s = {0}; /* of all that follow: nothing of one is left in the next */
    write_log_prefix(log_, 0, 4, &s);
    assert_true(s.size == 5000);
    assert_range(&s, 160, 90, 'a');
    assert_range(&s, 250, 4750, 0);
    write_log_prefix(log_, 0, 0, &s);
    assert_true(s.size == 8 * SECTOR);
    assert_range(&s, 0, 8 * SECTOR, 'o');
    write_log_prefix(log_, 0, 2, &s);
    assert_range(&s, 0, 100, 'o');
    assert_range(&s, 100, 50, 'a');
    assert_range(&s, 150, 10, 0);
    assert_range(&s, 300, 100, 'o');
    write_log_prefix(log_, 0, 3, &s);
    assert_true(s.size == 250);
    write_log_prefix(log_, 0, 4, &s);
    assert_range(&s, 160, 90, 'a');
    assert_range(&s, 250, 4750, 0);
    struct stream *again = log_state_open(&s, "again");
    uint8_t byte;
    assert_works(stream_pread(again, &byte, 1, 170, &err));
    assert_int_equal(byte, 'a');
    stream_close(again);
    log_state_free(&s);
}

/* What is flushed at one point is durable at later ones, and not at earlier ones, in whatever order
 * they are asked for. */
static void test_back_and_forth(void **state)
{
    (void)state;
    put(0, SECTOR, 'a');
    assert_works(stream_flush(stream_, &err));
    put(0, SECTOR, 'b');
    assert_works(stream_flush(stream_, &err));
    struct log_state s = {0};
    bool old = false, new = false;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        write_log_crash(log_, 0, 4, seed, &s);
        assert_range(&s, 0, SECTOR, 'b');
        write_log_crash(log_, 0, 2, seed, &s);
        assert_range(&s, 0, SECTOR, 'a');
        write_log_crash(log_, 0, 1, seed, &s);
        old |= s.bytes[0] == 'o';
        new |= s.bytes[0] == 'a';
    }
    assert_true(old && new);
    log_state_free(&s);
}

/* Every bit counts, and so do the size and the seed; what was met is not new. */
static void test_hashes(void **state)
{
    (void)state;
    uint8_t bytes[1000] = {0};
    struct seen seen = {0};
    uint64_t hash = 0;
    for (size_t size = 0; size <= sizeof bytes; size++)
        assert_true(seen_add(&seen, seen_hash(bytes, size, 0)));
    for (size_t i = 0; i < sizeof bytes; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            bytes[i] = (uint8_t)(1u << bit);
            hash = seen_hash(bytes, sizeof bytes, 0);
            assert_true(seen_add(&seen, hash));
            bytes[i] = 0;
        }
    assert_false(seen_add(&seen, hash));
    assert_false(seen_add(&seen, seen_hash(bytes, sizeof bytes, 0)));
    assert_true(seen_add(&seen, seen_hash(bytes, sizeof bytes, 1)));
    assert_false(seen_add(&seen, seen_hash(bytes, sizeof bytes, 1)));
    seen_free(&seen);
}

static void test_flushed_survives(void **state)
{
    (void)state;
    put(0, 4 * SECTOR, 'f');
    assert_works(stream_flush(stream_, &err));
    put(0, SECTOR, 'n');
    write_log_mark(log_, 77);
    assert_int_equal(write_log_entry(log_, 3).mark, 77);
    bool seen_old = false, seen_new = false;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct log_state s = {0};
        write_log_crash(log_, 0, 4, seed, &s);
        assert_range(&s, SECTOR, 3 * SECTOR, 'f');
        assert_range(&s, 4 * SECTOR, 4 * SECTOR, 'o');
        assert_true(s.bytes[0] == 'f' || s.bytes[0] == 'n');
        assert_range(&s, 0, SECTOR, s.bytes[0]);
        seen_old |= s.bytes[0] == 'f';
        seen_new |= s.bytes[0] == 'n';
        log_state_free(&s);
    }
    assert_true(seen_old && seen_new);
}

/* Without a flush: nothing, all, single sectors, the size alone, later without earlier. */
static void test_unflushed_may_be_anything(void **state)
{
    (void)state;
    put(0, 2 * SECTOR, 'a');
    put(8 * SECTOR, 2 * SECTOR, 'b');
    bool none = false, all = false, torn = false, size_only = false, later_only = false;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct log_state s = {0};
        write_log_crash(log_, 0, 2, seed, &s);
        bool a0 = s.bytes[0] == 'a', a1 = s.bytes[SECTOR] == 'a', grown = s.size == 10 * SECTOR;
        bool b0 = s.size > 8 * SECTOR && s.bytes[8 * SECTOR] == 'b';
        bool b1 = grown && s.bytes[9 * SECTOR] == 'b';
        assert_range(&s, 2 * SECTOR, 6 * SECTOR, 'o');
        none |= !a0 && !a1 && !b0 && !b1 && !grown;
        all |= a0 && a1 && b0 && b1;
        torn |= a0 != a1;
        size_only |= grown && !b0 && !b1;
        later_only |= !a0 && !a1 && b0 && b1;
        log_state_free(&s);
    }
    assert_true(none && all && torn && size_only && later_only);
}

static void test_same_seed_same_state(void **state)
{
    (void)state;
    put(0, 8 * SECTOR, 'a');
    assert_works(stream_discard(stream_, 0, 2 * SECTOR, &err));
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct log_state a = {0};
        write_log_crash(log_, 0, 2, seed, &a);
        struct log_state b = {0};
        write_log_crash(log_, 0, 2, seed, &b);
        assert_true(a.size == b.size);
        assert_memory_equal(a.bytes, b.bytes, a.size);
        log_state_free(&a);
        log_state_free(&b);
    }
}

static void test_failed_calls_are_not_logged(void **state)
{
    (void)state;
    assert_int_equal(stream_resize(stream_, 1ull << 40, NULL), -ENOSPC);
    assert_int_equal(write_log_length(log_), 0);
}

static void test_fault_plan(void **state)
{
    (void)state;
    struct fault_plan plan = {.kinds = FAULT_PWRITE | FAULT_FLUSH, .at = 2, .code = EIO};
    struct stream *base, *s;
    uint8_t old[2 * SECTOR], new[2 * SECTOR], got[2 * SECTOR];
    memset(old, 'o', sizeof old);
    memset(new, 'n', sizeof new);
    assert_works(stream_memory_open("base", 2 * SECTOR, &base, &err));
    assert_works(stream_fault_open(base, &plan, &s, &err));
    assert_works(stream_pwrite(s, old, sizeof old, 0, &err));
    assert_fails(stream_flush(s, &err), EIO, "as the test wants it");
    assert_works(stream_flush(s, &err));
    assert_works(stream_pread(s, got, sizeof got, 0, &err));
    assert_int_equal(plan.calls, 3);
    plan.at = 4;
    plan.torn = plan.lasting = true;
    plan.code = ENOSPC;
    assert_fails(stream_pwrite(s, new, sizeof new, 0, &err), ENOSPC, "pwrite");
    assert_fails(stream_flush(s, &err), ENOSPC, "flush");
    assert_works(stream_pread(s, got, sizeof got, 0, &err));
    assert_memory_equal(got, new, SECTOR);
    assert_memory_equal(got + SECTOR, old, SECTOR);
    assert_int_equal(plan.failed, 3);
    stream_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_prefixes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_flushed_survives, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unflushed_may_be_anything, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_same_seed_same_state, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_back_and_forth, set_up, tear_down),
        cmocka_unit_test(test_hashes),
        cmocka_unit_test_setup_teardown(test_failed_calls_are_not_logged, set_up, tear_down),
        cmocka_unit_test(test_fault_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
