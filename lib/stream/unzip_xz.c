/* SPDX-License-Identifier: MIT */
/*
 * xz, front to back: streams that follow one another, with padding of zeros between and behind. A
 * stream is a header, blocks, an index of them and a footer. Each block is unpacked as a part of
 * its own, for it has a checksum of its own; behind a damaged one the next one is known by the
 * checksum of its header.
 */
#include "config.h"
#include "stream/unzip.h"

#if HAVE_XZ

#include <lzma.h>
#include <stdlib.h>
#include <string.h>

enum {
    PADDING = 4,        /* comes in units of */
    INDEX = 0,          /* the first byte of one; of a block it is something else */
    DECODER = 64 << 10, /* memory besides that of the filters */
    USUAL_HEADER = 64   /* bytes of the header of a block, with all that anybody writes */
};

struct xz {
    lzma_stream decoder;
    uint64_t taken;          /* of the budget */
    lzma_stream_flags flags; /* of the stream */
    bool inside;             /* of one, behind its header */
    bool lost;               /* ... some blocks of which were passed over */
    lzma_index_hash *index;  /* of those that came, */
    lzma_block block;        /* and the one in hand, which is `begun`: */
    lzma_filter filters[LZMA_FILTERS_MAX + 1];
    bool begun;
    uint64_t end; /* in z->in; 0: not known */
};

static int damaged(struct unzip *z, const char *why, struct platter_error *err)
{
    return unzip_damaged(z, NULL, why, err);
}

static const char *why(lzma_ret code)
{
    switch (code) {
    case LZMA_FORMAT_ERROR:
        return "a stream should begin there, or the file end";
    case LZMA_OPTIONS_ERROR:
        return "it uses what is not known";
    default:
        return "it makes no sense, or its checksum does not fit";
    }
}

/* A failure of the library; 0 where it is none. */
static int judge(struct unzip *z, const struct unzip_step *s, lzma_ret code,
                 struct platter_error *err)
{
    if (code == LZMA_OK || code == LZMA_STREAM_END || code == LZMA_BUF_ERROR)
        return 0;
    return code == LZMA_MEM_ERROR ? fail_memory(err, "unpacking xz")
                                  : unzip_damaged(z, s, why(code), err);
}

/* The next n bytes, all of them. */
static int peek(struct unzip *z, uint8_t *bytes, size_t n, const char *part,
                struct platter_error *err)
{
    size_t len;
    int r = ring_peek(&z->in, bytes, n, &len, err);
    return r == 0 && len < n ? unzip_truncated(z, part, err) : r;
}

/* ---- streams ---------------------------------------------------------------------------------
 */

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
        return damaged(z, "the zeros in front are no multiple of 4", err);
    if (len && bytes[n] != 0xFD)
        return damaged(z, "a stream should begin there, or the file end", err);
    return len > 0;
}

/* 1: one has begun. */
static int begin_stream(struct unzip *z, struct xz *x, struct platter_error *err)
{
    uint8_t bytes[LZMA_STREAM_HEADER_SIZE];

    int r = skip_padding(z, err);
    if (r != 1)
        return r;
    r = peek(z, bytes, sizeof bytes, "stream", err);
    if (r == 0)
        r = judge(z, NULL, lzma_stream_header_decode(&x->flags, bytes), err);
    if (r == 0 && !lzma_check_is_supported(x->flags.check))
        r = damaged(z, "its checksum is of a kind that is not known", err);
    if (r < 0)
        return r;
    x->index = lzma_index_hash_init(x->index, NULL);
    if (!x->index)
        return fail_memory(err, "unpacking xz");
    ring_take(&z->in, sizeof bytes);
    x->inside = true;
    x->lost = false;
    return 1;
}

/* The index tells again how long each block was. */
static int check_index(struct unzip *z, struct xz *x, struct platter_error *err)
{
    lzma_ret code = LZMA_OK;
    while (code == LZMA_OK) {
        const uint8_t *bytes;
        size_t len, used = 0;
        int r = ring_bytes(&z->in, 1, &bytes, &len, err);
        if (r < 0)
            return r;
        if (len == 0)
            return unzip_truncated(z, "stream", err);
        code = lzma_index_hash_decode(x->index, bytes, &used, len);
        ring_take(&z->in, used);
    }
    return judge(z, NULL, code, err);
}

