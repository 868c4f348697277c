/* SPDX-License-Identifier: MIT */
#include "support/fault.h"

#include <stdlib.h>

#include "base/ckd.h"
#include "stream/inside.h"

struct fault_stream {
    struct stream head;
    struct stream *base;
    struct fault_plan *plan;
};

/* Counts a call; 0, or the negative code with which it fails. */
static int meet_fate(struct stream *s, enum fault_kind kind, const char *what,
                     struct platter_error *err)
{
    struct fault_plan *p = ((struct fault_stream *)s)->plan;
    if (!(p->kinds & kind))
        return 0;
    uint64_t call = atomic_fetch_add(&p->calls, 1) + 1;
    if (p->at == 0 || call < p->at || (call > p->at && !p->lasting))
        return 0;
    atomic_fetch_add(&p->failed, 1);
    return fail(err, p->code, "%s: %s fails, as the test wants it", s->name, what);
}

static struct stream *base_of(struct stream *s)
{
    return ((struct fault_stream *)s)->base;
}

static bool touches(const struct fault_range *bad, hoff off, size_t len)
{
    if (!bad->every || off < bad->start)
        return off < bad->end && off + len > bad->start;
    uint64_t at = (off - bad->start) % bad->every;
    return at < bad->end - bad->start || at + len > bad->every;
}

static int fault_pread(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err)
{
    struct fault_plan *p = ((struct fault_stream *)s)->plan;
    int r = meet_fate(s, FAULT_PREAD, "pread", err);
    for (unsigned i = 0; r == 0 && i < p->n_bad; i++)
        if (touches(&p->bad[i], off, len)) {
            atomic_fetch_add(&p->failed, 1);
            r = fail(err, p->code, "%s: cannot read %zu bytes at offset %llu", s->name, len,
                     (unsigned long long)off);
        }
    return r < 0 ? r : stream_pread(base_of(s), buf, len, off, err);
}

static int fault_pwrite(struct stream *s, const void *buf, size_t len, hoff off,
                        struct platter_error *err)
{
    int r = meet_fate(s, FAULT_PWRITE, "pwrite", err);
    if (r == 0)
        return stream_pwrite(base_of(s), buf, len, off, err);
    if (((struct fault_stream *)s)->plan->torn)
        stream_pwrite(base_of(s), buf, round_down(len / 2, 512), off, NULL); /* sectors are whole */
    return r;
}

static int fault_flush(struct stream *s, struct platter_error *err)
{
    int r = meet_fate(s, FAULT_FLUSH, "flush", err);
    return r < 0 ? r : stream_flush(base_of(s), err);
}

static int fault_zero(struct stream *s, hoff off, uint64_t len, unsigned flags,
                      struct platter_error *err)
{
    int r = meet_fate(s, FAULT_ZERO, "zero", err);
    return r < 0 ? r : stream_zero(base_of(s), off, len, flags, err);
}

static int fault_discard(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    int r = meet_fate(s, FAULT_DISCARD, "discard", err);
    return r < 0 ? r : stream_discard(base_of(s), off, len, err);
}

static int fault_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    int r = meet_fate(s, FAULT_SIZE, "size", err);
    return r < 0 ? r : stream_size(base_of(s), ret_size, err);
}

static int fault_resize(struct stream *s, uint64_t size, struct platter_error *err)
{
    int r = meet_fate(s, FAULT_RESIZE, "resize", err);
    return r < 0 ? r : stream_resize(base_of(s), size, err);
}

static int fault_allocate(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    int r = meet_fate(s, FAULT_ALLOCATE, "allocate", err);
    return r < 0 ? r : stream_allocate(base_of(s), off, len, err);
}

static int fault_extents(struct stream *s, hoff off, uint64_t len, uint64_t *ret_len,
                         bool *ret_hole, struct platter_error *err)
{
    int r = meet_fate(s, FAULT_EXTENTS, "extents", err);
    return r < 0 ? r : stream_extents(base_of(s), off, len, ret_len, ret_hole, err);
}

static int fault_copy_from(struct stream *s, hoff off, struct stream *src, hoff src_off,
                           uint64_t len, struct platter_error *err)
{
    int r = meet_fate(s, FAULT_COPY_FROM, "copy_from", err);
    return r < 0 ? r : stream_copy_from(base_of(s), off, src, src_off, len, err);
}

static int fault_lock(struct stream *s, unsigned use, unsigned deny, struct platter_error *err)
{
    int r = meet_fate(s, FAULT_LOCK, "lock", err);
    return r < 0 ? r : stream_lock(base_of(s), use, deny, err);
}

static int fault_publish(struct stream *s, bool durable, struct platter_error *err)
{
    int r = meet_fate(s, FAULT_PUBLISH, "publish", err);
    return r < 0 ? r : stream_publish(base_of(s), durable, err);
}

static void fault_close(struct stream *s)
{
    stream_close(base_of(s));
}

/* As of files: all of it, or nothing. */
static int fault_replace(struct stream *s, const void *bytes, size_t len, struct platter_error *err)
{
    int r = meet_fate(s, FAULT_PWRITE, "replace", err);
    return r < 0 ? r : stream_replace(base_of(s), bytes, len, err);
}

static const struct stream_ops fault_ops = {
    .name = "fault",
    .pread = fault_pread,
    .pwrite = fault_pwrite,
    .flush = fault_flush,
    .zero = fault_zero,
    .discard = fault_discard,
    .size = fault_size,
    .resize = fault_resize,
    .allocate = fault_allocate,
    .extents = fault_extents,
    .copy_from = fault_copy_from,
    .lock = fault_lock,
    .publish = fault_publish,
    .replace = fault_replace,
    .close = fault_close,
};

int stream_fault_open(struct stream *base, struct fault_plan *plan, struct stream **ret,
                      struct platter_error *err)
{
    struct fault_stream *f = stream_new(sizeof *f, &fault_ops, base->name, err);
    if (!f) {
        stream_close(base);
        return -ENOMEM;
    }
    f->head.writable = base->writable;
    f->head.sequential = base->sequential;
    f->base = base;
    f->plan = plan;
    *ret = &f->head;
    return 0;
}

const struct fault_way fault_ways[FAULT_WAYS] = {
    {"each call once", FAULT_ALL, false, false, EIO},
    {"torn writes from there on", FAULT_WRITES, true, true, EIO},
    {"full from there on", FAULT_PWRITE | FAULT_ZERO | FAULT_RESIZE, true, false, ENOSPC},
    {"allocations", 0, false, false, ENOMEM},
};
