/* SPDX-License-Identifier: MIT */
/*
 * Where the clusters of each device stand in an archive (section 10), from the headers of its
 * extents alone.
 *
 * The clusters of a device are numbered as they come in the archive: their ordinals. Most come in
 * the order of the disk, so that a piece of it is a few runs of clusters and ordinals that go up
 * together; a piece whose order is wild has an array of ordinals, 4 bytes a cluster. Which extent
 * an ordinal stands in is found by the first one of each extent. So an archive of a full disk of 1
 * TiB takes 5 MiB of memory, and 70 MiB at worst.
 */
#ifndef FORMAT_VMA_INDEX_H
#define FORMAT_VMA_INDEX_H

#include "format/vma/vma.h"

struct vma_index;

/* The cluster's slot is the nth (from 0) of its device's in the extent at `off`. */
struct vma_place {
    uint64_t off;
    unsigned nth;
};

int vma_index_new(struct budget *budget, struct vma_index **ret, struct platter_error *err);
void vma_index_free(struct vma_index *x);

/* Enters the extent at `off`, which stands behind all that were entered. PLATTER_ECORRUPT: it has a
 * cluster that was there before; the slots in front of that are entered. */
int vma_index_add(struct vma_index *x, uint64_t off, const struct vma_extent *e,
                  struct platter_error *err);

/* Where a cluster stands; false: it is not in the archive. */
bool vma_index_find(const struct vma_index *x, unsigned device, uint32_t cluster,
                    struct vma_place *ret);

/* How many clusters of a device are there. */
uint64_t vma_index_count(const struct vma_index *x, unsigned device);
/* The first clusters at `from` or behind, before `end`, that are not: how many follow each other
 * from *ret_first on; 0: none is missing. */
uint64_t vma_index_missing(const struct vma_index *x, unsigned device, uint64_t from, uint64_t end,
                           uint64_t *ret_first);

#endif
