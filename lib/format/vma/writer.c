/* SPDX-License-Identifier: MIT */
/*
 * A new archive, written front to back (section 6): disk after disk, the clusters of each in
 * ascending order, 58 of them in an extent as the writer of Proxmox VE has it. So the same disks
 * give the same bytes, and a disk that hardly changed nearly the same ones.
 *
 * Blocks are looked at and put together in encode(), side by side; append() only copies them behind
 * the extent that is being filled, and writes what is whole. Writes begin at multiples of 4096
 * bytes, so that they can go past the host's cache.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "format/vma/vma.h"
#include "format/vma/writer.h"

enum {
    SLOTS_USED = 58,         /* of an extent: section 2 */
    MOST_DISKS = 254,        /* numbers 1 to 254: section 2 */
    MOST_NAME = 242,         /* what is left of 255 bytes in the "tmp-disk-NAME.raw" of readers */
    HEAD = 64,               /* what encode() puts before the blocks: the mask, and room to align */
    WRITE_ALIGN = VMA_BLOCK, /* where writes begin and end, but for the last */
    WRITE_LEAST = 1 << 20,   /* bytes that are written at once, at least */
    MOST_EXTENT = VMA_EXTENT + SLOTS_USED * VMA_CLUSTER,
    BUFFER_BYTES = WRITE_LEAST + MOST_EXTENT
};

struct vma_writer {
    struct archive_writer w;
    struct stream *stream;
    struct budget *budget;
    struct vma_header header;
    uint8_t *buffer; /* BUFFER_BYTES that are not yet written */
    size_t fill;
    hoff written;     /* bytes of the archive before the buffer */
    size_t extent_at; /* in the buffer: the header of the extent that is being filled */
    struct vma_extent extent;
    unsigned n_slots;
    bool any;    /* an extent was written */
    bool failed; /* nothing more is written after a failure: section 6, 8 */
};

/* One disk of it. */
struct disk_writer {
    struct image_writer w;
    struct vma_writer *archive;
    unsigned device;
    uint64_t size;
    uint64_t next; /* the cluster that comes next */
    bool state;
};

static struct vma_writer *writer_of(struct archive_writer *w)
{
    return (struct vma_writer *)w;
}

static struct disk_writer *disk_of(struct image_writer *w)
{
    return (struct disk_writer *)w;
}

/* ---- extents -----------------------------------------------------------------------------------
 */

/* Writes what is in the buffer, as far as it is `aligned`. */
static int drain(struct vma_writer *v, bool aligned, struct platter_error *err)
{
    size_t n = aligned ? (size_t)round_down(v->fill, WRITE_ALIGN) : v->fill;
    int r = n > 0 ? stream_pwrite(v->stream, v->buffer, n, v->written, err) : 0;
    if (r < 0) {
        v->failed = true;
        return r;
    }
    v->written += n;
    v->fill -= n;
    memmove(v->buffer, v->buffer + n, v->fill);
    return 0;
}

static void begin_extent(struct vma_writer *v)
{
    v->extent = (struct vma_extent){0};
    v->n_slots = 0;
    v->extent_at = v->fill;
    v->fill += VMA_EXTENT;
}

static int end_extent(struct vma_writer *v, struct platter_error *err)
{
    vma_extent_encode(&v->extent, v->header.uuid, v->buffer + v->extent_at);
    v->any = true;
    int r = v->fill >= WRITE_LEAST ? drain(v, true, err) : 0;
    begin_extent(v);
    return r;
}

/* The next slot, with the blocks that its mask says. NULL: they are all zeros. */
static int add_slot(struct vma_writer *v, const struct vma_slot *slot, const uint8_t *blocks,
                    struct platter_error *err)
{
    size_t len = (size_t)vma_slot_blocks(slot) * VMA_BLOCK;
    if (blocks)
        memcpy(v->buffer + v->fill, blocks, len);
    else
        memset(v->buffer + v->fill, 0, len);
    v->fill += len;
    v->extent.slots[v->n_slots++] = *slot;
    return v->n_slots == SLOTS_USED ? end_extent(v, err) : 0;
}

