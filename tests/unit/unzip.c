/* SPDX-License-Identifier: MIT */
/* Reading what is inside of compressed files, front to back: lib/stream/unzip.h. */
#include "unit.h"

#include <stdlib.h>

#include <libdeflate.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "packed.h"
#include "support/fault.h"

static struct budget *budget;

/* Fails as damage, with a sentence that names file and place, after it gave what is in front. */
static void assert_damaged(struct buffer *packed, enum wrapper w, const struct buffer *before,
                           const char *words)
{
    struct buffer got;
    struct platter_error error = {0};
    assert_int_equal(unpack(packed, w, 65536, before->size + 65536, &got, &error),
                     -PLATTER_ECORRUPT);
    if (!strstr(error.message, words) || !strstr(error.message, "packed: ") ||
        !strstr(error.message, "offset"))
        fail_msg("%s: '%s' is not about '%s'", wrapper_name(w), error.message, words);
    assert_same(&got, before);
    buffer_free(&got);
}

/* ---- what is told from the first bytes ------------------------------------------------------- */

static void test_probe(void **state)
{
    (void)state;
    struct buffer text = content_new(PACKED_SMALL, 1);
    for (unsigned i = 0; i < WRAPPERS; i++) {
        struct buffer packed = packed_by(all_wrappers[i], "", &text);
        assert_int_equal(wrapper_probe(packed.bytes, WRAP_PROBE), all_wrappers[i]);
        assert_int_equal(wrapper_find(wrapper_name(all_wrappers[i])), all_wrappers[i]);
        for (size_t len = 0; len < 3; len++)
            assert_int_equal(wrapper_probe(packed.bytes, len), WRAP_NONE);
        packed.bytes[1] ^= 1;
        assert_int_equal(wrapper_probe(packed.bytes, WRAP_PROBE), WRAP_NONE);
        buffer_free(&packed);
    }
    buffer_free(&text);
    assert_int_equal(wrapper_probe((const uint8_t *)"\x5C\x2A\x4D\x18", 4), WRAP_ZSTD);
    assert_int_equal(wrapper_probe((const uint8_t *)"\x6C\x2A\x4D\x18", 4), WRAP_NONE);
    assert_int_equal(wrapper_probe((const uint8_t *)"BZhello, world!!", 16), WRAP_NONE);
    assert_string_equal(wrapper_name(WRAP_NONE), "");
    assert_int_equal(wrapper_find("rar"), WRAP_NONE);
    assert_int_equal(wrapper_find(""), WRAP_NONE);
}

/* ---- what is sound --------------------------------------------------------------------------- */

static void test_sizes(void **state)
{
    static const size_t sizes[] = {0, 1, 4096, 65537, 1000003, PACKED_MUCH};
    (void)state;
    for (unsigned n = 0; n < sizeof sizes / sizeof *sizes; n++) {
        struct buffer content = content_new(sizes[n], n);
        for (unsigned i = 0; i < WRAPPERS; i++) {
            struct buffer packed = packed_by(all_wrappers[i], "-1", &content);
            assert_unpacks(&packed, all_wrappers[i], &content);
            buffer_free(&packed);
        }
        buffer_free(&content);
    }
}

/* Each of these programs packs one file behind the other, and so do people. */
static void test_parts_follow_one_another(void **state)
{
    (void)state;
    struct buffer a = content_new(70000, 1), b = content_new(3, 2), none = content_new(0, 3);
    struct buffer ab = buffers_joined(&a, &b);
    for (unsigned i = 0; i < WRAPPERS; i++) {
        struct buffer pa = packed_by(all_wrappers[i], "", &a),
                      pb = packed_by(all_wrappers[i], "", &b);
        struct buffer pn = packed_by(all_wrappers[i], "", &none);
        struct buffer first = buffers_joined(&pa, &pn), both = buffers_joined(&first, &pb);
        assert_unpacks(&both, all_wrappers[i], &ab);
        buffer_free(&pa);
        buffer_free(&pb);
        buffer_free(&pn);
        buffer_free(&first);
        buffer_free(&both);
    }
    buffer_free(&a);
    buffer_free(&b);
    buffer_free(&none);
    buffer_free(&ab);
}

