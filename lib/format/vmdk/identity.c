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

enum { LONG_DIGITS = 32 };
static const char long_id[] = "ddb.longContentID";

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

/* A value, over the old one of the same length. */
static int write_value(struct image *img, const struct descriptor_line *line, const char *value,
                       struct platter_error *err)
{
    hoff off = vmdk_of(img)->descriptor_off + line->pos;
    return stream_pwrite(img->stream, value, strlen(value), off, err);
}

/* A long ID ends with the CID: section 3.6. */
static int new_long_id(struct image *img, uint32_t cid, char ret[LONG_DIGITS + 1],
                       struct platter_error *err)
{
    uint8_t random[LONG_DIGITS / 2 - 4];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return fail_errno(err, errno, "%s: no random content ID to be had", img->stream->name);
    for (unsigned i = 0; i < sizeof random; i++)
        snprintf(ret + 2 * i, 3, "%02x", random[i]);
    snprintf(ret + 2 * sizeof random, 9, "%08" PRIx32, cid);
    return 0;
}

static int edit_ids(struct image *img, uint32_t cid, struct platter_error *err)
{
    char digits[LONG_DIGITS + 1];
    struct descriptor_edit *e;
    int r = new_long_id(img, cid, digits, err);
    if (r == 0)
        r = descriptor_edit_begin(img, &e, err);
    if (r < 0)
        return r;
    descriptor_edit_set_cid(e, "CID", cid);
    if (descriptor_find(vmdk_of(img)->descriptor, long_id))
        descriptor_edit_set(e, long_id, digits);
    return descriptor_edit_store(img, e, err);
}

/* The same without another text: digits over digits. A crash in between leaves another ID as well.
 */
static int overwrite_ids(struct image *img, const struct descriptor *d, uint32_t cid,
                         struct platter_error *err)
{
    const struct descriptor_line *line = descriptor_find(d, "CID"),
                                 *longer = descriptor_find(d, long_id);
    char digits[LONG_DIGITS + 1];
    snprintf(digits, sizeof digits, "%0*" PRIx32, (int)strlen(line->value), cid);
    int r = write_value(img, line, digits, err);
    if (r == 0 && longer && (r = new_long_id(img, cid, digits, err)) == 0)
        r = write_value(img, longer, digits, err);
    return r;
}

/*
 * Where it is only the CID that changes, and has all its digits, they are overwritten. Where the
 * text has to be another one and cannot (it fills its room, the folder of the file may not be
 * written), digits over the old ones must do, of a CID that has as many.
 */
int vmdk_new_identity(struct image *img, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    const struct descriptor *d = v->descriptor;
    const char *long_value = descriptor_value(d, long_id);
    int digits = (int)strlen(descriptor_value(d, "CID"));
    uint32_t cid = v->next_cid ? v->next_cid : other_cid(d, 8);
    if (long_value || digits < 8) {
        int r = edit_ids(img, cid, err);
        bool same_length = !long_value || strlen(long_value) == LONG_DIGITS;
        if (r == 0 || !same_length || atomic_load(&img->poison) < 0)
            return r;
        cid = v->next_cid ? v->next_cid : other_cid(d, digits);
    }
    int r = overwrite_ids(img, d, cid, err);
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
