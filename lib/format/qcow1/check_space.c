/* SPDX-License-Identifier: MIT */
/*
 * What stands where in a file that is checked. Two clusters that have bytes in common read well,
 * until one of them is written: all but the first get a place of their own. What nobody uses and is
 * not zero is lost space.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/qcow1/check.h"

enum {
    PIECE = 64 << 10, /* bytes that are copied, or looked at, at once */
    CLAIMS = 1 << 12  /* entries of shared bytes that are told in one run */
};

/* ---- noting what is used --------------------------------------------------------------------- */

static int note(struct space_check *s, const struct checked_entry *x, struct platter_error *err)
{
    uint64_t cluster = qcow1_of(s->img)->cluster_size;
    uint64_t len = x->e.kind == EXTENT_PACKED ? x->e.packed_len : cluster;
    (void)err;
    s->used_end = max_u64(s->used_end, x->e.off + len);
    places_add(&s->places, x->e.off, len);
    return 0;
}

/* The same, and counts. */
static int count(struct space_check *s, const struct checked_entry *x, struct platter_error *err)
{
    struct platter_check_result *r = &s->check->result;
    r->allocated_clusters++;
    if (x->e.kind == EXTENT_PACKED) {
        r->compressed_clusters++;
    } else {
        r->fragmented_clusters += s->last_end && x->e.off != s->last_end;
        s->last_end = x->e.off + qcow1_of(s->img)->cluster_size;
    }
    return note(s, x, err);
}

static void note_tables(struct space_check *s)
{
    const struct qcow1 *q = qcow1_of(s->img);
    const struct qcow1_header *h = &q->header;
    uint64_t l1 = q->l1.n * UINT64_C(8);

    places_add(&s->places, 0, QCOW1_HEADER);
    if (h->backing_offset)
        places_add(&s->places, h->backing_offset, h->backing_size);
    places_add(&s->places, q->l1.off, l1);
    s->used_end =
        max_u64(s->used_end, max_u64(h->backing_offset + h->backing_size, q->l1.off + l1));
    for (uint32_t i = 0; i < q->l1.n; i++) {
        if (q->l1.entries[i] == 0)
            continue;
        places_add(&s->places, q->l1.entries[i], q->table_size);
        s->used_end = max_u64(s->used_end, q->l1.entries[i] + q->table_size);
    }
}

static int fill_window(struct space_check *s, hoff from, bool judge, entry_fn fn,
                       struct platter_error *err)
{
    places_begin(&s->places, from);
    note_tables(s);
    int r = qcow1_check_tables(s, judge, fn, err);
    places_finish(&s->places);
    return r;
}

/* ---- bytes of two clusters ------------------------------------------------------------------- */

static uint64_t stored_bytes(const struct space_check *s, const struct qcow1_entry *e)
{
    return e->kind == EXTENT_PACKED ? e->packed_len : qcow1_of(s->img)->cluster_size;
}

/* A copy of what stands at `from`, at the end of the file. */
static int copy_bytes(struct space_check *s, hoff from, hoff to, uint64_t len,
                      struct platter_error *err)
{
    auto_free uint8_t *bytes = malloc(len);
    if (!bytes)
        return fail_memory(err, "a cluster");
    int r = stream_pread_tail(s->img->stream, bytes, len, from, err);
    return r < 0 ? r : stream_pwrite(s->img->stream, bytes, len, to, err);
}

/* A place of its own for a cluster: what a guest reads stays the same. 1: there is none. */
static int move_cluster(struct space_check *s, const struct checked_entry *x,
                        struct platter_error *err)
{
    const struct qcow1 *q = qcow1_of(s->img);
    bool packed = x->e.kind == EXTENT_PACKED;
    uint64_t len = stored_bytes(s, &x->e);
    struct qcow1_entry e = x->e;

    e.off = packed ? s->append : round_up(s->append, q->cluster_size);
    if (packed && e.off >> (63 - q->header.cluster_bits))
        return 1;
    int r = copy_bytes(s, x->e.off, e.off, len, err);
    if (r == 0)
        r = qcow1_mend_entry(s, x->at, qcow1_entry_encode(q, &e), true, err);
    s->append = e.off + len;
    return r;
}

