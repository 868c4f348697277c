/* SPDX-License-Identifier: MIT */
/*
 * Another size (section 11). All that a larger disk needs is there, durably, before its size is; a
 * smaller one has its size first, and what lies behind its end is given back then. So a crash
 * leaves the old size or the new one, and at worst tables that still name what is behind the end:
 * growing clears them away, as it does the state of a machine that stood there (section 10).
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/qcow2.h"

enum { SIZE_AT = 24, L1_AT = 36 };

/* ---- the L1 table ------------------------------------------------------------------------------
 */

/* A copy of the L1 table with n entries, complete in the file, where the counts for it are as well.
 */
static int copy_l1(struct image *img, uint32_t n, struct pointers *p, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    hoff off = 0;

    uint64_t clusters = div_up(n * UINT64_C(8), q->cluster_size);
    int r = qcow2_alloc_table(img, clusters, &off, err);
    if (r < 0)
        return r;
    r = qcow2_flush_locked(img, err);
    if (r == 0)
        r = pointers_new(img, p, off, n, "the L1 table", err);
    if (r < 0) {
        if (atomic_load(&img->poison) == 0)
            qcow2_count_down(img, off >> q->cluster_bits, clusters, false, NULL);
        return r;
    }
    for (uint32_t i = 0; i < n; i++)
        pointers_set(p, i, i < q->l1.n ? q->l1.entries[i] : 0);
    r = pointers_write(img, p, err);
    q->file_size = max_u64(q->file_size, off + n * UINT64_C(8));
    return r < 0 ? r : qcow2_barrier(img, err);
}

int qcow2_l1_grow(struct image *img, uint32_t n, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct pointers p = {0};
    uint64_t old_clusters = div_up(q->header.l1_size * UINT64_C(8), q->cluster_size);
    hoff old = q->header.l1_offset;
    uint8_t field[12];

    if (n <= q->l1.n)
        return 0;
    int r = copy_l1(img, n, &p, err);
    put_be(field, 4, n);
    put_be(field + 4, 8, p.off);
    if (r == 0)
        r = image_meta_write(img, field, sizeof field, L1_AT, err);
    if (r == 0)
        r = qcow2_barrier(img, err);
    if (r < 0) {
        pointers_free(img, &p);
        return r;
    }
    pointers_free(img, &q->l1);
    q->l1 = p;
    q->header.l1_size = n;
    q->header.l1_offset = p.off;
    return old_clusters ? qcow2_count_down(img, old >> q->cluster_bits, old_clusters, false, err)
                        : 0;
}

/* ---- what both do ------------------------------------------------------------------------------
 */

static int check_request(const struct image *img, const struct resize_request *request,
                         struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    const char *name = img->stream->name;

    if (request->size % 512)
        return fail(err, EINVAL, "%s: The new size must be a multiple of 512", name);
    if (q->header.version < 3 && q->header.n_snapshots)
        return fail(err, ENOTSUP,
                    "%s: Can't resize a v2 image which has snapshots: they would not know their "
                    "own size (amend -o compat=1.1 makes it version 3)",
                    name);
    if (q->header.version < 3 && img->sealed && request->preallocation != PLATTER_PREALLOCATION_OFF)
        return fail(err, ENOTSUP,
                    "%s: is encrypted, and of version 2, which has no way to say that what nobody "
                    "wrote to a place are zeros: its new space cannot be preallocated (amend -o "
                    "compat=1.1 makes it version 3)",
                    name);
    if (request->size > QCOW2_MAX_SIZE ||
        div_up(request->size, UINT64_C(1) << q->l1_bits) * 8 > QCOW2_MAX_L1_BYTES)
        return fail(err, EFBIG,
                    "%s: a disk of %" PRIu64
                    " bytes is too large for qcow2 with clusters of %" PRIu64 " bytes",
                    name, request->size, q->cluster_size);
    return qcow2_bitmaps_check_resize(img, request->size, err);
}

/* The one write that makes it another size; what it needs is durable before. Lock held; drops it.
 */