enum { GZIP_FIXED = 10, GZIP_EXTRA = 65535, GZIP_FIELDS = 2 + GZIP_EXTRA + 5 + 8 + 2 };

/* A member with all fields that its header may have (RFC 1952, section 2.3). */
static struct buffer member_with_fields(const struct buffer *content)
{
    struct buffer packed = packed_by(WRAP_GZIP, "-n", content);
    struct buffer ret = buffer_new(packed.size + GZIP_FIELDS);
    uint8_t *at = ret.bytes + GZIP_FIXED;
    memcpy(ret.bytes, packed.bytes, GZIP_FIXED);
    ret.bytes[3] = 0x1F;
    put_le(at, 2, GZIP_EXTRA);
    memset(at + 2, 0x1F, GZIP_EXTRA);
    at += 2 + GZIP_EXTRA;
    memcpy(at, "name\0comment", 13);
    at += 13;
    put_le(at, 2, libdeflate_crc32(0, ret.bytes, (size_t)(at - ret.bytes)) & 0xFFFF);
    memcpy(at + 2, packed.bytes + GZIP_FIXED, packed.size - GZIP_FIXED);
    ret.size = packed.size + GZIP_FIELDS;
    buffer_free(&packed);
    return ret;
}

/* Wherever input is cut into pieces: here that is in the headers most times. */
static void test_gzip_fields(void **state)
{
    static const size_t method = 2, flags = 3, extra = 100, sum = GZIP_FIXED + GZIP_FIELDS - 1;
    const size_t changed[] = {method, flags, extra, sum};
    (void)state;
    struct buffer part = content_new(3000, 1), none = buffer_new(0);
    struct buffer member = member_with_fields(&part), packed = buffers_joined(&none, &member);
    struct buffer content = buffers_joined(&none, &part), more;
    for (unsigned i = 0; i < 20; i++) {
        more = buffers_joined(&packed, &member);
        buffer_free(&packed);
        packed = more;
        more = buffers_joined(&content, &part);
        buffer_free(&content);
        content = more;
    }
    assert_unpacks(&packed, WRAP_GZIP, &content);
    content.size -= part.size;
    for (unsigned i = 0; i < sizeof changed / sizeof *changed; i++) {
        uint8_t *byte = packed.bytes + packed.size - member.size + changed[i];
        *byte ^= 0x80;
        assert_damaged(&packed, WRAP_GZIP, &content, "header");
        *byte ^= 0x80;
    }
    for (size_t cut = 1; cut < GZIP_FIXED + GZIP_FIELDS; cut += cut < 20 ? 1 : 5000) {
        more = (struct buffer){.bytes = packed.bytes, .size = packed.size - member.size + cut};
        auto_free char *words = string_format("ends at offset %zu", (size_t)more.size);
        assert_damaged(&more, WRAP_GZIP, &content, words);
    }
    buffer_free(&part);
    buffer_free(&none);
    buffer_free(&member);
    buffer_free(&packed);
    buffer_free(&content);
}

