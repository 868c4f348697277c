/* SPDX-License-Identifier: MIT */
/*
 * The walk over an archive: next() reads a part of it, one thread at a time, for there is one way
 * to read what comes out of a pipe; work() writes that part to its disks, side by side; rates are
 * kept in turn().
 */
#include "ops/restore.h"

#include <string.h>

#include "base/awake.h"
#include "base/ckd.h"
#include "ops/batches.h"

enum {
    BLOCK = 4096,                   /* runs of zeros from there on are not stored */
    TICK_NS = 100 * 1000 * 1000,    /* how long a rate is kept without a look at progress */
    CREDIT_NS = 1000 * 1000 * 1000, /* ... and how much of its time may be made up for */
    PASSED = 64                     /* parts without a wanted disk, until the caller may cancel */
};

struct run {
    struct restore *restore;
    struct archive_reader *reader;
    struct walk walk;
    uint64_t done; /* bytes of the wanted disks; next()'s */
    struct batches batches;
    /* What filling a hole met with. */
    int hole_result;
    struct platter_error hole_error;
};

static struct outlet *outlet_of(const struct restore *restore, const struct archive_disk *disk)
{
    for (unsigned i = 0; i < restore->n; i++) {
        struct outlet *o = &restore->outlets[i];
        if (o->disk ? o->disk->id == disk->id : strcmp(o->name, disk->name) == 0)
            return o;
    }
    return NULL;
}

static bool is_wanted(void *opaque, const struct archive_disk *disk)
{
    return outlet_of(opaque, disk) != NULL;
}

/* ---- next ------------------------------------------------------------------------------------ */

/* Bytes of the wanted disks in a batch; notes where each of them ends so far. */
static uint64_t note_runs(const struct restore *restore, const struct archive_batch *batch)
{
    uint64_t len = 0;
    for (unsigned i = 0; i < batch->n_runs; i++) {
        const struct archive_run *x = &batch->runs[i];
        struct outlet *o = outlet_of(restore, x->disk);
        if (!o)
            continue;
        o->end = max_u64(o->end, x->off + x->len);
        len += x->len;
    }
    return len;
}

static int restore_next(void *opaque, struct walk_chunk *ret, struct platter_error *err)
{
    struct run *run = opaque;
    struct archive_batch *batch = batch_take(&run->batches);
    uint64_t len = 0;
    int r = 1;
    /* Parts without a wanted disk are not handed from thread to thread, which would be the work. */
    for (unsigned i = 0; r > 0 && len == 0 && i < PASSED; i++) {
        r = run->reader->ops->next(run->reader, batch, err);
        len = r > 0 ? note_runs(run->restore, batch) : 0;
    }
    if (r <= 0) {
        batch_give(&run->batches, batch);
        return r;
    }
    /* A state may be longer than the archive guesses. */
    ret->off = min_u64(run->done, run->walk.total);
    ret->len = min_u64(len, run->walk.total - ret->off);
    ret->of_next = batch;
    run->done += len;
    return 1;
}

/* ---- work ------------------------------------------------------------------------------------ */

static int write_data(struct outlet *o, const uint8_t *bytes, size_t len, goff off, uint64_t *moved,
                      struct platter_error *err)
{
    *moved += len;
    if (o->rate)
        atomic_fetch_add(&o->rate->moved, len);
    return o->file ? stream_pwrite(o->file, bytes, len, off, err)
                   : disk_write(o->to, bytes, len, off, err);
}

static int write_zeros(struct outlet *o, goff off, uint64_t len, struct platter_error *err)
{
    return o->fills ? disk_zero(o->to, off, len, true, err) : 0;
}

/* Stored bytes, of which some blocks may be zeros all the same. */
static int write_stored(struct outlet *o, const uint8_t *bytes, size_t len, goff off,
                        uint64_t *moved, struct platter_error *err)
{
    int r = 0;
    for (size_t at = 0, end; at < len && r == 0; at = end) {
        bool zero = is_zero(bytes + at, (size_t)min_u64(BLOCK, len - at));
        end = at + BLOCK;
        while (end < len && is_zero(bytes + end, (size_t)min_u64(BLOCK, len - end)) == zero)
            end += BLOCK;
        end = (size_t)min_u64(end, len);
        r = zero ? write_zeros(o, off + at, end - at, err)
                 : write_data(o, bytes + at, end - at, off + at, moved, err);
    }
    return r;
}

/* Whether run b goes on where a ends, on its disk and in memory. */
static bool continues(const struct archive_run *a, uint64_t len, const struct archive_run *b)
{
    return a->disk == b->disk && a->off + len == b->off && a->zero == b->zero &&
           (a->bytes ? b->bytes == a->bytes + len : !b->bytes);
}

