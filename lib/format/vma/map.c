/* SPDX-License-Identifier: MIT */
/*
 * Where a device's bytes stand (section 10). The index knows the extent of each cluster; what is
 * stored of it, and where, the extent's header tells, of which the last few are in memory.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/vma/archive.h"

/* A header was checked when the archive was opened, or is when it is read for an index that was
 * kept. */
static int load_extent(struct image *img, uint64_t off, struct vma_extent *ret,
                       struct platter_error *err)
{
    struct vma_archive *a = vma_of(img)->archive;
    struct vma_cached *c = &a->cache[off / VMA_EXTENT % VMA_CACHED];
    uint8_t bytes[VMA_EXTENT];

    pthread_mutex_lock(&a->lock);
    bool have = c->behind == off + 1;
    if (have)
        *ret = c->extent;
    pthread_mutex_unlock(&a->lock);
    if (have)
        return 0;
    int r = stream_pread(img->stream, bytes, sizeof bytes, off, err);
    if (r == 0 && img->salvage)
        r = vma_salvage_extent(img, off, bytes, ret, err);
    else if (r == 0)
        r = vma_extent_decode(img->stream->name, off, bytes, a->header.uuid, ret, err);
    if (r == 0 && ret->blocks * (uint64_t)VMA_BLOCK > a->size - off - VMA_EXTENT && !img->salvage)
        r = fail(err, PLATTER_ECORRUPT, "%s: the extent at %" PRIu64 " does not end in the file",
                 img->stream->name, off);
    if (r < 0)
        return r;
    pthread_mutex_lock(&a->lock);
    *c = (struct vma_cached){off + 1, *ret};
    pthread_mutex_unlock(&a->lock);
    return 0;
}

/* A slot of an extent, and where its first stored block stands. */
struct spot {
    struct vma_extent extent;
    unsigned i;
    uint64_t off;
};

/* The extent at `off` has to have the cluster: an index that was kept may say what is not so. */
static int load_spot(struct image *img, uint64_t off, uint32_t cluster, struct spot *ret,
                     struct platter_error *err)
{
    const struct vma *v = vma_of(img);
    const struct vma_slot *s = ret->extent.slots;

    int r = load_extent(img, off, &ret->extent, err);
    if (r < 0)
        return r;
    ret->off = off + VMA_EXTENT;
    for (ret->i = 0; ret->i < VMA_SLOTS; ret->i++, s++) {
        if (s->device == v->device && s->cluster == cluster)
            return img->salvage
                       ? 0
                       : vma_slot_check(img->stream->name, off, &v->archive->header, s, err);
        ret->off += vma_slot_blocks(s) * (uint64_t)VMA_BLOCK;
    }
    return fail(err, PLATTER_ECORRUPT,
                "%s: the extent at %" PRIu64 " is not what it was when the archive was indexed",
                img->stream->name, off);
}

static int find_spot(struct image *img, uint32_t cluster, struct spot *ret,
                     struct platter_error *err)
{
    const struct vma *v = vma_of(img);
    struct vma_archive *a = v->archive;
    const struct vma_index *index = atomic_load(&a->index);
    uint64_t off;

    if (!index) {
        /* Whatever is wrong with it: the archive itself tells. */
        if (a->kept && vma_kept_find(a->kept, v->device, cluster, &off) &&
            load_spot(img, off, cluster, ret, NULL) == 0)
            return 0;
        int r = vma_archive_survey(img, a, err);
        if (r < 0)
            return r;
        index = atomic_load(&a->index);
    }
    if (!vma_index_find(index, v->device, cluster, &off))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: cluster %" PRIu32 " of device %u (%s) is not in the archive: it is "
                    "damaged or was cut short",
                    img->stream->name, cluster, v->device, a->header.devices[v->device].name);
    return load_spot(img, off, cluster, ret, err);
}

/* How many blocks from `first` on are stored, or not stored, as that one is. */
static unsigned alike(uint32_t mask, unsigned first, bool stored)
{
    uint32_t bits = (stored ? ~mask : mask) >> first | UINT32_C(1) << (VMA_BLOCKS - first);
    return (unsigned)__builtin_ctz(bits);
}

/* Blocks that go on in the next clusters of the device, as far as they follow in the extent; others
 * may come in between, but none of their data between ours. */
static uint64_t go_on(const struct spot *at, bool stored, uint64_t want)
{
    const struct vma_slot *s = &at->extent.slots[at->i], *end = at->extent.slots + VMA_SLOTS;
    uint32_t cluster = s->cluster;
    const uint8_t device = s->device;
    uint64_t n = 0;

    for (s++; n < want && s < end; s++) {
        if (s->device != device && stored && vma_slot_blocks(s) > 0)
            break;
        if (s->device != device)
            continue;
        if (s->cluster != ++cluster)
            break;
        unsigned more = alike(s->mask, 0, stored);
        n += more;
        if (more < VMA_BLOCKS)
            break;
    }
    return n;
}

int vma_map(struct image *img, goff off, uint64_t len, struct extent *ret,
            struct platter_error *err)
{
    uint32_t cluster = (uint32_t)(off / VMA_CLUSTER);
    unsigned block = (unsigned)(off % VMA_CLUSTER / VMA_BLOCK);
    struct spot at;

    if (vma_of(img)->device == 0)
        return fail(err, EINVAL, "%s: of an archive one disk is read, by its name",
                    img->stream->name);
    int r = find_spot(img, cluster, &at, err);
    if (r < 0)
        return r;
    uint32_t mask = at.extent.slots[at.i].mask;
    bool stored = mask >> block & 1;
    uint64_t n = alike(mask, block, stored);
    /* What a salvage passed over in the extent must not come back. */
    if (block + n == VMA_BLOCKS && !img->salvage)
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
