/* SPDX-License-Identifier: MIT */
/* Carrying the snapshots inside an image over to a new one. */
#ifndef OPS_SNAPSHOT_COPY_H
#define OPS_SNAPSHOT_COPY_H

#include "ops/copy.h"

/* Whether all snapshots of `source` can go into a new image of `format` with these options; the
 * size that image must begin with: that of the oldest. */
int snapshots_check_copy(struct platter_disk *source, const struct format *format,
                         const struct platter_convert_options *o, uint64_t *ret_size,
                         struct platter_error *err);

/* Copies all snapshots of `source` and the disk itself to `target`, which is empty. `copy` is how a
 * whole disk is copied: its sources and sink are filled in here. `no_states`: without the states of
 * machines. */
int snapshots_copy(const struct copy *copy, bool compress, bool no_states,
                   struct platter_disk *source, struct platter_disk *target, uint64_t *ret_holes,
                   struct platter_error *err);

/* Who is told of a range in which a disk differs from its newest snapshot. */
struct snapshots_differ {
    int (*fn)(void *opaque, goff off, uint64_t len, struct platter_error *err);
    void *opaque;
};

/* The same for all snapshots of `source`, which has some, but not for the disk itself: the target
 * has what the newest of them has then, and `size` bytes, at least as many as the source. `differ`
 * is told what of that is not right, in ascending order. */
int snapshots_copy_older(const struct copy *copy, struct platter_disk *source,
                         struct platter_disk *target, uint64_t size,
                         const struct snapshots_differ *differ, struct platter_error *err);

#endif
