/* SPDX-License-Identifier: MIT */
/* A raw disk that is not complete: the order in which it becomes durable, flushes that fail and
 * that meet, and disks of terabytes. */
#include "partial_kit.h"

#include <pthread.h>
#include <unistd.h>

#include "stream/inside.h"
#include "support/fault.h"
#include "support/log.h"

/* ---- becoming durable --------------------------------------------------------------------------
 */

/* Every write to the map has all that was written to the data before it flushed; the data has
 * number 0. */
static void assert_order(struct write_log *log)
{
    size_t covered = 0, last = 0, maps = 0;
    for (size_t i = 0; i < write_log_length(log); i++) {
        struct log_entry e = write_log_entry(log, i);
        if (e.stream == 0 && e.kind == LOG_FLUSH)
            covered = max_u64(covered, e.covers);
        else if (e.stream == 0)
            last = i + 1;
        else if (e.kind == LOG_WRITE) {
            assert_true(last <= covered);
            maps++;
        }
    }
    assert_true(maps > 0);
}

static void kit_open_logged(struct kit *k, struct write_log *log)
{
    struct stream *data = over(&k->data, "data", true), *map = over(&k->map, "map", true);
    assert_works(stream_log_open(log, data, &data, &err));
    assert_works(stream_log_open(log, map, &map, &err));
    assert_works(
        partial_disk_open(data, map, over(&k->below, "below", false), true, 0, &k->disk, &err));
}

static void test_flush_order(void **state)
{
    (void)state;
    struct write_log *log = write_log_new();
    struct kit k = kit_new((3 * SECTOR_BITS + 5) * UINT64_C(512), 512);
    kit_open_logged(&k, log);
    kit_write(&k, 'a', 700, 1);
    assert_int_equal(write_log_loose(log, 1), 0); /* no bit before a flush */
    assert_works(disk_flush(k.disk, &err));
    assert_true(stored_bit(&k.map, 1));
    assert_int_equal(write_log_loose(log, 0) + write_log_loose(log, 1), 0);
    kit_write(&k, 'b', 0, 2000);
    assert_works(disk_zero(k.disk, 4096, SECTOR_BITS * 512, true, &err));
    memset(k.flat + 4096, 0, SECTOR_BITS * 512);
    kit_write(&k, 'c', k.size - 1, 1);
    size_t n = write_log_length(log);
    assert_works(disk_flush(k.disk, &err));
    /* Data, two runs of sectors (the third is as it was), map. */
    assert_int_equal(write_log_length(log), n + 4);
    assert_int_equal(write_log_entry(log, n + 1).off, SECTOR);
    assert_int_equal(write_log_entry(log, n + 1).len, 2 * SECTOR);
    assert_int_equal(write_log_entry(log, n + 2).off, 4 * SECTOR);
    assert_int_equal(write_log_entry(log, n + 2).len, SECTOR);
    n = write_log_length(log);
    kit_write(&k, 'd', 0, 300); /* in place: the map does not change */
    assert_works(disk_flush(k.disk, &err));
    assert_int_equal(write_log_length(log), n + 2);
    assert_order(log);
    kit_compare(&k);
    kit_close(&k);
    assert_works(kit_try(&k, false, &err));
    kit_compare(&k);
    kit_free(&k);
    write_log_free(log);
}

/* After a flush that failed nobody knows what is there: the image takes no more, and the bits that
 * stood for it are not on the disk. */
