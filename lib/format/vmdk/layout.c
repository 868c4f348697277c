/* SPDX-License-Identifier: MIT */
/*
 * A new sparse file, empty: vmdk.md sections 4.3 and 4.5. Header, descriptor area, and both copies
 * of a directory with all its grain tables, which are holes.
 */
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

enum { GT_SECTORS = VMDK_GTES * 4 / VMDK_SECTOR };

int layout_plan(const char *name, uint64_t sectors, bool zeroed, struct sparse_layout *ret,
                struct platter_error *err)
{
    uint64_t grains = div_up(sectors, VMDK_GRAIN);
    uint64_t tables = div_up(grains, VMDK_GTES);
    uint64_t gd_sectors = div_up(tables * 4, VMDK_SECTOR);
    uint64_t copy = gd_sectors + tables * GT_SECTORS;
    uint64_t rgd = VMDK_DESCRIPTOR_SECTOR + VMDK_DESCRIPTOR_SECTORS;
    uint64_t overhead = round_up(rgd + 2 * copy, VMDK_GRAIN);
    if (sectors > UINT32_MAX || overhead + grains * VMDK_GRAIN > UINT32_MAX)
        return fail(err, EFBIG,
                    "%s: a sparse VMDK file of %" PRIu64
                    " bytes could not be filled, for its tables count 512-byte sectors in 32 bits: "
                    "choose subformat twoGbMaxExtentSparse, monolithicFlat or vmfs",
                    name, sectors * VMDK_SECTOR);
    *ret = (struct sparse_layout){
        .tables = tables,
        .gd_sectors = gd_sectors,
        .header = {.version = zeroed ? 2 : 1,
                   .flags = HOSTED_NEWLINES | HOSTED_REDUNDANT | (zeroed ? HOSTED_ZEROED : 0),
                   .capacity = sectors,
                   .grain_size = VMDK_GRAIN,
                   .descriptor_offset = VMDK_DESCRIPTOR_SECTOR,
                   .descriptor_size = VMDK_DESCRIPTOR_SECTORS,
                   .gtes_per_gt = VMDK_GTES,
                   .rgd_offset = rgd,
                   .gd_offset = rgd + copy,
                   .overhead = overhead},
    };
    return 0;
}

/* A directory at `sector`, whose tables follow it one after the other. */
static int write_directory(struct stream *s, const struct sparse_layout *l, uint64_t sector,
                           struct platter_error *err)
{
    enum { PER_WRITE = 4096 };
    uint8_t entries[PER_WRITE * 4];
    uint64_t first = sector + l->gd_sectors;
    int r = 0;
    for (uint64_t i = 0; i < l->tables && r == 0; i += PER_WRITE) {
        size_t n = (size_t)min_u64(l->tables - i, PER_WRITE);
        for (size_t k = 0; k < n; k++)
            put_le(entries + 4 * k, 4, first + (i + k) * GT_SECTORS);
        r = stream_pwrite(s, entries, n * 4, sector * VMDK_SECTOR + i * 4, err);
    }
    return r;
}

int layout_write(struct stream *s, const struct sparse_layout *l, const uint8_t *descriptor,
                 struct platter_error *err)
{
    uint8_t front[(1 + VMDK_DESCRIPTOR_SECTORS) * VMDK_SECTOR] = {0};
    hosted_encode(&l->header, front);
    if (descriptor)
        memcpy(front + VMDK_SECTOR, descriptor, VMDK_DESCRIPTOR_SECTORS * VMDK_SECTOR);
    int r = stream_resize(s, l->header.overhead * VMDK_SECTOR, err);
    if (r == 0)
        r = write_directory(s, l, l->header.rgd_offset, err);
    if (r == 0)
        r = write_directory(s, l, l->header.gd_offset, err);
    return r < 0 ? r : stream_pwrite(s, front, sizeof front, 0, err);
}
