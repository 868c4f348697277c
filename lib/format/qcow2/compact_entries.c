/* SPDX-License-Identifier: MIT */
/*
 * What L2 entries point at moves: clusters of data, those reserved for it, and compressed records.
 * A slice of a table at a time: places are chosen for all that must go, then it is copied, then the
 * entries change, in memory; compact_settle() brings them to the disk.
 *
 * A record moves alone, as the clusters it stands in are others' as well, and keeps its place
 * inside of a sector: so the sectors that its descriptor counts stay as many.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/compact.h"

/* The table that is being looked at. */
struct table {
    goff guest;     /* of the slice */
    uint64_t paths; /* L1 entries that refer to it */
    uint32_t n;     /* changes of the slice so far */
};

/* ---- choosing places ---------------------------------------------------------------------------
 */

static int too_many(const struct compact *c, uint64_t cluster, struct platter_error *err)
{
    return fail(err, PLATTER_ECORRUPT,
                "%s: the cluster at %" PRIu64
                " has more references than its count says: the image must be repaired (check -r "
                "all)",
                c->img->stream->name, cluster << c->q->cluster_bits);
}

/* The same cluster was met before. */
static int follow(struct compact *c, struct compact_item *item, const struct table *t,
                  struct compact_change *x, struct platter_error *err)
{
    if (t->paths > item->given - item->seen)
        return too_many(c, item->key, err);
    item->seen += t->paths;
    x->item = (uint32_t)(item - c->map.items) + 1;
    x->paths = t->paths;
    x->to = item->to << c->q->cluster_bits;
    return 1;
}

/* A new place for a data cluster, with the count that it has. 1: there is one; 0: it stays. */
static int place_data(struct compact *c, uint64_t cluster, const struct table *t,
                      struct compact_change *x, struct platter_error *err)
{
    struct compact_item *item = compact_map_find(c, cluster);
    uint64_t count, to;

    if (item)
        return follow(c, item, t, x, err);
    int r = qcow2_count_read(c->img, cluster, &count, err);
    if (r == 0 && count < t->paths)
        r = too_many(c, cluster, err);
    if (r < 0 || (count > t->paths && !compact_map_room(c)))
        return r;
    r = compact_take(c, &to, err);
    if (r < 0 || to == 0)
        return r;
    r = qcow2_count_add(c->img, to, count - 1, err);
    if (r < 0) {
        qcow2_count_take(c->img, to, 1, NULL);
        return r;
    }
    x->to = to << c->q->cluster_bits;
    x->from = cluster << c->q->cluster_bits;
    if (count > t->paths)
        return follow(c, compact_map_add(c, cluster, to, count), t, x, err);
    x->run = (struct compact_run){to, 1};
    x->given = count;
    compact_lower(c, cluster, 1, count);
    return 1;
}

static int place_packed(struct compact *c, uint64_t raw, const struct qcow2_entry *e,
                        const struct table *t, struct compact_change *x, struct platter_error *err)
{
    unsigned bits = c->q->cluster_bits, offset_bits = 62 - (bits - 8);
    uint64_t first = e->off >> bits, last = (e->off + e->packed_len - 1) >> bits;
    bool shared = c->q->header.n_snapshots > 0;
    struct compact_item *item = compact_map_find(c, raw);
    hoff to = item ? item->to : 0;
    int r = 0;

    if (!item && shared && !compact_map_room(c))
        return 0;
    if (!item) {
        r = compact_take_packed(c, e->off, e->packed_len, t->paths, &to, err);
        if (r < 0 || to == 0)
            return r;
        if (shared)
            compact_map_add(c, raw, to, 0);
        x->from = e->off;
        x->len = e->packed_len;
    }
    x->run =
        (struct compact_run){to >> bits, ((to + e->packed_len - 1) >> bits) - (to >> bits) + 1};
    for (uint64_t i = 0; item && i < x->run.n; i++) {
        r = qcow2_count_add(c->img, x->run.first + i, t->paths, err);
        if (r == 0)
            continue;
        while (i-- > 0)
            qcow2_count_take(c->img, x->run.first + i, t->paths, NULL);
        return r == -EOVERFLOW ? 0 : r; /* that one stays where it is */
    }
    x->given = t->paths;
    x->to = to;
    x->raw = (raw & ~((UINT64_C(1) << offset_bits) - 1)) | to;
    compact_lower(c, first, last - first + 1, t->paths);
    return 1;
}

static bool packed_must_go(const struct compact *c, const struct qcow2_entry *e)
{
    unsigned bits = c->q->cluster_bits;
    for (uint64_t i = e->off >> bits; i <= (e->off + e->packed_len - 1) >> bits; i++)
        if (compact_must_go(c, i))
            return true;
    return false;
}

