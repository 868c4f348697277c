/* SPDX-License-Identifier: MIT */
/*
 * Reading a compressed file anywhere: the pieces that were read last stay in memory, unpacked.
 * Neighbouring reads and other threads find them there. Who would wait for a piece that another
 * thread unpacks does the next one meanwhile: where a file is read front to back by several threads
 * they unpack side by side.
 */
#include "stream/unpacked.h"

#include <string.h>

#include "base/ckd.h"

enum {
    /* Parts of the budget. */
    INDEX_SHARE = 4,
    CACHE_SHARE = 4, /* of all slots, if they are more than */
    LEAST_SLOTS = 2,
    MOST_SHARE = 3 /* one of them: frames of pzstd have 8 MiB */
};

static struct unpacked *unpacked_of(struct stream *s)
{
    return (struct unpacked *)s;
}

uint64_t unpacked_most(const struct budget *budget)
{
    return budget_limit(budget) / MOST_SHARE;
}

uint64_t unpacked_most_index(const struct budget *budget)
{
    return budget_limit(budget) / INDEX_SHARE;
}

static uint64_t slot_bytes(const struct unpacked *u)
{
    return u->most_plain + u->most_packed;
}

/* ---- the pieces in memory ----------------------------------------------------------------------
 */

static struct unpacked_slot *find_slot(struct unpacked *u, hoff start)
{
    for (unsigned i = 0; i < u->n_slots; i++)
        if (u->slots[i].start == start)
            return &u->slots[i];
    return NULL;
}

/* The one that nobody uses and was used longest ago, or NULL. */
static struct unpacked_slot *oldest(struct unpacked *u, bool with_memory)
{
    struct unpacked_slot *best = NULL;
    for (unsigned i = 0; i < u->n_slots; i++) {
        struct unpacked_slot *s = &u->slots[i];
        if (s->users == 0 && (s->bytes || !with_memory) && (!best || s->used_at < best->used_at))
            best = s;
    }
    return best;
}

/* A slot for another piece. *ret is NULL where there is none now, but will be. */
static int claim(struct unpacked *u, struct unpacked_slot **ret, struct platter_error *err)
{
    struct unpacked_slot *s = oldest(u, false);
    unsigned with_memory = 0;
    *ret = s;
    if (!s || s->bytes)
        return 0;
    for (unsigned i = 0; i < u->n_slots; i++)
        with_memory += u->slots[i].bytes != NULL;
    int r = budget_alloc(u->budget, slot_bytes(u), "a part of a compressed file", &s->bytes,
                         with_memory ? NULL : err);
    if (r == 0 || with_memory == 0)
        return r;
    *ret = oldest(u, true);
    return 0;
}

/* Fills a slot; called and returns with the lock held, which is not held meanwhile. */
static int load(struct unpacked *u, struct unpacked_slot *s, const struct piece *p,
                struct platter_error *err)
{
    s->start = p->start;
    s->loading = true;
    s->users++;
    s->used_at = ++u->clock;
    pthread_mutex_unlock(&u->lock);
    int r = u->how->unpack(u, p, s->bytes, s->bytes + u->most_plain, err);
    pthread_mutex_lock(&u->lock);
    s->loading = false;
    s->users--;
    if (r < 0)
        s->start = UINT64_MAX;
    pthread_cond_broadcast(&u->changed);
    return r;
}

/* Instead of waiting for a piece: unpacks the next one, if the one before it was wanted as well and
 * there is room for it. Whether it did; what is wrong with that piece whoever wants it will see. */
static bool work_ahead(struct unpacked *u, const struct piece *now)
{
    struct piece before, next;
    struct unpacked_slot *s;
    hoff end = now->start + now->len;
    if (now->start == 0 || end >= u->size)
        return false;
    u->how->find(u, now->start - 1, &before);
    u->how->find(u, end, &next);
    if (!find_slot(u, before.start) || find_slot(u, next.start) || claim(u, &s, NULL) < 0 || !s)
        return false;
    load(u, s, &next, NULL);
    return true;
}

/* Has a piece in memory, for its user; the lock is held. */
static int take(struct unpacked *u, const struct piece *p, struct unpacked_slot **ret,
                struct platter_error *err)
{
    for (;;) {
        struct unpacked_slot *s = find_slot(u, p->start);
        int r = 0;
        if (s && !s->loading) {
            s->users++;
            s->used_at = ++u->clock;
            *ret = s;
            return 0;
        }
        bool busy = s != NULL;
        if (!busy)
            r = claim(u, &s, err);
        if (r == 0 && !busy && s)
            r = load(u, s, p, err);
        else if (r == 0 && !(busy && work_ahead(u, p)))
            pthread_cond_wait(&u->changed, &u->lock);
        if (r < 0)
            return r;
    }
}

