/* SPDX-License-Identifier: MIT */
/*
 * The copy. next() asks for extents lazily and cuts what holds data into chunks; a worker reads
 * one, tells zeros from data, and passes it to the sink. Gaps cost nothing.
 *
 * Chunks begin and end at multiples of the sink's unit, so no unit is worked on twice.
 */
#include "ops/copy.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/awake.h"
#include "base/ckd.h"
#include "ops/walk.h"

enum {
    CHUNK_ZERO = 1,       /* walk_chunk.flags: no data, to be made zero */
    ZERO_RUN = 1 << 30,   /* zeros that are marked at once, bytes */
    SALVAGE_GRAIN = 4096, /* a read error is narrowed down to this */
    /* Chunks in a row of which nothing could be read, and how long that took: the source is gone.
     * What fails at once is passed over, however much it is. */
    FILL_FAILURES = 8,
    FILL_FAILING_S = 30,
    WAY_PIECE = 128 << 10, /* bytes that a fill reads at once while guests read as well */
    WAY_MS = 1000          /* ... and so long it waits for them: it has to end one day */
};

/* A range that could not be read, until it is reported. */
struct hole {
    goff off;
    uint64_t len;
    char reason[256];
};

struct copy_worker {
    struct parcel parcel;
    uint8_t *old; /* COPY_GAPS_DIFFER: what the target shows */
    struct hole *holes;
    size_t n_holes;
};

struct run {
    const struct copy *c;
    struct walk *walk;
    bool endless; /* next(): the size is not known yet */
    uint64_t size;
    size_t chunk;
    goff pos; /* next(): everything before is given out */
    goff end; /* ... and what is behind is not to be, yet */
    struct copy_worker workers[WALK_MAX_WORKERS];
    struct hole last; /* the hole that may still grow; under the turn */
    uint64_t holes;
    atomic_uint failures; /* chunks in a row of which nothing could be read */
    _Atomic uint64_t failing_since;
    atomic_uint reading; /* workers of a fill that read from the sources now */
};

/* ---- next ------------------------------------------------------------------------------------ */

enum range_kind { RANGE_DATA, RANGE_ZERO, RANGE_SKIP };

/* What is to be done with the range at off; *ret_len: for how many bytes. */
static int classify(const struct run *run, goff off, uint64_t len, enum range_kind *ret,
                    uint64_t *ret_len, struct platter_error *err)
{
    const struct copy *c = run->c;
    *ret = RANGE_DATA;
    *ret_len = len;
    if (c->sparse == 0 && c->above == 0)
        return 0;
    struct disk_extent x;
    if (c->gaps == COPY_GAPS_DIFFER || c->gaps == COPY_GAPS_FILL) {
        int own = disk_map_above(c->target, 1, off, len, &x, err);
        if (own < 0)
            return own;
        *ret = RANGE_SKIP;
        *ret_len = len = x.e.len;
        if (x.e.kind != EXTENT_BACKING)
            return 0;
        *ret = RANGE_DATA;
    }
    int r = sources_map(c->sources, c->above, off, len, &x, err);
    if (r < 0 && c->salvage) {
        *ret_len = min_u64(len, run->chunk);
        return 0;
    }
    if (r < 0)
        return r;
    *ret_len = x.e.len;
    if (x.e.kind == EXTENT_BACKING) {
        *ret = RANGE_SKIP;
    } else if (x.e.kind == EXTENT_ZERO && c->gaps == COPY_GAPS_DIFFER) {
        struct disk_extent t;
        r = disk_map(c->target, off, x.e.len, &t, err);
        if (r < 0)
            return r;
        *ret_len = t.e.len;
        *ret = t.e.kind == EXTENT_ZERO ? RANGE_SKIP : RANGE_DATA;
    } else if (x.e.kind == EXTENT_ZERO) {
        bool skip = c->gaps == COPY_GAPS_SKIP || (c->gaps == COPY_GAPS_FILL && !c->zeros);
        *ret = skip ? RANGE_SKIP : RANGE_ZERO;
    }
    return 0;
}

