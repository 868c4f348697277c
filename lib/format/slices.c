/* SPDX-License-Identifier: MIT */
/*
 * A cache of tables in slices of up to 64 KiB, as they stand in the file. Memory follows what was
 * read and is bounded by a share of the budget; slots are reused in the order of a clock.
 *
 * - A slot that is loading is found by others, who wait for `changed` and then look again.
 * - Dirty slots are never reused. Writers flush before more than three quarters are dirty
 *   (slices_full()), so that a reader always finds a slot, at once or when a load ends.
 * - Only the token's holder makes bytes dirty, and nobody changes them while they are written.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/tables.h"

enum { MIN_SLOTS = 16 };

static struct slice *slot_at(const struct slices *c, uint32_t i)
{
    return &c->chunks[i / SLICES_CHUNK][i % SLICES_CHUNK];
}

void slices_free(struct image *img, struct slices *c)
{
    for (uint32_t i = 0; i < c->n; i++)
        budget_free(img->budget, slot_at(c, i)->bytes, c->slice);
    for (uint32_t i = 0; i < SLICES_MOST / SLICES_CHUNK; i++)
        budget_free(img->budget, c->chunks[i], SLICES_CHUNK * sizeof *c->chunks[i]);
    budget_free(img->budget, c->buckets, c->n_buckets * sizeof(struct slice *));
    *c = (struct slices){0};
}

static struct slice **bucket_of(struct slices *c, hoff off)
{
    uint64_t hash = off / c->slice * UINT64_C(0x9E3779B97F4A7C15);
    return &c->buckets[hash >> 32 & (c->n_buckets - 1)];
}

static struct slice *slot_find(struct slices *c, hoff off)
{
    struct slice *s = *bucket_of(c, off);
    while (s && s->off != off)
        s = s->next;
    return s;
}

static void slot_insert(struct slices *c, struct slice *s, hoff off)
{
    struct slice **bucket = bucket_of(c, off);
    s->off = off;
    s->next = *bucket;
    *bucket = s;
}

static void slot_remove(struct slices *c, struct slice *s)
{
    struct slice **link = bucket_of(c, s->off);
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    s->off = 0;
}

/* Gives a cache new and empty buckets, and finds all slots a place in them. */
static int buckets_grow(struct image *img, struct slices *c, uint32_t n, struct platter_error *err)
{
    struct slice **buckets;
    int r = budget_alloc(img->budget, n * sizeof *buckets, c->what, &buckets, err);
    if (r < 0)
        return r;
    budget_free(img->budget, c->buckets, c->n_buckets * sizeof *buckets);
    c->buckets = buckets;
    c->n_buckets = n;
    for (uint32_t i = 0; i < c->n; i++)
        if (slot_at(c, i)->off)
            slot_insert(c, slot_at(c, i), slot_at(c, i)->off);
    return 0;
}

static int chunk_grow(struct image *img, struct slices *c, struct platter_error *err)
{
    struct slice **chunk = &c->chunks[c->n / SLICES_CHUNK];
    int r = c->n < c->n_buckets ? 0 : buckets_grow(img, c, c->n_buckets * 2, err);
    if (r == 0 && !*chunk)
        r = budget_alloc(img->budget, SLICES_CHUNK * sizeof **chunk, c->what, chunk, err);
    return r;
}

/* A slot with new memory; NULL where there is none to have. */
static struct slice *slot_grow(struct image *img, struct slices *c, struct platter_error *err)
{
    if (c->n == c->max)
        return NULL;
    int r = c->n % SLICES_CHUNK ? 0 : chunk_grow(img, c, err);
    if (r == 0)
        r = budget_alloc_buffer(img->budget, c->slice, c->what, &slot_at(c, c->n)->bytes, err);
    if (r == 0)
        return slot_at(c, c->n++);
    if (c->n)
        c->max = c->n; /* others need the budget: live with what there is */
    return NULL;
}

int slices_init(struct image *img, struct slices *c, pthread_cond_t *changed, const char *what,
                uint64_t table, uint64_t share, struct platter_error *err)
{
    c->changed = changed;
    c->what = what;
    c->table = table;
    c->slice = (uint32_t)min_u64(c->table, SLICE_MAX);
    c->max = (uint32_t)min_u64(max_u64(share / c->slice, MIN_SLOTS), SLICES_MOST);
    int r = buckets_grow(img, c, SLICES_CHUNK, err);
    /* What a writer needs at once must not depend on what is left later. */
    while (r == 0 && img->writable && c->n < MIN_SLOTS)
        r = slot_grow(img, c, err) ? 0 : -ENOMEM;
    return r;
}

