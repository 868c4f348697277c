/* SPDX-License-Identifier: MIT */
/* The only mover of whole disks: a walk over sources that ends in a sink. */
#ifndef OPS_COPY_H
#define OPS_COPY_H

#include "ops/sink.h"
#include "ops/sources.h"

enum {
    COPY_SPARSE = 4096,    /* copy.sparse where nobody says otherwise: qemu-img's */
    COPY_MEMORY = 64 << 20 /* bytes of buffers, likewise */
};

/* What becomes of ranges that hold no data. */
enum copy_gaps {
    COPY_GAPS_SKIP, /* the target reads as zeros where nothing is written */
    COPY_GAPS_ZERO, /* it may not: zeros are written, or marked */
    /* The target shows a backing file: only what differs from it is written, and what the image on
     * top of the target stores itself stays. */
    COPY_GAPS_DIFFER,
    /* The target shows the sources, and is to hold them: what the image on top of it stores itself
     * stays, and the rest is filled in (sink_fill_open()). */
    COPY_GAPS_FILL
};

struct copy {
    struct sources *sources;
    struct sink *sink;
    struct budget *budget; /* buffers draw on it */
    enum copy_gaps gaps;
    struct platter_disk *target; /* COPY_GAPS_DIFFER, FILL: what the target shows so far */
    bool zeros;                  /* FILL: where the sources have none, zeros are marked as well */
    /* NULL, or the only ranges that are copied, for the target has the rest: the first one at `off`
     * or behind it; 1, or 0 where there is none any more. Asked in ascending order. */
    int (*only)(void *opaque, goff off, goff *ret_start, uint64_t *ret_len,
                struct platter_error *err);
    void *only_opaque;
    /* NULL, or, of a source whose size is not known beforehand, called in the order of the disk
     * before what lies in front of `size` is copied, for the target to have room; `last`: that is
     * the size, in whole units of size_unit bytes. */
    int (*grow)(void *opaque, uint64_t size, bool last, struct platter_error *err);
    void *grow_opaque;
    uint32_t size_unit;
    unsigned above;  /* 0: the whole chain; else only so many images of the source */
    uint64_t sparse; /* shortest run of zeros that is not stored; 0: all is stored */
    /* What cannot be read is told and passed over; FILL: and is left absent, until too much of it
     * in a row cannot be. */
    bool salvage;
    unsigned workers;
    uint64_t rate;
    platter_progress_fn progress;
    platter_hole_fn hole;
    void *opaque;
};

/* Copies everything and finishes the sink. *ret_holes counts what a salvage left out. */
int copy_run(const struct copy *c, uint64_t *ret_holes, struct platter_error *err);
/* copy_run() from one disk to another, with the sources, sink and budget that takes filled in.
 * `open` (or NULL): how they were opened; its memory_limit goes for the buffers as well. */
int copy_disk(struct copy *c, struct platter_disk *from, struct platter_disk *to,
              const struct platter_open_options *open, struct platter_error *err);

#endif
