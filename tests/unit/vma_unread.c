/* SPDX-License-Identifier: MIT */
/* What is not read of an archive because nobody wants it. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_other_disk),
                                       cmocka_unit_test(test_few_reads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
