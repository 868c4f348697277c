/* SPDX-License-Identifier: MIT */
/* Converting: sources, a target, the sink between them, and the copy that joins them. */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "ops/copy.h"
#include "ops/ops.h"
#include "ops/snapshot_copy.h"
#include "ops/target.h"
#include "stream/place.h"

/* A convert under way. */
struct job {
    const char *target;
    const struct platter_convert_options *o;
    struct sources sources;
    struct budget *budget; /* of the copy's buffers */
    struct copy copy;
    uint64_t *ret_holes;
    bool endless;               /* the size of the source is known at its end only */
    struct platter_disk *grows; /* with it, NULL: it need not */
};

static uint64_t memory_of(const struct platter_convert_options *o)
{
    return o->memory_limit ? o->memory_limit : COPY_MEMORY;
}

static int run_copy(struct job *job, struct sink *sink, struct platter_error *err)
{
    job->copy.sink = sink;
    int r = copy_run(&job->copy, job->ret_holes, err);
    sink->ops->close(sink);
    return r;
}

/* ---- sources whose size is not known -----------------------------------------------------------
 */

enum {
    FIRST_SIZE = 64 << 10, /* of a target that grows */
    GROWTH = 1 << 30       /* bytes at least, */
};
static const uint64_t most_growth = UINT64_C(64) << 30; /* and at most */

/* The target grows in few steps, each of which lasts until all writes before it have ended, and has
 * its right size in the end. */
static int grow(void *opaque, uint64_t size, bool last, struct platter_error *err)
{
    const struct job *job = opaque;
    struct platter_disk *disk = job->grows;
    uint64_t have = disk ? disk_size(disk) : size;
    if (!last && size > have)
        size = max_u64(round_up(size, GROWTH), have + min_u64(have, most_growth));
    return last          ? (size == have ? 0
                                         : disk_resize(disk, size, PLATTER_RESIZE_SHRINK,
                                                       PLATTER_PREALLOCATION_OFF, NULL, err))
           : size > have ? disk_resize(disk, size, 0, PLATTER_PREALLOCATION_OFF, NULL, err)
                         : 0;
}

/* What is there must be large enough; so many bytes there are at least. */
static int fill(void *opaque, uint64_t size, bool last, struct platter_error *err)
{
    const struct job *job = opaque;
    uint64_t have = disk_size(job->grows);
    return size <= have
               ? 0
               : fail(err, ENOSPC,
                      "%s: has %" PRIu64 " bytes, less than the source, which has %s%" PRIu64,
                      disk_top(job->grows)->stream->name, have, last ? "" : "at least ", size);
}

static int check_endless(struct job *job, const struct format *format, struct platter_error *err)
{
    const struct platter_convert_options *o = job->o;
    const unsigned more = PLATTER_CONVERT_SNAPSHOTS | PLATTER_CONVERT_BITMAPS;
    bool known = true;
    int r = job->sources.n > 0 ? disk_reach(job->sources.disks[0], 0, &known, err) : 0;
    for (unsigned i = 1; r == 0 && known && i < job->sources.n; i++)
        r = disk_reach(job->sources.disks[i], 0, &known, err);
    if (r < 0 || known)
        return r;
    const char *name = disk_top(job->sources.disks[0])->stream->name;
    if (job->sources.n > 1 || o->backing || o->has_range || o->flags & more)
        return fail(err, ENOTSUP,
                    "%s: its size is not known before its end: it can be copied alone, and as a "
                    "whole, or by way of a temporary copy (--spool FOLDER)",
                    name);
    /* These can be made smaller, when it is. */
    if (format != &format_raw && format != &format_qcow2 && !(o->flags & PLATTER_CONVERT_EXISTING))
        return fail(
            err, ENOTSUP,
            "%s: its size is not known before its end: convert it to raw or qcow2, or allow "
            "a temporary copy (--spool FOLDER)",
            name);
    job->endless = true;
    job->copy.grow = grow;
    job->copy.grow_opaque = job;
    job->copy.size_unit = format == &format_raw ? 1 : 512;
    return 0;
}

/* ---- targets that are written front to back -------------------------------------------------- */

static int convert_ordered(struct job *job, struct target *t, struct platter_error *err)
{
    struct image_writer *w;
    struct sink *sink;
    if (job->o->flags & (PLATTER_CONVERT_SNAPSHOTS | PLATTER_CONVERT_BITMAPS))
        return fail(err, ENOTSUP,
                    "%s: snapshots and bitmaps cannot be written to an image that is written front "
                    "to back",
                    t->stream->name);
    if (job->endless)
        job->copy.sparse = 0; /* nobody could tell the writer of zeros at the end */
    int r = target_writer(t, &w, err);
    if (r == 0)
        r = sink_writer_open(w, &sink, err);
    if (r == 0)
        r = run_copy(job, sink, err);
    return r < 0 ? r : target_publish(t, err);
}

/* ---- targets that are disks ------------------------------------------------------------------ */

/* How many images of the source's chain lie above the one that the target's backing file is, or 0.
 * The same file read as another format is another disk. */
