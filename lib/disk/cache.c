/* SPDX-License-Identifier: MIT */
/*
 * The last few inflated units. A guest reads 4 KiB of a compressed 64 KiB cluster; the next read
 * wants its neighbour. Whole-unit reads do not come here.
 *
 * A slot is found by image and first guest byte. While it is filled (`loading`) others wait; while
 * it is copied from (`users`) it stays. The lock is not held over reading, inflating or copying. A
 * slot whose range was written is `stale`: whoever has it may finish (it holds the range, so it
 * came before the write), nobody finds it again.
 */
#include <string.h>

#include "base/ckd.h"
#include "disk/inside.h"

enum {
    SLOTS = 16,
    /* All slots together may take this part of the budget. */
    BUDGET_SHARE = 4
};

struct slot {
    const struct image *img; /* NULL: empty or stale */
    goff start;
    uint64_t len;
    uint8_t *bytes;
    uint64_t capacity;
    unsigned users; /* threads that read or fill it */
    bool loading;
    uint64_t used_at; /* for the choice of what to forget */
};

struct unit_cache {
    pthread_mutex_t lock;
    pthread_cond_t loaded;
    struct slot slots[SLOTS];
    struct budget *budget;
    uint64_t bytes; /* in all slots */
    uint64_t clock;
};

int unit_cache_new(struct budget *budget, struct unit_cache **ret, struct platter_error *err)
{
    struct unit_cache *c = calloc(1, sizeof *c);
    if (!c)
        return fail_memory(err, "a cache of inflated clusters");
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->loaded, NULL);
    c->budget = budget;
    *ret = c;
    return 0;
}

static void slot_empty(struct unit_cache *c, struct slot *s)
{
    budget_free(c->budget, s->bytes, s->capacity);
    c->bytes -= s->capacity;
    *s = (struct slot){0};
}

void unit_cache_free(struct unit_cache *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < SLOTS; i++)
        slot_empty(c, &c->slots[i]);
    pthread_cond_destroy(&c->loaded);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static struct slot *find(struct unit_cache *c, const struct image *img, goff start)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (c->slots[i].img == img && c->slots[i].start == start)
            return &c->slots[i];
    return NULL;
}

/* The slot nobody uses that was used longest ago, or NULL. `filled`: of those that hold memory. */
static struct slot *oldest(struct unit_cache *c, bool filled)
{
    struct slot *best = NULL;
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *s = &c->slots[i];
        if (s->users == 0 && (s->capacity > 0 || !filled) && (!best || s->used_at < best->used_at))
            best = s;
    }
    return best;
}

/* An unused slot with room for len bytes; NULL where the budget has none: the caller does without.
 */
static struct slot *claim(struct unit_cache *c, uint64_t len)
{
    uint64_t most = budget_limit(c->budget) / BUDGET_SHARE;
    struct slot *s = oldest(c, c->bytes + len > most);
    if (!s || s->capacity == len)
        return s;
    slot_empty(c, s);
    for (struct slot *o; c->bytes + len > most; slot_empty(c, o)) {
        o = oldest(c, true);
        if (!o)
            return NULL;
    }
    if (budget_alloc(c->budget, len, "inflated clusters", &s->bytes, NULL) < 0)
        return NULL;
    s->capacity = len;
    c->bytes += len;
    return s;
}

static int read_uncached(struct image *img, const struct extent *e, void *buf, size_t len, goff off,
                         struct platter_error *err)
{
    auto_free uint8_t *unit = malloc(e->unit_len);
    if (!unit)
        return fail_memory(err, "an inflated cluster");
    int r = img->format->unpack(img, e, unit, err);
    if (r == 0)
        memcpy(buf, unit + (off - e->unit_start), len);
    return r;
}

/* Fills a fresh slot; called and returns with the lock held. */
static int load(struct unit_cache *c, struct slot *s, struct image *img, const struct extent *e,
                struct platter_error *err)
{
    s->img = img;
    s->start = e->unit_start;
    s->len = e->unit_len;
    s->loading = true;
    pthread_mutex_unlock(&c->lock);
    int r = img->format->unpack(img, e, s->bytes, err);
    pthread_mutex_lock(&c->lock);
    s->loading = false;
    if (r < 0)
        s->img = NULL;
    pthread_cond_broadcast(&c->loaded);
    return r;
}

int unit_cache_read(struct unit_cache *c, struct image *img, const struct extent *e, void *buf,
                    size_t len, goff off, struct platter_error *err)
{
    pthread_mutex_lock(&c->lock);
    struct slot *s;
    while ((s = find(c, img, e->unit_start)) && s->loading)
        pthread_cond_wait(&c->loaded, &c->lock);
    bool fresh = !s;
    if (fresh)
        s = claim(c, e->unit_len);
    if (!s) {
        pthread_mutex_unlock(&c->lock);
        return read_uncached(img, e, buf, len, off, err);
    }
    s->users++;
    s->used_at = ++c->clock;
    int r = fresh ? load(c, s, img, e, err) : 0;
    if (r == 0) {
        pthread_mutex_unlock(&c->lock);
        memcpy(buf, s->bytes + (off - e->unit_start), len);
        pthread_mutex_lock(&c->lock);
    }
    s->users--;
    pthread_mutex_unlock(&c->lock);
    return r;
}

void unit_cache_drop(struct unit_cache *c, const struct image *img, goff off, uint64_t len)
{
    WITH_LOCK(&c->lock);
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *s = &c->slots[i];
        if (s->img == img && s->start < off + len && off < s->start + s->len)
            s->img = NULL;
    }
}