static int end_stream(struct unzip *z, struct xz *x, struct platter_error *err)
{
    uint8_t bytes[LZMA_STREAM_HEADER_SIZE];
    lzma_stream_flags footer;

    int r = check_index(z, x, err);
    if (r == 0)
        r = peek(z, bytes, sizeof bytes, "stream", err);
    if (r == 0)
        r = judge(z, NULL, lzma_stream_footer_decode(&footer, bytes), err);
    if (r < 0)
        return r;
    if (lzma_stream_flags_compare(&x->flags, &footer) != LZMA_OK ||
        footer.backward_size != lzma_index_hash_size(x->index))
        return damaged(z, "the end of the stream does not fit its beginning", err);
    ring_take(&z->in, sizeof bytes);
    x->inside = false;
    return 0;
}

static bool is_stream(const uint8_t *bytes, size_t len)
{
    lzma_stream_flags flags;
    return len >= LZMA_STREAM_HEADER_SIZE && bytes[0] == 0xFD &&
           lzma_stream_header_decode(&flags, bytes) == LZMA_OK;
}

/* An index that tells of blocks that were lost is of no use. */
static int leave_stream(struct unzip *z, struct xz *x, struct platter_error *err)
{
    x->inside = false;
    int r = unzip_seek(z, LZMA_STREAM_HEADER_SIZE, is_stream, err);
    return r < 0 ? r : 0;
}

/* ---- blocks ----------------------------------------------------------------------------------
 */

static void free_filters(lzma_filter *filters)
{
    for (unsigned i = 0; i < LZMA_FILTERS_MAX && filters[i].id != LZMA_VLI_UNKNOWN; i++)
        free(filters[i].options);
    filters[0].id = LZMA_VLI_UNKNOWN;
}

static lzma_ret decode_header(const uint8_t *bytes, lzma_check check, lzma_block *block,
                              lzma_filter *filters)
{
    *block = (lzma_block){.version = 1,
                          .header_size = lzma_block_header_size_decode(bytes[0]),
                          .check = check,
                          .filters = filters};
    return lzma_block_header_decode(block, NULL, bytes);
}

/* The block in front, which has ended, is entered in the index to be. */
static int end_block(struct unzip *z, struct xz *x, struct platter_error *err)
{
    bool begun = x->begun;
    x->begun = false;
    if (!begun || x->lost)
        return 0;
    return judge(z, NULL,
                 lzma_index_hash_append(x->index, lzma_block_unpadded_size(&x->block),
                                        x->block.uncompressed_size),
                 err);
}

static int begin_block(struct unzip *z, struct xz *x, uint8_t first, struct platter_error *err)
{
    uint8_t bytes[LZMA_BLOCK_HEADER_SIZE_MAX];
    const size_t len = lzma_block_header_size_decode(first);

    x->end = 0;
    free_filters(x->filters);
    int r = peek(z, bytes, len, "stream", err);
    if (r == 0)
        r = judge(z, NULL, decode_header(bytes, x->flags.check, &x->block, x->filters), err);
    if (r < 0) {
        x->filters[0].id = LZMA_VLI_UNKNOWN; /* what was made of them is gone */
        return r;
    }
    uint64_t want = lzma_raw_decoder_memusage(x->filters);
    if (want == UINT64_MAX)
        return damaged(z, "it uses what is not known", err);
    r = unzip_take(z, &x->taken, want + DECODER, err);
    if (r == 0)
        r = judge(z, NULL, lzma_block_decoder(&x->decoder, &x->block), err);
    if (r < 0)
        return r;
    uint64_t whole = lzma_block_total_size(&x->block); /* 0, or unknown, where it does not say */
    if (whole != 0 && whole != LZMA_VLI_UNKNOWN)
        x->end = ring_position(&z->in) + whole;
    ring_take(&z->in, len);
    z->unsummed |= x->flags.check == LZMA_CHECK_NONE;
    x->begun = true;
    return 1;
}

