/* SPDX-License-Identifier: MIT */
/*
 * Buffers for ops that read whole disks: for each worker and each disk one piece. A piece is small
 * enough to stay in the processor's cache while it is read and then worked on, and holds at least
 * one packed unit, so that each unit is inflated once, straight to where it is wanted.
 */
#ifndef OPS_PIECES_H
#define OPS_PIECES_H

#include "disk/disk.h"

struct pieces {
    struct budget *budget; /* of the first disk */
    uint8_t *memory;
    size_t len;       /* of a piece, bytes: a power of two, at least 256 KiB */
    unsigned disks;   /* pieces of a worker */
    unsigned workers; /* how many there is room for; for struct walk */
};

/* Room for as many workers as asked (0: as many as help), or fewer where pieces are large. */
int pieces_open(struct pieces *p, struct platter_disk *const *disks, unsigned n, unsigned asked,
                struct platter_error *err);
void pieces_close(struct pieces *p);

/* The piece of a worker for the disk numbered `disk`. */
static inline uint8_t *pieces_of(const struct pieces *p, unsigned worker, unsigned disk)
{
    return p->memory + ((size_t)worker * p->disks + disk) * p->len;
}

#endif
