/* SPDX-License-Identifier: MIT */
/* "key=value,..." by table, and sizes. */
#include "unit.h"

#include "base/options.h"

static const char *const colours[] = {"red", "green", NULL};

static const struct option_def defs[] = {
    {.name = "cluster_size", .type = OPTION_SIZE, .value = "64k", .min = 512, .max = 2 << 20},
    {.name = "count", .type = OPTION_NUMBER, .value = "16", .min = 1, .max = 64},
    {.name = "extended", .type = OPTION_BOOL, .value = "off"},
    {.name = "colour", .type = OPTION_ENUM, .value = "red", .values = colours},
    {.name = "file", .type = OPTION_STRING},
    {.name = "label", .type = OPTION_STRING, .value = "none"},
    {0},
};

static void test_defaults(void **state)
{
    (void)state;
    const char *const texts[] = {NULL, "", ",", ",,"};
    for (size_t i = 0; i < 3; i++) {
        struct option_values *v;
        assert_works(options_parse(defs, texts[i], &v, &err));
        assert_true(options_number(v, "cluster_size") == 65536);
        assert_true(options_number(v, "count") == 16);
        assert_false(options_bool(v, "extended"));
        assert_int_equal(options_enum(v, "colour"), 0);
        assert_null(options_string(v, "file"));
        assert_string_equal(options_string(v, "label"), "none");
        assert_false(options_given(v, "label"));
        options_free(v);
    }
    options_free(NULL);
}

static void test_values(void **state)
{
    (void)state;
    struct option_values *v;
    assert_works(options_parse(
        defs, "file=a,,b=c,extended,colour=green,count=64,label=,cluster_size=2M,count=1", &v,
        &err));
    assert_string_equal(options_string(v, "file"), "a,b=c");
    assert_true(options_bool(v, "extended"));
    assert_int_equal(options_enum(v, "colour"), 1);
    assert_true(options_number(v, "count") == 1);
    assert_string_equal(options_string(v, "label"), "");
    assert_true(options_given(v, "label"));
    assert_true(options_number(v, "cluster_size") == 2 << 20);
    options_free(v);
    assert_works(options_parse(defs, "extended=on,extended=off,file=x,file=y", &v, &err));
    assert_false(options_bool(v, "extended"));
    assert_string_equal(options_string(v, "file"), "y");
    options_free(v);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"size=5", "cluster_size, count, extended, colour, file, label"},
        {"=5", "unknown option ''"},
        {",,", "unknown option ','"},
        {"count", "count=..."},
        {"count=", "a number is expected"},
        {"count=5x", "a number is expected"},
        {"count=-1", "a number is expected"},
        {"count=65", "1 to 64"},
        {"count=0", "1 to 64"},
        {"count=99999999999999999999999", "a number is expected"},
        {"cluster_size=256", "512 to 2097152"},
        {"cluster_size=fish", "option cluster_size: 'fish' is not a size"},
        {"extended=maybe", "'on' or 'off'"},
        {"colour=blue", "none of: red, green"},
        {"file=x,extended=maybe", "'on' or 'off'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct option_values *v = NULL;
        assert_fails(options_parse(defs, cases[i].text, &v, &err), EINVAL, cases[i].words);
        assert_null(v);
    }
    static const struct option_def none[] = {{0}};
    struct option_values *v = NULL;
    assert_fails(options_parse(none, "a=1", &v, &err), EINVAL, "there are none here");
}

static void test_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t size;
    } cases[] = {
        {"0", 0},
        {"512", 512},
        {"512b", 512},
        {"1k", 1024},
        {"64K", 65536},
        {"1.5G", 3ull << 29},
        {"0.5k", 512},
        {"1.0001k", 1024},
        {"3T", 3ull << 40},
        {"2P", 2ull << 50},
        {"7E", 7ull << 60},
        {"7.999E", (7ull << 60) + (uint64_t)((unsigned __int128)999 * (1ull << 60) / 1000)},
        {"9223372036854775807", INT64_MAX},
        {"0x1000", 4096},
        {"10m", 10 << 20},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t size = 1;
        assert_works(parse_size(cases[i].text, &size, &err));
        if (size != cases[i].size)
            fail_msg("%s is %llu", cases[i].text, (unsigned long long)size);
    }
}

static void test_bad_sizes(void **state)
{
    (void)state;
    uint64_t size;
    static const char *const texts[] = {"",
                                        "k",
                                        "-1",
                                        " 1",
                                        "1 ",
                                        "1kk",
                                        "1.5",
                                        "1.k",
                                        ".5k",
                                        "1x",
                                        "0x",
                                        "0x1k",
                                        "1e3",
                                        "1,5k",
                                        "+1",
                                        "1.5.5k",
                                        "inf",
                                        "1.5b",
                                        "99999999999999999999"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_fails(parse_size(texts[i], &size, &err), EINVAL, "is not a size");
    assert_fails(parse_size("8E", &size, &err), ERANGE, "too large");
    assert_fails(parse_size("16E", &size, &err), ERANGE, "too large");
    assert_fails(parse_size("9223372036854775808", &size, &err), ERANGE, "too large");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),  cmocka_unit_test(test_values),
        cmocka_unit_test(test_refusals),  cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_bad_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
