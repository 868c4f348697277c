/* SPDX-License-Identifier: MIT */
/*
 * Looks at both grain tables of a monolithicSparse VMDK (vmdk.md section 4): every grain inside the
 * file and behind the metadata, used once. Where the two copies differ, one of them must be empty,
 * and the image must say that it was not closed (section 12).
 */
#include "support/imagecheck.h"

#include <stdlib.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "support/must.h"

enum { USED_BY_GRAIN = 1, USED_BY_TABLE };

struct sparse {
    const uint8_t *bytes;
    uint64_t size;
    struct image_report *report;
    uint64_t capacity, grain, per_table, gd, rgd, overhead; /* sectors, but for per_table */
    bool zeroed, redundant, unclean;
    uint8_t *used; /* per grain-sized piece of the file */
};

static uint64_t le(const struct sparse *s, uint64_t off, unsigned n)
{
    if (!range_inside(off, n, s->size)) {
        report_error(s->report, "a table entry at %#llx lies past the end",
                     (unsigned long long)off);
        return 0;
    }
    return get_le(s->bytes + off, n);
}

static bool read_header(struct sparse *s)
{
    if (s->size < 512 || memcmp(s->bytes, "KDMV", 4) != 0) {
        report_error(s->report, "the header is not one of a VMDK");
        return false;
    }
    uint64_t flags = le(s, 8, 4);
    s->redundant = flags >> 1 & 1;
    s->zeroed = flags >> 2 & 1;
    s->capacity = le(s, 12, 8);
    s->grain = le(s, 20, 8);
    s->per_table = le(s, 44, 4);
    s->rgd = le(s, 48, 8);
    s->gd = le(s, 56, 8);
    s->overhead = le(s, 64, 8);
    s->unclean = le(s, 72, 1) != 0;
    if (is_power_of_2(s->grain) && s->per_table != 0 && s->capacity < s->size * 64)
        return true;
    report_error(s->report, "the header's numbers cannot be");
    return false;
}

/* Tables stand in the metadata, or (added later) in space of their own. */
static void check_tables(struct sparse *s, uint64_t directory)
{
    uint64_t tables = div_up(div_up(s->capacity, s->grain), s->per_table);
    uint64_t sectors = div_up(s->per_table * 4, 512);
    for (uint64_t i = 0; i < tables; i++) {
        uint64_t at = le(s, directory * 512 + i * 4, 4);
        if (at == 0)
            continue;
        if (!range_inside(at * 512, sectors * 512, s->size)) {
            report_error(s->report, "a grain table at sector %llu lies past the end",
                         (unsigned long long)at);
            continue;
        }
        for (uint64_t sector = max_u64(at, s->overhead); sector < at + sectors; sector++)
            s->used[sector / s->grain] = USED_BY_TABLE;
    }
}

static uint64_t table_entry(struct sparse *s, uint64_t directory, uint64_t grain)
{
    uint64_t table = le(s, directory * 512 + grain / s->per_table * 4, 4);
    return table ? le(s, table * 512 + grain % s->per_table * 4, 4) : 0;
}

static void check_grain(struct sparse *s, uint64_t grain)
{
    uint64_t at = table_entry(s, s->gd, grain);
    uint64_t copy = s->redundant ? table_entry(s, s->rgd, grain) : at;
    unsigned long long number = grain;
    if (at != copy && at > 1 && copy > 1)
        report_error(s->report, "grain %llu is at sector %llu and at %llu", number,
                     (unsigned long long)at, (unsigned long long)copy);
    else if (at != copy && !s->unclean)
        report_error(s->report, "only one table knows grain %llu though all was closed", number);
    at = max_u64(at, copy);
    if (at <= 1) {
        if (at == 1 && !s->zeroed)
            report_error(s->report, "grain %llu is marked as zero without the flag", number);
        return;
    }
    if (at < s->overhead || at % s->grain != 0 ||
        !range_inside(at * 512, s->grain * 512, s->size)) {
        report_error(s->report,
                     "grain %llu: sector %llu is in metadata, misaligned or past the end", number,
                     (unsigned long long)at);
        return;
    }
    if (s->used[at / s->grain]++)
        report_error(s->report, "sector %llu holds two grains, one is %llu", (unsigned long long)at,
                     number);
}

void vmdk_judge(const uint8_t *bytes, uint64_t size, struct image_report *ret)
{
    struct sparse s = {.bytes = bytes, .size = size, .report = ret};
    *ret = (struct image_report){0};
    if (!read_header(&s))
        return;
    uint64_t pieces = size / 512 / s.grain + 1;
    s.used = calloc(pieces, 1);
    MUST(s.used);
    check_tables(&s, s.gd);
    if (s.redundant)
        check_tables(&s, s.rgd);
    for (uint64_t grain = 0; grain < div_up(s.capacity, s.grain); grain++)
        check_grain(&s, grain);
    for (uint64_t i = div_up(s.overhead, s.grain); i + 1 < pieces; i++) {
        if (!s.used[i])
            report_leak(ret, "the grain at sector %llu belongs to nobody",
                        (unsigned long long)(i * s.grain));
    }
    free(s.used);
}
