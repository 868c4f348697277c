/* SPDX-License-Identifier: MIT */
/*
 * Extracting: what becomes of each disk of an archive, the one pass over it (restore.h), and the
 * end, where all new files get their names at once.
 *
 * Images that can only be written front to back, or that are compressed, get their disk by way of a
 * temporary raw file beside them, or in a folder that is given: an archive has clusters in any
 * order.
 */
#include "ops/extract.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/ckd.h"
#include "ops/extract_inside.h"
#include "stream/place.h"

enum {
    LEAST_MEMORY = 4 << 20, /* bytes of tables and buffers of one of many targets */
    MOST_ABOVE = 4 << 20    /* what storages round sizes up by */
};

/* ---- targets that are there ------------------------------------------------------------------ */

/* Section 8.2 of vma.md: raw where the name says so, or it is a device; else it is looked at. */
static const char *format_of_existing(const struct exit *x)
{
    size_t len = strlen(x->q.target);
    bool raw = strncmp(x->q.target, "/dev/", 5) == 0 ||
               (len > 4 && strcmp(x->q.target + len - 4, ".raw") == 0);
    return x->q.format ? x->q.format : raw ? "raw" : NULL;
}

static int open_existing(const struct extraction *job, struct exit *x, struct platter_error *err)
{
    struct platter_open_options open = {.size = sizeof open,
                                        .flags = PLATTER_OPEN_WRITE | PLATTER_OPEN_ALLOW_RAW,
                                        .format = format_of_existing(x),
                                        .memory_limit = job->memory,
                                        .secret = job->o->secret,
                                        .secret_opaque = job->o->secret_opaque,
                                        .place = job->o->target_place};
    int r = disk_open(x->q.target, &open, &x->to, err);
    if (r < 0)
        return r;
    uint64_t size = x->disk->size, there = disk_size(x->to);
    if (there < size)
        return fail(err, ENOSPC,
                    "%s: has %" PRIu64 " bytes, less than the %" PRIu64 " bytes of the disk \"%s\"",
                    x->q.target, there, size, x->q.disk);
    if ((x->q.flags & PLATTER_EXTRACT_FITTING) && there - size > MOST_ABOVE)
        return fail(err, EINVAL,
                    "%s: has %" PRIu64 " bytes, over 4 MiB more than the %" PRIu64
                    " bytes of the disk \"%s\": it was made for another one",
                    x->q.target, there, size, x->q.disk);
    x->outlet->to = x->to;
    x->outlet->fills = x->q.flags & PLATTER_EXTRACT_WRITE_ZEROS;
    return 0;
}

/* ---- new ones -------------------------------------------------------------------------------- */

int extract_target(const struct extraction *job, struct exit *x, uint64_t size,
                   struct platter_error *err)
{
    x->request = (struct target_request){
        .name = x->q.target,
        .place = job->o->target_place,
        .fd = -1,
        .format = x->format,
        .options = x->q.options,
        .size = x->format == &format_raw ? size : round_up(size, 512),
        .exclusive = x->q.flags & PLATTER_EXTRACT_EXCLUSIVE,
        .bulk = true,
        .durable = !(job->o->flags & PLATTER_EXTRACT_UNSAFE),
        .progress = job->o->progress,
        .progress_opaque = job->o->opaque,
        .secret = job->o->secret,
        .secret_opaque = job->o->secret_opaque,
    };
    int r = target_open(&x->request, job->memory, &x->target, err);
    x->has_target = r == 0;
    return r < 0 ? target_end(&x->target, r, err) : 0;
}

/* Beside the target, or in a folder for what has to be copied. */
static int name_spool(const struct extraction *job, struct exit *x, struct platter_error *err)
{
    struct stat st;
    const char *file;
    /* Beside a device there is memory, not a disk. */
    if (stat(x->q.target, &st) == 0 && S_ISBLK(st.st_mode))
        return fail(err, ENOTSUP,
                    "%s: is a device: a compressed image, or one that is written front to back, "
                    "can be extracted to a file only",
                    x->q.target);
    if (job->o->spool)
        x->spool_name = string_format("%s/disk.platter-spool", job->o->spool);
    else if (place_is_file(x->q.target, &file))
        x->spool_name = string_format("%s.platter-spool", file);
    else
        return fail(err, ENOTSUP,
                    "%s: is written front to back, and the data of an archive comes in any order: "
                    "give a folder for a temporary copy of the disk (--spool)",
                    x->q.target);
    return x->spool_name ? 0 : fail_memory(err, "a path");
}

static int open_spool(const struct extraction *job, struct exit *x, struct platter_error *err)
{
    int r = name_spool(job, x, err);
    if (r < 0)
        return r;
    r = stream_file_open(x->spool_name, STREAM_FILE_WRITE | STREAM_FILE_TEMPORARY, &x->spool, err);
    x->outlet->file = x->spool;
    return r;
}

/* A new raw file that becomes as long as what comes. */
static int open_growing(struct exit *x, struct platter_error *err)
{
    if (x->target.in_place)
        return fail(err, ENOTSUP,
                    "%s: the disk \"%s\" has no known size: it can go to a new file only",
                    x->q.target, x->q.disk);
    int r = target_create(&x->target, err);
    x->outlet->file = x->target.stream;
    return r;
}

static int open_new(const struct extraction *job, struct exit *x, struct platter_error *err)
{
    /* An image of another format is made when its size is known. */
    if (grows(x) && x->format != &format_raw)
        return open_spool(job, x, err);
    int r = extract_target(job, x, grows(x) ? 0 : x->disk->size, err);
    if (r < 0)
        return r;
    if (target_is_ordered(&x->target) || x->q.flags & PLATTER_EXTRACT_COMPRESS)
        return open_spool(job, x, err);
    if (grows(x))
        return open_growing(x, err);
    r = target_create(&x->target, err);
    if (r == 0)
        r = target_disk(&x->target, job->memory, &x->to, err);
    x->outlet->to = x->to;
    x->outlet->fills = x->format == &format_raw ? x->target.in_place : x->format->not_zero;
    return r;
}

