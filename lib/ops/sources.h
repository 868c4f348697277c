/* SPDX-License-Identifier: MIT */
/* Several disks one behind the other, seen as one. Each but the last counts in whole sectors. */
#ifndef OPS_SOURCES_H
#define OPS_SOURCES_H

#include "disk/disk.h"

struct sources {
    struct platter_disk *const *disks; /* the caller's */
    goff *starts;                      /* of each disk in the whole */
    unsigned n;
    goff start;    /* in the whole, of what is seen of it */
    uint64_t end;  /* bytes from there on that the disks have */
    uint64_t size; /* bytes that are seen; may be raised: there are zeros behind the end */
};

int sources_open(struct sources *s, struct platter_disk *const *disks, size_t n,
                 struct platter_error *err);
/* Shows only [off, off + len), or what there is of that. */
void sources_cut(struct sources *s, goff off, uint64_t len);
void sources_close(struct sources *s);
/* As disk_map_above() and disk_read() on the whole; `above` counts images of each chain. */
int sources_map(const struct sources *s, unsigned above, goff off, uint64_t len,
                struct disk_extent *ret, struct platter_error *err);
int sources_read(const struct sources *s, void *buf, size_t len, goff off,
                 struct platter_error *err);
/* disk_requests() of the disk with the most. */
unsigned sources_requests(const struct sources *s);
void sources_interrupt(const struct sources *s); /* disk_interrupt() of each */
int sources_unchanged(const struct sources *s, struct platter_error *err); /* likewise */
/* disk_reach() of a single source: the end and the size become known with it. */
int sources_reach(struct sources *s, goff off, bool *ret_known, struct platter_error *err);
/* The least disk_window() of those that have one; 0: none has. */
uint64_t sources_window(const struct sources *s);
/* The largest unit of all images: what is read at once should hold it whole. */
uint64_t sources_unit(const struct sources *s);

#endif
