/* SPDX-License-Identifier: MIT */
/*
 * QCOW version 1 inside: what its files share. "section" is one of qcow.md.
 *
 * A header, an L1 table that stays in memory, L2 tables that are cached, and clusters, plain or
 * packed. Nothing counts what is used: space is only taken at the end of the file, so what no entry
 * leads to is lost until a check gives it back.
 *
 *   qcow1.c     the table of operations, probe, info
 *   header.c    the header: decode, encode, bounds
 *   open.c      open and close, the L1 table
 *   entry.c     entries of tables: decode, encode, bounds
 *   map.c       guest range -> extent
 *   packed.c    compressed clusters
 *   write.c     reserve, commit, mark
 *   flush.c     the token of changes, the order in which they reach the disk
 *   resize.c    another size, another backing file, no data
 *   create.c    new images, measure
 *   check.h     the check, and what it is made of
 *
 * Locks: image->lock guards the tables, and is dropped over I/O. A change of tables is made by the
 * holder of the token (qcow1_enter()), one at a time, flush included.
 */
#ifndef FORMAT_QCOW1_H
#define FORMAT_QCOW1_H

#include "base/cipher.h"
#include "format/format.h"
#include "format/tables.h"

enum {
    QCOW1_HEADER = 48, /* bytes */
    QCOW1_MAX_NAME = 1023,
    QCOW1_MIN_CLUSTER_BITS = 9,
    QCOW1_MAX_CLUSTER_BITS = 16,
    QCOW1_MIN_L2_BITS = 6,
    QCOW1_MAX_L2_BITS = 13,
    QCOW1_MAX_L1_BYTES = 32 << 20, /* 8 TiB with the usual tables: section 12 */
    QCOW1_SECTOR = 512,
    /* What new images have: section 9. */
    QCOW1_CLUSTER_BITS = 12,
    QCOW1_L2_BITS = 9,
    QCOW1_OVERLAY_CLUSTER_BITS = 9,
    QCOW1_OVERLAY_L2_BITS = 12
};
#define QCOW1_PACKED     (UINT64_C(1) << 63) /* of an L2 entry */
#define QCOW1_MAX_SIZE   ((UINT64_C(1) << 63) - 1)
#define QCOW1_MAX_OFFSET (UINT64_C(1) << 62) /* where a file may end that is written to */

/* ---- the header (header.c, section 2) -------------------------------------------------------- */

struct qcow1_header {
    uint32_t version;
    hoff backing_offset;
    uint32_t backing_size;
    uint32_t mtime; /* kept as it is */
    uint64_t size;
    uint32_t cluster_bits, l2_bits;
    uint32_t padding; /* kept as it is */
    uint32_t crypt_method;
    hoff l1_offset;
};

/* False: it does not begin with the magic. */
bool qcow1_header_decode(const uint8_t bytes[QCOW1_HEADER], struct qcow1_header *ret);
void qcow1_header_encode(const struct qcow1_header *h, uint8_t bytes[QCOW1_HEADER]);
/* All bounds of section 12 that need nothing but the header and the file's size. */
int qcow1_header_check(const char *name, const struct qcow1_header *h, uint64_t file_size,
                       struct platter_error *err);
/* The parts of it that no repair can do without, and that of the name. */
int qcow1_header_check_shape(const char *name, const struct qcow1_header *h, uint64_t file_size,
                             struct platter_error *err);
int qcow1_header_check_backing(const char *name, const struct qcow1_header *h, uint64_t file_size,
                               struct platter_error *err);
uint64_t qcow1_l1_entries(const struct qcow1_header *h, uint64_t size);
/* Guest bytes that one L1 entry maps, as a power of two. */
static inline unsigned qcow1_l1_bits(const struct qcow1_header *h)
{
    return h->cluster_bits + h->l2_bits;
}

/* ---- an open image (open.c) ------------------------------------------------------------------ */

struct qcow1 {
    struct qcow1_header header;
    uint32_t cluster_size, table_size; /* bytes; a table: of an L2 table */
    unsigned l1_bits;
    uint64_t file_size; /* the file has so many bytes at least: it grows */
    struct pointers l1;
    struct slices l2;
    hoff *tables;              /* L2 tables of the file as it was opened, ascending */
    uint32_t n_tables, n_room; /* how many, and how many there is room for */
    struct cipher *cipher;     /* NULL: not encrypted, or only tables are wanted */

    /* Writing. */
    pthread_cond_t changed; /* a slice was loaded or written, or the token is free */
    bool busy;              /* the token */
    bool prepared;          /* the tables were looked at, and there may be new clusters */
    hoff end;               /* room is taken from here on */
    hoff first;             /* where the first table or cluster begins */

    struct qcow1_checkup *checkup; /* of an image that is opened to be checked, or NULL */
};

static inline struct qcow1 *qcow1_of(const struct image *img)
{
    return img->state;
}

int qcow1_open(struct image *img, struct platter_error *err);
int qcow1_close(struct image *img, struct platter_error *err);
/* Notes where L2 tables are. What cannot be one is found where it is used. */
int qcow1_list_tables(struct image *img, struct platter_error *err);

/* ---- entries (entry.c, section 3) ------------------------------------------------------------ */

