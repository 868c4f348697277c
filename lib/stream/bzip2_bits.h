/* SPDX-License-Identifier: MIT */
/*
 * Blocks of bzip2 by their bits. A block begins at any bit with the 48 bits of BZIP2_BLOCK and its
 * checksum (32 bits); behind the last one the 48 bits of BZIP2_END and a checksum of all stand.
 * What is between two of them, with a beginning and an end put around it, is a stream of that one
 * block.
 */
#ifndef STREAM_BZIP2_BITS_H
#define STREAM_BZIP2_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BZIP2_BLOCK UINT64_C(0x314159265359)
#define BZIP2_END   UINT64_C(0x177245385090)

enum { BZIP2_PASSED = 4096, BZIP2_AROUND = 32 };

struct bzip2_bits {
    unsigned bit;    /* of the next byte of the input: those in front of it were passed */
    uint64_t window; /* the last bits that were */
    unsigned held;   /* of them, that are not in `bytes` yet: they may be a magic */
    uint64_t magic;  /* which was come upon, and ends the block; or 0 */
    uint64_t seen;   /* bits of the block */
    uint32_t sum;    /* its checksum */
    bool seeking;    /* nobody wants what is passed */

    /* The stream of the one block, as far as it was passed. */
    unsigned pending, n_pending; /* bits that are no byte yet */
    uint8_t bytes[BZIP2_PASSED + BZIP2_AROUND];
    size_t len, used;
};

/* Looks for a magic, from the bits of a byte that was taken already. */
void bzip2_bits_seek(struct bzip2_bits *b, uint8_t last);
/* The block behind the magic begins. */
void bzip2_bits_begin(struct bzip2_bits *b);
/* Passes over input, until a magic was come upon, b->bytes are full, or it ends: how many bytes are
 * not needed any more. b->bytes are filled from b->len = 0. */
size_t bzip2_bits_pass(struct bzip2_bits *b, const uint8_t *in, size_t len);

#endif
