/* SPDX-License-Identifier: MIT */
/* A set of hashes: seen.h. */
#include "support/seen.h"

#include <stdlib.h>
#include <string.h>

#include "support/must.h"

/* Sanitizers would take most of the time here. */
__attribute__((no_sanitize("address", "undefined"))) uint64_t seen_hash(const uint8_t *bytes,
                                                                        uint64_t size,
                                                                        uint64_t seed)
{
    enum { LANES = 8 };
    uint64_t lanes[LANES] = {0, 1, 2, 3, 4, 5, 6, 7}, words[LANES];
    uint64_t hash = seed * UINT64_C(0xa0761d6478bd642f) + size;
    uint64_t whole = size - size % sizeof words;
    uint8_t rest[sizeof words] = {0};
    if (size > whole)
        memcpy(rest, bytes + whole, size - whole);
    for (uint64_t at = 0; at <= whole; at += sizeof words) {
        memcpy(words, at < whole ? bytes + at : rest, sizeof words);
        for (unsigned i = 0; i < LANES; i++) {
            lanes[i] = (lanes[i] ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15);
            lanes[i] ^= lanes[i] >> 29;
        }
    }
    for (unsigned i = 0; i < LANES; i++) {
        hash = (hash ^ lanes[i]) * UINT64_C(0xd6e8feb86659fd93);
        hash ^= hash >> 32;
    }
    return hash ? hash : 1;
}

static uint64_t *place_of(uint64_t *hashes, size_t room, uint64_t hash)
{
    size_t i = hash & (room - 1);
    while (hashes[i] && hashes[i] != hash)
        i = (i + 1) & (room - 1);
    return &hashes[i];
}

static void grow(struct seen *s)
{
    size_t room = s->room ? 2 * s->room : 1024;
    uint64_t *more = calloc(room, sizeof *more);
    MUST(more);
    for (size_t i = 0; i < s->room; i++)
        if (s->hashes[i])
            *place_of(more, room, s->hashes[i]) = s->hashes[i];
    free(s->hashes);
    s->hashes = more;
    s->room = room;
}

bool seen_add(struct seen *s, uint64_t hash)
{
    if (2 * s->n >= s->room)
        grow(s);
    uint64_t *place = place_of(s->hashes, s->room, hash);
    if (*place == hash)
        return false;
    *place = hash;
    s->n++;
    return true;
}

void seen_free(struct seen *s)
{
    free(s->hashes);
    *s = (struct seen){0};
}
