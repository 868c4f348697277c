/* SPDX-License-Identifier: MIT */
/*
 * The token of changes, and the order in which they reach the disk (rule 2, section 10):
 *
 *   data | L2 tables | L1 table
 *
 * with a barrier (|) wherever something on the right is to be written. So a crash leaves room at
 * the end of the file that nothing leads to, and nothing worse.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow1/qcow1.h"

int qcow1_barrier(struct image *img, struct platter_error *err)
{
    if (!img->ordered)
        return 0;
    pthread_mutex_unlock(&img->lock);
    int r = stream_flush(img->stream, err);
    pthread_mutex_lock(&img->lock);
    return r < 0 ? image_poison(img, r) : 0;
}

int qcow1_flush_locked(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);

    if (q->l2.n_dirty == 0 && !q->l1.any_dirty)
        return 0;
    int r = qcow1_barrier(img, err);
    if (r == 0)
        r = slices_write(img, &q->l2, err);
    if (r == 0 && q->l1.any_dirty)
        r = qcow1_barrier(img, err);
    return r < 0 ? r : pointers_write(img, &q->l1, err);
}

int qcow1_flush(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);

    pthread_mutex_lock(&img->lock);
    bool prepared = q->prepared;
    pthread_mutex_unlock(&img->lock);
    int r = 0;
    if (!prepared) { /* no table has changed */
        r = img->ordered ? stream_flush(img->stream, err) : 0;
        return r < 0 ? image_poison(img, r) : 0;
    }
    r = qcow1_enter(img, err);
    if (r < 0)
        return r;
    r = qcow1_flush_locked(img, err);
    if (r == 0)
        r = qcow1_barrier(img, err);
    qcow1_leave(img);
    return r;
}

int qcow1_write_header(struct image *img, const struct qcow1_header *h, struct platter_error *err)
{
    uint8_t bytes[QCOW1_HEADER];

    qcow1_header_encode(h, bytes);
    int r = image_meta_write(img, bytes, sizeof bytes, 0, err);
    if (r == 0)
        r = qcow1_barrier(img, err);
    if (r == 0)
        qcow1_of(img)->header = *h;
    return r;
}

/* ---- before the first change ------------------------------------------------------------------
 */

/* Whether a table stands in a hole of the file. Lock held; drops it. */
static int is_hole(struct image *img, hoff table, bool *ret, struct platter_error *err)
{
    uint64_t size = qcow1_of(img)->table_size, len;
    pthread_mutex_unlock(&img->lock);
    int r = stream_extents(img->stream, table, size, &len, ret, err);
    pthread_mutex_lock(&img->lock);
    *ret = r == 0 && *ret && len == size;
    return r;
}

/* Looks at all entries of a table: what they lead to must be there. */
static int look_at_table(struct image *img, goff guest, hoff table, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    struct slice *slice;
    struct qcow1_entry e;
    bool hole;

    int r = is_hole(img, table, &hole, err);
    if (r < 0 || hole)
        return r;
    for (uint32_t i = 0; r == 0 && i < q->table_size; i += 8, guest += q->cluster_size) {
        /* What is behind the end of the disk is nobody's. */
        if (guest >= q->header.size)
            break;
        r = slices_get(img, &q->l2, table, &slice, err);
        if (r == 0)
            r = qcow1_entry_decode(img, get_be(slice->bytes + i, 8), guest, &e, err);
        if (r == 0)
            r = qcow1_check_there(img, guest, &e, err);
        if (r < 0 || e.kind == EXTENT_BACKING)
            continue;
        uint64_t len = e.kind == EXTENT_PACKED ? e.packed_len : q->cluster_size;
        q->end = max_u64(q->end, e.off + len);
        q->first = min_u64(q->first, e.off);
    }
    return r;
}

/* A file that was cut lacks what its entries lead to. Once it has grown again, nobody could tell
 * what stands there from data: so all tables are looked at before anything is appended. */
static int look_at_tables(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    hoff table;
    int r = 0;

    q->end = q->file_size;
    q->first = UINT64_MAX;
    for (uint32_t i = 0; r == 0 && i < q->l1.n; i++) {
        goff guest = (goff)i << q->l1_bits;
        r = qcow1_l2_find(img, guest, &table, err);
        if (r < 0 || table == 0)
            continue;
        q->first = min_u64(q->first, table);
        r = look_at_table(img, guest, table, err);
    }
    if (r == 0 && q->end > QCOW1_MAX_OFFSET)
        r = fail(err, EFBIG, "%s: has no room for more: it ends at byte %" PRIu64,
                 img->stream->name, q->end);
    return r;
}

/* A cluster that the end of the file cuts, behind the end of the disk, becomes whole: that end may
 * move. */
static int fill_file(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    if (q->end <= q->file_size)
        return 0;
    pthread_mutex_unlock(&img->lock);
    int r = stream_resize(img->stream, q->end, err);
    pthread_mutex_lock(&img->lock);
    if (r == 0)
        q->file_size = q->end;
    return r;
}

/* Token and lock held; drops it. */
static int prepare(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    int r = look_at_tables(img, err);
    if (r < 0)
        return fail_in(err, r, "cannot be changed (see check)");
    r = fill_file(img, err);
    /* An entry of it that two sectors share could be torn by a crash. */
    if (r == 0 && q->l1.off % 8)
        r = qcow1_move_l1(img, err);
    q->prepared = r == 0;
    return r;
}

/* ---- the token ------------------------------------------------------------------------------- */

int qcow1_enter(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    int r = 0;

    pthread_mutex_lock(&img->lock);
    while (q->busy)
        pthread_cond_wait(&q->changed, &img->lock);
    q->busy = true;
    int poison = atomic_load(&img->poison);
    if (poison < 0)
        r = fail(err, -poison, "%s: takes no more changes: writing its tables failed before",
                 img->stream->name);
    if (r == 0 && !q->prepared)
        r = prepare(img, err);
    if (r == 0 && slices_full(&q->l2))
        r = qcow1_flush_locked(img, err);
    if (r < 0)
        qcow1_leave(img);
    return r;
}

void qcow1_leave(struct image *img)
{
    struct qcow1 *q = qcow1_of(img);
    q->busy = false;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&img->lock);
}
