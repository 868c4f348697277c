/* SPDX-License-Identifier: MIT */
/* New images of every subformat but the compressed one, which writer.c has: vmdk.md section 9. */
#include <inttypes.h>
#include <limits.h>

#include "format/vmdk/vmdk.h"

enum subformat_kind {
    MONOLITHIC_SPARSE,
    MONOLITHIC_FLAT,
    TWO_GB_SPARSE,
    TWO_GB_FLAT,
    STREAM_OPTIMIZED,
    VMFS
};

/* 2047 MiB, VMware's own: a sparse file of a 2 GiB piece could grow beyond 2 GiB. */
#define PIECE_SECTORS (UINT64_C(2047) << 20 >> 9)

/* Values of the options, and what they stand for. */
static const char *const subformats[] = {"monolithicSparse",
                                         "monolithicFlat",
                                         "twoGbMaxExtentSparse",
                                         "twoGbMaxExtentFlat",
                                         "streamOptimized",
                                         "vmfs",
                                         NULL};
static const char *const adapters[] = {"ide", "lsilogic", "buslogic", "legacyESX", NULL};

static const struct subformat {
    const char *type; /* of its extents, as their lines have it */
    const char *tag;  /* goes into the names of their files; NULL: there is but the image's own */
    uint64_t piece;   /* most sectors of an extent; 0: there is one extent, of any size */
    bool sparse;
    const char *adapter; /* unless another is asked */
} kinds[] = {
    [MONOLITHIC_SPARSE] = {"SPARSE", NULL, 0, true, "ide"},
    [MONOLITHIC_FLAT] = {"FLAT", "flat", 0, false, "ide"},
    [TWO_GB_SPARSE] = {"SPARSE", "s", PIECE_SECTORS, true, "ide"},
    [TWO_GB_FLAT] = {"FLAT", "f", PIECE_SECTORS, false, "ide"},
    /* Meant for OVA and ESXi, which want no ide: section 3.6. */
    [STREAM_OPTIMIZED] = {"SPARSE", NULL, 0, true, "lsilogic"},
    [VMFS] = {"VMFS", "flat", 0, false, "lsilogic"},
};

const struct option_def vmdk_options[] = {
    {"adapter_type", OPTION_ENUM, "ide", adapters, 0, 0,
     "disk controller that the descriptor names; if not given, lsilogic for streamOptimized and "
     "vmfs"},
    {"compat6", OPTION_BOOL, "off", NULL, 0, 0, "hardware version 6 (excludes hwversion)"},
    {"hwversion", OPTION_STRING, "4", NULL, 0, 0, "virtual hardware version"},
    {"subformat", OPTION_ENUM, "monolithicSparse", subformats, 0, 0,
     "what files the image is made of"},
    {"toolsversion", OPTION_STRING, "2147483647", NULL, 0, 0, "version of the guest tools"},
    {"zeroed_grain", OPTION_BOOL, "off", NULL, 0, 0,
     "let tables mark ranges of zeros; VirtualBox opens no such image"},
    {0},
};

static const struct subformat *subformat_of(const struct option_values *options)
{
    return &kinds[options_enum(options, "subformat")];
}

const char *vmdk_adapter(const struct option_values *options)
{
    if (options_given(options, "adapter_type"))
        return adapters[options_enum(options, "adapter_type")];
    return subformat_of(options)->adapter;
}

bool vmdk_ordered(const struct option_values *options)
{
    return options_enum(options, "subformat") == STREAM_OPTIMIZED;
}

uint32_t vmdk_create_unit(const struct option_values *options)
{
    return subformat_of(options)->sparse ? VMDK_GRAIN * VMDK_SECTOR : VMDK_SECTOR;
}

/* ---- what can be made ------------------------------------------------------------------------ */

/* What has no tables has no way to say "ask below" or "zeros". */
static int check_flat(const struct create_request *request, const char *subformat,
                      struct platter_error *err)
{
    if (request->backing_name)
        return fail(err, EINVAL,
                    "%s: subformat %s holds all of the disk and cannot have a backing file: choose "
                    "monolithicSparse or twoGbMaxExtentSparse",
                    request->name, subformat);
    if (options_bool(request->options, "zeroed_grain"))
        return fail(err, EINVAL,
                    "%s: subformat %s has no tables that could mark zeros: leave zeroed_grain out",
                    request->name, subformat);
    return 0;
}

