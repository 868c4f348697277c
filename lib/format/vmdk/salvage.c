/* SPDX-License-Identifier: MIT */
/*
 * Reading what is damaged, for PLATTER_OPEN_SALVAGE: vmdk.md sections 5.6 and 13.
 *
 * Tables are believed where they can be right. Where they cannot, the second copy is asked, entry
 * by entry; and in a stream the records themselves, which are looked for once, when one is missed
 * first. What is known to have been stored and is not found stays an error, so that whoever reads
 * learns of each hole. Without a directory it is not known what was stored: then grains that are
 * not found read as zeros, and the image has a doubt.
 */
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

/* A record that was found: its grain, whether it is sound, its sector. In ascending order the best
 * one of a grain is its last. */
#define FOUND(grain, sound, sector)                                                                \
    ((uint64_t)(grain) << 33 | (uint64_t)(sound) << 32 | (uint32_t)(sector))
enum { MAX_GRAINS_LOG2 = 31 };

struct salvage {
    bool lost;     /* there is no directory */
    bool opened;   /* directories stay what they are */
    bool searched; /* `found` is all there is; `slow` */
    uint64_t *found;
    uint64_t n, max;
    uint64_t grains;    /* behind the last that was found */
    uint64_t directory; /* sector of the last that was found, or 0 */
};

void salvage_free(struct sparse *s)
{
    if (!s->salvage)
        return;
    budget_free(s->budget, s->salvage->found, s->salvage->max * sizeof *s->salvage->found);
    free(s->salvage);
}

/* ---- records --------------------------------------------------------------------------------- */

static int grow(struct sparse *s, struct platter_error *err)
{
    struct salvage *v = s->salvage;
    uint64_t *found, max = v->max ? v->max + v->max / 2 : 4096;
    int r =
        budget_alloc(s->budget, max * sizeof *found, "the list of a VMDK's grains", &found, err);
    if (r < 0)
        return r;
    if (v->n)
        memcpy(found, v->found, v->n * sizeof *found);
    budget_free(s->budget, v->found, v->max * sizeof *found);
    v->found = found;
    v->max = max;
    return 0;
}

/* Whether a table is to be looked for. Only while the image is opened. */
static bool lacks_table(const struct sparse *s, uint64_t gt)
{
    bool right = s->gd[gt] != 0 ? sparse_table_fits(s, s->gd[gt]) : !s->header.at_end;
    return !s->salvage->opened && (s->salvage->lost || !right);
}

