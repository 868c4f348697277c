/* SPDX-License-Identifier: MIT */
/*
 * Compaction: what a file holds moves towards its front, and the file is cut behind it. compact.h
 * tells how.
 *
 * It is done in rounds, for what a round freed in front is room for the next. A round that does not
 * come to its end, for an error or because the caller had enough, leaves an image that is whole:
 * what was moved by then is moved.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "base/teller.h"
#include "format/qcow2/bitmap.h"
#include "format/qcow2/compact.h"

enum {
    ROUNDS = 64, /* far more than there are ever needed */
    MOST_COPIED = 2 << 20,
    MOST_LOWER = 1 << 16,
    LEAST_CHANGES = 64
};

/* ---- progress ----------------------------------------------------------------------------------
 */

int compact_tick(struct compact *c, struct platter_error *err)
{
    uint64_t size = c->q->cluster_size, total = c->moved_before + c->to_move;
    struct teller *t = c->request->teller;

    if (!t)
        return 0;
    pthread_mutex_unlock(&c->img->lock);
    t->moved = c->moved * size;
    int r = teller_tell(t, min_u64(c->moved, total) * size, total * size, err);
    pthread_mutex_lock(&c->img->lock);
    return r;
}

/* ---- one round ---------------------------------------------------------------------------------
 */

/* Moves all that the plan says, data first: what tables lead to stands in its place when the tables
 * move. Those of several clusters come last, when their window is free. */
static int move_all(struct compact *c, struct platter_error *err)
{
    int r = compact_count_tables(c, err);
    if (r == 0)
        r = compact_entries(c, err);
    if (r == 0)
        r = compact_settle(c, err);
    if (r == 0)
        r = compact_map_end(c, err);
    if (r == 0)
        r = compact_l2_tables(c, err);
    if (r == 0)
        r = compact_bitmap_data(c, err);
    for (int several = 0; r == 0 && several < 2; several++) {
        r = compact_bitmap_tables(c, several, err);
        if (r == 0)
            r = compact_tables(c, several, err);
        if (r == 0 && !several)
            r = compact_blocks(c, err);
        if (r == 0)
            r = compact_settle(c, err);
    }
    return r;
}

/* Brings what a round did to its end, wherever it stopped: no count is higher than it must be, and
 * each flag says what is true. */
static int end_round(struct compact *c, struct platter_error *err)
{
    counts_close(&c->tables);
    if (atomic_load(&c->img->poison) < 0)
        return 0;
    int r = compact_end_room(c, err);
    if (r == 0)
        r = compact_settle(c, err);
    if (r == 0)
        r = compact_map_end(c, err);
    if (r == 0) /* the last reference to an old place may be the only one now */
        r = compact_own(c, err);
    return r < 0 ? r : compact_settle(c, err);
}

/* Refcount blocks that count nothing, and stand in front of what they count. */
static int drop_blocks(struct compact *c, struct platter_error *err)
{
    struct qcow2 *q = c->q;
    unsigned bits = q->cluster_bits + 3 - q->header.refcount_order;
    uint64_t used, end;
    int r = 0;

    for (uint64_t i = q->reftable.n; r == 0 && i-- > 1;) {
        uint64_t self = q->reftable.entries[i] >> q->cluster_bits;
        if (self == 0 || self >> bits == i)
            continue;
        r = compact_count(c, i << bits, (i + 1) << bits, &used, &end, err);
        if (r == 0 && used == 0 && c->n_lower >= c->most_lower)
            r = compact_settle(c, err);
        if (r < 0 || used)
            continue;
        slices_forget(c->img, &q->blocks, self << q->cluster_bits);
        pointers_set(&q->reftable, (uint32_t)i, 0);
        compact_lower(c, self, 1, 1);
    }
    int e = atomic_load(&c->img->poison) == 0 ? compact_settle(c, r < 0 ? NULL : err) : 0;
    return r < 0 ? r : e;
}

static int cut(struct compact *c, struct platter_error *err)
{
    bool shorter = false;
    int r = drop_blocks(c, err);
    if (r == 0)
        r = qcow2_trim(c->img, err);
    if (r == 0)
        r = compact_shorten_reftable(c, &shorter, err);
    if (r == 0 && shorter) /* which may have been the end of the file */
        r = qcow2_trim(c->img, err);
    return r < 0 ? r : compact_measure(c, err);
}

static int run_round(struct compact *c, struct platter_error *err)
{
    c->run = c->packed_run = (struct compact_run){0};
    c->next = c->packed_next[0] = c->packed_next[1] = 1;
    c->window_next = c->window;
    c->moved_before = c->moved;
    int r = move_all(c, err);
    int e = end_round(c, r < 0 ? NULL : err);
    return r < 0 ? r : e;
}

