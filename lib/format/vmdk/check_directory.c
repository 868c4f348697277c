/* SPDX-License-Identifier: MIT */
/*
 * Grain directories that are checked, and where tables stand: vmdk.md sections 4.4, 4.5 and 13.
 *
 * Afterwards s->gd names only tables that stand in the file, apart from each other and from all
 * else that is no grain; s->meta has the places of all of that. A range has both copies of its
 * table or, where a repair may not write, perhaps only one.
 */
#include <endian.h>
#include <inttypes.h>

#include "format/vmdk/check.h"

bool check_tells(struct sparse_check *s, int code, const struct platter_error *why)
{
    if (code == 0 || code == -PLATTER_ECORRUPT || code == -ENOTSUP)
        return true;
    s->failed = code;
    s->failure = *why;
    return false;
}

int check_failure(const struct sparse_check *s, struct platter_error *err)
{
    return s->failed < 0 ? fail(err, -s->failed, "%s", s->failure.message) : 0;
}

void sparse_check_close(struct sparse_check *s)
{
    for (unsigned c = 0; c < COPIES; c++)
        budget_free(s->budget, s->gd[c], (uint64_t)s->gd_count * 4);
    budget_free(s->budget, s->meta, s->max_meta * sizeof *s->meta);
    budget_free(s->budget, s->used, s->used_room / 8);
    budget_free(s->budget, s->found, s->grains * 4);
    if (s->indexes.budget)
        number_set_close(&s->indexes);
    sparse_free(s->se);
}

uint64_t file_sectors(const struct sparse_check *s)
{
    return div_up(s->size, VMDK_SECTOR);
}

int check_append(struct sparse_check *s, uint64_t n, uint32_t *ret_sector,
                 struct platter_error *err)
{
    uint64_t first = div_up(file_sectors(s), s->h.grain_size) * s->h.grain_size;
    if (first + n > UINT32_MAX)
        return fail(err, EFBIG,
                    "%s: the file cannot grow beyond 2 TiB, as its repair asks for: convert it",
                    s->name);
    s->size = (first + n) * VMDK_SECTOR;
    *ret_sector = (uint32_t)first;
    return s->cowd ? check_free_sector(s, err) : 0;
}

/* What a repair does about an entry that leads nowhere. */
static const char *fate(const struct sparse_check *s, bool other)
{
    if (!s->mend)
        return "";
    if (s->at_end)
        return "; all tables are made anew";
    if (other)
        return "; it was mended from the other copy";
    return s->packed ? "; its table was made anew from the grains"
                     : "; the grains of its range are lost";
}

/* ---- what is no grain ------------------------------------------------------------------------ */

