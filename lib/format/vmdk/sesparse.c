/* SPDX-License-Identifier: MIT */
/*
 * seSparse: the headers, the directory, and what entries say: vmdk.md section 7.
 *
 * The file is cut into areas, each for one thing, at places that the header names. So nothing that
 * an entry names needs to be compared with what else there is, as in other sparse files: an index
 * inside its own area is enough. Directory entries are kept as sectors, as everywhere (sparse.c);
 * entries of tables stay as they are, for those of unmapped grains remember something that is not
 * ours to lose.
 */
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

#define SE_MAGIC          UINT64_C(0x00000000cafebabe)
#define SE_VOLATILE_MAGIC UINT64_C(0x00000000cafecafe)
#define SE_VERSION        UINT64_C(0x0000000200000001)
#define SE_TABLE_ENTRY    UINT64_C(0x10000000) /* the high half of a directory entry */

enum {
    SE_PADDING_AT = 208, /* of the constant header */
    SE_VOLATILE_PADDING_AT = 32,
    SE_AREAS = 8,
    SE_GDES_PER_SECTOR = VMDK_SECTOR / 8
};

bool se_magic(const uint8_t *sector)
{
    return get_le(sector, 8) == SE_MAGIC;
}

void se_free(struct sparse *s)
{
    free(TAKE(s->se));
}

/* ---- the constant header --------------------------------------------------------------------- */

struct se_header {
    uint64_t version, capacity, grain_size, gt_size, flags, reserved[4];
};

static struct se_area read_area(struct reader *r)
{
    uint64_t at = read_le64(r);
    return (struct se_area){.at = at, .size = read_le64(r)};
}

static void decode(const uint8_t sector[VMDK_SECTOR], struct se_header *h, struct sesparse *se)
{
    struct reader r = reader_over(sector, VMDK_SECTOR);
    read_skip(&r, 8);
    h->version = read_le64(&r);
    h->capacity = read_le64(&r);
    h->grain_size = read_le64(&r);
    h->gt_size = read_le64(&r);
    h->flags = read_le64(&r);
    for (unsigned i = 0; i < 4; i++)
        h->reserved[i] = read_le64(&r);
    se->volatile_header = read_area(&r);
    se->journal_header = read_area(&r);
    se->journal = read_area(&r);
    se->directory = read_area(&r);
    se->tables = read_area(&r);
    se->free_bitmap = read_area(&r);
    se->back_map = read_area(&r);
    se->grains = read_area(&r);
}

static int check_numbers(const char *name, const struct se_header *h, struct platter_error *err)
{
    if (h->version != SE_VERSION)
        return fail(err, ENOTSUP,
                    "%s: seSparse version 0x%016" PRIx64 " is not known (0x%016" PRIx64 " is)",
                    name, h->version, SE_VERSION);
    if (h->grain_size != SE_GRAIN)
        return fail(err, ENOTSUP,
                    "%s: seSparse grains (header offset 24) of %" PRIu64
                    " sectors are not known (%d are)",
                    name, h->grain_size, SE_GRAIN);
    if (h->gt_size != SE_GT_SECTORS)
        return fail(err, ENOTSUP,
                    "%s: seSparse grain tables (header offset 32) of %" PRIu64
                    " sectors are not known (%d are)",
                    name, h->gt_size, SE_GT_SECTORS);
    if (h->flags != 0)
        return fail(err, ENOTSUP,
                    "%s: seSparse header flags 0x%016" PRIx64 " have bits that are not known", name,
                    h->flags);
    if (h->capacity == 0 || h->capacity > VMDK_MAX_SECTORS)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: capacity (header offset 16) of %" PRIu64 " sectors cannot be", name,
                    h->capacity);
    return 0;
}

static int check_reserved(const char *name, const uint8_t sector[VMDK_SECTOR],
                          const struct se_header *h, struct platter_error *err)
{
    for (unsigned i = 0; i < 4; i++)
        if (h->reserved[i] != 0)
            return fail(err, ENOTSUP,
                        "%s: reserved field %u of its seSparse header (offset %u) is not 0", name,
                        i + 1, 48 + 8 * i);
    if (!is_zero(sector + SE_PADDING_AT, VMDK_SECTOR - SE_PADDING_AT))
        return fail(err, ENOTSUP,
                    "%s: the padding of its seSparse header (offset %d) is not all zero", name,
                    SE_PADDING_AT);
    return 0;
}

/* ---- areas ----------------------------------------------------------------------------------- */

struct named_area {
    const char *name;
    const struct se_area *area;
    bool needed;
};