static void test_failed_flush(void **state)
{
    (void)state;
    for (unsigned which = 0; which < 3; which++) {
        struct kit k = kit_new(4 * UNIT, 0);
        struct fault_plan plan = {.kinds = which == 1 ? FAULT_PWRITE : FAULT_FLUSH, .code = EIO};
        struct stream *data = over(&k.data, "data", true), *map = over(&k.map, "map", true);
        struct stream **faulty = which == 0 ? &data : &map;
        assert_works(stream_fault_open(*faulty, &plan, faulty, &err));
        assert_works(
            partial_disk_open(data, map, over(&k.below, "below", false), true, 0, &k.disk, &err));
        kit_write(&k, 'a', UNIT, UNIT);
        plan.at = 1;
        assert_fails(disk_flush(k.disk, &err), EIO, "");
        assert_int_equal(plan.failed, 1);
        kit_compare(&k); /* reads go on */
        assert_fails(disk_write(k.disk, "x", 1, 0, &err), EIO, "takes no more writes");
        assert_fails(disk_flush(k.disk, &err), EIO, "takes no more writes");
        struct image *top = disk_top(k.disk);
        assert_fails(top->format->flush(top, &err), EIO, "an earlier attempt failed");
        assert_fails(disk_close(TAKE(k.disk), &err), EIO, "takes no more writes");
        if (which < 2)
            assert_false(stored_bit(&k.map, 1));
        kit_free(&k);
    }
}

/* ---- a stream that waits, and is as large as one likes ------------------------------------------
 */

/* Holds nothing. Flushes wait until they are let through. */
struct vast {
    struct stream head;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned let, waiting, flushed; /* flushes */
    uint64_t size;
};

static int vast_pread(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err)
{
    (void)s, (void)off, (void)err;
    memset(buf, 0, len);
    return 0;
}

static int vast_pwrite(struct stream *s, const void *buf, size_t len, hoff off,
                       struct platter_error *err)
{
    (void)s, (void)buf, (void)len, (void)off, (void)err;
    return 0;
}

static int vast_flush(struct stream *s, struct platter_error *err)
{
    struct vast *v = (struct vast *)s;
    (void)err;
    WITH_LOCK(&v->lock);
    v->waiting++;
    pthread_cond_broadcast(&v->changed);
    while (v->let == 0)
        pthread_cond_wait(&v->changed, &v->lock);
    v->let--;
    v->waiting--;
    v->flushed++;
    return 0;
}

static int vast_size(struct stream *s, uint64_t *ret, struct platter_error *err)
{
    (void)err;
    *ret = ((struct vast *)s)->size;
    return 0;
}

static int vast_extents(struct stream *s, hoff off, uint64_t len, uint64_t *ret_len, bool *ret_hole,
                        struct platter_error *err)
{
    (void)s, (void)off, (void)err;
    *ret_len = len;
    *ret_hole = true;
    return 0;
}

static void vast_close(struct stream *s)
{
    struct vast *v = (struct vast *)s;
    pthread_mutex_destroy(&v->lock);
    pthread_cond_destroy(&v->changed);
}

static const struct stream_ops vast_ops = {.name = "vast",
                                           .pread = vast_pread,
                                           .pwrite = vast_pwrite,
                                           .flush = vast_flush,
                                           .size = vast_size,
                                           .extents = vast_extents,
                                           .close = vast_close};

static struct vast *vast_new(uint64_t size)
{
    struct vast *v = stream_new(sizeof *v, &vast_ops, "vast", NULL);
    assert_non_null(v);
    pthread_mutex_init(&v->lock, NULL);
    pthread_cond_init(&v->changed, NULL);
    v->head.writable = true;
    v->size = size;
    v->let = 1000;
    return v;
}

static void vast_let(struct vast *v, unsigned flushes)
{
    WITH_LOCK(&v->lock);
    v->let = flushes;
    pthread_cond_broadcast(&v->changed);
}

/* Until somebody waits in a flush. */
static void vast_await(struct vast *v)
{
    WITH_LOCK(&v->lock);
    while (v->waiting == 0)
        pthread_cond_wait(&v->changed, &v->lock);
}

static int vast_disk(struct vast *v, struct buffer *map, uint64_t memory, struct platter_disk **ret,
                     struct platter_error *err)
{
    return partial_disk_open(&v->head, over(map, "map", true), NULL, true, memory, ret, err);
}

static int write_unit(struct platter_disk *disk, uint64_t off, struct platter_error *err)
{
    static const uint8_t bytes[UNIT] = {1};
    return disk_write(disk, bytes, sizeof bytes, off, err);
}

