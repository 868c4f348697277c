/* SPDX-License-Identifier: MIT */
#include "format/vma/resync.h"

#include <string.h>

enum { UUID_AT = 8, CANDIDATES = 16 };

size_t vma_find_extent(const uint8_t *bytes, size_t len, const uint8_t *uuid)
{
    const uint8_t *p = bytes, *end = bytes + len;

    while ((size_t)(end - p) >= VMA_EXTENT) {
        /* Only the magic is looked for where a whole header has room. */
        p = memmem(p, (size_t)(end - p) - VMA_EXTENT + 4, "VMAE", 4);
        if (!p)
            break;
        if (vma_extent_probe(p, uuid ? uuid : p + UUID_AT))
            return (size_t)(p - bytes);
        p++;
    }
    return len;
}

bool vma_was_extent(const uint8_t *bytes, size_t len, const uint8_t *uuid)
{
    return len >= 4 &&
           (memcmp(bytes, "VMAE", 4) == 0 ||
            (len >= UUID_AT + VMA_UUID && memcmp(bytes + UUID_AT, uuid, VMA_UUID) == 0));
}

/* ---- votes -------------------------------------------------------------------------------------
 */

struct candidate {
    const uint8_t *uuid;
    unsigned votes;
};

static void vote(struct candidate list[CANDIDATES], const uint8_t *uuid, unsigned votes)
{
    for (unsigned i = 0; i < CANDIDATES; i++) {
        if (list[i].uuid && memcmp(list[i].uuid, uuid, VMA_UUID) != 0)
            continue;
        list[i].uuid = uuid;
        list[i].votes += votes;
        return;
    }
}

/* Whether an extent of the same archive follows the one at `at`: *ret_next. An archive on a disk of
 * another one is in pieces, between which there are headers of the other. */
static bool is_followed(const uint8_t *bytes, size_t len, size_t at, size_t *ret_next)
{
    struct vma_extent e;
    vma_extent_slots(bytes + at, &e);
    *ret_next = at + VMA_EXTENT + e.blocks * (size_t)VMA_BLOCK;
    return *ret_next < len && len - *ret_next >= VMA_EXTENT &&
           vma_extent_probe(bytes + *ret_next, bytes + at + UUID_AT);
}

const uint8_t *vma_vote_uuid(const uint8_t *bytes, size_t len, const uint8_t *likely)
{
    struct candidate list[CANDIDATES] = {0};
    const struct candidate *best = list;
    size_t next;

    if (likely && vma_find_extent(bytes, len, likely) < len)
        return likely;
    for (size_t at = 0; at < len; at = next) {
        at += vma_find_extent(bytes + at, len - at, NULL);
        if (at == len)
            break;
        bool followed = is_followed(bytes, len, at, &next);
        vote(list, bytes + at + UUID_AT, followed ? 4 : 1);
        next = followed ? next : at + 1;
    }
    for (unsigned i = 1; i < CANDIDATES && list[i].uuid; i++)
        if (list[i].votes > best->votes)
            best = &list[i];
    return best->uuid;
}
