/* SPDX-License-Identifier: MIT */
/*
 * Grain tables: loaded on demand, a page of neighbours at a time, kept in a bounded cache, written
 * back when the image is flushed or the cache is full of changes.
 *
 * Invariants: an entry is changed in memory only after its grain was written; write-back makes data
 * durable before it writes an entry (rule 2, vmdk.md section 12); both copies of a table are
 * written from the same memory; a page with changes is never dropped. Tables that the directory
 * names at impossible places are held as zeros, and whoever looks at an entry of theirs checks that
 * first.
 */
#include <endian.h>
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

/* One more page of memory for the cache. The lock is held, or nobody else is there yet. */
static int cache_grow(struct image *img, struct platter_error *err)
{
    struct table_cache *c = &vmdk_of(img)->tables;
    int r = budget_alloc(img->budget, PAGE_BYTES, "the grain tables of a VMDK",
                         &c->pages[c->n_pages].entries, err);
    if (r == 0)
        c->n_pages++;
    return r;
}

int tables_init(struct image *img, struct platter_error *err)
{
    struct table_cache *c = &vmdk_of(img)->tables;
    pthread_cond_init(&c->changed, NULL);
    int r = cache_grow(img, err);
    if (r == 0 && img->writable)
        r = budget_alloc(img->budget, PAGE_BYTES, "the grain tables of a VMDK", &c->bounce, err);
    return r;
}

void tables_destroy(struct image *img)
{
    struct table_cache *c = &vmdk_of(img)->tables;
    for (unsigned i = 0; i < c->n_pages; i++)
        budget_free(img->budget, c->pages[i].entries, PAGE_BYTES);
    budget_free(img->budget, c->bounce, PAGE_BYTES);
    pthread_cond_destroy(&c->changed);
}

/* ---- loading --------------------------------------------------------------------------------- */

static unsigned tables_per_page(const struct sparse *s)
{
    return PAGE_SECTORS / s->gt_sectors;
}

/* The directory's entries for a page, 0 where there is no table or none that can be. Lock held. */
static unsigned page_tables(const struct sparse *s, uint64_t number, uint32_t gts[PAGE_TABLES])
{
    unsigned n = tables_per_page(s);
    uint64_t first = number * n;
    if (n > s->gd_count - first)
        n = (unsigned)(s->gd_count - first);
    for (unsigned i = 0; i < n; i++)
        gts[i] = sparse_table_fits(s, s->gd[first + i]) ? s->gd[first + i] : 0;
    return n;
}

/* Reads the tables of a page, those that are neighbours in the file together. No lock is held. */
static int page_load(struct page *p, const uint32_t *gts, unsigned n, struct platter_error *err)
{
    const struct sparse *s = p->sparse;
    size_t table = (size_t)s->gt_sectors * VMDK_SECTOR;
    uint8_t *bytes = (uint8_t *)p->entries;
    memset(bytes, 0, PAGE_BYTES);
    for (unsigned i = 0, run; i < n; i += run) {
        for (run = 1; gts[i] && i + run < n &&
                      (uint64_t)gts[i + run] == (uint64_t)gts[i] + run * s->gt_sectors;)
            run++;
        if (gts[i] == 0)
            continue;
        int r = stream_pread(s->stream, bytes + i * table, run * table, (hoff)gts[i] * VMDK_SECTOR,
                             err);
        if (r < 0)
            return r;
    }
    for (unsigned i = 0; i < s->page_entries; i++)
        if (s->entry_size == 8)
            p->wide[i] = le64toh(p->wide[i]);
        else
            p->entries[i] = le32toh(p->entries[i]);
    return 0;
}

/* Whether a page's tables are all missing, or lie in the hole [from, to) of the file (sectors). The
 * lock is held. */
