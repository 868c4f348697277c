/* SPDX-License-Identifier: MIT */
/*
 * The check of L1 tables, the active one and those of snapshots (sections 4, 9, 18): twice over.
 * First all that are tables are counted, so that it is known what no data may be; then what L2
 * tables point at. A table that several L1 tables share is read once, and what it points at counts
 * as often as the table is pointed at (section 3).
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/check.h"

enum { PIECE_ENTRIES = CHECK_PIECE / 8 };

int qcow2_check_trees(struct qcow2_check *k,
                      int (*fn)(struct qcow2_check *k, const struct check_tree *t,
                                struct platter_error *err),
                      struct platter_error *err)
{
    const struct qcow2_header *h = &k->q->header;
    struct check_tree t = {.l1 = h->l1_offset, .n = h->l1_size, .snapshot = -1};
    int r = fn(k, &t, err);
    for (uint32_t i = 0; r == 0 && i < k->n_snapshots; i++) {
        const struct check_snapshot *s = &k->snapshots[i];
        t = (struct check_tree){.l1 = s->l1_offset, .n = s->l1_size, .snapshot = (int)i};
        if (!s->drop)
            r = fn(k, &t, err);
    }
    return r;
}

/* The entries of an L1 table from `first` on, as many as are read at once, into k->l1; *ret_empty:
 * there is nothing in them, nor in k->l1. */
static int read_piece(struct qcow2_check *k, const struct check_tree *t, uint64_t first,
                      uint64_t *ret_n, bool *ret_empty, struct platter_error *err)
{
    hoff off = t->l1 + first * 8;
    *ret_n = qcow2_check_hole(k, off, (t->n - first) * 8) / 8;
    *ret_empty = *ret_n > 0;
    if (*ret_empty)
        return 0;
    *ret_n = min_u64(t->n - first, PIECE_ENTRIES);
    int r = qcow2_check_read(k, k->l1, *ret_n * 8, off, err);
    *ret_empty = k->zeros = r == 0 && is_zero(k->l1, *ret_n * 8);
    return r;
}

int qcow2_check_read_table(struct qcow2_check *k, hoff off, bool *ret_empty,
                           struct platter_error *err)
{
    uint64_t size = k->q->cluster_size;
    *ret_empty = qcow2_check_hole(k, off, size) == size;
    if (*ret_empty)
        return 0;
    int r = qcow2_check_read(k, k->table, size, off, err);
    *ret_empty = k->zeros = r == 0 && is_zero(k->table, size);
    return r;
}

/* ---- which clusters are L2 tables --------------------------------------------------------------
 */

static bool covers(hoff table, uint64_t len, hoff off)
{
    return off >= table && off - table < len;
}

bool qcow2_check_is_fixed(const struct qcow2_check *k, hoff off)
{
    const struct qcow2_header *h = &k->q->header;
    const struct qcow2_extensions *x = &k->q->extensions;
    bool is = off < k->q->cluster_size || covers(h->l1_offset, h->l1_size * UINT64_C(8), off) ||
              covers(h->snapshots_offset, k->snapshots_size, off) ||
              (x->has_crypto && covers(x->crypto_offset, x->crypto_len, off));
    for (uint32_t i = 0; !is && i < k->n_snapshots; i++)
        is = !k->snapshots[i].drop &&
             covers(k->snapshots[i].l1_offset, k->snapshots[i].l1_size * UINT64_C(8), off);
    return is;
}

const char *qcow2_check_l1_entry(const struct qcow2_check *k, uint64_t raw, uint64_t *ret,
                                 bool *ret_always)
{
    const char *why = raw & QCOW2_L1_RESERVED ? "reserved bits are set" : NULL;
    hoff off = raw & QCOW2_OFFSET_MASK;
    const char *misplaced = off ? qcow2_check_place(k, off, k->q->cluster_size) : NULL;

    *ret = raw & ~QCOW2_L1_RESERVED;
    *ret_always = false;
    if (!misplaced && off && counts_marked(&k->counts, MARK_FIXED, off >> k->q->cluster_bits)) {
        misplaced = "another table stands there";
        *ret_always = true;
    }
    if (misplaced)
        *ret = 0;
    return misplaced ? misplaced : why;
}

static void tell_l1(struct qcow2_check *k, const struct check_tree *t, uint64_t i, uint64_t raw,
                    bool lost, const char *why)
{
    char where[40] = "the active L1 table";
    if (t->snapshot >= 0)
        snprintf(where, sizeof where, "the L1 table of snapshot %d", t->snapshot + 1);
    CHECK_ERROR(k, k->mend,
                "%s: entry %" PRIu64 " of %s (guest offset %" PRIu64 ") is 0x%" PRIx64 ": %s%s",
                k->name, i, where, i << k->q->l1_bits, raw, why,
                !k->mend ? ""
                : lost   ? "; what it mapped is lost, and reads as if it were never written"
                         : "");
}

