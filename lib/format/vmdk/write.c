/* SPDX-License-Identifier: MIT */
/*
 * Room for new data, and what happens when it is written: vmdk.md sections 4.5 to 4.7, 11, 12.
 *
 * Invariants: grains are only ever appended, in runs that stay together; an entry changes at
 * commit, after the data was written. The first write after open is preceded, durably, by a new CID
 * (children of the image as it was must not fit any more) and by the mark of an unclean shutdown;
 * until then no extent is in_place, so that every write passes here.
 */
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

/* ---- the first write, the last --------------------------------------------------------------- */

static int set_unclean(struct image *img, uint8_t unclean, struct platter_error *err)
{
    const struct vmdk *v = vmdk_of(img);
    int r = 0;
    for (unsigned i = 0; i < v->n_extents && r == 0; i++) {
        const struct vmdk_extent *x = &v->extents[i];
        if (!x->sparse || x->access != ACCESS_WRITE)
            continue;
        if (x->sparse->kind == SPARSE_COWD)
            r = cowd_set_unclean(x->sparse, unclean, err);
        else if (x->sparse->kind == SPARSE_HOSTED && !x->sparse->was_unclean)
            r = stream_pwrite(x->stream, &unclean, 1, HOSTED_UNCLEAN_AT, err);
    }
    return r;
}

/* Every file of the image durable. */
static int flush_streams(struct image *img, struct platter_error *err)
{
    const struct vmdk *v = vmdk_of(img);
    int r = stream_flush(img->stream, err);
    for (unsigned i = 0; i < v->n_extents && r == 0; i++) {
        const struct vmdk_extent *x = &v->extents[i];
        if (x->stream && x->stream != img->stream && x->access == ACCESS_WRITE)
            r = stream_flush(x->stream, err);
    }
    return r;
}

/* Checks the grain of a page that lies furthest behind in the file of `size` bytes. Where the disk
 * ends it may be cut, and is the last in the file: nothing is put where the rest of it would be,
 * and so `end` may be behind the file's. The lock is held. */
static int check_furthest(const struct vmdk_extent *x, const struct page *p, uint64_t first,
                          uint64_t n, uint64_t size, struct platter_error *err)
{
    struct sparse *s = x->sparse;
    uint64_t most = 0, most_sector = 0;
    for (uint64_t i = 0, sector; i < n; i++)
        if (sparse_entry(s, page_entry(p, first + i), &sector) == EXTENT_DATA &&
            sector > most_sector) {
            most = i;
            most_sector = sector;
        }
    if (most_sector == 0)
        return 0;
    uint64_t start = (first + most) * s->grain;
    uint64_t need = start < x->len ? min_u64(s->grain, x->len - start) : 0;
    int r = sparse_check_grain(s, first + most, page_entry(p, first + most), need, err);
    if (r == 0 && !range_inside(most_sector * VMDK_SECTOR, need, size))
        r = fail(err, PLATTER_ECORRUPT,
                 "%s: grain %" PRIu64 " (guest offset %" PRIu64 " of the extent) has %" PRIu64
                 " bytes from byte %" PRIu64 " on, but the file ends at byte %" PRIu64
                 ": it is truncated",
                 s->stream->name, first + most, start, need, most_sector * VMDK_SECTOR, size);
    if (r == 0 && s->kind != SPARSE_SE)
        s->end = max_u64(s->end, most_sector * VMDK_SECTOR + s->grain);
    return r;
}

/* Looks at the tables of a page; *used_end goes up to behind the grains that a seSparse file uses.
 */
static int check_page(struct image *img, const struct vmdk_extent *x, uint64_t first,
                      uint64_t grains, uint64_t size, uint64_t *used_end, struct platter_error *err)
{
    struct sparse *s = x->sparse;
    struct page *p;
    uint64_t n = min_u64(grains - first, s->page_entries), tables = s->header.gtes_per_gt;
    int r = tables_enter(img, s, first, false, &p, err);
    if (r < 0)
        return r;
    for (uint64_t i = 0; i < n && r == 0; i += tables)
        r = sparse_check_table(s, (first + i) / tables, err);
    if (r == 0)
        r = check_furthest(x, p, first, n, size, err);
    for (uint64_t i = 0; i < n && s->kind == SPARSE_SE; i++)
        *used_end = max_u64(*used_end, se_used_end(page_entry(p, first + i)));
    pthread_mutex_unlock(&img->lock);
    return r;
}

