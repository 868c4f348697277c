/* SPDX-License-Identifier: MIT */
/* What the parts of an extraction share: extract_plan.c, extract.c and extract_spool.c. */
#ifndef OPS_EXTRACT_INSIDE_H
#define OPS_EXTRACT_INSIDE_H

#include "ops/extract.h"
#include "ops/target.h"

/* What one disk is extracted to. */
struct exit {
    struct platter_extract_target q;
    const struct archive_disk *disk; /* NULL: one that may come (archive_disk.unsized) */
    const struct format *format;     /* of a new image */
    struct target_request request;
    struct target target; /* if there is one */
    bool has_target;
    struct platter_disk *to; /* the image, open for writing */
    struct stream *spool;    /* the temporary raw file */
    char *spool_name;
    struct outlet *outlet;
};

struct extraction {
    struct platter_archive *archive;
    const struct platter_extract_options *o;
    struct exit *exits;
    struct restore restore;
    uint64_t memory;      /* bytes for each target */
    uint64_t told, total; /* progress: what earlier steps have done, and all there is to do */
};

/* Whether it becomes as long as what comes. */
static inline bool grows(const struct exit *x)
{
    return !x->disk || x->disk->state || x->disk->unsized;
}

static inline bool is_existing(const struct exit *x)
{
    return x->q.flags & PLATTER_EXTRACT_EXISTING;
}

/* Finds the disks that are asked for, and looks at what is wanted of each; opens nothing. */
int extract_plan(struct extraction *job, struct platter_error *err);
/* Opens the target of a new image of a disk of `size` bytes. */
int extract_target(const struct extraction *job, struct exit *x, uint64_t size,
                   struct platter_error *err);
/* Copies disks out of their temporary raw files, which are complete, into their images. */
int extract_spooled(struct extraction *job, struct platter_error *err);

#endif
