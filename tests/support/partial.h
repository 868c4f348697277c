/* SPDX-License-Identifier: MIT */
/*
 * Disks that are not complete, in memory: what is there over a raw disk, with a map of presence.
 */
#ifndef SUPPORT_PARTIAL_H
#define SUPPORT_PARTIAL_H

#include <pthread.h>

#include "disk/disk.h"
#include "format/partial.h"
#include "support/buffer.h"

/* Opens the disk whose bytes, map and source these streams are: taken, on failure as well. `map`
 * NULL: whoever opens it has none. */
int partial_disk_open(struct stream *data, struct stream *map, struct stream *below, bool writable,
                      uint64_t memory_limit, struct platter_disk **ret, struct platter_error *err);

/* The map of a disk of which nothing is there; with another unit than it would get, if not 0. */
struct buffer partial_map_new(uint64_t disk_size, uint32_t unit);
/* Makes the checksum of each sector of a map right that is not all zeros. */
void partial_map_seal(struct buffer *map);

/* What the tests of crashes, of faults and against a model work on. */
struct partial_shape {
    const char *name;
    uint64_t size; /* of the disk; a multiple of 512, like the next one */
    uint64_t below_size;
    uint32_t unit;
};

/* A list of them that ends with .name = NULL. */
extern const struct partial_shape partial_shapes[];

struct partial_specimen {
    const struct partial_shape *shape;
    struct buffer data, map, below; /* the place of the disk is full of what nobody wrote */
    uint8_t *content;               /* what the guest sees: shape->size bytes */
};

struct partial_specimen partial_specimen_make(const struct partial_shape *shape);
void partial_specimen_free(struct partial_specimen *s);
/* Its disk over other bytes and another map (taken, on failure as well). */
int partial_specimen_open(const struct partial_specimen *s, struct stream *data, struct stream *map,
                          bool writable, struct platter_disk **ret, struct platter_error *err);
/* The same over buffers. */
int partial_specimen_look(const struct partial_specimen *s, struct buffer *data, struct buffer *map,
                          bool writable, struct platter_disk **ret, struct platter_error *err);

/* What the source has there, len bytes. */
void partial_source_bytes(const struct partial_specimen *s, uint8_t *out, uint64_t off,
                          uint64_t len);
/* Reads of the disk store what they bring from below. */
void partial_filling_start(struct filling *f, struct platter_disk *disk);

/* Has the disk filled from below, at random, by threads beside whoever works on it: by fills, and
 * by reads with copy on read. */
enum { PARTIAL_FILLERS = 3 };

struct partial_fillers {
    const struct partial_specimen *specimen;
    struct platter_disk *disk;
    struct filling filling;
    unsigned pause; /* microseconds between two fills of each */
    uint64_t seed;
    pthread_t threads[PARTIAL_FILLERS];
    atomic_uint n_started, failed;
    atomic_bool over;
};

/* Fields above the threads are set; f stays where it is until the disk is closed. */
void partial_fillers_start(struct partial_fillers *f);
/* 0, or -1 where a fill failed. */
int partial_fillers_stop(struct partial_fillers *f);

#endif
