/* SPDX-License-Identifier: MIT */
/* What `info` says, with the field names of qemu-img. */
#include <string.h>

#include "base/cursor.h"
#include "format/qcow2/qcow2.h"

enum { BITMAP_ENTRY = 24 };

static json_t *bitmap_flags(uint32_t flags)
{
    json_t *list = json_array();
    if (flags & 1)
        json_array_append_new(list, json_string("in-use"));
    if (flags & 2)
        json_array_append_new(list, json_string("auto"));
    return list;
}

/* One entry of the bitmap directory (section 16); NULL: damaged. */
static json_t *bitmap_describe(struct reader *r)
{
    size_t start = r->pos;
    char name[1024] = "";

    read_skip(r, 8 + 4);
    uint32_t flags = read_be32(r);
    read_skip(r, 1);
    unsigned granularity = read_u8(r);
    unsigned name_len = read_be16(r);
    uint32_t extra = read_be32(r);
    read_skip(r, extra);
    const uint8_t *bytes = read_bytes(r, name_len);
    if (!bytes || name_len >= sizeof name || granularity > 63)
        return NULL;
    memcpy(name, bytes, name_len);
    read_seek(r, start + (r->pos - start + 7) / 8 * 8);
    return json_pack("{s:o, s:o, s:I}", "flags", bitmap_flags(flags), "name", json_name(name),
                     "granularity", (json_int_t)(UINT64_C(1) << granularity));
}

/* The bitmaps, or NULL where there are none or their directory cannot be read: info goes on
 * without. */
static json_t *bitmaps_describe(struct image *img)
{
    const struct qcow2_extensions *x = &qcow2_of(img)->extensions;
    void *bytes;

    if (!x->has_bitmaps || !(qcow2_of(img)->header.autoclear & QCOW2_AUTOCLEAR_BITMAPS) ||
        budget_alloc(img->budget, x->bitmap_directory_size, "the bitmap directory", &bytes, NULL) <
            0)
        return NULL;
    json_t *list = NULL;
    if (stream_pread(img->stream, bytes, x->bitmap_directory_size, x->bitmap_directory, NULL) ==
        0) {
        struct reader r = reader_over(bytes, x->bitmap_directory_size);
        list = json_array();
        for (uint32_t i = 0; list && i < x->n_bitmaps; i++)
            if (json_array_append_new(list, bitmap_describe(&r)) < 0)
                break;
    }
    budget_free(img->budget, bytes, x->bitmap_directory_size);
    return list;
}

/* The order of the fields is qemu-img's, for those who compare texts. */
json_t *qcow2_info(struct image *img)
{
    const struct qcow2 *q = qcow2_of(img);
    const struct qcow2_header *h = &q->header;
    bool new = h->version >= 3;
    json_t *info = json_pack("{s:s, s:s}", "compat", new ? "1.1" : "0.10", "compression-type",
                             h->compression == QCOW2_ZSTD ? "zstd" : "zlib");
    json_t *bitmaps = new ? bitmaps_describe(img) : NULL;

    if (new)
        json_object_set_new(info, "lazy-refcounts",
                            json_boolean(h->compatible & QCOW2_COMPATIBLE_LAZY));
    if (bitmaps)
        json_object_set_new(info, "bitmaps", bitmaps);
    json_object_set_new(info, "refcount-bits", json_integer((json_int_t)1 << h->refcount_order));
    if (q->data_file && q->extensions.data_file)
        json_object_set_new(info, "data-file", json_name(q->extensions.data_file));
    if (q->data_file)
        json_object_set_new(info, "data-file-raw",
                            json_boolean(h->autoclear & QCOW2_AUTOCLEAR_RAW));
    if (h->crypt_method)
        json_object_set_new(
            info, "encrypt",
            json_pack("{s:s}", "format", h->crypt_method == QCOW2_CRYPT_AES ? "aes" : "luks"));
    if (!new)
        return info;
    json_object_set_new(info, "corrupt",
                        json_boolean(h->incompatible & QCOW2_INCOMPATIBLE_CORRUPT));
    json_object_set_new(info, "extended-l2",
                        json_boolean(h->incompatible & QCOW2_INCOMPATIBLE_EXTENDED_L2));
    return info;
}

json_t *qcow2_snapshot_describe(const struct qcow2_snapshot *s)
{
    const uint64_t second = 1000000000;
    json_t *json = json_object();

    if (s->icount != UINT64_MAX)
        json_object_set_new(json, "icount", json_integer((json_int_t)s->icount));
    json_object_set_new(json, "vm-clock-nsec", json_integer((json_int_t)(s->clock_nsec % second)));
    json_object_set_new(json, "name", json_name(s->name));
    json_object_set_new(json, "date-sec", json_integer(s->date_sec));
    json_object_set_new(json, "date-nsec", json_integer(s->date_nsec));
    json_object_set_new(json, "vm-clock-sec", json_integer((json_int_t)(s->clock_nsec / second)));
    json_object_set_new(json, "id", json_name(s->id));
    json_object_set_new(json, "vm-state-size", json_integer((json_int_t)s->vm_state_size));
    return json;
}

int qcow2_info_top(struct image *img, json_t *info)
{
    const struct qcow2 *q = qcow2_of(img);

    /* Also where clusters are as small as the unit of formats that have none. */
    json_object_set_new(info, "cluster-size", json_integer(img->unit));
    json_object_set_new(info, "dirty-flag",
                        json_boolean(q->header.incompatible & QCOW2_INCOMPATIBLE_DIRTY));
    if (q->header.crypt_method)
        json_object_set_new(info, "encrypted", json_true());
    if (q->header.n_snapshots == 0)
        return 0;
    json_t *list = json_array();
    for (uint32_t i = 0; i < q->header.n_snapshots; i++)
        json_array_append_new(list, qcow2_snapshot_describe(&q->snapshots[i]));
    return json_object_set_new(info, "snapshots", list) < 0 ? -ENOMEM : 0;
}