static int run_rounds(struct compact *c, struct platter_error *err)
{
    int r = cut(c, err);
    for (unsigned i = 0; r == 0 && i < ROUNDS; i++) {
        r = compact_bitmaps_load(c, err);
        if (r == 0)
            r = compact_plan(c, err);
        if (r < 0 || c->to_move == 0)
            break;
        r = run_round(c, err);
        int e = atomic_load(&c->img->poison) == 0 ? cut(c, r < 0 ? NULL : err) : 0;
        r = r < 0 ? r : e;
        if (c->moved == c->moved_before)
            break;
    }
    return r;
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

/* L1 tables that share clusters, which a check tells of, would make walking them all endless. */
static int check_l1_tables(const struct image *img, struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    uint64_t most = div_up(q->file_size, q->cluster_size);
    uint64_t n = div_up(q->l1.n * UINT64_C(8), q->cluster_size);

    for (uint32_t i = 0; i < q->header.n_snapshots; i++)
        n += div_up(q->snapshots[i].l1_size * UINT64_C(8), q->cluster_size);
    if (n <= most)
        return 0;
    return fail(err, PLATTER_ECORRUPT,
                "%s: the L1 tables of its snapshots take %" PRIu64
                " clusters, but the file has only %" PRIu64
                ": the image must be repaired (check -r all)",
                img->stream->name, n, most);
}

static int check_use(const struct image *img, const struct compact_request *request,
                     struct platter_error *err)
{
    const struct qcow2 *q = qcow2_of(img);
    const char *name = img->stream->name;
    const char *mark = q->header.incompatible & QCOW2_INCOMPATIBLE_CORRUPT ? "is marked as corrupt"
                       : q->header.incompatible & QCOW2_INCOMPATIBLE_DIRTY
                           ? "was not closed cleanly"
                           : NULL;

    if (img->view)
        return fail(err, EINVAL, "%s: it is the whole image that is compacted, not a view", name);
    if (mark)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: %s, and must be repaired before it is compacted (check -r all)", name,
                    mark);
    if (!request->dry_run && atomic_load(&q->bitmaps_state) == QCOW2_BITMAPS_RECORDING)
        return fail(err, EBUSY,
                    "%s: its bitmaps are recording what was written: it must be closed before it "
                    "is compacted",
                    name);
    return check_l1_tables(img, err);
}

/* The counts, of an image that is open for reading. */
static int load_counts(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    if (q->reftable.n)
        return 0;
    int r = slices_init(img, &q->blocks, &q->changed, "refcount block", q->cluster_size,
                        budget_limit(img->budget) / 16, err);
    return r < 0 ? r
                 : pointers_load(img, &q->reftable, q->header.reftable_offset,
                                 (uint32_t)(q->header.reftable_clusters * q->cluster_size / 8),
                                 "the refcount table", err);
}

/* How much is done at once, by the memory there is, and by what there may be to do. */
static void set_sizes(struct compact *c)
{
    const struct qcow2 *q = c->q;
    uint64_t share = budget_limit(c->img->budget) / 32;
    uint64_t clusters = c->request->result.file_size / q->cluster_size + 1;

    /* Whole clusters: what is encrypted is so by sectors. */
    uint64_t copied = min_u64(min_u64(share, MOST_COPIED) / q->cluster_size, clusters);
    c->buffer_size = max_u64(copied, 1) * q->cluster_size;
    c->room_changes = (uint32_t)min_u64(max_u64(share / sizeof *c->changes, LEAST_CHANGES),
                                        q->l2.slice / q->entry_size);
    c->most_lower = (uint32_t)min_u64(max_u64(share / sizeof *c->lower, LEAST_CHANGES),
                                      min_u64(clusters + LEAST_CHANGES, MOST_LOWER));
    c->room_lower = c->most_lower + q->l2.slice / q->entry_size;
}

static int begin(struct compact *c, struct platter_error *err)
{
    struct qcow2 *q = c->q;
    struct budget *budget = c->img->budget;

    pthread_mutex_unlock(&c->img->lock);
    int r = stream_size(c->img->stream, &c->request->result.file_size, err);
    pthread_mutex_lock(&c->img->lock);
    if (r < 0 || c->request->inquiry)
        return r;
    set_sizes(c);
    r = load_counts(c->img, err);
    if (r == 0)
        r = budget_alloc(budget, q->l2.slice, "a copy of an L2 table", &c->slice, err);
    if (r == 0)
        r = budget_alloc(budget, c->buffer_size, "a buffer", &c->buffer, err);
    if (r == 0)
        r = budget_alloc(budget, c->room_changes * sizeof *c->changes, "changes of an L2 table",
                         &c->changes, err);
    if (r == 0)
        r = budget_alloc(budget, c->room_lower * sizeof *c->lower, "the list of moved clusters",
                         &c->lower, err);
    if (r < 0)
        return r;
    /* No record goes on where one ended before: its cluster may move. */
    q->packed_cursor = 0;
    return compact_measure(c, err);
}

