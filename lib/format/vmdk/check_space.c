/* SPDX-License-Identifier: MIT */
/*
 * What stands where in a sparse file that is checked: two grains in one place, and space that
 * belongs to nobody. vmdk.md sections 4.6 and 13.
 *
 * A bit for each sector tells whether it is used. Files for which that would be too much memory are
 * looked at a window at a time, with all tables read again for each: 16 MiB are enough for 64 GiB.
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

/* Whether bits [from, to) are all clear. */
static bool are_clear(const uint64_t *words, uint64_t from, uint64_t to)
{
    for (; from < to; from = round_down(from, WORD) + WORD) {
        uint64_t bit = from % WORD, n = min_u64(WORD - bit, to - from);
        uint64_t mask = (n == WORD ? UINT64_MAX : (UINT64_C(1) << n) - 1) << bit;
        if (words[from / WORD] & mask)
            return false;
    }
    return true;
}

bool check_use(struct sparse_check *s, uint64_t sector, uint64_t n)
{
    s->end = max_u64(s->end, sector + n);
    uint64_t from = max_u64(sector, s->used_from);
    uint64_t to = min_u64(sector + n, s->used_from + s->used_len);
    return from < to && set_bits(s->used, from - s->used_from, to - s->used_from);
}

/* ---- windows --------------------------------------------------------------------------------- */

/* A quarter of the memory there is, or less. */
static int make_window(struct sparse_check *s, struct platter_error *err)
{
    uint64_t room = min_u64(budget_limit(s->budget) / 4 * 8, MOST_BITS);
    room = round_up(min_u64(room, file_sectors(s)), 4096);
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
    memset(s->used, 0, (size_t)(s->used_room / 8));
    for (uint32_t i = 0; i < s->n_meta; i++)
        check_use(s, s->meta[i].start, s->meta[i].len);
    return s->se ? check_se_tables(s, pass, err) : check_tables(s, pass, err);
}

/* ---- space of nobody ------------------------------------------------------------------------- */

static bool is_unused(const struct sparse_check *s, uint64_t from, uint64_t to)
{
    return are_clear(s->used, from - s->used_from, to - s->used_from);
}

/* What may be given back now: where something else is wrong, or the size of grains seems to be,
 * what seems to be nobody's may be all that is left of it. */
static bool may_give_back(const struct sparse_check *s)
{
    const struct platter_check_result *r = &s->check->result;
    bool twice_as_large = !s->packed && s->placed > 2 && !s->odd;
    return s->check->mend_leaks && !s->keep && !twice_as_large && r->corruptions == 0 &&
           r->check_errors == 0;
}

/* The first sectors [*ret_from, *ret_to) of [from, to) that the file takes space for, rounded to
 * units as they are counted from `from`; none: both are `to`. Space that nobody uses costs nothing
 * where the file has a hole. */
static int find_data(struct sparse_check *s, uint64_t from, uint64_t to, uint64_t unit,
                     uint64_t *ret_from, uint64_t *ret_to, struct platter_error *err)
{
    hoff start = from * VMDK_SECTOR, off = start, end = min_u64(to * VMDK_SECTOR, s->size);
    uint64_t run, step = unit * VMDK_SECTOR;
    bool hole = true;
    int r = 0;
    *ret_from = *ret_to = to;
    for (; off < end && hole; off += hole ? run : 0)
        if ((r = stream_extents(s->stream, off, end - off, &run, &hole, err)) < 0)
            return r;
    if (hole || off >= end)
        return 0;
    *ret_from = from + (off - start) / step * unit;
    *ret_to = min_u64(from + div_up(off + run - start, step) * unit, to);
    return 0;
}

static int is_hole(struct sparse_check *s, uint64_t from, uint64_t to, bool *ret,
                   struct platter_error *err)
{
    uint64_t data, end;
    int r = find_data(s, from, to, 1, &data, &end, err);
    *ret = data == to;
    return r;
}

/* Everything from a sector to the end of the file. */
static int cut_off(struct sparse_check *s, uint64_t from, struct platter_error *err)
{
    int r = stream_resize(s->stream, from * VMDK_SECTOR, err);
    if (r == 0)
        s->size = from * VMDK_SECTOR;
    return r;
}

static int give_back(struct sparse_check *s, uint64_t from, uint64_t to, bool *ret_done,
                     struct platter_error *err)
{
    *ret_done = false;
    if (s->at_end)
        return 0; /* zeros in front of the end would be its end: section 5.6 */
    hoff off = from * VMDK_SECTOR;
    uint64_t len = (to - from) * VMDK_SECTOR;
    if (s->packed) {
        *ret_done = true; /* zeros between records are taken for nothing: section 5.5 */
        return stream_zero(s->stream, off, len, STREAM_ZERO_UNMAP, err);
    }
    int r = stream_discard(s->stream, off, len, err);
    return r < 0 ? r : is_hole(s, from, to, ret_done, err);
}

