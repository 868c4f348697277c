/* SPDX-License-Identifier: MIT */
/*
 * A stream over memory that belongs to the test: what an image became can be looked at after its
 * disk was closed, and nothing is allocated while the disk works. Not for several threads that grow
 * it at once.
 */
#ifndef SUPPORT_BUFFER_H
#define SUPPORT_BUFFER_H

#include "stream/stream.h"

struct buffer {
    uint8_t *bytes;
    uint64_t size;
    uint64_t capacity; /* growing beyond it is ENOSPC */
    uint64_t room;     /* of copies: bytes that are allocated */
    uint64_t used;     /* ... and how many of them may be other than zero */
};

/* Takes memory for `capacity` bytes, zeroed; the test dies if there is none. */
struct buffer buffer_new(uint64_t capacity);
/* A copy with room for `capacity` bytes, those behind its size zeroed. */
struct buffer buffer_copy(const struct buffer *b, uint64_t capacity);
void buffer_free(struct buffer *b);

/* A whole file, with room for `capacity` bytes or just its size. The test dies on failure. */
struct buffer buffer_load(const char *path, uint64_t capacity);
void buffer_save(const struct buffer *b, const char *path);

int stream_buffer_open(struct buffer *b, const char *name, bool writable, struct stream **ret,
                       struct platter_error *err);
/* The same bytes, front to back only, as if they came out of a pipe. */
int stream_buffer_input_open(struct buffer *b, const char *name, struct stream **ret,
                             struct platter_error *err);

#endif
