/* SPDX-License-Identifier: MIT */
/*
 * Clusters that a guest reads as zeros give up their place: those that are marked so and have one,
 * and those whose data is nothing but zeros.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/compact.h"

/* Whether all that the cluster holds is zeros. */
static int holds_zeros(struct compact *c, const struct qcow2_entry *e, goff guest, bool *ret,
                       struct platter_error *err)
{
    uint64_t len = c->q->cluster_size;

    *ret = e->alloc == 0;
    if (*ret || (c->img->sealed && !c->q->cipher)) /* a dry run asks for no key */
        return 0;
    pthread_mutex_unlock(&c->img->lock);
    int r = stream_pread_tail(c->img->stream, c->buffer, len, e->off, err);
    pthread_mutex_lock(&c->img->lock);
    if (r == 0 && c->img->sealed)
        qcow2_crypt(c->img, false, c->buffer, c->buffer, len, guest, e->off);
    if (r < 0)
        return r;
    uint64_t sub = UINT64_C(1) << c->q->sub_bits;
    *ret = true;
    for (uint32_t i = 0; *ret && i < c->q->n_sub; i++)
        *ret = !(e->alloc >> i & 1) || is_zero(c->buffer + i * sub, sub);
    return 0;
}

/* What the entry says then; false: it cannot say it. Version 2 has no zeros of its own. */
static bool drop_place(const struct compact *c, struct qcow2_entry *e)
{
    bool old = c->q->header.version < 3;
    e->zero = old ? 0 : e->zero | e->alloc;
    e->alloc = 0;
    e->off = 0;
    e->has_place = e->copied = false;
    return !old || !c->img->has_backing;
}

/* Some of the references to the cluster go: what is left may be one that has it alone, and a dry
 * run counts it when the last one goes. */
static int give_up(struct compact *c, uint64_t cluster, uint64_t paths, struct platter_error *err)
{
    uint64_t count;
    int r = qcow2_count_read(c->img, cluster, &count, err);
    c->unowned = c->unowned || (count > paths && !c->request->dry_run);
    if (r < 0 || !c->request->dry_run)
        return r;
    r = counts_add(&c->gone, cluster, 1, paths, err);
    if (r < 0 || counts_get(&c->gone, cluster) != count)
        return r;
    c->request->result.zeros_freed++;
    return counts_mark(&c->gone, MARK_WALKED, cluster, 1, err);
}

static int zero_slice(struct compact *c, hoff off, goff guest, uint64_t paths,
                      struct platter_error *err)
{
    const struct qcow2 *q = c->q;
    struct qcow2_entry e;
    bool changed = false, zeros;

    int r = compact_slice_get(c, off, err);
    if (r < 0)
        return r;
    c->kept_lower = c->n_lower;
    for (uint32_t at = 0; r == 0 && at < q->l2.slice; at += q->entry_size) {
        r = qcow2_entry_decode(c->img, c->slice + at, guest, &e, err);
        if (r == 0 && e.has_place && !e.packed) {
            uint64_t cluster = e.off >> q->cluster_bits;
            r = holds_zeros(c, &e, guest, &zeros, err);
            if (r == 0 && zeros && drop_place(c, &e)) {
                qcow2_entry_encode(c->img, c->slice + at, &e);
                compact_lower(c, cluster, 1, paths);
                r = give_up(c, cluster, paths, err);
                changed = true;
            }
        }
        guest += q->cluster_size;
    }
    if (r == 0 && changed && !c->request->dry_run)
        r = compact_slice_put(c, off, err);
    if (r < 0 || c->request->dry_run)
        c->n_lower = c->kept_lower;
    return r;
}

static int zero_table(struct compact *c, hoff table, goff guest, uint64_t paths,
                      struct platter_error *err)
{
    int r = 0;
    for (uint64_t at = 0; r == 0 && at < c->q->cluster_size; at += c->q->l2.slice) {
        if (c->n_lower >= c->most_lower || slices_full(&c->q->l2))
            r = compact_settle(c, err);
        if (r == 0)
            r = zero_slice(c, table + at, guest, paths, err);
        guest += UINT64_C(1) << c->q->slice_bits;
        if (r == 0)
            r = compact_tick(c, err);
    }
    return r;
}

/* Also after an error: what was given up by then is. To one view a cluster may be zeros that is
 * data to another, who then has it alone. */
static int end_zeros(struct compact *c, struct platter_error *err)
{
    uint64_t before = c->used;

    if (c->request->dry_run || atomic_load(&c->img->poison) < 0)
        return 0;
    int r = compact_settle(c, err);
    if (r == 0)
        r = compact_own(c, err);
    if (r == 0)
        r = compact_measure(c, err);
    if (r == 0)
        c->request->result.zeros_freed = before - c->used;
    return r;
}

int compact_zeros(struct compact *c, struct platter_error *err)
{
    if (c->q->data_file)
        return 0;
    int r = compact_count_tables(c, err);
    if (r == 0)
        r = compact_each_table(c, zero_table, err);
    int e = end_zeros(c, r < 0 ? NULL : err);
    return r < 0 ? r : e;
}
