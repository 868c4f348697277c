/* SPDX-License-Identifier: MIT */
/* Where guest bytes live: vmdk.md sections 4.4, 5.6 and 8. Pure look-up; nothing is changed. */
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

struct vmdk_extent *vmdk_extent_at(const struct vmdk *v, goff off)
{
    unsigned low = 0, high = v->n_extents;
    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2;
        if (v->extents[middle].start <= off)
            low = middle;
        else
            high = middle;
    }
    return &v->extents[low];
}

/* What the entry behind one that says (kind, sector) must say to go on with it. */
static bool goes_on(const struct sparse *s, enum extent_kind kind, uint64_t sector, uint64_t n,
                    uint64_t gte)
{
    uint64_t at;
    if (sparse_entry(s, gte, &at) != kind)
        return false;
    return (kind != EXTENT_DATA && kind != EXTENT_PACKED) ||
           at == sector + n * s->header.grain_size;
}

/* The same for entries of 32 bits, where a run is a row of numbers. */
static uint64_t run_of_numbers(const uint32_t *entries, uint64_t max, uint64_t step)
{
    uint64_t value = entries[0], n = 1; /* a row may not wrap around at 2^32 */
    for (; n < max; n++) {
        value += step;
        if (entries[n] != value)
            break;
    }
    return n;
}

static uint64_t run_of_entries(const struct sparse *s, const struct page *p, uint64_t grain,
                               uint64_t max)
{
    uint64_t sector, n = 1;
    enum extent_kind kind = sparse_entry(s, page_entry(p, grain), &sector);
    if (s->entry_size == 4)
        return run_of_numbers(p->entries + grain % s->page_entries, max,
                              kind == EXTENT_DATA || kind == EXTENT_PACKED ? s->header.grain_size
                                                                           : 0);
    while (n < max && goes_on(s, kind, sector, n, page_entry(p, grain + n)))
        n++;
    return n;
}

uint64_t vmdk_run(const struct sparse *s, const struct page *p, uint64_t grain, uint64_t max)
{
    uint32_t per_table = s->header.gtes_per_gt;
    max = min_u64(max, s->page_entries - grain % s->page_entries);
    uint64_t n = run_of_entries(s, p, grain, max);
    /* Tables that are nowhere are held as zeros. */
    for (uint64_t i = round_up(grain + 1, per_table); i < grain + n; i += per_table)
        if (s->gd[i / per_table] != 0 && !sparse_table_fits(s, s->gd[i / per_table]))
            return i - grain;
    return n;
}

/* A compressed grain. How long the record is stands in the record; the next one bounds it. */
static int map_packed(const struct vmdk_extent *x, const struct page *p, uint64_t grain,
                      uint64_t within, struct extent *ret, struct platter_error *err)
{
    const struct sparse *s = x->sparse;
    uint64_t gte = page_entry(p, grain);
    int r = sparse_check_grain(s, grain, gte, VMDK_SECTOR, err);
    if (r < 0)
        return r;
    uint64_t start = grain * s->grain;
    ret->kind = EXTENT_PACKED;
    ret->off = (hoff)gte * VMDK_SECTOR;
    ret->unit_start = x->start + start;
    ret->unit_len = min_u64(s->grain, x->len - start);
    ret->len = min_u64(ret->len, start + ret->unit_len - within);
    for (uint64_t next = grain % s->page_entries + 1; next < s->page_entries; next++)
        if (p->entries[next] > 1) {
            if (p->entries[next] > gte)
                ret->packed_len = ((hoff)p->entries[next] - gte) * VMDK_SECTOR;
            break;
        }
    uint32_t table = s->gd[grain / s->header.gtes_per_gt];
    if (s->header.at_end && table > gte + 1 && sparse_table_fits(s, table)) {
        uint64_t most = (table - 1 - gte) * VMDK_SECTOR;
        ret->packed_len = ret->packed_len ? min_u64(ret->packed_len, most) : most;
    }
    return 0;
}

