/* SPDX-License-Identifier: MIT */
/*
 * Reading what is inside of a compressed file, front to back:
 *
 *     base -> reader -> in -> worker (unpacks) -> out -> stream_read()
 *
 * Two threads, so that waiting for a disk or a pipe, unpacking, and what is done with the bytes go
 * on side by side.
 */
#include "stream/unzip.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "base/ckd.h"
#include "base/signals.h"
#include "config.h"
#include "stream/inside.h"

enum {
    RING_IN = 512 << 10,
    RING_OUT = 4 << 20, /* a little more than one extent of an archive, ... */
    RING_SHARE = 16,    /* but at most this part of the budget, */
    RING_LEAST = 2 * UNZIP_PIECE,
    READ_PIECE = 128 << 10
};

/* ---- the parts of a file --------------------------------------------------------------------- */

static uint64_t place_of(struct unzip *z)
{
    return z->start + ring_position(&z->in);
}

int unzip_take(struct unzip *z, uint64_t *taken, uint64_t want, struct platter_error *err)
{
    auto_free char *what =
        string_format("%s: unpacking %s", z->head.name, wrapper_name(z->wrapper));
    if (want <= *taken)
        return 0;
    int r = budget_take(z->budget, want - *taken, what ? what : "unpacking", err);
    *taken = r < 0 ? *taken : want;
    return r;
}

int unzip_damaged(struct unzip *z, const struct unzip_step *s, const char *why,
                  struct platter_error *err)
{
    return fail(err, PLATTER_ECORRUPT, "%s: the %s data is damaged at offset %" PRIu64 ": %s",
                z->head.name, wrapper_name(z->wrapper), place_of(z) + (s ? s->in_used : 0), why);
}

int unzip_truncated(struct unzip *z, const char *part, struct platter_error *err)
{
    return fail(err, PLATTER_ECORRUPT,
                "%s: ends at offset %" PRIu64 ", inside of a %s %s: it is truncated", z->head.name,
                place_of(z), wrapper_name(z->wrapper), part);
}

int unzip_zeros(struct unzip *z, uint64_t *ret, struct platter_error *err)
{
    const uint8_t *bytes;
    size_t len;

    for (*ret = 0;; *ret += len) {
        int r = ring_bytes(&z->in, 1, &bytes, &len, err);
        if (r < 0 || len == 0)
            return r;
        if (!is_zero(bytes, len))
            return unzip_damaged(z, NULL, "what follows is neither compressed nor zeros", err);
        ring_take(&z->in, len);
    }
}

/* One call of the library: 1 at the end of the part. */
static int step_once(struct unzip *z, const struct unzip_ops *ops, void *state,
                     struct platter_error *err)
{
    struct unzip_step s = {0};
    int r = ring_bytes(&z->in, 1, &s.in, &s.in_len, err);
    if (r < 0)
        return r;
    s.out_len = ring_room(&z->out, UNZIP_PIECE, &s.out);
    if (s.out_len == 0)
        return fail(err, ECANCELED, "cancelled");
    s.out_len = (size_t)min_u64(s.out_len, UNZIP_PIECE);
    r = ops->step(z, state, &s, err);
    ring_put(&z->out, s.out_used);
    ring_take(&z->in, s.in_used);
    if (r != 0 || s.in_used || s.out_used)
        return r;
    /* At the end of the input the library may still have held bytes back, but not now. */
    return s.in_len ? unzip_damaged(z, NULL, "it leads nowhere", err)
                    : unzip_truncated(z, ops->part, err);
}

/* In a row: how many bytes come before one that it is, or all that need not be looked at again. */
static size_t pass_row(const uint8_t *bytes, size_t len, size_t n,
                       bool (*is)(const uint8_t *bytes, size_t len), bool *ret_found)
{
    size_t i = 0;
    *ret_found = false;
    while (len - i >= n && !(*ret_found = is(bytes + i, n)))
        i++;
    return i;
}

int unzip_seek(struct unzip *z, size_t n, bool (*is)(const uint8_t *bytes, size_t len),
               struct platter_error *err)
{
    const uint8_t *bytes;
    uint8_t few[UNZIP_MOST_SEEK];
    size_t len;
    bool found;

    for (;;) {
        int r = ring_bytes(&z->in, n, &bytes, &len, err);
        if (r < 0 || len == 0)
            return r;
        ring_take(&z->in, pass_row(bytes, len, n, is, &found));
        if (found)
            return 1;
        /* What is left of the row, in front of the end or of where the memory begins again. */
        r = ring_peek(&z->in, few, n, &len, err);
        if (r < 0 || len == 0)
            return r;
        if (is(few, len))
            return 1;
        ring_take(&z->in, 1);
    }
}

int unzip_seek_part(struct unzip *z, size_t n, bool (*is)(const uint8_t *bytes, size_t len),
                    struct platter_error *err)
{
    uint8_t byte;
    size_t len;
    int r = ring_peek(&z->in, &byte, 1, &len, err);
    if (r < 0 || len == 0)
        return r;
    /* Damage may show at the end only: the next part stands right there. */
    ring_take(&z->in, ring_position(&z->in) == z->part);
    return unzip_seek(z, n, is, err);
}

static int all_parts(struct unzip *z, const struct unzip_ops *ops, void *state,
                     struct platter_error *err)
{
    uint8_t prefix[UNZIP_PREFIX];
    bool any = false;

