/* SPDX-License-Identifier: MIT */
/*
 * All snapshots of an image become snapshots of a new one: the oldest disk is copied, and a
 * snapshot made of it; then only what differs from it, by the tables, is written over it for the
 * next, and so on to the disk as it is now. So what snapshots share there they share here, and each
 * range is read once for each time it was written.
 *
 * Meanwhile the new disk is as large as the largest of them; each snapshot knows its own size, and
 * what lies behind that is zeros.
 */
#include "ops/snapshot_copy.h"

#include <string.h>

#include "base/ckd.h"

enum { STATE_PIECE = 1 << 20 }; /* bytes of a machine's state that are copied at once */

/* One step: a view of the source over the one before it. */
struct step {
    struct platter_disk *source, *target;
    const char *from, *to; /* ids of snapshots; NULL: none before, the disk itself */
    bool first;
    struct disk_diff diff;
    uint64_t size; /* of the disk that is copied */
    uint64_t held; /* bytes that the target may hold of the one before */
    /* Progress goes over all steps. */
    const struct copy *copy;
    uint64_t number, steps;
};

static const struct snapshot_ops *ops_of(const struct platter_disk *disk)
{
    return disk_top(disk)->format->snapshots;
}

int snapshots_check_copy(struct platter_disk *source, const struct format *format,
                         const struct platter_convert_options *o, uint64_t *ret_size,
                         struct platter_error *err)
{
    const char *name = disk_top(source)->stream->name;
    const struct snapshot_ops *ops = ops_of(source);
    struct snapshot_request s;
    *ret_size = round_up(disk_size(source), 512);
    if (!ops || !format->snapshots)
        return fail(err, ENOTSUP, "%s: snapshots can be copied from one qcow2 to another only",
                    name);
    if (disk_top(source)->view)
        return fail(err, EINVAL, "%s: a view has no snapshots to be copied", name);
    if (o->flags & (PLATTER_CONVERT_EXISTING | PLATTER_CONVERT_COMPRESS | PLATTER_CONVERT_TO_FD) ||
        o->backing)
        return fail(err, ENOTSUP,
                    "%s: snapshots can be copied to a new file without a backing file only, and "
                    "not compressed",
                    name);
    for (uint32_t i = 0; ops->describe(disk_top(source), i, &s); i++)
        *ret_size = max_u64(*ret_size, round_up(s.disk_size, 512));
    return 0;
}

/* The next range in which the view differs from the one before; what that had behind the end of
 * this one becomes zeros. */
static int next_difference(void *opaque, goff off, goff *ret_start, uint64_t *ret_len,
                           struct platter_error *err)
{
    struct step *step = opaque;
    struct snapshot_difference d;
    int r = disk_snapshot_diff_next(&step->diff, off, &d, err);
    if (r < 0)
        return r;
    if (r == 0 && max_u64(off, step->size) >= step->held)
        return 0;
    *ret_start = r ? d.off : max_u64(off, step->size);
    *ret_len = r ? d.len : step->held - *ret_start;
    return 1;
}

static int step_progress(void *opaque, const struct platter_progress *now)
{
    const struct step *step = opaque;
    struct platter_progress all = *now;
    all.done = step->number * now->total + now->done;
    all.total = step->steps * now->total;
    return step->copy->progress(step->copy->opaque, &all);
}

static void step_hole(void *opaque, uint64_t offset, uint64_t length, const char *reason)
{
    const struct step *step = opaque;
    step->copy->hole(step->copy->opaque, offset, length, reason);
}

/* Copies what `disk` has to the target, as far as that has it not. */
static int copy_content(struct step *step, struct platter_disk *disk, uint64_t *ret_holes,
                        struct platter_error *err)
{
    struct copy copy = *step->copy;
    struct sources sources;
    uint64_t holes = 0;
    int r = sources_open(&sources, &disk, 1, err);
    if (r < 0)
        return r;
    sources.size = disk_size(step->target); /* zeros behind the end */
    copy.sources = &sources;
    copy.progress = step->copy->progress ? step_progress : NULL;
    copy.hole = step->copy->hole ? step_hole : NULL;
    copy.opaque = step;
    if (!step->first) {
        copy.gaps = COPY_GAPS_ZERO;
        copy.only = next_difference;
        copy.only_opaque = step;
    }
    r = sink_disk_open(step->target, false, &copy.sink, err);
    if (r == 0) {
        r = copy_run(&copy, &holes, err);
        copy.sink->ops->close(copy.sink);
        *ret_holes += holes;
    }
    sources_close(&sources);
    return r;
}

static int copy_state(struct step *step, struct platter_disk *view,
                      const struct snapshot_request *s, struct platter_error *err)
{
    uint64_t n;
    void *buf = NULL;
    int r = budget_alloc(step->copy->budget, STATE_PIECE, "a machine's state", &buf, err);
    for (uint64_t at = 0; r == 0 && at < s->vm_state_size; at += n) {
        n = min_u64(s->vm_state_size - at, STATE_PIECE);
        r = disk_state_read(view, buf, n, at, err);
        if (r == 0)
            r = disk_state_write(step->target, s->disk_size, buf, n, at, err);
    }
    budget_free(step->copy->budget, buf, STATE_PIECE);
    return r;
}

/* The disk of one step, with what it needs of the one before. */
static int copy_step(struct step *step, struct platter_disk *disk, uint64_t *ret_holes,
                     struct platter_error *err)
{
    step->size = disk_size(disk);
    if (step->first)
        return copy_content(step, disk, ret_holes, err);
    int r = disk_snapshot_diff_open(step->source, step->from, step->to, &step->diff, err);
    if (r < 0)
        return r;
    r = copy_content(step, disk, ret_holes, err);
    disk_snapshot_diff_close(&step->diff);
    return r;
}

static int copy_snapshot(struct step *step, struct snapshot_request *s, uint64_t *ret_holes,
                         struct platter_error *err)
{
    struct disk_view view;
    step->to = s->id;
    int r = disk_view_open(step->source, s->id, &view, err);
    if (r < 0)
        return fail_in(err, r, "snapshot \"%s\"", s->name);
    r = copy_step(step, view.disk, ret_holes, err);
    if (r == 0)
        r = copy_state(step, view.disk, s, err);
    disk_view_close(&view);
    if (r == 0)
        r = disk_snapshot_create(step->target, s, err);
    free(TAKE(s->ret_id));
    step->from = s->id;
    step->first = false;
    step->held = step->size;
    return r < 0 ? fail_in(err, r, "snapshot \"%s\"", s->name) : 0;
}

int snapshots_copy(const struct copy *copy, struct platter_disk *source,
                   struct platter_disk *target, uint64_t *ret_holes, struct platter_error *err)
{
    struct step step = {
        .source = source, .target = target, .first = true, .copy = copy, .steps = 1};
    const struct image *img = disk_top(source);
    struct snapshot_request s;
    int r = 0;
    *ret_holes = 0;
    while (ops_of(source)->describe(img, (uint32_t)step.steps - 1, &s))
        step.steps++;
    for (; r == 0 && ops_of(source)->describe(img, (uint32_t)step.number, &s); step.number++)
        r = copy_snapshot(&step, &s, ret_holes, err);
    if (r < 0)
        return r;
    step.to = NULL;
    r = copy_step(&step, source, ret_holes, err);
    uint64_t size = round_up(disk_size(source), 512);
    if (r == 0 && size < disk_size(target))
        r = disk_resize(target, size, PLATTER_RESIZE_SHRINK, PLATTER_PREALLOCATION_OFF, NULL, err);
    return r;
}
