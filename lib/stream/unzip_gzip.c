/* SPDX-License-Identifier: MIT */
/* gzip (RFC 1952), front to back: members that follow one another, and zeros behind the last. */
#include "config.h"
#include "stream/unzip.h"

#if HAVE_ISAL
#include <isa-l/igzip_lib.h>
#else
#define ZLIB_CONST
#include <zlib.h>
#endif

static int begin_member(struct unzip *z, const uint8_t *prefix, size_t len,
                        struct platter_error *err)
{
    uint64_t zeros;
    if (prefix[0] == 0)
        return unzip_zeros(z, &zeros, err);
    if (prefix[0] != 0x1F || (len > 1 && prefix[1] != 0x8B))
        return unzip_damaged(z, NULL, "a member should begin there, or the file end", err);
    return 1;
}

#if HAVE_ISAL

static int begin(struct unzip *z, void *state, const uint8_t *prefix, size_t len,
                 struct platter_error *err)
{
    struct inflate_state *d = state;
    isal_inflate_init(d);
    d->crc_flag = ISAL_GZIP;
    return begin_member(z, prefix, len, err);
}

static const char *why(int code)
{
    switch (code) {
    case ISAL_INCORRECT_CHECKSUM:
        return "the checksum or the length of a member does not fit what it holds";
    case ISAL_INVALID_WRAPPER:
    case ISAL_UNSUPPORTED_METHOD:
        return "the header of a member is wrong";
    case ISAL_INVALID_LOOKBACK:
        return "it refers to what is in front of its beginning";
    default:
        return "it makes no sense";
    }
}

static int step(struct unzip *z, void *state, struct unzip_step *s, struct platter_error *err)
{
    struct inflate_state *d = state;
    d->next_in = (uint8_t *)s->in;
    d->avail_in = (uint32_t)s->in_len;
    d->next_out = s->out;
    d->avail_out = (uint32_t)s->out_len;
    int r = isal_inflate(d);
    s->in_used = s->in_len - d->avail_in;
    s->out_used = s->out_len - d->avail_out;
    if (r != ISAL_DECOMP_OK)
        return unzip_damaged(z, s, why(r), err);
    return d->block_state == ISAL_BLOCK_FINISH;
}

int unzip_gzip(struct unzip *z, struct platter_error *err)
{
    static const struct unzip_ops ops = {.part = "member", .begin = begin, .step = step};
    struct inflate_state *d = NULL;
    uint64_t taken = 0;

    int r = unzip_take(z, &taken, sizeof *d, err);
    if (r == 0 && !(d = malloc(sizeof *d)))
        r = fail_memory(err, "unpacking gzip");
    if (r == 0)
        r = unzip_parts(z, &ops, d, err);
    free(d);
    budget_give(z->budget, taken);
    return r;
}

#else

enum { DECODER = 48 << 10 /* memory of a decoder */ };

static int begin(struct unzip *z, void *state, const uint8_t *prefix, size_t len,
                 struct platter_error *err)
{
    inflateReset(state);
    return begin_member(z, prefix, len, err);
}

static int step(struct unzip *z, void *state, struct unzip_step *s, struct platter_error *err)
{
    z_stream *d = state;
    d->next_in = s->in;
    d->avail_in = (unsigned)s->in_len;
    d->next_out = s->out;
    d->avail_out = (unsigned)s->out_len;
    int r = inflate(d, Z_NO_FLUSH);
    s->in_used = s->in_len - d->avail_in;
    s->out_used = s->out_len - d->avail_out;
    if (r == Z_MEM_ERROR)
        return fail_memory(err, "unpacking gzip");
    if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
        return unzip_damaged(z, s, d->msg ? d->msg : "it makes no sense", err);
    return r == Z_STREAM_END;
}

int unzip_gzip(struct unzip *z, struct platter_error *err)
{
    static const struct unzip_ops ops = {.part = "member", .begin = begin, .step = step};
    z_stream d = {0};
    uint64_t taken = 0;

    int r = unzip_take(z, &taken, DECODER, err);
    if (r < 0)
        return r;
    if (inflateInit2(&d, MAX_WBITS + 16) != Z_OK)
        r = fail_memory(err, "unpacking gzip");
    else
        r = unzip_parts(z, &ops, &d, err);
    inflateEnd(&d);
    budget_give(z->budget, taken);
    return r;
}

#endif
