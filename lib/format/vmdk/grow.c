/* SPDX-License-Identifier: MIT */
/*
 * Room for more of the disk in a sparse file: vmdk.md sections 4.6, 6 and 7.
 *
 * What is added stands behind all there is, and is durable before the one sector of the header that
 * tells of it. A file with room for more than its extent has is nothing unusual, so a crash at any
 * point leaves the old disk.
 */
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

enum { /* offsets in the headers */
       HOSTED_CAPACITY_AT = 12,
       HOSTED_RGD_AT = 48,
       HOSTED_GD_AT = 56,
       COWD_SECTORS_AT = 12,
       COWD_GD_AT = 20,
       COWD_GD_ENTRIES_AT = 24,
       COWD_FREE_SECTOR_AT = 28,
       SE_CAPACITY_AT = 16,
       SE_GDES_PER_SECTOR = VMDK_SECTOR / 8
};

/* ---- behind the old end ---------------------------------------------------------------------- */

/* The rest of the grain that the extent ends in becomes part of the disk. */
static int clear_last_grain(struct image *img, const struct vmdk_extent *x,
                            struct platter_error *err)
{
    struct sparse *s = x->sparse;
    uint64_t used = x->len % s->grain, sector;
    struct page *p;
    if (used == 0)
        return 0;
    int r = tables_enter(img, s, x->len / s->grain, false, &p, err);
    if (r < 0)
        return r;
    uint64_t gte = page_entry(p, x->len / s->grain);
    bool stored = sparse_entry(s, gte, &sector) == EXTENT_DATA;
    if (stored)
        r = sparse_check_grain(s, x->len / s->grain, gte, used, err);
    pthread_mutex_unlock(&img->lock);
    if (r < 0 || !stored)
        return r;
    return stream_zero(s->stream, sector * VMDK_SECTOR + used, s->grain - used, 0, err);
}

/* Entries of a page that nobody has used yet; *ret: whether one is not empty. */
static bool page_is_used(const struct page *p, uint64_t grain, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (page_entry(p, grain + i) != 0)
            return true;
    return false;
}

/* Entries behind the end of the extent should be 0. One that is not is left over from a resize that
 * was cut short, or from another program, and would show what nobody has written. */
static int clear_entries(struct image *img, const struct vmdk_extent *x, struct platter_error *err)
{
    struct sparse *s = x->sparse;
    uint64_t per_table = s->header.gtes_per_gt, all = s->gd_count * per_table, n;
    int r = 0;
    for (uint64_t grain = div_up(x->len, s->grain); grain < all && r == 0; grain += n) {
        struct page *p;
        n = tables_empty_run(img, s, grain, all - grain);
        if (n > 0)
            continue;
        n = min_u64(all - grain, per_table - grain % per_table);
        r = sparse_check_table(s, grain / per_table, err);
        if (r == 0)
            r = tables_enter(img, s, grain, true, &p, err);
        if (r < 0)
            return r;
        bool used = page_is_used(p, grain, n);
        if (used && s->kind != SPARSE_SE)
            page_clear(p, grain, n);
        pthread_mutex_unlock(&img->lock);
        if (used && s->kind == SPARSE_SE)
            r = fail(err, ENOTSUP,
                     "%s: has grains behind the end of the disk, which may not come to be seen: "
                     "convert it",
                     s->stream->name);
    }
    return r;
}

/* ---- headers --------------------------------------------------------------------------------- */

/* A field of the first sector. */
struct field {
    unsigned at, bytes;
    uint64_t value;
};

/* Changes fields of the header at once, durably, with all that was written before. */
static int write_header(struct image *img, struct sparse *s, const struct field *fields, unsigned n,
                        struct platter_error *err)
{
    uint8_t sector[VMDK_SECTOR];
    int r = stream_pread(s->stream, sector, sizeof sector, 0, err);
    if (r == 0)
        r = stream_flush(s->stream, err);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < n; i++)
        put_le(sector + fields[i].at, fields[i].bytes, fields[i].value);
    r = stream_pwrite(s->stream, sector, sizeof sector, 0, err);
    if (r == 0)
        r = stream_flush(s->stream, err);
    return r < 0 ? image_poison(img, r) : 0;
}

/* Entries [first, count) of a directory at `sector`: those there were, then tables one after the
 * other from `tables` on; 0: none. */
static int write_directory(const struct sparse *s, const uint32_t *gd, uint64_t sector,
                           uint64_t first, uint64_t count, uint64_t tables,
                           struct platter_error *err)
{
    enum { PER_WRITE = 1024 };
    uint8_t entries[PER_WRITE * 4];
    int r = 0;
    for (uint64_t i = first, n; i < count && r == 0; i += n) {
        n = min_u64(count - i, PER_WRITE);
        for (uint64_t k = 0; k < n; k++) {
            uint64_t table = tables ? tables + (i + k - s->gd_count) * s->gt_sectors : 0;
            put_le(entries + 4 * k, 4, i + k < s->gd_count ? gd[i + k] : table);
        }
        r = stream_pwrite(s->stream, entries, (size_t)n * 4, sector * VMDK_SECTOR + i * 4, err);
    }
    return r;
}

