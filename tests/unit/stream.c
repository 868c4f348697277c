/* SPDX-License-Identifier: MIT */
/* The contract of streams, held against every kind there is; and what is special about pipes and
 * slices. */
#include "unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"
#include "stream/stream.h"
#include "support/fault.h"
#include "support/log.h"
#include "support/process.h"

enum { LIMIT = 16 << 20, SLICE_START = 1000 };

/* One kind of stream: how to make an empty writable one, with what must live below it. */
struct kind {
    bool fixed; /* its size does not change: a slice */
    struct stream *(*make)(struct kind *k);
    struct stream *below;
    struct write_log *log;
    struct fault_plan plan;
};

static struct stream *make_memory(struct kind *k)
{
    (void)k;
    struct stream *s = NULL;
    assert_works(stream_memory_open("memory", LIMIT, &s, &err));
    return s;
}

static struct stream *make_file(struct kind *k)
{
    (void)k;
    auto_free char *path = scratch_path("contract");
    struct stream *s = NULL;
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_works(stream_file_open(path, STREAM_FILE_WRITE, &s, &err));
    return s;
}

static struct stream *make_slice(struct kind *k)
{
    struct stream *s = NULL;
    k->below = make_memory(k);
    assert_works(stream_slice_open(k->below, SLICE_START, LIMIT - SLICE_START, &s, &err));
    return s;
}

static struct stream *make_log(struct kind *k)
{
    struct stream *s = NULL;
    k->log = write_log_new();
    assert_works(stream_log_open(k->log, make_memory(k), &s, &err));
    return s;
}

static struct stream *make_fault(struct kind *k)
{
    struct stream *s = NULL;
    assert_works(stream_fault_open(make_file(k), &k->plan, &s, &err));
    return s;
}

static void done_with(struct kind *k, struct stream *s)
{
    stream_close(s);
    stream_close(k->below);
    if (k->log)
        write_log_free(k->log);
    k->below = NULL;
    k->log = NULL;
}

static void assert_bytes(struct stream *s, hoff off, size_t len, int byte)
{
    auto_free uint8_t *got = malloc(len);
    assert_non_null(got);
    memset(got, ~byte, len);
    assert_works(stream_pread(s, got, len, off, &err));
    for (size_t i = 0; i < len; i++)
        if (got[i] != byte)
            fail_msg("%s: %d at %zu, not %d", s->name, got[i], (size_t)off + i, byte);
}

static void put_bytes(struct stream *s, hoff off, size_t len, int byte)
{
    auto_free uint8_t *bytes = malloc(len);
    assert_non_null(bytes);
    memset(bytes, byte, len);
    assert_works(stream_pwrite(s, bytes, len, off, &err));
}

static uint64_t size_of(struct stream *s)
{
    uint64_t size = 0;
    assert_works(stream_size(s, &size, &err));
    return size;
}

static void check_reads_and_writes(struct stream *s)
{
    put_bytes(s, 0, 5000, 1);
    put_bytes(s, 100000, 3, 2);
    assert_bytes(s, 0, 5000, 1);
    assert_bytes(s, 5000, 95000, 0);
    assert_bytes(s, 100000, 3, 2);
    put_bytes(s, 4999, 2, 3);
    assert_bytes(s, 4998, 1, 1);
    assert_bytes(s, 4999, 2, 3);
    assert_works(stream_pread(s, NULL, 0, 100003, &err));
    assert_works(stream_pwrite(s, NULL, 0, 7, &err));
    assert_works(stream_flush(s, &err));
}

static void check_end(struct stream *s)
{
    char buf[64];
    uint64_t size = size_of(s);
    assert_true(size > 10);
    memset(buf, 9, sizeof buf);
    assert_works(stream_pread_tail(s, buf, 20, size, &err));
    assert_true(is_zero(buf, 20));
    memset(buf, 9, sizeof buf);
    put_bytes(s, size - 10, 10, 4);
    assert_works(stream_pread_tail(s, buf, 20, size - 10, &err));
    assert_memory_equal(buf, "\4\4\4\4\4\4\4\4\4\4\0\0\0\0\0\0\0\0\0\0", 20);
    assert_int_equal(buf[20], 9);
    assert_fails(stream_pread(s, buf, 11, size - 10, &err), PLATTER_ECORRUPT, "ends at");
    assert_fails(stream_pread(s, buf, 1, size + 100, &err), PLATTER_ECORRUPT, s->name);
    assert_fails(stream_pread(s, buf, 2, INT64_MAX, &err), PLATTER_ECORRUPT, s->name);
    assert_fails(stream_pread(s, buf, 2, UINT64_MAX, &err), PLATTER_ECORRUPT, s->name);
    assert_fails(stream_pwrite(s, buf, 2, UINT64_MAX, &err), EFBIG, "out of reach");
    assert_fails(stream_zero(s, 5, UINT64_MAX, 0, &err), EFBIG, "out of reach");
    assert_fails(stream_discard(s, UINT64_MAX, 5, &err), EFBIG, "out of reach");
}

