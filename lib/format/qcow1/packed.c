/* SPDX-License-Identifier: MIT */
/* Compressed clusters, which stand byte behind byte: section 4. */
#include <inttypes.h>

#include "base/codec.h"
#include "format/qcow1/qcow1.h"

int qcow1_unpack(struct image *img, const struct extent *e, void *out, struct platter_error *err)
{
    const struct qcow1 *q = qcow1_of(img);
    void *in = NULL;

    int r = budget_alloc(img->budget, e->packed_len, "a compressed cluster", &in, err);
    if (r == 0)
        r = stream_pread(img->stream, in, e->packed_len, e->off, err);
    if (r == 0) {
        r = codec_unpack(CODEC_DEFLATE, in, e->packed_len, out, q->cluster_size, NULL, err);
        if (r < 0)
            r = fail_in(err, r,
                        "%s: the compressed cluster of guest offset %" PRIu64 " at %" PRIu64
                        " (%" PRIu64 " bytes)",
                        img->stream->name, e->unit_start, e->off, e->packed_len);
    }
    budget_free(img->budget, in, e->packed_len);
    return r;
}
