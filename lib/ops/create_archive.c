/* SPDX-License-Identifier: MIT */
/*
 * A new archive of disks: one after the other is copied into the archive's writer, on its way
 * through a digest, if that is wanted, and what is written through a compressor.
 *
 * Digests that the archive holds itself stand in front of the data. In a file the beginning is
 * written again when they are known; what can only be written once is read twice.
 */
#include "ops/create_archive.h"

#include <limits.h>
#include <string.h>

#include "base/ckd.h"
#include "ops/copy.h"
#include "ops/creation.h"
#include "ops/digest_tap.h"
#include "stream/wrapper.h"

/* ---- the plan ----------------------------------------------------------------------------------
 */

static int check_names(const struct platter_archive_plan *o, struct platter_error *err)
{
    for (size_t i = 0; i < o->n_disks + o->n_files; i++) {
        const char *name = i < o->n_disks ? o->disks[i]->name : o->files[i - o->n_disks]->name;
        if (!platter_archive_name_is_safe(name, NAME_MAX))
            return fail(err, EINVAL,
                        "\"%s\" cannot be a name in an archive: whoever extracts it makes a file "
                        "of that name, so it needs 1 to %d bytes without slash, backslash or "
                        "control character",
                        name, NAME_MAX);
    }
    return 0;
}

static int list_contents(struct creation *c, struct platter_error *err)
{
    const struct platter_archive_plan *o = c->o;
    c->disks = calloc(o->n_disks + 1, sizeof *c->disks);
    c->configs = calloc(o->n_files + 1, sizeof *c->configs);
    if (!c->disks || !c->configs)
        return fail_memory(err, "an archive");
    for (size_t i = 0; i < o->n_disks; i++) {
        c->disks[i] = (struct archive_disk){.name = o->disks[i]->name,
                                            .size = disk_size(o->disks[i]->disk),
                                            .state = o->disks[i]->state};
        if (ckd_add(&c->total, c->total, c->disks[i].size))
            return fail(err, EFBIG, "the disks together are too large");
    }
    for (size_t i = 0; i < o->n_files; i++)
        c->configs[i] = (struct archive_config){.name = o->files[i]->name,
                                                .bytes = o->files[i]->bytes,
                                                .size = (uint32_t)o->files[i]->length};
    c->plan.disks = c->disks;
    c->plan.n_disks = (unsigned)o->n_disks;
    c->plan.configs = c->configs;
    c->plan.n_configs = (unsigned)o->n_files;
    c->plan.budget = c->budget;
    return 0;
}

/* Fails where anything is known to be in the way, before the first byte is read or written. */
static int make_plan(struct creation *c, struct platter_error *err)
{
    const struct platter_archive_plan *o = c->o;
    const struct archive_ops *ops = c->format->archive;
    bool embed = o->flags & PLATTER_ARCHIVE_EMBED_DIGEST;
    int r = check_names(o, err);
    if (r == 0)
        r = list_contents(c, err);
    if (r == 0)
        r = creation_identify(c, err);
    if (r == 0)
        r = ops->may_write(&c->plan, err);
    if (r == 0 && c->digests_wanted)
        r = creation_make_digests(c, err);
    if (r == 0 && embed)
        r = creation_embed_digests(c, err);
    struct platter_error why = {0};
    if (r == 0 && embed && ops->may_write(&c->plan, &why) < 0)
        r = fail(err, ENOSPC,
                 "%s: the digests of each 16 MiB, %zu bytes, do not fit into its beginning (%s): "
                 "have them in a file beside it",
                 c->target, c->text_len, why.message);
    return r < 0 ? r : creation_check_targets(c, err);
}

/* ---- disks -------------------------------------------------------------------------------------
 */

static int tell_progress(void *opaque, const struct platter_progress *now)
{
    const struct creation *c = opaque;
    struct platter_progress all = *now;
    if (!c->o->progress)
        return 0;
    all.done += c->done;
    all.moved += c->moved;
    all.total = c->total;
    return c->o->progress(c->o->opaque, &all);
}

int creation_tick(void *opaque, const struct platter_progress *now)
{
    struct disk_progress *p = opaque;
    p->moved = now->moved;
    return tell_progress(p->c, now);
}

void creation_disk_done(struct disk_progress *p, uint64_t size)
{
    p->c->done += size;
    p->c->moved += p->moved;
}

/* Of a state all is stored, zeros as well. What holds no data is told to the writer bit by bit, so
 * that a vast empty disk can be cancelled. */