/* Grains in a row; those that the file has, or an error if even the first is missing. */
static int map_data(struct image *img, const struct vmdk_extent *x, const struct page *p,
                    uint64_t grain, uint64_t within, struct extent *ret, struct platter_error *err)
{
    const struct sparse *s = x->sparse;
    uint64_t gte = page_entry(p, grain), sector;
    uint64_t start = grain * s->grain;
    uint64_t grains = div_up(within + ret->len - start, s->grain);
    uint64_t room = x->len - start;
    uint64_t valid = min_u64(vmdk_run(s, p, grain, grains) * s->grain, room);
    int r = 0;
    if (sparse_check_grain(s, grain, gte, valid, NULL) < 0) {
        valid = min_u64(s->grain, room);
        r = sparse_check_grain(s, grain, gte, valid, err);
    }
    ret->kind = EXTENT_DATA;
    ret->in_place = x->access == ACCESS_WRITE && atomic_load(&vmdk_of(img)->begun);
    sparse_entry(s, gte, &sector);
    ret->off = sector * VMDK_SECTOR + (within - start);
    ret->len = min_u64(ret->len, start + valid - within);
    return r;
}

static int map_sparse(struct image *img, const struct vmdk_extent *x, uint64_t within,
                      struct extent *ret, struct platter_error *err)
{
    struct sparse *s = x->sparse;
    uint64_t grain = within / s->grain, sector;
    uint64_t start = grain * s->grain, grains = div_up(within + ret->len - start, s->grain);
    uint64_t empty = tables_empty_run(img, s, grain, grains);
    if (empty) {
        ret->kind = EXTENT_BACKING;
        ret->len = min_u64(ret->len, start + empty * s->grain - within);
        return 0;
    }
    struct page *p;
    int r = tables_enter(img, s, grain, false, &p, err);
    if (r < 0)
        return r;
    ret->stream = s->stream;
    /* A salvage has grains of tables that are lost. */
    if (!s->salvage || page_entry(p, grain) == 0)
        r = sparse_check_table(s, grain / s->header.gtes_per_gt, err);
    if (r == 0) {
        enum extent_kind kind = sparse_entry(s, page_entry(p, grain), &sector);
        if (kind == EXTENT_PACKED) {
            r = map_packed(x, p, grain, within, ret, err);
        } else if (kind == EXTENT_DATA) {
            r = map_data(img, x, p, grain, within, ret, err);
        } else {
            uint64_t valid = vmdk_run(s, p, grain, grains) * s->grain;
            ret->kind = kind;
            ret->len = min_u64(ret->len, start + valid - within);
        }
    }
    pthread_mutex_unlock(&img->lock);
    return r;
}

/* A flat extent: what the file should have and has not is an error. */
static int map_flat(struct image *img, const struct vmdk_extent *x, uint64_t within,
                    struct extent *ret, struct platter_error *err)
{
    hoff host = x->off + within;
    if (host >= x->end)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: ends at byte %" PRIu64 ", but the descriptor %s places %" PRIu64
                    " bytes from byte %" PRIu64 " on in it: it is truncated",
                    x->stream->name, x->end, img->stream->name, x->len, x->off);
    ret->kind = EXTENT_DATA;
    ret->len = min_u64(ret->len, x->end - host);
    ret->in_place = x->access == ACCESS_WRITE && atomic_load(&vmdk_of(img)->begun);
    ret->stream = x->stream;
    ret->off = host;
    return 0;
}

int vmdk_map(struct image *img, goff off, uint64_t len, struct extent *ret,
             struct platter_error *err)
{
    const struct vmdk_extent *x = vmdk_extent_at(vmdk_of(img), off);
    uint64_t within = off - x->start;
    *ret = (struct extent){.kind = EXTENT_ZERO, .len = min_u64(len, x->len - within)};
    if (x->type == TYPE_ZERO)
        return 0;
    if (x->access == ACCESS_NONE)
        return fail(err, EACCES,
                    "%s: the extent at guest offset %" PRIu64
                    " (%s) is marked NOACCESS in the descriptor",
                    img->stream->name, x->start, x->word);
    return x->sparse ? map_sparse(img, x, within, ret, err) : map_flat(img, x, within, ret, err);
}
