/* SPDX-License-Identifier: MIT */
/*
 * Describes images and formats as JSON, with the field names of `qemu-img info --output=json`.
 * Only what open read is looked at, and the size of the file: nothing else is opened.
 */
#include <string.h>

#include "ops/ops.h"
#include "stream/place.h"

/* Turns root (consumed) into text. `complete` 0 means that nothing failed while root was made. */
static int json_text(json_t *root, int complete, char **ret_json, struct platter_error *err)
{
    *ret_json = complete == 0 && root != NULL ? json_dumps(root, JSON_INDENT(4)) : NULL;
    json_decref(root);
    return *ret_json != NULL ? 0 : fail_memory(err, "a description in JSON");
}

/* ---- info ------------------------------------------------------------------------------------ */

static int info_backing(const struct image *img, json_t *info, struct platter_error *err)
{
    if (img->backing_name == NULL)
        return 0;
    auto_free char *path = NULL;
    int r = gate_resolve(img->stream->name, img->backing_name, &path, err);
    if (r < 0)
        return r;
    const char *full = path != NULL ? path : img->backing_name;
    r = json_object_set_new(info, "backing-filename", json_name(img->backing_name));
    r |= json_object_set_new(info, "full-backing-filename", json_name(full));
    if (img->backing_format != NULL)
        r |= json_object_set_new(info, "backing-filename-format", json_name(img->backing_format));
    return r == 0 ? 0 : fail_memory(err, "a description in JSON");
}

static void add_fact(void *opaque, const struct stream_fact *fact)
{
    json_t *place = opaque, *value, *list = json_object_get(place, fact->key);
    value = fact->text ? json_name(fact->text) : json_integer((json_int_t)fact->number);
    if (fact->listed && !list) {
        list = json_array();
        json_object_set_new(place, fact->key, list);
    }
    if (fact->listed)
        json_array_append_new(list, value);
    else
        json_object_set_new(place, fact->key, value);
}

/* What the server tells on which the image is. For a raw disk its objects are what clusters are for
 * others, as qemu-img has it. */
static int info_place(const struct image *img, json_t *info, struct platter_error *err)
{
    struct stream *s = img->stream;
    while (!s->ops->facts && s->base)
        s = s->base;
    if (!s->ops->facts)
        return 0;
    json_t *place = json_pack("{s:s}", "type", s->ops->name);
    int r = place ? s->ops->facts(s, add_fact, place) : -1;
    json_t *object = json_object_get(place, "object-size");
    if (r == 0 && img->unit == 512 && object)
        r = json_object_set(info, "cluster-size", object);
    r |= json_object_set_new(info, "place", place);
    return r == 0 ? 0 : fail_memory(err, "a description in JSON");
}

/* The fields that every image has; some of them are for the format to put right. */
static int info_common(const struct image *img, json_t *info, struct platter_error *err)
{
    uint64_t allocated;
    int r = stream_allocated(img->stream, &allocated, err);
    bool known = r != -ENOTSUP;
    if (r < 0 && known)
        return r;
    r = json_object_set_new(info, "virtual-size", json_integer((json_int_t)img->size));
    r |= json_object_set_new(info, "filename", json_name(img->stream->name));
    /* 512 is what a format without clusters has. */
    if (img->unit != 512)
        r |= json_object_set_new(info, "cluster-size", json_integer(img->unit));
    r |= json_object_set_new(info, "format", json_string(img->format->name));
    if (img->compression != NULL)
        r |= json_object_set_new(info, "compression", json_string(img->compression));
    if (known)
        r |= json_object_set_new(info, "actual-size", json_integer((json_int_t)allocated));
    r |= json_object_set_new(info, "dirty-flag", json_false());
    return r == 0 ? 0 : fail_memory(err, "a description in JSON");
}

static int info_specific(struct image *img, json_t *info, struct platter_error *err)
{
    if (img->format->info == NULL)
        return 0;
    json_t *data = img->format->info(img);
    json_t *specific = json_pack("{s:s, s:o}", "type", img->format->name, "data", data);
    if (json_object_set_new(info, "format-specific", specific) != 0)
        return fail_memory(err, "a description in JSON");
    return 0;
}

static int describe(struct image *img, char **ret_json, struct platter_error *err)
{
    json_t *info = json_object();
    if (info == NULL)
        return fail_memory(err, "a description in JSON");
    int r = info_common(img, info, err);
    if (r == 0)
        r = info_place(img, info, err);
    if (r == 0)
        r = info_specific(img, info, err);
    if (r == 0)
        r = info_backing(img, info, err);
    if (r < 0) {
        json_decref(info);
        return r;
    }
    int top = img->format->info_top != NULL ? img->format->info_top(img, info) : 0;
    return json_text(info, top, ret_json, err);
}

