/* SPDX-License-Identifier: MIT */
/*
 * The front of all streams: checks ranges and rights once, so that implementations see only
 * requests that make sense (len > 0, off + len fits a signed 64-bit offset), and stands in for
 * operations that an implementation does not have.
 */
#include "stream/stream.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "stream/inside.h"

enum {
    ZERO_BLOCK = 64 * 1024 /* zeros that are written at once where there is no better way */
};

void *stream_new(size_t size, const struct stream_ops *ops, const char *name,
                 struct platter_error *err)
{
    struct stream *s = calloc(1, size);
    char *copy = string_copy(name);
    if (!s || !copy) {
        free(s);
        free(copy);
        fail_memory(err, "a stream");
        return NULL;
    }
    s->ops = ops;
    s->name = copy;
    return s;
}

int stream_fail_past_end(const struct stream *s, hoff off, uint64_t len, uint64_t size,
                         struct platter_error *err)
{
    return fail(err, PLATTER_ECORRUPT,
                "%s: %" PRIu64 " bytes at offset %" PRIu64
                " are wanted, but the file ends at %" PRIu64 ": it is truncated or damaged",
                s->name, len, off, size);
}

static bool range_fits(hoff off, uint64_t len)
{
    return range_inside(off, len, INT64_MAX);
}

static int fail_unsupported(const struct stream *s, const char *what, struct platter_error *err)
{
    return fail(err, ENOTSUP, "%s: a %s stream cannot %s", s->name, s->ops->name, what);
}

/* What every change asks first. */
static int check_change(const struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    if (!s->writable)
        return fail(err, EBADF, "%s: is open for reading only", s->name);
    if (!range_fits(off, len))
        return fail(err, EFBIG, "%s: %" PRIu64 " bytes at offset %" PRIu64 " are out of reach",
                    s->name, len, off);
    return 0;
}

int stream_pread(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err)
{
    if (!s->ops->pread)
        return fail_unsupported(s, "be read at any place", err);
    if (!range_fits(off, len))
        return stream_fail_past_end(s, off, len, INT64_MAX, err);
    return len == 0 ? 0 : s->ops->pread(s, buf, len, off, err);
}

int stream_pread_tail(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err)
{
    uint64_t size;
    int r = stream_size(s, &size, err);
    if (r < 0)
        return r;
    size_t there = off < size ? (size_t)min_u64(len, size - off) : 0;
    memset((char *)buf + there, 0, len - there);
    return there == 0 ? 0 : stream_pread(s, buf, there, off, err);
}

int stream_pwrite(struct stream *s, const void *buf, size_t len, hoff off,
                  struct platter_error *err)
{
    if (!s->ops->pwrite)
        return fail_unsupported(s, "be written", err);
    int r = check_change(s, off, len, err);
    return r < 0 || len == 0 ? r : s->ops->pwrite(s, buf, len, off, err);
}

int stream_flush(struct stream *s, struct platter_error *err)
{
    return s->writable && s->ops->flush ? s->ops->flush(s, err) : 0;
}

int stream_write_zeros(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    static const char zeros[ZERO_BLOCK];
    int r = 0;
    while (len > 0 && r == 0) {
        size_t n = (size_t)min_u64(len, sizeof zeros);
        r = stream_pwrite(s, zeros, n, off, err);
        off += n;
        len -= n;
    }
    return r;
}

int stream_zero(struct stream *s, hoff off, uint64_t len, unsigned flags, struct platter_error *err)
{
    int r = check_change(s, off, len, err);
    if (r < 0 || len == 0)
        return r;
    r = s->ops->zero ? s->ops->zero(s, off, len, flags, err) : -ENOTSUP;
    return r == -ENOTSUP ? stream_write_zeros(s, off, len, err) : r;
}

int stream_discard(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    int r = check_change(s, off, len, err);
    if (r < 0 || len == 0 || !s->ops->discard)
        return r;
    r = s->ops->discard(s, off, len, err);
    return r == -ENOTSUP ? 0 : r;
}

int stream_size(struct stream *s, uint64_t *ret_size, struct platter_error *err)
{
    if (!s->ops->size)
        return fail_unsupported(s, "tell its size", err);
    return s->ops->size(s, ret_size, err);
}

int stream_reach(struct stream *s, hoff off, uint64_t *ret_size, struct platter_error *err)
{
    return s->ops->reach ? s->ops->reach(s, off, ret_size, err) : stream_size(s, ret_size, err);
}