static void check_zero(struct stream *s, unsigned flags)
{
    put_bytes(s, 0, 300000, 5);
    assert_works(stream_zero(s, 0, 0, flags, &err));
    assert_bytes(s, 0, 1, 5);
    assert_works(stream_zero(s, 1, 1, flags, &err));
    assert_works(stream_zero(s, 1000, 200000, flags, &err));
    assert_bytes(s, 0, 1, 5);
    assert_bytes(s, 1, 1, 0);
    assert_bytes(s, 2, 998, 5);
    assert_bytes(s, 1000, 200000, 0);
    assert_bytes(s, 201000, 99000, 5);
    assert_works(stream_zero(s, 299990, 5000, flags, &err));
    assert_bytes(s, 299990, 5000, 0);
    assert_true(size_of(s) >= 304990);
    assert_works(stream_zero(s, 400000, 5000, flags, &err));
    assert_bytes(s, 299990, 105010, 0);
    assert_true(size_of(s) >= 405000);
}

static void check_discard(struct stream *s)
{
    put_bytes(s, 0, 200000, 6);
    uint64_t size = size_of(s);
    uint8_t got[8192];
    assert_works(stream_discard(s, 65536, 65536, &err));
    assert_bytes(s, 0, 65536, 6);
    assert_bytes(s, 131072, 200000 - 131072, 6);
    assert_works(stream_pread(s, got, sizeof got, 65536, &err));
    for (size_t i = 0; i < sizeof got; i++)
        assert_true(got[i] == 0 || got[i] == 6);
    assert_true(size_of(s) == size);
}

static void check_resize(struct stream *s)
{
    put_bytes(s, 0, 100000, 7);
    assert_works(stream_resize(s, 50000, &err));
    assert_true(size_of(s) == 50000);
    assert_works(stream_resize(s, 500000, &err));
    assert_true(size_of(s) == 500000);
    assert_bytes(s, 0, 50000, 7);
    assert_bytes(s, 50000, 450000, 0);
    assert_works(stream_allocate(s, 490000, 20000, &err));
    assert_true(size_of(s) == 510000);
    assert_works(stream_allocate(s, 0, 1000, &err));
    assert_true(size_of(s) == 510000);
    assert_bytes(s, 0, 50000, 7);
    assert_bytes(s, 490000, 20000, 0);
}

/* What is said to be a hole reads as zeros, and the answers cover the range. */
static void check_extents(struct stream *s)
{
    assert_works(stream_zero(s, 0, 2 << 20, STREAM_ZERO_UNMAP, &err));
    put_bytes(s, 1 << 20, 65536, 8);
    uint64_t end = size_of(s) + 100000, len;
    bool hole, data_seen = false;
    for (hoff off = 0; off < end; off += len) {
        len = 0;
        assert_works(stream_extents(s, off, end - off, &len, &hole, &err));
        assert_true(len >= 1 && len <= end - off);
        if (hole)
            assert_false(off < (1 << 20) + 65536 && off + len > 1 << 20);
        data_seen |= !hole && off <= 1 << 20 && off + len > 1 << 20;
    }
    assert_true(data_seen);
    assert_works(stream_extents(s, end + 5, 10, &len, &hole, &err));
    assert_true(hole && len == 10);
}

static void check_kind(struct kind *k)
{
    struct stream *s = k->make(k);
    assert_true(s->writable);
    if (k->fixed)
        put_bytes(k->below, LIMIT - 1, 1, 0);
    check_reads_and_writes(s);
    check_end(s);
    check_zero(s, 0);
    check_zero(s, STREAM_ZERO_UNMAP);
    check_discard(s);
    check_extents(s);
    if (!k->fixed)
        check_resize(s);
    assert_works(stream_publish(s, true, &err));
    assert_works(stream_lock(s, STREAM_LOCK_READ, 0, &err));
    done_with(k, s);
}

static void test_memory(void **state)
{
    (void)state;
    struct kind k = {.make = make_memory};
    check_kind(&k);
}

static void test_file(void **state)
{
    (void)state;
    struct kind k = {.make = make_file};
    check_kind(&k);
}

static void test_slice(void **state)
{
    (void)state;
    struct kind k = {.make = make_slice, .fixed = true};
    check_kind(&k);
}

static void test_log(void **state)
{
    (void)state;
    struct kind k = {.make = make_log};
    check_kind(&k);
}

