/* SPDX-License-Identifier: MIT */
/* A disk that is not complete, in memory, and what its guest is to see. */
#ifndef UNIT_PARTIAL_KIT_H
#define UNIT_PARTIAL_KIT_H

#include "unit.h"

#include <stdlib.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "support/partial.h"

enum { KIB = 1024, UNIT = 64 * KIB, SECTOR = 512, SECTOR_BITS = 508 * 8, GARBAGE = 0xee };

#define TIB (UINT64_C(1) << 40)

/* The three streams of a disk, and what its guest is to see. */
struct kit {
    struct buffer data, map, below;
    uint64_t size;
    uint8_t *flat;
    struct platter_disk *disk;
};

static inline uint8_t source_byte(uint64_t i)
{
    return (uint8_t)(1 + i % 251);
}

/* The place of the disk is full of what somebody left there. */
static inline struct kit kit_new(uint64_t size, uint32_t unit)
{
    struct kit k = {.data = buffer_new(size), .below = buffer_new(size), .size = size};
    k.map = partial_map_new(size, unit);
    k.flat = malloc(size + 1);
    assert_non_null(k.flat);
    k.data.size = k.below.size = size;
    memset(k.data.bytes, GARBAGE, size);
    for (uint64_t i = 0; i < size; i++)
        k.below.bytes[i] = k.flat[i] = source_byte(i);
    return k;
}

static inline struct stream *over(struct buffer *b, const char *name, bool writable)
{
    struct stream *s;
    assert_works(stream_buffer_open(b, name, writable, &s, &err));
    return s;
}

static inline int kit_try(struct kit *k, bool writable, struct platter_error *err)
{
    return partial_disk_open(over(&k->data, "data", writable), over(&k->map, "map", writable),
                             over(&k->below, "below", false), writable, 0, &k->disk, err);
}

static inline void kit_open(struct kit *k, bool writable)
{
    assert_works(kit_try(k, writable, &err));
}

static inline void kit_close(struct kit *k)
{
    assert_works(disk_close(TAKE(k->disk), &err));
}

static inline void kit_free(struct kit *k)
{
    disk_close(k->disk, NULL);
    buffer_free(&k->data);
    buffer_free(&k->map);
    buffer_free(&k->below);
    free(k->flat);
}

static inline void kit_write(struct kit *k, int byte, uint64_t off, uint64_t len)
{
    memset(k->flat + off, byte, len);
    assert_works(disk_write(k->disk, k->flat + off, len, off, &err));
}

static inline void kit_compare(struct kit *k)
{
    auto_free uint8_t *bytes = malloc(k->size + 1);
    assert_non_null(bytes);
    assert_int_equal(disk_size(k->disk), k->size);
    assert_works(disk_read(k->disk, bytes, k->size, 0, &err));
    assert_memory_equal(bytes, k->flat, k->size);
}

/* What the top alone says of [off, off + len): of this kind and length. */
static inline void assert_run(struct platter_disk *disk, uint64_t off, uint64_t len,
                              enum extent_kind kind, uint64_t expected)
{
    struct extent e;
    struct image *top = disk_top(disk);
    assert_works(top->format->map(top, off, len, &e, &err));
    assert_int_equal(e.kind, kind);
    assert_int_equal(e.len, expected);
    assert_int_equal(e.in_place, kind == EXTENT_DATA);
    assert_false(e.has_place);
    if (kind == EXTENT_DATA) {
        assert_ptr_equal(e.stream, top->stream);
        assert_int_equal(e.off, off);
    }
}

static inline bool stored_bit(const struct buffer *map, uint64_t unit)
{
    uint64_t sector = 1 + unit / SECTOR_BITS, bit = unit % SECTOR_BITS;
    return map->bytes[sector * SECTOR + bit / 8] >> bit % 8 & 1;
}

#endif
