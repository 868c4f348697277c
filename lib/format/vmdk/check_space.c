/* SPDX-License-Identifier: MIT */
/*
 * What stands where in a sparse file that is checked: two grains in one place, and space that
 * belongs to nobody. vmdk.md sections 4.6 and 13.
 *
 * A bit for each sector tells whether it is used. Files for which that would be too much memory are
 * looked at a window at a time, with all tables read again for each that has anything in it: 16 MiB
 * are enough for 64 GiB. Between windows nothing is used, however large the file is.
 *
 * Space of nobody costs nothing where the file has a hole, nor where it shares a block of the file
 * system with something else: such edges cannot be given back. They are made zeros, and count while
 * they are not.
 */
#include <inttypes.h>

#include "format/vmdk/check.h"

enum {
    MOST_BITS = 16 << 23, /* of a window, in sectors: 16 MiB */
    LEAST_BITS = 4096,
    WORD = 64
};

/* ---- bits ------------------------------------------------------------------------------------ */

/* Sets bits [from, to); true if one was set. */
static bool set_bits(uint64_t *words, uint64_t from, uint64_t to)
{
    bool was = false;
    while (from < to) {
        uint64_t bit = from % WORD, n = min_u64(WORD - bit, to - from);
        uint64_t mask = (n == WORD ? UINT64_MAX : (UINT64_C(1) << n) - 1) << bit;
        was |= (words[from / WORD] & mask) != 0;
        words[from / WORD] |= mask;
        from += n;
    }
    return was;
}

/* The first bit of [from, to) that is set, or clear; `to`: there is none. */
static uint64_t find_bit(const uint64_t *words, uint64_t from, uint64_t to, bool set)
{
    while (from < to) {
        uint64_t word = (set ? words[from / WORD] : ~words[from / WORD]) >> from % WORD;
        if (word)
            return min_u64(from + (unsigned)__builtin_ctzll(word), to);
        from = round_down(from, WORD) + WORD;
    }
    return to;
}

bool check_use(struct sparse_check *s, uint64_t sector, uint64_t n)
{
    uint64_t end = s->used_from + s->used_len;
    s->end = max_u64(s->end, sector + n);
    if (sector + n > end)
        s->next = min_u64(s->next, max_u64(sector, end));
    uint64_t from = max_u64(sector, s->used_from), to = min_u64(sector + n, end);
    return from < to && set_bits(s->used, from - s->used_from, to - s->used_from);
}

/* ---- windows --------------------------------------------------------------------------------- */

/* A quarter of the memory there is, or less. */
static int make_window(struct sparse_check *s, struct platter_error *err)
{
    uint64_t room = min_u64(budget_limit(s->budget) / 4 * 8, MOST_BITS);
    room = round_up(min_u64(room, file_sectors(s)), LEAST_BITS);
    int r = -ENOMEM;
    for (; r < 0 && room >= LEAST_BITS; room /= 2)
        if ((r = budget_alloc(s->budget, room / 8, "what is used of a VMDK", &s->used, err)) == 0)
            s->used_room = room;
    return r;
}

/* Moves the window, and fills it with what all entries name. */
static int fill_window(struct sparse_check *s, uint64_t from, enum pass pass,
                       struct platter_error *err)
{
    s->used_from = from;
    s->used_len = s->used_room;
    s->next = UINT64_MAX;
    memset(s->used, 0, (size_t)(s->used_room / 8));
    for (uint32_t i = 0; i < s->n_meta; i++)
        check_use(s, s->meta[i].start, s->meta[i].len);
    return check_tables(s, pass, err);
}

/* The same for the next window that has anything in it. False: there is none. */
static bool next_window(struct sparse_check *s, uint64_t *from)
{
    *from = round_down(s->next, LEAST_BITS);
    return s->next != UINT64_MAX;
}

/* ---- space of nobody ------------------------------------------------------------------------- */

/* Whether the tables may not be what they are taken for: grains seem to be twice as large, or the
 * only directory leads to none, or is not where all writers have it (section 6). */
static bool is_doubtful(const struct sparse_check *s)
{
    bool twice_as_large = !s->packed && s->placed > 2 && !s->odd;
    bool empty = s->copies == 1 && s->placed == 0 && !s->packed;
    return s->keep || twice_as_large || empty || (s->cowd && s->h.gd_offset != COWD_HEADER_SECTORS);
}

/* What may be given back now: where something else is or may be wrong, what seems to be nobody's
 * may be all that is left of it; or of what an entry led to that this repair dropped. */
static bool may_give_back(const struct sparse_check *s)
{
    const struct platter_check_result *r = &s->check->result;
    return s->check->mend_leaks && !is_doubtful(s) && !s->dropped && r->corruptions == 0 &&
           r->check_errors == 0;
}

