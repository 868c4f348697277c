/* SPDX-License-Identifier: MIT */
/*
 * What a compaction must move, from the counts alone: as many clusters as are free before the
 * target stand behind it. Refcount blocks that count nothing but the tail go with it, and where a
 * free range has no block one will be needed.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "format/qcow2/compact.h"

static unsigned block_bits(const struct compact *c)
{
    return c->q->cluster_bits + 3 - c->q->header.refcount_order;
}

/* ---- counts ------------------------------------------------------------------------------------
 */

int compact_count(struct compact *c, uint64_t first, uint64_t end, uint64_t *ret_used,
                  uint64_t *ret_end, struct platter_error *err)
{
    const struct qcow2 *q = c->q;
    uint32_t order = q->header.refcount_order;
    uint64_t per_slice = (uint64_t)q->blocks.slice * 8 >> order;
    struct slice *slot;
    uint64_t k;

    *ret_used = *ret_end = 0;
    while (first < end) {
        int r = qcow2_count_slot(c->img, first, &slot, &k, err);
        if (r < 0)
            return r;
        if (!slot) {
            first = ((first >> block_bits(c)) + 1) << block_bits(c);
            continue;
        }
        for (; k < per_slice && first < end; k++, first++)
            if (qcow2_count_get(slot->bytes, order, k)) {
                *ret_used += 1;
                *ret_end = first + 1;
            }
    }
    return 0;
}

int compact_measure(struct compact *c, struct platter_error *err)
{
    uint64_t all = (uint64_t)c->q->reftable.n << block_bits(c);
    return compact_count(c, 0, all, &c->used, &c->end, err);
}

/* How many clusters there must be in front for all to end at `target`. */
static uint64_t needed_for(const struct compact *c, uint64_t target)
{
    const struct pointers *p = &c->q->reftable;
    uint64_t needed = c->used;
    for (uint64_t i = 0; i < p->n; i++) {
        uint64_t at = p->entries[i] >> c->q->cluster_bits;
        if (i << block_bits(c) < target)
            needed += at == 0;
        else if (at >= target)
            needed -= 1;
    }
    return needed;
}

/* Refcount blocks behind the target that need not move, as nothing will be left for them to count.
 */
static uint64_t blocks_dropped(const struct compact *c)
{
    const struct pointers *p = &c->q->reftable;
    uint64_t n = 0;
    for (uint64_t i = 0; i < p->n; i++)
        n += i << block_bits(c) >= c->target && p->entries[i] >> c->q->cluster_bits >= c->target;
    return n;
}

uint32_t compact_reftable_needs(const struct compact *c, uint64_t n)
{
    n = min_u64(n, c->q->reftable.n);
    while (n > 1 && c->q->reftable.entries[n - 1] == 0)
        n--;
    return (uint32_t)max_u64(compact_clusters(c, n * 8), 1);
}

/* ---- what must stay together -------------------------------------------------------------------
 */

