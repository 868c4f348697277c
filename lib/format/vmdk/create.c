/* SPDX-License-Identifier: MIT */
/* New images: vmdk.md sections 4.5 and 9. All grain tables exist from the start, as holes. */
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

static const char *const subformats[] = {"monolithicSparse", "streamOptimized", NULL};
const char *const vmdk_adapters[] = {"ide", "lsilogic", "buslogic", "legacyESX", NULL};

const struct option_def vmdk_options[] = {
    {"adapter_type", OPTION_ENUM, "ide", vmdk_adapters, 0, 0,
     "virtual disk controller that the descriptor names"},
    {"compat6", OPTION_BOOL, "off", NULL, 0, 0, "hardware version 6 (excludes hwversion)"},
    {"hwversion", OPTION_STRING, "4", NULL, 0, 0, "virtual hardware version"},
    {"subformat", OPTION_ENUM, "monolithicSparse", subformats, 0, 0,
     "layout: in one file that grows, or compressed for transport"},
    {"toolsversion", OPTION_STRING, "2147483647", NULL, 0, 0, "version of the guest tools"},
    {"zeroed_grain", OPTION_BOOL, "off", NULL, 0, 0, "let tables mark ranges of zeros"},
    {0},
};

bool vmdk_ordered(const struct option_values *options)
{
    return options_enum(options, "subformat") == SUBFORMAT_STREAM_OPTIMIZED;
}

uint32_t vmdk_create_unit(const struct option_values *options)
{
    (void)options;
    return VMDK_GRAIN * VMDK_SECTOR;
}

/* ---- layout ---------------------------------------------------------------------------------- */

enum { GT_SECTORS = VMDK_GTES * 4 / VMDK_SECTOR };

struct layout {
    struct hosted_header header;
    uint64_t tables;     /* in each copy */
    uint64_t gd_sectors; /* of each copy */
};

static int plan_layout(uint64_t size, bool zeroed, struct layout *ret, struct platter_error *err)
{
    uint64_t sectors = div_up(size, VMDK_SECTOR);
    uint64_t tables = div_up(sectors, VMDK_GRAIN * VMDK_GTES);
    uint64_t gd_sectors = div_up(tables * 4, VMDK_SECTOR);
    uint64_t copy = gd_sectors + tables * GT_SECTORS;
    uint64_t rgd = VMDK_DESCRIPTOR_SECTOR + VMDK_DESCRIPTOR_SECTORS;
    uint64_t overhead = round_up(rgd + 2 * copy, VMDK_GRAIN);
    if (tables > VMDK_MAX_DIRECTORY || overhead >= UINT32_MAX)
        return fail(err, EFBIG, "a disk of %" PRIu64 " bytes is too large for a VMDK of one file",
                    size);
    ret->tables = tables;
    ret->gd_sectors = gd_sectors;
    ret->header = (struct hosted_header){
        .version = zeroed ? 2 : 1,
        .flags = HOSTED_NEWLINES | HOSTED_REDUNDANT | (zeroed ? HOSTED_ZEROED : 0),
        .capacity = sectors,
        .grain_size = VMDK_GRAIN,
        .descriptor_offset = VMDK_DESCRIPTOR_SECTOR,
        .descriptor_size = VMDK_DESCRIPTOR_SECTORS,
        .gtes_per_gt = VMDK_GTES,
        .rgd_offset = rgd,
        .gd_offset = rgd + copy,
        .overhead = overhead,
    };
    return 0;
}

/* A directory at `sector`, whose tables follow it one after the other. */
static int write_directory(struct stream *s, const struct layout *l, uint64_t sector,
                           struct platter_error *err)
{
    enum { PER_WRITE = 4096 };
    uint8_t entries[PER_WRITE * 4];
    uint64_t first = sector + l->gd_sectors;
    int r = 0;
    for (uint64_t i = 0; i < l->tables && r == 0; i += PER_WRITE) {
        size_t n = (size_t)min_u64(l->tables - i, PER_WRITE);
        for (size_t k = 0; k < n; k++)
            put_le(entries + 4 * k, 4, first + (i + k) * GT_SECTORS);
        r = stream_pwrite(s, entries, n * 4, sector * VMDK_SECTOR + i * 4, err);
    }
    return r;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int vmdk_create(const struct create_request *request, struct platter_error *err)
{
    struct layout l;
    struct descriptor_plan plan;
    struct stream *s = request->stream;
    int r = plan_layout(request->size, options_bool(request->options, "zeroed_grain"), &l, err);
    if (r < 0)
        return fail_in(err, r, "%s", request->name);
    r = descriptor_plan(request, &plan, err);
    if (r < 0)
        return r;
    plan.create_type = subformats[SUBFORMAT_MONOLITHIC_SPARSE];
    plan.access = "RW";
    plan.extent = base_name(request->name);
    plan.cid = descriptor_new_cid();

    uint8_t front[(1 + VMDK_DESCRIPTOR_SECTORS) * VMDK_SECTOR];
    hosted_encode(&l.header, front);
    r = descriptor_compose(&plan, request->name, front + VMDK_SECTOR, err);
    if (r == 0)
        r = stream_resize(s, l.header.overhead * VMDK_SECTOR, err);
    if (r == 0)
        r = write_directory(s, &l, l.header.rgd_offset, err);
    if (r == 0)
        r = write_directory(s, &l, l.header.gd_offset, err);
    return r < 0 ? r : stream_pwrite(s, front, sizeof front, 0, err);
}

/* ---- measure --------------------------------------------------------------------------------- */

/* A stream: header and descriptor to the first grain, the longest records there can be, tables. */
static void measure_stream(uint64_t size, uint64_t data, struct platter_measurement *ret)
{
    const uint64_t grain = VMDK_GRAIN * VMDK_SECTOR, record = grain + VMDK_SECTOR;
    uint64_t grains = div_up(size, grain), tables = div_up(grains, VMDK_GTES);
    uint64_t table = (1 + GT_SECTORS) * VMDK_SECTOR;
    uint64_t fixed = grain + (1 + div_up(tables * 4, VMDK_SECTOR) + 3) * VMDK_SECTOR;
    uint64_t used = div_up(data, grain);
    ret->required = fixed + used * record + min_u64(used, tables) * table;
    ret->fully_allocated = fixed + grains * record + tables * table;
}

int vmdk_measure(uint64_t size, uint64_t data, const struct option_values *options,
                 struct platter_measurement *ret, struct platter_error *err)
{
    struct layout l = {0};
    int r = plan_layout(size, false, &l, err);
    if (r < 0)
        return r;
    if (vmdk_ordered(options)) {
        measure_stream(size, data, ret);
        return 0;
    }
    const uint64_t grain = VMDK_GRAIN * VMDK_SECTOR;
    uint64_t overhead = l.header.overhead * VMDK_SECTOR;
    ret->required = overhead + div_up(data, grain) * grain;
    ret->fully_allocated = overhead + div_up(size, grain) * grain;
    return 0;
}
