/* SPDX-License-Identifier: MIT */
/*
 * Where a device's bytes stand (section 10). The index knows the extent of each cluster; what is
 * stored of it, and where, the extent's header tells, of which the last few are kept.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/vma/archive.h"

/* The header of the extent at `off`, which was checked when the archive was opened. */
static int load_extent(struct image *img, uint64_t off, struct vma_extent *ret,
                       struct platter_error *err)
{
    struct vma *v = vma_of(img);
    struct vma_cached *c = &v->cache[off / VMA_EXTENT % VMA_CACHED];
    uint8_t bytes[VMA_EXTENT];

    pthread_mutex_lock(&img->lock);
    bool have = c->off == off;
    if (have)
        *ret = c->extent;
    pthread_mutex_unlock(&img->lock);
    if (have)
        return 0;
    int r = stream_pread(img->stream, bytes, sizeof bytes, off, err);
    if (r == 0)
        r = vma_extent_decode(img->stream->name, off, bytes, v->header.uuid, ret, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&img->lock);
    *c = (struct vma_cached){off, *ret};
    pthread_mutex_unlock(&img->lock);
    return 0;
}

/* A slot of an extent, and where its first stored block stands. */
struct spot {
    const struct vma_extent *extent;
    unsigned i;
    uint64_t off;
};

static bool find_slot(const struct vma_extent *e, uint64_t off, unsigned device, unsigned nth,
                      uint32_t cluster, struct spot *ret)
{
    *ret = (struct spot){.extent = e, .off = off + VMA_EXTENT};
    for (; ret->i < VMA_SLOTS;
         ret->off += vma_slot_blocks(&e->slots[ret->i++]) * (uint64_t)VMA_BLOCK)
        if (e->slots[ret->i].device == device && nth-- == 0)
            return e->slots[ret->i].cluster == cluster;
    return false;
}

/* How many blocks from `first` on are stored, or not stored, as that one is. */
static unsigned alike(uint32_t mask, unsigned first, bool stored)
{
    uint32_t bits = (stored ? ~mask : mask) >> first | UINT32_C(1) << (VMA_BLOCKS - first);
    return (unsigned)__builtin_ctz(bits);
}

/* Blocks that go on in the next clusters of the device, as far as they follow in the extent. */
static uint64_t go_on(const struct spot *at, bool stored, uint64_t want)
{
    const struct vma_slot *s = &at->extent->slots[at->i];
    uint64_t n = 0;

    for (unsigned k = 1; n < want && at->i + k < VMA_SLOTS; k++) {
        const struct vma_slot *next = s + k;
        if (next->device != s->device || next->cluster != s->cluster + k)
            break;
        unsigned more = alike(next->mask, 0, stored);
        n += more;
        if (more < VMA_BLOCKS)
            break;
    }
    return n;
}

int vma_map(struct image *img, goff off, uint64_t len, struct extent *ret,
            struct platter_error *err)
{
    const struct vma *v = vma_of(img);
    uint32_t cluster = (uint32_t)(off / VMA_CLUSTER);
    unsigned block = (unsigned)(off % VMA_CLUSTER / VMA_BLOCK);
    struct vma_place place;
    struct vma_extent e;
    struct spot at;

    if (v->device == 0)
        return fail(err, EINVAL, "%s: of an archive one disk is read, by its name",
                    img->stream->name);
    if (!vma_index_find(v->index, v->device, cluster, &place))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: cluster %" PRIu32 " of device %u (%s) is not in the archive: it is "
                    "damaged or was cut short",
                    img->stream->name, cluster, v->device, v->header.devices[v->device].name);
    int r = load_extent(img, place.off, &e, err);
    if (r < 0)
        return r;
    if (!find_slot(&e, place.off, v->device, place.nth, cluster, &at))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the extent at %" PRIu64 " is not what it was when the archive was opened",
                    img->stream->name, place.off);
    uint32_t mask = e.slots[at.i].mask;
    bool stored = mask >> block & 1;
    uint64_t n = alike(mask, block, stored);
    if (block + n == VMA_BLOCKS)
        n += go_on(&at, stored, div_up(len, VMA_BLOCK));
    *ret = (struct extent){.kind = stored ? EXTENT_DATA : EXTENT_ZERO,
                           .len = min_u64(len, n * VMA_BLOCK - off % VMA_BLOCK)};
    if (stored) {
        uint32_t before = mask & ((UINT32_C(1) << block) - 1);
        ret->looked = true;
        ret->stream = img->stream;
        ret->off =
            at.off + (unsigned)__builtin_popcount(before) * (uint64_t)VMA_BLOCK + off % VMA_BLOCK;
    }
    return 0;
}
