/* SPDX-License-Identifier: MIT */
/* Entries are added in the order in which the base was changed: both happen under one lock. */
#include "support/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "stream/inside.h"
#include "support/must.h"
#include "support/prng.h"

enum {
    MAX_STREAMS = 16,
    SECTOR = 512, /* what a disk writes whole or not at all */
    MAX_STATE = 1 << 30
};

/* A stream after the first n entries, to begin the next states with. */
struct kept_state {
    struct log_state state;
    size_t n;
    bool made;
};

struct logged_stream {
    struct log_state first; /* what the base held */
    struct kept_state prefix, durable;
};

struct write_log {
    pthread_mutex_t lock;
    struct log_entry *entries;
    size_t n, room;
    struct logged_stream streams[MAX_STREAMS];
    unsigned n_streams;
};

struct log_stream {
    struct stream head;
    struct stream *base;
    struct write_log *log;
    unsigned index;
};

struct write_log *write_log_new(void)
{
    struct write_log *log = calloc(1, sizeof *log);
    MUST(log);
    pthread_mutex_init(&log->lock, NULL);
    return log;
}

void write_log_free(struct write_log *log)
{
    for (size_t i = 0; i < log->n; i++)
        free((void *)log->entries[i].data);
    for (unsigned i = 0; i < log->n_streams; i++) {
        log_state_free(&log->streams[i].first);
        log_state_free(&log->streams[i].prefix.state);
        log_state_free(&log->streams[i].durable.state);
    }
    free(log->entries);
    pthread_mutex_destroy(&log->lock);
    free(log);
}

/* Under the lock. */
static void add(struct write_log *log, struct log_entry e)
{
    if (e.data) {
        void *copy = malloc(e.len);
        MUST(copy);
        e.data = memcpy(copy, e.data, e.len);
    }
    if (log->n == log->room) {
        log->room = log->room ? 2 * log->room : 256;
        log->entries = realloc(log->entries, log->room * sizeof *log->entries);
        MUST(log->entries);
    }
    log->entries[log->n++] = e;
}

void write_log_mark(struct write_log *log, uint64_t mark)
{
    WITH_LOCK(&log->lock);
    add(log, (struct log_entry){.kind = LOG_MARK, .stream = UINT32_MAX, .mark = mark});
}

size_t write_log_length(struct write_log *log)
{
    WITH_LOCK(&log->lock);
    return log->n;
}

struct log_entry write_log_entry(struct write_log *log, size_t i)
{
    WITH_LOCK(&log->lock);
    MUST(i < log->n);
    return log->entries[i];
}

/* ---- the stream ------------------------------------------------------------------------------ */

static struct log_stream *log_of(struct stream *s)
{
    return (struct log_stream *)s;
}

/* Adds an entry for an operation that just answered r. Under the lock. */
static int logged(struct log_stream *l, int r, struct log_entry e)
{
    e.stream = l->index;
    if (r == 0)
        add(l->log, e);
    return r;
}

static int log_pread(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err)
{
    return stream_pread(log_of(s)->base, buf, len, off, err);
}

static int log_pwrite(struct stream *s, const void *buf, size_t len, hoff off,
                      struct platter_error *err)
{
    struct log_stream *l = log_of(s);
    WITH_LOCK(&l->log->lock);
    return logged(l, stream_pwrite(l->base, buf, len, off, err),
                  (struct log_entry){.kind = LOG_WRITE, .off = off, .len = len, .data = buf});
}

static int log_zero(struct stream *s, hoff off, uint64_t len, unsigned flags,
                    struct platter_error *err)
{
    struct log_stream *l = log_of(s);
    WITH_LOCK(&l->log->lock);
    return logged(l, stream_zero(l->base, off, len, flags, err),
                  (struct log_entry){.kind = LOG_ZERO, .off = off, .len = len});
}

static int log_discard(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    struct log_stream *l = log_of(s);
    WITH_LOCK(&l->log->lock);
    return logged(l, stream_discard(l->base, off, len, err),
                  (struct log_entry){.kind = LOG_DISCARD, .off = off, .len = len});
}

static int log_resize(struct stream *s, uint64_t size, struct platter_error *err)
{
    struct log_stream *l = log_of(s);
    WITH_LOCK(&l->log->lock);
    return logged(l, stream_resize(l->base, size, err),
                  (struct log_entry){.kind = LOG_RESIZE, .off = size});
}

static int log_allocate(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    struct log_stream *l = log_of(s);
    WITH_LOCK(&l->log->lock);
    return logged(l, stream_allocate(l->base, off, len, err),
                  (struct log_entry){.kind = LOG_ALLOCATE, .off = off, .len = len});
}