static unsigned images_above(const struct job *job, const struct platter_disk *backing)
{
    if (job->sources.n != 1)
        return 0;
    const struct platter_disk *source = job->sources.disks[0];
    for (unsigned i = 1; i < source->depth; i++)
        if (source->chain[i]->format == disk_top(backing)->format &&
            stream_same_bytes(source->chain[i]->stream, disk_top(backing)->stream))
            return i;
    return 0;
}

static int copy_to_disk(struct job *job, struct platter_disk *disk, bool compress,
                        struct platter_error *err)
{
    bool bitmaps = job->o->flags & PLATTER_CONVERT_BITMAPS;
    bool snapshots = job->o->flags & PLATTER_CONVERT_SNAPSHOTS;
    struct sink *sink;
    int r = bitmaps ? bitmaps_check_target(job->sources.disks[0], disk, !snapshots, err) : 0;
    if (r == 0 && snapshots) {
        r = snapshots_copy(&job->copy, compress, job->o->flags & PLATTER_CONVERT_NO_VM_STATE,
                           job->sources.disks[0], disk, job->ret_holes, err);
    } else if (r == 0) {
        r = sink_disk_open(disk, compress, &sink, err);
        if (r == 0)
            r = run_copy(job, sink, err);
    }
    return r == 0 && bitmaps ? bitmaps_copy(job->sources.disks[0], disk, err) : r;
}

static int convert_new(struct job *job, struct target *t, struct platter_error *err)
{
    int r = target_create(t, err);
    if (r < 0)
        return r;
    bool zeros = t->request->format == &format_raw
                     ? !t->in_place || job->o->flags & PLATTER_CONVERT_TARGET_IS_ZERO
                     : !t->request->format->not_zero;
    job->copy.gaps = zeros ? COPY_GAPS_SKIP : COPY_GAPS_ZERO;
    if (t->backing) {
        job->copy.above = images_above(job, t->backing);
        job->copy.gaps = job->copy.above > 0 ? COPY_GAPS_ZERO : COPY_GAPS_DIFFER;
    }
    struct platter_disk *disk;
    r = target_disk(t, memory_of(job->o), &disk, err);
    if (r < 0)
        return r;
    job->copy.target = job->grows = disk;
    if (t->in_place)
        job->copy.grow = job->endless ? fill : NULL;
    r = copy_to_disk(job, disk, job->o->flags & PLATTER_CONVERT_COMPRESS, err);
    int e = disk_close(disk, r < 0 ? NULL : err);
    r = r < 0 ? r : e;
    return r < 0 ? r : target_publish(t, err);
}

/* Rule 9: a source is never changed, so no file of its chain may be the target. */
static int check_not_source(const struct job *job, const char *path, struct platter_error *err)
{
    int r = 0;
    for (unsigned i = 0; i < job->sources.n && r == 0; i++)
        r = check_not_of(path, job->sources.disks[i], "source", err);
    return r;
}

/* The same for what the target is made of. */
static int check_files_not_source(const struct job *job, const struct image *target,
                                  struct platter_error *err)
{
    struct stream *file;
    int r = 0;
    for (unsigned i = 0; i < job->sources.n && r == 0; i++)
        r = check_stream_not_of(target->stream, job->sources.disks[i], "source", err);
    for (unsigned i = 0; r == 0 && target->format->file && target->format->file(target, i, &file);
         i++)
        if (file)
            r = check_not_source(job, file->name, err);
    return r;
}

static int convert_existing(struct job *job, struct platter_error *err)
{
    const struct platter_convert_options *o = job->o;
    struct platter_open_options open = {.size = sizeof open,
                                        .flags = PLATTER_OPEN_WRITE,
                                        .format = o->format ? o->format : "raw",
                                        .backing_format = o->below_format,
                                        .memory_limit = memory_of(o),
                                        .allow = o->allow,
                                        .secret = o->secret,
                                        .secret_opaque = o->secret_opaque,
                                        .place = o->target_place};
    struct platter_disk *disk;
    if (o->flags & PLATTER_CONVERT_PROBE_BACKING)
        open.flags |= PLATTER_OPEN_PROBE_BACKING;
    int r = check_not_source(job, job->target, err);
    if (r == 0)
        r = disk_open(job->target, &open, &disk, err);
    if (r < 0)
        return r;
    job->copy.gaps = o->flags & PLATTER_CONVERT_TARGET_IS_ZERO ? COPY_GAPS_SKIP : COPY_GAPS_ZERO;
    r = check_files_not_source(job, disk_top(disk), err);
    job->grows = disk;
    job->copy.grow = job->endless ? fill : NULL;
    if (r == 0 && !job->endless && disk_size(disk) < job->sources.size)
        r = fail(err, ENOSPC,
                 "%s: has %" PRIu64 " bytes, less than the %" PRIu64 " bytes of the source",
                 disk_top(disk)->stream->name, disk_size(disk), job->sources.size);
    if (r == 0)
        r = copy_to_disk(job, disk, o->flags & PLATTER_CONVERT_COMPRESS, err);
    int e = disk_close(disk, r < 0 ? NULL : err);
    return r < 0 ? r : e;
}

