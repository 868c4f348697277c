/* SPDX-License-Identifier: MIT */
/*
 * What stands where in a sparse file that is checked: two grains in one place, and space that
 * belongs to nobody. vmdk.md sections 4.6 and 13.
 *
 * A bit for each sector tells whether it is used. Files for which that would be too much memory are
 * looked at a window at a time, with all tables read again for each: 64 GiB take 16 MiB.
 */
#include <inttypes.h>

#include "format/vmdk/check.h"

enum {
    MOST_BITS = 16 << 23,  /* of a window, in sectors: 16 MiB */
    LEAST_BITS = 64 << 13, /* with less memory than for that there is no check: 64 KiB */
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

static int make_window(struct sparse_check *s, struct platter_error *err)
{
    uint64_t room = min_u64(round_up(file_sectors(s), 4096), MOST_BITS);
    int r = -ENOMEM;
    for (room = max_u64(room, 4096); r < 0; room /= 2) {
        r = budget_alloc(s->budget, room / 8, "what is used of a VMDK", &s->used,
                         room <= LEAST_BITS ? err : NULL);
        if (r == 0)
            s->used_room = room;
        if (room <= LEAST_BITS)
            break;
    }
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

/* What may be given back now: where something else is wrong, what seems to be nobody's may be all
 * that is left of it. */
static bool may_give_back(const struct sparse_check *s)
{
    const struct platter_check_result *r = &s->check->result;
    return s->check->mend_leaks && r->corruptions == 0 && r->check_errors == 0;
}

/* Whether the file takes no space for sectors: what nobody uses costs nothing then. */
static int is_hole(struct sparse_check *s, uint64_t from, uint64_t to, bool *ret,
                   struct platter_error *err)
{
    hoff off = from * VMDK_SECTOR, end = min_u64(to * VMDK_SECTOR, s->size);
    *ret = true;
    for (uint64_t run; off < end && *ret; off += run) {
        int r = stream_extents(s->stream, off, end - off, &run, ret, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int give_back(struct sparse_check *s, uint64_t from, uint64_t to, bool *ret_done,
                     struct platter_error *err)
{
    int r;
    *ret_done = false;
    if (to >= file_sectors(s) && !s->at_end) {
        r = stream_resize(s->stream, from * VMDK_SECTOR, err);
        if (r == 0) {
            s->size = from * VMDK_SECTOR;
            *ret_done = true;
        }
        return r;
    }
    if (s->at_end)
        return 0; /* zeros in front of the end would be its end: section 5.6 */
    if (s->packed) {
        *ret_done = true; /* zeros between records are taken for nothing: section 5.5 */
        return stream_zero(s->stream, from * VMDK_SECTOR, (to - from) * VMDK_SECTOR,
                           STREAM_ZERO_UNMAP, err);
    }
    r = stream_discard(s->stream, from * VMDK_SECTOR, (to - from) * VMDK_SECTOR, err);
    return r < 0 ? r : is_hole(s, from, to, ret_done, err);
}

/* Sectors [from, to) are nobody's: `units` of whatever is allocated at once. */
static int leaked(struct sparse_check *s, uint64_t from, uint64_t to, uint64_t units,
                  struct platter_error *err)
{
    bool hole, done = false, inner = to < file_sectors(s);
    int r = is_hole(s, from, to, &hole, err);
    if (r < 0 || hole)
        return r;
    if (may_give_back(s))
        r = give_back(s, from, to, &done, err);
    if (r == 0)
        check_found(s->check, PLATTER_FINDING_LEAK, done, units,
                    "%s: sectors %" PRIu64 " to %" PRIu64 " belong to nobody%s", s->name, from,
                    to - 1,
                    done                            ? "; they were given back"
                    : s->check->mend_leaks && inner ? "; converting the image gets them back"
                                                    : "");
    return r;
}

/* Grains of a file that is not compressed. The window begins at a grain. */
static int find_leaks(struct sparse_check *s, struct platter_error *err)
{
    uint64_t gs = s->h.grain_size, end = min_u64(s->used_from + s->used_len, file_sectors(s));
    uint64_t at = max_u64(div_up(s->used_from, gs), div_up(s->h.overhead, gs)) * gs;
    int r = 0;
    for (uint64_t to; at < end && r == 0; at = to + gs) {
        for (to = at; to < end && is_unused(s, to, min_u64(to + gs, end));)
            to += gs;
        if (to > at)
            r = leaked(s, at, min_u64(to, end), (to - at) / gs, err);
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
    bool again = size != s->size || s->used_room < file_sectors(s);
    if (r == 0 && !s->rebuild && !s->se)
        r = find_all_leaks(s, again, err);
    if (r == 0 && s->check->mend_leaks)
        r = stream_flush(s->stream, err);
    return r;
}
