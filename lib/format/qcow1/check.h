/* SPDX-License-Identifier: MIT */
/*
 * The check of a QCOW version 1 inside. qcow.md sections 8, 10 and 12.
 *
 *   check.c        header, L1 table, L2 tables: what each entry may be
 *   check_space.c  what stands where: bytes that two clusters use, and bytes of nobody
 *   places.c       a set of ranges of the file, in bounded memory
 *
 * A repair keeps this order, so that it can be interrupted anywhere and begun anew: what is moved
 * stands durably at the end of the file before its entry leads there; space is given back when all
 * else is durable, only if nothing else is wrong, and not in a run that dropped an entry: it may be
 * all that is left of what that led to.
 */
#ifndef FORMAT_QCOW1_CHECK_H
#define FORMAT_QCOW1_CHECK_H

#include "format/qcow1/qcow1.h"

/* What open leaves for the check. */
struct qcow1_checkup {
    int code; /* why the header cannot be believed */
    struct platter_error why;
};

struct place {
    hoff from, end;
};

/* Ranges that are used, of [from, to) of the file: what there is no memory for is left to another
 * window, which begins at `to`. */
struct places {
    struct budget *budget;
    struct place *items;
    size_t n, max;
    hoff from, to;
    struct place *shared; /* bytes that were noted twice, of all windows so far */
    size_t n_shared;
    bool more_shared; /* than there is memory for */
};

/* An empty set, with as much memory as a file of that size may need and the budget has. */
int places_open(struct places *p, struct budget *budget, uint64_t file_size,
                struct platter_error *err);
void places_close(struct places *p);
void places_begin(struct places *p, hoff from); /* an empty window */
void places_add(struct places *p, hoff from, uint64_t len);
void places_finish(struct places *p); /* the window is complete: its items are sorted and apart */

/* An entry of an L2 table as the check comes by. */
struct checked_entry {
    goff guest;
    hoff at; /* where in the file it stands */
    uint64_t raw;
    struct qcow1_entry e; /* it makes sense */
};

/* Entries that keep the bytes which another one leads to as well, by where these are. */
struct claims {
    struct checked_entry *of;
    unsigned n;
};

struct space_check {
    struct image *img;
    struct check *check;
    hoff size;      /* of the file */
    hoff append;    /* where a repair puts things */
    uint8_t *table; /* the L2 table that is looked at */
    struct places places;
    hoff used_end;
    goff last_end; /* behind the last plain cluster in the file */
    bool mend;     /* entries */
    bool keep;     /* what seems to be nobody's may not be: a table is doubtful, or unread */
    bool dropped;  /* an entry */
    bool cut;      /* the file ends where what is used does: zeros go as well */
    bool changed;  /* what stands where is not what the first look saw */
    struct claims *claims;
};

/* Calls fn for all entries that make sense; with `judge` all others are told, and mended. */
typedef int (*entry_fn)(struct space_check *s, const struct checked_entry *x,
                        struct platter_error *err);
int qcow1_check_tables(struct space_check *s, bool judge, entry_fn fn, struct platter_error *err);
/* Writes an entry of a table: with `durable`, what was written before is durable first. */
int qcow1_mend_entry(struct space_check *s, hoff at, uint64_t raw, bool durable,
                     struct platter_error *err);
/* How many bytes of the file an entry needs. */
uint64_t qcow1_needed(const struct image *img, goff guest, const struct qcow1_entry *e);

/* check_space.c */
int qcow1_check_space(struct space_check *s, struct platter_error *err);
/* Gives back what nothing leads to, of an image that is open and flushed; nothing if something is
 * wrong with it. *ret_end is where the file ends then. No lock is held, and nobody else is at work.
 */
int qcow1_give_back(struct image *img, hoff *ret_end, struct platter_error *err);

int qcow1_open_for_check(struct image *img, struct platter_error *err);
int qcow1_check(struct image *img, struct check *c, struct platter_error *err);
int space_check_open(struct space_check *s, struct image *img, struct check *c,
                     struct platter_error *err);
void space_check_close(struct space_check *s);

#endif
