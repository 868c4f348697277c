/* SPDX-License-Identifier: MIT */
/*
 * A snapshot that is made, applied or deleted in a qcow2 that has others, or all of it moved to the
 * front of the file, or parts of the disk given up for what is below; and writes behind it.
 * What becomes of it is judged without the library's own idea of snapshots: the table is read here,
 * and a snapshot becomes the disk by a header that names its L1 table.
 */
#ifndef SUPPORT_SNAPSHOTS_H
#define SUPPORT_SNAPSHOTS_H

#include "support/specimen.h"

enum change { CHANGE_CREATE, CHANGE_APPLY, CHANGE_DELETE, CHANGE_COMPACT, CHANGE_UNCOVER, CHANGES };

extern const char *const change_names[CHANGES];

/* How far it came. */
enum change_stage {
    CHANGE_BEGUN,  /* it may be done or not */
    CHANGE_DONE,   /* it is; writes may follow */
    CHANGE_CLOSED, /* they are all there */
    CHANGE_REFUSED /* it could not be done, and nothing may have changed */
};

struct disk_content {
    uint64_t size;
    uint8_t *bytes;
};

struct snapshot_case {
    struct specimen specimen;
    enum change change;
    bool overflows; /* a count cannot take one more snapshot: it must be refused */
    struct buffer before;
    struct disk_content now, first, second; /* the disk, and snapshots "first" and "second" */
    struct disk_content changed;            /* the disk when only the change is done */
    struct disk_content after;              /* ... when all is */
    uint64_t leaks;                         /* that were there before */
    uint8_t *scratch;                       /* room for a disk */
};

/* False: images like that cannot have two snapshots. */
bool snapshot_case_make(const struct specimen_spec *spec, enum change change,
                        struct snapshot_case *ret);
void snapshot_case_free(struct snapshot_case *c);

/* Opens, changes, calls done() (unless NULL), writes, flushes and closes; takes `top`. */
int snapshot_case_run(const struct snapshot_case *c, struct stream *top, void (*done)(void *opaque),
                      void *opaque, struct platter_error *err);

/* Whether an image is what it may be at a stage; if not, `why` tells. */
bool snapshot_case_judge(const struct snapshot_case *c, struct buffer *image,
                         enum change_stage stage, char *why, size_t why_size);

/* Whether it can be worked on: deletes, applies and writes on a copy, and judges that. */
bool snapshot_case_go_on(const struct snapshot_case *c, const struct buffer *image, char *why,
                         size_t why_size);

/* All changes of the specimens that the arguments name, or of all that qcow2 has: what main()
 * returns. run_case() gives 0 where all is well, and where there is no such case. */
int snapshot_case_main(int argc, char **argv,
                       int (*run_case)(const struct specimen_spec *spec, enum change change));

#endif
