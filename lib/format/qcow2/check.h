/* SPDX-License-Identifier: MIT */
/*
 * The check of a qcow2 inside (section 18): what its files share.
 *
 *   check.c            the order of it all, and what the header says
 *   check_counts.c     how often each host cluster is referred to, counted in little memory
 *   check_snapshots.c  the snapshot table
 *   check_tables.c     L1 tables, and which clusters are L2 tables
 *   check_entries.c    L2 entries
 *   check_bitmaps.c    bitmap directory, tables and data
 *   check_refcounts.c  refcount table and blocks: what they say against what was counted
 *   check_copied.c     bit 63 of the active tables
 *   repair.c           the marks of a repair in the header, and room behind the end of the file
 *   rebuild.c          refcount table and blocks made anew
 *
 * Who is right where two claim one cluster: the header and the tables that all else hangs on come
 * first, then L2 tables, then guest data, then bitmaps, and the reference counts last, which can be
 * made anew from the others.
 *
 * A repair can be cut off anywhere and begun anew. The dirty bit is set before its first change.
 * Entries are mended in place, each inside one sector; what is made anew is written behind the end
 * of the file, or where that cannot grow behind all that is in use, and is durable before the
 * header names it; counts go down only when the references are durably gone.
 */
#ifndef QCOW2_CHECK_H
#define QCOW2_CHECK_H

#include "format/qcow2/qcow2.h"

/* ---- counts (check_counts.c) -------------------------------------------------------------------
 */

enum { COUNT_CHUNK_BITS = 15 };

/* What a cluster is, beside being referred to. */
enum count_mark {
    MARK_FIXED,  /* header, L1 table, snapshot table, LUKS header: what cannot be shared */
    MARK_L2,     /* an L2 table */
    MARK_WALKED, /* an L2 table whose entries were counted */
    MARK_OTHER,  /* it was looked at, and is no L2 table */
    MARK_FLAGS,  /* an L2 table whose flags were judged */
    MARK_KINDS
};

struct count_chunk {
    void *counts; /* or NULL: all 0 */
    uint64_t *marks[MARK_KINDS];
    unsigned width; /* of a count: 1, 8 or 32 bits */
};

/*
 * Counts of the clusters [first, limit). A count takes a bit until it is more than 1, and only for
 * pieces of the file that are referred to at all. Where the memory does not do all the same, the
 * highest pieces are forgotten and `limit` goes down: they are for another pass.
 */
struct counts {
    struct budget *budget;
    uint64_t first, limit;
    uint64_t next; /* the first cluster behind limit that was counted; UINT64_MAX: none was */
    bool cut;      /* limit went down */
    bool shared;   /* some count is more than 1 */
    uint64_t n_chunks;
    struct count_chunk *chunks;
};

int counts_open(struct counts *c, struct budget *budget, uint64_t first, struct platter_error *err);
void counts_close(struct counts *c);
/* Adds `by` to n clusters; what is outside is passed over, and what is behind noted in `next`.
 * Saturates at UINT32_MAX. */
int counts_add(struct counts *c, uint64_t cluster, uint64_t n, uint64_t by,
               struct platter_error *err);
/* Takes back counts_add(.., 1). */
void counts_take(struct counts *c, uint64_t cluster, uint64_t n);
uint64_t counts_get(const struct counts *c, uint64_t cluster); /* 0 outside */
bool counts_inside(const struct counts *c, uint64_t cluster);
/* Whether some cluster of a range has a count. */
bool counts_any(const struct counts *c, uint64_t cluster, uint64_t n);
/* A bit for each of 64 clusters (cluster % 64 == 0); false: some count may be more than 1. */
bool counts_word(const struct counts *c, uint64_t cluster, uint64_t *ret);
int counts_mark(struct counts *c, enum count_mark mark, uint64_t cluster, uint64_t n,
                struct platter_error *err);
bool counts_marked(const struct counts *c, enum count_mark mark, uint64_t cluster);
/* Whether some cluster of a range is a table, which no data may be. */
bool counts_table(const struct counts *c, uint64_t cluster, uint64_t n);
/* Behind the last cluster that has a count; 0: none has. */
uint64_t counts_end(const struct counts *c);

/* ---- the check ---------------------------------------------------------------------------------
 */

struct check_snapshot {
    hoff at;      /* of the entry in the file */
    uint32_t len; /* bytes there, without padding */
    hoff l1_offset;
    uint32_t l1_size;
    uint32_t extra; /* bytes of extra data */
    uint64_t disk_size;
    bool stray;   /* the table it stands in is another one */
    bool drop;    /* it cannot be kept */
    bool rewrite; /* its extra data must change, or the disk size in it */
};

