/* SPDX-License-Identifier: MIT */
/*
 * Tables of numbers, 8 bytes each and big endian: those that stay whole in memory (pointers.c) and
 * a cache of all others (slices.c). For formats whose changes are made by one thread at a time, the
 * holder of the format's token: "lock" is image->lock here, and is dropped over I/O.
 */
#ifndef FORMAT_TABLES_H
#define FORMAT_TABLES_H

#include "format/format.h"

/* Writes metadata and poisons on failure. Lock held; drops it. */
int image_meta_write(struct image *img, const void *bytes, size_t len, hoff off,
                     struct platter_error *err);

/* ---- tables of pointers kept whole in memory (pointers.c) ------------------------------------
 */

struct pointers {
    uint64_t *entries; /* n of them, as numbers; on the budget */
    uint32_t n;
    hoff off;       /* of the table in the file */
    uint8_t *dirty; /* a bit for each 512 bytes, which are written at once and torn by no crash */
    bool any_dirty;
};

/* A table of n entries, bounded by the caller, all 0 or read from the file. */
int pointers_new(struct image *img, struct pointers *p, hoff off, uint32_t n, const char *what,
                 struct platter_error *err);
int pointers_load(struct image *img, struct pointers *p, hoff off, uint32_t n, const char *what,
                  struct platter_error *err);
void pointers_free(struct image *img, struct pointers *p);
void pointers_set(struct pointers *p, uint32_t i, uint64_t value);
/* Writes all of it as a table at `off`. Token and lock held; drops the lock. Poisons on failure. */
int pointers_copy(struct image *img, const struct pointers *p, hoff off, struct platter_error *err);
/* Writes what changed. Token and lock held; drops the lock. Poisons on failure. */
int pointers_write(struct image *img, struct pointers *p, struct platter_error *err);

/* ---- the cache of table slices (slices.c) -------------------------------------------------------
 */

enum { SLICE_MAX = 64 << 10 /* bytes of a table that are read and written at once */ };
enum { SLICES_MOST = 16384, SLICES_CHUNK = 64 };

/* A slice of a table, as it stands in the file. A slot pointer is good until
 * the lock is next dropped: until the next call that may read or write. */
struct slice {
    hoff off; /* in the file; 0: the slot is empty */
    uint8_t *bytes;
    struct slice *next; /* in the bucket */
    bool used;          /* since the clock's hand last passed */
    bool loading;       /* being read without the lock: wait for `changed` */
    bool dirty;
};

struct slices {
    const char *what; /* "L2 table", "refcount block" */
    uint64_t table;   /* bytes of a table */
    uint32_t slice;   /* bytes of a slot: a table, or SLICE_MAX of it */
    uint32_t n, max;  /* slots with memory, and how many there may be */
    uint32_t hand;
    uint32_t n_dirty;
    uint32_t n_buckets;                               /* a power of two, and not less than n */
    struct slice **buckets;                           /* the first slot of each */
    struct slice *chunks[SLICES_MOST / SLICES_CHUNK]; /* of slots, which never move */
    pthread_cond_t *changed; /* the format's: a slot was loaded or written */
};

/* `table`: bytes of a whole table; `share`: most bytes that the cache takes of the budget. */
int slices_init(struct image *img, struct slices *c, pthread_cond_t *changed, const char *what,
                uint64_t table, uint64_t share, struct platter_error *err);
void slices_free(struct image *img, struct slices *c);
/* The slice at `off`, read if it is not there. Lock held; drops it to read.
 */
int slices_get(struct image *img, struct slices *c, hoff off, struct slice **ret,
               struct platter_error *err);
/* A new table of zeros at `off`: in memory, or in the file where a table is more than a slice.
 * Token and lock held; drops the lock. */
int slices_new(struct image *img, struct slices *c, hoff off, struct platter_error *err);
void slices_dirty(struct slices *c, struct slice *slot);
/* Forgets what it holds of the table at `off`, whose place holds something else now: to be called
 * when that is written, as a reader that came late may still load what stood there. Lock held;
 * drops it to wait for such a reader. */
void slices_forget(struct image *img, struct slices *c, hoff off);
/* Writes all dirty slices. Token and lock held; drops the lock. Poisons on failure. */
int slices_write(struct image *img, struct slices *c, struct platter_error *err);
/* Whether so many slices are dirty that readers might run out of clean ones. */
bool slices_full(const struct slices *c);

#endif