/* A file that was cut lacks what its entries name. Appending would fill those places with other
 * data, which then reads as if nothing had been wrong. */
static int check_complete(struct image *img, const struct vmdk_extent *x, struct platter_error *err)
{
    struct sparse *s = x->sparse;
    uint64_t grains = div_up(x->len, s->grain), used_end = 0, size, n;
    int r = stream_size(s->stream, &size, err);
    if (s->kind == SPARSE_SE) /* also entries behind the end of the disk keep a grain */
        grains = (uint64_t)s->gd_count * SE_GTES;
    for (uint64_t first = 0; first < grains && r == 0; first += n) {
        n = tables_empty_run(img, s, first, grains - first);
        if (n != 0)
            continue;
        r = check_page(img, x, first, grains, size, &used_end, err);
        n = s->page_entries - first % s->page_entries;
    }
    return r == 0 && s->kind == SPARSE_SE ? se_judge(s, used_end, err) : r;
}

static int check_all_complete(struct image *img, struct platter_error *err)
{
    const struct vmdk *v = vmdk_of(img);
    int r = 0;
    for (unsigned i = 0; i < v->n_extents && r == 0; i++)
        if (v->extents[i].sparse && v->extents[i].access == ACCESS_WRITE)
            r = check_complete(img, &v->extents[i], err);
    return r;
}

/* Once, before the first change. `slow` is held. */
static int look_at_tables(struct image *img, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    int r = v->looked ? 0 : check_all_complete(img, err);
    v->looked = r == 0;
    return r;
}

int vmdk_begin(struct image *img, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    if (atomic_load(&v->begun))
        return 0;
    WITH_LOCK(&v->slow);
    bool marked = atomic_load(&v->marked);
    if (atomic_load(&v->begun) || (marked && img->same_content))
        return 0;
    int r = marked ? 0 : look_at_tables(img, err);
    if (r < 0)
        return r;
    if (!img->same_content)
        r = vmdk_new_identity(img, err);
    if (r == 0 && !marked)
        r = set_unclean(img, 1, err);
    if (r == 0)
        r = flush_streams(img, err);
    if (r < 0)
        return image_poison(img, r);
    atomic_store(&v->marked, true);
    atomic_store(&v->begun, !img->same_content);
    return 0;
}

bool vmdk_has_begun(const struct image *img)
{
    const struct vmdk *v = vmdk_of(img);
    return atomic_load(&v->begun) || atomic_load(&v->marked);
}

int vmdk_end(struct image *img, struct platter_error *err)
{
    if (!img->writable || !img->ordered || !vmdk_has_begun(img) || atomic_load(&img->poison) < 0)
        return 0;
    int r = set_unclean(img, 0, err);
    return r < 0 ? r : flush_streams(img, err);
}

/* ---- reserve, commit, abandon ---------------------------------------------------------------- */

/* What a reservation of new grains remembers; grains == 0: space that was there already. */
enum { COOKIE_GRAINS, COOKIE_FIRST, COOKIE_SECTOR };

/* A table to note grains in, where the directory has none. */
static int need_table(struct image *img, struct sparse *s, uint64_t gt, struct platter_error *err)
{
    pthread_mutex_lock(&img->lock);
    bool missing = s->gd[gt] == 0;
    pthread_mutex_unlock(&img->lock);
    return missing ? tables_add(img, s, gt, err) : 0;
}

