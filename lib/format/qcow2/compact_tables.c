/* SPDX-License-Identifier: MIT */
/*
 * Tables move: L2 tables, the L1 tables of the disk and of snapshots, the snapshot table, and the
 * refcount blocks and their table. A copy is complete and durable before the one entry or field
 * that names it changes, in place and inside of one sector.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/compact.h"

enum { L1_AT = 36, SNAPSHOT_ENTRY = 40, KEPT = 8 };

/* ---- all L1 entries ----------------------------------------------------------------------------
 */

/* Goes over the entries that lead to L2 tables: those of the disk, then those of snapshots. */
struct cursor {
    struct qcow2_tree tree;
    const struct qcow2_snapshot *s; /* NULL: of the disk */
    uint32_t i, next, next_snapshot;
    uint64_t raw;
    hoff table;
};

static struct cursor cursor_begin(const struct compact *c)
{
    return (struct cursor){.tree = qcow2_tree_of(&c->q->l1)};
}

/* 1: an entry; 0: there are no more. */
static int cursor_next(struct compact *c, struct cursor *at, struct platter_error *err)
{
    const struct qcow2 *q = c->q;

    for (;;) {
        while (at->next < at->tree.n) {
            struct qcow2_tree *t = &at->tree;
            at->i = at->next++;
            int r = qcow2_tree_table(c->img, t, at->i, &at->table, err);
            if (r < 0)
                return r;
            if (at->table == 0)
                continue;
            at->raw = t->entries ? t->entries[at->i] : get_be(t->piece + (at->i - t->first) * 8, 8);
            return 1;
        }
        if (at->next_snapshot >= q->header.n_snapshots)
            return 0;
        at->s = &q->snapshots[at->next_snapshot++];
        int r = qcow2_snapshot_check(c->img, at->s, err);
        if (r < 0)
            return r;
        at->tree = qcow2_tree_of_snapshot(at->s);
        at->next = 0;
    }
}

/* Counts take what memory there is: some is kept from them for the work that needs them. */
int compact_count_tables(struct compact *c, struct platter_error *err)
{
    struct cursor at = cursor_begin(c);
    struct budget *budget = c->img->budget;
    uint64_t kept = budget_limit(budget) / KEPT;

    counts_close(&c->tables);
    if (budget_take(budget, kept, "the work on L2 tables", NULL) < 0)
        kept = 0;
    int r = counts_open(&c->tables, budget, 0, err);
    while (r == 0 && (r = cursor_next(c, &at, err)) > 0)
        r = counts_add(&c->tables, at.table >> c->q->cluster_bits, 1, 1, err);
    budget_give(budget, kept);
    return r;
}

int compact_each_table(struct compact *c,
                       int (*fn)(struct compact *c, hoff table, goff guest, uint64_t paths,
                                 struct platter_error *err),
                       struct platter_error *err)
{
    struct cursor at = cursor_begin(c);
    int r;

    while ((r = cursor_next(c, &at, err)) > 0) {
        uint64_t cluster = at.table >> c->q->cluster_bits;
        uint64_t paths = counts_get(&c->tables, cluster);
        /* It was walked, or the memory did not do for the counts: then it is left alone. */
        if (paths == 0)
            continue;
        for (uint64_t i = 0; i < paths; i++)
            counts_take(&c->tables, cluster, 1);
        r = fn(c, at.table, (goff)at.i << c->q->l1_bits, paths, err);
        if (r < 0)
            break;
    }
    counts_close(&c->tables);
    return r;
}

int compact_slice_get(struct compact *c, hoff off, struct platter_error *err)
{
    struct slice *slot;
    int r = slices_get(c->img, &c->q->l2, off, &slot, err);
    if (r == 0)
        memcpy(c->slice, slot->bytes, c->q->l2.slice);
    return r;
}

int compact_slice_put(struct compact *c, hoff off, struct platter_error *err)
{
    struct slice *slot;
    int r = slices_get(c->img, &c->q->l2, off, &slot, err);
    if (r < 0)
        return r;
    memcpy(slot->bytes, c->slice, c->q->l2.slice);
    slices_dirty(&c->q->l2, slot);
    return 0;
}

/* ---- L2 tables ---------------------------------------------------------------------------------
 */

/* A copy of a table that must go, unless it has one. What it holds is on the disk. */
static int copy_l2(struct compact *c, uint64_t cluster, struct platter_error *err)
{
    unsigned bits = c->q->cluster_bits;
    uint64_t count, to;

    if (!compact_must_go(c, cluster) || compact_map_find(c, cluster) || !compact_map_room(c))
        return 0;
    int r = qcow2_count_read(c->img, cluster, &count, err);
    if (r == 0)
        r = compact_take(c, &to, err);
    if (r < 0 || to == 0)
        return r;
    r = compact_copy(c, cluster << bits, to << bits, c->q->cluster_size, false, err);
    slices_forget(c->img, &c->q->l2, to << bits);
    if (r == 0 && count > 1)
        r = qcow2_count_add(c->img, to, count - 1, err);
    if (r < 0) {
        qcow2_count_take(c->img, to, 1, NULL);
        return r;
    }
    compact_map_add(c, cluster, to, count ? count : 1);
    c->moved++;
    return 0;
}

