/* SPDX-License-Identifier: MIT */
/* All bitmaps of an image: kept right while it changes, listed, and changed themselves. */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/qcow2/bitmap.h"

/* ---- the list ----------------------------------------------------------------------------------
 */

void qcow2_bitmap_list_free(struct image *img, struct qcow2_bitmap_list *list)
{
    for (uint32_t i = 0; i < list->n; i++)
        qcow2_bitmap_free(img, list->items[i]);
    budget_free(img->budget, list->items, list->room * sizeof(struct qcow2_bitmap *));
    *list = (struct qcow2_bitmap_list){0};
}

int qcow2_bitmap_list_copy(struct image *img, const struct qcow2_bitmap_list *list, uint32_t more,
                           struct qcow2_bitmap_list *ret, struct platter_error *err)
{
    *ret = (struct qcow2_bitmap_list){.n = list->n, .room = list->n + more};
    int r = budget_alloc(img->budget, ret->room * sizeof(struct qcow2_bitmap *),
                         "the list of bitmaps", &ret->items, err);
    if (r == 0 && list->n)
        memcpy(ret->items, list->items, list->n * sizeof(struct qcow2_bitmap *));
    return r;
}

struct qcow2_bitmap *qcow2_bitmap_find(const struct qcow2_bitmap_list *list, const char *name)
{
    for (uint32_t i = 0; i < list->n; i++)
        if (strcmp(list->items[i]->name, name) == 0)
            return list->items[i];
    return NULL;
}

const char *qcow2_bitmap_problem(const struct qcow2_bitmap *b)
{
    return b->why ? b->why : atomic_load(&b->lost) ? "it does not know all changes" : NULL;
}

/* ---- loading -----------------------------------------------------------------------------------
 */

static int by_name(const void *a, const void *b)
{
    const struct qcow2_bitmap *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Two of one name cannot be told apart: neither is used. */
static int mark_doubles(struct image *img, const struct qcow2_bitmap_list *list,
                        struct platter_error *err)
{
    struct qcow2_bitmap_list sorted;
    int r = qcow2_bitmap_list_copy(img, list, 0, &sorted, err);
    if (r == 0 && sorted.n)
        qsort(sorted.items, sorted.n, sizeof(struct qcow2_bitmap *), by_name);
    for (uint32_t i = 1; r == 0 && i < sorted.n; i++)
        if (by_name(&sorted.items[i - 1], &sorted.items[i]) == 0)
            sorted.items[i - 1]->why = sorted.items[i]->why = "another one has the same name";
    budget_free(img->budget, sorted.items, sorted.room * sizeof(struct qcow2_bitmap *));
    return r;
}

static int decode_all(struct image *img, const uint8_t *bytes, struct qcow2_bitmap_list *list,
                      struct platter_error *err)
{
    const struct qcow2_extensions *x = &qcow2_of(img)->extensions;
    struct reader r = reader_over(bytes, x->bitmap_directory_size);
    struct qcow2_bitmap_entry e;

    for (uint32_t i = 0; i < x->n_bitmaps; i++) {
        size_t at = r.pos;
        if (!qcow2_bitmap_entry_decode(&r, &e))
            return fail(err, PLATTER_ECORRUPT,
                        "%s: entry %" PRIu32 " of the bitmap directory, at %" PRIu64
                        ", reaches past its end, or has no name of 1 to 1023 bytes",
                        img->stream->name, i, x->bitmap_directory + at);
        int result = qcow2_bitmap_from(img, &e, &list->items[i], err);
        if (result < 0)
            return result;
        list->n = i + 1;
        list->items[i]->why = qcow2_bitmap_entry_problem(img, &e, img->size);
        list->items[i]->flags_at = x->bitmap_directory + at + QCOW2_BITMAP_FLAGS_AT;
    }
    if (r.pos != x->bitmap_directory_size)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the bitmap directory has %" PRIu64 " bytes, but its entries take %zu",
                    img->stream->name, x->bitmap_directory_size, r.pos);
    return mark_doubles(img, list, err);
}

static bool are_valid(const struct image *img)
{
    const struct qcow2 *q = qcow2_of(img);
    return q->extensions.has_bitmaps && !img->view && q->header.autoclear & QCOW2_AUTOCLEAR_BITMAPS;
}