/* Where a chunk of data that begins at off, with len bytes known to be data, ends. */
static int data_end(const struct run *run, goff off, uint64_t len, goff *ret_end,
                    struct platter_error *err)
{
    goff limit = min_u64(off - off % run->chunk + run->chunk, run->end);
    uint64_t unit = run->c->sink->unit;
    goff end = min_u64(round_up(off + min_u64(len, run->chunk), unit), limit);
    while (end < limit) {
        enum range_kind kind;
        int r = classify(run, end, limit - end, &kind, &len, err);
        if (r < 0)
            return r;
        if (kind != RANGE_DATA && len >= unit)
            break;
        end = min_u64(round_up(end + len, unit), limit);
    }
    *ret_end = end;
    return 0;
}

/* Goes on to the next range that is to be copied, in whole units. */
static int find_range(struct run *run, struct platter_error *err)
{
    const struct copy *c = run->c;
    goff start = run->pos;
    uint64_t len = run->size - start, unit = c->sink->unit;
    if (run->pos < run->end)
        return 0;
    int r = c->only ? c->only(c->only_opaque, run->pos, &start, &len, err) : 1;
    if (r < 0)
        return r;
    if (r == 0)
        start = run->size;
    run->pos = max_u64(run->pos, round_down(min_u64(start, run->size), r ? unit : 1));
    run->end = r ? min_u64(round_up(start + len, unit), run->size) : run->size;
    return 0;
}

/* What has no size yet may get it now, so that no chunk reaches over its end. */
static int reach(struct run *run, struct platter_error *err)
{
    const struct copy *c = run->c;
    goff to = run->pos - run->pos % run->chunk + 2 * run->chunk;
    bool known;
    if (!run->endless)
        return 0;
    int r = sources_reach(c->sources, to, &known, err);
    if (r == 0 && known) {
        run->endless = false;
        run->size = c->sources->size = round_up(c->sources->end, c->size_unit);
        run->end = min_u64(run->end, run->size);
        run->walk->total = run->size;
    }
    return r < 0 ? r : c->grow(c->grow_opaque, known ? run->size : to, known, err);
}

static int copy_next(void *opaque, struct walk_chunk *ret, struct platter_error *err)
{
    struct run *run = opaque;
    uint64_t unit = run->c->sink->unit;
    while (run->pos < run->size) {
        enum range_kind kind;
        uint64_t len;
        int r = reach(run, err);
        if (r < 0)
            return r;
        if (run->pos >= run->size)
            break;
        r = find_range(run, err);
        if (r < 0)
            return r;
        goff pos = run->pos, end;
        if (pos == run->size)
            break;
        r = classify(run, pos, run->end - pos, &kind, &len, err);
        if (r < 0)
            return r;
        goff whole = pos + len == run->size ? run->size : round_down(pos + len, unit);
        if (kind == RANGE_SKIP && whole > pos) {
            run->pos = whole;
            continue;
        }
        if (kind == RANGE_ZERO && whole > pos) {
            end = min_u64(whole, pos - pos % ZERO_RUN + ZERO_RUN);
            ret->flags = CHUNK_ZERO;
        } else if ((r = data_end(run, pos, len, &end, err)) < 0) {
            return r;
        }
        ret->off = pos;
        ret->len = end - pos;
        run->pos = end;
        return 1;
    }
    return 0;
}

/* ---- work ------------------------------------------------------------------------------------ */

static int add_hole(struct copy_worker *w, goff off, uint64_t len, const char *reason,
                    struct platter_error *err)
{
    struct hole *last = w->n_holes ? &w->holes[w->n_holes - 1] : NULL;
    if (last && last->off + last->len == off) {
        last->len += len;
        return 0;
    }
    struct hole *holes = reallocarray(w->holes, w->n_holes + 1, sizeof *holes);
    if (!holes)
        return fail_memory(err, "a list of holes");
    w->holes = holes;
    holes[w->n_holes] = (struct hole){.off = off, .len = len};
    snprintf(holes[w->n_holes++].reason, sizeof holes->reason, "%.*s",
             (int)sizeof holes->reason - 1, reason);
    return 0;
}

/* Whether all of a range lies in one packed unit, which is read as a whole or not at all. */
static bool in_one_unit(const struct run *run, goff off, uint64_t len)
{
    struct disk_extent x;
    return sources_map(run->c->sources, 0, off, len, &x, NULL) == 0 && x.e.kind == EXTENT_PACKED &&
           x.e.len >= len;
}

/* Reads what can be read, halving what cannot, and leaves zeros for the rest. Want of memory is our
 * trouble, not the disk's: what could be read with more of it is no hole. */