/* Whatever is asked for at once, and by reading, looking or skipping. */
static void test_pieces(void **state)
{
    static const size_t pieces[] = {1, 7, 4095, 300001, 5 << 20};
    (void)state;
    struct buffer content = content_new(400000, 1), got;
    struct buffer packed = packed_by(WRAP_ZSTD, "", &content);
    for (unsigned i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        assert_works(unpack(&packed, WRAP_ZSTD, pieces[i], content.size, &got, &err));
        assert_same(&got, &content);
        buffer_free(&got);
    }
    uint8_t bytes[100];
    uint64_t skipped;
    size_t n;
    struct stream *s = NULL;
    assert_works(unzip_buffer(&packed, WRAP_ZSTD, budget, &s, &err));
    assert_true(s->sequential);
    assert_works(stream_peek(s, bytes, sizeof bytes, &n, &err));
    assert_memory_equal(bytes, content.bytes, sizeof bytes);
    assert_works(stream_skip(s, 250000, &skipped, &err));
    assert_int_equal(skipped, 250000);
    assert_works(stream_read(s, bytes, sizeof bytes, &n, &err));
    assert_memory_equal(bytes, content.bytes + 250000, sizeof bytes);
    assert_works(stream_skip(s, UINT64_MAX, &skipped, &err));
    assert_int_equal(skipped, content.size - 250100);
    stream_close(s);
    buffer_free(&packed);
    buffer_free(&content);
}

static void test_starts_where_base_stands(void **state)
{
    (void)state;
    struct buffer content = content_new(5000, 1), front = content_new(123, 2);
    struct buffer packed = packed_by(WRAP_GZIP, "", &content);
    struct buffer whole = buffers_joined(&front, &packed);
    struct stream *base = NULL, *s = NULL;
    uint64_t skipped;
    for (unsigned cut = 0; cut < 2; cut++, whole.size--) {
        struct buffer got;
        assert_works(stream_buffer_open(&whole, "packed", false, &base, &err));
        assert_works(stream_skip(base, front.size, &skipped, &err));
        assert_works(stream_unzip_open(base, WRAP_GZIP, budget, &s, &err));
        auto_free char *words = string_format("ends at offset %zu", (size_t)whole.size);
        if (cut)
            assert_fails(read_out(s, 100, content.size, &got, &err), PLATTER_ECORRUPT, words);
        else
            assert_works(read_out(s, 100, content.size, &got, &err));
        assert_same(&got, &content);
        buffer_free(&got);
    }
    buffer_free(&whole);
    buffer_free(&packed);
    buffer_free(&front);
    buffer_free(&content);
}

/* zstd: frames that hold nothing are passed over, wherever they stand. */
static void test_skippable(void **state)
{
    (void)state;
    struct buffer content = content_new(5000, 1), none = content_new(0, 1);
    struct buffer frame = packed_by(WRAP_ZSTD, "", &content);
    struct buffer skip = buffer_new(8 + 3000), empty = buffer_new(8);
    put_le(skip.bytes, 4, 0x184D2A5E);
    put_le(skip.bytes + 4, 4, 3000);
    put_le(empty.bytes, 4, 0x184D2A50);
    skip.size = 8 + 3000;
    empty.size = 8;
    struct buffer a = buffers_joined(&skip, &frame), b = buffers_joined(&a, &empty);
    struct buffer c = buffers_joined(&b, &skip);
    assert_unpacks(&a, WRAP_ZSTD, &content);
    assert_unpacks(&c, WRAP_ZSTD, &content);
    assert_unpacks(&skip, WRAP_ZSTD, &none);
    c.size--;
    assert_damaged(&c, WRAP_ZSTD, &content, "truncated");
    skip.size = 100;
    assert_damaged(&skip, WRAP_ZSTD, &none, "truncated");
    buffer_free(&a);
    buffer_free(&b);
    buffer_free(&c);
    buffer_free(&skip);
    buffer_free(&empty);
    buffer_free(&frame);
    buffer_free(&none);
    buffer_free(&content);
}

/* ---- what is not ----------------------------------------------------------------------------- */

