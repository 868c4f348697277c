/* SPDX-License-Identifier: MIT */
/*
 * Contexts are big and dear to make, so each thread keeps its own until it ends.
 *
 * Unpacking goes through the fast decoder first. What it refuses is tried again with the streaming
 * one, which takes streams without an end and tells how far it came: refusal is rare, so its cost
 * is not.
 */
#include "base/codec.h"

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include <libdeflate.h>
#define ZLIB_CONST
#include <zlib.h>

#include "base/ckd.h"
#include "config.h"

#if HAVE_ZSTD
#include <zstd.h>
#endif
#if HAVE_ISAL
#include <isa-l/igzip_lib.h>
#endif

/*
 * Levels are the fastest that, on a disk with the files of a Linux system, make nothing larger
 * than: deflate, zlib's level 6 with a window of 4 KiB; zlib, 1.02 times its level 6; zstd, its
 * level 3. The encoders change their ways at these sizes.
 */
enum {
    DEFLATE_LEVEL = 1,
    DEFLATE_LEVEL_MIDDLE = 2,
    DEFLATE_MIDDLE = 64 * 1024, /* for blocks below this */
    DEFLATE_LEVEL_ZLIB = 4,
    DEFLATE_LEVEL_SMALL = 5,   /* either, */
    DEFLATE_SMALL = 16 * 1024, /* for blocks below this: less to find, so look harder */
    ZSTD_LEVEL = 3,
    ZSTD_LEVEL_MIDDLE =
        4, /* works as level 3 does at sizes up to ZSTD_MIDDLE, with larger tables */
    ZSTD_SMALL = 16 * 1024,
    ZSTD_MIDDLE = 128 * 1024,
    /* Largest window of a frame that needs the streaming decoder, 8 MiB: four times the largest
     * cluster (qcow2.md section 5), so that threads x window stays small. */
    ZSTD_WINDOW_LOG = 23
};

/* ---- contexts -------------------------------------------------------------------------------- */

struct contexts {
    struct libdeflate_compressor *compressor;
    int level; /* of the compressor */
    struct libdeflate_decompressor *decompressor;
#if HAVE_ISAL
    uint8_t *isal; /* the memory a block is packed in */
#endif
#if HAVE_ZSTD
    ZSTD_CCtx *zstd_pack;
    ZSTD_DCtx *zstd_unpack;
#endif
};

static pthread_once_t contexts_once = PTHREAD_ONCE_INIT;
static pthread_key_t contexts_key;
static bool contexts_have_key;

static void contexts_free(void *p)
{
    struct contexts *c = p;
    if (!c)
        return;
    if (c->compressor)
        libdeflate_free_compressor(c->compressor);
    if (c->decompressor)
        libdeflate_free_decompressor(c->decompressor);
#if HAVE_ZSTD
    ZSTD_freeCCtx(c->zstd_pack);
    ZSTD_freeDCtx(c->zstd_unpack);
#endif
#if HAVE_ISAL
    free(c->isal);
#endif
    free(c);
}

static void contexts_make_key(void)
{
    contexts_have_key = pthread_key_create(&contexts_key, contexts_free) == 0;
}

/* The library may be unloaded while threads live on that would call back into it when they end. */
__attribute__((destructor)) static void contexts_drop_key(void)
{
    if (!contexts_have_key)
        return;
    contexts_free(pthread_getspecific(contexts_key));
    pthread_key_delete(contexts_key);
}

/* This thread's contexts; NULL: out of memory. */
static struct contexts *contexts_mine(void)
{
    pthread_once(&contexts_once, contexts_make_key);
    if (!contexts_have_key)
        return NULL;
    struct contexts *c = pthread_getspecific(contexts_key);
    if (c)
        return c;
    c = calloc(1, sizeof *c);
    if (c && pthread_setspecific(contexts_key, c) != 0) {
        free(c);
        c = NULL;
    }
    return c;
}

static int deflate_level(enum codec codec, size_t n)
{
    if (n < DEFLATE_SMALL)
        return DEFLATE_LEVEL_SMALL;
    if (codec == CODEC_ZLIB)
        return DEFLATE_LEVEL_ZLIB;
    return n < DEFLATE_MIDDLE ? DEFLATE_LEVEL_MIDDLE : DEFLATE_LEVEL;
}

static struct libdeflate_compressor *deflate_compressor(int level)
{
    struct contexts *c = contexts_mine();
    if (c && c->compressor && c->level != level) {
        libdeflate_free_compressor(c->compressor);
        c->compressor = NULL;
    }
    if (c && !c->compressor) {
        c->compressor = libdeflate_alloc_compressor(level);
        c->level = level;
    }
    return c ? c->compressor : NULL;
}

