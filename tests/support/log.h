/* SPDX-License-Identifier: MIT */
/*
 * A stream that logs what is done to it, so that tests can build every state a crash may leave.
 *
 * One write_log may serve several streams (an image and its data file): their entries stand in one
 * order. Each stream remembers what its base held when it was wrapped; states are made from that
 * and from a part of the log, so the base may go on changing or be closed.
 *
 * What a crash may leave, given the first `n` entries of the log: all that a finished flush of that
 * stream covers; of the rest any subset, each write down to single 512-byte sectors.
 */
#ifndef SUPPORT_LOG_H
#define SUPPORT_LOG_H

#include "stream/stream.h"

enum log_kind {
    LOG_WRITE,
    LOG_ZERO,
    LOG_DISCARD,
    LOG_RESIZE,
    LOG_ALLOCATE,
    LOG_REPLACE, /* all of it, at once and durably */
    LOG_FLUSH,
    LOG_MARK
};

struct log_entry {
    enum log_kind kind;
    unsigned stream; /* which one: 0 is the first that was opened with the log */
    hoff off;        /* RESIZE: the new size */
    uint64_t len;
    const uint8_t *data; /* WRITE, REPLACE: len bytes */
    size_t covers;       /* FLUSH: entries before this index were done when the flush began */
    uint64_t mark;       /* MARK: the test's own number */
};

struct write_log;

struct write_log *write_log_new(void);
/* All streams of the log must be closed. */
void write_log_free(struct write_log *log);

/* Wraps base, which is closed with the stream (and at once on failure). Copies inside the kernel
 * are not offered, so that all data passes through the log. */
int stream_log_open(struct write_log *log, struct stream *base, struct stream **ret,
                    struct platter_error *err);

/* Adds an entry of the test's own: "what was flushed until here is X". Thread-safe. */
void write_log_mark(struct write_log *log, uint64_t mark);

size_t write_log_length(struct write_log *log);
struct log_entry write_log_entry(struct write_log *log, size_t i);

/* The content of a stream in some state. {0} at first; what makes a state takes the memory that is
 * there from the last one. */
struct log_state {
    uint8_t *bytes;
    uint64_t size;
    uint64_t room; /* bytes that are allocated */
};

void log_state_free(struct log_state *state);

/* Makes *state stream `stream` after exactly the first n entries. What was discarded is zeros. */
void write_log_prefix(struct write_log *log, unsigned stream, size_t n, struct log_state *state);

/*
 * Makes *state stream `stream` after a crash behind the first n entries: what was flushed, and a
 * subset of the rest that depends on `seed` alone: each write is there, is missing, or is torn into
 * sectors; a missing write that grew the stream may have grown it all the same.
 *
 * States of ascending n are cheap, of both kinds: what they begin with is kept.
 */
void write_log_crash(struct write_log *log, unsigned stream, size_t n, uint64_t seed,
                     struct log_state *state);

/* How many changes of a stream no flush covers: a crash now may take them back. */
size_t write_log_loose(struct write_log *log, unsigned stream);

/* A memory stream over a copy of the state, so that it can be opened as an image. */
struct stream *log_state_open(const struct log_state *state, const char *name);
/* Writes the state to a file, for other programs to look at. Returns 0 or a negative errno. */
int log_state_save(const struct log_state *state, const char *path);

#endif
