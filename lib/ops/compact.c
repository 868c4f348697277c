/* SPDX-License-Identifier: MIT */
/*
 * Compaction of one image. What makes no sense is not moved about: the image is checked first, and
 * leaks are given back, which nobody could move.
 */
#include <inttypes.h>

#include "base/teller.h"
#include "ops/ops.h"

/* Opens the image alone, and has its format at work. */
static int run(const char *name, const struct platter_open_options *open,
               struct compact_request *request, struct platter_error *err)
{
    struct platter_open_options own = *open;
    struct platter_disk *disk;
    own.flags |= PLATTER_OPEN_NO_BACKING;
    own.flags |= request->dry_run ? PLATTER_OPEN_QUERY : PLATTER_OPEN_WRITE;
    int r = disk_open(name, &own, &disk, err);
    if (r < 0)
        return r;
    request->result.format = disk_top(disk)->format->name;
    r = disk_compact(disk, request, err);
    int closed = disk_close(disk, r < 0 ? NULL : err);
    return r < 0 ? r : closed;
}

/* Nothing moves during the check, but it can be cancelled. */
static int tell_check(void *opaque, const struct platter_progress *now)
{
    return teller_tell(opaque, 0, now->total, NULL) < 0;
}

static int check_first(const char *name, const struct platter_open_options *open, bool repair,
                       struct teller *teller, uint64_t *ret_leaks, struct platter_error *err)
{
    const struct platter_check_options options = {.size = sizeof options,
                                                  .flags = repair ? PLATTER_CHECK_REPAIR_LEAKS : 0,
                                                  .progress = tell_check,
                                                  .opaque = teller};
    struct platter_check_result found = {.size = sizeof found};
    int r = ops_check(name, &options, open, &found, err);
    if (r < 0)
        return r;
    *ret_leaks = found.leaks + found.leaks_fixed;
    if (found.corruptions)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: is damaged (errors: %" PRIu64 "), and not compacted: check tells what is "
                    "wrong, and check -r all repairs it",
                    name, found.corruptions);
    if (found.check_errors)
        return fail(err, EIO, "%s: not all of it could be checked, and it is not compacted", name);
    return 0;
}

int ops_compact(const char *name, const struct platter_compact_options *o,
                const struct platter_open_options *open, struct platter_compact_result *ret,
                struct platter_error *err)
{
    struct teller teller = {.fn = o->progress, .opaque = o->opaque};
    struct compact_request look = {.dry_run = true, .inquiry = true};
    struct compact_request request = {.dry_run = o->flags & PLATTER_COMPACT_DRY_RUN,
                                      .zeros = o->flags & PLATTER_COMPACT_ZEROS,
                                      .teller = &teller};

    /* Refuses what cannot be compacted before anything is changed. All that costs time is left for
     * tables that were checked. */
    int r = run(name, open, &look, err);
    uint64_t leaks = 0;
    if (r == 0)
        r = check_first(name, open, !request.dry_run, &teller, &leaks, err);
    request.result = look.result;
    request.result.leaks = leaks;
    request.result.clusters_moved = 0;
    request.result.new_size = look.result.file_size;
    if (r == 0)
        r = run(name, open, &request, err);
    /* What the leaks took at the end is gone already. */
    request.result.file_size = look.result.file_size;
    request.result.size = ret->size;
    *ret = request.result;
    return r;
}
