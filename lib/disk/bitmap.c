/* SPDX-License-Identifier: MIT */
/* Changing the dirty bitmaps of a disk, while everybody else waits. */
#include "base/ckd.h"
#include "disk/inside.h"

/* The disks that are held, each once: in the order of their addresses, so that nobody waits for
 * somebody who waits for him. */
struct held {
    struct platter_disk *disk;
    struct range_hold hold;
};

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)((const struct held *)a)->disk;
    uintptr_t y = (uintptr_t)((const struct held *)b)->disk;
    return (x > y) - (x < y);
}

static size_t sort_disks(struct held *held, size_t n)
{
    size_t used = 0;
    qsort(held, n, sizeof *held, by_address);
    for (size_t i = 0; i < n; i++)
        if (used == 0 || held[used - 1].disk != held[i].disk)
            held[used++].disk = held[i].disk;
    return used;
}

int disk_change_bitmaps(struct platter_disk *disk, const struct bitmap_change *changes, size_t n,
                        struct platter_disk *const *sources, size_t n_sources,
                        struct platter_error *err)
{
    struct image *top = disk_top(disk);
    auto_free struct held *held = calloc(n_sources + 1, sizeof *held);
    if (!held)
        return fail_memory(err, "changes of bitmaps");
    for (size_t i = 0; i < n_sources; i++)
        held[i].disk = sources[i];
    held[n_sources].disk = disk;
    size_t n_held = sort_disks(held, n_sources + 1);
    for (size_t i = 0; i < n_held; i++) {
        if (held[i].disk == disk && disk->writable)
            range_lock_take(&disk->ranges, &held[i].hold, 0, UINT64_MAX, true);
        else
            disk_pin(held[i].disk, &held[i].hold);
    }
    int r = disk_check_writable(disk, "a change of bitmaps", 0, 0, err);
    if (r == 0)
        r = top->format->bitmaps->change(top, changes, n, err);
    for (size_t i = 0; i < n_held; i++) /* gives an exclusive hold back as well */
        disk_unpin(held[i].disk, &held[i].hold);
    return r;
}
