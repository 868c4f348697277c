/* SPDX-License-Identifier: MIT */
/*
 * The index of a damaged archive, of what can be used of it: what reading it front to back finds
 * (reader.h), which knows what may have moved where bytes came or went.
 */
#include <inttypes.h>
#include <string.h>

#include "format/vma/archive.h"
#include "format/vma/mend.h"
#include "format/vma/reader.h"

enum { MD5_AT = 24, MEND_BYTES = 4 << 20 /* hashed to mend a header */ };

/* One kind of faults: how many, and the first. */
struct told {
    uint64_t n;
    char *first;
};

struct rescue {
    struct image *img;
    struct told damage; /* of the archive */
    struct told doubts; /* about the disk that is asked for, or any */
    bool gap;           /* something was told of what follows the extent in hand */
    bool near;          /* ... and that has data of the disk */
    bool out_of_memory;
};

static void tell(void *opaque, const struct archive_fault *f)
{
    struct rescue *s = opaque;
    unsigned device = vma_of(s->img)->device;
    struct told *told = f->disk ? &s->doubts : &s->damage;

    /* What is missing is told where it is read, and the header was when it was found out. */
    if (f->kind == ARCHIVE_FAULT_NOTE || f->kind == ARCHIVE_FAULT_MISSING ||
        f->kind == ARCHIVE_FAULT_HEADER)
        return;
    if (f->disk && device && f->disk->id != device)
        return;
    s->gap |= !f->disk;
    if (told->n++ == 0 && !(told->first = string_copy(f->text)))
        s->out_of_memory = true;
}

/* The clusters of a batch, each of which has one run or more, one behind the other. */
static int enter(struct vma_index *index, const struct archive_batch *batch,
                 struct platter_error *err)
{
    struct vma_extent e = {0};
    unsigned n = 0;

    for (unsigned i = 0; i < batch->n_runs; i++) {
        const struct archive_run *run = &batch->runs[i];
        uint8_t device = (uint8_t)run->disk->id;
        for (uint64_t c = run->off / VMA_CLUSTER; c * VMA_CLUSTER < run->off + run->len; c++) {
            const struct vma_slot *last = n ? &e.slots[n - 1] : NULL;
            if (!last || last->device != device || last->cluster != c)
                e.slots[n++] = (struct vma_slot){.device = device, .cluster = (uint32_t)c};
        }
    }
    return vma_index_add(index, batch->off, &e, err);
}

/* Whether the extent has data of the disk that is asked for, or of any. */
static bool has_data(const struct rescue *s, const struct archive_batch *batch)
{
    unsigned device = vma_of(s->img)->device;
    for (unsigned i = 0; i < batch->n_runs; i++)
        if (!batch->runs[i].zero && (device == 0 || batch->runs[i].disk->id == device))
            return true;
    return false;
}

/* Enters all there is in the index, if there is one. */
static int read_all(struct rescue *s, struct archive_reader *reader, struct vma_index *index,
                    uint64_t *ret_extents, struct platter_error *err)
{
    struct archive_batch batch = {0};
    struct budget *budget = vma_of(s->img)->archive->budget;

    int r = budget_alloc_buffer(budget, reader->batch_bytes, "what is read of an archive",
                                &batch.room, err);
    while (r == 0 && (r = reader->ops->next(reader, &batch, err)) > 0) {
        r = index ? enter(index, &batch, err) : 0;
        *ret_extents += r == 0;
        s->near |= s->gap && has_data(s, &batch);
        s->gap = false;
    }
    budget_free(budget, batch.room, reader->batch_bytes);
    return r;
}

static int doubt(struct image *img, const struct told *told, struct platter_error *err)
{
    if (told->n == 0)
        return 0;
    if (told->n == 1)
        return image_doubt(img, err, "%s", told->first);
    return image_doubt(img, err, "%s; and %" PRIu64 " more like that", told->first, told->n - 1);
}

