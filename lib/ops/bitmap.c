/* SPDX-License-Identifier: MIT */
/* Dirty bitmaps: listed, looked at, changed, and carried into another image. */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "ops/ops.h"

static int check_format(const struct image *img, struct platter_error *err)
{
    if (img->view)
        return fail(err, ENOTSUP, "%s: the bitmaps are those of the disk itself, not of \"%s\"",
                    img->stream->name, img->view);
    return img->format->bitmaps ? 0
                                : fail(err, ENOTSUP, "%s: the %s format has no bitmaps",
                                       img->stream->name, img->format->name);
}

/* ---- changing ---------------------------------------------------------------------------------
 */

static int check_change(const struct platter_disk *disk, const struct platter_bitmap_change *given,
                        struct bitmap_change *ret, struct platter_error *err)
{
    const char *file = disk_top(disk)->stream->name;
    *ret = (struct bitmap_change){.action = given->action,
                                  .name = given->name,
                                  .granularity = given->granularity,
                                  .source_name = given->source_name};
    if ((unsigned)given->action < PLATTER_BITMAP_ADD ||
        (unsigned)given->action > PLATTER_BITMAP_MERGE)
        return fail(err, EINVAL, "%s: nothing called %d can be done to a bitmap", file,
                    (int)given->action);
    if (!given->name || (given->action == PLATTER_BITMAP_MERGE && !given->source_name))
        return fail(err, EINVAL, "%s: a bitmap must have a name", file);
    if (given->granularity && given->action != PLATTER_BITMAP_ADD)
        return fail(err, EINVAL, "%s: only a new bitmap can be given a granularity", file);
    if (given->source && given->action != PLATTER_BITMAP_MERGE)
        return fail(err, EINVAL, "%s: only what is merged can come from elsewhere", file);
    if (!given->source || given->source == disk)
        return 0;
    ret->source = disk_top(given->source);
    return check_format(ret->source, err);
}

int ops_bitmap_change(struct platter_disk *disk, const struct platter_bitmap_change *given,
                      size_t n, struct platter_error *err)
{
    auto_free struct bitmap_change *changes = calloc(n + 1, sizeof *changes);
    auto_free struct platter_disk **sources = calloc(n + 1, sizeof(struct platter_disk *));
    size_t n_sources = 0;
    if (!changes || !sources)
        return fail_memory(err, "changes of bitmaps");
    int r = check_format(disk_top(disk), err);
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = check_change(disk, &given[i], &changes[i], err);
        if (r == 0 && changes[i].source)
            sources[n_sources++] = given[i].source;
    }
    return r < 0 ? r : disk_change_bitmaps(disk, changes, n, sources, n_sources, err);
}

/* ---- looking ----------------------------------------------------------------------------------
 */

int ops_bitmap_map(struct platter_disk *disk, const char *bitmap, uint64_t offset, uint64_t length,
                   uint64_t *ret_length, bool *ret_dirty, struct platter_error *err)
{
    struct image *top = disk_top(disk);
    struct range_hold hold;
    int r = check_format(top, err);
    if (r < 0)
        return r;
    disk_pin(disk, &hold);
    if (length == 0 || !range_inside(offset, length, top->size))
        r = fail(err, EINVAL, "%s: bytes inside the disk must be asked for", top->stream->name);
    else
        r = top->format->bitmaps->map(top, bitmap, offset, length, ret_length, ret_dirty, err);
    disk_unpin(disk, &hold);
    return r;
}

/* Bytes of the disk that are dirty. */
static int count_dirty(struct image *img, const char *name, uint64_t *ret,
                       struct platter_error *err)
{
    uint64_t len, size = img->size;
    bool dirty;
    int r = 0;
    *ret = 0;
    for (goff off = 0; r == 0 && off < size; off += len) {
        r = img->format->bitmaps->map(img, name, off, size - off, &len, &dirty, err);
        *ret += r == 0 && dirty ? len : 0;
    }
    return r;
}

static json_t *describe(struct image *img, const struct bitmap_info *b)
{
    struct platter_error why = {0};
    uint64_t count;
    json_t *one =
        json_pack("{s:o, s:I, s:b, s:b}", "name", json_name(b->name), "granularity",
                  (json_int_t)b->granularity, "recording", b->enabled, "inconsistent", b->in_use);
    if (b->problem)
        json_object_set_new(one, "problem", json_string(b->problem));
    else if (count_dirty(img, b->name, &count, &why) < 0)
        json_object_set_new(one, "problem", json_name(why.message));
    else
        json_object_set_new(one, "count", json_integer((json_int_t)count));
    return one;
}