static int read_piece(struct unpacked *u, const struct piece *p, void *buf, size_t len, hoff off,
                      struct platter_error *err)
{
    struct unpacked_slot *s = NULL;
    pthread_mutex_lock(&u->lock);
    int r = take(u, p, &s, err);
    pthread_mutex_unlock(&u->lock);
    if (r < 0)
        return r;
    memcpy(buf, s->bytes + (off - p->start), len);
    pthread_mutex_lock(&u->lock);
    if (--s->users == 0)
        pthread_cond_broadcast(&u->changed);
    pthread_mutex_unlock(&u->lock);
    return 0;
}

/* ---- the stream --------------------------------------------------------------------------------
 */

static int unpacked_pread(struct stream *s, void *buf, size_t len, hoff off,
                          struct platter_error *err)
{
    struct unpacked *u = unpacked_of(s);
    int r = 0;
    if (!range_inside(off, len, u->size))
        return stream_fail_past_end(s, off, len, u->size, err);
    for (size_t done = 0, n; r == 0 && done < len; done += n) {
        struct piece p;
        u->how->find(u, off + done, &p);
        n = (size_t)min_u64(len - done, p.start + p.len - off - done);
        r = read_piece(u, &p, (uint8_t *)buf + done, n, off + done, err);
    }
    return r;
}

static int unpacked_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    (void)err;
    *ret_size = unpacked_of(s)->size;
    return 0;
}

static void unpacked_close(struct stream *s)
{
    struct unpacked *u = unpacked_of(s);
    for (unsigned i = 0; i < UNPACKED_SLOTS; i++)
        budget_free(u->budget, u->slots[i].bytes, slot_bytes(u));
    if (u->how)
        u->how->close(u);
    pthread_cond_destroy(&u->changed);
    pthread_mutex_destroy(&u->lock);
    budget_unref(u->budget);
}

static const struct stream_ops unpacked_stream_ops = {
    .name = "compressed",
    .pread = unpacked_pread,
    .size = unpacked_size,
    .close = unpacked_close,
};

struct unpacked *unpacked_new(size_t size, struct stream *base, struct budget *budget,
                              struct platter_error *err)
{
    struct unpacked *u = stream_new(size, &unpacked_stream_ops, base->name, err);
    if (!u)
        return NULL;
    u->head.base = stream_share(base);
    u->budget = budget_ref(budget);
    pthread_mutex_init(&u->lock, NULL);
    pthread_cond_init(&u->changed, NULL);
    return u;
}

/* How many pieces stay in memory, now that their size is known. */
static void choose_slots(struct unpacked *u)
{
    uint64_t share = budget_limit(u->budget) / CACHE_SHARE, one = slot_bytes(u) + u->most_besides;
    one = max_u64(one, 1);
    u->n_slots = (unsigned)max_u64(min_u64(share / one, UNPACKED_SLOTS), LEAST_SLOTS);
    for (unsigned i = 0; i < UNPACKED_SLOTS; i++)
        u->slots[i].start = UINT64_MAX;
}

/* By the wrapper's own way; *ret is NULL where there is none. */
static int open_pieces(struct stream *base, enum wrapper w, const struct unpack_policy *policy,
                       struct budget *budget, struct unpacked **ret, struct platter_error *err)
{
    const bool query = policy->query;
    *ret = NULL;
    if (w == WRAP_ZSTD)
        return unpacked_zstd_open(base, query, budget, ret, err);
    if (w == WRAP_LZOP)
        return unpacked_lzop_open(base, query, budget, ret, err);
    if (w == WRAP_GZIP && !query)
        return unpacked_gzip_open(base, policy, budget, ret, err);
    return 0;
}

int stream_unpacked_open(struct stream *base, enum wrapper w, const struct unpack_policy *policy,
                         struct budget *budget, struct stream **ret, struct platter_error *err)
{
    struct unpacked *u = NULL;
    struct stream *through = NULL;
    int r = base->sequential ? 0 : open_pieces(base, w, policy, budget, &u, err);
    if (r == 0 && u) {
        choose_slots(u);
        *ret = &u->head;
    } else if (r == 0) {
        r = stream_unzip_open(stream_share(base), w, budget, &through, err);
        if (r == 0 && policy->query)
            *ret = through;
        else if (r == 0)
            r = stream_spool_open(through, policy, budget, ret, err);
    }
    stream_close(base);
    return r;
}
