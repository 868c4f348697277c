/* SPDX-License-Identifier: MIT */
/*
 * Another size, another backing file, no data. The header is one write inside of a sector, and all
 * that it names is durable before: so a crash leaves the old image or the new one, and at worst
 * bytes that nothing leads to.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow1/check.h"

/* ---- the L1 table ---------------------------------------------------------------------------- */

/* A copy of the L1 table with n entries, durably at the end of the file, in sectors of its own.
 * Token and lock held; drops it. */
static int copy_l1(struct image *img, uint32_t n, struct pointers *p, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    hoff off;

    int r = qcow1_flush_locked(img, err);
    if (r == 0)
        r = qcow1_take_room(img, n * UINT64_C(8), QCOW1_SECTOR, &off, err);
    if (r == 0)
        r = pointers_new(img, p, off, n, "the L1 table", err);
    if (r < 0)
        return r;
    pthread_mutex_unlock(&img->lock);
    r = stream_zero(img->stream, off, n * UINT64_C(8), STREAM_ZERO_UNMAP, err);
    pthread_mutex_lock(&img->lock);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < n && i < q->l1.n; i++)
        if (q->l1.entries[i])
            pointers_set(p, i, q->l1.entries[i]);
    r = pointers_write(img, p, err);
    if (r == 0)
        r = qcow1_barrier(img, err);
    q->file_size = max_u64(q->file_size, off + n * UINT64_C(8));
    return r;
}

/* What stands at [off, off + len) is nobody's any more. Lock held; drops it. */
static void wipe(struct image *img, hoff off, uint64_t len)
{
    pthread_mutex_unlock(&img->lock);
    if (len)
        stream_zero(img->stream, off, len, STREAM_ZERO_UNMAP, NULL);
    pthread_mutex_lock(&img->lock);
}

int qcow1_move_l1(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    struct qcow1_header h = q->header;
    struct pointers p = {0};

    int r = copy_l1(img, q->l1.n, &p, err);
    h.l1_offset = p.off;
    if (r == 0)
        r = qcow1_write_header(img, &h, err);
    if (r < 0) {
        pointers_free(img, &p);
        return r;
    }
    struct pointers old = q->l1;
    q->l1 = p;
    wipe(img, old.off, old.n * UINT64_C(8));
    pointers_free(img, &old);
    return 0;
}

/* ---- size ------------------------------------------------------------------------------------ */

static int check_request(const struct image *img, const struct resize_request *request,
                         struct platter_error *err)
{
    const struct qcow1 *q = qcow1_of(img);
    const char *name = img->stream->name;

    if (request->size % QCOW1_SECTOR)
        return fail(err, EINVAL, "%s: The new size must be a multiple of 512", name);
    if (request->preallocation != PLATTER_PREALLOCATION_OFF)
        return fail(err, ENOTSUP, "%s: the new space of a qcow image cannot be preallocated", name);
    if (qcow1_l1_entries(&q->header, request->size) * 8 > QCOW1_MAX_L1_BYTES)
        return fail(err, EFBIG,
                    "%s: a disk of %" PRIu64
                    " bytes is too large for its tables: this image can have %" PRIu64,
                    name, request->size,
                    (uint64_t)QCOW1_MAX_L1_BYTES / 8 << qcow1_l1_bits(&q->header));
    return 0;
}

/* The entries of clusters from guest offset `from` on, up to the end of their L2 table, say nothing
 * any more. Token and lock held; drops it. */
static int forget(struct image *img, goff from, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    struct slice *slice;
    uint8_t *entry;

    if ((from & ((UINT64_C(1) << q->l1_bits) - 1)) == 0)
        return 0;
    int r = qcow1_l2_get(img, from, &slice, &entry, err);
    if (r < 0 || !slice)
        return r;
    size_t len = (size_t)(slice->bytes + q->table_size - entry);
    if (is_zero(entry, len))
        return 0;
    memset(entry, 0, len);
    slices_dirty(&q->l2, slice);
    return 0;
}

/* L2 tables that map nothing in front of `size` are none any more. Token and lock held. */
static void forget_tables(struct qcow1 *q, uint64_t size)
{
    for (uint32_t i = (uint32_t)qcow1_l1_entries(&q->header, size); i < q->l1.n; i++)
        if (q->l1.entries[i])
            pointers_set(&q->l1, i, 0);
}

/* Room for the tables of the new size, which say nothing of it. *old gets the L1 table that the
 * header still names; entries NULL: it is long enough. Token and lock held; drops it. */
static int make_room(struct image *img, uint64_t size, struct pointers *old,
                     struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    uint32_t n = (uint32_t)qcow1_l1_entries(&q->header, size);
    struct pointers p = {0};

    int r = forget(img, round_up(img->size, q->cluster_size), err);
    if (r == 0)
        forget_tables(q, img->size); /* one, where the last bytes are no whole sector */
    if (r < 0 || n <= q->l1.n)
        return r;
    r = copy_l1(img, n, &p, err);
    if (r < 0) {
        pointers_free(img, &p);
        return r;
    }
    *old = q->l1;
    q->l1 = p;
    return 0;
}

