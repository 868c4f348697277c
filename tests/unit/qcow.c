/* SPDX-License-Identifier: MIT */
/* QCOW version 1 byte for byte: the fixture of qcow.md section 14, the examples of sections 4 and
 * 6, each bound of section 12, and what sections 7 and 8 say of odd sizes and short files. */
#include "qcow_kit.h"

#include <nettle/aes.h>
#include <nettle/cbc.h>
#include <zlib.h>

#include "base/cursor.h"

static uint64_t field(const struct buffer *b, uint64_t off)
{
    return get_be(b->bytes + off, 8);
}

/* Section 14. */
static void test_fixture(void **state)
{
    static const uint8_t header[48] = {
        0x51, 0x46,     0x49,        0xfb,      0,        0,          0,
        1,    [25] = 0, [29] = 0xa0, [32] = 12, [33] = 9, [47] = 0x30};
    (void)state;
    struct buffer b = new_image();
    assert_int_equal(b.size, 560);
    assert_memory_equal(b.bytes, header, sizeof header);
    assert_true(is_zero(b.bytes + 48, 512));
    write_filled(&b, 0x5a, CLUSTER, 64 << 10);
    assert_int_equal(field(&b, L1_AT), TABLE_AT);
    assert_true(is_zero(b.bytes + L1_AT + 8, 4 * 8));
    assert_int_equal(field(&b, 0x1080), DATA_AT);
    assert_int_equal(b.size, 0x3000);
    assert_int_equal(b.bytes[DATA_AT], 0x5a);
    assert_filled(&b, 0x5a, CLUSTER, 64 << 10);
    assert_filled(&b, 0, CLUSTER, (64 << 10) + CLUSTER);
    buffer_free(&b);
}

/* Section 4: a stream at any byte, its length in the entry. */
static void test_packed_example(void **state)
{
    static const struct {
        uint64_t raw;
        uint64_t off, len;
    } examples[] = {{UINT64_C(0xe010000000002000), 0x2000, 3074},
                    {UINT64_C(0x8138000000002e00), 0x2e00, 39}};
    (void)state;
    struct buffer b = fixture();
    for (unsigned i = 0; i < 2; i++) {
        struct platter_disk *disk;
        struct disk_extent x;
        put_be(b.bytes + TABLE_AT, 8, examples[i].raw);
        assert_works(try_open(&b, false, &disk, &err));
        assert_works(disk_map(disk, 0, CLUSTER, &x, &err));
        assert_int_equal(x.e.kind, EXTENT_PACKED);
        assert_int_equal(x.e.off, examples[i].off);
        assert_int_equal(x.e.packed_len, examples[i].len);
        disk_close(disk, NULL);
    }
    buffer_free(&b);
}

/* By zlib, as the reference has it; the stream may go on, but not end early. */
static void test_packed_by_zlib(void **state)
{
    uint8_t plain[2 * CLUSTER], packed[CLUSTER];
    (void)state;
    for (unsigned i = 0; i < sizeof plain; i++)
        plain[i] = (uint8_t)(i < CLUSTER ? 7 : i % 97);
    static const int lengths[] = {2 * CLUSTER, CLUSTER, CLUSTER - 1};
    for (unsigned i = 0; i < 3; i++) {
        struct buffer b = fixture();
        z_stream z = {.next_in = plain,
                      .avail_in = (unsigned)lengths[i],
                      .next_out = packed,
                      .avail_out = sizeof packed};
        MUST(deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, 0) == Z_OK &&
             deflate(&z, Z_FINISH) == Z_STREAM_END);
        deflateEnd(&z);
        memcpy(b.bytes + 0x2f01, packed, z.total_out);
        b.size = 0x2f01 + z.total_out;
        put_be(b.bytes + TABLE_AT + 16 * 8, 8, 0);
        put_be(b.bytes + TABLE_AT, 8, UINT64_C(1) << 63 | (uint64_t)z.total_out << 51 | 0x2f01);
        if (i < 2) {
            assert_filled(&b, 7, CLUSTER, 0);
        } else {
            struct platter_disk *disk;
            uint8_t got[CLUSTER];
            assert_works(try_open(&b, false, &disk, &err));
            assert_fails(disk_read(disk, got, CLUSTER, 0, &err), PLATTER_ECORRUPT, "offset 0");
            disk_close(disk, NULL);
        }
        buffer_free(&b);
    }
}

