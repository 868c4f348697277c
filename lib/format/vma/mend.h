/* SPDX-License-Identifier: MIT */
/* Headers of which one bit is wrong: their checksum tells which. */
#ifndef FORMAT_VMA_MEND_H
#define FORMAT_VMA_MEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Mends the one bit that is wrong in these bytes, or in the MD5 of them that stands at `md5_at`
 * (where it is taken for zeros); false: there is no such bit, and nothing was changed. It tries
 * them all: most bytes that are hashed for that.
 */
bool vma_mend(uint8_t *bytes, size_t size, size_t md5_at, uint64_t most);

#endif
