/* SPDX-License-Identifier: MIT */
/*
 * Free clusters (section 6). A search goes up from a moving start and takes the first run whose
 * counts are 0. Where it meets a range without a refcount block, nothing there is used, so the
 * block is put where the search stands and describes itself; where it meets the end of the refcount
 * table, the same goes for a new, larger table with the blocks that describe it.
 *
 * What was freed waits in a list until its release is durable (rule 3), and only then counts as
 * free.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/qcow2.h"

/* ---- blocks and the table of them --------------------------------------------------------------
 */

static int block_new(struct image *img, uint64_t cluster, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    unsigned block_bits = q->cluster_bits + 3 - q->header.refcount_order;
    uint32_t i = (uint32_t)(cluster >> block_bits);

    int r = qcow2_check_overlap(img, cluster, 1, err);
    if (r == 0)
        r = slices_new(img, &q->blocks, cluster << q->cluster_bits, err);
    if (r < 0)
        return r;
    pointers_set(&q->reftable, i, cluster << q->cluster_bits);
    q->file_size = max_u64(q->file_size, (cluster + 1) << q->cluster_bits);
    r = qcow2_count_up(img, cluster, 1, err);
    if (r < 0) /* a block that calls its own cluster free must not stay */
        pointers_set(&q->reftable, i, 0);
    return r;
}

/* A larger refcount table: `blocks` new blocks, then the table, from cluster `start` on. */
struct growth {
    uint64_t start, blocks, clusters;
    uint64_t entries; /* of the new table */
};

static int growth_plan(struct image *img, uint64_t start, struct growth *g,
                       struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t per_block = q->cluster_size * 8 >> q->header.refcount_order;
    uint64_t old = q->reftable.n, most = QCOW2_MAX_REFTABLE_BYTES / 8, blocks;

    *g = (struct growth){.start = start, .blocks = 1};
    do {
        blocks = g->blocks;
        uint64_t needed = old + blocks; /* and half as many again while that is allowed */
        uint64_t entries = max_u64(needed, min_u64(needed + old / 2, most));
        g->clusters = div_up(entries * 8, q->cluster_size);
        g->blocks = div_up(blocks + g->clusters, per_block);
    } while (g->blocks > blocks);
    g->blocks = blocks;
    g->entries = g->clusters * q->cluster_size / 8;
    if (g->clusters * q->cluster_size > QCOW2_MAX_REFTABLE_BYTES)
        return fail(err, EFBIG, "%s: the file needs a refcount table of more than 8 MiB",
                    img->stream->name);
    return 0;
}

static int growth_write_blocks(struct image *img, const struct growth *g, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint32_t order = q->header.refcount_order;
    uint64_t per_block = q->cluster_size * 8 >> order, used = g->blocks + g->clusters;
    void *bytes = NULL;

    int r = budget_alloc(img->budget, q->cluster_size, "a refcount block", &bytes, err);
    for (uint64_t i = 0; r == 0 && i < g->blocks; i++) {
        memset(bytes, 0, q->cluster_size);
        for (uint64_t k = 0; k < per_block && i * per_block + k < used; k++)
            qcow2_count_put(bytes, order, k, 1);
        hoff off = (g->start + i) << q->cluster_bits;
        slices_forget(img, &q->blocks, off);
        r = image_meta_write(img, bytes, q->cluster_size, off, err);
    }
    budget_free(img->budget, bytes, q->cluster_size);
    return r;
}

/* The new table, complete on the disk, but not yet hooked up. */
static int growth_write_table(struct image *img, const struct growth *g, struct pointers *p,
                              struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t per_block = q->cluster_size * 8 >> q->header.refcount_order;

    int r = pointers_new(img, p, (g->start + g->blocks) << q->cluster_bits, (uint32_t)g->entries,
                         "the refcount table", err);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < p->n; i++)
        pointers_set(p, i, i < q->reftable.n ? q->reftable.entries[i] : 0);
    for (uint64_t i = 0; i < g->blocks; i++)
        pointers_set(p, (uint32_t)(g->start / per_block + i), (g->start + i) << q->cluster_bits);
    return pointers_write(img, p, err);
}

/* Offset and length stand side by side in one sector of the header: the switch is one write. */
int qcow2_reftable_switch(struct image *img, hoff off, uint64_t clusters, struct platter_error *err)
{
    enum { REFTABLE_AT = 48 };
    struct qcow2 *q = qcow2_of(img);
    uint8_t field[12];

    put_be(field, 8, off);
    put_be(field + 8, 4, clusters);
    int r = qcow2_barrier(img, err);
    if (r == 0)
        r = image_meta_write(img, field, sizeof field, REFTABLE_AT, err);
    if (r == 0)
        r = qcow2_barrier(img, err);
    if (r < 0)
        return r;
    q->header.reftable_offset = off;
    q->header.reftable_clusters = (uint32_t)clusters;
    return 0;
}

