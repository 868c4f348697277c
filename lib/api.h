/* SPDX-License-Identifier: MIT */
/* What the functions of the public surface have in common: looking at their arguments. */
#ifndef API_H
#define API_H

#include <stdint.h>
#include <string.h>

#include "base/ckd.h"
#include "base/error.h"

enum { MAX_GROWTH = 4096 /* a structure longer than ours by more than this is garbage */ };

/* Makes own, zeroed by the caller, a copy of what is given (or nothing). `size` is the first member
 * of all structures. What an older header had no field for is zero; what a newer one has is refused
 * unless it is zero: it must not be left undone in silence. */
static inline int complete(void *own, size_t own_size, const void *given, struct platter_error *err)
{
    const uint8_t *bytes = given;
    size_t size = own_size;
    if (given)
        memcpy(&size, given, sizeof size);
    if (size < sizeof size || size > own_size + MAX_GROWTH)
        return fail(err, EINVAL, "a structure of options must have its size in the field `size`");
    for (size_t i = own_size; i < size; i++)
        if (bytes[i] != 0)
            return fail(err, EINVAL, "an option is asked for that this version does not know");
    if (given)
        memcpy(own, given, min_u64(size, own_size));
    memcpy(own, &own_size, sizeof own_size);
    return 0;
}

static inline int check_flags(unsigned flags, unsigned known, const char *what,
                              struct platter_error *err)
{
    if (flags & ~known)
        return fail(err, EINVAL, "%s was given unknown flags 0x%x", what, flags & ~known);
    return 0;
}

static inline int need(const void *pointer, const char *what, struct platter_error *err)
{
    return pointer ? 0 : fail(err, EINVAL, "%s must be given", what);
}

/* What is filled in for the caller has room for what every version knows. */
static inline int check_room(size_t size, size_t least, struct platter_error *err)
{
    if (size < least)
        return fail(err, EINVAL, "a structure to be filled must have its size in the field `size`");
    return 0;
}

#endif