static int begin(struct unzip *z, void *state, const uint8_t *prefix, size_t len,
                 struct platter_error *err)
{
    struct xz *x = state;
    uint8_t first;
    (void)prefix, (void)len;

    int r = end_block(z, x, err);
    while (r >= 0) {
        if (!x->inside && (r = begin_stream(z, x, err)) != 1)
            break;
        r = peek(z, &first, 1, "stream", err);
        if (r == 0 && first != INDEX)
            return begin_block(z, x, first, err);
        if (r == 0)
            r = x->lost ? leave_stream(z, x, err) : end_stream(z, x, err);
    }
    return r;
}

static int step(struct unzip *z, void *state, struct unzip_step *s, struct platter_error *err)
{
    lzma_stream *d = &((struct xz *)state)->decoder;
    d->next_in = s->in;
    d->avail_in = s->in_len;
    d->next_out = s->out;
    d->avail_out = s->out_len;
    lzma_ret code = lzma_code(d, LZMA_RUN);
    s->in_used = s->in_len - d->avail_in;
    s->out_used = s->out_len - d->avail_out;
    int r = judge(z, s, code, err);
    return r < 0 ? r : code == LZMA_STREAM_END;
}

/* The input ended behind a block. */
static int at_end(struct unzip *z, void *state, struct platter_error *err)
{
    struct xz *x = state;
    return x->inside && !x->lost ? unzip_truncated(z, "stream", err) : 0;
}

/* ---- behind damage ---------------------------------------------------------------------------
 */

/* Whether the header of a block stands there, whose checksum fits. */
static bool is_block(const uint8_t *bytes, size_t len)
{
    static const uint8_t reserved = 0x3C;
    lzma_filter filters[LZMA_FILTERS_MAX + 1];
    lzma_block block;
    if (len < 2 || bytes[0] == INDEX || bytes[1] & reserved ||
        lzma_block_header_size_decode(bytes[0]) > len ||
        decode_header(bytes, LZMA_CHECK_NONE, &block, filters) != LZMA_OK)
        return false;
    free_filters(filters);
    return true;
}

static bool is_stream_or_block(const uint8_t *bytes, size_t len)
{
    return is_stream(bytes, len) || is_block(bytes, len);
}

/* To where the damaged block ends, if it told that: it may hold what looks like another. */
static int pass_block(struct unzip *z, struct xz *x, struct platter_error *err)
{
    const uint8_t *bytes;
    size_t len = 1;
    int r = 0;
    while (len && ring_position(&z->in) < x->end) {
        r = ring_bytes(&z->in, 1, &bytes, &len, err);
        if (r < 0)
            return r;
        uint64_t left = x->end - ring_position(&z->in);
        ring_take(&z->in, left < len ? (size_t)left : len);
    }
    return r;
}

static int find(struct unzip *z, void *state, struct platter_error *err)
{
    struct xz *x = state;
    uint8_t bytes[USUAL_HEADER];
    size_t len;
    bool (*is)(const uint8_t *, size_t) = x->inside ? is_stream_or_block : is_stream;

    int r = x->begun ? pass_block(z, x, err) : 0;
    if (r == 0)
        r = unzip_seek_part(z, sizeof bytes, is, err);
    x->begun = false;
    if (r != 1)
        return r;
    r = ring_peek(&z->in, bytes, sizeof bytes, &len, err);
    x->inside = x->inside && !is_stream(bytes, len);
    x->lost = true;
    return r < 0 ? r : 1;
}

int unzip_xz(struct unzip *z, struct platter_error *err)
{
    static const struct unzip_ops ops = {
        .part = "stream", .begin = begin, .step = step, .find = find, .end = at_end};
    struct xz x = {.decoder = LZMA_STREAM_INIT, .filters = {{.id = LZMA_VLI_UNKNOWN}}};

    int r = unzip_parts(z, &ops, &x, err);
    lzma_end(&x.decoder);
    lzma_index_hash_end(x.index, NULL);
    free_filters(x.filters);
    budget_give(z->budget, x.taken);
    return r;
}

#else

int unzip_xz(struct unzip *z, struct platter_error *err)
{
    return unzip_check(z->wrapper, err);
}

#endif
