/* SPDX-License-Identifier: MIT */
/*
 * The copy of a migration: a copy like others, which fills in what the target lacks. What it has
 * done is in the target itself, so it can end at any point and be gone on with; a thread beside it
 * makes that durable every few seconds.
 *
 * When all is there nothing of the source is needed any more, and it is let go of at once.
 */
#include <inttypes.h>
#include <string.h>

#include "base/awake.h"
#include "base/ckd.h"
#include "base/signals.h"
#include "format/partial.h"
#include "ops/copy.h"
#include "ops/migrate.h"

enum {
    KEEP_EVERY_S = 2,   /* seconds of work that a crash may cost */
    SERVER_WORKERS = 8, /* requests to a server that guests read from as well */
    RATE_WINDOW_S = 2,  /* seconds that a rate is measured over */
    NS = 1000 * 1000 * 1000
};

struct execution {
    struct platter_migration *m;
    platter_progress_fn progress;
    void *opaque;
    uint64_t holes; /* ranges that could not be read */
    char *why;      /* ... the first of them */
    uint64_t lost;  /* bytes */
    pthread_t keeper;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool over;                    /* the keeper is to end */
    uint64_t mark_at, mark_moved; /* of the rate */
};

void migration_stop(struct platter_migration *m)
{
    atomic_store(&m->stop, true);
}

/* ---- progress -------------------------------------------------------------------------------- */

static int tick(void *opaque, const struct platter_progress *now)
{
    struct execution *e = opaque;
    struct platter_migration *m = e->m;
    uint64_t at = now_ns();
    pthread_mutex_lock(&m->lock);
    m->done = now->done;
    m->total = now->total;
    if (at - e->mark_at > (uint64_t)RATE_WINDOW_S * NS) {
        m->rate = (now->moved - e->mark_moved) * 1000 / ((at - e->mark_at) / 1000000);
        e->mark_at = at;
        e->mark_moved = now->moved;
    }
    bool stop = m->lost;
    pthread_mutex_unlock(&m->lock);
    if (stop || atomic_load(&m->stop))
        return 1;
    return e->progress ? e->progress(e->opaque, now) : 0;
}

static void note_hole(void *opaque, uint64_t offset, uint64_t length, const char *reason)
{
    struct execution *e = opaque;
    (void)offset;
    e->lost += length;
    if (e->holes++ == 0)
        e->why = string_copy(reason);
}

/* ---- the keeper ------------------------------------------------------------------------------ */

/* Waits; false: it is over. */
static bool keeper_wait(struct execution *e)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += KEEP_EVERY_S;
    WITH_LOCK(&e->lock);
    int r = 0;
    while (!e->over && r == 0)
        r = pthread_cond_timedwait(&e->wake, &e->lock, &until);
    return !e->over;
}

/* A flush that fails fails the copy as well, which says why. */
static void *keeper_run(void *opaque)
{
    struct execution *e = opaque;
    struct range_hold hold;
    while (keeper_wait(e)) {
        disk_flush(e->m->disk, NULL);
        disk_pin(e->m->disk, &hold);
        migration_check_source(e->m, NULL); /* tick() sees what it found */
        disk_unpin(e->m->disk, &hold);
    }
    return NULL;
}

static int keeper_start(struct execution *e, struct platter_error *err)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&e->wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&e->lock, NULL);
    int code = thread_start(&e->keeper, keeper_run, e);
    if (code == 0)
        return 0;
    pthread_cond_destroy(&e->wake);
    pthread_mutex_destroy(&e->lock);
    return fail_errno(err, code, "no thread for a copy");
}

static void keeper_end(struct execution *e)
{
    pthread_mutex_lock(&e->lock);
    e->over = true;
    pthread_cond_signal(&e->wake);
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->keeper, NULL);
    pthread_cond_destroy(&e->wake);
    pthread_mutex_destroy(&e->lock);
}

/* ---- the copy -------------------------------------------------------------------------------- */

static int copy(struct execution *e, struct platter_disk *source, unsigned workers, uint64_t rate,
                struct platter_error *err)
{
    struct platter_disk *disk = e->m->disk;
    unsigned most = disk_requests(source) ? SERVER_WORKERS : 0;
    struct sources sources = {0};
    struct copy c = {.sources = &sources,
                     .gaps = COPY_GAPS_FILL,
                     .target = disk,
                     .zeros = disk_top(disk)->format == &format_partial,
                     .sparse = COPY_SPARSE,
                     .salvage = true,
                     .workers = workers ? workers : most,
                     .rate = rate,
                     .progress = tick,
                     .hole = note_hole,
                     .opaque = e};
    uint64_t limit = e->m->options.memory_limit, holes;
    c.budget = budget_new(limit ? limit : COPY_MEMORY);
    int r = c.budget ? sources_open(&sources, &source, 1, err) : fail_memory(err, "a copy");
    if (r == 0)
        r = sink_fill_open(disk, &c.sink, err);
    if (r == 0) {
        r = copy_run(&c, &holes, err);
        c.sink->ops->close(c.sink);
    }
    sources_close(&sources);
    budget_unref(c.budget);
    return r;
}