/* A slot that may be filled anew, in no bucket. NULL: everything is dirty or loading. */
static struct slice *slot_reuse(struct slices *c)
{
    for (uint32_t i = 0; i < 2 * c->n; i++) {
        struct slice *s = slot_at(c, c->hand);
        c->hand = c->hand + 1 < c->n ? c->hand + 1 : 0;
        if (s->dirty || s->loading)
            continue;
        if (s->off && s->used) {
            s->used = false;
            continue;
        }
        if (s->off)
            slot_remove(c, s);
        return s;
    }
    return NULL;
}

/* A free slot, or NULL after a wait in which the world may have changed. Fails where there is no
 * memory for a single slot. */
static int slot_take(struct image *img, struct slices *c, struct slice **ret,
                     struct platter_error *err)
{
    *ret = slot_grow(img, c, err);
    if (!*ret && c->n == 0)
        return -ENOMEM;
    if (!*ret)
        *ret = slot_reuse(c);
    if (!*ret)
        pthread_cond_wait(c->changed, &img->lock);
    return 0;
}

static int slot_load(struct image *img, struct slices *c, struct slice *s,
                     struct platter_error *err)
{
    s->loading = true;
    pthread_mutex_unlock(&img->lock);
    int r = stream_pread(img->stream, s->bytes, c->slice, s->off, err);
    pthread_mutex_lock(&img->lock);
    s->loading = false;
    pthread_cond_broadcast(c->changed);
    if (r < 0) {
        r = fail_in(err, r, "%s at %" PRIu64, c->what, s->off);
        slot_remove(c, s);
    }
    return r;
}

int slices_get(struct image *img, struct slices *c, hoff off, struct slice **ret,
               struct platter_error *err)
{
    for (;;) {
        struct slice *s = slot_find(c, off);
        if (s && s->loading) {
            pthread_cond_wait(c->changed, &img->lock);
            continue;
        }
        if (!s) {
            int r = slot_take(img, c, &s, err);
            if (r < 0)
                return r;
            if (!s)
                continue;
            slot_insert(c, s, off);
            r = slot_load(img, c, s, err);
            if (r < 0)
                return r;
        }
        s->used = true;
        *ret = s;
        return 0;
    }
}

int slices_new(struct image *img, struct slices *c, hoff off, struct platter_error *err)
{
    uint64_t table = c->table;
    struct slice *s = NULL;

    if (table > c->slice) {
        pthread_mutex_unlock(&img->lock);
        int r = stream_zero(img->stream, off, table, 0, err);
        pthread_mutex_lock(&img->lock);
        slices_forget(img, c, off);
        return r < 0 ? image_poison(img, r) : 0;
    }
    while (!s) {
        slices_forget(img, c, off);
        int r = slot_take(img, c, &s, err);
        if (r < 0)
            return r;
    }
    memset(s->bytes, 0, c->slice);
    slot_insert(c, s, off);
    s->used = true;
    slices_dirty(c, s);
    return 0;
}

void slices_dirty(struct slices *c, struct slice *slot)
{
    c->n_dirty += !slot->dirty;
    slot->dirty = true;
}

void slices_forget(struct image *img, struct slices *c, hoff off)
{
    for (hoff end = off + c->table; off < end; off += c->slice) {
        struct slice *s = slot_find(c, off);
        while (s && s->loading) { /* by a reader that came before the table moved away */
            pthread_cond_wait(c->changed, &img->lock);
            s = slot_find(c, off);
        }
        if (!s)
            continue;
        c->n_dirty -= s->dirty;
        s->dirty = false;
        slot_remove(c, s);
    }
}

int slices_write(struct image *img, struct slices *c, struct platter_error *err)
{
    for (uint32_t i = 0; c->n_dirty && i < c->n; i++) {
        struct slice *s = slot_at(c, i);
        if (!s->dirty)
            continue;
        int r = image_meta_write(img, s->bytes, c->slice, s->off, err);
        if (r < 0)
            return r;
        s->dirty = false;
        c->n_dirty--;
    }
    pthread_cond_broadcast(c->changed);
    return 0;
}

bool slices_full(const struct slices *c)
{
    return c->n_dirty >= c->max / 4 * 3;
}