int ops_bitmaps(struct platter_disk *disk, char **ret_json, struct platter_error *err)
{
    struct image *top = disk_top(disk);
    auto_free struct bitmap_info *all = NULL;
    struct range_hold hold;
    size_t n = 0;

    json_t *list = json_array();
    disk_pin(disk, &hold);
    int r = top->format->bitmaps && !top->view ? top->format->bitmaps->list(top, &all, &n, err) : 0;
    for (size_t i = 0; r == 0 && i < n; i++)
        if (json_array_append_new(list, describe(top, &all[i])))
            r = fail_memory(err, "the list of bitmaps");
    disk_unpin(disk, &hold);
    *ret_json = r == 0 ? json_dumps(list, 0) : NULL;
    json_decref(list);
    return r == 0 && !*ret_json ? fail_memory(err, "the list of bitmaps") : r;
}

/* ---- carrying over ----------------------------------------------------------------------------
 */

int bitmaps_check_copy(const struct platter_disk *source, const struct format *target,
                       bool skip_broken, struct platter_error *err)
{
    struct image *top = disk_top(source);
    auto_free struct bitmap_info *all = NULL;
    size_t n;

    if (!target->bitmaps)
        return fail(err, ENOTSUP, "the %s format has no bitmaps: they cannot be copied to it",
                    target->name);
    int r = check_format(top, err);
    if (r == 0)
        r = top->format->bitmaps->list(top, &all, &n, err);
    for (size_t i = 0; r == 0 && !skip_broken && i < n; i++)
        if (all[i].problem)
            r = fail(err, EINVAL,
                     "%s: bitmap \"%s\" cannot be copied: %s; leave such out "
                     "(--skip-broken-bitmaps), or remove it",
                     top->stream->name, all[i].name, all[i].problem);
    return r;
}

int bitmaps_check_target(const struct platter_disk *source, struct platter_disk *target, bool sized,
                         struct platter_error *err)
{
    struct image *from = disk_top(source), *to = disk_top(target);
    auto_free struct bitmap_info *all = NULL, *there = NULL;
    size_t n = 0, n_there = 0;

    int r = disk_change_bitmaps(target, NULL, 0, NULL, 0, err);
    if (r == 0)
        r = from->format->bitmaps->list(from, &all, &n, err);
    if (r == 0)
        r = to->format->bitmaps->list(to, &there, &n_there, err);
    for (size_t i = 0; r == 0 && i < n; i++)
        for (size_t k = 0; r == 0 && k < n_there; k++)
            if (!all[i].problem && strcmp(all[i].name, there[k].name) == 0)
                r = fail(err, EEXIST, "%s: there is a bitmap \"%s\" already", to->stream->name,
                         all[i].name);
    if (r == 0 && n && sized && from->size != to->size)
        r = fail(err, EINVAL,
                 "%s: has %" PRIu64 " bytes, and the source %" PRIu64
                 ": bitmaps can be copied only where the sizes are the same",
                 to->stream->name, (uint64_t)to->size, (uint64_t)from->size);
    return r;
}

/* The steps that make one like it. */
static size_t copy_steps(const struct platter_disk *source, const struct bitmap_info *b,
                         struct platter_bitmap_change *steps)
{
    const struct platter_bitmap_change step = {.size = sizeof step, .name = b->name};
    steps[0] = steps[1] = steps[2] = step;
    steps[0].action = PLATTER_BITMAP_ADD;
    steps[0].granularity = b->granularity;
    steps[1].action = PLATTER_BITMAP_MERGE;
    steps[1].source = (struct platter_disk *)source;
    steps[1].source_name = b->name;
    steps[2].action = PLATTER_BITMAP_DISABLE;
    return b->enabled ? 2 : 3;
}

int bitmaps_copy(struct platter_disk *source, struct platter_disk *target,
                 struct platter_error *err)
{
    struct image *top = disk_top(source);
    auto_free struct bitmap_info *all = NULL;
    size_t n = 0, n_steps = 0;

    int r = top->format->bitmaps->list(top, &all, &n, err);
    if (r < 0)
        return r;
    auto_free struct platter_bitmap_change *steps = calloc(n + 1, 3 * sizeof *steps);
    if (!steps)
        return fail_memory(err, "the list of bitmaps");
    for (size_t i = 0; i < n; i++)
        if (!all[i].problem)
            n_steps += copy_steps(source, &all[i], steps + n_steps);
    return n_steps ? ops_bitmap_change(target, steps, n_steps, err) : 0;
}
