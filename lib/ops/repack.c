/* SPDX-License-Identifier: MIT */
/* A file, unpacked if it is compressed, again: compressed so that it can be read anywhere. */
#include <string.h>

#include "base/ckd.h"
#include "base/teller.h"
#include "disk/source.h"
#include "ops/ops.h"
#include "ops/stale_digest.h"
#include "stream/place.h"
#include "stream/wrapper.h"

enum { PIECE = 1 << 20, MEMORY = 64 << 20 };

struct repack {
    const struct platter_repack_options *o;
    struct budget *budget;
    struct stream *from; /* what is inside */
    struct stream *file; /* what that is in, or the same; not owned */
    uint64_t total;      /* bytes of the file; 0: nobody knows */
    struct stream *to;
    struct stream *stale; /* digests of what is replaced; or NULL */
    struct teller teller;
};

/* Rule 9: the source is never changed. */
static int check_not_source(const struct repack *p, struct stream *to, struct platter_error *err)
{
    return stream_same_file(to, p->from) ? fail(err, EINVAL, "%s: is the source itself", to->name)
                                         : 0;
}

/* What is at `target` now, if there is anything. */
static int check_replaced(const struct repack *p, const char *target, struct platter_error *err)
{
    struct stream *old;
    if (stream_file_open(target, 0, &old, NULL) < 0)
        return 0;
    int r = check_not_source(p, old, err);
    stream_close(old);
    return r;
}

static int open_source(struct repack *p, const char *name, struct platter_error *err)
{
    enum wrapper w;
    struct stream *s;
    int r = source_stream(name, p->o->place, &s, err);
    if (r == 0)
        r = stream_unwrap(s, p->budget, &p->from, &w, err);
    if (r < 0)
        return r;
    p->file = p->from->base ? p->from->base : p->from;
    return p->file->sequential ? 0 : stream_size(p->file, &p->total, err);
}

static int open_file(const struct repack *p, const char *target, struct stream **ret,
                     struct platter_error *err)
{
    const unsigned flags = STREAM_FILE_WRITE | STREAM_FILE_TEMPORARY | STREAM_FILE_DIRECT |
                           (p->o->flags & PLATTER_ARCHIVE_EXCLUSIVE ? STREAM_FILE_EXCLUSIVE : 0u);
    uint64_t size = 0;
    int r = check_replaced(p, target, err);
    if (r == 0)
        r = stream_check_not_aside(target, err);
    if (r == 0)
        r = stream_open_with(target, p->o->target_place, flags, 0, ret, err);
    if (r < 0)
        return r;
    r = stream_size(*ret, &size, err);
    if (r == 0 && size > 0)
        r = fail(err, ENOTSUP,
                 "%s: is a block device: what is compressed needs a file, which ends where it ends",
                 target);
    if (r < 0)
        stream_close(TAKE(*ret));
    return r;
}

static int open_output(const struct repack *p, const char *name, struct stream **ret,
                       struct platter_error *err)
{
    int r = stream_pipe_open(p->o->fd, name, ret, err);
    if (r < 0)
        return r;
    r = check_not_source(p, *ret, err);
    if (r < 0)
        stream_close(TAKE(*ret));
    return r;
}

static int open_target(struct repack *p, const char *target, struct platter_error *err)
{
    const struct platter_repack_options *o = p->o;
    const struct zip_options zip = {.level = o->level, .workers = o->workers};
    enum wrapper w = o->compression ? wrapper_find(o->compression) : WRAP_ZSTD;
    struct stream *s = NULL;
    if (w != WRAP_ZSTD && w != WRAP_GZIP)
        return fail(err, ENOTSUP, "\"%s\" is not a compression that can be written: zstd or gzip",
                    o->compression);
    int r = o->flags & PLATTER_ARCHIVE_TO_FD ? open_output(p, target, &s, err)
                                             : open_file(p, target, &s, err);
    return r < 0 ? r : stream_zip_open(s, w, &zip, p->budget, &p->to, err);
}

/* Nothing is known of the end of what comes out of a pipe. */
static int tell(struct repack *p, struct platter_error *err)
{
    p->teller.moved = p->file->position;
    return p->total ? teller_tell(&p->teller, min_u64(p->teller.moved, p->total), p->total, err)
                    : teller_tell(&p->teller, 0, 1, err);
}

static int copy_all(struct repack *p, struct platter_error *err)
{
    auto_free uint8_t *buf = malloc(PIECE);
    int r = buf ? 0 : fail_memory(err, "copying");
    size_t n = 1;
    for (hoff off = 0; r == 0 && n > 0; off += n) {
        r = stream_read(p->from, buf, PIECE, &n, err);
        if (r == 0)
            r = tell(p, err);
        if (r == 0)
            r = stream_pwrite(p->to, buf, n, off, err);
    }
    return r;
}

static int run(struct repack *p, const char *name, const char *target, struct platter_error *err)
{
    int r = p->budget ? 0 : fail_memory(err, "a memory budget");
    if (r == 0)
        r = open_source(p, name, err);
    if (r == 0)
        r = open_target(p, target, err);
    if (r == 0 && !(p->o->flags & PLATTER_ARCHIVE_TO_FD))
        r = stale_digest_open(target, p->o->target_place, &p->stale, err);
    if (r == 0)
        r = copy_all(p, err);
    return r < 0 ? r
                 : stale_digest_publish(p->to, &p->stale, !(p->o->flags & PLATTER_ARCHIVE_UNSAFE),
                                        p->o->progress, p->o->opaque, p->total, err);
}

int ops_repack(const char *name, const char *target, const struct platter_repack_options *o,
               struct platter_error *err)
{
    struct repack p = {.o = o,
                       .budget = budget_new(o->memory_limit ? o->memory_limit : MEMORY),
                       .teller = {.fn = o->progress, .opaque = o->opaque}};
    int r = run(&p, name, target, err);
    if (r < 0)
        r = stream_give_up(p.to, r, err);
    stream_close(p.from);
    stream_close(p.to);
    stream_close(p.stale);
    budget_unref(p.budget);
    return r;
}