static int set_size(struct image *img, uint64_t size, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint8_t field[8];

    put_be(field, 8, size);
    int r = qcow2_flush_locked(img, err);
    if (r == 0)
        r = qcow2_barrier(img, err);
    if (r == 0)
        r = qcow2_bitmaps_resize(img, size, err);
    if (r == 0)
        r = image_meta_write(img, field, sizeof field, SIZE_AT, err);
    if (r == 0)
        r = qcow2_barrier(img, err);
    if (r < 0)
        return r;
    q->header.size = size;
    atomic_store(&img->size, size);
    return 0;
}

static int resize_data_file(struct image *img, uint64_t size, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t now = 0;

    if (!q->data_file)
        return 0;
    pthread_mutex_unlock(&img->lock);
    int r = stream_size(q->data, &now, err);
    if (r == 0 && now > img->size && size > img->size) /* what nobody saw must not show */
        r = stream_zero(q->data, img->size, now - img->size, STREAM_ZERO_UNMAP, err);
    if (r == 0)
        r = stream_resize(q->data, size, err);
    pthread_mutex_lock(&img->lock);
    if (r == 0)
        q->data_size = size;
    return r;
}

/* Gives back all that is stored behind a disk of this size, a machine's state too. */
static int cut_off(struct image *img, uint64_t size, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    uint32_t tables = (uint32_t)div_up(size, UINT64_C(1) << q->l1_bits);

    int r = qcow2_l1_cut(img, tables, err);
    if (r == 0)
        r = qcow2_forget(img, round_up(size, q->cluster_size), (goff)tables << q->l1_bits, err);
    return r < 0 ? r : qcow2_flush_locked(img, err);
}

/* ---- growing -----------------------------------------------------------------------------------
 */

/* The last cluster, if it is used, is all there: what is behind the end of the disk may be left out
 * of the file, but that end moves. (One that a device has only a part of is not used.) Lock held;
 * drops it. */
static int fill_file(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t size = 0, whole = 0, count = 0;

    pthread_mutex_unlock(&img->lock);
    int r = stream_size(img->stream, &size, err);
    pthread_mutex_lock(&img->lock);
    whole = round_up(size, q->cluster_size);
    if (r == 0 && size < whole)
        r = qcow2_count_read(img, size >> q->cluster_bits, &count, err);
    if (r < 0 || count == 0)
        return r;
    pthread_mutex_unlock(&img->lock);
    r = stream_resize(img->stream, whole, err);
    pthread_mutex_lock(&img->lock);
    if (r == 0)
        q->file_size = max_u64(q->file_size, whole);
    return r;
}

/* Tables for the new space that say nothing. */
static int make_room(struct image *img, uint64_t size, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    int r = qcow2_l1_grow(img, (uint32_t)div_up(size, UINT64_C(1) << q->l1_bits), err);

    if (r == 0)
        r = qcow2_forget(img, round_up(img->size, q->cluster_size), (goff)q->l1.n << q->l1_bits,
                         err);
    if (r == 0)
        r = qcow2_flush_locked(img, err);
    if (r == 0)
        r = resize_data_file(img, size, err);
    return r < 0 || q->data_file ? r : fill_file(img, err);
}

/* Zeros where the new space would show something: in the rest of the last cluster, and where the
 * images below have data. */
static int hide(const struct image *img, const struct resize_request *request,
                struct platter_error *err)
{
    uint64_t from = img->size, to = min_u64(request->below, request->size);
    to = min_u64(round_up(max_u64(from, to), qcow2_of(img)->cluster_size), request->size);
    return to > from ? request->zero(request, from, to - from, err) : 0;
}

/* Makes [off, off + len) of s read as zeros that take the space which was asked for. */
static int fill(struct stream *s, hoff off, uint64_t len, enum platter_preallocation how,
                struct platter_error *err)
{
    static const uint8_t zeros[64 << 10];
    /* Clusters that were somebody's before are cleared, not only reserved. */
    int r = stream_zero(s, off, len, how <= PLATTER_PREALLOCATION_METADATA ? STREAM_ZERO_UNMAP : 0,
                        err);
    if (r == 0 && how == PLATTER_PREALLOCATION_FALLOC)
        r = stream_allocate(s, off, len, err);
    while (r == 0 && how == PLATTER_PREALLOCATION_FULL && len > 0) {
        uint64_t n = min_u64(len, sizeof zeros);
        r = stream_pwrite(s, zeros, n, off, err);
        off += n;
        len -= n;
    }
    return r;
}

