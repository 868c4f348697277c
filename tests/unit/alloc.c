/* SPDX-License-Identifier: MIT */
/* Allocations fail when they are told to; the base layer answers ENOMEM and leaks nothing. */
#include "unit.h"

#include "base/memory.h"
#include "base/options.h"
#include "stream/stream.h"
#include "stream/wrapper.h"
#include "support/alloc.h"

static void test_counts_and_fails(void **state)
{
    (void)state;
    alloc_fail_at(2, false);
    char *a = string_copy("a"), *b = string_copy("b"), *c = string_format("%d", 1);
    assert_int_equal(alloc_calls(), 3);
    assert_int_equal(alloc_failed(), 1);
    assert_non_null(a);
    assert_null(b);
    assert_non_null(c);
    free(a);
    free(c);
    alloc_fail_at(1, true);
    assert_null(string_format("%d", 1));
    assert_null(budget_new(1));
    alloc_fail_at(0, false);
}

static int parse_options(void)
{
    static const struct option_def defs[] = {
        {.name = "a", .type = OPTION_STRING, .value = "x"},
        {.name = "b", .type = OPTION_STRING},
        {0},
    };
    struct option_values *v = NULL;
    int r = options_parse(defs, "b=1,a=2", &v, NULL);
    options_free(v);
    return r;
}

static int use_streams(void)
{
    struct stream *memory = NULL, *slice = NULL;
    int r = stream_memory_open("memory", 1 << 20, &memory, NULL);
    if (r == 0)
        r = stream_slice_open(memory, 0, 100, &slice, NULL);
    if (r == 0)
        r = stream_pwrite(slice, "x", 1, 99, NULL);
    stream_close(slice);
    stream_close(memory);
    return r;
}

static int use_budget(void)
{
    struct budget *b = budget_new(1 << 20);
    void *small = NULL, *large = NULL;
    int r = b ? budget_alloc(b, 100, "small", &small, NULL) : -ENOMEM;
    if (r == 0)
        r = budget_alloc(b, 10000, "large", &large, NULL);
    if (b) {
        budget_free(b, small, 100);
        budget_free(b, large, 10000);
        assert_int_equal(budget_take(b, 1 << 20, "all", NULL), 0);
    }
    budget_unref(b);
    return r;
}

static int open_temporary(void)
{
    struct stream *s = NULL;
    int r = stream_file_open("/tmp/platter-test-alloc", STREAM_FILE_TEMPORARY, &s, NULL);
    stream_close(s);
    return r;
}

static void test_every_allocation_fails_once(void **state)
{
    (void)state;
    int (*const works[])(void) = {parse_options, use_streams, use_budget, open_temporary};
    for (size_t i = 0; i < sizeof works / sizeof *works; i++) {
        uint64_t n = 0;
        int r;
        do {
            alloc_fail_at(++n, false);
            r = works[i]();
            assert_int_equal(r, alloc_failed() ? -ENOMEM : 0);
        } while (r != 0);
        assert_true(n > 1);
        alloc_fail_at(0, false);
    }
}

/* What goes in and what comes out are the same, or it says that there is no memory. */
static int pack_and_unpack(struct stream *file, struct budget *b, size_t *ret_len)
{
    static const uint8_t zeros[100000];
    static uint8_t got[sizeof zeros];
    const struct zip_options options = {.frame = 32 << 10, .workers = 2};
    struct stream *s = NULL;
    int r = stream_zip_open(stream_share(file), WRAP_ZSTD, &options, b, &s, NULL);
    if (r == 0)
        r = stream_pwrite(s, zeros, sizeof zeros, 0, NULL);
    if (r == 0)
        r = stream_publish(s, false, NULL);
    stream_close(s);
    s = NULL;
    if (r == 0)
        r = stream_unzip_open(stream_share(file), WRAP_ZSTD, b, &s, NULL);
    if (r == 0)
        r = stream_read(s, got, sizeof got, ret_len, NULL);
    stream_close(s);
    return r;
}

static int use_wrappers(size_t *ret_len)
{
    struct stream *file = NULL;
    struct budget *b = budget_new(32 << 20);
    int r = b ? stream_memory_open("memory", 1 << 20, &file, NULL) : -ENOMEM;
    if (r == 0)
        r = pack_and_unpack(file, b, ret_len);
    stream_close(file);
    budget_unref(b);
    return r;
}

/* They do without some of what they ask for: threads, and a table of frames. */
static void test_wrappers(void **state)
{
    (void)state;
    uint64_t n = 0, failures = 0;
    do {
        size_t len = 0;
        alloc_fail_at(++n, false);
        int r = use_wrappers(&len);
        if (r == 0)
            assert_int_equal(len, 100000);
        else
            assert_int_equal(r, -ENOMEM);
        failures += r != 0;
    } while (alloc_failed());
    assert_true(failures > 5);
    alloc_fail_at(0, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts_and_fails),
        cmocka_unit_test(test_every_allocation_fails_once),
        cmocka_unit_test(test_wrappers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