/* Damage elsewhere, not behind its data either, is none of a disk that is all there. */
static bool is_whole(const struct image *img, const struct vma_index *index)
{
    const struct vma *v = vma_of(img);
    const struct vma_device *d = &v->archive->header.devices[v->device];
    return d->name && !d->state && vma_index_count(index, v->device) == vma_clusters(d->size);
}

/* A reader from the beginning on. */
static int open_reader(struct image *img, struct rescue *s, const struct archive_listing *found,
                       struct archive_reader **ret, struct platter_error *err)
{
    const struct vma_archive *a = vma_of(img)->archive;
    const struct archive_request request = {.stream = img->stream,
                                            .flags = ARCHIVE_HEADERS | ARCHIVE_SALVAGE,
                                            .budget = a->budget,
                                            .uuid = found ? a->header.uuid : NULL,
                                            .fault = s ? tell : NULL,
                                            .opaque = s,
                                            .found = found};
    img->stream->position = 0;
    return vma_reader_open(&request, ret, err);
}

int vma_salvage_index(struct image *img, struct vma_index *index, uint64_t *ret_extents,
                      struct platter_error *err)
{
    struct rescue s = {.img = img};
    const struct archive_reader *rescuer = vma_of(img)->archive->rescuer;
    struct archive_reader *reader;

    int r = open_reader(img, &s, rescuer ? &rescuer->listing : NULL, &reader, err);
    if (r == 0) {
        r = read_all(&s, reader, index, ret_extents, err);
        reader->ops->close(reader);
    }
    if (r == 0 && s.out_of_memory)
        r = fail_memory(err, "a sentence");
    if (r == 0 && (s.near || !is_whole(img, index)))
        r = doubt(img, &s.damage, err);
    if (r == 0)
        r = doubt(img, &s.doubts, err);
    free(s.damage.first);
    free(s.doubts.first);
    return r;
}

/* Disks that no header tells of are as long as what there is of them. */
static int size_disks(struct image *img, struct vma_reader *r, struct platter_error *err)
{
    struct rescue s = {.img = img};
    uint64_t n = 0;
    int e = read_all(&s, &r->head, NULL, &n, err);

    for (unsigned i = 0; e == 0 && i < r->head.listing.n_disks; i++) {
        struct archive_disk *d = &r->disks[i];
        if (d->unsized)
            d->size = r->head.ops->have(&r->head, d);
        if (d->unsized && d->size)
            r->header.devices[d->id] = (struct vma_device){.name = d->name, .size = d->size};
    }
    return e;
}

int vma_salvage_header(struct image *img, struct vma_archive *a, const struct platter_error *why,
                       struct platter_error *err)
{
    int r = open_reader(img, NULL, NULL, &a->rescuer, err);
    if (r < 0)
        return r;
    struct vma_reader *reader = vma_reader_of(a->rescuer);
    const bool lost = a->rescuer->lost_header;
    r = lost ? size_disks(img, reader, err) : 0;
    if (r < 0)
        return r;
    a->header = reader->header;
    return image_doubt(img, err, "%s; %s", why->message,
                       lost ? "what is left of it and its extents tell which disks there are"
                            : "with one bit of it changed it is right: that is used");
}

int vma_salvage_extent(struct image *img, uint64_t off, const uint8_t *bytes,
                       struct vma_extent *ret, struct platter_error *err)
{
    const uint8_t *uuid = vma_of(img)->archive->header.uuid;
    uint8_t mended[VMA_EXTENT];

    memcpy(mended, bytes, sizeof mended);
    if (!vma_extent_probe(mended, uuid) &&
        (!vma_mend(mended, sizeof mended, MD5_AT, MEND_BYTES) || !vma_extent_probe(mended, uuid)))
        return vma_extent_decode(img->stream->name, off, bytes, uuid, ret, err);
    vma_extent_slots(mended, ret);
    return 0;
}
