/* SPDX-License-Identifier: MIT */
/*
 * Forgetting much at once: all that the L1 table points at from some entry on, and the end of the
 * file that is free then. What pointed there is gone durably before the first count goes down, so
 * a crash leaks what was not given back yet.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/qcow2/snapshot.h"

enum { CHUNK = 1024 }; /* L1 entries that are cut off at once */

int qcow2_check_distinct(const struct image *img, const struct pointers *p, const char *what,
                         struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    uint64_t most = div_up(q->file_size, q->cluster_size), n = 0;

    for (uint32_t i = 0; i < p->n; i++)
        n += p->entries[i] != 0;
    if (n <= most)
        return 0;
    return fail(err, PLATTER_ECORRUPT,
                "%s: %s at %" PRIu64 " names %" PRIu64 " clusters, but the file has only %" PRIu64
                ": several entries share one",
                img->stream->name, what, p->off, n, most);
}

/* ---- what is below an L1 entry -----------------------------------------------------------------
 */

/* Takes n entries from `first` on out of the L1 table, and gives back what is below them. */
static int cut_entries(struct image *img, uint32_t first, uint32_t n, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t old[CHUNK];
    struct qcow2_tree t = {.entries = old, .base = first, .n = n};
    hoff table;
    int r = 0;

    memcpy(old, q->l1.entries + first, n * sizeof *old);
    for (uint32_t i = 0; i < n && r == 0; i++)
        r = qcow2_tree_table(img, &t, i, &table, err);
    for (uint32_t i = 0; i < n && r == 0; i++)
        if (old[i])
            pointers_set(&q->l1, first + i, 0);
    if (r < 0 || !q->l1.any_dirty)
        return r;
    r = pointers_write(img, &q->l1, err);
    if (r == 0)
        r = qcow2_barrier(img, err);
    return r < 0 ? r : qcow2_tree_count_down(img, &t, UINT64_MAX, err);
}

int qcow2_l1_cut(struct image *img, uint32_t first, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);

    int r = qcow2_flush_locked(img, err);
    if (r == 0)
        r = qcow2_check_distinct(img, &q->l1, "the L1 table", err);
    for (uint32_t n; r == 0 && first < q->l1.n; first += n) {
        n = (uint32_t)min_u64(q->l1.n - first, CHUNK);
        r = cut_entries(img, first, n, err);
    }
    int w = slices_write(img, &q->blocks, r < 0 ? NULL : err);
    return r < 0 ? r : w;
}

/* ---- the end of the file -----------------------------------------------------------------------
 */

/* The last cluster of block i's range that has a count; *ret_none: there is none, or only `except`.
 */
static int last_counted(struct image *img, uint32_t i, uint64_t except, uint64_t *ret,
                        bool *ret_none, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint32_t order = q->header.refcount_order;
    uint64_t per_block = q->cluster_size * 8 >> order;
    uint64_t per_slice = (uint64_t)q->blocks.slice * 8 >> order;
    uint64_t first = i * per_block;
    struct slice *slot;
    uint64_t k;

    *ret_none = true;
    for (uint64_t end = first + per_block; end > first; end -= per_slice) {
        int r = qcow2_count_slot(img, end - per_slice, &slot, &k, err);
        if (r < 0 || !slot)
            return r;
        for (k = per_slice; k-- > 0;) {
            *ret = end - per_slice + k;
            *ret_none = *ret == except || qcow2_count_get(slot->bytes, order, k) == 0;
            if (!*ret_none)
                return 0;
        }
    }
    return 0;
}

/* Takes the blocks that count nothing but themselves out of the refcount table, durably: their
 * clusters are free then, as clusters without a block are. */
static int drop_blocks(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    unsigned block_bits = q->cluster_bits + 3 - q->header.refcount_order;
    uint64_t last;
    bool none;

    int r = qcow2_flush_locked(img, err);
    if (r == 0)
        r = qcow2_check_distinct(img, &q->reftable, "the refcount table", err);
    for (uint32_t i = 1; i < q->reftable.n && r == 0; i++) {
        uint64_t self = q->reftable.entries[i] >> q->cluster_bits;
        if (self == 0 || self >> block_bits != i)
            continue;
        r = last_counted(img, i, self, &last, &none, err);
        if (r < 0 || !none)
            continue;
        slices_forget(img, &q->blocks, q->reftable.entries[i]);
        pointers_set(&q->reftable, i, 0);
        q->next_free = min_u64(q->next_free, (uint64_t)i << block_bits);
    }
    if (r < 0 || !q->reftable.any_dirty)
        return r;
    r = pointers_write(img, &q->reftable, err);
    return r < 0 ? r : qcow2_barrier(img, err);
}

