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

/* What an entry says. Value 1 is a zero grain even where the header does not announce them: no
 * grain can stand at sector 1 (section 4.4). */
static enum extent_kind kind_of(const struct sparse *s, uint32_t gte)
{
    if (gte == 0)
        return EXTENT_BACKING;
    if (gte == 1)
        return EXTENT_ZERO;
    return s->packed ? EXTENT_PACKED : EXTENT_DATA;
}

uint64_t vmdk_run(const struct sparse *s, const struct page *p, uint64_t grain, uint64_t max)
{
    uint64_t first = grain % PAGE_ENTRIES;
    uint32_t per_table = s->header.gtes_per_gt;
    uint64_t end = first + min_u64(max, PAGE_ENTRIES - first);
    uint64_t value = p->entries[first]; /* a row may not wrap around at 2^32 */
    uint64_t step = value > 1 ? s->header.grain_size : 0;
    uint64_t i = first;
    while (++i < end) {
        value += step;
        if (p->entries[i] != value)
            break;
        uint64_t gt = (grain + i - first) / per_table;
        if (i % per_table == 0 && s->gd[gt] != 0 && !sparse_table_fits(s, s->gd[gt]))
            break;
    }
    return i - first;
}

/* A compressed grain. How long the record is stands in the record; the next one bounds it. */
static int map_packed(const struct vmdk_extent *x, const struct page *p, uint64_t grain,
                      uint64_t within, struct extent *ret, struct platter_error *err)
{
    const struct sparse *s = x->sparse;
    uint32_t gte = p->entries[grain % PAGE_ENTRIES];
    int r = sparse_check_grain(s, grain, gte, VMDK_SECTOR, err);
    if (r < 0)
        return r;
    uint64_t start = grain * s->grain;
    ret->kind = EXTENT_PACKED;
    ret->off = (hoff)gte * VMDK_SECTOR;
    ret->unit_start = x->start + start;
    ret->unit_len = min_u64(s->grain, x->len - start);
    ret->len = min_u64(ret->len, start + ret->unit_len - within);
    for (uint64_t next = grain % PAGE_ENTRIES + 1; next < PAGE_ENTRIES; next++)
        if (p->entries[next] > 1) {
            if (p->entries[next] > gte)
                ret->packed_len = ((hoff)p->entries[next] - gte) * VMDK_SECTOR;
            break;
        }
    return 0;
}

/* Grains in a row; those that the file has, or an error if even the first is missing. */
static int map_data(struct image *img, const struct vmdk_extent *x, const struct page *p,
                    uint64_t grain, uint64_t within, struct extent *ret, struct platter_error *err)
{
    const struct sparse *s = x->sparse;
    uint32_t gte = p->entries[grain % PAGE_ENTRIES];
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
    ret->off = (hoff)gte * VMDK_SECTOR + (within - start);
    ret->len = min_u64(ret->len, start + valid - within);
    return r;
}

static int map_sparse(struct image *img, const struct vmdk_extent *x, uint64_t within,
                      struct extent *ret, struct platter_error *err)
{
    struct sparse *s = x->sparse;
    uint64_t grain = within / s->grain;
    struct page *p;
    int r = tables_enter(img, s, grain, false, &p, err);
    if (r < 0)
        return r;
    ret->stream = s->stream;
    r = sparse_check_table(s, grain / s->header.gtes_per_gt, err);
    if (r == 0) {
        enum extent_kind kind = kind_of(s, p->entries[grain % PAGE_ENTRIES]);
        if (kind == EXTENT_PACKED) {
            r = map_packed(x, p, grain, within, ret, err);
        } else if (kind == EXTENT_DATA) {
            r = map_data(img, x, p, grain, within, ret, err);
        } else {
            uint64_t start = grain * s->grain;
            uint64_t grains = div_up(within + ret->len - start, s->grain);
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
    if (!x->stream)
        return 0;
    if (x->access == ACCESS_NONE)
        return fail(err, EACCES,
                    "%s: the extent at guest offset %" PRIu64
                    " (%s) is marked NOACCESS in the descriptor",
                    img->stream->name, x->start, x->stream->name);
    return x->sparse ? map_sparse(img, x, within, ret, err) : map_flat(img, x, within, ret, err);
}
