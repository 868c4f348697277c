/* SPDX-License-Identifier: MIT */
/* Dirty bitmaps of a qcow2: what is on the disk at each moment, and the corners of bits and chunks.
 */
#include "unit.h"

#include <platter/platter.h>

#include "base/cursor.h"
#include "base/memory.h"
#include "format/qcow2/bitmap.h"
#include "ops/ops.h"
#include "support/buffer.h"
#include "support/imagecheck.h"
#include "support/must.h"
#include "support/process.h"

static struct buffer new_image(const char *options, uint64_t size)
{
    auto_free char *path = scratch_path("image.qcow2");
    struct platter_create_options o = {.size = sizeof o,
                                       .format = "qcow2",
                                       .options = options,
                                       .has_disk_size = true,
                                       .disk_size = size};
    assert_works(platter_create(path, &o, &err));
    return buffer_load(path, 16 << 20);
}

static struct platter_disk *open_image(struct buffer *b, bool writable, uint64_t memory)
{
    const struct format *format = &format_qcow2;
    struct platter_disk *disk;
    struct stream *s;
    MUST(stream_buffer_open(b, "image", writable, &s, NULL) == 0);
    assert_works(disk_assemble(&s, &format, 1, writable, true, memory, NULL, &disk, &err));
    return disk;
}

static struct platter_bitmap_change step(enum platter_bitmap_action action, const char *name)
{
    return (struct platter_bitmap_change){
        .size = sizeof(struct platter_bitmap_change), .action = action, .name = name};
}

static void change(struct platter_disk *disk, enum platter_bitmap_action action, const char *name,
                   uint64_t granularity)
{
    struct platter_bitmap_change c = step(action, name);
    c.granularity = granularity;
    assert_works(platter_bitmap_change(disk, &c, 1, &err));
}

static void write_at(struct platter_disk *disk, goff off)
{
    const uint8_t bytes[512] = {1};
    assert_works(disk_write(disk, bytes, sizeof bytes, off, &err));
}

/* The run at `off` is `dirty`, and `len` bytes long. */
static void assert_run(struct platter_disk *disk, const char *name, goff off, bool dirty,
                       uint64_t len)
{
    uint64_t found;
    bool is;
    assert_works(platter_bitmap_map(disk, name, off, platter_size(disk) - off, &found, &is, &err));
    assert_int_equal(is, dirty);
    assert_int_equal(found, len);
}

/* The flags of the first bitmap as they stand in the file. */
static uint32_t flags_in(struct platter_disk *disk, const struct buffer *b)
{
    hoff at = qcow2_of(disk_top(disk))->extensions.bitmap_directory;
    return (uint32_t)get_be(b->bytes + at + QCOW2_BITMAP_FLAGS_AT, 4);
}

static void test_in_use_while_it_records(void **state)
{
    (void)state;
    struct buffer b = new_image(NULL, 1 << 20);
    struct platter_disk *disk = open_image(&b, true, 0);
    write_at(disk, 0);
    change(disk, PLATTER_BITMAP_ADD, "a", 65536);
    assert_int_equal(flags_in(disk, &b), QCOW2_BITMAP_AUTO);
    assert_run(disk, "a", 0, false, 1 << 20); /* what was before does not count */
    write_at(disk, 0);                        /* in place */
    assert_int_equal(flags_in(disk, &b), QCOW2_BITMAP_AUTO | QCOW2_BITMAP_IN_USE);
    change(disk, PLATTER_BITMAP_DISABLE, "a", 0); /* is stored, and valid */
    assert_int_equal(flags_in(disk, &b), 0);
    write_at(disk, 65536);
    assert_int_equal(flags_in(disk, &b), QCOW2_BITMAP_IN_USE);
    assert_run(disk, "a", 0, true, 65536);
    assert_run(disk, "a", 65536, false, (1 << 20) - 65536);
    assert_works(disk_close(disk, &err));
    disk = open_image(&b, true, 0);
    assert_int_equal(flags_in(disk, &b), 0);
    assert_works(disk_flush(disk, &err)); /* nothing changed, nothing is marked */
    assert_works(disk_close(disk, &err));
    disk = open_image(&b, false, 0);
    assert_int_equal(flags_in(disk, &b), 0);
    assert_run(disk, "a", 0, true, 65536);
    assert_works(disk_close(disk, &err));
    buffer_free(&b);
}

