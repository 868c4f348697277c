/* SPDX-License-Identifier: MIT */
/*
 * All snapshots of an image become snapshots of a new one: the oldest disk is copied, and a
 * snapshot made of it; then the new disk gets the size of the next one, and only what differs from
 * it, by the tables, is written over it, and so on to the disk as it is now. So what snapshots
 * share there they share here, and each range is read once for each time it was written.
 * The disk as it is now can stay away, where what differs in it comes from elsewhere.
 */
#include "ops/snapshot_copy.h"

#include <string.h>

#include "base/ckd.h"
#include "base/teller.h"

enum { STATE_PIECE = 1 << 20 }; /* bytes of a machine's state that are copied at once */

struct work {
    struct platter_disk *source, *target;
    const char *from, *to; /* ids of snapshots: NULL, none was copied yet; NULL, the disk itself */
    struct disk_diff diff;
    const struct copy *copy; /* how the oldest disk is copied */
    bool compress;
    bool no_states; /* the machines' states stay behind */
    bool older;     /* the disk as it is now does as well; the target has `size` in the end */
    uint64_t size;
    /* Progress goes over all that is copied; of the part that is, in `now`. */
    uint64_t done, total, moved;
    struct platter_progress now;
    struct teller teller;
};

static const struct snapshot_ops *ops_of(const struct platter_disk *disk)
{
    return image_snapshots(disk_top(disk));
}

/* What a disk of this many bytes takes in an image of a format, most of which count in sectors. */
static uint64_t size_in(const struct format *format, uint64_t size)
{
    return format == &format_raw ? size : round_up(size, 512);
}

/* ... of a snapshot: as its view has it. */
static uint64_t snapshot_size(const struct platter_disk *source, const struct snapshot_request *s,
                              const struct format *format)
{
    const struct format *from = disk_top(source)->format;
    return size_in(format, from == &format_raw ? s->disk_size : round_down(s->disk_size, 512));
}

static uint64_t size_of(const struct work *w, const struct platter_disk *disk)
{
    return size_in(disk_top(w->target)->format, disk_size(disk));
}

int snapshots_check_copy(struct platter_disk *source, const struct format *format,
                         const struct platter_convert_options *o, uint64_t *ret_size,
                         struct platter_error *err)
{
    const char *name = disk_top(source)->stream->name;
    const struct snapshot_ops *ops = ops_of(source);
    struct snapshot_request first;
    *ret_size = size_in(format, disk_size(source));
    if (!ops || !format->snapshots)
        return fail(err, ENOTSUP,
                    "%s: snapshots can be copied only between images of formats that have them: "
                    "qcow2, and raw disks in Ceph (rbd:)",
                    name);
    if (disk_top(source)->view || o->has_range)
        return fail(err, EINVAL, "%s: a view, or a part of a disk, has no snapshots to be copied",
                    name);
    if (o->flags & (PLATTER_CONVERT_EXISTING | PLATTER_CONVERT_TO_FD))
        return fail(err, ENOTSUP,
                    "%s: snapshots can be copied to a new file only: what is there has a disk, and "
                    "snapshots, of its own",
                    name);
    if (!ops->describe(disk_top(source), 0, &first))
        return 0;
    *ret_size = snapshot_size(source, &first, format);
    return ops->possible(disk_top(source), false, err);
}

/* ---- progress ---------------------------------------------------------------------------------
 */

static int tell_all(void *opaque, const struct platter_progress *now)
{
    struct work *w = opaque;
    struct platter_progress all = {.size = sizeof all, .total = w->total};
    w->now = *now;
    all.done = w->done + now->done;
    all.moved = w->moved + now->moved;
    return w->copy->progress(w->copy->opaque, &all);
}

/* A part of `size` bytes is copied. */
static void part_done(struct work *w, uint64_t size)
{
    w->done += size;
    w->moved += w->now.moved;
    w->now = (struct platter_progress){0};
}

static void tell_hole(void *opaque, uint64_t offset, uint64_t length, const char *reason)
{
    const struct work *w = opaque;
    w->copy->hole(w->copy->opaque, offset, length, reason);
}

/* ---- a disk -----------------------------------------------------------------------------------
 */

/* The next range in which a disk differs from the one before. A salvage takes what cannot be
 * compared as different, to its end. */
static int next_difference(void *opaque, goff off, goff *ret_start, uint64_t *ret_len,
                           struct platter_error *err)
{
    struct work *w = opaque;
    struct snapshot_difference d;
    int r = disk_snapshot_diff_next(&w->diff, off, &d, err);
    if (r < 0 && w->copy->salvage)
        d = (struct snapshot_difference){.off = off, .len = disk_size(w->target) - off};
    else if (r <= 0)
        return r;
    *ret_start = d.off;
    *ret_len = d.len;
    return 1;
}

