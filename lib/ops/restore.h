/* SPDX-License-Identifier: MIT */
/* Disks on their way out of an archive, which is read front to back, once. */
#ifndef OPS_RESTORE_H
#define OPS_RESTORE_H

#include <stdatomic.h>

#include "disk/disk.h"
#include "ops/archive.h"

/* A limit that outlets may have in common. */
struct rate {
    const char *group;
    uint64_t limit;             /* bytes a second */
    uint64_t next_ns;           /* what came so far is not too much then; the turn's */
    atomic_uint_fast64_t moved; /* bytes that were written since it was looked at */
};

/* Where one disk goes. */
struct outlet {
    const char *name;                /* of the disk */
    const struct archive_disk *disk; /* NULL: not known beforehand, it may come */
    /* One of the two: a disk as large as the one that comes, or larger; or a new file that becomes
     * as long as what comes. */
    struct platter_disk *to;
    struct stream *file;
    bool fills;        /* `to` may not read as zeros: they are written */
    struct rate *rate; /* or NULL */
    uint64_t end;      /* what came of the disk ends there; next()'s */
};

struct restore {
    struct platter_archive *archive;
    struct outlet *outlets;
    unsigned n;
    struct rate *rates;
    unsigned n_rates;
    unsigned workers; /* 0: as many as help */
    platter_progress_fn progress;
    void *opaque;
    uint64_t holes; /* how many ranges were told to be missing; set by restore_run() */
};

/* Reads the archive to its end; of all disks that have an outlet everything is written then, or
 * told to be missing. */
int restore_run(struct restore *restore, struct platter_error *err);

#endif
