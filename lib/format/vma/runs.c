/* SPDX-License-Identifier: MIT */
/* What the slots of an extent say (sections 4.2 to 4.4): checked, and made into runs of bytes. */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "format/vma/reader.h"

/* A slot of the extent in hand, and where its data begins in the extent's. */
struct taken {
    const struct vma_slot *slot;
    const struct archive_disk *disk;
    uint64_t at;
};

static goff start_of(const struct taken *t)
{
    return (uint64_t)t->slot->cluster * VMA_CLUSTER;
}

/* Where the disk ends; of a state nobody knows. */
static uint64_t end_of(const struct archive_disk *d)
{
    return d->state || d->unsized ? UINT64_MAX : d->size;
}

static struct archive_fault fault_of(const struct vma_reader *r, const struct taken *t,
                                     enum archive_fault_kind kind)
{
    struct archive_fault f = {.kind = kind, .off = r->off, .disk = t->disk};
    if (t->disk) {
        f.start = start_of(t);
        f.len = VMA_CLUSTER;
    }
    return f;
}

/* ---- checks ------------------------------------------------------------------------------------
 */

/* Whether a slot's data is nothing but zeros. */
static int data_is_zero(struct vma_reader *r, const struct taken *t, bool *ret,
                        struct platter_error *err)
{
    size_t len = vma_slot_blocks(t->slot) * (size_t)VMA_BLOCK;
    if (r->passed && len) {
        int e = vma_input_pread(&r->in, r->data + t->at, len, r->off + VMA_EXTENT + t->at, err);
        if (e < 0)
            return e;
    }
    *ret = is_zero(r->data + t->at, len);
    return 0;
}

/* A cluster right behind the end of its disk that is all zero is what a writer of 2013 made
 * (section 7.3): nothing is lost with it. */
static int check_extra(struct vma_reader *r, const struct taken *t, bool *ret_harmless,
                       struct platter_error *err)
{
    struct archive_fault note = fault_of(r, t, ARCHIVE_FAULT_NOTE);
    *ret_harmless = false;
    if (t->slot->cluster != vma_clusters(t->disk->size))
        return 0;
    int e = data_is_zero(r, t, ret_harmless, err);
    if (e < 0 || !*ret_harmless)
        return e;
    return vma_tell(r, &note, err,
                    "%s: the extent at %" PRIu64 " has cluster %" PRIu32
                    " of device %u (%s), right behind its end: all zeros, as a writer of 2013 "
                    "left it there",
                    r->file, r->off, t->slot->cluster, t->disk->id, t->disk->name);
}

/* Whether the disk has such a place: *ret_use. */
static int check_place(struct vma_reader *r, const struct taken *t, bool *ret_use,
                       struct platter_error *err)
{
    struct platter_error why = {0};
    *ret_use = true;
    if (t->disk && t->disk->unsized)
        return 0;
    if (vma_slot_check(r->file, r->off, &r->header, t->slot, &why) == 0)
        return 0;
    struct archive_fault f = fault_of(r, t, t->disk ? ARCHIVE_FAULT_BEYOND : ARCHIVE_FAULT_UNKNOWN);
    bool behind = t->disk && start_of(t) >= t->disk->size, harmless = false;
    if (behind) {
        int e = check_extra(r, t, &harmless, err);
        if (e < 0)
            return e;
    }
    /* Blocks behind the end are left away; those in front of it are as good as any. */
    *ret_use = t->disk && !behind;
    return harmless ? 0 : vma_tell(r, &f, err, "%s", why.message);
}

/* A state comes in order (section 4.4). */
static int check_order(struct vma_reader *r, const struct taken *t, struct platter_error *err)
{
    uint64_t next = coverage_end(r->coverage[t->disk->id]);
    struct archive_fault f = fault_of(r, t, ARCHIVE_FAULT_ORDER);
    if (!t->disk->state || t->slot->cluster == next)
        return 0;
    return vma_tell(r, &f, err,
                    "%s: the extent at %" PRIu64 " has cluster %" PRIu32
                    " of the state of the machine (device %u), where cluster %" PRIu64
                    " was to come",
                    r->file, r->off, t->slot->cluster, t->disk->id, next);
}

