/* SPDX-License-Identifier: MIT */
/* Damage of which it is known what it left: vmaimage.h. */
#include <string.h>

#include "support/must.h"
#include "support/vmaimage.h"

void vmaimage_wreck_start(struct vmaimage_wreck *w, const struct vmaimage *v)
{
    MUST(v->file.size < INT32_MAX);
    w->file = buffer_copy(&v->file, v->file.size);
    w->was = malloc((v->file.size + 1) * sizeof *w->was);
    MUST(w->was);
    for (uint64_t i = 0; i < v->file.size; i++)
        w->was[i] = (int32_t)i;
}

void vmaimage_wreck_free(struct vmaimage_wreck *w)
{
    buffer_free(&w->file);
    free(w->was);
    w->was = NULL;
}

void wreck_flip(struct vmaimage_wreck *w, hoff off, unsigned bit)
{
    MUST(off < w->file.size);
    w->file.bytes[off] ^= (uint8_t)(1u << bit);
    w->was[off] = VI_LOST;
}

void wreck_cut(struct vmaimage_wreck *w, uint64_t size)
{
    MUST(size <= w->file.size);
    w->file.size = size;
}

void wreck_remove(struct vmaimage_wreck *w, hoff off, uint64_t len)
{
    MUST(off + len <= w->file.size);
    uint64_t behind = w->file.size - off - len;
    memmove(w->file.bytes + off, w->file.bytes + off + len, behind);
    memmove(w->was + off, w->was + off + len, behind * sizeof *w->was);
    w->file.size -= len;
}

/* Makes room of `len` bytes at `off`. */
static void make_room(struct vmaimage_wreck *w, hoff off, uint64_t len)
{
    struct buffer b = buffer_new(w->file.size + len);
    int32_t *was = malloc((w->file.size + len + 1) * sizeof *was);
    MUST(was && off <= w->file.size);
    uint64_t behind = w->file.size - off;

    b.size = w->file.size + len;
    memcpy(b.bytes, w->file.bytes, off);
    memcpy(b.bytes + off + len, w->file.bytes + off, behind);
    memcpy(was, w->was, off * sizeof *was);
    memcpy(was + off + len, w->was + off, behind * sizeof *was);
    vmaimage_wreck_free(w);
    w->file = b;
    w->was = was;
}

void wreck_overwrite(struct vmaimage_wreck *w, hoff off, const void *bytes, uint64_t len,
                     struct prng *p)
{
    MUST(off + len <= w->file.size);
    for (uint64_t i = 0; i < len; i++) {
        w->file.bytes[off + i] = bytes ? ((const uint8_t *)bytes)[i] : (uint8_t)prng_next(p);
        w->was[off + i] = VI_LOST;
    }
}

void wreck_insert(struct vmaimage_wreck *w, hoff off, const void *bytes, uint64_t len,
                  struct prng *p)
{
    make_room(w, off, len);
    wreck_overwrite(w, off, bytes, len, p);
}

void wreck_repeat(struct vmaimage_wreck *w, hoff off, uint64_t len, hoff at)
{
    MUST(off + len <= w->file.size);
    uint8_t *bytes = malloc(len + 1);
    int32_t *was = malloc((len + 1) * sizeof *was);
    MUST(bytes && was);
    memcpy(bytes, w->file.bytes + off, len);
    memcpy(was, w->was + off, len * sizeof *was);
    make_room(w, at, len);
    memcpy(w->file.bytes + at, bytes, len);
    memcpy(w->was + at, was, len * sizeof *was);
    free(bytes);
    free(was);
}

void wreck_swap(struct vmaimage_wreck *w, hoff a, uint64_t a_len, hoff b, uint64_t b_len)
{
    MUST(a + a_len <= b && b + b_len <= w->file.size);
    wreck_repeat(w, b, b_len, a);                 /* b a .. b */
    wreck_remove(w, b + b_len, b_len);            /* b a .. */
    wreck_repeat(w, a + b_len, a_len, b + b_len); /* b a .. a */
    wreck_remove(w, a + b_len, a_len);            /* b .. a */
}

bool wreck_is(const struct vmaimage_wreck *w, uint64_t at, hoff off, uint64_t len)
{
    if (at > w->file.size || len > w->file.size - at)
        return false;
    for (uint64_t i = 0; i < len; i++)
        if (w->was[at + i] != (int32_t)(off + i))
            return false;
    return true;
}
