/* SPDX-License-Identifier: MIT */
/* What changing, comparing and copying internal snapshots share (sections 9 and 10). */
#ifndef QCOW2_SNAPSHOT_H
#define QCOW2_SNAPSHOT_H

#include "base/teller.h"
#include "format/qcow2/qcow2.h"

/* ---- all that is below an L1 table (tree.c) ----------------------------------------------------
 */

/* How far a change that is several walks has come, in entries of L1 tables. */
struct qcow2_walks {
    struct teller *teller; /* or NULL */
    uint64_t done, total;
    bool sure; /* it is made, and cannot be cancelled any more */
};

/* `more` entries are done: tells, and asks whether to go on, unless it is too late for that. Lock
 * held; drops it. */
int qcow2_walks_tell(struct image *img, struct qcow2_walks *w, uint32_t more,
                     struct platter_error *err);

/* An L1 table, or a part of one: the active one in memory, or one in the file, of which a piece is
 * held. Bit 63 is believed nowhere. */
struct qcow2_tree {
    const uint64_t *entries; /* or NULL: at `off` in the file */
    hoff off;
    uint32_t base; /* the number in its table of the first of them */
    uint32_t n;
    struct qcow2_walks *walks; /* or NULL: nobody is told */
    uint32_t first, held;      /* the entries that `piece` has */
    uint8_t piece[4096];
};

struct qcow2_tree qcow2_tree_of(const struct pointers *l1);
struct qcow2_tree qcow2_tree_of_snapshot(const struct qcow2_snapshot *s);
/* Where the L2 table of entry i stands; 0: there is none. Lock held; drops it to read. */
int qcow2_tree_table(struct image *img, struct qcow2_tree *t, uint32_t i, hoff *ret,
                     struct platter_error *err);

/*
 * Adds 1 to the count of everything below, or takes 1 away and gives what is free then back to the
 * host: an L2 table once for each L1 entry, what its entries hold once for each path; of a data
 * file, which has no counts, the space goes. *done counts
 * the steps; the first that fails ends it, and whoever takes back as many steps is where he was.
 * The tables must be on the disk as they are in memory. Token and lock held; drops the lock.
 */
int qcow2_tree_count_up(struct image *img, struct qcow2_tree *t, uint64_t *done,
                        struct platter_error *err);
int qcow2_tree_count_down(struct image *img, struct qcow2_tree *t, uint64_t steps,
                          struct platter_error *err);
/* Takes bit 63 out of all entries of the L2 tables below, in memory: they are shared. Token and
 * lock held; drops the lock. */
int qcow2_tree_share(struct image *img, struct qcow2_tree *t, struct platter_error *err);
/* Sets bit 63 in the active tables, in memory, wherever a count is 1 and durable. Token and lock
 * held; drops the lock. */
int qcow2_tree_own(struct image *img, struct qcow2_walks *walks, struct platter_error *err);

/* ---- the table (snapshot_table.c) --------------------------------------------------------------
 */

/* A list that is to become the image's: n entries, of which all but the last `room` are the
 * image's. */
int qcow2_snapshots_copy(struct image *img, uint32_t n, struct qcow2_snapshot **ret,
                         struct platter_error *err);
/* Writes a list and has the header point at it, durably; it belongs to the image then, and *list is
 * NULL, also where the old one could not be given back (an error). What it points at must be
 * durable. Token and lock held; drops the lock. */
int qcow2_snapshots_write(struct image *img, struct qcow2_snapshot **list, uint32_t n,
                          struct platter_error *err);
/* Has the header name another table, durably, by one write of twelve bytes; what is there must be
 * durable. The list in memory is the caller's. Lock held; drops it. Poisons where that failed. */
int qcow2_snapshots_switch(struct image *img, uint32_t n, hoff off, struct platter_error *err);
void qcow2_snapshot_free(struct image *img, struct qcow2_snapshot *s);
/* Whether the L1 table of a snapshot, and its disk's size, can be. */
int qcow2_snapshot_check(const struct image *img, const struct qcow2_snapshot *s,
                         struct platter_error *err);
/* The snapshot that is meant: `by` is as in platter_snapshot_apply(); 0: an id, or a name (section
 * 9.1). NULL and a sentence if there is none. */
const struct qcow2_snapshot *qcow2_snapshot_get(const struct image *img, const char *name,
                                                unsigned by, struct platter_error *err);

/* Whether an image can have any. */
int qcow2_snapshots_possible(const struct image *img, struct platter_error *err);

/* ---- the machine's state (snapshot_state.c) ----------------------------------------------------
 */

/* Whether the tables that are open reach over a state behind a disk of that size. */
bool qcow2_state_fits(const struct image *img, uint64_t disk_size, uint64_t len);
int qcow2_state(const struct image *img, goff *ret_start, uint64_t *ret_len,
                struct platter_error *err);
int qcow2_state_room(struct image *img, uint64_t len, goff *ret_start, struct platter_error *err);
int qcow2_state_drop(struct image *img, struct platter_error *err);

/* ---- differences (snapshot_diff.c) -------------------------------------------------------------
 */

int qcow2_diff_open(struct image *img, const char *from, const char *to, struct snapshot_diff **ret,
                    uint64_t ret_sizes[2], struct platter_error *err);
int qcow2_diff_next(struct snapshot_diff *d, goff off, struct snapshot_difference *ret,
                    struct platter_error *err);
void qcow2_diff_close(struct snapshot_diff *d);

extern const struct snapshot_ops qcow2_snapshot_ops;

#endif
