/* SPDX-License-Identifier: MIT */
/* Where guest bytes live in a chain: ask each image from the top until one knows. */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "disk/inside.h"

int disk_check_range(const struct platter_disk *disk, const char *what, goff off, uint64_t len,
                     struct platter_error *err)
{
    if (range_inside(off, len, disk_size(disk)))
        return 0;
    return fail(err, EINVAL,
                "%s: cannot %s %" PRIu64 " bytes at %" PRIu64 ": the disk has %" PRIu64 " bytes",
                disk_top(disk)->stream->name, what, len, off, disk_size(disk));
}

/* What an image below the top says of a range that may reach past its end. */
static int map_layer(struct image *img, goff off, uint64_t len, struct extent *ret,
                     struct platter_error *err)
{
    if (off >= img->size) {
        *ret = (struct extent){.kind = EXTENT_BACKING, .len = len};
        return 0;
    }
    int r = img->format->map(img, off, min_u64(len, img->size - off), ret, err);
    if (r < 0)
        return r;
    ret->sealed = img->sealed && ret->kind == EXTENT_DATA;
    /* Zeros that nobody wrote are no zeros to a guest, and no place holds what a guest sees. */
    ret->looked |= img->sealed;
    ret->has_place &= !img->sealed;
    return 0;
}

static int map_above(struct platter_disk *disk, unsigned depth, goff off, uint64_t len,
                     struct disk_extent *ret, struct platter_error *err)
{
    struct extent e = {.kind = EXTENT_BACKING, .len = len};
    unsigned i = 0, last = 0;
    for (; i < depth && len > 0; i++) {
        int r = map_layer(disk->chain[i], off, len, &e, err);
        if (r < 0)
            return r;
        len = min_u64(len, e.len);
        /* Past the end of a shorter image nothing below it shows through. */
        if (off >= disk->chain[i]->size) {
            *ret = (struct disk_extent){.e = {.kind = EXTENT_ZERO, .len = len}, .depth = last};
            return 0;
        }
        if (e.kind != EXTENT_BACKING) {
            *ret = (struct disk_extent){.e = e, .depth = i, .present = true};
            return 0;
        }
        last = i;
    }
    e.len = len;
    *ret = (struct disk_extent){.e = e, .depth = last};
    return 0;
}

int disk_map_held(struct platter_disk *disk, goff off, uint64_t len, struct disk_extent *ret,
                  struct platter_error *err)
{
    int r = map_above(disk, disk->depth, off, len, ret, err);
    if (r == 0 && ret->e.kind == EXTENT_BACKING && !disk->cut)
        ret->e.kind = EXTENT_ZERO;
    return r;
}

/* ---- for callers of the engine --------------------------------------------------------------- */

/* Behind all disks, where nobody reads or writes: it is only disk_resize() that holds this too. */
void disk_pin(struct platter_disk *disk, struct range_hold *hold)
{
    if (disk->writable)
        range_lock_take(&disk->ranges, hold, UINT64_MAX - 1, UINT64_MAX, false);
}

void disk_unpin(struct platter_disk *disk, struct range_hold *hold)
{
    if (disk->writable)
        range_lock_give(&disk->ranges, hold);
}

int disk_map(struct platter_disk *disk, goff off, uint64_t len, struct disk_extent *ret,
             struct platter_error *err)
{
    struct range_hold hold;
    disk_pin(disk, &hold);
    int r = disk_check_range(disk, "map", off, len, err);
    if (r == 0)
        r = disk_map_held(disk, off, len, ret, err);
    disk_unpin(disk, &hold);
    return r;
}

int disk_map_above(struct platter_disk *disk, unsigned depth, goff off, uint64_t len,
                   struct disk_extent *ret, struct platter_error *err)
{
    struct range_hold hold;
    disk_pin(disk, &hold);
    int r = disk_check_range(disk, "map", off, len, err);
    if (r == 0)
        r = map_above(disk, depth, off, len, ret, err);
    disk_unpin(disk, &hold);
    return r;
}

int disk_find_holes(struct disk_extent *x, struct platter_error *err)
{
    struct extent *e = &x->e;
    uint64_t size;
    bool hole;
    if (e->kind != EXTENT_DATA || e->looked || stream_is_dense(e->stream))
        return 0;
    /* What the file is too short to hold is no hole of it: whoever reads there finds out. */
    int r = stream_size(e->stream, &size, err);
    if (r < 0 || !range_inside(e->off, e->len, size))
        return r;
    r = stream_extents(e->stream, e->off, e->len, &e->len, &hole, err);
    if (r < 0 || !hole)
        return r;
    e->kind = EXTENT_ZERO;
    e->has_place = true;
    e->in_place = false;
    return 0;
}

/* ---- names of files ---------------------------------------------------------------------------
 */

/* What is below a disk that is filled may be closed one day (disk_stand_alone()). */
struct kept_name {
    struct kept_name *next;
    char name[];
};

/* One that lives as long as the disk, of which it asks few; NULL: out of memory. */
static const char *keep_name(struct platter_disk *disk, const char *name)
{
    WITH_LOCK(&disk_top(disk)->lock);
    struct kept_name *kept = disk->names;
    while (kept && strcmp(kept->name, name) != 0)
        kept = kept->next;
    if (kept)
        return kept->name;
    size_t len = strlen(name) + 1;
    kept = malloc(sizeof *kept + len);
    if (!kept)
        return NULL;
    kept->next = disk->names;
    memcpy(kept->name, name, len);
    disk->names = kept;
    return kept->name;
}

void disk_names_free(struct platter_disk *disk)
{
    for (struct kept_name *kept = disk->names, *next; kept; kept = next) {
        next = kept->next;
        free(kept);
    }
}

int disk_map_told(struct platter_disk *disk, goff off, uint64_t len, struct disk_told *ret,
                  struct platter_error *err)
{
    struct range_hold hold;
    struct disk_extent *x = &ret->x;
    *ret = (struct disk_told){0};
    disk_pin(disk, &hold);
    int r = disk_check_range(disk, "map", off, len, err);
    if (r == 0)
        r = disk_map_held(disk, off, len, x, err);
    ret->stored = r == 0 && x->e.kind == EXTENT_DATA;
    if (r == 0)
        r = disk_find_holes(x, err);
    if (r == 0 && x->e.stream) {
        bool stays = !disk->filling || x->depth == 0;
        ret->inside = x->e.stream->base;
        ret->file = stays ? x->e.stream->name : keep_name(disk, x->e.stream->name);
        if (!ret->file)
            r = fail_memory(err, "a name");
    }
    disk_unpin(disk, &hold);
    return r;
}
