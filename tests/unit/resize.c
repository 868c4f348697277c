/* SPDX-License-Identifier: MIT */
/* platter_resize() beside other calls, and what it, platter_commit() and platter_rebase() refuse.
 */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <platter/platter.h>

#include "disk/disk.h"
#include "support/process.h"

enum { MIB = 1 << 20, BLOCK = 4096, WORKERS = 3 };

static struct platter_disk *make_disk(const char *name, const char *format, const char *options)
{
    struct platter_disk *disk = NULL;
    struct platter_create_options create = {.size = sizeof create,
                                            .format = format,
                                            .options = options,
                                            .has_disk_size = true,
                                            .disk_size = MIB};
    struct platter_open_options open = {
        .size = sizeof open, .flags = PLATTER_OPEN_WRITE, .format = format};
    char *path = scratch_path(name);
    assert_works(platter_create(path, &create, &err));
    assert_works(platter_open(path, &open, &disk, &err));
    free(path);
    return disk;
}

/* ---- beside other calls ---------------------------------------------------------------------- */

struct bustle {
    struct platter_disk *disk;
    atomic_bool over;
    atomic_uint failed, calls;
    unsigned number;
};

struct worker {
    struct bustle *bustle;
    unsigned number;
};

static int use_once(struct platter_disk *disk, uint8_t *block, uint64_t off, unsigned round)
{
    struct platter_error err; /* each thread its own */
    struct platter_extent x = {.size = sizeof x};
    uint8_t back[BLOCK];
    char *json = NULL;
    memset(block, (int)(round % 255 + 1), BLOCK);
    if (platter_pwrite(disk, block, BLOCK, off, &err) ||
        platter_pread(disk, back, BLOCK, off, &err) || memcmp(back, block, BLOCK) != 0 ||
        platter_map(disk, 0, MIB, &x, &err) || platter_size(disk) < MIB)
        return -1;
    if (round % 16 == 0 && (platter_flush(disk, &err) || platter_info(disk, 0, &json, &err)))
        return -1;
    platter_free(json);
    return 0;
}

static void *use(void *opaque)
{
    struct worker *w = opaque;
    uint8_t block[BLOCK];
    for (unsigned round = 0; !atomic_load(&w->bustle->over); round++) {
        uint64_t off = (uint64_t)(round % 64 * WORKERS + w->number) * BLOCK;
        if (use_once(w->bustle->disk, block, off, round))
            atomic_fetch_add(&w->bustle->failed, 1);
        atomic_fetch_add(&w->bustle->calls, 1);
    }
    return NULL;
}

/* Resizes while others read, write and look at the first MiB. */
static void bustle_about(struct platter_disk *disk, uint64_t start, bool shrinks)
{
    struct bustle b = {.disk = disk};
    struct worker workers[WORKERS];
    pthread_t threads[WORKERS];
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){&b, i};
        assert_int_equal(pthread_create(&threads[i], NULL, use, &workers[i]), 0);
    }
    for (unsigned i = 1; i <= 40; i++) {
        uint64_t size = start + (uint64_t)(shrinks ? i * 7 % 13 : i) * 300 * 512;
        assert_works(
            platter_resize(disk, size, PLATTER_RESIZE_SHRINK, PLATTER_PREALLOCATION_OFF, &err));
        assert_int_equal(platter_size(disk), size);
    }
    while (atomic_load(&b.calls) < 100)
        sched_yield();
    atomic_store(&b.over, true);
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&b.failed), 0);
    assert_works(platter_close(disk, &err));
}

static void test_raw_beside_others(void **state)
{
    (void)state;
    bustle_about(make_disk("a.raw", "raw", NULL), MIB, true);
}

static void test_sparse_beside_others(void **state)
{
    (void)state;
    bustle_about(make_disk("a.vmdk", "vmdk", NULL), MIB, false);
}

static void test_split_beside_others(void **state)
{
    (void)state;
    struct platter_disk *disk = make_disk("s.vmdk", "vmdk", "subformat=twoGbMaxExtentSparse");
    /* Its second file comes in the middle of it. */
    const uint64_t start = UINT64_C(2047) * MIB - 20 * 300 * 512;
    assert_works(platter_resize(disk, start, 0, PLATTER_PREALLOCATION_METADATA, &err));
    bustle_about(disk, start, false);
}

struct wish {
    struct platter_disk *disk;
    uint64_t size;
    int result;
};

static void *resize_to(void *opaque)
{
    struct wish *w = opaque;
    struct platter_error err;
    w->result = platter_resize(w->disk, w->size, 0, PLATTER_PREALLOCATION_OFF, &err);
    return NULL;
}