/* The entry leads to the copy. In the L1 table of a snapshot it is written at once. */
static int switch_l2(struct compact *c, const struct cursor *at, struct platter_error *err)
{
    struct compact_item *item = compact_map_find(c, at->table >> c->q->cluster_bits);
    uint8_t field[8];
    int r = 0;

    if (!item || item->seen == item->given)
        return 0;
    uint64_t raw = (at->raw & ~QCOW2_OFFSET_MASK) | item->to << c->q->cluster_bits;
    put_be(field, 8, raw);
    if (at->s)
        r = image_meta_write(c->img, field, sizeof field, at->s->l1_offset + at->i * UINT64_C(8),
                             err);
    else
        pointers_set(&c->q->l1, at->i, raw);
    item->seen += r == 0;
    return r;
}

int compact_l2_tables(struct compact *c, struct platter_error *err)
{
    struct cursor at = cursor_begin(c);
    int r;

    while ((r = cursor_next(c, &at, err)) > 0)
        if ((r = copy_l2(c, at.table >> c->q->cluster_bits, err)) < 0)
            break;
    if (r == 0) /* copies and their counts */
        r = compact_settle(c, err);
    at = cursor_begin(c);
    while (r == 0 && (r = cursor_next(c, &at, err)) > 0)
        r = switch_l2(c, &at, err);
    if (r == 0)
        r = compact_settle(c, err);
    return r == 0 ? compact_map_end(c, err) : r;
}

/* ---- tables that the header names --------------------------------------------------------------
 */

int compact_copy_table(struct compact *c, hoff off, uint64_t bytes, bool several, hoff *ret_to,
                       struct platter_error *err)
{
    uint64_t n = compact_clusters(c, bytes), first = off >> c->q->cluster_bits, to = 0;

    *ret_to = 0;
    if (n == 0 || (n > 1) != several ||
        !(compact_must_go(c, first) || compact_must_go(c, first + n - 1)))
        return 0;
    int r = compact_take_table(c, n, &to, err);
    if (r < 0 || to == 0)
        return r;
    r = compact_copy(c, off, to << c->q->cluster_bits, n * c->q->cluster_size, false, err);
    if (r == 0)
        r = compact_settle(c, err);
    if (r < 0) {
        if (atomic_load(&c->img->poison) == 0)
            qcow2_count_down(c->img, to, n, false, NULL);
        return r;
    }
    *ret_to = to << c->q->cluster_bits;
    c->moved += n;
    return 0;
}

int compact_free_table(struct compact *c, hoff off, uint64_t bytes, struct platter_error *err)
{
    return qcow2_count_down(c->img, off >> c->q->cluster_bits, compact_clusters(c, bytes), false,
                            err);
}

static int move_l1(struct compact *c, bool several, struct platter_error *err)
{
    struct qcow2 *q = c->q;
    hoff old = q->header.l1_offset, to;
    uint8_t field[12];

    int r = compact_copy_table(c, old, q->header.l1_size * UINT64_C(8), several, &to, err);
    if (r < 0 || to == 0)
        return r;
    put_be(field, 4, q->header.l1_size);
    put_be(field + 4, 8, to);
    r = compact_switch(c, field, sizeof field, L1_AT, err);
    if (r < 0)
        return r;
    q->l1.off = q->header.l1_offset = to;
    return compact_free_table(c, old, q->header.l1_size * UINT64_C(8), err);
}

static int move_reftable(struct compact *c, bool several, struct platter_error *err)
{
    struct qcow2 *q = c->q;
    uint32_t clusters = q->header.reftable_clusters;
    hoff old = q->header.reftable_offset, to;

    int r = compact_copy_table(c, old, clusters * q->cluster_size, several, &to, err);
    if (r < 0 || to == 0)
        return r;
    /* Its own room may have needed a block, which the copy does not name. */
    r = pointers_copy(c->img, &q->reftable, to, err);
    if (r == 0)
        r = qcow2_reftable_switch(c->img, to, clusters, err);
    if (r < 0)
        return r;
    q->reftable.off = to;
    return compact_free_table(c, old, clusters * q->cluster_size, err);
}

