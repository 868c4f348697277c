/* SPDX-License-Identifier: MIT */
/*
 * Reads that go on in a row, recognised. Several threads read one file side by side, each a piece
 * further on than the one before, so a read may come a little early or late; tables are read in
 * between, so there are several streaks; and what only looks at a few places of a file, as info
 * does, is none: of what lies between its ends a streak must have read a part.
 */
#include <string.h>

#include "base/ckd.h"
#include "stream/cached_inside.h"

enum {
    SLACK = 2 << 20,     /* a read may be so far from where the last one ended */
    ENOUGH = 128 << 10,  /* read in a row, it is a streak, */
    TOUCHED = 512 << 10, /* ... or if so much came because a little of it was wanted, */
    SPARSE = 4,          /* ... if it is a fourth of what it went over */
    FIRST_WINDOW = 512 << 10
};

static bool belongs(const struct streak *k, hoff off, hoff end)
{
    hoff top = max_u64(k->high, k->ahead), low = k->high > SLACK ? k->high - SLACK : 0;
    return k->used > 0 && end >= max_u64(low, k->start) && off <= top + SLACK;
}

static struct streak *find(struct streaks *s, hoff off, hoff end)
{
    struct streak *oldest = &s->all[0];
    for (unsigned i = 0; i < STREAKS; i++) {
        if (belongs(&s->all[i], off, end))
            return &s->all[i];
        if (s->all[i].used < oldest->used)
            oldest = &s->all[i];
    }
    *oldest = (struct streak){.start = off, .high = off};
    return oldest;
}

/* It is still read ahead where half of the window was used; then the next one is twice as large. */
static bool move_on(struct streak *k, uint64_t most, hoff *ret_from, hoff *ret_to)
{
    if (k->window > 0 && k->ahead > k->high + k->window / 2)
        return false;
    k->window = k->window ? min_u64(2 * k->window, most) : FIRST_WINDOW;
    *ret_from = max_u64(k->ahead, k->high);
    *ret_to = k->ahead = k->high + k->window;
    return *ret_to > *ret_from;
}

/* What a read that comes further than the ones before brings for the first time. */
static uint64_t newly_touched(const struct streak *k, hoff off, hoff end)
{
    uint64_t first = max_u64(off / CACHED_BLOCK, div_up(k->high, CACHED_BLOCK));
    uint64_t last = div_up(end, CACHED_BLOCK);
    return last > first ? (last - first) * CACHED_BLOCK : 0;
}

bool streaks_note(struct streaks *s, hoff off, uint64_t len, hoff *ret_from, hoff *ret_to)
{
    hoff end = off + len;
    struct streak *k = find(s, off, end);
    k->used = ++s->reads;
    k->bytes += len;
    if (end <= k->high)
        return false;
    uint64_t touched = newly_touched(k, off, end), least;
    k->touched += touched;
    k->high = end;
    least = (k->high - k->start) / SPARSE;
    if (k->bytes < ENOUGH && k->touched < TOUCHED)
        return false;
    if ((k->bytes >= ENOUGH && k->bytes >= least) || (k->touched >= TOUCHED && k->touched >= least))
        return move_on(k, s->most, ret_from, ret_to);
    *k = (struct streak){
        .start = off, .high = end, .bytes = len, .touched = touched, .used = k->used};
    return false;
}