int vmdk_plan(const struct create_request *request, struct descriptor_plan *ret,
              struct platter_error *err)
{
    const struct subformat *f = subformat_of(request->options);
    const bool ordered = vmdk_ordered(request->options);
    const char *name = subformats[f - kinds];
    int r = f->sparse ? 0 : check_flat(request, name, err);
    if (r == 0)
        r = descriptor_plan(request, ret, err);
    if (r < 0)
        return r;
    ret->create_type = name;
    ret->access = ordered ? "RDONLY" : "RW"; /* as VMware exports streams: section 3.5 */
    ret->type = f->type;
    if (ordered && ret->sectors > (uint64_t)VMDK_MAX_DIRECTORY * VMDK_GTES * VMDK_GRAIN)
        return fail(err, EFBIG,
                    "%s: a disk of %" PRIu64 " bytes is too large for subformat streamOptimized: "
                    "choose monolithicFlat or vmfs",
                    request->name, request->size);
    return 0;
}

/* ---- one file -------------------------------------------------------------------------------- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int create_monolithic(const struct create_request *request, struct descriptor_plan *plan,
                             struct platter_error *err)
{
    struct sparse_layout l;
    uint8_t descriptor[VMDK_DESCRIPTOR_SECTORS * VMDK_SECTOR];
    const char *file = base_name(request->name);
    plan->files = &file;
    plan->n_files = 1;
    plan->piece = plan->sectors;
    int r = layout_plan(request->name, plan->sectors,
                        options_bool(request->options, "zeroed_grain"), &l, err);
    if (r == 0)
        r = descriptor_compose_embedded(plan, request->name, descriptor, err);
    return r < 0 ? r : layout_write(request->stream, &l, descriptor, err);
}

/* ---- a descriptor and further files ---------------------------------------------------------- */

/* "vm.vmdk" -> "vm-flat.vmdk", or of piece 3 "vm-s003.vmdk". */
static char *extent_name(const char *image, const struct subformat *f, unsigned number)
{
    const char *base = base_name(image), *dot = strrchr(base, '.');
    const char *suffix = dot ? dot : base + strlen(base);
    int stem = (int)(suffix - base);
    return f->piece ? string_format("%.*s-%s%03u%s", stem, base, f->tag, number, suffix)
                    : string_format("%.*s-%s%s", stem, base, f->tag, suffix);
}

static int create_extent(const struct create_request *request, const char *file, uint64_t sectors,
                         struct platter_error *err)
{
    struct stream *s;
    struct sparse_layout l;
    int r = request->maker->make(request->maker, file, &s, err);
    if (r < 0)
        return r;
    if (!subformat_of(request->options)->sparse)
        return stream_resize(s, sectors * VMDK_SECTOR, err);
    r = layout_plan(request->name, sectors, options_bool(request->options, "zeroed_grain"), &l,
                    err);
    return r < 0 ? r : layout_write(s, &l, NULL, err);
}

/* The text comes first, for it may be refused, and is written last. */
static int create_extents(const struct create_request *request, struct descriptor_plan *plan,
                          char **files, struct platter_error *err)
{
    auto_free char *text = NULL;
    uint64_t left = plan->sectors;
    for (unsigned i = 0; i < plan->n_files; i++) {
        files[i] = extent_name(request->name, subformat_of(request->options), i + 1);
        if (!files[i])
            return fail_memory(err, "the name of an extent");
    }
    plan->files = (const char *const *)files;
    int r = descriptor_compose(plan, request->name, &text, err);
    for (unsigned i = 0; i < plan->n_files && r == 0; i++) {
        uint64_t sectors = min_u64(left, plan->piece);
        r = create_extent(request, files[i], sectors, err);
        left -= sectors;
    }
    return r < 0 ? r : stream_pwrite(request->stream, text, strlen(text), 0, err);
}

/* How many extents there are, and sectors of each but the last. */
static int split(const char *name, const struct subformat *f, uint64_t sectors, unsigned *ret_n,
                 uint64_t *ret_piece, struct platter_error *err)
{
    uint64_t n = f->piece ? max_u64(div_up(sectors, f->piece), 1) : 1;
    if (n > VMDK_MAX_EXTENTS)
        return fail(err, EFBIG,
                    "%s: a disk of %" PRIu64 " bytes would be %" PRIu64
                    " pieces, of which a VMDK can have %d: choose subformat monolithicFlat or vmfs",
                    name, sectors * VMDK_SECTOR, n, VMDK_MAX_EXTENTS);
    *ret_n = (unsigned)n;
    *ret_piece = f->piece ? f->piece : sectors;
    return 0;
}

