/* SPDX-License-Identifier: MIT */
/* What is not read of an archive: because nobody wants it, and because the disk does not give it.
 */
#include "unit.h"

#include <stdlib.h>

#include "format/vma/reader.h"
#include "support/fault.h"
#include "support/must.h"
#include "support/vmaimage.h"

enum { FIRST = 1, SECOND = 2, CLUSTERS = 8 };

/* An archive that is being read, on a disk of which parts cannot be. */
struct reading {
    struct vmaimage v;
    struct fault_plan plan;
    struct fault_range bad[64];
    struct budget *budget;
    struct stream *stream;
    struct archive_reader *reader;
    struct archive_batch batch;
};

/* Two disks, of which clusters come in turns, `most` in an extent; the first cluster and the last
 * of each are there as a whole. */
static void start(struct reading *t, unsigned most)
{
    *t = (struct reading){.plan = {.kinds = FAULT_PREAD, .code = EIO, .bad = t->bad}};
    vmaimage_start(&t->v, 1);
    for (uint8_t id = FIRST; id <= SECOND; id++) {
        struct vmaimage_disk *d = vmaimage_add_disk(&t->v, id, id == FIRST ? "first" : "second",
                                                    CLUSTERS * VI_CLUSTER, true);
        memset(d->content, id, VI_CLUSTER);
        memset(d->content + (size_t)(CLUSTERS - 1) * VI_CLUSTER, id, VI_CLUSTER);
    }
    vmaimage_arrange(&t->v, VI_TURNS, 0);
    vmaimage_pack(&t->v, most, 0);
    vmaimage_write(&t->v);
    t->budget = budget_new(32 << 20);
}

static void add_bad(struct reading *t, hoff start, hoff end)
{
    MUST(t->plan.n_bad < sizeof t->bad / sizeof *t->bad);
    t->bad[t->plan.n_bad++] = (struct fault_range){start, end};
}

static int open_reader(struct reading *t, const struct archive_request *request,
                       struct platter_error *err)
{
    struct archive_request r = *request;
    struct stream *s;
    MUST(stream_buffer_open(&t->v.file, "archive.vma", false, &s, NULL) == 0);
    MUST(stream_fault_open(s, &t->plan, &t->stream, NULL) == 0);
    r.stream = t->stream;
    r.budget = t->budget;
    int e = vma_reader_open(&r, &t->reader, err);
    t->batch.room = e == 0 ? malloc(t->reader->batch_bytes) : NULL;
    return e;
}

static void close_reader(struct reading *t)
{
    if (t->reader)
        t->reader->ops->close(t->reader);
    free(t->batch.room);
    stream_close(t->stream);
    t->reader = NULL;
    t->batch = (struct archive_batch){0};
}

static void end(struct reading *t)
{
    budget_unref(t->budget);
    vmaimage_free(&t->v);
}

/* ---- what nobody wants -------------------------------------------------------------------------
 */

static bool want_second(void *opaque, const struct archive_disk *disk)
{
    (void)opaque;
    return disk->id == SECOND;
}

/* Data of one disk, as it comes; how much. */
static uint64_t check_data(const struct reading *t)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < t->batch.n_runs; i++) {
        const struct archive_run *run = &t->batch.runs[i];
        const uint8_t *content = t->v.disks[run->disk->id - FIRST].content + run->off;
        n += run->len;
        if (run->bytes)
            assert_memory_equal(run->bytes, content, run->len);
        else
            assert_true(run->zero && is_zero(content, run->len));
    }
    return n;
}

/* Not a byte of the data of another disk is read. */
static void test_other_disk(void **state)
{
    (void)state;
    for (unsigned most = 1; most <= VI_SLOTS; most += 29) {
        struct reading t;
        const struct archive_request request = {0};
        uint64_t n = 0;
        int r;
        start(&t, most);
        for (uint32_t c = 0; c < CLUSTERS; c++) {
            const struct vmaimage_slot *s = vmaimage_find(&t.v, FIRST, c);
            if (s->mask)
                add_bad(&t, s->off,
                        s->off + (unsigned)__builtin_popcount(s->mask) * (hoff)VI_BLOCK);
        }
        assert_works(open_reader(&t, &request, &err));
        t.reader->wanted = want_second;
        while ((r = t.reader->ops->next(t.reader, &t.batch, NULL)) > 0)
            n += check_data(&t);
        assert_int_equal(r, 0);
        assert_int_equal(n, CLUSTERS * VI_CLUSTER);
        assert_int_equal(t.plan.failed, 0);
        close_reader(&t);
        /* All of it is wanted: the first of them is met. */
        assert_works(open_reader(&t, &request, &err));
        while ((r = t.reader->ops->next(t.reader, &t.batch, NULL)) > 0)
            ;
        assert_int_equal(r, -EIO);
        close_reader(&t);
        end(&t);
    }
}