static int log_flush(struct stream *s, struct platter_error *err)
{
    struct log_stream *l = log_of(s);
    size_t covers = write_log_length(l->log);
    int r = stream_flush(l->base, err);
    WITH_LOCK(&l->log->lock);
    return logged(l, r, (struct log_entry){.kind = LOG_FLUSH, .covers = covers});
}

static int log_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    return stream_size(log_of(s)->base, ret_size, err);
}

static int log_extents(struct stream *s, hoff off, uint64_t len, uint64_t *ret_len, bool *ret_hole,
                       struct platter_error *err)
{
    return stream_extents(log_of(s)->base, off, len, ret_len, ret_hole, err);
}

static int log_lock(struct stream *s, unsigned use, unsigned deny, struct platter_error *err)
{
    return stream_lock(log_of(s)->base, use, deny, err);
}

static int log_replace(struct stream *s, const void *bytes, size_t len, struct platter_error *err)
{
    struct log_stream *l = log_of(s);
    WITH_LOCK(&l->log->lock);
    return logged(l, stream_replace(l->base, bytes, len, err),
                  (struct log_entry){.kind = LOG_REPLACE, .len = len, .data = bytes});
}

static int log_publish(struct stream *s, bool durable, struct platter_error *err)
{
    int r = durable ? log_flush(s, err) : 0;
    return r < 0 ? r : stream_publish(log_of(s)->base, durable, err);
}

static void log_close(struct stream *s)
{
    stream_close(log_of(s)->base);
}

static const struct stream_ops log_ops = {
    .name = "log",
    .pread = log_pread,
    .pwrite = log_pwrite,
    .flush = log_flush,
    .zero = log_zero,
    .discard = log_discard,
    .size = log_size,
    .resize = log_resize,
    .allocate = log_allocate,
    .extents = log_extents,
    .lock = log_lock,
    .publish = log_publish,
    .replace = log_replace,
    .close = log_close,
};

/* What the base holds before anything is logged. */
static int capture(struct stream *base, struct log_state *ret, struct platter_error *err)
{
    int r = stream_size(base, &ret->size, err);
    if (r < 0)
        return r;
    MUST(ret->size <= MAX_STATE);
    ret->bytes = calloc(1, ret->size + 1);
    MUST(ret->bytes);
    return stream_pread(base, ret->bytes, ret->size, 0, err);
}

int stream_log_open(struct write_log *log, struct stream *base, struct stream **ret,
                    struct platter_error *err)
{
    WITH_LOCK(&log->lock);
    MUST(log->n_streams < MAX_STREAMS);
    struct log_state *first = &log->streams[log->n_streams].first;
    struct log_stream *l = stream_new(sizeof *l, &log_ops, base->name, err);
    int r = l ? capture(base, first, err) : -ENOMEM;
    if (r < 0) {
        log_state_free(first);
        stream_close(base);
        if (l) {
            free(l->head.name);
            free(l);
        }
        return r;
    }
    l->head.writable = base->writable;
    l->head.sequential = base->sequential;
    l->base = base;
    l->log = log;
    l->index = log->n_streams++;
    *ret = &l->head;
    return 0;
}

/* ---- states ---------------------------------------------------------------------------------- */

void log_state_free(struct log_state *state)
{
    free(state->bytes);
    *state = (struct log_state){0};
}

/* Cuts, or grows with zeros. */
static void set_size(struct log_state *state, uint64_t size)
{
    MUST(size <= MAX_STATE);
    if (!state->bytes || size > state->room) {
        state->room = round_up(size + 1, 1 << 16) + size / 8; /* a torn write grows it bit by bit */
        state->bytes = realloc(state->bytes, state->room);
    }
    MUST(state->bytes);
    if (size > state->size)
        memset(state->bytes + state->size, 0, size - state->size);
    state->size = size;
}

static void copy_state(struct log_state *to, const struct log_state *from)
{
    to->size = 0;
    set_size(to, from->size);
    memcpy(to->bytes, from->bytes, from->size);
}

static void grow(struct log_state *state, uint64_t size)
{
    if (size > state->size)
        set_size(state, size);
}

/* The part [from, to) of what an entry does to bytes; from and to are offsets in the stream. */
static void apply_part(struct log_state *state, const struct log_entry *e, hoff from, hoff to)
{
    if (e->kind == LOG_DISCARD)
        to = min_u64(to, state->size);
    if (from >= to)
        return;
    grow(state, to);
    if (e->kind == LOG_WRITE)
        memcpy(state->bytes + from, e->data + (from - e->off), to - from);
    else
        memset(state->bytes + from, 0, to - from);
}