static void test_what_follows(void **state)
{
    static const uint8_t zeros[70000], other[70001] = {[70000] = 1};
    (void)state;
    struct buffer content = content_new(5000, 1);
    for (unsigned i = 0; i < WRAPPERS; i++) {
        struct buffer packed = packed_by(all_wrappers[i], "", &content);
        struct buffer text = with_behind(&packed, "and more", 8);
        struct buffer padded = with_behind(&packed, zeros, sizeof zeros);
        struct buffer late = with_behind(&packed, other, sizeof other);
        assert_damaged(&text, all_wrappers[i], &content,
                       all_wrappers[i] == WRAP_LZOP ? "garbage" : "should");
        /* gzip is padded on tapes, and xz is by its rules; lzop itself ignores zeros. */
        if (all_wrappers[i] == WRAP_ZSTD || all_wrappers[i] == WRAP_BZIP2)
            assert_damaged(&padded, all_wrappers[i], &content, "should");
        else
            assert_unpacks(&padded, all_wrappers[i], &content);
        padded.size = packed.size + 1;
        if (all_wrappers[i] == WRAP_XZ)
            assert_damaged(&padded, all_wrappers[i], &content, "multiple of 4");
        if (all_wrappers[i] != WRAP_LZOP)
            assert_damaged(&late, all_wrappers[i], &content, "damaged");
        buffer_free(&packed);
        buffer_free(&text);
        buffer_free(&padded);
        buffer_free(&late);
    }
    buffer_free(&content);
}

static void test_nothing(void **state)
{
    (void)state;
    struct buffer none = buffer_new(0);
    for (unsigned i = 0; i < WRAPPERS; i++)
        assert_damaged(&none, all_wrappers[i], &none,
                       all_wrappers[i] == WRAP_LZOP ? "lzop" : "empty");
    assert_fails(unzip_buffer(&none, WRAP_NONE, budget, &(struct stream *){0}, &err), EINVAL,
                 "nothing");
    buffer_free(&none);
}

/* Cut anywhere, but between two parts, a file is truncated; what there is of it comes out. */
static void test_every_truncation(void **state)
{
    (void)state;
    struct buffer content = content_new(PACKED_SMALL, 5), got;
    for (unsigned i = 0; i < WRAPPERS; i++) {
        struct buffer one = packed_by(all_wrappers[i], "", &content),
                      two = buffers_joined(&one, &one);
        size_t last = 0;
        for (size_t len = 1; len<two.size; len += len> one.size ? 7 : 1) {
            struct buffer cut = buffer_copy(&two, 0);
            struct platter_error error = {0};
            cut.size = len;
            int r = unpack(&cut, all_wrappers[i], 1000, 1000, &got, &error);
            assert_int_equal(r, len == one.size ? 0 : -PLATTER_ECORRUPT);
            assert_true(got.size >= last && got.size <= 2 * content.size);
            assert_memory_equal(got.bytes, content.bytes, min_u64(got.size, content.size));
            last = got.size;
            buffer_free(&got);
            buffer_free(&cut);
        }
        assert_true(last >= content.size);
        buffer_free(&one);
        buffer_free(&two);
    }
    buffer_free(&content);
}

/* No bit changes what comes out and goes unnoticed. */
static void test_every_bit(void **state)
{
    (void)state;
    struct buffer content = content_new(PACKED_SMALL, 6), got;
    for (unsigned i = 0; i < WRAPPERS; i++) {
        struct buffer packed = packed_by(all_wrappers[i], "", &content);
        unsigned noticed = 0;
        for (size_t at = 0; at < packed.size; at++) {
            struct platter_error error = {0};
            packed.bytes[at] ^= (uint8_t)(1u << at % 8);
            int r = unpack(&packed, all_wrappers[i], 4096, 65536, &got, &error);
            if (r == 0)
                assert_same(&got, &content);
            else if (r != -PLATTER_ECORRUPT && r != -ENOMEM && r != -ENOTSUP)
                fail_msg("%s", error.message);
            noticed += r != 0;
            packed.bytes[at] ^= (uint8_t)(1u << at % 8);
            buffer_free(&got);
        }
        /* Headers have fields that mean nothing for the content: names and times. */
        assert_true(noticed + 16 >= packed.size);
        buffer_free(&packed);
    }
    buffer_free(&content);
}

