/* SPDX-License-Identifier: MIT */
/* QCOW version 1: other sizes while it is open, and a check that is stopped. */
#include "qcow_kit.h"

#include "base/ckd.h"
#include "base/cursor.h"
#include "support/imagecheck.h"
#include "support/prng.h"

static void resize(struct platter_disk *disk, uint64_t size)
{
    assert_works(
        disk_resize(disk, size, PLATTER_RESIZE_SHRINK, PLATTER_PREALLOCATION_OFF, NULL, &err));
}

static void assert_sound(const struct buffer *b)
{
    struct image_report report = {0};
    qcow_judge(b->bytes, b->size, &report);
    if (report.errors)
        fail_msg("%s", report.first);
}

/* What a table stood in is free for clusters once the disk is shorter. */
static void test_write_after_shrinking(void **state)
{
    (void)state;
    struct platter_disk *disk;
    uint8_t bytes[8 * CLUSTER];
    struct buffer b = fixture();
    write_filled(&b, 0x77, CLUSTER, 9 * MIB);
    assert_works(try_open(&b, true, &disk, &err));
    resize(disk, MIB);
    memset(bytes, 0x33, sizeof bytes);
    assert_works(disk_write(disk, bytes, sizeof bytes, 512 << 10, &err));
    assert_works(disk_flush(disk, &err));
    assert_works(disk_read(disk, bytes, sizeof bytes, 512 << 10, &err));
    assert_works(disk_close(disk, &err));
    assert_filled(&b, 0x33, sizeof bytes, 512 << 10);
    assert_filled(&b, 0x5a, CLUSTER, 64 << 10);
    assert_sound(&b);
    buffer_free(&b);
}

/* The L1 table that a larger disk had stands at the end of the file when it is short again. */
static void test_sizes_up_and_down(void **state)
{
    enum { LARGE = 4096 /* MiB: 16 KiB of L1 table */ };
    (void)state;
    struct platter_disk *disk;
    uint8_t bytes[8 * CLUSTER];
    struct buffer b = fixture();
    assert_works(try_open(&b, true, &disk, &err));
    memset(bytes, 0x33, sizeof bytes);
    resize(disk, (uint64_t)LARGE * MIB);
    assert_works(disk_write(disk, bytes, sizeof bytes, (goff)LARGE / 2 * MIB, &err));
    resize(disk, 10 * MIB);
    assert_works(disk_write(disk, bytes, sizeof bytes, MIB, &err));
    resize(disk, (uint64_t)LARGE * MIB);
    assert_works(disk_write(disk, bytes, sizeof bytes, (goff)LARGE * MIB - sizeof bytes, &err));
    assert_works(disk_close(disk, &err));
    assert_filled(&b, 0x33, sizeof bytes, MIB);
    assert_filled(&b, 0x5a, CLUSTER, 64 << 10);
    assert_filled(&b, 0x33, sizeof bytes, (goff)LARGE * MIB - sizeof bytes);
    assert_filled(&b, 0, MIB, 9 * MIB);
    assert_sound(&b);
    buffer_free(&b);
}

/* However often it is made larger and smaller, the file does not grow with it. */
static void test_sizes_again_and_again(void **state)
{
    enum { TIMES = 20 };
    (void)state;
    struct platter_disk *disk;
    struct buffer b = fixture();
    assert_works(try_open(&b, true, &disk, &err));
    for (unsigned i = 0; i < TIMES; i++) {
        resize(disk, UINT64_C(64) << 30);
        resize(disk, 10 * MIB);
    }
    assert_works(disk_close(disk, &err));
    assert_in_range(b.size, 0x3000, 0x3000 + (TIMES + 1) * 512);
    assert_filled(&b, 0x5a, CLUSTER, 64 << 10);
    assert_sound(&b);
    buffer_free(&b);
}

/* The last bytes of an odd size may have a table of their own, which nobody sees: what it leads to
 * shows on no larger disk either. */
static void test_hidden_table(void **state)
{
    (void)state;
    struct platter_disk *disk;
    struct buffer b = fixture();
    write_filled(&b, 0x77, CLUSTER, 2 * MIB);
    write_filled(&b, 0x77, CLUSTER, 3 * MIB);
    put_be(b.bytes + 24, 8, 2 * MIB + 100);
    assert_works(try_open(&b, true, &disk, &err));
    assert_int_equal(disk_size(disk), 2 * MIB);
    resize(disk, 4 * MIB);
    assert_works(disk_close(disk, &err));
    assert_filled(&b, 0x5a, CLUSTER, 64 << 10);
    assert_filled(&b, 0, 2 * MIB, 2 * MIB);
    assert_sound(&b);
    buffer_free(&b);
}