/* What is wanted, and stands together, is one read; so is the header of an extent. */
static void test_few_reads(void **state)
{
    (void)state;
    struct reading t;
    struct vmaimage_slot slots[2 * CLUSTERS];
    const struct archive_request request = {0};
    int r;
    start(&t, 4);
    assert_int_equal(t.v.n_extents, 4);
    for (unsigned i = 0; i < 2 * CLUSTERS; i++) /* first, first, second, second */
        slots[i] = *vmaimage_find(&t.v, i & 2 ? SECOND : FIRST, i / 4 * 2 + (i & 1));
    for (unsigned i = 0; i < 2 * CLUSTERS; i++)
        t.v.extents[i / 4].slots[i % 4] = slots[i];
    vmaimage_write(&t.v);
    assert_works(open_reader(&t, &request, &err));
    t.reader->wanted = want_second;
    uint64_t before = t.plan.calls;
    while ((r = t.reader->ops->next(t.reader, &t.batch, NULL)) > 0)
        check_data(&t);
    assert_int_equal(r, 0);
    assert_in_range(t.plan.calls - before, 4 + 2, 2 * 4 + 1);
    close_reader(&t);
    end(&t);
}

/* ---- what cannot be read -----------------------------------------------------------------------
 */

enum { SECTOR = 512, KINDS = ARCHIVE_FAULT_UNREADABLE + 1 };

struct found {
    struct reading *t;
    unsigned kinds[KINDS];
    hoff off; /* of the last UNREADABLE one */
    uint64_t span;
    bool missing[2][CLUSTERS * VI_BLOCKS];
    bool came[2][CLUSTERS * VI_BLOCKS];
};

static void mark(bool *blocks, goff start, uint64_t len)
{
    for (goff at = start; at < start + len; at += VI_BLOCK) {
        assert_false(blocks[at / VI_BLOCK]);
        blocks[at / VI_BLOCK] = true;
    }
}

static void take_fault(void *opaque, const struct archive_fault *f)
{
    struct found *found = opaque;
    found->kinds[f->kind]++;
    if (f->kind == ARCHIVE_FAULT_UNREADABLE) {
        found->off = f->off;
        found->span = f->span;
        assert_non_null(strstr(f->text, "cannot be read: Input/output error"));
    }
    if (f->kind == ARCHIVE_FAULT_MISSING)
        mark(found->missing[f->disk->id - FIRST], f->start, f->len);
}

/* Salvages all of it; what is told missing is, and all else comes as it was. */
static int salvage(struct reading *t, struct found *found, unsigned flags,
                   struct platter_error *err)
{
    const struct archive_request request = {
        .flags = ARCHIVE_SALVAGE | flags, .fault = take_fault, .opaque = found};
    uint64_t have[2];
    *found = (struct found){.t = t};
    t->plan.failed = t->plan.calls = 0;
    int r = open_reader(t, &request, err);
    while (r == 0 && (r = t->reader->ops->next(t->reader, &t->batch, err)) > 0) {
        for (unsigned i = 0; i < t->batch.n_runs; i++) {
            const struct archive_run *run = &t->batch.runs[i];
            mark(found->came[run->disk->id - FIRST], run->off, run->len);
        }
        for (unsigned i = 0; i < t->batch.n_runs && !flags; i++) {
            const struct archive_run *run = &t->batch.runs[i];
            const unsigned disk = run->disk->id - FIRST;
            for (uint64_t at = 0; at < run->len; at += VI_BLOCK) {
                bool missing = found->missing[disk][(run->off + at) / VI_BLOCK];
                const uint8_t *is = run->bytes ? run->bytes + at : NULL;
                const uint8_t *was = t->v.disks[disk].content + run->off + at;
                assert_true(missing ||
                            (is ? memcmp(is, was, VI_BLOCK) == 0 : is_zero(was, VI_BLOCK)));
            }
        }
        r = 0;
    }
    for (unsigned i = 0; r == 0 && i < t->reader->listing.n_disks; i++)
        have[i] = t->reader->ops->have(t->reader, &t->reader->listing.disks[i]);
    for (unsigned disk = 0; r == 0 && t->reader->listing.n_disks == 2 && disk < 2; disk++)
        for (unsigned i = 0; i < CLUSTERS * VI_BLOCKS; i++)
            have[disk] -= found->missing[disk][i] ? 0 : VI_BLOCK;
    if (r == 0 && t->reader->listing.n_disks == 2) {
        assert_int_equal(have[0], 0);
        assert_int_equal(have[1], 0);
    }
    close_reader(t);
    return r;
}