/* Section 6: what stands in the file is AES-128-CBC of the sector, its guest number the vector. */
static void test_encryption_vector(void **state)
{
    struct aes128_ctx aes;
    uint8_t iv[16] = {128}, zeros[512] = {0}, right[512];
    (void)state;
    struct buffer b = new_image();
    put_be(b.bytes + 36, 4, 1);
    write_filled(&b, 0, 512, 64 << 10);
    write_filled(&b, 0x5a, 512, (64 << 10) + 1024);
    aes128_set_encrypt_key(&aes, (const uint8_t *)"hello-0123456789");
    cbc_encrypt(&aes, (nettle_cipher_func *)aes128_encrypt, 16, iv, 512, right, zeros);
    assert_memory_equal(b.bytes + DATA_AT, right, 512);
    memset(iv, 0, sizeof iv);
    iv[0] = 129; /* a sector that was never written: section 6 */
    cbc_encrypt(&aes, (nettle_cipher_func *)aes128_encrypt, 16, iv, 512, right, zeros);
    assert_memory_equal(b.bytes + DATA_AT + 512, right, 512);
    assert_filled(&b, 0, 1024, 64 << 10);
    assert_filled(&b, 0x5a, 512, (64 << 10) + 1024);
    assert_filled(&b, 0, 512, (64 << 10) + 1536);
    buffer_free(&b);
}

/* ---- bounds: section 12 ------------------------------------------------------------------------
 */

struct bound {
    unsigned off, bytes;
    uint64_t value;
    int code;
    const char *words;
};

static void test_header_bounds(void **state)
{
    static const struct bound bounds[] = {
        {0, 4, 0x514649fa, PLATTER_ECORRUPT, "no qcow header"},
        {4, 4, 2, ENOTSUP, "version is 2"},
        {24, 8, 1, PLATTER_ECORRUPT, "size is 1,"},
        {24, 8, 0, PLATTER_ECORRUPT, "size is 0,"},
        {24, 8, UINT64_C(1) << 63, PLATTER_ECORRUPT, "size is 9223372036854775808"},
        {24, 8, UINT64_MAX, PLATTER_ECORRUPT, "size is 18446744073709551615"},
        {24, 8, (UINT64_C(1) << 43) + 1, PLATTER_ECORRUPT, "33554440 bytes is needed"},
        {24, 8, UINT64_C(1) << 43, PLATTER_ECORRUPT, "the file ends at"},
        {32, 1, 8, PLATTER_ECORRUPT, "cluster_bits is 8"},
        {32, 1, 17, PLATTER_ECORRUPT, "cluster_bits is 17"},
        {32, 1, 64, PLATTER_ECORRUPT, "cluster_bits is 64"},
        {33, 1, 5, PLATTER_ECORRUPT, "l2_bits is 5"},
        {33, 1, 14, PLATTER_ECORRUPT, "l2_bits is 14"},
        {36, 4, 2, PLATTER_ECORRUPT, "crypt_method is 2"},
        {40, 8, 47, PLATTER_ECORRUPT, "l1_table_offset is 47"},
        {40, 8, 0x3000 - 39, PLATTER_ECORRUPT, "l1_table_offset is 12249"},
        {40, 8, UINT64_MAX - 7, PLATTER_ECORRUPT, "l1_table_offset is 18446744073709551608"},
    };
    (void)state;
    for (unsigned i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        const struct bound *x = &bounds[i];
        struct buffer b = fixture();
        struct platter_disk *disk;
        put_be(b.bytes + x->off, x->bytes, x->value);
        assert_fails(try_open(&b, false, &disk, &err), x->code, x->words);
        buffer_free(&b);
    }
}

static void test_name_bounds(void **state)
{
    static const struct {
        uint64_t off, len;
        const char *words;
    } bounds[] = {{0x2000, 1024, "backing_file_size is 1024"},
                  {0x2fff, 2, "backing_file_offset is 12287"},
                  {20, 4, "backing_file_offset is 20"},
                  {UINT64_MAX, 4, "backing_file_offset is 18446744073709551615"},
                  {87, 4, "inside of the L1 table"},
                  {0x500, 4, "a zero byte inside"}};
    (void)state;
    struct platter_disk *disk;
    for (unsigned i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        struct buffer b = fixture();
        put_be(b.bytes + 8, 8, bounds[i].off);
        put_be(b.bytes + 16, 4, bounds[i].len);
        assert_fails(try_open(&b, false, &disk, &err), PLATTER_ECORRUPT, bounds[i].words);
        buffer_free(&b);
    }
    struct buffer b = fixture(); /* of no bytes: there is none */
    put_be(b.bytes + 8, 8, 0x2000);
    assert_works(try_open(&b, false, &disk, &err));
    assert_false(disk_top(disk)->has_backing);
    disk_close(disk, NULL);
    buffer_free(&b);
}

/* Puts a number at a place of the fixture; reading guest offset 64 KiB fails. */
static void assert_unreadable(uint64_t at, uint64_t value, const char *words)
{
    struct buffer b = fixture();
    struct platter_disk *disk;
    uint8_t bytes[CLUSTER];
    put_be(b.bytes + at, 8, value);
    assert_works(try_open(&b, false, &disk, &err));
    assert_fails(disk_read(disk, bytes, CLUSTER, 64 << 10, &err), PLATTER_ECORRUPT, words);
    disk_close(disk, NULL);
    buffer_free(&b);
}

