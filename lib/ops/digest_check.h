/* SPDX-License-Identifier: MIT */
/*
 * Compares disks that come out of an archive in any order with digests of them. Each cluster is a
 * leaf of the tree; leaves wait until their node of 16 MiB is complete, and go: of an archive in
 * about the order of its disks that is little, whatever the size. Thread-safe but for open, finish
 * and close.
 */
#ifndef OPS_DIGEST_CHECK_H
#define OPS_DIGEST_CHECK_H

#include "format/archive.h"
#include "ops/digest_file.h"

struct digest_check;

struct digest_check_plan {
    struct digest_file *digests; /* taken, on failure as well */
    const struct archive_listing *listing;
    struct budget *budget;
    unsigned workers;
    const char *file;                                              /* for sentences */
    void (*tell)(void *opaque, const struct archive_fault *fault); /* thread-safe */
    void *opaque;
};

/* Tells at once where sizes differ, and notes disks that have no digest. */
int digest_check_open(const struct digest_check_plan *plan, struct digest_check **ret,
                      struct platter_error *err);
void digest_check_close(struct digest_check *d); /* NULL is fine */

/* Takes the runs of a batch, all of whose clusters are whole. */
int digest_check_batch(struct digest_check *d, unsigned worker, const struct archive_batch *batch,
                       struct platter_error *err);
/* Everything came: tells where a state is shorter than what its digest is of. */
int digest_check_finish(struct digest_check *d, struct platter_error *err);

#endif
