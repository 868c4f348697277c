/* SPDX-License-Identifier: MIT */
#include "format/vma/mend.h"

#include <nettle/md5.h>
#include <string.h>

#include "base/memory.h"

enum { BLOCK = MD5_BLOCK_SIZE, SUM = MD5_DIGEST_SIZE };

struct mending {
    uint8_t *bytes; /* with zeros in the place of the sum */
    size_t size;
    uint8_t wanted[SUM];
    uint64_t left; /* bytes that may still be hashed */
};

/* The sum of all bytes, of which `before` has those in front of `at`. */
static void sum_from(const struct mending *m, const struct md5_ctx *before, size_t at,
                     uint8_t out[SUM])
{
    struct md5_ctx ctx = *before;
    md5_update(&ctx, m->size - at, m->bytes + at);
    md5_digest(&ctx, SUM, out);
}

/* Tries the bits of the block at `at`. */
static bool try_block(struct mending *m, const struct md5_ctx *before, size_t at, size_t len)
{
    uint8_t sum[SUM];

    for (size_t bit = 0; bit < 8 * len && m->left >= m->size - at; bit++) {
        uint8_t *byte = m->bytes + at + bit / 8, mask = (uint8_t)(1u << bit % 8);
        *byte ^= mask;
        sum_from(m, before, at, sum);
        if (memcmp(sum, m->wanted, SUM) == 0)
            return true;
        *byte ^= mask;
        m->left -= m->size - at;
    }
    return false;
}

/* Tries all blocks that are zeros, or all that are not. */
static bool try_all(struct mending *m, bool zeros)
{
    struct md5_ctx before;

    md5_init(&before);
    for (size_t at = 0, len; at < m->size; at += len) {
        len = m->size - at < BLOCK ? m->size - at : BLOCK;
        if (is_zero(m->bytes + at, len) == zeros && try_block(m, &before, at, len))
            return true;
        md5_update(&before, len, m->bytes + at);
    }
    return false;
}

/* Whether two sums differ in one bit. */
static bool is_near(const uint8_t a[SUM], const uint8_t b[SUM])
{
    int n = 0;
    for (unsigned i = 0; i < SUM; i++)
        n += __builtin_popcount(a[i] ^ b[i]);
    return n == 1;
}

bool vma_mend(uint8_t *bytes, size_t size, size_t md5_at, uint64_t most)
{
    struct mending m = {.bytes = bytes, .size = size, .left = most};
    uint8_t sum[SUM];
    struct md5_ctx none;

    memcpy(m.wanted, bytes + md5_at, SUM);
    memset(bytes + md5_at, 0, SUM);
    md5_init(&none);
    sum_from(&m, &none, 0, sum);
    bool found = is_near(sum, m.wanted);
    if (found)
        memcpy(m.wanted, sum, SUM);
    else if (memcmp(sum, m.wanted, SUM) != 0)
        found = try_all(&m, false) || try_all(&m, true);
    memcpy(bytes + md5_at, m.wanted, SUM);
    return found;
}