/* Who only means to grow must not shrink what somebody else has made larger in the meantime. */
static void test_no_shrink_by_chance(void **state)
{
    (void)state;
    struct platter_disk *disk = make_disk("q.raw", "raw", NULL);
    struct wish wishes[2] = {{disk, 3 * MIB, 1}, {disk, 2 * MIB, 1}};
    pthread_t threads[2];
    struct range_hold hold;
    disk_pin(disk, &hold);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, resize_to, &wishes[i]), 0);
        usleep(100000); /* until it waits: the lock is fair */
    }
    assert_int_equal(disk_top(disk)->size, MIB); /* nobody looks on while it changes */
    disk_unpin(disk, &hold);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(platter_size(disk), 3 * MIB);
    assert_int_equal(wishes[0].result, 0);
    assert_int_equal(wishes[1].result, -EINVAL);
    assert_works(platter_close(disk, &err));
}

/* ---- afterwards ------------------------------------------------------------------------------ */

static char *cid_of(struct platter_disk *disk)
{
    static char cid[64];
    char *json = NULL;
    assert_works(platter_info(disk, 0, &json, &err));
    const char *at = strstr(json, "\"cid\":");
    assert_non_null(at);
    snprintf(cid, sizeof cid, "%.*s", (int)strcspn(at, ",}"), at);
    platter_free(json);
    return cid;
}

/* A resize changes nothing that a child has seen; a write behind it on the same disk may. */
static void test_write_after_resize(void **state)
{
    (void)state;
    struct platter_disk *disk = make_disk("w.vmdk", "vmdk", NULL);
    char *before = strdup(cid_of(disk));
    assert_non_null(before);
    assert_works(platter_resize(disk, 2 * MIB, 0, PLATTER_PREALLOCATION_OFF, &err));
    assert_string_equal(cid_of(disk), before);
    assert_works(platter_pwrite(disk, "x", 1, 0, &err));
    assert_string_not_equal(cid_of(disk), before);
    assert_works(platter_close(disk, &err));
    free(before);
}