static bool has_bytes(const struct log_entry *e)
{
    return e->kind == LOG_WRITE || e->kind == LOG_ZERO || e->kind == LOG_DISCARD;
}

static void apply(struct log_state *state, const struct log_entry *e)
{
    if (has_bytes(e))
        apply_part(state, e, e->off, e->off + e->len);
    else if (e->kind == LOG_RESIZE)
        set_size(state, e->off);
    else if (e->kind == LOG_ALLOCATE)
        grow(state, e->off + e->len);
    else if (e->kind == LOG_REPLACE) {
        set_size(state, e->len);
        memcpy(state->bytes, e->data, e->len);
    }
}

/* Each sector of the entry is there, or not. */
static void apply_torn(struct log_state *state, const struct log_entry *e, struct prng *random)
{
    hoff end = e->off + e->len;
    for (hoff from = e->off; from < end;) {
        hoff to = min_u64(end, round_down(from, SECTOR) + SECTOR);
        if (prng_chance(random, 50))
            apply_part(state, e, from, to);
        from = to;
    }
}

/* An entry that no flush covers: there, missing or torn. */
static void apply_maybe(struct log_state *state, const struct log_entry *e, struct prng *random)
{
    uint64_t fate = prng_below(random, 3);
    if (fate == 0)
        apply(state, e);
    else if (fate == 1 && has_bytes(e))
        apply_torn(state, e, random);
    if (e->kind != LOG_DISCARD && has_bytes(e) && prng_chance(random, 25))
        grow(state, e->off + e->len);
}

/* What a stream is after exactly the first n entries, from what was kept. */
static const struct log_state *keep(const struct write_log *log, unsigned stream,
                                    struct kept_state *kept, size_t n)
{
    if (!kept->made || kept->n > n) {
        copy_state(&kept->state, &log->streams[stream].first);
        kept->n = 0;
        kept->made = true;
    }
    for (; kept->n < n; kept->n++)
        if (log->entries[kept->n].stream == stream)
            apply(&kept->state, &log->entries[kept->n]);
    return &kept->state;
}

void write_log_prefix(struct write_log *log, unsigned stream, size_t n, struct log_state *state)
{
    WITH_LOCK(&log->lock);
    MUST(stream < log->n_streams);
    copy_state(state, keep(log, stream, &log->streams[stream].prefix, min_u64(n, log->n)));
}

/* How many entries are durable for sure when the first n are done. */
static size_t durable_entries(const struct write_log *log, unsigned stream, size_t n)
{
    size_t covered = 0;
    for (size_t i = 0; i < n; i++) {
        const struct log_entry *e = &log->entries[i];
        if (e->stream == stream && e->kind == LOG_FLUSH && e->covers > covered)
            covered = e->covers;
        if (e->stream == stream && e->kind == LOG_REPLACE)
            covered = i + 1;
    }
    return covered;
}

void write_log_crash(struct write_log *log, unsigned stream, size_t n, uint64_t seed,
                     struct log_state *state)
{
    WITH_LOCK(&log->lock);
    MUST(stream < log->n_streams);
    struct prng random = {.state = seed ^ (uint64_t)stream << 56};
    n = min_u64(n, log->n);
    size_t durable = min_u64(durable_entries(log, stream, n), n);
    copy_state(state, keep(log, stream, &log->streams[stream].durable, durable));
    for (size_t i = durable; i < n; i++)
        if (log->entries[i].stream == stream)
            apply_maybe(state, &log->entries[i], &random);
}

size_t write_log_loose(struct write_log *log, unsigned stream)
{
    WITH_LOCK(&log->lock);
    size_t loose = 0;
    for (size_t i = durable_entries(log, stream, log->n); i < log->n; i++)
        loose += log->entries[i].stream == stream && log->entries[i].kind < LOG_FLUSH;
    return loose;
}

struct stream *log_state_open(const struct log_state *state, const char *name)
{
    struct stream *s = NULL;
    MUST(stream_memory_open(name, MAX_STATE, &s, NULL) == 0);
    MUST(stream_pwrite(s, state->bytes, state->size, 0, NULL) == 0);
    return s;
}

int log_state_save(const struct log_state *state, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return -errno;
    int r = 0;
    for (uint64_t done = 0; done < state->size && r == 0;) {
        ssize_t n = write(fd, state->bytes + done, state->size - done);
        if (n > 0)
            done += (uint64_t)n;
        else
            r = n == 0 ? -EIO : -errno;
    }
    if (close(fd) < 0 && r == 0)
        r = -errno;
    return r;
}
