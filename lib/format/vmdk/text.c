/* SPDX-License-Identifier: MIT */
/*
 * The text descriptor of a new image: vmdk.md sections 3 and 9.
 *
 * The order of lines and keys is the one that strict readers want: CID before parentCID, keys
 * before extents before the disk database.
 */
#include <ctype.h>
#include <inttypes.h>
#include <sys/random.h>

#include "format/vmdk/vmdk.h"

uint32_t descriptor_new_cid(void)
{
    uint32_t cid = VMDK_NO_CID;
    while (cid == VMDK_NO_CID || cid == VMDK_LONG_CID)
        if (getrandom(&cid, sizeof cid, 0) != sizeof cid)
            cid = VMDK_NO_CID;
    return cid;
}

/* Text that goes between quotes, which know no escape. */
static int check_quotable(const char *name, const char *what, const char *text,
                          struct platter_error *err)
{
    for (const char *c = text; *c; c++)
        if (*c == '"' || iscntrl((unsigned char)*c))
            return fail(err, EINVAL,
                        "%s: %s \"%s\" has a quote or a control character, which a VMDK descriptor "
                        "cannot hold",
                        name, what, text);
    return 0;
}

/* The CID of the parent, which a child remembers: section 11. */
static int plan_parent(const struct create_request *request, struct descriptor_plan *plan,
                       struct platter_error *err)
{
    plan->parent_cid = VMDK_NO_CID;
    if (!request->backing_name)
        return 0;
    const struct image *backing = request->backing;
    const char *format = request->backing_format;
    if ((backing && backing->format != &format_vmdk) || (format && strcmp(format, "vmdk") != 0))
        return fail(err, EINVAL, "%s: the backing file of a VMDK must be a VMDK", request->name);
    if (!backing)
        return fail(err, EINVAL,
                    "%s: a VMDK stores the content ID of its backing file, which must therefore "
                    "exist and be readable",
                    request->name);
    plan->parent = request->backing_name;
    plan->parent_cid = vmdk_of(backing)->descriptor->cid;
    return check_quotable(request->name, "backing file", plan->parent, err);
}

int descriptor_plan(const struct create_request *request, struct descriptor_plan *ret,
                    struct platter_error *err)
{
    const struct option_values *o = request->options;
    bool compat6 = options_bool(o, "compat6");
    if (compat6 && options_given(o, "hwversion"))
        return fail(err, EINVAL, "%s: compat6 and hwversion exclude each other: give one of them",
                    request->name);
    *ret = (struct descriptor_plan){
        .sectors = div_up(request->size, VMDK_SECTOR),
        .hw_version = compat6 ? "6" : options_string(o, "hwversion"),
        .adapter = vmdk_adapters[options_enum(o, "adapter_type")],
        .tools_version = options_string(o, "toolsversion"),
    };
    int r = check_quotable(request->name, "hwversion", ret->hw_version, err);
    if (r == 0)
        r = check_quotable(request->name, "toolsversion", ret->tools_version, err);
    return r < 0 ? r : plan_parent(request, ret, err);
}

int descriptor_compose(const struct descriptor_plan *p, const char *name, uint8_t *area,
                       struct platter_error *err)
{
    enum { SIZE = VMDK_DESCRIPTOR_SECTORS * VMDK_SECTOR };
    int r = check_quotable(name, "file name", p->extent, err);
    if (r < 0)
        return r;
    /* Geometry is a hint that nobody computes sizes from: section 10. */
    unsigned heads = strcmp(p->adapter, "ide") == 0 ? 16 : 255, track = 63;
    memset(area, 0, SIZE);
    int n = snprintf((char *)area, SIZE,
                     "# Disk DescriptorFile\n"
                     "version=1\n"
                     "CID=%08" PRIx32 "\n"
                     "parentCID=%08" PRIx32 "\n"
                     "createType=\"%s\"\n"
                     "%s%s%s"
                     "\n"
                     "# Extent description\n"
                     "%s %" PRIu64 " SPARSE \"%s\"\n"
                     "\n"
                     "# The Disk Data Base\n"
                     "#DDB\n"
                     "\n"
                     "ddb.virtualHWVersion = \"%s\"\n"
                     "ddb.geometry.cylinders = \"%" PRIu64 "\"\n"
                     "ddb.geometry.heads = \"%u\"\n"
                     "ddb.geometry.sectors = \"%u\"\n"
                     "ddb.adapterType = \"%s\"\n"
                     "ddb.toolsVersion = \"%s\"\n",
                     p->cid, p->parent_cid, p->create_type,
                     p->parent ? "parentFileNameHint=\"" : "", p->parent ? p->parent : "",
                     p->parent ? "\"\n" : "", p->access, p->sectors, p->extent, p->hw_version,
                     p->sectors / (heads * track), heads, track, p->adapter, p->tools_version);
    if (n < 0 || n >= SIZE)
        return fail(err, ENAMETOOLONG,
                    "%s: the names in its descriptor are too long for the %d bytes it has", name,
                    SIZE);
    return 0;
}
