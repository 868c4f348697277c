/* SPDX-License-Identifier: MIT */
/*
 * partial: a raw disk that is not complete yet. Beside the disk stands a map of presence, which
 * tells unit by unit what the disk has; for the rest an image shows what is below it. For the
 * target of a live migration; nobody opens it by content or by name.
 *
 * The map is a stream of its own (at most a part of a file or of an image of Ceph), in sectors of
 * 512 bytes, which a power cut writes or does not:
 *
 *     sector 0      "PLATTER PRESENCE", then in little endian: version 1 (4), unit in bytes (4),
 *                   size of the disk (8); zeros; in the last 4 bytes the CRC-32 of the rest
 *     sector 1 ...  508 bytes with one bit for each unit, the lowest first; 4 bytes CRC-32 of them.
 *                   All 512 bytes zero: none is there
 *
 * A bit is written when the unit is durable in the disk, and never taken back. A sector that is
 * damaged is an error: what it said could be a write of a guest.
 */
#ifndef FORMAT_PARTIAL_H
#define FORMAT_PARTIAL_H

#include "format/format.h"

/* Asks image->opener for the stream of the map, by this name, as a data file; it is the image's
 * from then on, and the first of format->file(). */
#define PARTIAL_PRESENCE "presence"

/*
 * Not in formats[]: whoever puts a disk together gives it. Its name is "raw", no_backing is false,
 * and img->has_backing is true until partial_complete(). The size of the disk is that of the map;
 * its stream may be longer, and is never made so. A flush that fails in any part poisons the image.
 */
extern const struct format format_partial;

/* Bytes of the map of a disk. Its unit is 64 KiB, and more for disks of more than 8 TiB. */
uint64_t partial_map_size(uint64_t disk_size);
/* Writes the map of a disk that has nothing so far, durably; the stream reads as zeros, and is made
 * longer if it is too short. EFBIG: the disk is too large for one (8 PiB). */
int partial_create(struct stream *presence, uint64_t disk_size, struct platter_error *err);
/* All that is not present reads as zeros from now on, and the map's stream is closed. Durable is
 * nothing of that: whoever calls it knows what to do. The engine holds the whole disk. */
void partial_complete(struct image *img);

#endif
