/* SPDX-License-Identifier: MIT */
/*
 * What every step of a compaction is made of: free clusters in front of the target, copies, counts
 * that go down when that is safe, and the memory of what moved.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/qcow2/compact.h"

enum { RUN = 256, RUN_PACKED = 64 }; /* clusters that are taken at once */

/* ---- free clusters -----------------------------------------------------------------------------
 */

/* Moves *pos to the next cluster that is free, and in front; c->target if there is none. */
static int find_free(struct compact *c, uint64_t *pos, struct platter_error *err)
{
    const struct qcow2 *q = c->q;
    uint64_t per_slice = (uint64_t)q->blocks.slice * 8 >> q->header.refcount_order;
    struct slice *slot;
    uint64_t k;

    while (*pos < c->target) {
        if (compact_must_go(c, *pos)) {
            *pos = c->window_end;
            continue;
        }
        int r = qcow2_count_slot(c->img, *pos, &slot, &k, err);
        if (r < 0 || !slot)
            return r;
        uint64_t end = *pos < c->window ? min_u64(c->window, c->target) : c->target;
        for (; k < per_slice && *pos < end; k++, *pos += 1)
            if (qcow2_count_get(slot->bytes, q->header.refcount_order, k) == 0)
                return 0;
    }
    *pos = c->target;
    return 0;
}

static int give_back(struct compact *c, struct compact_run *run, struct platter_error *err)
{
    int r = run->n ? qcow2_count_down(c->img, run->first, run->n, false, err) : 0;
    run->n = 0;
    return r;
}

/* Takes the next run of at least `min` clusters from *next on; n is 0 where there is none. */
static int take_run(struct compact *c, uint64_t *next, uint64_t min, uint64_t want,
                    struct compact_run *ret, struct platter_error *err)
{
    uint64_t n;
    hoff off;
    int r = 0;

    *ret = (struct compact_run){0};
    while (r == 0 && *next < c->target) {
        r = find_free(c, next, err);
        if (r < 0 || *next >= c->target)
            return r;
        uint64_t end = *next < c->window ? min_u64(c->window, c->target) : c->target;
        c->q->next_free = *next;
        r = qcow2_alloc(c->img, min_u64(want, end - *next), &off, &n, err);
        if (r < 0)
            return r;
        /* Where a refcount block had to be made for them they are a little further on. */
        struct compact_run run = {off >> c->q->cluster_bits, n};
        uint64_t inside = run.first < end ? min_u64(n, end - run.first) : 0;
        *next = max_u64(min_u64(run.first + n, end), *next + 1);
        if (inside < min)
            inside = 0;
        *ret = (struct compact_run){run.first, inside};
        run.first += inside;
        run.n -= inside;
        r = give_back(c, &run, err);
        if (r < 0 || inside)
            return r;
    }
    return r;
}

int compact_take(struct compact *c, uint64_t *ret, struct platter_error *err)
{
    int r = c->run.n ? 0 : take_run(c, &c->next, 1, RUN, &c->run, err);
    *ret = 0;
    if (r < 0)
        return r;
    if (c->run.n) {
        *ret = c->run.first++;
        c->run.n--;
    } else if (c->packed_run.first + c->packed_run.n > c->packed_fresh) { /* that was the last */
        *ret = c->packed_run.first + --c->packed_run.n;
    }
    return 0;
}

/* n free clusters side by side in the window, from where its last table ends. Where something could
 * not be evacuated there may be enough behind that. */
static int find_in_window(struct compact *c, uint64_t n, uint64_t *ret, struct platter_error *err)
{
    uint64_t free = 0, at = c->window_next, count;

    for (; free < n && at < c->window_end; at++) {
        int r = qcow2_count_read(c->img, at, &count, err);
        if (r < 0)
            return r;
        free = count ? 0 : free + 1;
    }
    *ret = free < n ? 0 : at - n;
    return 0;
}

int compact_take_table(struct compact *c, uint64_t n, uint64_t *ret, struct platter_error *err)
{
    uint64_t first;

    if (n == 1)
        return compact_take(c, ret, err);
    *ret = 0;
    int r = find_in_window(c, n, &first, err);
    if (r < 0 || first == 0)
        return r;
    r = qcow2_check_snapshot_counts(c->img, err);
    if (r == 0)
        r = qcow2_check_overlap(c->img, first, n, err);
    if (r == 0)
        r = qcow2_count_up(c->img, first, n, err);
    if (r < 0)
        return r;
    c->window_next = first + n;
    *ret = first;
    return 0;
}

/* ---- room for compressed records ---------------------------------------------------------------
 */

/* Whether the record's clusters can take so many more references. The cluster that no record
 * touched yet has a count of 1, which is this one's. */
static int fits_counts(struct compact *c, uint64_t first, uint64_t last, uint64_t paths, bool *ret,
                       struct platter_error *err)
{
    uint64_t max = qcow2_count_max(c->q->header.refcount_order), count;
    *ret = true;
    for (uint64_t i = first; *ret && i <= last; i++) {
        int r = qcow2_count_read(c->img, i, &count, err);
        if (r < 0)
            return r;
        *ret = paths <= max - (i < c->packed_fresh ? count : 0);
    }
    return 0;
}

