/* SPDX-License-Identifier: MIT */
/*
 * Room for new clusters, and their entries (rule 1, section 10). Room is taken at the end of the
 * file, and whole clusters are written to it; what stands there already is overwritten in place.
 * Zeros have no entry of their own. A reservation stays inside one L2 table.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/codec.h"
#include "base/cursor.h"
#include "format/qcow1/qcow1.h"

/* What a reservation remembers: bytes of its room, and whether they are a packed cluster. */
enum { COOKIE_LEN, COOKIE_PACKED };

int qcow1_take_room(struct image *img, uint64_t len, uint32_t align, hoff *ret,
                    struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    uint64_t end;

    if (ckd_round_up(ret, q->end, align) || ckd_add(&end, *ret, len) || end > QCOW1_MAX_OFFSET)
        return fail(err, EFBIG, "%s: has no room for more: it ends at byte %" PRIu64,
                    img->stream->name, q->end);
    q->end = end;
    return 0;
}

int qcow1_need_table(struct image *img, goff guest, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    hoff table;

    int r = qcow1_l2_find(img, guest, &table, err);
    if (r < 0 || table)
        return r;
    r = qcow1_take_room(img, q->table_size, q->cluster_size, &table, err);
    if (r == 0)
        r = slices_new(img, &q->l2, table, err);
    if (r == 0)
        pointers_set(&q->l1, (uint32_t)(guest >> q->l1_bits), table);
    return r;
}

/* ---- reserve, commit, abandon ---------------------------------------------------------------- */

/* How many clusters from `entry` on want a place, up to guest offset `end`. */
static uint64_t count_fresh(const struct image *img, const struct slice *slice,
                            const uint8_t *entry, goff cluster, goff end)
{
    const struct qcow1 *q = qcow1_of(img);
    struct qcow1_entry e;
    uint64_t n = 1;

    while ((entry += 8) < slice->bytes + q->table_size && cluster + n * q->cluster_size < end) {
        if (qcow1_entry_decode(img, get_be(entry, 8), cluster + n * q->cluster_size, &e, NULL) <
                0 ||
            e.kind == EXTENT_DATA)
            break;
        n++;
    }
    return n;
}

static int reserve_locked(struct image *img, goff off, uint64_t len, struct reservation *ret,
                          struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    goff cluster = round_down(off, q->cluster_size);
    struct slice *slice;
    uint8_t *entry;

    int r = qcow1_need_table(img, off, err);
    if (r == 0)
        r = qcow1_l2_get(img, off, &slice, &entry, err);
    if (r < 0)
        return r;
    uint64_t room = count_fresh(img, slice, entry, cluster, off + len) * q->cluster_size;
    *ret = (struct reservation){
        .start = cluster, .len = room, .stream = img->stream, .cookie = {[COOKIE_LEN] = room}};
    return qcow1_take_room(img, room, q->cluster_size, &ret->off, err);
}

int qcow1_reserve(struct image *img, goff off, uint64_t len, struct reservation *ret,
                  struct platter_error *err)
{
    int r = qcow1_enter(img, err);
    if (r < 0)
        return r;
    r = reserve_locked(img, off, len, ret, err);
    qcow1_leave(img);
    return r;
}

int qcow1_commit(struct image *img, const struct reservation *r, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    bool packed = r->cookie[COOKIE_PACKED];
    struct qcow1_entry e = {.kind = packed ? EXTENT_PACKED : EXTENT_DATA,
                            .off = r->off,
                            .packed_len = (uint32_t)r->cookie[COOKIE_LEN]};
    struct slice *slice;
    uint8_t *entry;

    int result = qcow1_enter(img, err);
    if (result < 0)
        return result;
    result = qcow1_l2_get(img, r->start, &slice, &entry, err);
    if (result == 0) {
        for (uint64_t done = 0; done < r->len; done += q->cluster_size, entry += 8) {
            put_be(entry, 8, qcow1_entry_encode(q, &e));
            e.off += q->cluster_size;
        }
        slices_dirty(&q->l2, slice);
        q->file_size = max_u64(q->file_size, r->off + r->cookie[COOKIE_LEN]);
    }
    qcow1_leave(img);
    return result;
}