static void name_areas(const struct sesparse *se, struct named_area ret[SE_AREAS])
{
    const struct named_area areas[SE_AREAS] = {
        {"volatile header", &se->volatile_header, true},
        {"journal header", &se->journal_header, false},
        {"journal", &se->journal, false},
        {"grain directory", &se->directory, true},
        {"grain table", &se->tables, true},
        {"free bitmap", &se->free_bitmap, false},
        {"back map", &se->back_map, false},
        {"grain", &se->grains, true},
    };
    memcpy(ret, areas, sizeof areas);
}

/* The grains are written as the file grows; all else must be there. */
static int check_area(const struct sparse *s, const struct named_area *a, struct platter_error *err)
{
    const struct se_area *area = a->area;
    bool grows = area == &s->se->grains;
    if (area->size == 0 && !a->needed)
        return 0;
    if (area->size == 0 || area->at == 0 || area->size > VMDK_MAX_SECTORS ||
        area->at > VMDK_MAX_SECTORS)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the %s area (%" PRIu64 " sectors from sector %" PRIu64 " on) cannot be",
                    s->stream->name, a->name, area->size, area->at);
    if (!grows && !range_inside(area->at, area->size, s->end / VMDK_SECTOR))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the %s area (%" PRIu64 " sectors from sector %" PRIu64
                    " on) is not inside the file of %" PRIu64 " bytes: it is truncated or damaged",
                    s->stream->name, a->name, area->size, area->at, s->end);
    return 0;
}

static bool areas_overlap(const struct se_area *a, const struct se_area *b)
{
    return a->size != 0 && b->size != 0 && a->at < b->at + b->size && b->at < a->at + a->size;
}

static int check_areas(const struct sparse *s, struct platter_error *err)
{
    struct named_area areas[SE_AREAS];
    name_areas(s->se, areas);
    for (unsigned i = 0; i < SE_AREAS; i++) {
        int r = check_area(s, &areas[i], err);
        if (r < 0)
            return r;
        for (unsigned k = 0; k < i; k++)
            if (areas_overlap(areas[i].area, areas[k].area))
                return fail(err, PLATTER_ECORRUPT,
                            "%s: the %s area (from sector %" PRIu64
                            " on) and the %s area (from sector %" PRIu64 " on) overlap",
                            s->stream->name, areas[k].name, areas[k].area->at, areas[i].name,
                            areas[i].area->at);
    }
    return 0;
}

/* How many grains there can be. The last may reach over the end of its area, if nothing is there.
 */
static uint64_t count_grains(const struct sesparse *se)
{
    struct named_area areas[SE_AREAS];
    name_areas(se, areas);
    for (unsigned i = 0; i < SE_AREAS; i++)
        if (areas[i].area->size != 0 && areas[i].area->at > se->grains.at)
            return se->grains.size / SE_GRAIN;
    return div_up(se->grains.size, SE_GRAIN);
}

/* ---- the volatile header, and all of it ------------------------------------------------------ */

static int read_volatile(struct sparse *s, struct platter_error *err)
{
    uint8_t sector[VMDK_SECTOR];
    const char *name = s->stream->name;
    hoff at = s->se->volatile_header.at * VMDK_SECTOR;
    int r = stream_pread(s->stream, sector, sizeof sector, at, err);
    if (r < 0)
        return r;
    if (get_le(sector, 8) != SE_VOLATILE_MAGIC)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: no volatile header (0xcafecafe) of a seSparse file at byte %" PRIu64, name,
                    at);
    if (get_le(sector + 24, 8) != 0)
        return fail(err, ENOTSUP,
                    "%s: it was not closed, and changes wait in its journal (volatile header, "
                    "replayJournal), which only ESX can read: open it there and shut it down",
                    name);
    if (!is_zero(sector + SE_VOLATILE_PADDING_AT, VMDK_SECTOR - SE_VOLATILE_PADDING_AT))
        return fail(err, ENOTSUP,
                    "%s: the padding of its volatile header (at byte %" PRIu64 ") is not all zero",
                    name, at + SE_VOLATILE_PADDING_AT);
    s->se->free_table = get_le(sector + SE_FREE_TABLE_AT, 8);
    return 0;
}

static int check_directory(const struct sparse *s, uint64_t capacity, struct platter_error *err)
{
    uint64_t needed = div_up(capacity, SE_GRAIN * SE_GTES);
    if (needed > VMDK_MAX_DIRECTORY || s->se->directory.size < div_up(needed, SE_GDES_PER_SECTOR))
        return fail(err, PLATTER_ECORRUPT,
                    "%s: a capacity of %" PRIu64 " sectors takes a grain directory of %" PRIu64
                    " entries, but its area has %" PRIu64 " sectors of %d entries (%d entries are "
                    "the limit)",
                    s->stream->name, capacity, needed, s->se->directory.size, SE_GDES_PER_SECTOR,
                    VMDK_MAX_DIRECTORY);
    return 0;
}

