/* SPDX-License-Identifier: MIT */
/* Preloaded: the clock of a program goes wrong by SKEW_SECONDS. */
#include <stdlib.h>
#include <time.h>

__attribute__((visibility("default"))) time_t time(time_t *ret)
{
    struct timespec now;
    const char *skew = getenv("SKEW_SECONDS");
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_sec += skew ? atol(skew) : 0;
    if (ret)
        *ret = now.tv_sec;
    return now.tv_sec;
}
