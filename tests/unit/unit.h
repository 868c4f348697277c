/* SPDX-License-Identifier: MIT */
/* cmocka with what it wants included first, and without its fail(), which is a name of ours. */
#ifndef UNIT_UNIT_H
#define UNIT_UNIT_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#undef fail

#endif