static unsigned count(const bool *blocks)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CLUSTERS * VI_BLOCKS; i++)
        n += blocks[i];
    return n;
}

/* One sector of a block: that block is missing, nothing else. */
static void test_data(void **state)
{
    (void)state;
    struct reading t;
    struct found found;
    start(&t, 4);
    const hoff at = vmaimage_find(&t.v, SECOND, 0)->off + 3 * VI_BLOCK + 2 * SECTOR;
    add_bad(&t, at, at + SECTOR);
    assert_works(salvage(&t, &found, 0, &err));
    assert_int_equal(found.kinds[ARCHIVE_FAULT_UNREADABLE], 1);
    assert_int_equal(found.off, at);
    assert_int_equal(found.span, SECTOR);
    assert_int_equal(found.kinds[ARCHIVE_FAULT_MISSING], 1);
    assert_true(found.missing[1][3]);
    assert_int_equal(count(found.missing[0]) + count(found.missing[1]), 1);
    assert_int_equal(found.kinds[ARCHIVE_FAULT_DOUBT] + found.kinds[ARCHIVE_FAULT_LOST], 0);
    /* Where nobody wants the data, nobody misses it. */
    assert_works(salvage(&t, &found, ARCHIVE_HEADERS, &err));
    assert_int_equal(found.kinds[ARCHIVE_FAULT_UNREADABLE] + found.kinds[ARCHIVE_FAULT_MISSING], 0);
    assert_int_equal(t.plan.failed, 0);
    end(&t);
}

/* The header of an extent: that one is lost, and its neighbours are not in doubt. */
static void test_header(void **state)
{
    (void)state;
    struct reading t;
    struct found found;
    start(&t, 4);
    const hoff at = t.v.extents[1].off;
    add_bad(&t, at, at + SECTOR);
    for (unsigned flags = 0; flags <= ARCHIVE_HEADERS; flags += ARCHIVE_HEADERS) {
        assert_works(salvage(&t, &found, flags, &err));
        assert_int_equal(found.kinds[ARCHIVE_FAULT_UNREADABLE], 1);
        assert_int_equal(found.off, at);
        assert_int_equal(found.kinds[ARCHIVE_FAULT_EXTENT], 1);
        assert_int_equal(found.kinds[ARCHIVE_FAULT_LOST], 1);
        assert_int_equal(found.kinds[ARCHIVE_FAULT_DOUBT] + found.kinds[ARCHIVE_FAULT_TRAILING], 0);
        assert_int_equal(count(found.missing[0]), 2 * VI_BLOCKS);
        assert_int_equal(count(found.missing[1]), 2 * VI_BLOCKS);
    }
    /* Without salvaging it is an error, as ever. */
    const struct archive_request request = {
        .flags = ARCHIVE_VERIFY, .fault = take_fault, .opaque = &found};
    int r;
    assert_works(open_reader(&t, &request, &err));
    while ((r = t.reader->ops->next(t.reader, &t.batch, NULL)) > 0)
        ;
    assert_int_equal(r, -EIO);
    close_reader(&t);
    end(&t);
}

/* The beginning of the archive: the extents tell what it is. */
static void test_beginning(void **state)
{
    (void)state;
    struct reading t;
    struct found found;
    start(&t, 4);
    add_bad(&t, 0, SECTOR);
    assert_works(salvage(&t, &found, 0, &err));
    assert_int_equal(found.kinds[ARCHIVE_FAULT_UNREADABLE], 1);
    assert_int_equal(found.kinds[ARCHIVE_FAULT_HEADER], 1);
    assert_int_equal(count(found.came[0]), CLUSTERS * VI_BLOCKS);
    assert_int_equal(count(found.came[1]), CLUSTERS * VI_BLOCKS);
    end(&t);
}

