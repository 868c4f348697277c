/* SPDX-License-Identifier: MIT */
/* Compaction with any memory: it does what it can, and leaves the image sound. (qcow2.md sections 3
 * and 9: flags that say what is shared.) */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include <platter/platter.h>

#include "disk/disk.h"
#include "support/buffer.h"
#include "support/imagecheck.h"
#include "support/must.h"
#include "support/process.h"

enum {
    MIB = 1 << 20,
    SIZE = 24 * MIB,
    TABLE = 32 << 10, /* guest bytes that an L2 table of 512 bytes maps */
    ROOM = 64 * MIB,
    LEAST_MEMORY = 32 << 10,
    MOST_MEMORY = 128 << 10,
    STEP = 4096,
    OLD_END = 12 * MIB
};

static struct platter_disk *open_image(struct buffer *b, uint64_t memory, struct platter_error *err)
{
    const struct format *format = &format_qcow2;
    struct platter_disk *disk;
    struct stream *s;
    MUST(stream_buffer_open(b, "image", true, &s, NULL) == 0);
    return disk_assemble(&s, &format, 1, true, true, memory, NULL, &disk, err) < 0 ? NULL : disk;
}

static void write_bytes(struct platter_disk *disk, int byte, goff off, size_t len)
{
    auto_free uint8_t *bytes = malloc(len);
    MUST(bytes);
    memset(bytes, byte, len);
    assert_works(disk_write(disk, bytes, len, off, &err));
}

/* Tables in front, data behind them with room in it, and the tables that the disk got of its own
 * when a snapshot took the old ones, at the end: further than the 16 MiB of such a file that one
 * piece of counts reaches. */
static struct buffer make_image(void)
{
    auto_free char *path = scratch_path("image.qcow2");
    struct platter_create_options o = {.size = sizeof o,
                                       .format = "qcow2",
                                       .has_disk_size = true,
                                       .disk_size = SIZE,
                                       .options = "cluster_size=512"};
    struct snapshot_request snapshot = {.name = "one", .icount = UINT64_MAX};
    assert_works(platter_create(path, &o, &err));
    struct buffer b = buffer_load(path, ROOM);
    struct platter_disk *disk = open_image(&b, 0, NULL);
    assert_non_null(disk);
    for (goff off = 0; off < SIZE; off += TABLE)
        write_bytes(disk, 1, off, 512);
    for (goff off = 0; off < SIZE; off += MIB)
        write_bytes(disk, 2, off, MIB);
    assert_works(disk_discard(disk, 0, OLD_END, &err));
    assert_works(disk_flush(disk, &err));
    assert_works(disk_snapshot_create(disk, &snapshot, NULL, &err));
    free(snapshot.ret_id);
    for (goff off = 0; off < SIZE; off += TABLE)
        write_bytes(disk, 3, off, 512);
    assert_works(disk_close(disk, &err));
    return b;
}

static void assert_sound(const struct buffer *b)
{
    struct image_report report;
    image_check("qcow2", b->bytes, b->size, &report);
    if (report.errors || report.leaks)
        print_error("%s\n", report.first);
    assert_int_equal(report.errors, 0);
    assert_int_equal(report.leaks, 0);
}

/* A flag that is not set though it may be is no danger, but a checker tells of it. */
static void assert_checks(const struct buffer *b)
{
    auto_free char *path = scratch_path("compacted.qcow2");
    buffer_save(b, path);
    assert_int_equal(run_command(0, "qemu-img check -q '%s'", path), 0);
}

static void assert_content(struct buffer *b)
{
    struct platter_disk *disk = open_image(b, 0, NULL);
    uint8_t sector[512];
    assert_non_null(disk);
    for (goff off = 0; off < SIZE; off += TABLE / 2) {
        int byte = off % TABLE == 0 ? 3 : off < OLD_END ? 0 : 2;
        assert_works(disk_read(disk, sector, sizeof sector, off, &err));
        assert_int_equal(sector[0], byte);
        assert_int_equal(sector[511], byte);
    }
    assert_works(disk_close(disk, &err));
}

static void test_any_memory(void **state)
{
    (void)state;
    struct buffer image = make_image();
    unsigned done = 0, in_part = 0;
    uint64_t least = UINT64_MAX;

    assert_sound(&image);
    for (uint64_t memory = MOST_MEMORY; memory >= LEAST_MEMORY; memory -= STEP) {
        struct platter_error why = {0};
        struct buffer b = buffer_copy(&image, ROOM);
        struct platter_disk *disk = open_image(&b, memory, &why);
        struct compact_request request = {0};
        int r = disk ? disk_compact(disk, &request, &why) : -ENOMEM;
        if (disk)
            assert_works(disk_close(disk, &err));
        assert_true(r == 0 || r == -ENOMEM);
        assert_sound(&b);
        if (r == 0) {
            /* What two views share moves once. */
            if (done == 0)
                assert_in_range(request.result.clusters_moved, 1, (image.size - b.size) / 512 + 64);
            assert_content(&b);
            least = b.size < least ? b.size : least;
            if (b.size > least && in_part++ == 0)
                assert_checks(&b);
            done++;
        }
        buffer_free(&b);
    }
    assert_true(done > 1);
    assert_true(in_part > 0); /* or memory was never short */
    buffer_free(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