static int read_salvaging(const struct run *run, struct copy_worker *w, uint8_t *buf, size_t len,
                          goff off, struct platter_error *err)
{
    struct platter_error reason = {0};
    int r = sources_read(run->c->sources, buf, len, off, &reason);
    if (r == 0)
        return 0;
    if (r == -ENOMEM)
        return fail(err, ENOMEM, "%s", reason.message);
    if (len <= SALVAGE_GRAIN || in_one_unit(run, off, len)) {
        memset(buf, 0, len);
        return add_hole(w, off, len, reason.message, err);
    }
    size_t half = (size_t)round_up(len / 2, SALVAGE_GRAIN);
    r = read_salvaging(run, w, buf, half, off, err);
    return r < 0 ? r : read_salvaging(run, w, buf + half, len - half, off + half, err);
}

/*
 * Guests go before a fill, which reads from the same server: as long as they read there it has one
 * small request under way at most, and begins none while one of theirs is. Returns how much of len
 * may be read; run->reading is one less after that.
 */
static size_t enter_way(struct run *run, size_t len)
{
    const struct filling *f = run->c->target->filling;
    size_t piece = (size_t)max_u64(WAY_PIECE, sources_unit(run->c->sources));
    bool now, busy = false;
    for (unsigned i = 0; i < WAY_MS && f && (busy = filling_wants_way(f, &now)); i++) {
        unsigned none = 0;
        if (!now && atomic_compare_exchange_strong(&run->reading, &none, 1))
            return min_u64(len, piece);
        poll(NULL, 0, 1);
    }
    atomic_fetch_add(&run->reading, 1);
    return busy ? min_u64(len, piece) : len;
}

static int read_giving_way(struct run *run, uint8_t *buf, size_t len, goff off,
                           struct platter_error *err)
{
    int r = 0;
    for (size_t done = 0, n; done < len && r == 0; done += n) {
        n = enter_way(run, len - done);
        r = sources_read(run->c->sources, buf + done, n, off + done, err);
        atomic_fetch_sub(&run->reading, 1);
    }
    return r;
}

/* After each chunk of a fill; whether the source is gone. `failed`: nothing of the chunk could be
 * read, which was begun at `since`. */
static bool is_gone(struct run *run, bool failed, uint64_t since)
{
    if (!failed) {
        atomic_store(&run->failures, 0);
        return false;
    }
    unsigned before = atomic_fetch_add(&run->failures, 1);
    if (before == 0)
        atomic_store(&run->failing_since, since);
    return before + 1 >= FILL_FAILURES && now_ns() - atomic_load(&run->failing_since) >
                                              (uint64_t)FILL_FAILING_S * UINT64_C(1000000000);
}

/* What a fill cannot read now it may read another time, so a unit is all that is tried again. Want
 * of memory and a source that is another one end it. */
static int read_filling(struct run *run, struct copy_worker *w, const struct walk_chunk *c,
                        struct platter_error *err)
{
    struct platter_error reason = {0};
    uint64_t since = now_ns();
    size_t unit = run->c->sink->unit, len = (size_t)c->len, lost = 0;
    int r = read_giving_way(run, w->parcel.in, len, c->off, &reason);
    for (size_t at = 0, n; r < 0 && r != -ENOMEM && r != -ESTALE && at < len; at += n) {
        n = (size_t)min_u64(unit, len - at);
        /* Where the first and the second cannot be, the source is asked for no more of it. */
        bool skip = lost == at && lost >= 2 * unit;
        int e =
            skip ? -EIO : sources_read(run->c->sources, w->parcel.in + at, n, c->off + at, &reason);
        if (e < 0 && add_hole(w, c->off + at, n, reason.message, err) < 0)
            return -ENOMEM;
        lost += e < 0 ? n : 0;
        r = e == -ENOMEM || e == -ESTALE ? e : r;
    }
    bool gone = is_gone(run, lost == len, since);
    if (r == -ENOMEM || r == -ESTALE || gone)
        return fail(err, -r, "%s", reason.message);
    return 0;
}

/* Whether some of [off, off + len) could not be read. */
static bool in_hole(const struct copy_worker *w, goff off, uint64_t len)
{
    for (size_t i = 0; i < w->n_holes; i++)
        if (off < w->holes[i].off + w->holes[i].len && w->holes[i].off < off + len)
            return true;
    return false;
}

