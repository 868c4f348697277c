/* SPDX-License-Identifier: MIT */
/*
 * What the name of a disk or an archive says: a file, a URI, "-" for standard input, or a
 * source-spec, which is Ceph's JSON for where a disk comes from (source-spec.md section 2):
 *
 *     json:{"type":"qcow","stream":{"type":"http","url":"https://example.org/disk.qcow2"}}
 *     {"type":"raw", ...}    the same without a prefix
 *     json:FILE              in a file; json:- on standard input
 *
 * A view of it may follow: json:{...}@NAME, json:FILE@NAME. Only who runs a command may say so:
 * names inside images are for the gate, which knows nothing of this. Such a document may hold
 * secrets, so no sentence shows any of it but names of keys.
 */
#ifndef DISK_SOURCE_H
#define DISK_SOURCE_H

#include "format/format.h"
#include "stream/place.h"

/* An older state of a raw disk. */
struct source_state {
    char *name;
    struct place place;
};

struct source {
    struct place place;
    bool input;                  /* standard input; of the place only the keys count */
    bool spec;                   /* it was a source-spec, and says the rest */
    const char *format;          /* a name in formats[]; NULL: found by content */
    bool qcow;                   /* ... which must be a QCOW of some version */
    bool unpack;                 /* raw: what is inside of the stream, if that is compressed */
    char *view;                  /* or NULL */
    struct source_state *states; /* of a raw disk, oldest first */
    unsigned n_states;
};

/* `keys` (or NULL) is what else was said of the place, as platter_open_options.place has it. *ret
 * is the caller's, for source_done(), on success. */
int source_of(const char *name, const char *keys, struct source *ret, struct platter_error *err);
void source_done(struct source *s);
/* How it is called in sentences. */
const char *source_name(const struct source *s);

/* Opens the bytes, with their older states (stream->states). Without STREAM_FILE_WRITE a pipe will
 * do, which is sequential then. */
int source_open(const struct source *s, unsigned flags, struct stream **ret,
                struct platter_error *err);
/* All of it at once for who wants a stream to read, whatever it is; an archive, say. */
int source_stream(const char *name, const char *keys, struct stream **ret,
                  struct platter_error *err);

/* ---- source_qemu.c -----------------------------------------------------------------------------
 */

/* A document of another kind that begins with json: as well, {"driver": ...}: the one that means
 * the same here, for the common cases. *ret is a new reference. */
int source_of_qemu(const json_t *given, const char *title, json_t **ret, struct platter_error *err);

#endif
