/* SPDX-License-Identifier: MIT */
/* Where a new archive goes, and how it appears there. */
#include <string.h>

#include "base/signals.h"
#include "ops/creation.h"
#include "ops/publish.h"
#include "ops/stale_digest.h"
#include "ops/target.h"
#include "stream/place.h"
#include "stream/wrapper.h"

int creation_check_targets(const struct creation *c, struct platter_error *err)
{
    const struct platter_archive_plan *o = c->o;
    bool file = !(o->flags & PLATTER_ARCHIVE_TO_FD);
    int r = 0;
    if (file && o->digest && strcmp(o->digest, c->target) == 0)
        return fail(err, EINVAL, "%s: is the archive, and cannot be the file of digests as well",
                    o->digest);
    for (size_t i = 0; i < o->n_disks && r == 0; i++) {
        if (file)
            r = check_not_of(c->target, o->disks[i]->disk, "source", err);
        if (r == 0 && o->digest)
            r = check_not_of(o->digest, o->disks[i]->disk, "source", err);
    }
    return r;
}

static unsigned file_flags(const struct creation *c)
{
    const unsigned flags = c->o->flags;
    return STREAM_FILE_WRITE | STREAM_FILE_TEMPORARY |
           (flags & PLATTER_ARCHIVE_EXCLUSIVE ? STREAM_FILE_EXCLUSIVE : 0u) |
           (flags & PLATTER_ARCHIVE_UNSAFE ? 0u : (unsigned)STREAM_FILE_DIRECT);
}

static int open_file(struct creation *c, struct platter_error *err)
{
    uint64_t size;
    int r = stream_check_not_aside(c->target, err);
    if (r == 0)
        r = stream_open_with(c->target, c->o->target_place, file_flags(c), c->total, &c->file, err);
    if (r == 0)
        r = stream_size(c->file, &size, err);
    if (r == 0 && size > 0)
        r = fail(err, ENOTSUP,
                 "%s: is a block device or the like, on which nothing tells where an archive ends: "
                 "give the name of a file",
                 c->target);
    if (r == 0)
        c->stream = stream_share(c->file);
    return r;
}

/* A shell may have given a file as stdout. */
static int open_output(struct creation *c, struct platter_error *err)
{
    const struct platter_archive_plan *o = c->o;
    int r = stream_pipe_open(o->fd, c->target, &c->stream, err);
    for (size_t i = 0; i < o->n_disks && r == 0; i++)
        r = check_stream_not_of(c->stream, o->disks[i]->disk, "source", err);
    return r;
}

/* What there is of digests beside an older archive goes with that, but never a source. */
static int open_stale(struct creation *c, struct platter_error *err)
{
    auto_free char *name = place_beside(c->target, DIGEST_SUFFIX);
    int r = name ? 0 : fail_memory(err, "a name");
    for (size_t i = 0; i < c->o->n_disks && r == 0; i++)
        r = check_not_of(name, c->o->disks[i]->disk, "source", err);
    return r < 0 ? r : stale_digest_open(c->target, c->o->target_place, &c->stale, err);
}

int creation_open_target(struct creation *c, struct platter_error *err)
{
    const struct platter_archive_plan *o = c->o;
    const struct zip_options zip = {.level = o->level, .workers = o->workers};
    int r = o->flags & PLATTER_ARCHIVE_TO_FD ? open_output(c, err) : open_file(c, err);
    if (r == 0 && o->compression)
        r = stream_zip_open(TAKE(c->stream), wrapper_find(o->compression), &zip, c->budget,
                            &c->stream, err);
    if (r == 0 && o->digest)
        r = stream_open_with(o->digest, o->target_place,
                             file_flags(c) & ~(unsigned)STREAM_FILE_DIRECT, 0, &c->beside, err);
    if (r == 0 && o->digest && c->file)
        stream_take_rights(c->beside, c->file);
    if (r == 0 && c->file && !o->digest)
        r = open_stale(c, err);
    c->plan.stream = c->stream;
    return r;
}

static int write_beside(struct creation *c, struct platter_error *err)
{
    int r = creation_print_digests(c, err);
    return r < 0 ? r : stream_pwrite(c->beside, c->text, c->text_len, 0, err);
}

static int publish_archive(struct creation *c, bool durable, struct platter_error *err)
{
    return publish_watched(c->stream, durable, c->o->progress, c->o->opaque, c->total, err);
}

/* The two appear together, or neither: an archive beside digests of another one would be taken for
 * damaged. An older archive is moved aside first, and the new one comes last. Signals wait for
 * files; a server could have them wait for long. */
static int publish_both(struct creation *c, bool durable, struct platter_error *err)
{
    sigset_t before;
    bool far = c->file && c->file->sequential;
    int r = durable ? stream_flush(c->beside, err) : 0;
    if (r == 0 && durable && c->stream == c->file) /* a compressor is not at its end yet */
        r = stream_flush(c->file, err);
    if (r < 0)
        return r;
    if (!far)
        hold_signals(&before);
    if (c->file)
        r = stream_make_way(c->file, durable, err);
    if (r == 0)
        r = stream_make_way(c->beside, false, err);
    if (r == 0)
        r = stream_publish(c->beside, durable, err);
    if (r == 0)
        r = publish_archive(c, durable, err);
    if (r < 0) {
        bool back = stream_withdraw(c->beside, true, err) == 0;
        if (c->file)
            stream_withdraw(c->file, back, err);
        r = stream_give_up(c->stream, r, err);
    }
    stream_close(TAKE(c->stream));
    stream_close(TAKE(c->file));
    stream_close(TAKE(c->beside));
    if (!far)
        release_signals(&before);
    return r;
}

int creation_publish(struct creation *c, struct platter_error *err)
{
    bool durable = !(c->o->flags & PLATTER_ARCHIVE_UNSAFE);
    if (!c->beside)
        return stale_digest_publish(c->stream, &c->stale, durable, c->o->progress, c->o->opaque,
                                    c->total, err);
    int r = write_beside(c, err);
    return r < 0 ? r : publish_both(c, durable, err);
}
