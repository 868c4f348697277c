/* SPDX-License-Identifier: MIT */
/*
 * Making, applying and deleting a snapshot, or giving up parts of a disk that has some, whose N-th
 * call to the file, or N-th allocation, fails, for N = 1, 2, ... until all pass: the disk is the
 * old one or the new one, every snapshot holds what it held, and the image can be worked on.
 *
 * snapshot [specimen ...]
 */
#include "base/memory.h"
#include "support/alloc.h"
#include "support/fault.h"
#include "support/must.h"
#include "support/seen.h"
#include "support/snapshots.h"

static void note_done(void *opaque)
{
    *(bool *)opaque = true;
}

/* The change with one fault; *ret_struck: there was one. */
static int run_once(const struct snapshot_case *c, const struct fault_way *way, uint64_t at,
                    struct buffer *file, bool *ret_done, bool *ret_struck)
{
    struct platter_error err = {0};
    struct fault_plan plan = fault_way_plan(way, at);
    struct stream *top;
    MUST(stream_buffer_open(file, "top", true, &top, NULL) == 0);
    if (way->kinds)
        MUST(stream_fault_open(top, &plan, &top, NULL) == 0);
    else
        alloc_fail_at(at, way->lasting);
    int r = snapshot_case_run(c, top, note_done, ret_done, &err);
    *ret_struck = way->kinds ? plan.failed > 0 : alloc_failed() > 0;
    alloc_fail_at(0, false);
    if (r < 0 && (err.code != -r || err.message[0] == '\0')) {
        fprintf(stderr, "code %d without a sentence\n", r);
        return 1;
    }
    return r;
}

/* 1: there are no more calls to fail. */
static int strike(const struct snapshot_case *c, const struct fault_way *way, uint64_t at,
                  struct seen *seen)
{
    struct buffer file = buffer_copy(&c->before, c->before.capacity);
    bool done = false, struck = false;
    char why[512] = "no sentence";
    int r = run_once(c, way, at, &file, &done, &struck);
    bool refused = c->overflows && r == -EOVERFLOW;
    enum change_stage stage = r == 0               ? CHANGE_CLOSED
                              : refused && !struck ? CHANGE_REFUSED
                              : done               ? CHANGE_DONE
                                                   : CHANGE_BEGUN;
    bool good = r <= 0, is_new = seen_add(seen, seen_hash(file.bytes, file.size, stage));
    if (good && is_new)
        good = snapshot_case_judge(c, &file, stage, why, sizeof why);
    if (good && is_new)
        good = snapshot_case_go_on(c, &file, why, sizeof why);
    if (good && !struck && r < 0 && !refused) {
        snprintf(why, sizeof why, "it fails without a fault");
        good = false;
    }
    if (!good)
        fprintf(stderr, "%s, %s, %s, number %llu: %s\n", c->specimen.spec->name,
                change_names[c->change], way->name, (unsigned long long)at, why);
    buffer_free(&file);
    return !good ? -1 : !struck;
}

static int run_case(const struct specimen_spec *spec, enum change change)
{
    struct snapshot_case c;
    struct seen seen = {0}; /* files at their stages */
    uint64_t faults = 0;
    int r = 0;
    if (!snapshot_case_make(spec, change, &c))
        return 0;
    for (size_t i = 0; i < FAULT_WAYS && r >= 0; i++) {
        uint64_t at = 1;
        while ((r = strike(&c, &fault_ways[i], at, &seen)) == 0)
            at++;
        faults += at - 1;
    }
    printf("%-28s %-8s %5llu faults, %4zu distinct ends%s\n", spec->name, change_names[change],
           (unsigned long long)faults, seen.n, r < 0 ? ": FAILED" : "");
    fflush(stdout);
    seen_free(&seen);
    snapshot_case_free(&c);
    return r < 0;
}

int main(int argc, char **argv)
{
    return snapshot_case_main(argc, argv, run_case);
}
