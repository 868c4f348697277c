/* SPDX-License-Identifier: MIT */
/*
 * The check of the reference counts (sections 3, 18): the table and its blocks, which must be used
 * by nothing else, and what they say against what was counted.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/check.h"

static unsigned block_bits(const struct qcow2_check *k)
{
    return k->q->cluster_bits + 3 - k->q->header.refcount_order;
}

/* ---- the table ---------------------------------------------------------------------------------
 */

static const char *judge_header(const struct qcow2_check *k)
{
    const struct qcow2_header *h = &k->q->header;
    uint64_t bytes = h->reftable_clusters * k->q->cluster_size;
    if (bytes == 0 || bytes > QCOW2_MAX_REFTABLE_BYTES)
        return "it must have 1 cluster or more, and 8 MiB at most";
    return qcow2_check_place(k, h->reftable_offset, bytes);
}

void qcow2_check_forget_reftable(struct qcow2_check *k)
{
    budget_free(k->img->budget, k->reftable, k->n_reftable * UINT64_C(8));
    budget_free(k->img->budget, k->counted_blocks, k->n_reftable / 8 + UINT64_C(1));
    k->reftable = NULL;
    k->counted_blocks = NULL;
    k->n_reftable = 0;
}

int qcow2_check_load_reftable(struct qcow2_check *k, struct platter_error *err)
{
    const struct qcow2_header *h = &k->q->header;
    k->bad_reftable = judge_header(k);
    qcow2_check_forget_reftable(k);
    k->slice_at = 0;
    if (k->bad_reftable)
        return 0;
    uint64_t bytes = h->reftable_clusters * k->q->cluster_size;
    int r = budget_alloc(k->img->budget, bytes, "the refcount table", &k->reftable, err);
    if (r < 0)
        return r;
    k->n_reftable = (uint32_t)(bytes / 8);
    r = budget_alloc(k->img->budget, k->n_reftable / 8 + UINT64_C(1), "the refcount table",
                     &k->counted_blocks, err);
    if (r < 0)
        return r;
    r = qcow2_check_read(k, k->reftable, bytes, h->reftable_offset, err);
    const uint8_t *raw = (const void *)k->reftable;
    for (uint32_t i = 0; i < k->n_reftable; i++)
        k->reftable[i] = get_be(raw + i * UINT64_C(8), 8);
    return r < 0 ? r : 0;
}

hoff qcow2_check_block(const struct qcow2_check *k, uint64_t i)
{
    uint64_t raw = i < k->n_reftable ? k->reftable[i] : 0;
    return raw & QCOW2_RB_RESERVED || qcow2_check_place(k, raw, k->q->cluster_size) ? 0 : raw;
}

bool qcow2_check_may_rebuild(const struct qcow2_check *k)
{
    return k->raise && !k->failed && k->check->result.corruptions == 0;
}

static const char *judge_block(const struct qcow2_check *k, uint64_t raw)
{
    const char *why = raw & QCOW2_RB_RESERVED ? "reserved bits are set"
                                              : qcow2_check_place(k, raw, k->q->cluster_size);
    if (!why && counts_any(&k->counts, raw >> k->q->cluster_bits, 1))
        why = "something else stands there, or another block";
    return why;
}

static int count_block(struct qcow2_check *k, uint32_t i, struct platter_error *err)
{
    uint64_t raw = k->reftable[i];
    const char *why = raw ? judge_block(k, raw) : NULL;
    if (why) {
        k->rebuild = true;
        CHECK_ERROR(k, qcow2_check_may_rebuild(k),
                    "%s: entry %" PRIu32 " of the refcount table is 0x%" PRIx64 ": %s", k->name, i,
                    raw, why);
    }
    if (!raw || why)
        return 0;
    k->counted_blocks[i / 8] |= (uint8_t)(1u << i % 8);
    int r = qcow2_check_whole(k, k->first_pass, "a refcount block", raw, k->q->cluster_size, err);
    return r < 0 ? r : counts_add(&k->counts, raw >> k->q->cluster_bits, 1, 1, err);
}