static int write_batch(const struct restore *restore, const struct archive_batch *batch,
                       uint64_t *moved, struct platter_error *err)
{
    int r = 0;
    for (unsigned i = 0; i < batch->n_runs && r == 0;) {
        const struct archive_run *x = &batch->runs[i];
        uint64_t len = x->len;
        for (i++; i < batch->n_runs && continues(x, len, &batch->runs[i]); i++)
            len += batch->runs[i].len;
        struct outlet *o = outlet_of(restore, x->disk);
        if (!o)
            continue;
        r = x->zero ? write_zeros(o, x->off, len, err)
                    : write_stored(o, x->bytes, (size_t)len, x->off, moved, err);
    }
    return r;
}

static int restore_work(void *opaque, unsigned worker, struct walk_chunk *c,
                        struct platter_error *err)
{
    (void)worker;
    struct run *run = opaque;
    int r = write_batch(run->restore, c->of_next, &c->moved, err);
    batch_give(&run->batches, c->of_next);
    return r;
}

/* ---- turn ------------------------------------------------------------------------------------ */

/* When everything that was written is within all limits. */
static uint64_t due_ns(struct restore *restore)
{
    uint64_t due = 0, now = now_ns();
    for (unsigned i = 0; i < restore->n_rates; i++) {
        struct rate *rate = &restore->rates[i];
        uint64_t moved = atomic_exchange(&rate->moved, 0);
        uint64_t from = max_u64(rate->next_ns, now - min_u64(now, CREDIT_NS));
        rate->next_ns = from + (uint64_t)((double)moved / (double)rate->limit * 1e9);
        due = max_u64(due, rate->next_ns);
    }
    return due;
}

/* In turn(), so that progress is told by one thread at a time, and can cancel. */
static int restore_turn(void *opaque, unsigned worker, struct walk_chunk *c,
                        struct platter_error *err)
{
    (void)worker;
    struct run *run = opaque;
    const struct walk *w = &run->walk;
    uint64_t due = due_ns(run->restore);
    struct platter_progress p = {.size = sizeof p, .done = c->off + c->len, .total = w->total};
    for (uint64_t now; (now = now_ns()) < due;) {
        struct timespec t = {.tv_nsec = (long)min_u64(due - now, TICK_NS)};
        nanosleep(&t, NULL);
        if (w->progress && w->progress(w->progress_opaque, &p))
            return fail(err, ECANCELED, "cancelled");
    }
    return 0;
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* Called by the reader, thus in next(): what is missing must read as zeros, whatever was there. */
static void see_fault(void *opaque, const struct archive_fault *fault)
{
    struct run *run = opaque;
    struct outlet *o = fault->disk ? outlet_of(run->restore, fault->disk) : NULL;
    if (fault->kind != ARCHIVE_FAULT_MISSING || !o)
        return;
    run->restore->holes++;
    if (run->hole_result == 0)
        run->hole_result = write_zeros(o, fault->start, fault->len, &run->hole_error);
}

static uint64_t total_of(const struct restore *restore)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < restore->n; i++)
        total += restore->outlets[i].disk ? restore->outlets[i].disk->size : 0;
    return total;
}

/* What is a file of its own becomes as long as the disk. */
static int end_files(const struct restore *restore, struct platter_error *err)
{
    int r = 0;
    for (unsigned i = 0; i < restore->n && r == 0; i++) {
        const struct outlet *o = &restore->outlets[i];
        bool sized = o->disk && !o->disk->state && !o->disk->unsized;
        if (o->file)
            r = stream_resize(o->file, sized ? o->disk->size : o->end, err);
    }
    return r;
}

static int walk_archive(struct run *run, struct platter_error *err)
{
    struct platter_archive *a = run->restore->archive;
    run->reader->wanted = is_wanted;
    run->reader->wanted_opaque = run->restore;
    a->watch = see_fault;
    a->watch_opaque = run;
    int r = walk_run(&run->walk, err);
    a->watch = NULL;
    run->reader->wanted = NULL;
    if (r == 0 && run->hole_result < 0)
        r = fail(err, -run->hole_result, "%s", run->hole_error.message);
    if (r == 0)
        r = stream_unchanged(a->stream, err);
    return r < 0 ? r : end_files(run->restore, err);
}

int restore_run(struct restore *restore, struct platter_error *err)
{
    static const struct walk_ops ops = {
        .next = restore_next, .work = restore_work, .turn = restore_turn};
    auto_free struct run *run = calloc(1, sizeof *run);
    if (!run)
        return fail_memory(err, "an extraction");
    run->restore = restore;
    run->reader = restore->archive->reader;
    run->walk = (struct walk){.ops = &ops,
                              .opaque = run,
                              .total = total_of(restore),
                              .progress = restore->progress,
                              .progress_opaque = restore->opaque};
    for (unsigned i = 0; i < restore->n_rates; i++)
        restore->rates[i].next_ns = now_ns();
    restore->holes = 0;
    int r =
        batches_open(&run->batches, run->reader, restore->archive->budget, restore->workers, err);
    run->walk.workers = run->batches.n;
    if (r == 0)
        r = walk_archive(run, err);
    batches_close(&run->batches);
    return r;
}
