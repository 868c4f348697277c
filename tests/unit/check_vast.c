/* SPDX-License-Identifier: MIT */
/* The check of images in files of 4 EiB that hold next to nothing: what it takes goes with what is
 * there, counted in calls of the stream. */
#include "unit.h"

#include <stdlib.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "stream/inside.h"
#include "support/damage.h"
#include "support/esx.h"

#define VAST (UINT64_C(1) << 62)

enum { SECTOR = 512, MOST_CALLS = 20000 };

/* A buffer, and then a hole. */
struct vast {
    struct stream head;
    struct buffer *bytes;
    unsigned *calls;
};

static int vast_pread(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err)
{
    (void)err;
    const struct vast *v = (struct vast *)s;
    size_t there = off < v->bytes->size ? (size_t)min_u64(len, v->bytes->size - off) : 0;
    memcpy(buf, v->bytes->bytes + (there ? off : 0), there);
    memset((char *)buf + there, 0, len - there);
    ++*v->calls;
    return 0;
}

static int vast_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    (void)s, (void)err;
    *ret_size = VAST;
    return 0;
}

static int vast_extents(struct stream *s, hoff off, uint64_t len, uint64_t *ret_len, bool *ret_hole,
                        struct platter_error *err)
{
    (void)err;
    const struct vast *v = (struct vast *)s;
    *ret_hole = off >= v->bytes->size;
    *ret_len = *ret_hole ? len : min_u64(len, v->bytes->size - off);
    ++*v->calls;
    return 0;
}

static void vast_close(struct stream *s)
{
    (void)s;
}

static const struct stream_ops vast_ops = {.name = "vast",
                                           .pread = vast_pread,
                                           .size = vast_size,
                                           .extents = vast_extents,
                                           .close = vast_close};

/* Checks what is in a buffer; the calls are counted. */
static struct platter_check_result check(struct buffer *b, uint64_t memory)
{
    struct platter_check_result result = {0};
    unsigned calls = 0;
    struct vast *v = stream_new(sizeof *v, &vast_ops, "vast", NULL);
    assert_non_null(v);
    v->bytes = b;
    v->calls = &calls;
    struct check c = {0};
    struct platter_disk *disk;
    const struct format *format =
        format_find(memcmp(b->bytes, "QFI\xfb", 4) == 0 ? "qcow2" : "vmdk");
    assert_works(disk_assemble_for_check(&v->head, format, false, memory, NULL, &disk, &err));
    assert_works(format->check(disk_top(disk), &c, &err));
    assert_works(disk_close(disk, &err));
    result = c.result;
    if (calls > MOST_CALLS)
        fail_msg("%u calls", calls);
    return result;
}

static uint8_t *hosted_entry(struct buffer *b, unsigned copy, uint64_t grain)
{
    uint8_t *gd = b->bytes + get_le(b->bytes + (copy ? 48 : 56), 8) * SECTOR;
    return b->bytes + get_le(gd + grain / 512 * 4, 4) * SECTOR + grain % 512 * 4;
}

static void test_hosted(void **state)
{
    (void)state;
    struct buffer b = damage_base(DAMAGE_SPARSE);
    for (uint64_t memory = 0; memory <= 2 << 20; memory += 2 << 20) {
        struct platter_check_result r = check(&b, memory);
        assert_int_equal(r.corruptions, 0);
        assert_int_equal(r.leaks, 0);
    }
    for (unsigned i = 0; i < 40; i++) /* in as many windows */
        for (unsigned copy = 0; copy < 2; copy++)
            put_le(hosted_entry(&b, copy, 100 + i), 4, UINT32_C(0x06000000) * (i + 2) & ~127u);
    for (unsigned copy = 0; copy < 2; copy++)
        put_le(hosted_entry(&b, copy, 200), 4, 0x0c000000 + 64);
    struct platter_check_result r = check(&b, 0);
    assert_int_equal(r.corruptions, 1);
    buffer_free(&b);
}

static void test_cowd(void **state)
{
    (void)state;
    static const uint8_t content[8 * SECTOR] = "content";
    struct buffer b = esx_make(ESX_COWD, 64 << 20, 1, content, sizeof content);
    struct platter_check_result r = check(&b, 0);
    assert_int_equal(r.corruptions, 1); /* freeSector */
    assert_int_equal(r.leaks, 0);
    put_le(b.bytes + 28, 4, UINT32_MAX); /* all that it can say */
    assert_int_equal(check(&b, 0).corruptions, 0);
    buffer_free(&b);
}

/* Where the entries of a seSparse file's first table stand. */
static uint8_t *se_entries(struct buffer *b)
{
    return b->bytes + get_le(b->bytes + 144, 8) * SECTOR;
}

static uint64_t se_entry(uint64_t index)
{
    return UINT64_C(3) << 60 | (index & 0xfff) << 48 | index >> 12;
}

/* Grains all over the file, in more places than there is memory for, two of them twice. */
static void test_sesparse(void **state)
{
    (void)state;
    static const uint8_t content[8 * SECTOR] = "content";
    struct buffer b = esx_make(ESX_SESPARSE, 16 << 20, 1, content, sizeof content);
    const uint64_t room = UINT64_C(1) << 49; /* grains */
    put_le(b.bytes + 200, 8, room * 8);
    uint64_t step = room / 4096 - 1;
    for (uint64_t i = 0; i < 4096; i++)
        put_le(se_entries(&b) + i * 8, 8, se_entry(i * 2999 % 4096 * step));
    for (uint64_t memory = 0; memory <= 2; memory++) {
        struct platter_check_result r = check(&b, memory * 100000);
        assert_int_equal(r.corruptions, 0);
        assert_int_equal(r.allocated_clusters, 4096);
    }
    put_le(se_entries(&b), 8, se_entry(4095 * step));
    put_le(se_entries(&b) + 8, 8, se_entry(step));
    for (uint64_t memory = 0; memory <= 2; memory++) {
        struct platter_check_result r = check(&b, memory * 100000);
        assert_int_equal(r.corruptions, 2);
        assert_int_equal(r.allocated_clusters, 4096);
    }
    buffer_free(&b);
}

/* Where the entry of cluster 0 of the active table stands. */
static uint8_t *qcow2_entry(struct buffer *b)
{
    uint64_t l1 = get_be(b->bytes + 40, 8);
    return b->bytes + (get_be(b->bytes + l1, 8) & 0x00FFFFFFFFFFFE00);
}

/* A sound one; then with a cluster of data far behind the rest, which no block counts. */
static void test_qcow2(void **state)
{
    (void)state;
    struct buffer b = damage_base(DAMAGE_QCOW2);
    for (uint64_t memory = 0; memory <= 2 << 20; memory += 1 << 20) {
        struct platter_check_result r = check(&b, memory);
        assert_int_equal(r.corruptions, 0);
        assert_int_equal(r.leaks, 0);
    }
    struct platter_check_result sound = check(&b, 0);
    put_be(qcow2_entry(&b), 8, UINT64_C(1) << 55);
    for (uint64_t memory = 0; memory <= 2 << 20; memory += 1 << 20) {
        struct platter_check_result r = check(&b, memory);
        assert_int_equal(r.corruptions, 1);
        assert_int_equal(r.image_end_offset, (UINT64_C(1) << 55) + 4096);
        assert_int_equal(r.allocated_clusters, sound.allocated_clusters);
    }
    buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hosted),
        cmocka_unit_test(test_cowd),
        cmocka_unit_test(test_sesparse),
        cmocka_unit_test(test_qcow2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