/* What hangs on an L1 table. */
struct check_tree {
    hoff l1;
    uint32_t n;
    int snapshot; /* its number, -1: the active table */
};

struct qcow2_check {
    struct check *check;
    struct image *img;
    struct qcow2 *q;
    const char *name;
    bool mend;    /* tables */
    bool raise;   /* counts may go up, or be made anew */
    bool lower;   /* ... and down, if nothing else is wrong */
    bool begun;   /* the repair has changed something */
    bool changed; /* ... that is not durable yet */
    bool first_pass;
    bool quiet;                              /* an open that repairs: there is nobody to tell */
    bool stray_bit;                          /* an autoclear bit speaks of what is not there */
    const struct platter_error *bad_bitmaps; /* why that extension is none; or NULL */
    const char *bad_reftable;                /* why the refcount table is none; or NULL */
    bool doubtful;    /* some L2 table or entry is wrong, be it told in this pass or in another */
    bool overflow;    /* some count cannot hold what was counted */
    bool zeros;       /* the table that was read last is empty: qcow2_check_hole() */
    int failed;       /* something could not be read: nothing is concluded from that */
    hoff end;         /* of the file, whole clusters; a repair appends */
    uint64_t made_at; /* the first cluster behind what the file had */
    struct counts counts;
    struct check_snapshot *snapshots;
    uint32_t n_snapshots, room_snapshots;
    uint64_t snapshots_size; /* bytes of their table */
    uint8_t *l1;             /* a piece of an L1 or bitmap table */
    uint8_t *table;          /* an L2 table, or a slice of a refcount block */
    uint64_t *reftable;      /* entries as they are in the file; NULL: there is none */
    uint32_t n_reftable;
    bool counted_table;      /* the table was counted as in use */
    uint8_t *counted_blocks; /* ... and these blocks: a bit for each */
    bool rebuild;            /* refcounts must be made anew */
    bool unowned;            /* some active entry has bit 63 clear */
    bool shared;             /* some count is more than 1, or not known */
    bool mismatch;           /* some stored count is not what was counted */
    uint64_t used;           /* behind the last cluster that is referred to or counted */
    uint64_t used_there;     /* ... and that the file has */
    uint64_t done, total;    /* entries of L1 tables: how far the walk over the data has come */
    /* The stored count that was read last: check_copied.c. */
    hoff slice_at;
    uint8_t *slice;
};

enum { CHECK_PIECE = 64 << 10 }; /* bytes of `l1` and `slice` */

#define CHECK_ERROR(k, mended, ...)                                                                \
    check_found((k)->check, PLATTER_FINDING_ERROR, mended, 1, __VA_ARGS__)
#define CHECK_NOTE(k, ...) check_found((k)->check, PLATTER_FINDING_NOTE, false, 1, __VA_ARGS__)

/* Reads what a table has; the file may end inside a cluster. 1: it could not be read, which is told
 * and kept; else 0, or negative. */
int qcow2_check_read(struct qcow2_check *k, void *bytes, size_t len, hoff off,
                     struct platter_error *err);
/* Whether [off, off + len) is at whole clusters of the file (the last one may be cut), and not the
 * header; NULL, or why it is not. */
const char *qcow2_check_place(const struct qcow2_check *k, hoff off, uint64_t len);
/* Whether [off, off + len), a good place, is in the file to its end, which may be cut inside of its
 * last cluster. If not, that is told if `tell` says so, and a repair makes the file longer. */
int qcow2_check_whole(struct qcow2_check *k, bool tell, const char *what, hoff off, uint64_t len,
                      struct platter_error *err);
uint64_t qcow2_check_clusters(const struct qcow2_check *k, hoff off, uint64_t len);
/* How many bytes from `off` on, `len` at most, the file has nothing for. Asked only where the table
 * before was empty, too: a file that claims to be huge must not be read for that. */
uint64_t qcow2_check_hole(const struct qcow2_check *k, hoff off, uint64_t len);

int qcow2_check(struct image *img, struct check *c, struct platter_error *err);
/* What an image that was not closed cleanly needs before it is written to: its counts made right.
 * Fails if it needs more than that. */
int qcow2_repair_dirty(struct image *img, struct platter_error *err);

/* ---- repair.c ----------------------------------------------------------------------------------
 */

/* Before the first change. */
int qcow2_repair_begin(struct qcow2_check *k, struct platter_error *err);
/* Writes metadata; the header says before that a repair is under way. */
int qcow2_repair_write(struct qcow2_check *k, const void *bytes, size_t len, hoff off,
                       struct platter_error *err);