static bool page_is_empty(const struct sparse *s, uint64_t number, uint64_t from, uint64_t to)
{
    unsigned n = tables_per_page(s);
    uint64_t first = number * n, end = min_u64(first + n, s->gd_count);
    for (uint64_t i = first; i < end; i++)
        if (s->gd[i] != 0 && (!sparse_table_fits(s, s->gd[i]) || s->gd[i] < from ||
                              (uint64_t)s->gd[i] + s->gt_sectors > to))
            return false;
    return true;
}

/* The hole of the file in which the first table of a page stands, in sectors; `end` is that of the
 * file. No lock is held. */
static int find_hole(const struct sparse *s, const uint32_t *gts, unsigned n, hoff end,
                     uint64_t *ret_from, uint64_t *ret_to, struct platter_error *err)
{
    uint64_t first = 0, len;
    bool hole;
    *ret_from = *ret_to = 0;
    for (unsigned i = 0; i < n && first == 0; i++)
        first = gts[i];
    if (first == 0 || s->header.at_end) /* there a hole is no table: it has no marker */
        return 0;
    hoff at = first * VMDK_SECTOR;
    int r = stream_extents(s->stream, at, end - at, &len, &hole, err);
    if (r == 0 && hole) {
        *ret_from = first;
        *ret_to = first + len / VMDK_SECTOR;
    }
    return r;
}

/* Notes how many pages from `number` on are empty. The lock is held. */
static bool note_empty(struct sparse *s, uint64_t number, uint64_t from, uint64_t to)
{
    enum { MOST = 1 << 16 }; /* pages that are looked at while others wait for the lock */
    uint64_t pages = div_up(s->gd_count, tables_per_page(s));
    uint64_t end = number, stop = s->salvage ? number : min_u64(pages, number + MOST);
    while (end < stop && page_is_empty(s, end, from, to))
        end++;
    if (end == number)
        return false;
    s->empty_from = number;
    s->empty_to = end;
    return true;
}

uint64_t tables_empty_run(struct image *img, struct sparse *s, uint64_t grain, uint64_t max)
{
    if (vmdk_has_begun(img))
        return 0;
    WITH_LOCK(&img->lock);
    uint64_t number = grain / s->page_entries;
    if (number < s->empty_from || number >= s->empty_to)
        return 0;
    return min_u64(max, s->empty_to * s->page_entries - grain);
}

/* ---- the cache ------------------------------------------------------------------------------- */

static struct page *cache_find(struct table_cache *c, const struct sparse *s, uint64_t number)
{
    if (c->last && c->last->sparse == s && c->last->number == number)
        return c->last;
    for (unsigned i = 0; i < c->n_pages; i++)
        if (c->pages[i].sparse == s && c->pages[i].number == number)
            return c->last = &c->pages[i];
    return NULL;
}

/* The page that was not used for longest and can be dropped as it is, or NULL. */
static struct page *cache_oldest(struct table_cache *c, bool *ret_dirty)
{
    struct page *oldest = NULL;
    *ret_dirty = false;
    for (unsigned i = 0; i < c->n_pages; i++) {
        struct page *p = &c->pages[i];
        if (p->state == PAGE_LOADING || p->writing)
            continue;
        if (p->dirty)
            *ret_dirty = true;
        else if (!oldest || p->used < oldest->used)
            oldest = p;
    }
    return oldest;
}

/*
 * A page to load into. The lock is held, and may be given back in between: then *ret is NULL, and
 * the caller looks again.
 */
static int cache_take(struct image *img, struct page **ret, struct platter_error *err)
{
    struct table_cache *c = &vmdk_of(img)->tables;
    bool dirty;
    struct page *p = cache_oldest(c, &dirty);
    *ret = NULL;
    if ((!p || p->sparse) && c->n_pages < CACHE_PAGES && cache_grow(img, NULL) == 0)
        p = &c->pages[c->n_pages - 1];
    if (p) {
        *ret = p;
        return 0;
    }
    if (!dirty) {
        pthread_cond_wait(&c->changed, &img->lock);
        return 0;
    }
    pthread_mutex_unlock(&img->lock);
    int r = tables_write_back(img, err);
    pthread_mutex_lock(&img->lock);
    return r;
}

