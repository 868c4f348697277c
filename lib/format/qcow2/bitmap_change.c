/* SPDX-License-Identifier: MIT */
/*
 * Changes of bitmaps themselves: added, removed, merged, for a disk of another size. They are made
 * to a copy, which takes the place of what is there when all of them succeeded.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/qcow2/bitmap.h"

/* Work on a list that is to become the image's, if all goes well. Bitmaps that are not `kept` are
 * its own. */
struct draft {
    struct image *img;
    struct qcow2_bitmap_list list;
};

static int draft_find(const struct draft *d, const char *name, uint32_t *ret,
                      struct platter_error *err)
{
    for (uint32_t i = 0; i < d->list.n; i++)
        if (strcmp(d->list.items[i]->name, name) == 0) {
            *ret = i;
            return 0;
        }
    return fail(err, ENOENT, "%s: there is no bitmap \"%s\"", d->img->stream->name, name);
}

static int draft_usable(const struct draft *d, const char *name, uint32_t *ret,
                        struct platter_error *err)
{
    int r = draft_find(d, name, ret, err);
    if (r < 0)
        return r;
    const struct qcow2_bitmap *b = d->list.items[*ret];
    if (qcow2_bitmap_problem(b))
        return fail(err, EINVAL, "%s: bitmap \"%s\" cannot be used, and only be removed: %s",
                    d->img->stream->name, name, qcow2_bitmap_problem(b));
    return 0;
}

/* Number i as one that may be changed. */
static int draft_own(struct draft *d, uint32_t i, struct platter_error *err)
{
    struct qcow2_bitmap **b = &d->list.items[i], *clone = NULL;
    if (!(*b)->kept)
        return 0;
    int r = qcow2_bitmap_clone(d->img, *b, &clone, err);
    if (r == 0)
        *b = clone;
    return r;
}

static int draft_open(struct draft *d, const char *name, struct qcow2_bitmap **ret,
                      struct platter_error *err)
{
    uint32_t i = 0;
    int r = draft_usable(d, name, &i, err);
    if (r == 0)
        r = draft_own(d, i, err);
    if (r == 0)
        *ret = d->list.items[i];
    return r;
}

static int add(struct draft *d, const struct bitmap_change *c, struct platter_error *err)
{
    uint64_t cluster = qcow2_of(d->img)->cluster_size, granularity = c->granularity;
    const char *file = d->img->stream->name;
    size_t len = strlen(c->name);

    if (granularity == 0)
        granularity = cluster < 4096 ? 4096 : min_u64(cluster, 65536);
    if (!is_power_of_2(granularity) || granularity < UINT64_C(1) << QCOW2_BITMAP_MIN_BITS ||
        granularity > UINT64_C(1) << QCOW2_BITMAP_MAX_BITS)
        return fail(err, EINVAL,
                    "%s: the granularity of a bitmap must be a power of 2 from 512 bytes to 2 GiB",
                    file);
    if (len == 0 || len > QCOW2_BITMAP_MAX_NAME)
        return fail(err, EINVAL, "%s: the name of a bitmap must have 1 to 1023 bytes", file);
    if (qcow2_bitmap_find(&d->list, c->name))
        return fail(err, EEXIST, "%s: there is a bitmap \"%s\" already", file, c->name);
    if (d->list.n >= QCOW2_MAX_BITMAPS)
        return fail(err, ENOSPC, "%s: an image has 65535 bitmaps at most", file);
    int r = qcow2_bitmap_new(d->img, c->name, (unsigned)__builtin_ctzll(granularity),
                             &d->list.items[d->list.n], err);
    if (r == 0)
        d->list.n++;
    return r;
}

static int remove_one(struct draft *d, const struct bitmap_change *c, struct platter_error *err)
{
    uint32_t i = 0;
    int r = draft_find(d, c->name, &i, err);
    if (r < 0)
        return r;
    if (!d->list.items[i]->kept)
        qcow2_bitmap_free(d->img, d->list.items[i]);
    d->list.n--;
    memmove(d->list.items + i, d->list.items + i + 1,
            (d->list.n - i) * sizeof(struct qcow2_bitmap *));
    return 0;
}

static int enable(struct draft *d, const struct bitmap_change *c, bool on,
                  struct platter_error *err)
{
    struct qcow2_bitmap *b;
    int r = draft_open(d, c->name, &b, err);
    if (r == 0)
        b->flags = on ? b->flags | QCOW2_BITMAP_AUTO : b->flags & ~(uint32_t)QCOW2_BITMAP_AUTO;
    return r;
}

static int clear(struct draft *d, const struct bitmap_change *c, struct platter_error *err)
{
    struct qcow2_bitmap *b;
    int r = draft_open(d, c->name, &b, err);
    if (r == 0)
        qcow2_bitmap_clear(d->img, b);
    return r;
}

/* One run of the source: of this image, as it is by now, or of another one. */
static int source_run(const struct draft *d, const struct bitmap_change *c, goff off,
                      uint64_t *ret_len, bool *ret_dirty, struct platter_error *err)
{
    uint64_t size = d->img->size;
    uint32_t i = 0;
    if (c->source)
        return c->source->format->bitmaps->map(c->source, c->source_name, off, size - off, ret_len,
                                               ret_dirty, err);
    int r = draft_usable(d, c->source_name, &i, err);
    if (r == 0)
        r = qcow2_bitmap_load(d->img, d->list.items[i], err);
    if (r == 0)
        r = qcow2_bitmap_run(d->img, d->list.items[i], off, size, ret_len, ret_dirty, err);
    return r;
}

