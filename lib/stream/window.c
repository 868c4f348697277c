/* SPDX-License-Identifier: MIT */
/* A window over what is read front to back: see window.h. */
#include "stream/window.h"

#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "stream/inside.h"

enum {
    BLOCK = 256 << 10, /* bytes that are read, and forgotten, at once */
    SHARE = 2,         /* of the budget: the window takes the half of it */
    MOST_BLOCKS = 1024
};

/* What has no size yet seems to have this one: a multiple of all units. */
static const uint64_t endless = UINT64_C(1) << 62;

struct window {
    struct stream head;
    struct stream *from;
    struct budget *budget;
    pthread_mutex_t lock; /* of all that follows */
    uint8_t *blocks[MOST_BLOCKS];
    unsigned n_blocks; /* that there may be; the block of offset x is x / BLOCK % n_blocks */
    hoff first, end;   /* what is kept: first is a multiple of BLOCK */
    uint64_t size;     /* or `endless` */
    bool at_end;       /* there is no more */
    int failed;        /* reading on did, and would do so again */
    struct platter_error why;
};

static struct window *window_of(struct stream *s)
{
    return container_of(s, struct window, head);
}

/* ---- reading on --------------------------------------------------------------------------------
 */

/* Memory for the block behind the end; the oldest one's, if there is no other. */
static int need_block(struct window *w, struct platter_error *err)
{
    uint8_t **block = &w->blocks[w->end / BLOCK % w->n_blocks];
    if (w->end % BLOCK)
        return 0;
    if (w->end - w->first == (uint64_t)w->n_blocks * BLOCK)
        w->first += BLOCK;
    return *block ? 0
                  : budget_alloc_buffer(w->budget, BLOCK, "what was read of a pipe", block, err);
}

static int check_end(struct window *w, struct platter_error *err)
{
    if (w->size != endless && w->end != w->size)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: ends at %" PRIu64 ", but said that it has %" PRIu64
                    " bytes: it was cut off on its way",
                    w->head.name, w->end, w->size);
    w->size = w->end;
    return 0;
}

/* Reads one block on, or less at the end. */
static int read_on(struct window *w, struct platter_error *err)
{
    size_t n = 0;
    int r = need_block(w, err);
    if (r < 0)
        return r;
    size_t want = (size_t)min_u64(BLOCK - w->end % BLOCK, w->size - w->end);
    if (want > 0)
        r = stream_read(w->from, w->blocks[w->end / BLOCK % w->n_blocks] + w->end % BLOCK, want, &n,
                        err);
    w->end += n;
    w->at_end = r == 0 && n < want;
    if (w->end == w->size)
        w->at_end = true;
    return r == 0 && w->at_end ? check_end(w, err) : r;
}

/* ... until there is all in front of `to`, or the end. A failure is kept: what could not be read is
 * never skipped. */
static int read_up_to(struct window *w, hoff to, struct platter_error *err)
{
    while (w->failed == 0 && !w->at_end && w->end < to)
        w->failed = read_on(w, &w->why);
    if (w->failed == 0 || w->end >= to)
        return 0;
    return fail(err, -w->failed, "%s", w->why.message);
}

/* ---- operations --------------------------------------------------------------------------------
 */

static int fail_behind(const struct window *w, hoff off, struct platter_error *err)
{
    return fail(err, ENOTSUP,
                "%s: can only be read front to back, and offset %" PRIu64 " is wanted when %" PRIu64
                " was reached, further back than the %" PRIu64
                " bytes that are kept: allow a temporary copy (--spool FOLDER)",
                w->head.name, off, w->end, w->head.window);
}

static int window_pread(struct stream *s, void *buf, size_t len, hoff off,
                        struct platter_error *err)
{
    struct window *w = window_of(s);
    uint8_t *to = buf;
    WITH_LOCK(&w->lock);
    while (len > 0) {
        size_t n = (size_t)min_u64(len, BLOCK - off % BLOCK);
        int r = read_up_to(w, off + n, err);
        if (r < 0)
            return r;
        if (off + n > w->end)
            return stream_fail_past_end(s, off, len, w->end, err);
        if (off < w->first)
            return fail_behind(w, off, err);
        memcpy(to, w->blocks[off / BLOCK % w->n_blocks] + off % BLOCK, n);
        to += n;
        off += n;
        len -= n;
    }
    return 0;
}

static int window_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    (void)err;
    struct window *w = window_of(s);
    WITH_LOCK(&w->lock);
    *ret_size = w->size;
    return 0;
}

static int window_reach(struct stream *s, hoff off, uint64_t *ret_size, struct platter_error *err)
{
    struct window *w = window_of(s);
    WITH_LOCK(&w->lock);
    int r = w->size == endless ? read_up_to(w, off, err) : 0;
    *ret_size = w->size == endless ? UINT64_MAX : w->size;
    return r;
}

static int window_identity(struct stream *s, char **text, struct platter_error *err)
{
    return stream_identity(window_of(s)->from, text, err);
}

static void window_interrupt(struct stream *s)
{
    stream_interrupt(window_of(s)->from);
}

static void window_close(struct stream *s)
{
    struct window *w = window_of(s);
    for (unsigned i = 0; i < w->n_blocks; i++)
        budget_free(w->budget, w->blocks[i], BLOCK);
    stream_close(w->from);
    budget_unref(w->budget);
    pthread_mutex_destroy(&w->lock);
}

static const struct stream_ops window_ops = {
    .name = "window",
    .pread = window_pread,
    .size = window_size,
    .reach = window_reach,
    .identity = window_identity,
    .interrupt = window_interrupt,
    .close = window_close,
};

/* Fills the window: one block less than it has, so that a chunk that is read across its end does
 * not lose the beginning. */
static int fill(struct window *w, struct platter_error *err)
{
    uint64_t most = (uint64_t)w->n_blocks * BLOCK;
    int r = 0;
    if (stream_size(w->from, &w->size, NULL) < 0)
        w->size = endless;
    if (w->size <= most || w->size == endless)
        r = read_up_to(w, min_u64(most, w->size), err);
    /* The end of what fills it exactly shows with the next read only, which would forget the first
     * block: so such a one is still taken for longer. */
    w->head.window = w->at_end || w->size <= most ? 0 : most;
    return r;
}

int stream_window_open(struct stream *from, struct budget *budget, struct stream **ret,
                       struct platter_error *err)
{
    struct window *w = stream_new(sizeof *w, &window_ops, from->name, err);
    if (!w) {
        stream_close(from);
        return -ENOMEM;
    }
    pthread_mutex_init(&w->lock, NULL);
    w->from = from;
    w->budget = budget_ref(budget);
    w->head.base = stream_share(from->base ? from->base : from);
    w->head.depth = 1; /* who waits for it can be interrupted */
    uint64_t n = budget_limit(budget) / SHARE / BLOCK;
    w->n_blocks = (unsigned)min_u64(max_u64(n, 4), MOST_BLOCKS);
    int r = fill(w, err);
    if (r < 0) {
        stream_close(&w->head);
        return r;
    }
    *ret = &w->head;
    return 0;
}