/* Copies what `disk` has to the target; `all`: the target has nothing yet. */
static int copy_content(struct work *w, struct platter_disk *disk, bool all, uint64_t *ret_holes,
                        struct platter_error *err)
{
    struct copy copy = *w->copy;
    struct sources sources;
    uint64_t holes = 0;
    int r = sources_open(&sources, &disk, 1, err);
    if (r < 0)
        return r;
    sources.size = disk_size(w->target);
    copy.sources = &sources;
    copy.progress = w->copy->progress ? tell_all : NULL;
    copy.hole = w->copy->hole ? tell_hole : NULL;
    copy.opaque = w;
    if (!all) {
        copy.above = 0;
        copy.gaps = COPY_GAPS_ZERO;
        copy.only = next_difference;
        copy.only_opaque = w;
    }
    r = sink_disk_open(w->target, w->compress, &copy.sink, err);
    if (r == 0) {
        r = copy_run(&copy, &holes, err);
        copy.sink->ops->close(copy.sink);
        *ret_holes += holes;
    }
    sources_close(&sources);
    part_done(w, sources.size);
    return r;
}

static int copy_first(struct work *w, struct platter_disk *disk, uint64_t *ret_holes,
                      struct platter_error *err)
{
    return copy_content(w, disk, true, ret_holes, err);
}

/* The disk that was copied before becomes this one. */
static int copy_next(struct work *w, struct platter_disk *disk, uint64_t *ret_holes,
                     struct platter_error *err)
{
    int r = 0;
    if (size_of(w, disk) != disk_size(w->target))
        r = disk_resize(w->target, size_of(w, disk), PLATTER_RESIZE_SHRINK,
                        PLATTER_PREALLOCATION_OFF, NULL, err);
    if (r == 0)
        r = disk_snapshot_diff_open(w->source, w->from, w->to, &w->diff, err);
    if (r < 0)
        return r;
    r = copy_content(w, disk, false, ret_holes, err);
    disk_snapshot_diff_close(&w->diff);
    return r;
}

static int copy_disk_of(struct work *w, struct platter_disk *disk, uint64_t *ret_holes,
                        struct platter_error *err)
{
    return w->from ? copy_next(w, disk, ret_holes, err) : copy_first(w, disk, ret_holes, err);
}

/* ---- snapshots --------------------------------------------------------------------------------
 */

static int copy_state(struct work *w, struct platter_disk *view, uint64_t size,
                      struct platter_error *err)
{
    uint64_t n;
    void *buf = NULL;
    int r = budget_alloc(w->copy->budget, STATE_PIECE, "a machine's state", &buf, err);
    for (uint64_t at = 0; r == 0 && at < size; at += n) {
        n = min_u64(size - at, STATE_PIECE);
        r = disk_state_read(view, buf, n, at, err);
        if (r == 0)
            r = disk_state_write(w->target, buf, n, at, err);
        w->moved += n;
        if (r == 0)
            r = teller_tell(&w->teller, at + n, size, err);
    }
    budget_free(w->copy->budget, buf, STATE_PIECE);
    part_done(w, size);
    return r;
}

/* The snapshot as it will be. An id that only is the name once more is none. */
static struct snapshot_request as_wanted(const struct work *w, const struct snapshot_request *s)
{
    struct snapshot_request ret = *s;
    ret.vm_state_size = w->no_states ? 0 : s->vm_state_size;
    ret.id = strcmp(s->id, s->name) == 0 ? NULL : s->id;
    return ret;
}