/* Sectors [from, to) that no entry names. */
struct gap {
    uint64_t from, to;
    uint64_t first, last; /* [first, last) are whole blocks of the file system */
    bool tail;            /* it ends with the file */
};

static struct gap gap_of(const struct sparse_check *s, uint64_t from, uint64_t to)
{
    uint64_t block = stream_block_size(s->stream) / VMDK_SECTOR;
    struct gap g = {.from = from, .to = to, .tail = to >= file_sectors(s)};
    g.first = g.tail ? from : round_up(from, block);
    g.last = g.tail ? to : round_down(to, block);
    if (g.first >= g.last)
        g.first = g.last = to;
    return g;
}

/* The first sectors [*ret_from, *ret_to) of [from, to) that the file takes space for; none: both
 * are `to`. */
static int find_data(struct sparse_check *s, uint64_t from, uint64_t to, uint64_t *ret_from,
                     uint64_t *ret_to, struct platter_error *err)
{
    hoff off = from * VMDK_SECTOR, end = min_u64(to * VMDK_SECTOR, s->size);
    uint64_t run;
    bool hole = true;
    int r = 0;
    *ret_from = *ret_to = to;
    for (; off < end && hole; off += hole ? run : 0)
        if ((r = stream_extents(s->stream, off, end - off, &run, &hole, err)) < 0)
            return r;
    if (hole || off >= end)
        return 0;
    *ret_from = off / VMDK_SECTOR;
    *ret_to = div_up(off + run, VMDK_SECTOR);
    return 0;
}

/* The first sectors of a gap from `at` on that are a waste of space; none: both are its end. */
static int find_waste(struct sparse_check *s, const struct gap *g, uint64_t at, uint64_t *ret_from,
                      uint64_t *ret_to, struct platter_error *err)
{
    for (;; at = *ret_to) {
        uint64_t zeros;
        int r = find_data(s, at, g->to, ret_from, ret_to, err);
        if (r < 0 || *ret_from == g->to)
            return r;
        if (*ret_from >= g->first && *ret_from < g->last) {
            *ret_to = min_u64(*ret_to, g->last);
            return 0;
        }
        if (*ret_from < g->first)
            *ret_to = min_u64(*ret_to, g->first);
        r = check_zero_run(s, *ret_from, *ret_to - *ret_from, &zeros, err);
        if (r < 0 || zeros < *ret_to - *ret_from)
            return r;
    }
}

/* Everything from a sector to the end of the file. */
static int cut_off(struct sparse_check *s, uint64_t from, struct platter_error *err)
{
    int r = stream_resize(s->stream, from * VMDK_SECTOR, err);
    if (r == 0)
        s->size = from * VMDK_SECTOR;
    return r;
}

static int give_back(struct sparse_check *s, const struct gap *g, bool *ret_done,
                     struct platter_error *err)
{
    *ret_done = false;
    if (s->at_end)
        return 0; /* zeros in front of the end would be its end: section 5.6 */
    hoff off = g->from * VMDK_SECTOR;
    uint64_t len = (g->to - g->from) * VMDK_SECTOR, from, to;
    if (s->packed) {
        *ret_done = true; /* zeros between records are taken for nothing: section 5.5 */
        return stream_zero(s->stream, off, len, STREAM_ZERO_UNMAP, err);
    }
    int r = stream_discard(s->stream, off, len, err);
    if (r == 0)
        r = find_waste(s, g, g->from, &from, &to, err);
    *ret_done = r == 0 && from == to;
    return r;
}

/* What becomes of space that is nobody's, for people. */
static const char *fate(const struct sparse_check *s, bool done)
{
    if (done)
        return "; they were given back";
    if (may_give_back(s))
        return s->at_end ? "; converting the image gets them back"
                         : "; the file system does not take them back: converting the image does";
    if (s->check->mend_leaks && is_doubtful(s))
        return "; they are kept, as it may be the header or the grain directory that is wrong";
    if (s->dropped)
        return "; they are kept, as what led to them may have been dropped just now: if nothing is "
               "missing, -r leaks gives them back";
    return "";
}

/* Sectors of nobody, `units` of whatever is counted. */
static int leaked(struct sparse_check *s, uint64_t from, uint64_t to, uint64_t units,
                  struct platter_error *err)
{
    struct gap g = gap_of(s, from, to);
    bool done = false;
    int r = 0;
    if (may_give_back(s) && g.tail && !s->at_end) {
        r = cut_off(s, from, err);
        done = true;
    } else if (may_give_back(s)) {
        r = give_back(s, &g, &done, err);
    }
    if (r == 0)
        check_found(s->check, PLATTER_FINDING_LEAK, done, units,
                    "%s: sectors %" PRIu64 " to %" PRIu64 " belong to nobody%s", s->name, from,
                    to - 1, fate(s, done));
    return r;
}