static int copy_into(struct creation *c, unsigned i, struct sink *sink, struct platter_error *err)
{
    const struct platter_archive_source *source = c->o->disks[i];
    struct disk_progress progress = {.c = c};
    struct sources sources = {0};
    uint64_t holes;
    struct copy copy = {.sources = &sources,
                        .sink = sink,
                        .budget = c->budget,
                        .gaps = COPY_GAPS_ZERO,
                        .sparse = source->state ? 0 : COPY_SPARSE,
                        .workers = c->o->workers,
                        .rate = c->o->rate,
                        .progress = creation_tick,
                        .opaque = &progress};
    int r = sources_open(&sources, &source->disk, 1, err);
    if (r == 0)
        r = copy_run(&copy, &holes, err);
    sources_close(&sources);
    creation_disk_done(&progress, c->disks[i].size);
    return r;
}

static int write_disk(struct creation *c, struct archive_writer *w, unsigned i,
                      struct platter_archived *archived, struct platter_error *err)
{
    struct image_writer *disk;
    struct sink *sink;
    int r = w->ops->disk(w, i, &disk, err);
    if (r == 0 && c->digests_wanted && !c->twice)
        r = digest_tap_open(disk, &c->digests.disks[i], &disk, err);
    if (r == 0) {
        disk->stream = c->stream;
        r = sink_writer_open(disk, &sink, err);
    }
    if (r < 0)
        return r;
    r = copy_into(c, i, sink, err);
    archived->length = c->disks[i].size;
    archived->zeros = disk->zeros;
    sink->ops->close(sink);
    return r;
}

static int write_archive(struct creation *c, struct platter_archived *archived,
                         struct platter_error *err)
{
    bool again = (c->o->flags & PLATTER_ARCHIVE_EMBED_DIGEST) && !c->twice;
    struct archive_writer *w;
    int r = c->format->archive->writer_open(&c->plan, &w, err);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < c->plan.n_disks && r == 0; i++)
        r = write_disk(c, w, i, &archived[i], err);
    if (r == 0)
        r = w->ops->finish(w, err);
    if (r == 0 && again)
        r = creation_print_digests(c, err);
    if (r == 0 && again)
        r = w->ops->begin_again(w, err);
    w->ops->close(w);
    return r;
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

static int check_options(struct creation *c, struct platter_error *err)
{
    const struct platter_archive_plan *o = c->o;
    const char *format = o->format ? o->format : "vma";
    c->format = format_find(format);
    if (!c->format)
        return fail(err, ENOTSUP, "no format is called \"%s\"", format);
    if (!c->format->archive || !c->format->archive->writer_open)
        return fail(err, ENOTSUP, "%s: the %s format is none of archives", c->target, format);
    enum wrapper w = o->compression ? wrapper_find(o->compression) : WRAP_ZSTD;
    if (w != WRAP_ZSTD && w != WRAP_GZIP)
        return fail(err, ENOTSUP, "%s: archives are compressed with zstd or gzip, not \"%s\"",
                    c->target, o->compression);
    c->digests_wanted = o->digest || o->flags & PLATTER_ARCHIVE_EMBED_DIGEST;
    return 0;
}

static int create(struct creation *c, struct platter_archived *archived, struct platter_error *err)
{
    int r = make_plan(c, err);
    if (r == 0)
        r = creation_open_target(c, err);
    c->twice = r == 0 && c->o->flags & PLATTER_ARCHIVE_EMBED_DIGEST && c->stream->sequential;
    if (c->twice && ckd_mul(&c->total, c->total, 2))
        r = fail(err, EFBIG, "the disks together are too large");
    if (r == 0 && c->twice)
        r = creation_digest_all(c, err);
    if (r == 0)
        r = write_archive(c, archived, err);
    return r < 0 ? r : creation_publish(c, err);
}

static void free_creation(struct creation *c)
{
    stream_close(c->stream);
    stream_close(c->file);
    stream_close(c->beside);
    stream_close(c->stale);
    digest_file_free(&c->digests);
    if (c->budget)
        budget_give(c->budget, c->nodes_taken);
    budget_unref(c->budget);
    free(c->disks);
    free(c->configs);
    free(c->text);
    free(c->piece_names);
}

int archive_create(const char *target, const struct platter_archive_plan *plan,
                   struct platter_archived *archived, struct platter_error *err)
{
    struct creation c = {.target = target ? target : "the output", .o = plan};
    int r = check_options(&c, err);
    if (r < 0)
        return r;
    c.budget = budget_new(plan->memory_limit ? plan->memory_limit : COPY_MEMORY);
    r = c.budget ? create(&c, archived, err) : fail_memory(err, "an archive");
    if (r < 0)
        r = stream_give_up(c.stream, r, err);
    free_creation(&c);
    return r;
}