static int copy_snapshot(struct work *w, struct snapshot_request *s, uint64_t *ret_holes,
                         struct platter_error *err)
{
    struct disk_view view;
    w->to = s->id;
    int r = disk_view_open(w->source, s->id, &view, err);
    if (r == 0)
        r = copy_disk_of(w, view.disk, ret_holes, err);
    if (r == 0 && !w->no_states)
        r = copy_state(w, view.disk, s->vm_state_size, err);
    disk_view_close(&view);
    w->from = s->id;
    struct snapshot_request new = as_wanted(w, s);
    if (r == 0)
        r = disk_snapshot_create(w->target, &new, NULL, err);
    free(new.ret_id);
    return r < 0 ? fail_in(err, r, "snapshot \"%s\"", s->name) : 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Whether no two of the first n snapshots have the same name. */
static int check_unique(const struct work *w, uint32_t n, struct platter_error *err)
{
    auto_free const char **names = calloc(n, sizeof *names);
    struct snapshot_request s;
    if (!names)
        return fail_memory(err, "the names of snapshots");
    for (uint32_t i = 0; i < n; i++) {
        ops_of(w->source)->describe(disk_top(w->source), i, &s);
        names[i] = s.name;
    }
    qsort(names, n, sizeof *names, compare_names);
    for (uint32_t i = 1; i < n; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            return fail(err, EEXIST,
                        "%s: has two snapshots called \"%s\", which the target cannot have",
                        disk_top(w->source)->stream->name, names[i]);
    return 0;
}

/* Before anything is copied: how much there is, and whether the target can have it. */
static int look_ahead(struct work *w, uint32_t *ret_n, struct platter_error *err)
{
    const struct image *img = disk_top(w->source), *to = disk_top(w->target);
    const struct snapshot_ops *ops = ops_of(w->target);
    uint64_t size = w->older ? w->size : size_of(w, w->source);
    struct snapshot_request s;
    bool of_sizes = false;
    int r = 0;
    w->total = w->older ? 0 : size;
    for (*ret_n = 0; r == 0 && ops_of(w->source)->describe(img, *ret_n, &s); ++*ret_n) {
        struct snapshot_request new = as_wanted(w, &s);
        of_sizes |= snapshot_size(w->source, &s, to->format) != size;
        w->total += s.disk_size + new.vm_state_size;
        if (ops && ops->accepts)
            r = ops->accepts(to, &new, err);
    }
    if (r < 0 || *ret_n == 0)
        return r;
    if (!ops)
        return fail(err, ENOTSUP, "%s: a raw image cannot have snapshots", to->stream->name);
    r = ops->possible(to, of_sizes, err);
    return r == 0 && ops->unique ? check_unique(w, *ret_n, err) : r;
}

static int copy_snapshots(struct work *w, uint64_t *ret_holes, struct platter_error *err)
{
    struct snapshot_request s;
    uint32_t n;
    *ret_holes = 0;
    w->teller = (struct teller){.fn = w->copy->progress ? tell_all : NULL, .opaque = w};
    int r = look_ahead(w, &n, err);
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        ops_of(w->source)->describe(disk_top(w->source), i, &s);
        r = copy_snapshot(w, &s, ret_holes, err);
    }
    w->to = NULL;
    return r;
}

int snapshots_copy(const struct copy *copy, bool compress, bool no_states,
                   struct platter_disk *source, struct platter_disk *target, uint64_t *ret_holes,
                   struct platter_error *err)
{
    struct work w = {.source = source,
                     .target = target,
                     .copy = copy,
                     .compress = compress,
                     .no_states = no_states};
    int r = copy_snapshots(&w, ret_holes, err);
    return r < 0 ? r : copy_disk_of(&w, source, ret_holes, err);
}

/* What lies behind the end of the disk is zeros then, whatever a longer snapshot had there. */
static int give_size(const struct work *w, struct platter_error *err)
{
    uint64_t least = min_u64(size_of(w, w->source), w->size);
    int r = disk_size(w->target) > least ? disk_resize(w->target, least, PLATTER_RESIZE_SHRINK,
                                                       PLATTER_PREALLOCATION_OFF, NULL, err)
                                         : 0;
    return r < 0 || disk_size(w->target) == w->size
               ? r
               : disk_resize(w->target, w->size, 0, PLATTER_PREALLOCATION_OFF, NULL, err);
}

static int tell_differences(struct work *w, const struct snapshots_differ *differ,
                            struct platter_error *err)
{
    struct snapshot_difference d = {0};
    int r = disk_snapshot_diff_open(w->source, w->from, NULL, &w->diff, err);
    if (r < 0)
        return r;
    for (goff off = 0; off < w->size; off = d.off + d.len) {
        r = disk_snapshot_diff_next(&w->diff, off, &d, err);
        if (r <= 0 || d.off >= w->size)
            break;
        r = differ->fn(differ->opaque, d.off, min_u64(d.len, w->size - d.off), err);
        if (r < 0)
            break;
    }
    disk_snapshot_diff_close(&w->diff);
    return r < 0 ? r : 0;
}

int snapshots_copy_older(const struct copy *copy, struct platter_disk *source,
                         struct platter_disk *target, uint64_t size,
                         const struct snapshots_differ *differ, struct platter_error *err)
{
    struct work w = {.source = source, .target = target, .copy = copy, .older = true, .size = size};
    uint64_t holes;
    int r = copy_snapshots(&w, &holes, err);
    if (r == 0)
        r = give_size(&w, err);
    return r < 0 ? r : tell_differences(&w, differ, err);
}