/* What behind the last entry has no block is nothing to lose. */
int compact_shorten_reftable(struct compact *c, bool *ret_shorter, struct platter_error *err)
{
    struct qcow2 *q = c->q;
    uint32_t old = q->header.reftable_clusters, n = compact_reftable_needs(c, q->reftable.n);
    uint64_t first = q->reftable.off >> q->cluster_bits;
    struct pointers shorter = {0};

    *ret_shorter = n < old;
    if (n >= old)
        return 0;
    int r = compact_settle(c, err);
    if (r == 0)
        r = pointers_new(c->img, &shorter, q->reftable.off, (uint32_t)((n << q->cluster_bits) / 8),
                         "the refcount table", err);
    if (r == 0)
        memcpy(shorter.entries, q->reftable.entries, shorter.n * sizeof *shorter.entries);
    if (r == 0)
        r = qcow2_reftable_switch(c->img, shorter.off, n, err);
    if (r < 0) {
        pointers_free(c->img, &shorter);
        return r;
    }
    pointers_free(c->img, &q->reftable);
    q->reftable = shorter;
    return qcow2_count_down(c->img, first + n, old - n, false, err);
}

static int move_snapshot_table(struct compact *c, bool several, struct platter_error *err)
{
    struct qcow2 *q = c->q;
    hoff old = q->header.snapshots_offset, to;

    if (q->header.n_snapshots == 0)
        return 0;
    int r = compact_copy_table(c, old, q->snapshots_size, several, &to, err);
    if (r < 0 || to == 0)
        return r;
    r = qcow2_snapshots_switch(c->img, q->header.n_snapshots, to, err);
    if (r < 0)
        return r;
    q->header.snapshots_offset = to;
    return compact_free_table(c, old, q->snapshots_size, err);
}

/* The entry of a snapshot begins with where its L1 table is. Entries have no length of their own:
 * *at goes behind it. */
static int move_snapshot_l1(struct compact *c, struct qcow2_snapshot *s, hoff *at, bool several,
                            struct platter_error *err)
{
    uint64_t bytes = s->l1_size * UINT64_C(8);
    uint8_t entry[SNAPSHOT_ENTRY], field[8];
    hoff here = *at, old = s->l1_offset, to;

    pthread_mutex_unlock(&c->img->lock);
    int r = stream_pread(c->img->stream, entry, sizeof entry, here, err);
    pthread_mutex_lock(&c->img->lock);
    if (r < 0)
        return r;
    *at += round_up(
        SNAPSHOT_ENTRY + get_be(entry + 36, 4) + get_be(entry + 12, 2) + get_be(entry + 14, 2), 8);
    r = compact_copy_table(c, old, bytes, several, &to, err);
    if (r < 0 || to == 0)
        return r;
    put_be(field, 8, to);
    r = compact_switch(c, field, sizeof field, here, err);
    if (r < 0)
        return r;
    s->l1_offset = to;
    return compact_free_table(c, old, bytes, err);
}

int compact_tables(struct compact *c, bool several, struct platter_error *err)
{
    struct qcow2 *q = c->q;
    hoff at = q->header.snapshots_offset;

    int r = move_l1(c, several, err);
    for (uint32_t i = 0; r == 0 && i < q->header.n_snapshots; i++)
        r = move_snapshot_l1(c, &q->snapshots[i], &at, several, err);
    if (r == 0)
        r = move_snapshot_table(c, several, err);
    return r < 0 ? r : move_reftable(c, several, err);
}

/* ---- refcount blocks ---------------------------------------------------------------------------
 */

/* Blocks behind the target that count only what is there are dropped in the end instead. */
static bool block_must_go(const struct compact *c, uint64_t i)
{
    uint64_t cluster = c->q->reftable.entries[i] >> c->q->cluster_bits;
    unsigned bits = c->q->cluster_bits + 3 - c->q->header.refcount_order;
    return cluster && compact_must_go(c, cluster) && (i << bits < c->target || cluster < c->target);
}

/* The block as it is now, its own new count included. */
static int move_block(struct compact *c, uint32_t i, uint64_t to, struct platter_error *err)
{
    struct qcow2 *q = c->q;
    hoff old = q->reftable.entries[i], new = to << q->cluster_bits;

    int r = compact_settle(c, err);
    if (r == 0)
        r = slices_write(c->img, &q->blocks, err);
    if (r == 0)
        r = compact_copy(c, old, new, q->cluster_size, false, err);
    if (r == 0)
        r = qcow2_barrier(c->img, err);
    if (r < 0) {
        if (atomic_load(&c->img->poison) == 0)
            qcow2_count_down(c->img, to, 1, false, NULL);
        return r;
    }
    slices_forget(c->img, &q->blocks, new);
    pointers_set(&q->reftable, i, new);
    r = pointers_write(c->img, &q->reftable, err);
    if (r == 0)
        r = qcow2_barrier(c->img, err);
    if (r < 0)
        return r;
    slices_forget(c->img, &q->blocks, old);
    c->moved++;
    return qcow2_count_down(c->img, old >> q->cluster_bits, 1, false, err);
}

int compact_blocks(struct compact *c, struct platter_error *err)
{
    uint64_t to;
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < c->q->reftable.n; i++) {
        if (!block_must_go(c, i))
            continue;
        r = compact_take(c, &to, err);
        if (r < 0 || to == 0)
            return r;
        r = move_block(c, i, to, err);
    }
    return r;
}