/* Zeros where the new space would show something: in the rest of the last cluster, and where the
 * images below have data. */
static int hide(const struct image *img, const struct resize_request *request,
                struct platter_error *err)
{
    uint64_t from = img->size, to = min_u64(request->below, request->size);
    to = min_u64(round_up(max_u64(from, to), qcow1_of(img)->cluster_size), request->size);
    return to > from ? request->zero(request, from, to - from, err) : 0;
}

/* Token and lock held; drops it. */
static int set_size(struct image *img, uint64_t size, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    struct qcow1_header h = q->header;

    h.size = size;
    h.l1_offset = q->l1.off;
    int r = qcow1_flush_locked(img, err);
    if (r == 0)
        r = qcow1_barrier(img, err);
    if (r == 0)
        r = qcow1_write_header(img, &h, err);
    if (r == 0)
        atomic_store(&img->size, size);
    return r;
}

/* The header still names the old L1 table: what the new one has besides is lost room. */
static void take_back(struct image *img, struct pointers *old)
{
    struct qcow1 *q = qcow1_of(img);
    if (!old->entries)
        return;
    pthread_mutex_lock(&img->lock);
    pointers_free(img, &q->l1);
    q->l1 = *old;
    pthread_mutex_unlock(&img->lock);
}

static int grow(struct image *img, const struct resize_request *request, struct platter_error *err)
{
    struct pointers old = {0};

    int r = qcow1_enter(img, err);
    if (r < 0)
        return r;
    r = make_room(img, request->size, &old, err);
    qcow1_leave(img);
    if (r == 0)
        r = hide(img, request, err);
    if (r == 0 && (r = qcow1_enter(img, err)) == 0) {
        r = set_size(img, request->size, err);
        if (r == 0)
            wipe(img, old.off, old.n * UINT64_C(8));
        qcow1_leave(img);
    }
    if (r < 0)
        take_back(img, &old);
    else
        pointers_free(img, &old);
    return r;
}

/* The L1 table ends where the disk does now; where there is no memory for that it stays. */
static void cut_l1(struct image *img)
{
    struct qcow1 *q = qcow1_of(img);
    uint32_t n = (uint32_t)qcow1_l1_entries(&q->header, q->header.size);
    struct pointers p = {0};
    if (pointers_new(img, &p, q->l1.off, n, "the L1 table", NULL) < 0) {
        pointers_free(img, &p);
        return;
    }
    memcpy(p.entries, q->l1.entries, n * (size_t)8);
    pointers_free(img, &q->l1);
    q->l1 = p;
}

/* The file lets go of what was cut off. Token and lock held; drops it. */
static int give_back(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    hoff end = 0;
    cut_l1(img);
    pthread_mutex_unlock(&img->lock);
    int r = qcow1_give_back(img, &end, err);
    pthread_mutex_lock(&img->lock);
    if (r == 0)
        q->file_size = q->end = end;
    return r;
}

/* The entries of what was cut off go when the size is durable. */
static int shrink(struct image *img, uint64_t size, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);

    int r = qcow1_enter(img, err);
    if (r < 0)
        return r;
    r = set_size(img, size, err);
    if (r == 0)
        r = forget(img, round_up(size, q->cluster_size), err);
    if (r == 0) {
        forget_tables(q, size);
        r = qcow1_flush_locked(img, err);
    }
    if (r == 0)
        r = qcow1_barrier(img, err);
    if (r == 0) {
        q->n_tables = 0; /* all was looked at: other things may stand where one was */
        r = give_back(img, err);
    }
    qcow1_leave(img);
    return r;
}

int qcow1_resize(struct image *img, const struct resize_request *request, struct platter_error *err)
{
    int r = check_request(img, request, err);
    if (r < 0)
        return r;
    return request->size > img->size ? grow(img, request, err) : shrink(img, request->size, err);
}

/* ---- the backing file ------------------------------------------------------------------------ */

int qcow1_may_set_backing(struct image *img, const char *name, const char *format,
                          const struct image *backing, struct platter_error *err)
{
    (void)format, (void)backing;
    if (name && strlen(name) > QCOW1_MAX_NAME)
        return fail(err, EINVAL, "%s: the name of the backing file is longer than %d bytes",
                    img->stream->name, QCOW1_MAX_NAME);
    return 0;
}

/* Header and name in one write, where the name has room behind the header in its sector. Token and
 * lock held; drops it. */
static int write_beside_header(struct image *img, struct qcow1_header *h, const char *name,
                               struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    uint8_t sector[QCOW1_SECTOR] = {0};
    size_t len = QCOW1_HEADER + h->backing_size;

    h->backing_offset = QCOW1_HEADER;
    qcow1_header_encode(h, sector);
    memcpy(sector + QCOW1_HEADER, name, h->backing_size);
    int r = image_meta_write(img, sector, len, 0, err);
    if (r == 0)
        r = qcow1_barrier(img, err);
    if (r == 0)
        q->header = *h;
    return r;
}

