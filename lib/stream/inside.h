/* SPDX-License-Identifier: MIT */
/* What the streams themselves share. For lib/stream and the tests' own streams only. */
#ifndef STREAM_INSIDE_H
#define STREAM_INSIDE_H

#include "stream/stream.h"

/* A zeroed stream of `size` bytes, whose first member is a struct stream, with head filled; `what`
 * is what memory is wanted for. NULL: out of memory, and err says so. */
void *stream_new(size_t size, const struct stream_ops *ops, const char *name,
                 struct platter_error *err);

/* A read of [off, off + len) went past the end: ECORRUPT, and why. */
int stream_fail_past_end(const struct stream *s, hoff off, uint64_t len, uint64_t size,
                         struct platter_error *err);

/* One more word of an identity, at the end of *text (NULL: it is the first), whatever the value has
 * in it. On failure *text is NULL. */
int identity_add(char **text, struct platter_error *err, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* ... that says how large a stream is. */
int identity_add_size(char **text, struct stream *s, struct platter_error *err);

/* Writes zeros with pwrite. */
int stream_write_zeros(struct stream *s, hoff off, uint64_t len, struct platter_error *err);

/* stream_replace() where there is no better way: over what is there. */
int stream_write_over(struct stream *s, const void *bytes, size_t len, struct platter_error *err);

#endif
