/* SPDX-License-Identifier: MIT */
/* Libraries that a build was made without: what needs them says so, with the name of the file, and
 * makes nothing that this build could not open. */
#include "unit.h"

#include <platter/platter.h>
#include <stdio.h>
#include <unistd.h>

#include "config.h"
#include "stream/wrapper.h"
#include "support/must.h"

enum { MEMORY = 64 << 20 };

static const struct {
    const char *name, *bytes;
    size_t len;
    bool built;
} kinds[] = {{"zstd", "\x28\xB5\x2F\xFD\x24\0\1\0\0\x99\xE9\xD8\x51", 13, HAVE_ZSTD},
             {"bzip2", "BZh9\x17\x72\x45\x38\x50\x90\0\0\0\0", 14, HAVE_BZIP2},
             {"xz",
              "\xFD\x37zXZ\0\0\4\xE6\xD6\xB4\x46\0\0\0\0\x1C\xDF\x44\x21\x1F\xB6\xF3\x7D\1\0\0\0"
              "\0\4YZ",
              32, HAVE_XZ}};

/* Files of these kinds, which hold nothing. */
static void test_wrapped(void **state)
{
    static const char path[] = "missing.packed";
    (void)state;
    for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char words[200];
        snprintf(words, sizeof words, "%s: this build does not know %s: build it with -D%s=enabled",
                 path, kinds[i].name, kinds[i].name);
        FILE *f = fopen(path, "w");
        MUST(f && fwrite(kinds[i].bytes, 1, kinds[i].len, f) == kinds[i].len && fclose(f) == 0);
        for (unsigned anywhere = 0; anywhere < 2; anywhere++) {
            struct budget *budget = budget_new(MEMORY);
            struct unpack_policy policy = {.spool = "."};
            struct platter_error error = {0};
            struct stream *s = NULL;
            enum wrapper w = WRAP_NONE;
            int r;
            if (anywhere) {
                MUST(stream_file_open(path, 0, &s, NULL) == 0);
                w = wrapper_find(kinds[i].name);
                r = stream_unpacked_open(s, w, &policy, budget, &s, &error);
            } else {
                r = stream_unwrapped_open(path, budget, &s, &w, &error);
            }
            assert_int_equal(r, kinds[i].built ? 0 : -ENOTSUP);
            assert_string_equal(error.message, kinds[i].built ? "" : words);
            assert_int_equal(w, wrapper_find(kinds[i].name));
            if (r == 0)
                stream_close(s);
            budget_unref(budget);
        }
    }
    unlink(path);
}

static void test_create(void **state)
{
    static const char path[] = "missing.qcow2";
    const struct platter_create_options o = {.size = sizeof o,
                                             .format = "qcow2",
                                             .has_disk_size = true,
                                             .disk_size = 1 << 20,
                                             .options = "compression_type=zstd"};
    struct platter_error error = {0};
    (void)state;
    int r = platter_create(path, &o, &error);
    if (HAVE_ZSTD)
        assert_int_equal(r, 0);
    else
        assert_non_null(strstr(error.message, "-Dzstd=enabled"));
    assert_int_equal(access(path, F_OK) == 0, HAVE_ZSTD);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrapped),
        cmocka_unit_test(test_create),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
