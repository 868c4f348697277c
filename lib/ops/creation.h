/* SPDX-License-Identifier: MIT */
/* What the parts of platter_archive_create() share. */
#ifndef OPS_CREATION_H
#define OPS_CREATION_H

#include <platter/archive.h>

#include "base/memory.h"
#include "format/archive.h"
#include "ops/digest_file.h"

enum { CREATION_PIECE_NAME = 32 /* "platter.digest.12345" */ };

struct creation {
    const char *target;
    const struct platter_archive_plan *o;
    const struct format *format;
    struct budget *budget;
    struct archive_plan plan;
    struct archive_disk *disks;
    struct archive_config *configs; /* those of the caller, then the digests */
    /* Digests, with room for all nodes. */
    bool digests_wanted;
    struct digest_file digests;
    uint64_t nodes_taken; /* of the budget, for nodes and text */
    char *text;           /* of them, as the archive holds it; or NULL */
    size_t text_len;
    char (*piece_names)[CREATION_PIECE_NAME];
    bool twice;                  /* all is read for the digests before it is written */
    struct stream *stream;       /* what is written to */
    struct stream *file;         /* the bottom of it, which has a name; or NULL */
    struct stream *beside;       /* the file of digests; or NULL */
    struct stream *stale;        /* in the place of older digests, which go; or NULL */
    uint64_t done, moved, total; /* of the disks that are done, for progress */
};

/* What a disk has moved is only known from its progress. */
struct disk_progress {
    struct creation *c;
    uint64_t moved;
};

/* A platter_progress_fn over a struct disk_progress. */
int creation_tick(void *opaque, const struct platter_progress *now);
void creation_disk_done(struct disk_progress *p, uint64_t size);

/* ---- creation_identity.c -----------------------------------------------------------------------
 */

/* uuid and date. */
int creation_identify(struct creation *c, struct platter_error *err);

/* ---- creation_digest.c -------------------------------------------------------------------------
 */

/* Room for root and nodes of each disk, and for the text that they become. */
int creation_make_digests(struct creation *c, struct platter_error *err);
/* That text becomes configurations of the plan. */
int creation_embed_digests(struct creation *c, struct platter_error *err);
/* The text of the digests as they are now, which is always as long. */
int creation_print_digests(struct creation *c, struct platter_error *err);
/* Reads all disks for their digests alone. */
int creation_digest_all(struct creation *c, struct platter_error *err);

/* ---- creation_target.c -------------------------------------------------------------------------
 */

/* Nothing that is read may be replaced (rule 9). */
int creation_check_targets(const struct creation *c, struct platter_error *err);
int creation_open_target(struct creation *c, struct platter_error *err);
/* What was written is complete: it gets its name. */
int creation_publish(struct creation *c, struct platter_error *err);

#endif
