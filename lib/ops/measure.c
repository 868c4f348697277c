/* SPDX-License-Identifier: MIT */
/* What a new image would take: the format's own sum over the units that hold data. */
#include "base/ckd.h"
#include "ops/ops.h"

/* Bytes of the units that some data touches; what reads as zeros is not stored. */
static int count_data(struct platter_disk *disk, uint32_t unit, uint64_t *ret,
                      struct platter_error *err)
{
    uint64_t size = disk_size(disk);
    goff counted = 0; /* end of the last unit in the sum */
    struct disk_extent e;
    *ret = 0;
    for (goff off = 0; off < size; off += e.e.len) {
        int r = disk_map(disk, off, size - off, &e, err);
        if (r == 0)
            r = disk_find_holes(&e, err);
        if (r < 0)
            return r;
        uint64_t end;
        if (e.e.kind == EXTENT_ZERO || off + e.e.len <= counted)
            continue;
        if (ckd_round_up(&end, off + e.e.len, unit))
            return fail(err, EFBIG, "%s: a disk of %llu bytes is too large to be measured",
                        disk_top(disk)->stream->name, (unsigned long long)size);
        *ret += end - max_u64(counted, round_down(off, unit));
        counted = end;
    }
    return 0;
}

/* What the bitmaps of the disk would take. */
static int measure_bitmaps(struct platter_disk *disk, const struct format *f,
                           const struct option_values *values, struct platter_measurement *ret,
                           struct platter_error *err)
{
    struct image *top = disk_top(disk);
    struct range_hold hold;
    if (!top->format->bitmaps || !f->bitmaps || !f->bitmaps->possible(values))
        return 0;
    disk_pin(disk, &hold);
    int r = top->format->bitmaps->measure(top, f->create_unit(values), &ret->bitmaps, err);
    disk_unpin(disk, &hold);
    ret->has_bitmaps = r == 0;
    return r == -ENOTSUP ? 0 : r;
}

int ops_measure(struct platter_disk *disk, uint64_t disk_size_asked, const char *format,
                const char *options, struct platter_measurement *ret, struct platter_error *err)
{
    const struct format *f = format_find(format);
    if (f == NULL)
        return fail(err, EINVAL, "'%s' is no format that is known here", format);
    if (f->measure == NULL)
        return fail(err, ENOTSUP, "format '%s' cannot tell beforehand how large an image will be",
                    f->name);
    struct option_values *values;
    int r = options_parse(f->create_options, options, &values, err);
    if (r < 0)
        return r;
    uint64_t size = disk_size_asked, data = 0;
    if (disk != NULL) {
        size = disk_size(disk);
        r = count_data(disk, f->create_unit(values), &data, err);
    } else if (ckd_round_up(&size, size, 512)) { /* as create does */
        r = fail(err, EFBIG, "a disk of %llu bytes is too large", (unsigned long long)size);
    }
    if (r == 0)
        r = f->measure(size, data, values, ret, err);
    if (r == 0 && disk != NULL)
        r = measure_bitmaps(disk, f, values, ret, err);
    options_free(values);
    return r;
}
