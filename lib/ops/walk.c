/* SPDX-License-Identifier: MIT */
/* The walker: see walk.h for what it promises. */
#include "ops/walk.h"

#include <unistd.h>

#include "base/awake.h"
#include "base/ckd.h"

enum {
    PROGRESS_NS = 100 * 1000 * 1000, /* between two calls of the progress function, at least */
    GRACE_NS = 1000 * 1000 * 1000    /* what is under way may take so long after a cancel */
};

struct run {
    const struct walk *w;

    pthread_mutex_t next_lock; /* around next() */
    uint64_t pulled;           /* chunks given out; under next_lock */
    bool at_end;               /* under next_lock */

    pthread_mutex_t turn_lock; /* everything below */
    pthread_cond_t turned;
    uint64_t turn;   /* the chunk whose turn it is */
    bool stopped;    /* a chunk failed: later ones are let go */
    uint64_t failed; /* the chunk that failed; the first one in order counts */
    int result;
    struct platter_error error;
    uint64_t started_ns;
    _Atomic uint64_t moved;
    bool ended; /* all workers have; what follows is the watch's */
    pthread_cond_t end;

    pthread_mutex_t tell_lock; /* around progress() */
    uint64_t told_ns, done;
};

struct worker {
    struct run *run;
    unsigned index;
    pthread_t thread;
};

unsigned walk_workers(unsigned asked, unsigned requests)
{
    if (asked > 0)
        return asked < WALK_MAX_WORKERS ? asked : WALK_MAX_WORKERS;
    /* One for each core: more only get into each other's way. Two at least: while one waits for the
     * disk, another computes. */
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned workers = cores < 2 ? 2 : cores < 16 ? (unsigned)cores : 16;
    /* Who waits for a network needs no core. */
    workers = requests > workers ? requests : workers;
    return workers < WALK_MAX_WORKERS ? workers : WALK_MAX_WORKERS;
}

unsigned walk_workers_within(unsigned workers, uint64_t window, uint64_t chunk)
{
    uint64_t most = window / (2 * chunk); /* some have theirs ahead of them, some behind */
    if (window == 0 || most >= workers)
        return workers;
    return most ? (unsigned)most : 1;
}

/* Remembers the failure of the chunk that comes first in order. Held under turn_lock. */
static void note_failure(struct run *run, uint64_t seq, int r, const struct platter_error *error)
{
    if (!run->stopped || seq < run->failed) {
        run->failed = seq;
        run->result = r;
        run->error = *error;
    }
    run->stopped = true;
}

static int tell_progress(struct run *run, uint64_t done, bool last, struct platter_error *err)
{
    const struct walk *w = run->w;
    uint64_t now = now_ns();
    if (!w->progress)
        return 0;
    WITH_LOCK(&run->tell_lock);
    run->done = max_u64(run->done, done);
    if (!last && now - run->told_ns < PROGRESS_NS)
        return 0;
    run->told_ns = now;
    struct platter_progress p = {
        .size = sizeof p, .done = run->done, .total = w->total, .moved = run->moved};
    return w->progress(w->progress_opaque, &p) ? fail(err, ECANCELED, "cancelled") : 0;
}

/* Sleeps as long as the work so far is ahead of the rate. Progress is told meanwhile: a slow walk
 * can be cancelled as soon as a fast one. */
static int hold_rate(struct run *run, uint64_t done, struct platter_error *err)
{
    uint64_t rate = run->w->rate;
    double due = rate > 0 ? (double)run->moved / (double)rate * 1e9 : 0;
    double ahead = due - (double)(now_ns() - run->started_ns);
    int r = 0;
    while (ahead > 0 && r == 0) {
        struct timespec t = {.tv_nsec = ahead < PROGRESS_NS ? (long)ahead : PROGRESS_NS};
        nanosleep(&t, NULL);
        r = tell_progress(run, done, false, err);
        ahead = due - (double)(now_ns() - run->started_ns);
    }
    return r;
}

/* Comes back when it is the chunk's turn, with the lock held. */
static void wait_for_turn(struct run *run, uint64_t seq)
{
    uint64_t until = 0;
    pthread_mutex_lock(&run->turn_lock);
    while (run->turn != seq) {
        pthread_mutex_unlock(&run->turn_lock);
        bool awake = stay_awake(&until);
        pthread_mutex_lock(&run->turn_lock);
        if (!awake && run->turn != seq)
            pthread_cond_wait(&run->turned, &run->turn_lock);
    }
}

/* Waits for the chunk's turn and takes it. Returns whether turn() was called. */
static bool take_turn(struct run *run, unsigned index, uint64_t seq, struct walk_chunk *c, int *r,
                      struct platter_error *err)
{
    const struct walk_ops *ops = run->w->ops;
    wait_for_turn(run, seq);
    /* What comes before a failure still has its turn: the outcome is the same in every run. */
    bool stopped = run->stopped && seq >= run->failed;
    if (!stopped && *r < 0)
        note_failure(run, seq, *r, err);
    bool called = !stopped && *r == 0;
    pthread_mutex_unlock(&run->turn_lock);

