/* SPDX-License-Identifier: MIT */
/*
 * Extracting: what becomes of each disk of an archive, the one pass over it (restore.h), and the
 * end, where all new files get their names at once.
 *
 * Images that can only be written front to back, or that are compressed, get their disk by way of a
 * temporary raw file beside them: an archive has clusters in any order.
 */
#include "ops/extract.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/ckd.h"
#include "ops/copy.h"
#include "ops/target.h"

enum {
    MEMORY = 64 << 20,      /* bytes of tables and buffers of all targets */
    LEAST_MEMORY = 4 << 20, /* ... and of one of many */
    MOST_ABOVE = 4 << 20    /* what storages round sizes up by */
};

/* What one disk is extracted to. */
struct exit {
    struct platter_extract_target q;
    const struct archive_disk *disk; /* NULL: one that may come (archive_disk.unsized) */
    const struct format *format;     /* of a new image */
    struct target_request request;
    struct target target; /* if there is one */
    bool has_target;
    struct platter_disk *to; /* the image, open for writing */
    struct stream *spool;    /* the temporary raw file */
    char *spool_name;
    struct outlet *outlet;
};

struct job {
    struct platter_archive *archive;
    const struct platter_extract_options *o;
    struct exit *exits;
    struct restore restore;
    uint64_t memory;      /* bytes for each target */
    uint64_t told, total; /* progress: what earlier steps have done, and all there is to do */
};

/* ---- what is asked for ----------------------------------------------------------------------- */

static bool grows(const struct exit *x)
{
    return !x->disk || x->disk->state || x->disk->unsized;
}

static bool is_existing(const struct exit *x)
{
    return x->q.flags & PLATTER_EXTRACT_EXISTING;
}

static int find_disk(const struct job *job, struct exit *x, struct platter_error *err)
{
    const char *file = job->archive->stream->name;
    int r = archive_find(job->archive, x->q.disk, &x->disk, err);
    if (r == 0 && !x->disk && !job->archive->reader->lost_header)
        r = fail(err, ENOENT, "%s: has no disk called \"%s\"", file, x->q.disk);
    for (struct exit *y = job->exits; y < x && r == 0; y++)
        if (strcmp(y->q.disk, x->q.disk) == 0)
            r = fail(err, EINVAL, "%s: the disk \"%s\" cannot have two targets", file, x->q.disk);
    return r;
}

static int check_new(struct exit *x, struct platter_error *err)
{
    const char *name = x->q.format ? x->q.format : "raw";
    x->format = format_find(name);
    if (!x->format)
        return fail(err, ENOTSUP, "no format is called \"%s\"", name);
    if (x->disk && x->disk->state && x->format != &format_raw)
        return fail(err, ENOTSUP,
                    "%s: the state of a machine is no disk: it is written as it is, not as %s",
                    x->q.target, name);
    if ((x->q.flags & PLATTER_EXTRACT_COMPRESS) && !x->format->pack && !x->format->ordered)
        return fail(err, ENOTSUP, "%s: the %s format does not compress", x->q.target, name);
    return 0;
}

static int check_existing(const struct exit *x, struct platter_error *err)
{
    if (x->q.options)
        return fail(err, EINVAL, "%s: an existing target has the options it has", x->q.target);
    if (x->q.flags & (PLATTER_EXTRACT_COMPRESS | PLATTER_EXTRACT_EXCLUSIVE))
        return fail(err, EINVAL, "%s: an existing target cannot be compressed, nor be a new file",
                    x->q.target);
    if (grows(x))
        return fail(err, ENOTSUP,
                    "%s: the disk \"%s\" has no known size: it can go to a new file only",
                    x->q.target, x->q.disk);
    return 0;
}

