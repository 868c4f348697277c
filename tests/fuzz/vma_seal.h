/* SPDX-License-Identifier: MIT */
/* The checksums of an archive made right, which no chance would find. */
#ifndef FUZZ_VMA_SEAL_H
#define FUZZ_VMA_SEAL_H

#include <string.h>

#include "base/cursor.h"
#include "base/hash.h"
#include "format/vma/vma.h"

static inline void vma_seal(uint8_t *bytes, size_t len, size_t md5_at)
{
    uint8_t md5[16];
    memset(bytes + md5_at, 0, sizeof md5);
    hash_bytes(hash_find("md5"), bytes, len, NULL, 0, md5);
    memcpy(bytes + md5_at, md5, sizeof md5);
}

/* Of the header, and of the extents as far as they follow each other. */
static inline void vma_seal_all(uint8_t *bytes, size_t size)
{
    enum { SIZE_AT = 56, HEADER_MD5_AT = 32, EXTENT_MD5_AT = 24, COUNT_AT = 6 };
    size_t off = size < VMA_FIXED ? 0 : (size_t)get_be(bytes + SIZE_AT, 4);
    if (off < VMA_FIXED || off > size)
        return;
    vma_seal(bytes, off, HEADER_MD5_AT);
    while (size > off && size - off >= VMA_EXTENT) {
        vma_seal(bytes + off, VMA_EXTENT, EXTENT_MD5_AT);
        off += VMA_EXTENT + get_be(bytes + off + COUNT_AT, 2) * VMA_BLOCK;
    }
}

#endif
