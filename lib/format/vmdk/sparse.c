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

#include "base/ckd.h"
#include "base/cursor.h"
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

/* Making a table ends with an entry in each directory (tables.c). A crash may leave one of the two:
 * it names a table that is still empty, and is as good as none. */
static int forget_half_made(struct sparse *s, struct platter_error *err)
{
    enum { MOST = 1024 }; /* tables that are read for this: a hostile file may have millions */
    uint8_t table[VMDK_MAX_GTES * 4];
    size_t len = (size_t)s->gt_sectors * VMDK_SECTOR;
    int r = 0;
    for (uint32_t i = 0, n = 0; i < s->gd_count && n < MOST && r == 0; i++) {
        uint32_t one = s->gd[i] ? s->gd[i] : s->rgd[i];
        if ((s->gd[i] == 0) == (s->rgd[i] == 0) || !sparse_table_fits(s, one))
            continue;
        n++;
        r = stream_pread(s->stream, table, len, (hoff)one * VMDK_SECTOR, err);
        if (r == 0 && is_zero(table, len))
            s->gd[i] = s->rgd[i] = 0;
    }
    return r;
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

/* ---- entries that were lost ------------------------------------------------------------------ */

/* An entry of 0 says that nothing was written there. Where the second directory has a table, it was
 * not 0 once. */
static void compare_copies(struct sparse *s)
{
    for (uint32_t i = 0; i < s->gd_count; i++)
        if (s->gd[i] == 0 && s->rgd[i] != 0)
            s->gd[i] = VMDK_LOST_TABLE;
}

/* Whether the record of a grain stands at `sector`, of a range that the directory has no table for.
 */
static int is_stray_record(const struct sparse *s, uint64_t sector, bool *ret,
                           struct platter_error *err)
{
    const struct hosted_header *h = &s->header;
    uint8_t head[RECORD_HEAD];
    *ret = false;
    if (!range_inside(sector * VMDK_SECTOR, sizeof head, s->end))
        return 0;
    int r = stream_pread(s->stream, head, sizeof head, sector * VMDK_SECTOR, err);
    uint64_t lba = get_le(head, 8), size = get_le(head + 8, 4);
    *ret = r == 0 && size != 0 && lba < h->capacity && lba % h->grain_size == 0 &&
           s->gd[lba / h->grain_size / h->gtes_per_gt] == 0;
    return r;
}

/*
 * A stream with the directory at its end has no second one, but its layout tells as much: grains
 * stand in front of their table, which stands right in front of the grains of the next (section
 * 5.4). So what follows the table before an entry of 0 must not be a grain of that entry's. Streams
 * of up to 4 TiB are looked at whole.
 */
static int search_stray_records(struct sparse *s, struct platter_error *err)
{
    enum { MOST = 1 << 16 }; /* places that are looked at: a hostile file may have millions */
    uint64_t sector = s->header.overhead;
    int r = 0;
    for (uint32_t i = 0, n = 0, run; i < s->gd_count && n < MOST && r == 0; i += run) {
        bool stray = false;
        for (run = 0; i + run < s->gd_count && s->gd[i + run] == 0;)
            run++;
        n += run > 0;
        if (run > 0)
            r = is_stray_record(s, sector, &stray, err);
        for (uint32_t k = 0; stray && k < run; k++)
            s->gd[i + k] = VMDK_LOST_TABLE;
        if (run == 0) {
            sector = (uint64_t)s->gd[i] + s->gt_sectors;
            run = 1;
        }
    }
    return r;
}

static int load_directories(struct sparse *s, bool writable, struct platter_error *err)
{
    const struct hosted_header *h = &s->header;
    int r = writable ? check_writable(s, err) : 0;
    if (r < 0 || s->gd_count == 0)
        return r;
    r = load_directory(s, h->gd_offset, &s->gd, err);
    if (r == 0 && (h->flags & HOSTED_REDUNDANT)) {
        r = load_directory(s, h->rgd_offset, &s->rgd, err);
        if (r == 0)
            r = forget_half_made(s, err);
        if (r == 0 && writable)
            r = check_copies(s, err);
        if (r == 0)
            compare_copies(s);
    } else if (r == 0 && s->packed && (h->flags & HOSTED_MARKERS) && h->gd_offset >= h->overhead) {
        r = search_stray_records(s, err);
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

/* All its sectors have numbers of 32 bits, and VMDK_LOST_TABLE is none of them. */
bool sparse_table_fits(const struct sparse *s, uint32_t gde)
{
    return gde <= UINT32_MAX - s->gt_sectors &&
           range_inside((uint64_t)gde * VMDK_SECTOR, (uint64_t)s->gt_sectors * VMDK_SECTOR,
                        s->end) &&
           !in_metadata(s, gde, s->gt_sectors);
}

int sparse_check_table(const struct sparse *s, uint64_t gt, struct platter_error *err)
{
    if (s->gd[gt] == 0 || sparse_table_fits(s, s->gd[gt]))
        return 0;
    if (s->gd[gt] == VMDK_LOST_TABLE)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: grain directory entry %" PRIu64 " (sector %" PRIu64
                    ") names no grain table, but the file has grains of its range",
                    s->stream->name, gt, s->header.gd_offset);
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
