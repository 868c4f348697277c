/* SPDX-License-Identifier: MIT */
/*
 * Guest range to extent (sections 4, 4.1, 20).
 *
 * Where a file may end. The tables must be whole; the one that may stand last and be cut by the end
 * of the file, the L1 table of a new image, has been checked at open. Of data, whole clusters
 * (subclusters with extended L2) stand in every file that was seen, but nothing is lost where a
 * writer leaves out what lies behind the end of the disk. So: all bytes a guest can see must be in
 * the file, and where the file ends inside the (sub)cluster that holds them it must end at a
 * sector, as no writer writes less. What is not there is damage: it is never read as zeros. Packed
 * records may be cut by the end of the file anywhere behind the stream: there the stream tells.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "format/qcow2/qcow2.h"

/* Without an L2 table: everything up to the next L1 entry that has one. */
static void map_no_table(const struct qcow2 *q, goff off, uint64_t len, struct extent *ret)
{
    uint64_t i = (off >> q->l1_bits) + 1, last = (off + len - 1) >> q->l1_bits;
    while (i <= last && (i >= q->l1.n || q->l1.entries[i] == 0))
        i++;
    ret->kind = EXTENT_BACKING;
    ret->len = i > last ? len : (i << q->l1_bits) - off;
}

/* How a run of subclusters of e that begins with number `sub` is stored. */
static enum extent_kind kind_of(const struct qcow2_entry *e, uint32_t sub)
{
    if (e->packed)
        return EXTENT_PACKED;
    if (e->alloc >> sub & 1)
        return EXTENT_DATA;
    return e->zero >> sub & 1 ? EXTENT_ZERO : EXTENT_BACKING;
}

/* The first subcluster behind the run that begins with `sub`. */
static uint32_t run_end(const struct qcow2 *q, const struct qcow2_entry *e, uint32_t sub)
{
    enum extent_kind kind = kind_of(e, sub);
    if (q->n_sub == 1 || kind == EXTENT_PACKED)
        return q->n_sub;
    while (sub < q->n_sub && kind_of(e, sub) == kind)
        sub++;
    return sub;
}

/* Whether data of ours may change at a guest offset without notice. What a shared table points at
 * is shared, whatever a stale entry in it says. */
static bool is_open(const struct qcow2 *q, goff off)
{
    return !q->frozen && q->prepared && q->l1.entries[off >> q->l1_bits] & QCOW2_COPIED;
}

/* Whether e goes on with what `run` is, which ends with a whole cluster so far. */
static bool goes_on(const struct extent *run, bool open, const struct qcow2_entry *e)
{
    if (kind_of(e, 0) != run->kind || e->packed)
        return false;
    if (run->kind == EXTENT_DATA)
        return e->off == run->off + run->len && (e->copied && open) == run->in_place;
    return e->has_place == run->has_place && (!e->has_place || e->off == run->off + run->len);
}

/* Cuts a run of data where the file ends, by the rule on top; nothing left is damage. */
static int check_end(struct image *img, goff off, struct extent *run, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t sub = UINT64_C(1) << q->sub_bits;
    uint64_t *size = q->data_file ? &q->data_size : &q->file_size;

    for (int tries = 0; tries < 2; tries++) {
        hoff whole = round_up(run->off + run->len, sub);
        uint64_t visible = off < img->size ? img->size - off : run->len; /* or a machine's state */
        hoff seen = run->off + min_u64(whole - run->off, visible);
        if (whole <= *size || (seen <= *size && *size % 512 == 0))
            return 0;
        if (tries)
            break;
        pthread_mutex_unlock(&img->lock);
        uint64_t now; /* another program may have made it longer */
        int r = stream_size(run->stream, &now, err);
        pthread_mutex_lock(&img->lock);
        if (r < 0)
            return r;
        *size = max_u64(*size, now);
    }
    hoff good = round_down(*size, sub);
    if (good > run->off) {
        run->len = good - run->off;
        return 0;
    }
    return fail(err, PLATTER_ECORRUPT,
                "%s: the data of guest offset %" PRIu64 " must be at %" PRIu64 " .. %" PRIu64
                ", but the file ends at %" PRIu64 ": it was cut short",
                run->stream->name, off, run->off, run->off + run->len, *size);
}

static void begin_run(const struct image *img, const struct qcow2_entry *e, goff off, uint32_t sub,
                      struct extent *ret)
{
    const struct qcow2 *q = qcow2_of(img);
    uint64_t inside = off & (q->cluster_size - 1);

    ret->kind = kind_of(e, sub);
    ret->stream = q->data;
    ret->off = e->has_place ? e->off + inside : 0;
    ret->in_place = ret->kind == EXTENT_DATA && e->copied && is_open(q, off);
    ret->has_place = ret->kind != EXTENT_DATA && e->has_place;
    if (ret->kind == EXTENT_PACKED) {
        ret->stream = img->stream;
        ret->off = e->off;
        ret->packed_len = e->packed_len;
        ret->unit_start = off - inside;
        ret->unit_len = q->cluster_size;
    }
    ret->len = ((uint64_t)run_end(q, e, sub) << q->sub_bits) - inside;
}

/* Goes on behind the first cluster, to the end of the slice at most. */
static void extend_run(const struct image *img, const struct slice *slot, const uint8_t *entry,
                       goff off, uint64_t len, struct extent *run)
{
    const struct qcow2 *q = qcow2_of(img);
    const uint8_t *end = slot->bytes + q->l2.slice;
    bool open = is_open(q, off);
    struct qcow2_entry e;

    while (run->len < len && (entry += q->entry_size) < end) {
        goff next = off + run->len;
        /* A damaged entry ends the run as well: what came before is good, the next question finds
         * it. */
        if (next & (q->cluster_size - 1) || qcow2_entry_decode(img, entry, next, &e, NULL) < 0 ||
            !goes_on(run, open, &e))
            return;
        run->len += (uint64_t)run_end(q, &e, 0) << q->sub_bits;
    }
}

int qcow2_map(struct image *img, goff off, uint64_t len, struct extent *ret,
              struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct slice *slot;
    struct qcow2_entry e;
    uint8_t *entry;

    WITH_LOCK(&img->lock);
    *ret = (struct extent){0};
    int r = qcow2_l2_get(img, off, &slot, &entry, err);
    if (r < 0)
        return r;
    if (!slot) {
        map_no_table(q, off, len, ret);
        return 0;
    }
    r = qcow2_entry_decode(img, entry, round_down(off, q->cluster_size), &e, err);
    if (r < 0)
        return r;
    begin_run(img, &e, off, (uint32_t)((off & (q->cluster_size - 1)) >> q->sub_bits), ret);
    extend_run(img, slot, entry, off, len, ret);
    ret->len = min_u64(ret->len, len);
    return ret->kind == EXTENT_DATA ? check_end(img, off, ret, err) : 0;
}
