/* SPDX-License-Identifier: MIT */
/*
 * Compaction inside: what its files share.
 *
 *   compact.c          the order of it all: rounds, and what ends them
 *   compact_plan.c     what must move, from the counts alone
 *   compact_room.c     free clusters in front, copies, and counts that go down later
 *   compact_entries.c  what L2 entries point at: data and compressed records
 *   compact_tables.c   L2 tables, L1 tables, snapshot table, refcount blocks and table
 *   compact_bitmaps.c  bitmap directory, tables and data
 *   compact_zeros.c    clusters that only hold zeros
 *
 * The file is to end where it would if all that is in use stood side by side (`target`). Whatever
 * stands behind that, the tail, moves to free clusters before it. No map of who refers to what is
 * needed: all tables are walked once, and every entry that leads into the tail is changed. Only
 * what several entries share is remembered, from the first of them to the last.
 *
 * Tables of several clusters need them side by side. For these a window before the target is
 * chosen, and evacuated like the tail.
 *
 * Each thing moves in the same order: its new place is counted, and its copy written, durably; then
 * the references are changed, each of them 8 bytes inside a sector, durably; then the counts of the
 * old place go down. Where there are several references both copies are whole and counted for all
 * of them until the last is changed. So a crash leaves the same image, and leaks at worst. What was
 * freed is not used again before the next round, or, in the window, after a barrier.
 */
#ifndef QCOW2_COMPACT_H
#define QCOW2_COMPACT_H

#include "format/qcow2/check.h"
#include "format/qcow2/snapshot.h"

/* ---- what is under way -------------------------------------------------------------------------
 */

/* Clusters side by side. */
struct compact_run {
    uint64_t first, n;
};

/* Counts that go down by `by` once nothing on the disk refers to the clusters. */
struct compact_lower {
    struct compact_run run;
    uint64_t by;
};

/* Something that moved, and that more than one entry may refer to: the number of a cluster, or the
 * descriptor of a compressed record. */
struct compact_item {
    uint64_t key;
    uint64_t to;    /* the new cluster, or the record's new offset */
    uint64_t given; /* clusters: the count the new one has, which is that of the old one */
    uint64_t seen;  /* ... and how many references were changed */
    uint32_t next;  /* in the bucket, index + 1 */
};

struct compact_map {
    struct compact_item *items;
    uint32_t *buckets; /* as many as there is room for items; index + 1 */
    uint32_t n, room;  /* a power of two */
};

/* A bitmap, as far as it takes place. */
struct compact_bitmap {
    hoff entry_at; /* of its directory entry in the file */
    hoff table;
    uint32_t n; /* entries */
};

/* A change of one slice of an L2 table, to be made when all it points at is copied. */
struct compact_change {
    uint32_t at;   /* of the entry, in the slice */
    uint64_t raw;  /* what it becomes */
    hoff from, to; /* to copy */
    uint64_t len;  /* bytes of that; 0: nothing is there */
    bool sealed;   /* it must be encrypted anew for its new place */
    /* To take it back: counts that the new place has for it, or what an item was told of. */
    struct compact_run run;
    uint64_t given;
    uint32_t item; /* index + 1 */
    uint64_t paths;
};

struct compact {
    struct image *img;
    struct qcow2 *q;
    struct compact_request *request;

    /* The plan, in clusters. */
    uint64_t used, end;          /* how many have a count; behind the last of them */
    uint64_t target;             /* where the tail begins */
    uint64_t window, window_end; /* to be evacuated for tables; equal: there is none */
    uint64_t window_next;        /* no table stands in it from here on */
    uint64_t to_move;
    struct compact_run *fixed; /* what must stay together, or where it is */
    uint32_t n_fixed, room_fixed;
    struct compact_bitmap *bitmaps;
    uint32_t n_bitmaps;

    /* Room. */
    struct compact_run run; /* counted, and not used yet */
    uint64_t next;          /* nothing is free before this one */
    struct compact_run packed_run;
    uint64_t packed_next[2]; /* the same for one cluster, and for several side by side */
    hoff packed_at;          /* where the next record may begin */
    uint64_t packed_fresh;   /* the first cluster of that run that no record touches */

    struct compact_lower *lower;
    uint32_t n_lower, room_lower, kept_lower; /* those before kept_lower do not change */
    uint32_t most_lower;                      /* how many may wait */
    struct compact_map map;
    bool unowned;         /* some entry may have a cluster alone that its flag calls shared */
    struct counts gone;   /* a dry run: references that would go; marked: all of a cluster */
    struct counts tables; /* L2 tables: how many L1 entries refer to each */
    uint8_t *slice;       /* of an L2 table */
    uint8_t *buffer;      /* for copies: a cluster or more */
    uint64_t buffer_size;
    struct compact_change *changes;
    uint32_t room_changes;

    uint64_t moved, moved_before; /* clusters, and those of former rounds */
};

static inline bool compact_must_go(const struct compact *c, uint64_t cluster)
{
    return cluster >= c->target || (cluster >= c->window && cluster < c->window_end);
}

static inline uint64_t compact_clusters(const struct compact *c, uint64_t bytes)
{
    return (bytes + c->q->cluster_size - 1) >> c->q->cluster_bits;
}

