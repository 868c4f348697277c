/* SPDX-License-Identifier: MIT */
/*
 * Persistent dirty bitmaps (section 16): which parts of the disk were written since somebody asked.
 *
 * On the disk a bitmap is valid, or marked as in use. Before the first change of what a guest sees
 * all are marked, durably and where they stand, which no crash can tear; from then on those that
 * are enabled record every change in memory, before it is made. When the image is closed they are
 * stored beside the old ones, and cluster 0 is switched over. So a crash finds bitmaps that are
 * whole, or that say they are not.
 *
 * What is read of a bitmap stays as it is on the disk until a bit changes: bits are loaded by
 * chunks, one for each entry of its table, and only chunks that changed are written again.
 */
#ifndef QCOW2_BITMAP_H
#define QCOW2_BITMAP_H

#include "format/qcow2/qcow2.h"

struct reader;

enum {
    QCOW2_BITMAP_IN_USE = 1 << 0,
    QCOW2_BITMAP_AUTO = 1 << 1,             /* enabled: records changes */
    QCOW2_BITMAP_EXTRA_COMPATIBLE = 1 << 2, /* may be used without knowing its extra data */
    QCOW2_BITMAP_FLAGS = (1 << 3) - 1,
    QCOW2_BITMAP_TRACKING = 1, /* the one type there is */
    QCOW2_BITMAP_MIN_BITS = 9, /* log2 of the granularity */
    QCOW2_BITMAP_MAX_BITS = 31,
    QCOW2_BITMAP_MAX_NAME = 1023,
    QCOW2_BITMAP_ENTRY = 24, /* bytes of a directory entry before its extra data */
    QCOW2_BITMAP_FLAGS_AT = 12
};

#define QCOW2_BITMAP_MAX_BYTES (UINT64_C(512) << 20) /* table entries * cluster size */
#define QCOW2_BITMAP_RESERVED  UINT64_C(0xFF000000000001FE)
#define QCOW2_BITMAP_ONES      UINT64_C(1) /* a table entry without an offset: all bits are 1 */

/* ---- the directory (bitmap_directory.c) --------------------------------------------------------
 */

/* An entry as it stands there; pointers into the bytes it was decoded from. */
struct qcow2_bitmap_entry {
    hoff table;
    uint32_t n_table; /* entries */
    uint32_t flags;
    uint8_t type, granularity_bits;
    uint16_t name_len;
    uint32_t extra_len;
    const uint8_t *extra, *name;
};

/* Decodes the entry at the reader, and goes behind it; false: it reaches past the end, or its name
 * has an impossible length. */
bool qcow2_bitmap_entry_decode(struct reader *r, struct qcow2_bitmap_entry *ret);
void qcow2_bitmap_entry_encode(struct writer *w, const struct qcow2_bitmap_entry *e);
/* Why the bitmap of an entry cannot be used, for a disk of `size` bytes; NULL: it can. */
const char *qcow2_bitmap_entry_problem(const struct image *img, const struct qcow2_bitmap_entry *e,
                                       uint64_t size);
/* Whether a table of n entries may stand at `off`, whole and in no other table. */
bool qcow2_bitmap_table_fits(const struct image *img, hoff off, uint32_t n);
/* Why an entry of a bitmap's table is wrong; NULL: it is fine. */
const char *qcow2_bitmap_cluster_problem(const struct image *img, uint64_t entry);
/* How many entries the table has of a bitmap for `size` bytes; false: it is larger than any may be.
 */
bool qcow2_bitmap_table_size(const struct image *img, uint64_t size, unsigned granularity_bits,
                             uint64_t *ret);
/* The bytes of the directory, on the budget. */
int qcow2_bitmap_directory_read(struct image *img, uint8_t **ret, struct platter_error *err);

/* ---- one bitmap (bitmap_bits.c) ----------------------------------------------------------------
 */

struct qcow2_bitmap_chunk;

struct qcow2_bitmap {
    char *name;
    uint32_t flags; /* as they were, or will be, on the disk when nobody writes */
    uint8_t type, granularity_bits;
    uint8_t *extra;
    uint32_t extra_len;
    uint64_t memory;  /* what name and extra data took from the budget */
    const char *why;  /* it cannot be used; NULL: it can */
    atomic_bool lost; /* a change could not be recorded */
    uint64_t size;    /* guest bytes it speaks of */

