/* SPDX-License-Identifier: MIT */
/* The archive of Proxmox VE, as a file of which each device is a view. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/ckd.h"
#include "format/vma/archive.h"

static enum probe vma_probe(const uint8_t *prefix, size_t len, uint64_t file_size)
{
    (void)file_size;
    return len >= 8 && memcmp(prefix, "VMA\0\0\0\0", 7) == 0 ? PROBE_SURE : PROBE_NO;
}

/* ---- open --------------------------------------------------------------------------------------
 */

/* A device by its name, or, where none is called so, by its number. */
static int find_device(const struct image *img, const struct vma_header *h,
                       struct platter_error *err)
{
    int found = vma_device_find(img->stream->name, h, img->view, err);
    char *end;
    if (found != -ENOENT || img->view[0] < '1' || img->view[0] > '9')
        return found;
    unsigned long number = strtoul(img->view, &end, 10);
    return *end == 0 && number < VMA_DEVICES && h->devices[number].name ? (int)number : found;
}

/* The device that is asked for, or the only disk there is. */
static int choose_device(struct image *img, struct platter_error *err)
{
    struct vma *v = vma_of(img);
    const struct vma_header *h = &v->archive->header;
    unsigned only = 0, n = 0;

    if (img->view) {
        int found = find_device(img, h, err);
        v->device = found < 0 ? 0 : (unsigned)found;
        if (found == -ENOENT && v->archive->rescuer)
            return fail(err, ENOENT,
                        "%s: its header is damaged, and no disk called %s was found: platter info "
                        "--salvage tells which were",
                        img->stream->name, img->view);
        return found < 0 ? found : 0;
    }
    for (unsigned i = 1; i < VMA_DEVICES; i++)
        if (h->devices[i].name && !h->devices[i].state && n++ == 0)
            only = i;
    v->device = n == 1 ? only : 0;
    if (n == 1 || img->query || img->checking)
        return 0;
    if (n == 0)
        return fail(err, ENOENT, "%s: there is no disk in this archive", img->stream->name);
    return fail(err, EINVAL, "%s: is an archive of %u disks: name one of them, as in %s@%s",
                img->stream->name, n, img->stream->name, h->devices[only].name);
}

uint64_t vma_archive_count(const struct vma_archive *a, unsigned device)
{
    const struct vma_index *index = atomic_load(&a->index);
    return index ? vma_index_count(index, device) : a->counts[device];
}

uint64_t vma_device_bytes(const struct vma_archive *a, unsigned device)
{
    const struct vma_device *d = &a->header.devices[device];
    return d->state && a->known ? vma_archive_count(a, device) * VMA_CLUSTER : d->size;
}

/* Adds to a sentence about damage what can be done. */
static int add_advice(int r, const char *advice, struct platter_error *err)
{
    auto_free char *said = err ? string_copy(err->message) : NULL;
    return r == -PLATTER_ECORRUPT && said ? fail(err, -r, "%s; %s", said, advice) : r;
}

/* The header, or what is left of it for a salvage. */
static int load_own(struct image *img, struct platter_error *err)
{
    struct vma *v = vma_of(img);
    struct platter_error why = {0};

    int r = vma_archive_load(img, &v->archive, &why);
    if (r == 0)
        return 0;
    if (r == -ENOMEM || !img->salvage || img->stream->sequential)
        return fail(err, -r, "%s", why.message);
    return vma_salvage_header(img, v->archive, &why, err);
}

/* ... or that of another view of the same file. */
static int load(struct image *img, struct platter_error *err)
{
    struct vma *v = vma_of(img);

    if (!img->sibling)
        return load_own(img, err);
    v->archive = vma_of(img->sibling)->archive;
    atomic_fetch_add(&v->archive->owners, 1);
    return 0;
}

/* Whoever only asks what there is in an archive is told that as well if it is damaged, or so wild
 * that its index is too large. */
static int survey_for_query(struct image *img, struct vma_archive *a, struct platter_error *err)
{
    struct platter_error why = {0};
    int r = vma_archive_survey(img, a, &why);
    if (r == -PLATTER_ECORRUPT || r == -ENOMEM)
        return image_doubt(img, err, "%s", why.message);
    return r < 0 ? fail(err, -r, "%s", why.message) : 0;
}

/* Where the clusters are. An index that was kept is not asked about a state, whose length nothing
 * else tells, nor where it is the archive that is in question. */
static int find_clusters(struct image *img, struct platter_error *err)
{
    const struct vma *v = vma_of(img);
    struct vma_archive *a = v->archive;
    bool ask = !img->salvage && !img->checking && !a->header.devices[v->device].state;

    if (img->query && img->stream->sequential)
        return 0;
    int r = ask && !a->known ? vma_kept_open(img, a, &a->kept, err) : 0;
    if (r < 0 || (ask && a->kept))
        return r;
    /* To look at all extents would be to unpack nearly all of it, or a request for each. */
    if (img->query && (img->stream->base || img->stream->depth > 0) && !img->salvage)
        return 0;
    if (img->query && !img->salvage && !img->checking)
        return survey_for_query(img, a, err);
    r = vma_archive_survey(img, a, err);
    return img->salvage || img->checking
               ? r
               : add_advice(r, "--salvage reads what is sound of it", err);
}

static int note_quirks(struct image *img, struct platter_error *err)
{
    const struct vma_archive *a = vma_of(img)->archive;
    if (!a->extra || img->sibling)
        return 0;
    return image_doubt(img, err,
                       "%s: has zeros just past the end of a disk, as a writer of 2013 left them: "
                       "they are passed over",
                       img->stream->name);
}

static int vma_open(struct image *img, struct platter_error *err)
{
    struct vma *v = calloc(1, sizeof *v);
    uint64_t size = 0;

    if (!v)
        return fail_memory(err, "an archive");
    img->state = v;
    img->unit = VMA_CLUSTER;
    if (img->writable)
        return fail(err, ENOTSUP, "%s: an archive cannot be written to", img->stream->name);
    int r = load(img, err);
    if (r == 0)
        r = choose_device(img, err);
    if (r == 0)
        r = find_clusters(img, err);
    if (r == 0)
        r = note_quirks(img, err);
    if (r < 0)
        return r;
    for (unsigned i = 1; i < VMA_DEVICES; i++)
        if (v->archive->header.devices[i].name && (i == v->device || v->device == 0))
            if (ckd_add(&size, size, vma_device_bytes(v->archive, i)))
                return fail(err, EFBIG, "%s: its disks together are too large", img->stream->name);
    img->size = size;
    return 0;
}

static int vma_close(struct image *img, struct platter_error *err)
{
    struct vma *v = vma_of(img);
    (void)err;
    if (v)
        vma_archive_unref(v->archive);
    free(TAKE(img->state));
    return 0;
}

const struct format format_vma = {
    .name = "vma",
    .title = "Proxmox VE backup archive",
    .no_backing = true,
    .in_order = true,
    .probe = vma_probe,
    .open = vma_open,
    .close = vma_close,
    .map = vma_map,
    .info = vma_info,
    .views = vma_views,
    .archive = &vma_archive_ops,
};