static uint64_t directory_sectors(uint64_t entries)
{
    return div_up(entries * 4, VMDK_SECTOR);
}

/* Zeroed room at the end of the file. */
static int append(struct image *img, struct sparse *s, uint64_t sectors, uint64_t *ret_sector,
                  struct platter_error *err)
{
    pthread_mutex_lock(&img->lock);
    int r = sparse_extend(s, sectors, ret_sector, err);
    pthread_mutex_unlock(&img->lock);
    if (r < 0)
        return r;
    return stream_zero(s->stream, *ret_sector * VMDK_SECTOR, sectors * VMDK_SECTOR,
                       STREAM_ZERO_UNMAP, err);
}

/* ---- hosted ---------------------------------------------------------------------------------- */

/*
 * All tables of an uncompressed file exist (section 4.5), so new ones are made with the capacity.
 * The directories are kept in whole sectors: where these have room for the new entries they stay,
 * otherwise both are written anew. Like in a new file the second copy comes first.
 */
static int grow_directories(struct image *img, struct sparse *s, uint64_t count,
                            struct field fields[2], struct platter_error *err)
{
    const struct hosted_header *h = &s->header;
    const uint32_t *gds[2] = {s->rgd, s->gd};
    uint64_t places[2] = {h->rgd_offset, h->gd_offset}, at = 0;
    bool stay = directory_sectors(count) == directory_sectors(s->gd_count);
    uint64_t gd_sectors = stay ? 0 : directory_sectors(count);
    uint64_t copy = gd_sectors + (count - s->gd_count) * s->gt_sectors;
    int r = append(img, s, (s->rgd ? 2 : 1) * copy, &at, err);
    for (unsigned i = s->rgd ? 0 : 1; i < 2 && r == 0; i++, at += copy) {
        if (!stay)
            places[i] = at;
        r = write_directory(s, gds[i], places[i], stay ? s->gd_count : 0, count, at + gd_sectors,
                            err);
    }
    fields[0] = (struct field){HOSTED_RGD_AT, 8, places[0]};
    fields[1] = (struct field){HOSTED_GD_AT, 8, places[1]};
    return r;
}

static int grow_hosted(struct image *img, struct sparse *s, uint64_t sectors,
                       struct platter_error *err)
{
    const struct hosted_header *h = &s->header;
    uint64_t count = div_up(sectors, h->grain_size * h->gtes_per_gt);
    uint64_t tables = 2 * (directory_sectors(count) + count * s->gt_sectors);
    struct field fields[3] = {{HOSTED_RGD_AT, 8, h->rgd_offset},
                              {HOSTED_GD_AT, 8, h->gd_offset},
                              {HOSTED_CAPACITY_AT, 8, sectors}};
    if (count > VMDK_MAX_DIRECTORY ||
        h->overhead + tables + round_up(sectors, h->grain_size) > UINT32_MAX)
        return fail(
            err, EFBIG,
            "%s: with %" PRIu64
            " bytes of disk this sparse VMDK file could not be filled, for its tables count "
            "512-byte sectors in 32 bits: convert it to subformat twoGbMaxExtentSparse, "
            "monolithicFlat or vmfs",
            s->stream->name, sectors * VMDK_SECTOR);
    int r = count > s->gd_count ? grow_directories(img, s, count, fields, err) : 0;
    return r < 0 ? r : write_header(img, s, fields, 3, err);
}

/* ---- those of ESX ---------------------------------------------------------------------------- */

/* Tables are made on demand; the directory moves to the end where it has no room. */
static int grow_cowd(struct image *img, struct sparse *s, uint64_t sectors,
                     struct platter_error *err)
{
    uint64_t count = div_up(sectors, s->header.grain_size * COWD_GTES);
    uint64_t at = s->header.gd_offset;
    bool stay = directory_sectors(count) == directory_sectors(s->gd_count);
    if (sectors > UINT32_MAX)
        return fail(err, EFBIG,
                    "%s: a COWD extent has less than 2 TiB, for its header counts sectors in 32 "
                    "bits",
                    s->stream->name);
    int r = stay ? 0 : append(img, s, directory_sectors(count), &at, err);
    if (r == 0)
        r = write_directory(s, s->gd, at, stay ? s->gd_count : 0, count, 0, err);
    const struct field fields[] = {{COWD_SECTORS_AT, 4, sectors},
                                   {COWD_GD_AT, 4, at},
                                   {COWD_GD_ENTRIES_AT, 4, count},
                                   {COWD_FREE_SECTOR_AT, 4, cowd_free_sector(s->end)}};
    return r < 0 ? r : write_header(img, s, fields, 4, err);
}