/* Judges the place of the table, and counts it there. */
static int count_table(struct qcow2_check *k, struct platter_error *err)
{
    const struct qcow2_header *h = &k->q->header;
    uint64_t first = h->reftable_offset >> k->q->cluster_bits;
    const char *why = k->first_pass ? k->bad_reftable : NULL;
    if (!k->bad_reftable && counts_any(&k->counts, first, h->reftable_clusters))
        why = "something else stands there";
    k->counted_table = !k->bad_reftable && !why;
    if (why) {
        bool anew = qcow2_check_may_rebuild(k);
        CHECK_ERROR(k, anew, "%s: the refcount table at %" PRIu64 " of %" PRIu32 " clusters: %s%s",
                    k->name, h->reftable_offset, h->reftable_clusters, why,
                    anew ? "; all counts are made anew" : "");
        k->rebuild = true;
    }
    if (!k->counted_table)
        return 0;
    int r = qcow2_check_whole(k, k->first_pass, "the refcount table", h->reftable_offset,
                              h->reftable_clusters * k->q->cluster_size, err);
    return r < 0 ? r : counts_add(&k->counts, first, h->reftable_clusters, 1, err);
}

/* Takes back what qcow2_check_reftable() counted: these clusters are free once there are new ones.
 */
void qcow2_check_forget_counted(struct qcow2_check *k)
{
    const struct qcow2_header *h = &k->q->header;
    if (k->counted_table)
        counts_take(&k->counts, h->reftable_offset >> k->q->cluster_bits, h->reftable_clusters);
    for (uint32_t i = 0; i < k->n_reftable; i++)
        if (k->counted_blocks[i / 8] >> i % 8 & 1)
            counts_take(&k->counts, k->reftable[i] >> k->q->cluster_bits, 1);
}

int qcow2_check_reftable(struct qcow2_check *k, struct platter_error *err)
{
    int r = count_table(k, err);
    for (uint32_t i = 0; r == 0 && i < k->n_reftable; i++)
        r = count_block(k, i, err);
    return r;
}

/* ---- which of them are surely what they should be ----------------------------------------------
 */

/* Whether a block counts nothing behind the end of the file: a cluster of data that is taken for
 * one would. 1: it could not be read. */
static int ends_with_file(struct qcow2_check *k, uint64_t i, hoff block, bool *ret,
                          struct platter_error *err)
{
    uint64_t first = i << block_bits(k), end = first + (UINT64_C(1) << block_bits(k));
    uint64_t slice_bytes = min_u64(CHECK_PIECE, k->q->cluster_size);
    uint64_t per_slice = slice_bytes * 8 >> k->q->header.refcount_order;

    *ret = true;
    k->slice_at = 0;
    for (uint64_t at = max_u64(first, k->made_at); *ret && at < end;) {
        uint64_t slice = (at - first) / per_slice, j = (at - first) % per_slice;
        hoff off = block + slice * slice_bytes;
        bool hole = qcow2_check_hole(k, off, slice_bytes) == slice_bytes;
        int r = hole ? 0 : qcow2_check_read(k, k->slice, slice_bytes, off, err);
        if (r)
            return r;
        k->zeros = hole || is_zero(k->slice, slice_bytes);
        if (k->zeros) {
            at += per_slice - j;
            continue;
        }
        for (; *ret && j < per_slice; j++, at++)
            *ret = qcow2_count_get(k->slice, k->q->header.refcount_order, j) == 0;
    }
    return 0;
}

static int mark_block(struct qcow2_check *k, uint32_t i, struct platter_error *err)
{
    hoff block = qcow2_check_block(k, i);
    uint64_t cluster = block >> k->q->cluster_bits, stored;
    bool sure;
    if (!block || counts_any(&k->counts, cluster, 1) ||
        counts_marked(&k->counts, MARK_FIXED, cluster))
        return 0;
    int r = qcow2_check_stored(k, cluster, &stored, err);
    if (r || stored != 1)
        return r;
    if ((i + UINT64_C(1)) << block_bits(k) > k->made_at) {
        r = ends_with_file(k, i, block, &sure, err);
        if (r || !sure)
            return r;
    }
    return counts_mark(&k->counts, MARK_FIXED, cluster, 1, err);
}

int qcow2_check_sure_refcounts(struct qcow2_check *k, struct platter_error *err)
{
    const struct qcow2_header *h = &k->q->header;
    uint64_t first = h->reftable_offset >> k->q->cluster_bits;
    bool sure = k->reftable && !counts_any(&k->counts, first, h->reftable_clusters);
    for (uint32_t i = 0; sure && i < k->n_reftable; i++)
        sure = k->reftable[i] == 0 || qcow2_check_block(k, i);
    int r = sure ? counts_mark(&k->counts, MARK_FIXED, first, h->reftable_clusters, err) : 0;
    for (uint32_t i = 0; sure && r == 0 && i < k->n_reftable; i++)
        r = mark_block(k, i, err);
    return r < 0 ? r : 0;
}