    hoff table_off; /* on the disk; 0: it is not there yet */
    uint32_t n_table;
    hoff flags_at; /* of the flags of its directory entry */

    /* Of one that can be used, when its table was loaded. */
    uint64_t n;                                   /* chunks */
    uint64_t *table;                              /* of them, as numbers; on the budget */
    _Atomic(struct qcow2_bitmap_chunk *) *chunks; /* NULL: as the table says */
    atomic_bool changed;                          /* differs from what is on the disk */
    uint64_t loaded;                              /* read-only: the chunk that is kept */
    bool kept;                                    /* for who sorts them out */
};

/* A new one of zeros, for the disk as it is. */
int qcow2_bitmap_new(struct image *img, const char *name, unsigned granularity_bits,
                     struct qcow2_bitmap **ret, struct platter_error *err);
int qcow2_bitmap_from(struct image *img, const struct qcow2_bitmap_entry *e,
                      struct qcow2_bitmap **ret, struct platter_error *err);
/* One of its own to be changed, which becomes the other, or is freed. */
int qcow2_bitmap_clone(struct image *img, struct qcow2_bitmap *b, struct qcow2_bitmap **ret,
                       struct platter_error *err);
void qcow2_bitmap_free(struct image *img, struct qcow2_bitmap *b);
/* Reads the table of one that can be used, if that was not done. Not beside another call on it. */
int qcow2_bitmap_load(struct image *img, struct qcow2_bitmap *b, struct platter_error *err);
/* Sets the bits of [off, end); the table is loaded. Lock not held. */
int qcow2_bitmap_set(struct image *img, struct qcow2_bitmap *b, goff off, goff end,
                     struct platter_error *err);
/* Makes all bits 0. */
void qcow2_bitmap_clear(struct image *img, struct qcow2_bitmap *b);
/* Whether the byte at `off` is dirty, and how far that goes, to `end` at most. Lock not held. */
int qcow2_bitmap_run(struct image *img, struct qcow2_bitmap *b, goff off, goff end,
                     uint64_t *ret_len, bool *ret_dirty, struct platter_error *err);
/* For a disk of another size; new bits are 0. Lock not held. */
int qcow2_bitmap_resize(struct image *img, struct qcow2_bitmap *b, uint64_t size,
                        struct platter_error *err);
/* What chunk i is to say in the table: an entry as it stands there, or 0 or ONES, or *ret_bytes of
 * len bytes that are to be written. Nobody else is at work. */
uint64_t qcow2_bitmap_chunk(const struct image *img, const struct qcow2_bitmap *b, uint64_t i,
                            const uint8_t **ret_bytes, size_t *ret_len);
/* They were, as `table` (consumed) says. */
void qcow2_bitmap_stored(struct image *img, struct qcow2_bitmap *b, uint64_t *table);

/* ---- all of them (bitmap.c, bitmap_change.c, bitmap_store.c) -----------------------------------
 */

void qcow2_bitmap_list_free(struct image *img, struct qcow2_bitmap_list *list);
/* A list of the same bitmaps with room for `more`. */
int qcow2_bitmap_list_copy(struct image *img, const struct qcow2_bitmap_list *list, uint32_t more,
                           struct qcow2_bitmap_list *ret, struct platter_error *err);
struct qcow2_bitmap *qcow2_bitmap_find(const struct qcow2_bitmap_list *list, const char *name);
/* Why a bitmap cannot be used, or NULL. */
const char *qcow2_bitmap_problem(const struct qcow2_bitmap *b);
/* Reads the directory, if there is a valid one: whoever asks first. Damage is an error. */
int qcow2_bitmaps_load(struct image *img, struct platter_error *err);
/* Sees to it that the list is loaded, and that `name`, unless that is NULL, is there and can be
 * used. Lock not held. */
int qcow2_bitmaps_need(struct image *img, const char *name, struct qcow2_bitmap **ret,
                       struct platter_error *err);
int qcow2_bitmaps_change(struct image *img, const struct bitmap_change *changes, size_t n,
                         struct platter_error *err);

/* Writes `list` to the disk as what is there and valid now, durably: a crash leaves the bitmaps as
 * they were before, or these. Nobody else is at work. Lock not held. */
int qcow2_bitmaps_store(struct image *img, const struct qcow2_bitmap_list *list,
                        struct platter_error *err);

#endif
