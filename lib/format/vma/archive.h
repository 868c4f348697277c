/* SPDX-License-Identifier: MIT */
/* An archive as an image: one of its devices, read at any place, by an index of the archive. */
#ifndef FORMAT_VMA_ARCHIVE_H
#define FORMAT_VMA_ARCHIVE_H

#include "format/format.h"
#include "format/vma/index.h"
#include "format/vma/kept.h"

enum { VMA_CACHED = 64 /* headers of extents */ };

struct vma_cached {
    uint64_t behind; /* its offset and one more; 0: there is none */
    struct vma_extent extent;
};

struct archive_reader;

/* The archive of all views of one open file, which the last of them frees. */
struct vma_archive {
    atomic_uint owners;
    struct budget *budget;
    uint8_t *bytes; /* of the header */
    uint64_t bytes_len;
    struct vma_header header;
    struct archive_reader *rescuer; /* whose header it is; NULL: it was read as it stands there */
    uint64_t size;                  /* of the file; 0: it can only be read front to back */
    bool known; /* what follows is: all extents were looked at, by us or for the kept index */
    uint64_t n_extents;
    uint64_t counts[VMA_DEVICES]; /* clusters that are there */
    bool extra; /* clusters of zeros just past the end of devices were passed over */
    /* Where clusters stand: in `index`, and as long as that is NULL, in `kept`. */
    _Atomic(struct vma_index *) index;
    struct vma_kept *kept;
    pthread_mutex_t building; /* one index at a time */
    pthread_mutex_t lock;     /* guards the cache */
    struct vma_cached cache[VMA_CACHED];
};

struct vma {
    struct vma_archive *archive; /* NULL: half-open */
    unsigned device;             /* that is shown; 0: a query, or check, of them all */
};

static inline struct vma *vma_of(const struct image *img)
{
    return img->state;
}

/* Clusters of a device that are there. */
uint64_t vma_archive_count(const struct vma_archive *a, unsigned device);
/* Its bytes; of a state as many as there are, as far as that is known. */
uint64_t vma_device_bytes(const struct vma_archive *a, unsigned device);

/* ---- load.c ------------------------------------------------------------------------------------
 */

/* Reads the header. *ret as far as it goes on failure as well, for vma_archive_unref(). */
int vma_archive_load(struct image *img, struct vma_archive **ret, struct platter_error *err);
/* Looks at all extents, unless that was done, and has archive->index. */
int vma_archive_survey(struct image *img, struct vma_archive *a, struct platter_error *err);
/* NULL is fine. */
void vma_archive_unref(struct vma_archive *a);

/* ---- rescue.c ----------------------------------------------------------------------------------
 */

/* Of a salvage whose header cannot be used, `why` tells why not: takes what is left of it, and what
 * disks there are in the extents. What was found so is doubted. */
int vma_salvage_header(struct image *img, struct vma_archive *a, const struct platter_error *why,
                       struct platter_error *err);
/* Of a salvage: enters in `index` what can be used of a damaged archive; what is wrong with the
 * disk that is asked for, or with any, is doubted. */
int vma_salvage_index(struct image *img, struct vma_index *index, uint64_t *ret_extents,
                      struct platter_error *err);
/* The slots of an extent whose header may be damaged: what reading front to back makes of it. */
int vma_salvage_extent(struct image *img, uint64_t off, const uint8_t *bytes,
                       struct vma_extent *ret, struct platter_error *err);

/* ---- map.c -------------------------------------------------------------------------------------
 */

int vma_map(struct image *img, goff off, uint64_t len, struct extent *ret,
            struct platter_error *err);

/* ---- describe.c --------------------------------------------------------------------------------
 */

json_t *vma_info(struct image *img);
json_t *vma_views(struct image *img);

#endif
