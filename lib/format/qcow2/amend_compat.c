/* SPDX-License-Identifier: MIT */
/*
 * From version 2 to version 3 and back (section 14). Version 2 knows no clusters that read as zeros
 * by themselves: in all tables, those of snapshots too, they become clusters nobody stores, or,
 * over a backing file, stored zeros. Every entry reads the same before and after, so it may end
 * anywhere.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/qcow2/amend.h"
#include "format/qcow2/snapshot.h"

int qcow2_amend_upgrade(struct image *img, struct platter_error *err)
{
    uint32_t n = qcow2_of(img)->header.n_snapshots;
    struct qcow2_snapshot *list;

    if (n == 0)
        return 0;
    /* Written anew each of them tells the size of its disk. */
    int r = qcow2_snapshots_copy(img, n, &list, err);
    if (r < 0)
        return r;
    r = qcow2_snapshots_write(img, &list, n, err);
    budget_free(img->budget, list, n * sizeof *list);
    return r;
}

/* ---- what version 2 cannot have ----------------------------------------------------------------
 */

int qcow2_amend_check_downgrade(const struct image *img, bool force, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    bool bitmaps = q->extensions.has_bitmaps && q->header.autoclear & QCOW2_AUTOCLEAR_BITMAPS;
    const char *why = NULL;

    if (q->data_file)
        why = "with a data file";
    else if (q->header.incompatible & QCOW2_INCOMPATIBLE_EXTENDED_L2)
        why = "with extended L2 entries (incompatible features 0x10 set)";
    else if (bitmaps && !force)
        why = "with dirty bitmaps, which would be lost: remove them first, or use --force";
    for (uint32_t i = 0; !why && i < q->header.n_snapshots; i++)
        if (q->snapshots[i].disk_size != q->header.size)
            why = "with a snapshot of another size";
        else if (q->snapshots[i].vm_state_size > UINT32_MAX)
            why = "with a snapshot of a machine whose state has 4 GiB or more";
    if (!why)
        return 0;
    return fail(err, ENOTSUP, "%s: Cannot downgrade an image %s", img->stream->name, why);
}

/* ---- all tables --------------------------------------------------------------------------------
 */

/* A walk over the L2 tables of the disk and its snapshots. */
struct expansion {
    struct image *img;
    const struct amend_request *request;
    bool look;            /* only look whether all can be expanded */
    uint64_t done, total; /* L1 entries */
};

/* A cluster at `off` that reads as zeros at guest offset `guest`. Lock held; drops it. */
static int write_zeros(struct image *img, hoff off, goff guest, struct platter_error *err)
{
    const uint64_t cluster = qcow2_of(img)->cluster_size;
    uint8_t bytes[4096];
    int r = 0;

    pthread_mutex_unlock(&img->lock);
    if (!img->sealed)
        r = stream_zero(img->stream, off, cluster, 0, err);
    for (uint64_t at = 0, n; img->sealed && at < cluster && r == 0; at += n) {
        n = min_u64(cluster - at, sizeof bytes);
        memset(bytes, 0, n);
        qcow2_crypt(img, true, bytes, bytes, n, guest + at, off + at);
        r = stream_pwrite(img->stream, bytes, n, off + at, err);
    }
    pthread_mutex_lock(&img->lock);
    return r;
}

/* What the entry of `guest` that reads as zeros becomes, for each of the `count` paths to it. */
static int expand_entry(struct image *img, uint64_t count, goff guest, struct qcow2_entry *e,
                        struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    struct qcow2_entry now = {0};
    uint64_t n;

    if (img->has_backing) {
        int r = qcow2_alloc(img, 1, &now.off, &n, err);
        if (r == 0 && count > 1)
            r = qcow2_count_up(img, now.off >> q->cluster_bits, count - 1, err);
        if (r == 0)
            r = write_zeros(img, now.off, guest, err);
        if (r < 0)
            return r;
        now.has_place = true;
        now.copied = count == 1;
        now.alloc = 1;
    }
    *e = now;
    return 0;
}

/* The entry at `at` in the table at `table`. */
static int expand_at(struct expansion *x, hoff table, uint64_t at, uint64_t count, goff guest,
                     struct platter_error *err)
{
    struct image *img = x->img;
    struct qcow2 *q = qcow2_of(img);
    hoff slice = round_down(at, q->l2.slice);
    struct slice *slot;
    struct qcow2_entry old, e;

