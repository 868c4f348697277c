/* SPDX-License-Identifier: MIT */
/* Telling a caller how far long work has come, now and then, and learning whether he has enough. */
#ifndef BASE_TELLER_H
#define BASE_TELLER_H

#include "base/error.h"

enum { TELL_NS = 100 * 1000 * 1000 /* between two calls of a progress function, at least */ };

struct teller {
    platter_progress_fn fn; /* or NULL */
    void *opaque;
    uint64_t told_ns; /* when it was last called; 0: never */
    uint64_t moved;   /* bytes that were read or written, for who makes a rate of it */
};

/* Calls it if it is time. -ECANCELED if the answer is to stop. NULL: there is nobody to tell. */
int teller_tell(struct teller *t, uint64_t done, uint64_t total, struct platter_error *err);

#endif
