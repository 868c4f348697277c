/* SPDX-License-Identifier: MIT */
/* Writing what is compressed on its way: lib/stream/zip.c. */
#include "unit.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "packed.h"
#include "support/fault.h"
#include "support/must.h"
#include "support/process.h"

enum { FRAME = 64 << 10, SEEK_FOOTER = 9, SEEK_ENTRY = 8, SEEK_HEADER = 8 };

static const enum wrapper both[] = {WRAP_ZSTD, WRAP_GZIP};

/* Packs content in writes of `piece` bytes; what became of it is in *ret, also after a failure. */
static int pack(const struct buffer *content, enum wrapper w, const struct zip_options *o,
                size_t piece, struct fault_plan *plan, struct buffer *ret,
                struct platter_error *err)
{
    struct budget *budget = budget_new(PACKED_MEMORY);
    struct stream *s = NULL;
    *ret = buffer_new(content->size + (1 << 20));
    int r = stream_buffer_open(ret, "target", true, &s, err);
    if (r == 0 && plan)
        r = stream_fault_open(s, plan, &s, err);
    if (r == 0)
        r = stream_zip_open(s, w, o, budget, &s, err);
    if (r < 0)
        s = NULL;
    for (size_t at = 0; r == 0 && at < content->size; at += piece)
        r = stream_pwrite(s, content->bytes + at, min_u64(piece, content->size - at), at, err);
    if (r == 0)
        r = stream_publish(s, true, err);
    stream_close(s);
    MUST(budget_take(budget, PACKED_MEMORY, "all of it", NULL) == 0);
    budget_unref(budget);
    return r;
}

static void assert_packs(const struct buffer *content, enum wrapper w, const struct zip_options *o,
                         size_t piece, struct buffer *ret)
{
    struct platter_error error = {0};
    if (pack(content, w, o, piece, NULL, ret, &error) != 0)
        fail_msg("%s: %s", wrapper_name(w), error.message);
}

/* What the table behind frames of zstd says, and whether it is right of every frame. */
static unsigned check_table(const struct buffer *packed, const struct buffer *content)
{
    const uint8_t *end = packed->bytes + packed->size;
    assert_int_equal(get_le(end - 4, 4), 0x8F92EAB1);
    assert_int_equal(end[-5], 0);
    size_t n = (size_t)get_le(end - SEEK_FOOTER, 4);
    size_t table = n * SEEK_ENTRY + SEEK_FOOTER;
    assert_true(table + SEEK_HEADER < packed->size);
    const uint8_t *entry = end - table;
    assert_int_equal(get_le(entry - 8, 4), 0x184D2A5E);
    assert_int_equal(get_le(entry - 4, 4), table);

    size_t from = 0, to = 0;
    for (size_t i = 0; i < n; i++, entry += SEEK_ENTRY) {
        /* RFC 8878 section 3.1.1.1.1: there is a checksum. */
        assert_true(packed->bytes[from + 4] & 4);
        struct buffer frame = buffer_new((size_t)get_le(entry, 4));
        memcpy(frame.bytes, packed->bytes + from, frame.capacity);
        frame.size = frame.capacity;
        struct buffer want = {.bytes = content->bytes + to, .size = (size_t)get_le(entry + 4, 4)};
        assert_unpacks(&frame, WRAP_ZSTD, &want);
        from += frame.size;
        to += want.size;
        buffer_free(&frame);
    }
    assert_int_equal(from + SEEK_HEADER + table, packed->size);
    assert_int_equal(to, content->size);
    return (unsigned)n;
}

/* We and the programs of these names read what was written, however it came. */
static void test_sizes(void **state)
{
    static const size_t sizes[] = {0, 1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME, 1 << 20};
    const struct zip_options options = {.frame = FRAME};
    (void)state;
    for (unsigned n = 0; n < sizeof sizes / sizeof *sizes; n++) {
        struct buffer content = content_new(sizes[n], n);
        for (unsigned i = 0; i < 2; i++) {
            struct buffer packed, again;
            assert_packs(&content, both[i], &options, FRAME, &packed);
            assert_int_equal(wrapper_probe(packed.bytes, packed.size), both[i]);
            struct buffer theirs = unpacked_by(both[i], &packed);
            assert_same(&theirs, &content);
            assert_unpacks(&packed, both[i], &content);
            assert_packs(&content, both[i], &options, 12345, &again);
            assert_same(&again, &packed);
            if (both[i] == WRAP_ZSTD)
                assert_int_equal(check_table(&packed, &content),
                                 max_u64(1, div_up(content.size, FRAME)));
            buffer_free(&theirs);
            buffer_free(&again);
            buffer_free(&packed);
        }
        buffer_free(&content);
    }
}

