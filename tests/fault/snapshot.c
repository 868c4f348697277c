/* SPDX-License-Identifier: MIT */
/*
 * Making, applying and deleting a snapshot, whose N-th call to the file, or N-th allocation, fails,
 * for N = 1, 2, ... until all pass: the disk is the old one or the new one, every snapshot holds
 * what it held, and the image can be worked on.
 *
 * snapshot [specimen ...]
 */
#include "base/memory.h"
#include "support/alloc.h"
#include "support/fault.h"
#include "support/must.h"
#include "support/snapshots.h"

struct fault_way {
    const char *name;
    unsigned kinds; /* 0: allocations */
    bool lasting, torn;
    int code;
};

static const struct fault_way ways[] = {
    {"each call once", FAULT_ALL, false, false, EIO},
    {"torn writes from there on", FAULT_WRITES, true, true, EIO},
    {"full from there on", FAULT_PWRITE | FAULT_ZERO | FAULT_RESIZE, true, false, ENOSPC},
    {"allocations", 0, false, false, ENOMEM},
};

static void note_done(void *opaque)
{
    *(bool *)opaque = true;
}

/* The change with one fault; *ret_struck: there was one. */
static int run_once(const struct snapshot_case *c, const struct fault_way *way, uint64_t at,
                    struct buffer *file, bool *ret_done, bool *ret_struck)
{
    struct platter_error err = {0};
    struct fault_plan plan = {.kinds = way->kinds,
                              .at = at,
                              .lasting = way->lasting,
                              .torn = way->torn,
                              .code = way->code};
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
static int strike(const struct snapshot_case *c, const struct fault_way *way, uint64_t at)
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
    bool good = r <= 0 && snapshot_case_judge(c, &file, stage, why, sizeof why);
    if (good)
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
    uint64_t faults = 0;
    int r = 0;
    if (!snapshot_case_make(spec, change, &c))
        return 0;
    for (size_t i = 0; i < sizeof ways / sizeof *ways && r >= 0; i++) {
        uint64_t at = 1;
        while ((r = strike(&c, &ways[i], at)) == 0)
            at++;
        faults += at - 1;
    }
    printf("%-28s %-8s %5llu faults%s\n", spec->name, change_names[change],
           (unsigned long long)faults, r < 0 ? ": FAILED" : "");
    fflush(stdout);
    snapshot_case_free(&c);
    return r < 0;
}

static bool wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc < 2;
}

int main(int argc, char **argv)
{
    unsigned failed = 0, ran = 0;
    for (const struct specimen_spec *spec = specimens; spec->name; spec++) {
        if (strcmp(spec->format, "qcow2") != 0 || !wanted(spec->name, argc, argv))
            continue;
        for (enum change change = 0; change < CHANGES; change++, ran++)
            failed += run_case(spec, change) != 0;
    }
    return failed > 0 || ran == 0;
}
