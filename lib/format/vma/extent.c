/* SPDX-License-Identifier: MIT */
/* Headers of extents (section 4.1), and what a slot may say (section 4.3). */
#include "format/vma/vma.h"

#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "base/hash.h"

enum { COUNT_AT = 6, UUID_AT = 8, MD5_AT = 24, MD5_SIZE = 16, SLOTS_AT = 40, SLOT_SIZE = 8 };

static const uint8_t magic[4] = {'V', 'M', 'A', 'E'};

static void checksum(const uint8_t *bytes, uint8_t *out)
{
    uint8_t copy[VMA_EXTENT];
    memcpy(copy, bytes, sizeof copy);
    memset(copy + MD5_AT, 0, MD5_SIZE);
    hash_bytes(hash_find("md5"), copy, sizeof copy, NULL, 0, out);
}

static bool checksum_is_right(const uint8_t *bytes)
{
    uint8_t md5[MD5_SIZE];
    checksum(bytes, md5);
    return memcmp(md5, bytes + MD5_AT, sizeof md5) == 0;
}

bool vma_extent_probe(const uint8_t *bytes, const uint8_t *uuid)
{
    return memcmp(bytes, magic, sizeof magic) == 0 &&
           memcmp(bytes + UUID_AT, uuid, VMA_UUID) == 0 && checksum_is_right(bytes);
}

bool vma_extent_begins(const uint8_t *bytes, size_t len, const uint8_t *uuid)
{
    size_t of_uuid = len > UUID_AT ? (size_t)min_u64(len - UUID_AT, VMA_UUID) : 0;
    return memcmp(bytes, magic, (size_t)min_u64(len, sizeof magic)) == 0 &&
           memcmp(bytes + UUID_AT, uuid, of_uuid) == 0;
}

static int corrupt(const char *file, uint64_t off, const char *why, struct platter_error *err)
{
    return fail(err, PLATTER_ECORRUPT, "%s: the extent at %" PRIu64 ": %s", file, off, why);
}

void vma_extent_slots(const uint8_t *bytes, struct vma_extent *ret)
{
    ret->blocks = 0;
    for (unsigned i = 0; i < VMA_SLOTS; i++) {
        const uint8_t *at = bytes + SLOTS_AT + i * SLOT_SIZE;
        ret->slots[i] = (struct vma_slot){.mask = (uint16_t)get_be(at, 2),
                                          .device = at[3],
                                          .cluster = (uint32_t)get_be(at + 4, 4)};
        ret->blocks += vma_slot_blocks(&ret->slots[i]);
    }
}

int vma_extent_decode(const char *file, uint64_t off, const uint8_t *bytes, const uint8_t *uuid,
                      struct vma_extent *ret, struct platter_error *err)
{
    uint32_t count = (uint32_t)get_be(bytes + COUNT_AT, 2);

    if (!checksum_is_right(bytes))
        return corrupt(file, off, "the checksum of its header is wrong", err);
    if (memcmp(bytes + UUID_AT, uuid, VMA_UUID) != 0)
        return corrupt(file, off, "it is of another archive: its uuid differs", err);
    if (memcmp(bytes, magic, sizeof magic) != 0)
        return corrupt(file, off, "it does not begin with VMAE", err);
    if (get_be(bytes + 4, 2) != 0)
        return corrupt(file, off, "reserved bytes at offset 4 are not zero", err);
    if (count > VMA_MOST_BLOCKS)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the extent at %" PRIu64 ": block_count is %" PRIu32
                    ", but an extent has at most %d blocks",
                    file, off, count, VMA_MOST_BLOCKS);
    vma_extent_slots(bytes, ret);
    if (ret->blocks != count)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the extent at %" PRIu64 ": block_count is %" PRIu32
                    ", but its clusters have %" PRIu32 " blocks",
                    file, off, count, ret->blocks);
    return 0;
}

void vma_extent_encode(struct vma_extent *e, const uint8_t *uuid, uint8_t *bytes)
{
    memset(bytes, 0, VMA_EXTENT);
    memcpy(bytes, magic, sizeof magic);
    memcpy(bytes + UUID_AT, uuid, VMA_UUID);
    e->blocks = 0;
    for (unsigned i = 0; i < VMA_SLOTS; i++) {
        const struct vma_slot *s = &e->slots[i];
        uint8_t *at = bytes + SLOTS_AT + i * SLOT_SIZE;
        put_be(at, 2, s->mask);
        at[3] = s->device;
        put_be(at + 4, 4, s->cluster);
        e->blocks += vma_slot_blocks(s);
    }
    put_be(bytes + COUNT_AT, 2, e->blocks);
    checksum(bytes, bytes + MD5_AT);
}

/* ---- what a slot may say -----------------------------------------------------------------------
 */

int vma_slot_check(const char *file, uint64_t off, const struct vma_header *h,
                   const struct vma_slot *s, struct platter_error *err)
{
    const struct vma_device *d = &h->devices[s->device];
    uint64_t start = (uint64_t)s->cluster * VMA_CLUSTER;

    if (s->device == 0)
        return 0;
    if (!d->name)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the extent at %" PRIu64 " has cluster %" PRIu32
                    " of device %u, but there is no such device",
                    file, off, s->cluster, s->device);
    if (d->state) /* its size is a guess */
        return 0;
    if (start >= d->size)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the extent at %" PRIu64 " has cluster %" PRIu32
                    " of device %u (%s), which has only %" PRIu64 " of them",
                    file, off, s->cluster, s->device, d->name, vma_clusters(d->size));
    /* A full mask stands for a cluster that is copied as a whole, whatever lies behind the end. */
    uint64_t blocks = min_u64(div_up(d->size - start, VMA_BLOCK), VMA_BLOCKS);
    if (s->mask != UINT16_MAX && s->mask >> blocks)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the extent at %" PRIu64 " has blocks of cluster %" PRIu32
                    " of device %u (%s) behind its end at %" PRIu64,
                    file, off, s->cluster, s->device, d->name, d->size);
    return 0;
}
