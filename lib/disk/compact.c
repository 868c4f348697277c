/* SPDX-License-Identifier: MIT */
/* What the file of the top image holds moves to its front, while everybody else waits. */
#include "disk/inside.h"

static int compact_held(struct platter_disk *disk, struct compact_request *request,
                        struct platter_error *err)
{
    struct image *top = disk_top(disk);
    int r = 0;
    if (!request->dry_run)
        r = disk_check_writable(disk, "compact", 0, 0, err);
    if (r == 0 && !request->dry_run)
        r = top->format->flush(top, err);
    return r < 0 ? r : top->format->compact(top, request, err);
}

int disk_compact(struct platter_disk *disk, struct compact_request *request,
                 struct platter_error *err)
{
    const struct image *top = disk_top(disk);
    struct range_hold hold;
    if (!top->format->compact)
        return fail(err, ENOTSUP,
                    "%s: images of the %s format cannot be compacted in place: convert makes a "
                    "smaller copy",
                    top->stream->name, top->format->name);
    range_lock_take(&disk->ranges, &hold, 0, UINT64_MAX, true);
    int r = compact_held(disk, request, err);
    unit_cache_drop(disk->cache, disk_top(disk), 0, UINT64_MAX);
    range_lock_give(&disk->ranges, &hold);
    return r;
}