/* ---- a disk ------------------------------------------------------------------------------------
 */

static size_t encode_bound(const struct image_writer *w)
{
    (void)w;
    return HEAD + VMA_CLUSTER;
}

/* What lies behind the end of the disk is zeros (section 4.3). Of a state all is stored: readers
 * leave out what is not (section 4.4). */
static int encode(struct image_writer *w, goff off, const void *data, size_t len, void *out,
                  size_t *ret_len, struct platter_error *err)
{
    (void)off, (void)err;
    bool all = disk_of(w)->state;
    uint8_t *to = (uint8_t *)out + HEAD;
    unsigned mask = 0;
    for (unsigned k = 0; k < VMA_BLOCKS; k++) {
        size_t at = (size_t)k * VMA_BLOCK;
        size_t n = at < len ? (size_t)min_u64(len - at, VMA_BLOCK) : 0;
        if (!all && is_zero((const uint8_t *)data + at, n))
            continue;
        memcpy(to, (const uint8_t *)data + at, n);
        memset(to + n, 0, VMA_BLOCK - n);
        to += VMA_BLOCK;
        mask |= 1u << k;
    }
    put_be(out, 2, mask);
    *ret_len = (size_t)(to - (uint8_t *)out);
    return 0;
}

static int check_sound(const struct vma_writer *v, struct platter_error *err)
{
    return v->failed ? fail(err, EIO, "%s: could not be written before: the archive is broken",
                            v->stream->name)
                     : 0;
}

/* Zeros up to the cluster `end`. */
static int put_zeros(struct disk_writer *d, uint64_t end, struct platter_error *err)
{
    int r = check_sound(d->archive, err);
    while (d->next < end && r == 0) {
        struct vma_slot slot = {.mask = d->state ? UINT16_MAX : 0,
                                .device = (uint8_t)d->device,
                                .cluster = (uint32_t)d->next++};
        d->w.zeros += d->state ? 0 : min_u64(VMA_CLUSTER, d->size - (d->next - 1) * VMA_CLUSTER);
        r = add_slot(d->archive, &slot, NULL, err);
    }
    return r;
}

/* Bytes of a cluster's zeros that count, of `len` bytes that are of the disk. */
static uint64_t zeros_in(unsigned mask, uint64_t len)
{
    uint64_t zeros = 0;
    for (uint64_t k = 0; k * VMA_BLOCK < len; k++)
        zeros += mask >> k & 1 ? 0 : min_u64(VMA_BLOCK, len - k * VMA_BLOCK);
    return zeros;
}

static int check_order(const struct disk_writer *d, goff off, uint64_t len,
                       struct platter_error *err)
{
    if (off % VMA_CLUSTER != 0 || off / VMA_CLUSTER < d->next || !range_inside(off, len, d->size) ||
        ((off + len) % VMA_CLUSTER != 0 && off + len != d->size))
        return fail(err, EINVAL,
                    "%s: %" PRIu64 " bytes at %" PRIu64
                    " of device %u cannot be written behind cluster %" PRIu64,
                    d->archive->stream->name, len, off, d->device, d->next);
    return 0;
}

static int append(struct image_writer *w, goff off, size_t len, const void *packed,
                  size_t packed_len, struct platter_error *err)
{
    (void)packed_len;
    struct disk_writer *d = disk_of(w);
    int r = check_order(d, off, len, err);
    if (r == 0)
        r = put_zeros(d, off / VMA_CLUSTER, err);
    if (r < 0)
        return r;
    struct vma_slot slot = {.mask = (uint16_t)get_be(packed, 2),
                            .device = (uint8_t)d->device,
                            .cluster = (uint32_t)d->next++};
    w->zeros += zeros_in(slot.mask, len);
    return add_slot(d->archive, &slot, (const uint8_t *)packed + HEAD, err);
}