/* ---- comparing ---------------------------------------------------------------------------------
 */

/* What a comparison is to do, and what it saw. */
struct compare {
    bool tell, raise, lower;
    bool dry; /* what is to change is only told: all counts are about to be made anew */
    uint64_t errors, leaks;
    bool ours;      /* what the repair made is not counted yet */
    hoff bare;      /* the first cluster in use that has no block at all */
    uint64_t bares; /* how many there are */
    bool changed;   /* the slice that is being compared */
    /* A run of clusters of which the same is to be told. */
    uint64_t first, n, stored, counted;
};

static void tell_run(struct qcow2_check *k, const struct compare *c)
{
    bool leak = c->stored > c->counted;
    bool overflow = c->counted > qcow2_count_max(k->q->header.refcount_order);
    bool mended = leak ? c->lower : c->raise && !overflow;
    hoff from = c->first << k->q->cluster_bits, to = (c->first + c->n) << k->q->cluster_bits;
    check_found(k->check, leak ? PLATTER_FINDING_LEAK : PLATTER_FINDING_ERROR, mended, c->n,
                "%s: the clusters at %" PRIu64 " .. %" PRIu64 " have the reference count %" PRIu64
                ", but %" PRIu64 " references%s",
                k->name, from, to, c->stored, c->counted,
                overflow ? ", more than a count can hold: convert the image" : "");
}

static void end_run(struct qcow2_check *k, struct compare *c)
{
    bool ours = c->n && c->first >= k->made_at && c->stored < c->counted;
    c->ours = c->ours || ours;
    if (c->n && !ours) {
        bool overflow = c->counted > qcow2_count_max(k->q->header.refcount_order);
        k->overflow = k->overflow || overflow;
        *(c->stored > c->counted ? &c->leaks : &c->errors) += c->n;
        if (c->tell)
            tell_run(k, c);
    }
    c->n = 0;
}

static void note(struct qcow2_check *k, struct compare *c, uint64_t cluster, uint64_t stored,
                 uint64_t counted)
{
    bool same_side = (cluster >= k->made_at) == (c->first >= k->made_at);
    if (c->n && c->first + c->n == cluster && c->stored == stored && c->counted == counted &&
        same_side) {
        c->n++;
        return;
    }
    end_run(k, c);
    c->first = cluster;
    c->n = 1;
    c->stored = stored;
    c->counted = counted;
}

static void use(struct qcow2_check *k, uint64_t cluster)
{
    if (cluster >= k->used)
        k->used = cluster + 1;
    if (cluster >= k->used_there && cluster < k->made_at)
        k->used_there = cluster + 1;
}

static void compare_one(struct qcow2_check *k, struct compare *c, uint8_t *bytes, uint64_t j,
                        uint64_t cluster)
{
    uint32_t order = k->q->header.refcount_order;
    uint64_t stored = bytes ? qcow2_count_get(bytes, order, j) : 0;
    uint64_t counted = counts_get(&k->counts, cluster);
    if (stored || counted)
        use(k, cluster);
    if (stored == counted)
        return;
    k->mismatch = true;
    if (!bytes && counted <= qcow2_count_max(order)) {
        c->bare = c->bares++ ? c->bare : cluster << k->q->cluster_bits;
        return;
    }
    note(k, c, cluster, stored, counted);
    if (bytes && !c->dry &&
        (stored > counted ? c->lower : c->raise && counted <= qcow2_count_max(order))) {
        qcow2_count_put(bytes, order, j, counted);
        c->changed = true;
    }
}

/* 64 clusters at once, whose counts are 16 bits each and all 0 or 1, as nearly all are. */
static bool compare_word(struct qcow2_check *k, const uint8_t *bytes, uint64_t cluster)
{
    static const uint8_t ones[128] = {
        0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1,
        0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1,
        0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1,
        0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1,
        0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1};
    uint64_t word;
    if (!counts_word(&k->counts, cluster, &word))
        return false;
    if (word == 0)
        return is_zero(bytes, sizeof ones);
    if (word != UINT64_MAX || memcmp(bytes, ones, sizeof ones) != 0)
        return false;
    use(k, cluster + 63);
    if (cluster < k->made_at) /* the file may end between them */
        use(k, min_u64(cluster + 63, k->made_at - 1));
    return true;
}

