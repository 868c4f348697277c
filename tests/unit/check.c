/* SPDX-License-Identifier: MIT */
/* platter_check(): its arguments, its memory, its locks; what it finds is for tests/golden. */
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cursor.h"

enum { SECTOR = 512, GRAIN = 128, TABLE = 512 };

static char path[] = "/tmp/platter-check-XXXXXX";
static int fd;

static struct platter_check_result result;
static struct platter_open_options opening;
static struct platter_check_options checking;

/* A VMDK of 20 GiB, and options that ask for nothing. */
static int set_up(void **state)
{
    (void)state;
    struct platter_create_options create = {
        .size = sizeof create, .format = "vmdk", .has_disk_size = true, .disk_size = 20ull << 30};
    result = (struct platter_check_result){.size = sizeof result};
    opening = (struct platter_open_options){.size = sizeof opening};
    checking = (struct platter_check_options){.size = sizeof checking, .open = &opening};
    if (platter_create(path, &create, NULL) != 0)
        return -1;
    fd = open(path, O_RDWR | O_CLOEXEC);
    return fd < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    return close(fd) | unlink(path);
}

static uint64_t number_at(uint64_t off, unsigned bytes)
{
    uint8_t field[8];
    assert_int_equal(pread(fd, field, bytes, (off_t)off), bytes);
    return get_le(field, bytes);
}

/* Both copies of the entry of a grain. */
static void set_entry(uint64_t grain, uint32_t sector)
{
    uint8_t entry[4];
    put_le(entry, 4, sector);
    for (unsigned field = 48; field <= 56; field += 8) {
        uint64_t gd = number_at(field, 8) * SECTOR;
        uint64_t gt = number_at(gd + grain / TABLE * 4, 4) * SECTOR;
        assert_int_equal(pwrite(fd, entry, 4, (off_t)(gt + grain % TABLE * 4)), 4);
    }
}

static void test_arguments(void **state)
{
    (void)state;
    checking.flags = 1u << 30;
    assert_fails(platter_check(path, &checking, &result, &err), EINVAL, "unknown flags");
    checking.flags = 0;
    opening.flags = PLATTER_OPEN_WRITE;
    assert_fails(platter_check(path, &checking, &result, &err), EINVAL, "unknown flags");
    opening.flags = 0;
    opening.view = "one";
    assert_fails(platter_check(path, &checking, &result, &err), EINVAL, "view");
    opening.view = NULL;
    assert_fails(platter_check(path, &checking, NULL, &err), EINVAL, "result");
    assert_fails(platter_check(NULL, &checking, &result, &err), EINVAL, "name");
    opening.flags = PLATTER_OPEN_FORCE_SHARE;
    checking.flags = PLATTER_CHECK_REPAIR_ALL;
    assert_fails(platter_check(path, &checking, &result, &err), EINVAL, "repaired");
}

/* A program that knows less of the result gets no more. */
static void test_older_result(void **state)
{
    (void)state;
    result.size = offsetof(struct platter_check_result, total_clusters);
    result.total_clusters = 77;
    assert_works(platter_check(path, NULL, &result, &err));
    assert_string_equal(result.format, "vmdk");
    assert_int_equal(result.total_clusters, 77);
    assert_int_equal(result.size, offsetof(struct platter_check_result, total_clusters));
}

static void test_nothing_to_check(void **state)
{
    (void)state;
    opening.format = "raw";
    assert_fails(platter_check(path, &checking, &result, &err), ENOTSUP, "does not support checks");
    assert_string_equal(result.format, "raw");
    opening.format = "floppy";
    assert_fails(platter_check(path, &checking, &result, &err), ENOTSUP, "floppy");
    assert_null(result.format);
}

static int give_up(void *opaque, const struct platter_progress *progress)
{
    (void)opaque, (void)progress;
    return 1;
}

static void test_cancel(void **state)
{
    (void)state;
    checking.progress = give_up;
    assert_fails(platter_check(path, &checking, &result, &err), ECANCELED, "cancelled");
}

/* What is in use is looked at only with force, and not repaired at all. */
static void test_locks(void **state)
{
    (void)state;
    struct platter_open_options write = {.size = sizeof write, .flags = PLATTER_OPEN_WRITE};
    struct platter_disk *disk;
    assert_works(platter_open(path, &write, &disk, &err));
    assert_fails(platter_check(path, &checking, &result, &err), EBUSY, "");
    opening.flags = PLATTER_OPEN_FORCE_SHARE;
    assert_works(platter_check(path, &checking, &result, &err));
    opening.flags = 0;
    checking.flags = PLATTER_CHECK_REPAIR_LEAKS;
    assert_fails(platter_check(path, &checking, &result, &err), EBUSY, "");
    assert_works(platter_close(disk, &err));
    assert_works(platter_check(path, &checking, &result, &err));
}

/* With little memory a file is looked at a part at a time: nothing is found twice or not at all. */
static void test_windows(void **state)
{
    (void)state;
    const uint32_t far = (6u << 20) - GRAIN; /* sectors: the last grain of 3 GiB */
    static const char text[SECTOR] = "a grain";
    set_entry(0, far);
    set_entry(1, 1 << 20);
    set_entry(2, far - 64); /* half of it is grain 0's */
    set_entry(300000, far);
    set_entry(300001, 1 << 20);
    set_entry(4, 3 << 20);
    assert_int_equal(pwrite(fd, text, SECTOR, ((off_t)far + GRAIN - 1) * SECTOR), SECTOR);
    assert_int_equal(pwrite(fd, text, SECTOR, ((off_t)(5 << 20)) * SECTOR), SECTOR);
    for (uint64_t limit = 0; limit <= 5 << 19; limit += 5 << 19) {
        opening.memory_limit = limit;
        assert_works(platter_check(path, &checking, &result, &err));
        assert_int_equal(result.corruptions, 3);
        assert_int_equal(result.allocated_clusters, 6);
        assert_int_equal(result.leaks, 1);
        assert_int_equal(result.image_end_offset, (uint64_t)(far + GRAIN) * SECTOR);
    }
    checking.flags = PLATTER_CHECK_REPAIR_ALL;
    assert_works(platter_check(path, &checking, &result, &err));
    assert_int_equal(result.corruptions_fixed, 3);
    assert_int_equal(result.corruptions, 0);
    struct platter_disk *disk;
    char bytes[SECTOR];
    assert_works(platter_open(path, NULL, &disk, &err));
    assert_works(
        platter_pread(disk, bytes, SECTOR, (UINT64_C(300000) * GRAIN + GRAIN - 1) * SECTOR, &err));
    assert_memory_equal(bytes, text, SECTOR);
    assert_works(platter_close(disk, &err));
}

static void count_findings(void *opaque, const struct platter_finding *finding)
{
    assert_true(finding->size >= sizeof *finding && finding->text[0] && !finding->mended);
    ++*(unsigned *)opaque;
}

/* A table of nonsense is counted, but not told of without end. */
static void test_many_findings(void **state)
{
    (void)state;
    unsigned told = 0;
    checking.finding = count_findings;
    checking.opaque = &told;
    for (uint32_t grain = 0; grain < 1500; grain++)
        set_entry(grain, 0x7fffff00);
    assert_works(platter_check(path, &checking, &result, &err));
    assert_int_equal(result.corruptions, 1500);
    assert_int_equal(told, 1001);
}

int main(void)
{
    fd = mkstemp(path);
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_arguments, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_older_result, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nothing_to_check, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cancel, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_locks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_windows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_findings, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
