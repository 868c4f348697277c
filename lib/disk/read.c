/* SPDX-License-Identifier: MIT */
/* Reading: map, then fetch each extent from where it lives. */
#include <inttypes.h>
#include <string.h>

#include "base/awake.h"
#include "base/ckd.h"
#include "disk/inside.h"

static int read_packed(struct platter_disk *disk, const struct disk_extent *x, uint8_t *buf,
                       size_t len, goff off, struct platter_error *err)
{
    struct image *img = disk->chain[x->depth];
    if (off == x->e.unit_start && len == x->e.unit_len)
        return img->format->unpack(img, &x->e, buf, err);
    return unit_cache_read(disk->cache, img, &x->e, buf, len, off, err);
}

int disk_read_extent(struct platter_disk *disk, const struct disk_extent *x, void *buf, goff off,
                     struct platter_error *err)
{
    const struct extent *e = &x->e;
    size_t len = (size_t)e->len;
    switch (e->kind) {
    case EXTENT_ZERO:
        memset(buf, 0, len);
        return 0;
    case EXTENT_DATA:
        return e->sealed ? sealed_read(disk->chain[x->depth], e->stream, buf, len, e->off, off, err)
                         : stream_pread(e->stream, buf, len, e->off, err);
    case EXTENT_PACKED:
        return read_packed(disk, x, buf, len, off, err);
    case EXTENT_BACKING:
        break;
    }
    return fail(err, ENOENT,
                "%s: guest offset %" PRIu64 " is in the backing file, which was not opened",
                disk->chain[x->depth]->stream->name, off);
}

/* Reads an extent, which may be one that moves into the top image one day. */
static int read_extent(struct platter_disk *disk, const struct disk_extent *x, void *buf, goff off,
                       struct platter_error *err)
{
    struct filling *f = disk->filling;
    bool below = f && (x->depth > 0 || x->e.kind == EXTENT_BACKING) && x->e.kind != EXTENT_ZERO;
    if (!below)
        return disk_read_extent(disk, x, buf, off, err);
    atomic_fetch_add(&f->reading, 1);
    int r = f->may_read(f->opaque, err);
    if (r == 0)
        r = disk_read_extent(disk, x, buf, off, err);
    atomic_store(&f->read_at, now_ns());
    atomic_fetch_sub(&f->reading, 1);
    return r;
}

static int read_first(struct platter_disk *disk, uint8_t *p, size_t len, goff off,
                      uint64_t *ret_len, struct platter_error *err)
{
    struct disk_extent x = {0};
    int r = disk_map_held(disk, off, len, &x, err);
    if (r == 0)
        r = read_extent(disk, &x, p, off, err);
    if (r < 0 && disk->filling)
        disk->filling->failed_reads++;
    *ret_len = x.e.len;
    return r;
}

int disk_read_held(struct platter_disk *disk, void *buf, size_t len, goff off,
                   struct platter_error *err)
{
    uint8_t *p = buf;
    uint64_t size = disk_size(disk);
    if (off + len > size) {
        size_t inside = off < size ? (size_t)(size - off) : 0;
        memset(p + inside, 0, len - inside);
        len = inside;
    }
    while (len > 0) {
        uint64_t n;
        int r = read_first(disk, p, len, off, &n, err);
        if (r < 0)
            return r;
        p += n;
        off += n;
        len -= (size_t)n;
    }
    return 0;
}

int disk_read(struct platter_disk *disk, void *buf, size_t len, goff off, struct platter_error *err)
{
    int r = disk_check_range(disk, "read", off, len, err);
    if (r < 0 || len == 0)
        return r;
    if (!disk->writable)
        return disk_read_held(disk, buf, len, off, err);
    if (disk->filling && disk->filling->copy_on_read) {
        r = disk_fill_for_read(disk, off, len, err);
        if (r < 0)
            return r;
    }
    /* Held over map and read, so that what was mapped is not freed and used again (rule 3). */
    struct range_hold hold;
    range_lock_take(&disk->ranges, &hold, off, off + len, false);
    r = disk_read_held(disk, buf, len, off, err);
    range_lock_give(&disk->ranges, &hold);
    return r;
}