/* ... and elsewhere: the name stands at the end of the file before the header leads there. */
static int write_behind(struct image *img, struct qcow1_header *h, const char *name,
                        struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);

    int r = qcow1_take_room(img, h->backing_size, 1, &h->backing_offset, err);
    if (r == 0)
        r = image_meta_write(img, name, h->backing_size, h->backing_offset, err);
    if (r == 0)
        r = qcow1_barrier(img, err);
    q->file_size = max_u64(q->file_size, q->end);
    return r < 0 ? r : qcow1_write_header(img, h, err);
}

/* Token and lock held; drops it. */
static int write_name(struct image *img, const char *name, struct platter_error *err)
{
    const struct qcow1 *q = qcow1_of(img);
    const struct qcow1_header old = q->header;
    struct qcow1_header h = old;
    uint64_t room = min_u64(QCOW1_SECTOR, min_u64(q->first, q->l1.off));
    int r;

    h.backing_offset = 0;
    h.backing_size = name ? (uint32_t)strlen(name) : 0;
    if (!name)
        r = qcow1_write_header(img, &h, err);
    else if (QCOW1_HEADER + h.backing_size <= room)
        r = write_beside_header(img, &h, name, err);
    else
        r = write_behind(img, &h, name, err);
    if (r < 0 || old.backing_offset == 0)
        return r;
    /* What is left of the old name. */
    hoff from = old.backing_offset, end = from + old.backing_size;
    if (h.backing_offset == from)
        from += h.backing_size;
    if (from < end)
        wipe(img, from, end - from);
    return 0;
}

int qcow1_set_backing(struct image *img, const char *name, const char *format,
                      const struct image *backing, struct platter_error *err)
{
    auto_free char *copy = string_copy(name);
    int r = qcow1_may_set_backing(img, name, format, backing, err);
    if (r == 0 && name && !copy)
        r = fail_memory(err, "the backing file's name");
    if (r == 0)
        r = qcow1_enter(img, err);
    if (r < 0)
        return r;
    r = qcow1_flush_locked(img, err); /* what was copied for it is durable before */
    if (r == 0)
        r = qcow1_barrier(img, err);
    if (r == 0)
        r = write_name(img, name, err);
    if (r == 0) {
        free(img->backing_name);
        img->backing_name = TAKE(copy);
        img->has_backing = name != NULL;
    }
    qcow1_leave(img);
    return r;
}

/* ---- no data --------------------------------------------------------------------------------- */

/* A name that stood behind the data follows the L1 table, for the file to be cut there. Token and
 * lock held; drops it. */
static int pull_name(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    struct qcow1_header h = q->header;
    hoff to = q->l1.off + q->l1.n * UINT64_C(8);

    if (h.backing_offset < to + h.backing_size) /* where it is told from its copy */
        return 0;
    q->end = to;
    return write_behind(img, &h, img->backing_name, err);
}

/* The file is cut behind what is left in it. Lock held; drops it. */
static int cut_file(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    const struct qcow1_header *h = &q->header;
    hoff name_end = h->backing_offset ? h->backing_offset + h->backing_size : QCOW1_HEADER;
    hoff end = max_u64(name_end, q->l1.off + q->l1.n * UINT64_C(8));
    hoff gap = h->backing_offset < q->l1.off ? name_end : QCOW1_HEADER;

    pthread_mutex_unlock(&img->lock);
    int r = stream_resize(img->stream, end, err);
    if (r == 0 && gap < q->l1.off) /* an L1 table that was moved */
        r = stream_discard(img->stream, gap, q->l1.off - gap, err);
    if (r == 0)
        r = stream_flush(img->stream, err);
    pthread_mutex_lock(&img->lock);
    if (r < 0)
        return image_poison(img, r);
    q->file_size = q->end = end;
    q->first = UINT64_MAX;
    return 0;
}

int qcow1_make_empty(struct image *img, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);

    int r = qcow1_enter(img, err);
    if (r < 0)
        return r;
    r = qcow1_flush_locked(img, err);
    for (uint32_t i = 0; r == 0 && i < q->l1.n; i++) {
        if (q->l1.entries[i] == 0)
            continue;
        slices_forget(img, &q->l2, q->l1.entries[i]);
        pointers_set(&q->l1, i, 0);
    }
    if (r == 0)
        r = pointers_write(img, &q->l1, err);
    if (r == 0)
        r = qcow1_barrier(img, err);
    q->n_tables = r < 0 ? q->n_tables : 0;
    if (r == 0)
        r = pull_name(img, err);
    if (r == 0)
        r = cut_file(img, err);
    qcow1_leave(img);
    return r;
}
