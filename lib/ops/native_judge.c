/* SPDX-License-Identifier: MIT */
/*
 * What Ceph's reader of raw disks and QCOW images reads right (source-spec.md sections 1 and 3).
 * Found with 16.2.15, and worse than any error, as it says nothing of them: a cluster of a QCOW of
 * version 1 that is compressed becomes zeros, and one of a qcow2 that is zeros but keeps its place
 * in the file becomes what was written there before. So every cluster is looked at.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "ops/migrate_native.h"

enum {
    VERSION_AT = 4, /* of the header of a QCOW of any version, qcow2.md section 2: */
    FEATURES_AT = 72,
    FEATURE_DIRTY = 1u << 0, /* of its reference counts, which nobody needs who reads */
    TELL_EVERY = 1024        /* extents */
};

int native_refuse(struct platter_error *err, const char *name, const char *format, ...)
{
    char why[512];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    return fail(err, ENOTSUP, "%s: cannot be left to Ceph (--native): %s", name, why);
}

struct judging {
    const struct platter_migrate_prepare_options *options;
    const char *name;
    uint64_t file_size;
    struct native_samples *samples; /* NULL: of a snapshot */
    struct platter_progress now;
    unsigned extents;
};

/* ---- clusters ----------------------------------------------------------------------------------
 */

static int tell(struct judging *j, goff off, struct platter_error *err)
{
    const struct platter_migrate_prepare_options *o = j->options;
    j->now.done = off;
    if (j->extents++ % TELL_EVERY != 0 || !o->progress || o->progress(o->opaque, &j->now) == 0)
        return 0;
    return fail(err, ECANCELED, "%s: cancelled", j->name);
}

/* It reads whole clusters, also the last one, which need not be whole in the file. */
static int judge_data(struct judging *j, const struct image *img, goff off, const struct extent *e,
                      struct platter_error *err)
{
    goff end = off + e->len;
    hoff needs = e->off + e->len + (round_up(end, img->unit) - end);
    if (needs > j->file_size)
        return native_refuse(
            err, j->name, "its cluster at offset %" PRIu64 " ends behind the end of the file", off);
    if (j->samples && j->samples->last == 0)
        j->samples->first = off;
    if (j->samples)
        j->samples->last = end - 1;
    return 0;
}

static int judge_extent(struct judging *j, const struct image *img, goff off,
                        const struct extent *e, struct platter_error *err)
{
    switch (e->kind) {
    case EXTENT_PACKED:
        return native_refuse(err, j->name,
                             "it is compressed (at offset %" PRIu64 "), which Ceph does not read",
                             off);
    case EXTENT_ZERO:
        return e->has_place
                   ? native_refuse(err, j->name,
                                   "at offset %" PRIu64
                                   " are zeros that keep their place in the file, of which Ceph "
                                   "reads what was there before",
                                   off)
                   : 0;
    case EXTENT_DATA:
        return judge_data(j, img, off, e, err);
    case EXTENT_BACKING:
        break;
    }
    return 0;
}

static int judge_extents(struct judging *j, struct platter_disk *disk, struct platter_error *err)
{
    uint64_t size = disk_size(disk);
    struct disk_extent x;
    int r = 0;
    j->now.total = size;
    for (goff off = 0; off < size && r == 0; off += x.e.len) {
        r = disk_map(disk, off, size - off, &x, err);
        if (r == 0)
            r = judge_extent(j, disk_top(disk), off, &x.e, err);
        if (r == 0)
            r = tell(j, off, err);
    }
    return r;
}

/* ---- snapshots ---------------------------------------------------------------------------------
 */

