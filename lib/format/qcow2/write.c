/* SPDX-License-Identifier: MIT */
/*
 * Room for new data, and its place in the tables (rule 1, section 6).
 *
 * reserve() finds or allocates host clusters and changes nothing that a guest sees: counts go up,
 * and an L2 table may be made. commit() enters them, when the data is written. Both happen in
 * memory; flush.c brings them to the disk. A reservation stays inside one slice of one L2 table.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/qcow2.h"

/* ---- an L2 table of our own --------------------------------------------------------------------
 */

/* What a shared table points at is shared as well: no entry of its copy owns anything. */
static void clear_copied(const struct qcow2 *q, uint8_t *bytes)
{
    for (uint32_t i = 0; i < q->l2.slice; i += q->entry_size)
        bytes[i] &= 0x7f;
}

static int copy_table(struct image *img, hoff from, hoff to, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct slice *slot;
    uint8_t *bytes = NULL;

    int r = budget_alloc(img->budget, q->l2.slice, "a copy of an L2 table", &bytes, err);
    for (uint64_t at = 0; r == 0 && at < q->cluster_size; at += q->l2.slice) {
        r = slices_get(img, &q->l2, from + at, &slot, err);
        if (r < 0)
            break;
        memcpy(bytes, slot->bytes, q->l2.slice);
        clear_copied(q, bytes);
        r = image_meta_write(img, bytes, q->l2.slice, to + at, err);
    }
    budget_free(img->budget, bytes, q->l2.slice);
    slices_forget(img, &q->l2, to);
    return r;
}

int qcow2_l2_own(struct image *img, goff guest, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint32_t i = (uint32_t)(guest >> q->l1_bits);
    hoff old, off = 0;
    uint64_t n;

    int r = qcow2_l2_find(img, guest, &old, err);
    if (r < 0 || (old && q->l1.entries[i] & QCOW2_COPIED))
        return r;
    r = qcow2_free_room(img, 1, err);
    if (r == 0)
        r = qcow2_alloc(img, 1, &off, &n, err);
    if (r < 0)
        return r;
    r = old ? copy_table(img, old, off, err) : slices_new(img, &q->l2, off, err);
    if (r < 0) {
        qcow2_count_down(img, off >> q->cluster_bits, 1, false, NULL);
        return r;
    }
    pointers_set(&q->l1, i, off | QCOW2_COPIED);
    if (old)
        qcow2_free_run(img, old >> q->cluster_bits, 1, false, false);
    return 0;
}

/* ---- reserve -----------------------------------------------------------------------------------
 */

static bool is_ours(const struct qcow2_entry *e)
{
    return e->has_place && e->copied;
}

/* Subclusters that must be valid in a new place of e: all between the first and the last that hold
 * data. */
static void span_of_data(const struct qcow2 *q, const struct qcow2_entry *e, uint64_t *ret_first,
                         uint64_t *ret_end)
{
    *ret_first = q->cluster_size;
    *ret_end = 0;
    if (e->packed) {
        *ret_first = 0;
        *ret_end = q->cluster_size;
    } else if (e->alloc) {
        *ret_first = (uint64_t)__builtin_ctz(e->alloc) << q->sub_bits;
        *ret_end = (uint64_t)(32 - __builtin_clz(e->alloc)) << q->sub_bits;
    }
}

/* Subclusters with a place of their own that hold no data yet, side by side in the file. */
static void reserve_in_place(const struct image *img, const struct slice *slot,
                             const uint8_t *entry, struct qcow2_entry e, goff off, goff end,
                             struct reservation *ret)
{
    const struct qcow2 *q = qcow2_of(img);
    const uint8_t *last = slot->bytes + q->l2.slice - q->entry_size;
    goff start = round_down(off, UINT64_C(1) << q->sub_bits), cluster = off, at = start;
    hoff first = e.off + (start & (q->cluster_size - 1));