static void test_all_or_none(void **state)
{
    (void)state;
    struct buffer b = new_image(NULL, 1 << 20);
    struct platter_disk *disk = open_image(&b, true, 0);
    change(disk, PLATTER_BITMAP_ADD, "a", 65536);
    write_at(disk, 0);
    struct platter_bitmap_change c[] = {step(PLATTER_BITMAP_ADD, "b"),
                                        step(PLATTER_BITMAP_CLEAR, "a"),
                                        step(PLATTER_BITMAP_REMOVE, "c")};
    assert_fails(platter_bitmap_change(disk, c, 3, &err), ENOENT, "no bitmap \"c\"");
    assert_run(disk, "a", 0, true, 65536);
    uint64_t len;
    bool dirty;
    assert_fails(platter_bitmap_map(disk, "b", 0, 1, &len, &dirty, &err), ENOENT, "\"b\"");
    write_at(disk, 65536); /* the one that was cleared in vain goes on recording */
    assert_run(disk, "a", 0, true, 2 * 65536);
    c[2] = step(PLATTER_BITMAP_REMOVE, "a");
    assert_works(platter_bitmap_change(disk, c, 3, &err));
    assert_works(disk_close(disk, &err));
    disk = open_image(&b, false, 0);
    assert_run(disk, "b", 0, false, 1 << 20);
    assert_works(disk_close(disk, &err));
    buffer_free(&b);
}

/* With clusters of 512 bytes a chunk has 4096 bits. */
static void test_many_chunks(void **state)
{
    (void)state;
    enum { CHUNK = 4096 * 512, SIZE = 5 * CHUNK + 3 * 512 };
    struct buffer b = new_image("cluster_size=512", SIZE);
    struct platter_disk *disk = open_image(&b, true, 0);
    change(disk, PLATTER_BITMAP_ADD, "a", 512);
    assert_works(disk_zero(disk, CHUNK - 512, 2 * CHUNK + 1024, false, &err));
    write_at(disk, SIZE - 512);
    assert_run(disk, "a", 0, false, CHUNK - 512);
    assert_run(disk, "a", CHUNK - 512, true, 2 * CHUNK + 1024);
    assert_works(disk_close(disk, &err));
    disk = open_image(&b, false, 0);
    const struct qcow2_bitmap *a;
    assert_run(disk, "a", CHUNK - 512, true, 2 * CHUNK + 1024);
    assert_run(disk, "a", 3 * CHUNK + 512, false, SIZE - 3 * CHUNK - 1024);
    assert_run(disk, "a", SIZE - 512, true, 512);
    a = qcow2_bitmap_find(&qcow2_of(disk_top(disk))->bitmaps, "a");
    assert_int_equal(a->n, 6);
    assert_int_equal(a->table[1], QCOW2_BITMAP_ONES); /* whole ones and zeros take no cluster */
    assert_int_equal(a->table[4], 0);
    assert_works(disk_close(disk, &err));

    disk = open_image(&b, true, 0);
    assert_works(disk_resize(disk, SIZE - 1024, PLATTER_RESIZE_SHRINK, PLATTER_PREALLOCATION_OFF,
                             NULL, &err));
    assert_works(disk_resize(disk, SIZE + CHUNK, 0, PLATTER_PREALLOCATION_OFF, NULL, &err));
    assert_run(disk, "a", 3 * CHUNK + 512, false, SIZE - 2 * CHUNK - 512);
    assert_works(disk_resize(disk, 2 * CHUNK - 512, PLATTER_RESIZE_SHRINK,
                             PLATTER_PREALLOCATION_OFF, NULL, &err));
    assert_works(disk_resize(disk, SIZE, 0, PLATTER_PREALLOCATION_OFF, NULL, &err));
    assert_run(disk, "a", CHUNK - 512, true, CHUNK);
    assert_run(disk, "a", 2 * CHUNK - 512, false, SIZE - 2 * CHUNK + 512);
    change(disk, PLATTER_BITMAP_CLEAR, "a", 0);
    assert_run(disk, "a", 0, false, SIZE);
    assert_works(disk_close(disk, &err));
    buffer_free(&b);
}

