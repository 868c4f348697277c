/* SPDX-License-Identifier: MIT */
/* What there is in an archive, for people and programs. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "format/vma/archive.h"

/* Clusters that have to be there: of a state all that are. */
static uint64_t clusters_of(const struct vma_archive *a, unsigned i)
{
    const struct vma_device *d = &a->header.devices[i];
    return d->state ? vma_archive_count(a, i) : vma_clusters(d->size);
}

static json_t *describe_device(const struct vma_archive *a, unsigned i)
{
    const struct vma_device *d = &a->header.devices[i];
    json_t *ret = json_pack("{s:o, s:i, s:I, s:b}", "name", json_name(d->name), "id", (int)i,
                            "size", (json_int_t)vma_device_bytes(a, i), "vmstate", (int)d->state);
    if (ret && a->known)
        json_object_set_new(
            ret, "missing-clusters",
            json_integer((json_int_t)(clusters_of(a, i) - vma_archive_count(a, i))));
    return ret;
}

static json_t *describe_devices(const struct vma_archive *a, unsigned only)
{
    json_t *list = json_array();
    for (unsigned i = 1; list && i < VMA_DEVICES; i++)
        if (a->header.devices[i].name && (only == 0 || i == only))
            json_array_append_new(list, describe_device(a, i));
    return list;
}

json_t *vma_views(struct image *img)
{
    return describe_devices(vma_of(img)->archive, 0);
}

static json_t *describe_configs(const struct vma_header *h)
{
    json_t *list = json_array();
    for (uint32_t i = 0; list && i < h->n_configs; i++) {
        const struct vma_config *c = &h->configs[i];
        json_t *config =
            json_pack("{s:o, s:I}", "name", json_name(c->name), "size", (json_int_t)c->size);
        if (config && c->displaced)
            json_object_set_new(config, "displaced", json_true());
        json_array_append_new(list, config);
    }
    return list;
}

/* 2023-11-14T22:13:20Z; NULL where no calendar goes so far. */
static json_t *describe_date(int64_t seconds)
{
    time_t when = (time_t)seconds;
    char text[64];
    struct tm tm;
    if (!gmtime_r(&when, &tm) || strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        return NULL;
    return json_string(text);
}

static json_t *describe_uuid(const uint8_t *bytes)
{
    char uuid[2 * VMA_UUID + 5], *out = uuid;
    for (unsigned i = 0; i < VMA_UUID; i++)
        out += sprintf(out, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", bytes[i]);
    return json_string(uuid);
}

json_t *vma_info(struct image *img)
{
    const struct vma *v = vma_of(img);
    const struct vma_archive *a = v->archive;
    json_t *date = describe_date(a->header.ctime);
    json_t *ret = json_pack("{s:o, s:I}", "uuid", describe_uuid(a->header.uuid), "ctime",
                            (json_int_t)a->header.ctime);
    if (!ret)
        return NULL;
    if (date)
        json_object_set_new(ret, "created", date);
    if (a->known) {
        json_object_set_new(ret, "extents", json_integer((json_int_t)a->n_extents));
        json_object_set_new(ret, "indexed", json_boolean(a->kept != NULL));
    }
    json_object_set_new(ret, "configs", describe_configs(&a->header));
    json_object_set_new(ret, "devices", describe_devices(a, img->view ? v->device : 0));
    return ret;
}
