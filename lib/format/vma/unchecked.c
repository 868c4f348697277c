/* SPDX-License-Identifier: MIT */
/*
 * What came out of a damaged part of a compressed file. The checksum of such a part (a frame of
 * zstd, a member of gzip) stands at its end: its data was given out by then. So what clusters came
 * is kept until their part is found to be right; where it is damaged, or ends too early for that,
 * they are told. Clusters that
 * are all zero have no data but in the header of an extent, which has a checksum.
 */
#include <inttypes.h>

#include "base/ckd.h"
#include "format/vma/reader.h"

void vma_forget_unchecked(struct vma_reader *r)
{
    for (unsigned i = 0; i < VMA_DEVICES; i++) {
        coverage_free(r->unchecked[i]);
        r->unchecked[i] = NULL;
    }
}

/* Up to where the archive is known to be what was packed. */
static hoff checked_to(const struct vma_reader *r)
{
    uint64_t n = stream_checked(r->in.stream);
    return n < r->in.start ? 0 : n - r->in.start;
}

/* The clusters of parts that turned out to be right need not be known any more. */
static void advance(struct vma_reader *r)
{
    hoff to = checked_to(r);
    /* The extent in hand may have begun in a damaged part in front of this one. */
    if (r->damaged || to <= r->checked)
        return;
    r->checked = to;
    vma_forget_unchecked(r);
}

void vma_note_damage(struct vma_reader *r)
{
    advance(r);
    r->damaged = true;
}

int vma_add_unchecked(struct vma_reader *r, const struct archive_disk *disk, uint32_t cluster,
                      struct platter_error *err)
{
    if (!vma_goes_on(r))
        return 0;
    advance(r);
    if (r->off + VMA_EXTENT + r->data_len <= r->checked)
        return 0;
    struct coverage **c = &r->unchecked[disk->id];
    int e = *c ? 0 : coverage_new(r->request.budget, c, err);
    if (e == 0)
        e = coverage_add(*c, cluster, err);
    return e < 0 ? fail_in(err, e, "%s", r->file) : 0;
}

static int tell(struct vma_reader *r, const struct archive_disk *d, uint64_t first, uint64_t end,
                struct platter_error *err)
{
    struct archive_fault f = {.kind = ARCHIVE_FAULT_DOUBT,
                              .off = r->checked,
                              .disk = d,
                              .start = first * VMA_CLUSTER,
                              .len = (end - first) * VMA_CLUSTER};
    if (!d->state && !d->unsized)
        f.len = min_u64(f.len, d->size - f.start);
    if (end - first == 1)
        return vma_tell(r, &f, err,
                        "%s: cluster %" PRIu64 " of device %u (%s) may be wrong: it comes out of "
                        "a part of the compressed file that is damaged or cut off",
                        r->file, first, d->id, d->name);
    return vma_tell(r, &f, err,
                    "%s: clusters %" PRIu64 " to %" PRIu64
                    " of device %u (%s) may be wrong: they come out of a part of the compressed "
                    "file that is damaged or cut off",
                    r->file, first, end - 1, d->id, d->name);
}

static int tell_disk(struct vma_reader *r, const struct archive_disk *d, struct platter_error *err)
{
    const struct coverage *c = r->unchecked[d->id];
    uint64_t end = c ? coverage_end(c) : 0, first = 0, n;
    int e = 0;

    for (uint64_t at = 0; e == 0 && at < end; at = n ? first + n : end) {
        n = coverage_missing(c, at, end, &first);
        uint64_t stop = n ? first : end;
        if (stop > at)
            e = tell(r, d, at, stop, err);
    }
    return e;
}

int vma_tell_unchecked(struct vma_reader *r, struct platter_error *err)
{
    int e = 0;
    if (!r->damaged)
        return 0;
    r->damaged = false;
    for (unsigned i = 0; e == 0 && i < r->head.listing.n_disks; i++)
        e = tell_disk(r, &r->disks[i], err);
    vma_forget_unchecked(r);
    return e;
}
