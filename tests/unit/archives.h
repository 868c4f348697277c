/* SPDX-License-Identifier: MIT */
/* An archive by the tests' own writer, to be changed, and the ways to read it. */
#ifndef UNIT_ARCHIVES_H
#define UNIT_ARCHIVES_H

#include "format/archive.h"
#include "support/vmaimage.h"

enum { SCSI = 1, VIRTIO = 4, STATE = 7 };

/* 3 clusters and 512 bytes, 2 clusters, and a state of 3: the slots of the first extent are
 * scsi 0..2, those of the second scsi 3, virtio 0 1, of the third the state. */
void make_plain(struct vmaimage *v);
/* A field of the header, which is sealed. */
void in_header(struct vmaimage *v, uint64_t at, unsigned n, uint64_t value);
/* The last slot of extent 1, which is not used. */
struct vmaimage_slot *last_slot(struct vmaimage *v);

/* What a reader told, and how much came. */
struct told {
    enum archive_fault_kind kind; /* faults of this kind that say this count as right */
    const char *said;             /* NULL: none do */
    unsigned n, right, notes, batches;
    char last[512];
};

/* Beside ARCHIVE_*: what can only be read front to back. */
#define PIPE 0x80000000u

/* Reads all of it: 0, or the first error. */
int read_through(struct vmaimage *v, unsigned flags, struct told *told, struct platter_error *err);
/* Reads drive-scsi0 out of a file, at any place. */
int read_anywhere(const char *path, struct platter_error *err);

#endif