/* Enters the cluster: *ret_use tells whether it is the first of its kind. */
static int enter(struct vma_reader *r, const struct taken *t, bool *ret_use,
                 struct platter_error *err)
{
    struct archive_fault f = fault_of(r, t, ARCHIVE_FAULT_DUPLICATE);
    struct coverage *c = r->coverage[t->disk->id];
    int e = 0;

    *ret_use = !coverage_has(c, t->slot->cluster);
    if (!*ret_use)
        return vma_tell(r, &f, err,
                        "%s: the extent at %" PRIu64 " has cluster %" PRIu32
                        " of device %u (%s), which was there before",
                        r->file, r->off, t->slot->cluster, t->disk->id, t->disk->name);
    e = check_order(r, t, err);
    if (e < 0)
        return e;
    e = coverage_add(c, t->slot->cluster, err);
    return e < 0 ? fail_in(err, e, "%s", r->file) : 0;
}

/* ---- runs --------------------------------------------------------------------------------------
 */

/* Appends a run, or makes the last one longer where it goes on. */
static void add_run(struct archive_batch *batch, const struct archive_run *run)
{
    struct archive_run *runs = (struct archive_run *)(void *)batch->room;
    struct archive_run *last = batch->n_runs ? &runs[batch->n_runs - 1] : NULL;
    if (last && last->disk == run->disk && last->zero == run->zero &&
        last->off + last->len == run->off && (!run->bytes || last->bytes + last->len == run->bytes))
        last->len += run->len;
    else
        runs[batch->n_runs++] = *run;
}

/* How many blocks from `first` on are stored, or not stored, as that one is. */
static unsigned alike(uint32_t mask, unsigned first)
{
    bool stored = mask >> first & 1;
    uint32_t others = (stored ? ~mask : mask) >> first | UINT32_C(1) << (VMA_BLOCKS - first);
    return (unsigned)__builtin_ctz(others);
}

static void add_runs(struct vma_reader *r, struct archive_batch *batch, const struct taken *t)
{
    uint64_t end = end_of(t->disk), at = t->at;
    unsigned n;

    for (unsigned k = 0; k < VMA_BLOCKS; k += n) {
        bool stored = t->slot->mask >> k & 1;
        struct archive_run run = {
            .disk = t->disk, .off = start_of(t) + k * (uint64_t)VMA_BLOCK, .zero = !stored};
        n = alike(t->slot->mask, k);
        if (run.off >= end)
            break;
        run.len = min_u64(n * (uint64_t)VMA_BLOCK, end - run.off);
        if (stored && !r->passed)
            run.bytes = r->data + at;
        add_run(batch, &run);
        at += stored ? n * (uint64_t)VMA_BLOCK : 0;
    }
}

/* ---- doubt -------------------------------------------------------------------------------------
 */

/* Clusters of one disk, one behind the other, whose data may be wrong. */
struct doubted {
    const struct archive_disk *disk;
    uint64_t first, n;
};

static int tell_doubt(struct vma_reader *r, struct doubted *d, struct platter_error *err)
{
    struct archive_fault f = {.kind = ARCHIVE_FAULT_DOUBT, .off = r->off, .disk = d->disk};
    const struct archive_disk *disk = d->disk;
    uint64_t first = d->first, last = d->first + d->n - 1;

    *d = (struct doubted){0};
    if (!disk)
        return 0;
    f.start = first * VMA_CLUSTER;
    f.len = min_u64((last + 1) * VMA_CLUSTER, end_of(disk)) - f.start;
    if (first == last)
        return vma_tell(r, &f, err,
                        "%s: cluster %" PRIu64 " of device %u (%s), in the extent at %" PRIu64
                        ", may be wrong: %s",
                        r->file, first, disk->id, disk->name, r->off, r->doubt);
    return vma_tell(r, &f, err,
                    "%s: clusters %" PRIu64 " to %" PRIu64
                    " of device %u (%s), in the extent at %" PRIu64 ", may be wrong: %s",
                    r->file, first, last, disk->id, disk->name, r->off, r->doubt);
}

static int doubt(struct vma_reader *r, struct doubted *d, const struct taken *t,
                 struct platter_error *err)
{
    int e = 0;
    if (d->disk != t->disk || d->first + d->n != t->slot->cluster) {
        e = tell_doubt(r, d, err);
        *d = (struct doubted){.disk = t->disk, .first = t->slot->cluster};
    }
    d->n++;
    return e;
}

/* ---- what could not be read --------------------------------------------------------------------
 */

