/* SPDX-License-Identifier: MIT */
/*
 * An ordered writer around another one, which digests what passes: a disk is read once, and there
 * are a copy of it and its tree digest. Leaves are hashed where units are encoded, side by side.
 */
#ifndef OPS_DIGEST_TAP_H
#define OPS_DIGEST_TAP_H

#include "format/format.h"
#include "ops/digest_file.h"

/* Around w (taken, on failure as well), whose unit is a leaf. finish() leaves root and nodes in
 * *digest, which has its size, and room for the nodes. */
int digest_tap_open(struct image_writer *w, struct disk_digest *digest, struct image_writer **ret,
                    struct platter_error *err);

#endif
