/* SPDX-License-Identifier: MIT */
/* Round trips, and what damaged, short, long, endless and chained streams are answered with. */
#include "unit.h"

#include <pthread.h>
#include <stdlib.h>
#define ZLIB_CONST
#include <zlib.h>

#include "base/codec.h"
#include "base/memory.h"
#include "config.h"
#include "support/prng.h"

enum { N = 64 * 1024 };

static const enum codec codecs[] = {
    CODEC_DEFLATE,
    CODEC_ZLIB,
#if HAVE_ZSTD
    CODEC_ZSTD,
#endif
};

enum { CODECS = sizeof codecs / sizeof *codecs };

static uint8_t data[N], packed[2 * N], out[N + 16];

/* Text-like data: compressible, not trivial. */
static void make_data(uint64_t seed)
{
    struct prng p = {.state = seed};
    for (size_t i = 0; i < N;) {
        size_t run = 1 + prng_below(&p, 24);
        size_t from = i > 512 && prng_chance(&p, 70) ? prng_below(&p, i - 64) : SIZE_MAX;
        for (size_t k = 0; k < run && i < N; k++, i++)
            data[i] = from != SIZE_MAX ? data[from + k] : (uint8_t)('a' + prng_below(&p, 26));
    }
}

static size_t pack(enum codec codec, const void *in, size_t n)
{
    size_t len = 0;
    assert_works(codec_pack(codec, in, n, packed, sizeof packed, &len, &err));
    assert_true(len > 0 && len <= sizeof packed);
    return len;
}

static void test_round_trips(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 511, 512, 4096, 16383, 16384, 16385, 65536};
    for (size_t c = 0; c < CODECS; c++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            make_data(i);
            size_t len = pack(codecs[c], data, sizes[i]);
            memset(out, 0xee, sizeof out);
            assert_works(codec_unpack(codecs[c], packed, len, out, sizes[i], NULL, &err));
            assert_memory_equal(out, data, sizes[i]);
            assert_int_equal(out[sizes[i]], 0xee);
        }
}

static void test_trailing_bytes(void **state)
{
    (void)state;
    make_data(1);
    for (size_t c = 0; c < CODECS; c++)
        for (int filler = 0; filler < 256; filler += 51) {
            size_t len = pack(codecs[c], data, N);
            memset(packed + len, filler, 700);
            memset(out, 0, sizeof out);
            assert_works(codec_unpack(codecs[c], packed, len + 700, out, N, NULL, &err));
            assert_memory_equal(out, data, N);
        }
}

static void test_no_room(void **state)
{
    (void)state;
    make_data(2);
    struct prng p = {.state = 3};
    uint8_t noise[4096];
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)prng_next(&p);
    for (size_t c = 0; c < CODECS; c++) {
        size_t len = pack(codecs[c], data, N), again = 0;
        struct platter_error err = {0};
        assert_int_equal(codec_pack(codecs[c], data, N, packed, len / 2, &again, &err), -E2BIG);
        assert_int_equal(
            codec_pack(codecs[c], noise, sizeof noise, packed, sizeof noise - 1, &again, &err),
            -E2BIG);
        assert_int_equal(err.code, 0);
    }
}

static void test_short_streams(void **state)
{
    (void)state;
    make_data(4);
    for (size_t c = 0; c < CODECS; c++) {
        size_t len = pack(codecs[c], data, 1000), got = 0;
        assert_fails(codec_unpack(codecs[c], packed, len, out, 1001, NULL, &err), PLATTER_ECORRUPT,
                     "1001 bytes are expected, it ends after 1000");
        assert_works(codec_unpack(codecs[c], packed, len, out, 1001, &got, &err));
        assert_int_equal(got, 1000);
        assert_memory_equal(out, data, 1000);
    }
}

/* More than n bytes: fine for raw deflate only. */
static void test_long_streams(void **state)
{
    (void)state;
    make_data(5);
    for (size_t c = 0; c < CODECS; c++)
        for (size_t n = 998; n <= 999; n++) {
            size_t len = pack(codecs[c], data, 1000);
            if (codecs[c] != CODEC_DEFLATE) {
                assert_fails(codec_unpack(codecs[c], packed, len, out, n, NULL, &err),
                             PLATTER_ECORRUPT, "it goes on after");
                continue;
            }
            memset(out, 0xee, sizeof out);
            assert_works(codec_unpack(codecs[c], packed, len, out, n, NULL, &err));
            assert_memory_equal(out, data, n);
            assert_int_equal(out[n], 0xee);
        }
}

static void test_cut_streams(void **state)
{
    (void)state;
    make_data(6);
    for (size_t c = 0; c < CODECS; c++) {
        size_t len = pack(codecs[c], data, N);
        for (size_t cut = 0; cut < len - 8; cut += 97)
            assert_fails(codec_unpack(codecs[c], packed, cut, out, N, NULL, &err), PLATTER_ECORRUPT,
                         "is damaged: 65536 bytes are expected");
    }
}

/* Flipped bits are found where there is a checksum, and never do harm. */
static void test_damaged_streams(void **state)
{
    (void)state;
    make_data(7);
    struct prng p = {.state = 8};
    for (size_t c = 0; c < CODECS; c++)
        for (int i = 0; i < 400; i++) {
            size_t len = pack(codecs[c], data, N);
            packed[prng_below(&p, len)] ^= (uint8_t)(1 << prng_below(&p, 8));
            memset(out + N, 0xee, 16);
            int r = codec_unpack(codecs[c], packed, len, out, N, NULL, NULL);
            assert_true(r == 0 || r == -PLATTER_ECORRUPT);
            if (codecs[c] == CODEC_ZLIB && r == 0)
                assert_memory_equal(out, data, N);
            for (size_t k = 0; k < 16; k++)
                assert_int_equal(out[N + k], 0xee);
        }
}

