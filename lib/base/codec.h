/* SPDX-License-Identifier: MIT */
/*
 * Compression of single blocks, thread-safe: contexts are kept per thread. Packing answers
 * -E2BIG (without a sentence) when the result would not fit; unpacking checks what it is told.
 */
#ifndef BASE_CODEC_H
#define BASE_CODEC_H

#include <stddef.h>

#include "base/error.h"

enum codec {
    CODEC_DEFLATE, /* raw deflate: RFC 1951 */
    CODEC_ZLIB,    /* RFC 1950: header and Adler-32 */
    CODEC_ZSTD     /* frames, no dictionary */
};

/* Whether this build has it; where not, *ret_missing names what to build with. */
int codec_check(enum codec codec, struct platter_error *err);

/* Packs n bytes into at most cap; *ret_len is the packed length. -E2BIG: does not fit. */
int codec_pack(enum codec codec, const void *in, size_t n, void *out, size_t cap, size_t *ret_len,
               struct platter_error *err);

/*
 * Unpacks until exactly n bytes are out. What follows the stream's end in `in` is ignored; a stream
 * that is damaged, or ends short of n bytes, fails with ECORRUPT and says how far it came. A stream
 * that would yield more than n bytes: fine for CODEC_DEFLATE, whose writers pad blocks; an error
 * for the others. *ret_out (may be NULL): where given, a shorter result is no error and its length
 * is left there.
 */
int codec_unpack(enum codec codec, const void *in, size_t in_len, void *out, size_t n,
                 size_t *ret_out, struct platter_error *err);

/* The same for CODEC_ZLIB, and *ret_used is how many bytes of `in` the stream really has. */
int codec_unpack_zlib(const void *in, size_t in_len, void *out, size_t n, size_t *ret_out,
                      size_t *ret_used, struct platter_error *err);

/*
 * Unpacks frames of zstd that follow one another and are all of `in`, into at most `cap` bytes;
 * *ret_len is how many they gave. The checksums that frames have are verified.
 */
int codec_unpack_frames(const void *in, size_t in_len, void *out, size_t cap, size_t *ret_len,
                        struct platter_error *err);

#endif