static struct libdeflate_decompressor *deflate_decompressor(void)
{
    struct contexts *c = contexts_mine();
    if (c && !c->decompressor)
        c->decompressor = libdeflate_alloc_decompressor();
    return c ? c->decompressor : NULL;
}

/* ---- results --------------------------------------------------------------------------------- */

static const char *codec_name(enum codec codec)
{
    return codec == CODEC_ZSTD ? "zstd" : codec == CODEC_ZLIB ? "zlib" : "deflate";
}

static int fail_damaged(enum codec codec, size_t done, size_t n, const char *why,
                        struct platter_error *err)
{
    return fail(err, PLATTER_ECORRUPT,
                "the %s data is damaged: %zu bytes are expected, %s after %zu", codec_name(codec),
                n, why, done);
}

/* A stream that ended well after `done` bytes. */
static int end_of_stream(enum codec codec, size_t done, size_t n, size_t *ret_out,
                         struct platter_error *err)
{
    if (ret_out)
        *ret_out = done;
    return done == n || ret_out ? 0 : fail_damaged(codec, done, n, "it ends", err);
}

/* ---- deflate and zlib ------------------------------------------------------------------------ */

#if HAVE_ISAL
enum {
    ISAL_LEVEL = 1,
    SAMPLES = 4096, /* bytes of a block that are looked at */
    ALPHABET = 256
};

/* Whether a block looks like noise: packed or encrypted already. Each of the 256 bytes is then
 * about as frequent as any other, and the sum of the squares of their numbers is about the least
 * there can be. */
static bool is_noise(const uint8_t *in, size_t n)
{
    uint32_t numbers[ALPHABET] = {0};
    uint64_t squares = 0;
    size_t step = n / SAMPLES;
    if (step == 0)
        return false;
    for (size_t i = 0; i < SAMPLES; i++)
        numbers[in[i * step]]++;
    for (size_t i = 0; i < ALPHABET; i++)
        squares += (uint64_t)numbers[i] * numbers[i];
    const uint64_t least = SAMPLES + SAMPLES * SAMPLES / ALPHABET;
    return squares < least + least / 4;
}

/* What hardly compresses costs libdeflate most, and gains least: ISA-L makes as little of it in a
 * third of the time. On other data its results are larger. */
static int noise_pack(enum codec codec, const void *in, size_t n, void *out, size_t cap,
                      size_t *ret_len, struct platter_error *err)
{
    struct contexts *c = contexts_mine();
    if (c && !c->isal)
        c->isal = malloc(ISAL_DEF_LVL1_DEFAULT);
    if (!c || !c->isal)
        return fail_memory(err, "compression");
    struct isal_zstream s;
    isal_deflate_stateless_init(&s);
    s.level = ISAL_LEVEL;
    s.level_buf = c->isal;
    s.level_buf_size = ISAL_DEF_LVL1_DEFAULT;
    s.gzip_flag = codec == CODEC_ZLIB ? IGZIP_ZLIB : IGZIP_DEFLATE;
    s.end_of_stream = 1;
    s.next_in = (uint8_t *)in;
    s.avail_in = (uint32_t)n;
    s.next_out = out;
    s.avail_out = (uint32_t)min_u64(cap, UINT32_MAX);
    *ret_len = isal_deflate_stateless(&s) == COMP_OK ? s.total_out : 0;
    return *ret_len ? 0 : -E2BIG;
}
#endif

static int deflate_pack(enum codec codec, const void *in, size_t n, void *out, size_t cap,
                        size_t *ret_len, struct platter_error *err)
{
#if HAVE_ISAL
    if (n >= DEFLATE_MIDDLE && n <= UINT32_MAX && is_noise(in, n))
        return noise_pack(codec, in, n, out, cap, ret_len, err);
#endif
    struct libdeflate_compressor *c = deflate_compressor(deflate_level(codec, n));
    if (!c)
        return fail_memory(err, "compression");
    *ret_len = codec == CODEC_ZLIB ? libdeflate_zlib_compress(c, in, n, out, cap)
                                   : libdeflate_deflate_compress(c, in, n, out, cap);
    return *ret_len ? 0 : -E2BIG;
}

/* What inflate() made of the stream. A raw one has nothing to say behind n bytes, so that it need
 * not even end; a zlib one ends with its checksum. */