static void test_entry_bounds(void **state)
{
    const uint64_t packed = UINT64_C(1) << 63, byte = UINT64_C(1) << 51;
    (void)state;
    assert_unreadable(L1_AT, packed | TABLE_AT, "bit 63");
    assert_unreadable(L1_AT, 0x3000, "behind the end of the file");
    assert_unreadable(L1_AT, 0x2008, "behind the end of the file");
    assert_unreadable(L1_AT, 47, "into the header");
    assert_unreadable(L1_AT, 80, "into the header or the L1 table");
    assert_unreadable(L1_AT + 8, TABLE_AT, "L2 table of another entry");
    assert_unreadable(L1_AT + 8, TABLE_AT + 8, "L2 table of another entry");
    assert_unreadable(0x1080, DATA_AT + 256, "not a multiple of 512");
    assert_unreadable(0x1080, 0x3000, "must be at 12288 with 4096 bytes, but the file ends");
    assert_unreadable(0x1080, DATA_AT + 512, "the file ends");
    assert_unreadable(0x1080, 0x7ffffffffffffe00, "larger than any file");
    assert_unreadable(0x1080, 512, "into an L2 table");
    assert_unreadable(0x1080, TABLE_AT, "into an L2 table");
    assert_unreadable(0x1080, packed | DATA_AT, "0 bytes");
    assert_unreadable(0x1080, packed | 10 * byte | 40, "into the header");
    assert_unreadable(0x1080, packed | 10 * byte | 0x2ff7, "with 10 bytes, but the file ends");
    assert_unreadable(0x1080, packed | 10 * byte | 0x1ffe, "into an L2 table");
}

static void test_short_files(void **state)
{
    (void)state;
    struct platter_disk *disk;
    struct buffer b = fixture();
    b.size = 47;
    assert_fails(try_open(&b, false, &disk, &err), PLATTER_ECORRUPT, "has 47 bytes");
    b.size = 87;
    assert_fails(try_open(&b, false, &disk, &err), PLATTER_ECORRUPT, "it was cut short");
    buffer_free(&b);
}

/* A file that lacks a part must not grow again, and make zeros of it. */
static void test_cut_file_is_not_appended_to(void **state)
{
    (void)state;
    struct platter_disk *disk;
    uint8_t byte = 1;
    struct buffer b = fixture();
    b.size -= 512;
    assert_works(try_open(&b, true, &disk, &err));
    assert_fails(disk_write(disk, &byte, 1, 0, &err), PLATTER_ECORRUPT, "cannot be changed");
    assert_works(disk_close(disk, &err));
    assert_int_equal(b.size, 0x3000 - 512);
    buffer_free(&b);
}

/* Section 7. */
static void test_odd_size(void **state)
{
    static const struct {
        uint64_t size, seen;
    } sizes[] = {{10 * MIB + 700, 10 * MIB + 512}, {700, 512}, {2, 0}, {511, 0}};
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct buffer b = new_image();
        struct platter_disk *disk;
        put_be(b.bytes + 24, 8, sizes[i].size);
        assert_works(try_open(&b, false, &disk, &err));
        assert_int_equal(disk_size(disk), sizes[i].seen);
        assert_non_null(strstr(disk_top(disk)->doubt, "cannot be seen"));
        disk_close(disk, NULL);
        buffer_free(&b);
    }
}

/* An L1 table anywhere is read; before it is written, it moves to where no entry can be torn. */
static void test_l1_anywhere(void **state)
{
    (void)state;
    struct buffer b = fixture();
    memmove(b.bytes + 61, b.bytes + 48, 40);
    memset(b.bytes + 48, 0, 13);
    put_be(b.bytes + 40, 8, 61);
    assert_filled(&b, 0x5a, CLUSTER, 64 << 10);
    write_filled(&b, 0x33, 1, 9 * MIB);
    assert_int_equal(field(&b, 40) % 512, 0);
    assert_filled(&b, 0x5a, CLUSTER, 64 << 10);
    assert_filled(&b, 0x33, 1, 9 * MIB);
    buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixture),
        cmocka_unit_test(test_packed_example),
        cmocka_unit_test(test_packed_by_zlib),
        cmocka_unit_test(test_encryption_vector),
        cmocka_unit_test(test_header_bounds),
        cmocka_unit_test(test_name_bounds),
        cmocka_unit_test(test_entry_bounds),
        cmocka_unit_test(test_short_files),
        cmocka_unit_test(test_cut_file_is_not_appended_to),
        cmocka_unit_test(test_odd_size),
        cmocka_unit_test(test_l1_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
