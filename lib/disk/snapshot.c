/* SPDX-License-Identifier: MIT */
/* Snapshots inside the top image, and the state of a machine that goes with them, while everybody
 * else waits. */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "disk/inside.h"

static int snapshot_ops_of(const struct platter_disk *disk, const struct snapshot_ops **ret,
                           struct platter_error *err)
{
    const struct image *top = disk_top(disk);
    *ret = image_snapshots(top);
    if (!*ret)
        return fail(err, ENOTSUP, "%s: images of the %s format cannot have snapshots",
                    top->stream->name, top->format->name);
    return 0;
}

/* Takes the whole disk, with nothing left to flush. */
static int hold_all(struct platter_disk *disk, const char *what, struct range_hold *hold,
                    const struct snapshot_ops **ret, struct platter_error *err)
{
    int r = disk_check_writable(disk, what, 0, 0, err);
    if (r == 0)
        r = snapshot_ops_of(disk, ret, err);
    if (r < 0)
        return r;
    range_lock_take(&disk->ranges, hold, 0, UINT64_MAX, true);
    r = disk_check_writable(disk, what, 0, 0, err);
    if (r == 0)
        r = disk_check_no_target(disk, what, err);
    if (r == 0)
        r = disk_top(disk)->format->flush(disk_top(disk), err);
    if (r < 0)
        range_lock_give(&disk->ranges, hold);
    return r;
}

static void let_go(struct platter_disk *disk, struct range_hold *hold)
{
    unit_cache_drop(disk->cache, disk_top(disk), 0, UINT64_MAX);
    range_lock_give(&disk->ranges, hold);
}

int disk_snapshot_create(struct platter_disk *disk, struct snapshot_request *request,
                         struct teller *teller, struct platter_error *err)
{
    const struct snapshot_ops *ops;
    struct range_hold hold;
    int r = hold_all(disk, "make a snapshot", &hold, &ops, err);
    if (r < 0)
        return r;
    r = ops->create(disk_top(disk), request, teller, err);
    /* The state belongs to the snapshot now: the next one would have it, too (section 9.3). */
    if (r == 0 && request->vm_state_size) {
        r = ops->state_drop(disk_top(disk), err);
        if (r < 0)
            fail_in(err, r,
                    "%s: the snapshot was made, but the machine's state is still in the disk",
                    disk_top(disk)->stream->name);
    }
    let_go(disk, &hold);
    return r;
}

int disk_snapshot_apply(struct platter_disk *disk, const char *name, unsigned by,
                        struct teller *teller, struct platter_error *err)
{
    const struct snapshot_ops *ops;
    struct range_hold hold;
    int r = hold_all(disk, "apply a snapshot", &hold, &ops, err);
    if (r < 0)
        return r;
    r = ops->apply(disk_top(disk), name, by, teller, err);
    let_go(disk, &hold);
    return r;
}

int disk_snapshot_delete(struct platter_disk *disk, const char *name, unsigned by,
                         struct teller *teller, struct platter_error *err)
{
    const struct snapshot_ops *ops;
    struct range_hold hold;
    int r = hold_all(disk, "delete a snapshot", &hold, &ops, err);
    if (r < 0)
        return r;
    r = ops->remove(disk_top(disk), name, by, teller, err);
    let_go(disk, &hold);
    return r;
}

/* ---- differences ----------------------------------------------------------------------------- */

int disk_snapshot_diff_open(struct platter_disk *disk, const char *from, const char *to,
                            struct disk_diff *d, struct platter_error *err)
{
    struct image *top = disk_top(disk);
    int r = snapshot_ops_of(disk, &d->ops, err);
    if (r < 0)
        return r;
    d->disk = disk;
    /* Held first: what is written now, or later, is in no table that is looked at. */
    range_lock_take(&disk->ranges, &d->hold, 0, UINT64_MAX, false);
    if (disk->writable)
        r = disk_check_writable(disk, "flush", 0, 0, err);
    if (r == 0 && disk->writable)
        r = top->format->flush(top, err);
    if (r == 0)
        r = d->ops->diff_open(top, from, to, &d->diff, d->sizes, err);
    if (r < 0)
        range_lock_give(&disk->ranges, &d->hold);
    return r;
}

int disk_snapshot_diff_next(struct disk_diff *d, goff off, struct snapshot_difference *ret,
                            struct platter_error *err)
{
    return d->ops->diff_next(d->diff, off, ret, err);
}

void disk_snapshot_diff_close(struct disk_diff *d)
{
    d->ops->diff_close(d->diff);
    range_lock_give(&d->disk->ranges, &d->hold);
}

/* ---- the machine's state --------------------------------------------------------------------- */

int disk_state_size(struct platter_disk *disk, uint64_t *ret, struct platter_error *err)
{
    const struct snapshot_ops *ops;
    struct range_hold hold;
    goff start;
    int r = snapshot_ops_of(disk, &ops, err);
    if (r < 0)
        return r;
    disk_pin(disk, &hold);
    r = ops->state(disk_top(disk), &start, ret, err);
    disk_unpin(disk, &hold);
    return r;
}

/* Reads what the top image has at `off`, which lies behind the disk; the images below have nothing
 * to do with it. */