/* Makes the refcount table larger where it ends at cluster `start`. Blocks that only the new table
 * will point at are written first, those of the old one as well: what a table on the disk points at
 * is there. */
static int reftable_grow(struct image *img, uint64_t start, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct pointers table = {0};
    uint64_t old_first = q->header.reftable_offset >> q->cluster_bits;
    uint64_t old_clusters = q->header.reftable_clusters;
    struct growth g;

    int r = growth_plan(img, start, &g, err);
    if (r == 0)
        r = qcow2_check_overlap(img, start, g.blocks + g.clusters, err);
    if (r == 0)
        r = slices_write(img, &q->blocks, err);
    if (r == 0)
        r = growth_write_blocks(img, &g, err);
    if (r == 0)
        r = qcow2_barrier(img, err);
    if (r == 0)
        r = growth_write_table(img, &g, &table, err);
    if (r == 0)
        r = qcow2_reftable_switch(img, table.off, g.clusters, err);
    if (r < 0) {
        pointers_free(img, &table);
        return r;
    }
    pointers_free(img, &q->reftable);
    q->reftable = table;
    q->file_size = max_u64(q->file_size, (start + g.blocks + g.clusters) << q->cluster_bits);
    return qcow2_count_down(img, old_first, old_clusters, false, err);
}

/* ---- the search --------------------------------------------------------------------------------
 */

/* A run of up to `want` entries that are 0 in a slice, from entry k on; *ret_skip are before it. */
static uint64_t free_run_in(const struct qcow2 *q, const uint8_t *bytes, uint64_t k, uint64_t want,
                            uint64_t *ret_skip)
{
    uint32_t order = q->header.refcount_order;
    uint64_t end = (uint64_t)q->blocks.slice * 8 >> order, first = k;

    while (first < end && qcow2_count_get(bytes, order, first) != 0)
        first++;
    *ret_skip = first - k;
    uint64_t n = 0;
    while (n < want && first + n < end && qcow2_count_get(bytes, order, first + n) == 0)
        n++;
    return n;
}

/* One step from q->next_free on: *ret_n clusters were found there, or 0 and the search has moved
 * on. */
static int search_step(struct image *img, uint64_t want, uint64_t *ret_n, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    unsigned block_bits = q->cluster_bits + 3 - q->header.refcount_order;
    struct slice *slot;
    uint64_t k, skip;

    *ret_n = 0;
    if (q->next_free >= QCOW2_MAX_OFFSET >> q->cluster_bits)
        return fail(err, EFBIG, "%s: the file would be larger than qcow2 allows",
                    img->stream->name);
    if (q->next_free >> block_bits >= q->reftable.n)
        return reftable_grow(img, q->next_free, err);
    int r = q->next_free < q->old_clusters ? qcow2_check_snapshot_counts(img, err) : 0;
    if (r == 0)
        r = qcow2_count_slot(img, q->next_free, &slot, &k, err);
    if (r < 0)
        return r;
    if (!slot)
        return block_new(img, q->next_free, err);
    *ret_n = free_run_in(q, slot->bytes, k, want, &skip);
    q->next_free += skip;
    if (*ret_n == 0)
        return 0;
    r = qcow2_check_overlap(img, q->next_free, *ret_n, err);
    if (r < 0)
        return r;
    for (uint64_t i = 0; i < *ret_n; i++)
        qcow2_count_put(slot->bytes, q->header.refcount_order, k + skip + i, 1);
    slices_dirty(&q->blocks, slot);
    return 0;
}

int qcow2_alloc(struct image *img, uint64_t want, hoff *ret_off, uint64_t *ret_n,
                struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    int r;

    do
        r = search_step(img, want, ret_n, err);
    while (r == 0 && *ret_n == 0);
    if (r < 0)
        return r;
    *ret_off = q->next_free << q->cluster_bits;
    q->next_free += *ret_n;
    q->taken_end = max_u64(q->taken_end, q->next_free << q->cluster_bits);
    return 0;
}

/* ---- tables ------------------------------------------------------------------------------------
 */

/* Blocks for n clusters and for themselves, from the first range on that has none and where the
 * file has nothing: *ret_first is the first of the n. */