/* The bytes do not tell how many threads there were. */
static void test_workers(void **state)
{
    (void)state;
    struct buffer content = content_new(PACKED_MUCH + 1234, 3);
    for (unsigned i = 0; i < 2; i++) {
        struct buffer one, many;
        assert_packs(&content, both[i], &(struct zip_options){.workers = 1, .frame = FRAME}, 99999,
                     &one);
        for (unsigned workers = 2; workers < 40; workers *= 3) {
            const struct zip_options o = {.workers = workers, .frame = FRAME};
            assert_packs(&content, both[i], &o, content.size, &many);
            assert_same(&many, &one);
            buffer_free(&many);
        }
        assert_unpacks(&one, both[i], &content);
        buffer_free(&one);
    }
    buffer_free(&content);
}

/* The usual frames and levels, and others. */
static void test_options(void **state)
{
    (void)state;
    struct buffer content = content_new(PACKED_MUCH, 4), packed, small;
    for (unsigned i = 0; i < 2; i++) {
        assert_packs(&content, both[i], NULL, content.size, &packed);
        assert_unpacks(&packed, both[i], &content);
        assert_packs(&content, both[i], &(struct zip_options){.level = 1}, content.size, &small);
        assert_true(small.size > packed.size);
        buffer_free(&small);
        if (both[i] == WRAP_ZSTD)
            assert_int_equal(check_table(&packed, &content), 3);
        assert_fails(
            pack(&content, both[i], &(struct zip_options){.level = 99}, 1, NULL, &small, &err),
            EINVAL, "target: ");
        buffer_free(&small);
        assert_fails(
            pack(&content, both[i], &(struct zip_options){.frame = 100}, 1, NULL, &small, &err),
            EINVAL, "4 KiB");
        buffer_free(&small);
        buffer_free(&packed);
    }
    assert_fails(pack(&content, WRAP_XZ, NULL, 1, NULL, &small, &err), ENOTSUP,
                 "nothing is written with xz");
    buffer_free(&small);
    assert_fails(pack(&content, WRAP_NONE, NULL, 1, NULL, &small, &err), EINVAL, "target: ");
    buffer_free(&small);
    buffer_free(&content);
}

/* High levels take much memory: then fewer threads work, and the bytes are the same. */
static void test_memory(void **state)
{
    (void)state;
    struct buffer content = content_new(1 << 20, 5), packed, want;
    const struct zip_options o = {.level = 19, .workers = 8, .frame = 256 << 10};
    assert_packs(&content, WRAP_ZSTD, &o, content.size, &want);
    for (uint64_t limit = 64 << 10; limit <= PACKED_MEMORY; limit *= 2) {
        struct budget *budget = budget_new(limit);
        struct platter_error error = {0};
        struct stream *s = NULL;
        packed = buffer_new(2 << 20);
        assert_works(stream_buffer_open(&packed, "target", true, &s, &err));
        int r = stream_zip_open(s, WRAP_ZSTD, &o, budget, &s, &error);
        if (r == 0) {
            r = stream_pwrite(s, content.bytes, content.size, 0, &error);
            if (r == 0)
                r = stream_publish(s, false, &error);
            stream_close(s);
        }
        if (r == 0)
            assert_same(&packed, &want);
        else if (r != -ENOMEM || !strstr(error.message, "raise the limit"))
            fail_msg("%s", error.message);
        /* That is enough for one thread, and not for two. */
        assert_true(r == 0 || limit < 16 << 20);
        assert_works(budget_take(budget, limit, "all of it", &err));
        budget_unref(budget);
        buffer_free(&packed);
    }
    buffer_free(&want);
    buffer_free(&content);
}

static void test_front_to_back_only(void **state)
{
    (void)state;
    struct budget *budget = budget_new(PACKED_MEMORY);
    struct buffer packed = buffer_new(1 << 20), want = buffer_new(200000);
    struct stream *s = NULL;
    uint64_t size;
    assert_works(stream_buffer_open(&packed, "target", true, &s, &err));
    assert_works(stream_zip_open(s, WRAP_ZSTD, NULL, budget, &s, &err));
    assert_true(s->sequential && s->writable);
    assert_works(stream_pwrite(s, "abc", 3, 0, &err));
    assert_fails(stream_pwrite(s, "abc", 3, 0, &err), ESPIPE, "goes on at 3");
    assert_fails(stream_pwrite(s, "abc", 3, 4, &err), ESPIPE, "goes on at 3");
    assert_fails(stream_pread(s, &(char){0}, 1, 0, &err), ENOTSUP, "cannot be read");
    assert_fails(stream_resize(s, 2, &err), ESPIPE, "cannot be cut");
    assert_works(stream_resize(s, 100000, &err));
    assert_works(stream_zero(s, 100000, 99999, 0, &err));
    assert_works(stream_pwrite(s, "d", 1, 199999, &err));
    assert_works(stream_flush(s, &err));
    assert_works(stream_size(s, &size, &err));
    assert_int_equal(size, 200000);
    assert_works(stream_publish(s, false, &err));
    assert_works(stream_publish(s, true, &err));
    assert_fails(stream_pwrite(s, "d", 1, 200000, &err), EBADF, "finished");
    stream_close(s);
    memcpy(want.bytes, "abc", 3);
    want.bytes[199999] = 'd';
    want.size = 200000;
    assert_unpacks(&packed, WRAP_ZSTD, &want);
    buffer_free(&packed);
    buffer_free(&want);
    budget_unref(budget);
}

