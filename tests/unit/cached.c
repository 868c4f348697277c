/* SPDX-License-Identifier: MIT */
/* The block cache over a stream that is far away: what it asks for, how often, and what comes. */
#include "unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/ckd.h"
#include "stream/cached_inside.h"
#include "stream/inside.h"
#include "support/prng.h"

enum { MIB = 1 << 20, FETCHERS = 6 };

/* ---- a stream that is far away -----------------------------------------------------------------
 */

struct far {
    struct stream head;
    uint64_t size;
    unsigned delay_ms;
    _Atomic hoff bad; /* reads of this byte fail; 0: none */
    atomic_uint requests, now, most, fine_after;
    atomic_bool gate, stop; /* gate: reads wait until it is open, or for stop */
    pthread_mutex_t lock;
    uint8_t asked[2048]; /* how often each block was */
    bool closed;
};

static uint8_t byte_at(hoff off)
{
    return (uint8_t)((off * 0x9e3779b97f4a7c15u) >> 40);
}

static void pause_ms(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_nsec = (long)ms * 1000000}, NULL);
}

static int far_pread(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err)
{
    struct far *f = (struct far *)s;
    assert_true(range_inside(off, len, f->size));
    atomic_fetch_add(&f->requests, 1);
    unsigned now = atomic_fetch_add(&f->now, 1) + 1;
    pthread_mutex_lock(&f->lock);
    if (now > atomic_load(&f->most))
        atomic_store(&f->most, now);
    for (uint64_t b = off / CACHED_BLOCK; b * CACHED_BLOCK < off + len; b++)
        if (b < sizeof f->asked)
            f->asked[b]++;
    pthread_mutex_unlock(&f->lock);
    if (f->delay_ms)
        pause_ms(f->delay_ms);
    while (atomic_load(&f->gate) && !atomic_load(&f->stop))
        pause_ms(1);
    atomic_fetch_sub(&f->now, 1);
    if (atomic_load(&f->stop))
        return fail(err, ECANCELED, "interrupted");
    if (f->bad && off <= f->bad && f->bad < off + len)
        return fail(err, EIO, "the bad byte");
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)buf)[i] = byte_at(off + i);
    return 0;
}

static int far_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    (void)err;
    *ret_size = ((struct far *)s)->size;
    return 0;
}

static void far_interrupt(struct stream *s)
{
    atomic_store(&((struct far *)s)->stop, true);
}

static const struct stream_ops far_ops = {
    .name = "far", .pread = far_pread, .size = far_size, .interrupt = far_interrupt};

static struct stream *open_far(uint64_t size, unsigned fetchers, struct far **ret)
{
    struct platter_error err = {0};
    struct stream *s = NULL;
    struct far *f = stream_new(sizeof *f, &far_ops, "far", &err);
    assert_non_null(f);
    f->size = size;
    pthread_mutex_init(&f->lock, NULL);
    assert_int_equal(stream_cached_open(&f->head, fetchers, &s, &err), 0);
    *ret = f;
    return s;
}

static void check_read(struct stream *s, hoff off, size_t len)
{
    uint8_t *buf = malloc(len);
    assert_non_null(buf);
    assert_works(stream_pread(s, buf, len, off, &err));
    for (size_t i = 0; i < len; i++)
        if (buf[i] != byte_at(off + i))
            fail_msg("the byte at %llu is wrong", (unsigned long long)(off + i));
    free(buf);
}

/* ---- tests -------------------------------------------------------------------------------------
 */

/* A few places of a file: a request each, of whole blocks, once. */
static void test_places(void **state)
{
    (void)state;
    struct far *f;
    struct stream *s = open_far(100 * MIB + 17, FETCHERS, &f);
    for (int again = 0; again < 3; again++) {
        check_read(s, 0, 112);
        check_read(s, 200, 4096);
        check_read(s, 3 * CACHED_BLOCK - 8, 16);
        check_read(s, 50 * MIB, 8);
        check_read(s, 100 * MIB, 17);
    }
    assert_int_equal(f->requests, 4);
    assert_fails(stream_pread(s, (char[2]){0}, 2, 100 * MIB + 16, &err), PLATTER_ECORRUPT, "17");
    stream_close(s);
}

