/* SPDX-License-Identifier: MIT */
/*
 * Where a seSparse file may be written, and where it may not: vmdk.md section 7.
 *
 * How the free bitmap and the back map are encoded is not known, nor the journal. So:
 *
 * - Overwriting an allocated grain where it stands is always safe: no table knows of it.
 * - A new grain would have to be noted in the bitmap and the back map. It is safe only where nobody
 *   keeps them: the image has grains, yet both areas are zero all over, or absent. Then a grain
 *   behind all that entries name, those of unmapped grains included, is free. The same holds for
 *   noting zeros in an entry.
 * - A new grain table takes the next number. freeGTNumber seems to say which: only where it is the
 *   one behind the highest in use is it trusted, and raised, durably, before the directory names
 * the table. After a crash between the two it is one ahead, of a table that nothing names: that one
 * is taken then.
 * - All else is refused. The transaction number, the journal and what is not known stay as they
 *   are; an image that waits for its journal to be replayed is not opened at all.
 */
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

/* Whether an area is zero all over, but for its first bytes. */
static int area_is_zero(const struct sparse *s, const struct se_area *area, uint64_t but, bool *ret,
                        struct platter_error *err)
{
    uint8_t bytes[32 << 10];
    hoff at = area->at * VMDK_SECTOR + but, end = (area->at + area->size) * VMDK_SECTOR;
    int r = 0;
    *ret = true;
    while (at < end && *ret && r == 0) {
        bool hole;
        uint64_t n = 0;
        r = stream_extents(s->stream, at, end - at, &n, &hole, err);
        if (r == 0 && !hole) {
            n = min_u64(n, sizeof bytes);
            r = stream_pread(s->stream, bytes, (size_t)n, at, err);
            *ret = r == 0 && is_zero(bytes, (size_t)n);
        }
        at += n;
    }
    return r;
}

int se_judge(struct sparse *s, uint64_t used_end, struct platter_error *err)
{
    struct sesparse *se = s->se;
    bool no_bitmap = false, no_map = false, no_more = false;
    int r = area_is_zero(s, &se->free_bitmap, 0, &no_bitmap, err);
    if (r == 0)
        r = area_is_zero(s, &se->back_map, 0, &no_map, err);
    if (r == 0)
        r = area_is_zero(s, &se->directory, s->gd_count * UINT64_C(8), &no_more, err);
    if (r < 0)
        return r;
    se->next_grain = used_end;
    if (!no_bitmap || !no_map)
        se->kept = "its free bitmap and back map are kept in a way that is not documented";
    else if (!no_more)
        se->kept = "its grain directory has entries behind the end of the disk";
    else if (used_end == 0)
        se->kept = "it has no grain yet that shows how its free bitmap and back map are kept";
    else
        se->kept = NULL;
    return 0;
}

int se_check_allocating(const struct sparse *s, struct platter_error *err)
{
    if (!s->se->kept)
        return 0;
    return fail(err, ENOTSUP,
                "%s: a seSparse file that takes no new grains, for %s: convert it, or write to an "
                "overlay",
                s->stream->name, s->se->kept);
}

int se_extend(struct sparse *s, uint64_t sectors, uint64_t *ret_sector, struct platter_error *err)
{
    struct sesparse *se = s->se;
    uint64_t n = sectors / SE_GRAIN;
    if (!range_inside(se->next_grain, n, se->n_grains))
        return fail(err, ENOSPC,
                    "%s: its area of %" PRIu64 " grains is full: convert it, or write to an "
                    "overlay",
                    s->stream->name, se->n_grains);
    *ret_sector = se->grains.at + se->next_grain * SE_GRAIN;
    se->next_grain += n;
    s->end = max_u64(s->end, (*ret_sector + sectors) * VMDK_SECTOR);
    return 0;
}

void se_give_back(struct sparse *s, uint64_t sector, uint64_t grains)
{
    uint64_t index = (sector - s->se->grains.at) / SE_GRAIN;
    if (s->se->next_grain == index + grains)
        s->se->next_grain = index;
}

/* ---- grain tables ---------------------------------------------------------------------------- */

/* The number of the table behind all that are in use. image->lock is held. */
static uint64_t next_table(const struct sparse *s)
{
    if (s->n_strays == 0)
        return 0;
    return (s->strays[s->n_strays - 1] - s->se->tables.at) / SE_GT_SECTORS + 1;
}

static int check_next_table(const struct sparse *s, uint64_t next, struct platter_error *err)
{
    const struct sesparse *se = s->se;
    if (se->free_table != next && se->free_table != next + 1)
        return fail(err, ENOTSUP,
                    "%s: a seSparse file that takes no new grain tables, for freeGTNumber is "
                    "%" PRIu64 " where %" PRIu64
                    " was expected: convert it, or write to an overlay",
                    s->stream->name, se->free_table, next);
    if ((next + 1) * SE_GT_SECTORS > se->tables.size ||
        se->tables.at + (next + 1) * SE_GT_SECTORS > UINT32_MAX)
        return fail(err, ENOSPC, "%s: its area of %" PRIu64 " grain tables is full: convert it",
                    s->stream->name, se->tables.size / SE_GT_SECTORS);
    return 0;
}

static int raise_free_table(struct sparse *s, uint64_t number, struct platter_error *err)
{
    uint8_t bytes[8];
    if (s->se->free_table == number)
        return 0;
    put_le(bytes, sizeof bytes, number);
    int r = stream_pwrite(s->stream, bytes, sizeof bytes,
                          s->se->volatile_header.at * VMDK_SECTOR + SE_FREE_TABLE_AT, err);
    if (r == 0)
        s->se->free_table = number;
    return r;
}

static int write_table(struct image *img, struct sparse *s, uint64_t gt, uint64_t number,
                       uint32_t sector, struct platter_error *err)
{
    static const uint8_t zeros[SE_GT_SECTORS * VMDK_SECTOR];
    int r = stream_pwrite(s->stream, zeros, sizeof zeros, (hoff)sector * VMDK_SECTOR, err);
    if (r == 0)
        r = raise_free_table(s, number + 1, err);
    if (r == 0 && img->ordered)
        r = stream_flush(s->stream, err);
    return r < 0 ? r : se_write_gde(s, gt, sector, err);
}

int se_add_table(struct image *img, struct sparse *s, uint64_t gt, uint32_t *ret,
                 struct platter_error *err)
{
    pthread_mutex_lock(&img->lock);
    uint64_t number = next_table(s);
    uint32_t sector = (uint32_t)(s->se->tables.at + number * SE_GT_SECTORS);
    int r = check_next_table(s, number, err);
    if (r == 0)
        r = sparse_add_stray(s, sector, err);
    pthread_mutex_unlock(&img->lock);
    if (r < 0)
        return r;
    *ret = sector;
    r = write_table(img, s, gt, number, sector, err);
    return r < 0 ? image_poison(img, r) : 0;
}
