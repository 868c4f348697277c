/* SPDX-License-Identifier: MIT */
/*
 * The archive of Proxmox VE, as a file of which each device is a view. It is opened by looking at
 * all headers of its extents, one after the other (section 10).
 */
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

static int load_header(struct image *img, uint64_t file_size, struct platter_error *err)
{
    struct vma *v = vma_of(img);
    const char *name = img->stream->name;
    uint8_t fixed[VMA_FIXED];
    uint32_t size = 0;

    if (file_size < VMA_FIXED)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: a VMA archive has a header of more than %d bytes, but the file ends at "
                    "%" PRIu64 ": it was cut short",
                    name, VMA_FIXED, file_size);
    int r = stream_pread(img->stream, fixed, sizeof fixed, 0, err);
    if (r == 0)
        r = vma_header_size(name, fixed, &size, err);
    if (r == 0)
        r = budget_alloc(img->budget, size, "the header of an archive", &v->bytes, err);
    if (r < 0)
        return r;
    v->header.size = size;
    if (size > file_size)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the header has %" PRIu32 " bytes, but the file ends at %" PRIu64
                    ": it was cut short",
                    name, size, file_size);
    r = stream_pread(img->stream, v->bytes, size, 0, err);
    return r < 0 ? r : vma_header_decode(name, v->bytes, size, &v->header, err);
}

static int enter_extent(struct image *img, uint64_t off, uint64_t file_size, uint64_t *ret_len,
                        struct platter_error *err)
{
    struct vma *v = vma_of(img);
    const char *name = img->stream->name;
    uint8_t bytes[VMA_EXTENT];
    struct vma_extent e;

    if (file_size - off < VMA_EXTENT)
        return fail(
            err, PLATTER_ECORRUPT,
            "%s: %" PRIu64 " bytes at %" PRIu64
            " are too few for an extent: the archive was cut short, or something follows it",
            name, file_size - off, off);
    int r = stream_pread(img->stream, bytes, sizeof bytes, off, err);
    if (r == 0)
        r = vma_extent_decode(name, off, bytes, v->header.uuid, &e, err);
    if (r < 0)
        return r;
    *ret_len = VMA_EXTENT + e.blocks * (uint64_t)VMA_BLOCK;
    if (*ret_len > file_size - off)
        return fail(err, PLATTER_ECORRUPT,
                    "%s: the extent at %" PRIu64 " has %" PRIu64
                    " bytes, but the file ends at %" PRIu64 ": it was cut short",
                    name, off, *ret_len, file_size);
    for (unsigned i = 0; r == 0 && i < VMA_SLOTS; i++)
        r = vma_slot_check(name, off, &v->header, &e.slots[i], err);
    if (r == 0) {
        r = vma_index_add(v->index, off, &e, err);
        r = r < 0 ? fail_in(err, r, "%s: the extent at %" PRIu64, name, off) : 0;
    }
    return r;
}

static int load_index(struct image *img, uint64_t file_size, struct platter_error *err)
{
    struct vma *v = vma_of(img);
    uint64_t len;

    int r = vma_index_new(img->budget, &v->index, err);
    for (uint64_t off = v->header.size; r == 0 && off < file_size; off += len) {
        r = enter_extent(img, off, file_size, &len, err);
        v->n_extents += r == 0;
    }
    return r;
}

/* The device that is asked for, or the only disk there is. */
static int choose_device(struct image *img, struct platter_error *err)
{
    struct vma *v = vma_of(img);
    const struct vma_header *h = &v->header;
    unsigned only = 0, n = 0;

    if (img->view) {
        int found = vma_device_find(img->stream->name, h, img->view, err);
        v->device = found < 0 ? 0 : (unsigned)found;
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

/* A state is as long as what there is of it. */
static uint64_t size_of(const struct vma *v, unsigned device)
{
    const struct vma_device *d = &v->header.devices[device];
    return d->state ? vma_index_count(v->index, device) * VMA_CLUSTER : d->size;
}

static int vma_open(struct image *img, struct platter_error *err)
{
    struct vma *v = calloc(1, sizeof *v);
    uint64_t file_size, size = 0;

    if (!v)
        return fail_memory(err, "an archive");
    img->state = v;
    img->unit = VMA_CLUSTER;
    if (img->writable)
        return fail(err, ENOTSUP, "%s: an archive cannot be written to", img->stream->name);
    int r = stream_size(img->stream, &file_size, err);
    if (r == 0)
        r = load_header(img, file_size, err);
    if (r == 0)
        r = choose_device(img, err);
    if (r == 0)
        r = load_index(img, file_size, err);
    if (r < 0)
        return r;
    for (unsigned i = 1; i < VMA_DEVICES; i++)
        if (v->header.devices[i].name && (i == v->device || v->device == 0))
            if (ckd_add(&size, size, size_of(v, i)))
                return fail(err, EFBIG, "%s: its disks together are too large", img->stream->name);
    img->size = size;
    return 0;
}

static int vma_close(struct image *img, struct platter_error *err)
{
    struct vma *v = vma_of(img);
    (void)err;
    if (v) {
        vma_index_free(v->index);
        budget_free(img->budget, v->bytes, v->header.size);
    }
    free(TAKE(img->state));
    return 0;
}

/* ---- describing --------------------------------------------------------------------------------
 */

static json_t *describe_device(const struct vma *v, unsigned i)
{
    const struct vma_device *d = &v->header.devices[i];
    uint64_t n = d->state ? vma_index_count(v->index, i) : vma_clusters(d->size);
    return json_pack("{s:o, s:i, s:I, s:b, s:I}", "name", json_name(d->name), "id", (int)i, "size",
                     (json_int_t)size_of(v, i), "vmstate", (int)d->state, "missing-clusters",
                     (json_int_t)(n - vma_index_count(v->index, i)));
}

static json_t *vma_views(struct image *img)
{
    const struct vma *v = vma_of(img);
    json_t *list = json_array();
    for (unsigned i = 1; list && i < VMA_DEVICES; i++)
        if (v->header.devices[i].name)
            json_array_append_new(list, describe_device(v, i));
    return list;
}

static json_t *vma_info(struct image *img)
{
    const struct vma_header *h = &vma_of(img)->header;
    json_t *configs = json_array();
    char uuid[2 * VMA_UUID + 5], *out = uuid;

    for (unsigned i = 0; i < VMA_UUID; i++)
        out += sprintf(out, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", h->uuid[i]);
    for (uint32_t i = 0; i < h->n_configs; i++)
        json_array_append_new(configs,
                              json_pack("{s:o, s:I}", "name", json_name(h->configs[i].name), "size",
                                        (json_int_t)h->configs[i].size));
    return json_pack("{s:s, s:I, s:I, s:o, s:o}", "uuid", uuid, "ctime", (json_int_t)h->ctime,
                     "extents", (json_int_t)vma_of(img)->n_extents, "configs", configs, "devices",
                     vma_views(img));
}

const struct format format_vma = {
    .name = "vma",
    .title = "Proxmox VE backup archive",
    .no_backing = true,
    .probe = vma_probe,
    .open = vma_open,
    .close = vma_close,
    .map = vma_map,
    .info = vma_info,
    .views = vma_views,
    .archive = &vma_archive_ops,
};