/* Whether both paths are the same name in the same folder, or lead to the same file. */
static bool same_place(const char *a, const char *b)
{
    struct stat x, y;
    if (stat(a, &x) == 0 && stat(b, &y) == 0)
        return S_ISBLK(x.st_mode) ? S_ISBLK(y.st_mode) && x.st_rdev == y.st_rdev
                                  : x.st_dev == y.st_dev && x.st_ino == y.st_ino;
    const char *p = strrchr(a, '/'), *q = strrchr(b, '/');
    if (strcmp(p ? p + 1 : a, q ? q + 1 : b) != 0)
        return false;
    auto_free char *in_a = p ? string_format("%.*s/", (int)(p - a), a) : string_copy(".");
    auto_free char *in_b = q ? string_format("%.*s/", (int)(q - b), b) : string_copy(".");
    return in_a && in_b && stat(in_a, &x) == 0 && stat(in_b, &y) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

/* No target may be the archive, or the target of another disk. */
static int check_place(const struct job *job, const struct exit *x, struct platter_error *err)
{
    struct stat archive, target;
    const char *name = job->archive->name;
    bool known = strcmp(name, "-") == 0 ? fstat(0, &archive) == 0 : stat(name, &archive) == 0;
    if (known && stat(x->q.target, &target) == 0 && archive.st_dev == target.st_dev &&
        archive.st_ino == target.st_ino)
        return fail(err, EINVAL, "%s: is the archive itself", x->q.target);
    for (const struct exit *y = job->exits; y < x; y++)
        if (same_place(x->q.target, y->q.target))
            return fail(err, EINVAL, "%s: cannot be the target of two disks, \"%s\" and \"%s\"",
                        x->q.target, y->q.disk, x->q.disk);
    return 0;
}

static int plan(struct job *job, struct platter_error *err)
{
    int r = 0;
    for (size_t i = 0; i < job->o->n_targets && r == 0; i++) {
        struct exit *x = &job->exits[i];
        x->q = *job->o->targets[i];
        r = find_disk(job, x, err);
        if (r == 0)
            r = is_existing(x) ? check_existing(x, err) : check_new(x, err);
        if (r == 0)
            r = check_place(job, x, err);
    }
    return r;
}

/* ---- targets that are there ------------------------------------------------------------------ */

/* Section 8.2 of vma.md: raw where the name says so, or it is a device; else it is looked at. */
static const char *format_of_existing(const struct exit *x)
{
    size_t len = strlen(x->q.target);
    bool raw = strncmp(x->q.target, "/dev/", 5) == 0 ||
               (len > 4 && strcmp(x->q.target + len - 4, ".raw") == 0);
    return x->q.format ? x->q.format : raw ? "raw" : NULL;
}

static int open_existing(const struct job *job, struct exit *x, struct platter_error *err)
{
    struct platter_open_options open = {.size = sizeof open,
                                        .flags = PLATTER_OPEN_WRITE | PLATTER_OPEN_ALLOW_RAW,
                                        .format = format_of_existing(x),
                                        .memory_limit = job->memory,
                                        .secret = job->o->secret,
                                        .secret_opaque = job->o->secret_opaque};
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

static int open_target(const struct job *job, struct exit *x, uint64_t size,
                       struct platter_error *err)
{
    x->request = (struct target_request){
        .name = x->q.target,
        .fd = -1,
        .format = x->format,
        .options = x->q.options,
        .size = x->format == &format_raw ? size : round_up(size, 512),
        .exclusive = x->q.flags & PLATTER_EXTRACT_EXCLUSIVE,
        .bulk = true,
        .durable = !(job->o->flags & PLATTER_EXTRACT_UNSAFE),
        .secret = job->o->secret,
        .secret_opaque = job->o->secret_opaque,
    };
    int r = target_open(&x->request, job->memory, &x->target, err);
    x->has_target = r == 0;
    if (r < 0)
        target_close(&x->target);
    return r;
}

static int open_spool(struct exit *x, struct platter_error *err)
{
    x->spool_name = string_format("%s.platter-spool", x->q.target);
    if (!x->spool_name)
        return fail_memory(err, "a path");
    int r =
        stream_file_open(x->spool_name, STREAM_FILE_WRITE | STREAM_FILE_TEMPORARY, &x->spool, err);
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

static int open_new(const struct job *job, struct exit *x, struct platter_error *err)
{
    /* An image of another format is made when its size is known. */
    if (grows(x) && x->format != &format_raw)
        return open_spool(x, err);
    int r = open_target(job, x, grows(x) ? 0 : x->disk->size, err);
    if (r < 0)
        return r;
    if (target_is_ordered(&x->target) || x->q.flags & PLATTER_EXTRACT_COMPRESS)
        return open_spool(x, err);
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
static void choose_rate(struct job *job, struct exit *x)
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

static int open_all(struct job *job, struct platter_error *err)
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

/* ---- from the temporary file ----------------------------------------------------------------- */

static int tell_progress(void *opaque, const struct platter_progress *now)
{
    struct job *job = opaque;
    struct platter_progress p = *now;
    p.done += job->told;
    p.total = job->total;
    return job->o->progress(job->o->opaque, &p);
}

static int open_sink(const struct job *job, struct exit *x, struct sink **ret,
                     struct platter_error *err)
{
    struct image_writer *w;
    int r;
    if (target_is_ordered(&x->target)) {
        r = target_writer(&x->target, &w, err);
        return r < 0 ? r : sink_writer_open(w, ret, err);
    }
    r = target_create(&x->target, err);
    if (r == 0)
        r = target_disk(&x->target, job->memory, &x->to, err);
    return r < 0 ? r : sink_disk_open(x->to, x->q.flags & PLATTER_EXTRACT_COMPRESS, ret, err);
}

static int copy_spooled(struct job *job, struct exit *x, struct platter_disk *from,
                        struct platter_error *err)
{
    struct sources sources = {0};
    struct copy copy = {.sources = &sources,
                        .budget = budget_new(job->memory),
                        .gaps = COPY_GAPS_SKIP, /* no device takes such images */
                        .sparse = COPY_SPARSE,
                        .workers = job->o->workers,
                        .rate = x->q.rate,
                        .progress = job->restore.progress,
                        .opaque = job};
    uint64_t holes;
    int r = copy.budget ? sources_open(&sources, &from, 1, err) : fail_memory(err, "a copy");
    if (r == 0 && !x->has_target)
        r = open_target(job, x, sources.size, err);
    if (r == 0)
        r = open_sink(job, x, &copy.sink, err);
    if (r == 0) {
        sources.size = x->request.size;
        r = copy_run(&copy, &holes, err);
        copy.sink->ops->close(copy.sink);
    }
    sources_close(&sources);
    budget_unref(copy.budget);
    job->told += x->request.size;
    return r;
}

static int finish_spooled(struct job *job, struct platter_error *err)
{
    int r = 0;
    for (size_t i = 0; i < job->o->n_targets && r == 0; i++) {
        struct exit *x = &job->exits[i];
        const struct format *raw = &format_raw;
        struct platter_disk *from;
        if (!x->spool)
            continue;
        struct stream *s = stream_share(x->spool);
        r = disk_assemble(&s, &raw, 1, false, true, job->memory, NULL, &from, err);
        if (r == 0) {
            r = copy_spooled(job, x, from, err);
            disk_close(from, NULL);
            stream_close(TAKE(x->spool));
        }
    }
    return r;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static uint64_t total_of(const struct job *job)
{
    uint64_t total = 0;
    for (size_t i = 0; i < job->o->n_targets; i++) {
        const struct exit *x = &job->exits[i];
        total += x->disk ? (x->spool ? 2 : 1) * x->disk->size : 0;
    }
    return total;
}

static int close_disk(const struct job *job, struct exit *x, struct platter_error *err)
{
    struct platter_disk *to = TAKE(x->to);
    bool wait = is_existing(x) && !(job->o->flags & PLATTER_EXTRACT_UNSAFE);
    int r = to && wait ? disk_flush(to, err) : 0;
    int e = to ? disk_close(to, r < 0 ? NULL : err) : 0;
    return r < 0 ? r : e;
}

static int publish(struct job *job, struct platter_error *err)
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

static int run(struct job *job, struct platter_error *err)
{
    int r = plan(job, err);
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
        r = finish_spooled(job, err);
    return r < 0 ? r : publish(job, err);
}

static void close_exit(struct exit *x)
{
    disk_close(TAKE(x->to), NULL);
    stream_close(TAKE(x->spool));
    if (x->has_target)
        target_close(&x->target);
    free(x->spool_name);
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
    struct job job = {
        .archive = a, .o = o, .exits = exits, .memory = max_u64(MEMORY / (n + 1), LEAST_MEMORY)};
    job.restore = (struct restore){.archive = a,
                                   .outlets = outlets,
                                   .n = (unsigned)n,
                                   .rates = rates,
                                   .workers = o->workers,
                                   .progress = o->progress ? tell_progress : NULL,
                                   .opaque = &job};
    int r = run(&job, err);
    for (size_t i = 0; i < n; i++)
        close_exit(&exits[i]);
    *ret_holes = job.restore.holes;
    return r;
}