/* A raw stream that was flushed but never ended, as some writers leave it. */
static void test_endless_deflate(void **state)
{
    (void)state;
    make_data(9);
    z_stream z = {.next_in = data, .avail_in = N, .next_out = packed, .avail_out = sizeof packed};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_SYNC_FLUSH), Z_OK);
    size_t len = z.total_out;
    deflateEnd(&z);
    assert_works(codec_unpack(CODEC_DEFLATE, packed, len, out, N, NULL, &err));
    assert_memory_equal(out, data, N);
    assert_fails(codec_unpack(CODEC_DEFLATE, packed, len, out, N + 1, NULL, &err), PLATTER_ECORRUPT,
                 "it breaks off after 65536");
}

/* zlib reads what we write with the window that the peers use for clusters. */
static void test_small_window_reads_ours(void **state)
{
    (void)state;
    make_data(10);
    size_t len = pack(CODEC_DEFLATE, data, N);
    z_stream z = {.next_in = packed, .avail_in = (unsigned)len, .next_out = out, .avail_out = N};
    assert_int_equal(inflateInit2(&z, -12), Z_OK);
    int r = inflate(&z, Z_FINISH);
    assert_true(r == Z_STREAM_END || (r == Z_BUF_ERROR && z.avail_out == 0));
    inflateEnd(&z);
    assert_memory_equal(out, data, N);
}

static void test_zlib_checksum(void **state)
{
    (void)state;
    make_data(11);
    size_t len = pack(CODEC_ZLIB, data, N);
    packed[len - 1] ^= 1;
    assert_fails(codec_unpack(CODEC_ZLIB, packed, len, out, N, NULL, &err), PLATTER_ECORRUPT,
                 "is damaged");
    packed[len - 1] ^= 1;
    assert_fails(codec_unpack(CODEC_ZLIB, packed, len - 1, out, N, NULL, &err), PLATTER_ECORRUPT,
                 "is damaged");
}

/* Where a stream ends its data tells, whatever is said of its length. */
static void test_zlib_used(void **state)
{
    (void)state;
    size_t got, used;
    for (int noise = 0; noise < 2; noise++) {
        make_data(noise ? 13 : 0);
        size_t len = pack(CODEC_ZLIB, data, N);
        memset(packed + len, 0xa5, 100);
        assert_works(codec_unpack_zlib(packed, len + 100, out, N, &got, &used, &err));
        assert_int_equal(got, N);
        assert_int_equal(used, len);
        assert_memory_equal(out, data, N);
        assert_fails(codec_unpack_zlib(packed, len - 1, out, N, &got, &used, &err),
                     PLATTER_ECORRUPT, "is damaged");
    }
}

#if HAVE_ZSTD
static void test_zstd_frames(void **state)
{
    (void)state;
    make_data(12);
    size_t first = 0, second = 0, got = 0;
    assert_works(codec_pack(CODEC_ZSTD, data, 1000, packed, sizeof packed, &first, &err));
    assert_works(codec_pack(CODEC_ZSTD, data + 1000, N - 1000, packed + first,
                            sizeof packed - first, &second, &err));
    assert_works(codec_unpack(CODEC_ZSTD, packed, first + second, out, N, NULL, &err));
    assert_memory_equal(out, data, N);
    memset(packed + first + second, 0, 500);
    assert_works(codec_unpack(CODEC_ZSTD, packed, first + second + 500, out, N, NULL, &err));
    assert_fails(codec_unpack(CODEC_ZSTD, packed, first + second, out, N - 1, NULL, &err),
                 PLATTER_ECORRUPT, "it goes on");
    assert_works(codec_unpack(CODEC_ZSTD, packed, first + second, out, 1000, NULL, &err));
    memset(packed + first, 0xab, 100);
    assert_fails(codec_unpack(CODEC_ZSTD, packed, first + 100, out, N, NULL, &err),
                 PLATTER_ECORRUPT, "it ends after 1000");
    assert_works(codec_unpack(CODEC_ZSTD, packed, first + 100, out, N, &got, &err));
    assert_int_equal(got, 1000);
}
#endif

/* Each thread's contexts are its own and go with it: the leak checker looks on. */
static void *round_trip_thread(void *opaque)
{
    enum codec codec = *(const enum codec *)opaque;
    auto_free uint8_t *to = malloc(N), *back = malloc(N);
    size_t len;
    for (int i = 0; i < 20; i++)
        if (!to || !back || codec_pack(codec, data, N, to, N, &len, NULL) < 0 ||
            codec_unpack(codec, to, len, back, N, NULL, NULL) < 0 || memcmp(back, data, N) != 0)
            return "failed";
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    make_data(13);
    pthread_t threads[4 * CODECS];
    for (size_t i = 0; i < 4 * CODECS; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, round_trip_thread, (void *)&codecs[i % CODECS]), 0);
    for (size_t i = 0; i < 4 * CODECS; i++) {
        void *answer;
        pthread_join(threads[i], &answer);
        assert_null(answer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_trailing_bytes),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_short_streams),
        cmocka_unit_test(test_long_streams),
        cmocka_unit_test(test_cut_streams),
        cmocka_unit_test(test_damaged_streams),
        cmocka_unit_test(test_endless_deflate),
        cmocka_unit_test(test_small_window_reads_ours),
        cmocka_unit_test(test_zlib_checksum),
        cmocka_unit_test(test_zlib_used),
#if HAVE_ZSTD
        cmocka_unit_test(test_zstd_frames),
#endif
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
