/* SPDX-License-Identifier: MIT */
/*
 * Locks on ranges of guest offsets (rule 4): any number of readers or one writer for each byte.
 * Requests are served in the order they came wherever they overlap, so nobody starves. A thread
 * must not take a range that overlaps one it holds.
 */
#ifndef BASE_RANGELOCK_H
#define BASE_RANGELOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct range_hold { /* owned by the holder, listed while held or awaited */
    uint64_t start, end;
    bool exclusive;
    struct range_hold *next, *prev;
};

struct range_lock {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct range_hold *first, *last; /* in order of arrival */
};

void range_lock_init(struct range_lock *l);
void range_lock_destroy(struct range_lock *l);
/* Waits until [start, end) is free of conflicting holds that came before. */
void range_lock_take(struct range_lock *l, struct range_hold *h, uint64_t start, uint64_t end,
                     bool exclusive);
void range_lock_give(struct range_lock *l, struct range_hold *h);

#endif
