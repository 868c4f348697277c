/* SPDX-License-Identifier: MIT */
/*
 * The text descriptor of a new image: vmdk.md sections 3 and 9.
 *
 * The order of lines and keys is the one that strict readers want: CID before parentCID, keys
 * before extents before the disk database.
 */
#include <ctype.h>
#include <inttypes.h>
#include <limits.h>
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
    if (vmdk_of(backing)->bare)
        return fail(err, EINVAL,
                    "%s: its backing file %s is one extent of a disk: name the disk's descriptor",
                    request->name, backing->stream->name);
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
        .cid = descriptor_new_cid(),
        .hw_version = compat6 ? "6" : options_string(o, "hwversion"),
        .adapter = vmdk_adapter(o),
        .tools_version = options_string(o, "toolsversion"),
    };
    int r = check_quotable(request->name, "hwversion", ret->hw_version, err);
    if (r == 0)
        r = check_quotable(request->name, "toolsversion", ret->tools_version, err);
    return r < 0 ? r : plan_parent(request, ret, err);
}

/* ---- geometry -------------------------------------------------------------------------------- */

struct geometry {
    uint64_t cylinders;
    unsigned heads, sectors;
};

/* A hint that nobody computes sizes from, by VMware's rules: section 10. */
static struct geometry geometry_of(uint64_t sectors, bool ide)
{
    enum { IDE_CYLINDERS = 16383, GIB = (1 << 30) / VMDK_SECTOR };
    struct geometry g = {.heads = 255, .sectors = 63};
    if (ide)
        g = (struct geometry){.heads = 16, .sectors = 63};
    else if (sectors <= 2 * GIB)
        g = (struct geometry){.heads = sectors <= GIB ? 64 : 128, .sectors = 32};
    g.cylinders = sectors / (g.heads * g.sectors);
    if (ide)
        g.cylinders = min_u64(g.cylinders, IDE_CYLINDERS);
    return g;
}

/* ---- the text -------------------------------------------------------------------------------- */

/* One line for each extent: section 3.5. An offset stands behind FLAT, and nowhere else. */
static char *compose_extents(const struct descriptor_plan *p)
{
    enum { REST = 64 }; /* of a line, without the name */
    size_t size = 1, at = 0;
    for (unsigned i = 0; i < p->n_files; i++)
        size += strlen(p->files[i]) + REST;
    char *lines = calloc(1, size);
    uint64_t left = p->sectors;
    for (unsigned i = 0; lines && i < p->n_files; i++) {
        uint64_t sectors = min_u64(left, p->piece);
        at += (size_t)snprintf(lines + at, size - at, "%s %" PRIu64 " %s \"%s\"%s\n", p->access,
                               sectors, p->type, p->files[i],
                               strcmp(p->type, "FLAT") == 0 ? " 0" : "");
        left -= sectors;
    }
    return lines;
}

/* Whether a text has characters beyond ASCII, and all of them have the form of UTF-8. */
static bool is_utf8(const char *text)
{
    unsigned beyond = 0;
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        unsigned more = *c < 0x80         ? 0
                        : (*c >> 5) == 6  ? 1
                        : (*c >> 4) == 14 ? 2
                        : (*c >> 3) == 30 ? 3
                                          : UINT_MAX;
        if (more == UINT_MAX)
            return false;
        beyond += more;
        for (; more > 0; more--)
            if ((*++c & 0xc0) != 0x80)
                return false;
    }
    return beyond > 0;
}

int descriptor_compose(const struct descriptor_plan *p, const char *name, char **ret,
                       struct platter_error *err)
{
    for (unsigned i = 0; i < p->n_files; i++) {
        int r = check_quotable(name, "file name", p->files[i], err);
        if (r < 0)
            return r;
    }
    struct geometry g = geometry_of(p->sectors, strcmp(p->adapter, "ide") == 0);
    auto_free char *extents = compose_extents(p);
    if (!extents)
        return fail_memory(err, "a VMDK descriptor");
    /* Unless told, readers on Windows take names for such of their code page: section 3.3. */
    bool utf8 = is_utf8(extents) || (p->parent && is_utf8(p->parent));
    *ret = string_format("# Disk DescriptorFile\n"
                         "version=1\n"
                         "%s"
                         "CID=%08" PRIx32 "\n"
                         "parentCID=%08" PRIx32 "\n"
                         "createType=\"%s\"\n"
                         "%s%s%s"
                         "\n"
                         "# Extent description\n"
                         "%s"
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
                         utf8 ? "encoding=\"UTF-8\"\n" : "", p->cid, p->parent_cid, p->create_type,
                         p->parent ? "parentFileNameHint=\"" : "", p->parent ? p->parent : "",
                         p->parent ? "\"\n" : "", extents, p->hw_version, g.cylinders, g.heads,
                         g.sectors, p->adapter, p->tools_version);
    if (!*ret)
        return fail_memory(err, "a VMDK descriptor");
    size_t len = strlen(*ret);
    if (len < VMDK_MAX_DESCRIPTOR)
        return 0;
    free(TAKE(*ret));
    return fail(err, ENAMETOOLONG,
                "%s: the names of its %u pieces would make a descriptor of %zu bytes, and readers "
                "take less than %d: choose a shorter name",
                name, p->n_files, len, VMDK_MAX_DESCRIPTOR);
}

int descriptor_compose_embedded(const struct descriptor_plan *p, const char *name, uint8_t *area,
                                struct platter_error *err)
{
    enum { SIZE = VMDK_DESCRIPTOR_SECTORS * VMDK_SECTOR };
    auto_free char *text = NULL;
    int r = descriptor_compose(p, name, &text, err);
    if (r < 0)
        return r;
    size_t len = strlen(text);
    if (len >= SIZE)
        return fail(err, ENAMETOOLONG,
                    "%s: the names in its descriptor are too long for the %d bytes it has", name,
                    SIZE);
    memset(area, 0, SIZE);
    memcpy(area, text, len);
    return 0;
}
