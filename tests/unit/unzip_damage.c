/* SPDX-License-Identifier: MIT */
/* Compressed files that are damaged, front to back: what is behind the damaged part comes all the
 * same, and nobody is told that what may be wrong was checked. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/ckd.h"
#include "packed.h"
#include "support/prng.h"

enum { PART = 100000, PARTS = 8, SLACK = 4096 };

static struct budget *budget;

/* Noise, so that what was packed is about as long. */
static struct buffer noise_new(size_t size, uint64_t seed)
{
    struct buffer b = buffer_new(size);
    struct prng p = {.state = seed};
    for (b.size = 0; b.size < size; b.size++)
        b.bytes[b.size] = (uint8_t)prng_next(&p);
    return b;
}

struct rescued {
    struct buffer got;
    unsigned failures;
    size_t checked;   /* of what came before the first: it is right */
    char first[1024]; /* sentence */
};

/* Reads all that there is, behind damage as well. */
static void rescue(struct buffer *packed, enum wrapper w, size_t room, struct rescued *ret)
{
    struct stream *s = NULL;
    size_t n = 1;
    int r = 0;
    *ret = (struct rescued){.got = buffer_new(room)};
    assert_works(unzip_buffer(packed, w, budget, &s, &err));
    while (r == 0 && n) {
        struct platter_error error = {0};
        assert_true(room - ret->got.size >= 1000);
        r = stream_read(s, ret->got.bytes + ret->got.size, 1000, &n, &error);
        ret->got.size += n;
        if (r == 0)
            continue;
        if (r != -PLATTER_ECORRUPT)
            fail_msg("%s", error.message);
        if (ret->failures++ == 0) {
            ret->checked = (size_t)stream_checked(s);
            snprintf(ret->first, sizeof ret->first, "%s", error.message);
        }
        r = stream_resume(s) ? 0 : r;
        n = 1;
    }
    stream_close(s);
}

static size_t common_suffix(const struct buffer *a, const struct buffer *b)
{
    size_t n = 0;
    while (n < a->size && n < b->size && a->bytes[a->size - 1 - n] == b->bytes[b->size - 1 - n])
        n++;
    return n;
}

/* One part is lost at most, and nothing wrong counts as checked. */
static void assert_rescues(struct buffer *packed, enum wrapper w, const struct buffer *content,
                           size_t part, size_t at)
{
    struct rescued r;
    rescue(packed, w, 3 * content->size + (1 << 20), &r);
    if (r.failures == 0)
        fail_msg("%s, damaged at %zu: nothing is noticed", wrapper_name(w), at);
    if (r.checked > content->size || memcmp(r.got.bytes, content->bytes, r.checked) != 0)
        fail_msg("%s, damaged at %zu: what was checked is wrong", wrapper_name(w), at);
    /* The part that was damaged stands behind what was checked. */
    size_t lost = r.checked + part, tail = common_suffix(&r.got, content);
    if (lost < content->size && tail < content->size - lost)
        fail_msg(
            "%s, damaged at %zu: %zu bytes were checked, but only the last %zu came, behind %s",
            wrapper_name(w), at, r.checked, tail, r.first);
    buffer_free(&r.got);
}

/* Anywhere but in the first bytes, which say how all of the rest is to be read. */
static void damage_anywhere(const struct buffer *whole, enum wrapper w,
                            const struct buffer *content, size_t part, unsigned times)
{
    struct prng p = {.state = 7};
    for (unsigned i = 0; i < times; i++) {
        struct buffer packed = buffer_copy(whole, 0);
        size_t at = 64 + (size_t)prng_below(&p, whole->size - 64 - 64), n = 1;
        if (i % 3 == 1)
            n = (size_t)min_u64(1 + prng_below(&p, 300), whole->size - at);
        for (size_t j = 0; j < n; j++)
            packed.bytes[at + j] ^=
                (uint8_t)(n == 1 ? 1u << prng_below(&p, 8) : 1 + prng_below(&p, 255));
        assert_rescues(&packed, w, content, part * (1 + (n > 1)) + SLACK, at);
        buffer_free(&packed);
    }
}

/* Each part packed by itself. */
static struct buffer pack_parts(enum wrapper w, const struct buffer *content)
{
    struct buffer all = buffer_new(0);
    for (size_t at = 0; at < content->size; at += PART) {
        struct buffer part = {.bytes = content->bytes + at,
                              .size = (size_t)min_u64(PART, content->size - at)};
        struct buffer packed = packed_by(w, "", &part), more = buffers_joined(&all, &packed);
        buffer_free(&all);
        buffer_free(&packed);
        all = more;
    }
    return all;
}

static void test_parts(void **state)
{
    static const enum wrapper all[] = {WRAP_ZSTD, WRAP_GZIP, WRAP_BZIP2, WRAP_XZ};
    (void)state;
    struct buffer content = noise_new(PARTS * PART, 1);
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        struct buffer packed = pack_parts(all[i], &content);
        damage_anywhere(&packed, all[i], &content, PART, 24);
        buffer_free(&packed);
    }
    buffer_free(&content);
}