    cluster = round_down(off, q->cluster_size);
    do {
        at += UINT64_C(1) << q->sub_bits;
        if (at < end && at == cluster + q->cluster_size) {
            hoff next = e.off + q->cluster_size;
            cluster = at;
            if (entry == last ||
                qcow2_entry_decode(img, entry += q->entry_size, at, &e, NULL) < 0 || !is_ours(&e) ||
                e.off != next)
                break;
        }
    } while (at < end && !(e.alloc >> ((at - cluster) >> q->sub_bits) & 1));
    *ret = (struct reservation){.start = start,
                                .len = at - start,
                                .stream = q->data,
                                .off = first,
                                .cookie = {QCOW2_ROOM_IN_PLACE}};
}

/* How many clusters from e on want a new place, up to guest offset `end`. */
static uint64_t count_fresh(const struct image *img, const struct slice *slot, const uint8_t *entry,
                            goff cluster, goff end)
{
    const struct qcow2 *q = qcow2_of(img);
    const uint8_t *stop = slot->bytes + q->l2.slice;
    struct qcow2_entry e;
    uint64_t n = 1;

    while (cluster + n * q->cluster_size < end) {
        entry += q->entry_size;
        if (entry >= stop ||
            qcow2_entry_decode(img, entry, cluster + n * q->cluster_size, &e, NULL) < 0 ||
            is_ours(&e))
            break;
        n++;
    }
    return n;
}

/* The guest range that must be written into n fresh clusters, of which `first` and `last` hold what
 * the entries say now. */
static void reserve_fresh(const struct qcow2 *q, const struct qcow2_entry *first,
                          const struct qcow2_entry *last, goff off, goff end, uint64_t n,
                          struct reservation *ret)
{
    uint64_t sub = UINT64_C(1) << q->sub_bits, data_first, data_end;
    goff cluster = round_down(off, q->cluster_size),
         last_cluster = cluster + (n - 1) * q->cluster_size;

    span_of_data(q, first, &data_first, &data_end);
    ret->start = min_u64(round_down(off, sub), cluster + data_first);
    span_of_data(q, last, &data_first, &data_end);
    end = min_u64(round_up(end, sub), last_cluster + q->cluster_size);
    ret->len = max_u64(end, last_cluster + data_end) - ret->start;
    ret->stream = q->data;
    ret->off += ret->start - cluster;
    ret->cookie[0] = QCOW2_ROOM_FRESH;
}

/* Clusters for `want` guest clusters: in the image, or where they must be in a data file.
 * *ret_unused: nothing was ever there. */
static int take_clusters(struct image *img, goff cluster, uint64_t want, hoff *ret_off,
                         uint64_t *ret_n, bool *ret_unused, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    hoff taken_end = q->taken_end;

    if (!q->data_file) {
        int r = qcow2_alloc(img, want, ret_off, ret_n, err);
        *ret_unused = r == 0 && *ret_off >= max_u64(taken_end, q->file_size);
        return r;
    }
    *ret_unused = false;
    *ret_off = cluster;
    *ret_n = want;
    /* The place is always the same: a hole that waits to be punched there must not hit new data. */
    return q->n_frees ? qcow2_flush_locked(img, err) : 0;
}

/* Has the file reach the end of new clusters: they read as zeros then, and only what a guest writes
 * there has to be written. */
static bool make_blank(struct image *img, hoff first, uint64_t len)
{
    pthread_mutex_unlock(&img->lock);
    int r = stream_zero(img->stream, first, len, STREAM_ZERO_UNMAP, NULL);
    pthread_mutex_lock(&img->lock);
    return r == 0;
}

static int reserve_locked(struct image *img, goff off, uint64_t len, struct reservation *ret,
                          struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    goff cluster = round_down(off, q->cluster_size), end = off + len;
    struct slice *slot;
    struct qcow2_entry first, last;
    uint8_t *entry;
    uint64_t n;
    bool unused;

    int r = qcow2_l2_own(img, off, err);
    if (r == 0)
        r = qcow2_l2_get(img, off, &slot, &entry, err);
    if (r == 0)
        r = qcow2_entry_decode(img, entry, cluster, &first, err);
    if (r < 0)
        return r;
    if (is_ours(&first)) {
        reserve_in_place(img, slot, entry, first, off, end, ret);
        return 0;
    }
    n = count_fresh(img, slot, entry, cluster, end);
    r = take_clusters(img, cluster, n, &ret->off, &n, &unused, err);
    if (r < 0)
        return r;
    /* Allocating may have dropped the lock, and the slot with it. */
    goff last_cluster = cluster + (n - 1) * q->cluster_size;
    r = qcow2_l2_get(img, last_cluster, &slot, &entry, err);
    if (r == 0)
        r = qcow2_entry_decode(img, entry, last_cluster, &last, err);
    if (r < 0) {
        if (!q->data_file)
            qcow2_count_down(img, ret->off >> q->cluster_bits, n, false, NULL);
        return r;
    }
    hoff place = ret->off;
    reserve_fresh(q, &first, &last, off, end, n, ret);
    bool in_part = ret->start < off || ret->start + ret->len > end;
    ret->blank = unused && in_part && !img->sealed && make_blank(img, place, n * q->cluster_size);
    return 0;
}

