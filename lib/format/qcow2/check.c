/* SPDX-License-Identifier: MIT */
/* The check of a qcow2 as a whole (section 18): what the header says, and the order of the rest. */
#include <inttypes.h>

#include "base/ckd.h"
#include "format/qcow2/check.h"

/* ---- places ------------------------------------------------------------------------------------
 */

int qcow2_check_read(struct qcow2_check *k, void *bytes, size_t len, hoff off,
                     struct platter_error *err)
{
    struct platter_error why = {0};
    int r = stream_pread_tail(k->img->stream, bytes, len, off, &why);
    if (r == 0)
        return 0;
    if (r == -ENOMEM || r == -ECANCELED)
        return fail(err, -r, "%s", why.message);
    if (!k->failed)
        check_found(k->check, PLATTER_FINDING_UNSEEN, false, 1, "%s", why.message);
    k->failed = r;
    return 1;
}

const char *qcow2_check_place(const struct qcow2_check *k, hoff off, uint64_t len)
{
    uint64_t end;
    if (off & (k->q->cluster_size - 1))
        return "its offset is not a multiple of the cluster size";
    if (off == 0)
        return "it points into the header";
    if (ckd_add(&end, off, len) || end > k->made_at << k->q->cluster_bits)
        return "it reaches behind the end of the file";
    return NULL;
}

int qcow2_check_whole(struct qcow2_check *k, bool tell, const char *what, hoff off, uint64_t len,
                      struct platter_error *err)
{
    if (len == 0 || off + len <= k->q->file_size)
        return 0;
    k->doubtful = true;
    if (tell || k->mend)
        CHECK_ERROR(k, k->mend,
                    "%s: %s at %" PRIu64 " reaches to %" PRIu64 ", but the file ends at %" PRIu64
                    ": it was cut short%s",
                    k->name, what, off, off + len, k->q->file_size,
                    k->mend ? "; zeros take the place of what is missing" : "");
    return k->mend && !k->failed ? qcow2_repair_fill(k, err) : 0;
}

uint64_t qcow2_check_hole(const struct qcow2_check *k, hoff off, uint64_t len)
{
    uint64_t n;
    bool hole;
    if (!k->zeros || stream_extents(k->img->stream, off, len, &n, &hole, NULL) < 0 || !hole)
        return 0;
    return n;
}

uint64_t qcow2_check_clusters(const struct qcow2_check *k, hoff off, uint64_t len)
{
    return len ? ((off + len - 1) >> k->q->cluster_bits) - (off >> k->q->cluster_bits) + 1 : 0;
}

/* ---- the header --------------------------------------------------------------------------------
 */

/* Fields that all else hangs on, and that nothing else tells: 1, and the check ends here. */
static int check_use(struct qcow2_check *k, struct platter_error *err)
{
    struct platter_error why = {0};
    int r = qcow2_header_check_fixed(k->img, &k->q->header, k->q->file_size, &why);
    if (r == 0)
        return 0;
    if (r != -PLATTER_ECORRUPT)
        return fail(err, -r, "%s", why.message);
    CHECK_ERROR(k, false, "%s: nothing else can be checked", why.message);
    return 1;
}

static void check_marks(struct qcow2_check *k)
{
    const struct qcow2_header *h = &k->q->header;
    bool mend = k->raise || k->lower;
    if (h->incompatible & QCOW2_INCOMPATIBLE_DIRTY)
        CHECK_NOTE(k, "%s: the image was not closed cleanly%s", k->name,
                   mend ? "" : ": its reference counts may be wrong (check -r all)");
    if (h->incompatible & QCOW2_INCOMPATIBLE_CORRUPT)
        CHECK_NOTE(k, "%s: the image is marked as corrupt, and takes no writes%s", k->name,
                   mend ? "" : " until it is repaired (check -r all)");
}

/* Header extensions, and bits that speak of what is not there. */
static void check_extensions(struct qcow2_check *k)
{
    struct qcow2 *q = k->q;
    bool raw = q->header.autoclear & QCOW2_AUTOCLEAR_RAW;
    if (q->checkup && q->checkup->code)
        check_failed(k->check, q->checkup->code, &q->checkup->why);
    if (q->checkup && q->checkup->bitmaps_code)
        k->bad_bitmaps = &q->checkup->bitmaps_why;
    if (raw && !q->data_file)
        CHECK_ERROR(k, k->mend,
                    "%s: autoclear feature bit 1 (raw external data) is set, but the image has no "
                    "external data file",
                    k->name);
    k->stray_bit = raw && !q->data_file;
}

