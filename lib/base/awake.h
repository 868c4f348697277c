/* SPDX-License-Identifier: MIT */
/*
 * Waiting that begins awake. What threads of a copy wait for is mostly done in less time than it
 * takes to sleep and be woken again, above all in a virtual machine.
 */
#ifndef BASE_AWAKE_H
#define BASE_AWAKE_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum { AWAKE_NS = 200 * 1000 };

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Gives the processor to whoever wants it and returns true: look again. False when it is time to
 * sleep. *until is 0 at the first call. */
static inline bool stay_awake(uint64_t *until)
{
    uint64_t now = now_ns();
    if (*until == 0)
        *until = now + AWAKE_NS;
    if (now >= *until)
        return false;
    sched_yield();
    return true;
}

#endif
