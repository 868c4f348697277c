/* SPDX-License-Identifier: MIT */
/* What is told about an image: the fields of qemu-img, then what the header and the database add.
 */
#include "format/vmdk/vmdk.h"

static json_t *extent_info(const struct vmdk_extent *x)
{
    json_t *o = json_object();
    if (!o)
        return NULL;
    const struct sparse *s = x->sparse;
    if (s && s->packed)
        json_object_set_new(o, "compressed", json_true());
    json_object_set_new(o, "virtual-size", json_integer((json_int_t)x->len));
    if (x->stream)
        json_object_set_new(o, "filename", json_name(x->stream->name));
    if (s)
        json_object_set_new(o, "cluster-size", json_integer(s->grain));
    json_object_set_new(o, "format", json_name(x->word));
    if (s)
        json_object_set_new(o, "version", json_integer(s->header.version));
    return o;
}

static void add_text(json_t *o, const char *field, const struct descriptor *d, const char *key)
{
    const char *value = descriptor_value(d, key);
    json_t *text = value ? json_string(value) : NULL; /* NULL as well where it is not UTF-8 */
    if (text)
        json_object_set_new(o, field, text);
}

json_t *vmdk_info(struct image *img)
{
    const struct vmdk *v = vmdk_of(img);
    const struct descriptor *d = v->descriptor;
    json_t *o = json_object(), *extents = json_array();
    if (!o || !extents) {
        json_decref(o);
        json_decref(extents);
        return NULL;
    }
    pthread_mutex_lock(&img->lock);
    json_object_set_new(o, "cid", json_integer(d->cid));
    pthread_mutex_unlock(&img->lock);
    json_object_set_new(o, "parent-cid", json_integer(d->parent_cid));
    add_text(o, "create-type", d, "createType");
    for (unsigned i = 0; i < v->n_extents; i++)
        json_array_append_new(extents, extent_info(&v->extents[i]));
    json_object_set_new(o, "extents", extents);
    add_text(o, "adapter-type", d, "ddb.adapterType");
    add_text(o, "hw-version", d, "ddb.virtualHWVersion");
    add_text(o, "tools-version", d, "ddb.toolsVersion");
    return o;
}

/* The space of the files beside the one that was opened; what cannot be told counts as nothing. */
static uint64_t allocated_beside(const struct image *img)
{
    const struct vmdk *v = vmdk_of(img);
    uint64_t sum = 0, one;
    for (unsigned i = 0; i < v->n_extents; i++)
        if (v->extents[i].stream && v->extents[i].stream != img->stream && !v->extents[i].shares &&
            stream_allocated(v->extents[i].stream, &one, NULL) == 0)
            sum += one;
    return sum;
}

int vmdk_info_top(struct image *img, json_t *info)
{
    const struct vmdk *v = vmdk_of(img);
    bool unclean = false, sparse = false;
    for (unsigned i = 0; i < v->n_extents; i++) {
        sparse |= v->extents[i].sparse != NULL;
        unclean |= v->extents[i].sparse && v->extents[i].sparse->was_unclean;
    }
    json_int_t size = json_integer_value(json_object_get(info, "actual-size"));
    size += (json_int_t)allocated_beside(img);
    int r = json_object_set_new(info, "actual-size", json_integer(size));
    r |= json_object_set_new(info, "dirty-flag", json_boolean(unclean));
    if (sparse && img->unit == VMDK_SECTOR) /* grains of a sector are grains even so: COWD */
        r |= json_object_set_new(info, "cluster-size", json_integer(VMDK_SECTOR));
    return r < 0 ? -ENOMEM : 0;
}
