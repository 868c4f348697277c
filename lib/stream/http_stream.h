/* SPDX-License-Identifier: MIT */
/* The two streams over a client: http_source.c by ranges, http_sequential.c without. */
#ifndef STREAM_HTTP_STREAM_H
#define STREAM_HTTP_STREAM_H

#include <pthread.h>
#include <stdio.h>

#include "stream/http.h"
#include "stream/inside.h"

struct http_front {
    struct http_client *client; /* the stream takes a reference */
    const char *url, *name;
    const struct http_hooks *hooks;
    void (*release)(void *opaque); /* of hooks->opaque, also if opening fails; or NULL */
};

/* From a server without ranges: front to back only, once. */
int stream_http_sequential_open(const struct http_front *front, struct stream **ret,
                                struct platter_error *err);

/* The words of an identity that a server's headers (NULL: it sends none) make. */
int http_identity(char **text, const char *etag, const char *modified, struct platter_error *err);

/* Places of this kind are only read. */
int http_fail_write(const char *name, struct platter_error *err);

unsigned http_client_connections(const struct http_client *c);

#endif
