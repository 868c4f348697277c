/* SPDX-License-Identifier: MIT */
/* Packing one frame of zstd, or member of gzip. For lib/stream only. */
#ifndef STREAM_ZIP_H
#define STREAM_ZIP_H

#include "base/memory.h"
#include "stream/wrapper.h"

/* One thread's. To be zeroed before. */
struct packer {
    enum wrapper wrapper;
    struct budget *budget;
    void *context;
    uint64_t taken; /* of the budget */
};

/* Whether there is such a level; 0 becomes the usual one. */
int packer_check(enum wrapper w, int *level, struct platter_error *err);
/* Bytes in a frame where nobody says otherwise. */
size_t packer_frame(enum wrapper w);
/* The most that `n` bytes become. */
size_t packer_bound(enum wrapper w, size_t n);

/* `memory`: what p->taken became for another one that has packed; 0: not yet known. */
int packer_open(struct packer *p, enum wrapper w, int level, uint64_t memory, struct budget *budget,
                struct platter_error *err);
int packer_pack(struct packer *p, const void *in, size_t n, void *out, size_t cap, size_t *ret_len,
                struct platter_error *err);
void packer_close(struct packer *p);

/*
 * The table of frames behind them ("zstd seekable format", version 0.1.0): a frame that is skipped
 * by who does not know it. Where there is no memory for it, or there are too many, there is none;
 * the frames can be found without it.
 */
struct seek_table {
    struct budget *budget;
    uint8_t *entries;
    size_t n, room; /* entries */
    bool given_up;
};

void seek_table_add(struct seek_table *t, size_t packed, size_t content);
/* All of it, as it is to be written, in memory that belongs to the table; *ret_len is 0 if there is
 * none. */
void seek_table_finish(struct seek_table *t, const void **ret, size_t *ret_len);
void seek_table_free(struct seek_table *t);

#endif