static int append_zeros(struct image_writer *w, goff off, uint64_t len, struct platter_error *err)
{
    struct disk_writer *d = disk_of(w);
    int r = check_order(d, off, len, err);
    return r < 0 ? r : put_zeros(d, vma_clusters(off + len), err);
}

static int disk_finish(struct image_writer *w, struct platter_error *err)
{
    struct disk_writer *d = disk_of(w);
    return put_zeros(d, vma_clusters(d->size), err);
}

static void disk_close(struct image_writer *w)
{
    free(disk_of(w));
}

static const struct writer_ops disk_writer_ops = {
    .encode_bound = encode_bound,
    .encode = encode,
    .append = append,
    .zeros = append_zeros,
    .finish = disk_finish,
    .close = disk_close,
};

static int open_disk(struct archive_writer *w, unsigned i, struct image_writer **ret,
                     struct platter_error *err)
{
    struct vma_writer *v = writer_of(w);
    const struct vma_device *device = &v->header.devices[i + 1];
    struct disk_writer *d = calloc(1, sizeof *d);
    if (!d)
        return fail_memory(err, "a disk of an archive");
    *d = (struct disk_writer){.w = {.ops = &disk_writer_ops, .unit = VMA_CLUSTER},
                              .archive = v,
                              .device = i + 1,
                              .size = device->size,
                              .state = device->state};
    *ret = &d->w;
    return 0;
}

/* ---- the archive -------------------------------------------------------------------------------
 */

/* An archive without disks has one extent all the same: section 6, 6. */
static int writer_finish(struct archive_writer *w, struct platter_error *err)
{
    struct vma_writer *v = writer_of(w);
    int r = check_sound(v, err);
    if (r == 0 && (v->n_slots > 0 || !v->any))
        r = end_extent(v, err);
    v->fill = v->extent_at; /* the one that was begun last has nothing in it */
    return r < 0 ? r : drain(v, false, err);
}

static int begin_again(struct archive_writer *w, struct platter_error *err)
{
    struct vma_writer *v = writer_of(w);
    uint32_t before = v->header.size, size;
    uint8_t *bytes;
    int r = vma_header_encode(&v->header, v->budget, &bytes, &size, err);
    if (r < 0)
        return r;
    if (size != before)
        r = fail(err, EINVAL, "%s: the header had %" PRIu32 " bytes and cannot have %" PRIu32,
                 v->stream->name, before, size);
    if (r == 0)
        r = stream_pwrite(v->stream, bytes, size, 0, err);
    budget_free(v->budget, bytes, size);
    return r;
}

static void writer_close(struct archive_writer *w)
{
    struct vma_writer *v = writer_of(w);
    if (!v)
        return;
    budget_free(v->budget, v->buffer, BUFFER_BYTES);
    free(v);
}

static const struct archive_writer_ops vma_writer_ops = {
    .disk = open_disk,
    .finish = writer_finish,
    .begin_again = begin_again,
    .close = writer_close,
};

/* ---- beginning ---------------------------------------------------------------------------------
 */

/* Names are told apart by programs that restore an archive: in lines of "virtdev:NAME:storage" and
 * of "NAME=path", and in lists with commas (sections 8 and 9.3). */
static int check_disk(const struct archive_plan *plan, unsigned i, struct platter_error *err)
{
    const struct archive_disk *d = &plan->disks[i];
    if (strlen(d->name) > MOST_NAME || strpbrk(d->name, " \t\n:=,"))
        return fail(err, EINVAL,
                    "\"%s\" cannot be the name of a disk in an archive: it has at most %d bytes, "
                    "and no blank, colon, comma or equals sign",
                    d->name, MOST_NAME);
    if ((strcmp(d->name, "vmstate") == 0) != d->state)
        return fail(err, EINVAL,
                    d->state ? "the state of a machine is called vmstate, not %s"
                             : "%s is the name of the state of a machine, and not of a disk",
                    d->name);
    for (unsigned k = 0; k < i; k++)
        if (strcmp(plan->disks[k].name, d->name) == 0)
            return fail(err, EINVAL, "two disks of one archive cannot both be called %s", d->name);
    return 0;
}

