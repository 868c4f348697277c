/* SPDX-License-Identifier: MIT */
/*
 * seSparse files that are checked: vmdk.md section 7. What their free bitmap, back map and journal
 * say is not documented, so they are only judged, by headers and tables, and space of nobody is not
 * looked for: the host keeps free grains inside of the file.
 */
#include <inttypes.h>

#include "format/vmdk/check.h"

enum { TYPE_SHIFT = 60, TYPE_ALLOCATED_ENTRY = 3 };

/* Why an entry cannot be, or NULL; *ret_sector is where its grain stands, 0: it has none. */
static const char *judge(const struct sparse_check *s, uint64_t gte, uint64_t *ret_sector)
{
    if (sparse_entry(s->se, gte, ret_sector) != EXTENT_DATA)
        *ret_sector = 0;
    if (*ret_sector != UINT64_MAX)
        return NULL;
    return gte >> TYPE_SHIFT == TYPE_ALLOCATED_ENTRY ? "behind the last grain of the file"
                                                     : "which has no known type";
}

static void report(struct sparse_check *s, uint64_t grain, uint64_t gte, const char *wrong)
{
    check_found(s->check, PLATTER_FINDING_ERROR, false, 1,
                "%s: the entry of grain %" PRIu64 " (sector %" PRIu64
                " of the extent) is 0x%016" PRIx64 ", %s",
                s->name, grain, grain * SE_GRAIN, gte, wrong);
}

/* Notes where a grain stands, and that it is there. */
static void place(struct sparse_check *s, uint64_t grain, uint64_t gte, uint64_t sector,
                  enum pass pass)
{
    struct platter_check_result *r = &s->check->result;
    if (check_use(s, sector, SE_GRAIN) && pass != PASS_MARK)
        report(s, grain, gte, "where another grain is");
    if (pass != PASS_JUDGE)
        return;
    r->allocated_clusters++;
    r->fragmented_clusters += s->last != 0 && sector != s->last;
    s->last = sector + SE_GRAIN;
}

static void check_entry(struct sparse_check *s, uint64_t grain, uint64_t gte, enum pass pass)
{
    uint64_t sector;
    const char *wrong = judge(s, gte, &sector);
    uint64_t need = SE_GRAIN;
    if (grain >= s->grains)
        wrong = "behind the capacity";
    else
        need = min_u64(SE_GRAIN, s->h.capacity - grain * SE_GRAIN);
    if (!wrong && sector && !range_inside(sector * VMDK_SECTOR, need * VMDK_SECTOR, s->size))
        wrong = "behind the end of the file: it is truncated";
    if (wrong && pass == PASS_JUDGE)
        report(s, grain, gte, wrong);
    if (!wrong && sector)
        place(s, grain, gte, sector, pass);
}

static int check_table(struct sparse_check *s, uint32_t gt, enum pass pass,
                       struct platter_error *err)
{
    uint8_t table[SE_GT_SECTORS * VMDK_SECTOR];
    int r = stream_pread(s->stream, table, sizeof table, (hoff)s->se->gd[gt] * VMDK_SECTOR, err);
    if (r < 0 || is_zero(table, sizeof table))
        return r;
    for (uint32_t j = 0; j < SE_GTES; j++) {
        uint64_t gte = get_le(table + j * 8, 8);
        if (gte)
            check_entry(s, (uint64_t)gt * SE_GTES + j, gte, pass);
    }
    return 0;
}

int check_se_tables(struct sparse_check *s, enum pass pass, struct platter_error *err)
{
    int r = 0;
    for (uint32_t i = 0; i < s->gd_count && r == 0; i++) {
        struct platter_error why = {0};
        if (s->se->gd[i] == 0)
            continue;
        r = sparse_check_table(s->se, i, &why);
        if (r < 0 && pass == PASS_JUDGE)
            check_failed(s->check, r, &why);
        r = r < 0 ? 0 : check_table(s, i, pass, err);
        if (r == 0)
            r = check_progress(s->check, i, s->gd_count, err);
    }
    return r;
}

/* Two ranges of the disk in one table. */
static int compare_tables(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static int check_apart(struct sparse_check *s, struct platter_error *err)
{
    uint64_t bytes = (uint64_t)s->gd_count * 4;
    uint32_t *sorted;
    int r = budget_alloc(s->budget, bytes, "the grain tables of a VMDK", &sorted, err);
    if (r < 0)
        return r;
    memcpy(sorted, s->se->gd, bytes);
    qsort(sorted, s->gd_count, 4, compare_tables);
    for (uint32_t i = 1; i < s->gd_count; i++)
        if (sorted[i] && sorted[i] != VMDK_LOST_TABLE && sorted[i] == sorted[i - 1])
            check_found(s->check, PLATTER_FINDING_ERROR, false, 1,
                        "%s: two entries of the grain directory name the table at sector %" PRIu32,
                        s->name, sorted[i]);
    budget_free(s->budget, sorted, bytes);
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
