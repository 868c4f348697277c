/* SPDX-License-Identifier: MIT */
/* Blocks of bzip2 by their bits: bzip2_bits.h. */
#include <string.h>

#include "stream/bzip2_bits.h"

enum { MAGIC = 48, SUM = 32 };

static const uint64_t magic_mask = (UINT64_C(1) << MAGIC) - 1;

static void put_bits(struct bzip2_bits *b, uint64_t value, unsigned n)
{
    while (n--) {
        b->pending = b->pending << 1 | (unsigned)(value >> n & 1);
        if (++b->n_pending == 8) {
            b->bytes[b->len++] = (uint8_t)b->pending;
            b->pending = b->n_pending = 0;
        }
    }
}

void bzip2_bits_seek(struct bzip2_bits *b, uint8_t last)
{
    *b = (struct bzip2_bits){.window = last, .held = 8, .seeking = true};
}

void bzip2_bits_begin(struct bzip2_bits *b)
{
    b->seeking = false;
    b->held = b->pending = b->n_pending = 0;
    b->magic = b->seen = b->sum = 0;
    b->len = b->used = 0;
    memcpy(b->bytes, "BZh9", 4); /* whatever its level: that is the most */
    b->len = 4;
    put_bits(b, BZIP2_BLOCK, MAGIC);
}

/* The magic is no part of the block; the end of a stream comes in its place. Of the one block in it
 * the checksum of all is that of the block. */
static void end_block(struct bzip2_bits *b)
{
    b->held = 0;
    if (b->seeking)
        return;
    put_bits(b, BZIP2_END, MAGIC);
    put_bits(b, b->sum, SUM);
    put_bits(b, 0, (8 - b->n_pending) % 8);
}

static void pass_bit(struct bzip2_bits *b, unsigned bit)
{
    b->window = b->window << 1 | bit;
    if (b->seen++ < SUM)
        b->sum = b->sum << 1 | bit;
    if (b->held < MAGIC)
        b->held++;
    else if (!b->seeking)
        put_bits(b, b->window >> MAGIC, 1);
    uint64_t last = b->window & magic_mask;
    if (b->held == MAGIC && (last == BZIP2_BLOCK || last == BZIP2_END)) {
        b->magic = last;
        end_block(b);
    }
}

size_t bzip2_bits_pass(struct bzip2_bits *b, const uint8_t *in, size_t len)
{
    size_t i = 0;
    if (!b->magic)
        b->len = b->used = 0;
    while (i < len && !b->magic && b->len < BZIP2_PASSED) {
        pass_bit(b, in[i] >> (7 - b->bit) & 1);
        b->bit = (b->bit + 1) % 8;
        i += b->bit == 0;
    }
    return i;
}
