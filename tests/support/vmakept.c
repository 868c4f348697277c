/* SPDX-License-Identifier: MIT */
#include "support/vmakept.h"

#include <nettle/sha2.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"

enum { HEADER = 4096, PIECES_AT = 64, SUM_AT = 80, ENTRY = 32, RUN = 12 };

static void sum(const uint8_t *bytes, size_t len, size_t out_len, uint8_t *out)
{
    struct sha256_ctx sha;
    sha256_init(&sha);
    sha256_update(&sha, len, bytes);
    sha256_digest(&sha, out_len, out);
}

void vmakept_seal(struct buffer *index)
{
    if (index->size < HEADER)
        return;
    uint8_t *entry = index->bytes + HEADER;
    uint64_t n = min_u64(get_be(index->bytes + PIECES_AT, 8), (index->size - HEADER) / ENTRY);
    for (uint64_t i = 0; i < n; i++, entry += ENTRY) {
        uint64_t off = get_be(entry + 8, 8), len = get_be(entry + 2, 2) * RUN;
        if (range_inside(off, len, index->size))
            sum(index->bytes + off, (size_t)len, 16, entry + 16);
    }
    memset(index->bytes + SUM_AT, 0, SHA256_DIGEST_SIZE);
    sum(index->bytes, (size_t)(HEADER + n * ENTRY), SHA256_DIGEST_SIZE, index->bytes + SUM_AT);
}