/* Neighbours come together, whatever is already there does not come again. */
static void test_neighbours(void **state)
{
    (void)state;
    struct far *f;
    struct stream *s = open_far(100 * MIB, 0, &f);
    check_read(s, 4 * CACHED_BLOCK, 1);
    check_read(s, 0, 10 * CACHED_BLOCK);
    assert_int_equal(f->requests, 3);
    for (int i = 0; i < 10; i++)
        assert_int_equal(f->asked[i], 1);
    check_read(s, 64 * MIB + 5, 4 * MIB);
    assert_int_equal(f->requests, 3 + 5);
    stream_close(s);
}

/* What is read in a row is there before it is wanted, several requests at once. */
static void test_row(void **state)
{
    (void)state;
    struct far *f;
    struct stream *s = open_far(48 * MIB, FETCHERS, &f);
    f->delay_ms = 2;
    for (hoff off = 0; off < 48 * MIB; off += 40000)
        check_read(s, off, (size_t)min_u64(40000, 48 * MIB - off));
    assert_true(f->most >= 3 && f->most <= FETCHERS + 1);
    assert_true(f->requests < 120); /* of 768 blocks */
    for (int i = 0; i < 768; i++)
        assert_int_equal(f->asked[i], 1);
    stream_close(s);
}

/* A little at a time, but of many blocks in a row: that is a row of blocks. */
static void test_strides(void **state)
{
    (void)state;
    struct far *f;
    struct stream *s = open_far(40 * MIB, FETCHERS, &f);
    for (hoff off = 100; off < 40 * MIB; off += 2 * CACHED_BLOCK)
        check_read(s, off, 3);
    assert_true(f->requests < 100); /* of 320 blocks */
    stream_close(s);
    s = open_far(100 * MIB, FETCHERS, &f);
    for (hoff off = 0; off < 100 * MIB; off += 5 * CACHED_BLOCK)
        check_read(s, off, 3);
    assert_int_equal(f->requests, 320); /* too far from each other */
    stream_close(s);
}

/* All caches share what memory there is for them, whenever they are opened. */
static void test_shared_memory(void **state)
{
    (void)state;
    enum { CACHES = 16, TOTAL = 700, SHARE = CACHED_ALL / CACHES };
    static struct blocks caches[CACHES];
    uint64_t number = 0;
    for (int n = 1; n <= CACHES; n++) {
        unsigned held = 0;
        blocks_begin(&caches[n - 1]);
        for (int i = 0; i < n; i++) {
            for (int k = 0; k < TOTAL; k++) {
                struct block *block = blocks_claim(&caches[i], ++number, NULL);
                assert_non_null(block);
                block->bytes[0] = block->bytes[CACHED_BLOCK - 1] = 1;
                blocks_arrived(&caches[i], block, k % 10 != 0);
            }
            assert_ptr_equal(blocks_find(&caches[i], number)->bytes, caches[i].newest->bytes);
            assert_true(caches[i].held <= blocks_most());
        }
        for (int i = 0; i < n; i++)
            held += caches[i].held;
        assert_true(held <= CACHED_ALL);
        assert_true(held >= min_u64(CACHED_BLOCKS, CACHED_ALL / 2));
    }
    assert_int_equal(blocks_most(), SHARE);
    assert_int_equal(caches[0].held, SHARE);
    for (int i = 0; i < CACHES; i++)
        blocks_done(&caches[i]);
    assert_int_equal(blocks_most(), CACHED_BLOCKS);
}

struct reader {
    pthread_t thread;
    struct stream *s;
    unsigned index, n;
    int result;
    bool same_place;
};

/* The pieces of a file that are its own, as workers of a walk have them; or all the same one. */
static void *read_pieces(void *arg)
{
    struct reader *r = arg;
    struct platter_error err;
    uint8_t *buf = malloc(300000);
    for (hoff off = r->same_place ? 0 : r->index * 300000u;
         off + 300000 <= 24 * MIB && r->result == 0; off += r->n * 300000u) {
        r->result = stream_pread(r->s, buf, 300000, off, &err);
        for (size_t i = 0; i < 300000 && r->result == 0; i++)
            if (buf[i] != byte_at(off + i))
                r->result = 1;
        if (r->same_place)
            break;
    }
    free(buf);
    return NULL;
}

