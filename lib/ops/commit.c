/* SPDX-License-Identifier: MIT */
/*
 * Committing: what an image stores is copied down the chain, and the image forgets it.
 *
 * The image and the one that gets its data are opened once, in one chain; the target of the copy is
 * a second disk of the lower part of it. At any time a guest of the image sees the same disk, as
 * does one who opens it after a crash:
 *
 * 1. The base grows, where it is shorter. What is new reads as zeros, as it did above it.
 * 2. The image is made to open over the base as it will be (format->follow_backing()).
 * 3. The data is copied and made durable. The image still has it, and hides what the base has.
 * 4. The image is emptied.
 */
#include <string.h>

#include "base/ckd.h"
#include "ops/copy.h"
#include "ops/ops.h"
#include "stream/place.h"

/* ---- which image --------------------------------------------------------------------------------
 */

/* Whether `name`, seen from here or from the folder of the image, is the file. */
static bool is_file(const char *image, const char *name, struct stream *file)
{
    auto_free char *path = NULL;
    const char *paths[] = {name, NULL};
    bool same = false;
    if (gate_resolve(image, name, &path, NULL) == 0)
        paths[1] = path;
    for (int i = 0; i < 2 && !same; i++) {
        struct stream *s;
        if (!paths[i] || stream_open(paths[i], 0, &s, NULL) < 0)
            continue;
        same = stream_same_file(s, file);
        stream_close(s);
    }
    return same;
}

/* The place in the chain of the image that is called `base`. */
static int find_base(const struct platter_disk *disk, const char *base, unsigned *ret,
                     struct platter_error *err)
{
    const char *name = disk_top(disk)->stream->name;
    for (unsigned i = 1; i < disk->depth; i++)
        if (strcmp(disk->chain[i - 1]->backing_name, base) == 0 ||
            is_file(name, base, disk->chain[i]->stream)) {
            *ret = i;
            return 0;
        }
    return fail(err, EINVAL, "Did not find '%s' in the backing chain of '%s'", base, name);
}

/* Looks for the base in the chain, which is opened for it. */
static int look_for_base(const char *name, const struct platter_open_options *open,
                         const char *base, unsigned *ret, struct platter_error *err)
{
    struct platter_open_options query = *open;
    struct platter_disk *disk;
    query.flags |= PLATTER_OPEN_QUERY;
    int r = disk_open(name, &query, &disk, err);
    if (r < 0)
        return r;
    r = find_base(disk, base, ret, err);
    disk_close(disk, NULL);
    return r;
}

/* ---- the work -------------------------------------------------------------------------------- */

static int copy_down(struct platter_disk *disk, struct platter_disk *target, unsigned base,
                     const struct platter_commit_options *o, struct platter_error *err)
{
    struct copy copy = {.gaps = COPY_GAPS_ZERO,
                        .above = base,
                        .workers = o->workers,
                        .rate = o->rate,
                        .progress = o->progress,
                        .opaque = o->opaque};
    return copy_disk(&copy, disk, target, o->open, err);
}

static int grow_base(struct platter_disk *target, uint64_t size, struct platter_error *err)
{
    if (disk_top(target)->format != &format_raw)
        size = round_up(size, 512);
    if (disk_size(target) >= size)
        return 0;
    int r = ops_resize(target, size, 0, PLATTER_PREALLOCATION_OFF, err);
    return r < 0 ? fail_in(err, r, "the backing file is shorter and must grow first") : 0;
}

int commit_chain(struct platter_disk *disk, unsigned base, const struct platter_commit_options *o,
                 struct platter_error *err)
{
    struct image *top = disk_top(disk);
    const struct format *f = top->format;
    bool empty = !o->base && !(o->flags & PLATTER_COMMIT_KEEP);
    if (disk->depth <= base)
        return fail(err, EINVAL, "%s: Image does not have a backing file", top->stream->name);
    if (empty && !f->make_empty)
        return fail(err, ENOTSUP,
                    "%s: a %s image cannot be emptied yet: commit with -d, which leaves its data "
                    "in it, and make a new one",
                    top->stream->name, f->name);
    int r = f->may_commit ? f->may_commit(top, base == 1, empty, err) : 0;
    if (r < 0)
        return r;
    top->same_content = true;
    struct platter_disk *target;
    r = disk_borrow(disk, base, disk->depth - base, &target, err);
    if (r < 0)
        return r;
    r = grow_base(target, disk_size(disk), err);
    if (r == 0 && base == 1 && f->follow_backing)
        r = f->follow_backing(top, disk_top(target), err);
    if (r == 0)
        r = copy_down(disk, target, base, o, err);
    int e = disk_close(target, r < 0 ? NULL : err);
    r = r < 0 ? r : e;
    return r == 0 && empty ? f->make_empty(top, err) : r;
}

int ops_commit(const char *name, const struct platter_commit_options *o,
               const struct platter_open_options *open, struct platter_error *err)
{
    struct platter_open_options writable = *open;
    struct platter_disk *disk;
    unsigned base = 1, again = 1;
    int r = o->base ? look_for_base(name, open, o->base, &base, err) : 0;
    if (r < 0)
        return r;
    writable.flags |= PLATTER_OPEN_WRITE;
    r = disk_open_with_base(name, &writable, base, &disk, err);
    if (r < 0)
        return r;
    if (o->base)
        r = find_base(disk, o->base, &again, err);
    if (r == 0 && o->base && again != base)
        r = fail(err, EBUSY, "%s: its chain was changed while it was opened", name);
    if (r == 0)
        r = commit_chain(disk, base, o, err);
    int e = disk_close(disk, r < 0 ? NULL : err);
    return r < 0 ? r : e;
}