/* Fills room in the new space, of a data file what belongs to the disk, and enters it. */
static int preallocate_room(struct image *img, const struct resize_request *request,
                            const struct reservation *room, struct platter_error *err)
{
    goff end = room->start + room->len;
    int r = 0;

    if (qcow2_of(img)->data_file)
        end = min_u64(end, request->size);
    if (end > room->start)
        r = fill(room->stream, room->off, end - room->start, request->preallocation, err);
    if (r < 0) {
        qcow2_abandon(img, room);
        return r;
    }
    r = qcow2_commit(img, room, err);
    /* What nobody encrypted is no zeros: the entries say that they are. */
    if (r == 0 && img->sealed)
        r = qcow2_mark(img, room->start, room->len, MARK_ZERO, false, err);
    return r;
}

/* Gives all clusters of the new space a place that reads as zeros, those of a data file the only
 * one they can have. */
static int preallocate(struct image *img, const struct resize_request *request,
                       struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    enum { STEP = 64 << 20 };
    goff off = round_up(img->size, q->cluster_size), end = round_up(request->size, q->cluster_size);
    struct reservation room = {0};
    int r = 0;

    if (request->preallocation == PLATTER_PREALLOCATION_OFF && !q->data_raw)
        return 0;
    for (; off < end && r == 0; off = room.start + room.len) {
        r = qcow2_reserve(img, off, min_u64(end - off, STEP), &room, err);
        if (r == 0)
            r = preallocate_room(img, request, &room, err);
    }
    return r;
}

/* Takes and drops the token for a part of the work: nobody else changes anything meanwhile. */
static int grow_step(struct image *img, uint64_t size,
                     int (*step)(struct image *, uint64_t, struct platter_error *),
                     struct platter_error *err)
{
    int r = qcow2_enter(img, err);
    if (r < 0)
        return r;
    r = step(img, size, err);
    qcow2_leave(img);
    return r;
}

/* Nobody sees what was taken for a size that the disk did not get: its space is given back. The
 * data file had `data_size` bytes. */
static int take_back(struct image *img, uint64_t data_size, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);

    int r = cut_off(img, img->size, err);
    if (r == 0 && q->data_file && q->data_size > data_size) {
        pthread_mutex_unlock(&img->lock);
        r = stream_resize(q->data, data_size, err);
        pthread_mutex_lock(&img->lock);
        q->data_size = r < 0 ? q->data_size : data_size;
    }
    return r < 0 ? r : qcow2_trim(img, err);
}

static int grow(struct image *img, const struct resize_request *request, struct platter_error *err)
{
    uint64_t data_size = qcow2_of(img)->data_size;

    int r = grow_step(img, request->size, make_room, err);
    if (r < 0)
        return r;
    r = hide(img, request, err);
    if (r == 0)
        r = preallocate(img, request, err);
    if (r == 0)
        r = grow_step(img, request->size, set_size, err);
    if (r < 0 && atomic_load(&img->poison) == 0)
        grow_step(img, data_size, take_back, NULL);
    return r;
}

/* ---- shrinking ---------------------------------------------------------------------------------
 */

static int shrink(struct image *img, uint64_t size, struct platter_error *err)
{
    int r = set_size(img, size, err);
    if (r == 0)
        r = cut_off(img, size, err);
    if (r == 0)
        r = resize_data_file(img, size, err);
    return r < 0 ? r : qcow2_trim(img, err);
}

int qcow2_resize(struct image *img, const struct resize_request *request, struct platter_error *err)
{
    int r = check_request(img, request, err);
    if (r < 0)
        return r;
    return request->size > img->size ? grow(img, request, err)
                                     : grow_step(img, request->size, shrink, err);
}
