/* SPDX-License-Identifier: MIT */
/*
 * The tables of streams: vmdk.md sections 5.2 to 5.4. There is one copy of them, but a stream tells
 * more than once where things are: records name their grains, and markers what stands behind them.
 * A directory that was damaged contradicts them.
 */
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

#define NO_GRAIN UINT64_MAX

/* The grain whose record stands at `sector`, or NO_GRAIN. */
static int record_at(const struct sparse *s, uint64_t sector, uint64_t *ret,
                     struct platter_error *err)
{
    uint8_t head[RECORD_LOOK];
    *ret = NO_GRAIN;
    if (!range_inside(sector * VMDK_SECTOR, sizeof head, s->end))
        return 0;
    int r = stream_pread(s->stream, head, sizeof head, sector * VMDK_SECTOR, err);
    if (r == 0 && stream_is_record(&s->header, head))
        *ret = get_le(head, 8) / s->header.grain_size;
    return r;
}

/* Whether the record of a grain stands at `sector`, of a range that the directory has no table for.
 */
static int is_stray_record(const struct sparse *s, uint64_t sector, bool *ret,
                           struct platter_error *err)
{
    const struct hosted_header *h = &s->header;
    uint64_t grain;
    int r = record_at(s, sector, &grain, err);
    *ret = r == 0 && grain != NO_GRAIN && s->gd[grain / h->gtes_per_gt] == 0;
    return r;
}

/*
 * Grains stand in front of their table, which stands right in front of the grains of the next
 * (section 5.4). So what follows the table before an entry of 0 must not be a grain of that
 * entry's. Streams of up to 4 TiB are looked at whole.
 */
int stream_search_strays(struct sparse *s, struct platter_error *err)
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

/* ---- one table ------------------------------------------------------------------------------- */

/* Whether the first grain that a table names is of its range. Where that is damaged in another way,
 * who reads it will find out. */
static int names_its_grains(const struct sparse *s, uint64_t gt, const uint32_t *entries, bool *ret,
                            struct platter_error *err)
{
    const struct hosted_header *h = &s->header;
    uint32_t i = 0;
    uint64_t grain = NO_GRAIN;
    while (i < h->gtes_per_gt && entries[i] <= 1)
        i++;
    int r = i < h->gtes_per_gt ? record_at(s, entries[i], &grain, err) : 0;
    *ret = grain == NO_GRAIN || grain / h->gtes_per_gt == gt;
    return r;
}

/* Where the grains of a table begin: behind the table before it. 0: that is damaged. */
static uint64_t grains_begin(struct image *img, const struct sparse *s, uint64_t gt)
{
    WITH_LOCK(&img->lock);
    while (gt > 0 && s->gd[gt - 1] == 0)
        gt--;
    if (gt == 0)
        return s->header.overhead;
    return sparse_table_fits(s, s->gd[gt - 1]) ? (uint64_t)s->gd[gt - 1] + s->gt_sectors : 0;
}

/* Whether a table has what stands first among its grains. (What it has lost between them is found
 * when they are read: stream_check_gap().) */
static int has_its_first(struct image *img, const struct sparse *s, uint64_t gt,
                         const uint32_t *entries, bool *ret, struct platter_error *err)
{
    uint64_t first = grains_begin(img, s, gt), grain;
    uint32_t per_table = s->header.gtes_per_gt;
    for (uint32_t i = 0; i < per_table; i++)
        if (entries[i] == first)
            return 0;
    if (first == 0)
        return 0;
    int r = record_at(s, first, &grain, err);
    *ret = grain == NO_GRAIN || grain / per_table != gt || entries[grain % per_table] != 0;
    return r;
}

int stream_check_table(struct image *img, const struct sparse *s, uint64_t gt, uint32_t sector,
                       const uint32_t *entries, bool *ret, struct platter_error *err)
{
    uint8_t marker[VMDK_SECTOR];
    *ret = true;
    if (!s->packed || !(s->header.flags & HOSTED_MARKERS))
        return 0;
    int r = 0;
    if (s->header.at_end) {
        r = stream_pread(s->stream, marker, sizeof marker, (hoff)(sector - 1) * VMDK_SECTOR, err);
        *ret = r == 0 && marker_leads(marker, MARKER_GT, (uint64_t)s->header.gtes_per_gt * 4);
    }
    if (r == 0 && *ret)
        r = names_its_grains(s, gt, entries, ret, err);
    if (r == 0 && *ret && s->header.at_end && !s->salvage)
        r = has_its_first(img, s, gt, entries, ret, err);
    return r;
}

int stream_check_gap(struct image *img, struct sparse *s, hoff off, struct platter_error *err)
{
    uint64_t grain;
    struct page *p;
    int r = record_at(s, off / VMDK_SECTOR, &grain, err);
    if (r < 0 || grain == NO_GRAIN)
        return r;
    if ((r = tables_enter(img, s, grain, false, &p, err)) < 0)
        return r;
    bool lost = page_entry(p, grain) == 0;
    pthread_mutex_unlock(&img->lock);
    return lost ? fail(err, PLATTER_ECORRUPT,
                       "%s: grain %" PRIu64 " (guest offset %" PRIu64
                       " of the extent) stands at byte %" PRIu64
                       ", but its grain table has no entry for it: the table is damaged",
                       s->stream->name, grain, grain * s->grain, off)
                : 0;
}
