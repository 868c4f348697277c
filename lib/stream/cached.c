/* SPDX-License-Identifier: MIT */
/* Blocks of a stream that is far away: see cached.h. */
#include "stream/cached.h"

#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "base/signals.h"
#include "stream/cached_inside.h"
#include "stream/inside.h"
#include "stream/place.h"

struct cached {
    struct stream head;
    struct stream *far; /* what is read; not head.base: what is read here stands there as it is */
    uint64_t size;
    unsigned most_fetchers;

    pthread_mutex_t lock; /* everything below */
    pthread_cond_t arrived, work;
    struct blocks blocks;
    struct streaks streaks;
    struct fetch *queue; /* to be read ahead */
    unsigned n_queued, n_fetchers, n_idle;
    bool quitting;
    pthread_t fetchers[CACHED_MOST_FETCHERS];
};

static struct cached *cached_of(struct stream *s)
{
    return (struct cached *)s;
}

/* ---- fetching ----------------------------------------------------------------------------------
 */

static void drop(struct fetch *f)
{
    if (--f->users == 0)
        free(f);
}

static size_t bytes_of(const struct cached *c, const struct fetch *f)
{
    uint64_t off = f->first * CACHED_BLOCK;
    return (size_t)min_u64((uint64_t)f->n * CACHED_BLOCK, c->size - off);
}

/* Claims the blocks from `first` on that are neither here nor on their way, up to before `end` or
 * as many as are asked for at once. NULL: not one can be had. Its only user is the caller. */
static struct fetch *claim(struct cached *c, uint64_t first, uint64_t end)
{
    struct fetch *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->first = first;
    f->users = 1;
    while (first + f->n < end && f->n < CACHED_FETCH / CACHED_BLOCK &&
           !blocks_find(&c->blocks, first + f->n) && blocks_claim(&c->blocks, first + f->n, f))
        f->n++;
    if (f->n > 0)
        return f;
    free(f);
    return NULL;
}

/* Fetches by way of `buf`, which has room for it, or of memory of its own (NULL). Called and left
 * with the lock held. */
static void run(struct cached *c, struct fetch *f, uint8_t *buf)
{
    struct platter_error error = {0};
    size_t len = bytes_of(c, f);
    pthread_mutex_unlock(&c->lock);
    auto_free uint8_t *own = buf ? NULL : malloc(len);
    buf = buf ? buf : own;
    int r = buf ? stream_pread(c->far, buf, len, f->first * CACHED_BLOCK, &error)
                : fail_memory(&error, "blocks of a source");
    /* Nobody else touches blocks that are on their way. */
    struct block *blocks[CACHED_FETCH / CACHED_BLOCK];
    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < f->n; i++)
        blocks[i] = blocks_find(&c->blocks, f->first + i);
    pthread_mutex_unlock(&c->lock);
    for (unsigned i = 0; i < f->n && r == 0; i++) {
        size_t at = (size_t)i * CACHED_BLOCK;
        memcpy(blocks[i]->bytes, buf + at, (size_t)min_u64(CACHED_BLOCK, len - at));
    }
    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < f->n; i++)
        blocks_arrived(&c->blocks, blocks[i], r == 0);
    f->done = true;
    f->result = r;
    f->error = error;
    pthread_cond_broadcast(&c->arrived);
}

/* Takes one out of the queue; with NULL, the first. */
static struct fetch *unqueue(struct cached *c, const struct fetch *wanted)
{
    struct fetch **p = &c->queue;
    while (*p && wanted && *p != wanted)
        p = &(*p)->next;
    struct fetch *f = *p;
    if (f) {
        *p = f->next;
        f->queued = false;
        c->n_queued--;
    }
    return f;
}

static void *fetcher_main(void *arg)
{
    struct cached *c = arg;
    WITH_LOCK(&c->lock);
    while (!c->quitting) {
        struct fetch *f = unqueue(c, NULL);
        if (f) {
            run(c, f, NULL);
            drop(f);
            continue;
        }
        c->n_idle++;
        pthread_cond_wait(&c->work, &c->lock);
        c->n_idle--;
    }
    return NULL;
}

/* One more thread, if all there are have something to do. Whoever waits for what is queued fetches
 * it himself, so that none is fine. */
static void need_fetcher(struct cached *c)
{
    pthread_cond_signal(&c->work);
    if (c->n_queued > c->n_idle && c->n_fetchers < c->most_fetchers &&
        thread_start(&c->fetchers[c->n_fetchers], fetcher_main, c) == 0)
        c->n_fetchers++;
}

/* Has what is missing of [from, to) read by others. */
static void read_ahead(struct cached *c, hoff from, hoff to)
{
    uint64_t end = div_up(min_u64(to, c->size), CACHED_BLOCK);
    struct fetch **last = &c->queue;
    while (*last)
        last = &(*last)->next;
    for (uint64_t b = from / CACHED_BLOCK; c->most_fetchers > 0 && b < end;) {
        struct fetch *f = blocks_find(&c->blocks, b) ? NULL : claim(c, b, end);
        b += f ? f->n : 1;
        if (!f)
            continue;
        f->queued = true;
        c->n_queued++;
        *last = f;
        last = &f->next;
        need_fetcher(c);
    }
}

/* ---- reading -----------------------------------------------------------------------------------
 */

/* Waits for blocks that are on their way; those that nobody brings yet are brought now. */
static int await(struct cached *c, struct fetch *f, struct platter_error *err)
{
    f->users++;
    if (f->queued && unqueue(c, f)) {
        run(c, f, NULL);
        f->users--; /* the queue's */
    }
    while (!f->done)
        pthread_cond_wait(&c->arrived, &c->lock);
    int r = f->result;
    if (r < 0 && err)
        *err = f->error;
    drop(f);
    return r;
}

