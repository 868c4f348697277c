/* SPDX-License-Identifier: MIT */
/*
 * Grain tables that are checked: vmdk.md sections 4.4, 13 and 15. Tables are read a piece at a
 * time; where the file has a hole they are empty, and cost nothing.
 *
 * Both copies of an entry are made the same: what can be a grain, or says zero, wins over what
 * cannot; something over nothing; the primary over the redundant one.
 */
#include <endian.h>
#include <inttypes.h>

#include "format/vmdk/check.h"

enum { MOST_PIECE = 1 << 20, LEAST_PIECE = VMDK_MAX_GTES * 4 }; /* bytes of tables */

/* Some tables, in both copies. */
struct piece {
    uint32_t first, n; /* tables */
    uint32_t *entries[COPIES];
    uint8_t *dirty; /* a bit for each copy of each table */
    bool moved;     /* grains were written that changed entries name */
    enum pass pass;
};

/* ---- reading and writing --------------------------------------------------------------------- */

/* As stream_pread(), but without reading holes. */
static int read_around_holes(struct stream *stream, uint8_t *buf, uint64_t len, hoff off,
                             struct platter_error *err)
{
    for (uint64_t run; len > 0; buf += run, off += run, len -= run) {
        bool hole;
        int r = stream_extents(stream, off, len, &run, &hole, err);
        if (r == 0 && hole)
            memset(buf, 0, (size_t)run);
        else if (r == 0)
            r = stream_pread(stream, buf, (size_t)run, off, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Tables that are neighbours in the file are read together. */
static int load_copy(struct sparse_check *s, struct piece *p, unsigned copy,
                     struct platter_error *err)
{
    const uint32_t *gd = s->gd[copy] + p->first;
    uint64_t bytes = (uint64_t)s->gt_sectors * VMDK_SECTOR;
    uint8_t *to = (uint8_t *)p->entries[copy];
    int r = 0;
    for (uint32_t i = 0, run; i < p->n && r == 0; i += run) {
        for (run = 1;
             i + run < p->n &&
             (gd[i] ? gd[i + run] == (uint64_t)gd[i] + run * s->gt_sectors : gd[i + run] == 0);)
            run++;
        if (gd[i])
            r = read_around_holes(s->stream, to + i * bytes, run * bytes, (hoff)gd[i] * VMDK_SECTOR,
                                  err);
        else
            memset(to + i * bytes, 0, run * bytes);
    }
    for (uint64_t i = 0; i < p->n * bytes / 4; i++)
        p->entries[copy][i] = le32toh(p->entries[copy][i]);
    return r;
}

static int store_table(struct sparse_check *s, const struct piece *p, unsigned copy, uint32_t i,
                       struct platter_error *err)
{
    uint8_t bytes[VMDK_MAX_GTES * 4];
    uint32_t n = s->h.gtes_per_gt;
    for (uint32_t j = 0; j < n; j++)
        put_le(bytes + j * 4, 4, p->entries[copy][(uint64_t)i * n + j]);
    return stream_pwrite(s->stream, bytes, n * 4, (hoff)s->gd[copy][p->first + i] * VMDK_SECTOR,
                         err);
}

/* Grains durable, then the redundant tables, then the primary ones. */
static int store_piece(struct sparse_check *s, struct piece *p, struct platter_error *err)
{
    int r = p->moved ? stream_flush(s->stream, err) : 0;
    for (unsigned c = s->copies; c-- > 0;)
        for (uint32_t i = 0; i < p->n && r == 0; i++)
            if (p->dirty[i] >> c & 1)
                r = store_table(s, p, c, i, err);
    memset(p->dirty, 0, p->n);
    p->moved = false;
    return r;
}

/* ---- one entry ------------------------------------------------------------------------------- */

uint64_t check_needed_bytes(const struct sparse_check *s, uint64_t grain)
{
    uint64_t first = grain * s->h.grain_size;
    uint64_t end = first < s->nominal ? s->nominal : s->h.capacity;
    return min_u64(s->h.grain_size, end - first) * VMDK_SECTOR;
}

/* Why there can be no grain at a sector, or NULL. */
static const char *misplaced(const struct sparse_check *s, uint64_t grain, uint32_t gte)
{
    uint64_t need = s->packed ? VMDK_SECTOR : check_needed_bytes(s, grain);
    if (!range_inside((hoff)gte * VMDK_SECTOR, need, s->size))
        return "behind the end of the file";
    if (gte < s->h.overhead || check_in_meta(s, gte, div_up(need, VMDK_SECTOR)))
        return "inside metadata";
    return NULL;
}

/* Whether an entry can be right. */
static bool fits(struct sparse_check *s, uint64_t grain, uint32_t gte, struct platter_error *why)
{
    if (gte == 0 || (gte == 1 && !s->cowd))
        return true;
    const char *reason = misplaced(s, grain, gte);
    if (reason) {
        fail(why, PLATTER_ECORRUPT,
             "%s: the entry of grain %" PRIu64 " (sector %" PRIu64
             " of the extent) says sector %" PRIu32 ", %s: the file has %" PRIu64 " bytes",
             s->name, grain, grain * s->h.grain_size, gte, reason, s->size);
        return false;
    }
    uint64_t sectors;
    struct platter_error record = {0};
    int r = s->packed ? check_record(s, grain, gte, &sectors, &record) : 0;
    check_tells(s, r, &record);
    if (r < 0 && why)
        *why = record;
    return r == 0;
}

/* Whether an entry that all copies agree on leads to a grain in front of where the header says that
 * grains begin, but to no metadata: then it is the header that is wrong. */
static bool is_early(struct sparse_check *s, uint64_t grain, uint32_t gte)
{
    uint64_t overhead = s->h.overhead;
    if (gte <= 1 || gte >= overhead || s->at_end || s->cowd)
        return false;
    s->h.overhead = 0;
    bool good = fits(s, grain, gte, NULL);
    s->h.overhead = overhead;
    if (good && (s->early == 0 || gte < s->early))
        s->early = gte;
    return good;
}

/* What was found wrong with an entry. */
enum verdict { FINE, LOST, COPIES_DIFFER, TWO_GRAINS };

/* What both copies of an entry should say. */
static enum verdict settle(struct sparse_check *s, uint64_t grain, uint32_t p, uint32_t r,
                           uint32_t *ret, struct platter_error *why)
{
    bool good = fits(s, grain, p, why) || (p == r && is_early(s, grain, p));
    *ret = good ? p : 0;
    if (p == r)
        return good ? FINE : LOST;
    bool other = fits(s, grain, r, good ? why : NULL);
    if (!good && !other)
        return LOST;
    if (!good || (p == 0 && other))
        *ret = r;
    return good && other && p > 1 && r > 1 ? TWO_GRAINS : COPIES_DIFFER;
}

static void report_differ(struct sparse_check *s, uint64_t grain, uint32_t p, uint32_t r,
                          uint32_t value)
{
    check_found(s->check, PLATTER_FINDING_ERROR, s->mend, 1,
                "%s: the entry of grain %" PRIu64 " (sector %" PRIu64
                " of the extent) says sector %" PRIu32 ", its redundant copy %" PRIu32 "%s%" PRIu32,
                s->name, grain, grain * s->h.grain_size, p, r,
                s->mend ? "; both were made " : "; both should say ", value);
}

/* An entry that leads to no grain of its own. Of a stream, a scan may know where the grain is. */
static int report_lost(struct sparse_check *s, uint64_t grain, const struct platter_error *why,
                       uint32_t *value, struct platter_error *err)
{
    int r = 0;
    if (s->at_end)
        s->rebuild = true;
    else if (s->packed && s->mend)
        r = check_find_record(s, grain, value, err);
    s->dropped |= s->mend && *value == 0;
    if (r == 0)
        check_found(s->check, PLATTER_FINDING_ERROR, s->mend, 1, "%s%s", why->message,
                    !s->mend    ? ""
                    : s->at_end ? "; all tables are made anew"
                    : *value    ? "; the grain was found elsewhere"
                                : "; it was set to 0, the grain is lost");
    return r;
}

static void set_entry(struct piece *p, unsigned copy, uint32_t table, uint64_t at, uint32_t value)
{
    if (p->entries[copy][at] == value)
        return;
    p->entries[copy][at] = value;
    p->dirty[table] |= (uint8_t)(1u << copy);
}

/* ---- what is told of all entries ------------------------------------------------------------- */

static void count_grain(struct sparse_check *s, uint32_t value, uint64_t sectors)
{
    struct platter_check_result *r = &s->check->result;
    r->allocated_clusters++;
    r->compressed_clusters += s->packed;
    r->fragmented_clusters += s->last != 0 && value != s->last;
    s->last = value + sectors;
    if (s->first_grain == 0)
        s->first_grain = value;
    s->placed++;
    s->odd |= (value - s->first_grain) / s->h.grain_size % 2 != 0;
    if (!s->packed && !s->told_unaligned && (value - s->first_grain) % s->h.grain_size != 0) {
        s->told_unaligned = true;
        check_found(s->check, PLATTER_FINDING_NOTE, false, 1,
                    "%s: its grains are not all aligned to their size of %" PRIu64
                    " sectors: one is at sector %" PRIu32,
                    s->name, s->h.grain_size, value);
    }
}

/* The second of two entries that name one grain gets a copy of it. */
static int duplicate(struct sparse_check *s, struct piece *p, uint32_t from, uint32_t *ret,
                     struct platter_error *err)
{
    uint64_t bytes = s->h.grain_size * VMDK_SECTOR;
    uint8_t *grain;
    int r = budget_alloc(s->budget, bytes, "a grain that is copied", &grain, err);
    if (r < 0)
        return r;
    r = stream_pread_tail(s->stream, grain, (size_t)bytes, (hoff)from * VMDK_SECTOR, err);
    if (r == 0)
        r = check_append(s, s->h.grain_size, ret, err);
    if (r == 0)
        r = stream_pwrite(s->stream, grain, (size_t)bytes, (hoff)*ret * VMDK_SECTOR, err);
    budget_free(s->budget, grain, bytes);
    p->moved = true;
    return r;
}

/* Notes where a grain stands; another may stand there already. */
static int place(struct sparse_check *s, struct piece *p, uint64_t grain, uint32_t *value,
                 struct platter_error *err)
{
    uint64_t n = s->h.grain_size;
    struct platter_error why;
    if (s->packed && check_tells(s, check_record(s, grain, *value, &n, &why), &why) && n == 0)
        return 0; /* was reported */
    if (s->failed < 0)
        return check_failure(s, err);
    if (p->pass == PASS_JUDGE)
        count_grain(s, *value, n);
    if (!check_use(s, *value, n) || p->pass == PASS_MARK)
        return 0;
    uint32_t from = *value;
    bool mend = s->mend && !s->packed;
    int r = mend ? duplicate(s, p, from, value, err) : 0;
    if (r == 0 && mend)
        check_use(s, *value, n);
    if (r == 0)
        check_found(s->check, PLATTER_FINDING_ERROR, mend, 1,
                    "%s: grain %" PRIu64 " (sector %" PRIu64 " of the extent) is at sector %" PRIu32
                    ", where another one is%s",
                    s->name, grain, grain * s->h.grain_size, from,
                    mend ? "; it got a copy of its own" : "");
    if (s->packed && s->at_end)
        s->rebuild = true;
    return r;
}

/* ---- judged ---------------------------------------------------------------------------------- */

static void note_value_1(struct sparse_check *s, uint64_t grain)
{
    if (s->told_value_1 || (s->h.flags & HOSTED_ZEROED))
        return;
    s->told_value_1 = true;
    check_found(s->check, PLATTER_FINDING_NOTE, false, 1,
                "%s: the entry of grain %" PRIu64
                " says 1, a grain of zeros, but the header (offset 8) does not announce such",
                s->name, grain);
}

static int judge_entry(struct sparse_check *s, struct piece *p, uint64_t grain, uint32_t primary,
                       uint32_t redundant, uint32_t *value, struct platter_error *err)
{
    struct platter_error why = {0};
    enum verdict v = settle(s, grain, primary, redundant, value, &why);
    int r = check_failure(s, err);
    if (r < 0)
        return r;
    if (p->pass == PASS_JUDGE && v == LOST)
        r = report_lost(s, grain, &why, value, err);
    else if (p->pass == PASS_JUDGE && v != FINE)
        report_differ(s, grain, primary, redundant, *value);
    s->dropped |= s->mend && v == TWO_GRAINS;
    if (p->pass == PASS_JUDGE && *value == 1)
        note_value_1(s, grain);
    if (r == 0 && *value > 1)
        r = place(s, p, grain, value, err);
    return r;
}

/* Entries behind the capacity would come to life when the disk grows. */
static void judge_beyond(struct sparse_check *s, const struct piece *p, uint64_t grain,
                         uint32_t value)
{
    if (p->pass != PASS_JUDGE)
        return;
    s->dropped |= s->mend;
    check_found(s->check, PLATTER_FINDING_ERROR, s->mend, 1,
                "%s: the entry of grain %" PRIu64 " says sector %" PRIu32
                ", but the capacity ends after %" PRIu64 " grains%s",
                s->name, grain, value, s->grains,
                !s->mend    ? ""
                : s->at_end ? "; all tables are made anew"
                            : "; it was set to 0");
    if (s->at_end)
        s->rebuild = true;
}

/* ---- sense ----------------------------------------------------------------------------------- */

/* Whether an entry can never have been right, as far as one can tell: one that leads behind the end
 * of a truncated file may have been. */
static bool is_senseless(struct sparse_check *s, uint64_t grain, uint32_t gte)
{
    const struct hosted_header *h = &s->h;
    uint64_t most = h->overhead + (uint64_t)s->gd_count * (s->gt_sectors + 1) * s->copies +
                    s->grains * h->grain_size;
    struct platter_error why;
    uint64_t n;
    if (gte == 0 || (gte == 1 && !s->cowd))
        return false;
    if (grain >= s->grains || gte < h->overhead || check_in_meta(s, gte, 1) ||
        gte >= max_u64(most, file_sectors(s)))
        return true;
    return s->packed && gte < file_sectors(s) &&
           check_tells(s, check_record(s, grain, gte, &n, &why), &why) && n == 0;
}

/* Where most of a table makes no sense and there is no second copy, it may be that there is no
 * table at all: see check_single(). */
static int weigh_table(struct sparse_check *s, const struct piece *p, uint32_t table,
                       struct platter_error *err)
{
    const uint32_t *entries = p->entries[PRIMARY] + (uint64_t)table * s->h.gtes_per_gt;
    uint64_t first = (uint64_t)(p->first + table) * s->h.gtes_per_gt;
    uint32_t all = 0, bad = 0;
    for (uint32_t j = 0; j < s->h.gtes_per_gt; j++) {
        all += entries[j] != 0;
        bad += is_senseless(s, first + j, entries[j]);
    }
    if (bad * 2 > all && s->mend) {
        s->mend = false;
        s->keep = true;
        check_found(s->check, PLATTER_FINDING_NOTE, false, 1,
                    "%s: %" PRIu32 " of %" PRIu32 " entries of the grain table at sector %" PRIu32
                    ", of which there is no copy, make no sense: one cannot tell whether they are "
                    "damaged, or the table is elsewhere; it is not repaired",
                    s->name, bad, all, s->gd[PRIMARY][p->first + table]);
    }
    return check_failure(s, err);
}

/* ---- all of them ----------------------------------------------------------------------------- */

static int check_entry(struct sparse_check *s, struct piece *p, uint32_t table, uint32_t j,
                       struct platter_error *err)
{
    uint64_t at = (uint64_t)table * s->h.gtes_per_gt + j;
    uint64_t grain = (uint64_t)p->first * s->h.gtes_per_gt + at;
    bool two = s->copies == 2 && s->gd[REDUNDANT][p->first + table];
    bool one = s->gd[PRIMARY][p->first + table] != 0;
    uint32_t redundant = two ? p->entries[REDUNDANT][at] : p->entries[PRIMARY][at];
    uint32_t primary = one ? p->entries[PRIMARY][at] : redundant, value = 0;
    if ((primary | redundant) == 0)
        return 0;
    int r = 0;
    if (grain >= s->grains)
        judge_beyond(s, p, grain, primary | redundant);
    else
        r = judge_entry(s, p, grain, primary, redundant, &value, err);
    if (r < 0 || !s->mend || s->at_end)
        return r;
    if (one)
        set_entry(p, PRIMARY, table, at, value);
    if (two)
        set_entry(p, REDUNDANT, table, at, value);
    return 0;
}

static int check_piece(struct sparse_check *s, struct piece *p, struct platter_error *err)
{
    uint32_t per_table = s->h.gtes_per_gt;
    int r = 0;
    for (unsigned c = 0; c < s->copies && r == 0; c++)
        r = load_copy(s, p, c, err);
    for (uint32_t i = 0; i < p->n && r == 0; i++) {
        bool empty = true;
        for (unsigned c = 0; c < s->copies; c++)
            empty &= is_zero(p->entries[c] + (uint64_t)i * per_table, per_table * 4);
        if (!empty && p->pass == PASS_WEIGH) {
            r = weigh_table(s, p, i, err);
            continue;
        }
        for (uint32_t j = 0; !empty && j < per_table && r == 0; j++)
            r = check_entry(s, p, i, j, err);
    }
    return r == 0 ? store_piece(s, p, err) : r;
}

int check_tables(struct sparse_check *s, enum pass pass, struct platter_error *err)
{
    struct piece p = {.pass = pass};
    uint64_t bytes = round_down(min_u64(budget_limit(s->budget) / 16, MOST_PIECE), LEAST_PIECE);
    bytes = max_u64(bytes, LEAST_PIECE);
    uint64_t most = bytes / ((uint64_t)s->gt_sectors * VMDK_SECTOR);
    if (s->gd_count == 0 || !s->gd[PRIMARY])
        return 0;
    int r = budget_alloc(s->budget, most, "the grain tables of a VMDK", &p.dirty, err);
    for (unsigned c = 0; c < s->copies && r == 0; c++)
        r = budget_alloc(s->budget, bytes, "the grain tables of a VMDK", &p.entries[c], err);
    for (; r == 0 && p.first < s->gd_count; p.first += p.n) {
        p.n = (uint32_t)min_u64(most, s->gd_count - p.first);
        r = check_piece(s, &p, err);
        if (r == 0)
            r = check_progress(s->check, p.first, s->gd_count, err);
    }
    for (unsigned c = 0; c < COPIES; c++)
        budget_free(s->budget, p.entries[c], bytes);
    budget_free(s->budget, p.dirty, most);
    return r;
}
