/* SPDX-License-Identifier: MIT */
/*
 * Content IDs: vmdk.md sections 3.3 and 11.
 *
 * A child remembers its parent's CID. Whoever changes a disk gives it another one first, so that
 * no child takes it for what it was made over.
 */
#include <inttypes.h>
#include <strings.h>
#include <sys/random.h>

#include "format/vmdk/vmdk.h"

/* ---- another ID ------------------------------------------------------------------------------ */

/* A CID that is not the one there is, of at most `digits` digits. */
static uint32_t other_cid(const struct descriptor *d, int digits)
{
    uint32_t mask = UINT32_MAX >> (32 - 4 * digits), cid;
    do
        cid = descriptor_new_cid() & mask;
    while (cid == d->cid || cid == VMDK_NO_CID || cid == VMDK_LONG_CID);
    return cid;
}

uint32_t vmdk_other_cid(const struct image *img)
{
    const struct descriptor *d = vmdk_of(img)->descriptor;
    return other_cid(d, (int)strlen(descriptor_value(d, "CID")));
}

/* The digits of the CID alone, over the old ones. */
static int write_digits(struct image *img, const struct descriptor_line *line, uint32_t cid,
                        struct platter_error *err)
{
    char text[9];
    int digits = (int)strlen(line->value);
    snprintf(text, sizeof text, "%0*" PRIx32, digits, cid);
    const struct vmdk *v = vmdk_of(img);
    return stream_pwrite(img->stream, text, (size_t)digits, v->descriptor_off + line->pos, err);
}

/* The long ID ends with the CID, where there is one: section 3.6. */
static int edit_ids(struct image *img, uint32_t cid, struct platter_error *err)
{
    uint8_t random[12];
    char digits[33];
    struct descriptor_edit *e;
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return fail_errno(err, errno, "%s: no random content ID to be had", img->stream->name);
    for (unsigned i = 0; i < sizeof random; i++)
        snprintf(digits + 2 * i, 3, "%02x", random[i]);
    snprintf(digits + 24, 9, "%08" PRIx32, cid);
    int r = descriptor_edit_begin(img, &e, err);
    if (r < 0)
        return r;
    descriptor_edit_set_cid(e, "CID", cid);
    if (descriptor_find(vmdk_of(img)->descriptor, "ddb.longContentID"))
        descriptor_edit_set(e, "ddb.longContentID", digits);
    return descriptor_edit_store(img, e, err);
}

/*
 * Where it is only the CID that changes, and has all its digits, they are overwritten. Where the
 * text has to change its length and cannot (it fills its room, the folder of the file may not be
 * written), a CID of as many digits as the old one has must do.
 */
int vmdk_new_identity(struct image *img, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    const struct descriptor *d = v->descriptor;
    const struct descriptor_line *line = descriptor_find(d, "CID");
    bool is_long = descriptor_find(d, "ddb.longContentID");
    int digits = (int)strlen(line->value);
    uint32_t cid = v->next_cid ? v->next_cid : other_cid(d, 8);
    if (is_long || digits < 8) {
        int r = edit_ids(img, cid, err);
        if (r == 0 || is_long || atomic_load(&img->poison) < 0)
            return r;
        cid = v->next_cid ? v->next_cid : other_cid(d, digits);
    }
    int r = write_digits(img, line, cid, err);
    WITH_LOCK(&img->lock);
    v->descriptor->cid = cid;
    return r;
}

/* ---- the parent's ---------------------------------------------------------------------------- */

/* A child of ESX says only that its parent has a long ID, which no known key of the child repeats:
 * such a parent is accepted (section 11). */
int vmdk_accept_backing(struct image *img, const struct image *backing, struct platter_error *err)
{
    const struct descriptor *d = vmdk_of(img)->descriptor;
    if (backing->format != &format_vmdk)
        return fail(err, PLATTER_ECORRUPT, "%s: its backing file %s is no VMDK", img->stream->name,
                    backing->stream->name);
    const struct vmdk *below = vmdk_of(backing);
    if (below->bare)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: its parent %s is one extent of a disk, not the disk: its descriptor is "
                    "another file",
                    img->stream->name, backing->stream->name);
    if (relink_accepts(d, below->descriptor->cid))
        return 0;
    return fail(err, PLATTER_ECORRUPT,
                "%s: its parent %s was changed or is another one: parentCID is %08" PRIx32
                ", but the CID there is %08" PRIx32,
                img->stream->name, backing->stream->name, d->parent_cid, below->descriptor->cid);
}