static int fixed_add(struct compact *c, hoff off, uint64_t bytes, struct platter_error *err)
{
    struct compact_run *more;
    uint32_t room = c->room_fixed ? c->room_fixed * 2 : 64;

    if (bytes <= c->q->cluster_size)
        return 0;
    if (c->n_fixed == c->room_fixed) {
        int r = budget_alloc(c->img->budget, room * sizeof *more, "a list of tables", &more, err);
        if (r < 0)
            return r;
        if (c->n_fixed)
            memcpy(more, c->fixed, c->n_fixed * sizeof *more);
        budget_free(c->img->budget, c->fixed, c->room_fixed * sizeof *more);
        c->fixed = more;
        c->room_fixed = room;
    }
    c->fixed[c->n_fixed++] =
        (struct compact_run){off >> c->q->cluster_bits, compact_clusters(c, bytes)};
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct compact_run *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

/* Tables of several clusters, by their place. */
static int collect_fixed(struct compact *c, struct platter_error *err)
{
    const struct qcow2_header *h = &c->q->header;
    const struct qcow2_extensions *x = &c->q->extensions;

    c->n_fixed = 0;
    int r = fixed_add(c, h->l1_offset, h->l1_size * UINT64_C(8), err);
    if (r == 0)
        r = fixed_add(c, h->reftable_offset, h->reftable_clusters * c->q->cluster_size, err);
    if (r == 0 && h->n_snapshots)
        r = fixed_add(c, h->snapshots_offset, c->q->snapshots_size, err);
    for (uint32_t i = 0; r == 0 && i < h->n_snapshots; i++)
        r = fixed_add(c, c->q->snapshots[i].l1_offset, c->q->snapshots[i].l1_size * UINT64_C(8),
                      err);
    if (r == 0 && c->n_bitmaps)
        r = fixed_add(c, x->bitmap_directory, x->bitmap_directory_size, err);
    for (uint32_t i = 0; r == 0 && i < c->n_bitmaps; i++)
        r = fixed_add(c, c->bitmaps[i].table, c->bitmaps[i].n * UINT64_C(8), err);
    if (r == 0 && c->n_fixed)
        qsort(c->fixed, c->n_fixed, sizeof *c->fixed, by_place);
    return r;
}

/* Behind the header of LUKS, which stays: copies of old keys are not left about. */
static uint64_t keys_end(const struct compact *c)
{
    const struct qcow2_extensions *x = &c->q->extensions;
    return x->has_crypto ? compact_clusters(c, x->crypto_offset + x->crypto_len) : 1;
}

/* ---- the window --------------------------------------------------------------------------------
 */

/* Where a window that begins at `at` or behind may begin, as far as one obstacle says. */
static uint64_t behind(uint64_t at, uint64_t n, uint64_t first, uint64_t obstacle_n)
{
    return at < first + obstacle_n && first < at + n ? first + obstacle_n : at;
}

/* ... and as far as clusters say that have no refcount block. */
static uint64_t behind_gaps(const struct compact *c, uint64_t at, uint64_t n)
{
    for (uint64_t i = at >> block_bits(c); i <= (at + n - 1) >> block_bits(c); i++)
        if (i >= c->q->reftable.n || c->q->reftable.entries[i] == 0)
            at = max_u64(at, (i + 1) << block_bits(c));
    return at;
}

/* The lowest place for n clusters before `target` that nothing fixed touches and all of which have
 * counts; 0: there is none. */
static uint64_t find_window(const struct compact *c, uint64_t target, uint64_t n)
{
    const struct qcow2_extensions *x = &c->q->extensions;
    uint64_t at = 1, before = 0;
    uint32_t i = 0;

    while (at != before && at + n <= target) {
        before = at;
        for (; i < c->n_fixed && c->fixed[i].first < at + n; i++)
            at = behind(at, n, c->fixed[i].first, c->fixed[i].n);
        if (x->has_crypto)
            at = behind(at, n, x->crypto_offset >> c->q->cluster_bits,
                        compact_clusters(c, x->crypto_len));
        if (at + n <= target)
            at = behind_gaps(c, at, n);
    }
    return at + n <= target ? at : 0;
}

/* Whether all tables from the k-th on can move into a window, where those before it stay. Until it
 * has moved, a table takes what it has in front of the target: the window is evacuated without
 * that.
 */
static bool window_from(struct compact *c, uint64_t least, uint32_t k)
{
    uint64_t needed = 0, in_front = 0;
    c->target = least;
    for (uint32_t i = 0; i < k; i++)
        c->target = max_u64(c->target, c->fixed[i].first + c->fixed[i].n);
    for (uint32_t i = k; i < c->n_fixed; i++)
        if (c->fixed[i].first + c->fixed[i].n > c->target) {
            needed += c->fixed[i].n;
            in_front += c->target - min_u64(c->target, c->fixed[i].first);
        }
    bool fits = needed_for(c, c->target) + in_front <= c->target;
    c->window = needed && fits ? find_window(c, c->target, needed) : 0;
    c->window_end = c->window ? c->window + needed : 0;
    return needed == 0 || c->window;
}

/* Finds room for the tables of several clusters that must move. Where there is none the first of
 * them stay, as few as will do, and the file ends behind those. */
static void choose_window(struct compact *c)
{
    uint64_t least = c->target;
    uint32_t low = 0, high = c->n_fixed; /* with all of them in place nothing is needed */

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (window_from(c, least, middle))
            high = middle;
        else
            low = middle + 1;
    }
    window_from(c, least, low);
}

int compact_plan(struct compact *c, struct platter_error *err)
{
    uint64_t needed, tail, in_window, ignored;

    c->target = c->end;
    c->to_move = 0;
    /* Each target is one that all fits in front of, so it does no harm to stop early. */
    for (unsigned i = 0; i < 64 && (needed = needed_for(c, c->target)) < c->target; i++)
        c->target = needed;
    c->target = max_u64(c->target, keys_end(c));
    int r = collect_fixed(c, err);
    if (r < 0)
        return r;
    choose_window(c);
    if (c->target >= c->end)
        return 0;
    r = compact_count(c, c->target, c->end, &tail, &ignored, err);
    if (r == 0)
        r = compact_count(c, c->window, c->window_end, &in_window, &ignored, err);
    if (r == 0)
        c->to_move = tail + in_window - min_u64(tail, blocks_dropped(c));
    return r;
}
