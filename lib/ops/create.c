/* SPDX-License-Identifier: MIT */
/* Creating empty images. */
#include <string.h>

#include "base/ckd.h"
#include "ops/ops.h"
#include "ops/target.h"

/* The size of the new disk: as given, or that of the backing file. */
static int choose_size(struct target_request *q, const struct platter_create_options *o,
                       struct platter_error *err)
{
    uint64_t *ret = &q->size;
    if (o->has_disk_size) {
        *ret = o->disk_size;
    } else if (!q->backing || !q->look_at_backing) {
        return fail(err, EINVAL, "%s: the size of the new disk must be given", q->name);
    } else {
        const struct platter_open_options below = target_below(q, PLATTER_OPEN_QUERY);
        struct platter_disk *backing;
        int r = open_backing_of(q->name, q->backing, &below, &backing, err);
        if (r < 0)
            return r;
        *ret = disk_size(backing);
        disk_close(backing, NULL);
    }
    if (ckd_round_up(ret, *ret, 512) || *ret > INT64_MAX)
        return fail(err, EFBIG, "%s: a disk has at most 2^63 - 512 bytes", q->name);
    return 0;
}

int ops_create(const char *name, const struct platter_create_options *o, struct platter_error *err)
{
    struct target_request request = {
        .name = name,
        .fd = -1,
        .place = o->target_place,
        .format = format_find(o->format),
        .options = o->options,
        .backing = o->backing,
        .backing_format = o->backing_format,
        .look_at_backing = !(o->flags & PLATTER_CREATE_UNSAFE_BACKING),
        .allow = o->allow,
        .below_format = o->below_format,
        .probe_below = o->flags & PLATTER_CREATE_PROBE_BACKING,
        .secret = o->secret,
        .secret_opaque = o->secret_opaque,
        .exclusive = o->flags & PLATTER_CREATE_EXCLUSIVE,
        .durable = true,
    };
    if (!request.format)
        return fail(err, ENOTSUP, "%s: no format is called \"%s\"", name, o->format);
    int r = choose_size(&request, o, err);
    if (r < 0)
        return r;
    struct target t;
    r = target_open(&request, 0, &t, err);
    if (r == 0)
        r = target_create(&t, err);
    /* A raw disk is all there is: what a device or an export had before goes. */
    if (r == 0 && t.in_place && request.format == &format_raw)
        r = stream_zero(t.stream, 0, request.size, STREAM_ZERO_UNMAP, err);
    if (r == 0)
        r = target_publish(&t, err);
    return target_end(&t, r, err);
}