static void test_large(void **state)
{
    (void)state;
    struct buffer map = partial_map_new(8 * TIB, 0);
    struct platter_disk *disk;
    assert_fails(vast_disk(vast_new(8 * TIB), &map, 16 << 20, &disk, &err), ENOMEM,
                 "the map of presence needs");
    assert_works(vast_disk(vast_new(8 * TIB), &map, 0, &disk, &err));
    assert_int_equal(disk_top(disk)->unit, UNIT);
    assert_works(write_unit(disk, 8 * TIB - UNIT, &err));
    assert_run(disk, 8 * TIB - UNIT, UNIT, EXTENT_DATA, UNIT);
    assert_works(disk_close(disk, &err));
    assert_works(vast_disk(vast_new(8 * TIB), &map, 24 << 20, &disk, &err));
    assert_run(disk, 8 * TIB - 2 * UNIT, 2 * UNIT, EXTENT_BACKING, UNIT);
    assert_run(disk, 8 * TIB - UNIT, UNIT, EXTENT_DATA, UNIT);
    assert_works(disk_close(disk, &err));
    buffer_free(&map);
}

/* More of the map than is written at once. */
static void test_batches(void **state)
{
    (void)state;
    const uint64_t size = UINT64_C(2100) * SECTOR_BITS * 512 - 3;
    struct buffer map = partial_map_new(size, 512);
    struct vast *v = vast_new(size);
    struct platter_disk *disk;
    assert_works(vast_disk(v, &map, 0, &disk, &err));
    assert_works(disk_zero(disk, 0, size, true, &err));
    assert_works(disk_flush(disk, &err));
    assert_int_equal(v->flushed, 2);
    for (uint64_t i = 0; i < UINT64_C(2100) * SECTOR_BITS; i++)
        assert_true(stored_bit(&map, i));
    assert_works(disk_close(disk, &err));
    assert_works(vast_disk(vast_new(size), &map, 0, &disk, &err));
    assert_run(disk, size - 1000, 1000, EXTENT_DATA, 1000);
    assert_works(disk_close(disk, &err));
    buffer_free(&map);
}

struct flusher {
    pthread_t thread;
    struct platter_disk *disk;
    int r;
    atomic_bool over;
};

static void *flush(void *opaque)
{
    struct flusher *f = opaque;
    f->r = disk_flush(f->disk, NULL);
    atomic_store(&f->over, true);
    return NULL;
}

static void flusher_start(struct flusher *f, struct platter_disk *disk)
{
    *f = (struct flusher){.disk = disk};
    assert_int_equal(pthread_create(&f->thread, NULL, flush, f), 0);
}

/* What is written while a flush runs waits for the next one, which all share who came meanwhile. */
static void test_flushes_meet(void **state)
{
    (void)state;
    struct buffer map = partial_map_new(100 * UNIT, 0);
    struct vast *v = vast_new(100 * UNIT);
    struct platter_disk *disk;
    struct flusher first, later[3];
    assert_works(vast_disk(v, &map, 0, &disk, &err));
    assert_works(write_unit(disk, 0, &err));
    vast_let(v, 0);
    flusher_start(&first, disk);
    vast_await(v);
    assert_works(write_unit(disk, 2 * UNIT, &err)); /* in the same sector of the map */
    for (unsigned i = 0; i < 3; i++)
        flusher_start(&later[i], disk);
    usleep(50 * 1000);
    assert_false(atomic_load(&first.over) || atomic_load(&later[0].over));
    assert_false(stored_bit(&map, 0));
    vast_let(v, 1);
    pthread_join(first.thread, NULL);
    assert_int_equal(first.r, 0);
    assert_true(stored_bit(&map, 0) && !stored_bit(&map, 2));
    assert_false(atomic_load(&later[0].over));
    vast_let(v, 1000);
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(later[i].thread, NULL);
        assert_int_equal(later[i].r, 0);
    }
    assert_true(stored_bit(&map, 0) && stored_bit(&map, 2) && !stored_bit(&map, 1));
    assert_in_range(v->flushed, 2, 3);
    assert_works(disk_close(disk, &err));
    buffer_free(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flush_order),  cmocka_unit_test(test_failed_flush),
        cmocka_unit_test(test_large),        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_flushes_meet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
