/* SPDX-License-Identifier: MIT */
/* Another size for the disk, while everybody else waits. */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "disk/inside.h"

static uint64_t size_below(const struct platter_disk *disk)
{
    return disk->depth > 1 ? disk->chain[1]->size : 0;
}

/* Where the disk ends inside a unit that is not stored, what is below shows in the rest of the unit
 * as soon as that belongs to the disk. Stored, it has zeros there: so its last bytes are written
 * back to where they came from. */
static int store_last_unit(struct platter_disk *disk, struct platter_error *err)
{
    struct image *top = disk_top(disk);
    uint64_t size = top->size;
    struct extent e;
    uint8_t bytes[512];
    size_t n = (size_t)min_u64(size, sizeof bytes);
    if ((size % top->unit == 0 && !top->askew) || size_below(disk) <= size)
        return 0;
    int r = top->format->map(top, size - n, n, &e, err);
    if (r < 0 || e.kind != EXTENT_BACKING)
        return r;
    r = disk_read_held(disk, bytes, n, size - n, err);
    if (r == 0)
        r = disk_write_held(disk, bytes, n, size - n, err);
    return r;
}

/* A resize, as the engine does it for a format. */
struct resizing {
    struct resize_request request;
    struct platter_disk *disk;
};

/* For as long as it takes the disk has its new size already: nobody can look. */
static int zero_new(const struct resize_request *request, goff off, uint64_t len,
                    struct platter_error *err)
{
    struct platter_disk *disk = container_of(request, const struct resizing, request)->disk;
    struct image *top = disk_top(disk);
    uint64_t size = top->size;
    atomic_store(&top->size, request->size);
    int r = disk_zero_held(disk, off, len, true, err);
    atomic_store(&top->size, size);
    return r;
}

static int check_request(const struct platter_disk *disk, uint64_t size, unsigned flags,
                         enum platter_preallocation preallocation, struct platter_error *err)
{
    const struct image *top = disk_top(disk);
    const char *name = top->stream->name;
    if (!top->format->resize)
        return fail(err, ENOTSUP, "%s: images of the %s format cannot be resized", name,
                    top->format->name);
    if (size == 0 || size > INT64_MAX)
        return fail(err, EINVAL, "%s: a disk has between 1 byte and 2^63 - 1 bytes", name);
    if (size > top->size && disk->cut)
        return fail(err, EINVAL,
                    "%s: cannot grow while its backing file is not open: there may be data in it "
                    "where the disk must read as zeros",
                    name);
    if (size < top->size && !(flags & PLATTER_RESIZE_SHRINK))
        return fail(err, EINVAL,
                    "%s: %" PRIu64 " bytes are less than the %" PRIu64
                    " it has, and what lies behind them would be lost: shrinking must be asked for",
                    name, size, top->size);
    if (size < top->size && preallocation != PLATTER_PREALLOCATION_OFF)
        return fail(err, EINVAL, "%s: Preallocation can only be used for growing images", name);
    return 0;
}

static int resize_held(struct platter_disk *disk, struct resize_request *request, unsigned flags,
                       struct platter_error *err)
{
    struct image *top = disk_top(disk);
    int r = check_request(disk, request->size, flags, request->preallocation, err);
    if (r < 0 || request->size == top->size)
        return r;
    request->below = size_below(disk);
    top->same_content = true;
    if (request->size > top->size)
        r = store_last_unit(disk, err);
    if (r == 0)
        r = top->format->flush(top, err);
    if (r == 0)
        r = top->format->resize(top, request, err);
    top->same_content = false;
    return r;
}

int disk_resize(struct platter_disk *disk, uint64_t size, unsigned flags,
                enum platter_preallocation preallocation, const struct file_maker *maker,
                struct platter_error *err)
{
    struct resizing resizing = {
        .request = {.size = size, .preallocation = preallocation, .maker = maker, .zero = zero_new},
        .disk = disk};
    struct range_hold hold;
    int r = disk_check_writable(disk, "resize", 0, 0, err);
    if (r < 0)
        return r;
    range_lock_take(&disk->ranges, &hold, 0, UINT64_MAX, true);
    r = disk_check_writable(disk, "resize", 0, 0, err);
    if (r == 0)
        r = disk_check_no_target(disk, "change its size", err);
    if (r == 0)
        r = resize_held(disk, &resizing.request, flags, err);
    unit_cache_drop(disk->cache, disk_top(disk), 0, UINT64_MAX);
    range_lock_give(&disk->ranges, &hold);
    return r;
}
