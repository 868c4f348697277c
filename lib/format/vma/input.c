/* SPDX-License-Identifier: MIT */
#include "format/vma/input.h"

#include <string.h>

#include "base/ckd.h"

void vma_input_open(struct vma_input *in, struct stream *stream, struct budget *budget)
{
    *in = (struct vma_input){.stream = stream, .budget = budget, .start = stream->position};
}

void vma_input_close(struct vma_input *in)
{
    if (in->budget)
        budget_free(in->budget, TAKE(in->back), in->back_len);
    vma_unreadable_free(TAKE(in->unreadable));
}

/* Up to `len` of the bytes that were put back. */
static size_t take_back(struct vma_input *in, void *buf, uint64_t len, bool keep)
{
    size_t n = (size_t)min_u64(len, in->back_len - in->back_at);
    if (n && buf)
        memcpy(buf, in->back + in->back_at, n);
    if (keep)
        return n;
    in->back_at += n;
    in->pos += n;
    if (n && in->back_at == in->back_len) {
        budget_free(in->budget, TAKE(in->back), in->back_len);
        in->back_at = in->back_len = 0;
    }
    return n;
}

/* Whether a read that failed is done once more, around what cannot be read. */
static bool goes_around(const struct vma_input *in, int code)
{
    return in->tell && vma_input_anywhere(in) && vma_is_unreadable(code);
}

static int read_around(struct vma_input *in, void *buf, size_t len, hoff off,
                       struct platter_error *err)
{
    return vma_unreadable_pread(&in->unreadable, in->stream, buf, len, in->start + off, in->tell,
                                in->opaque, err);
}

/* The next bytes of the stream. */
static int read_next(struct vma_input *in, void *buf, size_t len, size_t *ret_len,
                     struct platter_error *err)
{
    uint64_t size;
    int r = stream_read(in->stream, buf, len, ret_len, err);

    if (r == 0 || !goes_around(in, r))
        return r;
    r = stream_size(in->stream, &size, err);
    if (r < 0)
        return r;
    *ret_len = (size_t)min_u64(len, size - min_u64(size, in->start + in->pos));
    r = read_around(in, buf, *ret_len, in->pos, err);
    *ret_len = r < 0 ? 0 : *ret_len;
    in->stream->position += *ret_len;
    return r;
}

int vma_input_read(struct vma_input *in, void *buf, size_t len, size_t *ret_len,
                   struct platter_error *err)
{
    size_t more = 0;
    *ret_len = take_back(in, buf, len, false);
    if (*ret_len == len)
        return 0;
    int r = read_next(in, (uint8_t *)buf + *ret_len, len - *ret_len, &more, err);
    in->pos += more;
    *ret_len += more;
    return r < 0 && *ret_len == 0 ? r : 0;
}

int vma_input_peek(struct vma_input *in, void *buf, size_t len, size_t *ret_len,
                   struct platter_error *err)
{
    size_t more = 0;
    *ret_len = take_back(in, buf, len, true);
    if (*ret_len == len)
        return 0;
    int r = stream_peek(in->stream, (uint8_t *)buf + *ret_len, len - *ret_len, &more, err);
    *ret_len += more;
    return r < 0 && *ret_len == 0 ? r : 0;
}

int vma_input_skip(struct vma_input *in, uint64_t len, uint64_t *ret_len, struct platter_error *err)
{
    uint64_t more = 0;
    *ret_len = take_back(in, NULL, len, false);
    if (*ret_len == len)
        return 0;
    int r = stream_skip(in->stream, len - *ret_len, &more, err);
    in->pos += more;
    *ret_len += more;
    return r < 0 && *ret_len == 0 ? r : 0;
}

int vma_input_put_back(struct vma_input *in, const void *bytes, size_t len,
                       struct platter_error *err)
{
    size_t left = in->back_len - in->back_at;
    uint8_t *both;

    if (len == 0)
        return 0;
    if (len <= in->back_at) { /* where they came from there is room for them */
        memcpy(in->back + in->back_at - len, bytes, len);
        in->back_at -= len;
        in->pos -= len;
        return 0;
    }
    int r =
        budget_alloc(in->budget, len + left, "a part of an archive that is read again", &both, err);
    if (r < 0)
        return r;
    memcpy(both, bytes, len);
    if (left)
        memcpy(both + len, in->back + in->back_at, left);
    budget_free(in->budget, in->back, in->back_len);
    in->back = both;
    in->back_at = 0;
    in->back_len = len + left;
    in->pos -= len;
    return 0;
}

int vma_input_pread(struct vma_input *in, void *buf, size_t len, hoff off,
                    struct platter_error *err)
{
    int r = stream_pread(in->stream, buf, len, in->start + off, err);
    return r < 0 && goes_around(in, r) ? read_around(in, buf, len, off, err) : r;
}

hoff vma_input_unreadable(const struct vma_input *in, hoff start, hoff end, hoff *ret_start)
{
    hoff stop = vma_unreadable_find(in->unreadable, in->start + start, in->start + end, ret_start);
    if (stop == 0)
        return 0;
    *ret_start -= in->start;
    return stop - in->start;
}

uint64_t vma_input_pass_unreadable(struct vma_input *in)
{
    hoff start, end = in->back ? 0 : vma_input_unreadable(in, in->pos, UINT64_MAX / 2, &start);
    if (end == 0 || start > in->pos)
        return 0;
    uint64_t n = end - in->pos;
    in->stream->position += n;
    in->pos += n;
    return n;
}
