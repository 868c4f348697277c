/* SPDX-License-Identifier: MIT */
/* Corners of qcow2's write path that the engine comes to seldom: images are built here, broken or
 * marked, and looked at byte by byte. */
#include "unit.h"

#include <platter/platter.h>

#include "base/cursor.h"
#include "disk/disk.h"
#include "support/buffer.h"
#include "support/must.h"
#include "support/process.h"

enum { CLUSTER = 65536, SIZE = 4 << 20, AUTOCLEAR_AT = 88, UNKNOWN_BIT = 0x80 };

static const uint64_t copied = UINT64_C(1) << 63;

static struct buffer new_image(void)
{
    auto_free char *path = scratch_path("image.qcow2");
    struct platter_create_options o = {
        .size = sizeof o, .format = "qcow2", .has_disk_size = true, .disk_size = SIZE};
    assert_works(platter_create(path, &o, &err));
    return buffer_load(path, 16 << 20);
}

static int try_open(struct buffer *b, bool writable, struct platter_disk **ret,
                    struct platter_error *err)
{
    const struct format *format = &format_qcow2;
    struct stream *s;
    MUST(stream_buffer_open(b, "image", writable, &s, NULL) == 0);
    return disk_assemble(&s, &format, 1, writable, true, 0, NULL, ret, err);
}

static struct platter_disk *open_image(struct buffer *b)
{
    struct platter_disk *disk;
    assert_works(try_open(b, true, &disk, &err));
    return disk;
}

static void write_filled(struct platter_disk *disk, uint8_t byte, size_t len, goff off)
{
    auto_free uint8_t *bytes = malloc(len);
    MUST(bytes);
    memset(bytes, byte, len);
    assert_works(disk_write(disk, bytes, len, off, &err));
}

static void assert_filled(struct platter_disk *disk, uint8_t byte, size_t len, goff off)
{
    auto_free uint8_t *bytes = malloc(len);
    MUST(bytes);
    assert_works(disk_read(disk, bytes, len, off, &err));
    for (size_t i = 0; i < len; i++)
        assert_int_equal(bytes[i], byte);
}

/* An image whose first cluster is allocated. */
static struct buffer new_written_image(uint8_t byte)
{
    struct buffer b = new_image();
    struct platter_disk *disk = open_image(&b);
    write_filled(disk, byte, CLUSTER, 0);
    assert_works(disk_close(disk, &err));
    return b;
}

/* A feature that we do not keep true, bitmaps among them, is given up before the first byte
 * changes, be it in place. */
static void test_autoclear_before_data_in_place(void **state)
{
    (void)state;
    struct buffer b = new_written_image(1);
    put_be(b.bytes + AUTOCLEAR_AT, 8, UNKNOWN_BIT);
    struct platter_disk *disk = open_image(&b);
    write_filled(disk, 2, 512, 1024);
    assert_int_equal(get_be(b.bytes + AUTOCLEAR_AT, 8), 0);
    assert_works(disk_close(disk, &err));
    disk = open_image(&b);
    assert_filled(disk, 1, 1024, 0);
    assert_filled(disk, 2, 512, 1024);
    assert_filled(disk, 1, CLUSTER - 1536, 1536);
    assert_works(disk_close(disk, &err));
    buffer_free(&b);
}

/* But not where nothing changes. */
static void test_autoclear_stays_without_a_change(void **state)
{
    (void)state;
    struct buffer b = new_written_image(1);
    put_be(b.bytes + AUTOCLEAR_AT, 8, UNKNOWN_BIT);
    struct platter_disk *disk = open_image(&b);
    assert_filled(disk, 1, CLUSTER, 0);
    assert_works(disk_flush(disk, &err));
    assert_works(disk_close(disk, &err));
    assert_int_equal(get_be(b.bytes + AUTOCLEAR_AT, 8), UNKNOWN_BIT);
    buffer_free(&b);
}

/* An L2 table that is shared with a snapshot, with an entry that calls its cluster our own: a write
 * must leave the cluster alone. */
static void test_shared_table_owns_nothing(void **state)
{
    (void)state;
    struct buffer b = new_written_image(1);
    uint8_t *l1 = b.bytes + get_be(b.bytes + 40, 8);
    hoff table = get_be(l1, 8) & ~copied, data = get_be(b.bytes + table, 8) & ~copied;
    hoff block = get_be(b.bytes + get_be(b.bytes + 48, 8), 8);
    put_be(l1, 8, table);
    put_be(b.bytes + block + table / CLUSTER * 2, 2, 2);
    put_be(b.bytes + block + data / CLUSTER * 2, 2, 2);
    struct platter_disk *disk = open_image(&b);
    write_filled(disk, 2, 512, 0);
    assert_works(disk_close(disk, &err));
    assert_int_equal(b.bytes[data], 1);
    assert_int_equal(get_be(b.bytes + table, 8), data | copied);
    assert_int_equal(b.bytes[get_be(b.bytes + (get_be(l1, 8) & ~copied), 8) & ~copied], 2);
    buffer_free(&b);
}

/* One packed cluster of `byte` at `off`, or none of it with `give_up`. */
static void write_packed(struct platter_disk *disk, uint8_t byte, goff off, bool give_up)
{
    auto_free uint8_t *unit = malloc(CLUSTER), *packed = malloc(CLUSTER);
    struct disk_write w;
    size_t len;
    MUST(unit && packed);
    for (size_t i = 0; i < CLUSTER; i++) /* to some hundred bytes, not to a few */
        unit[i] = i % 128 == 0 ? (uint8_t)(i * 2654435761u >> 16) : byte;
    assert_works(format_qcow2.pack(disk_top(disk), unit, packed, CLUSTER, &len, &err));
    assert_works(disk_write_packed_begin(disk, off, len, &w, &err));
    assert_works(disk_write_packed_end(&w, give_up ? NULL : packed, len, &err));
}