/* Before a repair believes an entry: does it lead to an L2 table at all? */
static int look_at_table(struct qcow2_check *k, uint64_t *raw, const char **why,
                         struct platter_error *err)
{
    hoff off = *raw & QCOW2_OFFSET_MASK;
    uint64_t cluster = off >> k->q->cluster_bits;
    int r = 0;
    if (counts_marked(&k->counts, MARK_L2, cluster))
        return 0;
    if (!counts_marked(&k->counts, MARK_OTHER, cluster)) {
        bool empty;
        r = qcow2_check_read_table(k, off, &empty, err);
        if (r)
            return r < 0 ? r : 0;
        if (empty || qcow2_check_is_table(k))
            return 0;
        r = counts_mark(&k->counts, MARK_OTHER, cluster, 1, err);
    }
    *why = "what stands there is no L2 table";
    *raw = 0;
    return r;
}

static int count_table(struct qcow2_check *k, const struct check_tree *t, uint64_t raw,
                       struct platter_error *err)
{
    uint64_t cluster = (raw & QCOW2_OFFSET_MASK) >> k->q->cluster_bits;
    if (t->snapshot < 0 && !(raw & QCOW2_COPIED))
        k->unowned = true;
    int r = counts_add(&k->counts, cluster, 1, 1, err);
    return r < 0 ? r : counts_mark(&k->counts, MARK_L2, cluster, 1, err);
}

static int count_entry(struct qcow2_check *k, const struct check_tree *t, uint64_t i,
                       uint8_t *bytes, struct platter_error *err)
{
    uint64_t raw = get_be(bytes, 8), right;
    bool always;
    int r = 0;
    const char *why = qcow2_check_l1_entry(k, raw, &right, &always);
    if (k->mend && right & QCOW2_OFFSET_MASK)
        r = look_at_table(k, &right, &why, err);
    if (r < 0)
        return r;
    if (why && (k->first_pass || always || k->mend))
        tell_l1(k, t, i, raw, right == 0, why);
    if (k->mend && !k->failed && right != raw) {
        put_be(bytes, 8, right);
        r = qcow2_repair_write(k, bytes, 8, t->l1 + i * 8, err);
    }
    return r == 0 && right & QCOW2_OFFSET_MASK ? count_table(k, t, right, err) : r;
}

static int count_tree(struct qcow2_check *k, const struct check_tree *t, struct platter_error *err)
{
    uint64_t n;
    bool empty;
    for (uint64_t first = 0; first < t->n; first += n) {
        int r = read_piece(k, t, first, &n, &empty, err);
        for (uint64_t i = 0; r == 0 && !empty && i < n; i++)
            if (get_be(k->l1 + i * 8, 8))
                r = count_entry(k, t, first + i, k->l1 + i * 8, err);
        if (r)
            return r < 0 ? r : 0;
    }
    return check_progress(k->check, k->done, k->total, err);
}

int qcow2_check_tables(struct qcow2_check *k, struct platter_error *err)
{
    k->done = 0;
    k->total = k->q->header.l1_size + UINT64_C(1);
    for (uint32_t i = 0; i < k->n_snapshots; i++)
        k->total += k->snapshots[i].drop ? 0 : k->snapshots[i].l1_size;
    return qcow2_check_trees(k, count_tree, err);
}

/* ---- what they point at ------------------------------------------------------------------------
 */

/* The table behind an entry, unless it was seen. */
static int walk_entry(struct qcow2_check *k, const struct check_tree *t, uint64_t i, uint64_t raw,
                      struct platter_error *err)
{
    uint64_t right, by = 1;
    bool always, empty;
    qcow2_check_l1_entry(k, raw, &right, &always);
    hoff off = right & QCOW2_OFFSET_MASK;
    uint64_t cluster = off >> k->q->cluster_bits;
    if (off == 0)
        return 0;
    bool inside = counts_inside(&k->counts, cluster);
    if (inside) {
        if (counts_marked(&k->counts, MARK_WALKED, cluster))
            return 0;
        int r = counts_mark(&k->counts, MARK_WALKED, cluster, 1, err);
        if (r < 0)
            return r;
        by = counts_get(&k->counts, cluster);
    }
    int r = qcow2_check_read_table(k, off, &empty, err);
    if (r == 0)
        r = qcow2_check_whole(k, inside, "an L2 table", off, k->q->cluster_size, err);
    if (r || empty)
        return r < 0 ? r : 0;
    /* Where the piece just read made the window smaller the count is not there: once, then. */
    r = qcow2_check_l2_table(k, t, i, off, by ? by : 1, err);
    return r < 0 ? r : check_progress(k->check, k->done + i, k->total, err);
}

static int walk_tree(struct qcow2_check *k, const struct check_tree *t, struct platter_error *err)
{
    uint64_t n;
    bool empty;
    for (uint64_t first = 0; first < t->n; first += n) {
        int r = read_piece(k, t, first, &n, &empty, err);
        for (uint64_t i = 0; r == 0 && !empty && i < n; i++) {
            uint64_t raw = get_be(k->l1 + i * 8, 8);
            if (raw)
                r = walk_entry(k, t, first + i, raw, err);
        }
        if (r)
            return r < 0 ? r : 0;
    }
    k->done += t->n;
    return 0;
}

int qcow2_check_data(struct qcow2_check *k, struct platter_error *err)
{
    return qcow2_check_trees(k, walk_tree, err);
}