int qcow2_reserve(struct image *img, goff off, uint64_t len, struct reservation *ret,
                  struct platter_error *err)
{
    int r = qcow2_enter(img, err);
    if (r < 0)
        return r;
    *ret = (struct reservation){0};
    r = reserve_locked(img, off, len, ret, err);
    qcow2_leave(img);
    return r;
}

/* ---- commit and abandon ------------------------------------------------------------------------
 */

/* Enters the part of a reservation that lies in the cluster at guest offset `cluster`. */
static int link_cluster(struct image *img, const struct reservation *r, goff cluster,
                        uint8_t *entry, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    uint64_t from = max_u64(r->start, cluster) - cluster;
    uint64_t to = min_u64(r->start + r->len, cluster + q->cluster_size) - cluster;
    uint32_t n = (uint32_t)((to - from) >> q->sub_bits);
    uint32_t mask = (n == 32 ? UINT32_MAX : (UINT32_C(1) << n) - 1) << (from >> q->sub_bits);
    struct qcow2_entry old, e;

    int result = qcow2_entry_decode(img, entry, cluster, &old, err);
    if (result < 0)
        return result;
    e = old.packed ? (struct qcow2_entry){0} : old;
    e.alloc |= mask;
    e.zero &= ~mask;
    if (r->cookie[0] == QCOW2_ROOM_FRESH) {
        qcow2_free_entry(img, &old, false);
        e.off = r->off - r->start + cluster;
        e.copied = true;
    }
    qcow2_entry_encode(img, entry, &e);
    return 0;
}

static int commit_locked(struct image *img, const struct reservation *r, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    goff cluster = round_down(r->start, q->cluster_size), end = r->start + r->len;
    struct slice *slot;
    uint8_t *entry;

    int result = qcow2_free_room(img, (uint32_t)div_up(end - cluster, q->cluster_size), err);
    if (result == 0)
        result = qcow2_l2_get(img, r->start, &slot, &entry, err);
    if (result < 0)
        return result;
    for (; result == 0 && cluster < end; cluster += q->cluster_size, entry += q->entry_size)
        result = link_cluster(img, r, cluster, entry, err);
    slices_dirty(&q->l2, slot);
    uint64_t *size = q->data_file ? &q->data_size : &q->file_size;
    *size = max_u64(*size, r->off + r->len);
    return result;
}

int qcow2_commit(struct image *img, const struct reservation *r, struct platter_error *err)
{
    int result = qcow2_enter(img, err);
    if (result < 0)
        return result;
    if (r->cookie[0] == QCOW2_ROOM_PACKED)
        result = qcow2_commit_packed(img, r, err);
    else
        result = commit_locked(img, r, err);
    qcow2_leave(img);
    return result;
}

void qcow2_abandon(struct image *img, const struct reservation *r)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t len = r->cookie[0] == QCOW2_ROOM_PACKED ? r->cookie[1] : r->len;
    uint64_t first = r->off >> q->cluster_bits, last = (r->off + len - 1) >> q->cluster_bits;

    /* Nothing ever pointed there, so the counts may go down at once; where that fails, clusters
     * leak. */
    if (r->cookie[0] == QCOW2_ROOM_IN_PLACE || q->data_file || qcow2_enter(img, NULL) < 0)
        return;
    qcow2_count_down(img, first, last - first + 1, false, NULL);
    qcow2_leave(img);
}