/* All of them are called with token and lock held, and may drop the lock. */

/* ---- compact.c ---------------------------------------------------------------------------------
 */

/* Tells how far it is; -ECANCELED when the caller has enough. */
int compact_tick(struct compact *c, struct platter_error *err);

/* ---- compact_plan.c ----------------------------------------------------------------------------
 */

/* How many clusters of [first, end) have a count; *ret_end is behind the last one, or 0. */
int compact_count(struct compact *c, uint64_t first, uint64_t end, uint64_t *ret_used,
                  uint64_t *ret_end, struct platter_error *err);
/* Sets what is in use and where that ends. */
int compact_measure(struct compact *c, struct platter_error *err);
/* Decides what must move; c->to_move is 0 where nothing can be won. After compact_measure(). */
int compact_plan(struct compact *c, struct platter_error *err);
/* Clusters that the refcount table needs for its first n entries. */
uint32_t compact_reftable_needs(const struct compact *c, uint64_t n);

/* ---- compact_room.c ----------------------------------------------------------------------------
 */

/* A free cluster in front, counted once; 0: there is none. */
int compact_take(struct compact *c, uint64_t *ret, struct platter_error *err);
/* Room for a table: a free cluster, or several in the window; 0: there is none. */
int compact_take_table(struct compact *c, uint64_t n, uint64_t *ret, struct platter_error *err);
/* Room for a record of len bytes that stood at `off`, counted `paths` times in the clusters *ret
 * touches; *ret 0: there is none. */
int compact_take_packed(struct compact *c, hoff off, uint64_t len, uint64_t paths, hoff *ret,
                        struct platter_error *err);
/* Gives back what was taken of these and not used. */
int compact_end_room(struct compact *c, struct platter_error *err);

/* Copies inside the file; zeros take no room. `sealed`: what is encrypted for its place. */
int compact_copy(struct compact *c, hoff from, hoff to, uint64_t len, bool sealed,
                 struct platter_error *err);

/* Where most_lower wait they must be settled; until then there is room for one each entry of a
 * slice more. */
void compact_lower(struct compact *c, uint64_t first, uint64_t n, uint64_t by);
/* All that was changed is durable, in the order above, and the counts go down that waited. */
int compact_settle(struct compact *c, struct platter_error *err);
/* Writes a field of the header or of a table, which is durable then; what it speaks of must be. */
int compact_switch(struct compact *c, const void *field, size_t len, hoff at,
                   struct platter_error *err);

/* Whether there is room for one more item. */
bool compact_map_room(struct compact *c);
struct compact_item *compact_map_find(const struct compact *c, uint64_t key);
struct compact_item *compact_map_add(struct compact *c, uint64_t key, uint64_t to, uint64_t given);
/* Everything is durable: counts of the clusters in the map are made what they are. */
int compact_map_end(struct compact *c, struct platter_error *err);
/* Flags of what was shared, and has one reference now, say so. */
int compact_own(struct compact *c, struct platter_error *err);

/* ---- the things that move ----------------------------------------------------------------------
 */

/* Counts the L1 entries that refer to each L2 table. */
int compact_count_tables(struct compact *c, struct platter_error *err);
/* Calls fn for every L2 table that was counted, once, with the guest offset it begins with and how
 * many L1 entries refer to it. The counts are gone then. */
int compact_each_table(struct compact *c,
                       int (*fn)(struct compact *c, hoff table, goff guest, uint64_t paths,
                                 struct platter_error *err),
                       struct platter_error *err);
/* A copy of a slice of an L2 table, in c->slice; and that put back in its place. */
int compact_slice_get(struct compact *c, hoff off, struct platter_error *err);
int compact_slice_put(struct compact *c, hoff off, struct platter_error *err);

int compact_entries(struct compact *c, struct platter_error *err);
int compact_zeros(struct compact *c, struct platter_error *err);
int compact_l2_tables(struct compact *c, struct platter_error *err);
/* A copy, durable, of a table of so many bytes that must go and has `several` clusters, or has not;
 * *ret_to is 0 where it stays. And giving back a place that nothing names. */
int compact_copy_table(struct compact *c, hoff off, uint64_t bytes, bool several, hoff *ret_to,
                       struct platter_error *err);
int compact_free_table(struct compact *c, hoff off, uint64_t bytes, struct platter_error *err);
/* Tables of one cluster, or of several. */
int compact_tables(struct compact *c, bool several, struct platter_error *err);
int compact_blocks(struct compact *c, struct platter_error *err);
/* Gives back what the refcount table has behind its last entry, in whole clusters. */
int compact_shorten_reftable(struct compact *c, bool *ret_shorter, struct platter_error *err);

/* Reads the directory into c->bitmaps. */
int compact_bitmaps_load(struct compact *c, struct platter_error *err);
void compact_bitmaps_forget(struct compact *c);
int compact_bitmap_data(struct compact *c, struct platter_error *err);
int compact_bitmap_tables(struct compact *c, bool several, struct platter_error *err);

int qcow2_compact(struct image *img, struct compact_request *request, struct platter_error *err);

#endif
