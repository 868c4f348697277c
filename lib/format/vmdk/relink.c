/* SPDX-License-Identifier: MIT */
/*
 * A child and its parent: what commit and rebase need, vmdk.md section 11.
 *
 * A commit changes the parent's CID with the first byte that it gets, and the child must know the
 * new one. Two files do not change at once; so the child first says, in a key of our own, which CID
 * will do as well. That is durable before the parent's CID changes, and goes when parentCID has
 * followed.
 */
#include <inttypes.h>

#include "format/vmdk/vmdk.h"

/* The CID that the parent is about to get; between two steps of a commit only. */
static const char next_parent_cid[] = "ddb.platter.nextParentCID";

bool relink_accepts(const struct descriptor *d, uint32_t cid)
{
    char text[9];
    const char *next = descriptor_value(d, next_parent_cid);
    snprintf(text, sizeof text, "%08" PRIx32, cid);
    return d->parent_cid == cid || (next && strcmp(next, text) == 0);
}

/* A descriptor that says that the parent has the CID `now`, and may have `next`; 0: no other. */
static int edit_parent(struct image *img, uint32_t now, uint32_t next, struct descriptor_edit **ret,
                       struct platter_error *err)
{
    int r = descriptor_edit_begin(img, ret, err);
    if (r < 0)
        return r;
    char text[9];
    snprintf(text, sizeof text, "%08" PRIx32, next);
    descriptor_edit_set_cid(*ret, "parentCID", now);
    if (next != 0)
        descriptor_edit_set(*ret, next_parent_cid, text);
    else
        descriptor_edit_remove(*ret, next_parent_cid);
    return 0;
}

static int store_parent(struct image *img, uint32_t now, uint32_t next, struct platter_error *err)
{
    struct descriptor_edit *e;
    int r = edit_parent(img, now, next, &e, err);
    return r < 0 ? r : descriptor_edit_store(img, e, err);
}

int vmdk_follow_backing(struct image *img, struct image *backing, struct platter_error *err)
{
    struct vmdk *below = vmdk_of(backing);
    uint32_t old = below->descriptor->cid;
    below->next_cid = vmdk_other_cid(backing);
    int r = store_parent(img, old, below->next_cid, err);
    if (r < 0)
        return r;
    r = vmdk_begin(backing, err);
    /* Where nothing was changed the child says so again. What cannot be known stays open. */
    if (r < 0 && atomic_load(&backing->poison) == 0 && below->descriptor->cid == old)
        store_parent(img, old, 0, NULL);
    return r < 0 ? r : store_parent(img, below->descriptor->cid, 0, err);
}

/* The descriptor with another parent, or none. */
static int edit_backing(struct image *img, const char *name, const struct image *backing,
                        struct descriptor_edit **ret, struct platter_error *err)
{
    if (name && (!backing || backing->format != &format_vmdk || vmdk_of(backing)->bare))
        return fail(err, EINVAL,
                    "%s: its parent \"%s\" must be a VMDK that can be opened, for its content ID "
                    "is to be noted",
                    img->stream->name, name);
    for (unsigned i = 0; i < vmdk_of(img)->n_extents; i++)
        if (name && !vmdk_of(img)->extents[i].sparse)
            return fail(err, ENOTSUP,
                        "%s: cannot have a parent: its extent %u (%s) stores all of its range",
                        img->stream->name, i, vmdk_of(img)->extents[i].word);
    int r = descriptor_edit_begin(img, ret, err);
    if (r < 0)
        return r;
    struct descriptor_edit *e = *ret;
    descriptor_edit_set_cid(e, "parentCID", name ? vmdk_of(backing)->descriptor->cid : VMDK_NO_CID);
    descriptor_edit_remove(e, next_parent_cid);
    if (name)
        descriptor_edit_set(e, "parentFileNameHint", name);
    else
        descriptor_edit_remove(e, "parentFileNameHint");
    return 0;
}

int vmdk_set_backing(struct image *img, const char *name, const char *backing_format,
                     const struct image *backing, struct platter_error *err)
{
    (void)backing_format;
    struct descriptor_edit *e;
    int r = edit_backing(img, name, backing, &e, err);
    return r < 0 ? r : descriptor_edit_store(img, e, err);
}

/* Takes the edit. */
static int try_edit(struct image *img, struct descriptor_edit *e, struct platter_error *err)
{
    int r = descriptor_edit_try(img, e, err);
    descriptor_edit_drop(e);
    return r;
}

int vmdk_may_set_backing(struct image *img, const char *name, const char *backing_format,
                         const struct image *backing, struct platter_error *err)
{
    (void)backing_format;
    struct descriptor_edit *e;
    int r = edit_backing(img, name, backing, &e, err);
    return r < 0 ? r : try_edit(img, e, err);
}

/* ---- emptying -------------------------------------------------------------------------------- */

static int check_emptiable(const struct image *img, struct platter_error *err)
{
    const struct vmdk *v = vmdk_of(img);
    for (unsigned i = 0; i < v->n_extents; i++) {
        const struct vmdk_extent *x = &v->extents[i];
        if (!x->sparse || x->sparse->kind == SPARSE_SE || x->access != ACCESS_WRITE)
            return fail(err, ENOTSUP,
                        "%s: its extent %u (%s) cannot be emptied: commit with -d, which leaves "
                        "its data in it, and make a new child",
                        img->stream->name, i, x->word);
    }
    return 0;
}