static int read_behind(struct platter_disk *disk, uint8_t *buf, size_t len, goff off,
                       struct platter_error *err)
{
    struct image *top = disk_top(disk);
    int r = 0;
    for (size_t n; len > 0 && r == 0; buf += n, off += n, len -= n) {
        struct disk_extent x = {.present = true};
        n = len;
        r = top->format->map(top, off, len, &x.e, err);
        if (r < 0)
            break;
        if (x.e.kind == EXTENT_BACKING)
            x.e.kind = EXTENT_ZERO;
        x.e.sealed = top->sealed && x.e.kind == EXTENT_DATA;
        n = (size_t)x.e.len;
        r = disk_read_extent(disk, &x, buf, off, err);
    }
    return r;
}

int disk_state_read(struct platter_disk *disk, void *buf, size_t len, uint64_t off,
                    struct platter_error *err)
{
    const struct snapshot_ops *ops;
    uint64_t size;
    goff start;
    int r = snapshot_ops_of(disk, &ops, err);
    if (r == 0)
        r = ops->state(disk_top(disk), &start, &size, err);
    if (r == 0 && !range_inside(off, len, size))
        r = fail(err, EINVAL,
                 "%s: read of %zu bytes at %" PRIu64 " of a machine's state of %" PRIu64 " bytes",
                 disk_top(disk)->stream->name, len, off, size);
    return r < 0 ? r : read_behind(disk, buf, len, start + off, err);
}

/* Writes less than a unit: together with what the rest of the unit has. */
static int write_part(struct platter_disk *disk, const uint8_t *buf, size_t len, goff off,
                      struct platter_error *err)
{
    uint32_t unit = disk_top(disk)->unit;
    goff whole = round_down(off, unit);
    uint8_t *bytes = NULL;
    int r = budget_alloc(disk->budget, unit, "a unit of a machine's state", &bytes, err);
    if (r == 0)
        r = read_behind(disk, bytes, unit, whole, err);
    if (r == 0) {
        memcpy(bytes + (off - whole), buf, len);
        r = disk_write_held(disk, bytes, unit, whole, err);
    }
    budget_free(disk->budget, bytes, unit);
    return r;
}

static int write_behind(struct platter_disk *disk, const uint8_t *buf, size_t len, goff off,
                        struct platter_error *err)
{
    uint32_t unit = disk_top(disk)->unit;
    int r = 0;
    for (size_t n; len > 0 && r == 0; buf += n, off += n, len -= n) {
        n = (size_t)min_u64(len, unit - off % unit);
        if (n == unit)
            n = round_down(len, unit);
        r = n % unit ? write_part(disk, buf, n, off, err) : disk_write_held(disk, buf, n, off, err);
    }
    return r;
}

int disk_state_write(struct platter_disk *disk, const void *buf, size_t len, uint64_t off,
                     struct platter_error *err)
{
    const struct snapshot_ops *ops;
    struct range_hold hold;
    uint64_t end;
    goff start;
    int r = disk_check_writable(disk, "write a machine's state", 0, 0, err);
    if (r == 0)
        r = snapshot_ops_of(disk, &ops, err);
    if (r < 0)
        return r;
    range_lock_take(&disk->ranges, &hold, 0, UINT64_MAX, true);
    if (ckd_add(&end, off, len))
        r = fail(err, EINVAL, "%s: a machine's state cannot be that long",
                 disk_top(disk)->stream->name);
    if (r == 0)
        r = ops->state_room(disk_top(disk), end, &start, err);
    if (r == 0)
        r = write_behind(disk, buf, len, start + off, err);
    let_go(disk, &hold);
    return r;
}

int disk_state_drop(struct platter_disk *disk, struct platter_error *err)
{
    const struct snapshot_ops *ops;
    struct range_hold hold;
    int r = hold_all(disk, "drop a machine's state", &hold, &ops, err);
    if (r < 0)
        return r;
    r = ops->state_drop(disk_top(disk), err);
    let_go(disk, &hold);
    return r;
}

/* ---- views of an open disk --------------------------------------------------------------------
 */

int disk_view_open(const struct platter_disk *of, const char *view, struct disk_view *ret,
                   struct platter_error *err)
{
    struct image *top = disk_top(of);
    struct platter_disk *below = NULL;
    struct image *img;
    *ret = (struct disk_view){0};
    int r = disk_new(budget_limit(of->budget), &ret->own, err);
    if (r < 0)
        return r;
    struct image_setup setup = {.format = top->format,
                                .view = view,
                                .ordered = true,
                                .budget = ret->own->budget,
                                .opener = &refuse_names,
                                .sibling = top};
    r = image_load(stream_share(top->stream), &setup, &img, err);
    if (r == 0)
        r = disk_append(ret->own, img, err);
    if (r == 0)
        r = disk_borrow(ret->own, 0, 1, &ret->disk, err);
    if (r == 0 && of->depth > 1)
        r = disk_borrow(of, 1, of->depth - 1, &below, err);
    if (r == 0 && below)
        r = disk_borrow_below(ret->disk, below, err);
    disk_close(below, NULL);
    if (r < 0)
        disk_view_close(ret);
    return r;
}

void disk_view_close(struct disk_view *view)
{
    disk_close(TAKE(view->disk), NULL);
    disk_close(TAKE(view->own), NULL);
}