static int copy_below(struct execution *e, unsigned workers, uint64_t rate,
                      struct platter_error *err)
{
    struct platter_disk *disk = e->m->disk, *source;
    int r = disk_borrow(disk, 1, disk->depth - 1, &source, err);
    if (r < 0)
        return r;
    r = keeper_start(e, err);
    if (r == 0) {
        r = copy(e, source, workers, rate, err);
        keeper_end(e);
    }
    uint64_t size = disk_size(source);
    disk_close(source, NULL);
    /* Behind the end of a shorter source there are zeros, and if the unit in which it ends was not
     * copied there are some in front of it as well. */
    size = round_down(size, disk_top(disk)->unit);
    if (r == 0 && e->holes == 0 && disk_top(disk)->format == &format_partial &&
        size < disk_size(disk))
        r = disk_fill_zero(disk, size, disk_size(disk) - size, err);
    return r;
}

/* All is there. */
static int leave_as_it_is(struct image *top, void *opaque, struct platter_error *err)
{
    (void)top;
    (void)opaque;
    (void)err;
    return 0;
}

/* A raw target says of each unit whether it is there, zeros or not, and after a commit nobody asks
 * it any more: what stands in the place of one that is absent would be taken for the disk's. */
static int check_whole(struct platter_migration *m, struct platter_error *err)
{
    uint64_t size = disk_size(m->disk);
    struct disk_extent x;
    if (disk_top(m->disk)->format != &format_partial)
        return 0;
    for (goff off = 0; off < size; off += x.e.len) {
        int r = disk_map_above(m->disk, 1, off, size - off, &x, err);
        if (r < 0)
            return r;
        if (x.e.kind == EXTENT_BACKING)
            return fail(err, EIO, "%s: %" PRIu64 " bytes at offset %" PRIu64 " were not copied",
                        m->target, x.e.len, off);
    }
    return 0;
}

static int finish(struct platter_migration *m, struct platter_error *err)
{
    struct range_hold hold;
    pthread_mutex_lock(&m->lock);
    m->checked_at = 0; /* now, and not a second ago */
    pthread_mutex_unlock(&m->lock);
    disk_pin(m->disk, &hold);
    int r = migration_check_source(m, err);
    disk_unpin(m->disk, &hold);
    if (r == 0)
        r = check_whole(m, err);
    if (r == 0)
        r = disk_flush(m->disk, err);
    if (r == 0)
        r = migration_enter(m, MIGRATE_EXECUTED, NULL, err);
    return r < 0 ? r : disk_stand_alone(m->disk, leave_as_it_is, NULL, err);
}

/* What there is to say of a copy that did not come to its end. */
static int judge(struct execution *e, int r, struct platter_error *err)
{
    struct platter_migration *m = e->m;
    if (r == -ECANCELED) {
        struct range_hold hold;
        disk_pin(m->disk, &hold);
        int lost = migration_check_source(m, err);
        disk_unpin(m->disk, &hold);
        return lost < 0 ? lost : fail(err, ECANCELED, "%s: canceled", m->target);
    }
    if (r == 0 && e->holes > 0)
        return fail(err, EIO,
                    "%s: %" PRIu64 " range%s of the source, %" PRIu64
                    " bytes, could not be read; the first: %s",
                    m->target, e->holes, e->holes == 1 ? "" : "s", e->lost, e->why ? e->why : "");
    return r;
}

static int run(struct platter_migration *m, unsigned workers, uint64_t rate,
               platter_progress_fn progress, void *opaque, struct platter_error *err)
{
    struct platter_error why = {0};
    struct execution e = {.m = m, .progress = progress, .opaque = opaque, .mark_at = now_ns()};
    int r = migration_attach(m, &why);
    if (r == 0)
        r = migration_enter(m, MIGRATE_EXECUTING, NULL, &why);
    if (r == 0)
        r = judge(&e, copy_below(&e, workers, rate, &why), &why);
    free(e.why);
    if (r == 0)
        r = finish(m, &why);
    if (r == 0)
        return 0;
    disk_flush(m->disk, NULL); /* what was done stays done */
    migration_enter(m, MIGRATE_PREPARED, r == -ECANCELED ? NULL : why.message, NULL);
    return fail(err, -r, "%s", why.message);
}

int migration_execute(struct platter_migration *m, unsigned workers, uint64_t rate,
                      platter_progress_fn progress, void *opaque, struct platter_error *err)
{
    pthread_mutex_lock(&m->lock);
    bool done = m->state.phase >= MIGRATE_EXECUTED, busy = m->executing || m->ending;
    if (!done && !busy) {
        m->executing = true;
        m->done = m->rate = 0;
        atomic_store(&m->stop, false);
    }
    pthread_mutex_unlock(&m->lock);
    if (done)
        return 0;
    if (busy)
        return fail(err, EALREADY, "%s: is being copied already", m->target);
    int r = run(m, workers, rate, progress, opaque, err);
    pthread_mutex_lock(&m->lock);
    m->executing = false;
    m->rate = 0;
    pthread_mutex_unlock(&m->lock);
    return r;
}