static int merge(struct draft *d, const struct bitmap_change *c, struct platter_error *err)
{
    uint64_t size = d->img->size, len = 0;
    struct qcow2_bitmap *b;
    bool dirty;

    int r = draft_open(d, c->name, &b, err);
    if (r == 0 && c->source && c->source->size != size)
        r = fail(err, EINVAL,
                 "%s: bitmap \"%s\" is of a disk of %" PRIu64 " bytes, \"%s\" of %s of %" PRIu64
                 " bytes: the sizes must be the same",
                 d->img->stream->name, c->name, size, c->source_name, c->source->stream->name,
                 (uint64_t)c->source->size);
    for (goff off = 0; r == 0 && off < size; off += len) {
        r = source_run(d, c, off, &len, &dirty, err);
        if (r == 0 && dirty)
            r = qcow2_bitmap_set(d->img, b, off, off + len, err);
    }
    return r;
}

static int apply(struct draft *d, const struct bitmap_change *c, struct platter_error *err)
{
    switch (c->action) {
    case PLATTER_BITMAP_ADD:
        return add(d, c, err);
    case PLATTER_BITMAP_REMOVE:
        return remove_one(d, c, err);
    case PLATTER_BITMAP_CLEAR:
        return clear(d, c, err);
    case PLATTER_BITMAP_ENABLE:
        return enable(d, c, true, err);
    case PLATTER_BITMAP_DISABLE:
        return enable(d, c, false, err);
    case PLATTER_BITMAP_MERGE:
        return merge(d, c, err);
    }
    return fail(err, EINVAL, "%s: unknown action %d on a bitmap", d->img->stream->name,
                (int)c->action);
}

static void mark_kept(const struct qcow2_bitmap_list *list, bool kept)
{
    for (uint32_t i = 0; i < list->n; i++)
        list->items[i]->kept = kept;
}

/* Ends a draft: one of the two lists is the image's from now on, of the other one what is not in
 * both goes. */
static void draft_end(struct draft *d, bool done)
{
    struct qcow2 *q = qcow2_of(d->img);
    struct qcow2_bitmap_list stays = done ? d->list : q->bitmaps;
    struct qcow2_bitmap_list goes = done ? q->bitmaps : d->list;

    mark_kept(&goes, false);
    mark_kept(&stays, true);
    for (uint32_t i = 0; i < goes.n; i++)
        if (!goes.items[i]->kept)
            qcow2_bitmap_free(d->img, goes.items[i]);
    budget_free(d->img->budget, goes.items, goes.room * sizeof(struct qcow2_bitmap *));
    q->bitmaps = stays;
}

static int draft_begin(struct draft *d, struct image *img, uint32_t more, struct platter_error *err)
{
    int r = qcow2_bitmaps_need(img, NULL, NULL, err);
    *d = (struct draft){.img = img};
    if (r == 0)
        r = qcow2_bitmap_list_copy(img, &qcow2_of(img)->bitmaps, more, &d->list, err);
    mark_kept(&qcow2_of(img)->bitmaps, true);
    return r;
}

int qcow2_bitmaps_change(struct image *img, const struct bitmap_change *changes, size_t n,
                         struct platter_error *err)
{
    static const char *const verbs[] = {"", "add", "remove", "clear", "enable", "disable", "merge"};
    struct draft d;

    if (qcow2_of(img)->header.version < 3)
        return fail(err, ENOTSUP, "%s: a qcow2 of version 2 cannot have bitmaps",
                    img->stream->name);
    if (n == 0)
        return 0;
    int r = draft_begin(&d, img, (uint32_t)min_u64(n, QCOW2_MAX_BITMAPS), err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n && r == 0; i++) {
        r = apply(&d, &changes[i], err);
        if (r < 0)
            fail_in(err, r, "cannot %s bitmap \"%s\"", verbs[changes[i].action], changes[i].name);
    }
    if (r == 0)
        r = qcow2_bitmaps_store(img, &d.list, err);
    draft_end(&d, r == 0);
    return r;
}

int qcow2_bitmaps_check_resize(const struct image *img, uint64_t size, struct platter_error *err)
{
    const struct qcow2_bitmap_list *list = &qcow2_of(img)->bitmaps;
    uint64_t n;

    for (uint32_t i = 0; i < list->n; i++) {
        const struct qcow2_bitmap *b = list->items[i];
        const char *why = qcow2_bitmap_problem(b);
        if (!why && !qcow2_bitmap_table_size(img, size, b->granularity_bits, &n))
            why = "it would take more than 512 MiB";
        if (why)
            return fail(err, ENOTSUP,
                        "%s: the disk cannot get another size with bitmap \"%s\", which must be "
                        "removed first: %s",
                        img->stream->name, b->name, why);
    }
    return 0;
}

int qcow2_bitmaps_resize(struct image *img, uint64_t size, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct draft d = {.img = img};

    if (q->bitmaps.n == 0 || size == img->size)
        return 0;
    int r = qcow2_bitmaps_check_resize(img, size, err);
    if (r < 0)
        return r;
    r = qcow2_bitmap_list_copy(img, &q->bitmaps, 0, &d.list, err);
    mark_kept(&q->bitmaps, true);
    pthread_mutex_unlock(&img->lock);
    for (uint32_t i = 0; r == 0 && i < d.list.n; i++) {
        r = draft_own(&d, i, err);
        if (r == 0)
            r = qcow2_bitmap_resize(img, d.list.items[i], size, err);
    }
    pthread_mutex_lock(&img->lock);
    draft_end(&d, r == 0);
    return r;
}