/* The first range that ends behind `sector`. */
static uint32_t find_range(const struct sparse_check *s, uint64_t sector)
{
    uint32_t low = 0, high = s->n_meta;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((uint64_t)s->meta[middle].start + s->meta[middle].len > sector)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

bool check_in_meta(const struct sparse_check *s, uint64_t sector, uint64_t n)
{
    uint32_t i = find_range(s, sector);
    return i < s->n_meta && s->meta[i].start < sector + n;
}

static void add_range(struct sparse_check *s, uint64_t start, uint64_t len)
{
    if (len > 0 && start + len <= UINT32_MAX)
        s->meta[s->n_meta++] = (struct sector_range){(uint32_t)start, (uint32_t)len};
}

static int compare_ranges(const void *a, const void *b)
{
    const struct sector_range *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

/* Sorted, and those that touch as one. */
static void sort_ranges(struct sparse_check *s)
{
    uint32_t n = 0;
    qsort(s->meta, s->n_meta, sizeof *s->meta, compare_ranges);
    for (uint32_t i = 0; i < s->n_meta; i++) {
        struct sector_range *last = n ? &s->meta[n - 1] : NULL;
        const struct sector_range *r = &s->meta[i];
        uint64_t end = (uint64_t)r->start + r->len;
        if (last && r->start <= (uint64_t)last->start + last->len)
            last->len = (uint32_t)(max_u64((uint64_t)last->start + last->len, end) - last->start);
        else
            s->meta[n++] = *r;
    }
    s->n_meta = n;
}

/* Header, descriptor, directories, and the tables that `gd` names if asked for. */
static void note_metadata(struct sparse_check *s, bool tables)
{
    const struct hosted_header *h = &s->h;
    uint64_t gd = div_up((uint64_t)s->gd_count * 4, VMDK_SECTOR);
    s->n_meta = 0;
    add_range(s, 0, s->cowd ? COWD_HEADER_SECTORS : 1);
    add_range(s, h->descriptor_offset, h->descriptor_offset ? h->descriptor_size : 0);
    for (unsigned c = 0; c < s->copies && s->gd_at[c] != HOSTED_GD_AT_END; c++)
        add_range(s, s->gd_at[c], gd);
    for (unsigned c = 0; tables && c < s->copies; c++)
        for (uint32_t i = 0; i < s->gd_count; i++)
            if (s->gd[c][i])
                add_range(s, s->gd[c][i], s->gt_sectors);
    sort_ranges(s);
}

/* ---- entries of a directory ------------------------------------------------------------------ */

static int load_directory(struct sparse_check *s, unsigned copy, struct platter_error *err)
{
    size_t bytes = (size_t)s->gd_count * 4;
    int r = budget_alloc(s->budget, bytes, "the grain directory of a VMDK", &s->gd[copy], err);
    if (r == 0)
        r = stream_pread(s->stream, s->gd[copy], bytes, s->gd_at[copy] * VMDK_SECTOR, err);
    for (uint32_t i = 0; r == 0 && i < s->gd_count; i++)
        s->gd[copy][i] = le32toh(s->gd[copy][i]);
    return r;
}

static bool table_fits(const struct sparse_check *s, unsigned copy, uint32_t i, uint32_t gde)
{
    return gde <= UINT32_MAX - s->gt_sectors &&
           (!s->doubted[copy] || gde == check_usual_place(s, copy, i)) &&
           range_inside((hoff)gde * VMDK_SECTOR, (hoff)s->gt_sectors * VMDK_SECTOR, s->size) &&
           !check_in_meta(s, gde, s->gt_sectors);
}

/* ---- tables apart ---------------------------------------------------------------------------- */

/* An entry that names a table, for finding those that stand in one another. */
struct named {
    uint32_t sector;
    uint32_t index : 31, copy : 1;
};

static int compare_named(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    if (x->sector != y->sector)
        return x->sector < y->sector ? -1 : 1;
    return x->copy != y->copy ? (int)x->copy - (int)y->copy : (int)x->index - (int)y->index;
}

/* Whether a range has another copy of its table that stands alone and is not the same: then the
 * entry is the wrong one, or what it names was overwritten. (Where it is the same, the entry is
 * right: it is left alone, for once it stands elsewhere the wrong ones would not show any more.) */
static int has_other(struct sparse_check *s, const struct named *n, const uint8_t *doubtful,
                     bool *ret, struct platter_error *err)
{
    uint8_t table[COPIES][VMDK_MAX_GTES * 4];
    size_t bytes = (size_t)s->gt_sectors * VMDK_SECTOR;
    uint32_t other = s->copies == 2 ? s->gd[!n->copy][n->index] : 0;
    *ret = false;
    if (other == 0 || (doubtful[n->index] >> !n->copy & 1))
        return 0;
    int r = stream_pread(s->stream, table[0], bytes, (hoff)n->sector * VMDK_SECTOR, err);
    if (r == 0)
        r = stream_pread(s->stream, table[1], bytes, (hoff)other * VMDK_SECTOR, err);
    *ret = r == 0 && memcmp(table[0], table[1], bytes) != 0;
    return r;
}

static void report_overlap(struct sparse_check *s, const struct named *n, uint32_t other)
{
    check_found(s->check, PLATTER_FINDING_ERROR, s->mend, 1,
                "%s: entry %u of the %s (sector %" PRIu64 ") says sector %" PRIu32
                ", but a table at sector %" PRIu32 " is another entry's%s",
                s->name, n->index, check_copy_words[n->copy], s->gd_at[n->copy], n->sector, other,
                fate(s, s->copies == 2 && s->gd[!n->copy][n->index]));
}

/*
 * Of tables that stand in one another at most one is right. Whichever entry has another, good copy
 * of its table elsewhere takes that; of the rest the first keeps the place.
 */
static int settle_overlaps(struct sparse_check *s, const struct named *list, uint32_t n,
                           const uint8_t *doubtful, struct platter_error *err)
{
    uint64_t taken = 0; /* behind the last table that keeps its place */
    uint32_t owner = 0;
    int r = 0;
    for (uint32_t i = 0; i < n && r == 0; i++) {
        const struct named *x = &list[i];
        bool doubt = doubtful[x->index] >> x->copy & 1, wrong = false;
        if (doubt)
            r = has_other(s, x, doubtful, &wrong, err);
        if (doubt && (x->sector < taken || wrong)) {
            report_overlap(s, x, x->sector < taken ? owner : x->sector);
            s->gd[x->copy][x->index] = 0;
            continue;
        }
        taken = (uint64_t)x->sector + s->gt_sectors;
        owner = x->sector;
    }
    return r;
}

static int check_apart(struct sparse_check *s, struct platter_error *err)
{
    struct named *list;
    uint8_t *doubtful; /* a bit for each copy */
    uint64_t most = (uint64_t)s->gd_count * s->copies, bytes = most * sizeof *list;
    int r = budget_alloc(s->budget, bytes, "the places of a VMDK's grain tables", &list, err);
    if (r < 0)
        return r;
    r = budget_alloc(s->budget, s->gd_count, "the places of a VMDK's grain tables", &doubtful, err);
    if (r == 0) {
        uint32_t n = 0;
        bool any = false;
        for (unsigned c = 0; c < s->copies; c++)
            for (uint32_t i = 0; i < s->gd_count; i++)
                if (s->gd[c][i])
                    list[n++] = (struct named){s->gd[c][i], i & 0x7fffffff, c & 1};
        qsort(list, n, sizeof *list, compare_named);
        for (uint32_t i = 1; i < n; i++)
            if (list[i].sector - list[i - 1].sector < s->gt_sectors) {
                doubtful[list[i].index] |= (uint8_t)(1u << list[i].copy);
                doubtful[list[i - 1].index] |= (uint8_t)(1u << list[i - 1].copy);
                any = true;
            }
        if (any)
            r = settle_overlaps(s, list, n, doubtful, err);
        budget_free(s->budget, doubtful, s->gd_count);
    }
    budget_free(s->budget, list, bytes);
    return r;
}

/* Entries that lead nowhere become 0 in memory. */
static void check_entries(struct sparse_check *s)
{
    for (unsigned c = 0; c < s->copies; c++)
        for (uint32_t i = 0; i < s->gd_count; i++) {
            uint32_t gde = s->gd[c][i];
            if (gde == 0 || table_fits(s, c, i, gde))
                continue;
            bool other = s->copies == 2 && s->gd[!c][i] && table_fits(s, !c, i, s->gd[!c][i]);
            check_found(s->check, PLATTER_FINDING_ERROR, s->mend, 1,
                        "%s: entry %" PRIu32 " of the %s (sector %" PRIu64 ") says sector %" PRIu32
                        ", where no grain table can be: it is in other metadata%s or behind the "
                        "end at byte %" PRIu64 "%s",
                        s->name, i, check_copy_words[c], s->gd_at[c], gde,
                        s->doubted[c] ? " or grains" : "", s->size, fate(s, other));
            s->gd[c][i] = 0;
        }
}

static int compare_sectors(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* How many entries of the only directory there are, and how many of them lead nowhere or into
 * another's table. What stands in the tables of the rest is weighed as well. */
static int count_senseless(struct sparse_check *s, uint32_t *ret_all, uint32_t *ret_bad,
                           struct platter_error *err)
{
    uint32_t *good, *gd = s->gd[PRIMARY];
    uint64_t bytes = (uint64_t)s->gd_count * sizeof *good;
    int r = budget_alloc(s->budget, bytes, "the places of a VMDK's grain tables", &good, err);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < s->gd_count; i++) {
        *ret_all += gd[i] != 0;
        if (gd[i] && table_fits(s, PRIMARY, i, gd[i]))
            good[i] = gd[i];
        else
            *ret_bad += gd[i] != 0;
    }
    s->gd[PRIMARY] = good;
    if (s->mend)
        r = check_tables(s, PASS_WEIGH, err);
    s->gd[PRIMARY] = gd;
    qsort(good, s->gd_count, sizeof *good, compare_sectors);
    for (uint32_t i = 1; i < s->gd_count; i++)
        *ret_bad += good[i - 1] && good[i] - good[i - 1] < s->gt_sectors;
    budget_free(s->budget, good, bytes);
    return r;
}

/*
 * Of two directories one tells where the other is wrong. Where there is one, and most of it makes
 * no sense, it may be that it is elsewhere: then each entry that is mended would be a hole in
 * somebody's data, and all that is good be nobody's.
 */
static int check_single(struct sparse_check *s, struct platter_error *err)
{
    uint32_t all = 0, bad = 0;
    if (s->copies != 1 || s->at_end)
        return 0;
    int r = count_senseless(s, &all, &bad, err);
    if (r < 0 || (uint64_t)bad * 2 <= all)
        return r;
    s->mend = false;
    s->keep = true;
    check_found(s->check, PLATTER_FINDING_NOTE, false, 1,
                "%s: %" PRIu32 " of %" PRIu32 " entries of its only grain directory make no sense: "
                "one cannot tell whether they are damaged, or the directory is not at sector "
                "%" PRIu64 " (header offset %d); it is not repaired",
                s->name, bad, all, s->gd_at[PRIMARY], s->cowd ? 20 : 56);
    return 0;
}

/* ---- repair ---------------------------------------------------------------------------------- */

static int write_entry(struct sparse_check *s, unsigned copy, uint32_t i, struct platter_error *err)
{
    uint8_t entry[4];
    put_le(entry, sizeof entry, s->gd[copy][i]);
    return stream_pwrite(s->stream, entry, sizeof entry, s->gd_at[copy] * VMDK_SECTOR + (hoff)i * 4,
                         err);
}

/* The table of a range that no copy has: what a scan of the records says, or nothing. */
static int fill_lost_table(struct sparse_check *s, uint32_t i, uint8_t *table,
                           struct platter_error *err)
{
    int r = 0;
    uint32_t n = s->h.gtes_per_gt, sector;
    uint64_t first = (uint64_t)i * n, have = min_u64(n, s->grains - first);
    for (uint64_t j = 0; s->packed && j < have && r == 0; j++) {
        r = check_find_record(s, first + j, &sector, err);
        if (r == 0)
            put_le(table + j * 4, 4, sector);
    }
    return r;
}

/* A new table for a range, as it is in the other copy. It is durable before the entry names it. */
static int make_table(struct sparse_check *s, unsigned copy, uint32_t i, struct platter_error *err)
{
    uint8_t table[VMDK_MAX_GTES * 4] = {0};
    size_t bytes = (size_t)s->gt_sectors * VMDK_SECTOR;
    uint32_t at = 0, from = s->copies == 2 ? s->gd[!copy][i] : 0;
    int r = from ? stream_pread(s->stream, table, bytes, (hoff)from * VMDK_SECTOR, err)
                 : fill_lost_table(s, i, table, err);
    if (s->doubted[copy])
        at = (uint32_t)check_usual_place(s, copy, i);
    else if (r == 0)
        r = check_append(s, s->gt_sectors, &at, err);
    if (r == 0)
        r = stream_pwrite(s->stream, table, bytes, (hoff)at * VMDK_SECTOR, err);
    if (r == 0)
        r = stream_flush(s->stream, err);
    if (r < 0)
        return r;
    s->gd[copy][i] = at;
    return write_entry(s, copy, i, err);
}

/* Whether only one copy of a table was made, behind grains, and nothing came into it: what a crash
 * leaves of making one. */
static int is_half_made(struct sparse_check *s, uint32_t i, bool *ret, struct platter_error *err)
{
    uint8_t table[VMDK_MAX_GTES * 4];
    size_t bytes = (size_t)s->gt_sectors * VMDK_SECTOR;
    uint32_t at = s->gd[PRIMARY][i] ? s->gd[PRIMARY][i] : s->gd[REDUNDANT][i];
    int r = stream_pread(s->stream, table, bytes, (hoff)at * VMDK_SECTOR, err);
    *ret = r == 0 && !check_in_front(s, at, s->gt_sectors) && is_zero(table, bytes);
    return r;
}

static int settle_half_made(struct sparse_check *s, uint32_t i, struct platter_error *err)
{
    unsigned copy = s->gd[PRIMARY][i] ? PRIMARY : REDUNDANT;
    bool mend = s->check->mend_leaks && !s->keep;
    check_found(s->check, PLATTER_FINDING_LEAK, mend, 1,
                "%s: entry %" PRIu32 " of the %s (sector %" PRIu64
                ") names an empty table, of which the other copy was never made",
                s->name, i, check_copy_words[copy], s->gd_at[copy]);
    s->gd[copy][i] = 0;
    return mend ? write_entry(s, copy, i, err) : 0;
}

/* One of two entries is 0 though the other has a table. `was`: what the file said. */
static int check_pair(struct sparse_check *s, uint32_t i, const uint32_t was[COPIES],
                      struct platter_error *err)
{
    unsigned lacks = s->gd[PRIMARY][i] ? REDUNDANT : PRIMARY;
    bool half_made = false;
    int r = was[lacks] == 0 ? is_half_made(s, i, &half_made, err) : 0;
    if (r == 0 && half_made)
        return settle_half_made(s, i, err);
    if (r == 0 && was[lacks] == 0)
        check_found(s->check, PLATTER_FINDING_ERROR, s->mend, 1,
                    "%s: entry %" PRIu32 " of the %s (sector %" PRIu64
                    ") names no table, but the other copy does%s",
                    s->name, i, check_copy_words[lacks], s->gd_at[lacks],
                    s->mend ? "; it was mended from there" : "");
    return r == 0 && s->mend ? make_table(s, lacks, i, err) : r;
}

/* Every entry that was found wrong is made right in the file. */
static int settle_entry(struct sparse_check *s, uint32_t i, const uint32_t was[COPIES],
                        struct platter_error *err)
{
    bool lost[COPIES] = {was[PRIMARY] && !s->gd[PRIMARY][i],
                         s->copies == 2 && was[REDUNDANT] && !s->gd[REDUNDANT][i]};
    if (s->copies == 2 && (s->gd[PRIMARY][i] == 0) != (s->gd[REDUNDANT][i] == 0))
        return check_pair(s, i, was, err);
    if (!s->mend || !(lost[PRIMARY] || lost[REDUNDANT]))
        return 0;
    /* Both are lost: empty tables, as not all programs can do without any (section 4.5). */
    s->dropped = true;
    int r = 0;
    for (unsigned c = s->copies; c-- > 0 && r == 0;)
        r = make_table(s, c, i, err);
    return r;
}

/* Compares what was judged with what the file says, an entry at a time. */
static int settle_entries(struct sparse_check *s, struct platter_error *err)
{
    enum { PIECE = 1024 };
    uint32_t raw[COPIES][PIECE];
    int r = 0;
    for (uint32_t from = 0; from < s->gd_count && r == 0; from += PIECE) {
        uint32_t n = (uint32_t)min_u64(PIECE, s->gd_count - from);
        for (unsigned c = 0; c < s->copies && r == 0; c++)
            r = stream_pread(s->stream, raw[c], n * 4, s->gd_at[c] * VMDK_SECTOR + (hoff)from * 4,
                             err);
        for (uint32_t i = 0; i < n && r == 0; i++) {
            uint32_t was[COPIES] = {le32toh(raw[PRIMARY][i]),
                                    s->copies == 2 ? le32toh(raw[REDUNDANT][i]) : 0};
            if (was[PRIMARY] || was[REDUNDANT])
                r = settle_entry(s, from + i, was, err);
        }
    }
    if (r == 0 && s->check->mend_leaks)
        r = stream_flush(s->stream, err);
    return r;
}

/* ---- the directories ------------------------------------------------------------------------- */

/* In a stream that is judged as a whole there is nothing to mend entry by entry: one that is wrong
 * has all tables made anew. */
static void check_stream_entries(struct sparse_check *s, uint64_t before)
{
    const struct platter_check_result *r = &s->check->result;
    if (r->corruptions + r->corruptions_fixed > before)
        s->rebuild = true;
}

int check_directories(struct sparse_check *s, struct platter_error *err)
{
    const struct platter_check_result *found = &s->check->result;
    uint64_t before = found->corruptions + found->corruptions_fixed;
    int r = 0;
    if (s->se)
        return 0;
    s->max_meta = 4 + s->gd_count * s->copies;
    if (s->gd_count == 0 || s->gd_at[PRIMARY] == HOSTED_GD_AT_END)
        return 0;
    r = budget_alloc(s->budget, s->max_meta * sizeof *s->meta, "the places of a VMDK's tables",
                     &s->meta, err);
    for (unsigned c = 0; c < s->copies && r == 0; c++)
        r = load_directory(s, c, err);
    if (r == 0)
        r = check_places(s, err);
    if (r < 0)
        return r;
    note_metadata(s, false);
    check_shape(s);
    r = check_single(s, err);
    if (r < 0)
        return r;
    check_entries(s);
    r = check_apart(s, err);
    if (r == 0 && s->at_end)
        check_stream_entries(s, before);
    else if (r == 0)
        r = settle_entries(s, err);
    if (r == 0)
        note_metadata(s, true);
    return r;
}