static int tell_shared(struct space_check *s, const struct checked_entry *x,
                       const struct checked_entry *first, struct platter_error *err)
{
    int r = s->mend ? check_progress(s->check, x->guest, s->img->size, err) : 0;
    if (r == 0 && s->mend)
        r = move_cluster(s, x, err);
    bool mended = s->mend && r == 0;
    if (r < 0)
        return r;
    s->dropped |= mended; /* what the second should lead to may be among what is nobody's */
    check_found(s->check, PLATTER_FINDING_ERROR, mended, 1,
                "%s: the clusters of guest offsets %" PRIu64 " and %" PRIu64
                " stand in the same bytes, at %" PRIu64 " and %" PRIu64 "%s",
                s->img->stream->name, first->guest, x->guest, first->e.off, x->e.off,
                mended ? "; the second was given a place of its own, with what it shows now" : "");
    return 0;
}

/* Whether an entry leads to bytes that were noted twice. */
static bool is_shared(const struct space_check *s, const struct qcow1_entry *e)
{
    const struct places *p = &s->places;
    hoff end = e->off + stored_bytes(s, e);
    size_t from = 0, to = p->n_shared;
    while (from < to) { /* the first range that ends behind its beginning */
        size_t middle = from + (to - from) / 2;
        if (p->shared[middle].end <= e->off)
            from = middle + 1;
        else
            to = middle;
    }
    return from < p->n_shared && p->shared[from].from < end;
}

