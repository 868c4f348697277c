/* SPDX-License-Identifier: MIT */
/*
 * Checks one image. The format judges its structure, and mends it; what was mended is judged again
 * from the file. Then the image must open as for reading, with all it is stacked on: that is where
 * a parent that does not fit shows. With PLATTER_CHECK_DATA, all that is packed is unpacked; of
 * snapshots, what the view that was looked at before does not have as well.
 */
#include "base/ckd.h"

#include "ops/ops.h"
#include "ops/pieces.h"
#include "ops/walk.h"

/* ---- the format's look ----------------------------------------------------------------------- */

static int look(const char *name, const struct platter_open_options *open, bool repair,
                struct check *c, struct platter_error *err)
{
    struct platter_disk *disk;
    int r = disk_open_for_check(name, open, repair, &disk, err);
    if (r < 0)
        return r;
    struct image *img = disk_top(disk);
    c->result.format = img->format->name;
    if (!img->format->check)
        r = fail(err, ENOTSUP, "This image format does not support checks");
    else
        r = img->format->check(img, c, err);
    int closed = disk_close(disk, r < 0 ? NULL : err);
    return r < 0 ? r : closed;
}

/* The image as the repair left it: what is wrong now, and what was mended then. */
static int look_again(const char *name, const struct platter_open_options *open, struct check *c,
                      struct platter_error *err)
{
    struct check second = {
        .again = true, .finding = c->finding, .progress = c->progress, .opaque = c->opaque};
    int r = look(name, open, false, &second, err);
    second.result.corruptions_fixed = c->result.corruptions_fixed;
    second.result.leaks_fixed = c->result.leaks_fixed;
    *c = second;
    return r;
}

/* ---- packed data ----------------------------------------------------------------------------- */

struct verify {
    const struct platter_check_options *options;
    struct check *check;
    struct platter_disk *disk;
    const char *snapshot;       /* its name, or NULL */
    struct disk_diff *diff;     /* only what it finds is looked at; NULL: all */
    goff next, range, end;      /* to be looked at: [next, range), and then on to the end */
    unsigned number, number_of; /* which of how many looks this is */
    struct pieces pieces;
    struct platter_error *errors; /* of the workers; code 0: none */
};

/* The next range that is to be looked at: 0 where there is none. */
static int verify_range(struct verify *v, struct platter_error *err)
{
    struct snapshot_difference d = {.len = v->end - v->next, .off = v->next};
    int r = 1;
    while (v->next == v->range && v->next < v->end) {
        if (v->diff)
            r = disk_snapshot_diff_next(v->diff, v->next, &d, err);
        if (r <= 0)
            return r;
        v->range = d.off + d.len;
        v->next = v->diff && d.kind != EXTENT_PACKED ? v->range : d.off;
    }
    return v->next < v->range;
}

/* The next unit that the image itself stores packed. */
static int verify_next(void *opaque, struct walk_chunk *ret, struct platter_error *err)
{
    struct verify *v = opaque;
    struct image *top = disk_top(v->disk);
    int r;
    while ((r = verify_range(v, err)) > 0) {
        struct extent e;
        int mapped = top->format->map(top, v->next, v->range - v->next, &e, NULL);
        *ret = (struct walk_chunk){.off = v->next, .len = mapped < 0 ? top->unit : e.len};
        ret->len = min_u64(ret->len, v->range - ret->off);
        v->next += ret->len;
        if (mapped < 0 || e.kind == EXTENT_PACKED)
            return 1;
    }
    return r;
}

static int verify_work(void *opaque, unsigned worker, struct walk_chunk *c,
                       struct platter_error *err)
{
    (void)err;
    struct verify *v = opaque;
    struct image *top = disk_top(v->disk);
    struct extent e;
    v->errors[worker] = (struct platter_error){0};
    int r = top->format->map(top, c->off, c->len, &e, &v->errors[worker]);
    if (r == 0 && e.kind == EXTENT_PACKED)
        r = top->format->unpack(top, &e, pieces_of(&v->pieces, worker, 0), &v->errors[worker]);
    c->moved = c->len;
    return r == -ENOMEM ? r : 0;
}

static int verify_turn(void *opaque, unsigned worker, struct walk_chunk *c,
                       struct platter_error *err)
{
    (void)c, (void)err;
    struct verify *v = opaque;
    struct platter_error *found = &v->errors[worker];
    if (found->code && v->snapshot)
        fail_in(found, -found->code, "snapshot \"%s\"", v->snapshot);
    if (found->code)
        check_failed(v->check, -found->code, found);
    return 0;
}

static int verify_progress(void *opaque, const struct platter_progress *now)
{
    const struct verify *v = opaque;
    struct platter_progress all = *now;
    all.done = v->number * now->total + now->done;
    all.total = v->number_of * now->total;
    return v->options->progress(v->options->opaque, &all);
}

static void verify_interrupt(void *opaque)
{
    disk_interrupt(((struct verify *)opaque)->disk);
}

