/* SPDX-License-Identifier: MIT */
/*
 * The tables of streams: vmdk.md sections 5.2 to 5.4. There is one copy of them, but a stream tells
 * more than once where things are: records name their grains, and markers what stands behind them.
 * A directory that was damaged contradicts them.
 */
#include "format/vmdk/vmdk.h"

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
    uint8_t head[RECORD_HEAD];
    uint32_t i = 0;
    *ret = true;
    while (i < h->gtes_per_gt && entries[i] <= 1)
        i++;
    if (i == h->gtes_per_gt || !range_inside((hoff)entries[i] * VMDK_SECTOR, sizeof head, s->end))
        return 0;
    int r = stream_pread(s->stream, head, sizeof head, (hoff)entries[i] * VMDK_SECTOR, err);
    uint64_t lba = get_le(head, 8);
    if (r < 0 || lba >= h->capacity || lba % h->grain_size != 0)
        return r;
    *ret = lba / h->grain_size / h->gtes_per_gt == gt;
    return 0;
}

int stream_check_table(const struct sparse *s, uint64_t gt, uint32_t sector,
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
    return r < 0 || !*ret ? r : names_its_grains(s, gt, entries, ret, err);
}
