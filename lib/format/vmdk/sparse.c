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
    budget_free(s->budget, s->strays, (uint64_t)s->max_strays * 4);
    se_free(s);
    salvage_free(s);
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
    if (sector != HOSTED_GD_AT_END) /* lost: salvage.c */
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
    if (s->kind == SPARSE_HOSTED && s->header.version > 2)
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

static int load_directories(struct image *img, struct sparse *s, bool writable,
                            struct platter_error *err)
{
    const struct hosted_header *h = &s->header;
    int r = writable ? check_writable(s, err) : 0;
    if (r < 0 || s->gd_count == 0)
        return r;
    if (s->kind == SPARSE_SE)
        return se_read_directory(s, err);
    r = load_directory(s, h->gd_offset, &s->gd, err);
    if (r == 0 && (h->flags & HOSTED_REDUNDANT)) {
        r = load_directory(s, h->rgd_offset, &s->rgd, err);
        if (r == 0)
            r = forget_half_made(s, err);
        if (r == 0 && writable)
            r = check_copies(s, err);
        if (r == 0)
            compare_copies(s);
    } else if (r == 0 && s->packed && (h->flags & HOSTED_MARKERS) && h->gd_offset >= h->overhead &&
               h->gd_offset != HOSTED_GD_AT_END) {
        r = stream_search_strays(s, err);
    }
    return r == 0 && s->salvage ? salvage_directory(img, s, err) : r;
}

/* ---- tables among the grains ----------------------------------------------------------------- */

/* A table that is not all in front of the overhead, where no grain can be. */
static bool is_stray(const struct sparse *s, uint32_t gde)
{
    return gde + (uint64_t)s->gt_sectors > s->header.overhead;
}

/* Counts the strays, or all tables, of both directories, and puts them where `ret` is not NULL. */
static uint32_t collect_tables(const struct sparse *s, bool all, uint32_t *ret)
{
    const uint32_t *gds[] = {s->gd, s->rgd};
    uint32_t n = 0;
    for (unsigned copy = 0; copy < 2; copy++)
        for (uint32_t i = 0; gds[copy] && i < s->gd_count; i++) {
            uint32_t gde = gds[copy][i];
            if (gde == 0 || !(all || is_stray(s, gde)) || !sparse_table_fits(s, gde))
                continue;
            if (ret)
                ret[n] = gde;
            n++;
        }
    return n;
}

