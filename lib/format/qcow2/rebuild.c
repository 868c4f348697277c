/* SPDX-License-Identifier: MIT */
/*
 * Refcount table and blocks made anew from what was counted (section 18). They are written where
 * they overwrite nothing; one write of the header takes them over. What was there before is free
 * then.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/check.h"

/* Where all of it goes, in clusters: blocks in the order of what they describe, then the table. */
struct plan {
    unsigned block_bits;
    uint64_t start, blocks, table;
    uint64_t entries; /* of the table that are used */
};

static uint64_t end_of(const struct plan *p)
{
    return p->start + p->blocks + p->table;
}

static bool is_needed(const struct qcow2_check *k, const struct plan *p, uint64_t i)
{
    uint64_t first = i << p->block_bits, n = UINT64_C(1) << p->block_bits;
    return counts_any(&k->counts, first, n) || (first < end_of(p) && first + n > p->start);
}

/* Blocks describe themselves and the table, too: repeated until nothing is missing. */
static int make_plan(const struct qcow2_check *k, struct plan *p, struct platter_error *err)
{
    uint64_t blocks, table;
    *p = (struct plan){.block_bits = k->q->cluster_bits + 3 - k->q->header.refcount_order,
                       .start = k->end >> k->q->cluster_bits,
                       .blocks = 1,
                       .table = 1};
    do {
        blocks = p->blocks;
        table = p->table;
        p->entries = div_up(end_of(p), UINT64_C(1) << p->block_bits);
        p->blocks = 0;
        for (uint64_t i = 0; i < p->entries; i++)
            p->blocks += is_needed(k, &(struct plan){p->block_bits, p->start, blocks, table, 0}, i);
        p->table = div_up(p->entries * 8, k->q->cluster_size);
        p->blocks = max_u64(p->blocks, blocks);
        if (p->table << k->q->cluster_bits > QCOW2_MAX_REFTABLE_BYTES)
            return fail(err, EFBIG, "%s: the file needs a refcount table of more than 8 MiB",
                        k->name);
    } while (p->blocks != blocks || p->table != table);
    return 0;
}

static uint64_t count_of(const struct qcow2_check *k, const struct plan *p, uint64_t cluster)
{
    uint64_t count =
        cluster >= p->start && cluster < end_of(p) ? 1 : counts_get(&k->counts, cluster);
    return min_u64(count, qcow2_count_max(k->q->header.refcount_order));
}

static int write_block(struct qcow2_check *k, const struct plan *p, uint64_t i, hoff off,
                       struct platter_error *err)
{
    uint64_t first = i << p->block_bits, n = UINT64_C(1) << p->block_bits;
    memset(k->table, 0, k->q->cluster_size);
    for (uint64_t j = 0; j < n; j++) {
        uint64_t count = count_of(k, p, first + j);
        if (count)
            qcow2_count_put(k->table, k->q->header.refcount_order, j, count);
    }
    return qcow2_repair_write(k, k->table, k->q->cluster_size, off, err);
}

static int write_all(struct qcow2_check *k, const struct plan *p, uint8_t *table,
                     struct platter_error *err)
{
    uint64_t at = p->start;
    int r = 0;
    for (uint64_t i = 0; r == 0 && i < p->entries; i++) {
        if (!is_needed(k, p, i))
            continue;
        put_be(table + i * 8, 8, at << k->q->cluster_bits);
        r = write_block(k, p, i, at++ << k->q->cluster_bits, err);
    }
    if (r == 0)
        r = qcow2_repair_barrier(k, err);
    if (r == 0)
        r = qcow2_repair_write(k, table, p->table << k->q->cluster_bits,
                               (p->start + p->blocks) << k->q->cluster_bits, err);
    return r < 0 ? r : qcow2_repair_settle(k, err);
}

static int switch_header(struct qcow2_check *k, const struct plan *p, struct platter_error *err)
{
    hoff off = (p->start + p->blocks) << k->q->cluster_bits;
    pthread_mutex_lock(&k->img->lock);
    int r = qcow2_reftable_switch(k->img, off, p->table, err);
    pthread_mutex_unlock(&k->img->lock);
    if (r < 0)
        return r;
    k->made_at = end_of(p);
    k->rebuild = false;
    return qcow2_check_load_reftable(k, err);
}

int qcow2_check_rebuild(struct qcow2_check *k, struct platter_error *err)
{
    uint8_t *table = NULL;
    struct plan p;
    hoff off;
    if (!k->first_pass || k->counts.cut || k->counts.next != UINT64_MAX)
        return fail(err, ENOMEM,
                    "%s: the reference counts must be made anew, which takes more memory than the "
                    "limit of %" PRIu64 " bytes: allow more",
                    k->name, budget_limit(k->img->budget));
    qcow2_check_forget_counted(k);
    int r = make_plan(k, &p, err);
    if (r == 0)
        r = qcow2_repair_barrier(k, err);
    if (r == 0)
        r = budget_alloc(k->img->budget, p.table << k->q->cluster_bits, "the refcount table",
                         &table, err);
    if (r == 0)
        r = qcow2_repair_append(k, (p.blocks + p.table) << k->q->cluster_bits, &off, err);
    if (r == 0)
        r = write_all(k, &p, table, err);
    budget_free(k->img->budget, table, p.table << k->q->cluster_bits);
    if (r == 0)
        r = switch_header(k, &p, err);
    if (r == 0)
        k->used = end_of(&p);
    return r;
}