static int inflate_result(enum codec codec, int status, size_t done, size_t n, size_t *ret_out,
                          struct platter_error *err)
{
    if (status == Z_STREAM_END || (codec == CODEC_DEFLATE && done == n))
        return end_of_stream(codec, done, n, ret_out, err);
    if (status == Z_MEM_ERROR)
        return fail_memory(err, "decompression");
    if (status != Z_OK && status != Z_BUF_ERROR)
        return fail_damaged(codec, done, n, "it makes no sense", err);
    return fail_damaged(codec, done, n, done == n ? "it goes on" : "it breaks off", err);
}

/* The careful way: stops as soon as n bytes are out. */
static int inflate_slowly(enum codec codec, const void *in, size_t in_len, void *out, size_t n,
                          size_t *ret_out, size_t *ret_used, struct platter_error *err)
{
    z_stream z = {.next_in = in, .next_out = out};
    if (in_len > UINT_MAX || n > UINT_MAX)
        return fail(err, EINVAL, "%s data of %zu bytes is too large", codec_name(codec), in_len);
    z.avail_in = (unsigned)in_len;
    z.avail_out = (unsigned)n;
    if (inflateInit2(&z, codec == CODEC_ZLIB ? MAX_WBITS : -MAX_WBITS) != Z_OK)
        return fail_memory(err, "decompression");
    int status = inflate(&z, Z_FINISH);
    size_t done = n - z.avail_out;
    *ret_used = in_len - z.avail_in;
    inflateEnd(&z);
    return inflate_result(codec, status, done, n, ret_out, err);
}

static int deflate_unpack(enum codec codec, const void *in, size_t in_len, void *out, size_t n,
                          size_t *ret_out, size_t *ret_used, struct platter_error *err)
{
    struct libdeflate_decompressor *d = deflate_decompressor();
    if (!d)
        return fail_memory(err, "decompression");
    size_t done;
    enum libdeflate_result r =
        codec == CODEC_ZLIB
            ? libdeflate_zlib_decompress_ex(d, in, in_len, out, n, ret_used, &done)
            : libdeflate_deflate_decompress_ex(d, in, in_len, out, n, ret_used, &done);
    if (r == LIBDEFLATE_SUCCESS)
        return end_of_stream(codec, done, n, ret_out, err);
    return inflate_slowly(codec, in, in_len, out, n, ret_out, ret_used, err);
}

/* ---- zstd ------------------------------------------------------------------------------------ */

#if HAVE_ZSTD

static ZSTD_CCtx *zstd_packer(void)
{
    struct contexts *c = contexts_mine();
    if (c && !c->zstd_pack)
        c->zstd_pack = ZSTD_createCCtx();
    return c ? c->zstd_pack : NULL;
}

static ZSTD_DCtx *zstd_unpacker(void)
{
    struct contexts *c = contexts_mine();
    if (c && !c->zstd_unpack) {
        c->zstd_unpack = ZSTD_createDCtx();
        if (c->zstd_unpack)
            ZSTD_DCtx_setParameter(c->zstd_unpack, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
    }
    return c ? c->zstd_unpack : NULL;
}

static int zstd_pack(const void *in, size_t n, void *out, size_t cap, size_t *ret_len,
                     struct platter_error *err)
{
    ZSTD_CCtx *c = zstd_packer();
    if (!c)
        return fail_memory(err, "compression");
    bool middle = n > ZSTD_SMALL && n <= ZSTD_MIDDLE;
    ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, middle ? ZSTD_LEVEL_MIDDLE : ZSTD_LEVEL);
    *ret_len = ZSTD_compress2(c, out, cap, in, n);
    /* With all parameters in range and memory at hand nothing but room can be missing. */
    return ZSTD_isError(*ret_len) ? -E2BIG : 0;
}

/* Whether a frame that filled its n bytes has more to give. */
static bool zstd_goes_on(ZSTD_DCtx *d, ZSTD_inBuffer *in)
{
    for (;;) {
        char more;
        ZSTD_outBuffer out = {&more, 1, 0};
        size_t before = in->pos;
        size_t r = ZSTD_decompressStream(d, &out, in);
        if (ZSTD_isError(r) || out.pos > 0)
            return true;
        if (r == 0 || in->pos == before)
            return false;
    }
}

