/* SPDX-License-Identifier: MIT */
/* What `info` says, with the field names of qemu-img. */
#include <string.h>

#include "format/qcow2/qcow2.h"

/* The order of the fields is qemu-img's, for those who compare texts. */
json_t *qcow2_info(struct image *img)
{
    const struct qcow2 *q = qcow2_of(img);
    const struct qcow2_header *h = &q->header;
    bool new = h->version >= 3;
    json_t *info = json_pack("{s:s, s:s}", "compat", new ? "1.1" : "0.10", "compression-type",
                             h->compression == QCOW2_ZSTD ? "zstd" : "zlib");
    json_t *bitmaps = new ? qcow2_bitmaps_info(img) : NULL;

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
        json_object_set_new(info, "encrypt", qcow2_crypt_info(img));
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