static int create_split(const struct create_request *request, struct descriptor_plan *plan,
                        struct platter_error *err)
{
    if (!request->maker)
        return fail(err, ENOTSUP,
                    "%s: an image of subformat %s is several files, and can only be made in a "
                    "folder",
                    request->name, plan->create_type);
    int r = split(request->name, subformat_of(request->options), plan->sectors, &plan->n_files,
                  &plan->piece, err);
    if (r < 0)
        return r;
    char **files = calloc(plan->n_files, sizeof *files);
    if (!files)
        return fail_memory(err, "the names of extents");
    r = create_extents(request, plan, files, err);
    for (unsigned i = 0; i < plan->n_files; i++)
        free(files[i]);
    free(files);
    return r;
}

/* ---- create ---------------------------------------------------------------------------------- */

int vmdk_create(const struct create_request *request, struct platter_error *err)
{
    const struct subformat *f = subformat_of(request->options);
    struct descriptor_plan plan;
    int r = vmdk_plan(request, &plan, err);
    if (r < 0)
        return r;
    return f->tag ? create_split(request, &plan, err) : create_monolithic(request, &plan, err);
}

/* ---- measure --------------------------------------------------------------------------------- */

/* A stream: header and descriptor to the first grain, the longest records there can be, tables. */
static void measure_stream(uint64_t size, uint64_t data, struct platter_measurement *ret)
{
    const uint64_t grain = VMDK_GRAIN * VMDK_SECTOR, record = grain + VMDK_SECTOR;
    uint64_t grains = div_up(size, grain), tables = div_up(grains, VMDK_GTES);
    uint64_t table = VMDK_SECTOR + VMDK_GTES * 4;
    uint64_t fixed = grain + (1 + max_u64(div_up(tables * 4, VMDK_SECTOR), 1) + 3) * VMDK_SECTOR;
    uint64_t used = div_up(data, grain);
    ret->required = fixed + used * record + min_u64(used, tables) * table;
    ret->fully_allocated = fixed + grains * record + tables * table;
}

/* Bytes of a descriptor in a file of its own, at most: how long the names in it are is not known.
 */
static uint64_t measure_text(const struct subformat *f, uint64_t size,
                             const struct option_values *options)
{
    enum { FIXED = 512, LINE = NAME_MAX + 48 };
    uint64_t lines = f->piece ? size / (f->piece * VMDK_SECTOR) + 1 : 1;
    return FIXED + strlen(options_string(options, "hwversion")) +
           strlen(options_string(options, "toolsversion")) + lines * LINE;
}

static int measure_sparse(const struct subformat *f, uint64_t size, uint64_t data,
                          struct platter_measurement *ret, struct platter_error *err)
{
    const uint64_t grain = VMDK_GRAIN * VMDK_SECTOR;
    uint64_t left = div_up(size, VMDK_SECTOR), tables = 0, piece = 0;
    unsigned n = 0;
    int r = split("the new image", f, left, &n, &piece, err);
    for (unsigned i = 0; r == 0 && i < n; i++) {
        struct sparse_layout l;
        uint64_t sectors = min_u64(left, piece);
        r = layout_plan("the new image", sectors, false, &l, err);
        tables += r == 0 ? l.header.overhead * VMDK_SECTOR : 0;
        left -= sectors;
    }
    ret->required = tables + div_up(data, grain) * grain;
    ret->fully_allocated = tables + div_up(size, grain) * grain;
    return r;
}

static int measure_flat(const struct subformat *f, uint64_t size, struct platter_measurement *ret,
                        struct platter_error *err)
{
    unsigned n;
    uint64_t piece, sectors = div_up(size, VMDK_SECTOR);
    ret->required = ret->fully_allocated = sectors * VMDK_SECTOR;
    return split("the new image", f, sectors, &n, &piece, err);
}

/* All files together, holes included. */
int vmdk_measure(uint64_t size, uint64_t data, const struct option_values *options,
                 struct platter_measurement *ret, struct platter_error *err)
{
    const struct subformat *f = subformat_of(options);
    const struct create_request request = {
        .name = "the new image", .size = size, .options = options};
    struct descriptor_plan plan;
    int r = vmdk_plan(&request, &plan, err);
    if (r < 0)
        return r;
    if (vmdk_ordered(options))
        measure_stream(size, data, ret);
    else if (f->sparse)
        r = measure_sparse(f, size, data, ret, err);
    else
        r = measure_flat(f, size, ret, err);
    uint64_t text = f->tag ? measure_text(f, size, options) : 0;
    ret->required += text;
    ret->fully_allocated += text;
    return r;
}