/* The file gets its name when it is whole, and not before. */
static void test_publish(void **state)
{
    (void)state;
    struct budget *budget = budget_new(PACKED_MEMORY);
    struct buffer content = content_new(300000, 6);
    auto_free char *path = scratch_path("archive.zst");
    for (unsigned publish = 0; publish < 2; publish++) {
        struct stream *s = NULL;
        assert_works(stream_file_open(path, STREAM_FILE_WRITE | STREAM_FILE_TEMPORARY, &s, &err));
        assert_works(stream_zip_open(s, WRAP_ZSTD, NULL, budget, &s, &err));
        assert_works(stream_pwrite(s, content.bytes, content.size, 0, &err));
        assert_int_not_equal(access(path, F_OK), 0);
        if (publish)
            assert_works(stream_publish(s, false, &err));
        stream_close(s);
        assert_int_equal(access(path, F_OK), publish ? 0 : -1);
    }
    struct buffer packed = buffer_load(path, 0);
    assert_unpacks(&packed, WRAP_ZSTD, &content);
    buffer_free(&packed);
    buffer_free(&content);
    budget_unref(budget);
}

/* Each call of what is below fails once; that is told, in its words, and again. */
static void test_failures(void **state)
{
    (void)state;
    struct buffer content = content_new(5 * FRAME, 7), packed;
    const struct zip_options o = {.frame = FRAME, .workers = 3};
    for (unsigned i = 0; i < 2; i++) {
        struct fault_plan plan = {.kinds = FAULT_ALL, .code = ENOSPC, .at = 1};
        for (int r = -1; r < 0; plan.at++) {
            struct platter_error error = {0};
            plan.calls = 0;
            r = pack(&content, both[i], &o, 10000, &plan, &packed, &error);
            assert_int_equal(r, plan.calls >= plan.at ? -ENOSPC : 0);
            assert_true(r == 0 || error.message[0]);
            buffer_free(&packed);
        }
        /* Five frames, and publishing, at least. */
        assert_true(plan.at > 7);
    }
    buffer_free(&content);
}

static void test_failure_stays(void **state)
{
    (void)state;
    static const uint8_t zeros[1 << 20];
    struct budget *budget = budget_new(PACKED_MEMORY);
    struct fault_plan plan = {.kinds = FAULT_PWRITE, .at = 1, .code = EIO};
    struct buffer packed = buffer_new(1 << 20);
    struct stream *s = NULL;
    struct platter_error error = {0};
    assert_works(stream_buffer_open(&packed, "target", true, &s, &err));
    assert_works(stream_fault_open(s, &plan, &s, &err));
    assert_works(
        stream_zip_open(s, WRAP_GZIP, &(struct zip_options){.frame = FRAME}, budget, &s, &err));
    uint64_t size = 0;
    while (stream_pwrite(s, zeros, sizeof zeros, size, &error) == 0)
        assert_works(stream_size(s, &size, &err));
    assert_int_equal(error.code, EIO);
    assert_works(stream_size(s, &size, &err));
    assert_fails(stream_pwrite(s, zeros, 1, size, &err), EIO, error.message);
    assert_fails(stream_publish(s, true, &err), EIO, error.message);
    assert_fails(stream_publish(s, true, &err), EIO, error.message);
    stream_close(s);
    buffer_free(&packed);
    budget_unref(budget);
}

/* Closed while all threads are at work. */
static void test_close_early(void **state)
{
    (void)state;
    struct budget *budget = budget_new(PACKED_MEMORY);
    struct buffer content = content_new(PACKED_MUCH, 8);
    for (unsigned i = 0; i < 2; i++)
        for (size_t len = 0; len <= content.size; len += content.size / 2) {
            struct buffer packed = buffer_new(PACKED_MUCH * 2);
            struct stream *s = NULL;
            assert_works(stream_buffer_open(&packed, "target", true, &s, &err));
            assert_works(stream_zip_open(
                s, both[i], &(struct zip_options){.frame = FRAME, .level = 9}, budget, &s, &err));
            assert_works(stream_pwrite(s, content.bytes, len, 0, &err));
            stream_close(s);
            buffer_free(&packed);
        }
    assert_works(budget_take(budget, PACKED_MEMORY, "all of it", &err));
    buffer_free(&content);
    budget_unref(budget);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),       cmocka_unit_test(test_workers),
        cmocka_unit_test(test_options),     cmocka_unit_test(test_memory),
        cmocka_unit_test(test_publish),     cmocka_unit_test(test_front_to_back_only),
        cmocka_unit_test(test_failures),    cmocka_unit_test(test_failure_stays),
        cmocka_unit_test(test_close_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