static void end(struct compact *c)
{
    struct budget *budget = c->img->budget;

    c->q->next_free = 0; /* it was moved about */
    counts_close(&c->tables);
    counts_close(&c->gone);
    compact_bitmaps_forget(c);
    budget_free(budget, c->fixed, c->room_fixed * sizeof *c->fixed);
    budget_free(budget, c->lower, c->room_lower * sizeof *c->lower);
    budget_free(budget, c->map.items, c->map.room * sizeof *c->map.items);
    budget_free(budget, c->map.buckets, c->map.room * sizeof *c->map.buckets);
    budget_free(budget, c->slice, c->q->l2.slice);
    budget_free(budget, c->buffer, c->buffer_size);
    budget_free(budget, c->changes, c->room_changes * sizeof *c->changes);
}

/* By how many clusters the refcount table will be shorter, by the plan. */
static uint64_t reftable_shorter(const struct compact *c)
{
    const struct qcow2 *q = c->q;
    unsigned bits = q->cluster_bits + 3 - q->header.refcount_order;
    uint64_t end = min_u64(c->target, c->end);
    return q->header.reftable_clusters - compact_reftable_needs(c, ((end - 1) >> bits) + 1);
}

/* What it would be, were it done. */
static int look(struct compact *c, struct platter_error *err)
{
    struct platter_compact_result *result = &c->request->result;
    uint64_t shorter;

    int r = counts_open(&c->gone, c->img->budget, 0, err);
    if (r == 0 && c->request->zeros)
        r = compact_zeros(c, err);
    if (r == 0)
        r = compact_bitmaps_load(c, err);
    if (r < 0)
        return r;
    c->used -= min_u64(c->used - 1, result->zeros_freed + result->leaks);
    r = compact_plan(c, err);
    if (r == 0 && (shorter = reftable_shorter(c)) > 0) {
        c->used -= shorter;
        r = compact_plan(c, err);
    }
    result->new_size = min_u64(result->file_size, min_u64(c->target, c->end) << c->q->cluster_bits);
    for (uint64_t i = c->target; i < c->end && c->to_move; i++)
        c->to_move -= counts_marked(&c->gone, MARK_WALKED, i);
    result->clusters_moved = c->to_move;
    return r;
}

/* Where the bitmaps are is known from the directory: that is forgotten before they move, and read
 * again then. */
static int read_bitmaps_again(struct compact *c, struct platter_error *err)
{
    pthread_mutex_unlock(&c->img->lock);
    int r = qcow2_bitmaps_open(c->img, err);
    pthread_mutex_lock(&c->img->lock);
    return r;
}

static int work(struct compact *c, struct platter_error *err)
{
    struct platter_compact_result *result = &c->request->result;
    bool bitmaps = c->q->bitmaps_loaded;
    int e;

    qcow2_bitmap_list_free(c->img, &c->q->bitmaps);
    c->q->bitmaps_loaded = false;
    int r = c->request->zeros ? compact_zeros(c, err) : 0;
    if (r == 0)
        r = run_rounds(c, err);
    if (bitmaps && (e = read_bitmaps_again(c, r < 0 ? NULL : err)) < 0 && r == 0)
        r = e;
    result->clusters_moved = c->moved;
    pthread_mutex_unlock(&c->img->lock);
    e = stream_size(c->img->stream, &result->new_size, r < 0 ? NULL : err);
    pthread_mutex_lock(&c->img->lock);
    return r < 0 ? r : e;
}

int qcow2_compact(struct image *img, struct compact_request *request, struct platter_error *err)
{
    struct compact c = {.img = img, .q = qcow2_of(img), .request = request};
    int r = check_use(img, request, err);

    request->result.cluster_size = c.q->cluster_size;
    if (r < 0)
        return r;
    if (request->dry_run)
        qcow2_token_take(img);
    else
        r = qcow2_enter_quietly(img, err);
    if (r < 0)
        return r;
    r = begin(&c, err);
    if (r == 0 && !request->inquiry)
        r = request->dry_run ? look(&c, err) : work(&c, err);
    end(&c);
    qcow2_leave(img);
    return r;
}