/* ---- one pass ----------------------------------------------------------------------------------
 */

static int count_fixed(struct qcow2_check *k, const char *what, hoff off, uint64_t len,
                       struct platter_error *err)
{
    const char *why = off ? qcow2_check_place(k, off, len) : NULL;
    uint64_t first = off >> k->q->cluster_bits, n = qcow2_check_clusters(k, off, len);
    if (!why && off && off + len > k->q->file_size)
        why = "the file ends inside of it";
    if (!why && counts_any(&k->counts, first, n))
        why = "another table stands there";
    if (why && k->first_pass)
        CHECK_ERROR(k, false, "%s: %s at %" PRIu64 ": %s", k->name, what, off, why);
    if (why)
        return 0;
    int r = counts_add(&k->counts, first, n, 1, err);
    return r < 0 ? r : counts_mark(&k->counts, MARK_FIXED, first, n, err);
}

static int count_header(struct qcow2_check *k, struct platter_error *err)
{
    const struct qcow2_header *h = &k->q->header;
    const struct qcow2_extensions *x = &k->q->extensions;
    int r = count_fixed(k, "the header", 0, k->q->cluster_size, err);
    if (r == 0 && h->l1_size)
        r = count_fixed(k, "the L1 table", h->l1_offset, h->l1_size * UINT64_C(8), err);
    if (r == 0 && x->has_crypto && x->crypto_len)
        r = count_fixed(k, "the LUKS header", x->crypto_offset, x->crypto_len, err);
    return r;
}

/* All that refers to the clusters of this pass. */
static int count_all(struct qcow2_check *k, struct platter_error *err)
{
    int r = count_header(k, err);
    if (r == 0)
        r = qcow2_check_snapshot_tables(k, err);
    if (r == 0)
        r = qcow2_check_tables(k, err);
    if (r == 0)
        r = qcow2_check_sure_refcounts(k, err);
    if (r == 0)
        r = qcow2_check_data(k, err);
    if (r == 0)
        r = qcow2_check_bitmaps(k, err);
    if (r == 0)
        r = qcow2_check_reftable(k, err);
    return r;
}

/* Where the next pass begins: with the first cluster behind this one that something refers to, or
 * that a block may count. UINT64_MAX: there is none. */
static uint64_t next_pass(struct qcow2_check *k)
{
    unsigned bits = k->q->cluster_bits + 3 - k->q->header.refcount_order;
    uint64_t limit = k->counts.limit, next = k->counts.next;
    k->zeros = true;
    for (uint64_t i = limit >> bits; i < k->n_reftable && i << bits < next; i++) {
        hoff block = qcow2_check_block(k, i);
        if (block && qcow2_check_hole(k, block, k->q->cluster_size) < k->q->cluster_size)
            return max_u64(limit, i << bits);
    }
    return next == UINT64_MAX ? next : round_down(next, 64);
}

static int pass(struct qcow2_check *k, struct platter_error *err)
{
    int r = count_all(k, err);
    /* What was taken away is gone for good before counts go down. */
    if (r == 0)
        r = qcow2_repair_barrier(k, err);
    bool stop = k->failed || (!k->mend && k->raise && k->check->result.corruptions);
    return r < 0 || stop ? r : qcow2_check_compare(k, err);
}