/* Judges the tables of a page that was read, and mends them for a salvage; *ret_wrong has a bit for
 * each that is none. No lock is held. */
static int page_judge(struct image *img, struct page *p, const uint32_t *gts, unsigned n,
                      uint64_t *ret_wrong, struct platter_error *err)
{
    struct sparse *s = p->sparse;
    uint32_t per_table = s->header.gtes_per_gt;
    int r = 0;
    *ret_wrong = 0;
    for (unsigned i = 0; i < n && r == 0 && s->kind == SPARSE_HOSTED; i++) {
        uint64_t gt = p->number * tables_per_page(s) + i;
        uint32_t *entries = p->entries + i * per_table;
        bool right = gts[i] != 0;
        if (right)
            r = stream_check_table(img, s, gt, gts[i], entries, &right, err);
        if (gts[i] != 0 && !right) {
            *ret_wrong |= UINT64_C(1) << i;
            memset(entries, 0, per_table * 4);
        }
        if (r == 0 && s->salvage)
            r = salvage_table(img, s, gt, right, entries, err);
    }
    return r;
}

/* Loads a page into p. The lock is held, but not while it is read. */
static int cache_load(struct image *img, struct page *p, struct sparse *s, uint64_t number,
                      struct platter_error *err)
{
    uint32_t gts[PAGE_TABLES];
    unsigned n = page_tables(s, number, gts);
    uint64_t from, to;
    hoff end = s->end;
    p->sparse = s;
    p->number = number;
    p->state = PAGE_LOADING;
    pthread_mutex_unlock(&img->lock);
    int r = find_hole(s, gts, n, end, &from, &to, err);
    pthread_mutex_lock(&img->lock);
    bool empty = r == 0 && note_empty(s, number, from, to);
    pthread_mutex_unlock(&img->lock);
    if (empty)
        memset(p->entries, 0, PAGE_BYTES);
    else if (r == 0)
        r = page_load(p, gts, n, err);
    uint64_t wrong = 0;
    if (r == 0 && !empty)
        r = page_judge(img, p, gts, n, &wrong, err);
    pthread_mutex_lock(&img->lock);
    for (unsigned i = 0; i < n; i++)
        if (wrong >> i & 1)
            s->gd[number * tables_per_page(s) + i] = VMDK_WRONG_TABLE;
    p->state = r < 0 ? PAGE_EMPTY : PAGE_READY;
    if (r < 0)
        p->sparse = NULL;
    pthread_cond_broadcast(&vmdk_of(img)->tables.changed);
    return r;
}

int tables_enter(struct image *img, struct sparse *s, uint64_t grain, bool change,
                 struct page **ret, struct platter_error *err)
{
    struct table_cache *c = &vmdk_of(img)->tables;
    uint64_t number = grain / s->page_entries;
    int r = 0;
    pthread_mutex_lock(&img->lock);
    while (r == 0) {
        struct page *p = cache_find(c, s, number);
        if (p && (p->state == PAGE_LOADING || (change && p->writing))) {
            pthread_cond_wait(&c->changed, &img->lock);
        } else if (p) {
            p->used = ++c->clock;
            *ret = p;
            return 0;
        } else if ((r = cache_take(img, &p, err)) == 0 && p) {
            r = cache_load(img, p, s, number, err);
        }
    }
    pthread_mutex_unlock(&img->lock);
    return r;
}

static void set_entry(struct page *p, uint64_t i, uint64_t entry)
{
    unsigned per_sector = VMDK_SECTOR / p->sparse->entry_size;
    if (p->sparse->entry_size == 8)
        p->wide[i] = entry;
    else
        p->entries[i] = (uint32_t)entry;
    p->dirty |= UINT64_C(1) << i / per_sector;
}

void page_set_grains(struct page *p, uint64_t grain, uint64_t n, uint64_t sector)
{
    const struct sparse *s = p->sparse;
    uint64_t first = grain % s->page_entries;
    for (uint64_t i = first; i < first + n; i++, sector += s->header.grain_size)
        set_entry(p, i, s->kind == SPARSE_SE ? se_entry_of(s, sector) : sector);
}