/* Zeros in the tables of a directory, those that are neighbours at once; *end goes up to behind
 * them. */
static int clear_tables(const struct sparse *s, const uint32_t *gd, uint64_t *end,
                        struct platter_error *err)
{
    int r = 0;
    for (uint64_t i = 0, run; gd && i < s->gd_count && r == 0; i += run) {
        for (run = 1; gd[i] && i + run < s->gd_count &&
                      (uint64_t)gd[i + run] == (uint64_t)gd[i] + run * s->gt_sectors;)
            run++;
        if (gd[i] == 0)
            continue;
        r = stream_zero(s->stream, (hoff)gd[i] * VMDK_SECTOR, run * s->gt_sectors * VMDK_SECTOR,
                        STREAM_ZERO_UNMAP, err);
        *end = max_u64(*end, (uint64_t)gd[i] + run * s->gt_sectors);
    }
    return r;
}

/* The tables of a COWD stand among its grains, and go with them. */
static int clear_cowd_directory(const struct sparse *s, uint64_t *end, struct platter_error *err)
{
    uint64_t sectors = div_up((uint64_t)s->gd_count * 4, VMDK_SECTOR);
    *end = s->header.gd_offset + sectors;
    return stream_zero(s->stream, s->header.gd_offset * VMDK_SECTOR, sectors * VMDK_SECTOR, 0, err);
}

/* Takes sectors [at, at + n), which stay, out of the first ones of [*from, *to). */
static void leave_out(uint64_t at, uint64_t n, uint64_t *from, uint64_t *to)
{
    if (at <= *from)
        *from = max_u64(*from, at + n);
    else
        *to = min_u64(*to, at);
}

/* Gives back the grains of a hosted file up to `end`. One that grew has tables and directories
 * among them, which stay. */
static int discard_grains(const struct sparse *s, uint64_t end, struct platter_error *err)
{
    const struct hosted_header *h = &s->header;
    uint64_t gd_sectors = div_up((uint64_t)s->gd_count * 4, VMDK_SECTOR);
    int r = 0;
    uint32_t table = 0;
    for (uint64_t from = h->overhead; from < end && r == 0;) {
        uint64_t start = from, to = end;
        leave_out(h->gd_offset, gd_sectors, &from, &to);
        leave_out(s->rgd ? h->rgd_offset : 0, gd_sectors, &from, &to);
        leave_out(h->descriptor_offset, h->descriptor_size, &from, &to);
        while (table < s->n_strays && (uint64_t)s->strays[table] + s->gt_sectors <= from)
            table++;
        if (table < s->n_strays)
            leave_out(s->strays[table], s->gt_sectors, &from, &to);
        if (from > start)
            continue;
        r = stream_discard(s->stream, from * VMDK_SECTOR, (to - from) * VMDK_SECTOR, err);
        from = to;
    }
    return r;
}

/* First no grain is used any more, durably; then the file is cut behind what is left of it. */
static int empty_extent(struct image *img, struct vmdk_extent *x, struct platter_error *err)
{
    struct sparse *s = x->sparse;
    const struct hosted_header *h = &s->header;
    uint64_t gd_sectors = div_up((uint64_t)s->gd_count * 4, VMDK_SECTOR);
    uint64_t end = max_u64(h->overhead, h->descriptor_offset + h->descriptor_size);
    int r = 0;
    for (uint64_t gt = 0; gt < s->gd_count && r == 0; gt++)
        r = sparse_check_table(s, gt, err);
    if (r < 0)
        return r;
    if (s->kind == SPARSE_COWD) {
        r = clear_cowd_directory(s, &end, err);
    } else {
        end = max_u64(end, max_u64(h->gd_offset, s->rgd ? h->rgd_offset : 0) + gd_sectors);
        r = clear_tables(s, s->rgd, &end, err);
        if (r == 0)
            r = clear_tables(s, s->gd, &end, err);
    }
    if (r == 0)
        r = stream_flush(s->stream, err);
    if (r == 0 && s->kind == SPARSE_HOSTED)
        r = discard_grains(s, end, err);
    if (r == 0)
        r = stream_resize(s->stream, end * VMDK_SECTOR, err);
    if (r == 0)
        r = sparse_reopen(img, x, err);
    if (r == 0 && x->sparse->kind == SPARSE_COWD) {
        WITH_LOCK(&vmdk_of(img)->slow);
        r = cowd_write_free_sector(img, x->sparse, err);
    }
    if (r == 0)
        r = stream_flush(x->stream, err);
    return r < 0 ? image_poison(img, r) : 0;
}

int vmdk_may_commit(struct image *img, bool follow, bool empty, struct platter_error *err)
{
    struct descriptor_edit *e;
    int r = empty ? check_emptiable(img, err) : 0;
    if (r == 0 && follow) /* one ID takes as much room as another */
        r = edit_parent(img, VMDK_NO_CID, VMDK_NO_CID, &e, err);
    return r < 0 || !follow ? r : try_edit(img, e, err);
}

int vmdk_make_empty(struct image *img, struct platter_error *err)
{
    struct vmdk *v = vmdk_of(img);
    int r = check_emptiable(img, err);
    if (r == 0)
        r = vmdk_begin(img, err);
    for (unsigned i = 0; i < v->n_extents && r == 0; i++)
        r = empty_extent(img, &v->extents[i], err);
    return r;
}
