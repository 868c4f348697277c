/* SPDX-License-Identifier: MIT */
/*
 * A resize, a commit and a rebase whose N-th call to a file, or N-th allocation, fails, for N = 1,
 * 2, ... until all pass: whatever was done by then, a guest sees the disk it had; and what was said
 * to be done is. Where nothing but the one call failed the work can be done again.
 *
 * reshape [case ...]
 */
#include "support/reshape.h"
#include "base/memory.h"
#include "support/alloc.h"
#include "support/fault.h"
#include "support/must.h"
#include "support/seen.h"

static int wrap(struct reshape_place *place, enum reshape_file file, struct stream *base,
                struct stream **ret, struct platter_error *err)
{
    (void)file;
    struct fault_plan *plan = place->opaque;
    return plan->kinds ? stream_fault_open(base, plan, ret, err) : (*ret = base, 0);
}

/* The work with one fault. *ret_struck: there was one. */
static int run_once(const struct reshape *r, const struct fault_way *way, uint64_t at,
                    struct buffer *files, struct reshape_place *place, bool *ret_struck)
{
    struct platter_error err = {0};
    struct fault_plan plan = fault_way_plan(way, at);
    *place = reshape_place_of(r->files, files);
    place->wrap = wrap;
    place->opaque = &plan;
    if (way->kinds == 0)
        alloc_fail_at(at, way->lasting);
    int e = reshape_run(r, place, &err);
    *ret_struck = way->kinds ? plan.failed > 0 : alloc_failed() > 0;
    alloc_fail_at(0, false);
    place->wrap = NULL;
    if (e < 0 && (err.code != -e || err.message[0] == '\0')) {
        fprintf(stderr, "code %d without a sentence\n", e);
        return 1;
    }
    return e;
}

static bool do_again(const struct reshape *r, struct reshape_place *place, char *why,
                     size_t why_size)
{
    struct platter_error err = {0};
    int e = reshape_run(r, place, &err);
    if (e == -EEXIST) /* a new file that was left behind: it is not written over */
        return true;
    if (e < 0)
        snprintf(why, why_size, "doing it again: %.200s", err.message);
    return e == 0 && reshape_judge(r, place, true, why, why_size);
}

/* Whether the files were never left like this before, with this answer. */
static bool is_new(struct seen *seen, const struct reshape_place *place, bool done)
{
    uint64_t hash = done;
    for (int i = 0; i < RESHAPE_FILES; i++)
        hash = seen_hash(place->files[i].bytes, place->files[i].size, 2 * hash + place->there[i]);
    return seen_add(seen, hash);
}

/* 1: there are no more calls to fail. */
static int strike(const struct reshape *r, const struct fault_way *way, uint64_t at,
                  struct seen *seen)
{
    char why[256] = "no sentence";
    struct buffer files[RESHAPE_FILES];
    struct reshape_place place;
    bool struck;
    int e = run_once(r, way, at, files, &place, &struck);
    bool good = e <= 0, new = is_new(seen, &place, e == 0);
    if (good && new)
        good = reshape_judge(r, &place, e == 0, why, sizeof why);
    if (good && new &&e < 0)
        good = do_again(r, &place, why, sizeof why);
    if (good && !struck && e < 0) {
        snprintf(why, sizeof why, "it fails without a fault");
        good = false;
    }
    if (!good)
        fprintf(stderr, "%s, %s, number %llu: %s\n", r->of->name, way->name, (unsigned long long)at,
                why);
    for (int i = 0; i < RESHAPE_FILES; i++)
        buffer_free(&files[i]);
    return !good ? -1 : !struck;
}

static int run_case(const struct reshape_case *of)
{
    struct reshape r = reshape_make(of);
    struct seen seen = {0};
    int e = 0;
    uint64_t faults = 0;
    for (size_t i = 0; i < FAULT_WAYS && e >= 0; i++) {
        uint64_t at = 1;
        while ((e = strike(&r, &fault_ways[i], at, &seen)) == 0)
            at++;
        faults += at - 1;
    }
    printf("%-20s %5llu faults, %4zu distinct ends%s\n", of->name, (unsigned long long)faults,
           seen.n, e < 0 ? ": FAILED" : "");
    fflush(stdout);
    seen_free(&seen);
    reshape_free(&r);
    return e < 0;
}

int main(int argc, char **argv)
{
    return reshape_main(argc, argv, run_case);
}