static void read_together(struct stream *s, unsigned n, bool same_place, int result)
{
    struct reader readers[8];
    for (unsigned i = 0; i < n; i++) {
        readers[i] = (struct reader){.s = s, .index = i, .n = n, .same_place = same_place};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_pieces, &readers[i]), 0);
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_int_equal(readers[i].result, result);
    }
}

static void test_together(void **state)
{
    (void)state;
    struct far *f;
    struct stream *s = open_far(24 * MIB, FETCHERS, &f);
    f->delay_ms = 1;
    read_together(s, 8, false, 0);
    assert_true(f->requests < 200);
    for (int i = 0; i < 380; i++)
        assert_int_equal(f->asked[i], 1);
    stream_close(s);
}

/* However many want it, it is on its way once; and so is its failure. */
static void test_single_flight(void **state)
{
    (void)state;
    struct far *f;
    struct stream *s = open_far(40 * MIB, 0, &f);
    f->delay_ms = 30;
    read_together(s, 8, true, 0);
    assert_int_equal(f->requests, 1);
    stream_close(s);
    s = open_far(40 * MIB, 0, &f);
    f->delay_ms = 30;
    f->bad = 1000;
    read_together(s, 8, true, -EIO);
    assert_true(f->requests <= 2);
    stream_close(s);
}

/* A failure is told to who wants those bytes, and is not kept. */
static void test_failure(void **state)
{
    (void)state;
    struct far *f;
    struct stream *s = open_far(40 * MIB, FETCHERS, &f);
    uint8_t buf[1000];
    f->bad = 8 * MIB + 5;
    for (hoff off = 0; off < 7 * MIB; off += 50000)
        check_read(s, off, 50000);
    assert_fails(stream_pread(s, buf, 1000, 8 * MIB, &err), EIO, "bad byte");
    f->bad = 0;
    check_read(s, 8 * MIB, 1000);
    check_read(s, 12 * MIB, 100000);
    stream_close(s);
}

/* More than it holds, here and there: still right, and its memory is what it says. */
static void test_turnover(void **state)
{
    (void)state;
    struct far *f;
    struct prng p = {.state = 5};
    const uint64_t size = 90 * MIB + 4321;
    struct stream *s = open_far(size, 2, &f);
    for (int i = 0; i < 600; i++) {
        size_t len = 1 + (size_t)prng_below(&p, i % 50 == 0 ? 3 * MIB : 90000);
        check_read(s, prng_below(&p, size - len), len);
    }
    stream_close(s);
}

static void *read_first(void *arg)
{
    struct reader *r = arg;
    uint8_t byte;
    r->result = stream_pread(r->s, &byte, 1, 20 * MIB, NULL);
    return NULL;
}

/* Who waits comes back when he is told to, and a stream that is read ahead can be closed. */
static void test_interrupt(void **state)
{
    (void)state;
    struct far *f;
    struct stream *s = open_far(40 * MIB, FETCHERS, &f);
    for (hoff off = 0; off < MIB; off += 50000)
        check_read(s, off, 50000);
    f->gate = true;
    struct reader r = {.s = s};
    assert_int_equal(pthread_create(&r.thread, NULL, read_first, &r), 0);
    while (atomic_load(&f->now) == 0)
        pause_ms(1);
    stream_interrupt(s);
    pthread_join(r.thread, NULL);
    assert_int_equal(r.result, -ECANCELED);
    stream_close(s);

    s = open_far(40 * MIB, FETCHERS, &f);
    f->delay_ms = 20;
    for (hoff off = 0; off < 20 * MIB && !f->gate; off += 50000) {
        check_read(s, off, 50000);
        f->gate = atomic_load(&f->now) > 0; /* read ahead, which nobody waits for */
    }
    assert_true(f->gate);
    stream_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),        cmocka_unit_test(test_neighbours),
        cmocka_unit_test(test_row),           cmocka_unit_test(test_together),
        cmocka_unit_test(test_single_flight), cmocka_unit_test(test_failure),
        cmocka_unit_test(test_strides),       cmocka_unit_test(test_shared_memory),
        cmocka_unit_test(test_turnover),      cmocka_unit_test(test_interrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
