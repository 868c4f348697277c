/* SPDX-License-Identifier: MIT */
/*
 * Compressed files that are read anywhere. What is inside is cut into pieces that are unpacked as a
 * whole; each wrapper has its own way to find and unpack them. unpacked.c has the last few in
 * memory.
 */
#ifndef STREAM_UNPACKED_H
#define STREAM_UNPACKED_H

#include <pthread.h>

#include "stream/inside.h"
#include "stream/wrapper.h"

struct unpacked;

/* A run of the unpacked bytes. */
struct piece {
    hoff start;
    uint64_t len; /* at most unpacked->most_plain */
    uint64_t number;
};

struct unpacked_ops {
    /* The piece that has the byte at `off`, which is inside of the stream. */
    void (*find)(const struct unpacked *u, hoff off, struct piece *ret);
    /* Unpacks all of it, with everything checked that can be. `packed`: most_packed bytes of room.
     * Thread-safe. */
    int (*unpack)(struct unpacked *u, const struct piece *p, uint8_t *out, uint8_t *packed,
                  struct platter_error *err);
    void (*close)(struct unpacked *u); /* takes half of everything */
};

enum {
    UNPACKED_SLOTS = 32,
    UNPACKED_QUERY = 1 << 30 /* bytes of a file that a query goes through from header to header */
};

/* A piece in memory. While it is filled (`loading`) others wait; while somebody uses it it stays.
 */
struct unpacked_slot {
    uint8_t *bytes; /* most_plain + most_packed of them */
    uint64_t start; /* of the piece; UINT64_MAX: none */
    unsigned users;
    bool loading;
    uint64_t used_at; /* for the choice of what to forget */
};

struct unpacked {
    struct stream head; /* head.base is the compressed file */
    const struct unpacked_ops *how;
    struct budget *budget;
    uint64_t size; /* of what is inside */
    uint64_t most_plain, most_packed;
    uint64_t most_besides; /* bytes of the budget that unpacking a piece takes meanwhile */
    pthread_mutex_t lock;  /* of what follows */
    pthread_cond_t changed;
    struct unpacked_slot slots[UNPACKED_SLOTS];
    unsigned n_slots;
    uint64_t clock;
};

/* The most bytes that a piece, unpacked and packed, may have: some of them must be in memory at
 * once. */
uint64_t unpacked_most(const struct budget *budget);
/* ... and that all that is known of where pieces stand may take. */
uint64_t unpacked_most_index(const struct budget *budget);

/* A stream of `size` bytes, `how` of which is not set yet. Takes base, on failure as well. */
struct unpacked *unpacked_new(size_t size, struct stream *base, struct budget *budget,
                              struct platter_error *err);

/*
 * Each wrapper's way. They do not take base unless *ret is set. *ret is NULL, and the answer 0,
 * where the file cannot be read that way: its frames are too large, or not understood.
 */
int unpacked_zstd_open(struct stream *base, bool query, struct budget *budget,
                       struct unpacked **ret, struct platter_error *err);
int unpacked_lzop_open(struct stream *base, bool query, struct budget *budget,
                       struct unpacked **ret, struct platter_error *err);
int unpacked_gzip_open(struct stream *base, const struct unpack_policy *policy,
                       struct budget *budget, struct unpacked **ret, struct platter_error *err);

/* ---- spans.c: where pieces begin that are cut by the file itself -------------------------------
 */

struct span {
    uint64_t plain, packed; /* offsets inside, and in the file */
};

/* Neighbours that are small are one, and the larger the more there are. */
struct spans {
    struct budget *budget;
    struct span *all; /* one more than there are: the last is the end */
    uint64_t n, room;
    uint64_t target; /* unpacked bytes, up to which neighbours are put together */
    uint64_t most;   /* packed and unpacked bytes of one, never more than that */
};

void spans_init(struct spans *s, struct budget *budget);
void spans_free(struct spans *s);
/* One more, behind all others, that is not empty. -E2BIG without a sentence: larger than what may
 * be, or too many of them. */
int spans_add(struct spans *s, uint64_t plain, uint64_t packed, struct platter_error *err);
/* Bytes of the file that hold nothing: they are not read again. */
int spans_skip(struct spans *s, uint64_t packed, struct platter_error *err);
/* The most bytes that one has, unpacked and packed. */
void spans_most(const struct spans *s, uint64_t *ret_plain, uint64_t *ret_packed);
/* Bytes inside, and of the file, so far. */
struct span spans_end(const struct spans *s);
void spans_find(const struct spans *s, uint64_t plain, struct piece *ret);

/* ---- looking through a file for headers ------------------------------------------------------ */

/* A file that is read here and there: what stands close together is read once. */
struct peephole {
    struct stream *s;
    uint64_t size; /* of the file */
    hoff start;
    size_t len;
    uint8_t bytes[4096];
};

int peephole_open(struct peephole *p, struct stream *s, struct platter_error *err);
/* The bytes at off, at most 512, and *ret_len of them: fewer at the end of the file only. */
int peephole_look(struct peephole *p, hoff off, size_t len, const uint8_t **ret, size_t *ret_len,
                  struct platter_error *err);

#endif
