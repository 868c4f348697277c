/* SPDX-License-Identifier: MIT */
/* The parts of amending an image (section 14). Token and lock held in all of them; they drop the
 * lock. */
#ifndef QCOW2_AMEND_H
#define QCOW2_AMEND_H

#include "format/qcow2/qcow2.h"

/* Counts of 1 << order bits, durably. */
int qcow2_amend_counts(struct image *img, uint32_t order, struct platter_error *err);
/* What version 3 wants to be there before the header says 3. */
int qcow2_amend_upgrade(struct image *img, struct platter_error *err);
/* Whether version 2 can have what is in the header and the snapshot table; with `force` bitmaps are
 * none of that. */
int qcow2_amend_check_downgrade(const struct image *img, bool force, struct platter_error *err);
/* Whether it can have what is compressed. */
int qcow2_amend_check_packed(struct image *img, struct platter_error *err);
/* Takes out what version 2 does not know, durably: all that is left is the header. */
int qcow2_amend_downgrade(struct image *img, const struct amend_request *request,
                          struct platter_error *err);

#endif