/* What a disk of any size up to MOST shows; zeros behind its end. */
struct model {
    struct prng prng;
    struct buffer file;
    struct platter_disk *disk;
    uint64_t size;
    uint8_t *bytes, *seen;
};

enum { MOST = 2 * MIB };

static void change_range(struct model *m)
{
    uint64_t off = prng_below(&m->prng, m->size / 512) * 512;
    uint64_t len = min_u64((1 + prng_below(&m->prng, 80)) * 512, m->size - off);
    uint8_t byte = (uint8_t)(prng_below(&m->prng, 3) * 0x55); /* a third of them zeros */
    memset(m->bytes + off, byte, len);
    if (byte)
        assert_works(disk_write(m->disk, m->bytes + off, len, off, &err));
    else
        assert_works(disk_zero(m->disk, off, len, true, &err));
}

static void change_size(struct model *m)
{
    uint64_t size = (1 + prng_below(&m->prng, MOST / 512)) * 512;
    resize(m->disk, size);
    if (size < m->size)
        memset(m->bytes + size, 0, m->size - size);
    m->size = size;
}

static void look(struct model *m)
{
    assert_int_equal(disk_size(m->disk), m->size);
    assert_works(disk_read(m->disk, m->seen, m->size, 0, &err));
    assert_memory_equal(m->seen, m->bytes, m->size);
    assert_works(disk_flush(m->disk, &err));
    assert_sound(&m->file);
}

/* Of many small tables, opened anew now and then. */
static void test_many_sizes(void **state)
{
    (void)state;
    struct model m = {.prng = {7}, .file = new_image(), .size = MIB};
    MUST((m.bytes = calloc(2, MOST)) != NULL);
    m.seen = m.bytes + MOST;
    put_be(m.file.bytes + 24, 8, m.size);
    m.file.bytes[32] = 9;
    m.file.bytes[33] = 6;
    assert_works(try_open(&m.file, true, &m.disk, &err));
    for (unsigned i = 0; i < 600; i++) {
        if (prng_below(&m.prng, 4) == 0)
            change_size(&m);
        else
            change_range(&m);
        if (i % 3 == 0)
            look(&m);
        if (prng_below(&m.prng, 20) > 0)
            continue;
        assert_works(disk_close(m.disk, &err));
        assert_works(try_open(&m.file, true, &m.disk, &err));
    }
    look(&m);
    assert_works(disk_close(m.disk, &err));
    assert_in_range(m.file.size, 0, 3 * MOST); /* what is cut off was given back */
    free(m.bytes);
    buffer_free(&m.file);
}

/* ---- check -------------------------------------------------------------------------------------
 */

/* Says stop when it is asked for the sixth time. */
static int stop_soon(void *opaque, const struct platter_progress *p)
{
    unsigned *asked = opaque;
    (void)p;
    return ++*asked == 6;
}

static int mend(struct buffer *b, struct check *c, struct platter_error *err)
{
    struct stream *s;
    struct platter_disk *disk;
    c->mend_all = c->mend_leaks = true;
    MUST(stream_buffer_open(b, "image", true, &s, NULL) == 0);
    int r = disk_assemble_for_check(s, &format_qcow, true, 0, NULL, &disk, err);
    MUST(r == 0);
    r = format_qcow.check(disk_top(disk), c, err);
    MUST(disk_close(disk, NULL) == 0);
    return r;
}

/* Each cluster that is moved waits for the disk twice: whoever wants to stop need not wait for all
 * of them; and what was done is sound, and goes on. */
static void test_stop_mending(void **state)
{
    enum { SHARERS = 40 };
    (void)state;
    unsigned asked = 0;
    struct check c = {.progress = stop_soon, .opaque = &asked}, again = {0}, after = {0};
    struct buffer b = fixture();
    for (unsigned i = 0; i < SHARERS; i++)
        put_be(b.bytes + TABLE_AT + i * 8, 8, DATA_AT);
    assert_fails(mend(&b, &c, &err), ECANCELED, "cancelled");
    assert_in_range(c.result.corruptions_fixed, 1, 6);
    assert_works(mend(&b, &again, &err));
    assert_int_equal(c.result.corruptions_fixed + again.result.corruptions_fixed, SHARERS - 1);
    assert_works(mend(&b, &after, &err));
    assert_int_equal(after.result.corruptions, 0);
    assert_filled(&b, 0x5a, SHARERS * CLUSTER, 0);
    assert_sound(&b);
    buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_after_shrinking),
        cmocka_unit_test(test_sizes_up_and_down),
        cmocka_unit_test(test_sizes_again_and_again),
        cmocka_unit_test(test_hidden_table),
        cmocka_unit_test(test_many_sizes),
        cmocka_unit_test(test_stop_mending),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