/* All blocks of zstd in front of one that is damaged come out. */
static void test_blocks_in_front_of_damage(void **state)
{
    (void)state;
    struct buffer content = content_new(1 << 20, 7), got;
    struct buffer packed = packed_by(WRAP_ZSTD, "", &content);
    struct platter_error error = {0};
    packed.bytes[packed.size - 4] ^= 1;
    assert_int_equal(unpack(&packed, WRAP_ZSTD, 1 << 20, 1 << 20, &got, &error), -PLATTER_ECORRUPT);
    assert_same(&got, &content);
    assert_non_null(strstr(error.message, "checksum"));
    buffer_free(&got);
    packed.bytes[packed.size / 2] ^= 0x55;
    assert_int_equal(unpack(&packed, WRAP_ZSTD, 1 << 20, 1 << 20, &got, &error), -PLATTER_ECORRUPT);
    assert_true(got.size >= 256 << 10);
    assert_memory_equal(got.bytes, content.bytes, 256 << 10);
    buffer_free(&got);
    buffer_free(&packed);
    buffer_free(&content);
}

/* ... also of a block for which there is room in two parts only: before and behind the end of the
 * memory that is used in turns. */
static void test_blocks_in_two_parts(void **state)
{
    (void)state;
    struct buffer a = content_new((4 << 20) - 100, 7), b = content_new(200, 8);
    struct buffer pa = packed_by(WRAP_ZSTD, "-1", &a), pb = packed_by(WRAP_ZSTD, "", &b);
    struct buffer content = buffers_joined(&a, &b), packed = buffers_joined(&pa, &pb);
    packed.bytes[packed.size - 1] ^= 1;
    assert_damaged(&packed, WRAP_ZSTD, &content, "checksum");
    buffer_free(&content);
    buffer_free(&packed);
    buffer_free(&pa);
    buffer_free(&pb);
    buffer_free(&a);
    buffer_free(&b);
}

/* The same answer again, however it is asked for; looking ahead gives what there is. */
static void test_failure_stays(void **state)
{
    (void)state;
    struct buffer content = content_new(100, 7);
    struct buffer packed = packed_by(WRAP_GZIP, "", &content);
    struct stream *s = NULL;
    uint8_t bytes[200];
    uint64_t skipped;
    size_t n;
    packed.bytes[packed.size - 1] ^= 1;
    assert_works(unzip_buffer(&packed, WRAP_GZIP, budget, &s, &err));
    for (int i = 0; i < 2; i++) {
        assert_fails(stream_peek(s, bytes, sizeof bytes, &n, &err), PLATTER_ECORRUPT, "length");
        assert_int_equal(n, 100);
        assert_memory_equal(bytes, content.bytes, 100);
    }
    assert_works(stream_read(s, bytes, 40, &n, &err));
    assert_fails(stream_skip(s, 61, &skipped, &err), PLATTER_ECORRUPT, "length");
    assert_int_equal(skipped, 60);
    for (int i = 0; i < 2; i++) {
        assert_fails(stream_read(s, bytes, 1, &n, &err), PLATTER_ECORRUPT, "length");
        assert_int_equal(n, 0);
    }
    stream_close(s);
    buffer_free(&packed);
    buffer_free(&content);
}