/* Looks at all of v->disk, or at what v->diff finds. */
static int verify_run(struct verify *v, struct platter_error *err)
{
    static const struct walk_ops ops = {
        .next = verify_next, .work = verify_work, .turn = verify_turn};
    v->next = v->range = 0;
    v->end = disk_size(v->disk);
    int r = pieces_open(&v->pieces, &v->disk, 1, v->options->workers, err);
    if (r == 0 && v->pieces.len < disk_top(v->disk)->unit)
        r = fail(err, ENOTSUP, "%s: units of %u bytes are too large to be verified",
                 disk_top(v->disk)->stream->name, disk_top(v->disk)->unit);
    v->errors = calloc(v->pieces.workers ? v->pieces.workers : 1, sizeof *v->errors);
    if (r == 0 && !v->errors)
        r = fail_memory(err, "the errors of a check");
    struct walk walk = {.ops = &ops,
                        .opaque = v,
                        .workers = v->pieces.workers,
                        .total = v->end,
                        .progress = v->options->progress ? verify_progress : NULL,
                        .progress_opaque = v,
                        .interrupt = disk_requests(v->disk) ? verify_interrupt : NULL};
    if (r == 0)
        r = walk_run(&walk, err);
    if (r == 0)
        r = disk_unchanged(v->disk, err);
    free(v->errors);
    pieces_close(&v->pieces);
    v->number++;
    return r;
}

/* What one snapshot has packed, but for what it shares with `seen` (NULL: the disk as it is). */
static int verify_snapshot(struct verify *v, struct platter_disk *disk, const char *seen,
                           const struct snapshot_request *s, struct platter_error *err)
{
    struct verify one = *v;
    struct disk_view view;
    struct disk_diff diff;
    int r = disk_view_open(disk, s->id, &view, err);
    if (r < 0)
        return r;
    one.disk = view.disk;
    one.snapshot = s->name;
    one.diff = &diff;
    r = disk_snapshot_diff_open(disk, seen, s->id, &diff, err);
    if (r == 0) {
        r = verify_run(&one, err);
        disk_snapshot_diff_close(&diff);
    }
    disk_view_close(&view);
    v->number = one.number;
    return r;
}

/* The disk, then its snapshots, the newest first: it is the one most like the disk. */
static int verify_all(struct platter_disk *disk, const struct platter_check_options *o,
                      struct check *c, struct platter_error *err)
{
    const struct image *top = disk_top(disk);
    const struct snapshot_ops *ops = image_snapshots(top);
    struct verify v = {.options = o, .check = c, .disk = disk, .number_of = 1};
    struct snapshot_request s;
    const char *seen = NULL;
    while (ops && ops->describe(top, v.number_of - 1, &s))
        v.number_of++;
    int r = verify_run(&v, err);
    for (unsigned i = v.number_of - 1; r == 0 && i-- > 0; seen = s.id) {
        struct platter_error why = {0};
        r = ops->describe(top, i, &s) ? verify_snapshot(&v, disk, seen, &s, &why) : 0;
        if (r == -PLATTER_ECORRUPT) {
            check_failed(c, r, &why);
            r = 0;
        } else if (r < 0) {
            fail(err, -r, "%s", why.message);
        }
    }
    return r;
}

/* ---- as for reading -------------------------------------------------------------------------- */

static int open_all(const char *name, const struct platter_check_options *o,
                    const struct platter_open_options *open, struct check *c,
                    struct platter_error *err)
{
    struct platter_open_options normal = *open;
    struct platter_error why = {0};
    struct platter_disk *disk;
    /* Where nothing can be packed no key is asked for either. */
    bool data = o->flags & PLATTER_CHECK_DATA && format_find(c->result.format)->unpack;
    if (!data)
        normal.flags |= PLATTER_OPEN_QUERY;
    /* What is below says nothing of an image whose format cannot tell the right file from others:
     * then it is not looked for (qcow2.md section 23). */
    if (!format_find(c->result.format)->accept_backing)
        normal.flags |= PLATTER_OPEN_NO_BACKING;
    int r = disk_open(name, &normal, &disk, &why);
    if (r < 0) {
        check_failed(c, r, &why);
        return 0;
    }
    r = data ? verify_all(disk, o, c, err) : 0;
    disk_close(disk, NULL);
    return r;
}

int ops_check(const char *name, const struct platter_check_options *o,
              const struct platter_open_options *open, struct platter_check_result *ret,
              struct platter_error *err)
{
    struct check c = {.mend_all = o->flags & PLATTER_CHECK_REPAIR_ALL,
                      .mend_leaks =
                          o->flags & (PLATTER_CHECK_REPAIR_ALL | PLATTER_CHECK_REPAIR_LEAKS),
                      .finding = o->finding,
                      .progress = o->progress,
                      .opaque = o->opaque};
    int r;
    if (c.mend_leaks && (open->flags & PLATTER_OPEN_FORCE_SHARE))
        r = fail(err, EINVAL, "%s: what others write to cannot be repaired meanwhile", name);
    else
        r = look(name, open, c.mend_leaks, &c, err);
    if (r == 0 && (c.result.corruptions_fixed || c.result.leaks_fixed))
        r = look_again(name, open, &c, err);
    bool sound = c.result.corruptions == 0 && c.result.check_errors == 0;
    if (r == 0 && sound)
        r = open_all(name, o, open, &c, err);
    else if (r == 0 && (o->flags & PLATTER_CHECK_DATA))
        check_found(&c, PLATTER_FINDING_NOTE, false, 1,
                    "%s: what is compressed was not unpacked, as the tables are not in order",
                    name);
    c.result.size = ret->size;
    *ret = c.result;
    return r;
}