struct qcow1_entry {
    enum extent_kind kind; /* BACKING, DATA or PACKED */
    hoff off;
    uint32_t packed_len;
};

/* Takes the entry for the cluster at guest offset `guest` apart, and bounds it, but for the end of
 * the file. */
int qcow1_entry_decode(const struct image *img, uint64_t raw, goff guest, struct qcow1_entry *ret,
                       struct platter_error *err);
uint64_t qcow1_entry_encode(const struct qcow1 *q, const struct qcow1_entry *e);
/* The L2 table of a guest offset; *ret 0: there is none. */
int qcow1_l2_find(const struct image *img, goff guest, hoff *ret, struct platter_error *err);
/* The table that maps `guest`, and the entry in it; *ret NULL: no table. Lock held; drops it to
 * read. */
int qcow1_l2_get(struct image *img, goff guest, struct slice **ret, uint8_t **ret_entry,
                 struct platter_error *err);
/* Whether a range of the file touches the header, the name or the L1 table. */
bool qcow1_hits_header(const struct qcow1 *q, hoff off, uint64_t len);
/* ... or an L2 table that was there when the image was opened. */
bool qcow1_hits_tables(const struct qcow1 *q, hoff off, uint64_t len);
/* Whether an entry of the L1 table leads to where the next table would have stood when a writer of
 * QEMU's order crashed: section 10. Nothing was stored there yet. */
bool qcow1_is_late(const struct qcow1 *q, hoff off);
/* Whether two entries of the L1 table lead to the same bytes. `off` is one of them. */
bool qcow1_is_shared(const struct qcow1 *q, hoff off);

/* ---- map.c, packed.c ------------------------------------------------------------------------- */

int qcow1_map(struct image *img, goff off, uint64_t len, struct extent *ret,
              struct platter_error *err);
/* Whether the file has [off, off + len); it may have grown since it was last asked. Lock held;
 * drops it. */
int qcow1_has_bytes(struct image *img, hoff off, uint64_t len, bool *ret,
                    struct platter_error *err);
/* Fails unless the bytes of an entry that a guest can see are in the file. Lock held; drops it. */
int qcow1_check_there(struct image *img, goff guest, const struct qcow1_entry *e,
                      struct platter_error *err);

int qcow1_unpack(struct image *img, const struct extent *e, void *out, struct platter_error *err);
int qcow1_pack(struct image *img, const void *unit, void *out, size_t cap, size_t *ret_len,
               struct platter_error *err);
int qcow1_reserve_packed(struct image *img, goff unit, size_t packed_len, struct reservation *ret,
                         struct platter_error *err);

/* ---- write.c, flush.c (section 10) ----------------------------------------------------------- */

int qcow1_reserve(struct image *img, goff off, uint64_t len, struct reservation *ret,
                  struct platter_error *err);
int qcow1_commit(struct image *img, const struct reservation *r, struct platter_error *err);
void qcow1_abandon(struct image *img, const struct reservation *r);
int qcow1_mark(struct image *img, goff off, uint64_t len, enum mark mark, bool unmap,
               struct platter_error *err);
/* Sees to an L2 table for a guest offset. Token and lock held; drops it. */
int qcow1_need_table(struct image *img, goff guest, struct platter_error *err);
/* `len` bytes of new room, which begins at a multiple of `align`. Token and lock held. */
int qcow1_take_room(struct image *img, uint64_t len, uint32_t align, hoff *ret,
                    struct platter_error *err);

/* Takes the lock and the token; the first time, looks at all tables. On failure neither is held. */
int qcow1_enter(struct image *img, struct platter_error *err);
void qcow1_leave(struct image *img);
/* What was written so far is durable before what follows. Lock held; drops it. */
int qcow1_barrier(struct image *img, struct platter_error *err);
/* Writes the tables, in order; the last of it is not durable yet. Token and lock held; drops it. */
int qcow1_flush_locked(struct image *img, struct platter_error *err);
int qcow1_flush(struct image *img, struct platter_error *err);
/* Writes the header, durably; all that it names must be so before. Token and lock held; drops it.
 */
int qcow1_write_header(struct image *img, const struct qcow1_header *h, struct platter_error *err);

/* ---- resize.c, create.c ---------------------------------------------------------------------- */

int qcow1_resize(struct image *img, const struct resize_request *request,
                 struct platter_error *err);
int qcow1_may_set_backing(struct image *img, const char *name, const char *format,
                          const struct image *backing, struct platter_error *err);
int qcow1_set_backing(struct image *img, const char *name, const char *format,
                      const struct image *backing, struct platter_error *err);
int qcow1_make_empty(struct image *img, struct platter_error *err);
/* Another place for the L1 table, where its entries cannot be torn. Token and lock held; drops it.
 */
int qcow1_move_l1(struct image *img, struct platter_error *err);

extern const struct option_def qcow1_create_options[];
int qcow1_create(const struct create_request *request, struct platter_error *err);
int qcow1_measure(uint64_t size, uint64_t data, const struct option_values *options,
                  struct platter_measurement *ret, struct platter_error *err);
uint32_t qcow1_create_unit(const struct option_values *options);

#endif