/* The place behind a packed cluster that was given up, or is gone, may be anybody's. */
static void test_packed_never_hits_data(void **state)
{
    (void)state;
    struct buffer b = new_image();
    struct platter_disk *disk = open_image(&b);
    write_packed(disk, 1, 0, true);
    write_filled(disk, 2, CLUSTER, CLUSTER);
    write_packed(disk, 3, 2 * CLUSTER, false);
    assert_filled(disk, 2, CLUSTER, CLUSTER);

    assert_works(disk_discard(disk, 2 * CLUSTER, CLUSTER, &err));
    assert_works(disk_flush(disk, &err));
    write_filled(disk, 4, CLUSTER, 3 * CLUSTER);
    write_packed(disk, 5, 4 * CLUSTER, false);
    assert_filled(disk, 4, CLUSTER, 3 * CLUSTER);
    assert_works(disk_close(disk, &err));
    buffer_free(&b);
}

/* Packed records take whole sectors in the end, as other programs leave them. */
static void test_packed_file_ends_with_a_sector(void **state)
{
    (void)state;
    struct buffer b = new_image();
    struct platter_disk *disk = open_image(&b);
    write_packed(disk, 1, 0, false);
    assert_int_not_equal(b.size % 512, 0);
    assert_works(disk_close(disk, &err));
    assert_int_equal(b.size % 512, 0);
    buffer_free(&b);
}

/* Whoever comes after a write of tables that failed changes nothing any more, not even by the flush
 * that a change begins with. */
static void test_nothing_changes_after_poison(void **state)
{
    (void)state;
    struct buffer b = new_image();
    struct platter_disk *disk = open_image(&b);
    struct image *top = disk_top(disk);
    struct reservation room;
    assert_works(top->format->reserve(top, 0, CLUSTER, &room, &err));
    image_poison(top, -EIO);
    assert_fails(top->format->commit(top, &room, &err), EIO, "takes no more changes");
    assert_fails(top->format->mark(top, 0, CLUSTER, MARK_ZERO, true, &err), EIO,
                 "takes no more changes");
    assert_fails(disk_close(disk, &err), EIO, "takes no more writes");
    buffer_free(&b);
}

/* A file that was cut short would grow over what is missing, which would read as zeros from then
 * on: it is read as far as it goes, but not written to. */
static void test_cut_file_is_not_written(void **state)
{
    static const uint64_t cuts[] = {1, 512, CLUSTER, 2 * CLUSTER + 100};
    (void)state;
    struct buffer b = new_image();
    struct platter_disk *disk = open_image(&b);
    for (unsigned i = 0; i < 4; i++)
        write_filled(disk, (uint8_t)i, CLUSTER, i * CLUSTER);
    assert_works(disk_close(disk, &err));
    uint64_t size = b.size;
    for (unsigned i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        b.size = size - cuts[i];
        assert_fails(try_open(&b, true, &disk, &err), PLATTER_ECORRUPT, "opened for writing");
        assert_works(try_open(&b, false, &disk, &err));
        assert_filled(disk, 0, CLUSTER, 0);
        assert_works(disk_close(disk, &err));
    }
    b.size = size;
    assert_works(disk_close(open_image(&b), &err));
    buffer_free(&b);
}

/* The same of packed clusters, which stand alone or with others in the last cluster of the file. */
static void test_cut_packed_file_is_not_written(void **state)
{
    (void)state;
    struct buffer b = new_image();
    struct platter_disk *disk = open_image(&b);
    write_packed(disk, 1, 0, false);
    write_packed(disk, 2, CLUSTER, false);
    assert_works(disk_close(disk, &err));
    assert_works(disk_close(open_image(&b), &err));
    b.size -= b.size % CLUSTER;
    assert_fails(try_open(&b, true, &disk, &err), PLATTER_ECORRUPT, "opened for writing");
    buffer_free(&b);
}

/* Clusters that a crash left counted, but nowhere in the tables nor in the file, harm nobody. */
static void test_counts_behind_the_end_are_leaks(void **state)
{
    (void)state;
    struct buffer b = new_written_image(1);
    hoff block = get_be(b.bytes + get_be(b.bytes + 48, 8), 8);
    put_be(b.bytes + block + (b.size / CLUSTER + 3) * 2, 2, 1);
    struct platter_disk *disk = open_image(&b);
    write_filled(disk, 2, 8 * CLUSTER, CLUSTER);
    assert_works(disk_close(disk, &err));
    disk = open_image(&b);
    assert_filled(disk, 1, CLUSTER, 0);
    assert_filled(disk, 2, 8 * CLUSTER, CLUSTER);
    assert_works(disk_close(disk, &err));
    buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_autoclear_before_data_in_place),
        cmocka_unit_test(test_autoclear_stays_without_a_change),
        cmocka_unit_test(test_shared_table_owns_nothing),
        cmocka_unit_test(test_packed_never_hits_data),
        cmocka_unit_test(test_packed_file_ends_with_a_sector),
        cmocka_unit_test(test_nothing_changes_after_poison),
        cmocka_unit_test(test_cut_file_is_not_written),
        cmocka_unit_test(test_cut_packed_file_is_not_written),
        cmocka_unit_test(test_counts_behind_the_end_are_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
