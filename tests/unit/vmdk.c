/* SPDX-License-Identifier: MIT */
/* Corners of VMDK that no program's images reach: files beyond 2 TiB, where sector numbers of 32
 * bits end, a flush that fails, and grains that lie askew. */
#include "unit.h"

#include <pthread.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "disk/disk.h"
#include "format/vmdk/vmdk.h"
#include "stream/inside.h"
#include "support/buffer.h"
#include "support/fault.h"
#include "support/must.h"
#include "support/process.h"

enum { SECTOR = 512, GRAIN = 65536, SIZE = 4 << 20, RGD_AT = 48, GD_AT = 56, UNCLEAN_AT = 72 };

static struct buffer new_image(void)
{
    auto_free char *path = scratch_path("image.vmdk");
    struct platter_create_options o = {
        .size = sizeof o, .format = "vmdk", .has_disk_size = true, .disk_size = SIZE};
    assert_works(platter_create(path, &o, &err));
    return buffer_load(path, SIZE + (1 << 20));
}

static struct platter_disk *open_stream(struct stream *s, bool writable)
{
    const struct format *format = &format_vmdk;
    struct platter_disk *disk;
    assert_works(disk_assemble(&s, &format, 1, writable, true, 0, NULL, &disk, &err));
    return disk;
}

/* ---- a flush that fails ---------------------------------------------------------------------- */

/* What the flush was for may be lost: no more is written, and the image is not marked as closed. */
static void test_failed_flush_leaves_the_mark(void **state)
{
    (void)state;
    static const uint8_t bytes[GRAIN] = {1};
    struct buffer b = new_image();
    struct fault_plan plan = {.kinds = FAULT_FLUSH, .code = EIO};
    struct stream *s;
    MUST(stream_buffer_open(&b, "image", true, &s, NULL) == 0);
    MUST(stream_fault_open(s, &plan, &s, NULL) == 0);
    struct platter_disk *disk = open_stream(s, true);
    assert_works(disk_write(disk, bytes, GRAIN, 0, &err));
    assert_works(disk_flush(disk, &err));
    assert_int_equal(b.bytes[UNCLEAN_AT], 1);
    assert_works(disk_write(disk, bytes, GRAIN, 0, &err));
    plan.at = plan.calls + 1;
    assert_fails(disk_flush(disk, &err), EIO, "");
    assert_fails(disk_write(disk, bytes, GRAIN, 0, &err), EIO, "takes no more writes");
    assert_fails(disk_close(disk, &err), EIO, "takes no more writes");
    assert_int_equal(b.bytes[UNCLEAN_AT], 1);
    buffer_free(&b);
}

static void test_close_takes_the_mark_back(void **state)
{
    (void)state;
    static const uint8_t byte = 1;
    struct buffer b = new_image();
    struct stream *s;
    MUST(stream_buffer_open(&b, "image", true, &s, NULL) == 0);
    struct platter_disk *disk = open_stream(s, true);
    assert_int_equal(b.bytes[UNCLEAN_AT], 0);
    assert_works(disk_write(disk, &byte, 1, 0, &err));
    assert_int_equal(b.bytes[UNCLEAN_AT], 1);
    assert_works(disk_close(disk, &err));
    assert_int_equal(b.bytes[UNCLEAN_AT], 0);
    buffer_free(&b);
}

/* ---- another content ID ---------------------------------------------------------------------- */

enum { LONG_TEXT = 4096 };
#define OLD_LONG_ID "00112233445566778899aabb12345678"

/* The text of the descriptor, with a long ID behind its first sector. */
static void give_long_id(const char *path)
{
    FILE *f = fopen(path, "a");
    MUST(f);
    for (unsigned i = 0; i < 20; i++)
        fprintf(f, "# a comment, and another\n");
    fprintf(f, "ddb.longContentID = \"" OLD_LONG_ID "\"\n");
    MUST(fclose(f) == 0);
}

static void read_text(const char *path, char ret[LONG_TEXT])
{
    FILE *f = fopen(path, "r");
    MUST(f);
    ret[fread(ret, 1, LONG_TEXT - 1, f)] = 0;
    MUST(fclose(f) == 0);
}

/* What stands behind a word; `n` characters of it. */
static char *behind(const char *text, const char *word, size_t n)
{
    const char *at = strstr(text, word);
    assert_non_null(at);
    return strndup(at + strlen(word), n);
}