static int check_plan(const struct archive_plan *plan, struct platter_error *err)
{
    if (plan->n_disks > MOST_DISKS || plan->n_configs > VMA_CONFIGS)
        return fail(err, EINVAL,
                    "an archive has at most %d disks and %d configurations, not %u and %u",
                    MOST_DISKS, VMA_CONFIGS, plan->n_disks, plan->n_configs);
    int r = 0;
    for (unsigned i = 0; i < plan->n_disks && r == 0; i++)
        r = check_disk(plan, i, err);
    for (unsigned i = 0; i < plan->n_configs && r == 0; i++)
        for (unsigned k = 0; k < i && r == 0; k++)
            if (strcmp(plan->configs[k].name, plan->configs[i].name) == 0)
                r = fail(err, EINVAL, "two configurations of one archive cannot both be called %s",
                         plan->configs[i].name);
    return r;
}

static void header_of(const struct archive_plan *plan, struct vma_header *ret)
{
    *ret = (struct vma_header){.ctime = plan->ctime, .n_configs = plan->n_configs};
    memcpy(ret->uuid, plan->uuid, VMA_UUID);
    for (unsigned i = 0; i < plan->n_configs; i++)
        ret->configs[i] = (struct vma_config){.name = plan->configs[i].name,
                                              .bytes = plan->configs[i].bytes,
                                              .size = plan->configs[i].size};
    for (unsigned i = 0; i < plan->n_disks; i++)
        ret->devices[i + 1] = (struct vma_device){.name = plan->disks[i].name,
                                                  .size = plan->disks[i].size,
                                                  .state = plan->disks[i].state};
}

/* Checks the plan, and encodes the header of it. */
static int encode_header(const struct archive_plan *plan, struct budget *budget,
                         struct vma_header *h, uint8_t **ret, uint32_t *ret_size,
                         struct platter_error *err)
{
    int r = check_plan(plan, err);
    if (r < 0)
        return r;
    header_of(plan, h);
    return vma_header_encode(h, budget, ret, ret_size, err);
}

int vma_may_write(const struct archive_plan *plan, struct platter_error *err)
{
    struct budget *budget = budget_new(VMA_MOST_HEADER);
    auto_free struct vma_header *h = malloc(sizeof *h);
    uint8_t *bytes = NULL;
    uint32_t size = 0;
    int r = h && budget ? encode_header(plan, budget, h, &bytes, &size, err)
                        : fail_memory(err, "the header of an archive");
    budget_free(budget, bytes, size);
    budget_unref(budget);
    return r;
}

int vma_writer_open(const struct archive_plan *plan, struct archive_writer **ret,
                    struct platter_error *err)
{
    struct vma_writer *v = calloc(1, sizeof *v);
    uint8_t *bytes = NULL;
    uint32_t size = 0;
    if (!v)
        return fail_memory(err, "an archive");
    v->w.ops = &vma_writer_ops;
    v->stream = plan->stream;
    v->budget = plan->budget;
    int r = encode_header(plan, v->budget, &v->header, &bytes, &size, err);
    if (r == 0)
        r = budget_alloc(v->budget, BUFFER_BYTES, "the extents of an archive", &v->buffer, err);
    if (r == 0) {
        memcpy(v->buffer, bytes, size);
        v->fill = size;
        begin_extent(v);
    }
    budget_free(v->budget, bytes, size);
    if (r < 0) {
        writer_close(&v->w);
        return r;
    }
    *ret = &v->w;
    return 0;
}