int qcow2_bitmaps_load(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    const struct qcow2_bitmap_list none = {0};
    struct qcow2_bitmap_list list = {0};
    uint8_t *bytes = NULL;

    if (q->bitmaps_loaded || !are_valid(img))
        return 0;
    int r = qcow2_bitmap_directory_read(img, &bytes, err);
    if (r == 0)
        r = qcow2_bitmap_list_copy(img, &none, q->extensions.n_bitmaps, &list, err);
    if (r == 0)
        r = decode_all(img, bytes, &list, err);
    budget_free(img->budget, bytes, q->extensions.bitmap_directory_size);
    if (r < 0) {
        qcow2_bitmap_list_free(img, &list);
        return r;
    }
    q->bitmaps = list;
    q->bitmaps_loaded = true;
    return 0;
}

static bool is_recording(const struct qcow2_bitmap *b)
{
    return b->flags & QCOW2_BITMAP_AUTO && !qcow2_bitmap_problem(b);
}

/* Says of each bitmap that will not survive a change of the disk why that is. */
static int doubt_unusable(struct image *img, struct platter_error *err)
{
    const struct qcow2_bitmap_list *list = &qcow2_of(img)->bitmaps;
    struct platter_error why;
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < list->n; i++) {
        struct qcow2_bitmap *b = list->items[i];
        if (is_recording(b) && qcow2_bitmap_load(img, b, &why) < 0) {
            b->why = "its table cannot be read";
            r = image_doubt(img, err, "%s, and is not kept right", why.message);
        } else if (b->why && !(b->flags & QCOW2_BITMAP_IN_USE)) {
            r = image_doubt(img, err,
                            "%s: bitmap \"%s\" becomes invalid by the first change of the disk: %s",
                            img->stream->name, b->name, b->why);
        }
    }
    return r;
}

int qcow2_bitmaps_open(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    struct platter_error why;

    if (!are_valid(img))
        return 0;
    if (qcow2_bitmaps_load(img, &why) < 0) {
        atomic_store(&q->bitmaps_state, QCOW2_BITMAPS_DAMAGED);
        return image_doubt(img, err,
                           "%s: the bitmaps become invalid by the first change of the "
                           "disk",
                           why.message);
    }
    atomic_store(&q->bitmaps_state, QCOW2_BITMAPS_STORED);
    return doubt_unusable(img, err);
}

uint64_t qcow2_bitmaps_feature(const struct image *img)
{
    const struct qcow2 *q = qcow2_of(img);
    /* A repair sees to them itself. */
    bool kept = img->checking ? q->extensions.has_bitmaps
                              : atomic_load(&q->bitmaps_state) >= QCOW2_BITMAPS_STORED;
    return kept ? QCOW2_AUTOCLEAR_BITMAPS : 0;
}

/* ---- recording ---------------------------------------------------------------------------------
 */

/* The flags of all bitmaps where they stand: each is written at once, so that a crash leaves it
 * marked or not, and nothing else changes. Lock held; drops it. */
static int write_flags(struct image *img, bool in_use, struct platter_error *err)
{
    const struct qcow2_bitmap_list *list = &qcow2_of(img)->bitmaps;
    uint8_t field[4];
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < list->n; i++) {
        const struct qcow2_bitmap *b = list->items[i];
        if (b->flags & QCOW2_BITMAP_IN_USE || atomic_load(&b->lost))
            continue;
        put_be(field, 4, b->flags | (in_use ? QCOW2_BITMAP_IN_USE : 0));
        r = image_meta_write(img, field, sizeof field, b->flags_at, err);
    }
    return r < 0 ? r : qcow2_barrier(img, err);
}

int qcow2_bitmaps_begin(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);

    if (atomic_load(&q->bitmaps_state) != QCOW2_BITMAPS_STORED)
        return 0;
    int r = write_flags(img, true, err);
    if (r < 0)
        return r;
    /* What cannot be used is not kept right: it stays marked. */
    for (uint32_t i = 0; i < q->bitmaps.n; i++)
        if (q->bitmaps.items[i]->why)
            q->bitmaps.items[i]->flags |= QCOW2_BITMAP_IN_USE;
    atomic_store(&q->bitmaps_state, QCOW2_BITMAPS_RECORDING);
    return 0;
}