static int note_item(void *opaque, const struct stream_item *item, struct platter_error *err)
{
    struct sparse *s = opaque;
    struct salvage *v = s->salvage;
    uint64_t gt = item->grain / s->header.gtes_per_gt;
    if (item->kind == ITEM_DIRECTORY) {
        v->directory = item->sector;
        return 0;
    }
    if (item->kind == ITEM_TABLE) {
        if (s->gd && gt < s->gd_count && item->sector < VMDK_WRONG_TABLE && lacks_table(s, gt))
            s->gd[gt] = (uint32_t)item->sector;
        return 0;
    }
    if (item->grain >> MAX_GRAINS_LOG2 || item->sector > UINT32_MAX) {
        if (!item->sound) /* what only looks like a record may say anything */
            return 0;
        return fail(err, ENOTSUP,
                    "%s: has a grain %" PRIu64 " at sector %" PRIu64
                    ": more than can be looked for",
                    s->stream->name, item->grain, item->sector);
    }
    int r = v->n == v->max ? grow(s, err) : 0;
    if (r < 0)
        return r;
    v->found[v->n++] = FOUND(item->grain, item->sound, item->sector);
    v->grains = max_u64(v->grains, item->grain + 1);
    return 0;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int search(struct sparse *s, struct platter_error *err)
{
    struct salvage *v = s->salvage;
    v->n = 0;
    int r = stream_scan(s->stream, &s->header, s->end, s->budget, note_item, s, err);
    if (r < 0) {
        v->searched = r == -PLATTER_ECORRUPT; /* given up: it would be again */
        v->n = 0;
        return r;
    }
    if (v->n)
        qsort(v->found, v->n, sizeof *v->found, compare);
    v->searched = true;
    return 0;
}

/* The first that was found of a grain behind this one. */
static uint64_t behind(const struct salvage *v, uint64_t grain)
{
    uint64_t low = 0, high = v->n;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (v->found[middle] >> 33 > grain)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static bool has_addresses(const struct sparse *s)
{
    return s->packed && (s->header.flags & HOSTED_MARKERS);
}

int salvage_find(struct image *img, struct sparse *s, uint64_t grain, uint32_t *ret,
                 struct platter_error *err)
{
    *ret = 0;
    if (!s->salvage || !has_addresses(s))
        return 0;
    WITH_LOCK(&vmdk_of(img)->slow);
    const struct salvage *v = s->salvage;
    int r = v->searched ? 0 : search(s, err);
    if (r < 0)
        return r;
    uint64_t k = behind(v, grain);
    if (k > 0 && v->found[k - 1] >> 33 == grain)
        *ret = (uint32_t)v->found[k - 1];
    return 0;
}

/* ---- header ---------------------------------------------------------------------------------- */

/* A stream that was written before its size was known has it in the footer alone; the descriptor
 * may say it as well. 0: it does not. */
static uint64_t described_capacity(struct sparse *s)
{
    const struct hosted_header *h = &s->header;
    uint64_t len = h->descriptor_size * VMDK_SECTOR, ret = 0;
    struct descriptor *d = NULL;
    uint8_t *text;
    if (h->descriptor_offset == 0 || len == 0 || len > VMDK_MAX_DESCRIPTOR ||
        budget_alloc(s->budget, len, "a VMDK descriptor", &text, NULL) < 0)
        return 0;
    if (h->descriptor_offset < s->end / VMDK_SECTOR &&
        stream_pread(s->stream, text, (size_t)len, h->descriptor_offset * VMDK_SECTOR, NULL) == 0 &&
        descriptor_parse(s->budget, s->stream->name, text, (size_t)len, true, &d, NULL) == 0 &&
        d->n_extents == 1 && d->extents[0].sectors <= VMDK_MAX_SECTORS)
        ret = d->extents[0].sectors;
    descriptor_free(d);
    budget_free(s->budget, text, len);
    return ret;
}

static int find_capacity(struct sparse *s, struct platter_error *err)
{
    struct hosted_header *h = &s->header;
    h->capacity = described_capacity(s);
    if (h->capacity > 0 && hosted_directory_entries(h) <= VMDK_MAX_DIRECTORY)
        return 0;
    h->capacity = 0;
    int r = search(s, err);
    h->capacity = s->salvage->grains * h->grain_size;
    return r;
}

int salvage_header(struct sparse *s, struct platter_error *err)
{
    struct hosted_header *h = &s->header;
    s->salvage = calloc(1, sizeof *s->salvage);
    if (!s->salvage)
        return fail_memory(err, "a salvage");
    int r = hosted_find(s->stream, s->end, h, err);
    s->packed = h->compression != 0;
    if (r == 0 && h->capacity == 0 && has_addresses(s) && h->gd_offset == HOSTED_GD_AT_END)
        r = find_capacity(s, err);
    if (r < 0)
        return r;
    hosted_forget_lost(s->stream, s->end, h);
    s->salvage->lost = h->gd_offset == HOSTED_GD_AT_END && h->capacity > 0;
    if (s->salvage->lost && !has_addresses(s))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: its grain directory is lost, and grains without an address cannot be "
                    "told apart",
                    s->stream->name);
    return 0;
}

/* ---- directories ----------------------------------------------------------------------------- */

/* Finds out which tables are not those of their range, for a search can find those that are. */
static int judge_tables(struct image *img, struct sparse *s, struct platter_error *err)
{
    uint8_t bytes[VMDK_MAX_GTES * 4];
    uint32_t entries[VMDK_MAX_GTES];
    int r = 0;
    for (uint32_t gt = 0; gt < s->gd_count && r == 0 && has_addresses(s); gt++) {
        bool right = true;
        if (s->gd[gt] == 0 || !sparse_table_fits(s, s->gd[gt]))
            continue;
        r = stream_pread(s->stream, bytes, (size_t)s->gt_sectors * VMDK_SECTOR,
                         (hoff)s->gd[gt] * VMDK_SECTOR, err);
        for (uint32_t i = 0; i < s->header.gtes_per_gt; i++)
            entries[i] = (uint32_t)get_le(bytes + i * 4, 4);
        if (r == 0)
            r = stream_check_table(img, s, gt, s->gd[gt], entries, &right, err);
        if (!right)
            s->gd[gt] = VMDK_WRONG_TABLE;
    }
    return r;
}

/* Takes over a directory that no footer points to, if it has all tables that were found: then
 * nothing but the footer was lost. */
static int adopt_directory(struct sparse *s, struct platter_error *err)
{
    struct salvage *v = s->salvage;
    uint64_t bytes = (uint64_t)s->gd_count * 4;
    uint8_t *directory;
    if (v->directory == 0 || !range_inside(v->directory * VMDK_SECTOR, bytes, s->end))
        return 0;
    int r = budget_alloc(s->budget, bytes, "the grain directory of a VMDK", &directory, err);
    if (r < 0)
        return r;
    r = stream_pread(s->stream, directory, (size_t)bytes, v->directory * VMDK_SECTOR, err);
    bool right = r == 0;
    for (uint32_t i = 0; i < s->gd_count && right; i++)
        right = s->gd[i] == 0 || s->gd[i] == get_le(directory + (size_t)i * 4, 4);
    for (uint32_t i = 0; i < s->gd_count && right; i++)
        s->gd[i] = (uint32_t)get_le(directory + (size_t)i * 4, 4);
    v->lost = v->lost && !right;
    budget_free(s->budget, directory, bytes);
    return r;
}

/* Where tables stand behind their grains no grain is without one. */
static void mark_lost_tables(struct sparse *s)
{
    const struct salvage *v = s->salvage;
    for (uint64_t i = 0; i < v->n && s->header.at_end && !v->lost; i++) {
        uint64_t gt = (v->found[i] >> 33) / s->header.gtes_per_gt;
        if (gt < s->gd_count && s->gd[gt] == 0)
            s->gd[gt] = VMDK_LOST_TABLE;
    }
}

int salvage_directory(struct image *img, struct sparse *s, struct platter_error *err)
{
    struct salvage *v = s->salvage;
    for (uint32_t i = 0; s->rgd && i < s->gd_count; i++)
        if ((s->gd[i] == 0 || !sparse_table_fits(s, s->gd[i])) && s->rgd[i] != 0)
            s->gd[i] = sparse_table_fits(s, s->rgd[i]) ? s->rgd[i] : VMDK_LOST_TABLE;
    int r = judge_tables(img, s, err);
    /* A stream whose tables stand behind its grains has no grain that is not in one. */
    bool bad = v->lost || s->header.at_end;
    for (uint32_t i = 0; i < s->gd_count && !bad; i++)
        bad = lacks_table(s, i);
    if (r == 0 && bad && has_addresses(s))
        r = search(s, err);
    if (r == 0 && v->lost)
        r = adopt_directory(s, err);
    mark_lost_tables(s);
    v->opened = true;
    return r < 0 || !v->lost
               ? r
               : image_doubt(img, err,
                             "%s: its grain directory is lost: %" PRIu64
                             " grains were found without it, and what was not found reads as "
                             "zeros, stored or not",
                             s->stream->name, v->n);
}

/* ---- tables ---------------------------------------------------------------------------------- */

/* Whether an entry can be right. */
static bool fits(const struct sparse *s, uint64_t grain, uint32_t gte)
{
    uint64_t rest = s->header.capacity * VMDK_SECTOR - grain * s->grain;
    uint64_t need = s->packed ? VMDK_SECTOR : min_u64(s->grain, rest);
    return gte == 1 || sparse_check_grain(s, grain, gte, need, NULL) == 0;
}

static bool is_bad(const struct sparse *s, uint64_t grain, uint32_t gte)
{
    return gte != 0 && !fits(s, grain, gte);
}

/* What the second table says where the first is empty or cannot be right. */
static int merge_second(const struct sparse *s, uint64_t gt, uint32_t *entries, uint32_t n,
                        struct platter_error *err)
{
    uint8_t second[VMDK_MAX_GTES * 4];
    uint64_t first = gt * s->header.gtes_per_gt;
    if (!s->rgd || s->rgd[gt] == 0 || s->rgd[gt] == s->gd[gt] || !sparse_table_fits(s, s->rgd[gt]))
        return 0;
    int r = stream_pread(s->stream, second, n * 4, (hoff)s->rgd[gt] * VMDK_SECTOR, err);
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        uint32_t other = (uint32_t)get_le(second + i * 4, 4);
        if (other != entries[i] && other != 0 && fits(s, first + i, other) &&
            (entries[i] == 0 || is_bad(s, first + i, entries[i])))
            entries[i] = other;
    }
    return r;
}