void qcow1_abandon(struct image *img, const struct reservation *r)
{
    struct qcow1 *q = qcow1_of(img);
    WITH_LOCK(&img->lock);
    if (q->end == r->off + r->cookie[COOKIE_LEN])
        q->end = r->off;
}

/* ---- packed clusters ------------------------------------------------------------------------- */

int qcow1_pack(struct image *img, const void *unit, void *out, size_t cap, size_t *ret_len,
               struct platter_error *err)
{
    uint32_t cluster = qcow1_of(img)->cluster_size;
    return codec_pack(CODEC_DEFLATE, unit, cluster, out, min_u64(cap, cluster - 1), ret_len, err);
}

int qcow1_reserve_packed(struct image *img, goff unit, size_t packed_len, struct reservation *ret,
                         struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    unsigned bits = 63 - q->header.cluster_bits;

    int r = qcow1_enter(img, err);
    if (r < 0)
        return r;
    *ret = (struct reservation){.start = unit,
                                .len = q->cluster_size,
                                .stream = img->stream,
                                .cookie = {[COOKIE_LEN] = packed_len, [COOKIE_PACKED] = 1}};
    r = qcow1_need_table(img, unit, err);
    if (r == 0 && q->end >> bits)
        r = fail(err, EFBIG, "%s: compressed data cannot stand behind 2^%u bytes",
                 img->stream->name, bits);
    if (r == 0)
        r = qcow1_take_room(img, packed_len, 1, &ret->off, err);
    qcow1_leave(img);
    return r;
}

/* ---- zero and discard ------------------------------------------------------------------------ */

/* Whether the range can be made zeros without writing them: plain clusters keep their place, whose
 * bytes become zeros, unless they are encrypted; a packed one is forgotten where nothing shows in
 * its stead. */
static int check_mark(struct image *img, goff off, uint64_t len, struct platter_error *err)
{
    struct extent e;
    int r = 0;
    for (uint64_t done = 0; done < len && r == 0; done += e.len) {
        r = qcow1_map(img, off + done, len - done, &e, err);
        if (r == 0 && (e.kind == EXTENT_DATA ? img->sealed : img->has_backing))
            r = -ENOTSUP;
    }
    return r;
}

/* The packed cluster reads as zeros: there is nothing below. Its bytes are lost to the file. */
static int forget_packed(struct image *img, goff cluster, struct platter_error *err)
{
    struct slice *slice;
    uint8_t *entry;
    int r = qcow1_enter(img, err);
    if (r < 0)
        return r;
    r = qcow1_l2_get(img, cluster, &slice, &entry, err);
    if (r == 0) {
        put_be(entry, 8, 0);
        slices_dirty(&qcow1_of(img)->l2, slice);
    }
    qcow1_leave(img);
    return r;
}

static int mark_extent(struct image *img, const struct extent *e, enum mark mark, bool unmap,
                       struct platter_error *err)
{
    if (e->kind == EXTENT_PACKED && !img->has_backing)
        return forget_packed(img, e->unit_start, err);
    if (e->kind != EXTENT_DATA || img->sealed)
        return 0; /* a discard may leave it */
    if (mark == MARK_DISCARD)
        return stream_discard(e->stream, e->off, e->len, err);
    return stream_zero(e->stream, e->off, e->len, unmap ? STREAM_ZERO_UNMAP : 0, err);
}

int qcow1_mark(struct image *img, goff off, uint64_t len, enum mark mark, bool unmap,
               struct platter_error *err)
{
    struct extent e;
    int r = mark == MARK_ZERO ? check_mark(img, off, len, err) : 0;
    for (uint64_t done = 0; done < len && r == 0; done += e.len) {
        r = qcow1_map(img, off + done, len - done, &e, err);
        if (r == 0)
            r = mark_extent(img, &e, mark, unmap, err);
    }
    return r;
}
