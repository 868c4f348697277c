/* SPDX-License-Identifier: MIT */
/*
 * All that is below an L1 table, in pieces of bounded memory: what changing snapshots does to every
 * table and every cluster of one. Time goes with the tables, never with the data.
 *
 * An L2 table is counted by the entries that point at it, and what it holds by the paths that lead
 * there (section 3): so a table that two L1 tables share is walked for each of them.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/snapshot.h"

struct qcow2_tree qcow2_tree_of(const struct pointers *l1)
{
    return (struct qcow2_tree){.entries = l1->entries, .off = l1->off, .n = l1->n};
}

struct qcow2_tree qcow2_tree_of_snapshot(const struct qcow2_snapshot *s)
{
    return (struct qcow2_tree){.off = s->l1_offset, .n = s->l1_size};
}

int qcow2_walks_tell(struct image *img, struct qcow2_walks *w, uint32_t more,
                     struct platter_error *err)
{
    unsigned bits = qcow2_of(img)->l1_bits;

    if (!w || !w->teller)
        return 0;
    w->done += more;
    pthread_mutex_unlock(&img->lock);
    int r = teller_tell(w->teller, w->done << bits, w->total << bits, w->sure ? NULL : err);
    pthread_mutex_lock(&img->lock);
    return w->sure ? 0 : r;
}

/* The piece of the table that begins with entry `first`. */
static int load_piece(struct image *img, struct qcow2_tree *t, uint32_t first,
                      struct platter_error *err)
{
    uint32_t n = (uint32_t)min_u64(t->n - first, sizeof t->piece / 8);

    pthread_mutex_unlock(&img->lock);
    int r = stream_pread(img->stream, t->piece, n * (size_t)8, t->off + first * UINT64_C(8), err);
    pthread_mutex_lock(&img->lock);
    if (r < 0)
        return fail_in(err, r, "an L1 table at %" PRIu64, t->off);
    t->first = first;
    t->held = n;
    return 0;
}

int qcow2_tree_table(struct image *img, struct qcow2_tree *t, uint32_t i, hoff *ret,
                     struct platter_error *err)
{
    int r = 0;

    if (t->entries)
        return qcow2_l1_decode(img, t->base + i, t->entries[i], ret, err);
    if (i < t->first || i - t->first >= t->held)
        r = load_piece(img, t, i, err);
    return r < 0 ? r
                 : qcow2_l1_decode(img, t->base + i, get_be(t->piece + (i - t->first) * 8, 8), ret,
                                   err);
}

/* A copy of one slice of an L2 table: counts are read and written while it is looked at. */
static int copy_slice(struct image *img, hoff off, uint8_t *bytes, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct slice *slot;

    int r = slices_get(img, &q->l2, off, &slot, err);
    if (r == 0)
        memcpy(bytes, slot->bytes, q->l2.slice);
    return r;
}

/* ---- counting ----------------------------------------------------------------------------------
 */

/* A count of all below; what stands side by side in the file is one step. */
struct tally {
    struct image *img;
    bool up;
    uint64_t first, n;    /* the step that grows */
    uint64_t done, steps; /* steps that are made; when to end */
    uint64_t tables;      /* how many more there can be: no two entries share one */
    uint8_t *bytes;       /* a slice */
};

static int tally_step(struct tally *t, struct platter_error *err)
{
    if (t->n == 0 || t->done == t->steps)
        return 0;
    int r = t->up ? qcow2_count_more(t->img, t->first, t->n, err)
                  : qcow2_count_down(t->img, t->first, t->n, true, err);
    t->done += r == 0;
    t->n = 0;
    return r;
}

static int tally_add(struct tally *t, uint64_t first, uint64_t n, struct platter_error *err)
{
    int r = 0;

    if (t->n && t->first + t->n == first) {
        t->n += n;
        return 0;
    }
    r = tally_step(t, err);
    t->first = first;
    t->n = n;
    return r;
}

/* Nothing counts what stands in a data file. */
static int tally_data(const struct tally *t, const struct qcow2_entry *e, struct platter_error *err)
{
    int r = t->up ? 0 : qcow2_free_room(t->img, 1, err);
    if (r == 0 && !t->up)
        qcow2_free_entry(t->img, e, true);
    return r;
}

static int tally_slice(struct tally *t, hoff off, goff guest, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(t->img);
    struct qcow2_entry e;

    int r = copy_slice(t->img, off, t->bytes, err);
    for (uint32_t at = 0; r == 0 && at < q->l2.slice; at += q->entry_size) {
        r = qcow2_entry_decode(t->img, t->bytes + at, guest, &e, err);
        guest += q->cluster_size;
        if (r < 0 || (!e.packed && !e.has_place))
            continue;
        uint64_t first = e.off >> q->cluster_bits;
        uint64_t last = e.packed ? (e.off + e.packed_len - 1) >> q->cluster_bits : first;
        r = q->data_file ? tally_data(t, &e, err) : tally_add(t, first, last - first + 1, err);
    }
    return r == 0 && q->data_file ? qcow2_free_all(t->img, err) : r;
}

/* The table itself comes last: when it is free its space goes, and with it what it says. */
static int tally_table(struct tally *t, hoff table, goff guest, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(t->img);
    int r = 0;

    if (t->tables-- == 0)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: an L1 table points at more L2 tables than the file has clusters: the "
                    "image must be repaired",
                    t->img->stream->name);
    for (uint64_t at = 0; r == 0 && at < q->cluster_size && t->done < t->steps; at += q->l2.slice) {
        r = tally_slice(t, table + at, guest, err);
        guest += UINT64_C(1) << q->slice_bits;
    }
    return r < 0 ? r : tally_add(t, table >> q->cluster_bits, 1, err);
}