/* A range of one disk, of the extent in hand: zeros, and no more than that. */
struct unread {
    const struct archive_disk *disk;
    goff start, end;
};

static int tell_unread(struct vma_reader *r, struct unread *u, struct platter_error *err)
{
    const struct archive_disk *disk = u->disk;
    struct archive_fault f = {.kind = ARCHIVE_FAULT_MISSING,
                              .off = r->off,
                              .disk = disk,
                              .start = u->start,
                              .len = u->end - u->start};
    *u = (struct unread){0};
    if (!disk)
        return 0;
    r->unread[disk->id] += f.len;
    return vma_tell(r, &f, err,
                    "%s: %" PRIu64 " bytes at %" PRIu64
                    " of device %u (%s) cannot be read: they are in the extent at %" PRIu64,
                    r->file, f.len, f.start, disk->id, disk->name, r->off);
}

/* Tells of the blocks of a slot. */
static int note_unread(struct vma_reader *r, struct unread *u, const struct taken *t,
                       struct platter_error *err)
{
    hoff at = r->off + VMA_EXTENT + t->at, bad;
    goff end = end_of(t->disk);
    int e = 0;

    if (r->passed || !vma_input_unreadable(&r->in, at, at + VMA_CLUSTER, &bad))
        return 0;
    for (unsigned k = 0; e == 0 && k < VMA_BLOCKS; k++) {
        const goff start = start_of(t) + k * (uint64_t)VMA_BLOCK;
        if (!(t->slot->mask >> k & 1))
            continue;
        if (start < end && vma_input_unreadable(&r->in, at, at + VMA_BLOCK, &bad)) {
            if (u->disk != t->disk || u->end != start) {
                e = tell_unread(r, u, err);
                *u = (struct unread){.disk = t->disk, .start = start};
            }
            u->end = min_u64(start + VMA_BLOCK, end);
        }
        at += VMA_BLOCK;
    }
    return e;
}

/* ---- slots -------------------------------------------------------------------------------------
 */

/* *ret_use: it is in the batch now. */
static int take_slot(struct vma_reader *r, struct archive_batch *batch, const struct taken *t,
                     bool *ret_use, struct platter_error *err)
{
    uint64_t len = vma_slot_blocks(t->slot) * (uint64_t)VMA_BLOCK;

    *ret_use = false;
    /* Of an extent that is cut off, what is there of it, and what needs no data. */
    if (len && t->at + len > r->data_len)
        return 0;
    int e = check_place(r, t, ret_use, err);
    if (e == 0 && *ret_use)
        e = enter(r, t, ret_use, err);
    if (e == 0 && *ret_use)
        add_runs(r, batch, t);
    return e;
}

/* A disk that no header tells of is one all the same. */
static int disk_of(struct vma_reader *r, unsigned device, const struct archive_disk **ret,
                   struct platter_error *err)
{
    int e = 0;
    if (device && r->head.lost_header && !vma_disk_of(r, device))
        e = vma_add_unsized(r, device, err);
    *ret = vma_disk_of(r, device);
    return e;
}

int vma_take_slots(struct vma_reader *r, struct archive_batch *batch, struct platter_error *err)
{
    struct doubted doubted = {0};
    struct unread unread = {0};
    struct taken t = {0};
    int e = 0;

    batch->runs = (const struct archive_run *)(const void *)batch->room;
    batch->n_runs = 0;
    for (unsigned i = 0; e == 0 && i < VMA_SLOTS; i++) {
        bool used = false;
        t.slot = &r->extent.slots[i];
        e = disk_of(r, t.slot->device, &t.disk, err);
        if (e == 0 && t.slot->device && (!t.disk || vma_is_wanted(r, t.disk)))
            e = take_slot(r, batch, &t, &used, err);
        if (e == 0 && used)
            e = note_unread(r, &unread, &t, err);
        if (e == 0 && used && t.slot->mask && r->doubt)
            e = doubt(r, &doubted, &t, err);
        else if (e == 0 && used && t.slot->mask)
            e = vma_add_unchecked(r, t.disk, t.slot->cluster, err);
        t.at += vma_slot_blocks(t.slot) * (uint64_t)VMA_BLOCK;
    }
    if (e == 0)
        e = tell_unread(r, &unread, err);
    return e < 0 ? e : tell_doubt(r, &doubted, err);
}
