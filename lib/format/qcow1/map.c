/* SPDX-License-Identifier: MIT */
/*
 * Guest range to extent: sections 3, 8 and 11.
 *
 * All bytes of a plain cluster that a guest can see must be in the file. What is not there is
 * damage, and never read as zeros: a file that was cut looks the same as one whose writer crashed.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow1/qcow1.h"

/* Without an L2 table: everything up to the next L1 entry that is not 0. */
static void map_no_table(const struct qcow1 *q, goff off, uint64_t len, struct extent *ret)
{
    uint64_t i = (off >> q->l1_bits) + 1, last = (off + len - 1) >> q->l1_bits;
    while (i <= last && (i >= q->l1.n || q->l1.entries[i] == 0))
        i++;
    ret->kind = EXTENT_BACKING;
    ret->len = i > last ? len : (i << q->l1_bits) - off;
}

int qcow1_has_bytes(struct image *img, hoff off, uint64_t len, bool *ret, struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    uint64_t now = 0;
    int r = 0;

    *ret = range_inside(off, len, q->file_size);
    if (*ret)
        return 0;
    pthread_mutex_unlock(&img->lock);
    r = stream_size(img->stream, &now, err); /* another program may have made it longer */
    pthread_mutex_lock(&img->lock);
    if (r == 0)
        q->file_size = max_u64(q->file_size, now);
    *ret = r == 0 && range_inside(off, len, q->file_size);
    return r;
}

int qcow1_check_there(struct image *img, goff guest, const struct qcow1_entry *e,
                      struct platter_error *err)
{
    const struct qcow1 *q = qcow1_of(img);
    bool packed = e->kind == EXTENT_PACKED, there = true;
    uint64_t len = packed               ? e->packed_len
                   : guest >= img->size ? 0
                                        : min_u64(q->cluster_size, img->size - guest);
    int r = e->kind == EXTENT_BACKING ? 0 : qcow1_has_bytes(img, e->off, len, &there, err);
    if (r < 0 || there)
        return r;
    return fail(err, PLATTER_ECORRUPT,
                "%s: the %scluster of guest offset %" PRIu64 " must be at %" PRIu64 " with %" PRIu64
                " bytes, but the file ends at %" PRIu64 ": it was cut short",
                img->stream->name, packed ? "compressed " : "", guest, e->off, len, q->file_size);
}

static void begin_run(const struct image *img, const struct qcow1_entry *e, goff off,
                      struct extent *ret)
{
    const struct qcow1 *q = qcow1_of(img);
    uint64_t inside = off & (q->cluster_size - 1);

    ret->kind = e->kind;
    ret->len = q->cluster_size - inside;
    ret->stream = img->stream;
    if (e->kind == EXTENT_DATA) {
        ret->off = e->off + inside;
        ret->in_place = img->writable;
    } else if (e->kind == EXTENT_PACKED) {
        ret->off = e->off;
        ret->packed_len = e->packed_len;
        ret->unit_start = off - inside;
        ret->unit_len = q->cluster_size;
    }
}

/* Goes on behind the first cluster, to the end of the table at most. */
static void extend_run(const struct image *img, const struct slice *slice, const uint8_t *entry,
                       goff off, uint64_t len, struct extent *run)
{
    const struct qcow1 *q = qcow1_of(img);
    const uint8_t *end = slice->bytes + q->table_size;
    struct qcow1_entry e;

    while (run->kind != EXTENT_PACKED && run->len < len && (entry += 8) < end) {
        /* A damaged entry ends the run as well: the next question finds it. */
        if (qcow1_entry_decode(img, get_be(entry, 8), off + run->len, &e, NULL) < 0 ||
            e.kind != run->kind || (e.kind == EXTENT_DATA && e.off != run->off + run->len))
            return;
        run->len += q->cluster_size;
    }
}

/* Cuts a run of data behind guest offset `off` where the file ends, to whole clusters. The first
 * one is there. */
static int cut_run(struct image *img, goff off, struct extent *run, struct platter_error *err)
{
    const struct qcow1 *q = qcow1_of(img);
    bool there;
    int r = qcow1_has_bytes(img, run->off, run->len, &there, err);
    if (r < 0 || there)
        return r;
    uint64_t first = q->cluster_size - (off & (q->cluster_size - 1));
    run->len = first + round_down(q->file_size - run->off - first, q->cluster_size);
    return 0;
}

int qcow1_map(struct image *img, goff off, uint64_t len, struct extent *ret,
              struct platter_error *err)
{
    struct qcow1 *q = qcow1_of(img);
    struct slice *slice;
    struct qcow1_entry e;
    uint8_t *entry;

    WITH_LOCK(&img->lock);
    *ret = (struct extent){0};
    int r = qcow1_l2_get(img, off, &slice, &entry, err);
    if (r < 0)
        return r;
    if (!slice) {
        map_no_table(q, off, len, ret);
        return 0;
    }
    goff cluster = round_down(off, q->cluster_size);
    r = qcow1_entry_decode(img, get_be(entry, 8), cluster, &e, err);
    if (r < 0)
        return r;
    begin_run(img, &e, off, ret);
    extend_run(img, slice, entry, off, len, ret);
    ret->len = min_u64(ret->len, len);
    r = qcow1_check_there(img, cluster, &e, err);
    return r < 0 || ret->kind != EXTENT_DATA ? r : cut_run(img, off, ret, err);
}
