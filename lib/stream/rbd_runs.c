/* SPDX-License-Identifier: MIT */
/*
 * Which parts of an image are stored, and in which two of its states differ: the cluster is asked
 * for a large part of the image at once, and the answer kept.
 *
 * Never of an image that is being migrated into the cluster, where the question ends the process
 * (source-spec.md section 1).
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "stream/rbd.h"

enum {
    PART = 1 << 30,        /* bytes that are asked about at once, whole objects of any size */
    LEAST_PART = 64 << 20, /* ... where there are too many runs in so many */
    MOST_RUNS = 64 << 10   /* that are kept: 1 MiB of memory */
};

/* ---- asking ---------------------------------------------------------------------------------- */

static int add_run(uint64_t off, size_t len, int exists, void *arg)
{
    struct rbd_runs *runs = arg;
    (void)exists; /* became zeros: that differs, too */
    if (runs->n == MOST_RUNS)
        return -E2BIG;
    if (runs->n == runs->room) {
        size_t room = runs->room ? 2 * runs->room : 64;
        struct rbd_run *all = reallocarray(runs->all, room, sizeof *all);
        if (!all)
            return -ENOMEM;
        runs->all = all;
        runs->room = room;
    }
    runs->all[runs->n++] = (struct rbd_run){off, len};
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    hoff x = ((const struct rbd_run *)a)->off, y = ((const struct rbd_run *)b)->off;
    return (x > y) - (x < y);
}

/* In order, and with nothing between them where they touch: striped, they come as objects do. */
static void tidy(struct rbd_runs *runs)
{
    size_t n = 0;
    if (runs->n > 0)
        qsort(runs->all, runs->n, sizeof *runs->all, by_offset);
    for (size_t i = 0; i < runs->n; i++) {
        struct rbd_run *last = n ? &runs->all[n - 1] : NULL, *run = &runs->all[i];
        if (last && run->off <= last->off + last->len)
            last->len = max_u64(last->off + last->len, run->off + run->len) - last->off;
        else
            runs->all[n++] = *run;
    }
    runs->n = n;
}

static int ask_part(rbd_image_t image, const char *from, hoff start, uint64_t len,
                    struct rbd_runs *runs)
{
    runs->start = runs->end = start;
    runs->n = 0;
    int r = librbd.diff_iterate2(image, from, start, len, 1, 0, add_run, runs);
    if (r < 0)
        return r;
    tidy(runs);
    runs->end = start + len;
    return 0;
}

/* What is stored of the part of the image around `off`, or differs from snapshot `from`. Where it
 * is in too many pieces for the smallest part, all of that counts as data. */
static int ask(rbd_image_t image, const char *from, hoff off, uint64_t size, struct rbd_runs *runs)
{
    int r = -E2BIG;
    for (uint64_t part = PART; r == -E2BIG && part >= LEAST_PART; part /= 4) {
        hoff start = off - off % part;
        uint64_t len = min_u64(part, size - start);
        r = ask_part(image, from, start, len, runs);
        if (r == -E2BIG && part == LEAST_PART) {
            runs->all[0] = (struct rbd_run){start, len};
            runs->n = 1;
            runs->end = start + len;
            return 0;
        }
    }
    return r;
}

/* Whether `off`, which is known about, lies in a run; for how long that is so. */
static bool look_up(const struct rbd_runs *runs, hoff off, uint64_t len, uint64_t *ret_len)
{
    size_t low = 0, high = runs->n;
    while (low < high) { /* the first run that ends behind off */
        size_t middle = (low + high) / 2;
        if (runs->all[middle].off + runs->all[middle].len <= off)
            low = middle + 1;
        else
            high = middle;
    }
    const struct rbd_run *run = low < runs->n ? &runs->all[low] : NULL;
    bool inside = run && run->off <= off;
    hoff end = !run ? runs->end : inside ? run->off + run->len : run->off;
    *ret_len = min_u64(len, min_u64(end, runs->end) - off);
    return inside;
}

static bool knows(const struct rbd_runs *runs, hoff off)
{
    return off >= runs->start && off < runs->end;
}

/* ---- what is stored -------------------------------------------------------------------------- */

int rbd_extents(struct stream *base, hoff off, uint64_t len, uint64_t *ret_len, bool *ret_hole,
                struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    *ret_len = len;
    *ret_hole = false;
    if (s->features & RBD_FEATURE_MIGRATING)
        return 0;
    int r = rbd_enter(s, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    unsigned changes = s->changes;
    if (s->asked_at != changes)
        s->stored.end = s->stored.start;
    if (!knows(&s->stored, off)) {
        s->asked_at = changes;
        r = ask(s->image, NULL, off, s->room, &s->stored);
    }
    if (r == 0)
        *ret_hole = !look_up(&s->stored, off, len, ret_len);
    pthread_mutex_unlock(&s->lock);
    pthread_rwlock_unlock(&s->gate);
    return r < 0
               ? rbd_fail(base, r, err, "what is stored at offset %" PRIu64 " cannot be told", off)
               : 0;
}

/* ---- what differs ---------------------------------------------------------------------------- */

/* Snapshots count up; the image itself comes last. */
static uint64_t snapshot_id(const struct rbd_stream *s, unsigned i)
{
    return i < s->states.n ? s->snapshot_ids[i] : RBD_NO_SNAP;
}

/* Has s->newer at the newer of two snapshots. */
static int open_newer(struct rbd_stream *s, uint64_t older, uint64_t newer,
                      struct platter_error *err)
{
    if (s->newer && s->compared[0] == older && s->compared[1] == newer)
        return 0;
    rbd_runs_done(s);
    int r = rbd_open_at(s, newer, &s->newer, err);
    s->compared[0] = older;
    s->compared[1] = newer;
    return r;
}

int rbd_differ(struct stream *base, unsigned from, unsigned to, hoff off, uint64_t len,
               uint64_t *ret_len, bool *ret_differ, struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    uint64_t older = snapshot_id(s, from), newer = snapshot_id(s, to), size = 0;
    *ret_len = len;
    *ret_differ = true;
    if (older == newer || s->features & RBD_FEATURE_MIGRATING) {
        *ret_differ = older != newer;
        return 0;
    }
    unsigned old = older < newer ? from : to;
    WITH_LOCK(&s->lock);
    int r = open_newer(s, min_u64(older, newer), max_u64(older, newer), err);
    if (r < 0 || knows(&s->changed, off)) {
        *ret_differ = r == 0 && look_up(&s->changed, off, len, ret_len);
        return r;
    }
    r = librbd.get_size(s->newer, &size);
    if (r == 0 && off < size)
        r = ask(s->newer, s->snapshots[old].name, off, size, &s->changed);
    if (r == 0 && off < size)
        *ret_differ = look_up(&s->changed, off, len, ret_len);
    return r < 0 ? rbd_fail(base, r, err, "what differs at offset %" PRIu64 " cannot be told", off)
                 : 0;
}

void rbd_runs_done(struct rbd_stream *s)
{
    if (s->newer)
        librbd.close(s->newer);
    s->newer = NULL;
    free(s->changed.all);
    free(s->stored.all);
    s->changed = s->stored = (struct rbd_runs){0};
}
