/* SPDX-License-Identifier: MIT */
/*
 * Extents of an NBD export: the context base:allocation. An answer tells of many extents at once;
 * of an export that is only read the last one is kept for a moment, as who asks goes through it
 * from extent to extent, and each question costs a round trip. No longer, for somebody else may
 * write.
 */
#include <string.h>

#include "base/awake.h"
#include "base/ckd.h"
#include "base/memory.h"
#include "stream/nbd.h"

static const uint64_t kept_ns = 1000000000;

enum {
    MOST_ASKED = 1 << 30,   /* bytes in one question: a server looks at all of them */
    LEAST_ASKED = 64 << 20, /* ... where the answer is kept, for who asks in small steps */
    /* A server may tell of zeros byte by byte, or of a few bytes an answer: reading them takes less
     * time than that. So shorter zeros are data, and so is what follows on a shorter answer. */
    LEAST_ZERO = 4096,
    LEAST_TOLD = 64 << 10
};

/* What a server says when asked. */
struct answer {
    struct nbd_status status;
    uint64_t grain; /* all runs begin and end at multiples of it, or at the end: */
    uint64_t size;
    uint64_t end; /* of the question */
};

static uint64_t end_of(const struct nbd_status *s)
{
    return s->n ? s->runs[s->n - 1].end : s->start;
}

static void extend(struct nbd_status *s, uint64_t end, bool zero)
{
    if (end <= end_of(s))
        return;
    if (s->n && s->runs[s->n - 1].zero == zero)
        s->runs[s->n - 1].end = end;
    else
        s->runs[s->n++] = (struct nbd_run){end, zero};
}

/* At most two runs more than there were, but for the first. */
static void add_run(struct answer *a, uint64_t start, uint64_t end, bool zero)
{
    uint64_t first = round_up(start, a->grain);
    uint64_t last = end == a->size ? end : round_down(end, a->grain);
    if (zero && first < last) {
        extend(&a->status, first, false);
        extend(&a->status, last, true);
    }
    extend(&a->status, end, false);
}

/* Called by libnbd with pairs of length and flags. What has no place is asked for again. */
static int take_answer(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
                       size_t n_entries, int *error)
{
    struct answer *a = opaque;
    size_t n = (size_t)min_u64(n_entries / 2, NBD_MOST_EXTENTS);
    if (*error || strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || a->status.runs ||
        offset != a->status.start || n == 0)
        return 0;
    a->status.runs = calloc(2 * n + 2, sizeof *a->status.runs);
    if (!a->status.runs)
        return 0;
    uint64_t at = offset;
    for (size_t i = 0; i < n && entries[2 * i] && at < a->size; i++) {
        uint64_t end = at + min_u64(entries[2 * i], a->size - at);
        add_run(a, at, end, entries[2 * i + 1] & LIBNBD_STATE_ZERO);
        at = end;
    }
    if (a->status.n > 0)
        extend(&a->status, min_u64(offset + LEAST_TOLD, a->end), false);
    return 0;
}

/* How far what is known of [off, ...) goes: *ret_len, at most `len`; 0: nothing is known. */
static void look_up(const struct nbd_status *s, uint64_t off, uint64_t len, uint64_t *ret_len,
                    bool *ret_zero)
{
    size_t low = 0, high = s->n;
    *ret_len = 0;
    if (off < s->start)
        return;
    while (low < high) { /* the first that ends behind off */
        size_t middle = low + (high - low) / 2;
        if (s->runs[middle].end > off)
            high = middle;
        else
            low = middle + 1;
    }
    if (low == s->n)
        return;
    *ret_zero = s->runs[low].zero;
    *ret_len = min_u64(len, s->runs[low].end - off);
}

static bool recall(struct nbd_export *x, uint64_t off, uint64_t len, uint64_t *ret_len,
                   bool *ret_zero)
{
    WITH_LOCK(&x->known);
    if (x->status.n == 0 || now_ns() - x->status.asked_ns > kept_ns)
        return false;
    look_up(&x->status, off, len, ret_len, ret_zero);
    return *ret_len > 0;
}

static void keep(struct nbd_export *x, struct answer *a)
{
    if (x->head.writable)
        return;
    WITH_LOCK(&x->known);
    free(x->status.runs);
    x->status = a->status;
    a->status.runs = NULL;
}

/* 0 also where the server fails to tell: it may still have the data. */
static int ask_status(struct nbd_export *x, void *question, struct platter_error *err)
{
    struct answer *a = question;
    struct nbd_request q;
    uint64_t len = a->end - a->status.start;
    struct nbd_wire *w = nbd_export_begin(x, &q, true);
    int64_t cookie = libnbd.aio_block_status(
        w->h, len, a->status.start, (nbd_extent_callback){.callback = take_answer, .user_data = a},
        nbd_request_callback(&q), 0);
    int code = nbd_request_end(&q, cookie);
    if (code != 0) { /* what it told before counts as little */
        free(TAKE(a->status.runs));
        a->status.n = 0;
    }
    return code < 0 ? nbd_export_judge(x, w, code, "ask for extents of", len, a->status.start, err)
                    : 0;
}

int nbd_export_extents(struct stream *s, hoff off, uint64_t len, uint64_t *ret_len, bool *ret_hole,
                       struct platter_error *err)
{
    struct nbd_export *x = (struct nbd_export *)s;
    *ret_hole = false;
    *ret_len = len;
    if (!atomic_load(&x->can_status) || recall(x, off, len, ret_len, ret_hole))
        return 0;
    struct answer a = {.grain = max_u64(x->block, LEAST_ZERO), .size = x->size};
    uint64_t ask = min_u64(x->head.writable ? len : max_u64(len, LEAST_ASKED), MOST_ASKED);
    hoff end = min_u64(off + ask, x->size);
    a.status = (struct nbd_status){.start = round_down(off, a.grain), .asked_ns = now_ns()};
    a.end = min_u64(round_up(end, a.grain), x->size);
    int r = nbd_export_ask(x, ask_status, &a, err);
    uint64_t known = 0;
    if (r == 0)
        look_up(&a.status, off, len, &known, ret_hole);
    *ret_len = known ? known : min_u64(len, end - off);
    if (known)
        keep(x, &a);
    free(a.status.runs);
    return r;
}
