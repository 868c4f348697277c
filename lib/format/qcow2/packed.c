/* SPDX-License-Identifier: MIT */
/*
 * Compressed clusters (section 5). Records are laid one behind the other: a cursor remembers where
 * the last one ended inside its cluster. Every record counts once in each host cluster it touches.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/codec.h"
#include "format/qcow2/qcow2.h"

static enum codec codec_of(const struct image *img)
{
    return qcow2_of(img)->header.compression == QCOW2_ZSTD ? CODEC_ZSTD : CODEC_DEFLATE;
}

/* The end of the file may cut off a record's last sector, but it may not stand before it. */
int qcow2_packed_there(struct image *img, const struct extent *e, uint64_t *ret_len,
                       struct platter_error *err)
{
    uint64_t size;
    int r = stream_size(img->stream, &size, err);
    if (r < 0)
        return r;
    if (e->off >= size)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the compressed cluster of guest offset %" PRIu64 " must be at %" PRIu64
                    ", but the file ends at %" PRIu64 ": it was cut short",
                    img->stream->name, e->unit_start, e->off, size);
    *ret_len = min_u64(e->packed_len, size - e->off);
    return 0;
}

int qcow2_unpack(struct image *img, const struct extent *e, void *out, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t len = e->packed_len;
    void *in = NULL;
    int r = 0;

    pthread_mutex_lock(&img->lock);
    bool inside = e->off + len <= q->file_size;
    pthread_mutex_unlock(&img->lock);
    if (!inside)
        r = qcow2_packed_there(img, e, &len, err);
    if (r == 0)
        r = budget_alloc(img->budget, len, "a compressed cluster", &in, err);
    if (r == 0)
        r = stream_pread(img->stream, in, len, e->off, err);
    if (r == 0) {
        r = codec_unpack(codec_of(img), in, len, out, q->cluster_size, NULL, err);
        if (r < 0)
            r = fail_in(err, r,
                        "%s: the compressed cluster of guest offset %" PRIu64 " at %" PRIu64
                        " (%" PRIu64 " bytes of %" PRIu64 " in the file)",
                        img->stream->name, e->unit_start, e->off, len, e->packed_len);
    }
    budget_free(img->budget, in, len);
    return r;
}

int qcow2_pack(struct image *img, const void *unit, void *out, size_t cap, size_t *ret_len,
               struct platter_error *err)
{
    uint64_t cluster = qcow2_of(img)->cluster_size;
    return codec_pack(codec_of(img), unit, cluster, out, min_u64(cap, cluster - 1), ret_len, err);
}

/* Whether another record may begin in the cursor's cluster: its count must not be full. */
static int cursor_check(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint32_t order = q->header.refcount_order;
    struct slice *slot;
    uint64_t k;

    if (q->packed_cursor == 0)
        return 0;
    int r = qcow2_count_slot(img, q->packed_cursor >> q->cluster_bits, &slot, &k, err);
    if (r < 0)
        return r;
    if (!slot || qcow2_count_get(slot->bytes, order, k) == qcow2_count_max(order))
        q->packed_cursor = 0;
    return 0;
}

/* Room for z bytes, counted. */
static int take_bytes(struct image *img, uint64_t z, hoff *ret_off, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    unsigned x = 62 - (q->cluster_bits - 8);
    uint64_t n, left = 0;
    hoff fresh;

    int r = cursor_check(img, err);
    if (r < 0)
        return r;
    *ret_off = q->packed_cursor;
    if (q->packed_cursor)
        left = q->cluster_size - (q->packed_cursor & (q->cluster_size - 1));
    if (left < z) {
        r = qcow2_alloc(img, 1, &fresh, &n, err);
        if (r < 0)
            return r;
        /* A record may straddle two clusters that follow each other. */
        if (left == 0 || fresh != q->packed_cursor + left)
            *ret_off = fresh;
        if (fresh + z > min_u64(UINT64_C(1) << x, QCOW2_MAX_OFFSET)) {
            qcow2_count_down(img, fresh >> q->cluster_bits, 1, false, NULL);
            return fail(err, EFBIG, "%s: compressed data cannot stand behind 2^%u bytes",
                        img->stream->name, x < 56 ? x : 56);
        }
    }
    /* A fresh cluster is counted already; the one the cursor stood in is not, for this record. */
    if (*ret_off == q->packed_cursor && left)
        r = qcow2_count_up(img, *ret_off >> q->cluster_bits, 1, err);
    q->packed_cursor = *ret_off + z;
    if ((q->packed_cursor & (q->cluster_size - 1)) == 0)
        q->packed_cursor = 0;
    return r;
}

int qcow2_reserve_packed(struct image *img, goff unit, size_t packed_len, struct reservation *ret,
                         struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);

    if (q->data_file)
        return fail(err, ENOTSUP, "%s: an image with an external data file cannot be compressed",
                    img->stream->name);
    int r = qcow2_enter(img, err);
    if (r < 0)
        return r;
    *ret = (struct reservation){.start = unit,
                                .len = q->cluster_size,
                                .stream = img->stream,
                                .cookie = {QCOW2_ROOM_PACKED, packed_len}};
    r = qcow2_l2_own(img, unit, err);
    if (r == 0)
        r = take_bytes(img, packed_len, &ret->off, err);
    qcow2_leave(img);
    return r;
}

int qcow2_commit_packed(struct image *img, const struct reservation *r, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct qcow2_entry e = {.packed = true, .off = r->off, .packed_len = r->cookie[1]}, old;
    struct slice *slot;
    uint8_t *entry;

    int result = qcow2_free_room(img, 1, err);
    if (result == 0)
        result = qcow2_l2_get(img, r->start, &slot, &entry, err);
    if (result == 0)
        result = qcow2_entry_decode(img, entry, r->start, &old, err);
    if (result < 0)
        return result;
    qcow2_free_entry(img, &old, false);
    qcow2_entry_encode(img, entry, &e);
    slices_dirty(&q->l2, slot);
    q->file_size = max_u64(q->file_size, r->off + r->cookie[1]);
    q->pad = true;
    return 0;
}