int ops_info(struct platter_disk *disk, unsigned layer, char **ret_json, struct platter_error *err)
{
    if (layer >= disk->depth)
        return fail(err, EINVAL, "%s: its chain has %u images; there is no number %u",
                    disk_top(disk)->stream->name, disk->depth, layer);
    struct range_hold hold;
    disk_pin(disk, &hold);
    int r = describe(disk->chain[layer], ret_json, err);
    disk_unpin(disk, &hold);
    return r;
}

int ops_views(struct platter_disk *disk, char **ret_json, struct platter_error *err)
{
    struct image *top = disk_top(disk);
    json_t *views = top->format->views != NULL ? top->format->views(top) : json_array();
    return json_text(views, 0, ret_json, err);
}

/* ---- formats --------------------------------------------------------------------------------- */

static int option_bounds(const struct option_def *def, json_t *option)
{
    if (def->type != OPTION_SIZE && def->type != OPTION_NUMBER)
        return 0;
    return json_object_set_new(option, "min", json_integer((json_int_t)def->min)) |
           json_object_set_new(option, "max", json_integer((json_int_t)def->max));
}

static int option_values_list(const struct option_def *def, json_t *option)
{
    if (def->type != OPTION_ENUM)
        return 0;
    json_t *values = json_array();
    int r = json_object_set_new(option, "values", values);
    for (const char *const *value = def->values; r == 0 && *value != NULL; value++)
        r = json_array_append_new(values, json_string(*value));
    return r;
}

static int append_option(json_t *options, const struct option_def *def)
{
    static const char *const types[] = {[OPTION_BOOL] = "bool",
                                        [OPTION_SIZE] = "size",
                                        [OPTION_NUMBER] = "number",
                                        [OPTION_ENUM] = "enum",
                                        [OPTION_STRING] = "string"};
    json_t *option = json_pack("{s:s, s:s}", "name", def->name, "type", types[def->type]);
    int r = json_array_append_new(options, option);
    if (r == 0 && def->value != NULL)
        r = json_object_set_new(option, "default", json_string(def->value));
    if (r == 0)
        r = option_values_list(def, option) | option_bounds(def, option);
    return r != 0 ? r : json_object_set_new(option, "help", json_string(def->help));
}

static int append_options(json_t *options, const struct option_def *defs)
{
    int r = 0;
    for (; r == 0 && defs != NULL && defs->name != NULL; defs++)
        r = append_option(options, defs);
    return r;
}

static int append_format(json_t *list, const struct format *f)
{
    json_t *options = json_array();
    /* "write" means changing an image that is there; a new one may be all a format can write. */
    json_t *entry = json_pack(
        "{s:s, s:s, s:b, s:b, s:b, s:b, s:b, s:b, s:b, s:o}", "name", f->name, "title", f->title,
        "read", f->map != NULL, "write", f->reserve != NULL || f->flat || f->not_zero, "create",
        f->create != NULL || f->writer_open != NULL, "in-order",
        f->writer_open != NULL && !f->header_last, "header-last", f->header_last, "needs-file",
        f->needs_file, "backing", !f->no_backing, "options", options);
    int r = json_array_append_new(list, entry);
    if (r == 0)
        r = append_options(options, f->create_options);
    if (r < 0 || f->amend == NULL)
        return r;
    options = json_array();
    r = json_object_set_new(entry, "amend-options", options);
    return r == 0 ? append_options(options, f->amend_options) : r;
}

int ops_formats(char **ret_json, struct platter_error *err)
{
    json_t *list = json_array();
    int r = list != NULL ? 0 : -1;
    for (const struct format *const *f = formats; r == 0 && *f != NULL; f++)
        r = append_format(list, *f);
    return json_text(list, r, ret_json, err);
}

/* ---- places ----------------------------------------------------------------------------------
 */

static int append_place(json_t *list, const struct place_kind *kind)
{
    const char *create = kind->can & PLACE_CREATE     ? "any"
                         : kind->can & PLACE_IN_ORDER ? "in-order"
                                                      : NULL;
    json_t *prefixes = json_array(), *keys = json_array();
    json_t *entry =
        json_pack("{s:s, s:o, s:b, s:b, s:s?, s:b, s:b, s:o}", "name", kind->name, "prefixes",
                  prefixes, "read", 1, "write", (kind->can & PLACE_WRITE) != 0, "create", create,
                  "extents", (kind->can & PLACE_EXTENTS) != 0, "snapshots",
                  (kind->can & PLACE_SNAPSHOTS) != 0, "keys", keys);
    int r = json_array_append_new(list, entry);
    for (const char *const *p = kind->prefixes; r == 0 && *p; p++)
        r = json_array_append_new(prefixes, json_string(*p));
    return r == 0 ? append_options(keys, kind->keys) : r;
}

int ops_places(char **ret_json, struct platter_error *err)
{
    json_t *list = json_array();
    int r = list != NULL ? 0 : -1;
    for (const struct place_kind *const *k = place_kinds; r == 0 && *k != NULL; k++)
        r = append_place(list, *k);
    return json_text(list, r, ret_json, err);
}