    for (;; any = true) {
        size_t len;
        z->part = ring_position(&z->in);
        int r = ring_peek(&z->in, prefix, sizeof prefix, &len, err);
        if (r < 0)
            return r;
        if (len == 0 && any)
            return ops->end ? ops->end(z, state, err) : 0;
        if (len == 0)
            return unzip_damaged(z, NULL, "it is empty", err);
        r = ops->begin(z, state, prefix, len, err);
        if (r <= 0)
            return r;
        do
            r = step_once(z, ops, state, err);
        while (r == 0);
        if (r < 0)
            return r;
        ring_mark(&z->out);
    }
}

int unzip_parts(struct unzip *z, const struct unzip_ops *ops, void *state,
                struct platter_error *err)
{
    int r;
    /* Damage is the end, unless who reads wants to go on behind it. */
    while ((r = all_parts(z, ops, state, err)) == -PLATTER_ECORRUPT) {
        if (!ring_pause(&z->out, r, err))
            return r;
        r = ops->find(z, state, err);
        if (r <= 0)
            return r;
    }
    return r;
}

/* ---- threads --------------------------------------------------------------------------------- */

static void *read_base(void *arg)
{
    struct unzip *z = arg;
    struct platter_error error = {0};
    size_t n = 1;
    int r = 0;

    while (r == 0 && n > 0) {
        uint8_t *room;
        size_t len = ring_room(&z->in, READ_PIECE, &room);
        if (len == 0)
            break;
        r = stream_read(z->head.base, room, (size_t)min_u64(len, READ_PIECE), &n, &error);
        ring_put(&z->in, n);
    }
    ring_end(&z->in, r, &error);
    return NULL;
}

static void *unpack(void *arg)
{
    static int (*const kinds[])(struct unzip *, struct platter_error *) = {
        [WRAP_ZSTD] = unzip_zstd,   [WRAP_GZIP] = unzip_gzip, [WRAP_LZOP] = unzip_lzop,
        [WRAP_BZIP2] = unzip_bzip2, [WRAP_XZ] = unzip_xz,
    };
    struct unzip *z = arg;
    struct platter_error error = {0};

    int r = kinds[z->wrapper](z, &error);
    ring_end(&z->out, r, &error);
    ring_abandon(&z->in);
    return NULL;
}

static int start(pthread_t *thread, void *(*main)(void *), struct unzip *z, bool *ret,
                 struct platter_error *err)
{
    int code = thread_start(thread, main, z);
    *ret = code == 0;
    return code ? fail_errno(err, code, "no thread to unpack it") : 0;
}

/* ---- the stream ------------------------------------------------------------------------------ */

static int unzip_read(struct stream *s, void *buf, size_t len, size_t *ret_len,
                      struct platter_error *err)
{
    return ring_read(&((struct unzip *)s)->out, buf, len, ret_len, err);
}

static bool unzip_resume(struct stream *s)
{
    return ring_resume(&((struct unzip *)s)->out);
}

static void stop_child(struct unzip *z)
{
    WITH_LOCK(&z->child_lock);
    z->stopping = true;
    if (z->child)
        kill(z->child, SIGKILL);
}

static uint64_t unzip_checked(struct stream *s)
{
    return ring_passed(&((struct unzip *)s)->out);
}

static bool unzip_lacks_checksums(struct stream *s)
{
    return ((struct unzip *)s)->unsummed;
}

static void unzip_interrupt(struct stream *s)
{
    ring_abandon(&((struct unzip *)s)->out);
}

static void unzip_close(struct stream *s)
{
    struct unzip *z = (struct unzip *)s;

    if (z->reading) {
        ring_abandon(&z->in);
        ring_abandon(&z->out);
        stop_child(z);
        if (z->head.base->sequential || atomic_load(&z->head.base->shared) == 0)
            stream_interrupt(z->head.base); /* nobody reads that any more */
        pthread_join(z->reader, NULL);
    }
    if (z->working)
        pthread_join(z->worker, NULL);
    ring_close(&z->in);
    ring_close(&z->out);
    pthread_mutex_destroy(&z->child_lock);
    budget_unref(z->budget);
}

static const struct stream_ops unzip_ops = {
    .name = "compressed",
    .read = unzip_read,
    .checked = unzip_checked,
    .interrupt = unzip_interrupt,
    .resume = unzip_resume,
    .lacks_checksums = unzip_lacks_checksums,
    .close = unzip_close,
};

static int start_all(struct unzip *z, struct platter_error *err)
{
    uint64_t share = max_u64(budget_limit(z->budget) / RING_SHARE, RING_LEAST);
    size_t out = (size_t)min_u64(share, RING_OUT);

    int r = ring_open(&z->in, RING_IN, z->budget, "reading a compressed file", err);
    if (r == 0)
        r = ring_open(&z->out, out, z->budget, "unpacking a compressed file", err);
    if (r == 0)
        r = start(&z->reader, read_base, z, &z->reading, err);
    if (r == 0)
        r = start(&z->worker, unpack, z, &z->working, err);
    return r < 0 ? fail_in(err, r, "%s", z->head.name) : 0;
}

int stream_unzip_open(struct stream *base, enum wrapper w, struct budget *budget,
                      struct stream **ret, struct platter_error *err)
{
    struct unzip *z = NULL;
    int r = unzip_check(w, err);

    if (r < 0)
        fail_in(err, r, "%s", base->name);
    else if (!(z = stream_new(sizeof *z, &unzip_ops, base->name, err)))
        r = -ENOMEM;
    if (r < 0) {
        stream_close(base);
        return r;
    }
    z->head.sequential = true;
    z->head.base = base;
    z->start = base->position;
    z->wrapper = w;
    z->budget = budget_ref(budget);
    pthread_mutex_init(&z->child_lock, NULL);
    r = start_all(z, err);
    if (r < 0)
        stream_close(&z->head);
    else
        *ret = &z->head;
    return r;
}
