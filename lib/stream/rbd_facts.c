/* SPDX-License-Identifier: MIT */
/* What there is to tell of an image besides its bytes. */
#include <inttypes.h>
#include <string.h>

#include "base/memory.h"
#include "stream/rbd.h"

struct telling {
    stream_tell_fn fn;
    void *opaque;
};

static void tell(const struct telling *t, const char *key, const char *text)
{
    t->fn(t->opaque, &(struct stream_fact){.key = key, .text = text});
}

static void tell_number(const struct telling *t, const char *key, uint64_t number)
{
    t->fn(t->opaque, &(struct stream_fact){.key = key, .number = number});
}

/* By Ceph's names, which come with commas between them. */
static void tell_features(const struct rbd_stream *s, const struct telling *t)
{
    char names[1024], *save = NULL;
    size_t len = sizeof names;
    if (librbd.features_to_string(s->features, names, &len) < 0)
        return;
    for (char *p = strtok_r(names, ",", &save); p; p = strtok_r(NULL, ",", &save))
        t->fn(t->opaque, &(struct stream_fact){.key = "features", .text = p, .listed = true});
}

static void tell_layout(const struct rbd_stream *s, const struct telling *t)
{
    uint64_t unit, count;
    char pool[256];
    int64_t id = librbd.get_data_pool_id(s->image);
    tell_number(t, "object-size", s->object);
    if (librbd.get_stripe_count(s->image, &count) == 0 && count > 1 &&
        librbd.get_stripe_unit(s->image, &unit) == 0) {
        tell_number(t, "stripe-unit", unit);
        tell_number(t, "stripe-count", count);
    }
    if (id >= 0 && id != librados.ioctx_get_id(s->pool) &&
        librados.pool_reverse_lookup(s->cluster->handle, id, pool, sizeof pool) > 0)
        tell(t, "data-pool", pool);
}

static int tell_parent(const struct rbd_stream *s, const struct telling *t)
{
    rbd_linked_image_spec_t image;
    rbd_snap_spec_t snap;
    if (librbd.get_parent(s->image, &image, &snap) < 0)
        return 0; /* it has none, or we may not know */
    bool space = image.pool_namespace && *image.pool_namespace;
    auto_free char *name =
        string_format("%s/%s%s%s@%s", image.pool_name, space ? image.pool_namespace : "",
                      space ? "/" : "", image.image_name, snap.name);
    if (name)
        tell(t, "parent", name);
    librbd.linked_image_spec_cleanup(&image);
    librbd.snap_spec_cleanup(&snap);
    return name ? 0 : -ENOMEM;
}

int rbd_facts(struct stream *base, stream_tell_fn fn, void *opaque)
{
    const struct rbd_stream *s = rbd_of(base);
    const struct telling t = {fn, opaque};
    uint64_t flags = 0;
    if (*s->id)
        tell(&t, "id", s->id);
    tell_layout(s, &t);
    tell_features(s, &t);
    if (librbd.get_flags(s->image, &flags) == 0 && flags & RBD_FLAG_OBJECT_MAP_INVALID)
        tell(&t, "object-map", "invalid");
    return tell_parent(s, &t);
}

/* ---- space ----------------------------------------------------------------------------------- */

static int add(uint64_t off, size_t len, int exists, void *arg)
{
    (void)off;
    *(uint64_t *)arg += exists ? len : 0;
    return 0;
}

/* In whole objects, by their map: without one each of them would have to be asked for. */
int rbd_allocated(struct stream *base, uint64_t *ret, struct platter_error *err)
{
    struct rbd_stream *s = rbd_of(base);
    uint64_t flags = 0;
    *ret = 0;
    int r = librbd.get_flags(s->image, &flags);
    if (s->features & RBD_FEATURE_MIGRATING || !(s->features & RBD_FEATURE_FAST_DIFF) ||
        flags & (RBD_FLAG_OBJECT_MAP_INVALID | RBD_FLAG_FAST_DIFF_INVALID))
        return -ENOTSUP;
    if (r == 0 && s->size > 0)
        r = librbd.diff_iterate2(s->image, NULL, 0, s->size, 0, 1, add, ret);
    return r < 0 ? rbd_fail(base, r, err, "what it stores cannot be told") : 0;
}
