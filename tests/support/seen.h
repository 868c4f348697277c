/* SPDX-License-Identifier: MIT */
/*
 * What was judged need not be judged again: many crashes, and many faults, leave the same bytes. A
 * judgement that depends on more than the bytes names that by the seed of their hash.
 */
#ifndef SUPPORT_SEEN_H
#define SUPPORT_SEEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A number for some bytes and their seed. */
uint64_t seen_hash(const uint8_t *bytes, uint64_t size, uint64_t seed);

/* Hashes that were met; {0} at first. For one thread. */
struct seen {
    uint64_t *hashes; /* an open hash table; 0: free */
    size_t n, room;
};

/* Adds a hash: true the first time. */
bool seen_add(struct seen *s, uint64_t hash);
void seen_free(struct seen *s);

#endif
