/* SPDX-License-Identifier: MIT */
/*
 * seSparse files that are checked: vmdk.md section 7. What their free bitmap, back map and journal
 * say is not documented. So space of nobody is not looked for: the host keeps free grains inside of
 * the file; and entries that lead nowhere are dropped only where the engine would change them as
 * well (sesparse_write.c): where nobody keeps bitmap and map.
 */
#include <inttypes.h>

#include "format/vmdk/check.h"

enum { TYPE_SHIFT = 60, TYPE_ALLOCATED_ENTRY = 3 };

/* A grain table. */
struct table {
    uint8_t bytes[SE_GT_SECTORS * VMDK_SECTOR];
    uint32_t gt;
    bool mend;
    bool changed;
};

/* Why an entry cannot be, or NULL; *ret_sector is where its grain stands, 0: it has none. */
static const char *judge(const struct sparse_check *s, uint64_t grain, uint64_t gte,
                         uint64_t *ret_sector)
{
    if (sparse_entry(s->se, gte, ret_sector) != EXTENT_DATA)
        *ret_sector = 0;
    if (grain >= s->grains)
        return "behind the capacity";
    if (*ret_sector == UINT64_MAX)
        return gte >> TYPE_SHIFT == TYPE_ALLOCATED_ENTRY ? "behind the last grain of the file"
                                                         : "which has no known type";
    if (*ret_sector &&
        !range_inside(*ret_sector * VMDK_SECTOR, check_needed_bytes(s, grain), s->size))
        return "behind the end of the file: it is truncated";
    return NULL;
}

/* What is done about an entry, where a repair was asked for. */
static const char *fate(const struct sparse_check *s, bool mended)
{
    if (mended)
        return "; it was set to 0, the grain is lost";
    return s->check->mend_all ? "; it is left as it is" : "";
}

static void report(struct sparse_check *s, uint64_t grain, uint64_t gte, const char *wrong,
                   bool mended)
{
    check_found(s->check, PLATTER_FINDING_ERROR, mended, 1,
                "%s: the entry of grain %" PRIu64 " (sector %" PRIu64
                " of the extent) is 0x%016" PRIx64 ", %s%s",
                s->name, grain, grain * SE_GRAIN, gte, wrong, fate(s, mended));
}

/* Notes where a grain stands, and that it is there. */
static void place(struct sparse_check *s, uint64_t grain, uint64_t gte, uint64_t sector,
                  enum pass pass)
{
    struct platter_check_result *r = &s->check->result;
    bool twice = number_set_add(&s->indexes, (sector - s->se->se->grains.at) / SE_GRAIN);
    s->doubled |= twice;
    if (twice && pass == PASS_PLACE)
        report(s, grain, gte, "where another grain is", false);
    if (pass != PASS_JUDGE)
        return;
    r->allocated_clusters++;
    r->fragmented_clusters += s->last != 0 && sector != s->last;
    s->last = sector + SE_GRAIN;
    s->end = max_u64(s->end, s->last);
}

static void check_entry(struct sparse_check *s, struct table *t, uint32_t j, enum pass pass)
{
    uint64_t gte = get_le(t->bytes + j * 8, 8), grain = (uint64_t)t->gt * SE_GTES + j, sector;
    const char *wrong = judge(s, grain, gte, &sector);
    if (!wrong && sector)
        place(s, grain, gte, sector, pass);
    if (!wrong || pass != PASS_JUDGE)
        return;
    if (t->mend) {
        put_le(t->bytes + j * 8, 8, 0);
        t->changed = true;
    }
    report(s, grain, gte, wrong, t->mend);
}

/* Whether entries of a table may be dropped: not if most of it makes no sense, for then it may be
 * the directory that leads to something else. */
static bool makes_sense(const struct sparse_check *s, const struct table *t)
{
    uint32_t all = 0, bad = 0;
    for (uint32_t j = 0; j < SE_GTES; j++) {
        uint64_t gte = get_le(t->bytes + j * 8, 8), sector;
        if (gte == 0)
            continue;
        all++;
        judge(s, (uint64_t)t->gt * SE_GTES + j, gte, &sector);
        bad += sector == UINT64_MAX;
    }
    return bad * 2 <= all;
}

static int check_table(struct sparse_check *s, uint32_t gt, enum pass pass,
                       struct platter_error *err)
{
    struct table t = {.gt = gt};
    hoff at = (hoff)s->se->gd[gt] * VMDK_SECTOR;
    int r = stream_pread(s->stream, t.bytes, sizeof t.bytes, at, err);
    if (r < 0 || is_zero(t.bytes, sizeof t.bytes))
        return r;
    t.mend = s->mend && pass == PASS_JUDGE && makes_sense(s, &t);
    for (uint32_t j = 0; j < SE_GTES; j++)
        if (get_le(t.bytes + j * 8, 8))
            check_entry(s, &t, j, pass);
    return t.changed ? stream_pwrite(s->stream, t.bytes, sizeof t.bytes, at, err) : 0;
}

