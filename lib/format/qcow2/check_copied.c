/* SPDX-License-Identifier: MIT */
/*
 * Bit 63 of the active L1 table and of its L2 tables (sections 3, 18): set where the stored count
 * of what an entry points at is 1, and only there. A stale 1 lets the next write change what
 * somebody else refers to; a stale 0 costs a copy.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/check.h"

/* Flags that are wrong in one table. */
struct flags {
    bool mend;
    uint64_t stale, missing;
    uint64_t first_index; /* of an entry that is wrong, for the sentence */
};

int qcow2_check_stored(struct qcow2_check *k, uint64_t cluster, uint64_t *ret,
                       struct platter_error *err)
{
    uint32_t order = k->q->header.refcount_order;
    unsigned bits = k->q->cluster_bits + 3 - order;
    uint64_t slice_bytes = min_u64(CHECK_PIECE, k->q->cluster_size);
    uint64_t per_slice = slice_bytes * 8 >> order, j = cluster & ((UINT64_C(1) << bits) - 1);
    hoff block = qcow2_check_block(k, cluster >> bits);

    *ret = 0;
    if (!block)
        return 0;
    hoff at = block + j / per_slice * slice_bytes;
    if (at != k->slice_at) {
        k->slice_at = 0;
        int r = qcow2_check_read(k, k->slice, slice_bytes, at, err);
        if (r)
            return r;
        k->slice_at = at;
    }
    *ret = qcow2_count_get(k->slice, order, j % per_slice);
    return 0;
}

/* Whether the flag may and should be set. A count that cannot hold what was counted does not make
 * anybody the owner. */
static int is_owned(struct qcow2_check *k, uint64_t cluster, bool *ret, struct platter_error *err)
{
    uint64_t stored;
    if (!k->mismatch && k->first_pass && !k->counts.cut) { /* what is stored is what was counted */
        *ret = counts_get(&k->counts, cluster) == 1;
        return 0;
    }
    int r = qcow2_check_stored(k, cluster, &stored, err);
    *ret = stored == 1 && counts_get(&k->counts, cluster) <= 1;
    return r;
}

static void judge_flag(struct flags *f, uint8_t *entry, uint64_t index, bool owned)
{
    uint64_t raw = get_be(entry, 8);
    if (owned == (raw >> 63))
        return;
    if (f->stale + f->missing == 0)
        f->first_index = index;
    (*(owned ? &f->missing : &f->stale))++;
    put_be(entry, 8, raw ^ QCOW2_COPIED);
}

static int end_table(struct qcow2_check *k, const struct flags *f, const char *what, hoff off,
                     const uint8_t *bytes, uint64_t len, struct platter_error *err)
{
    uint64_t n = f->stale + f->missing;
    if (n == 0)
        return 0;
    check_found(k->check, PLATTER_FINDING_ERROR, f->mend, n,
                "%s: bit 63 of %" PRIu64 " entries of the %s at %" PRIu64
                " is wrong (from entry %" PRIu64 " on; set though what they point at is shared: "
                "%" PRIu64 ", clear though it is not: %" PRIu64 ")",
                k->name, n, what, off, f->first_index, f->stale, f->missing);
    return f->mend && !k->failed ? qcow2_repair_write(k, bytes, len, off, err) : 0;
}

/* The flag of an L2 entry. The data of a data file belongs to nobody else: section 3. */
static int judge_entry(struct qcow2_check *k, struct flags *f, uint64_t at,
                       struct platter_error *err)
{
    const struct qcow2 *q = k->q;
    uint64_t raw = get_be(k->table + at, 8), place = raw & QCOW2_OFFSET_MASK;
    bool owned = true;
    int r = 0;
    if (raw & QCOW2_PACKED || place == 0)
        return 0;
    if (!q->data_file && qcow2_check_place(k, place, q->cluster_size))
        return 0;
    if (!q->data_file)
        r = is_owned(k, place >> q->cluster_bits, &owned, err);
    if (r == 0)
        judge_flag(f, k->table + at, at / q->entry_size, owned);
    return r;
}

static int judge_l2(struct qcow2_check *k, hoff off, bool mend, struct platter_error *err)
{
    const struct qcow2 *q = k->q;
    struct flags f = {.mend = mend};
    bool empty;
    if (counts_marked(&k->counts, MARK_FLAGS, off >> q->cluster_bits))
        return 0;
    int r = counts_mark(&k->counts, MARK_FLAGS, off >> q->cluster_bits, 1, err);
    if (r == 0)
        r = qcow2_check_read_table(k, off, &empty, err);
    if (r || empty || !qcow2_check_is_table(k))
        return r;
    for (uint64_t at = 0; r == 0 && at < q->cluster_size; at += q->entry_size)
        r = judge_entry(k, &f, at, err);
    return r ? r : end_table(k, &f, "L2 table", off, k->table, q->cluster_size, err);
}

/* A piece of the L1 table, in k->l1; then what its entries point at. */
static int judge_piece(struct qcow2_check *k, hoff off, uint64_t n, bool mend,
                       struct platter_error *err)
{
    struct flags f = {.mend = mend};
    int r = qcow2_check_read(k, k->l1, n * 8, off, err);
    for (uint64_t i = 0; r == 0 && i < n; i++) {
        uint64_t right, raw = get_be(k->l1 + i * 8, 8);
        bool always, owned;
        qcow2_check_l1_entry(k, raw, &right, &always);
        hoff place = right & QCOW2_OFFSET_MASK;
        if (place == 0)
            continue;
        r = is_owned(k, place >> k->q->cluster_bits, &owned, err);
        if (r)
            break;
        judge_flag(&f, k->l1 + i * 8, i, owned);
        r = judge_l2(k, place, mend, err);
    }
    return r ? r : end_table(k, &f, "L1 table", off, k->l1, n * 8, err);
}

int qcow2_check_copied(struct qcow2_check *k, bool mend, struct platter_error *err)
{
    const struct qcow2_header *h = &k->q->header;
    int r = 0;
    for (uint64_t first = 0, n; r == 0 && first < h->l1_size; first += n) {
        n = min_u64(h->l1_size - first, CHECK_PIECE / 8);
        r = judge_piece(k, h->l1_offset + first * 8, n, mend, err);
        if (r == 0)
            r = check_progress(k->check, k->done, k->total, err);
    }
    return r < 0 ? r : 0;
}