/* What was written is durable before what follows. */
int qcow2_repair_barrier(struct qcow2_check *k, struct platter_error *err);
/* The file gets the rest of its last cluster. */
int qcow2_repair_fill(struct qcow2_check *k, struct platter_error *err);
/* A switch of the header to what was made is to follow: all before it is durable. */
int qcow2_repair_settle(struct qcow2_check *k, struct platter_error *err);
/* Room for `len` bytes behind the end of the file. */
int qcow2_repair_append(struct qcow2_check *k, uint64_t len, hoff *ret, struct platter_error *err);
/* Another cluster 0, durably, with other bitmaps or without; fields of the header are as in
 * k->q->header. `n` 0: no bitmaps. */
int qcow2_repair_bitmaps_extension(struct qcow2_check *k, uint32_t n, hoff directory, uint64_t size,
                                   struct platter_error *err);
/* Takes the marks of an unclean end away, if nothing is wrong any more. */
int qcow2_repair_end(struct qcow2_check *k, struct platter_error *err);

/* ---- check_snapshots.c -------------------------------------------------------------------------
 */

int qcow2_check_snapshots(struct qcow2_check *k, struct platter_error *err);
/* Counts the table, and L1 tables of snapshots; in the first pass they are judged, and what cannot
 * be kept leaves the table. */
int qcow2_check_snapshot_tables(struct qcow2_check *k, struct platter_error *err);

/* ---- check_tables.c, check_entries.c -----------------------------------------------------------
 */

/* Counts the tables: L1, and which clusters are L2 tables. */
int qcow2_check_tables(struct qcow2_check *k, struct platter_error *err);
/* Counts what L2 tables point at. */
int qcow2_check_data(struct qcow2_check *k, struct platter_error *err);
/* The L1 entry as it should be, and why it is not; NULL: nothing is wrong. *ret_always: told in
 * each pass, as it depends on what is counted. */
const char *qcow2_check_l1_entry(const struct qcow2_check *k, uint64_t raw, uint64_t *ret,
                                 bool *ret_always);
/* Reads an L2 table into k->table; *ret_empty: it has nothing in it, and k->table need not have it.
 * 1: it could not be read. */
int qcow2_check_read_table(struct qcow2_check *k, hoff off, bool *ret_empty,
                           struct platter_error *err);
/* Whether a table that is no L2 table stands at `off`: for what this pass does not count. */
bool qcow2_check_is_fixed(const struct qcow2_check *k, hoff off);
/* Whether the cluster in k->table may be an L2 table. */
bool qcow2_check_is_table(const struct qcow2_check *k);
/* The entries of the L2 table in k->table, which `by` L1 entries point at. */
int qcow2_check_l2_table(struct qcow2_check *k, const struct check_tree *t, uint64_t index,
                         hoff off, uint64_t by, struct platter_error *err);
/* Calls fn for each tree, the active one first. */
int qcow2_check_trees(struct qcow2_check *k,
                      int (*fn)(struct qcow2_check *k, const struct check_tree *t,
                                struct platter_error *err),
                      struct platter_error *err);

/* ---- check_bitmaps.c ---------------------------------------------------------------------------
 */

int qcow2_check_bitmaps(struct qcow2_check *k, struct platter_error *err);

/* ---- check_refcounts.c, rebuild.c --------------------------------------------------------------
 */

/* What is wrong with its place is kept in k->bad_reftable. */
int qcow2_check_load_reftable(struct qcow2_check *k, struct platter_error *err);
/* Whether all counts may be made anew: only where nothing else stays wrong, as what is not known to
 * be in use would be free. */
bool qcow2_check_may_rebuild(const struct qcow2_check *k);
/* Judges and counts refcount table and blocks; sets k->rebuild where one cannot be used. */
int qcow2_check_reftable(struct qcow2_check *k, struct platter_error *err);
/* Compares the counts of this pass, and mends them. */
int qcow2_check_compare(struct qcow2_check *k, struct platter_error *err);
/* Before data is counted: marks what surely are refcount table and blocks, so that data that claims
 * their place is known to be wrong, and not they. */
int qcow2_check_sure_refcounts(struct qcow2_check *k, struct platter_error *err);
void qcow2_check_forget_counted(struct qcow2_check *k);
void qcow2_check_forget_reftable(struct qcow2_check *k);
/* Where the block i stands; 0: there is none that can be used. */
hoff qcow2_check_block(const struct qcow2_check *k, uint64_t i);
int qcow2_check_rebuild(struct qcow2_check *k, struct platter_error *err);

/* ---- check_copied.c ----------------------------------------------------------------------------
 */

/* The count that the file has for a cluster. 1: it could not be read, which is told. */
int qcow2_check_stored(struct qcow2_check *k, uint64_t cluster, uint64_t *ret,
                       struct platter_error *err);
int qcow2_check_copied(struct qcow2_check *k, bool mend, struct platter_error *err);

#endif