static int read_chunk(struct run *run, struct copy_worker *w, const struct walk_chunk *c,
                      struct platter_error *err)
{
    w->n_holes = 0;
    if (run->c->salvage && run->c->gaps == COPY_GAPS_FILL)
        return read_filling(run, w, c, err);
    if (run->c->salvage)
        return read_salvaging(run, w, w->parcel.in, (size_t)c->len, c->off, err);
    return sources_read(run->c->sources, w->parcel.in, (size_t)c->len, c->off, err);
}

/* How a block of the chunk is treated: a piece kind, or -1 for not at all. */
static int block_kind(const struct run *run, const struct copy_worker *w, goff off, size_t at,
                      size_t n)
{
    const struct copy *c = run->c;
    if (c->gaps == COPY_GAPS_DIFFER && memcmp(w->parcel.in + at, w->old + at, n) == 0)
        return -1;
    if (c->gaps == COPY_GAPS_FILL && in_hole(w, off + at, n))
        return -1;
    if (c->sparse == 0 || !is_zero(w->parcel.in + at, n))
        return PIECE_DATA;
    return c->gaps == COPY_GAPS_SKIP ? -1 : PIECE_ZERO;
}

/* Cuts a chunk into pieces of zeros and data. */
static int cut(const struct run *run, struct copy_worker *w, const struct walk_chunk *c,
               struct platter_error *err)
{
    uint64_t unit = run->c->sink->unit;
    uint64_t sparse = min_u64(max_u64(run->c->sparse, 1), run->chunk);
    size_t grain = (size_t)(div_up(sparse, unit) * unit);
    size_t len = (size_t)c->len;
    for (size_t at = 0; at < len;) {
        int kind = block_kind(run, w, c->off, at, (size_t)min_u64(grain, len - at));
        size_t end = at + grain;
        while (end < len &&
               block_kind(run, w, c->off, end, (size_t)min_u64(grain, len - end)) == kind)
            end += grain;
        end = (size_t)min_u64(end, len);
        struct piece piece = {.kind = (enum piece_kind)kind,
                              .off = c->off + at,
                              .len = end - at,
                              .bytes = w->parcel.in + at};
        int r = kind < 0 ? 0 : parcel_add(&w->parcel, &piece, err);
        if (r < 0)
            return r;
        at = end;
    }
    return 0;
}

static int copy_work(void *opaque, unsigned worker, struct walk_chunk *c, struct platter_error *err)
{
    struct run *run = opaque;
    struct copy_worker *w = &run->workers[worker];
    w->parcel.n_pieces = 0;
    w->n_holes = 0;
    if (c->flags == CHUNK_ZERO) {
        struct piece piece = {.kind = PIECE_ZERO, .off = c->off, .len = c->len};
        return parcel_add(&w->parcel, &piece, err);
    }
    c->moved = c->len;
    int r = read_chunk(run, w, c, err);
    if (r == 0 && w->old)
        r = disk_read(run->c->target, w->old, (size_t)c->len, c->off, err);
    if (r == 0)
        r = cut(run, w, c, err);
    return r < 0 ? r : run->c->sink->ops->prepare(run->c->sink, &w->parcel, err);
}

/* ---- turn and after -------------------------------------------------------------------------- */

static void report_last(struct run *run)
{
    if (run->last.len == 0)
        return;
    run->holes++;
    if (run->c->hole)
        run->c->hole(run->c->opaque, run->last.off, run->last.len, run->last.reason);
    run->last.len = 0;
}

/* Joins holes that touch, across chunks, and reports each when it is known to be whole. */
static void report_holes(struct run *run, const struct copy_worker *w)
{
    for (size_t i = 0; i < w->n_holes; i++) {
        const struct hole *h = &w->holes[i];
        if (run->last.len > 0 && run->last.off + run->last.len == h->off) {
            run->last.len += h->len;
            continue;
        }
        report_last(run);
        run->last = *h;
    }
}

static int copy_turn(void *opaque, unsigned worker, struct walk_chunk *c, struct platter_error *err)
{
    (void)c;
    struct run *run = opaque;
    struct copy_worker *w = &run->workers[worker];
    report_holes(run, w);
    return run->c->sink->ops->place(run->c->sink, &w->parcel, err);
}