/* A disk that is gone is asked a few times, and the work ends; so it does where nothing was read.
 */
static void test_gone(void **state)
{
    (void)state;
    struct reading t;
    struct found found;
    start(&t, 4);
    add_bad(&t, t.v.extents[2].off + 5000, UINT64_MAX);
    assert_works(salvage(&t, &found, 0, &err));
    assert_int_equal(found.kinds[ARCHIVE_FAULT_UNREADABLE], 1);
    assert_int_equal(found.off + found.span, t.v.file.size);
    assert_in_range(t.plan.failed, 1, 200);
    assert_int_equal(count(found.missing[0]) >= 2 * VI_BLOCKS, true);
    t.bad[0].start = 0;
    assert_fails(salvage(&t, &found, 0, &err), PLATTER_ENOFORMAT, "no part of a VMA archive");
    assert_in_range(t.plan.failed, 1, 200);
    end(&t);
}

/* Every other sector of a long rest: it is given up. */
static void test_hopeless(void **state)
{
    (void)state;
    struct reading t;
    struct found found;
    start(&t, 4);
    const hoff from = t.v.file.size;
    struct buffer longer = buffer_copy(&t.v.file, from + (48 << 20));
    buffer_free(&t.v.file);
    t.v.file = longer;
    t.v.file.size = from + (48 << 20);
    t.bad[0] = (struct fault_range){from, from + SECTOR, 2 * SECTOR};
    t.plan.n_bad = 1;
    assert_fails(salvage(&t, &found, 0, &err), EIO, "reads that failed no more are tried");
    assert_true(t.plan.failed < 70000);
    end(&t);
}

static bool is_bad(const struct reading *t, hoff off, uint64_t len)
{
    for (unsigned i = 0; i < t->plan.n_bad; i++)
        if (off < t->bad[i].end && off + len > t->bad[i].start)
            return true;
    return false;
}

/* What has to be missing: what is in an extent without a header, and blocks of others. */
static void check_missing(const struct reading *t, const struct found *found)
{
    for (size_t i = 0; i < t->v.n_extents; i++) {
        const struct vmaimage_extent *e = &t->v.extents[i];
        bool lost = is_bad(t, e->off, VI_EXTENT);
        for (unsigned k = 0; k < VI_SLOTS; k++) {
            const struct vmaimage_slot *s = &e->slots[k];
            hoff at = s->off;
            for (unsigned b = 0; s->device && b < VI_BLOCKS; b++) {
                bool stored = s->mask >> b & 1, bad = lost || (stored && is_bad(t, at, VI_BLOCK));
                assert_int_equal(found->missing[s->device - FIRST][s->cluster * VI_BLOCKS + b],
                                 bad);
                assert_true(bad || found->came[s->device - FIRST][s->cluster * VI_BLOCKS + b]);
                at += stored ? VI_BLOCK : 0;
            }
        }
    }
}

/* Parts anywhere behind the header, 8 KiB and more from each other. */
static void test_anywhere(void **state)
{
    (void)state;
    struct prng p = {3};
    for (unsigned n = 0; n < 200; n++) {
        struct reading t;
        struct found found;
        start(&t, 1 + (unsigned)prng_below(&p, 6));
        hoff at = t.v.header_size + prng_below(&p, 300) * SECTOR;
        while (at < t.v.file.size && t.plan.n_bad < 60) {
            hoff bad_end = at + (1 + prng_below(&p, prng_below(&p, 4) ? 3 : 200)) * SECTOR;
            add_bad(&t, at, bad_end);
            at = bad_end + (16 + prng_below(&p, 200)) * SECTOR;
        }
        assert_works(salvage(&t, &found, 0, &err));
        check_missing(&t, &found);
        end(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_other_disk), cmocka_unit_test(test_few_reads),
        cmocka_unit_test(test_data),       cmocka_unit_test(test_header),
        cmocka_unit_test(test_beginning),  cmocka_unit_test(test_gone),
        cmocka_unit_test(test_hopeless),   cmocka_unit_test(test_anywhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
