/* SPDX-License-Identifier: MIT */
/* Bytes on their way from one thread to another: ring.h. */
#include "stream/ring.h"

#include <string.h>

#include "base/ckd.h"

int ring_open(struct ring *r, size_t size, struct budget *budget, const char *what,
              struct platter_error *err)
{
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->more, NULL);
    pthread_cond_init(&r->less, NULL);
    r->budget = budget;
    r->size = size;
    return budget_alloc(budget, size, what, &r->bytes, err);
}

void ring_close(struct ring *r)
{
    if (!r->budget)
        return;
    budget_free(r->budget, r->bytes, r->size);
    pthread_cond_destroy(&r->less);
    pthread_cond_destroy(&r->more);
    pthread_mutex_destroy(&r->lock);
}

static size_t room_of(const struct ring *r)
{
    return r->size - (size_t)(r->put - r->taken);
}

static size_t held_by(const struct ring *r)
{
    return (size_t)(r->put - r->taken);
}

/* Bytes from a position to where the memory ends. */
static size_t row_at(const struct ring *r, uint64_t position)
{
    return r->size - (size_t)(position % r->size);
}

size_t ring_room(struct ring *r, size_t least, uint8_t **ret)
{
    WITH_LOCK(&r->lock);
    least = (size_t)min_u64(least, row_at(r, r->put));
    r->needed = least;
    while (!r->abandoned && room_of(r) < least)
        pthread_cond_wait(&r->less, &r->lock);
    r->needed = 0;
    *ret = r->bytes + r->put % r->size;
    return r->abandoned ? 0 : (size_t)min_u64(room_of(r), row_at(r, r->put));
}

void ring_put(struct ring *r, size_t n)
{
    WITH_LOCK(&r->lock);
    r->put += n;
    if (r->wanted && held_by(r) >= r->wanted)
        pthread_cond_signal(&r->more);
}

/* Held under the lock. */
static void end(struct ring *r, int result, const struct platter_error *error)
{
    r->ended = true;
    r->result = result;
    if (result < 0)
        r->error = *error;
    pthread_cond_signal(&r->more);
}

void ring_mark(struct ring *r)
{
    WITH_LOCK(&r->lock);
    unsigned at = r->n_marks < RING_MARKS ? r->n_marks++ : RING_MARKS - 1;
    r->marks[at] = r->put;
}

void ring_end(struct ring *r, int result, const struct platter_error *error)
{
    WITH_LOCK(&r->lock);
    end(r, result, error);
}

bool ring_pause(struct ring *r, int result, const struct platter_error *error)
{
    WITH_LOCK(&r->lock);
    end(r, result, error);
    r->paused = true;
    while (r->paused && !r->abandoned)
        pthread_cond_wait(&r->less, &r->lock);
    return !r->abandoned;
}

bool ring_resume(struct ring *r)
{
    WITH_LOCK(&r->lock);
    if (!r->paused || r->abandoned)
        return false;
    r->paused = r->ended = false;
    r->result = 0;
    pthread_cond_broadcast(&r->less);
    return true;
}

/* Comes back when `least` bytes are there, or all that will be. Held under the lock. */
static int wait_for(struct ring *r, size_t least, struct platter_error *err)
{
    r->wanted = least;
    while (!r->abandoned && !r->ended && held_by(r) < least)
        pthread_cond_wait(&r->more, &r->lock);
    r->wanted = 0;
    return r->abandoned ? fail(err, ECANCELED, "cancelled") : 0;
}

/* What the end means. Held under the lock. */
static int at_end(const struct ring *r, struct platter_error *err)
{
    if (r->result < 0 && err)
        *err = r->error;
    return r->result;
}

int ring_bytes(struct ring *r, size_t least, const uint8_t **ret, size_t *ret_len,
               struct platter_error *err)
{
    WITH_LOCK(&r->lock);
    *ret_len = 0;
    int result = wait_for(r, least, err);
    if (result < 0)
        return result;
    *ret = r->bytes + r->taken % r->size;
    *ret_len = (size_t)min_u64(held_by(r), row_at(r, r->taken));
    return *ret_len ? 0 : at_end(r, err);
}

void ring_take(struct ring *r, size_t n)
{
    WITH_LOCK(&r->lock);
    r->taken += n;
    if (r->needed && room_of(r) >= r->needed)
        pthread_cond_signal(&r->less);
}

int ring_peek(struct ring *r, void *buf, size_t n, size_t *ret_len, struct platter_error *err)
{
    WITH_LOCK(&r->lock);
    *ret_len = 0;
    int result = wait_for(r, n, err);
    if (result < 0)
        return result;
    size_t len = (size_t)min_u64(n, held_by(r));
    size_t first = (size_t)min_u64(len, row_at(r, r->taken));
    if (len == 0)
        return at_end(r, err);
    memcpy(buf, r->bytes + r->taken % r->size, first);
    memcpy((uint8_t *)buf + first, r->bytes, len - first);
    *ret_len = len;
    return 0;
}

int ring_read(struct ring *r, void *buf, size_t n, size_t *ret_len, struct platter_error *err)
{
    const uint8_t *bytes;
    size_t len = 1;
    int result = 0;

    for (*ret_len = 0; result == 0 && len && *ret_len < n; *ret_len += len) {
        result = ring_bytes(r, (size_t)min_u64(n - *ret_len, r->size / 4), &bytes, &len, err);
        len = (size_t)min_u64(len, n - *ret_len);
        if (len) {
            memcpy((uint8_t *)buf + *ret_len, bytes, len);
            ring_take(r, len);
        }
    }
    return result;
}

uint64_t ring_passed(struct ring *r)
{
    WITH_LOCK(&r->lock);
    unsigned n = 0;
    while (n < r->n_marks && r->marks[n] <= r->taken)
        r->passed = r->marks[n++];
    r->n_marks -= n;
    memmove(r->marks, r->marks + n, r->n_marks * sizeof *r->marks);
    return r->passed;
}

uint64_t ring_position(struct ring *r)
{
    WITH_LOCK(&r->lock);
    return r->taken;
}

void ring_abandon(struct ring *r)
{
    WITH_LOCK(&r->lock);
    r->abandoned = true;
    pthread_cond_broadcast(&r->more);
    pthread_cond_broadcast(&r->less);
}
