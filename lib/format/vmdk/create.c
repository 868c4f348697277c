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

/* ---- create ---------------------------------------------------------------------------------- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int vmdk_create(const struct create_request *request, struct platter_error *err)
{
    struct sparse_layout l;
    struct descriptor_plan plan;
    uint8_t descriptor[VMDK_DESCRIPTOR_SECTORS * VMDK_SECTOR];
    int r = layout_plan(request->name, div_up(request->size, VMDK_SECTOR),
                        options_bool(request->options, "zeroed_grain"), &l, err);
    if (r == 0)
        r = descriptor_plan(request, &plan, err);
    if (r < 0)
        return r;
    plan.create_type = subformats[SUBFORMAT_MONOLITHIC_SPARSE];
    plan.access = "RW";
    plan.extent = base_name(request->name);
    plan.cid = descriptor_new_cid();

    r = descriptor_compose(&plan, request->name, descriptor, err);
    return r < 0 ? r : layout_write(request->stream, &l, descriptor, err);
}

/* ---- measure --------------------------------------------------------------------------------- */

/* A stream: header and descriptor to the first grain, the longest records there can be, tables. */
static void measure_stream(uint64_t size, uint64_t data, struct platter_measurement *ret)
{
    const uint64_t grain = VMDK_GRAIN * VMDK_SECTOR, record = grain + VMDK_SECTOR;
    uint64_t grains = div_up(size, grain), tables = div_up(grains, VMDK_GTES);
    uint64_t table = VMDK_SECTOR + VMDK_GTES * 4;
    uint64_t fixed = grain + (1 + div_up(tables * 4, VMDK_SECTOR) + 3) * VMDK_SECTOR;
    uint64_t used = div_up(data, grain);
    ret->required = fixed + used * record + min_u64(used, tables) * table;
    ret->fully_allocated = fixed + grains * record + tables * table;
}

int vmdk_measure(uint64_t size, uint64_t data, const struct option_values *options,
                 struct platter_measurement *ret, struct platter_error *err)
{
    struct sparse_layout l = {0};
    int r = layout_plan("measure", div_up(size, VMDK_SECTOR), false, &l, err);
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
