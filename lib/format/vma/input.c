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

int vma_input_read(struct vma_input *in, void *buf, size_t len, size_t *ret_len,
                   struct platter_error *err)
{
    size_t more = 0;
    *ret_len = take_back(in, buf, len, false);
    if (*ret_len == len)
        return 0;
    int r = stream_read(in->stream, (uint8_t *)buf + *ret_len, len - *ret_len, &more, err);
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
    return stream_pread(in->stream, buf, len, in->start + off, err);
}
