/* SPDX-License-Identifier: MIT */
/* What cached.c (reading, fetching) shares with cached_blocks.c (which blocks are there) and
 * streaks.c (which are wanted next). All of it is under one lock, but for the bytes of blocks that
 * are pinned. */
#ifndef STREAM_CACHED_INSIDE_H
#define STREAM_CACHED_INSIDE_H

#include "stream/cached.h"

/* Blocks in a row that are on their way. */
struct fetch {
    uint64_t first;
    unsigned n;
    unsigned users; /* who waits, and who fetches: the last frees it */
    bool queued;    /* nobody fetches it yet */
    bool done;
    int result; /* done: negative, with `error`, or 0 */
    struct platter_error error;
    struct fetch *next;
};

struct block {
    uint64_t number;
    struct fetch *fetch; /* on its way; NULL: here */
    unsigned pins;       /* who copies its bytes right now */
    uint8_t *bytes;      /* NULL: it is nowhere, and waits in `free` */
    struct block *same_hash;
    struct block *older, *newer; /* of those that are here, by use */
};

struct blocks {
    struct block all[CACHED_BLOCKS];
    unsigned n;    /* of all[], ever used */
    unsigned held; /* ... that have memory */
    struct block *free;
    struct block *hash[CACHED_BLOCKS];
    struct block *oldest, *newest;
};

void blocks_begin(struct blocks *b);
/* How many there should be at most, now that so many streams share the memory. */
unsigned blocks_most(void);
struct block *blocks_find(struct blocks *b, uint64_t number);
/* One with memory, for this number, on its way by f; what was longest unused goes. NULL: none can
 * be had now. */
struct block *blocks_claim(struct blocks *b, uint64_t number, struct fetch *f);
/* It has come, or not: then nobody finds it any more. */
void blocks_arrived(struct blocks *b, struct block *block, bool fine);
/* It is used now: the last to go. */
void blocks_touch(struct blocks *b, struct block *block);
void blocks_done(struct blocks *b);

/* ---- reads in a row -------------------------------------------------------------------------- */

enum { STREAKS = 8 };

struct streak {
    hoff start, high; /* of what was read: its beginning, and how far it came */
    uint64_t bytes;   /* ... of it were asked for, */
    uint64_t touched; /* ... and so many were read, as that goes by whole blocks */
    hoff ahead;       /* read ahead up to here */
    uint64_t window;  /* ... so much in front of `high` */
    uint64_t used;    /* when, counted in reads */
};

struct streaks {
    struct streak all[STREAKS];
    uint64_t reads;
    uint64_t most; /* bytes read ahead */
};

/* Somebody reads [off, off + len). True: [*ret_from, *ret_to) should be read ahead now. */
bool streaks_note(struct streaks *s, hoff off, uint64_t len, hoff *ret_from, hoff *ret_to);

#endif
