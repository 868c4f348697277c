/* SPDX-License-Identifier: MIT */
/*
 * Zero and discard whole clusters (section 8), or have them be stored no more, a slice of an L2
 * table at a time. What the tables release is freed, and holes are punched, after the change is
 * durable.
 */
#include "base/ckd.h"
#include "format/qcow2/qcow2.h"

struct marking {
    enum mark mark;
    bool uncover; /* entries say nothing any more, and what is below shows */
    bool unmap;
    bool has_backing;
    bool has_zero; /* version 3: entries can say that they read as zeros */
    uint32_t all;  /* all subclusters of a cluster */
};

/* What e becomes; false: it stays. */
static bool marked(const struct marking *m, const struct qcow2_entry *e, struct qcow2_entry *ret)
{
    bool stored = e->packed || e->has_place;

    *ret = (struct qcow2_entry){0};
    if (m->uncover)
        return stored || e->zero;
    if (!stored && !e->zero && !m->has_backing)
        return false; /* reads as zeros already */
    if (!m->has_zero)
        return stored || e->zero; /* without a backing file: checked before */
    if (m->mark == MARK_ZERO && !m->unmap && e->has_place && !e->packed) {
        *ret = *e; /* keeps its place */
        ret->alloc = 0;
    }
    ret->zero = m->all;
    return e->packed || e->zero != m->all || e->has_place != ret->has_place;
}

/* Whether anything in n clusters from `entry` on changes. */
static bool changes(const struct image *img, const struct marking *m, const uint8_t *entry,
                    goff off, uint64_t n)
{
    const struct qcow2 *q = qcow2_of(img);
    struct qcow2_entry e, now;

    for (uint64_t i = 0; i < n; i++, entry += q->entry_size)
        if (qcow2_entry_decode(img, entry, off + i * q->cluster_size, &e, NULL) < 0 ||
            marked(m, &e, &now))
            return true;
    return false;
}

static int change(struct image *img, const struct marking *m, uint8_t *entry, goff off, uint64_t n,
                  struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    struct qcow2_entry e, now;

    for (uint64_t i = 0; i < n; i++, entry += q->entry_size) {
        int r = qcow2_entry_decode(img, entry, off + i * q->cluster_size, &e, err);
        if (r < 0)
            return r;
        if (!marked(m, &e, &now))
            continue;
        if (e.packed || e.has_place != now.has_place)
            qcow2_free_entry(img, &e, m->unmap);
        qcow2_entry_encode(img, entry, &now);
    }
    return 0;
}

/* Marks n clusters of one slice. Token and lock held. */
static int mark_slice(struct image *img, const struct marking *m, goff off, uint64_t n,
                      struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct slice *slot;
    uint8_t *entry;

    int r = qcow2_l2_get(img, off, &slot, &entry, err);
    if (r < 0)
        return r;
    if (slot ? !changes(img, m, entry, off, n) : !m->has_backing)
        return 0;
    r = qcow2_l2_own(img, off, err);
    if (r == 0)
        r = qcow2_free_room(img, (uint32_t)n, err);
    if (r == 0)
        r = qcow2_l2_get(img, off, &slot, &entry, err);
    if (r < 0)
        return r;
    r = change(img, m, entry, off, n, err);
    slices_dirty(&q->l2, slot);
    return r;
}

/* Guest offset of the next slice that has a table, or of the next one at all. */
static goff next_slice(struct image *img, const struct marking *m, goff off, goff end)
{
    const struct qcow2 *q = qcow2_of(img);
    goff next = round_down(off, UINT64_C(1) << q->slice_bits) + (UINT64_C(1) << q->slice_bits);
    while (!m->has_backing && next < end && q->l1.entries[next >> q->l1_bits] == 0)
        next = round_down(next, UINT64_C(1) << q->l1_bits) + (UINT64_C(1) << q->l1_bits);
    return next;
}

/* The file of a raw data file is the disk itself: it changes, and no entry needs to (section 19).
 */
static int zero_raw(struct image *img, goff off, uint64_t len, bool unmap,
                    struct platter_error *err)
{
    int r = qcow2_enter(img, err); /* a change like any other: the header is made ready */
    if (r < 0)
        return r;
    qcow2_leave(img);
    return stream_zero(qcow2_of(img)->data, off, len, unmap ? STREAM_ZERO_UNMAP : 0, err);
}

static int mark_all(struct image *img, const struct marking *m, goff off, goff end,
                    struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    int r = 0;

    while (off < end && r == 0) {
        r = qcow2_enter(img, err);
        if (r < 0)
            return r;
        goff slice_end =
            round_down(off, UINT64_C(1) << q->slice_bits) + (UINT64_C(1) << q->slice_bits);
        r = mark_slice(img, m, off, (min_u64(slice_end, end) - off) >> q->cluster_bits, err);
        off = next_slice(img, m, off, end);
        qcow2_leave(img);
    }
    return r;
}

int qcow2_mark(struct image *img, goff off, uint64_t len, enum mark mark, bool unmap,
               struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    struct marking m = {.mark = mark,
                        .unmap = unmap,
                        .has_backing = img->has_backing,
                        .has_zero = q->header.version >= 3,
                        .all = q->n_sub == 32 ? UINT32_MAX : 1};

    /* Zeros in a raw data file do not hide a backing file, which it should not have. */
    if (m.has_backing && (!m.has_zero || q->data_raw))
        return -ENOTSUP;
    int touched = qcow2_touch(img, off, len, err);
    if (touched < 0)
        return touched;
    if (q->data_raw)
        return zero_raw(img, off, len, unmap, err);
    return mark_all(img, &m, off, round_up(off + len, q->cluster_size), err);
}

int qcow2_uncover(struct image *img, goff off, uint64_t len, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    struct marking m = {.uncover = true, .unmap = true};

    if (q->data_file)
        return fail(err, ENOTSUP, "%s: what its data file holds cannot be taken out of the image",
                    img->stream->name);
    int r = qcow2_touch(img, off, len, err);
    return r < 0 ? r : mark_all(img, &m, off, round_up(off + len, q->cluster_size), err);
}

/* Behind the end of the disk, or where its end is to be: entries say nothing any more, whatever is
 * below. */
int qcow2_forget(struct image *img, goff off, goff end, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct marking m = {.mark = MARK_DISCARD, .unmap = true};
    uint64_t slice = UINT64_C(1) << q->slice_bits;
    int r = 0;

    for (goff next; off < end && r == 0; off = next) {
        next = next_slice(img, &m, off, end);
        if (q->l1.entries[off >> q->l1_bits])
            r = mark_slice(img, &m, off,
                           (min_u64(round_down(off, slice) + slice, end) - off) >> q->cluster_bits,
                           err);
        if (r == 0 && (slices_full(&q->l2) || q->n_frees >= QCOW2_MAX_FREES))
            r = qcow2_flush_locked(img, err);
    }
    return r;
}
