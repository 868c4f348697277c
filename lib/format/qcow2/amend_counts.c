/* SPDX-License-Identifier: MIT */
/*
 * Counts of another width (section 14). New blocks and a new table get room in the old structure,
 * which counts them; then they are filled from it, themselves and the old ones included, and one
 * write of the header's first sector names them, and their width. A crash leaves the old structure
 * or the new one; the other is leaked.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/amend.h"

enum { REFTABLE_AT = 48, ORDER_AT = 96 };

/* The new structure. */
struct recount {
    uint32_t order;
    uint64_t per_block;    /* counts of a block */
    uint64_t max;          /* the largest count there can be */
    struct pointers table; /* room for as many entries as there may be */
    uint64_t n;            /* entries it needs */
    hoff off;              /* where it goes */
    uint64_t clusters;     /* that it has there */
};

/* ---- what must be counted ----------------------------------------------------------------------
 */

/* The largest count of a cluster of [first, end), and in *ret_last the last cluster that has one;
 * all are described by one old block. */
static int scan_counts(struct image *img, uint64_t first, uint64_t end, uint64_t *ret_max,
                       struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    uint32_t order = q->header.refcount_order;
    uint64_t per_slice = (uint64_t)q->blocks.slice * 8 >> order;
    struct slice *slot;
    uint64_t k;

    *ret_max = 0;
    while (first < end) {
        int r = qcow2_count_slot(img, first, &slot, &k, err);
        if (r < 0 || !slot)
            return r;
        for (; k < per_slice && first < end; k++, first++)
            *ret_max = max_u64(*ret_max, qcow2_count_get(slot->bytes, order, k));
    }
    return 0;
}

/* A place for the new block that counts [first, end), where one of them has a count. */
static int want_block(struct image *img, struct recount *c, uint64_t first, uint64_t end,
                      bool *ret_more, struct platter_error *err)
{
    uint64_t i = first / c->per_block, max, n;
    hoff off;

    int r = scan_counts(img, first, end, &max, err);
    if (r < 0 || max == 0)
        return r;
    if (max > c->max)
        return fail(err, EINVAL,
                    "%s: a cluster from %" PRIu64 " on is referred to %" PRIu64
                    " times, which counts of %u bits cannot hold",
                    img->stream->name, first * qcow2_of(img)->cluster_size, max, 1u << c->order);
    if (i >= c->table.n)
        return fail(err, EFBIG, "%s: the file needs a refcount table of more than 8 MiB",
                    img->stream->name);
    c->n = max_u64(c->n, i + 1);
    if (c->table.entries[i])
        return 0;
    r = qcow2_alloc(img, 1, &off, &n, err);
    if (r == 0)
        c->table.entries[i] = off;
    *ret_more = true;
    return r;
}

/* Goes over all old blocks, and gives places to the new ones that are missing. */
static int want_blocks(struct image *img, struct recount *c, bool *ret_more,
                       struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t old_per_block = q->cluster_size * 8 >> q->header.refcount_order;
    uint64_t step = min_u64(old_per_block, c->per_block);
    int r = 0;

    for (uint64_t i = 0; i < q->reftable.n && r == 0; i++) /* the table may grow meanwhile */
        for (uint64_t at = 0; at < old_per_block && r == 0 && q->reftable.entries[i]; at += step)
            r = want_block(img, c, i * old_per_block + at, i * old_per_block + at + step, ret_more,
                           err);
    return r;
}

/* Room for all, until no room that is taken needs more. */
static int take_room(struct image *img, struct recount *c, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    bool more = true;
    int r = 0;

    while (r == 0 && more) {
        more = false;
        r = want_blocks(img, c, &more, err);
        uint64_t clusters = max_u64(1, div_up(c->n * 8, q->cluster_size));
        if (r < 0 || more || clusters <= c->clusters)
            continue;
        if (c->clusters)
            r = qcow2_count_down(img, c->off >> q->cluster_bits, c->clusters, false, err);
        c->clusters = 0;
        if (r == 0)
            r = qcow2_alloc_table(img, clusters, &c->off, err);
        c->clusters = r < 0 ? 0 : clusters;
        more = true;
    }
    return r;
}

/* ---- the new structure -------------------------------------------------------------------------
 */

