/* SPDX-License-Identifier: MIT */
/* A local file or block device: what file.c, its locks and its temporary names share. */
#ifndef STREAM_FILE_H
#define STREAM_FILE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "stream/inside.h"

struct temporary;

enum density { DENSITY_UNKNOWN, DENSITY_SPARSE, DENSITY_DENSE };

struct file_stream {
    struct stream head;
    int fd;
    int direct_fd;              /* the same file, past the host's cache, for writing; or -1 */
    atomic_bool direct_refused; /* the file system wants more than we know */
    _Atomic uint64_t cached;    /* bytes written through the cache while there is a direct_fd */
    bool block;                 /* a block device: its size is fixed */
    uint32_t block_size;        /* of the file system: stream_block_size() */
    atomic_int density;         /* of a file that is only read: enum density */
    dev_t dev;                  /* who the file is, for stream_same_file() */
    ino_t ino;
    /* Held for reading while bytes are written, for writing while the size changes, so that growing
     * never cuts off what another thread just wrote behind the end. */
    pthread_rwlock_t size_lock;
    /* File systems let one writer through the cache into a file at a time, and have the others
     * spin; here they sleep, and the workers of a copy get the processors. */
    pthread_mutex_t write_turn;
    atomic_int flush_failed;     /* 0, or the negative code: later flushes must not look fine */
    unsigned use, deny;          /* STREAM_LOCK_* bits that are held */
    struct temporary *temporary; /* not NULL: not yet published */
    struct temporary *published; /* it was, by us */
};

/* Changes the locks on fd from those in *held_use and *held_deny, which follow, to use and deny. */
int file_lock_change(int fd, const char *name, unsigned *held_use, unsigned *held_deny,
                     unsigned use, unsigned deny, struct platter_error *err);

/* Who else has a lock on a byte of the file that fd is: words for a sentence, to be freed. NULL
 * where that cannot be known. */
char *file_lock_holder(int fd, off_t byte);

/* stream_identity() of a file: file_identity.c. */
int file_identity(struct stream *s, char **text, struct platter_error *err);

/* stream_replace() of a file: replace.c. */
int file_replace(struct stream *s, const void *bytes, size_t len, struct platter_error *err);

/* Makes the new file that will replace `path` and opens it. Where path is a block device, which is
 * written in place, there is none: *ret is NULL and *ret_fd as it was. */
int temporary_open(const char *path, bool exclusive, struct temporary **ret, int *ret_fd,
                   struct platter_error *err);
/* The same for a file that its user, who has it open and locked as (dev, ino), rewrites. */
int temporary_open_over(const char *path, dev_t dev, ino_t ino, struct temporary **ret, int *ret_fd,
                        struct platter_error *err);
/* A new file that has no name in `folder`, for reading and writing, to be closed. */
int temporary_open_unnamed(const char *folder, int *ret_fd, struct platter_error *err);
/* Owner and rights of another file, unless the new one has them from the file that it replaces. */
void temporary_take_rights(const struct temporary *t, int fd, int of);
/* Gives the file, which the caller made durable if it is to be, its name; what is left to do after
 * that is temporary_free(). */
int temporary_publish(struct temporary *t, bool durable, struct platter_error *err);
int temporary_flush_folder(const struct temporary *t, struct platter_error *err);
/* The file stays under the name it has now, which is returned, whatever becomes of it. */
const char *temporary_keep(struct temporary *t);
/* Moves aside what the file will replace, until temporary_free(). */
int temporary_make_way(struct temporary *t, bool durable, struct platter_error *err);
/* Removes what was published, if it is still the file (dev, ino), and moves back what was moved
 * aside, if it is to come back, or else has the sentence in err tell where that is. */
int temporary_withdraw(struct temporary *t, dev_t dev, ino_t ino, bool back,
                       struct platter_error *err);
/* Removes the file, or what was moved aside for it if it was published, and frees. */
void temporary_free(struct temporary *t);

#endif
