/* SPDX-License-Identifier: MIT */
/* The parts of reading an archive front to back: what came of a disk, extents that are found
 * anywhere, headers with one wrong bit, and the runs that batches are made of. */
#include "unit.h"

#include <stdlib.h>

#include "base/ckd.h"
#include "format/vma/coverage.h"
#include "format/vma/input.h"
#include "format/vma/mend.h"
#include "format/vma/reader.h"
#include "format/vma/resync.h"
#include "support/must.h"
#include "support/vmaimage.h"

/* ---- coverage ----------------------------------------------------------------------------------
 */

enum { CLUSTERS = 200000 };

static void test_coverage(void **state)
{
    (void)state;
    struct budget *budget = budget_new(1 << 20);
    struct prng p = {7};
    struct coverage *c;
    bool *there = calloc(CLUSTERS, sizeof *there);
    uint64_t n = 0, first, found, at = 0;
    MUST(there);
    assert_works(coverage_new(budget, &c, &err));
    for (unsigned i = 0; i < CLUSTERS; i++) {
        uint32_t k = i < CLUSTERS / 2 ? i : (uint32_t)prng_below(&p, CLUSTERS);
        assert_int_equal(coverage_add(c, k, NULL), !there[k]);
        n += !there[k];
        there[k] = true;
    }
    assert_int_equal(coverage_count(c), n);
    for (uint64_t end = CLUSTERS; at < end; at = first + found) {
        found = coverage_missing(c, at, end, &first);
        if (found == 0)
            first = end;
        for (; at < first; at++)
            assert_true(there[at] && coverage_has(c, (uint32_t)at));
        for (; at < first + found; at++)
            assert_true(!there[at] && !coverage_has(c, (uint32_t)at));
        assert_true(first + found == end || there[first + found]);
    }
    coverage_free(c);
    free(there);
    budget_unref(budget);
}

/* A vast disk costs nothing beforehand, and little when it is all there. */
static void test_coverage_memory(void **state)
{
    (void)state;
    struct budget *budget = budget_new(64 << 10);
    struct coverage *c;
    uint64_t first = 0;
    assert_works(coverage_new(budget, &c, &err));
    assert_int_equal(coverage_missing(c, 0, UINT64_C(1) << 32, &first), UINT64_C(1) << 32);
    assert_int_equal(coverage_add(c, UINT32_MAX, NULL), 1);
    assert_int_equal(coverage_end(c), UINT64_C(1) << 32);
    assert_int_equal(coverage_missing(c, 5, UINT64_C(1) << 32, &first), UINT32_MAX - 5);
    assert_int_equal(first, 5);
    /* 64 pages of 4 KiB would be four times what there is: full ones are given back. */
    for (uint32_t i = 0; i < 64 << 15; i++)
        assert_int_equal(coverage_add(c, i, NULL), 1);
    struct platter_error why = {0};
    int r = 1;
    for (uint32_t i = 1; r == 1 && i < 64; i++)
        r = coverage_add(c, UINT32_MAX - (i << 15), &why);
    assert_int_equal(r, -ENOMEM);
    coverage_free(c);
    assert_works(budget_take(budget, 64 << 10, "all of it", &err));
    budget_give(budget, 64 << 10);
    budget_unref(budget);
}

/* ---- finding -----------------------------------------------------------------------------------
 */

static void put_extent(uint8_t *at, uint8_t uuid, unsigned blocks)
{
    struct vma_extent e = {.slots = {{.mask = (uint16_t)((1u << blocks) - 1), .device = 1}}};
    uint8_t bytes[VMA_UUID];
    memset(bytes, uuid, sizeof bytes);
    vma_extent_encode(&e, bytes, at);
}

static void test_find(void **state)
{
    (void)state;
    uint8_t bytes[3000] = {0}, ones[VMA_UUID], twos[VMA_UUID];
    memset(ones, 1, sizeof ones);
    memset(twos, 2, sizeof twos);
    assert_int_equal(vma_find_extent(bytes, sizeof bytes, NULL), sizeof bytes);
    memcpy(bytes + 700, "VMAEVMAE", 8);
    put_extent(bytes + 705, 1, 0);
    put_extent(bytes + 2000, 2, 0);
    assert_int_equal(vma_find_extent(bytes, sizeof bytes, NULL), 705);
    assert_int_equal(vma_find_extent(bytes, sizeof bytes, ones), 705);
    assert_int_equal(vma_find_extent(bytes, sizeof bytes, twos), 2000);
    assert_int_equal(vma_find_extent(bytes, 2511, twos), 2511);
    assert_int_equal(vma_find_extent(bytes, 2512, twos), 2000);
    assert_int_equal(vma_find_extent(bytes, 3, twos), 3);
    bytes[2300] ^= 1;
    assert_int_equal(vma_find_extent(bytes, sizeof bytes, twos), sizeof bytes);
    assert_true(vma_was_extent(bytes + 2000, 512, twos));
    assert_false(vma_was_extent(bytes + 1999, 512, twos)); /* what has moved does not tell */
    assert_false(vma_was_extent(bytes + 1000, 512, twos));
}

