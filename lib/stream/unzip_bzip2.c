/* SPDX-License-Identifier: MIT */
/*
 * bzip2, front to back: streams that follow one another. A stream is "BZh" and its level, blocks,
 * and an end with a checksum of all of it; each block has a checksum of its own. Blocks begin at
 * any bit, with a magic by which they are found behind damage: each goes to the library as a stream
 * of its own then (bzip2_bits.h).
 */
#include "config.h"
#include "stream/unzip.h"

#if HAVE_BZIP2

#include <bzlib.h>
#include <string.h>

#include "base/ckd.h"
#include "stream/bzip2_bits.h"

enum {
    LEVEL_BYTES = 400 << 10, /* of memory for each step of the level, */
    BASE_BYTES = 100 << 10,  /* and what is needed besides */
    HEADER = 4,
    MOST_LEVEL = 9,
    CHECKSUM = 4,
    AT_ONCE = 4096 /* bytes for the library */
};

struct bzip2 {
    bz_stream decoder;
    bool open;
    uint64_t taken; /* of the budget */
    bool given;     /* something came out since the last mark */

    /* Behind damage: */
    bool alone;   /* blocks are unpacked one by one */
    uint8_t last; /* byte that was used: a block may begin inside of it */
    struct bzip2_bits bits;
};

static void end(struct bzip2 *d)
{
    if (d->open)
        BZ2_bzDecompressEnd(&d->decoder);
    d->open = false;
}

static int start(struct unzip *z, struct bzip2 *d, unsigned level, struct platter_error *err)
{
    int r = unzip_take(z, &d->taken, BASE_BYTES + (uint64_t)LEVEL_BYTES * level, err);
    if (r < 0)
        return r;
    end(d);
    memset(&d->decoder, 0, sizeof d->decoder);
    if (BZ2_bzDecompressInit(&d->decoder, 0, 0) != BZ_OK)
        return fail_memory(err, "unpacking bzip2");
    d->open = true;
    d->given = false;
    return 1;
}

/* Behind the last block of a stream that was damaged: what follows begins with a whole byte. */
static int leave_stream(struct unzip *z, struct bzip2 *d, size_t *ret_len,
                        struct platter_error *err)
{
    uint8_t bytes[CHECKSUM + 1];
    size_t whole = CHECKSUM + (d->bits.bit > 0);
    int r = ring_peek(&z->in, bytes, whole, ret_len, err);
    if (r < 0 || *ret_len < whole)
        return r < 0 ? r : unzip_truncated(z, "stream", err);
    ring_take(&z->in, whole);
    d->alone = false;
    return ring_peek(&z->in, bytes, 1, ret_len, err);
}

static int begin(struct unzip *z, void *state, const uint8_t *prefix, size_t len,
                 struct platter_error *err)
{
    struct bzip2 *d = state;
    uint8_t header[HEADER];

    if (d->alone && d->bits.magic == BZIP2_BLOCK) {
        bzip2_bits_begin(&d->bits);
        return start(z, d, MOST_LEVEL, err);
    }
    if (d->alone) {
        int r = leave_stream(z, d, &len, err);
        if (r == 0 && len > 0)
            r = ring_peek(&z->in, header, sizeof header, &len, err);
        if (r < 0 || len == 0)
            return r;
        prefix = header;
    }
    if (len >= HEADER && (memcmp(prefix, "BZh", 3) != 0 || prefix[3] < '1' || prefix[3] > '9'))
        return unzip_damaged(z, NULL, "a stream should begin there, or the file end", err);
    return start(z, d, len < HEADER ? 0 : prefix[3] - '0', err);
}

/* One call of the library: 1 at the end of the stream. */
static int call(struct unzip *z, struct bzip2 *d, const uint8_t *in, size_t len, size_t *ret_used,
                struct unzip_step *s, struct platter_error *err)
{
    bz_stream *b = &d->decoder;
    b->next_in = (char *)in;
    b->avail_in = (unsigned)len;
    b->next_out = (char *)s->out + s->out_used;
    b->avail_out = (unsigned)(s->out_len - s->out_used);
    int r = BZ2_bzDecompress(b);
    *ret_used = len - b->avail_in;
    s->out_used = s->out_len - b->avail_out;
    if (r == BZ_MEM_ERROR)
        return fail_memory(err, "unpacking bzip2");
    if (r != BZ_OK && r != BZ_STREAM_END)
        return unzip_damaged(z, s, "it makes no sense, or its checksum does not fit", err);
    return r == BZ_STREAM_END;
}

/* Of a block that goes to the library as a stream of its own. */
static int step_alone(struct unzip *z, struct bzip2 *d, struct unzip_step *s,
                      struct platter_error *err)
{
    struct bzip2_bits *b = &d->bits;
    size_t used;
    int r;
    do {
        if (b->used == b->len)
            s->in_used += bzip2_bits_pass(b, s->in + s->in_used, s->in_len - s->in_used);
        r = call(z, d, b->bytes + b->used, b->len - b->used, &used, s, err);
        b->used += used;
    } while (r == 0 && used && !s->in_used && !s->out_used);
    return r;
}

static int step(struct unzip *z, void *state, struct unzip_step *s, struct platter_error *err)
{
    struct bzip2 *d = state;
    if (d->alone)
        return step_alone(z, d, s, err);
    /* The library has given out all of a block, and checked it, before it takes any of the next:
     * little at once, so that one call has little of both. */
    int r = call(z, d, s->in, (size_t)min_u64(s->in_len, AT_ONCE), &s->in_used, s, err);
    if (s->in_used && d->given) {
        ring_mark(&z->out);
        d->given = false;
    }
    d->given |= s->out_used > 0;
    if (s->in_used)
        d->last = s->in[s->in_used - 1];
    return r;
}

/* Where the next block begins, at any bit. */
static int find(struct unzip *z, void *state, struct platter_error *err)
{
    struct bzip2 *d = state;
    const uint8_t *bytes;
    size_t len = 1;

    if (d->alone && d->bits.magic == BZIP2_BLOCK)
        return 1;
    if (!d->alone)
        bzip2_bits_seek(&d->bits, d->last);
    d->alone = d->bits.seeking = true;
    while (len && d->bits.magic != BZIP2_BLOCK) {
        d->bits.magic = 0; /* the end of a stream does not matter */
        int r = ring_bytes(&z->in, 1, &bytes, &len, err);
        if (r < 0)
            return r;
        ring_take(&z->in, bzip2_bits_pass(&d->bits, bytes, len));
    }
    return len > 0;
}

int unzip_bzip2(struct unzip *z, struct platter_error *err)
{
    static const struct unzip_ops ops = {
        .part = "stream", .begin = begin, .step = step, .find = find};
    struct bzip2 d = {.open = false};

    int r = unzip_parts(z, &ops, &d, err);
    end(&d);
    budget_give(z->budget, d.taken);
    return r;
}

#else

int unzip_bzip2(struct unzip *z, struct platter_error *err)
{
    return unzip_check(z->wrapper, err);
}

#endif
