/* SPDX-License-Identifier: MIT */
/*
 * Allocations that fail when the test says so. A test that links alloc_dep has the library's calls
 * of malloc, calloc, realloc, reallocarray, aligned_alloc, strdup, strndup and (v)asprintf counted
 * here. Those inside shared libraries (jansson, zstd) are not seen. Sanitizers keep working.
 */
#ifndef SUPPORT_ALLOC_H
#define SUPPORT_ALLOC_H

#include <stdbool.h>
#include <stdint.h>

/* Counts from 0 again; the n-th allocation from now fails (n from 1; 0: none), and with `lasting`
 * all behind it. Counts all threads. */
void alloc_fail_at(uint64_t n, bool lasting);
/* Allocations since then. */
uint64_t alloc_calls(void);
/* How many of them failed. */
uint64_t alloc_failed(void);

#endif
