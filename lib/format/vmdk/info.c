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
    if (x->type < TYPE_OTHER)
        json_object_set_new(o, "type", json_string(type_words[x->type]));
    json_object_set_new(o, "access",
                        json_string(access_words[x->unfit ? ACCESS_WRITE : x->access]));
    if (x->off != 0)
        json_object_set_new(o, "offset", json_integer((json_int_t)x->off));
    if (s)
        json_object_set_new(o, "version", json_integer(s->header.version));
    return o;
}

/* In UTF-8, or as it stands there where its encoding is not known. */
static void add_text(json_t *o, const char *field, const struct descriptor *d, const char *key)
{
    const char *value = descriptor_value(d, key);
    auto_free char *text = NULL;
    if (!value)
        return;
    encoding_decode(descriptor_value(d, "encoding"), value, &text, NULL);
    json_object_set_new(o, field, json_name(text ? text : value));
}

static void add_ids(json_t *o, struct image *img)
{
    WITH_LOCK(&img->lock);
    const struct descriptor *d = vmdk_of(img)->descriptor;
    json_object_set_new(o, "cid", json_integer(d->cid));
    json_object_set_new(o, "parent-cid", json_integer(d->parent_cid));
}

static void add_database(json_t *o, const struct descriptor *d)
{
    const char *thin = descriptor_value(d, "ddb.thinProvisioned");
    add_text(o, "adapter-type", d, "ddb.adapterType");
    add_text(o, "hw-version", d, "ddb.virtualHWVersion");
    add_text(o, "tools-version", d, "ddb.toolsVersion");
    add_text(o, "encoding", d, "encoding");
    add_text(o, "long-content-id", d, "ddb.longContentID");
    add_text(o, "change-track-path", d, "changeTrackPath");
    if (thin)
        json_object_set_new(o, "thin-provisioned", json_boolean(strcmp(thin, "1") == 0));
}

json_t *vmdk_info(struct image *img)
{
    const struct vmdk *v = vmdk_of(img);
    const struct descriptor *d = vmdk_descriptor(img);
    json_t *o = json_object(), *extents = json_array();
    if (!o || !extents) {
        json_decref(o);
        json_decref(extents);
        return NULL;
    }
    if (!v->bare)
        add_ids(o, img);
    add_text(o, "create-type", d, "createType");
    for (unsigned i = 0; i < v->n_extents; i++)
        json_array_append_new(extents, extent_info(&v->extents[i]));
    json_object_set_new(o, "extents", extents);
    if (v->bare)
        json_object_set_new(o, "bare-extent", json_true());
    add_database(o, d);
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
