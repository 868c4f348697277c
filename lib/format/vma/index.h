/* SPDX-License-Identifier: MIT */
/*
 * Where the clusters of each device stand in an archive (section 10), from the headers of its
 * extents alone.
 *
 * The clusters of a device are numbered as they come in the archive: their ordinals. Most come in
 * the order of the disk, so that a piece of it is a few runs of clusters and ordinals that go up
 * together, 8 bytes each; a piece whose order is wild has an array of ordinals, 4 bytes a cluster.
 * Which extent an ordinal stands in is found by the first one of each extent. So an archive of a
 * full disk of 1 TiB takes 8 MiB of memory, and 72 MiB at worst.
 */
#ifndef FORMAT_VMA_INDEX_H
#define FORMAT_VMA_INDEX_H

#include "format/vma/vma.h"

struct vma_index;

int vma_index_new(struct budget *budget, struct vma_index **ret, struct platter_error *err);
void vma_index_free(struct vma_index *x);

/* Enters the extent at `off`, which stands behind all that were entered. PLATTER_ECORRUPT: it has a
 * cluster that was there before; the slots in front of that are entered. */
int vma_index_add(struct vma_index *x, uint64_t off, const struct vma_extent *e,
                  struct platter_error *err);

/* The extent that a cluster stands in; false: it is not in the archive. */
bool vma_index_find(const struct vma_index *x, unsigned device, uint32_t cluster,
                    uint64_t *ret_off);

/* How many clusters of a device are there. */
uint64_t vma_index_count(const struct vma_index *x, unsigned device);
/* The first cluster that is there, *cluster or behind it; false: none is. */
bool vma_index_next(const struct vma_index *x, unsigned device, uint64_t *cluster);

/* The extents that have clusters: how many, and where number i is, in their order. */
uint32_t vma_index_extents(const struct vma_index *x);
uint64_t vma_index_extent(const struct vma_index *x, uint32_t i);

#endif
