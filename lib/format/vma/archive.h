/* SPDX-License-Identifier: MIT */
/* An archive as an image: one of its devices, read at any place, by an index of the archive. */
#ifndef FORMAT_VMA_ARCHIVE_H
#define FORMAT_VMA_ARCHIVE_H

#include "format/format.h"
#include "format/vma/index.h"

enum { VMA_CACHED = 32 /* headers of extents */ };

struct vma_cached {
    uint64_t off; /* 0: none */
    struct vma_extent extent;
};

struct vma {
    uint8_t *bytes; /* of the header */
    struct vma_header header;
    struct vma_index *index;
    uint64_t n_extents;
    unsigned device; /* that is shown; 0: a query, or check, of them all */
    struct vma_cached cache[VMA_CACHED];
};

static inline struct vma *vma_of(const struct image *img)
{
    return img->state;
}

/* ---- map.c -------------------------------------------------------------------------------------
 */

int vma_map(struct image *img, goff off, uint64_t len, struct extent *ret,
            struct platter_error *err);

#endif
