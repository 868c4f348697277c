/* SPDX-License-Identifier: MIT */
/*
 * An open archive: what is behind struct platter_archive. Its functions mirror the public ones of
 * their names, whose comments in platter/archive.h are their contract; arguments were checked by
 * lib/api_archive.c.
 */
#ifndef OPS_ARCHIVE_H
#define OPS_ARCHIVE_H

#include <platter/archive.h>
#include <pthread.h>

#include "format/archive.h"
#include "stream/wrapper.h"

struct platter_archive {
    char *name;  /* as it was given */
    char *place; /* ... with keys; or NULL */
    unsigned flags;
    struct budget *budget;
    struct stream *stream; /* what is inside of the wrapper */
    enum wrapper wrapper;
    struct archive_reader *reader;
    bool used; /* its data was read, or is */
    /* Faults are told one at a time, from any thread. */
    pthread_mutex_t lock;
    platter_fault_fn fault;
    void *opaque;
    uint64_t faults; /* how many so far, notes aside */
    /* Whoever uses it sees each fault as well (archive_tell() calls it), before it is told. */
    void (*watch)(void *opaque, const struct archive_fault *fault);
    void *watch_opaque;
};

int archive_open(const char *name, const struct platter_archive_options *options,
                 struct platter_archive **ret, struct platter_error *err);
void archive_close(struct platter_archive *a);
int archive_info(struct platter_archive *a, char **ret_json, struct platter_error *err);
int archive_config(struct platter_archive *a, unsigned index, const char **ret_name,
                   const void **ret_bytes, size_t *ret_length, struct platter_error *err);

/* Its data is about to be read, which is possible once: EINVAL where it was before. Then the
 * reader is the caller's to use: set its flags and `wanted`, and call next() to the end. */
int archive_use(struct platter_archive *a, struct platter_error *err);
/* Tells a fault. Thread-safe. */
void archive_tell(struct platter_archive *a, const struct archive_fault *fault);
/* The disk of that name; NULL: there is none. EINVAL where two have it. */
int archive_find(const struct platter_archive *a, const char *name, const struct archive_disk **ret,
                 struct platter_error *err);

int archive_verify(struct platter_archive *a, const struct platter_verify_options *options,
                   struct platter_verification *ret, struct platter_error *err);

#endif
