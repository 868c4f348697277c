/* SPDX-License-Identifier: MIT */
/* A part of another stream, as if it were all there is. */
#include <inttypes.h>

#include "base/ckd.h"
#include "stream/inside.h"

struct slice_stream {
    struct stream head;
    struct stream *base; /* somebody else's, or head.base */
    hoff start;
    uint64_t len;
};

static struct slice_stream *slice_of(struct stream *s)
{
    return (struct slice_stream *)s;
}

static int check_inside(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    const struct slice_stream *p = slice_of(s);
    if (!range_inside(off, len, p->len))
        return fail(err, ENOSPC,
                    "%s: %" PRIu64 " bytes at offset %" PRIu64 " do not fit into its %" PRIu64
                    " bytes",
                    s->name, len, off, p->len);
    return 0;
}

static int slice_pread(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err)
{
    struct slice_stream *p = slice_of(s);
    if (!range_inside(off, len, p->len))
        return stream_fail_past_end(s, off, len, p->len, err);
    return stream_pread(p->base, buf, len, p->start + off, err);
}

static int slice_pwrite(struct stream *s, const void *buf, size_t len, hoff off,
                        struct platter_error *err)
{
    struct slice_stream *p = slice_of(s);
    int r = check_inside(s, off, len, err);
    return r < 0 ? r : stream_pwrite(p->base, buf, len, p->start + off, err);
}

static int slice_flush(struct stream *s, struct platter_error *err)
{
    return stream_flush(slice_of(s)->base, err);
}

static int slice_zero(struct stream *s, hoff off, uint64_t len, unsigned flags,
                      struct platter_error *err)
{
    struct slice_stream *p = slice_of(s);
    int r = check_inside(s, off, len, err);
    return r < 0 ? r : stream_zero(p->base, p->start + off, len, flags, err);
}

static int slice_discard(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    struct slice_stream *p = slice_of(s);
    int r = check_inside(s, off, len, err);
    return r < 0 ? r : stream_discard(p->base, p->start + off, len, err);
}

static int slice_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    (void)err;
    *ret_size = slice_of(s)->len;
    return 0;
}

static int slice_allocate(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    struct slice_stream *p = slice_of(s);
    int r = check_inside(s, off, len, err);
    return r < 0 ? r : stream_allocate(p->base, p->start + off, len, err);
}

static int slice_extents(struct stream *s, hoff off, uint64_t len, uint64_t *ret_len,
                         bool *ret_hole, struct platter_error *err)
{
    struct slice_stream *p = slice_of(s);
    return stream_extents(p->base, p->start + off, len, ret_len, ret_hole, err);
}

static int slice_copy_from(struct stream *s, hoff off, struct stream *src, hoff src_off,
                           uint64_t len, struct platter_error *err)
{
    struct slice_stream *p = slice_of(s);
    int r = check_inside(s, off, len, err);
    return r < 0 ? r : stream_copy_from(p->base, p->start + off, src, src_off, len, err);
}

static int slice_identity(struct stream *s, char **text, struct platter_error *err)
{
    const struct slice_stream *p = slice_of(s);
    int r = stream_identity(p->base, text, err);
    if (r == 0)
        r = identity_add(text, err, "start", "%" PRIu64, p->start);
    return r < 0 ? r : identity_add(text, err, "length", "%" PRIu64, p->len);
}

static bool slice_same(const struct stream *s, const struct stream *other)
{
    const struct slice_stream *a = (const struct slice_stream *)s,
                              *b = (const struct slice_stream *)other;
    return a->start == b->start && a->len == b->len && stream_same_bytes(a->base, b->base);
}

static const struct stream_ops slice_ops = {
    .name = "slice",
    .pread = slice_pread,
    .pwrite = slice_pwrite,
    .flush = slice_flush,
    .zero = slice_zero,
    .discard = slice_discard,
    .size = slice_size,
    .allocate = slice_allocate,
    .extents = slice_extents,
    .copy_from = slice_copy_from,
    .identity = slice_identity,
    .same = slice_same,
};

int stream_slice_open(struct stream *base, hoff start, uint64_t len, struct stream **ret,
                      struct platter_error *err)
{
    if (!range_inside(start, len, INT64_MAX))
        return fail(err, EINVAL, "%s: no slice of %" PRIu64 " bytes at offset %" PRIu64, base->name,
                    len, start);
    struct slice_stream *p = stream_new(sizeof *p, &slice_ops, base->name, err);
    if (!p)
        return -ENOMEM;
    p->head.writable = base->writable;
    p->base = base;
    p->start = start;
    p->len = len;
    *ret = &p->head;
    return 0;
}

int stream_part_open(struct stream *base, hoff start, uint64_t len, struct stream **ret,
                     struct platter_error *err)
{
    int r = stream_slice_open(base, start, len, ret, err);
    if (r == 0)
        (*ret)->base = base;
    return r;
}
