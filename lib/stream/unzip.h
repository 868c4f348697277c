/* SPDX-License-Identifier: MIT */
/*
 * What the decompressors share. Each is a function that runs on a thread of its own: it takes from
 * z->in, which another thread fills from the base, puts into z->out, which stream_read() empties,
 * and returns at the end, or why there can be none. For lib/stream only.
 */
#ifndef STREAM_UNZIP_H
#define STREAM_UNZIP_H

#include <sys/types.h>

#include "stream/ring.h"
#include "stream/wrapper.h"

#define ZSTD_FRAME     UINT32_C(0xFD2FB528) /* RFC 8878 section 3.1.1, */
#define ZSTD_SKIPPABLE UINT32_C(0x184D2A50) /* and 3.1.2: the last four bits are free */

enum { UNZIP_PIECE = 256 << 10 /* bytes that are unpacked at once: they stay in the cache */ };

struct unzip {
    struct stream head;
    hoff start; /* where base stood */
    enum wrapper wrapper;
    struct budget *budget;
    struct ring in, out;
    pthread_t reader, worker;
    bool reading, working; /* whether the threads were started */

    pthread_mutex_t child_lock; /* around both */
    pid_t child;                /* a program that must end with the stream, or 0 */
    bool stopping;              /* none is to be started any more */

    uint64_t part;        /* where the part in hand begins, in z->in; for the worker */
    atomic_bool unsummed; /* a part had no checksum */
};

/* Whether this build can unpack it: ENOTSUP says what is missing. */
int unzip_check(enum wrapper w, struct platter_error *err);

int unzip_zstd(struct unzip *z, struct platter_error *err);
int unzip_gzip(struct unzip *z, struct platter_error *err);
int unzip_bzip2(struct unzip *z, struct platter_error *err);
int unzip_xz(struct unzip *z, struct platter_error *err);
int unzip_lzop(struct unzip *z, struct platter_error *err);

/* ---- for libraries that unpack from memory to memory ------------------------------------------
 */

/* One call of a library: what it may use and fill, and what it used and filled. */
struct unzip_step {
    const uint8_t *in;
    size_t in_len, in_used;
    uint8_t *out;
    size_t out_len, out_used;
};

enum { UNZIP_PREFIX = 18 /* the longest header of a zstd frame */ };

struct unzip_ops {
    const char *part; /* what follows one another in such a file: "frame" */
    /* Before each part: 1; 0 where all that is left is padding, and was taken; or why what follows
     * is no part. The first 18 bytes, fewer at the end, are at hand. */
    int (*begin)(struct unzip *z, void *state, const uint8_t *prefix, size_t len,
                 struct platter_error *err);
    /* 1: the part has ended. */
    int (*step)(struct unzip *z, void *state, struct unzip_step *s, struct platter_error *err);
    /* After damage: passes on to where the next part may begin: 1, or 0 where there is none. */
    int (*find)(struct unzip *z, void *state, struct platter_error *err);
    /* At the end of the input, behind a part: why more should come. NULL: nothing need. */
    int (*end)(struct unzip *z, void *state, struct platter_error *err);
};

/* All parts of z->in. */
int unzip_parts(struct unzip *z, const struct unzip_ops *ops, void *state,
                struct platter_error *err);

/* Has *taken of the budget be `want` at least. */
int unzip_take(struct unzip *z, uint64_t *taken, uint64_t want, struct platter_error *err);
/* PLATTER_ECORRUPT: what is wrong where z->in stands, or behind what a step has used; s may be
 * NULL. */
int unzip_damaged(struct unzip *z, const struct unzip_step *s, const char *why,
                  struct platter_error *err);
/* The same for a part that does not end. */
int unzip_truncated(struct unzip *z, const char *part, struct platter_error *err);
/* Takes what comes up to where `is` says so of the bytes that follow, which are `n`, fewer in front
 * of the end: 1, or 0 at the end. n is UNZIP_MOST_SEEK at most. */
enum { UNZIP_MOST_SEEK = 64 };
int unzip_seek(struct unzip *z, size_t n, bool (*is)(const uint8_t *bytes, size_t len),
               struct platter_error *err);
/* The same after damage: what the damaged part itself begins with is not looked at again. */
int unzip_seek_part(struct unzip *z, size_t n, bool (*is)(const uint8_t *bytes, size_t len),
                    struct platter_error *err);
/* Takes zeros; where anything else comes, that is damage. *ret: how many there were. */
int unzip_zeros(struct unzip *z, uint64_t *ret, struct platter_error *err);

#endif
