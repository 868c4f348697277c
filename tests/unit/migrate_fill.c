/* SPDX-License-Identifier: MIT */
/* A disk that is filled from a source parts of which cannot be read. */
#include "partial_kit.h"

#include "ops/copy.h"
#include "support/fault.h"

enum { MIB = 1 << 20 };

static void open_over_bad(struct kit *k, struct fault_plan *plan)
{
    struct stream *below = over(&k->below, "below", false);
    assert_works(stream_fault_open(below, plan, &below, &err));
    assert_works(partial_disk_open(over(&k->data, "data", true), over(&k->map, "map", true), below,
                                   true, 0, &k->disk, &err));
}

/* Copy on read fetches more than a guest asks for: that is not to keep him from it. */
static void test_bad_neighbour(void **state)
{
    (void)state;
    const struct fault_range bad = {.start = 9000, .end = 9001};
    struct fault_plan plan = {.kinds = FAULT_PREAD, .code = EIO, .bad = &bad, .n_bad = 1};
    struct kit k = kit_new(4 * UNIT, UNIT);
    struct filling filling;
    uint8_t bytes[UNIT];
    open_over_bad(&k, &plan);
    partial_filling_start(&filling, k.disk);
    assert_works(disk_read(k.disk, bytes, 8192, 0, &err));
    assert_memory_equal(bytes, k.flat, 8192);
    assert_works(disk_read(k.disk, bytes, 4096, 12288, &err));
    assert_memory_equal(bytes, k.flat + 12288, 4096);
    assert_int_equal(filling.failed_reads, 0);
    assert_fails(disk_read(k.disk, bytes, 512, 8704, &err), EIO, "");
    assert_int_equal(filling.failed_reads, 1);
    assert_fails(disk_read(k.disk, bytes, UNIT, 0, &err), EIO, "");
    assert_run(k.disk, 0, 4 * UNIT, EXTENT_BACKING, 4 * UNIT);
    assert_works(disk_read(k.disk, bytes, 512, UNIT, &err));
    assert_run(k.disk, UNIT, UNIT, EXTENT_DATA, UNIT);
    k.disk->filling = NULL;
    kit_free(&k);
}

/* More than the copy has in hand at once is bad: it goes on behind it. */
static void test_long_bad_part(void **state)
{
    (void)state;
    const struct fault_range bad = {.start = 0, .end = 12 * MIB};
    struct fault_plan plan = {.kinds = FAULT_PREAD, .code = EIO, .bad = &bad, .n_bad = 1};
    struct kit k = kit_new(20 * MIB, UNIT);
    struct platter_disk *below;
    struct sources sources = {0};
    uint64_t holes = 0;
    open_over_bad(&k, &plan);
    struct copy c = {.sources = &sources,
                     .gaps = COPY_GAPS_FILL,
                     .target = k.disk,
                     .zeros = true,
                     .sparse = COPY_SPARSE,
                     .salvage = true,
                     .workers = 2,
                     .budget = budget_new(COPY_MEMORY)};
    assert_works(disk_borrow(k.disk, 1, 1, &below, &err));
    assert_works(sources_open(&sources, &below, 1, &err));
    assert_works(sink_fill_open(k.disk, &c.sink, &err));
    assert_works(copy_run(&c, &holes, &err));
    assert_int_equal(holes, 1);
    assert_run(k.disk, 0, 20 * MIB, EXTENT_BACKING, 12 * MIB);
    assert_run(k.disk, 12 * MIB, 8 * MIB, EXTENT_DATA, 8 * MIB);
    c.sink->ops->close(c.sink);
    sources_close(&sources);
    disk_close(below, NULL);
    budget_unref(c.budget);
    kit_free(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_neighbour),
        cmocka_unit_test(test_long_bad_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