static int judge_snapshot(const struct judging *j, struct platter_disk *disk,
                          const struct snapshot_request *s, struct platter_error *err)
{
    struct disk_view view;
    struct judging own = *j;
    own.samples = NULL;
    if (s->vm_state_size > 0)
        return native_refuse(err, j->name, "snapshot \"%s\" has the state of a machine", s->name);
    int r = disk_view_open(disk, s->id, &view, err);
    if (r < 0)
        return r;
    if (disk_size(view.disk) != disk_size(disk))
        r = native_refuse(err, j->name, "the disk of snapshot \"%s\" has another size", s->name);
    else
        r = judge_extents(&own, view.disk, err);
    disk_view_close(&view);
    return r;
}

/* All of them come along, whether that is wanted or not. */
static int judge_snapshots(const struct judging *j, struct platter_disk *disk,
                           struct platter_error *err)
{
    const struct snapshot_ops *ops = image_snapshots(disk_top(disk));
    struct snapshot_request s;
    int r = 0;
    for (uint32_t i = 0; r == 0 && ops && ops->describe(disk_top(disk), i, &s); i++)
        r = j->options->flags & PLATTER_MIGRATE_SNAPSHOTS
                ? judge_snapshot(j, disk, &s, err)
                : native_refuse(err, j->name,
                                "it brings snapshots along, of which this one has some: that is "
                                "to be asked for (--snapshots)");
    return r;
}

/* ---- the image ---------------------------------------------------------------------------------
 */

static int judge_header(const struct image *img, struct platter_error *err)
{
    uint8_t header[FEATURES_AT + 8];
    int r = stream_pread_tail(img->stream, header, sizeof header, 0, err);
    if (r < 0)
        return r;
    uint64_t features = get_be(header + VERSION_AT, 4) >= 3 ? get_be(header + FEATURES_AT, 8) : 0;
    return features & ~(uint64_t)FEATURE_DIRTY
               ? native_refuse(err, img->stream->name,
                               "it has features that Ceph does not read (incompatible_features "
                               "0x%" PRIx64 ")",
                               features)
               : 0;
}

/* Also what is short enough for all of it to be kept was only read front to back. */
static bool is_anywhere(const struct stream *s)
{
    while (s && !s->sequential)
        s = s->base;
    return !s;
}

static int judge_image(const struct image *img, struct platter_error *err)
{
    const char *name = img->stream->name;
    if (img->format != &format_raw && strncmp(img->format->name, "qcow", 4) != 0)
        return native_refuse(err, name, "it reads raw disks and QCOW images, not %s",
                             img->format->name);
    if (img->compression)
        return native_refuse(err, name, "the file is compressed with %s", img->compression);
    if (img->view)
        return native_refuse(err, name, "it takes the disk as it is, and \"%s\" is asked for",
                             img->view);
    if (!is_anywhere(img->stream))
        return native_refuse(err, name,
                             "it must be read at any place, and the server has no "
                             "ranges");
    if (img->has_backing)
        return native_refuse(err, name, "it has a backing file");
    if (img->sealed)
        return native_refuse(err, name, "it is encrypted");
    if (img->size == 0 || img->size % 512 != 0)
        return native_refuse(err, name, "its size, %" PRIu64 ", is not a multiple of 512",
                             img->size);
    return img->format == &format_raw ? 0 : judge_header(img, err);
}

int native_judge(struct platter_disk *disk, const struct platter_migrate_prepare_options *options,
                 struct native_samples *ret, struct platter_error *err)
{
    const struct image *img = disk_top(disk);
    struct judging j = {.options = options,
                        .name = img->stream->name,
                        .samples = ret,
                        .now = {.size = sizeof j.now}};
    *ret = (struct native_samples){0};
    int r = judge_image(img, err);
    if (r == 0)
        r = stream_size(img->stream, &j.file_size, err);
    if (r < 0)
        return r;
    if (img->format ==
        &format_raw) { /* with snapshots only in Ceph, which it is not migrated from */
        ret->last = img->size - 1;
        return 0;
    }
    r = judge_extents(&j, disk, err);
    return r < 0 ? r : judge_snapshots(&j, disk, err);
}
