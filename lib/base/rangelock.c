/* SPDX-License-Identifier: MIT */
#include "base/rangelock.h"

#include "base/memory.h"

void range_lock_init(struct range_lock *l)
{
    pthread_mutex_init(&l->mutex, NULL);
    pthread_cond_init(&l->changed, NULL);
    l->first = l->last = NULL;
}

void range_lock_destroy(struct range_lock *l)
{
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->mutex);
}

/* Whether anything that came before h stands in its way. Held under the mutex. */
static bool must_wait(const struct range_lock *l, const struct range_hold *h)
{
    for (const struct range_hold *o = l->first; o != h; o = o->next)
        if (o->start < h->end && h->start < o->end && (o->exclusive || h->exclusive))
            return true;
    return false;
}

void range_lock_take(struct range_lock *l, struct range_hold *h, uint64_t start, uint64_t end,
                     bool exclusive)
{
    *h = (struct range_hold){.start = start, .end = end, .exclusive = exclusive};
    WITH_LOCK(&l->mutex);
    h->prev = l->last;
    if (l->last)
        l->last->next = h;
    else
        l->first = h;
    l->last = h;
    while (must_wait(l, h))
        pthread_cond_wait(&l->changed, &l->mutex);
}

void range_lock_give(struct range_lock *l, struct range_hold *h)
{
    WITH_LOCK(&l->mutex);
    if (h->prev)
        h->prev->next = h->next;
    else
        l->first = h->next;
    if (h->next)
        h->next->prev = h->prev;
    else
        l->last = h->prev;
    pthread_cond_broadcast(&l->changed);
}
