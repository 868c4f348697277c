/* SPDX-License-Identifier: MIT */
/*
 * A sparse file as a whole: its grain directories, and what may stand where: vmdk.md sections 4.4,
 * 4.6 and 15.
 *
 * Invariant: what passed sparse_check_table() or sparse_check_grain() lies inside the file and does
 * not overlap header, descriptor or directories.
 */
#include <endian.h>
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

void sparse_free(struct sparse *s)
{
    if (!s)
        return;
    uint64_t bytes = (uint64_t)s->gd_count * 4;
    budget_free(s->budget, s->gd, bytes);
    budget_free(s->budget, s->rgd, bytes);
    free(s);
}

static int load_directory(struct sparse *s, uint64_t sector, uint32_t **ret,
                          struct platter_error *err)
{
    uint64_t bytes = (uint64_t)s->gd_count * 4;
    uint32_t *gd;
    int r = budget_alloc(s->budget, bytes, "the grain directory of a VMDK", &gd, err);
    if (r < 0)
        return r;
    *ret = gd;
    r = stream_pread(s->stream, gd, (size_t)bytes, sector * VMDK_SECTOR, err);
    for (uint32_t i = 0; i < s->gd_count; i++)
        gd[i] = le32toh(gd[i]);
    return r;
}

/* Both directories must name two tables, or none, for each range: otherwise a write would leave the
 * copies different, or one on top of the other. */
static int check_copies(const struct sparse *s, struct platter_error *err)
{
    for (uint32_t i = 0; i < s->gd_count; i++)
        if ((s->gd[i] == 0) != (s->rgd[i] == 0) || (s->gd[i] != 0 && s->gd[i] == s->rgd[i]) ||
            (s->rgd[i] != 0 && !sparse_table_fits(s, s->rgd[i])))
            return fail(err, PLATTER_ECORRUPT,
                        "%s: entry %" PRIu32 " of the grain directories is %" PRIu32 " and %" PRIu32
                        ", which are no two copies of a table: the image must be "
                        "repaired before it is written",
                        s->stream->name, i, s->gd[i], s->rgd[i]);
    return 0;
}

static int check_writable(const struct sparse *s, struct platter_error *err)
{
    if (s->packed)
        return fail(
            err, ENOTSUP,
            "%s: a compressed VMDK cannot be written in place: convert it to another format "
            "or subformat",
            s->stream->name);
    if (s->header.version > 2)
        return fail(err, ENOTSUP,
                    "%s: an uncompressed VMDK of version 3 tracks changes in a file of its own and "
                    "cannot be written: convert it",
                    s->stream->name);
    return 0;
}

static int load_directories(struct sparse *s, bool writable, struct platter_error *err)
{
    int r = writable ? check_writable(s, err) : 0;
    if (r == 0 && s->gd_count > 0)
        r = load_directory(s, s->header.gd_offset, &s->gd, err);
    if (r == 0 && s->gd_count > 0 && writable && (s->header.flags & HOSTED_REDUNDANT)) {
        r = load_directory(s, s->header.rgd_offset, &s->rgd, err);
        if (r == 0)
            r = check_copies(s, err);
    }
    return r;
}

int sparse_open(struct image *img, struct stream *stream, bool writable, struct sparse **ret,
                struct platter_error *err)
{
    struct sparse *s = calloc(1, sizeof *s);
    if (!s)
        return fail_memory(err, "a VMDK extent");
    s->stream = stream;
    s->budget = img->budget;
    struct hosted_header *h = &s->header;
    int r = stream_size(stream, &s->end, err);
    if (r == 0)
        r = hosted_read(stream, s->end, h, err);
    if (r == 0) {
        s->grain = (uint32_t)(h->grain_size * VMDK_SECTOR);
        s->grains = div_up(h->capacity, h->grain_size);
        s->gt_sectors = h->gtes_per_gt * 4 / VMDK_SECTOR;
        s->gd_count = (uint32_t)hosted_directory_entries(h);
        s->packed = h->compression != 0;
        s->was_unclean = h->unclean != 0;
        r = load_directories(s, writable, err);
    }
    if (r < 0) {
        sparse_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

/* ---- what may stand where -------------------------------------------------------------------- */

static bool overlaps(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
    return a < b + b_len && b < a + a_len;
}

/* Whether sectors belong to the header, the descriptor or a directory. */
static bool in_metadata(const struct sparse *s, uint64_t sector, uint64_t n)
{
    const struct hosted_header *h = &s->header;
    uint64_t gd = div_up((uint64_t)s->gd_count * 4, VMDK_SECTOR);
    return sector == 0 ||
           (h->descriptor_offset &&
            overlaps(sector, n, h->descriptor_offset, h->descriptor_size)) ||
           overlaps(sector, n, h->gd_offset, gd) ||
           ((h->flags & HOSTED_REDUNDANT) && overlaps(sector, n, h->rgd_offset, gd));
}

bool sparse_table_fits(const struct sparse *s, uint32_t gde)
{
    return range_inside((uint64_t)gde * VMDK_SECTOR, (uint64_t)s->gt_sectors * VMDK_SECTOR,
                        s->end) &&
           !in_metadata(s, gde, s->gt_sectors);
}

int sparse_check_table(const struct sparse *s, uint64_t gt, struct platter_error *err)
{
    if (s->gd[gt] == 0 || sparse_table_fits(s, s->gd[gt]))
        return 0;
    return fail(err, PLATTER_ECORRUPT,
                "%s: grain directory entry %" PRIu64 " (sector %" PRIu64 ") says sector %" PRIu32
                ", where no grain table can be: it is in other metadata or behind the end at byte "
                "%" PRIu64,
                s->stream->name, gt, s->header.gd_offset, s->gd[gt], s->end);
}

int sparse_check_grain(const struct sparse *s, uint64_t grain, uint32_t gte, uint64_t need,
                       struct platter_error *err)
{
    uint64_t gt = grain / s->header.gtes_per_gt;
    uint64_t sectors = div_up(need, VMDK_SECTOR);
    const char *why = NULL;
    if (!range_inside((uint64_t)gte * VMDK_SECTOR, need, s->end))
        why = "behind the end of the file: it is truncated or damaged";
    else if (gte < s->header.overhead || in_metadata(s, gte, sectors) ||
             overlaps(gte, sectors, s->gd[gt], s->gt_sectors))
        why = "inside metadata";
    if (!why)
        return 0;
    return fail(err, PLATTER_ECORRUPT,
                "%s: grain %" PRIu64 " (guest offset %" PRIu64
                " of the extent) is at sector %" PRIu32 " of a file of %" PRIu64 " bytes, %s",
                s->stream->name, grain, grain * s->grain, gte, s->end, why);
}

int sparse_extend(struct sparse *s, uint64_t sectors, uint32_t *ret_sector,
                  struct platter_error *err)
{
    uint64_t first = round_up(div_up(s->end, VMDK_SECTOR), s->header.grain_size);
    if (first + sectors > UINT32_MAX)
        return fail(err, EFBIG,
                    "%s: an extent file cannot grow beyond 2 TiB: entries of its tables have 32 "
                    "bits",
                    s->stream->name);
    s->end = (first + sectors) * VMDK_SECTOR;
    *ret_sector = (uint32_t)first;
    return 0;
}
