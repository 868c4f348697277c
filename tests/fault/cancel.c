/* SPDX-License-Identifier: MIT */
/*
 * A compaction that is cancelled when it asks for the N-th time whether to go on, for N = 1, 2, ...
 * until it comes to its end: disk and snapshots are what they were, nothing is leaked, and the
 * image can be worked on.
 *
 * cancel [specimen ...]
 */
#include "base/teller.h"
#include "support/damage.h"
#include "support/must.h"
#include "support/snapshots.h"

struct cancel {
    struct teller teller;
    uint64_t asked, at;
};

/* It is to be asked each time, not only now and then. */
static int answer(void *opaque, const struct platter_progress *now)
{
    struct cancel *c = opaque;
    MUST(now->done <= now->total);
    c->teller.told_ns = 0;
    return ++c->asked == c->at;
}

static int compact(const struct snapshot_case *c, struct buffer *file, struct cancel *cancel,
                   struct platter_error *err)
{
    struct compact_request request = {.teller = &cancel->teller};
    struct platter_disk *disk;
    struct stream *top;
    MUST(stream_buffer_open(file, "top", true, &top, NULL) == 0);
    MUST(specimen_open(&c->specimen, top, true, &disk, NULL) == 0);
    int r = disk_compact(disk, &request, err);
    int e = disk_close(disk, r < 0 ? NULL : err);
    return r < 0 ? r : e;
}

/* Nothing is wrong, flags that are missing included, which our own checker lets pass. */
static bool is_right(struct buffer *file, char *why, size_t why_size)
{
    struct platter_check_result found = {0};
    struct platter_error err = {0};
    struct stream *top;
    MUST(stream_buffer_open(file, "top", false, &top, NULL) == 0);
    int r = damage_check(top, false, &found, &err);
    bool good = r == 0 && found.corruptions == 0 && found.check_errors == 0 && found.leaks == 0;
    if (!good)
        snprintf(why, why_size, "the check finds %llu errors and %llu leaks: %.200s",
                 (unsigned long long)found.corruptions, (unsigned long long)found.leaks,
                 err.message);
    return good;
}

/* 1: it came to its end. */
static int strike(const struct snapshot_case *c, uint64_t at)
{
    struct buffer file = buffer_copy(&c->before, c->before.capacity);
    struct cancel cancel = {.teller = {.fn = answer, .opaque = &cancel}, .at = at};
    struct platter_error err = {0};
    char why[512] = "";
    int r = compact(c, &file, &cancel, &err);
    bool good = r == 0 ? cancel.asked < at : r == -ECANCELED && cancel.asked == at;
    if (!good)
        snprintf(why, sizeof why, "%d: %.200s", r, err.message);
    if (good)
        good = snapshot_case_judge(c, &file, CHANGE_REFUSED, why, sizeof why);
    if (good && c->leaks == 0)
        good = is_right(&file, why, sizeof why);
    if (good)
        good = snapshot_case_go_on(c, &file, why, sizeof why);
    if (good && file.size > c->before.size) {
        snprintf(why, sizeof why, "the file is larger than it was");
        good = false;
    }
    if (!good)
        fprintf(stderr, "%s, number %llu: %s\n", c->specimen.spec->name, (unsigned long long)at,
                why);
    buffer_free(&file);
    return !good ? -1 : r == 0;
}

static int run_case(const struct specimen_spec *spec, enum change change)
{
    struct snapshot_case c;
    uint64_t at = 1;
    int r;
    if (change != CHANGE_COMPACT || !snapshot_case_make(spec, change, &c))
        return 0;
    while ((r = strike(&c, at)) == 0)
        at++;
    printf("%-28s asked %llu times%s\n", spec->name, (unsigned long long)at - 1,
           r < 0 ? ": FAILED" : "");
    snapshot_case_free(&c);
    return r < 0;
}

int main(int argc, char **argv)
{
    return snapshot_case_main(argc, argv, run_case);
}