/* A bitmap that cannot be told of a write fails no write, but is not taken for a good one. */
static void test_no_memory_to_record(void **state)
{
    (void)state;
    const uint64_t size = UINT64_C(1) << 40;
    struct buffer b = new_image("cluster_size=2M", size);
    struct platter_disk *disk = open_image(&b, true, 0);
    change(disk, PLATTER_BITMAP_ADD, "a", 65536); /* its one chunk takes 2 MiB */
    assert_works(disk_close(disk, &err));
    uint64_t least = 0;
    disk = NULL;
    for (uint64_t limit = 1 << 20; !disk; limit += 256 << 10) { /* what opens and no more */
        const struct format *format = &format_qcow2;
        struct stream *s;
        MUST(stream_buffer_open(&b, "image", true, &s, NULL) == 0);
        if (disk_assemble(&s, &format, 1, true, true, limit, NULL, &disk, NULL) < 0)
            disk = NULL;
        least = limit;
    }
    assert_true(least > 1 << 20);
    uint64_t taken = 64 << 20;
    while (taken && budget_take(disk->budget, taken, "all there is", NULL) < 0)
        taken -= 64 << 10;
    write_at(disk, 0);
    budget_give(disk->budget, taken);
    assert_fails(disk_close(disk, &err), ENODATA, "not every bitmap knows");
    disk = open_image(&b, false, 0);
    assert_int_equal(flags_in(disk, &b), QCOW2_BITMAP_AUTO | QCOW2_BITMAP_IN_USE);
    assert_works(disk_close(disk, &err));
    buffer_free(&b);
}

static int make_snapshot(struct platter_disk *disk, struct platter_error *err)
{
    struct snapshot_request request = {.name = "s", .icount = UINT64_MAX};
    int r = disk_snapshot_create(disk, &request, NULL, err);
    free(request.ret_id);
    return r;
}

/* A snapshot is no change of the disk, but another one that is applied is. */
static void test_snapshots(void **state)
{
    (void)state;
    struct buffer b = new_image(NULL, 1 << 20);
    struct platter_disk *disk = open_image(&b, true, 0);
    change(disk, PLATTER_BITMAP_ADD, "a", 65536);
    assert_works(disk_close(disk, &err));
    disk = open_image(&b, true, 0);
    assert_works(make_snapshot(disk, &err));
    assert_int_equal(flags_in(disk, &b), QCOW2_BITMAP_AUTO);
    assert_works(disk_close(disk, &err));
    disk = open_image(&b, true, 0);
    assert_run(disk, "a", 0, false, 1 << 20);
    assert_works(disk_snapshot_apply(disk, "s", 0, NULL, &err));
    assert_int_equal(flags_in(disk, &b), QCOW2_BITMAP_AUTO | QCOW2_BITMAP_IN_USE);
    assert_run(disk, "a", 0, true, 1 << 20);
    assert_works(disk_close(disk, &err));
    disk = open_image(&b, true, 0);
    assert_works(disk_snapshot_delete(disk, "s", 0, NULL, &err));
    assert_int_equal(flags_in(disk, &b), QCOW2_BITMAP_AUTO);
    assert_works(disk_close(disk, &err));
    struct image_report report;
    image_check("qcow2", b.bytes, b.size, &report);
    assert_int_equal(report.errors + report.leaks, 0);
    buffer_free(&b);
}

/* Moving bytes about is no change of the disk. */
static void test_same_content_is_not_recorded(void **state)
{
    (void)state;
    struct buffer b = new_image(NULL, 1 << 20);
    struct platter_disk *disk = open_image(&b, true, 0);
    change(disk, PLATTER_BITMAP_ADD, "a", 65536);
    disk_top(disk)->same_content = true;
    write_at(disk, 0);
    disk_top(disk)->same_content = false;
    assert_run(disk, "a", 0, false, 1 << 20);
    write_at(disk, 1024);
    assert_run(disk, "a", 0, true, 65536);
    assert_works(disk_close(disk, &err));
    buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_use_while_it_records),
        cmocka_unit_test(test_all_or_none),
        cmocka_unit_test(test_many_chunks),
        cmocka_unit_test(test_no_memory_to_record),
        cmocka_unit_test(test_snapshots),
        cmocka_unit_test(test_same_content_is_not_recorded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