static int fill_block(struct image *img, const struct recount *c, uint64_t i, uint8_t *bytes,
                      struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint32_t order = q->header.refcount_order;
    uint64_t per_slice = (uint64_t)q->blocks.slice * 8 >> order;
    uint64_t cluster = i * c->per_block, step;
    struct slice *slot;
    uint64_t k;

    memset(bytes, 0, q->cluster_size);
    for (uint64_t at = 0; at < c->per_block; at += step) {
        int r = qcow2_count_slot(img, cluster + at, &slot, &k, err);
        if (r < 0)
            return r;
        k = slot ? k : (cluster + at) % per_slice;
        step = min_u64(per_slice - k, c->per_block - at);
        for (uint64_t j = 0; slot && j < step; j++)
            qcow2_count_put(bytes, c->order, at + j, qcow2_count_get(slot->bytes, order, k + j));
    }
    slices_forget(img, &q->blocks, c->table.entries[i]);
    return image_meta_write(img, bytes, q->cluster_size, c->table.entries[i], err);
}

static int write_all(struct image *img, struct recount *c, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint8_t *bytes = NULL;

    int r = budget_alloc(img->budget, q->cluster_size, "a refcount block", &bytes, err);
    for (uint64_t i = 0; i < c->n && r == 0; i++)
        if (c->table.entries[i])
            r = fill_block(img, c, i, bytes, err);
    budget_free(img->budget, bytes, q->cluster_size);
    if (r < 0)
        return r;
    struct pointers p = {0};
    r = pointers_new(img, &p, c->off, (uint32_t)(c->clusters * q->cluster_size / 8),
                     "the refcount table", err);
    for (uint32_t i = 0; i < p.n && r == 0; i++)
        pointers_set(&p, i, i < c->n ? c->table.entries[i] : 0);
    if (r == 0)
        r = pointers_write(img, &p, err);
    if (r < 0) {
        pointers_free(img, &p);
        return r;
    }
    pointers_free(img, &c->table);
    c->table = p;
    return qcow2_barrier(img, err);
}

/* All the fields from the refcount table to the width of counts, in one write. */
static int switch_over(struct image *img, const struct recount *c, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct qcow2_header h = q->header;
    uint8_t head[QCOW2_HEADER_V3] = {0};
    struct writer w = writer_over(head, sizeof head);

    h.reftable_offset = c->off;
    h.reftable_clusters = (uint32_t)c->clusters;
    h.refcount_order = c->order;
    h.length = QCOW2_HEADER_V3;
    qcow2_header_encode(&h, &w);
    int r = image_meta_write(img, head + REFTABLE_AT, ORDER_AT + 4 - REFTABLE_AT, REFTABLE_AT, err);
    if (r == 0)
        r = qcow2_barrier(img, err);
    if (r < 0)
        return r;
    h.length = q->header.length;
    q->header = h;
    return 0;
}

static int free_old(struct image *img, const struct pointers *old, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t clusters = old->n * UINT64_C(8) >> q->cluster_bits;

    int r = qcow2_count_down(img, old->off >> q->cluster_bits, clusters, true, err);
    for (uint32_t i = 0; i < old->n && r == 0; i++)
        if (old->entries[i])
            r = qcow2_count_down(img, old->entries[i] >> q->cluster_bits, 1, true, err);
    return r < 0 ? r : slices_write(img, &q->blocks, err);
}

/* Nothing points at the new structure yet: what was taken for it is free again. */
static void give_back(struct image *img, const struct recount *c)
{
    unsigned bits = qcow2_of(img)->cluster_bits;

    if (atomic_load(&img->poison))
        return;
    for (uint32_t i = 0; i < c->table.n; i++)
        if (c->table.entries[i])
            qcow2_count_down(img, c->table.entries[i] >> bits, 1, true, NULL);
    if (c->clusters)
        qcow2_count_down(img, c->off >> bits, c->clusters, true, NULL);
    qcow2_trim(img, NULL);
}

int qcow2_amend_counts(struct image *img, uint32_t order, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct recount c = {
        .order = order, .per_block = q->cluster_size * 8 >> order, .max = qcow2_count_max(order)};

    int r = qcow2_flush_locked(img, err);
    if (r == 0)
        r = qcow2_check_distinct(img, &q->reftable, "the refcount table", err);
    if (r == 0)
        r = pointers_new(img, &c.table, 0, QCOW2_MAX_REFTABLE_BYTES / 8, "the refcount table", err);
    if (r == 0)
        r = take_room(img, &c, err);
    if (r == 0)
        r = qcow2_flush_locked(img, err);
    if (r == 0)
        r = write_all(img, &c, err);
    if (r == 0)
        r = switch_over(img, &c, err);
    if (r < 0) {
        give_back(img, &c);
        pointers_free(img, &c.table);
        return r;
    }
    struct pointers old = q->reftable;
    q->reftable = c.table;
    r = free_old(img, &old, err);
    pointers_free(img, &old);
    return r < 0 ? r : qcow2_trim(img, err);
}
