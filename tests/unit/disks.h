/* SPDX-License-Identifier: MIT */
/* Raw disks for tests of whole-disk work: over bytes of the test's own, and sparse ones in a file.
 */
#ifndef UNIT_DISKS_H
#define UNIT_DISKS_H

#include "disk/disk.h"

/* Byte i of the pattern that docs/digest.md gives vectors for. */
static inline uint8_t pattern_byte(uint64_t i)
{
    return (uint8_t)(i % 251);
}

/* A disk over bytes: the first `size` of the pattern, or zeros that count as data. */
struct platter_disk *pattern_disk(uint64_t size);
struct platter_disk *zero_disk(uint64_t size);

/* For these two: changes a byte behind the disk's back; lets reads from `off` on fail with EIO. */
void disk_poke(struct platter_disk *disk, uint64_t off, uint8_t byte);
void disk_spoil(struct platter_disk *disk, uint64_t off);

/* A disk over a new sparse file of `size` bytes, without a name when this returns; len bytes of
 * `bytes` stand at `off`. */
struct platter_disk *sparse_disk(uint64_t size, uint64_t off, const void *bytes, size_t len);

#endif
