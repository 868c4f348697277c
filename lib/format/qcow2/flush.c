/* SPDX-License-Identifier: MIT */
/*
 * The token of changes, and the order in which they reach the disk (rules 2 and 3, section 7):
 *
 *   data and refcount blocks | refcount table | L2 tables | L1 table | frees
 *
 * with a barrier (|) wherever something on the right is to be written. What stands on the left is
 * needed by what stands on the right; so after a crash nothing points at what is not there, and at
 * worst clusters are counted that nobody uses. Frees come last: only when no table on the disk
 * refers to a cluster does its count go down.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/qcow2.h"

enum { INCOMPATIBLE_AT = 72, AUTOCLEAR_AT = 88 };

int qcow2_barrier(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    int r = 0;

    if (!img->ordered)
        return 0;
    pthread_mutex_unlock(&img->lock);
    if (q->data != img->stream)
        r = stream_flush(q->data, err);
    if (r == 0)
        r = stream_flush(img->stream, err);
    pthread_mutex_lock(&img->lock);
    return r < 0 ? image_poison(img, r) : 0;
}

int qcow2_mark_corrupt(struct image *img, hoff off, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint8_t field[8];

    if (q->header.version >= 3) {
        q->header.incompatible |= QCOW2_INCOMPATIBLE_CORRUPT;
        put_be(field, 8, q->header.incompatible);
        image_meta_write(img, field, sizeof field, INCOMPATIBLE_AT, NULL);
    }
    image_poison(img, -PLATTER_ECORRUPT);
    return fail(err, PLATTER_ECORRUPT,
                "%s: the cluster at %" PRIu64 " counts as free, but a table of the image stands "
                "there: the image is damaged and takes no more writes until it is repaired",
                img->stream->name, off);
}

/* Before the first change: feature bits that say what we do not keep true are cleared for good
 * (section 7). */
static int clear_features(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t keep = q->header.autoclear & (QCOW2_AUTOCLEAR_RAW | qcow2_bitmaps_feature(img));
    uint8_t field[8];

    if (keep == q->header.autoclear)
        return 0;
    put_be(field, 8, keep);
    int r = image_meta_write(img, field, sizeof field, AUTOCLEAR_AT, err);
    if (r == 0)
        r = qcow2_barrier(img, err);
    if (r < 0)
        return r;
    q->header.autoclear = keep;
    return 0;
}

/* Before the first change of what a guest sees: bitmaps record from here on. */
static int prepare(struct image *img, struct platter_error *err)
{
    int r = clear_features(img, err);
    if (r == 0)
        r = qcow2_bitmaps_begin(img, err);
    if (r == 0)
        qcow2_of(img)->prepared = true;
    return r;
}

void qcow2_token_take(struct image *img)
{
    struct qcow2 *q = qcow2_of(img);

    pthread_mutex_lock(&img->lock);
    while (q->busy)
        pthread_cond_wait(&q->changed, &img->lock);
    q->busy = true;
}

/* `quietly`: no guest will see the change. */
static int enter(struct image *img, bool quietly, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    int r = 0;

    qcow2_token_take(img);
    int poison = atomic_load(&img->poison);
    if (poison < 0)
        r = fail(err, -poison, "%s: takes no more changes: writing its tables failed before",
                 img->stream->name);
    if (r == 0 && !q->prepared)
        r = quietly ? clear_features(img, err) : prepare(img, err);
    if (r == 0 && (slices_full(&q->l2) || slices_full(&q->blocks) || q->n_frees >= QCOW2_MAX_FREES))
        r = qcow2_flush_locked(img, err);
    if (r < 0)
        qcow2_leave(img);
    return r;
}

int qcow2_enter(struct image *img, struct platter_error *err)
{
    return enter(img, false, err);
}

int qcow2_enter_quietly(struct image *img, struct platter_error *err)
{
    return enter(img, true, err);
}

void qcow2_leave(struct image *img)
{
    struct qcow2 *q = qcow2_of(img);
    q->busy = false;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&img->lock);
}

/* Refcount blocks, then the entries that point at them. */
static int flush_counts(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);

    int r = slices_write(img, &q->blocks, err);
    if (r == 0 && (q->reftable.any_dirty || q->l2.n_dirty || q->l1.any_dirty))
        r = qcow2_barrier(img, err);
    if (r < 0 || !q->reftable.any_dirty)
        return r;
    r = pointers_write(img, &q->reftable, err);
    if (r == 0 && (q->l2.n_dirty || q->l1.any_dirty))
        r = qcow2_barrier(img, err);
    return r;
}

/* L2 tables, then the entries that point at them. */
static int flush_map(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);

    int r = slices_write(img, &q->l2, err);
    if (r == 0 && q->l1.any_dirty)
        r = qcow2_barrier(img, err);
    if (r == 0)
        r = pointers_write(img, &q->l1, err);
    return r;
}

int qcow2_flush_locked(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);

    int r = flush_counts(img, err);
    if (r == 0)
        r = flush_map(img, err);
    if (r < 0 || q->n_frees == 0)
        return r;
    r = qcow2_barrier(img, err);
    if (r == 0)
        r = qcow2_free_all(img, err);
    if (r == 0)
        r = slices_write(img, &q->blocks, err);
    return r;
}

/* Before the first change there is nothing to flush, and no reason for one; but that of a snapshot,
 * say, is none that a guest sees. */
static bool is_untouched(struct image *img)
{
    const struct qcow2 *q = qcow2_of(img);
    WITH_LOCK(&img->lock);
    return !q->prepared && q->blocks.n_dirty == 0 && q->l2.n_dirty == 0 && q->n_frees == 0 &&
           !q->reftable.any_dirty && !q->l1.any_dirty;
}

int qcow2_flush(struct image *img, struct platter_error *err)
{
    if (is_untouched(img))
        return 0;
    int r = qcow2_enter_quietly(img, err);
    if (r < 0)
        return r;
    r = qcow2_flush_locked(img, err);
    if (r == 0)
        r = qcow2_barrier(img, err);
    qcow2_leave(img);
    return r;
}
