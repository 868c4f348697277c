/* SPDX-License-Identifier: MIT */
/* An archive that comes front to back, of which bytes can be put back to be read once more. */
#ifndef FORMAT_VMA_INPUT_H
#define FORMAT_VMA_INPUT_H

#include "base/memory.h"
#include "format/vma/unreadable.h"
#include "stream/stream.h"

struct vma_input {
    struct stream *stream;
    struct budget *budget;
    hoff start;    /* where the archive begins in the stream */
    hoff pos;      /* of the next byte, in the archive */
    uint8_t *back; /* what was put back: [back_at, back_len) comes before what the stream has */
    size_t back_at, back_len;
    /* Of what can be read anywhere: where parts that cannot be read are told, which are zeros then;
     * NULL: it is an error. */
    vma_unreadable_fn tell;
    void *opaque;
    struct vma_unreadable *unreadable;
};

void vma_input_open(struct vma_input *in, struct stream *stream, struct budget *budget);
void vma_input_close(struct vma_input *in);

/* As stream_read(), stream_peek() and stream_skip(). An error of the stream comes after all bytes
 * that it has in front of it. */
int vma_input_read(struct vma_input *in, void *buf, size_t len, size_t *ret_len,
                   struct platter_error *err);
int vma_input_peek(struct vma_input *in, void *buf, size_t len, size_t *ret_len,
                   struct platter_error *err);
int vma_input_skip(struct vma_input *in, uint64_t len, uint64_t *ret_len,
                   struct platter_error *err);
/* These bytes, the last ones that were read, will be read again. */
int vma_input_put_back(struct vma_input *in, const void *bytes, size_t len,
                       struct platter_error *err);

/* Whether what was skipped can still be read. */
static inline bool vma_input_anywhere(const struct vma_input *in)
{
    return in->stream->ops->read == NULL;
}
/* Reads what is behind us, of a stream that can be read anywhere. */
int vma_input_pread(struct vma_input *in, void *buf, size_t len, hoff off,
                    struct platter_error *err);

/* The first part of [start, end) that was found unreadable: its end, and where it begins; 0: none
 * was. */
hoff vma_input_unreadable(const struct vma_input *in, hoff start, hoff end, hoff *ret_start);
/* Passes over the part that comes next, if it is known to be unreadable: how many bytes. */
uint64_t vma_input_pass_unreadable(struct vma_input *in);

#endif