/* New grains for [within, within + len) of an extent, up to the end of a grain table. */
static int reserve_grains(struct image *img, const struct vmdk_extent *x, uint64_t within,
                          uint64_t len, struct reservation *ret, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    struct sparse *s = x->sparse;
    uint32_t per_table = s->header.gtes_per_gt;
    uint64_t grain = within / s->grain, sector;
    uint64_t n = min_u64(div_up(within + len, s->grain) - grain, per_table - grain % per_table);
    int r = need_table(img, s, grain / per_table, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&img->lock);
    r = sparse_extend(s, n * s->header.grain_size, &sector, err);
    pthread_mutex_unlock(&img->lock);
    if (r < 0)
        return r;
    *ret = (struct reservation){
        .start = x->start + grain * s->grain,
        .len = n * s->grain,
        .stream = s->stream,
        .off = (hoff)sector * VMDK_SECTOR,
        .cookie = {[COOKIE_GRAINS] = n, [COOKIE_FIRST] = grain, [COOKIE_SECTOR] = sector},
    };
    /* The last grain may reach over the end of the disk, but not into the next extent's range:
     * finish_grain(). */
    if (x + 1 < v->extents + v->n_extents)
        ret->len = min_u64(ret->len, x->start + x->len - ret->start);
    return 0;
}

/* Finds out whether a seSparse file takes new entries: before the image becomes another one to its
 * children, for it often does not. */
static int judge_extent(struct image *img, const struct vmdk_extent *x, struct platter_error *err)
{
    if (!x->sparse || x->sparse->kind != SPARSE_SE)
        return 0;
    WITH_LOCK(&vmdk_of(img)->slow);
    return look_at_tables(img, err);
}

int vmdk_reserve(struct image *img, goff off, uint64_t len, struct reservation *ret,
                 struct platter_error *err)
{
    const struct vmdk_extent *x = vmdk_extent_at(vmdk_of(img), off);
    if (x->access != ACCESS_WRITE || !x->stream)
        return fail(err, EROFS,
                    "%s: the extent at guest offset %" PRIu64 " (%s) cannot be written: %s",
                    img->stream->name, x->start, x->word,
                    x->unfit ? x->unfit : "the descriptor says so, or it has no file");
    struct extent e;
    int r = vmdk_map(img, off, len, &e, err);
    bool stored = e.kind == EXTENT_DATA || e.has_place;
    if (r == 0 && !stored)
        r = judge_extent(img, x, err);
    if (r == 0 && !stored && x->sparse->kind == SPARSE_SE)
        r = se_check_allocating(x->sparse, err);
    if (r == 0)
        r = vmdk_begin(img, err);
    if (r < 0)
        return r;
    if (!stored)
        return reserve_grains(img, x, off - x->start, e.len, ret, err);
    *ret = (struct reservation){.start = off, .len = e.len, .stream = e.stream, .off = e.off};
    return 0;
}

/* Files hold whole grains (section 4.4), also where the last one ends behind its extent: what is
 * missing of it is a hole in front of its last sector. */
static int finish_grain(const struct sparse *s, const struct reservation *r,
                        struct platter_error *err)
{
    static const uint8_t zeros[VMDK_SECTOR];
    uint64_t whole = r->cookie[COOKIE_GRAINS] * s->grain;
    return r->len < whole
               ? stream_pwrite(s->stream, zeros, sizeof zeros, r->off + whole - sizeof zeros, err)
               : 0;
}

int vmdk_commit(struct image *img, const struct reservation *r, struct platter_error *err)
{
    if (r->cookie[COOKIE_GRAINS] == 0)
        return 0;
    struct sparse *s = vmdk_extent_at(vmdk_of(img), r->start)->sparse;
    struct page *p;
    int result = finish_grain(s, r, err);
    if (result == 0)
        result = tables_enter(img, s, r->cookie[COOKIE_FIRST], true, &p, err);
    if (result < 0)
        return result;
    page_set_grains(p, r->cookie[COOKIE_FIRST], r->cookie[COOKIE_GRAINS], r->cookie[COOKIE_SECTOR]);
    pthread_mutex_unlock(&img->lock);
    return 0;
}

void vmdk_abandon(struct image *img, const struct reservation *r)
{
    if (r->cookie[COOKIE_GRAINS] == 0)
        return;
    struct sparse *s = vmdk_extent_at(vmdk_of(img), r->start)->sparse;
    hoff start = r->cookie[COOKIE_SECTOR] * VMDK_SECTOR;
    WITH_LOCK(&img->lock);
    if (s->kind == SPARSE_SE)
        se_give_back(s, r->cookie[COOKIE_SECTOR], r->cookie[COOKIE_GRAINS]);
    else if (s->end == start + r->cookie[COOKIE_GRAINS] * s->grain)
        s->end = start;
}

