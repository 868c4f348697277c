/* SPDX-License-Identifier: MIT */
/*
 * VMA archives by a writer of the tests' own, after vma.md alone: the library has no part in it. A
 * test says what disks there are and in which order their clusters come, and may then change the
 * extents before they are written, or the bytes afterwards. It is known where everything stands.
 */
#ifndef SUPPORT_VMAIMAGE_H
#define SUPPORT_VMAIMAGE_H

#include "support/buffer.h"
#include "support/prng.h"

enum {
    VI_BLOCK = 4096,
    VI_BLOCKS = 16,
    VI_CLUSTER = 65536,
    VI_FIXED = 12288,
    VI_EXTENT = 512,
    VI_SLOTS = 59,
    VI_UUID = 16,
    VI_FULL = 0xffff
};

/* Where fields stand: in the header, */
enum {
    VI_VERSION_AT = 4,
    VI_UUID_AT = 8,
    VI_MD5_AT = 32,
    VI_BLOBS_AT = 48,
    VI_BLOBS_SIZE_AT = 52,
    VI_HEADER_SIZE_AT = 56,
    VI_NAMES_AT = 2044,
    VI_DATA_AT = 3068,
    VI_DEVICES_AT = 4096
};
/* and in that of an extent. */
enum { VI_RESERVED_AT = 4, VI_COUNT_AT = 6, VI_EXTENT_MD5_AT = 24, VI_SLOTS_AT = 40 };

struct vmaimage_config {
    const char *name;
    const void *bytes;
    uint32_t size;
    uint32_t name_at, data_at; /* blob pointers, once it is written */
};

struct vmaimage_disk {
    char name[32];
    uint8_t id;
    bool state;
    uint64_t size;     /* what the header says; of a state only a guess */
    uint32_t clusters; /* that there are */
    uint8_t *content;  /* all clusters, whole: what is behind the end of a disk is rubbish */
    uint32_t name_at;  /* blob pointer, once it is written */
};

struct vmaimage_slot {
    uint8_t device; /* 0: not used */
    uint8_t reserved;
    uint16_t mask;
    uint32_t cluster;
    const uint8_t *data; /* of the whole cluster; not looked at where mask is 0 */
    hoff off;            /* where what is stored of it begins, once it is written */
};

struct vmaimage_extent {
    struct vmaimage_slot slots[VI_SLOTS];
    hoff off; /* once it is written */
    uint64_t len;
};

struct vmaimage {
    struct prng prng;
    uint8_t uuid[VI_UUID];
    int64_t ctime;
    uint32_t align;    /* of the header's end */
    uint32_t blob_gap; /* bytes between the fixed part and the blobs */
    bool displaced;    /* the content pointers show the names (section 7.3) */
    struct vmaimage_config *configs;
    unsigned n_configs;
    struct vmaimage_disk *disks;
    unsigned n_disks;
    struct vmaimage_slot *slots; /* in order, before they are packed */
    size_t n_slots;
    struct vmaimage_extent *extents;
    size_t n_extents;
    uint32_t header_size;
    struct buffer file;
};

/* ---- making ------------------------------------------------------------------------------------
 */

void vmaimage_start(struct vmaimage *v, uint64_t seed);
void vmaimage_free(struct vmaimage *v);
/* Bytes must live as long as v. */
void vmaimage_add_config(struct vmaimage *v, const char *name, const void *bytes, uint32_t size);
/* A disk of zeros, or of random bytes with zero blocks and clusters between them. Called "vmstate"
 * it is a state, of as many clusters as `size` makes. Pointers to disks are good until the next. */
struct vmaimage_disk *vmaimage_add_disk(struct vmaimage *v, uint8_t id, const char *name,
                                        uint64_t size, bool random);

enum vmaimage_order {
    VI_ASCENDING, /* one disk after the other */
    VI_TURNS,     /* the disks in turns */
    VI_LIVE,      /* now and then one comes early */
    VI_SHUFFLED
};
/* All clusters of all disks, as v->slots; those of a state stay in order. `full`: the percentage of
 * those that are stored whole, zeros too. */
void vmaimage_arrange(struct vmaimage *v, enum vmaimage_order order, unsigned full);

/* v->slots to extents of at most `most` slots, or of a random number where that is 0. `empty`: the
 * percentage of slots that are left empty, and of further extents that are. */
void vmaimage_pack(struct vmaimage *v, unsigned most, unsigned empty);
/* The extents as v->file, with right checksums. May be called again after changes. */
void vmaimage_write(struct vmaimage *v);

/* A whole archive that depends on the seed alone: sound, however strange. */
void vmaimage_random(struct vmaimage *v, uint64_t seed);

/* ---- changing ----------------------------------------------------------------------------------
 */

/* Extents, before they are written: one less, the same once more in front of another, in the place
 * of one another. */
void vmaimage_drop_extent(struct vmaimage *v, size_t i);
void vmaimage_repeat_extent(struct vmaimage *v, size_t i, size_t before);
void vmaimage_swap_extents(struct vmaimage *v, size_t i, size_t k);
/* The slot of a cluster: where it is first. The test dies if it is nowhere. */
struct vmaimage_slot *vmaimage_find(struct vmaimage *v, uint8_t device, uint32_t cluster);

/* Big-endian fields of v->file, and the checksums of headers that became something else. */
void vmaimage_put(struct vmaimage *v, uint64_t at, unsigned n, uint64_t value);
void vmaimage_seal_header(struct vmaimage *v);
void vmaimage_seal_extent(struct vmaimage *v, hoff off);
/* A header of an extent, with its checksum, of no archive in particular. */
void vmaimage_foreign_extent(struct prng *p, uint8_t bytes[VI_EXTENT]);

/* ---- damage with a memory: which byte of the whole archive each one was ------------------------
 */

enum { VI_LOST = -1 }; /* it is none of them */

struct vmaimage_wreck {
    struct buffer file;
    int32_t *was; /* for each byte of the file: offset in the whole archive, or VI_LOST */
};

void vmaimage_wreck_start(struct vmaimage_wreck *w, const struct vmaimage *v);
void vmaimage_wreck_free(struct vmaimage_wreck *w);
void wreck_flip(struct vmaimage_wreck *w, hoff off, unsigned bit);
void wreck_cut(struct vmaimage_wreck *w, uint64_t size);
void wreck_remove(struct vmaimage_wreck *w, hoff off, uint64_t len);
/* Bytes that were nowhere (NULL: random ones, as of p) between others, or over them. */
void wreck_insert(struct vmaimage_wreck *w, hoff off, const void *bytes, uint64_t len,
                  struct prng *p);
void wreck_overwrite(struct vmaimage_wreck *w, hoff off, const void *bytes, uint64_t len,
                     struct prng *p);
/* A range once more, at another place. */
void wreck_repeat(struct vmaimage_wreck *w, hoff off, uint64_t len, hoff at);
/* Two ranges that do not touch, the first of which stands in front of the second, change places. */
void wreck_swap(struct vmaimage_wreck *w, hoff a, uint64_t a_len, hoff b, uint64_t b_len);
/* Whether the `len` bytes at `at` are those that were at `off` of the whole archive. */
bool wreck_is(const struct vmaimage_wreck *w, uint64_t at, hoff off, uint64_t len);

#endif