/* Where the descriptor cannot be replaced by a new file, the IDs change all the same. */
static void test_ids_of_a_file_that_stays(void **state)
{
    (void)state;
    char before[LONG_TEXT], after[LONG_TEXT];
    auto_free char *path = scratch_path("flat.vmdk");
    auto_free char *moved = scratch_path("moved.vmdk");
    struct platter_create_options c = {.size = sizeof c,
                                       .format = "vmdk",
                                       .options = "subformat=monolithicFlat",
                                       .has_disk_size = true,
                                       .disk_size = SIZE};
    assert_works(platter_create(path, &c, &err));
    give_long_id(path);
    read_text(path, before);
    struct platter_open_options o = {.size = sizeof o, .flags = PLATTER_OPEN_WRITE};
    struct platter_disk *disk;
    assert_works(platter_open(path, &o, &disk, &err));
    assert_int_equal(rename(path, moved), 0);
    assert_works(platter_pwrite(disk, "x", 1, 0, &err));
    assert_works(platter_close(disk, &err));
    read_text(moved, after);
    auto_free char *old = behind(before, "\nCID=", 8), *new = behind(after, "\nCID=", 8);
    auto_free char *longer = behind(after, "longContentID = \"", 33);
    assert_string_not_equal(old, new);
    assert_string_not_equal(longer, OLD_LONG_ID "\"");
    assert_int_equal(strlen(before), strlen(after));
    assert_int_equal(longer[32], '"');
    assert_memory_equal(longer + 24, new, 8);
}

/* ---- a header that changes ------------------------------------------------------------------- */

/* What was sound when the image was opened is looked at again before it is relied upon. */
static void test_header_that_changed(void **state)
{
    (void)state;
    enum { GRAIN_SIZE_AT = 20 };
    char long_text[1000] = {0};
    struct buffer b = new_image();
    struct stream *s;
    MUST(stream_buffer_open(&b, "image", true, &s, NULL) == 0);
    struct platter_disk *disk = open_stream(s, true);
    struct image *img = disk_top(disk);
    struct descriptor_edit *e;
    put_le(b.bytes + GRAIN_SIZE_AT, 8, 0);
    assert_works(descriptor_edit_begin(img, &e, &err));
    descriptor_edit_set(e, "ddb.comment", memset(long_text, 'x', sizeof long_text - 1));
    assert_fails(descriptor_edit_store(img, e, &err), PLATTER_ECORRUPT, "grain size");
    assert_works(disk_close(disk, &err));
    buffer_free(&b);
}

/* ---- two extents of one file ----------------------------------------------------------------- */

/* Where files have no locks, too, one file of grains is not written from two sides. */
static void test_one_file_twice(void **state)
{
    (void)state;
    auto_free char *grains = scratch_path("grains.vmdk");
    auto_free char *path = scratch_path("twice.vmdk");
    struct platter_create_options c = {
        .size = sizeof c, .format = "vmdk", .has_disk_size = true, .disk_size = SIZE};
    assert_works(platter_create(grains, &c, &err));
    FILE *f = fopen(path, "w");
    MUST(f);
    fprintf(f, "version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"custom\"\n"
               "RW 8192 SPARSE \"grains.vmdk\"\nRW 8192 SPARSE \"./Grains.vmdk\"\n");
    MUST(fclose(f) == 0);
    struct platter_open_options o = {.size = sizeof o, .flags = PLATTER_OPEN_NO_LOCK};
    struct platter_disk *disk;
    assert_works(platter_open(path, &o, &disk, &err));
    assert_works(platter_close(disk, &err));
    o.flags |= PLATTER_OPEN_WRITE;
    assert_fails(platter_open(path, &o, &disk, &err), PLATTER_ECORRUPT, "are the same file");
}

/* ---- beyond 2 TiB ---------------------------------------------------------------------------- */

/* An image whose file goes on with zeros up to 3 TiB. */
struct far_stream {
    struct stream head;
    const struct buffer *image;
};

static int far_pread(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err)
{
    const struct buffer *image = ((struct far_stream *)s)->image;
    (void)err;
    memset(buf, 0, len);
    if (off < image->size)
        memcpy(buf, image->bytes + off, min_u64(len, image->size - off));
    return 0;
}

static int far_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    (void)s, (void)err;
    *ret_size = UINT64_C(3) << 40;
    return 0;
}

static struct platter_disk *open_far(const struct buffer *image)
{
    static const struct stream_ops ops = {.name = "far", .pread = far_pread, .size = far_size};
    struct far_stream *s = stream_new(sizeof *s, &ops, "far", NULL);
    MUST(s);
    s->image = image;
    return open_stream(&s->head, false);
}

/* The first entry of a directory. */
static uint8_t *directory(const struct buffer *b, unsigned field)
{
    return b->bytes + get_le(b->bytes + field, 8) * SECTOR;
}

/* The last grain that an entry can name is followed by one that is not there. */
static void test_rows_end_at_2_to_the_32(void **state)
{
    (void)state;
    struct buffer b = new_image();
    uint64_t table = get_le(directory(&b, GD_AT), 4) * SECTOR;
    put_le(b.bytes + table, 4, UINT32_MAX - 127);
    struct platter_disk *disk = open_far(&b);
    struct disk_extent x;
    assert_works(disk_map(disk, 0, SIZE, &x, &err));
    assert_int_equal(x.e.kind, EXTENT_DATA);
    assert_int_equal(x.e.off, (UINT64_C(2) << 40) - GRAIN);
    assert_int_equal(x.e.len, GRAIN);
    assert_works(disk_map(disk, GRAIN, SIZE - GRAIN, &x, &err));
    assert_int_equal(x.e.kind, EXTENT_ZERO);
    assert_works(disk_close(disk, &err));
    buffer_free(&b);
}