/* Fetches what is missing from `off` on, through the reader's own buffer where that is all wanted.
 */
static int fetch_here(struct cached *c, uint8_t *buf, size_t len, hoff off,
                      struct platter_error *err)
{
    struct fetch *f = claim(c, off / CACHED_BLOCK, div_up(off + len, CACHED_BLOCK));
    if (!f) /* no memory, or all of it is on its way: past the blocks */
        return 1;
    run(c, f, off % CACHED_BLOCK == 0 && bytes_of(c, f) <= len ? buf : NULL);
    int r = f->result;
    if (r < 0 && err)
        *err = f->error;
    drop(f);
    return r;
}

static void copy_out(struct cached *c, struct block *b, uint8_t *buf, size_t len, size_t at)
{
    b->pins++;
    pthread_mutex_unlock(&c->lock);
    memcpy(buf, b->bytes + at, len);
    pthread_mutex_lock(&c->lock);
    b->pins--;
    blocks_touch(&c->blocks, b);
}

/* What of one block is wanted; the lock is held. */
static int read_block(struct cached *c, uint8_t *buf, size_t len, size_t more, hoff off,
                      struct platter_error *err)
{
    for (;;) {
        struct block *b = blocks_find(&c->blocks, off / CACHED_BLOCK);
        if (b && !b->fetch) {
            copy_out(c, b, buf, len, off % CACHED_BLOCK);
            return 0;
        }
        int r = b ? await(c, b->fetch, err) : fetch_here(c, buf, more, off, err);
        if (r < 0)
            return r;
        if (r == 1) {
            pthread_mutex_unlock(&c->lock);
            r = stream_pread(c->far, buf, len, off, err);
            pthread_mutex_lock(&c->lock);
            return r;
        }
    }
}

static int cached_pread(struct stream *s, void *buf, size_t len, hoff off,
                        struct platter_error *err)
{
    struct cached *c = cached_of(s);
    hoff from, to;
    int r = 0;
    if (!range_inside(off, len, c->size))
        return stream_fail_past_end(s, off, len, c->size, err);
    WITH_LOCK(&c->lock);
    /* What was read ahead must still be there when it is wanted. */
    c->streaks.most =
        min_u64(2ull * c->most_fetchers * CACHED_FETCH, (uint64_t)blocks_most() * CACHED_BLOCK / 2);
    if (len > CACHED_FETCH)
        read_ahead(c, off + CACHED_FETCH, off + len);
    if (streaks_note(&c->streaks, off, len, &from, &to))
        read_ahead(c, from, to);
    for (size_t n, done = 0; done < len && r == 0; done += n) {
        n = (size_t)min_u64(len - done, CACHED_BLOCK - (off + done) % CACHED_BLOCK);
        r = read_block(c, (uint8_t *)buf + done, n, len - done, off + done, err);
    }
    return r;
}

static int cached_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    (void)err;
    *ret_size = cached_of(s)->size;
    return 0;
}

static void cached_interrupt(struct stream *s)
{
    stream_interrupt(cached_of(s)->far);
}

static void cached_persist(struct stream *s)
{
    stream_persist(cached_of(s)->far);
}

static int cached_sibling(struct stream *s, const char *uri, unsigned flags, struct stream **ret,
                          struct platter_error *err)
{
    struct stream *far = cached_of(s)->far;
    return far->ops->sibling ? far->ops->sibling(far, uri, flags, ret, err)
                             : stream_open(uri, flags, ret, err);
}

static bool cached_same(const struct stream *a, const struct stream *b)
{
    return stream_same_bytes(((const struct cached *)a)->far, ((const struct cached *)b)->far);
}

static int cached_identity(struct stream *s, char **text, struct platter_error *err)
{
    return stream_identity(cached_of(s)->far, text, err);
}

static const char *cached_url(const struct stream *s)
{
    const struct stream *far = ((const struct cached *)s)->far;
    return far->ops->url ? far->ops->url(far) : NULL;
}

static void cached_close(struct stream *s)
{
    struct cached *c = cached_of(s);
    pthread_mutex_lock(&c->lock);
    c->quitting = true;
    pthread_cond_broadcast(&c->work);
    pthread_mutex_unlock(&c->lock);
    if (c->n_fetchers > 0)
        stream_interrupt(c->far);
    for (unsigned i = 0; i < c->n_fetchers; i++)
        pthread_join(c->fetchers[i], NULL);
    for (struct fetch *f; (f = unqueue(c, NULL));)
        drop(f);
    blocks_done(&c->blocks);
    stream_close(c->far);
    pthread_cond_destroy(&c->arrived);
    pthread_cond_destroy(&c->work);
    pthread_mutex_destroy(&c->lock);
}

static const struct stream_ops cached_ops = {
    .name = "cached",
    .pread = cached_pread,
    .size = cached_size,
    .interrupt = cached_interrupt,
    .persist = cached_persist,
    .sibling = cached_sibling,
    .identity = cached_identity,
    .same = cached_same,
    .url = cached_url,
    .close = cached_close,
};

int stream_cached_open(struct stream *base, unsigned fetchers, struct stream **ret,
                       struct platter_error *err)
{
    uint64_t size;
    int r = stream_size(base, &size, err);
    if (r < 0)
        return r;
    struct cached *c = stream_new(sizeof *c, &cached_ops, base->name, err);
    if (!c)
        return -ENOMEM;
    c->size = size;
    c->most_fetchers = (unsigned)min_u64(fetchers, CACHED_MOST_FETCHERS);
    blocks_begin(&c->blocks);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->arrived, NULL);
    pthread_cond_init(&c->work, NULL);
    c->head.depth = base->depth;
    c->far = base;
    *ret = &c->head;
    return 0;
}