    int r = slices_get(img, &q->l2, table + slice, &slot, err);
    if (r == 0)
        r = qcow2_entry_decode(img, slot->bytes + (at - slice), guest, &old, err);
    if (r == 0 && old.packed && q->header.compression != QCOW2_DEFLATE)
        r = fail(err, ENOTSUP, "%s: Cannot downgrade an image with clusters that zstd compressed",
                 img->stream->name);
    if (r < 0 || old.packed || !old.zero || x->look)
        return r;
    e = old;
    r = qcow2_free_room(img, (uint32_t)min_u64(count, UINT32_MAX), err);
    if (r == 0)
        r = expand_entry(img, count, guest, &e, err);
    if (r == 0)
        r = slices_get(img, &q->l2, table + slice, &slot, err);
    if (r < 0)
        return r;
    qcow2_entry_encode(img, slot->bytes + (at - slice), &e);
    slices_dirty(&q->l2, slot);
    for (uint64_t i = 0; i < count && old.has_place; i++)
        qcow2_free_entry(img, &old, true);
    if (slices_full(&q->l2) || q->n_frees >= QCOW2_MAX_FREES)
        r = qcow2_flush_locked(img, err);
    return r;
}

static int expand_table(struct expansion *x, hoff table, goff guest, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(x->img);
    uint64_t count;

    int r = qcow2_count_read(x->img, table >> q->cluster_bits, &count, err);
    if (r == 0 && count == 0)
        r = fail(err, PLATTER_ECORRUPT,
                 "%s: the L2 table at %" PRIu64
                 " is in use, but has a reference count of 0: the image must be repaired",
                 x->img->stream->name, table);
    /* The disk and each snapshot refer to it once at most; what is counted beyond that is leaked.
     */
    count = min_u64(count, UINT64_C(1) + q->header.n_snapshots);
    for (uint64_t at = 0; at < q->cluster_size && r == 0; at += q->entry_size)
        r = expand_at(x, table, at, count, guest + at / q->entry_size * q->cluster_size, err);
    return r;
}

static int tell(struct expansion *x, struct platter_error *err)
{
    struct platter_progress now = {.size = sizeof now, .done = x->done, .total = x->total};
    int stop = 0;

    if (x->look || !x->request->progress || x->done % 64)
        return 0;
    pthread_mutex_unlock(&x->img->lock);
    stop = x->request->progress(x->request->opaque, &now);
    pthread_mutex_lock(&x->img->lock);
    return stop ? fail(err, ECANCELED, "%s: cancelled", x->img->stream->name) : 0;
}

static int expand_tree(struct expansion *x, struct qcow2_tree t, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(x->img);
    uint64_t most = div_up(q->file_size, q->cluster_size), tables = 0;
    int r = 0;

    for (uint32_t i = 0; i < t.n && r == 0; i++, x->done++) {
        hoff table = 0;
        r = tell(x, err);
        if (r == 0)
            r = qcow2_tree_table(x->img, &t, i, &table, err);
        if (r == 0 && table && ++tables > most)
            r = fail(err, PLATTER_ECORRUPT,
                     "%s: an L1 table at %" PRIu64 " names more L2 tables than the file has room "
                     "for: several entries share one",
                     x->img->stream->name, t.off);
        if (r == 0 && table)
            r = expand_table(x, table, (goff)i << q->l1_bits, err);
    }
    return r;
}

static int expand_all(struct expansion *x, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(x->img);

    int r = expand_tree(x, qcow2_tree_of(&q->l1), err);
    for (uint32_t i = 0; i < q->header.n_snapshots && r == 0; i++) {
        r = qcow2_snapshot_check(x->img, &q->snapshots[i], err);
        if (r == 0)
            r = expand_tree(x, qcow2_tree_of_snapshot(&q->snapshots[i]), err);
    }
    return r;
}

int qcow2_amend_check_packed(struct image *img, struct platter_error *err)
{
    struct expansion x = {.img = img, .look = true};
    return qcow2_of(img)->header.compression != QCOW2_DEFLATE ? expand_all(&x, err) : 0;
}

int qcow2_amend_downgrade(struct image *img, const struct amend_request *request,
                          struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    struct expansion x = {.img = img, .request = request, .total = q->l1.n};

    for (uint32_t i = 0; i < q->header.n_snapshots; i++)
        x.total += q->snapshots[i].l1_size;
    int r = expand_all(&x, err);
    return r < 0 ? r : qcow2_flush_locked(img, err);
}
