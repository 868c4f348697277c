/* SPDX-License-Identifier: MIT */
/* gzip (RFC 1952), front to back: members that follow one another, and zeros behind the last. */
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "config.h"
#include "stream/unzip.h"

#if HAVE_ISAL
#include <libdeflate.h>

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

static bool is_member(const uint8_t *bytes, size_t len)
{
    return len >= 3 && memcmp(bytes, "\x1F\x8B\x08", 3) == 0;
}

static int find(struct unzip *z, void *state, struct platter_error *err)
{
    (void)state;
    return unzip_seek_part(z, 3, is_member, err);
}

#if HAVE_ISAL

/* The library takes a checksum of a header that comes in two pieces for wrong, and flags that must
 * be 0 for right: headers are read here (RFC 1952, section 2.3). */
enum { FIXED = 10, HAS_CRC = 2, HAS_EXTRA = 4, HAS_NAME = 8, HAS_COMMENT = 16, RESERVED = 0xE0 };

/* Passes over n bytes, of a text over what there is of them up to a zero; *crc goes on over them.
 */
static int pass(struct unzip *z, uint64_t n, bool text, uint32_t *crc, struct platter_error *err)
{
    const uint8_t *bytes, *zero = NULL;
    size_t len;

    for (; n > 0 && !zero; n -= len) {
        int r = ring_bytes(&z->in, 1, &bytes, &len, err);
        if (r < 0)
            return r;
        if (len == 0)
            return unzip_truncated(z, "member", err);
        len = (size_t)min_u64(len, n);
        zero = text ? memchr(bytes, 0, len) : NULL;
        len = zero ? (size_t)(zero - bytes) + 1 : len;
        *crc = libdeflate_crc32(*crc, bytes, len);
        ring_take(&z->in, len);
    }
    return 0;
}

/* A number of two bytes. */
static int pass_number(struct unzip *z, uint32_t *crc, uint64_t *ret, struct platter_error *err)
{
    uint8_t bytes[2] = {0};
    size_t len;
    int r = ring_peek(&z->in, bytes, sizeof bytes, &len, err);
    *ret = get_le(bytes, sizeof bytes);
    return r < 0 ? r : pass(z, sizeof bytes, false, crc, err);
}

static int pass_header(struct unzip *z, unsigned flags, struct platter_error *err)
{
    uint64_t extra = 0, wanted = 0;
    uint32_t crc = 0;

    int r = pass(z, FIXED, false, &crc, err);
    if (r == 0 && flags & HAS_EXTRA)
        r = pass_number(z, &crc, &extra, err);
    if (r == 0)
        r = pass(z, extra, false, &crc, err);
    if (r == 0 && flags & HAS_NAME)
        r = pass(z, UINT64_MAX, true, &crc, err);
    if (r == 0 && flags & HAS_COMMENT)
        r = pass(z, UINT64_MAX, true, &crc, err);
    if (r < 0 || !(flags & HAS_CRC))
        return r;
    const uint32_t sum = crc;
    r = pass_number(z, &crc, &wanted, err);
    if (r == 0 && wanted != (sum & 0xFFFF))
        r = unzip_damaged(z, NULL, "the checksum of the header in front of it is wrong", err);
    return r;
}

static int begin(struct unzip *z, void *state, const uint8_t *prefix, size_t len,
                 struct platter_error *err)
{
    struct inflate_state *d = state;
    isal_inflate_init(d);
    d->crc_flag = ISAL_GZIP_NO_HDR_VER;
    int r = begin_member(z, prefix, len, err);
    if (r <= 0)
        return r;
    if ((len > 2 && prefix[2] != 8) || (len > 3 && prefix[3] & RESERVED))
        return unzip_damaged(z, NULL, "the header of a member is wrong", err);
    r = pass_header(z, len > 3 ? prefix[3] : 0, err);
    return r < 0 ? r : 1;
}

static const char *why(int code)
{
    switch (code) {
    case ISAL_INCORRECT_CHECKSUM:
        return "the checksum or the length of a member does not fit what it holds";
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
    static const struct unzip_ops ops = {
        .part = "member", .begin = begin, .step = step, .find = find};
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

/* The same words as of the other library. */
static const char *why(const char *said)
{
    if (!said)
        return "it makes no sense";
    if (strstr(said, "data check") || strstr(said, "length check"))
        return "the checksum or the length of a member does not fit what it holds";
    return strstr(said, "header") || strstr(said, "method") ? "the header of a member is wrong"
                                                            : said;
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
        return unzip_damaged(z, s, why(d->msg), err);
    return r == Z_STREAM_END;
}

int unzip_gzip(struct unzip *z, struct platter_error *err)
{
    static const struct unzip_ops ops = {
        .part = "member", .begin = begin, .step = step, .find = find};
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
