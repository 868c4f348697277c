/* SPDX-License-Identifier: MIT */
/* Concatenated sources. What is missing of a disk's last sector reads as zeros. */
#include "ops/sources.h"

#include <string.h>

#include "base/ckd.h"

int sources_open(struct sources *s, struct platter_disk *const *disks, size_t n,
                 struct platter_error *err)
{
    *s = (struct sources){.disks = disks, .n = (unsigned)n};
    s->starts = calloc(n, sizeof *s->starts);
    if (!s->starts)
        return fail_memory(err, "a list of disks");
    for (unsigned i = 0; i < n; i++) {
        if (i > 0 && ckd_round_up(&s->size, s->size, 512))
            return fail(err, EFBIG, "the disks together are too large");
        s->starts[i] = s->size;
        if (ckd_add(&s->size, s->size, disk_size(disks[i])) || s->size > INT64_MAX)
            return fail(err, EFBIG, "the disks together are too large");
    }
    s->end = s->size;
    return 0;
}

void sources_cut(struct sources *s, goff off, uint64_t len)
{
    s->start = min_u64(off, s->end);
    s->size = s->end = min_u64(len, s->end - s->start);
}

void sources_close(struct sources *s)
{
    free(TAKE(s->starts));
}

static unsigned find(const struct sources *s, goff off)
{
    unsigned i = 0;
    while (i + 1 < s->n && s->starts[i + 1] <= off)
        i++;
    return i;
}

/* Bytes from off to where the next disk begins, at most len. */
static uint64_t up_to_next(const struct sources *s, unsigned i, goff off, uint64_t len)
{
    goff end = i + 1 < s->n ? s->starts[i + 1] : UINT64_MAX;
    return min_u64(len, end - off);
}

int sources_map(const struct sources *s, unsigned above, goff off, uint64_t len,
                struct disk_extent *ret, struct platter_error *err)
{
    if (off >= s->end) {
        *ret = (struct disk_extent){.e = {.kind = EXTENT_ZERO, .len = len}};
        return 0;
    }
    len = min_u64(len, s->end - off);
    off += s->start;
    unsigned i = find(s, off);
    goff at = off - s->starts[i];
    len = up_to_next(s, i, off, len);
    uint64_t size = disk_size(s->disks[i]);
    if (at >= size) {
        *ret = (struct disk_extent){.e = {.kind = EXTENT_ZERO, .len = len}};
        return 0;
    }
    len = min_u64(len, size - at);
    int r = above == 0 ? disk_map(s->disks[i], at, len, ret, err)
                       : disk_map_above(s->disks[i], above, at, len, ret, err);
    return r < 0 ? r : disk_find_holes(ret, err);
}

int sources_read(const struct sources *s, void *buf, size_t len, goff off,
                 struct platter_error *err)
{
    uint8_t *p = buf;
    size_t there = off < s->end ? (size_t)min_u64(len, s->end - off) : 0;
    memset(p + there, 0, len - there);
    len = there;
    off += s->start;
    while (len > 0) {
        unsigned i = find(s, off);
        goff at = off - s->starts[i];
        size_t n = (size_t)up_to_next(s, i, off, len);
        uint64_t size = disk_size(s->disks[i]);
        size_t inside = at < size ? (size_t)min_u64(n, size - at) : 0;
        int r = inside > 0 ? disk_read(s->disks[i], p, inside, at, err) : 0;
        if (r < 0)
            return r;
        memset(p + inside, 0, n - inside);
        p += n;
        off += n;
        len -= n;
    }
    return 0;
}

unsigned sources_requests(const struct sources *s)
{
    unsigned most = 0;
    for (unsigned i = 0; i < s->n; i++) {
        unsigned n = disk_requests(s->disks[i]);
        most = n > most ? n : most;
    }
    return most;
}

void sources_interrupt(const struct sources *s)
{
    for (unsigned i = 0; i < s->n; i++)
        disk_interrupt(s->disks[i]);
}

int sources_unchanged(const struct sources *s, struct platter_error *err)
{
    int r = 0;
    for (unsigned i = 0; i < s->n && r == 0; i++)
        r = disk_unchanged(s->disks[i], err);
    return r;
}

uint64_t sources_unit(const struct sources *s)
{
    uint64_t unit = 512;
    for (unsigned i = 0; i < s->n; i++)
        for (unsigned k = 0; k < s->disks[i]->depth; k++)
            unit = max_u64(unit, s->disks[i]->chain[k]->unit);
    return unit;
}

int sources_reach(struct sources *s, goff off, bool *ret_known, struct platter_error *err)
{
    int r = disk_reach(s->disks[0], off, ret_known, err);
    if (r == 0 && *ret_known)
        s->end = s->size = disk_size(s->disks[0]);
    return r;
}

uint64_t sources_window(const struct sources *s)
{
    uint64_t least = 0;
    for (unsigned i = 0; i < s->n; i++) {
        uint64_t window = disk_window(s->disks[i]);
        if (window && (!least || window < least))
            least = window;
    }
    return least;
}
