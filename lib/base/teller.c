/* SPDX-License-Identifier: MIT */
#include "base/teller.h"

#include "base/awake.h"

int teller_tell(struct teller *t, uint64_t done, uint64_t total, struct platter_error *err)
{
    struct platter_progress now = {
        .size = sizeof now, .done = done, .total = total, .moved = t ? t->moved : 0};

    if (!t || !t->fn || (t->told_ns && now_ns() - t->told_ns < TELL_NS))
        return 0;
    t->told_ns = now_ns();
    return t->fn(t->opaque, &now) ? fail(err, ECANCELED, "cancelled") : 0;
}
