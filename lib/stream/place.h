/* SPDX-License-Identifier: MIT */
/*
 * Where bytes live, in words: a file name, a URI, or the "stream" object of a source-spec. All
 * three become a kind ("http") and the values of that kind's keys ("url=..."), so that what a kind
 * can be told it can be told in either way, and its table of keys documents both.
 *
 * A name is a URI where it begins with the prefix of a kind ("https://", "rbd:"); "file:" is the
 * kind of plain names. Anything else is a file. One with an unknown prefix "word://" is an error.
 */
#ifndef STREAM_PLACE_H
#define STREAM_PLACE_H

#include "base/options.h"
#include "stream/stream.h"

struct place;

/* What the streams of a kind can do, for who lists them. */
enum {
    PLACE_WRITE = 1u << 0,     /* what is there can be written in place */
    PLACE_CREATE = 1u << 1,    /* new ones can be made and written in any order, */
    PLACE_IN_ORDER = 1u << 2,  /* ... or only front to back */
    PLACE_EXTENTS = 1u << 3,   /* they tell of holes */
    PLACE_SNAPSHOTS = 1u << 4, /* they have snapshots of their own */
};

/* What a server brings to itself from elsewhere, with no help of ours: the import of an image into
 * Ceph (source-spec.md section 1). It can be used meanwhile like any other. */
struct place_import {
    const char *state; /* "prepared", "executing", "executed", "failed" */
    unsigned percent;  /* that it has, as far as the server says */
    uint64_t size;     /* bytes; 0 where it cannot be looked at */
    char *source;      /* the document that says from where: may hold secrets. NULL: not told */
    char *why;         /* of "failed", or NULL */
};

struct place_import_ops {
    /* Makes the place, which may not be there yet, over what a source-spec says. */
    int (*prepare)(const struct place *p, const char *spec, struct platter_error *err);
    /* Waits for all of it. What `progress` (or NULL) has enough of goes on until the process ends:
     * the server's library has no way to stop it. */
    int (*execute)(const struct place *p, platter_progress_fn progress, void *opaque,
                   struct platter_error *err);
    int (*commit)(const struct place *p, struct platter_error *err); /* EAGAIN: not executed yet */
    int (*abort)(const struct place *p, struct platter_error *err);  /* the place goes */
    /* ENOENT: it is not there, or nothing is brought to it. *ret is for place_import_done(). */
    int (*status)(const struct place *p, struct place_import *ret, struct platter_error *err);
};
void place_import_done(struct place_import *i);

struct place_kind {
    const char *name;              /* the stream's type in a source-spec (source-spec.md 2) */
    const char *const *prefixes;   /* of its URIs, in small letters; NULL-ended */
    const char *keys_behind;       /* signs in them that keys stand behind; NULL: there are none */
    const struct option_def *keys; /* what it can be told; values may hold secrets */
    /* The keys of a URI, in the text form of options_parse(), malloc'ed: option_text() makes them.
     * Errors do not show what may be a secret. */
    int (*keys_of)(const char *uri, char **ret_keys, struct platter_error *err);
    /* The name for sentences, malloc'ed: a URI without secrets. NULL: out of memory. */
    char *(*name_of)(const struct option_values *keys);
    /*
     * STREAM_FILE_WRITE: what is there, for reading and writing; with STREAM_FILE_TEMPORARY it is
     * made new, of p->size bytes where that matters, becomes visible under its name with
     * stream_publish(), and is gone when it is closed before that; with STREAM_FILE_EXCLUSIVE one
     * that is there is EEXIST. What cannot be made or replaced (an NBD export) opens what is there.
     */
    int (*open)(const struct place *p, unsigned flags, struct stream **ret,
                struct platter_error *err);
    /* Removes what is there, durably. NULL: nobody can. */
    int (*remove)(const struct place *p, struct platter_error *err);
    bool folders;      /* its URIs are paths: names inside images can be relative to them */
    const char *needs; /* the key without which it is nowhere; NULL: there are several ways */
    unsigned can;      /* PLACE_* bits; all can be read */
    const struct place_import_ops *import; /* NULL: nothing brings it anything but we */
};

struct place {
    const struct place_kind *kind;
    struct option_values *keys;
    char *name;    /* for sentences, and for resolving names against: without secrets */
    uint64_t size; /* of a new one: bytes it will have, 0 where that is not known */
};

extern const struct place_kind place_http, place_nbd, place_rbd, place_s3;

/* Every kind of this build, in the order of documentation; ends with NULL. */
extern const struct place_kind *const place_kinds[];

/* By its name; NULL: there is none. */
const struct place_kind *place_kind_find(const char *name);

/* What a name means. *ret is the caller's, for place_done(), on success. */
int place_parse(const char *name, struct place *ret, struct platter_error *err);
/* The same with more keys, which count for more than those of a URI. As they may have been said of
 * several places at once, those that only other kinds have are passed over. NULL: none. */
int place_parse_with(const char *name, const char *more, struct place *ret,
                     struct platter_error *err);
/* What a "stream" object means: its type, and its keys in the text form of options_parse(); `more`
 * as above. */
int place_of_keys(const char *type, const char *keys, const char *more, struct place *ret,
                  struct platter_error *err);
void place_done(struct place *p);

int place_open(const struct place *p, unsigned flags, struct stream **ret,
               struct platter_error *err);
/* Of a file that was opened otherwise, the part that a place of that kind says; all of it is `file`
 * itself. Takes that, on failure as well. */
int place_part(const struct place *p, struct stream *file, struct stream **ret,
               struct platter_error *err);
/* Both at once: `more` as place_parse_with(), `size` as struct place has it. */
int stream_open_with(const char *name, const char *more, unsigned flags, uint64_t size,
                     struct stream **ret, struct platter_error *err);
int stream_open(const char *name, unsigned flags, struct stream **ret, struct platter_error *err);

/* Removes what is there, durably; ENOENT where nothing is. An image of Ceph must not be open. */
int place_remove(const char *name, const char *more, struct platter_error *err);
/* Whether that works with what lies there at all. */
bool place_can_remove(const char *name);

/* Whether a name is a source-spec (disk/source.h) rather than that of a place. It may hold secrets.
 */
bool place_is_spec(const char *name);
/* Whether a name is that of a local file, and nothing else: *ret_path (may be NULL) points into it,
 * behind "file:". */
bool place_is_file(const char *name, const char **ret_path);
/* Whether a name is a URI that gives keys besides where it is: "nbds://host/x?tls-psk-file=..." */
bool place_has_keys(const char *name);
/* A name as it may be shown before anything is open, whose name is without secrets: what stands
 * behind "?" and the like in a URI is left out, and so is a user with a password. malloc'ed; NULL:
 * out of memory. */
char *place_shown(const char *name);
/* Where the path begins in a URI of a kind that has folders: behind "http://host/". 0: it is none.
 */
size_t place_root(const char *uri);

/* The name of what stands beside a place: with the suffix behind it, but in front of the query of a
 * URI. malloc'ed; NULL: out of memory. */
char *place_beside(const char *name, const char *suffix);

/* A secret as it may be written: as it stands, "env:NAME" (a variable of the environment) or
 * "file:PATH" (the first line of a file). *ret is malloc'ed, for who wipes and frees it. */
int place_secret(const char *written, const char *what, char **ret, struct platter_error *err);

#endif
