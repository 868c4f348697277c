/* SPDX-License-Identifier: MIT */
/*
 * A qcow2 whose dirty bitmaps are added, removed, cleared, merged, and left to record what a guest
 * does, beside a model of what they must say. What is on the disk is judged by what it means: a
 * bitmap that is valid has a bit for each granule that is not what it was when the bitmap was made
 * or cleared, and is one that was stored.
 */
#ifndef SUPPORT_DIRTY_H
#define SUPPORT_DIRTY_H

#include "disk/disk.h"
#include "support/buffer.h"
#include "support/log.h"
#include "support/prng.h"

enum {
    DIRTY_SIZE = 256 << 10, /* of the disk */
    DIRTY_NAMES = 3,        /* bitmaps there may be, of different granularities */
    DIRTY_BITS = DIRTY_SIZE / 512
};

struct dirty_bitmap {
    bool there, enabled;
    bool sure; /* it has recorded all since `base` */
    uint8_t bits[DIRTY_BITS];
    uint8_t base[DIRTY_SIZE]; /* the disk when nothing was dirty */
};

struct dirty_state {
    struct dirty_bitmap of[DIRTY_NAMES];
    uint8_t content[DIRTY_SIZE];
    bool blurred;         /* the content is not known: something failed */
    size_t begun, stored; /* positions in the log, or 0: it may be on the disk, and it must be */
};

struct dirty {
    struct prng prng;
    struct platter_disk *disk;
    struct write_log *log;      /* or NULL */
    struct dirty_state now;     /* as it will be stored */
    struct dirty_state **store; /* all that were stored, in order */
    unsigned n_stored;
    bool recording; /* a guest wrote since the last store */
};

/* An empty image with clusters of that size, and room to grow. */
struct buffer dirty_image(unsigned cluster);
void dirty_init(struct dirty *d, uint64_t seed);
void dirty_free(struct dirty *d);
/* Opens and closes it; closing stores. The stream is consumed. */
int dirty_open(struct dirty *d, struct stream *s, struct platter_error *err);
int dirty_close(struct dirty *d, struct platter_error *err);
/* A random call: of a guest, or a change of the bitmaps. */
int dirty_step(struct dirty *d, struct platter_error *err);

/* Whether what is in the file, with `position` entries of the log written, may be there. */
bool dirty_allows(const struct dirty *d, struct buffer *file, size_t position, char *why,
                  size_t why_size);
/* Whether it is exactly the last state that was stored. */
bool dirty_matches(const struct dirty *d, struct buffer *file, char *why, size_t why_size);

#endif
