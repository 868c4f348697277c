/* SPDX-License-Identifier: MIT */
/* Disks that are not complete, in memory: what is there over a raw disk. */
#ifndef SUPPORT_PARTIAL_H
#define SUPPORT_PARTIAL_H

#include "disk/disk.h"
#include "format/partial.h"
#include "support/buffer.h"

/* Opens the disk whose bytes, map and source these streams are: taken, on failure as well. `map`
 * NULL: whoever opens it has none. */
int partial_disk_open(struct stream *data, struct stream *map, struct stream *below, bool writable,
                      uint64_t memory_limit, struct platter_disk **ret, struct platter_error *err);

/* The map of a disk of which nothing is there; with another unit than it would get, if not 0. */
struct buffer partial_map_new(uint64_t disk_size, uint32_t unit);
/* Makes the checksum of each sector of a map right that is not all zeros. */
void partial_map_seal(struct buffer *map);

#endif