/* What was found, for all entries of a table or those that are bad. */
static int merge_found(struct image *img, struct sparse *s, uint64_t gt, bool all,
                       uint32_t *entries, uint32_t n, struct platter_error *err)
{
    const struct salvage *v = s->salvage;
    uint64_t first = gt * s->header.gtes_per_gt;
    WITH_LOCK(&vmdk_of(img)->slow);
    int r = v->searched ? 0 : search(s, err);
    if (r < 0)
        return r;
    for (uint64_t k = first ? behind(v, first - 1) : 0; k < v->n; k++) {
        uint64_t grain = v->found[k] >> 33;
        if (grain >= first + n)
            break;
        bool best = k + 1 == v->n || v->found[k + 1] >> 33 != grain;
        if (best && (all || is_bad(s, grain, entries[grain - first]) ||
                     (entries[grain - first] == 0 && s->header.at_end)))
            entries[grain - first] = (uint32_t)v->found[k];
    }
    return 0;
}

int salvage_table(struct image *img, struct sparse *s, uint64_t gt, bool there, uint32_t *entries,
                  struct platter_error *err)
{
    uint64_t first = gt * s->header.gtes_per_gt;
    uint32_t n = (uint32_t)min_u64(s->header.gtes_per_gt, s->grains - first);
    int r = merge_second(s, gt, entries, n, err);
    bool wanted = !there && (s->gd[gt] != 0 || s->salvage->lost);
    for (uint32_t i = 0; i < n && there && !wanted; i++)
        wanted = s->header.at_end || is_bad(s, first + i, entries[i]);
    if (r < 0 || !wanted || !has_addresses(s))
        return r;
    return merge_found(img, s, gt, !there, entries, n, err);
}
