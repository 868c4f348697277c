/* SPDX-License-Identifier: MIT */
/* For what has nothing to do with what is tested, but must work for the test to mean anything. */
#ifndef SUPPORT_MUST_H
#define SUPPORT_MUST_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: errno %s\n", __FILE__, __LINE__, #condition,               \
                    strerror(errno));                                                              \
            exit(99);                                                                              \
        }                                                                                          \
    } while (0)

#endif
