/* SPDX-License-Identifier: MIT */
/*
 * For LD_PRELOAD: a thread is told a thousand times the processor time that it took. qemu-img,
 * which derives keys for one to three seconds to measure how many iterations an image is to have,
 * has then seen enough at once, and takes the fewest that there may be. The time is the exact one:
 * what the kernel tells otherwise may be of the system's alone, for which qemu-img gives up.
 */
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { TIMES = 1000, MILLION = 1000000 };

__attribute__((visibility("default"))) int getrusage(__rusage_who_t who, struct rusage *used);

int getrusage(__rusage_who_t who, struct rusage *used)
{
    int r = (int)syscall(SYS_getrusage, who, used);
    struct timespec now;
    if (r == 0 && who == RUSAGE_THREAD && clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0) {
        int64_t us = TIMES * ((int64_t)now.tv_sec * MILLION + now.tv_nsec / 1000);
        used->ru_utime = (struct timeval){.tv_sec = us / MILLION, .tv_usec = us % MILLION};
    }
    return r;
}
