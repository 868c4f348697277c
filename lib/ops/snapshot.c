/* SPDX-License-Identifier: MIT */
/* Snapshots inside an image: what the public functions add to those of the disk. */
#include <time.h>

#include "base/ckd.h"
#include "base/teller.h"
#include "ops/ops.h"

int ops_snapshot_create(struct platter_disk *disk, const struct platter_snapshot_options *o,
                        char **ret_id, struct platter_error *err)
{
    struct snapshot_request request = {.name = o->name,
                                       .id = o->id,
                                       .unique = o->flags & PLATTER_SNAPSHOT_UNIQUE,
                                       .date_sec = o->date_sec,
                                       .date_nsec = o->date_nsec,
                                       .clock_nsec = o->clock_nsec,
                                       .icount = o->has_icount ? o->icount : UINT64_MAX,
                                       .vm_state_size = o->vm_state_size};
    struct timespec now;
    if (!o->has_date && clock_gettime(CLOCK_REALTIME, &now) == 0) {
        request.date_sec = (uint32_t)now.tv_sec;
        request.date_nsec = (uint32_t)now.tv_nsec;
    }
    struct teller teller = {.fn = o->progress, .opaque = o->opaque};
    int r = disk_snapshot_create(disk, &request, &teller, err);
    if (ret_id)
        *ret_id = TAKE(request.ret_id);
    free(request.ret_id);
    return r;
}

int ops_snapshot_apply(struct platter_disk *disk, const char *snapshot, unsigned by,
                       platter_progress_fn progress, void *opaque, struct platter_error *err)
{
    struct teller teller = {.fn = progress, .opaque = opaque};
    return disk_snapshot_apply(disk, snapshot, by, &teller, err);
}

int ops_snapshot_delete(struct platter_disk *disk, const char *snapshot, unsigned by,
                        platter_progress_fn progress, void *opaque, struct platter_error *err)
{
    struct teller teller = {.fn = progress, .opaque = opaque};
    return disk_snapshot_delete(disk, snapshot, by, &teller, err);
}

static unsigned flags_of(enum extent_kind kind)
{
    switch (kind) {
    case EXTENT_ZERO:
        return PLATTER_EXTENT_PRESENT | PLATTER_EXTENT_ZERO;
    case EXTENT_DATA:
        return PLATTER_EXTENT_PRESENT | PLATTER_EXTENT_DATA;
    case EXTENT_PACKED:
        return PLATTER_EXTENT_PRESENT | PLATTER_EXTENT_DATA | PLATTER_EXTENT_PACKED;
    case EXTENT_BACKING:
        break;
    }
    return 0;
}

int ops_snapshot_diff(struct platter_disk *disk, const char *from, const char *to,
                      platter_snapshot_diff_fn fn, void *opaque, uint64_t ret_sizes[2],
                      struct platter_error *err)
{
    struct snapshot_difference difference;
    struct disk_diff d;
    int r = disk_snapshot_diff_open(disk, from, to, &d, err);
    if (r < 0)
        return r;
    for (goff off = 0; (r = disk_snapshot_diff_next(&d, off, &difference, err)) > 0;) {
        struct platter_snapshot_difference told = {.size = sizeof told,
                                                   .offset = difference.off,
                                                   .length = difference.len,
                                                   .flags = flags_of(difference.kind)};
        if (fn(opaque, &told) != 0) {
            r = fail(err, ECANCELED, "cancelled");
            break;
        }
        off = difference.off + difference.len;
    }
    ret_sizes[0] = d.sizes[0];
    ret_sizes[1] = d.sizes[1];
    disk_snapshot_diff_close(&d);
    return r;
}