static int compare_sectors(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The first stray that ends behind a sector. */
static uint32_t find_stray(const struct sparse *s, uint64_t sector)
{
    uint32_t low = 0, high = s->n_strays;
    if (high > 0 && (uint64_t)s->strays[high - 1] + s->gt_sectors <= sector)
        return high;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((uint64_t)s->strays[middle] + s->gt_sectors > sector)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* A table that two entries name would be changed for both ranges by a write to one. */
static int check_tables_apart(const struct sparse *s, struct platter_error *err)
{
    for (uint32_t i = 1; i < s->n_strays; i++)
        if (s->strays[i] - s->strays[i - 1] < s->gt_sectors)
            return fail(err, PLATTER_ECORRUPT,
                        "%s: grain tables at sectors %" PRIu32 " and %" PRIu32
                        " overlap: the image must be repaired before it is written",
                        s->stream->name, s->strays[i - 1], s->strays[i]);
    return 0;
}

/* Of a file that is written all tables are looked at, for they must be apart. */
static int find_strays(struct sparse *s, bool writable, struct platter_error *err)
{
    uint32_t n = collect_tables(s, writable, NULL);
    if (n == 0)
        return 0;
    int r = budget_alloc(s->budget, (uint64_t)n * 4, "the places of a VMDK's grain tables",
                         &s->strays, err);
    if (r < 0)
        return r;
    s->max_strays = n;
    s->n_strays = collect_tables(s, writable, s->strays);
    qsort(s->strays, n, sizeof *s->strays, compare_sectors);
    return writable ? check_tables_apart(s, err) : 0;
}

int sparse_add_stray(struct sparse *s, uint32_t sector, struct platter_error *err)
{
    if (s->n_strays == s->max_strays) {
        uint32_t more = s->max_strays < 512 ? 1024 : s->max_strays * 2, *grown;
        int r = budget_alloc(s->budget, (uint64_t)more * 4, "the places of a VMDK's grain tables",
                             &grown, err);
        if (r < 0)
            return r;
        if (s->n_strays)
            memcpy(grown, s->strays, (size_t)s->n_strays * 4);
        budget_free(s->budget, s->strays, (uint64_t)s->max_strays * 4);
        s->strays = grown;
        s->max_strays = more;
    }
    s->strays[s->n_strays++] = sector;
    return 0;
}

/* ---- opening --------------------------------------------------------------------------------- */

static int read_hosted(struct image *img, struct sparse *s, struct platter_error *err)
{
    struct hosted_header *h = &s->header;
    int r = img->salvage ? salvage_header(s, err) : hosted_read(s->stream, s->end, h, err);
    if (r == 0) {
        s->gd_count = (uint32_t)hosted_directory_entries(h);
        s->packed = h->compression != 0;
        s->was_unclean = h->unclean != 0;
    }
    return r;
}

/* Header and, but for seSparse, not yet the directory. */
static int read_header(struct image *img, struct sparse *s, struct platter_error *err)
{
    uint8_t magic[8] = {0};
    int r = stream_size(s->stream, &s->end, err);
    if (r == 0)
        r = stream_pread_tail(s->stream, magic, sizeof magic, 0, err);
    if (r < 0)
        return r;
    s->entry_size = 4;
    if (cowd_magic(magic)) {
        s->kind = SPARSE_COWD;
        r = cowd_read(s, err);
    } else if (se_magic(magic)) {
        s->kind = SPARSE_SE;
        s->entry_size = 8;
        r = se_read(s, err);
    } else {
        r = read_hosted(img, s, err);
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
    int r = read_header(img, s, err);
    if (r == 0) {
        s->grain = (uint32_t)(h->grain_size * VMDK_SECTOR);
        s->grains = div_up(h->capacity, h->grain_size);
        s->gt_sectors = h->gtes_per_gt * s->entry_size / VMDK_SECTOR;
        s->page_entries = PAGE_BYTES / s->entry_size;
        r = load_directories(img, s, writable, err);
    }
    if (r == 0)
        r = find_strays(s, writable, err);
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

/* Whether sectors belong to the header, the descriptor or a directory. (A seSparse file has an area
 * for everything: it is enough to look whether a thing is in its own.) */
static bool in_metadata(const struct sparse *s, uint64_t sector, uint64_t n)
{
    const struct hosted_header *h = &s->header;
    uint64_t gd = div_up((uint64_t)s->gd_count * 4, VMDK_SECTOR);
    return sector < (s->kind == SPARSE_COWD ? COWD_HEADER_SECTORS : 1) ||
           (h->descriptor_offset &&
            overlaps(sector, n, h->descriptor_offset, h->descriptor_size)) ||
           overlaps(sector, n, h->gd_offset, gd) ||
           ((h->flags & HOSTED_REDUNDANT) && overlaps(sector, n, h->rgd_offset, gd));
}

/* All its sectors have numbers of 32 bits, and VMDK_LOST_TABLE is none of them. */
bool sparse_table_fits(const struct sparse *s, uint32_t gde)
{
    if (s->kind == SPARSE_SE)
        return gde != 0 && gde != VMDK_LOST_TABLE;
    return gde <= UINT32_MAX - s->gt_sectors &&
           range_inside((uint64_t)gde * VMDK_SECTOR, (uint64_t)s->gt_sectors * VMDK_SECTOR,
                        s->end) &&
           !in_metadata(s, gde, s->gt_sectors);
}

int sparse_check_table(const struct sparse *s, uint64_t gt, struct platter_error *err)
{
    if (s->gd[gt] == 0 || sparse_table_fits(s, s->gd[gt]))
        return 0;
    if (s->kind == SPARSE_SE)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: grain directory entry %" PRIu64 " (at byte %" PRIu64
                    ") names no grain table: 0 was expected, or 0x10000000 above an index below "
                    "%" PRIu64,
                    s->stream->name, gt, s->header.gd_offset * VMDK_SECTOR + gt * 8,
                    s->se->tables.size / SE_GT_SECTORS);
    if (s->gd[gt] == VMDK_WRONG_TABLE)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: grain directory entry %" PRIu64 " (sector %" PRIu64
                    ") names what is not the grain table of its range: the marker in front of it "
                    "or the grains that it names say so",
                    s->stream->name, gt, s->header.gd_offset);
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

enum extent_kind sparse_entry(const struct sparse *s, uint64_t gte, uint64_t *ret_sector)
{
    if (s->kind == SPARSE_SE)
        return se_entry(s, gte, ret_sector);
    *ret_sector = gte;
    if (gte == 0)
        return EXTENT_BACKING;
    /* A zero grain even where the header does not announce them: no grain can stand at sector 1
     * (section 4.4). A COWD has none. */
    if (gte == 1 && s->kind == SPARSE_HOSTED)
        return EXTENT_ZERO;
    return s->packed ? EXTENT_PACKED : EXTENT_DATA;
}

/* Why the first `need` bytes of a grain cannot stand at a sector, or NULL. */
static const char *grain_misplaced(const struct sparse *s, uint64_t sector, uint64_t need)
{
    hoff off;
    uint64_t sectors = div_up(need, VMDK_SECTOR);
    if (sector == UINT64_MAX)
        return "which is no grain of this file";
    if (ckd_mul(&off, sector, (uint64_t)VMDK_SECTOR) || !range_inside(off, need, s->end))
        return "behind the end of the file: it is truncated or damaged";
    if (s->kind == SPARSE_SE)
        return NULL;
    if (sector < s->header.overhead || in_metadata(s, sector, sectors))
        return "inside metadata";
    uint32_t stray = find_stray(s, sector);
    if (stray < s->n_strays && s->strays[stray] < sector + sectors)
        return "inside a grain table";
    return NULL;
}

int sparse_check_grain(const struct sparse *s, uint64_t grain, uint64_t gte, uint64_t need,
                       struct platter_error *err)
{
    uint64_t sector;
    sparse_entry(s, gte, &sector);
    const char *why = grain_misplaced(s, sector, need);
    if (!why)
        return 0;
    if (s->kind == SPARSE_SE)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the entry of grain %" PRIu64 " (guest offset %" PRIu64
                    " of the extent) is 0x%016" PRIx64 ", %s",
                    s->stream->name, grain, grain * s->grain, gte, why);
    return fail(err, PLATTER_ECORRUPT,
                "%s: grain %" PRIu64 " (guest offset %" PRIu64
                " of the extent) is at sector %" PRIu64 " of a file of %" PRIu64 " bytes, %s",
                s->stream->name, grain, grain * s->grain, gte, s->end, why);
}

int sparse_extend(struct sparse *s, uint64_t sectors, uint64_t *ret_sector,
                  struct platter_error *err)
{
    if (s->kind == SPARSE_SE)
        return se_extend(s, sectors, ret_sector, err);
    uint64_t first = div_up(s->end, VMDK_SECTOR);
    if (s->kind == SPARSE_HOSTED)
        first = round_up(first, s->header.grain_size);
    if (first + sectors > UINT32_MAX)
        return fail(err, EFBIG,
                    "%s: an extent file cannot grow beyond 2 TiB: entries of its tables have 32 "
                    "bits",
                    s->stream->name);
    s->end = (first + sectors) * VMDK_SECTOR;
    *ret_sector = first;
    return 0;
}
