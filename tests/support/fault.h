/* SPDX-License-Identifier: MIT */
/*
 * A stream whose calls fail when a plan says so: "call number N of these kinds fails". Set at = 1,
 * 2,
 * ... and run the same work again until plan.calls stays below at: every call has failed once then.
 */
#ifndef SUPPORT_FAULT_H
#define SUPPORT_FAULT_H

#include <stdatomic.h>

#include "stream/stream.h"

enum fault_kind {
    FAULT_PREAD = 1u << 0,
    FAULT_PWRITE = 1u << 1,
    FAULT_FLUSH = 1u << 2,
    FAULT_ZERO = 1u << 3,
    FAULT_DISCARD = 1u << 4,
    FAULT_SIZE = 1u << 5,
    FAULT_RESIZE = 1u << 6,
    FAULT_ALLOCATE = 1u << 7,
    FAULT_EXTENTS = 1u << 8,
    FAULT_COPY_FROM = 1u << 9,
    FAULT_LOCK = 1u << 10,
    FAULT_PUBLISH = 1u << 11,
    FAULT_WRITES = FAULT_PWRITE | FAULT_FLUSH | FAULT_ZERO | FAULT_DISCARD | FAULT_RESIZE |
                   FAULT_ALLOCATE | FAULT_COPY_FROM,
    FAULT_ALL = (1u << 12) - 1
};

/* A part of the disk that cannot be read. */
struct fault_range {
    hoff start, end;
    uint64_t every; /* ... and so on every so many bytes behind it; 0: just this one */
};

/* Belongs to the test; several streams may share one. */
struct fault_plan {
    unsigned kinds;                /* FAULT_*: the calls that count */
    uint64_t at;                   /* the call that fails, from 1; 0: none does */
    bool lasting;                  /* all later ones fail as well: the disk is gone, or full */
    bool torn;                     /* a pwrite that fails has written its first half */
    int code;                      /* positive: EIO, ENOSPC ... */
    const struct fault_range *bad; /* reads that touch one of these fail as well */
    unsigned n_bad;
    _Atomic uint64_t calls;  /* calls of these kinds so far */
    _Atomic uint64_t failed; /* how many of them failed */
};

/* The ways in which one call after the other is made to fail. */
struct fault_way {
    const char *name;
    unsigned kinds; /* 0: allocations */
    bool lasting, torn;
    int code;
};

enum { FAULT_WAYS = 4 };

extern const struct fault_way fault_ways[FAULT_WAYS];

static inline struct fault_plan fault_way_plan(const struct fault_way *way, uint64_t at)
{
    return (struct fault_plan){.kinds = way->kinds,
                               .at = at,
                               .lasting = way->lasting,
                               .torn = way->torn,
                               .code = way->code};
}

/* Wraps base, which is closed with the stream (and at once on failure). */
int stream_fault_open(struct stream *base, struct fault_plan *plan, struct stream **ret,
                      struct platter_error *err);

#endif