/* ---- zero and discard ------------------------------------------------------------------------ */

/* Zeros in grains that this image does not store and that show a backing file. */
static int mark_zero_grains(struct image *img, const struct vmdk_extent *x, uint64_t within,
                            uint64_t len, struct platter_error *err)
{
    struct sparse *s = x->sparse;
    uint32_t per_table = s->header.gtes_per_gt;
    uint64_t grain = within / s->grain, end = div_up(within + len, s->grain);
    int r = 0;
    while (grain < end && r == 0) {
        uint64_t n = min_u64(end - grain, per_table - grain % per_table);
        struct page *p;
        r = need_table(img, s, grain / per_table, err);
        if (r == 0 && (r = tables_enter(img, s, grain, true, &p, err)) == 0) {
            page_set_zero(p, grain, n);
            pthread_mutex_unlock(&img->lock);
        }
        grain += n;
    }
    return r;
}

/* Whether zeros can be marked in an extent of unallocated grains (section 4.7). */
static bool can_mark_zero(const struct vmdk_extent *x, uint64_t within, uint64_t len)
{
    const struct sparse *s = x->sparse;
    bool known = s->kind == SPARSE_SE ? se_check_allocating(s, NULL) == 0
                                      : (s->header.flags & HOSTED_ZEROED) != 0;
    return known && within % s->grain == 0 && (len % s->grain == 0 || within + len == x->len);
}

/* One extent. Space that is there keeps its place: its bytes are made zero. */
static int mark_extent(struct image *img, goff off, const struct extent *e, enum mark mark,
                       bool unmap, struct platter_error *err)
{
    const struct vmdk_extent *x = vmdk_extent_at(vmdk_of(img), off);
    if (e->kind == EXTENT_DATA || e->has_place) {
        if (mark == MARK_DISCARD)
            return stream_discard(e->stream, e->off, e->len, err);
        return stream_zero(e->stream, e->off, e->len, unmap ? STREAM_ZERO_UNMAP : 0, err);
    }
    if (e->kind == EXTENT_BACKING && mark == MARK_ZERO && img->has_backing)
        return mark_zero_grains(img, x, off - x->start, e->len, err);
    return 0;
}

/* Whether mark_extent() can do what is asked: 0, -ENOTSUP without a sentence, or an error. */
static int check_mark(struct image *img, goff off, const struct extent *e, enum mark mark,
                      struct platter_error *err)
{
    const struct vmdk_extent *x = vmdk_extent_at(vmdk_of(img), off);
    if (x->stream && x->access != ACCESS_WRITE)
        return fail(err, EROFS, "%s: the extent at guest offset %" PRIu64 " (%s) is read-only: %s",
                    img->stream->name, x->start, x->word,
                    x->unfit ? x->unfit : "the descriptor says so");
    if (e->kind != EXTENT_BACKING || mark != MARK_ZERO || !img->has_backing)
        return 0;
    int r = judge_extent(img, x, err);
    if (r == 0 && !can_mark_zero(x, off - x->start, e->len))
        r = -ENOTSUP;
    return r;
}

int vmdk_mark(struct image *img, goff off, uint64_t len, enum mark mark, bool unmap,
              struct platter_error *err)
{
    struct extent e;
    int r = 0;
    for (uint64_t done = 0; done < len && r == 0; done += e.len) {
        r = vmdk_map(img, off + done, len - done, &e, err);
        if (r == 0)
            r = check_mark(img, off + done, &e, mark, err);
    }
    if (r == 0)
        r = vmdk_begin(img, err);
    for (uint64_t done = 0; done < len && r == 0; done += e.len) {
        r = vmdk_map(img, off + done, len - done, &e, err);
        if (r == 0)
            r = mark_extent(img, off + done, &e, mark, unmap, err);
    }
    return r;
}

int vmdk_flush(struct image *img, struct platter_error *err)
{
    if (!vmdk_has_begun(img))
        return 0;
    int r = tables_write_back(img, err);
    if (r < 0 || !img->ordered)
        return r;
    r = flush_streams(img, err);
    return r < 0 ? image_poison(img, r) : 0;
}
