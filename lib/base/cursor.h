/* SPDX-License-Identifier: MIT */
/*
 * Bounded readers and writers over bytes from and for a file.
 *
 * Failure is sticky: a read past the end yields zeros and sets `failed`, which is checked once
 * after a whole structure (x_decode), not after each field. Offsets of fields are written as in the
 * reference by seeking where a structure has gaps.
 */
#ifndef BASE_CURSOR_H
#define BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct reader {
    const uint8_t *bytes;
    size_t len; /* bytes that may be read */
    size_t pos;
    bool failed; /* something was asked that is not there */
};

struct writer {
    uint8_t *bytes;
    size_t len; /* bytes that may be written */
    size_t pos;
    bool failed; /* something did not fit */
};

static inline struct reader reader_over(const void *bytes, size_t len)
{
    return (struct reader){.bytes = bytes, .len = len};
}

static inline struct writer writer_over(void *bytes, size_t len)
{
    return (struct writer){.bytes = bytes, .len = len};
}

/* The next n bytes, or NULL (and failed). */
static inline const uint8_t *read_bytes(struct reader *r, size_t n)
{
    if (r->failed || n > r->len - r->pos) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *p = r->bytes + r->pos;
    r->pos += n;
    return p;
}

static inline void read_skip(struct reader *r, size_t n)
{
    read_bytes(r, n);
}

static inline void read_seek(struct reader *r, size_t pos)
{
    if (pos > r->len)
        r->failed = true;
    else
        r->pos = pos;
}

static inline uint64_t get_be(const uint8_t *p, unsigned n)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < n; i++)
        value = value << 8 | p[i];
    return value;
}

static inline uint64_t get_le(const uint8_t *p, unsigned n)
{
    uint64_t value = 0;
    for (unsigned i = n; i > 0; i--)
        value = value << 8 | p[i - 1];
    return value;
}

static inline void put_be(uint8_t *p, unsigned n, uint64_t value)
{
    for (unsigned i = n; i > 0; i--, value >>= 8)
        p[i - 1] = (uint8_t)value;
}

static inline void put_le(uint8_t *p, unsigned n, uint64_t value)
{
    for (unsigned i = 0; i < n; i++, value >>= 8)
        p[i] = (uint8_t)value;
}

#define CURSOR_ACCESSORS(type, name, n, order)                                                     \
    static inline type read_##name(struct reader *r)                                               \
    {                                                                                              \
        const uint8_t *p = read_bytes(r, n);                                                       \
        return p ? (type)get_##order(p, n) : 0;                                                    \
    }                                                                                              \
    static inline void write_##name(struct writer *w, type value)                                  \
    {                                                                                              \
        if (w->failed || n > w->len - w->pos) {                                                    \
            w->failed = true;                                                                      \
            return;                                                                                \
        }                                                                                          \
        put_##order(w->bytes + w->pos, n, value);                                                  \
        w->pos += n;                                                                               \
    }

CURSOR_ACCESSORS(uint8_t, u8, 1, le)
CURSOR_ACCESSORS(uint16_t, be16, 2, be)
CURSOR_ACCESSORS(uint32_t, be32, 4, be)
CURSOR_ACCESSORS(uint64_t, be64, 8, be)
CURSOR_ACCESSORS(uint16_t, le16, 2, le)
CURSOR_ACCESSORS(uint32_t, le32, 4, le)
CURSOR_ACCESSORS(uint64_t, le64, 8, le)

static inline void write_bytes(struct writer *w, const void *bytes, size_t n)
{
    if (w->failed || n > w->len - w->pos) {
        w->failed = true;
        return;
    }
    memcpy(w->bytes + w->pos, bytes, n);
    w->pos += n;
}

/* Zeros up to `pos`. */
static inline void write_pad_to(struct writer *w, size_t pos)
{
    if (w->failed || pos > w->len || pos < w->pos) {
        w->failed = true;
        return;
    }
    memset(w->bytes + w->pos, 0, pos - w->pos);
    w->pos = pos;
}

#endif