static void lose(struct image *img, struct qcow2_bitmap *b, const struct platter_error *why)
{
    struct qcow2 *q = qcow2_of(img);
    WITH_LOCK(&img->lock);
    if (!q->bitmap_lost)
        q->bitmap_lost = string_copy(why->message);
    atomic_store(&b->lost, true);
}

/* Sets the bits of [off, end) in those that record. What they cannot be told makes them invalid,
 * but no write fails for it. */
static void record(struct image *img, goff off, goff end)
{
    const struct qcow2_bitmap_list *list = &qcow2_of(img)->bitmaps;
    struct platter_error why = {0};

    for (uint32_t i = 0; i < list->n; i++)
        if (is_recording(list->items[i]) &&
            qcow2_bitmap_set(img, list->items[i], off, end, &why) < 0)
            lose(img, list->items[i], &why);
}

int qcow2_touch(struct image *img, goff off, uint64_t len, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    int state = atomic_load(&q->bitmaps_state);

    if (state == QCOW2_BITMAPS_NONE || state == QCOW2_BITMAPS_DAMAGED || img->same_content)
        return 0;
    if (state == QCOW2_BITMAPS_STORED) {
        int r = qcow2_enter(img, err);
        if (r < 0)
            return r;
        qcow2_leave(img);
    }
    record(img, off, off + len);
    return 0;
}

void qcow2_bitmaps_all_dirty(struct image *img)
{
    pthread_mutex_unlock(&img->lock);
    record(img, 0, UINT64_MAX);
    pthread_mutex_lock(&img->lock);
}

/* ---- closing -----------------------------------------------------------------------------------
 */

static int flags_back(struct image *img, struct platter_error *err)
{
    int r = qcow2_enter(img, err);
    if (r < 0)
        return r;
    r = qcow2_flush_locked(img, err);
    if (r == 0)
        r = qcow2_barrier(img, err);
    if (r == 0)
        r = write_flags(img, false, err);
    qcow2_leave(img);
    return r;
}

int qcow2_bitmaps_close(struct image *img, struct platter_error *err)
{
    struct qcow2 *q = qcow2_of(img);
    bool changed = false;

    if (atomic_load(&q->bitmaps_state) != QCOW2_BITMAPS_RECORDING || atomic_load(&img->poison))
        return 0;
    for (uint32_t i = 0; i < q->bitmaps.n; i++)
        changed |= atomic_load(&q->bitmaps.items[i]->changed);
    int r = changed ? qcow2_bitmaps_store(img, &q->bitmaps, err) : flags_back(img, err);
    if (r < 0)
        return fail_in(err, r, "the disk is written, but its bitmaps are not, and stay invalid");
    if (q->bitmap_lost)
        return fail(err, ENODATA,
                    "%s: the disk is written, but not every bitmap knows what changed, and such "
                    "became invalid: %s",
                    img->stream->name, q->bitmap_lost);
    return 0;
}

void qcow2_bitmaps_free(struct image *img)
{
    qcow2_bitmap_list_free(img, &qcow2_of(img)->bitmaps);
    free(qcow2_of(img)->bitmap_lost);
}

/* ---- looking at them ---------------------------------------------------------------------------
 */

int qcow2_bitmaps_need(struct image *img, const char *name, struct qcow2_bitmap **ret,
                       struct platter_error *err)
{
    qcow2_token_take(img);
    pthread_mutex_unlock(&img->lock);
    int r = qcow2_bitmaps_load(img, err);
    if (r == 0 && name) {
        *ret = qcow2_bitmap_find(&qcow2_of(img)->bitmaps, name);
        if (!*ret)
            r = fail(err, ENOENT, "%s: there is no bitmap \"%s\"", img->stream->name, name);
        else if (qcow2_bitmap_problem(*ret))
            r = fail(err, EINVAL, "%s: bitmap \"%s\" cannot be used, and only be removed: %s",
                     img->stream->name, name, qcow2_bitmap_problem(*ret));
        else
            r = qcow2_bitmap_load(img, *ret, err);
    }
    pthread_mutex_lock(&img->lock);
    qcow2_leave(img);
    return r;
}