    /* Only the thread whose turn it is comes here, so turn() needs no lock. */
    if (called) {
        if (ops->turn)
            *r = ops->turn(run->w->opaque, index, c, err);
        run->moved += c->moved;
        if (*r == 0)
            *r = tell_progress(run, c->off + c->len, false, err);
        if (*r == 0)
            *r = hold_rate(run, c->off + c->len, err);
    }

    WITH_LOCK(&run->turn_lock);
    if (called && *r < 0)
        note_failure(run, seq, *r, err);
    run->turn++;
    pthread_cond_broadcast(&run->turned);
    return called;
}

/* Pulls the next chunk: 1, or 0 when there is nothing more to do. */
static int pull(struct run *run, struct walk_chunk *c, uint64_t *ret_seq)
{
    struct platter_error error = {0};
    WITH_LOCK(&run->next_lock);
    pthread_mutex_lock(&run->turn_lock);
    bool stopped = run->stopped;
    pthread_mutex_unlock(&run->turn_lock);
    if (stopped || run->at_end)
        return 0;
    *c = (struct walk_chunk){0};
    int r = run->w->ops->next(run->w->opaque, c, &error);
    if (r == 1) {
        *ret_seq = run->pulled++;
        return 1;
    }
    run->at_end = true;
    if (r < 0) {
        WITH_LOCK(&run->turn_lock);
        note_failure(run, run->pulled, r, &error);
    }
    return 0;
}

static void *worker_main(void *arg)
{
    struct worker *me = arg;
    struct run *run = me->run;
    const struct walk_ops *ops = run->w->ops;
    struct walk_chunk c;
    uint64_t seq;
    while (pull(run, &c, &seq) == 1) {
        struct platter_error error = {0};
        int r = ops->work(run->w->opaque, me->index, &c, &error);
        bool called = take_turn(run, me->index, seq, &c, &r, &error);
        if (called && ops->after) {
            int a = ops->after(run->w->opaque, me->index, &c, r < 0, &error);
            if (a < 0) {
                WITH_LOCK(&run->turn_lock);
                note_failure(run, seq, a, &error);
            }
        }
    }
    return NULL;
}

static void run_workers(struct run *run)
{
    struct worker workers[WALK_MAX_WORKERS];
    unsigned started = 0;
    /* The caller's thread is the last worker; fewer threads than wanted is no error. */
    for (; started + 1 < run->w->workers; started++) {
        workers[started] = (struct worker){.run = run, .index = started};
        if (pthread_create(&workers[started].thread, NULL, worker_main, &workers[started]) != 0)
            break;
    }
    struct worker me = {.run = run, .index = started};
    worker_main(&me);
    for (unsigned i = 0; i < started; i++)
        pthread_join(workers[i].thread, NULL);
}

/* ---- the watch ------------------------------------------------------------------------------- */

/* Whether all workers ended before `ns` are over. */
static bool wait_for_end(struct run *run, uint64_t ns)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    ns += (uint64_t)until.tv_nsec;
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    WITH_LOCK(&run->turn_lock);
    if (!run->ended)
        pthread_cond_timedwait(&run->end, &run->turn_lock, &until);
    return run->ended;
}

static void stop(struct run *run, int r, const struct platter_error *error)
{
    WITH_LOCK(&run->turn_lock);
    note_failure(run, run->turn, r, error);
}

/* Asks whether to go on where nobody else does, as all wait for a server; and ends that, unless it
 * ends by itself. */
static void *watch_main(void *arg)
{
    struct run *run = arg;
    struct platter_error error = {0};
    int r = 0;
    while (r == 0 && !wait_for_end(run, PROGRESS_NS))
        r = tell_progress(run, 0, false, &error);
    if (r == 0)
        return NULL;
    stop(run, r, &error);
    if (!wait_for_end(run, GRACE_NS))
        run->w->interrupt(run->w->opaque);
    return NULL;
}

static void run_watched(struct run *run)
{
    pthread_t watch;
    bool watched =
        run->w->interrupt && run->w->progress && pthread_create(&watch, NULL, watch_main, run) == 0;
    run_workers(run);
    if (!watched)
        return;
    pthread_mutex_lock(&run->turn_lock);
    run->ended = true;
    pthread_cond_signal(&run->end);
    pthread_mutex_unlock(&run->turn_lock);
    pthread_join(watch, NULL);
}

int walk_run(const struct walk *w, struct platter_error *err)
{
    struct run run = {.w = w, .started_ns = now_ns()};
    pthread_mutex_init(&run.next_lock, NULL);
    pthread_mutex_init(&run.turn_lock, NULL);
    pthread_mutex_init(&run.tell_lock, NULL);
    pthread_cond_init(&run.turned, NULL);
    pthread_cond_init(&run.end, NULL);
    run_watched(&run);
    int r = run.stopped ? run.result : tell_progress(&run, w->total, true, err);
    if (run.stopped && err)
        *err = run.error;
    pthread_cond_destroy(&run.end);
    pthread_cond_destroy(&run.turned);
    pthread_mutex_destroy(&run.tell_lock);
    pthread_mutex_destroy(&run.turn_lock);
    pthread_mutex_destroy(&run.next_lock);
    return r;
}