/* Of an archive in the data of another one the pieces do not follow each other. */
static void test_vote(void **state)
{
    (void)state;
    enum { ROOM = 200000 };
    uint8_t *bytes = calloc(1, ROOM), likely[VMA_UUID];
    MUST(bytes);
    assert_null(vma_vote_uuid(bytes, ROOM, NULL));
    put_extent(bytes + 100, 3, 1); /* alone, and in pieces */
    put_extent(bytes + 10000, 3, 1);
    for (size_t at = 50000; at + VMA_EXTENT + VMA_BLOCK < ROOM; at += VMA_EXTENT + VMA_BLOCK)
        put_extent(bytes + at, 4, 1);
    assert_int_equal(vma_vote_uuid(bytes, ROOM, NULL)[0], 4);
    memset(likely, 3, sizeof likely);
    assert_int_equal(vma_vote_uuid(bytes, ROOM, likely)[0], 3);
    memset(likely, 9, sizeof likely);
    assert_int_equal(vma_vote_uuid(bytes, ROOM, likely)[0], 4);
    free(bytes);
}

/* ---- mending -----------------------------------------------------------------------------------
 */

static void test_mend(void **state)
{
    (void)state;
    uint8_t good[VMA_EXTENT], bytes[VMA_EXTENT];
    put_extent(good, 1, 7);
    for (unsigned bit = 0; bit < 8 * VMA_EXTENT; bit += 61) {
        memcpy(bytes, good, sizeof bytes);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_true(vma_mend(bytes, sizeof bytes, 24, 4 << 20));
        assert_memory_equal(bytes, good, sizeof bytes);
    }
    /* What is right is left alone; two bits are more than it can do, and so is too little time. */
    assert_false(vma_mend(bytes, sizeof bytes, 24, 4 << 20));
    bytes[500] ^= 1;
    assert_false(vma_mend(bytes, sizeof bytes, 24, 4096));
    bytes[9] ^= 0x80;
    memcpy(good, bytes, sizeof bytes);
    assert_false(vma_mend(bytes, sizeof bytes, 24, 4 << 20));
    assert_memory_equal(bytes, good, sizeof bytes);
}

/* ---- bytes that are put back -------------------------------------------------------------------
 */

static void test_input(void **state)
{
    (void)state;
    struct buffer b = buffer_new(1000);
    struct budget *budget = budget_new(1 << 20);
    struct vma_input in;
    struct stream *s;
    uint8_t got[1000];
    size_t n;
    uint64_t skipped;
    for (unsigned i = 0; i < 1000; i++)
        b.bytes[i] = (uint8_t)(i % 251);
    b.size = 1000;
    assert_works(stream_buffer_input_open(&b, "archive.vma", &s, &err));
    vma_input_open(&in, s, budget);
    assert_works(vma_input_read(&in, got, 300, &n, &err));
    assert_int_equal(n, 300);
    assert_works(vma_input_put_back(&in, got + 200, 100, &err));
    assert_works(vma_input_put_back(&in, got + 150, 50, &err));
    assert_int_equal(in.pos, 150);
    assert_works(vma_input_skip(&in, 10, &skipped, &err));
    assert_works(vma_input_read(&in, got, sizeof got, &n, &err));
    assert_int_equal(n, 840);
    assert_memory_equal(got, b.bytes + 160, 140);
    assert_int_equal(in.pos, 1000);
    assert_works(vma_input_read(&in, got, 1, &n, &err));
    assert_int_equal(n, 0);
    vma_input_close(&in);
    stream_close(s);
    budget_unref(budget);
    buffer_free(&b);
}

/* ---- runs --------------------------------------------------------------------------------------
 */

/* Clusters 0 and 1 full, 2 with block 1 alone, 3 the last one, which ends inside its second block.
 */
static void make(struct vmaimage *v)
{
    struct vmaimage_disk *d;
    vmaimage_start(v, 1);
    d = vmaimage_add_disk(v, 3, "drive-scsi0", 3 * VI_CLUSTER + 5000, false);
    memset(d->content, 'a', 2 * VI_CLUSTER);
    memset(d->content + 2 * VI_CLUSTER + VI_BLOCK, 'b', VI_BLOCK);
    memset(d->content + 3 * VI_CLUSTER, 'c', 2 * VI_BLOCK);
    vmaimage_arrange(v, VI_ASCENDING, 0);
    vmaimage_pack(v, VI_SLOTS, 0);
    vmaimage_write(v);
}

