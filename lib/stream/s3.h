/* SPDX-License-Identifier: MIT */
/*
 * Objects of S3, read by way of lib/stream/http.h: s3.c (the kind of places, names), s3_server.c
 * (requests: where they go, who signs them, what answers mean), s3_change.c (requests that change
 * something), s3_upload.c (objects that are written).
 */
#ifndef STREAM_S3_H
#define STREAM_S3_H

#include <pthread.h>

#include "stream/http.h"
#include "stream/s3_login.h"

enum { S3_MOST_REGION = 64 };

/* A server as we know it; shared by all objects that were found through one. */
struct s3_server {
    atomic_uint refs;
    struct s3_login login;
    struct http_client *client;
    struct http_client *spare; /* of little patience, for taking back what the other one began */
    uint64_t part_size;        /* of uploads, as the user wants it; 0: as it comes out */
    unsigned connections;      /* requests at once */

    pthread_mutex_t lock;
    char region[S3_MOST_REGION]; /* what is signed for; under lock, as the next */
    char told[S3_MOST_REGION];   /* what a server said it should be; "": nothing */
};

/* An object, which may not be there yet. */
struct s3_object {
    struct s3_server *server;
    char *bucket, *key;
    char *name; /* s3://bucket/key, for sentences */
    char *url;
};

/* Takes over the login, also if it fails. */
int s3_server_new(struct s3_login *login, const struct http_settings *settings, uint64_t part_size,
                  struct s3_server **ret, struct platter_error *err);
void s3_server_unref(struct s3_server *s);
/* After a failure: whether the server said that the bucket is in another region. Objects that are
 * made from now on are looked for there. */
bool s3_server_moved(struct s3_server *s);

/* One more reference of the server's goes with it. */
int s3_object_new(struct s3_server *s, const char *bucket, const char *key, struct s3_object **ret,
                  struct platter_error *err);
void s3_object_free(struct s3_object *o);
/* What http_send() calls for requests about an object. */
struct http_hooks s3_object_hooks(struct s3_object *o);
/* "s3://bucket/key", in a form that is read again as that; malloc'ed, NULL: out of memory. */
char *s3_name(const char *bucket, const char *key);

/* The object of that name on a server; with flags as stream_open() has them. */
int s3_open(struct s3_server *s, const char *bucket, const char *key, unsigned flags, uint64_t size,
            struct stream **ret, struct platter_error *err);
/* A new object, written front to back, that is there with stream_publish(). The stream takes the
 * object, if that succeeds. `size`: bytes that it will have at most, 0 where that is not known. */
int s3_upload_open(struct s3_object *o, unsigned flags, uint64_t size, struct stream **ret,
                   struct platter_error *err);

/* ---- s3_change.c: one request each, `stop` as in struct http_request ---------------------------
 */

/* Whether there is such an object: what tells this one from others of its name, malloc'ed, or NULL.
 * ENOENT where even the bucket is missing. Who may not look learns that there is none. */
int s3_look(struct s3_object *o, char **ret_version, struct platter_error *err);
/* All of a small object. `exclusive`: EEXIST where there is one. */
int s3_put(struct s3_object *o, const void *bytes, size_t len, bool exclusive,
           const atomic_bool *stop, struct platter_error *err);
int s3_delete(struct s3_object *o, struct platter_error *err);

/* An upload in parts, numbered from 1: of it nothing is there before it is completed. *ret_id and
 * *ret_etag are malloc'ed. */
int s3_begin(struct s3_object *o, const atomic_bool *stop, char **ret_id,
             struct platter_error *err);
int s3_put_part(struct s3_object *o, const char *id, unsigned number, const void *bytes, size_t len,
                const atomic_bool *stop, char **ret_etag, struct platter_error *err);
struct s3_end {
    const char *id;
    char *const *etags; /* of `n` parts */
    unsigned n;
    uint64_t size;      /* of the whole */
    const char *before; /* what s3_look() told, for who hears no answer */
    bool exclusive;     /* EEXIST where there is an object */
};
int s3_complete(struct s3_object *o, const struct s3_end *end, const atomic_bool *stop,
                struct platter_error *err);
/* It goes with all of its parts, as far as the server lets us know. */
int s3_abort(struct s3_object *o, const char *id, struct platter_error *err);

/* Bytes of part `number`, from 1, where the first has `first`: later ones get larger, so that there
 * is always room in as many as there can be. Pure. */
uint64_t s3_part_size(uint64_t first, unsigned number);
/* Bytes of the first part, for `size` bytes at most, 0 where nobody knows; `wanted` by the user, or
 * 0, unless that is too little. Pure. */
uint64_t s3_first_part(uint64_t wanted, uint64_t size);

/* The text of the first <tag> of an answer, with its entities replaced: as snprintf(), the length
 * it has, of which what has room is in `ret`. 0: there is none. Pure. */
size_t s3_xml_text(const char *xml, const char *tag, char *ret, size_t room);

/* Bucket and key of a URI "s3://bucket/key?name=value" and the rest in the text form of
 * options_parse(). Pure. */
int s3_keys_of(const char *uri, char **ret_keys, struct platter_error *err);

#endif
