/* SPDX-License-Identifier: MIT */
/*
 * The index of an archive that is kept in a file beside it, NAME.index (docs/vma-index.md): for
 * each 4096 clusters of a device a piece with runs of clusters that stand in one extent, ascending.
 * Pieces are read when they are asked for, so that an archive of any size opens at once. Its bytes
 * are nobody's word: what they say of a cluster is checked against the header of the extent before
 * it is believed, and where anything is wrong the archive is indexed anew.
 */
#ifndef FORMAT_VMA_KEPT_H
#define FORMAT_VMA_KEPT_H

#include "format/format.h"
#include "format/vma/vma.h"

#define KEPT_SUFFIX ".index"

enum {
    KEPT_MAGIC_SIZE = 8,
    KEPT_VERSION = 1,
    KEPT_EXTRA = 1, /* flag: archive->extra */
    /* The header, and where its fields stand. */
    KEPT_HEADER = 4096,
    KEPT_UUID_AT = 16,
    KEPT_MD5_AT = 32,
    KEPT_SIZE_AT = 48, /* of the archive; the number of its extents, that of pieces, our size */
    KEPT_SUM_AT = 80,
    KEPT_SUM = 32,
    KEPT_SAMPLES_AT = 112,
    KEPT_SAMPLES = 8,
    KEPT_SAMPLE = 24, /* bytes: where an extent is, and the checksum in its header */
    KEPT_COUNTS_AT = 304,
    KEPT_UNUSED_AT = 2352,
    /* An entry of the directory of pieces, which follows the header: device, number of runs, number
     * of the piece, where it is, the first bytes of its checksum. */
    KEPT_ENTRY = 32,
    KEPT_PIECE_SUM = 16,
    /* A run: first cluster in the piece, how many, and their extent. */
    KEPT_RUN = 12,
    KEPT_PIECE_BITS = 12,
    KEPT_PIECE = 1 << KEPT_PIECE_BITS,
    KEPT_MD5 = 16,
    VMA_HEADER_MD5_AT = 32, /* in an archive */
    VMA_EXTENT_MD5_AT = 24
};

#define KEPT_MAGIC "VMAINDEX"

struct vma_archive;
struct vma_kept;

/* The index beside an archive whose header is loaded, if there is one and it fits: *ret, and what
 * it says of all extents in *a. Else *ret is NULL; where it does not fit that is a doubt. */
int vma_kept_open(struct image *img, struct vma_archive *a, struct vma_kept **ret,
                  struct platter_error *err);
bool vma_is_index(struct stream *s);
void vma_kept_free(struct vma_kept *k); /* NULL is fine */
/* The extent that a cluster is said to stand in. False: it is said not to be there, or the piece of
 * the index that tells is damaged. */
bool vma_kept_find(struct vma_kept *k, unsigned device, uint32_t cluster, uint64_t *ret_off);

/* Writes the index of an archive, which was surveyed. */
int vma_keep_index(struct image *img, struct stream *out, struct platter_error *err);

/* The checksum of a header and the directory behind it. */
void kept_sum(const uint8_t *header, const uint8_t *entries, uint64_t n_entries, uint8_t *out);

#endif