/* Its areas are as large as they are. */
static int grow_sesparse(struct image *img, struct sparse *s, uint64_t sectors,
                         struct platter_error *err)
{
    const struct sesparse *se = s->se;
    uint64_t tables =
        min_u64(se->directory.size * SE_GDES_PER_SECTOR, se->tables.size / SE_GT_SECTORS);
    uint64_t most = min_u64(tables * SE_GTES, se->n_grains) * SE_GRAIN;
    if (sectors > most)
        return fail(err, ENOTSUP,
                    "%s: the areas of this seSparse file were laid out for %" PRIu64
                    " bytes of disk and cannot grow: convert it",
                    s->stream->name, most * VMDK_SECTOR);
    uint64_t count = div_up(sectors, SE_GTES * SE_GRAIN);
    uint8_t entry[8] = {0};
    int r = 0;
    for (uint64_t i = s->gd_count; i < count && r == 0; i++) {
        r = stream_pread(s->stream, entry, 8, se->directory.at * VMDK_SECTOR + i * 8, err);
        if (r == 0 && !is_zero(entry, 8))
            r = fail(err, ENOTSUP,
                     "%s: entry %" PRIu64 " of its grain directory, behind the end of the disk, is "
                     "in use: convert it",
                     s->stream->name, i);
    }
    const struct field field = {SE_CAPACITY_AT, 8, sectors};
    return r < 0 ? r : write_header(img, s, &field, 1, err);
}

/* ---- the file as it is now ------------------------------------------------------------------- */

int sparse_reopen(struct image *img, struct vmdk_extent *x, struct platter_error *err)
{
    struct sparse *old = x->sparse, *new;
    tables_forget(img, old);
    int r = sparse_open(img, x->stream, true, &new, err);
    if (r < 0)
        return image_poison(img, r);
    new->was_unclean = old->was_unclean;
    if (new->se) {
        new->se->next_grain = old->se->next_grain;
        new->se->kept = old->se->kept;
    }
    sparse_free(old);
    x->sparse = new;
    return 0;
}

int sparse_grow(struct image *img, struct vmdk_extent *x, uint64_t sectors,
                struct platter_error *err)
{
    struct sparse *s = x->sparse;
    int r = clear_last_grain(img, x, err);
    if (r == 0)
        r = clear_entries(img, x, err);
    if (r == 0)
        r = tables_write_back(img, err);
    if (r == 0)
        r = stream_flush(s->stream, err);
    if (r < 0 || s->header.capacity >= sectors)
        return r;
    switch (s->kind) {
    case SPARSE_HOSTED:
        r = grow_hosted(img, s, sectors, err);
        break;
    case SPARSE_COWD:
        r = grow_cowd(img, s, sectors, err);
        break;
    case SPARSE_SE:
        r = grow_sesparse(img, s, sectors, err);
        break;
    }
    return r < 0 ? r : sparse_reopen(img, x, err);
}

/* ---- hiding what is below -------------------------------------------------------------------- */

/* Zeros in [grain, grain + n), of one table: by a mark, or else as grains that are a hole of the
 * file. */
static int hide_grains(struct image *img, struct sparse *s, uint64_t grain, uint64_t n,
                       struct platter_error *err)
{
    bool mark = s->kind == SPARSE_SE || (s->header.flags & HOSTED_ZEROED);
    uint64_t sector = 0;
    struct page *p;
    int r = tables_add(img, s, grain / s->header.gtes_per_gt, err);
    if (r == 0 && !mark)
        r = append(img, s, n * s->header.grain_size, &sector, err);
    if (r == 0)
        r = tables_enter(img, s, grain, true, &p, err);
    if (r < 0)
        return r;
    if (mark)
        page_set_zero(p, grain, n);
    else
        page_set_grains(p, grain, n, sector);
    pthread_mutex_unlock(&img->lock);
    return 0;
}

int sparse_hide(struct image *img, struct sparse *s, uint64_t from, uint64_t to,
                struct platter_error *err)
{
    uint64_t per_table = s->header.gtes_per_gt;
    uint64_t grain = div_up(from, s->grain), end = div_up(to, s->grain), n;
    int r = s->kind == SPARSE_SE && grain < end ? se_check_allocating(s, err) : 0;
    for (; grain < end && r == 0; grain += n) {
        n = min_u64(end - grain, per_table - grain % per_table);
        r = hide_grains(img, s, grain, n, err);
    }
    if (r == 0)
        r = tables_write_back(img, err);
    return r < 0 ? r : stream_flush(s->stream, err);
}