/* Frame after frame, until n bytes are out or no frame follows. */
static int zstd_slowly(ZSTD_DCtx *d, const void *in, size_t in_len, void *out, size_t n,
                       size_t *ret_out, struct platter_error *err)
{
    ZSTD_inBuffer from = {in, in_len, 0};
    ZSTD_outBuffer to = {out, n, 0};
    size_t hint = 0; /* what the decoder still wants; 0: it stands between two frames */
    ZSTD_DCtx_reset(d, ZSTD_reset_session_only);
    while (to.pos < n) {
        size_t before = from.pos + to.pos;
        bool between = hint == 0;
        if (between && from.pos == in_len)
            return end_of_stream(CODEC_ZSTD, to.pos, n, ret_out, err);
        hint = ZSTD_decompressStream(d, &to, &from);
        if (ZSTD_isError(hint) && between && to.pos > 0)
            return end_of_stream(CODEC_ZSTD, to.pos, n, ret_out, err);
        if (ZSTD_isError(hint))
            return fail_damaged(CODEC_ZSTD, to.pos, n, ZSTD_getErrorName(hint), err);
        if (from.pos + to.pos == before)
            return fail_damaged(CODEC_ZSTD, to.pos, n, "it breaks off", err);
    }
    if (hint != 0 && zstd_goes_on(d, &from))
        return fail_damaged(CODEC_ZSTD, n, n, "it goes on", err);
    return end_of_stream(CODEC_ZSTD, n, n, ret_out, err);
}

static int zstd_unpack(const void *in, size_t in_len, void *out, size_t n, size_t *ret_out,
                       struct platter_error *err)
{
    ZSTD_DCtx *d = zstd_unpacker();
    if (!d)
        return fail_memory(err, "decompression");
    /* One whole frame of n bytes, as nearly all are, needs neither window nor copies. */
    size_t frame = ZSTD_findFrameCompressedSize(in, in_len);
    if (!ZSTD_isError(frame) && ZSTD_decompressDCtx(d, out, n, in, frame) == n)
        return end_of_stream(CODEC_ZSTD, n, n, ret_out, err);
    return zstd_slowly(d, in, in_len, out, n, ret_out, err);
}

int codec_unpack_frames(const void *in, size_t in_len, void *out, size_t cap, size_t *ret_len,
                        struct platter_error *err)
{
    ZSTD_DCtx *d = zstd_unpacker();
    if (!d)
        return fail_memory(err, "decompression");
    *ret_len = ZSTD_decompressDCtx(d, out, cap, in, in_len);
    if (ZSTD_isError(*ret_len))
        return fail(err, PLATTER_ECORRUPT, "the zstd data is damaged: %s",
                    ZSTD_getErrorName(*ret_len));
    return 0;
}

#else

int codec_unpack_frames(const void *in, size_t in_len, void *out, size_t cap, size_t *ret_len,
                        struct platter_error *err)
{
    (void)in, (void)in_len, (void)out, (void)cap, (void)ret_len;
    return codec_check(CODEC_ZSTD, err);
}

static int zstd_pack(const void *in, size_t n, void *out, size_t cap, size_t *ret_len,
                     struct platter_error *err)
{
    (void)in, (void)n, (void)out, (void)cap, (void)ret_len;
    return codec_check(CODEC_ZSTD, err);
}

static int zstd_unpack(const void *in, size_t in_len, void *out, size_t n, size_t *ret_out,
                       struct platter_error *err)
{
    (void)in, (void)in_len, (void)out, (void)n, (void)ret_out;
    return codec_check(CODEC_ZSTD, err);
}

#endif

/* ---- the front ------------------------------------------------------------------------------- */

int codec_check(enum codec codec, struct platter_error *err)
{
    if (codec == CODEC_ZSTD && !HAVE_ZSTD)
        return fail(err, ENOTSUP, "this build does not know zstd: build it with -Dzstd=enabled");
    return 0;
}

int codec_pack(enum codec codec, const void *in, size_t n, void *out, size_t cap, size_t *ret_len,
               struct platter_error *err)
{
    return codec == CODEC_ZSTD ? zstd_pack(in, n, out, cap, ret_len, err)
                               : deflate_pack(codec, in, n, out, cap, ret_len, err);
}

int codec_unpack(enum codec codec, const void *in, size_t in_len, void *out, size_t n,
                 size_t *ret_out, struct platter_error *err)
{
    size_t used;
    return codec == CODEC_ZSTD ? zstd_unpack(in, in_len, out, n, ret_out, err)
                               : deflate_unpack(codec, in, in_len, out, n, ret_out, &used, err);
}

int codec_unpack_zlib(const void *in, size_t in_len, void *out, size_t n, size_t *ret_out,
                      size_t *ret_used, struct platter_error *err)
{
    return deflate_unpack(CODEC_ZLIB, in, in_len, out, n, ret_out, ret_used, err);
}
