/* SPDX-License-Identifier: MIT */
/* What every unit test includes: cmocka with the headers it wants, and checks of results. */
#ifndef UNIT_UNIT_H
#define UNIT_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* cmocka and the library both have a fail(). */
#undef fail
#undef fail_msg
#define fail_msg(...)                                                                              \
    do {                                                                                           \
        print_error(__VA_ARGS__);                                                                  \
        print_error("\n");                                                                         \
        _fail(__FILE__, __LINE__);                                                                 \
    } while (0)

#include "base/error.h"

/* The call, whose last argument is &err, answers `code` and leaves that code and a sentence that
 * contains `words`. */
#define assert_fails(call, expected, words)                                                        \
    do {                                                                                           \
        struct platter_error err = {0};                                                            \
        assert_int_equal(call, -(expected));                                                       \
        assert_int_equal(err.code, expected);                                                      \
        if (!strstr(err.message, words))                                                           \
            fail_msg("'%s' does not contain '%s'", err.message, (const char *)(words));            \
    } while (0)

/* The call, whose last argument is &err, succeeds. */
#define assert_works(call)                                                                         \
    do {                                                                                           \
        struct platter_error err = {0};                                                            \
        if ((call) != 0)                                                                           \
            fail_msg("%s: %s", #call, err.message);                                                \
    } while (0)

#endif
