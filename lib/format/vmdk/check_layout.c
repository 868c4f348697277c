/* SPDX-License-Identifier: MIT */
/*
 * Whether grain directories are where the header says, and tables as many and as long: vmdk.md
 * sections 4.4, 4.5 and 13. Asked before an entry is judged: what the header has wrong would make
 * good entries look bad.
 */
#include <inttypes.h>

#include "format/vmdk/check.h"

const char *const check_copy_words[COPIES] = {"grain directory", "redundant grain directory"};

bool check_in_front(const struct sparse_check *s, uint64_t sector, uint64_t n)
{
    return sector > 0 && sector + n <= s->h.overhead;
}

uint64_t check_usual_place(const struct sparse_check *s, unsigned copy, uint64_t i)
{
    return s->gd_at[copy] + div_up((uint64_t)s->gd_count * 4, VMDK_SECTOR) + i * s->gt_sectors;
}

/* ---- a directory that is not where the header says ------------------------------------------- */

static uint32_t count_in_front(const struct sparse_check *s, unsigned copy)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->gd_count; i++)
        n += s->gd[copy][i] && check_in_front(s, s->gd[copy][i], s->gt_sectors);
    return n;
}

static bool overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
    return a < b + b_len && b < a + a_len;
}

/* Whether a copy with its tables, as new files have them, would stand on something else. */
static bool is_misplaced(const struct sparse_check *s, unsigned copy)
{
    const struct hosted_header *h = &s->h;
    uint64_t at = s->gd_at[copy], n = check_usual_place(s, copy, s->gd_count) - at;
    uint64_t other = s->gd_at[!copy], gd = check_usual_place(s, copy, 0) - at;
    if (!check_in_front(s, at, n) || overlap(at, n, other, gd) ||
        overlap(at, n, h->descriptor_offset, h->descriptor_size))
        return true;
    for (uint32_t i = 0; i < s->gd_count; i++)
        if (s->gd[!copy][i] && overlap(at, n, s->gd[!copy][i], s->gt_sectors))
            return true;
    return false;
}

/* Goes on without a copy, in the header as well: nothing may be written to where it was thought to
 * stand. */
static int drop_copy(struct sparse_check *s, unsigned copy, struct platter_error *err)
{
    uint64_t was = s->gd_at[copy];
    uint32_t *gone = s->gd[copy];
    s->gd[PRIMARY] = s->gd[!copy];
    s->gd[REDUNDANT] = NULL;
    s->gd_at[PRIMARY] = s->h.gd_offset = s->gd_at[!copy];
    s->copies = 1;
    s->h.rgd_offset = 0;
    s->h.flags &= ~(uint32_t)HOSTED_REDUNDANT;
    s->doubted[PRIMARY] = s->doubted[REDUNDANT] = false;
    budget_free(s->budget, gone, (uint64_t)s->gd_count * 4);
    int r = s->mend ? check_write_header(s, err) : 0;
    if (r == 0)
        check_found(s->check, PLATTER_FINDING_ERROR, s->mend, 1,
                    "%s: the %s is not at sector %" PRIu64 ", where the header (offset %d) says: "
                    "what stands there names no tables%s",
                    s->name, check_copy_words[copy], was, copy == PRIMARY ? 56 : 48,
                    s->mend ? "; the header was made to name the other one alone" : "");
    return r;
}

/*
 * Where one copy has its tables in front of the grains, and most of them are nowhere in the other,
 * the other is damaged as a whole, or the header's field that leads to it is. What it names may be
 * anything then, grains as well: only tables where new files have them are taken for its own, and
 * the rest is made anew there. Of one or two tables, an entry that is damaged is as likely as that:
 * they tell it only where the directory itself stands among the grains.
 */
int check_places(struct sparse_check *s, struct platter_error *err)
{
    if (s->copies < 2 || s->at_end)
        return 0;
    uint32_t in_front[COPIES] = {count_in_front(s, PRIMARY), count_in_front(s, REDUNDANT)};
    for (unsigned c = 0; c < COPIES; c++) {
        bool few = in_front[!c] < 3, outside = !check_in_front(s, s->gd_at[c], 1);
        s->doubted[c] =
            few ? outside && in_front[c] < in_front[!c] : (uint64_t)in_front[c] * 2 < in_front[!c];
        if (s->doubted[c] && is_misplaced(s, c))
            return drop_copy(s, c, err);
    }
    return 0;
}

static bool table_in_front(const struct sparse_check *s, unsigned copy, uint32_t i)
{
    return s->gd[copy][i] && check_in_front(s, s->gd[copy][i], s->gt_sectors);
}

/* Whether tables in front of the grains are behind their directory, and as far apart as they are
 * long: none of them are neighbours, or some are. */
static bool are_in_a_row(const struct sparse_check *s, unsigned copy)
{
    bool any = s->gd[copy][0] > s->gd_at[copy] && s->gd[copy][0] < check_usual_place(s, copy, 0);
    if (any)
        return false;
    for (uint32_t i = 1; i < s->gd_count; i++) {
        if (!table_in_front(s, copy, i - 1) || !table_in_front(s, copy, i))
            continue;
        if ((uint64_t)s->gd[copy][i - 1] + s->gt_sectors == s->gd[copy][i])
            return true;
        any = true;
    }
    return !any;
}

/* How many there is room for between a table in front and its copy: a directory stands there, too.
 */
static uint64_t count_between(const struct sparse_check *s)
{
    uint64_t gd = div_up((uint64_t)s->gd_count * 4, VMDK_SECTOR), least = UINT64_MAX;
    for (uint32_t i = 0; i < s->gd_count; i++) {
        uint64_t a = s->gd[PRIMARY][i], b = s->gd[REDUNDANT][i];
        if (table_in_front(s, PRIMARY, i) && table_in_front(s, REDUNDANT, i))
            least = min_u64(least, a > b ? a - b : b - a);
    }
    return least == UINT64_MAX || least < gd ? 0 : (least - gd) / s->gt_sectors;
}

/*
 * Whoever puts tables in front of the grains makes all that the capacity asks for. Where they are
 * more or less, the header's capacity, size of grains or of tables is not what the tables were made
 * with: everything would be taken for something else, and be mended to pieces.
 */
void check_shape(struct sparse_check *s)
{
    bool two = s->copies == 2;
    uint32_t last = s->gd_count - 1;
    if (s->cowd || s->at_end || s->doubted[PRIMARY] || s->doubted[REDUNDANT] ||
        count_in_front(s, PRIMARY) + (two ? count_in_front(s, REDUNDANT) : 0) == 0)
        return;
    if ((s->gd[PRIMARY][last] || (two && s->gd[REDUNDANT][last])) &&
        (are_in_a_row(s, PRIMARY) || (two && are_in_a_row(s, REDUNDANT))) &&
        (!two || count_between(s) <= s->gd_count))
        return;
    s->mend = false;
    s->keep = true;
    check_found(s->check, PLATTER_FINDING_NOTE, false, 1,
                "%s: the header says that there are %" PRIu32 " grain tables of %" PRIu32
                " entries, but they do not stand like that: if something is wrong, that may be the "
                "header; it is not repaired",
                s->name, s->gd_count, s->h.gtes_per_gt);
}