/* Whether the record can stand in the run, at *ret or as soon behind it as its place in a sector
 * allows: that stays, and so does the number of sectors it takes. */
static int fits_run(struct compact *c, hoff off, uint64_t len, uint64_t paths, hoff *ret,
                    struct platter_error *err)
{
    unsigned bits = c->q->cluster_bits;
    hoff end = (c->packed_run.first + c->packed_run.n) << bits;
    hoff starts[] = {c->packed_at, c->packed_fresh << bits};
    bool fits = false;
    int r = 0;

    for (int i = 0; r == 0 && !fits && i < 2; i++) {
        hoff at = starts[i] + ((off - starts[i]) & 511);
        if (c->packed_run.n == 0 || at + len > end)
            continue;
        r = fits_counts(c, at >> bits, (at + len - 1) >> bits, paths, &fits, err);
        *ret = at;
    }
    *ret = r == 0 && fits ? *ret : 0;
    return r;
}

/* Gives back the clusters of the run that no record touches. */
static int end_packed_run(struct compact *c, struct platter_error *err)
{
    uint64_t end = c->packed_run.first + c->packed_run.n;
    struct compact_run rest = {.first = c->packed_fresh};
    rest.n = c->packed_run.n ? end - c->packed_fresh : 0;
    c->packed_run.n = 0;
    return give_back(c, &rest, err);
}

static int next_packed_run(struct compact *c, uint64_t n, struct platter_error *err)
{
    int r = end_packed_run(c, err);
    if (r == 0)
        r = take_run(c, &c->packed_next[n > 1], n, max_u64(n, RUN_PACKED), &c->packed_run, err);
    if (r == 0 && c->packed_run.n == 0 && c->run.n >= n) { /* what is taken for data will do */
        c->packed_run = c->run;
        c->run.n = 0;
    }
    c->packed_fresh = c->packed_run.first;
    c->packed_at = c->packed_run.first << c->q->cluster_bits;
    return r;
}

static int count_record(struct compact *c, uint64_t first, uint64_t last, uint64_t paths,
                        struct platter_error *err)
{
    int r = 0;
    for (uint64_t i = first; r == 0 && i <= last; i++)
        r = qcow2_count_add(c->img, i, paths - (i >= c->packed_fresh), err);
    c->packed_fresh = max_u64(c->packed_fresh, last + 1);
    return r;
}

int compact_take_packed(struct compact *c, hoff off, uint64_t len, uint64_t paths, hoff *ret,
                        struct platter_error *err)
{
    unsigned bits = c->q->cluster_bits, x = 62 - (bits - 8);
    uint64_t clusters = (((off & 511) + len - 1) >> bits) + 1;

    int r = fits_run(c, off, len, paths, ret, err);
    if (r == 0 && *ret == 0) {
        r = next_packed_run(c, clusters, err);
        if (r == 0)
            r = fits_run(c, off, len, paths, ret, err);
    }
    if (r < 0 || *ret == 0)
        return r;
    if (*ret + len > min_u64(UINT64_C(1) << x, QCOW2_MAX_OFFSET)) {
        *ret = 0;
        return 0;
    }
    c->packed_at = *ret + len;
    return count_record(c, *ret >> bits, (*ret + len - 1) >> bits, paths, err);
}

int compact_end_room(struct compact *c, struct platter_error *err)
{
    int r = give_back(c, &c->run, err);
    int p = end_packed_run(c, r < 0 ? NULL : err);
    return r < 0 ? r : p;
}

/* ---- copying -----------------------------------------------------------------------------------
 */

/* What was encrypted for one place, for another one (section 17). */
static void seal_anew(const struct compact *c, uint64_t len, hoff from, hoff to)
{
    qcow2_crypt(c->img, false, c->buffer, c->buffer, len, 0, from);
    qcow2_crypt(c->img, true, c->buffer, c->buffer, len, 0, to);
}

/* Clusters of zeros become holes, others are written. */
static int put_piece(struct compact *c, hoff to, uint64_t len, struct platter_error *err)
{
    uint64_t step = c->q->cluster_size, n;
    int r = 0;

    for (uint64_t at = 0; r == 0 && at < len; at += n) {
        bool zero = is_zero(c->buffer + at, min_u64(step, len - at));
        n = min_u64(step, len - at);
        while (at + n < len && zero == is_zero(c->buffer + at + n, min_u64(step, len - at - n)))
            n += min_u64(step, len - at - n);
        if (zero)
            r = stream_zero(c->img->stream, to + at, n, STREAM_ZERO_UNMAP, err);
        else
            r = stream_pwrite(c->img->stream, c->buffer + at, n, to + at, err);
    }
    return r;
}

int compact_copy(struct compact *c, hoff from, hoff to, uint64_t len, bool sealed,
                 struct platter_error *err)
{
    int r = 0;
    c->q->file_size = max_u64(c->q->file_size, to + len);
    pthread_mutex_unlock(&c->img->lock);
    for (uint64_t n; r == 0 && len > 0; from += n, to += n, len -= n) {
        n = min_u64(len, c->buffer_size);
        r = stream_pread_tail(c->img->stream, c->buffer, n, from, err);
        if (r == 0 && sealed)
            seal_anew(c, n, from, to);
        if (r == 0)
            r = put_piece(c, to, n, err);
    }
    pthread_mutex_lock(&c->img->lock);
    return r;
}

