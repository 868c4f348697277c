/* SPDX-License-Identifier: MIT */
/*
 * The map of presence of a disk that is not complete (format/partial.h), in memory and in its
 * stream. Whoever has it locks it: none of this but presence_load() and presence_write() waits for
 * I/O, and those work on what nobody else touches.
 *
 * What changes is written in three steps: begin takes note of which sectors changed so far; copy,
 * again and again while it finds some, takes some of them as they are; write writes the copies,
 * without the lock.
 */
#ifndef FORMAT_PRESENCE_H
#define FORMAT_PRESENCE_H

#include "base/memory.h"
#include "stream/stream.h"

struct presence {
    struct stream *stream; /* owned, or NULL */
    uint64_t disk_size, unit;
    uint64_t n_units, n_sectors; /* sectors without the header */
    uint8_t *bits;     /* 508 bytes of each sector, one behind the other, up to whole words */
    uint8_t *changed;  /* a bit for each sector: it is to be written; NULL: this is only read */
    uint8_t *pending;  /* likewise, of what begin noted and copy did not take yet */
    uint8_t *copy;     /* sectors as they are to be written */
    uint32_t *numbers; /* ... and which they are */
    size_t n_copied;
    struct budget *budget; /* borrowed */
    uint64_t taken;        /* of it */
};

/* Reads header and map from `stream`, which is p's, on failure as well: give it to
 * presence_free(). What of the stream is a hole is not read. */
int presence_load(struct presence *p, struct stream *stream, bool writable, struct budget *budget,
                  struct platter_error *err);
void presence_free(struct presence *p);

/* Whether the unit is there that `off` is in, and for how many bytes (1 .. len) that holds, or at
 * least holds: who has many units alike asks again. */
bool presence_find(const struct presence *p, uint64_t off, uint64_t len, uint64_t *ret_len);
/* All units that the range touches are there from now on. */
void presence_set(struct presence *p, uint64_t off, uint64_t len);

void presence_begin(struct presence *p);
/* Whether there are more. */
bool presence_copy(struct presence *p);
/* Writes what was copied last; not durably. */
int presence_write(const struct presence *p, struct platter_error *err);

#endif