/* The limit of its group, which is the lowest that any of the group has. */
static void choose_rate(struct extraction *job, struct exit *x)
{
    struct restore *restore = &job->restore;
    const char *group = x->q.rate_group ? x->q.rate_group : x->q.target;
    if (x->q.rate == 0 || x->spool)
        return;
    struct rate *rate = restore->rates, *end = rate + restore->n_rates;
    while (rate < end && strcmp(rate->group, group) != 0)
        rate++;
    if (rate == end) {
        *rate = (struct rate){.group = group, .limit = x->q.rate};
        restore->n_rates++;
    }
    rate->limit = min_u64(rate->limit, x->q.rate);
    x->outlet->rate = rate;
}

static int open_all(struct extraction *job, struct platter_error *err)
{
    int r = 0;
    for (size_t i = 0; i < job->o->n_targets && r == 0; i++) {
        struct exit *x = &job->exits[i];
        x->outlet = &job->restore.outlets[i];
        *x->outlet = (struct outlet){.name = x->q.disk, .disk = x->disk};
        r = is_existing(x) ? open_existing(job, x, err) : open_new(job, x, err);
        if (r == 0)
            choose_rate(job, x);
    }
    return r;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static int tell_progress(void *opaque, const struct platter_progress *now)
{
    struct extraction *job = opaque;
    struct platter_progress p = *now;
    p.done += job->told;
    p.total = job->total;
    return job->o->progress(job->o->opaque, &p);
}

static uint64_t total_of(const struct extraction *job)
{
    uint64_t total = 0;
    for (size_t i = 0; i < job->o->n_targets; i++) {
        const struct exit *x = &job->exits[i];
        total += x->disk ? (x->spool ? 2 : 1) * x->disk->size : 0;
    }
    return total;
}

static int close_disk(const struct extraction *job, struct exit *x, struct platter_error *err)
{
    struct platter_disk *to = TAKE(x->to);
    bool wait = is_existing(x) && !(job->o->flags & PLATTER_EXTRACT_UNSAFE);
    int r = to && wait ? disk_flush(to, err) : 0;
    int e = to ? disk_close(to, r < 0 ? NULL : err) : 0;
    return r < 0 ? r : e;
}

static int publish(struct extraction *job, struct platter_error *err)
{
    size_t n = job->o->n_targets, found = 0;
    auto_free struct target **targets = calloc(n + 1, sizeof *targets);
    if (!targets)
        return fail_memory(err, "an extraction");
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        struct exit *x = &job->exits[i];
        r = close_disk(job, x, err);
        if (x->has_target)
            targets[found++] = &x->target;
    }
    return r < 0 || found == 0 ? r : targets_publish(targets, (unsigned)found, err);
}

static int run(struct extraction *job, struct platter_error *err)
{
    int r = extract_plan(job, err);
    if (r == 0)
        r = open_all(job, err);
    if (r == 0)
        r = archive_use(job->archive, err);
    if (r < 0)
        return r;
    job->total = total_of(job);
    r = restore_run(&job->restore, err);
    for (size_t i = 0; i < job->o->n_targets; i++)
        job->told += job->exits[i].disk ? job->exits[i].disk->size : 0;
    if (r == 0)
        r = extract_spooled(job, err);
    return r < 0 ? r : publish(job, err);
}

/* `r`: how all of it went. */
static int close_exit(struct exit *x, int r, struct platter_error *err)
{
    disk_close(TAKE(x->to), NULL);
    stream_close(TAKE(x->spool));
    if (x->has_target)
        r = target_end(&x->target, r, err);
    free(x->spool_name);
    return r;
}

int archive_device(struct platter_archive *a, unsigned index, struct platter_archive_device *ret,
                   struct platter_error *err)
{
    const struct archive_listing *l = &a->reader->listing;
    if (index >= l->n_disks)
        return fail(err, ENOENT, "%s: there is no disk %u, but %u of them, from 0 on",
                    a->stream->name, index, l->n_disks);
    const struct archive_disk *d = &l->disks[index];
    size_t size = ret->size;
    *ret = (struct platter_archive_device){.size = size,
                                           .name = d->name,
                                           .length = d->size,
                                           .id = d->id,
                                           .state = d->state,
                                           .unsized = d->unsized};
    return 0;
}

int archive_extract(struct platter_archive *a, const struct platter_extract_options *o,
                    uint64_t *ret_holes, struct platter_error *err)
{
    size_t n = o->n_targets;
    auto_free struct exit *exits = calloc(n + 1, sizeof *exits);
    auto_free struct outlet *outlets = calloc(n + 1, sizeof *outlets);
    auto_free struct rate *rates = calloc(n + 1, sizeof *rates);
    if (!exits || !outlets || !rates)
        return fail_memory(err, "an extraction");
    struct extraction job = {.archive = a,
                             .o = o,
                             .exits = exits,
                             .memory = max_u64(budget_limit(a->budget) / (n + 1), LEAST_MEMORY)};
    job.restore = (struct restore){.archive = a,
                                   .outlets = outlets,
                                   .n = (unsigned)n,
                                   .rates = rates,
                                   .workers = o->workers,
                                   .progress = o->progress ? tell_progress : NULL,
                                   .opaque = &job};
    int r = run(&job, err);
    for (size_t i = 0; i < n; i++)
        r = close_exit(&exits[i], r, err);
    *ret_holes = job.restore.holes;
    return r;
}
