/* SPDX-License-Identifier: MIT */
/* zstd (RFC 8878), front to back. */
#include "config.h"
#include "stream/unzip.h"

#if HAVE_ZSTD

#include <inttypes.h>
#include <zstd.h>

#include "base/ckd.h"
#include "base/cursor.h"

enum {
    WINDOW_LOG_MOST = 31, /* what `zstd --long` can be told */
    DECODER = 512 << 10,  /* what it needs besides the window: tables and two blocks */
    HAS_CHECKSUM = 4      /* of the descriptor of a frame (section 3.1.1.1.1) */
};

struct zstd {
    ZSTD_DCtx *decoder;
    uint64_t taken; /* of the budget */
    size_t hint;    /* what the decoder wants next: a block and the header behind it */
    bool holds;     /* it may have more to give before that */
};

/* How far back a frame looks, from its header (sections 3.1.1.1.1 to .4). 0: it is too short. */
static uint64_t window_of(const uint8_t *prefix, size_t len)
{
    static const uint8_t dictionary_bytes[] = {0, 1, 2, 4}, size_bytes[] = {1, 2, 4, 8};
    struct reader r = reader_over(prefix, len);

    read_skip(&r, 4);
    uint8_t descriptor = read_u8(&r);
    if (!(descriptor & 0x20)) {
        uint8_t window = read_u8(&r);
        uint64_t base = UINT64_C(1) << (10 + (window >> 3));
        return r.failed ? 0 : base + base / 8 * (window & 7);
    }
    /* A single segment: all of the content at once. */
    read_skip(&r, dictionary_bytes[descriptor & 3]);
    unsigned n = size_bytes[descriptor >> 6];
    const uint8_t *size = read_bytes(&r, n);
    return size ? get_le(size, n) + (n == 2 ? 256 : 0) : 0;
}

/* Memory for the window, once for all frames. */
static int take_window(struct unzip *z, struct zstd *d, uint64_t window, struct platter_error *err)
{
    if (window > UINT64_C(1) << WINDOW_LOG_MOST)
        return fail(err, ENOTSUP,
                    "%s: the zstd frame at offset %" PRIu64 " looks back %" PRIu64
                    " bytes; 2 GiB are the most that is known",
                    z->head.name, z->start + ring_position(&z->in), window);
    return unzip_take(z, &d->taken, window + DECODER, err);
}

static int begin(struct unzip *z, void *state, const uint8_t *prefix, size_t len,
                 struct platter_error *err)
{
    struct zstd *d = state;
    uint32_t magic = len < 4 ? 0 : (uint32_t)get_le(prefix, 4);

    if (len < 4 || (magic != ZSTD_FRAME && (magic & ~15u) != ZSTD_SKIPPABLE))
        return unzip_damaged(z, NULL, "a frame should begin there, or the file end", err);
    ZSTD_DCtx_reset(d->decoder, ZSTD_reset_session_only);
    d->hint = 4;
    d->holds = false;
    if (magic == ZSTD_FRAME && len > 4 && !(prefix[4] & HAS_CHECKSUM))
        z->unsummed = true;
    int r = magic == ZSTD_FRAME ? take_window(z, d, window_of(prefix, len), err) : 0;
    return r < 0 ? r : 1;
}

/* One call, with at most `most` bytes of input: 1 at the end of the frame. */
static int call(struct unzip *z, struct zstd *d, struct unzip_step *s, size_t most,
                struct platter_error *err)
{
    ZSTD_inBuffer in = {s->in, (size_t)min_u64(s->in_len, most), 0};
    ZSTD_outBuffer out = {s->out, s->out_len, s->out_used};

    size_t hint = ZSTD_decompressStream(d->decoder, &out, &in);
    if (ZSTD_isError(hint))
        return unzip_damaged(z, s, ZSTD_getErrorName(hint), err);
    s->in_used = in.pos;
    s->out_used = out.pos;
    d->hint = hint;
    d->holds = out.pos == out.size;
    return hint == 0;
}

/* Block by block, and none while the decoder still holds a part of the one in front: what is
 * damaged takes away what the same call gives. */
static int step(struct unzip *z, void *state, struct unzip_step *s, struct platter_error *err)
{
    struct zstd *d = state;
    int r = d->holds ? call(z, d, s, 0, err) : 0;
    return r || s->out_used ? r : call(z, d, s, d->hint, err);
}

static bool is_frame(const uint8_t *bytes, size_t len)
{
    return len >= 4 && get_le(bytes, 4) == ZSTD_FRAME;
}

static int find(struct unzip *z, void *state, struct platter_error *err)
{
    (void)state;
    return unzip_seek_part(z, 4, is_frame, err);
}

int unzip_zstd(struct unzip *z, struct platter_error *err)
{
    static const struct unzip_ops ops = {
        .part = "frame", .begin = begin, .step = step, .find = find};
    struct zstd d = {.decoder = ZSTD_createDCtx()};

    if (!d.decoder)
        return fail_memory(err, "unpacking zstd");
    ZSTD_DCtx_setParameter(d.decoder, ZSTD_d_windowLogMax, WINDOW_LOG_MOST);
    int r = unzip_parts(z, &ops, &d, err);
    ZSTD_freeDCtx(d.decoder);
    budget_give(z->budget, d.taken);
    return r;
}

#else

int unzip_zstd(struct unzip *z, struct platter_error *err)
{
    return unzip_check(z->wrapper, err);
}

#endif