/* The first of the claims, which are apart and ascending, that ends behind `off`. */
static unsigned first_claim(const struct space_check *s, hoff off)
{
    const struct claims *c = s->claims;
    unsigned from = 0, to = c->n;
    while (from < to) {
        unsigned middle = from + (to - from) / 2;
        if (c->of[middle].e.off + stored_bytes(s, &c->of[middle].e) <= off)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static int judge_shared(struct space_check *s, const struct checked_entry *x,
                        struct platter_error *err)
{
    struct claims *c = s->claims;
    if (!is_shared(s, &x->e))
        return 0;
    unsigned i = first_claim(s, x->e.off);
    if (i < c->n && c->of[i].e.off < x->e.off + stored_bytes(s, &x->e))
        return tell_shared(s, x, &c->of[i], err);
    if (c->n == CLAIMS) {
        s->places.more_shared = true;
        return 0;
    }
    memmove(&c->of[i + 1], &c->of[i], (c->n++ - i) * sizeof *c->of);
    c->of[i] = *x;
    return 0;
}

static int compare_places(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return (x->from > y->from) - (x->from < y->from);
}

/* Ascending and apart, of all windows. */
static void sort_shared(struct places *p)
{
    size_t n = 0;
    qsort(p->shared, p->n_shared, sizeof *p->shared, compare_places);
    for (size_t i = 1; i < p->n_shared; i++) {
        if (p->shared[i].from <= p->shared[n].end)
            p->shared[n].end = max_u64(p->shared[n].end, p->shared[i].end);
        else
            p->shared[++n] = p->shared[i];
    }
    p->n_shared = n + 1;
}

static int check_shared(struct space_check *s, struct platter_error *err)
{
    struct claims claims = {0};
    if (s->places.n_shared == 0)
        return 0;
    sort_shared(&s->places);
    int r = budget_alloc(s->img->budget, CLAIMS * sizeof *claims.of, "clusters in the same bytes",
                         &claims.of, err);
    if (r < 0)
        return r;
    s->claims = &claims;
    r = qcow1_check_tables(s, false, judge_shared, err);
    s->claims = NULL;
    budget_free(s->img->budget, claims.of, CLAIMS * sizeof *claims.of);
    if (r == 0 && s->places.more_shared)
        check_found(s->check, PLATTER_FINDING_ERROR, false, 1,
                    "%s: more clusters stand in the same bytes than can be told at once: check it "
                    "again when these are mended",
                    s->img->stream->name);
    return r;
}

/* ---- bytes of nobody ------------------------------------------------------------------------- */

static bool may_give_back(const struct space_check *s)
{
    const struct platter_check_result *r = &s->check->result;
    return s->check->mend_leaks && !s->keep && !s->dropped && r->corruptions == 0 &&
           r->check_errors == 0;
}

/* How many clusters of a gap hold something. */
static int weigh(struct space_check *s, hoff from, hoff to, uint64_t *ret,
                 struct platter_error *err)
{
    uint32_t cluster = qcow1_of(s->img)->cluster_size;
    auto_free uint8_t *bytes = malloc(PIECE);
    int r = bytes ? 0 : fail_memory(err, "a cluster");
    bool hole;
    *ret = 0;
    for (uint64_t n, run; r == 0 && from < to; from += n) {
        r = stream_extents(s->img->stream, from, to - from, &run, &hole, err);
        if (r < 0)
            break;
        n = hole ? run : min_u64(run, PIECE);
        if (hole)
            continue;
        r = stream_pread(s->img->stream, bytes, n, from, err);
        for (uint64_t at = 0; r == 0 && at < n; at += cluster)
            *ret += !is_zero(bytes + at, min_u64(n - at, cluster));
    }
    return r;
}

/* [from, to) belongs to nobody. */
static int check_gap(struct space_check *s, hoff from, hoff to, struct platter_error *err)
{
    uint64_t n = 0;
    bool mend = may_give_back(s), tail = to == s->size;
    int r = weigh(s, from, to, &n, err);
    if (r < 0 || (n == 0 && !(s->cut && mend && tail)))
        return r;
    if (mend && tail)
        r = stream_resize(s->img->stream, from, err);
    else if (mend)
        r = stream_zero(s->img->stream, from, to - from, STREAM_ZERO_UNMAP, err);
    if (r < 0)
        return r;
    if (mend && tail)
        s->size = from;
    check_found(s->check, PLATTER_FINDING_LEAK, mend, n,
                "%s: bytes %" PRIu64 " to %" PRIu64 " belong to nobody%s", s->img->stream->name,
                from, to - 1,
                mend         ? "; they were given back"
                : s->dropped ? "; they are kept, as what led to them may have been dropped or "
                               "moved just now: if nothing is missing, -r leaks gives them back"
                             : "");
    return 0;
}

/* The gaps of a window, from *at on. */
static int check_gaps(struct space_check *s, hoff *at, struct platter_error *err)
{
    const struct places *p = &s->places;
    int r = 0;
    for (size_t i = 0; r == 0 && i < p->n; i++) {
        if (p->items[i].from > *at)
            r = check_gap(s, *at, min_u64(p->items[i].from, s->size), err);
        *at = max_u64(*at, p->items[i].end);
    }
    return r;
}

static int find_leaks(struct space_check *s, bool again, struct platter_error *err)
{
    hoff at = 0, from = 0;
    int r = 0;
    do {
        if (again)
            r = fill_window(s, from, false, note, err);
        if (r == 0)
            r = check_gaps(s, &at, err);
        from = s->places.to;
        again = true;
    } while (r == 0 && from != UINT64_MAX);
    return r == 0 && at < s->size ? check_gap(s, at, s->size, err) : r;
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* What was mended is durable before space is given back. */
static int settle(struct space_check *s, struct platter_error *err)
{
    int r = 0;
    if (s->append > s->size && s->mend) {
        r = stream_resize(s->img->stream, s->append, err);
        s->size = s->append;
    }
    return r == 0 && s->check->mend_leaks ? stream_flush(s->img->stream, err) : r;
}

int qcow1_check_space(struct space_check *s, struct platter_error *err)
{
    int r = fill_window(s, 0, true, count, err);
    bool several = s->places.to != UINT64_MAX;
    while (r == 0 && s->places.to != UINT64_MAX)
        r = fill_window(s, s->places.to, false, note, err);
    if (r == 0)
        r = settle(s, err);
    if (r == 0)
        r = check_shared(s, err);
    if (r == 0)
        r = settle(s, err);
    if (r == 0)
        r = find_leaks(s, several || s->changed, err);
    return r == 0 && s->check->mend_leaks ? stream_flush(s->img->stream, err) : r;
}

int qcow1_give_back(struct image *img, hoff *ret_end, struct platter_error *err)
{
    struct check quiet = {.mend_leaks = true};
    struct space_check s;
    int r = space_check_open(&s, img, &quiet, err);
    if (r == 0)
        r = fill_window(&s, 0, false, note, err);
    bool several = s.places.to != UINT64_MAX;
    while (r == 0 && s.places.to != UINT64_MAX)
        r = fill_window(&s, s.places.to, false, note, err);
    s.keep |= s.places.n_shared > 0;
    s.cut = true;
    if (r == 0 && !s.keep)
        r = find_leaks(&s, several, err);
    *ret_end = s.size;
    space_check_close(&s);
    return r;
}
