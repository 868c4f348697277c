/* SPDX-License-Identifier: MIT */
/*
 * Where two snapshots differ, or a snapshot and the disk, from the tables alone (section 9.6). What
 * two of them share is never written to, so equal places hold equal bytes, and equal L2 tables need
 * no look inside. Bit 63 says nothing here.
 *
 * Tables are read past the cache: whoever asks holds the disk and has flushed it.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/qcow2/snapshot.h"

struct side {
    struct qcow2_tree tree;
    uint64_t size;  /* of its disk */
    hoff slice;     /* which slice of an L2 table `bytes` has; 0: none */
    uint8_t *bytes; /* a slice */
};

struct snapshot_diff {
    struct image *img;
    struct side from, to;
};

static int side_open(struct image *img, const char *name, struct side *side,
                     struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);

    side->tree = (struct qcow2_tree){.off = q->header.l1_offset, .n = q->header.l1_size};
    side->size = round_down(q->header.size, 512);
    if (name) {
        const struct qcow2_snapshot *s = qcow2_snapshot_get(img, name, 0, err);
        int r = s ? qcow2_snapshot_check(img, s, err) : -ENOENT;
        if (r < 0)
            return r;
        side->tree = qcow2_tree_of_snapshot(s);
        side->size = round_down(s->disk_size, 512);
    }
    return budget_alloc(img->budget, q->l2.slice, "a slice of an L2 table", &side->bytes, err);
}

int qcow2_diff_open(struct image *img, const char *from, const char *to, struct snapshot_diff **ret,
                    uint64_t ret_sizes[2], struct platter_error *err)
{
    struct snapshot_diff *d = calloc(1, sizeof *d);
    if (!d)
        return fail_memory(err, "a comparison of snapshots");
    d->img = img;
    int r = side_open(img, from, &d->from, err);
    if (r == 0)
        r = side_open(img, to, &d->to, err);
    if (r < 0) {
        qcow2_diff_close(d);
        return r;
    }
    ret_sizes[0] = d->from.size;
    ret_sizes[1] = d->to.size;
    *ret = d;
    return 0;
}

void qcow2_diff_close(struct snapshot_diff *d)
{
    uint64_t slice = qcow2_of(d->img)->l2.slice;
    budget_free(d->img->budget, d->from.bytes, slice);
    budget_free(d->img->budget, d->to.bytes, slice);
    free(d);
}

/* The L2 table of a side for a guest offset; 0 where there is none. */
static int side_table(struct image *img, struct side *side, goff off, hoff *ret,
                      struct platter_error *err)
{
    uint64_t i = off >> qcow2_of(img)->l1_bits;

    *ret = 0;
    if (off >= side->size || i >= side->tree.n)
        return 0;
    WITH_LOCK(&img->lock);
    return qcow2_tree_table(img, &side->tree, (uint32_t)i, ret, err);
}

/* Reads the slice of a table that maps `off`; *ret_entry NULL: there is no table. */
static int side_entry(struct image *img, struct side *side, hoff table, goff off,
                      const uint8_t **ret_entry, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t at = (off >> q->cluster_bits) * q->entry_size & (q->cluster_size - 1);
    hoff slice = table + round_down(at, q->l2.slice);

    *ret_entry = NULL;
    if (!table)
        return 0;
    if (side->slice != slice) {
        side->slice = 0;
        int r = stream_pread(img->stream, side->bytes, q->l2.slice, slice, err);
        if (r < 0)
            return fail_in(err, r, "L2 table at %" PRIu64, slice);
        side->slice = slice;
    }
    *ret_entry = side->bytes + at % q->l2.slice;
    return 0;
}

/* What one side has in the subcluster at `off`. */
struct place {
    enum extent_kind kind;
    hoff off;
};