static void test_fault(void **state)
{
    (void)state;
    struct kind k = {.make = make_fault};
    check_kind(&k);
}

/* ---- threads --------------------------------------------------------------------------------- */

enum { WRITERS = 6, BLOCK = 4096, BLOCKS = 60 };

struct writer_thread {
    struct stream *s;
    unsigned index;
};

/* Writes and zeros blocks of its own, in an order in which others grow the stream meanwhile. */
static void *write_blocks(void *opaque)
{
    const struct writer_thread *w = opaque;
    uint8_t block[BLOCK];
    memset(block, (int)w->index + 1, sizeof block);
    for (unsigned i = 0; i < BLOCKS; i++) {
        hoff off = (hoff)(i * WRITERS + w->index) * BLOCK;
        int r = i % 3 == w->index % 3 ? stream_zero(w->s, off, BLOCK, 0, NULL)
                                      : stream_pwrite(w->s, block, BLOCK, off, NULL);
        if (r < 0)
            return "failed";
    }
    return NULL;
}

static void check_threads(struct kind *k)
{
    struct stream *s = k->make(k);
    pthread_t threads[WRITERS];
    struct writer_thread writers[WRITERS];
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer_thread){.s = s, .index = i};
        assert_int_equal(pthread_create(&threads[i], NULL, write_blocks, &writers[i]), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        void *answer;
        pthread_join(threads[i], &answer);
        assert_null(answer);
    }
    for (unsigned i = 0; i < BLOCKS * WRITERS; i++) {
        unsigned writer = i % WRITERS, round = i / WRITERS;
        assert_bytes(s, (hoff)i * BLOCK, BLOCK, round % 3 == writer % 3 ? 0 : (int)writer + 1);
    }
    done_with(k, s);
}

static void test_threads(void **state)
{
    (void)state;
    struct kind memory = {.make = make_memory}, file = {.make = make_file};
    for (int i = 0; i < 10; i++) {
        check_threads(&memory);
        check_threads(&file);
    }
}

enum { RACES = 300, OLD_SIZE = 1 << 20, FAR = 4 << 20 };

struct race {
    struct stream *s;
    pthread_barrier_t start, end;
};

static void *write_far(void *opaque)
{
    struct race *race = opaque;
    const char *answer = NULL;
    for (int i = 0; i < RACES; i++) {
        pthread_barrier_wait(&race->start);
        if (stream_pwrite(race->s, "x", 1, FAR, NULL) < 0)
            answer = "failed";
        pthread_barrier_wait(&race->end);
    }
    return (void *)answer;
}

/* Zeroing across the end, while somebody writes behind it, does not cut that off. */
static void test_growing_is_not_cutting(void **state)
{
    (void)state;
    struct kind file = {.make = make_file};
    struct race race = {.s = make_file(&file)};
    pthread_t thread;
    void *answer;
    pthread_barrier_init(&race.start, NULL, 2);
    pthread_barrier_init(&race.end, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, write_far, &race), 0);
    for (int i = 0; i < RACES; i++) {
        assert_works(stream_resize(race.s, 0, &err));
        put_bytes(race.s, 0, OLD_SIZE, 1);
        pthread_barrier_wait(&race.start);
        assert_works(stream_zero(race.s, 0, 2 * OLD_SIZE, i % 2 ? STREAM_ZERO_UNMAP : 0, &err));
        pthread_barrier_wait(&race.end);
        assert_true(size_of(race.s) == FAR + 1);
        assert_bytes(race.s, FAR, 1, 'x');
    }
    pthread_join(thread, &answer);
    assert_null(answer);
    pthread_barrier_destroy(&race.start);
    pthread_barrier_destroy(&race.end);
    done_with(&file, race.s);
}

/* ---- what is special ------------------------------------------------------------------------- */

static void test_memory_limit(void **state)
{
    (void)state;
    struct stream *s;
    assert_works(stream_memory_open("little", 1000, &s, &err));
    put_bytes(s, 0, 1000, 1);
    assert_fails(stream_pwrite(s, "xy", 2, 999, &err), ENOSPC, "the limit is 1000");
    assert_fails(stream_resize(s, 1ull << 62, &err), ENOSPC, "little");
    assert_fails(stream_zero(s, 1000, 1, 0, &err), ENOSPC, "little");
    assert_bytes(s, 0, 1000, 1);
    assert_true(size_of(s) == 1000);
    stream_close(s);
    stream_close(NULL);
}

