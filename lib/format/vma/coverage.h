/* SPDX-License-Identifier: MIT */
/*
 * Which clusters of a device came so far, of up to 2^32. Bits in pages, which are made when their
 * first cluster comes, and given back when their last one has: of an archive in about the order of
 * the disk that is a page or two, whatever the size.
 */
#ifndef FORMAT_VMA_COVERAGE_H
#define FORMAT_VMA_COVERAGE_H

#include "base/error.h"
#include "base/memory.h"

struct coverage;

int coverage_new(struct budget *budget, struct coverage **ret, struct platter_error *err);
void coverage_free(struct coverage *c); /* NULL is fine */

/* 1: it is entered, 0: it was there before, or negative. */
int coverage_add(struct coverage *c, uint32_t cluster, struct platter_error *err);
bool coverage_has(const struct coverage *c, uint32_t cluster);
uint64_t coverage_count(const struct coverage *c);
/* One more than the highest cluster there is. */
uint64_t coverage_end(const struct coverage *c);
/* The first clusters at `from` or behind, before `end`, that are not there: how many follow each
 * other from *ret_first on; 0: none is missing. */
uint64_t coverage_missing(const struct coverage *c, uint64_t from, uint64_t end,
                          uint64_t *ret_first);

#endif