static void test_base_fails(void **state)
{
    (void)state;
    struct buffer content = content_new(3 << 20, 8), got;
    for (unsigned i = 0; i < WRAPPERS; i++) {
        struct buffer packed = packed_by(all_wrappers[i], "-1", &content);
        struct fault_plan plan = {.kinds = FAULT_PREAD, .at = 4, .lasting = true, .code = EIO};
        struct stream *base = NULL, *s = NULL;
        assert_works(stream_buffer_open(&packed, "packed", false, &base, &err));
        assert_works(stream_fault_open(base, &plan, &base, &err));
        assert_works(stream_unzip_open(base, all_wrappers[i], budget, &s, &err));
        struct platter_error error = {0};
        assert_int_equal(read_out(s, 65536, content.size, &got, &error), -EIO);
        assert_true(all_wrappers[i] == WRAP_BZIP2 || got.size > 0);
        assert_memory_equal(got.bytes, content.bytes, got.size);
        buffer_free(&got);
        buffer_free(&packed);
    }
    buffer_free(&content);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void test_budget(void **state)
{
    (void)state;
    struct buffer content = content_new(100000, 9), got;
    for (unsigned i = 0; i < WRAPPERS; i++) {
        struct buffer packed = packed_by(all_wrappers[i], "", &content);
        bool worked = false;
        for (uint64_t limit = 1 << 16; !worked && limit <= 64 << 20; limit *= 2) {
            struct budget *little = budget_new(limit);
            struct stream *s = NULL;
            struct platter_error error = {0};
            int r = unzip_buffer(&packed, all_wrappers[i], little, &s, &error);
            if (r == 0) {
                r = read_out(s, 100000, content.size, &got, &error);
                worked = r == 0;
                buffer_free(&got);
            }
            if (r < 0 && (r != -ENOMEM || !strstr(error.message, "raise the limit") ||
                          !strstr(error.message, "packed")))
                fail_msg("%s", error.message);
            assert_works(budget_take(little, limit, "all of it", &err));
            budget_unref(little);
        }
        assert_true(worked);
        buffer_free(&packed);
    }
    buffer_free(&content);
}

/* A frame says itself how much memory it needs. */
static void test_windows(void **state)
{
    static const struct {
        uint8_t header[14];
        int code;
        const char *words;
    } cases[] = {
        {{0x28, 0xB5, 0x2F, 0xFD, 0x00, 21 << 3, 1}, ENOMEM, "raise the limit"},
        {{0x28, 0xB5, 0x2F, 0xFD, 0x00, 22 << 3, 1}, ENOTSUP, "4294967296 bytes"},
        {{0x28, 0xB5, 0x2F, 0xFD, 0xE0, 0, 0, 0, 4, 0, 0, 0, 0, 1}, ENOMEM, "raise the limit"},
        {{0x28, 0xB5, 0x2F, 0xFD, 0xE0, 0, 0, 0, 0, 1, 0, 0, 0, 1}, ENOTSUP, "4294967296 bytes"},
        {{0x28, 0xB5, 0x2F, 0xFD, 0x01, 0x58, 9}, PLATTER_ECORRUPT, "ictionary"},
        {{0x1E, 0xB5, 0x2F, 0xFD}, PLATTER_ECORRUPT, "a frame should begin"},
    };
    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buffer packed = buffer_new(100), got;
        memcpy(packed.bytes, cases[i].header, sizeof cases[i].header);
        packed.size = 100;
        assert_fails(unpack(&packed, WRAP_ZSTD, 10, 10, &got, &err), cases[i].code, cases[i].words);
        buffer_free(&got);
        buffer_free(&packed);
    }
    struct buffer content = content_new(40 << 20, 1);
    struct buffer packed = packed_by(WRAP_ZSTD, "-1 --long=25", &content);
    assert_unpacks(&packed, WRAP_ZSTD, &content);
    buffer_free(&packed);
    buffer_free(&content);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_parts_follow_one_another),
        cmocka_unit_test(test_gzip_fields),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_starts_where_base_stands),
        cmocka_unit_test(test_skippable),
        cmocka_unit_test(test_what_follows),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_blocks_in_front_of_damage),
        cmocka_unit_test(test_blocks_in_two_parts),
        cmocka_unit_test(test_failure_stays),
        cmocka_unit_test(test_base_fails),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_windows),
    };
    budget = budget_new(PACKED_MEMORY);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    budget_unref(budget);
    return failed;
}
