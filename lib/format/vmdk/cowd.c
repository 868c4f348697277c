/* SPDX-License-Identifier: MIT */
/*
 * COWD, the sparse files of ESX (vmfsSparse): vmdk.md section 6.
 *
 * Below its header such a file is a hosted one with fewer features: one directory, tables of 4096
 * entries, made on demand and standing among the grains; no zero grains, nothing packed. So the
 * header is translated, and all else is shared. Grains need not be aligned to anything.
 *
 * freeSector is where ESX puts its next grain. It may be ahead of what is used, which wastes space,
 * but never behind, which would hand used sectors out again. So it moves up to the end of the file,
 * durably, before an entry of a table or directory is written (tables.c calls us for that). What
 * stands there at open is not relied on: other programs append without moving it.
 *
 * The generation tells the parents of old disks apart: it goes up with the first write after open,
 * as the CID changes. savedGeneration and what else is not known stay as they are.
 */
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

enum {
    COWD_FREE_SECTOR_AT = 28, /* offsets in the file */
    COWD_GENERATION_AT = 1060,
    COWD_MAX_GRAIN = 0x200000, /* sectors: section 15 */
    ENTRIES_PER_SECTOR = VMDK_SECTOR / 4
};

struct cowd_header {
    uint32_t version, flags, sectors, grain_size, gd_offset, gd_entries, free_sector;
    uint32_t generation, unclean;
};

bool cowd_magic(const uint8_t *sector)
{
    return memcmp(sector, "COWD", 4) == 0;
}

static void decode(const uint8_t bytes[COWD_HEADER_SECTORS * VMDK_SECTOR], struct cowd_header *ret)
{
    struct reader r = reader_over(bytes, COWD_HEADER_SECTORS * VMDK_SECTOR);
    read_skip(&r, 4);
    ret->version = read_le32(&r);
    ret->flags = read_le32(&r);
    ret->sectors = read_le32(&r);
    ret->grain_size = read_le32(&r);
    ret->gd_offset = read_le32(&r);
    ret->gd_entries = read_le32(&r);
    ret->free_sector = read_le32(&r);
    read_seek(&r, COWD_GENERATION_AT);
    ret->generation = read_le32(&r);
    read_seek(&r, COWD_UNCLEAN_AT);
    ret->unclean = read_le32(&r);
}

static int check_numbers(const char *name, const struct cowd_header *h, struct platter_error *err)
{
    if (h->version != 1)
        return fail(err, ENOTSUP, "%s: COWD version %" PRIu32 " is not known (1 is)", name,
                    h->version);
    if (h->sectors == 0)
        return fail(err, PLATTER_ECORRUPT, "%s: capacity (header offset 12) of 0 sectors", name);
    if (h->grain_size == 0 || h->grain_size > COWD_MAX_GRAIN)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: grain size (header offset 16) of %" PRIu32 " sectors: 1 to %d can be",
                    name, h->grain_size, COWD_MAX_GRAIN);
    if (h->gd_offset < COWD_HEADER_SECTORS)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the grain directory (header offset 20) is at sector %" PRIu32
                    ", inside the header of %d sectors",
                    name, h->gd_offset, COWD_HEADER_SECTORS);
    return 0;
}

/* The directory must be as long as tables of 4096 entries make it, or fill its last sector. One for
 * tables of 512 entries is that of hosted disks of old, whose layout is not known. */
static int check_directory(const char *name, const struct cowd_header *h, uint64_t file_size,
                           struct platter_error *err)
{
    uint64_t needed = div_up(h->sectors, (uint64_t)h->grain_size * COWD_GTES);
    uint64_t old = div_up(h->sectors, (uint64_t)h->grain_size * VMDK_GTES);
    if (h->gd_entries == old && old != needed)
        return fail(err, ENOTSUP,
                    "%s: a grain directory of %" PRIu32
                    " entries: this is an old hosted disk (VMDK 3), which is not supported",
                    name, h->gd_entries);
    if (h->gd_entries < needed || h->gd_entries > round_up(needed, ENTRIES_PER_SECTOR))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the grain directory (header offset 24) has %" PRIu32
                    " entries, but a capacity of %" PRIu32 " sectors takes %" PRIu64,
                    name, h->gd_entries, h->sectors, needed);
    if (!range_inside((uint64_t)h->gd_offset * VMDK_SECTOR, needed * 4, file_size))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the grain directory (%" PRIu64 " bytes at sector %" PRIu32
                    ") is not inside the file of %" PRIu64 " bytes: it is truncated or damaged",
                    name, needed * 4, h->gd_offset, file_size);
    return 0;
}

int cowd_read(struct sparse *s, struct platter_error *err)
{
    uint8_t bytes[COWD_HEADER_SECTORS * VMDK_SECTOR];
    struct cowd_header h;
    int r = stream_pread(s->stream, bytes, sizeof bytes, 0, err);
    if (r < 0)
        return r;
    decode(bytes, &h);
    r = check_numbers(s->stream->name, &h, err);
    if (r == 0)
        r = check_directory(s->stream->name, &h, s->end, err);
    if (r < 0)
        return r;
    s->header = (struct hosted_header){.version = h.version,
                                       .capacity = h.sectors,
                                       .grain_size = h.grain_size,
                                       .gtes_per_gt = COWD_GTES,
                                       .gd_offset = h.gd_offset};
    s->gd_count = (uint32_t)div_up(h.sectors, (uint64_t)h.grain_size * COWD_GTES);
    s->was_unclean = h.unclean != 0;
    s->cowd.free_sector = h.free_sector;
    s->cowd.generation = h.generation;
    return 0;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* A file may be longer than its header can say: then nothing in it is free. */
uint32_t cowd_free_sector(hoff end)
{
    return (uint32_t)min_u64(div_up(end, VMDK_SECTOR), UINT32_MAX);
}

static int write_le32_at(struct sparse *s, hoff off, uint32_t value, struct platter_error *err)
{
    uint8_t bytes[4];
    put_le(bytes, sizeof bytes, value);
    return stream_pwrite(s->stream, bytes, sizeof bytes, off, err);
}

int cowd_set_unclean(struct sparse *s, bool unclean, struct platter_error *err)
{
    int r = 0;
    if (unclean)
        r = write_le32_at(s, COWD_GENERATION_AT, ++s->cowd.generation, err);
    if (r == 0 && !s->was_unclean)
        r = write_le32_at(s, COWD_UNCLEAN_AT, unclean, err);
    return r;
}

int cowd_write_free_sector(struct image *img, struct sparse *s, struct platter_error *err)
{
    pthread_mutex_lock(&img->lock);
    uint32_t end = cowd_free_sector(s->end);
    pthread_mutex_unlock(&img->lock);
    if (end == s->cowd.free_sector)
        return 0;
    int r = write_le32_at(s, COWD_FREE_SECTOR_AT, end, err);
    if (r == 0)
        s->cowd.free_sector = end;
    return r;
}
