/* SPDX-License-Identifier: MIT */
/*
 * Rebasing: what an image shows and does not store is compared with what its new backing file has
 * there; where they differ it is copied into the image, durably, before the name is changed.
 *
 * The copy goes from the disk as it is to a second disk, of the same image over the new chain.
 */
#include <string.h>

#include "ops/copy.h"
#include "ops/ops.h"
#include "ops/target.h"
#include "stream/place.h"

/* The format of the new backing file, as far as it is known without looking. */
static int choose_format(const struct image *top, const struct platter_rebase_options *o,
                         const char **ret, struct platter_error *err)
{
    const char *only = top->format->only_backing;
    *ret = o->backing_format ? o->backing_format : only;
    if (*ret && !format_find(*ret))
        return fail(err, ENOTSUP, "%s: no format is called \"%s\"", top->stream->name, *ret);
    if (only && strcmp(*ret, only) != 0)
        return fail(err, EINVAL, "%s: the backing file of a %s image must be one as well, not %s",
                    top->stream->name, only, *ret);
    return 0;
}

/* The new backing file's chain. *ret is NULL where there is to be none, and where its name is all
 * that is needed and it does not open. */
static int open_below(const struct image *top, const char *format,
                      const struct platter_rebase_options *o,
                      const struct platter_open_options *open, struct platter_disk **ret,
                      struct platter_error *err)
{
    const char *name = top->stream->name;
    struct platter_open_options below = *open;
    struct platter_error why = {0};
    below.format = format;
    *ret = NULL;
    if (!o->backing)
        return 0;
    int r = open_backing_of(name, o->backing, &below, ret, &why);
    if (r < 0 && (o->flags & PLATTER_REBASE_UNSAFE) && !top->format->accept_backing)
        return 0;
    return r < 0 ? fail(err, -r, "%s", why.message) : 0;
}

static int copy_into(struct platter_disk *disk, struct platter_disk *target,
                     const struct platter_rebase_options *o, struct platter_error *err)
{
    struct copy copy = {.gaps = COPY_GAPS_DIFFER,
                        .target = target,
                        .sparse = COPY_SPARSE,
                        .workers = o->workers,
                        .rate = o->rate,
                        .progress = o->progress,
                        .opaque = o->opaque};
    return copy_disk(&copy, disk, target, o->open, err);
}

/* Stores in the image what it shows and what would read otherwise over the chain `below` (NULL:
 * none). */
static int store_differences(struct platter_disk *disk, const struct platter_disk *below,
                             const struct platter_rebase_options *o, struct platter_error *err)
{
    struct platter_disk *target;
    int r = disk_borrow(disk, 0, 1, &target, err);
    if (r < 0)
        return r;
    target->cut = false;
    if (below) {
        disk_top(disk)->has_backing = true; /* its zeros must hide what will be below them */
        r = disk_borrow_below(target, below, err);
    }
    if (r == 0)
        r = copy_into(disk, target, o, err);
    int e = disk_close(target, r < 0 ? NULL : err);
    return r < 0 ? r : e;
}

/* ---- all of it ------------------------------------------------------------------------------- */

int rebase_chain(struct platter_disk *disk, const struct platter_disk *below, const char *format,
                 const struct platter_rebase_options *o, struct platter_error *err)
{
    struct image *top = disk_top(disk);
    const struct image *backing = below ? disk_top(below) : NULL;
    const struct format *f = top->format;
    int r = f->may_set_backing ? f->may_set_backing(top, o->backing, format, backing, err) : 0;
    if (r < 0)
        return r;
    top->same_content = true;
    if (!(o->flags & PLATTER_REBASE_UNSAFE) && (disk->depth > 1 || below))
        r = store_differences(disk, below, o, err);
    if (r == 0)
        r = f->set_backing(top, o->backing, format, backing, err);
    return r;
}

static int rebase(struct platter_disk *disk, const struct platter_rebase_options *o,
                  const struct platter_open_options *open, struct platter_error *err)
{
    const struct image *top = disk_top(disk);
    const char *format;
    struct platter_disk *below;
    if (!top->format->set_backing)
        return fail(err, ENOTSUP,
                    "%s: the backing file of a %s image cannot be changed: convert it, over the "
                    "new one (-B) or without",
                    top->stream->name, top->format->name);
    int r = choose_format(top, o, &format, err);
    if (r == 0)
        r = open_below(top, format, o, open, &below, err);
    if (r < 0)
        return r;
    if (!format && below) /* which was no guess: of raw it must be said */
        format = disk_top(below)->format->name;
    if (!format && o->backing)
        return fail(err, EINVAL,
                    "%s: the format of the new backing file %s must be given (-F), as there is no "
                    "such file to tell it",
                    top->stream->name, o->backing);
    r = rebase_chain(disk, below, format, o, err);
    disk_close(below, NULL);
    return r;
}

/* A new backing file that leads to the image itself would never open. */
static int check_no_loop(const char *name, const struct platter_rebase_options *o,
                         const struct platter_open_options *open, struct platter_error *err)
{
    struct platter_open_options query = *open;
    auto_free char *path = NULL;
    struct platter_disk *below = NULL;
    struct stream *s = NULL;
    if (!o->backing || gate_resolve(name, o->backing, &path, NULL) < 0 || !path)
        return 0; /* it will be told */
    query.flags |= PLATTER_OPEN_QUERY;
    query.format = o->backing_format;
    int r = 0;
    if (stream_open(name, 0, &s, NULL) == 0 && disk_open(path, &query, &below, NULL) == 0)
        for (unsigned i = 0; i < below->depth && r == 0; i++)
            if (stream_same_file(below->chain[i]->stream, s))
                r = fail(err, EINVAL,
                         "%s: is itself the new backing file %s, or a backing file of that", name,
                         o->backing);
    stream_close(s);
    disk_close(below, NULL);
    return r;
}

int ops_rebase(const char *name, const struct platter_rebase_options *given,
               const struct platter_open_options *open, struct platter_error *err)
{
    struct platter_rebase_options o = *given;
    struct platter_open_options writable = *open;
    struct platter_disk *disk;
    if (o.backing && !*o.backing)
        o.backing = NULL;
    int r = check_no_loop(name, &o, open, err);
    if (r < 0)
        return r;
    writable.flags |= PLATTER_OPEN_WRITE;
    if (o.flags & PLATTER_REBASE_UNSAFE)
        writable.flags |= PLATTER_OPEN_NO_BACKING;
    r = disk_open(name, &writable, &disk, err);
    if (r < 0)
        return r;
    r = rebase(disk, &o, open, err);
    int e = disk_close(disk, r < 0 ? NULL : err);
    return r < 0 ? r : e;
}