static void test_slice_bounds(void **state)
{
    (void)state;
    struct kind k = {0};
    struct stream *base = make_memory(&k), *s, *deeper;
    put_bytes(base, 0, 1000, 1);
    assert_works(stream_slice_open(base, 100, 200, &s, &err));
    put_bytes(s, 0, 200, 2);
    assert_bytes(base, 0, 100, 1);
    assert_bytes(base, 100, 200, 2);
    assert_bytes(base, 300, 700, 1);
    assert_fails(stream_pwrite(s, "xy", 2, 199, &err), ENOSPC, "do not fit");
    assert_fails(stream_zero(s, 100, 101, 0, &err), ENOSPC, "do not fit");
    assert_fails(stream_discard(s, 201, 1, &err), ENOSPC, "do not fit");
    assert_fails(stream_resize(s, 300, &err), ENOTSUP, "slice");
    char c;
    assert_fails(stream_pread(s, &c, 1, 200, &err), PLATTER_ECORRUPT, "ends at 200");
    assert_works(stream_slice_open(s, 50, 10, &deeper, &err));
    put_bytes(deeper, 0, 10, 3);
    assert_bytes(base, 150, 10, 3);
    assert_fails(stream_slice_open(base, UINT64_MAX, 2, &s, &err), EINVAL, "no slice");
    stream_close(deeper);
    stream_close(s);
    stream_close(base);
}

static void test_pipe(void **state)
{
    (void)state;
    int fds[2];
    struct stream *s;
    char got[64];
    assert_int_equal(pipe(fds), 0);
    assert_works(stream_pipe_open(fds[1], "(stdout)", &s, &err));
    assert_true(s->sequential && s->writable);
    assert_works(stream_pwrite(s, "abc", 3, 0, &err));
    assert_works(stream_zero(s, 3, 2, 0, &err));
    assert_works(stream_resize(s, 7, &err));
    assert_fails(stream_pwrite(s, "x", 1, 3, &err), ESPIPE, "goes on at 7");
    assert_fails(stream_pwrite(s, "x", 1, 8, &err), ESPIPE, "goes on at 7");
    assert_fails(stream_resize(s, 6, &err), ESPIPE, "cannot cut");
    assert_fails(stream_pread(s, got, 1, 0, &err), ENOTSUP, "cannot be read");
    assert_works(stream_flush(s, &err));
    assert_true(size_of(s) == 7);
    stream_close(s);
    assert_int_equal(read(fds[0], got, sizeof got), 7);
    assert_memory_equal(got, "abc\0\0\0\0", 7);
    close(fds[0]);
    assert_int_equal(close(fds[1]), 0);
}

static void *drain(void *fd)
{
    static char buf[8192];
    uintptr_t total = 0;
    for (ssize_t n; (n = read((int)(intptr_t)fd, buf, sizeof buf)) > 0;) {
        total += (uintptr_t)n;
        usleep(200);
    }
    return (void *)total;
}

/* A descriptor that does not block is waited for, not an error. */
static void test_pipe_without_blocking(void **state)
{
    (void)state;
    int fds[2];
    struct stream *s;
    pthread_t thread;
    void *total;
    assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
    assert_int_equal(fcntl(fds[0], F_SETFL, 0), 0);
    assert_int_equal(pthread_create(&thread, NULL, drain, (void *)(intptr_t)fds[0]), 0);
    assert_works(stream_pipe_open(fds[1], "(stdout)", &s, &err));
    put_bytes(s, 0, 600000, 1);
    stream_close(s);
    close(fds[1]);
    pthread_join(thread, &total);
    assert_int_equal((uintptr_t)total, 600000);
    close(fds[0]);
}

/* A file that is written may become dense or sparse; of one that is read the first answer stays. */
static void test_density(void **state)
{
    (void)state;
    struct kind k = {0};
    struct stream *s = make_file(&k), *m = make_memory(&k), *reader, *later;
    assert_true(stream_is_dense(s));
    assert_works(stream_resize(s, 4 << 20, &err));
    assert_false(stream_is_dense(s));
    assert_works(stream_file_open(s->name, 0, &reader, &err));
    assert_false(stream_is_dense(reader));
    assert_works(stream_allocate(s, 0, 4 << 20, &err));
    assert_true(stream_is_dense(s));
    assert_false(stream_is_dense(reader));
    assert_works(stream_file_open(s->name, 0, &later, &err));
    assert_true(stream_is_dense(later));
    assert_works(stream_discard(s, 0, 1 << 20, &err));
    assert_false(stream_is_dense(s));
    assert_true(stream_is_dense(later));
    assert_true(stream_is_dense(m));
    stream_close(later);
    stream_close(reader);
    stream_close(s);
    stream_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_slice),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_fault),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_growing_is_not_cutting),
        cmocka_unit_test(test_density),
        cmocka_unit_test(test_memory_limit),
        cmocka_unit_test(test_slice_bounds),
        cmocka_unit_test(test_pipe),
        cmocka_unit_test(test_pipe_without_blocking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
