/* SPDX-License-Identifier: MIT */
/*
 * Reading front to back, of any stream. What can be read anywhere goes on at s->position; what was
 * peeked of the rest waits in s->ahead.
 */
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "stream/inside.h"

enum { SKIPPED_AT_ONCE = 64 << 10 };

/* How many of `len` bytes are left of a stream that can be read anywhere. Its size is asked for
 * only where the answer matters: archives are read in many small steps. */
static int left_of(struct stream *s, uint64_t len, uint64_t *ret, struct platter_error *err)
{
    uint64_t at = s->position, left = s->known_size > at ? s->known_size - at : 0;
    int r = 0;

    if (left < len) {
        r = stream_size(s, &s->known_size, err);
        left = r == 0 && s->known_size > at ? s->known_size - at : 0;
    }
    *ret = min_u64(len, left);
    return r;
}

static int read_anywhere(struct stream *s, void *buf, size_t len, size_t *ret_len,
                         struct platter_error *err)
{
    uint64_t n;
    int r = left_of(s, len, &n, err);
    if (r == 0)
        r = stream_pread(s, buf, (size_t)n, s->position, err);
    *ret_len = r < 0 ? 0 : (size_t)n;
    return r;
}

int stream_read(struct stream *s, void *buf, size_t len, size_t *ret_len, struct platter_error *err)
{
    size_t first = (size_t)min_u64(len, s->ahead_len - s->ahead_used), more = 0;
    int r = 0;

    if (first)
        memcpy(buf, s->ahead + s->ahead_used, first);
    if (s->ops->read && len > first)
        r = s->ops->read(s, (uint8_t *)buf + first, len - first, &more, err);
    else if (!s->ops->read)
        r = read_anywhere(s, buf, len, &more, err);
    s->ahead_used += first;
    s->position += *ret_len = first + more;
    return r;
}

/* Has `len` bytes wait in s->ahead, or all there are. */
static int look_ahead(struct stream *s, size_t len, struct platter_error *err)
{
    size_t there = s->ahead_len - s->ahead_used, more = 0;

    if (there >= len)
        return 0;
    if (!s->ahead && !(s->ahead = malloc(STREAM_MOST_PEEK)))
        return fail_memory(err, "the first bytes of a stream");
    memmove(s->ahead, s->ahead + s->ahead_used, there);
    s->ahead_used = 0;
    s->ahead_len = there;
    int r = s->ops->read(s, s->ahead + there, len - there, &more, err);
    s->ahead_len += more;
    return r;
}

int stream_peek(struct stream *s, void *buf, size_t len, size_t *ret_len, struct platter_error *err)
{
    *ret_len = 0;
    if (len > STREAM_MOST_PEEK)
        return fail(err, EINVAL, "%s: so much is not looked at beforehand", s->name);
    if (!s->ops->read)
        return read_anywhere(s, buf, len, ret_len, err);
    int r = look_ahead(s, len, err);
    *ret_len = (size_t)min_u64(len, s->ahead_len - s->ahead_used);
    if (*ret_len)
        memcpy(buf, s->ahead + s->ahead_used, *ret_len);
    return r;
}

void stream_interrupt(struct stream *s)
{
    if (s->ops->interrupt)
        s->ops->interrupt(s);
    else if (s->base)
        stream_interrupt(s->base);
}

void stream_persist(struct stream *s)
{
    if (s->ops->persist)
        s->ops->persist(s);
    else if (s->base)
        stream_persist(s->base);
}

bool stream_resume(struct stream *s)
{
    return s->ops->resume && s->ops->resume(s);
}

uint64_t stream_checked(struct stream *s)
{
    return s->ops->checked ? s->ops->checked(s) : UINT64_MAX;
}

bool stream_lacks_checksums(struct stream *s)
{
    return s->ops->lacks_checksums && s->ops->lacks_checksums(s);
}

static int skip_anywhere(struct stream *s, uint64_t len, uint64_t *ret_len,
                         struct platter_error *err)
{
    int r = left_of(s, len, ret_len, err);
    s->position += *ret_len;
    return r;
}

int stream_skip(struct stream *s, uint64_t len, uint64_t *ret_len, struct platter_error *err)
{
    uint8_t bytes[SKIPPED_AT_ONCE];
    size_t n = 1;
    int r = 0;

    if (!s->ops->read)
        return skip_anywhere(s, len, ret_len, err);
    for (*ret_len = 0; r == 0 && n && *ret_len < len; *ret_len += n)
        r = stream_read(s, bytes, (size_t)min_u64(len - *ret_len, sizeof bytes), &n, err);
    return r;
}
