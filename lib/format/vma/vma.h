/* SPDX-License-Identifier: MIT */
/*
 * VMA, the archive of Proxmox VE: a header with configurations and a table of devices, then extents
 * with clusters of any device in any order, to be written and read front to back. Sections are
 * those of vma.md.
 *
 *   header.c   decodes the header, and finds what it names
 *   build.c    encodes a new one
 *   extent.c   headers of extents
 *   index.c    which extent each cluster stands in (index.h)
 *   map.c      and where in it
 *   vma.c      the archive as an image, of which each device is a view (archive.h)
 *   load.c     how that is opened: the header, and a look at all extents
 *   rescue.c   ... of one that is damaged, as far as it can be used
 *   kept.c     an index that is kept beside it (kept.h), which keep.c writes
 *   describe.c what there is in it
 *   reader.c   the archive front to back (reader.h)
 */
#ifndef FORMAT_VMA_H
#define FORMAT_VMA_H

#include "base/error.h"
#include "base/memory.h"

enum {
    VMA_BLOCK = 4096,
    VMA_BLOCKS = 16, /* of a cluster */
    VMA_CLUSTER = VMA_BLOCK * VMA_BLOCKS,
    VMA_FIXED = 12288, /* bytes of a header before its blobs */
    VMA_MOST_HEADER = 16 << 20,
    VMA_UUID = 16,
    VMA_EXTENT = 512, /* bytes of an extent's header */
    VMA_SLOTS = 59,
    VMA_MOST_BLOCKS = VMA_SLOTS * VMA_BLOCKS,
    VMA_DEVICES = 256, /* number 0 is none */
    VMA_CONFIGS = 256,
    VMA_MOST_BLOB = 65535
};

struct archive_ops;
extern const struct archive_ops vma_archive_ops; /* front to back: archive_ops.c */

/* ---- the header (section 3) --------------------------------------------------------------------
 */

struct vma_config {
    const char *name;
    const uint8_t *bytes; /* raw */
    uint32_t size;
    bool displaced; /* found behind the name, where a writer of 2013 put it (section 7.3) */
};

struct vma_device {
    const char *name; /* NULL: there is none of this number */
    uint64_t size;    /* bytes; of a state only a guess */
    bool state;       /* of a machine's memory (section 4.4) */
};

/* Names and contents stand in the bytes it was decoded from. */
struct vma_header {
    uint8_t uuid[VMA_UUID];
    int64_t ctime; /* seconds since 1970 */
    uint32_t size; /* bytes: where the first extent begins */
    struct vma_config configs[VMA_CONFIGS];
    uint32_t n_configs;
    struct vma_device devices[VMA_DEVICES];
};

/* How many bytes a header has that begins with these VMA_FIXED ones of `file`. */
int vma_header_size(const char *file, const uint8_t *fixed, uint32_t *ret,
                    struct platter_error *err);
/* Decodes and checks a header of `size` bytes, which outlive *ret; they are the same afterwards. */
int vma_header_decode(const char *file, uint8_t *bytes, uint32_t size, struct vma_header *ret,
                      struct platter_error *err);
/* What can be read of a header that is damaged, from `size` bytes; not its uuid. Whether there is
 * any device. */
bool vma_header_rescue(const char *file, uint8_t *bytes, uint32_t size, struct vma_header *ret);
/* The device of that name: its number; ENOENT, or EINVAL where two have it. */
int vma_device_find(const char *file, const struct vma_header *h, const char *name,
                    struct platter_error *err);

/* A header with uuid, ctime, configs and devices of *h, as the writer of Proxmox VE lays it out
 * (section 3.2). *ret_size bytes of the budget; h->size is set. */
int vma_header_encode(struct vma_header *h, struct budget *budget, uint8_t **ret,
                      uint32_t *ret_size, struct platter_error *err);

/* ---- extents (section 4) -----------------------------------------------------------------------
 */

struct vma_slot {
    uint16_t mask;  /* bit k: block k is stored; the others are zeros */
    uint8_t device; /* 0: the slot is not used */
    uint32_t cluster;
};

struct vma_extent {
    uint32_t blocks; /* stored behind the header */
    struct vma_slot slots[VMA_SLOTS];
};

static inline unsigned vma_slot_blocks(const struct vma_slot *s)
{
    return s->device ? (unsigned)__builtin_popcount(s->mask) : 0;
}

/* Whether an extent of this archive begins with these VMA_EXTENT bytes: magic, uuid and checksum.
 */
bool vma_extent_probe(const uint8_t *bytes, const uint8_t *uuid);
/* Whether an extent of it may begin with these bytes, fewer than it has: magic and uuid, as far as
 * they go. */
bool vma_extent_begins(const uint8_t *bytes, size_t len, const uint8_t *uuid);
/* ... so that it was cut: a sentence of the file, the offset, and how many bytes there are. */
#define VMA_CUT_HEADER                                                                             \
    "%s: the header of the extent at %" PRIu64                                                     \
    " is cut off: %zu of its 512 bytes are there, and the archive ends"
/* What the slots say, whatever else is right or wrong, and how many blocks that makes. */
void vma_extent_slots(const uint8_t *bytes, struct vma_extent *ret);
/* The header of the extent at `off`. */
int vma_extent_decode(const char *file, uint64_t off, const uint8_t *bytes, const uint8_t *uuid,
                      struct vma_extent *ret, struct platter_error *err);
/* Sets e->blocks from the slots, and fills VMA_EXTENT bytes. */
void vma_extent_encode(struct vma_extent *e, const uint8_t *uuid, uint8_t *bytes);

/* Clusters of a device of so many bytes. */
static inline uint64_t vma_clusters(uint64_t size)
{
    return size / VMA_CLUSTER + (size % VMA_CLUSTER != 0);
}

/* Whether a device of this many bytes can have what the slot says (section 4.3); 0, or fails with a
 * sentence that names file, offset, device and cluster. `off` is that of the extent. */
int vma_slot_check(const char *file, uint64_t off, const struct vma_header *h,
                   const struct vma_slot *s, struct platter_error *err);

#endif
