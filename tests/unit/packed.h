/* SPDX-License-Identifier: MIT */
/* What the tests of wrappers share: content, and files that the programs of these names made of it.
 */
#ifndef UNIT_PACKED_H
#define UNIT_PACKED_H

#include "stream/wrapper.h"
#include "support/buffer.h"

enum {
    PACKED_MEMORY = 64 << 20,
    PACKED_SMALL = 40,
    PACKED_MUCH = 5 << 20, /* more than all threads of a stream together have room for */
    WRAPPERS = 5
};

extern const enum wrapper all_wrappers[WRAPPERS];

/* Text, noise and zeros in turn; the same for the same seed. */
struct buffer content_new(size_t size, uint64_t seed);
/* The bytes of one behind those of the other. */
struct buffer buffers_joined(const struct buffer *a, const struct buffer *b);
struct buffer with_behind(const struct buffer *a, const void *bytes, size_t n);

/* What the program makes of it; `options` are its, or "". */
struct buffer packed_by(enum wrapper w, const char *options, const struct buffer *content);
/* What the program unpacks; the test fails if it finds a fault. */
struct buffer unpacked_by(enum wrapper w, const struct buffer *packed);

/* The bytes of a buffer, which must live longer, packed with w. */
int unzip_buffer(struct buffer *packed, enum wrapper w, struct budget *budget, struct stream **ret,
                 struct platter_error *err);
/* Reads all, in pieces, and closes the stream. `got` is what came, whatever is returned. */
int read_out(struct stream *s, size_t piece, uint64_t capacity, struct buffer *got,
             struct platter_error *err);

/* Both, within a budget of PACKED_MEMORY, of which nothing is missing afterwards. */
int unpack(struct buffer *packed, enum wrapper w, size_t piece, uint64_t capacity,
           struct buffer *got, struct platter_error *err);
void assert_unpacks(struct buffer *packed, enum wrapper w, const struct buffer *want);

#define assert_same(got, want)                                                                     \
    do {                                                                                           \
        assert_int_equal((got)->size, (want)->size);                                               \
        assert_memory_equal((got)->bytes, (want)->bytes, (want)->size);                            \
    } while (0)

#endif