static int all_passes(struct qcow2_check *k, struct platter_error *err)
{
    uint64_t first = 0;
    int r = 0;
    while (r == 0 && first != UINT64_MAX && !k->failed) {
        counts_close(&k->counts);
        k->first_pass = first == 0;
        r = counts_open(&k->counts, k->img->budget, first, err);
        if (r == 0)
            r = pass(k, err);
        k->shared = k->shared || k->counts.shared || k->counts.cut;
        first = next_pass(k);
    }
    return r;
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

static int begin(struct qcow2_check *k, struct image *img, struct check *c,
                 struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    *k = (struct qcow2_check){.check = c, .img = img, .q = q, .name = img->stream->name};
    k->end = round_up(q->file_size, q->cluster_size);
    k->made_at = k->end >> q->cluster_bits;
    int r = budget_alloc(img->budget, CHECK_PIECE, "a piece of a table", &k->l1, err);
    if (r == 0)
        r = budget_alloc(img->budget, CHECK_PIECE, "a piece of a table", &k->slice, err);
    if (r == 0)
        r = budget_alloc(img->budget, q->cluster_size, "a table", &k->table, err);
    return r;
}

static void end(struct qcow2_check *k)
{
    struct budget *budget = k->img->budget;
    counts_close(&k->counts);
    qcow2_check_forget_reftable(k);
    budget_free(budget, k->snapshots, k->room_snapshots * sizeof *k->snapshots);
    budget_free(budget, k->l1, CHECK_PIECE);
    budget_free(budget, k->slice, CHECK_PIECE);
    budget_free(budget, k->table, k->q->cluster_size);
}

static int judge(struct qcow2_check *k, struct platter_error *err)
{
    struct platter_check_result *result = &k->check->result;
    int r = check_use(k, err);
    if (r)
        return r < 0 ? r : 0;
    if (!k->quiet)
        check_marks(k);
    check_extensions(k);
    result->total_clusters = div_up(k->img->size, k->q->cluster_size);
    r = qcow2_check_snapshots(k, err);
    if (r == 0 && !k->failed)
        r = qcow2_check_load_reftable(k, err);
    if (r == 0 && !k->failed)
        r = all_passes(k, err);
    if (r < 0 || k->failed)
        return r;
    /* Where no count is more than 1 and no flag clear, each flag is right. */
    bool mend = k->raise || (k->lower && result->corruptions == 0 && result->leaks == 0);
    /* Only the pass that counted a cluster knows that its count is too small for what it has; and
     * without counts there is nothing to go by. */
    if (k->rebuild || (k->overflow && !(k->first_pass && !k->counts.cut)))
        mend = false;
    if (k->shared || k->unowned || k->mismatch)
        r = qcow2_check_copied(k, mend, err);
    result->image_end_offset = k->used << k->q->cluster_bits;
    return r;
}

static int run(struct qcow2_check *k, struct platter_error *err)
{
    int r = judge(k, err);
    bool mends = k->raise || k->lower;
    if (r == 0 && k->stray_bit && k->mend && !k->begun)
        r = qcow2_repair_begin(k, err);
    if (r < 0 || !mends)
        return r;
    return k->failed ? qcow2_repair_barrier(k, err) : qcow2_repair_end(k, err);
}

/* What a repair makes goes to offset `room`; 0: behind the end of the file. */
static int check_with_room(struct image *img, struct check *c, hoff room, struct platter_error *err)
{
    struct qcow2_check k;
    int r = begin(&k, img, c, err);
    k.mend = k.raise = c->mend_all;
    k.lower = c->mend_leaks || c->mend_all;
    if (room)
        k.end = room;
    if (r == 0)
        r = run(&k, err);
    end(&k);
    return r;
}

/* Behind the last cluster of the file that is referred to, or counted; 0: that cannot be known. */
static int find_room(struct image *img, hoff *ret, struct platter_error *err)
{
    struct check look = {0};
    struct qcow2_check k;
    int r = begin(&k, img, &look, err);
    k.quiet = true;
    if (r == 0)
        r = run(&k, err);
    *ret = r == 0 && !k.failed ? k.used_there << k.q->cluster_bits : 0;
    end(&k);
    return r;
}

int qcow2_check(struct image *img, struct check *c, struct platter_error *err)
{
    struct platter_error why = {0};
    hoff room = 0;
    int r = check_with_room(img, c, 0, &why);
    /* A file that cannot grow, as a block device cannot, may have room of its own. */
    if (r == -ENOSPC && c->mend_all && atomic_load(&img->poison) == 0 &&
        find_room(img, &room, NULL) == 0 && room) {
        const struct platter_check_result *first = &c->result;
        c->result = (struct platter_check_result){.format = first->format,
                                                  .corruptions_fixed = first->corruptions_fixed,
                                                  .leaks_fixed = first->leaks_fixed};
        r = check_with_room(img, c, room, &why);
    }
    return r < 0 ? fail(err, -r, "%s", why.message) : 0;
}

int qcow2_repair_dirty(struct image *img, struct platter_error *err)
{
    struct check c = {0};
    struct qcow2_check k;
    int r = begin(&k, img, &c, err);
    k.raise = k.lower = k.quiet = true;
    if (r == 0)
        r = run(&k, err);
    end(&k);
    if (r < 0)
        return r;
    if (k.failed || c.result.corruptions || c.result.check_errors)
        return fail(err, EROFS,
                    "%s: the image was not closed cleanly, and more than its reference counts is "
                    "wrong: it must be repaired before it is written to (check -r all); reading it "
                    "is possible",
                    img->stream->name);
    return 0;
}