static int read_constant(struct sparse *s, struct platter_error *err)
{
    uint8_t sector[VMDK_SECTOR];
    struct se_header h;
    int r = stream_pread(s->stream, sector, sizeof sector, 0, err);
    if (r < 0)
        return r;
    decode(sector, &h, s->se);
    r = check_numbers(s->stream->name, &h, err);
    if (r == 0)
        r = check_reserved(s->stream->name, sector, &h, err);
    if (r == 0)
        r = check_areas(s, err);
    if (r == 0)
        r = check_directory(s, h.capacity, err);
    if (r < 0)
        return r;
    s->header = (struct hosted_header){.version = 2, /* 2.1, of which others show as much */
                                       .capacity = h.capacity,
                                       .grain_size = SE_GRAIN,
                                       .gtes_per_gt = SE_GTES,
                                       .gd_offset = s->se->directory.at};
    s->gd_count = (uint32_t)div_up(h.capacity, SE_GRAIN * SE_GTES);
    s->se->n_grains = count_grains(s->se);
    return 0;
}

int se_read(struct sparse *s, struct platter_error *err)
{
    s->se = calloc(1, sizeof *s->se);
    if (!s->se)
        return fail_memory(err, "a seSparse header");
    s->se->kept = "it was not looked at as a whole";
    int r = read_constant(s, err);
    return r < 0 ? r : read_volatile(s, err);
}

/* ---- the directory --------------------------------------------------------------------------- */

static uint32_t table_sector(const struct sesparse *se, uint64_t gde)
{
    uint64_t index = gde & UINT32_MAX;
    if (gde == 0)
        return 0;
    if (gde >> 32 != SE_TABLE_ENTRY || index >= se->tables.size / SE_GT_SECTORS ||
        se->tables.at + (index + 1) * SE_GT_SECTORS > UINT32_MAX)
        return VMDK_LOST_TABLE;
    return (uint32_t)(se->tables.at + index * SE_GT_SECTORS);
}

int se_read_directory(struct sparse *s, struct platter_error *err)
{
    enum { PIECE = 2048 }; /* entries */
    uint8_t bytes[PIECE * 8];
    int r = budget_alloc(s->budget, (uint64_t)s->gd_count * 4, "the grain directory of a VMDK",
                         &s->gd, err);
    for (uint32_t first = 0; first < s->gd_count && r == 0; first += PIECE) {
        uint32_t n = (uint32_t)min_u64(s->gd_count - first, PIECE);
        r = stream_pread(s->stream, bytes, n * 8,
                         s->se->directory.at * VMDK_SECTOR + first * UINT64_C(8), err);
        for (uint32_t i = 0; i < n && r == 0; i++)
            s->gd[first + i] = table_sector(s->se, get_le(bytes + i * 8, 8));
    }
    return r;
}

int se_write_gde(struct sparse *s, uint64_t gt, uint32_t sector, struct platter_error *err)
{
    uint8_t entry[8];
    put_le(entry, 4, (sector - s->se->tables.at) / SE_GT_SECTORS);
    put_le(entry + 4, 4, SE_TABLE_ENTRY);
    return stream_pwrite(s->stream, entry, sizeof entry, s->se->directory.at * VMDK_SECTOR + gt * 8,
                         err);
}

/* ---- entries of grain tables ----------------------------------------------------------------- */

enum { TYPE_UNALLOCATED, TYPE_UNMAPPED, TYPE_ZEROED, TYPE_ALLOCATED };

static unsigned type_of(uint64_t gte)
{
    return (unsigned)(gte >> 60);
}

/* The low 12 bits of an index stand above the others. */
static uint64_t index_of(uint64_t gte)
{
    return (gte >> 48 & 0xfff) | (gte & UINT64_C(0xffffffffffff)) << 12;
}

enum extent_kind se_entry(const struct sparse *s, uint64_t gte, uint64_t *ret_sector)
{
    *ret_sector = UINT64_MAX;
    if (gte == 0)
        return EXTENT_BACKING;
    if (type_of(gte) == TYPE_UNMAPPED || type_of(gte) == TYPE_ZEROED)
        return EXTENT_ZERO;
    if (type_of(gte) == TYPE_ALLOCATED && index_of(gte) < s->se->n_grains)
        *ret_sector = s->se->grains.at + index_of(gte) * SE_GRAIN;
    return EXTENT_DATA; /* at no place at all where the entry cannot be */
}

uint64_t se_entry_of(const struct sparse *s, uint64_t sector)
{
    uint64_t index = (sector - s->se->grains.at) / SE_GRAIN;
    return (uint64_t)TYPE_ALLOCATED << 60 | (index & 0xfff) << 48 | index >> 12;
}

uint64_t se_used_end(uint64_t gte)
{
    return type_of(gte) == TYPE_UNMAPPED || type_of(gte) == TYPE_ALLOCATED ? index_of(gte) + 1 : 0;
}