static int tally_tree(struct tally *t, struct qcow2_tree *tree, struct platter_error *err)
{
    struct image *img = t->img;
    struct qcow2 *q = qcow2_of(img);
    uint64_t size;
    hoff table;

    pthread_mutex_unlock(&img->lock);
    int r = stream_size(img->stream, &size, err);
    pthread_mutex_lock(&img->lock);
    t->tables = r < 0 ? 0 : div_up(size, q->cluster_size);
    if (r == 0)
        r = budget_alloc(img->budget, q->l2.slice, "a copy of an L2 table", &t->bytes, err);
    for (uint32_t i = 0; r == 0 && i < tree->n && t->done < t->steps; i++) {
        r = qcow2_tree_table(img, tree, i, &table, err);
        if (r == 0 && table)
            r = tally_table(t, table, (goff)(tree->base + i) << q->l1_bits, err);
        if (r == 0)
            r = qcow2_walks_tell(img, tree->walks, 1, err);
    }
    if (r == 0)
        r = tally_step(t, err);
    budget_free(img->budget, t->bytes, q->l2.slice);
    return r;
}

int qcow2_tree_count_up(struct image *img, struct qcow2_tree *tree, uint64_t *done,
                        struct platter_error *err)
{
    struct tally t = {.img = img, .up = true, .steps = UINT64_MAX};
    int r = tally_tree(&t, tree, err);
    *done = t.done;
    return r;
}

int qcow2_tree_count_down(struct image *img, struct qcow2_tree *tree, uint64_t steps,
                          struct platter_error *err)
{
    struct tally t = {.img = img, .steps = steps};
    return tally_tree(&t, tree, err);
}

/* ---- bit 63 ------------------------------------------------------------------------------------
 */

/* Clears bit 63 of all entries of a slice; it is dirty only if that changed something. */
static int share_slice(struct image *img, hoff off, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct slice *slot;
    uint8_t any = 0;

    /* Whoever reads a flag that is gone copies once too often, so they may be written at any time.
     */
    int r = slices_full(&q->l2) ? slices_write(img, &q->l2, err) : 0;
    if (r == 0)
        r = slices_get(img, &q->l2, off, &slot, err);
    for (uint32_t at = 0; r == 0 && at < q->l2.slice; at += q->entry_size) {
        any |= slot->bytes[at];
        slot->bytes[at] &= 0x7f;
    }
    if (any & 0x80)
        slices_dirty(&q->l2, slot);
    return r;
}

int qcow2_tree_share(struct image *img, struct qcow2_tree *t, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    hoff table;
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < t->n; i++) {
        r = qcow2_tree_table(img, t, i, &table, err);
        for (uint64_t at = 0; r == 0 && table && at < q->cluster_size; at += q->l2.slice)
            r = share_slice(img, table + at, err);
        if (r == 0)
            r = qcow2_walks_tell(img, t->walks, 1, err);
    }
    return r;
}

/* Sets bit 63 in a copy of a slice where it belongs; *ret: whether that changed something. */
static int find_owned(struct image *img, uint8_t *bytes, goff guest, bool *ret,
                      struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    struct qcow2_entry e;
    uint64_t count;
    int r = 0;

    *ret = false;
    for (uint32_t at = 0; r == 0 && at < q->l2.slice; at += q->entry_size) {
        r = qcow2_entry_decode(img, bytes + at, guest, &e, err);
        guest += q->cluster_size;
        if (r < 0 || e.packed || !e.has_place || e.copied)
            continue;
        r = qcow2_count_read(img, e.off >> q->cluster_bits, &count, err);
        if (r < 0 || count != 1)
            continue;
        bytes[at] |= 0x80;
        *ret = true;
    }
    return r;
}

static int own_slice(struct image *img, hoff off, goff guest, uint8_t *bytes,
                     struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct slice *slot;
    bool changed = false;

    int r = copy_slice(img, off, bytes, err);
    if (r == 0)
        r = find_owned(img, bytes, guest, &changed, err);
    if (r < 0 || !changed)
        return r;
    if (slices_full(&q->l2))
        r = slices_write(img, &q->l2, err);
    if (r == 0)
        r = slices_get(img, &q->l2, off, &slot, err);
    if (r < 0)
        return r;
    memcpy(slot->bytes, bytes, q->l2.slice);
    slices_dirty(&q->l2, slot);
    return 0;
}

/* Where a table is shared, so is all it holds. */
static int own_table(struct image *img, uint32_t i, hoff table, uint8_t *bytes,
                     struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    goff guest = (goff)i << q->l1_bits;
    uint64_t count;

    int r = qcow2_count_read(img, table >> q->cluster_bits, &count, err);
    if (r < 0 || count != 1)
        return r;
    if (!(q->l1.entries[i] & QCOW2_COPIED))
        pointers_set(&q->l1, i, q->l1.entries[i] | QCOW2_COPIED);
    for (uint64_t at = 0; r == 0 && at < q->cluster_size; at += q->l2.slice) {
        r = own_slice(img, table + at, guest, bytes, err);
        guest += UINT64_C(1) << q->slice_bits;
    }
    return r;
}

int qcow2_tree_own(struct image *img, struct qcow2_walks *walks, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct qcow2_tree t = qcow2_tree_of(&q->l1);
    uint8_t *bytes = NULL;
    hoff table;

    int r = budget_alloc(img->budget, q->l2.slice, "a copy of an L2 table", &bytes, err);
    for (uint32_t i = 0; r == 0 && i < q->l1.n; i++) {
        r = qcow2_tree_table(img, &t, i, &table, err);
        if (r == 0 && table)
            r = own_table(img, i, table, bytes, err);
        if (r == 0)
            r = qcow2_walks_tell(img, walks, 1, err);
    }
    budget_free(img->budget, bytes, q->l2.slice);
    return r;
}