static void report_leak(struct sparse_check *s, uint64_t from, uint64_t to, uint64_t units,
                        bool done)
{
    check_found(s->check, PLATTER_FINDING_LEAK, done, units,
                "%s: sectors %" PRIu64 " to %" PRIu64 " belong to nobody%s", s->name, from, to - 1,
                done               ? "; they were given back"
                : may_give_back(s) ? "; converting the image gets them back"
                                   : "");
}

/* Sectors [from, to) are nobody's, `units` of whatever is counted. */
static int leaked(struct sparse_check *s, uint64_t from, uint64_t to, uint64_t units,
                  struct platter_error *err)
{
    bool done = false, tail = to >= file_sectors(s) && !s->at_end;
    int r = 0;
    if (may_give_back(s) && tail) {
        r = cut_off(s, from, err);
        done = true;
    } else if (may_give_back(s)) {
        r = give_back(s, from, to, &done, err);
    }
    if (r == 0)
        report_leak(s, from, to, units, done);
    return r;
}

/* The same for units of `unit` sectors, of which only those count that the file has space for. */
static int leaked_units(struct sparse_check *s, uint64_t from, uint64_t to, uint64_t unit,
                        struct platter_error *err)
{
    bool cut = may_give_back(s) && to >= file_sectors(s);
    uint64_t units = 0, a, b;
    int r = 0;
    for (uint64_t at = from; at < to && r == 0; at = b) {
        r = find_data(s, at, to, unit, &a, &b, err);
        units += div_up(b - a, unit);
        if (r == 0 && b > a && !cut)
            r = leaked(s, a, b, div_up(b - a, unit), err);
    }
    return r == 0 && cut && units > 0 ? leaked(s, from, to, units, err) : r;
}

/* Grains of a file that is not compressed. */
static int find_leaks(struct sparse_check *s, struct platter_error *err)
{
    uint64_t gs = s->h.grain_size, end = min_u64(s->used_from + s->used_len, file_sectors(s));
    uint64_t at = max_u64(div_up(s->used_from, gs), div_up(s->h.overhead, gs)) * gs;
    if (end < file_sectors(s))
        end = end / gs * gs; /* of a grain that two windows share neither knows enough */
    int r = 0;
    for (uint64_t to; at < end && r == 0; at = to + gs) {
        for (to = at; to < end && is_unused(s, to, min_u64(to + gs, end));)
            to += gs;
        if (to > at)
            r = leaked_units(s, at, min_u64(to, end), gs, err);
    }
    return r;
}

/* Records of a compressed file: what stands in front of a table, and zeros, are no loss. */
static int find_stray_records(struct sparse_check *s, struct platter_error *err)
{
    uint64_t end = min_u64(s->used_from + s->used_len, s->size / VMDK_SECTOR);
    uint64_t at = max_u64(s->used_from, s->h.overhead), n;
    int r = 0;
    for (uint64_t to; at < end && r == 0; at = to + 1) {
        for (to = at; to < end && is_unused(s, to, to + 1);)
            to++;
        for (; at < to && r == 0; at += n) {
            enum stray stray;
            r = check_stray(s, at, to - at, &stray, &n, err);
            if (r == 0 && stray == STRAY_LEAK)
                r = leaked(s, at, at + n, 1, err);
        }
    }
    return r;
}

static int find_all_leaks(struct sparse_check *s, bool again, struct platter_error *err)
{
    int r = 0;
    for (uint64_t from = 0; from < file_sectors(s) && r == 0; from += s->used_room) {
        if (again)
            r = fill_window(s, from, PASS_MARK, err);
        if (r == 0)
            r = s->packed ? find_stray_records(s, err) : find_leaks(s, err);
    }
    return r;
}

int check_space(struct sparse_check *s, struct platter_error *err)
{
    int r = make_window(s, err);
    if (r < 0)
        return r;
    uint64_t size = s->size;
    for (uint64_t from = 0; from < file_sectors(s) && r == 0; from += s->used_room)
        r = fill_window(s, from, from ? PASS_PLACE : PASS_JUDGE, err);
    if (r == 0 && s->check->mend_leaks)
        r = stream_flush(s->stream, err);
    if (r == 0)
        r = check_overhead(s, err);
    bool again = size != s->size || s->used_room < file_sectors(s);
    if (r == 0 && !s->rebuild && !s->se)
        r = find_all_leaks(s, again, err);
    if (r == 0 && s->check->mend_leaks)
        r = stream_flush(s->stream, err);
    return r;
}