void page_set_zero(struct page *p, uint64_t grain, uint64_t n)
{
    const struct sparse *s = p->sparse;
    uint64_t first = grain % s->page_entries;
    for (uint64_t i = first; i < first + n; i++)
        set_entry(p, i, s->kind == SPARSE_SE ? SE_ZERO_ENTRY : 1);
}

void page_clear(struct page *p, uint64_t grain, uint64_t n)
{
    uint64_t first = grain % p->sparse->page_entries;
    for (uint64_t i = first; i < first + n; i++)
        set_entry(p, i, 0);
}

void tables_forget(struct image *img, struct sparse *s)
{
    struct table_cache *c = &vmdk_of(img)->tables;
    WITH_LOCK(&img->lock);
    for (unsigned i = 0; i < c->n_pages; i++)
        if (c->pages[i].sparse == s) {
            c->pages[i].sparse = NULL;
            c->pages[i].state = PAGE_EMPTY;
            c->pages[i].dirty = 0;
        }
    c->last = NULL;
    s->empty_from = s->empty_to = 0;
}

/* ---- writing back ---------------------------------------------------------------------------- */

/* Writes the sectors that `writing` names to the tables of one directory. `slow` is held. */
static int page_write(const struct page *p, const uint32_t *gd, uint8_t *bounce,
                      struct platter_error *err)
{
    const struct sparse *s = p->sparse;
    const uint32_t *gts = gd + p->number * tables_per_page(s);
    for (unsigned i = 0; i < s->page_entries; i++)
        put_le(bounce + i * s->entry_size, s->entry_size, page_entry(p, i));
    for (unsigned i = 0, run; i < PAGE_SECTORS; i += run) {
        uint32_t at = 0;
        for (run = 0; i + run < PAGE_SECTORS && p->writing >> (i + run) & 1; run++) {
            uint32_t sector = gts[(i + run) / s->gt_sectors] + (i + run) % s->gt_sectors;
            if (run == 0)
                at = sector;
            else if (sector != at + run)
                break;
        }
        if (run == 0) {
            run = 1;
            continue;
        }
        int r = stream_pwrite(s->stream, bounce + i * VMDK_SECTOR, run * VMDK_SECTOR,
                              (hoff)at * VMDK_SECTOR, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The numbers in headers that must be ahead of what the claimed pages name. */
static int write_headers(struct image *img, struct platter_error *err)
{
    struct table_cache *c = &vmdk_of(img)->tables;
    int r = 0;
    for (unsigned i = 0; i < CACHE_PAGES && r == 0; i++) {
        struct page *p = &c->pages[i];
        if (p->writing && p->sparse->kind == SPARSE_COWD)
            r = cowd_write_free_sector(img, p->sparse, err);
    }
    return r;
}

/* Makes the data of all extents durable that changed pages speak of. Here and in write_claimed()
 * the lock is not held: only the holder of `slow` changes `writing`, and such pages stay as they
 * are. */
static int barrier(struct image *img, struct platter_error *err)
{
    struct table_cache *c = &vmdk_of(img)->tables;
    const struct stream *last = NULL;
    for (unsigned i = 0; i < CACHE_PAGES; i++) {
        struct page *p = &c->pages[i];
        if (!p->writing || p->sparse->stream == last)
            continue;
        last = p->sparse->stream;
        int r = stream_flush(p->sparse->stream, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int write_claimed(struct image *img, struct platter_error *err)
{
    struct table_cache *c = &vmdk_of(img)->tables;
    int r = write_headers(img, err);
    if (r == 0 && img->ordered)
        r = barrier(img, err);
    for (unsigned i = 0; i < CACHE_PAGES && r == 0; i++) {
        struct page *p = &c->pages[i];
        if (!p->writing)
            continue;
        if (p->sparse->rgd)
            r = page_write(p, p->sparse->rgd, c->bounce, err);
        if (r == 0)
            r = page_write(p, p->sparse->gd, c->bounce, err);
    }
    return r;
}

int tables_write_back(struct image *img, struct platter_error *err)
{
    struct table_cache *c = &vmdk_of(img)->tables;
    WITH_LOCK(&vmdk_of(img)->slow);
    unsigned claimed = 0;
    pthread_mutex_lock(&img->lock);
    for (unsigned i = 0; i < c->n_pages; i++)
        if (c->pages[i].dirty) {
            c->pages[i].writing = c->pages[i].dirty;
            c->pages[i].dirty = 0;
            claimed++;
        }
    pthread_mutex_unlock(&img->lock);
    if (claimed == 0)
        return 0;
    int r = write_claimed(img, err);
    pthread_mutex_lock(&img->lock);
    for (unsigned i = 0; i < c->n_pages; i++) {
        if (r < 0)
            c->pages[i].dirty |= c->pages[i].writing;
        c->pages[i].writing = 0;
    }
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&img->lock);
    return r < 0 ? image_poison(img, r) : 0;
}

/* ---- new tables ------------------------------------------------------------------------------ */

static int write_entry(struct sparse *s, uint64_t directory, uint64_t gt, uint32_t value,
                       struct platter_error *err)
{
    uint8_t entry[4];
    put_le(entry, 4, value);
    return stream_pwrite(s->stream, entry, 4, directory * VMDK_SECTOR + gt * 4, err);
}

/* Tables first, durable, then the directories that point to them: section 4.5. */
static int write_tables(struct image *img, struct sparse *s, uint64_t gt, uint32_t at,
                        struct platter_error *err)
{
    unsigned copies = s->rgd ? 2 : 1;
    static const uint8_t zeros[2 * VMDK_MAX_GTES * 4];
    int r = stream_pwrite(s->stream, zeros, copies * s->gt_sectors * VMDK_SECTOR,
                          (hoff)at * VMDK_SECTOR, err);
    if (r == 0 && s->kind == SPARSE_COWD)
        r = cowd_write_free_sector(img, s, err);
    if (r == 0 && img->ordered)
        r = stream_flush(s->stream, err);
    if (r == 0 && s->rgd)
        r = write_entry(s, s->header.rgd_offset, gt, at + s->gt_sectors, err);
    if (r == 0)
        r = write_entry(s, s->header.gd_offset, gt, at, err);
    return r;
}

/* At the end of the file. `slow` is held. */
static int append_tables(struct image *img, struct sparse *s, uint64_t gt, uint32_t *ret,
                         struct platter_error *err)
{
    uint64_t at;
    pthread_mutex_lock(&img->lock);
    int r = sparse_extend(s, (s->rgd ? 2 : 1) * s->gt_sectors, &at, err);
    if (r == 0)
        r = sparse_add_stray(s, (uint32_t)at, err);
    if (r == 0 && s->rgd)
        r = sparse_add_stray(s, (uint32_t)at + s->gt_sectors, err);
    pthread_mutex_unlock(&img->lock);
    if (r < 0)
        return r;
    *ret = (uint32_t)at;
    r = write_tables(img, s, gt, *ret, err);
    return r < 0 ? image_poison(img, r) : 0;
}

int tables_add(struct image *img, struct sparse *s, uint64_t gt, struct platter_error *err)
{
    WITH_LOCK(&vmdk_of(img)->slow);
    uint32_t at;
    pthread_mutex_lock(&img->lock);
    bool there = s->gd[gt] != 0;
    pthread_mutex_unlock(&img->lock);
    if (there)
        return 0;
    int r = s->kind == SPARSE_SE ? se_add_table(img, s, gt, &at, err)
                                 : append_tables(img, s, gt, &at, err);
    if (r < 0)
        return r;
    WITH_LOCK(&img->lock);
    s->gd[gt] = at;
    if (s->rgd)
        s->rgd[gt] = at + s->gt_sectors;
    return 0;
}
