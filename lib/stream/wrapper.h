/* SPDX-License-Identifier: MIT */
/*
 * Files inside of a compressed file: what is inside is a stream again, and what is written to a
 * stream can be compressed on its way. Programs compress whole files (zstd, gzip, lzop, bzip2, xz)
 * without knowing what they are; a wrapper is found by its first bytes, never by a name.
 */
#ifndef STREAM_WRAPPER_H
#define STREAM_WRAPPER_H

#include "base/memory.h"
#include "stream/stream.h"

enum wrapper { WRAP_NONE, WRAP_ZSTD, WRAP_GZIP, WRAP_LZOP, WRAP_BZIP2, WRAP_XZ };

enum { WRAP_PROBE = 16 /* bytes that tell */ };

/* What a file is wrapped in that begins with these bytes. */
enum wrapper wrapper_probe(const uint8_t *prefix, size_t len);
/* "zstd", "gzip", "lzop", "bzip2", "xz"; "" for none. */
const char *wrapper_name(enum wrapper w);
/* By that name; WRAP_NONE: unknown. */
enum wrapper wrapper_find(const char *name);

/* ---- front to back (unzip.c) -------------------------------------------------------------------
 */

/*
 * The bytes inside of `base`, which is read front to back from where it stands, and taken, on
 * failure as well. They are unpacked on threads of their own, ahead of who reads, within the
 * budget. All checks that a wrapper has of itself are made: damage, or an end that comes too early,
 * is PLATTER_ECORRUPT and names the offset in `base`; what was unpacked in front of it is read
 * before that. Frames that follow one another are one file; what follows that is none is damage.
 * stream_close() may come at any time.
 */
int stream_unzip_open(struct stream *base, enum wrapper w, struct budget *budget,
                      struct stream **ret, struct platter_error *err);

/* A source by name (stream_source_open()), unwrapped if it is wrapped: *ret_wrapper tells. */
int stream_unwrapped_open(const char *name, struct budget *budget, struct stream **ret,
                          enum wrapper *ret_wrapper, struct platter_error *err);
/* The same of a stream that is open, and taken, on failure as well. */
int stream_unwrap(struct stream *s, struct budget *budget, struct stream **ret,
                  enum wrapper *ret_wrapper, struct platter_error *err);

/* ---- writing (zip.c) ---------------------------------------------------------------------------
 */

struct zip_options {
    int level;        /* 0: the usual one */
    size_t frame;     /* bytes of what is written that are packed on their own; 0: the usual */
    unsigned workers; /* threads that pack; 0: as many as help */
};

/*
 * What is written front to back goes to `base` (taken, on failure as well) compressed, in frames
 * that are packed on their own by several threads: zstd with a table of them behind, or members of
 * gzip. The same input and options give the same bytes, whatever the number of workers.
 * stream_publish() ends it and publishes base; without that it is not whole. WRAP_ZSTD and
 * WRAP_GZIP only.
 */
int stream_zip_open(struct stream *base, enum wrapper w, const struct zip_options *options,
                    struct budget *budget, struct stream **ret, struct platter_error *err);

/* ---- anywhere (unpacked.c) ---------------------------------------------------------------------
 */

/* What it may cost to read at any place. */
struct unpack_policy {
    /* Folder for a temporary unpacked copy (which has no name there), where nothing better is
     * possible; NULL: none may be made. */
    const char *spool;
    /* Only the beginning is wanted: nothing is read ahead or indexed. Where frames do not allow to
     * read anywhere at once, *ret is sequential then. */
    bool query;
    /* Told now and then, while all of a file is gone through, how many bytes of it are done;
     * another answer than 0 cancels that. NULL: nobody is. */
    int (*tick)(void *opaque, uint64_t done, uint64_t total);
    void *tick_opaque;
};

/* Tells whom the policy names, that so much of `file` is done: 0 or -ECANCELED. */
int unpack_tick(const struct unpack_policy *policy, struct stream *file, uint64_t done,
                struct platter_error *err);

/*
 * All that `from` (taken, on failure as well) has to give, front to back, to be read anywhere: in
 * memory, or, where that is too much, in a temporary file as the policy has it; where it has none,
 * that is ENOTSUP, with a sentence that says what to do.
 */
int stream_spool_open(struct stream *from, const struct unpack_policy *policy,
                      struct budget *budget, struct stream **ret, struct platter_error *err);

/*
 * The bytes inside of `base` (taken, on failure as well), to be read anywhere and by many threads:
 * by the frames of zstd, if there are several, and their table; by the blocks of lzop; of gzip by
 * checkpoints that one pass over all of it makes; and by a temporary copy of the rest. ENOTSUP,
 * with a sentence that says what to do, where the policy does not allow what is needed.
 */
int stream_unpacked_open(struct stream *base, enum wrapper w, const struct unpack_policy *policy,
                         struct budget *budget, struct stream **ret, struct platter_error *err);

#endif