/* A table that the directory lost is not looked for at the last sector there is. */
static void test_lost_table_of_a_large_file(void **state)
{
    (void)state;
    uint8_t byte;
    struct buffer b = new_image();
    put_le(directory(&b, GD_AT), 4, 0);
    b.bytes[get_le(directory(&b, RGD_AT), 4) * SECTOR] = 200;
    struct platter_disk *disk = open_far(&b);
    assert_fails(disk_read(disk, &byte, 1, 0, &err), PLATTER_ECORRUPT, "directory entry 0");
    assert_works(disk_close(disk, &err));
    buffer_free(&b);
}

/* A COWD file may be longer than freeSector can say: then nothing is free. */
static void test_free_sector_of_a_large_file(void **state)
{
    (void)state;
    enum { FREE_SECTOR_AT = 28 };
    struct image img = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct buffer b = buffer_new(COWD_HEADER_SECTORS * SECTOR);
    struct sparse s = {.kind = SPARSE_COWD, .end = UINT64_C(3) << 40};
    MUST(stream_buffer_open(&b, "image", true, &s.stream, NULL) == 0);
    assert_works(cowd_write_free_sector(&img, &s, &err));
    assert_int_equal(get_le(b.bytes + FREE_SECTOR_AT, 4), UINT32_MAX);
    s.end = 77 * SECTOR - 1;
    assert_works(cowd_write_free_sector(&img, &s, &err));
    assert_int_equal(get_le(b.bytes + FREE_SECTOR_AT, 4), 77);
    stream_close(s.stream);
    buffer_free(&b);
}

/* ---- grains that lie in two units ------------------------------------------------------------ */

static void save_text(const char *path, const char *text)
{
    struct buffer b = {.bytes = (uint8_t *)text, .size = strlen(text)};
    buffer_save(&b, path);
}

/* The first grain of the second extent is [32 KiB, 96 KiB) of the disk. */
static struct platter_disk *open_askew(void)
{
    struct platter_open_options o = {.size = sizeof o, .flags = PLATTER_OPEN_WRITE};
    struct platter_disk *disk;
    auto_free char *path = scratch_path("askew.vmdk"), *flat = scratch_path("flat");
    struct buffer b = new_image(), zeros = buffer_new(GRAIN);
    zeros.size = GRAIN / 2;
    buffer_save(&zeros, flat);
    save_text(path, "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
                    "createType=\"custom\"\nRW 64 FLAT \"flat\" 0\n"
                    "RW 8192 SPARSE \"image.vmdk\"\n");
    assert_works(platter_open(path, &o, &disk, &err));
    buffer_free(&zeros);
    buffer_free(&b);
    return disk;
}

struct second_writer {
    struct platter_disk *disk;
    atomic_bool done;
};

static void *write_second(void *opaque)
{
    static const uint8_t two[SECTOR] = {2};
    struct second_writer *w = opaque;
    MUST(disk_write(w->disk, two, sizeof two, GRAIN + SECTOR, NULL) == 0);
    atomic_store(&w->done, true);
    return NULL;
}

/* Two writers of one new grain, each in a unit of its own: the second waits for the first. */
static void test_grain_in_two_units(void **state)
{
    (void)state;
    static const uint8_t one[SECTOR] = {1};
    uint8_t bytes[2];
    struct disk_write w;
    pthread_t thread;
    struct second_writer second = {.disk = open_askew()};
    assert_works(disk_write_begin(second.disk, GRAIN - SECTOR, SECTOR, &w, &err));
    MUST(pthread_create(&thread, NULL, write_second, &second) == 0);
    usleep(100000); /* enough for one whom nobody holds up */
    assert_false(atomic_load(&second.done));
    assert_works(disk_write_end(&w, one, &err));
    pthread_join(thread, NULL);
    assert_works(disk_read(second.disk, bytes, 1, GRAIN - SECTOR, &err));
    assert_works(disk_read(second.disk, bytes + 1, 1, GRAIN + SECTOR, &err));
    assert_int_equal(bytes[0], 1);
    assert_int_equal(bytes[1], 2);
    assert_works(disk_close(second.disk, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failed_flush_leaves_the_mark),
        cmocka_unit_test(test_close_takes_the_mark_back),
        cmocka_unit_test(test_ids_of_a_file_that_stays),
        cmocka_unit_test(test_header_that_changed),
        cmocka_unit_test(test_one_file_twice),
        cmocka_unit_test(test_rows_end_at_2_to_the_32),
        cmocka_unit_test(test_lost_table_of_a_large_file),
        cmocka_unit_test(test_free_sector_of_a_large_file),
        cmocka_unit_test(test_grain_in_two_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
