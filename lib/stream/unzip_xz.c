/* SPDX-License-Identifier: MIT */
/* xz, front to back: streams that follow one another, with padding of zeros between and behind. */
#include "config.h"
#include "stream/unzip.h"

#if HAVE_XZ

#include <lzma.h>

enum { PADDING = 4 /* comes in units of */ };

struct xz {
    lzma_stream decoder;
    uint64_t taken; /* of the budget: the decoder's limit */
};

/* Padding, if there is any, up to the next stream or the end: 1 where a stream follows. */
static int skip_padding(struct unzip *z, struct platter_error *err)
{
    const uint8_t *bytes;
    size_t len, n;
    uint64_t zeros = 0;

    do {
        int r = ring_bytes(&z->in, 1, &bytes, &len, err);
        if (r < 0)
            return r;
        for (n = 0; n < len && bytes[n] == 0; n++)
            ;
        ring_take(&z->in, n);
        zeros += n;
    } while (len && n == len);
    if (zeros % PADDING)
        return unzip_damaged(z, NULL, "the zeros in front are no multiple of 4", err);
    if (len && bytes[n] != 0xFD)
        return unzip_damaged(z, NULL, "a stream should begin there, or the file end", err);
    return len > 0;
}

static int begin(struct unzip *z, void *state, const uint8_t *prefix, size_t len,
                 struct platter_error *err)
{
    struct xz *d = state;
    (void)prefix, (void)len;
    int r = skip_padding(z, err);
    if (r != 1)
        return r;
    if (lzma_stream_decoder(&d->decoder, d->taken ? d->taken : 1, LZMA_TELL_UNSUPPORTED_CHECK) !=
        LZMA_OK)
        return fail_memory(err, "unpacking xz");
    return 1;
}

/* The decoder tells how much it needs. */
static int more_memory(struct unzip *z, struct xz *d, struct platter_error *err)
{
    uint64_t want = lzma_memusage(&d->decoder);
    if (want <= d->taken)
        return fail_memory(err, "unpacking xz");
    int r = unzip_take(z, &d->taken, want, err);
    if (r < 0)
        return r;
    return lzma_memlimit_set(&d->decoder, want) == LZMA_OK ? 0 : fail_memory(err, "unpacking xz");
}

static const char *why(lzma_ret code)
{
    switch (code) {
    case LZMA_FORMAT_ERROR:
        return "a stream should begin there, or the file end";
    case LZMA_OPTIONS_ERROR:
        return "it uses what is not known";
    case LZMA_UNSUPPORTED_CHECK:
        return "its checksum is of a kind that is not known";
    default:
        return "it makes no sense, or its checksum does not fit";
    }
}

static int step(struct unzip *z, void *state, struct unzip_step *s, struct platter_error *err)
{
    struct xz *x = state;
    lzma_stream *d = &x->decoder;
    lzma_ret r;
    int more = 0;
    d->next_in = s->in;
    d->avail_in = s->in_len;
    d->next_out = s->out;
    d->avail_out = s->out_len;
    while ((r = lzma_code(d, LZMA_RUN)) == LZMA_MEMLIMIT_ERROR && more == 0)
        more = more_memory(z, x, err);
    s->in_used = s->in_len - d->avail_in;
    s->out_used = s->out_len - d->avail_out;
    if (more < 0)
        return more;
    if (r == LZMA_MEM_ERROR)
        return fail_memory(err, "unpacking xz");
    if (r != LZMA_OK && r != LZMA_STREAM_END && r != LZMA_BUF_ERROR)
        return unzip_damaged(z, s, why(r), err);
    return r == LZMA_STREAM_END;
}

int unzip_xz(struct unzip *z, struct platter_error *err)
{
    static const struct unzip_ops ops = {.part = "stream", .begin = begin, .step = step};
    struct xz d = {.decoder = LZMA_STREAM_INIT};

    int r = unzip_parts(z, &ops, &d, err);
    lzma_end(&d.decoder);
    budget_give(z->budget, d.taken);
    return r;
}

#else

int unzip_xz(struct unzip *z, struct platter_error *err)
{
    return unzip_check(z->wrapper, err);
}

#endif
