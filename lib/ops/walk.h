/* SPDX-License-Identifier: MIT */
/*
 * Whole-disk work with several threads: every op (copy, compare, digest) is a walk.
 *
 * Workers pull chunks, one after the other, from next(); work on them side by side; then pass a
 * turnstile in the order in which the chunks were pulled; then finish side by side again. A worker
 * has one chunk at a time and its own buffers, so memory is workers x chunk, whatever the disk's
 * size, and what is decided in turn() (where data goes, what is written to a pipe) is the same in
 * every run.
 */
#ifndef OPS_WALK_H
#define OPS_WALK_H

#include "disk/disk.h"

enum {
    WALK_MAX_WORKERS = 64,
    WALK_CHUNK = 1 << 20 /* bytes that a worker usually has in hand */
};

struct walk_chunk {
    goff off;       /* as next() says, on the whole that is walked */
    uint64_t len;   /* bytes */
    uint64_t moved; /* set by work(): bytes of data really read, for the rate */
    void *of_next;  /* next() may leave something here for the rest (a source, flags) */
    uint64_t flags; /* the same */
};

struct walk_ops {
    /* The next chunk: 1, or 0 at the end. Called by one thread at a time, in ascending order. May
     * skip what needs no work: progress goes by chunk->off + len. */
    int (*next)(void *opaque, struct walk_chunk *ret, struct platter_error *err);
    /* Side by side. `worker` is 0 .. workers - 1 and picks the caller's buffers. */
    int (*work)(void *opaque, unsigned worker, struct walk_chunk *c, struct platter_error *err);
    /* In order, one at a time; may be NULL. */
    int (*turn)(void *opaque, unsigned worker, struct walk_chunk *c, struct platter_error *err);
    /* Side by side; may be NULL. Called exactly for the chunks whose turn() was called (whatever it
     * returned), so that what a turn took can be given back; `failed` tells that it is to be. */
    int (*after)(void *opaque, unsigned worker, struct walk_chunk *c, bool failed,
                 struct platter_error *err);
};

struct walk {
    const struct walk_ops *ops;
    void *opaque;
    unsigned workers;             /* as walk_workers() gave it */
    _Atomic uint64_t total;       /* bytes of the whole, for progress; may become less */
    uint64_t rate;                /* most moved bytes a second; 0: no limit */
    platter_progress_fn progress; /* or NULL */
    void *progress_opaque;
    /* Has whoever waits for a server come back with an error (disk_interrupt()): called when
     * progress() had enough and the work does not end by itself. NULL: nobody waits for long. */
    void (*interrupt)(void *opaque);
};

/* How many workers to use where the user asked for `asked` (0: as many as help), and what is walked
 * is worth so many requests at once (disk_requests(); 0: it is local). */
unsigned walk_workers(unsigned asked, unsigned requests);

/* At most so many that chunks of this length, one for each, lie within a window (disk_window(); 0:
 * any number does). */
unsigned walk_workers_within(unsigned workers, uint64_t window, uint64_t chunk);

/* Runs to the end or to the first failure, which is returned; all threads have ended then. */
int walk_run(const struct walk *w, struct platter_error *err);

#endif
