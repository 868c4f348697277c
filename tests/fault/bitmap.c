/* SPDX-License-Identifier: MIT */
/*
 * Dirty bitmaps where the N-th call to the file, or the N-th allocation, fails, for N = 1, 2, ...
 * until all pass: what is then on the disk is what was stored before or after, right about all that
 * changed, or in use.
 */
#include "base/memory.h"
#include "ops/ops.h"
#include "support/alloc.h"
#include "support/dirty.h"
#include "support/fault.h"
#include "support/must.h"

enum { STEPS = 24 };

static int complain(const struct fault_way *way, uint64_t at, const char *why)
{
    fprintf(stderr, "%s, number %llu: %s\n", way->name, (unsigned long long)at, why);
    return -1;
}

static bool has_struck(const struct fault_plan *plan)
{
    return plan->failed > 0;
}

/* The same calls each time; goes on after those that fail, to the next close. */
static void work(struct dirty *d, struct buffer *file, struct fault_plan *plan)
{
    struct platter_error err = {0};
    struct stream *s;
    for (int session = 0; session < 2 && !has_struck(plan); session++) {
        MUST(stream_buffer_open(file, "image", true, &s, NULL) == 0);
        MUST(stream_fault_open(s, plan, &s, NULL) == 0);
        if (dirty_open(d, s, &err) < 0)
            continue;
        for (int i = 0; i < STEPS; i++)
            dirty_step(d, &err);
        dirty_close(d, &err);
    }
}

/* 1: there are no more calls to fail. */
static int strike(const struct buffer *image, const struct fault_way *way, uint64_t at)
{
    struct fault_plan plan = fault_way_plan(way, at);
    struct buffer file = buffer_copy(image, 16 << 20);
    struct dirty d;
    char why[256] = "";

    dirty_init(&d, 3);
    work(&d, &file, &plan);
    bool struck = has_struck(&plan);
    bool good = dirty_allows(&d, &file, SIZE_MAX - 1, why, sizeof why);
    if (good && !struck)
        good = dirty_matches(&d, &file, why, sizeof why);
    dirty_free(&d);
    buffer_free(&file);
    return !good ? complain(way, at, why) : !struck;
}

/* ---- allocations -------------------------------------------------------------------------------
 */

enum { AT = 8192 }; /* what is written */

static struct platter_disk *open_plain(struct buffer *file, bool writable)
{
    const struct format *format = &format_qcow2;
    struct platter_disk *disk;
    struct stream *s;
    MUST(stream_buffer_open(file, "image", writable, &s, NULL) == 0);
    MUST(disk_assemble(&s, &format, 1, writable, true, 0, NULL, &disk, NULL) == 0);
    return disk;
}

static int change(struct platter_disk *disk, enum platter_bitmap_action action, const char *name,
                  const char *source)
{
    const struct platter_bitmap_change c = {
        .size = sizeof c, .action = action, .name = name, .source_name = source};
    return ops_bitmap_change(disk, &c, 1, NULL);
}

/* Whether each bitmap that is valid knows of the write, if that shows; `all`: both are there, and
 * valid. */
static bool knows(struct buffer *file, bool all)
{
    struct platter_disk *disk = open_plain(file, false);
    const struct bitmap_ops *ops = disk_top(disk)->format->bitmaps;
    auto_free struct bitmap_info *list = NULL;
    size_t n, valid = 0;
    uint64_t len;
    uint8_t byte;
    bool good = true, dirty;

    MUST(disk_read(disk, &byte, 1, AT, NULL) == 0);
    MUST(ops->list(disk_top(disk), &list, &n, NULL) == 0);
    for (size_t i = 0; i < n; i++) {
        if (list[i].in_use)
            continue;
        MUST(ops->map(disk_top(disk), list[i].name, AT, 1, &len, &dirty, NULL) == 0);
        good = good && (byte == 0 || dirty);
        valid++;
    }
    disk_close(disk, NULL);
    return good && (!all || valid == 2);
}

/* Opened with a bitmap, another one added, a write, one merged into the other. 1: no more. */
static int strike_allocation(const struct buffer *image, uint64_t at)
{
    static const struct fault_way way = {.name = "allocations"};
    const uint8_t bytes[512] = {1};
    struct buffer file = buffer_copy(image, 16 << 20);
    struct platter_disk *disk = open_plain(&file, true);

    alloc_fail_at(at, false);
    int done = change(disk, PLATTER_BITMAP_ADD, "second", NULL) |
               disk_write(disk, bytes, sizeof bytes, AT, NULL);
    done |= change(disk, PLATTER_BITMAP_MERGE, "second", "first");
    done |= disk_close(disk, NULL);
    bool struck = alloc_failed() > 0;
    alloc_fail_at(0, false);
    bool good = knows(&file, done == 0);
    buffer_free(&file);
    return !good ? complain(&way, at, "a bitmap does not know of a write") : !struck;
}

static int strike_allocations(struct buffer *image)
{
    struct platter_disk *disk = open_plain(image, true);
    uint64_t at = 1;
    int e;
    MUST(change(disk, PLATTER_BITMAP_ADD, "first", NULL) == 0 && disk_close(disk, NULL) == 0);
    while ((e = strike_allocation(image, at)) == 0)
        at++;
    printf("%-28s %6llu calls%s\n", "allocations", (unsigned long long)at - 1,
           e < 0 ? ": FAILED" : "");
    return e;
}

int main(void)
{
    struct buffer image = dirty_image(4096);
    int e = 0;
    for (size_t i = 0; i < FAULT_WAYS && e >= 0; i++) {
        if (fault_ways[i].kinds == 0) /* allocations fail below */
            continue;
        uint64_t at = 1;
        while ((e = strike(&image, &fault_ways[i], at)) == 0)
            at += 1 + at / 64;
        printf("%-28s %6llu calls%s\n", fault_ways[i].name, (unsigned long long)at - 1,
               e < 0 ? ": FAILED" : "");
        fflush(stdout);
    }
    if (e >= 0)
        e = strike_allocations(&image);
    buffer_free(&image);
    return e < 0;
}