int stream_resize(struct stream *s, uint64_t size, struct platter_error *err)
{
    if (!s->ops->resize)
        return fail_unsupported(s, "change its size", err);
    int r = check_change(s, 0, size, err);
    return r < 0 ? r : s->ops->resize(s, size, err);
}

int stream_allocate(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    int r = check_change(s, off, len, err);
    if (r < 0 || len == 0)
        return r;
    if (s->ops->allocate)
        return s->ops->allocate(s, off, len, err);
    uint64_t size;
    r = stream_size(s, &size, err);
    if (r < 0 || size >= off + len)
        return r;
    return stream_resize(s, off + len, err);
}

int stream_extents(struct stream *s, hoff off, uint64_t len, uint64_t *ret_len, bool *ret_hole,
                   struct platter_error *err)
{
    if (len == 0 || !range_fits(off, len))
        return fail(err, EINVAL, "%s: no extents of %" PRIu64 " bytes at offset %" PRIu64, s->name,
                    len, off);
    uint64_t size;
    int r = stream_size(s, &size, err);
    if (r < 0)
        return r;
    *ret_hole = off >= size;
    *ret_len = *ret_hole ? len : min_u64(len, size - off);
    if (*ret_hole || !s->ops->extents)
        return 0;
    return s->ops->extents(s, off, *ret_len, ret_len, ret_hole, err);
}

int stream_copy_from(struct stream *s, hoff off, struct stream *src, hoff src_off, uint64_t len,
                     struct platter_error *err)
{
    if (!s->ops->copy_from)
        return -ENOTSUP;
    int r = check_change(s, off, len, err);
    if (r < 0 || len == 0)
        return r;
    if (!range_fits(src_off, len))
        return stream_fail_past_end(src, src_off, len, INT64_MAX, err);
    return s->ops->copy_from(s, off, src, src_off, len, err);
}

int stream_lock(struct stream *s, unsigned use, unsigned deny, struct platter_error *err)
{
    if (s->base)
        return stream_lock(s->base, use, deny, err);
    return s->ops->lock ? s->ops->lock(s, use, deny, err) : 0;
}

int stream_publish(struct stream *s, bool durable, struct platter_error *err)
{
    if (s->ops->publish)
        return s->ops->publish(s, durable, err);
    return durable ? stream_flush(s, err) : 0;
}

int stream_make_way(struct stream *s, bool durable, struct platter_error *err)
{
    return s->ops->make_way ? s->ops->make_way(s, durable, err) : 0;
}

int stream_write_over(struct stream *s, const void *bytes, size_t len, struct platter_error *err)
{
    int r = stream_pwrite(s, bytes, len, 0, err);
    if (r == 0)
        r = stream_resize(s, len, err);
    return r < 0 ? r : stream_flush(s, err);
}

int stream_replace(struct stream *s, const void *bytes, size_t len, struct platter_error *err)
{
    int r = check_change(s, 0, len, err);
    if (r < 0)
        return r;
    return s->ops->replace ? s->ops->replace(s, bytes, len, err)
                           : stream_write_over(s, bytes, len, err);
}

int stream_unchanged(struct stream *s, struct platter_error *err)
{
    int r = 0;
    for (; s && r == 0; s = s->base)
        r = s->ops->unchanged ? s->ops->unchanged(s, err) : 0;
    return r;
}

int stream_withdraw(struct stream *s, bool back, struct platter_error *err)
{
    return s->ops->withdraw ? s->ops->withdraw(s, back, err) : 0;
}

int stream_give_up(struct stream *s, int r, struct platter_error *err)
{
    struct platter_error besides = {0};
    int failed = s && s->ops->give_up ? s->ops->give_up(s, &besides) : 0;
    if (failed == 0)
        return r;
    r = r == -ECANCELED ? failed : r;
    return fail_besides(err, -r, "%s", besides.message);
}

struct stream *stream_share(struct stream *s)
{
    atomic_fetch_add(&s->shared, 1);
    return s;
}

void stream_close(struct stream *s)
{
    if (!s || atomic_fetch_sub(&s->shared, 1) > 0)
        return;
    if (s->states)
        s->states->close(s->states);
    if (s->ops->close)
        s->ops->close(s);
    stream_close(s->base);
    free(s->ahead);
    free(s->name);
    free(s);
}