/* The entry at `at` in the slice: a change of it, where it must have one. */
static int plan_entry(struct compact *c, struct table *t, uint32_t at, struct platter_error *err)
{
    const struct qcow2 *q = c->q;
    uint64_t raw = get_be(c->slice + at, 8);
    struct compact_change x = {.at = at};
    struct qcow2_entry e;

    int r = qcow2_entry_decode(c->img, c->slice + at,
                               t->guest + at / q->entry_size * q->cluster_size, &e, err);
    if (r < 0)
        return r;
    if (e.packed) {
        r = packed_must_go(c, &e) ? place_packed(c, raw, &e, t, &x, err) : 0;
    } else if (e.has_place && !q->data_file && compact_must_go(c, e.off >> q->cluster_bits)) {
        r = place_data(c, e.off >> q->cluster_bits, t, &x, err);
        x.raw = (raw & ~QCOW2_OFFSET_MASK) | x.to;
        x.sealed = q->header.crypt_method == QCOW2_CRYPT_LUKS;
        /* What reads as zeros here may be data to another entry. */
        x.len = x.from && (e.alloc || x.item) ? q->cluster_size : 0;
    }
    if (r > 0)
        c->changes[t->n++] = x;
    return r < 0 ? r : 0;
}

/* ---- carrying it out ---------------------------------------------------------------------------
 */

/* What follows itself at both ends is copied at once. */
static int copy_all(struct compact *c, const struct table *t, struct platter_error *err)
{
    const struct compact_change *x = c->changes;
    uint64_t len;
    int r = 0;

    for (uint32_t i = 0, n; r == 0 && i < t->n; i += n) {
        n = 1;
        len = x[i].len;
        while (i + n < t->n && x[i + n].len && x[i + n].from == x[i].from + len &&
               x[i + n].to == x[i].to + len)
            len += x[i + n++].len;
        if (len)
            r = compact_copy(c, x[i].from, x[i].to, len, x[i].sealed, err);
    }
    return r;
}

/* Nothing refers to the new places yet. */
static void take_back(struct compact *c, const struct table *t)
{
    c->n_lower = c->kept_lower;
    for (uint32_t i = 0; i < t->n && atomic_load(&c->img->poison) == 0; i++) {
        const struct compact_change *x = &c->changes[i];
        if (x->item)
            c->map.items[x->item - 1].seen -= x->paths;
        for (uint64_t k = 0; k < x->run.n; k++)
            qcow2_count_take(c->img, x->run.first + k, x->given, NULL);
    }
}

/* Makes the changes that were planned, in c->slice, which belongs at `off`. */
static int apply(struct compact *c, hoff off, const struct table *t, struct platter_error *err)
{
    int r = copy_all(c, t, err);
    for (uint32_t i = 0; r == 0 && i < t->n; i++)
        put_be(c->slice + c->changes[i].at, 8, c->changes[i].raw);
    if (r == 0 && t->n)
        r = compact_slice_put(c, off, err);
    for (uint32_t i = 0; r == 0 && i < t->n; i++)
        c->moved += c->changes[i].from != 0; /* or it was moved for another entry */
    return r;
}

static int move_slice(struct compact *c, hoff off, struct table *t, struct platter_error *err)
{
    uint32_t at = 0;

    int r = compact_slice_get(c, off, err);
    while (r == 0 && at < c->q->l2.slice) {
        c->kept_lower = c->n_lower;
        t->n = 0;
        for (; r == 0 && at < c->q->l2.slice && t->n < c->room_changes; at += c->q->entry_size)
            if (get_be(c->slice + at, 8))
                r = plan_entry(c, t, at, err);
        if (r == 0)
            r = apply(c, off, t, err);
        if (r < 0)
            take_back(c, t);
    }
    return r;
}

static int move_table(struct compact *c, hoff table, goff guest, uint64_t paths,
                      struct platter_error *err)
{
    struct table t = {.guest = guest, .paths = paths};
    int r = 0;

    for (uint64_t at = 0; r == 0 && at < c->q->cluster_size; at += c->q->l2.slice) {
        if (c->n_lower >= c->most_lower || slices_full(&c->q->l2))
            r = compact_settle(c, err);
        if (r == 0)
            r = move_slice(c, table + at, &t, err);
        t.guest += UINT64_C(1) << c->q->slice_bits;
        if (r == 0)
            r = compact_tick(c, err);
    }
    return r;
}

int compact_entries(struct compact *c, struct platter_error *err)
{
    return compact_each_table(c, move_table, err);
}
