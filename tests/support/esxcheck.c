/* SPDX-License-Identifier: MIT */
/*
 * Looks at COWD and seSparse files (vmdk.md sections 6 and 7): what entries name stands in the file
 * and is used once, and what the header says is free is free, whenever the power went.
 */
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "support/imagecheck.h"
#include "support/must.h"

enum { TABLE_ENTRIES = 4096 };

struct file {
    const uint8_t *bytes;
    uint64_t size;
    struct image_report *report;
    uint8_t *used; /* per sector */
};

static uint64_t le(const struct file *f, uint64_t off, unsigned n)
{
    if (range_inside(off, n, f->size))
        return get_le(f->bytes + off, n);
    report_error(f->report, "what should stand at %#llx lies past the end",
                 (unsigned long long)off);
    return 0;
}

/* Takes sectors for one thing. */
static void take(struct file *f, const char *what, uint64_t number, uint64_t at, uint64_t n)
{
    if (!range_inside(at, n, f->size / 512)) {
        report_error(f->report, "%s %llu at sector %llu lies past the end", what,
                     (unsigned long long)number, (unsigned long long)at);
        return;
    }
    for (uint64_t i = at; i < at + n; i++)
        if (f->used[i]++)
            report_error(f->report, "%s %llu stands at sector %llu, where something else is", what,
                         (unsigned long long)number, (unsigned long long)at);
}

/* The last grain of a file may be cut. */
static uint64_t whole(const struct file *f, uint64_t at, uint64_t n)
{
    uint64_t end = f->size / 512;
    return at < end ? min_u64(n, end - at) : n;
}

static void check_cowd_table(struct file *f, uint64_t table, uint64_t at, uint64_t *end)
{
    uint64_t grain = le(f, 16, 4);
    take(f, "table", table, at, 32);
    *end = max_u64(*end, at + 32);
    for (uint64_t i = 0; i < TABLE_ENTRIES && range_inside(at * 512, 32 * 512, f->size); i++) {
        uint64_t gte = le(f, at * 512 + i * 4, 4);
        if (gte == 0)
            continue;
        take(f, "grain", table * TABLE_ENTRIES + i, gte, whole(f, gte, grain));
        *end = max_u64(*end, gte + grain);
    }
}

static void check_cowd(struct file *f)
{
    uint64_t gd = le(f, 20, 4), entries = le(f, 24, 4), free_sector = le(f, 28, 4), end = 0;
    uint64_t capacity = le(f, 12, 4), grain = le(f, 16, 4);
    if (grain == 0 || gd < 4 || entries < div_up(capacity, grain * TABLE_ENTRIES)) {
        report_error(f->report, "the header's numbers cannot be");
        return;
    }
    take(f, "header", 0, 0, 4);
    take(f, "directory", 0, gd, div_up(entries * 4, 512));
    for (uint64_t i = 0; i < entries && range_inside(gd * 512, entries * 4, f->size); i++) {
        uint64_t at = le(f, gd * 512 + i * 4, 4);
        if (at != 0)
            check_cowd_table(f, i, at, &end);
    }
    if (free_sector < end)
        report_error(f->report, "sector %llu is free by the header, but %llu are used",
                     (unsigned long long)free_sector, (unsigned long long)end);
    for (uint64_t i = 0; i < f->size / 512; i++)
        if (!f->used[i])
            report_leak(f->report, "sector %llu belongs to nobody", (unsigned long long)i);
}

static uint64_t area(const struct file *f, unsigned number)
{
    return le(f, 80 + 16 * number, 8);
}

static void check_se_table(struct file *f, uint64_t table, uint64_t at)
{
    uint64_t grains = area(f, 7);
    take(f, "table", table, at, 64);
    for (uint64_t i = 0; i < TABLE_ENTRIES && range_inside(at, 64, f->size / 512); i++) {
        uint64_t gte = le(f, at * 512 + i * 8, 8);
        uint64_t index = (gte >> 48 & 0xfff) | (gte & UINT64_C(0xffffffffffff)) << 12;
        uint64_t number = table * TABLE_ENTRIES + i;
        if (gte >> 60 == 3 && index < 1 << 30)
            take(f, "grain", number, grains + index * 8, whole(f, grains + index * 8, 8));
        else if (gte != 0 && gte >> 60 != 1 && gte >> 60 != 2)
            report_error(f->report, "the entry of grain %llu is %#llx", (unsigned long long)number,
                         (unsigned long long)gte);
    }
}

static void check_sesparse(struct file *f)
{
    uint64_t capacity = le(f, 16, 8), gd = area(f, 3), gt = area(f, 4);
    uint64_t free_table = le(f, area(f, 0) * 512 + 8, 8), tables = le(f, 88 + 16 * 4, 8) / 64;
    if (capacity > f->size * 64 || le(f, area(f, 0) * 512, 8) != 0xcafecafe) {
        report_error(f->report, "the header's numbers cannot be");
        return;
    }
    for (uint64_t i = 0; i < div_up(capacity, 8 * TABLE_ENTRIES); i++) {
        uint64_t gde = le(f, gd * 512 + i * 8, 8);
        if (gde == 0)
            continue;
        if (gde >> 32 != 0x10000000 || (uint32_t)gde >= min_u64(tables, free_table))
            report_error(f->report, "entry %llu of the directory is %#llx", (unsigned long long)i,
                         (unsigned long long)gde);
        else
            check_se_table(f, i, gt + 64 * (uint32_t)gde);
    }
}

void esx_judge(const uint8_t *bytes, uint64_t size, struct image_report *ret)
{
    struct file f = {.bytes = bytes, .size = size, .report = ret};
    f.used = calloc(size / 512 + 1, 1);
    MUST(f.used);
    if (memcmp(bytes, "COWD", 4) == 0)
        check_cowd(&f);
    else
        check_sesparse(&f);
    free(f.used);
}