/* ---- arguments ------------------------------------------------------------------------------- */

static int check_options(const struct job *job, const struct format *format,
                         struct platter_error *err)
{
    const struct platter_convert_options *o = job->o;
    auto_free char *target = place_shown(job->target ? job->target : "standard output");
    if (!target)
        return fail_memory(err, "a name");
    if (!format)
        return fail(err, ENOTSUP, "no format is called \"%s\"", o->format);
    if (o->has_sparse_size && o->sparse_size % 512 != 0)
        return fail(err, EINVAL, "the shortest run of zeros (-S) must be a multiple of 512 bytes");
    if ((o->flags & PLATTER_CONVERT_COMPRESS) && !format->pack && !format->ordered)
        return fail(err, ENOTSUP, "%s: the %s format does not compress", target, format->name);
    if (o->backing && (o->flags & PLATTER_CONVERT_EXISTING))
        return fail(err, EINVAL, "%s: an existing target has the backing file it has", target);
    if (o->flags & PLATTER_CONVERT_SNAPSHOTS && job->sources.n != 1)
        return fail(err, EINVAL, "snapshots can be copied from a single source only");
    if (!(o->flags & PLATTER_CONVERT_BITMAPS))
        return 0;
    if (job->sources.n != 1)
        return fail(err, EINVAL, "bitmaps can be copied from a single source only");
    return bitmaps_check_copy(job->sources.disks[0], format,
                              o->flags & PLATTER_CONVERT_SKIP_BROKEN_BITMAPS, err);
}

/* Raw has the size of the source to the byte; other formats count in sectors. */
static uint64_t target_size(const struct job *job, const struct format *format)
{
    return format == &format_raw ? job->sources.size : round_up(job->sources.size, 512);
}

static int convert(struct job *job, struct platter_error *err)
{
    const struct platter_convert_options *o = job->o;
    const struct format *format = format_find(o->format ? o->format : "raw");
    int r = check_options(job, format, err);
    if (r == 0)
        r = check_endless(job, format, err);
    if (r < 0)
        return r;
    /* What fills the last sector up is part of the copy: there may be something else in the target,
     * or below it. */
    uint64_t size = job->sources.size = target_size(job, format);
    if (o->flags & PLATTER_CONVERT_SNAPSHOTS)
        r = snapshots_check_copy(job->sources.disks[0], format, o, &size, err);
    if (r < 0)
        return r;
    if (o->flags & PLATTER_CONVERT_EXISTING)
        return convert_existing(job, err);
    struct target_request request = {
        .name = job->target,
        .fd = o->flags & PLATTER_CONVERT_TO_FD ? o->fd : -1,
        .place = o->target_place,
        .format = format,
        .options = o->options,
        .endless = job->endless,
        .size = !job->endless                      ? size
                : o->flags & PLATTER_CONVERT_TO_FD ? 0
                                                   : FIRST_SIZE,
        .backing = o->backing,
        .backing_format = o->backing_format,
        .look_at_backing = true,
        .sources = job->sources.disks,
        .n_sources = job->sources.n,
        .compress = o->flags & PLATTER_CONVERT_COMPRESS,
        .durable = !(o->flags & PLATTER_CONVERT_UNSAFE),
        .progress = o->progress,
        .progress_opaque = o->opaque,
        .allow = o->allow,
        .below_format = o->below_format,
        .probe_below = o->flags & PLATTER_CONVERT_PROBE_BACKING,
        .secret = o->secret,
        .secret_opaque = o->secret_opaque,
    };
    struct target t;
    r = target_open(&request, memory_of(o), &t, err);
    if (r == 0)
        r = target_is_ordered(&t) ? convert_ordered(job, &t, err) : convert_new(job, &t, err);
    return target_end(&t, r, err);
}

int ops_convert(struct platter_disk *const *sources, size_t n_sources, const char *target,
                const struct platter_convert_options *o, uint64_t *ret_holes,
                struct platter_error *err)
{
    struct job job = {.target = target ? target : "the output", .o = o, .ret_holes = ret_holes};
    int r = sources_open(&job.sources, sources, n_sources, err);
    job.budget = budget_new(memory_of(o));
    if (r == 0 && !job.budget)
        r = fail_memory(err, "a memory budget");
    job.copy = (struct copy){
        .sources = &job.sources,
        .budget = job.budget,
        .sparse = o->has_sparse_size ? o->sparse_size : COPY_SPARSE,
        .salvage = o->flags & PLATTER_CONVERT_SALVAGE,
        .workers = o->workers,
        .rate = o->rate,
        .progress = o->progress,
        .hole = o->hole,
        .opaque = o->opaque,
    };
    if (r == 0 && o->has_range)
        sources_cut(&job.sources, o->range_offset, o->range_length);
    if (r == 0)
        r = convert(&job, err);
    budget_unref(job.budget);
    sources_close(&job.sources);
    return r;
}