/* The table may be there yet: it is not let go of by an entry that says there is none. */
static void report_table(struct sparse_check *s, int code, const struct platter_error *why)
{
    if (code == -PLATTER_ECORRUPT)
        check_found(s->check, PLATTER_FINDING_ERROR, false, 1, "%s%s", why->message,
                    s->check->mend_all ? "; it is left as it is" : "");
    else
        check_failed(s->check, code, why);
}

static int check_tables_of(struct sparse_check *s, enum pass pass, struct platter_error *err)
{
    int r = 0;
    s->doubled = false;
    for (uint32_t i = 0; i < s->gd_count && r == 0; i++) {
        struct platter_error why = {0};
        if (s->se->gd[i] == 0)
            continue;
        int bad = sparse_check_table(s->se, i, &why);
        if (bad < 0 && pass == PASS_JUDGE)
            report_table(s, bad, &why);
        r = bad < 0 ? 0 : check_table(s, i, pass, err);
        if (r == 0)
            r = check_progress(s->check, i, s->gd_count, err);
    }
    return r;
}

/* Grains that two entries name, as many of them at a time as there is memory for. */
static int check_doubled(struct sparse_check *s, struct platter_error *err)
{
    int r = number_set_open(&s->indexes, s->budget, err);
    for (uint64_t from = 0; from != UINT64_MAX && r == 0; from = s->indexes.end) {
        number_set_begin(&s->indexes, from);
        r = check_tables_of(s, from == 0 ? PASS_JUDGE : PASS_MARK, err);
        number_set_again(&s->indexes);
        if (r == 0 && s->doubled)
            r = check_tables_of(s, PASS_PLACE, err);
    }
    return r;
}

/* A repair changes entries only where nobody else keeps books on them. */
static int check_unkept(struct sparse_check *s, struct platter_error *err)
{
    int r = s->mend ? se_judge(s->se, 1, err) : 0;
    if (r < 0 || !s->mend || !s->se->se->kept)
        return r;
    s->mend = false;
    check_found(s->check, PLATTER_FINDING_NOTE, false, 1,
                "%s: a seSparse file whose tables are not repaired, for %s: convert it, with "
                "--salvage if need be",
                s->name, s->se->se->kept);
    return 0;
}

int check_se(struct sparse_check *s, struct platter_error *err)
{
    int r = check_unkept(s, err);
    if (r == 0)
        r = check_doubled(s, err);
    return r == 0 && s->mend ? stream_flush(s->stream, err) : r;
}

/* ---- the directory --------------------------------------------------------------------------- */

/* An entry that names a table. */
struct named {
    uint32_t sector, index;
};

static int compare_named(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    if (x->sector != y->sector)
        return x->sector < y->sector ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

/* Two ranges of the disk in one table, which is judged for the first of them alone: what makes no
 * sense for one may be the other's; and a small file may name a table very often. */
static int check_apart(struct sparse_check *s, struct platter_error *err)
{
    uint64_t bytes = (uint64_t)s->gd_count * sizeof(struct named);
    uint32_t *gd = s->se->gd, n = 0, owner = 0;
    struct named *list;
    int r = budget_alloc(s->budget, bytes, "the grain tables of a VMDK", &list, err);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < s->gd_count; i++)
        if (gd[i] && gd[i] != VMDK_LOST_TABLE)
            list[n++] = (struct named){gd[i], i};
    qsort(list, n, sizeof *list, compare_named);
    for (uint32_t i = 1; i < n; i++) {
        if (list[i].sector != list[owner].sector) {
            owner = i;
            continue;
        }
        check_found(s->check, PLATTER_FINDING_ERROR, false, 1,
                    "%s: entries %" PRIu32 " and %" PRIu32 " of the grain directory both name the "
                    "table at sector %" PRIu32,
                    s->name, list[owner].index, list[i].index, list[i].sector);
        gd[list[i].index] = 0;
    }
    budget_free(s->budget, list, bytes);
    return 0;
}

int check_se_header(struct sparse_check *s, struct platter_error *err)
{
    struct platter_error why = {0};
    int r = sparse_open(s->img, s->stream, false, &s->se, &why);
    if (r < 0) {
        check_failed(s->check, r, &why);
        return 1;
    }
    s->h = s->se->header;
    s->grains = div_up(s->h.capacity, SE_GRAIN);
    s->gd_count = s->se->gd_count;
    s->check->result.total_clusters += s->grains;
    return s->gd_count ? check_apart(s, err) : 0;
}