static int bitmaps_list(struct image *img, struct bitmap_info **ret, size_t *ret_n,
                        struct platter_error *err)
{
    const struct qcow2_bitmap_list *list = &qcow2_of(img)->bitmaps;
    int r = qcow2_bitmaps_need(img, NULL, NULL, err);
    if (r < 0)
        return r;
    *ret = calloc(list->n + (size_t)1, sizeof **ret);
    if (!*ret)
        return fail_memory(err, "the list of bitmaps");
    *ret_n = list->n;
    for (uint32_t i = 0; i < list->n; i++) {
        const struct qcow2_bitmap *b = list->items[i];
        (*ret)[i] = (struct bitmap_info){.name = b->name,
                                         .granularity = UINT64_C(1) << (b->granularity_bits & 63),
                                         .enabled = b->flags & QCOW2_BITMAP_AUTO,
                                         .in_use = b->flags & QCOW2_BITMAP_IN_USE,
                                         .problem = qcow2_bitmap_problem(b)};
    }
    return 0;
}

static int bitmaps_map(struct image *img, const char *name, goff off, uint64_t len,
                       uint64_t *ret_len, bool *ret_dirty, struct platter_error *err)
{
    struct qcow2_bitmap *b = NULL;
    int r = qcow2_bitmaps_need(img, name, &b, err);
    return r < 0 ? r : qcow2_bitmap_run(img, b, off, off + len, ret_len, ret_dirty, err);
}

/* Bytes that all of them would take in an image with clusters of this size (section 15). */
static int bitmaps_measure(struct image *img, uint32_t cluster, uint64_t *ret,
                           struct platter_error *err)
{
    const struct qcow2_bitmap_list *list = &qcow2_of(img)->bitmaps;
    uint64_t directory = 0;

    *ret = 0;
    if (qcow2_of(img)->header.version < 3)
        return -ENOTSUP;
    int r = qcow2_bitmaps_need(img, NULL, NULL, err);
    for (uint32_t i = 0; r == 0 && i < list->n; i++) {
        const struct qcow2_bitmap *b = list->items[i];
        if (b->why)
            continue;
        uint64_t bytes = div_up(div_up(img->size, UINT64_C(1) << b->granularity_bits), 8);
        uint64_t clusters = div_up(bytes, cluster);
        *ret += clusters * cluster + round_up(clusters * 8, cluster);
        directory += round_up(QCOW2_BITMAP_ENTRY + strlen(b->name), 8);
    }
    *ret += round_up(directory, cluster);
    return r;
}

static bool bitmaps_possible(const struct option_values *options)
{
    return options_enum(options, "compat") % 2; /* 0.10, 1.1, v2, v3 */
}

json_t *qcow2_bitmaps_info(struct image *img)
{
    const struct qcow2_bitmap_list *all = &qcow2_of(img)->bitmaps;
    if (qcow2_bitmaps_need(img, NULL, NULL, NULL) < 0 || all->n == 0)
        return NULL;
    json_t *list = json_array();
    for (uint32_t i = 0; i < all->n; i++) {
        const struct qcow2_bitmap *b = all->items[i];
        json_t *flags = json_array();
        if (b->flags & QCOW2_BITMAP_IN_USE)
            json_array_append_new(flags, json_string("in-use"));
        if (b->flags & QCOW2_BITMAP_AUTO)
            json_array_append_new(flags, json_string("auto"));
        json_array_append_new(list,
                              json_pack("{s:o, s:o, s:I}", "flags", flags, "name",
                                        json_name(b->name), "granularity",
                                        (json_int_t)(UINT64_C(1) << (b->granularity_bits & 63))));
    }
    return list;
}

const struct bitmap_ops qcow2_bitmap_ops = {.touch = qcow2_touch,
                                            .list = bitmaps_list,
                                            .map = bitmaps_map,
                                            .measure = bitmaps_measure,
                                            .possible = bitmaps_possible,
                                            .change = qcow2_bitmaps_change};