/* ... or the blocks of one stream: of xz those that say how long they are, and those that do not.
 */
static void test_blocks(void **state)
{
    static const struct {
        enum wrapper w;
        const char *options;
    } cases[] = {{WRAP_BZIP2, "-1"},
                 {WRAP_XZ, "-0 --block-size=100000 -T1"},
                 {WRAP_XZ, "-0 --block-size=100000 -T2"},
                 {WRAP_XZ, "-0 --block-size=100000 --check=crc32"}};
    (void)state;
    struct buffer content = noise_new(PARTS * PART, 2);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buffer packed = packed_by(cases[i].w, cases[i].options, &content);
        damage_anywhere(&packed, cases[i].w, &content, PART, 24);
        buffer_free(&packed);
    }
    buffer_free(&content);
}

/* What is behind the last block of a damaged stream: another stream, or several. */
static void test_streams_of_blocks(void **state)
{
    (void)state;
    struct buffer content = noise_new(PARTS * PART, 3), twice = buffers_joined(&content, &content);
    static const struct {
        enum wrapper w;
        const char *options;
    } cases[] = {{WRAP_BZIP2, "-1"}, {WRAP_XZ, "-0 --block-size=100000"}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buffer one = packed_by(cases[i].w, cases[i].options, &content);
        struct buffer two = buffers_joined(&one, &one);
        damage_anywhere(&two, cases[i].w, &twice, PART, 24);
        /* The first of them is nothing but its beginning. */
        memset(two.bytes + 64, 0, one.size - 64);
        struct rescued r;
        rescue(&two, cases[i].w, twice.size + SLACK, &r);
        assert_true(common_suffix(&r.got, &twice) >= content.size);
        buffer_free(&r.got);
        buffer_free(&one);
        buffer_free(&two);
    }
    buffer_free(&twice);
    buffer_free(&content);
}

/* Bytes that are gone or were put in: blocks of bzip2 begin at any bit, those of xz anywhere then.
 */
static void test_shifted(void **state)
{
    static const struct {
        enum wrapper w;
        const char *options;
    } cases[] = {{WRAP_BZIP2, "-1"}, {WRAP_XZ, "-0 --block-size=100000 -T1"}};
    (void)state;
    struct buffer content = noise_new(PARTS * PART, 4);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buffer packed = packed_by(cases[i].w, cases[i].options, &content);
        for (size_t n = 1; n < 6; n++) {
            struct buffer cut = buffer_copy(&packed, 0);
            size_t at = packed.size / 3 + 7 * n;
            memmove(cut.bytes + at, cut.bytes + at + n, cut.size - at - n);
            cut.size -= n;
            assert_rescues(&cut, cases[i].w, &content, PART + SLACK, at);
            buffer_free(&cut);
        }
        buffer_free(&packed);
    }
    buffer_free(&content);
}

/* A file that is cut off: what came in front of the part that has no end any more was checked. */
static void test_cut(void **state)
{
    static const struct {
        enum wrapper w;
        const char *options;
    } cases[] = {{WRAP_BZIP2, "-1"}, {WRAP_XZ, "-0 --block-size=100000"}};
    (void)state;
    struct buffer content = noise_new(PARTS * PART, 5);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buffer packed = packed_by(cases[i].w, cases[i].options, &content);
        struct rescued r;
        packed.size = packed.size * 3 / 4;
        packed.bytes[packed.size - 5] ^= 1;
        rescue(&packed, cases[i].w, content.size + SLACK, &r);
        assert_int_equal(r.failures, 1);
        assert_non_null(strstr(r.first, "truncated"));
        assert_true(r.checked >= content.size * 3 / 4 - 2 * PART && r.checked <= r.got.size);
        assert_memory_equal(r.got.bytes, content.bytes, r.checked);
        buffer_free(&r.got);
        buffer_free(&packed);
    }
    buffer_free(&content);
    /* ... and of one part nothing. */
    content = noise_new(PART, 6);
    static const enum wrapper whole[] = {WRAP_ZSTD, WRAP_GZIP};
    for (unsigned i = 0; i < 2; i++) {
        struct buffer packed = packed_by(whole[i], "", &content);
        struct rescued r;
        packed.size -= 1;
        rescue(&packed, whole[i], content.size + SLACK, &r);
        assert_int_equal(r.failures, 1);
        assert_same(&r.got, &content);
        assert_int_equal(r.checked, 0);
        buffer_free(&r.got);
        buffer_free(&packed);
    }
    buffer_free(&content);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_streams_of_blocks),
        cmocka_unit_test(test_shifted),
        cmocka_unit_test(test_cut),
    };
    budget = budget_new(PACKED_MEMORY);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    budget_unref(budget);
    return failed;
}
