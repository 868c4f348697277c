/* SPDX-License-Identifier: MIT */
/*
 * A new image on its way (rule 9): made beside its name, published under it when it is complete and
 * durable, gone without a trace when it is closed before that.
 */
#ifndef OPS_TARGET_H
#define OPS_TARGET_H

#include "base/secret.h"
#include "disk/disk.h"

/* What is to be made. */
struct target_request {
    const char *name; /* path; with fd >= 0 only for sentences */
    int fd;           /* >= 0: write front to back to it; -1: make a file */
    const struct format *format;
    const char *options;        /* creation options as text, or NULL */
    uint64_t size;              /* guest bytes */
    bool endless;               /* ... at first: nobody knows how many they will be */
    const char *place;          /* more about where it goes, as place_parse_with(); or NULL */
    const char *backing;        /* name to store, or NULL */
    const char *backing_format; /* its format, or NULL */
    bool look_at_backing;       /* open it: it must exist and fit */
    struct platter_disk *const *sources; /* what is read for it, whose files must stay */
    unsigned n_sources;
    platter_progress_fn progress; /* asked whether to go on while it is published; or NULL */
    void *progress_opaque;
    platter_secret_fn secret; /* for a new image that is encrypted, and for its backing files */
    void *secret_opaque;
    bool exclusive; /* an existing file is an error */
    bool compress;  /* of one that is written front to back */
    bool bulk;      /* much will be written, as where there are sources */
    bool durable;   /* it will be waited for: start writing to the disk at once */
    /* For the backing file's own backing files, as platter_open_options have them. */
    const char *const *allow;
    const char *below_format;
    bool probe_below;
};

/* A further file of the image, beside its main one. */
struct target_file {
    char *name; /* as the image names it */
    struct stream *stream;
};

struct target {
    const struct target_request *request;
    struct option_values *options;
    struct stream *stream;
    struct file_maker maker;
    struct name_opener opener; /* gives an image its own files */
    struct secret secret;      /* what the new image opens with, once it was asked for */
    struct target_file *files;
    unsigned n_files, max_files;
    struct platter_disk *backing; /* open, or NULL */
    struct budget *budget;
    bool in_place; /* a block device: keeps its size and what it holds */
};

/* How the backing file is opened. */
struct platter_open_options target_below(const struct target_request *q, unsigned flags);
/* Parses the options and opens backing file and target; nothing is written yet. */
int target_open(const struct target_request *request, uint64_t memory_limit, struct target *t,
                struct platter_error *err);
void target_close(struct target *t);
/* The same after how it went, as stream_give_up(). */
int target_end(struct target *t, int r, struct platter_error *err);

/* Whether the image is written front to back by format->writer_open(). */
bool target_is_ordered(const struct target *t);
/* Opens the ordered writer over the target's stream. */
int target_writer(struct target *t, struct image_writer **ret, struct platter_error *err);
/* Writes an empty image. */
int target_create(struct target *t, struct platter_error *err);
/* Opens what target_create() made, over its backing file, which moves into the disk. The target
 * must outlive it. */
int target_disk(struct target *t, uint64_t memory_limit, struct platter_disk **ret,
                struct platter_error *err);
/* Gives all files their names, when no disk is open over them any more: the image is complete. All
 * that is left to do is target_close(). */
int target_publish(struct target *t, struct platter_error *err);
/* The same for several images: all of them get their names, or none does. */
int targets_publish(struct target *const *targets, unsigned n, struct platter_error *err);

/* Rule 9: fails if what `to` is written to is a file that a disk is read from; `role` is what it
 * is. */
int check_stream_not_of(struct stream *to, const struct platter_disk *disk, const char *role,
                        struct platter_error *err);
/* The same of the file at `path`, if there is one. */
int check_not_of(const char *path, const struct platter_disk *disk, const char *role,
                 struct platter_error *err);

/* Opens a backing file the user named, as it would be found from the image `name`; `open` has its
 * format, and the gate for what lies below it. */
int open_backing_of(const char *name, const char *backing, const struct platter_open_options *open,
                    struct platter_disk **ret, struct platter_error *err);

#endif
