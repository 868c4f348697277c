/* SPDX-License-Identifier: MIT */
/* Several disks one behind the other, seen as one. Each but the last counts in whole sectors. */
#ifndef OPS_SOURCES_H
#define OPS_SOURCES_H

#include "disk/disk.h"

struct sources {
    struct platter_disk *const *disks; /* the caller's */
    goff *starts;                      /* of each disk in the whole */
    unsigned n;
    uint64_t size; /* of the whole, bytes; may be raised: there are zeros behind the last disk */
};

int sources_open(struct sources *s, struct platter_disk *const *disks, size_t n,
                 struct platter_error *err);
void sources_close(struct sources *s);
/* As disk_map_above() and disk_read() on the whole; `above` counts images of each chain. */
int sources_map(const struct sources *s, unsigned above, goff off, uint64_t len,
                struct disk_extent *ret, struct platter_error *err);
int sources_read(const struct sources *s, void *buf, size_t len, goff off,
                 struct platter_error *err);
/* The largest unit of all images: what is read at once should hold it whole. */
uint64_t sources_unit(const struct sources *s);

#endif