/* The grains of a gap that has room for some: those that take space, but for what is to be cut off,
 * which goes as a whole. */
static int leaked_grains(struct sparse_check *s, const struct gap *g, struct platter_error *err)
{
    uint64_t gs = s->h.grain_size, units = 0, from = g->from, to = from, a, b;
    bool cut = may_give_back(s) && g->tail;
    int r = 0;
    for (uint64_t at = g->from; at < g->to && r == 0; at = to) {
        r = find_waste(s, g, at, &a, &b, err);
        if (r < 0 || a == b)
            break;
        a = g->from + (a - g->from) / gs * gs;
        b = min_u64(g->from + div_up(b - g->from, gs) * gs, g->to);
        if (a > to && !cut && units > 0) {
            r = leaked(s, from, to, units, err);
            units = 0;
        }
        from = units == 0 ? a : from;
        units += div_up(b - a, gs);
        to = b;
    }
    if (r == 0 && units > 0)
        r = leaked(s, cut ? g->from : from, cut ? g->to : to, units, err);
    return r;
}

/* ---- gaps ------------------------------------------------------------------------------------ */

/* Grains of a file that is not compressed: where they would be aligned like all others, or anywhere
 * if there is no other room. What is less is padding, but for the end of the file. */
static int judge_gap(struct sparse_check *s, uint64_t from, uint64_t to, struct platter_error *err)
{
    uint64_t gs = s->h.grain_size, phase = s->first_grain % gs;
    uint64_t first = from <= phase ? phase : phase + div_up(from - phase, gs) * gs;
    bool tail = to >= file_sectors(s);
    if (!tail && first + gs > to)
        first = from;
    if (first >= to || (!tail && first + gs > to))
        return 0;
    struct gap g = gap_of(s, first, tail ? to : first + (to - first) / gs * gs);
    return leaked_grains(s, &g, err);
}

/* Records of a compressed file: what stands in front of a table, and zeros, are no loss. */
static int judge_packed_gap(struct sparse_check *s, uint64_t from, uint64_t to,
                            struct platter_error *err)
{
    int r = 0;
    for (uint64_t n; from < to && r == 0; from += n) {
        enum stray stray;
        r = check_stray(s, from, to - from, &stray, &n, err);
        if (r == 0 && stray == STRAY_LEAK)
            r = leaked(s, from, from + n, 1, err);
    }
    return r;
}

/* The gaps of a window, from `at` on, which is left where the last of them begins: it may reach
 * into the next. */
static int judge_window(struct sparse_check *s, uint64_t end, uint64_t *at,
                        struct platter_error *err)
{
    int r = 0;
    while (*at < s->used_from + s->used_len && r == 0) {
        uint64_t from = max_u64(*at, s->used_from) - s->used_from;
        uint64_t used = s->used_from + find_bit(s->used, from, s->used_len, true);
        if (used >= min_u64(s->used_from + s->used_len, end))
            break;
        if (used > *at)
            r = s->packed ? judge_packed_gap(s, *at, used, err) : judge_gap(s, *at, used, err);
        *at = s->used_from + find_bit(s->used, used - s->used_from, s->used_len, false);
    }
    return r;
}

/* `again`: the window is not what it was, or not at the front. */
static int find_leaks(struct sparse_check *s, bool again, struct platter_error *err)
{
    uint64_t end = s->packed ? s->size / VMDK_SECTOR : file_sectors(s);
    uint64_t at = s->h.overhead, from = 0;
    int r = 0;
    do {
        if (again)
            r = fill_window(s, from, PASS_MARK, err);
        if (r == 0)
            r = judge_window(s, end, &at, err);
    } while (r == 0 && next_window(s, &from));
    if (r == 0 && at < end)
        r = s->packed ? judge_packed_gap(s, at, end, err) : judge_gap(s, at, end, err);
    return r;
}

int check_space(struct sparse_check *s, struct platter_error *err)
{
    int r = make_window(s, err);
    if (r < 0)
        return r;
    uint64_t size = s->size, from = 0;
    r = fill_window(s, 0, PASS_JUDGE, err);
    bool again = s->next != UINT64_MAX;
    while (r == 0 && next_window(s, &from))
        r = fill_window(s, from, PASS_PLACE, err);
    if (r == 0 && s->check->mend_leaks)
        r = stream_flush(s->stream, err);
    if (r == 0)
        r = check_overhead(s, err);
    if (r == 0 && !s->rebuild)
        r = find_leaks(s, again || size != s->size, err);
    if (r == 0 && s->check->mend_leaks)
        r = stream_flush(s->stream, err);
    return r;
}
