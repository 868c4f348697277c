/* SPDX-License-Identifier: MIT */
/*
 * Bytes on their way from one thread to another, through memory that is used again and again. One
 * side puts, the other takes; each works right in the ring's memory and waits for the other where
 * there is no room, or nothing to take.
 */
#ifndef STREAM_RING_H
#define STREAM_RING_H

#include "base/memory.h"

enum { RING_MARKS = 64 /* that are ahead of who takes */ };

struct ring {
    struct budget *budget;
    uint8_t *bytes;
    size_t size;

    pthread_mutex_t lock; /* everything below */
    pthread_cond_t more, less;
    uint64_t put, taken;                /* bytes, ever */
    uint64_t marks[RING_MARKS], passed; /* of ring_mark(): those ahead, and the last behind */
    unsigned n_marks;
    size_t wanted, needed; /* what the sides wait for: bytes that are there, bytes of room; or 0 */
    bool ended;            /* nothing more is put; then: */
    bool paused;           /* until ring_resume() */
    int result;            /* why: 0 is the end, else `error` tells */
    struct platter_error error;
    bool abandoned; /* nobody takes any more */
};

/* `size` bytes from the budget, for `what`. The ring is to be zeroed before; ring_close() is right
 * whether this succeeded or not. */
int ring_open(struct ring *r, size_t size, struct budget *budget, const char *what,
              struct platter_error *err);
void ring_close(struct ring *r);

/* ---- who puts -------------------------------------------------------------------------------- */

/* Room for `least` bytes, of at most the ring's half, if they lie in a row, or for what is left of
 * the row: its length, and *ret. 0: nobody takes any more. */
size_t ring_room(struct ring *r, size_t least, uint8_t **ret);
/* n bytes of that room are filled. */
void ring_put(struct ring *r, size_t n);
/* Marks where it stands: ring_passed(). */
void ring_mark(struct ring *r);
/* Nothing more comes; with a negative result, because of `error`. */
void ring_end(struct ring *r, int result, const struct platter_error *error);

/* As ring_end(), until whoever takes wants to go on all the same: true then; false: he does not
 * take any more. */
bool ring_pause(struct ring *r, int result, const struct platter_error *error);

/* ---- who takes ------------------------------------------------------------------------------- */

/*
 * What there is to take, in a row: *ret and *ret_len. Waits until `least` bytes are there, of at
 * most the ring's half, or nothing more comes; what is in a row may be less. *ret_len is 0 at the
 * end only; where that is a failure, it is answered. ECANCELED: ring_abandon() was called.
 */
int ring_bytes(struct ring *r, size_t least, const uint8_t **ret, size_t *ret_len,
               struct platter_error *err);
/* n of these bytes are not needed any more. */
void ring_take(struct ring *r, size_t n);
/* A copy of the next n bytes, at most the ring's half; fewer where the end comes first. */
int ring_peek(struct ring *r, void *buf, size_t n, size_t *ret_len, struct platter_error *err);
/* The next n bytes; fewer where the end comes first. *ret_len is right after a failure too. */
int ring_read(struct ring *r, void *buf, size_t n, size_t *ret_len, struct platter_error *err);
/* Has ring_pause() come back, if it waits: whether it does. */
bool ring_resume(struct ring *r);
/* The last mark that is not behind what was taken: bytes, ever. Where they come closer than they
 * can be kept it may be an earlier one, but not at the end any more. */
uint64_t ring_passed(struct ring *r);
/* Bytes that were taken so far. Only for who takes. */
uint64_t ring_position(struct ring *r);

/* From any thread: nothing is put or taken any more, and who waits comes back. */
void ring_abandon(struct ring *r);

#endif