/* The clusters [first, end), whose counts begin at entry j of `bytes`; NULL: they have no block. */
static void compare_range(struct qcow2_check *k, struct compare *c, uint8_t *bytes, uint64_t j,
                          uint64_t first, uint64_t end)
{
    bool fast = bytes && k->q->header.refcount_order == 4;
    while (first < end) {
        if (fast && first % 64 == 0 && end - first >= 64 && compare_word(k, bytes + j * 2, first)) {
            first += 64;
            j += 64;
            continue;
        }
        compare_one(k, c, bytes, j++, first++);
    }
}

static int compare_block(struct qcow2_check *k, struct compare *c, uint64_t i, uint64_t first,
                         uint64_t end, struct platter_error *err)
{
    uint64_t per_slice =
        min_u64(CHECK_PIECE, k->q->cluster_size) * 8 >> k->q->header.refcount_order;
    uint64_t slice_bytes = per_slice << k->q->header.refcount_order >> 3;
    bool alone = i < k->n_reftable && (k->counted_blocks[i / 8] >> i % 8 & 1);
    hoff block = alone ? qcow2_check_block(k, i) : 0;
    uint64_t start = i << block_bits(k);
    if (!block) {
        if (!counts_any(&k->counts, first, end - first))
            return 0;
        k->rebuild = true;
        compare_range(k, c, NULL, 0, first, min_u64(end, k->made_at));
        return 0;
    }
    for (uint64_t at; first < end; first = at) {
        uint64_t slice = (first - start) / per_slice;
        hoff off = block + slice * slice_bytes;
        at = min_u64(end, start + (slice + 1) * per_slice);
        bool used = counts_any(&k->counts, first, at - first);
        if (!used && qcow2_check_hole(k, off, slice_bytes) == slice_bytes)
            continue;
        int r = qcow2_check_read(k, k->slice, slice_bytes, off, err);
        if (r)
            return r;
        k->zeros = is_zero(k->slice, slice_bytes);
        if (!used && k->zeros)
            continue;
        c->changed = false;
        compare_range(k, c, k->slice, (first - start) % per_slice, first, at);
        if (c->changed)
            r = qcow2_repair_write(k, k->slice, slice_bytes, off, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Clusters without a block are many at once, or none: they are told of together. */
static void end_bare(struct qcow2_check *k, struct compare *c)
{
    c->errors += c->bares;
    if (c->bares && c->tell)
        check_found(k->check, PLATTER_FINDING_ERROR, c->raise, c->bares,
                    "%s: %" PRIu64 " clusters in use, from that at %" PRIu64
                    " on, have no refcount block: their reference count is 0",
                    k->name, c->bares, c->bare);
}

/* All clusters of this pass that are in use, or that some block counts. */
static int compare_all(struct qcow2_check *k, struct compare *c, struct platter_error *err)
{
    unsigned bits = block_bits(k);
    uint64_t end = max_u64(counts_end(&k->counts), (uint64_t)k->n_reftable << bits);
    int r = 0;
    k->slice_at = 0;
    end = min_u64(end, k->counts.limit);
    for (uint64_t first = k->counts.first, next; r == 0 && first < end; first = next) {
        next = min_u64(((first >> bits) + 1) << bits, end);
        r = compare_block(k, c, first >> bits, first, next, err);
    }
    end_run(k, c);
    end_bare(k, c);
    return r < 0 ? r : 0;
}

int qcow2_check_compare(struct qcow2_check *k, struct platter_error *err)
{
    struct compare look = {.tell = !k->raise && !k->lower}, act = {.tell = true};
    int r = compare_all(k, &look, err);
    if (r < 0 || look.tell || k->failed)
        return r;
    act.dry = k->rebuild && qcow2_check_may_rebuild(k);
    act.raise = k->raise && (act.dry || !k->rebuild);
    /* Space is given back only if nothing else is wrong: it may be all that is left of something.
     */
    act.lower = act.dry || (k->check->result.corruptions == 0 && !k->overflow &&
                            (k->mend || !k->doubtful) && (k->raise || look.errors == 0));
    if (!act.dry && (look.errors || look.leaks || look.ours))
        r = qcow2_repair_barrier(k, err);
    if (r == 0 && (act.dry || look.errors || look.leaks || look.ours))
        r = compare_all(k, &act, err);
    return r == 0 && act.dry && !k->failed ? qcow2_check_rebuild(k, err) : r;
}