static int side_place(const struct snapshot_diff *d, const struct side *side, const uint8_t *entry,
                      goff off, struct place *ret, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(d->img);
    uint64_t inside = off & (q->cluster_size - 1);
    struct qcow2_entry e = {0};

    *ret = (struct place){.kind = EXTENT_BACKING};
    if (off >= side->size) /* cut off, or filled up with zeros */
        ret->kind = EXTENT_ZERO;
    int r =
        entry && off < side->size ? qcow2_entry_decode(d->img, entry, off - inside, &e, err) : 0;
    if (r < 0)
        return r;
    uint32_t sub = (uint32_t)(inside >> q->sub_bits);
    if (e.packed)
        *ret = (struct place){EXTENT_PACKED, e.off};
    else if (e.alloc >> sub & 1)
        *ret = (struct place){EXTENT_DATA, e.off + round_down(inside, UINT64_C(1) << q->sub_bits)};
    else if (e.zero >> sub & 1)
        ret->kind = EXTENT_ZERO;
    if (ret->kind == EXTENT_BACKING && !d->img->has_backing)
        ret->kind = EXTENT_ZERO;
    return 0;
}

/* How many entries of n are the same, but for bit 63. */
static uint64_t count_same(const struct qcow2 *q, const uint8_t *a, const uint8_t *b, uint64_t n)
{
    uint64_t i = 0;
    for (uint64_t at = 0; i < n; i++, at += q->entry_size)
        if ((a[at] ^ b[at]) & 0x7f || memcmp(a + at + 1, b + at + 1, q->entry_size - 1) != 0)
            break;
    return i;
}

/* Compares what the entries of two tables say of the subcluster at `off`, or of whole clusters from
 * there on that are the same. */
static int compare_entries(struct snapshot_diff *d, hoff from, hoff to, goff off, uint64_t *ret_len,
                           struct place *ret, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(d->img);
    uint64_t sub = UINT64_C(1) << q->sub_bits, slice = UINT64_C(1) << q->slice_bits, same = 0;
    const uint8_t *from_entry = NULL, *to_entry = NULL;
    struct place a;

    int r = side_entry(d->img, &d->from, from, off, &from_entry, err);
    if (r == 0)
        r = side_entry(d->img, &d->to, to, off, &to_entry, err);
    if (r == 0 && from_entry && to_entry && off % q->cluster_size == 0)
        same = count_same(q, from_entry, to_entry, (slice - off % slice) >> q->cluster_bits);
    *ret_len = same ? same << q->cluster_bits : sub - off % sub;
    if (r < 0 || same)
        return r;
    r = side_place(d, &d->from, from_entry, off, &a, err);
    if (r == 0)
        r = side_place(d, &d->to, to_entry, off, ret, err);
    return r < 0 ? r : a.kind != ret->kind || a.off != ret->off;
}

/* Whether the two differ at `off`, and for how many bytes the answer holds; *ret is what `to` has
 * there if they do. */
static int compare_at(struct snapshot_diff *d, goff off, uint64_t *ret_len, struct place *ret,
                      struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(d->img);
    uint64_t span = UINT64_C(1) << q->l1_bits;
    bool before = off < d->from.size;
    hoff from, to;

    int r = side_table(d->img, &d->from, off, &from, err);
    if (r == 0)
        r = side_table(d->img, &d->to, off, &to, err);
    if (r < 0)
        return r;
    if (from == to && (before || to == 0)) { /* one table for both, or none */
        *ret_len = span - off % span;
        r = side_place(d, &d->to, NULL, off, ret, err);
        r = r < 0 ? r : !before && ret->kind != EXTENT_ZERO;
    } else {
        r = compare_entries(d, from, to, off, ret_len, ret, err);
    }
    if (before)
        *ret_len = min_u64(*ret_len, d->from.size - off);
    return r;
}

int qcow2_diff_next(struct snapshot_diff *d, goff off, struct snapshot_difference *ret,
                    struct platter_error *err)
{
    struct place place;
    uint64_t len;
    int r = 0;

    for (*ret = (struct snapshot_difference){0}; off < d->to.size; off += len) {
        r = compare_at(d, off, &len, &place, err);
        if (r < 0)
            return r;
        len = min_u64(len, d->to.size - off);
        if (r == 0 ? ret->len > 0 : ret->len > 0 && place.kind != ret->kind)
            return 1;
        if (r == 0)
            continue;
        if (ret->len == 0)
            *ret = (struct snapshot_difference){.off = off, .kind = place.kind};
        ret->len += len;
    }
    return ret->len > 0;
}
