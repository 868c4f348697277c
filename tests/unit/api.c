/* SPDX-License-Identifier: MIT */
/* The public surface: structures of older and newer programs, and what no version knows. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <platter/platter.h>

/* A structure of a program that is newer than the library. */
struct newer_options {
    struct platter_open_options known;
    uint64_t wish;
};

static char path[] = "/tmp/platter-api-XXXXXX";

static int make_file(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 || ftruncate(fd, 1 << 20) < 0 || pwrite(fd, "data", 4, 0) != 4 || close(fd) < 0
               ? -1
               : 0;
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static struct platter_disk *open_raw(void)
{
    struct platter_open_options options = {.size = sizeof options, .format = "raw"};
    struct platter_disk *disk;
    assert_works(platter_open(path, &options, &disk, &err));
    return disk;
}

static void test_newer_program(void **state)
{
    (void)state;
    struct newer_options options = {.known = {.size = sizeof options, .format = "raw"}};
    struct platter_disk *disk;
    assert_works(platter_open(path, &options.known, &disk, &err));
    assert_works(platter_close(disk, &err));
    options.wish = 1;
    assert_fails(platter_open(path, &options.known, &disk, &err), EINVAL, "does not know");
}

/* What an older program has no room for is not read, and not written. */
static void test_older_program(void **state)
{
    (void)state;
    struct platter_open_options options = {
        .size = offsetof(struct platter_open_options, view), .format = "raw", .view = "not read"};
    struct platter_disk *disk;
    assert_works(platter_open(path, &options, &disk, &err));

    struct platter_extent extent = {.size = offsetof(struct platter_extent, file), .file = path};
    assert_works(platter_map(disk, 0, 1 << 20, &extent, &err));
    assert_in_range(extent.length, 4, 1 << 20);
    assert_int_equal(extent.size, offsetof(struct platter_extent, file));
    assert_ptr_equal(extent.file, path);
    assert_works(platter_close(disk, &err));
}

static void test_no_size(void **state)
{
    (void)state;
    struct platter_open_options options = {.format = "raw"};
    struct platter_disk *disk;
    assert_fails(platter_open(path, &options, &disk, &err), EINVAL, "size");
    options.size = SIZE_MAX;
    assert_fails(platter_open(path, &options, &disk, &err), EINVAL, "size");

    disk = open_raw();
    struct platter_extent extent = {0};
    assert_fails(platter_map(disk, 0, 512, &extent, &err), EINVAL, "size");
    struct platter_measurement result = {0};
    assert_fails(platter_measure(disk, 0, "qcow2", NULL, &result, &err), EINVAL, "size");
    assert_works(platter_close(disk, &err));
}

static void test_unknown_flags(void **state)
{
    (void)state;
    const unsigned last = 1u << 31;
    struct platter_open_options open = {.size = sizeof open, .flags = last, .format = "raw"};
    struct platter_create_options create = {.size = sizeof create, .flags = last, .format = "raw"};
    struct platter_convert_options convert = {.size = sizeof convert, .flags = last};
    struct platter_compare_options compare = {.size = sizeof compare, .flags = last};
    enum platter_difference difference;
    struct platter_disk *disk;
    assert_fails(platter_open(path, &open, &disk, &err), EINVAL, "0x80000000");
    assert_fails(platter_create(path, &create, &err), EINVAL, "0x80000000");
    disk = open_raw();
    assert_fails(platter_convert(&disk, 1, path, &convert, NULL, &err), EINVAL, "0x80000000");
    convert.flags = PLATTER_CONVERT_TO_FD | PLATTER_CONVERT_EXISTING;
    assert_fails(platter_convert(&disk, 1, NULL, &convert, NULL, &err), EINVAL, "existing");
    assert_fails(platter_compare(disk, disk, &compare, &difference, NULL, NULL, &err), EINVAL,
                 "0x80000000");
    assert_fails(platter_zero(disk, 0, 512, last, &err), EINVAL, "0x80000000");
    assert_works(platter_close(disk, &err));
}

/* The longest run of zeros that can be asked for is longer than any disk. */
static void test_longest_sparse_size(void **state)
{
    (void)state;
    struct platter_convert_options options = {.size = sizeof options,
                                              .format = "qcow2",
                                              .has_sparse_size = true,
                                              .sparse_size = UINT64_MAX - 511};
    char target[sizeof path + 8];
    snprintf(target, sizeof target, "%s.qcow2", path);
    struct platter_disk *disk = open_raw(), *copy;
    assert_works(platter_convert(&disk, 1, target, &options, NULL, &err));
    assert_works(platter_close(disk, &err));
    assert_works(platter_open(target, NULL, &copy, &err));
    assert_int_equal(platter_size(copy), 1 << 20);
    assert_works(platter_close(copy, &err));
    assert_int_equal(unlink(target), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_newer_program),
        cmocka_unit_test(test_older_program),
        cmocka_unit_test(test_no_size),
        cmocka_unit_test(test_unknown_flags),
        cmocka_unit_test(test_longest_sparse_size),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