/* ---- counts that go down -----------------------------------------------------------------------
 */

void compact_lower(struct compact *c, uint64_t first, uint64_t n, uint64_t by)
{
    struct compact_lower *last = c->n_lower > c->kept_lower ? &c->lower[c->n_lower - 1] : NULL;

    if (last && last->by == by && last->run.first + last->run.n == first)
        last->run.n += n;
    else
        c->lower[c->n_lower++] = (struct compact_lower){{first, n}, by};
}

static int lower_one(struct compact *c, const struct compact_lower *l, struct platter_error *err)
{
    int r = 0;
    if (l->by == 1)
        return qcow2_count_down(c->img, l->run.first, l->run.n, false, err);
    for (uint64_t i = 0; r == 0 && i < l->run.n; i++)
        r = qcow2_count_take(c->img, l->run.first + i, l->by, err);
    return r;
}

int compact_settle(struct compact *c, struct platter_error *err)
{
    int r = qcow2_flush_locked(c->img, err);
    if (r == 0)
        r = qcow2_barrier(c->img, err);
    for (uint32_t i = 0; r == 0 && i < c->n_lower; i++)
        r = lower_one(c, &c->lower[i], err);
    /* What an error leaves behind is leaked, which harms nobody. */
    c->n_lower = c->kept_lower = 0;
    return r;
}

int compact_switch(struct compact *c, const void *field, size_t len, hoff at,
                   struct platter_error *err)
{
    int r = image_meta_write(c->img, field, len, at, err);
    return r < 0 ? r : qcow2_barrier(c->img, err);
}

/* ---- what moved --------------------------------------------------------------------------------
 */

static uint32_t *bucket_of(const struct compact_map *m, uint64_t key)
{
    uint64_t hash = key * UINT64_C(0x9E3779B97F4A7C15);
    return &m->buckets[hash >> 32 & (m->room - 1)];
}

static void map_link(struct compact_map *m, uint32_t i)
{
    uint32_t *bucket = bucket_of(m, m->items[i].key);
    m->items[i].next = *bucket;
    *bucket = i + 1;
}

static void map_free(struct compact *c, struct compact_map *m)
{
    budget_free(c->img->budget, m->items, m->room * sizeof *m->items);
    budget_free(c->img->budget, m->buckets, m->room * sizeof *m->buckets);
    *m = (struct compact_map){0};
}

/* It may take a quarter of the memory there is. What does not fit is for another round. */
bool compact_map_room(struct compact *c)
{
    struct compact_map more = {.n = c->map.n, .room = c->map.room ? c->map.room * 2 : 256};
    uint64_t bytes = more.room * (sizeof *more.items + sizeof *more.buckets);

    if (c->map.n < c->map.room)
        return true;
    if (bytes > budget_limit(c->img->budget) / 4)
        return false;
    if (budget_alloc(c->img->budget, more.room * sizeof *more.items, "what moved", &more.items,
                     NULL) < 0 ||
        budget_alloc(c->img->budget, more.room * sizeof *more.buckets, "what moved", &more.buckets,
                     NULL) < 0) {
        map_free(c, &more);
        return false;
    }
    if (more.n)
        memcpy(more.items, c->map.items, more.n * sizeof *more.items);
    for (uint32_t i = 0; i < more.n; i++)
        map_link(&more, i);
    map_free(c, &c->map);
    c->map = more;
    return true;
}

struct compact_item *compact_map_find(const struct compact *c, uint64_t key)
{
    if (c->map.n == 0)
        return NULL;
    for (uint32_t i = *bucket_of(&c->map, key); i; i = c->map.items[i - 1].next)
        if (c->map.items[i - 1].key == key)
            return &c->map.items[i - 1];
    return NULL;
}

struct compact_item *compact_map_add(struct compact *c, uint64_t key, uint64_t to, uint64_t given)
{
    struct compact_item *item = &c->map.items[c->map.n];
    *item = (struct compact_item){.key = key, .to = to, .given = given};
    map_link(&c->map, c->map.n++);
    return item;
}

int compact_map_end(struct compact *c, struct platter_error *err)
{
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < c->map.n; i++) {
        const struct compact_item *item = &c->map.items[i];
        uint64_t left = item->given - item->seen;
        if (item->seen)
            r = qcow2_count_take(c->img, item->key, item->seen, err);
        if (r == 0 && left)
            r = qcow2_count_take(c->img, item->to, left, err);
        c->unowned = c->unowned || (left && item->seen);
    }
    map_free(c, &c->map);
    return r;
}

int compact_own(struct compact *c, struct platter_error *err)
{
    if (!c->unowned)
        return 0;
    c->unowned = false;
    int r = compact_settle(c, err);
    if (r == 0)
        r = qcow2_tree_own(c->img, NULL, err);
    return r < 0 ? r : compact_settle(c, err);
}