/* What was unpacked of the end that was cut off does not come back with the next one. */
static void test_no_old_units(void **state)
{
    (void)state;
    static uint8_t full[MIB];
    struct platter_disk *disk = make_disk("u.raw", "raw", NULL);
    struct platter_convert_options convert = {
        .size = sizeof convert, .format = "qcow2", .flags = PLATTER_CONVERT_COMPRESS};
    struct platter_open_options open = {.size = sizeof open, .flags = PLATTER_OPEN_WRITE};
    char *path = scratch_path("u.qcow2");
    uint8_t byte = 0;
    memset(full, 7, sizeof full);
    assert_works(platter_pwrite(disk, full, sizeof full, 0, &err));
    assert_works(platter_convert(&disk, 1, path, &convert, NULL, &err));
    assert_works(platter_close(disk, &err));
    assert_works(platter_open(path, &open, &disk, &err));
    assert_works(platter_pread(disk, &byte, 1, MIB - 1, &err));
    assert_int_equal(byte, 7);
    for (uint64_t size = MIB / 2; size <= MIB; size += MIB / 2)
        assert_works(
            platter_resize(disk, size, PLATTER_RESIZE_SHRINK, PLATTER_PREALLOCATION_OFF, &err));
    assert_works(platter_pread(disk, &byte, 1, MIB - 1, &err));
    assert_int_equal(byte, 0);
    assert_works(platter_close(disk, &err));
    free(path);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void test_resize_refused(void **state)
{
    (void)state;
    struct platter_disk *disk = make_disk("r.raw", "raw", NULL);
    const enum platter_preallocation off = PLATTER_PREALLOCATION_OFF;
    assert_fails(platter_resize(disk, 2 * MIB, 2, off, &err), EINVAL, "unknown flags");
    assert_fails(platter_resize(disk, 2 * MIB, 0, 7, &err), EINVAL, "preallocation");
    assert_fails(platter_resize(disk, MIB / 2, 0, off, &err), EINVAL, "would be lost");
    assert_fails(platter_resize(disk, 0, PLATTER_RESIZE_SHRINK, off, &err), EINVAL, "1 byte");
    assert_fails(platter_resize(disk, UINT64_MAX, 0, off, &err), EINVAL, "2^63");
    assert_fails(
        platter_resize(disk, MIB / 2, PLATTER_RESIZE_SHRINK, PLATTER_PREALLOCATION_FULL, &err),
        EINVAL, "growing");
    uint8_t byte;
    assert_works(platter_resize(disk, MIB / 2, PLATTER_RESIZE_SHRINK, off, &err));
    assert_fails(platter_pread(disk, &byte, 1, MIB / 2, &err), EINVAL, "524288 bytes");
    assert_works(platter_close(disk, &err));
    char *path = scratch_path("r.raw");
    struct platter_open_options open = {.size = sizeof open, .format = "raw"};
    assert_works(platter_open(path, &open, &disk, &err));
    assert_fails(platter_resize(disk, 2 * MIB, 0, off, &err), EROFS, "reading only");
    platter_close(disk, NULL);
    free(path);
}

/* Nobody knows then what would be seen behind the old end. */
static void test_no_growth_alone(void **state)
{
    (void)state;
    char *base = scratch_path("long.vmdk"), *top = scratch_path("short.vmdk");
    struct platter_create_options create = {
        .size = sizeof create, .format = "vmdk", .has_disk_size = true, .disk_size = 3 * MIB};
    struct platter_open_options open = {.size = sizeof open,
                                        .flags = PLATTER_OPEN_WRITE | PLATTER_OPEN_NO_BACKING};
    struct platter_disk *disk;
    assert_works(platter_create(base, &create, &err));
    create.disk_size = MIB;
    create.backing = "long.vmdk";
    create.backing_format = "vmdk";
    assert_works(platter_create(top, &create, &err));
    assert_works(platter_open(top, &open, &disk, &err));
    assert_fails(platter_resize(disk, 2 * MIB, 0, PLATTER_PREALLOCATION_OFF, &err), EINVAL,
                 "while its backing file is not open");
    assert_int_equal(platter_size(disk), MIB);
    assert_works(platter_close(disk, &err));
    free(base);
    free(top);
}

/* Counts what it is asked about, and refuses all of it. */
static int refuse(void *opaque, const struct platter_name *name)
{
    (void)name;
    ++*(unsigned *)opaque;
    return -1;
}

/* What lies below the new backing file is opened through the caller's gate as well. */
static void test_gate_of_rebase(void **state)
{
    (void)state;
    unsigned asked = 0;
    char *base = scratch_path("base.vmdk"), *mid = scratch_path("mid.vmdk"),
         *top = scratch_path("top.vmdk");
    struct platter_create_options create = {
        .size = sizeof create, .format = "vmdk", .has_disk_size = true, .disk_size = MIB};
    assert_works(platter_create(base, &create, &err));
    assert_works(platter_create(top, &create, &err));
    create.backing = "base.vmdk";
    create.backing_format = "vmdk";
    assert_works(platter_create(mid, &create, &err));
    struct platter_open_options open = {.size = sizeof open, .gate = refuse, .gate_opaque = &asked};
    struct platter_rebase_options rebase = {
        .size = sizeof rebase, .open = &open, .backing = "mid.vmdk"};
    assert_fails(platter_rebase(top, &rebase, &err), PLATTER_EGATE, "refused");
    assert_true(asked > 0);
    free(base);
    free(mid);
    free(top);
}

static void test_chains_refused(void **state)
{
    (void)state;
    struct platter_open_options open = {.size = sizeof open, .flags = PLATTER_OPEN_WRITE};
    struct platter_commit_options commit = {.size = sizeof commit, .flags = 2};
    struct platter_rebase_options rebase = {.size = sizeof rebase, .flags = 2};
    assert_fails(platter_commit("x", &commit, &err), EINVAL, "unknown flags");
    assert_fails(platter_rebase("x", &rebase, &err), EINVAL, "unknown flags");
    commit = (struct platter_commit_options){.size = sizeof commit, .open = &open};
    rebase = (struct platter_rebase_options){.size = sizeof rebase, .open = &open};
    assert_fails(platter_commit("x", &commit, &err), EINVAL, "unknown flags");
    assert_fails(platter_rebase("x", &rebase, &err), EINVAL, "unknown flags");
    open = (struct platter_open_options){.size = sizeof open, .view = "v"};
    assert_fails(platter_commit("x", &commit, &err), EINVAL, "views");
    assert_fails(platter_rebase("x", &rebase, &err), EINVAL, "views");
    assert_fails(platter_commit(NULL, NULL, &err), EINVAL, "name");
    assert_fails(platter_rebase(NULL, NULL, &err), EINVAL, "name");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raw_beside_others),   cmocka_unit_test(test_sparse_beside_others),
        cmocka_unit_test(test_split_beside_others), cmocka_unit_test(test_no_shrink_by_chance),
        cmocka_unit_test(test_resize_refused),      cmocka_unit_test(test_chains_refused),
        cmocka_unit_test(test_gate_of_rebase),      cmocka_unit_test(test_write_after_resize),
        cmocka_unit_test(test_no_old_units),        cmocka_unit_test(test_no_growth_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