static int copy_after(void *opaque, unsigned worker, struct walk_chunk *c, bool failed,
                      struct platter_error *err)
{
    (void)c;
    struct run *run = opaque;
    return run->c->sink->ops->store(run->c->sink, &run->workers[worker].parcel, failed, err);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int worker_open(const struct run *run, struct copy_worker *w, struct platter_error *err)
{
    struct parcel *p = &w->parcel;
    p->in_len = run->chunk;
    p->out_len = run->c->sink->ops->out_len(run->c->sink, run->chunk);
    int r = budget_alloc(run->c->budget, p->in_len, "the buffers of a copy", &p->in, err);
    if (r == 0 && p->out_len > 0)
        r = budget_alloc(run->c->budget, p->out_len, "the buffers of a copy", &p->out, err);
    if (r == 0 && run->c->gaps == COPY_GAPS_DIFFER)
        r = budget_alloc(run->c->budget, run->chunk, "the buffers of a copy", &w->old, err);
    return r;
}

static void worker_close(const struct run *run, struct copy_worker *w)
{
    budget_free(run->c->budget, w->parcel.in, w->parcel.in_len);
    budget_free(run->c->budget, w->parcel.out, w->parcel.out_len);
    budget_free(run->c->budget, w->old, run->chunk);
    free(w->parcel.pieces);
    free(w->holes);
    *w = (struct copy_worker){0};
}

static unsigned most_requests(const struct copy *c)
{
    unsigned requests = sources_requests(c->sources);
    return c->sink->requests > requests ? c->sink->requests : requests;
}

static void copy_interrupt(void *opaque)
{
    const struct copy *c = ((struct run *)opaque)->c;
    sources_interrupt(c->sources);
    if (c->sink->ops->interrupt)
        c->sink->ops->interrupt(c->sink);
}

/* Buffers for as many workers as there is memory for, at least one. */
static int open_workers(struct run *run, unsigned *ret_n, struct platter_error *err)
{
    unsigned wanted = walk_workers_within(walk_workers(run->c->workers, most_requests(run->c)),
                                          sources_window(run->c->sources), 2 * run->chunk);
    for (unsigned n = 0; n < wanted; n++) {
        int r = worker_open(run, &run->workers[n], n == 0 ? err : NULL);
        if (r < 0) {
            worker_close(run, &run->workers[n]);
            if (n == 0)
                return r;
            wanted = n;
        }
    }
    *ret_n = wanted;
    return 0;
}

int copy_run(const struct copy *c, uint64_t *ret_holes, struct platter_error *err)
{
    static const struct walk_ops ops = {
        .next = copy_next, .work = copy_work, .turn = copy_turn, .after = copy_after};
    auto_free struct run *run = calloc(1, sizeof *run);
    if (!run)
        return fail_memory(err, "a copy");
    run->c = c;
    run->size = c->sources->size;
    run->endless = c->grow;
    /* A chunk holds whole units of both ends, so that each is packed or inflated once. */
    uint64_t unit = max_u64(sources_unit(c->sources), c->sink->unit);
    run->chunk = (size_t)max_u64(WALK_CHUNK, round_up(unit, c->sink->unit));
    struct walk walk = {.ops = &ops,
                        .opaque = run,
                        .total = run->size,
                        .rate = c->rate,
                        .progress = c->progress,
                        .progress_opaque = c->opaque,
                        /* Guests read from the same server as a fill does. */
                        .interrupt =
                            most_requests(c) && c->gaps != COPY_GAPS_FILL ? copy_interrupt : NULL};
    run->walk = &walk;
    int r = open_workers(run, &walk.workers, err);
    if (r == 0)
        r = walk_run(&walk, err);
    if (r == 0)
        r = sources_unchanged(c->sources, err);
    if (r == 0) {
        report_last(run);
        *ret_holes = run->holes;
        r = c->sink->ops->finish(c->sink, err);
    }
    for (unsigned i = 0; i < WALK_MAX_WORKERS; i++)
        worker_close(run, &run->workers[i]);
    return r;
}

int copy_disk(struct copy *c, struct platter_disk *from, struct platter_disk *to,
              const struct platter_open_options *open, struct platter_error *err)
{
    struct sources sources = {0};
    uint64_t holes;
    c->sources = &sources;
    c->budget = budget_new(open && open->memory_limit ? open->memory_limit : COPY_MEMORY);
    int r = c->budget ? sources_open(&sources, &from, 1, err) : fail_memory(err, "a copy");
    if (r == 0)
        r = sink_disk_open(to, false, &c->sink, err);
    if (r == 0) {
        r = copy_run(c, &holes, err);
        c->sink->ops->close(c->sink);
    }
    sources_close(&sources);
    budget_unref(c->budget);
    return r;
}