static struct archive_reader *open_reader(struct vmaimage *v, bool pipe, struct stream **s,
                                          struct budget *budget, struct archive_batch *batch)
{
    struct archive_reader *reader;
    assert_works(pipe ? stream_buffer_input_open(&v->file, "archive.vma", s, &err)
                      : stream_buffer_open(&v->file, "archive.vma", false, s, &err));
    struct archive_request request = {.stream = *s, .budget = budget};
    assert_works(vma_reader_open(&request, &reader, &err));
    batch->room = malloc(reader->batch_bytes);
    MUST(batch->room);
    return reader;
}

struct wanted_run {
    uint64_t off, len;
    bool zero;
};

static void check_runs(const struct vmaimage *v, const struct archive_batch *batch, bool bytes)
{
    static const struct wanted_run runs[] = {{0, 2 * VI_CLUSTER, false},
                                             {2 * VI_CLUSTER, VI_BLOCK, true},
                                             {2 * VI_CLUSTER + VI_BLOCK, VI_BLOCK, false},
                                             {2 * VI_CLUSTER + 2 * VI_BLOCK, 14 * VI_BLOCK, true},
                                             {3 * VI_CLUSTER, 5000, false}};
    assert_int_equal(batch->n_runs, sizeof runs / sizeof *runs);
    for (unsigned i = 0; i < batch->n_runs; i++) {
        const struct archive_run *run = &batch->runs[i];
        assert_int_equal(run->off, runs[i].off);
        assert_int_equal(run->len, runs[i].len);
        assert_int_equal(run->zero, runs[i].zero);
        assert_string_equal(run->disk->name, "drive-scsi0");
        assert_int_equal(run->bytes != NULL, bytes && !run->zero);
        if (run->bytes)
            assert_memory_equal(run->bytes, v->disks[0].content + run->off, run->len);
    }
}

static bool want_none(void *opaque, const struct archive_disk *disk)
{
    (void)disk;
    ++*(unsigned *)opaque;
    return false;
}

static void test_runs(void **state)
{
    (void)state;
    for (unsigned way = 0; way < 4; way++) {
        struct budget *budget = budget_new(1 << 20);
        struct archive_batch batch = {0};
        struct vmaimage v;
        struct stream *s;
        make(&v);
        struct archive_reader *r = open_reader(&v, way & 1, &s, budget, &batch);
        bool headers = way & 2;
        r->flags |= headers ? ARCHIVE_HEADERS : 0;
        assert_int_equal(r->listing.n_disks, 1);
        assert_int_equal(r->ops->have(r, &r->listing.disks[0]), 0);
        assert_int_equal(r->ops->next(r, &batch, NULL), 1);
        /* What cannot be skipped is read, so that it may be there all the same. */
        check_runs(&v, &batch, !headers || way & 1);
        assert_int_equal(batch.off, v.header_size);
        assert_int_equal(batch.len, v.file.size - v.header_size);
        assert_int_equal(r->ops->have(r, &r->listing.disks[0]), 3 * VI_CLUSTER + 5000);
        assert_int_equal(r->ops->next(r, &batch, NULL), 0);
        assert_int_equal(r->ops->next(r, &batch, NULL), 0);
        r->ops->close(r);
        stream_close(s);
        free(batch.room);
        vmaimage_free(&v);
        budget_unref(budget);
    }
}

/* Nothing is checked or told of a disk that nobody wants. */
static void test_unwanted(void **state)
{
    (void)state;
    struct budget *budget = budget_new(1 << 20);
    struct archive_batch batch = {0};
    struct vmaimage v;
    struct stream *s;
    unsigned asked = 0;
    make(&v);
    vmaimage_find(&v, 3, 1)->cluster = 0; /* twice, and one is missing */
    vmaimage_write(&v);
    struct archive_reader *r = open_reader(&v, false, &s, budget, &batch);
    r->wanted = want_none;
    r->wanted_opaque = &asked;
    assert_int_equal(r->ops->next(r, &batch, NULL), 1);
    assert_int_equal(batch.n_runs, 0);
    assert_int_equal(r->ops->next(r, &batch, NULL), 0);
    assert_true(asked > 0);
    r->ops->close(r);
    stream_close(s);
    free(batch.room);
    r = open_reader(&v, false, &s, budget, &batch);
    assert_fails(r->ops->next(r, &batch, &err), PLATTER_ECORRUPT, "which was there before");
    r->ops->close(r);
    stream_close(s);
    free(batch.room);
    vmaimage_free(&v);
    budget_unref(budget);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_coverage), cmocka_unit_test(test_coverage_memory),
        cmocka_unit_test(test_find),     cmocka_unit_test(test_vote),
        cmocka_unit_test(test_mend),     cmocka_unit_test(test_input),
        cmocka_unit_test(test_runs),     cmocka_unit_test(test_unwanted)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
