/* SPDX-License-Identifier: MIT */
/*
 * Work that changes the shape of images: resize, commit, rebase, amend. A case is a few small
 * images in memory, VMDKs and qcow laid out by hand or qcow2 made by qemu-img, and one operation on
 * them. Whatever becomes of the operation, a guest must see the disk it had before, at its old size
 * or at its new one.
 */
#ifndef SUPPORT_RESHAPE_H
#define SUPPORT_RESHAPE_H

#include "disk/disk.h"
#include "support/buffer.h"

enum reshape_file {
    FILE_CHILD, /* the image that the operation is done on */
    FILE_BASE,  /* its parent */
    FILE_OTHER, /* what it is rebased on */
    FILE_FIRST, /* extents of the child, where it is split */
    FILE_LAST = FILE_FIRST + 3,
    RESHAPE_FILES
};

enum {
    RESHAPE_PIECE = 1024,    /* sectors of the pieces of a split VMDK */
    RESHAPE_LARGE = 72 << 11 /* sectors: more than one sector of a grain directory is for */
};

enum reshape_kind { RESHAPE_RESIZE, RESHAPE_COMMIT, RESHAPE_REBASE, RESHAPE_AMEND };

struct reshape_case {
    const char *name;
    enum reshape_kind kind;
    uint64_t size, base_size, other_size; /* sectors of the disks; 0: there is none */
    uint64_t to;                          /* RESIZE: sectors afterwards */
    bool zeroed;                          /* tables may mark zeros */
    bool split, flat;                     /* the child is in pieces of PIECE sectors */
    bool open_end;                        /* it does not store its last sectors */
    const char *qcow2;                    /* all are qcow2, made with these options */
    unsigned cluster_bits, l2_bits;       /* all are qcow version 1; without either: VMDK */
    const char *child;                    /* qcow2: more options, of the child alone; or NULL */
    bool data_file;                       /* one of them is data_file=child-s001.vmdk */
    bool raw;                             /* which is the disk as it is */
    bool snapshot;                        /* qcow2: the child has one, most of which it shares */
    const char *amend;                    /* AMEND: the options */
    enum platter_preallocation preallocation; /* RESIZE */
    bool late_name; /* qcow: the name of the child's parent stands behind its data */
    bool leftovers; /* the child's file has room and entries as far as it grows */
};

/* A list of them that ends with .name = NULL. */
extern const struct reshape_case reshape_cases[];

struct reshape {
    const struct reshape_case *of;
    struct buffer files[RESHAPE_FILES]; /* as they are before; bytes NULL: there is none */
    uint8_t *content;                   /* what the guest sees */
};

/* Where an operation runs. */
struct reshape_place {
    struct buffer *files;      /* the operation's own copies; those without bytes may be made */
    bool there[RESHAPE_FILES]; /* which have their names */
    /* Wraps the stream of a file, or NULL. Takes `base`, on failure as well. */
    int (*wrap)(struct reshape_place *place, enum reshape_file file, struct stream *base,
                struct stream **ret, struct platter_error *err);
    void (*published)(struct reshape_place *place, enum reshape_file file); /* or NULL */
    void *opaque;
};

struct reshape reshape_make(const struct reshape_case *of);
void reshape_free(struct reshape *r);

/* The images of cases that are qcow2, and qcow. */
struct buffer reshape_qcow2_new(const char *options, uint64_t sectors, const char *parent);
void reshape_qcow2_snapshot(struct buffer *b);
struct buffer reshape_qcow_new(const struct reshape_case *of, uint64_t sectors, const char *parent);
void reshape_qcow_move_name(struct buffer *b); /* to its end */
/* Whether its counts and tables fit each other; leaks are fine. */
bool reshape_image_judge(const char *format, const struct buffer *b, char *why, size_t why_size);

/* Copies of the files with room to grow, in a place without anything special. */
struct reshape_place reshape_place_of(const struct buffer *files, struct buffer *copies);

/* The operation. */
int reshape_run(const struct reshape *r, struct reshape_place *place, struct platter_error *err);

/* Whether a guest sees what it must; if not, `why` tells. `done`: the operation has succeeded. */
bool reshape_judge(const struct reshape *r, struct reshape_place *place, bool done, char *why,
                   size_t why_size);

/* The cases that the arguments name, or all of them: what main() returns. run_case() gives 0 where
 * all is well. */
int reshape_main(int argc, char **argv, int (*run_case)(const struct reshape_case *of));

#endif