/* The first cluster behind all that have a count. */
static int find_end(struct image *img, uint64_t *ret, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    bool none = true;

    *ret = 0;
    for (uint32_t i = q->reftable.n; i-- > 0 && none;) {
        if (q->reftable.entries[i] == 0)
            continue;
        int r = last_counted(img, i, UINT64_MAX, ret, &none, err);
        if (r < 0)
            return r;
    }
    *ret = none ? 1 : *ret + 1; /* the header is always there */
    return 0;
}

static hoff end_of(hoff so_far, hoff off, uint64_t len)
{
    return max_u64(so_far, len ? off + len : 0);
}

/* Where the tables end that the header and what is in memory name. */
static hoff tables_end(const struct qcow2 *q)
{
    const struct qcow2_extensions *x = &q->extensions;
    hoff end = end_of(0, q->l1.off, q->l1.n * UINT64_C(8));

    end = end_of(end, q->reftable.off, q->reftable.n * UINT64_C(8));
    end = end_of(end, x->crypto_offset, x->has_crypto ? x->crypto_len : 0);
    end = end_of(end, x->bitmap_directory, x->has_bitmaps ? x->bitmap_directory_size : 0);
    end = end_of(end, q->header.snapshots_offset, q->header.n_snapshots ? q->snapshots_size : 0);
    for (uint32_t i = 0; i < q->header.n_snapshots; i++)
        end = end_of(end, q->snapshots[i].l1_offset, q->snapshots[i].l1_size * UINT64_C(8));
    for (uint32_t i = 0; i < q->l1.n; i++)
        if (q->l1.entries[i] & QCOW2_OFFSET_MASK)
            end = end_of(end, q->l1.entries[i] & QCOW2_OFFSET_MASK, q->cluster_size);
    for (uint32_t i = 0; i < q->reftable.n; i++)
        if (q->reftable.entries[i])
            end = end_of(end, q->reftable.entries[i], q->cluster_size);
    return end;
}

/* Where what the tables point at ends, as far as it belongs to the disk itself. A count that is too
 * low is damage, by which no data may be lost here. Lock held; drops it. */
static int stored_end(struct image *img, hoff *ret, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    struct extent e = {0};
    int r = 0;

    *ret = tables_end(q);
    pthread_mutex_unlock(&img->lock);
    for (goff off = 0; off < img->size && r == 0; off += e.len) {
        r = qcow2_map(img, off, img->size - off, &e, err);
        if (r == 0 && e.kind == EXTENT_PACKED)
            *ret = end_of(*ret, e.off, e.packed_len);
        else if (r == 0 && (e.kind == EXTENT_DATA || e.has_place) && e.stream == img->stream)
            *ret = end_of(*ret, e.off, e.len);
    }
    pthread_mutex_lock(&img->lock);
    return r;
}

int qcow2_trim(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t end = 0, size;
    hoff stored = 0;

    int r = drop_blocks(img, err);
    if (r == 0)
        r = find_end(img, &end, err);
    if (r == 0)
        r = stored_end(img, &stored, err);
    if (r < 0)
        return r;
    end = max_u64(end << q->cluster_bits, round_up(stored, q->cluster_size));
    pthread_mutex_unlock(&img->lock);
    r = stream_size(img->stream, &size, err);
    if (r == 0 && size > end) {
        r = stream_resize(img->stream, end, err);
        r = r == -ENOTSUP ? 0 : r; /* a device */
        size = end;
    }
    pthread_mutex_lock(&img->lock);
    if (r < 0)
        return r;
    q->file_size = min_u64(q->file_size, size);
    return qcow2_barrier(img, err);
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

int qcow2_make_empty(struct image *img, struct platter_error *err)
{
    int r = qcow2_enter(img, err);
    if (r < 0)
        return r;
    r = qcow2_l1_cut(img, 0, err);
    if (r == 0)
        r = qcow2_trim(img, err);
    qcow2_leave(img);
    return r;
}