static int describe_range(struct image *img, uint64_t n, uint64_t *ret_first,
                          struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    unsigned block_bits = q->cluster_bits + 3 - q->header.refcount_order;
    uint64_t per_block = UINT64_C(1) << block_bits;
    uint64_t blocks = div_up(n, per_block - 1),
             i = div_up(q->file_size, per_block * q->cluster_size);
    int r = 0;

    for (uint64_t k = i; k < q->reftable.n; k++)
        i = q->reftable.entries[k] ? k + 1 : i;
    while (i + blocks > q->reftable.n && r == 0) {
        r = reftable_grow(img, (uint64_t)q->reftable.n << block_bits, err);
        for (uint64_t k = i; k < q->reftable.n; k++)
            i = q->reftable.entries[k] ? k + 1 : i;
    }
    uint64_t start = i << block_bits;
    if (r == 0)
        r = qcow2_check_overlap(img, start, blocks + n, err);
    for (uint64_t k = 0; k < blocks && r == 0; k++) {
        if (slices_full(&q->blocks))
            r = slices_write(img, &q->blocks, err);
        if (r == 0)
            r = slices_new(img, &q->blocks, (start + k) << q->cluster_bits, err);
        if (r == 0)
            pointers_set(&q->reftable, (uint32_t)(i + k), (start + k) << q->cluster_bits);
    }
    if (r == 0)
        r = qcow2_count_up(img, start, blocks, err);
    if (r < 0) /* a block that calls its own cluster free must not stay */
        for (uint64_t k = 0; k < blocks && i + k < q->reftable.n; k++)
            pointers_set(&q->reftable, (uint32_t)(i + k), 0);
    q->file_size = max_u64(q->file_size, (start + blocks) << q->cluster_bits);
    *ret_first = start + blocks;
    return r;
}

/* Runs that were too short go back at once: nothing ever pointed there. */
static int give_back(struct image *img, uint64_t first, uint64_t n, uint64_t *lowest,
                     struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t next = q->next_free;
    int r = n ? qcow2_count_down(img, first, n, false, err) : 0;
    *lowest = n ? min_u64(*lowest, first) : *lowest;
    q->next_free = next;
    return r;
}

int qcow2_alloc_table(struct image *img, uint64_t n, hoff *ret_off, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint64_t per_block = q->cluster_size * 8 >> q->header.refcount_order;
    uint64_t first = 0, have = 0, got, lowest = UINT64_MAX;
    hoff off;
    int r = 0;

    if (n >= per_block - 1) { /* the search puts a block into each range */
        r = describe_range(img, n, &first, err);
        if (r == 0)
            r = qcow2_count_up(img, first, n, err);
        *ret_off = first << q->cluster_bits;
        return r;
    }
    while (have < n && r == 0) {
        r = qcow2_alloc(img, n - have, &off, &got, err);
        if (r < 0)
            break;
        if (have && off >> q->cluster_bits != first + have) {
            r = give_back(img, first, have, &lowest, err);
            have = 0;
        }
        first = have ? first : off >> q->cluster_bits;
        have += got;
    }
    if (r < 0)
        give_back(img, first, have, &lowest, NULL);
    q->next_free = min_u64(q->next_free, lowest);
    *ret_off = first << q->cluster_bits;
    return r;
}

/* ---- frees that wait ---------------------------------------------------------------------------
 */

int qcow2_free_room(struct image *img, uint32_t n, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    uint32_t room = q->room_frees ? q->room_frees : 64;

    if (q->n_frees + n <= q->room_frees)
        return 0;
    while (room < q->n_frees + n)
        room *= 2;
    uint64_t more = (room - q->room_frees) * sizeof *q->frees;
    int r = budget_take(img->budget, more, "the list of freed clusters", err);
    if (r < 0)
        return r;
    void *frees = realloc(q->frees, room * sizeof *q->frees);
    if (!frees) {
        budget_give(img->budget, more);
        return fail_memory(err, "the list of freed clusters");
    }
    q->frees = frees;
    q->room_frees = room;
    return 0;
}

void qcow2_free_run(struct image *img, uint64_t first, uint64_t n, bool punch, bool data_file)
{
    struct qcow2 *q = qcow2_of(img);
    struct qcow2_free *last = q->n_frees ? &q->frees[q->n_frees - 1] : NULL;

    if (last && last->first + last->n == first && last->punch == punch &&
        last->data_file == data_file)
        last->n += n;
    else
        q->frees[q->n_frees++] = (struct qcow2_free){first, n, punch, data_file};
}

void qcow2_free_entry(struct image *img, const struct qcow2_entry *e, bool punch)
{
    const struct qcow2 *q = qcow2_of(img);
    uint64_t first = e->off >> q->cluster_bits;

    if (e->packed)
        qcow2_free_run(img, first, ((e->off + e->packed_len - 1) >> q->cluster_bits) - first + 1,
                       punch, false);
    else if (e->has_place && !q->data_file)
        qcow2_free_run(img, first, 1, punch, false);
    else if (e->has_place && punch)
        qcow2_free_run(img, e->off, q->cluster_size, punch, true);
}

static int discard_data(struct image *img, const struct qcow2_free *f, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    pthread_mutex_unlock(&img->lock);
    int r = stream_discard(q->data, f->first, f->n, err);
    pthread_mutex_lock(&img->lock);
    return r == -ENOTSUP ? 0 : r;
}

int qcow2_free_all(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < q->n_frees; i++) {
        const struct qcow2_free *f = &q->frees[i];
        if (f->data_file)
            r = discard_data(img, f, err);
        else
            r = qcow2_count_down(img, f->first, f->n, f->punch, err);
    }
    /* What an error left behind is leaked, which harms nobody. */
    q->n_frees = 0;
    return r;
}
