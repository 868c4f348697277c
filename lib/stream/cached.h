/* SPDX-License-Identifier: MIT */
/*
 * Blocks of a stream that is far away, kept in memory, and read before they are wanted where reads
 * go on in a row. Every block is on its way once, however many wait for it, and neighbours come in
 * one request.
 */
#ifndef STREAM_CACHED_H
#define STREAM_CACHED_H

#include "stream/stream.h"

enum {
    CACHED_BLOCK = 64 << 10,
    CACHED_BLOCKS = 512,    /* kept: 32 MiB, */
    CACHED_ALL = 1024,      /* ... and by all streams of the process, which share it: 64 MiB, */
    CACHED_FEWEST = 32,     /* ... but for so many, which every one may have */
    CACHED_FETCH = 1 << 20, /* asked for at once */
    CACHED_MOST_FETCHERS = 32
};

/* Of a stream that is only read and does not change. `fetchers`: threads that read ahead, started
 * when they are needed; 0: none. base belongs to the new stream if that succeeds. */
int stream_cached_open(struct stream *base, unsigned fetchers, struct stream **ret,
                       struct platter_error *err);

#endif
