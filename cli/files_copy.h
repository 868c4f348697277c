/* SPDX-License-Identifier: MIT */
/*
 * Copies out of a file system into a folder of this machine.
 *
 * What is copied was made by somebody else: each name is one component below an open folder, no
 * link here is ever followed, and a file gets its name when it is complete.
 */
#ifndef FILES_COPY_H
#define FILES_COPY_H

#include <sys/stat.h>

#include "files.h"

struct copy {
    struct fs *fs;
    bool recursive, preserve, owner;
    bool in_tree;     /* made durable together, at the end */
    mode_t mask;      /* umask */
    struct stat *own; /* files that the disk is in: never replaced */
    size_t n_own;
    struct stat *made; /* files that other operands became: not replaced either */
    size_t n_made;
    unsigned skipped;         /* devices and the like */
    bool failed;              /* something could not be copied, and that was printed */
    struct platter_error err; /* of what failed last; not on the stack of each folder */
    struct seen seen;         /* of the path that is copied */
    size_t depth;
    char *buffer;
};

enum { COPY_DEPTH = 2048, COPY_BUFFER = 1 << 20 };

/* Copies what a node is to a name in a folder. 0 also where only that could not be read, which is
 * printed and kept in `failed`; negative (printed): going on makes no sense. `shown` is its path.
 */
int copy_node(struct copy *c, const struct node *n, int folder, const char *name,
              const char *shown);
/* The entries of a folder into one that is open. */
int copy_entries(struct copy *c, const struct node *dir, int folder, const char *shown);
/* The bytes of a file to a descriptor, in order. */
int copy_to_pipe(struct copy *c, const struct node *n, int fd);

/* ---- files_put.c: a new file here ------------------------------------------------------------ */

/* A file that has no name yet, or one that begins with a dot. */
struct fresh {
    int folder, fd;
    char name[40]; /* "": none */
};

/* Negative (printed) where it cannot be. `shown` is for sentences. */
int fresh_open(struct fresh *f, int folder, const char *shown);
/* Gives it the name, which may be that of another file or link; nothing else is replaced. */
int fresh_place(struct copy *c, struct fresh *f, const char *name, const char *shown);
void fresh_close(struct fresh *f); /* and away with it, where it was not placed */
/* A symbolic link, likewise. */
int fresh_link(struct copy *c, const char *target, int folder, const char *name, const char *shown);
/* One more of them. */
int stat_keep(struct stat **list, size_t *n, const struct stat *st);
/* Prints what a call of the system said; -code. */
int put_failed(const char *shown, const char *what, int code);

#endif
