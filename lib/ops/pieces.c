/* SPDX-License-Identifier: MIT */
/* Buffers for ops that read whole disks, under one bound whatever the disks' units. */
#include "ops/pieces.h"

#include "base/ckd.h"
#include "ops/walk.h"

enum {
    PIECE_MIN = 256 << 10, /* fewer bytes make system calls count */
    PIECE_MAX = 2 << 20,   /* the largest cluster: qcow2.md section 2 */
    PIECES_MAX = 16 << 20  /* of all workers: a quarter of the default budget of a disk */
};

static size_t piece_length(struct platter_disk *const *disks, unsigned n)
{
    uint64_t len = PIECE_MIN;
    for (unsigned d = 0; d < n; d++)
        for (unsigned i = 0; i < disks[d]->depth; i++)
            len = max_u64(len, min_u64(disks[d]->chain[i]->unit, PIECE_MAX));
    return (size_t)len;
}

int pieces_open(struct pieces *p, struct platter_disk *const *disks, unsigned n, unsigned asked,
                struct platter_error *err)
{
    size_t len = piece_length(disks, n);
    unsigned requests = 0;
    for (unsigned i = 0; i < n; i++)
        requests = disk_requests(disks[i]) > requests ? disk_requests(disks[i]) : requests;
    uint64_t room = PIECES_MAX / (len * n);
    *p = (struct pieces){.budget = disks[0]->budget, .len = len, .disks = n};
    p->workers = (unsigned)min_u64(walk_workers(asked, requests), room);
    return budget_alloc(p->budget, (uint64_t)p->workers * n * len, "buffers to read into",
                        &p->memory, err);
}

void pieces_close(struct pieces *p)
{
    budget_free(p->budget, p->memory, (uint64_t)p->workers * p->disks * p->len);
}
