/* SPDX-License-Identifier: MIT */
/*
 * The public surface: checks arguments, completes structures of older callers, and calls down.
 */
#include <config.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "base/ckd.h"
#include "disk/disk.h"
#include "ops/ops.h"

enum {
    OPEN_FLAGS = PLATTER_OPEN_IN_ORDER * 2 - 1, /* all there are; so for the others */
    CREATE_FLAGS = PLATTER_CREATE_PROBE_BACKING * 2 - 1,
    CONVERT_FLAGS = PLATTER_CONVERT_PROBE_BACKING * 2 - 1,
    COMPARE_FLAGS = PLATTER_COMPARE_STRICT * 2 - 1,
    CHECK_FLAGS = PLATTER_CHECK_DATA * 2 - 1,
    /* Of commit and rebase. */
    CHAIN_FLAGS = PLATTER_OPEN_NO_LOCK | PLATTER_OPEN_PROBE_BACKING | PLATTER_OPEN_IGNORE_CID
};

void platter_free(void *memory)
{
    free(memory);
}

const char *platter_version(void)
{
    return PLATTER_VERSION;
}

int platter_open(const char *name, const struct platter_open_options *options,
                 struct platter_disk **ret_disk, struct platter_error *err)
{
    struct platter_open_options o = {0};
    int r = complete(&o, sizeof o, options, err);
    if (r == 0)
        r = check_flags(o.flags, OPEN_FLAGS, "platter_open()", err);
    if (r == 0)
        r = need(name, "a name", err);
    if (r == 0)
        r = need(ret_disk, "a place for the disk", err);
    return r < 0 ? r : disk_open(name, &o, ret_disk, err);
}

int platter_close(struct platter_disk *disk, struct platter_error *err)
{
    return disk_close(disk, err);
}

uint64_t platter_size(const struct platter_disk *disk)
{
    return disk_size(disk);
}

const char *platter_format(const struct platter_disk *disk)
{
    return disk_top(disk)->format->name;
}

uint64_t platter_cluster_size(const struct platter_disk *disk)
{
    return disk_top(disk)->unit;
}

unsigned platter_depth(const struct platter_disk *disk)
{
    return disk->depth;
}

const char *platter_doubt(const struct platter_disk *disk, unsigned layer)
{
    return layer < disk->depth ? disk->chain[layer]->doubt : NULL;
}

int platter_pread(struct platter_disk *disk, void *buffer, size_t length, uint64_t offset,
                  struct platter_error *err)
{
    return disk_read(disk, buffer, length, offset, err);
}

int platter_pwrite(struct platter_disk *disk, const void *buffer, size_t length, uint64_t offset,
                   struct platter_error *err)
{
    return disk_write(disk, buffer, length, offset, err);
}

int platter_zero(struct platter_disk *disk, uint64_t offset, uint64_t length, unsigned flags,
                 struct platter_error *err)
{
    int r = check_flags(flags, PLATTER_ZERO_UNMAP, "platter_zero()", err);
    return r < 0 ? r : disk_zero(disk, offset, length, flags & PLATTER_ZERO_UNMAP, err);
}

int platter_discard(struct platter_disk *disk, uint64_t offset, uint64_t length,
                    struct platter_error *err)
{
    return disk_discard(disk, offset, length, err);
}

int platter_flush(struct platter_disk *disk, struct platter_error *err)
{
    return disk_flush(disk, err);
}

/* ---- map ------------------------------------------------------------------------------------- */

static unsigned extent_flags(const struct disk_told *told)
{
    const struct disk_extent *x = &told->x;
    unsigned flags = x->present ? PLATTER_EXTENT_PRESENT : 0;
    switch (x->e.kind) {
    case EXTENT_BACKING:
        break;
    case EXTENT_ZERO:
        flags |= PLATTER_EXTENT_ZERO;
        break;
    case EXTENT_DATA:
        flags |= PLATTER_EXTENT_DATA;
        if (told->inside) /* of a compressed file: no place that anybody could look at */
            flags |= PLATTER_EXTENT_PACKED;
        else if (!x->e.sealed)
            flags |= PLATTER_EXTENT_OFFSET;
        break;
    case EXTENT_PACKED:
        flags |= PLATTER_EXTENT_DATA | PLATTER_EXTENT_PACKED;
        break;
    }
    return x->e.has_place && !told->inside ? flags | PLATTER_EXTENT_OFFSET : flags;
}

/* Fills as much of the caller's structure as it has room for. */
static void give_extent(struct platter_extent *extent, const struct disk_told *told)
{
    const struct disk_extent *x = &told->x;
    struct platter_extent full = {.size = extent->size,
                                  .length = x->e.len,
                                  .flags =
                                      extent_flags(told) | (told->stored ? PLATTER_EXTENT_DATA : 0),
                                  .depth = x->depth};
    if (full.flags & PLATTER_EXTENT_OFFSET) {
        full.host_offset = x->e.off;
        full.file = told->file;
    }
    memcpy(extent, &full, min_u64(extent->size, sizeof full));
}

int platter_map(struct platter_disk *disk, uint64_t offset, uint64_t length,
                struct platter_extent *extent, struct platter_error *err)
{
    int r = need(extent, "a place for the extent", err);
    if (r == 0)
        r = check_room(extent->size, offsetof(struct platter_extent, depth), err);
    if (r == 0 && (length == 0 || !range_inside(offset, length, disk_size(disk))))
        r = fail(err, EINVAL, "%s: a map must ask for bytes inside the disk",
                 disk_top(disk)->stream->name);
    struct disk_told told;
    if (r == 0)
        r = disk_map_told(disk, offset, length, &told, err);
    if (r == 0)
        give_extent(extent, &told);
    return r;
}

/* ---- info ------------------------------------------------------------------------------------ */

int platter_info(struct platter_disk *disk, unsigned layer, char **ret_json,
                 struct platter_error *err)
{
    if (layer >= disk->depth)
        return fail(err, EINVAL, "%s: the chain has only %u images", disk_top(disk)->stream->name,
                    disk->depth);
    return ops_info(disk, layer, ret_json, err);
}

int platter_views(struct platter_disk *disk, char **ret_json, struct platter_error *err)
{
    return ops_views(disk, ret_json, err);
}

int platter_formats(char **ret_json, struct platter_error *err)
{
    return ops_formats(ret_json, err);
}

int platter_places(char **ret_json, struct platter_error *err)
{
    return ops_places(ret_json, err);
}

/* ---- whole disks ----------------------------------------------------------------------------- */

void platter_remove_unfinished(void)
{
    stream_file_remove_temporaries();
}

int platter_create(const char *name, const struct platter_create_options *options,
                   struct platter_error *err)
{
    struct platter_create_options o = {0};
    int r = complete(&o, sizeof o, options, err);
    if (r == 0)
        r = check_flags(o.flags, CREATE_FLAGS, "platter_create()", err);
    if (r == 0)
        r = need(name, "a name", err);
    if (r == 0)
        r = need(o.format, "a format", err);
    return r < 0 ? r : ops_create(name, &o, err);
}

int platter_convert(struct platter_disk *const *sources, size_t n_sources, const char *target,
                    const struct platter_convert_options *options, uint64_t *ret_holes,
                    struct platter_error *err)
{
    struct platter_convert_options o = {0};
    uint64_t holes = 0;
    int r = complete(&o, sizeof o, options, err);
    if (r == 0)
        r = check_flags(o.flags, CONVERT_FLAGS, "platter_convert()", err);
    if (r == 0)
        r = need(n_sources > 0 ? sources : NULL, "a source", err);
    if (r == 0 && !(o.flags & PLATTER_CONVERT_TO_FD))
        r = need(target, "a target", err);
    if (r == 0 && (o.flags & PLATTER_CONVERT_TO_FD) && (o.flags & PLATTER_CONVERT_EXISTING))
        r = fail(err, EINVAL, "what is written front to back is no existing target");
    if (r == 0)
        r = ops_convert(sources, n_sources, target, &o, &holes, err);
    if (ret_holes)
        *ret_holes = holes;
    return r;
}

int platter_compare(struct platter_disk *a, struct platter_disk *b,
                    const struct platter_compare_options *options,
                    enum platter_difference *ret_difference, uint64_t *ret_offset, int *ret_failed,
                    struct platter_error *err)
{
    struct platter_compare_options o = {0};
    uint64_t offset = 0;
    int failed = -1;
    int r = complete(&o, sizeof o, options, err);
    if (r == 0)
        r = check_flags(o.flags, COMPARE_FLAGS, "platter_compare()", err);
    if (r == 0)
        r = need(ret_difference, "a place for the difference", err);
    if (r == 0)
        r = ops_compare(a, b, &o, ret_difference, &offset, &failed, err);
    if (ret_offset)
        *ret_offset = offset;
    if (ret_failed)
        *ret_failed = failed;
    return r;
}

int platter_digest(struct platter_disk *disk, const struct platter_digest_options *options,
                   uint8_t ret_digest[32], struct platter_error *err)
{
    struct platter_digest_options o = {0};
    int r = complete(&o, sizeof o, options, err);
    return r < 0 ? r : ops_digest(disk, &o, ret_digest, err);
}

int platter_measure(struct platter_disk *disk, uint64_t disk_size, const char *format,
                    const char *options, struct platter_measurement *measurement,
                    struct platter_error *err)
{
    int r = need(format, "a format", err);
    if (r == 0)
        r = need(measurement, "a place for the result", err);
    if (r == 0)
        r = check_room(measurement->size, offsetof(struct platter_measurement, fully_allocated),
                       err);
    struct platter_measurement full = {.size = sizeof full};
    if (r == 0)
        r = ops_measure(disk, disk_size, format, options, &full, err);
    if (r == 0) {
        full.size = measurement->size;
        memcpy(measurement, &full, min_u64(measurement->size, sizeof full));
    }
    return r;
}

int platter_check(const char *name, const struct platter_check_options *options,
                  struct platter_check_result *result, struct platter_error *err)
{
    struct platter_check_options o = {0};
    struct platter_open_options open = {0};
    int r = complete(&o, sizeof o, options, err);
    if (r == 0)
        r = complete(&open, sizeof open, o.open, err);
    if (r == 0)
        r = check_flags(o.flags, CHECK_FLAGS, "platter_check()", err);
    if (r == 0)
        r = check_flags(open.flags,
                        OPEN_FLAGS & ~(PLATTER_OPEN_IN_ORDER | PLATTER_OPEN_WRITE |
                                       PLATTER_OPEN_QUERY | PLATTER_OPEN_SALVAGE),
                        "the opening of platter_check()", err);
    if (r == 0)
        r = need(name, "a name", err);
    if (r == 0)
        r = need(result, "a place for the result", err);
    if (r == 0)
        r = check_room(result->size, offsetof(struct platter_check_result, image_end_offset), err);
    if (r == 0 && open.view)
        r = fail(err, EINVAL, "%s: it is the whole image that is checked, not a view", name);
    if (r < 0)
        return r;
    struct platter_check_result full = {.size = result->size};
    r = ops_check(name, &o, &open, &full, err);
    memcpy(result, &full, min_u64(full.size, sizeof full));
    return r;
}

int platter_resize(struct platter_disk *disk, uint64_t size, unsigned flags,
                   enum platter_preallocation preallocation, struct platter_error *err)
{
    int r = check_flags(flags, PLATTER_RESIZE_SHRINK, "platter_resize()", err);
    if (r == 0 && (unsigned)preallocation > PLATTER_PREALLOCATION_FULL)
        r = fail(err, EINVAL, "platter_resize() knows no preallocation %d", (int)preallocation);
    return r < 0 ? r : ops_resize(disk, size, flags, preallocation, err);
}

/* ---- snapshots inside an image --------------------------------------------------------------- */

enum { SNAPSHOT_BY = PLATTER_SNAPSHOT_BY_ID | PLATTER_SNAPSHOT_BY_NAME };

int platter_snapshot_create(struct platter_disk *disk,
                            const struct platter_snapshot_options *options, char **ret_id,
                            struct platter_error *err)
{
    struct platter_snapshot_options o = {0};
    int r = complete(&o, sizeof o, options, err);
    if (r == 0)
        r = check_flags(o.flags, PLATTER_SNAPSHOT_UNIQUE, "platter_snapshot_create()", err);
    if (r == 0)
        r = need(o.name, "a name for the snapshot", err);
    return r < 0 ? r : ops_snapshot_create(disk, &o, ret_id, err);
}

int platter_snapshot_apply(struct platter_disk *disk, const char *snapshot, unsigned flags,
                           platter_progress_fn progress, void *opaque, struct platter_error *err)
{
    int r = check_flags(flags, SNAPSHOT_BY, "platter_snapshot_apply()", err);
    if (r == 0)
        r = need(snapshot, "a snapshot", err);
    return r < 0 ? r : ops_snapshot_apply(disk, snapshot, flags, progress, opaque, err);
}

int platter_snapshot_delete(struct platter_disk *disk, const char *snapshot, unsigned flags,
                            platter_progress_fn progress, void *opaque, struct platter_error *err)
{
    int r = check_flags(flags, SNAPSHOT_BY, "platter_snapshot_delete()", err);
    if (r == 0)
        r = need(snapshot, "a snapshot", err);
    return r < 0 ? r : ops_snapshot_delete(disk, snapshot, flags, progress, opaque, err);
}

int platter_snapshot_diff(struct platter_disk *disk, const char *from, const char *to,
                          platter_snapshot_diff_fn fn, void *opaque, uint64_t ret_sizes[2],
                          struct platter_error *err)
{
    uint64_t sizes[2] = {0};
    int r = need(fn, "a function to tell the differences to", err);
    if (r == 0)
        r = ops_snapshot_diff(disk, from, to, fn, opaque, sizes, err);
    if (ret_sizes)
        memcpy(ret_sizes, sizes, sizeof sizes);
    return r;
}

int platter_vm_state_size(struct platter_disk *disk, uint64_t *ret_size, struct platter_error *err)
{
    int r = need(ret_size, "a place for the size", err);
    return r < 0 ? r : disk_state_size(disk, ret_size, err);
}

int platter_vm_state_read(struct platter_disk *disk, void *buffer, size_t length, uint64_t offset,
                          struct platter_error *err)
{
    return disk_state_read(disk, buffer, length, offset, err);
}

int platter_vm_state_write(struct platter_disk *disk, const void *buffer, size_t length,
                           uint64_t offset, struct platter_error *err)
{
    return disk_state_write(disk, buffer, length, offset, err);
}

int platter_vm_state_drop(struct platter_disk *disk, struct platter_error *err)
{
    return disk_state_drop(disk, err);
}

/* ---- dirty bitmaps --------------------------------------------------------------------------- */

int platter_bitmap_change(struct platter_disk *disk, const struct platter_bitmap_change *changes,
                          size_t n, struct platter_error *err)
{
    if (n == 0)
        return 0;
    int r = need(changes, "a change", err);
    auto_free struct platter_bitmap_change *own = r == 0 ? calloc(n, sizeof *own) : NULL;
    if (r == 0 && !own)
        r = fail_memory(err, "changes of bitmaps");
    for (size_t i = 0; r == 0 && i < n; i++) {
        const void *given = (const uint8_t *)changes + i * changes->size;
        r = complete(&own[i], sizeof *own, given, err);
    }
    return r < 0 ? r : ops_bitmap_change(disk, own, n, err);
}

int platter_bitmaps(struct platter_disk *disk, char **ret_json, struct platter_error *err)
{
    int r = need(ret_json, "a place for the list", err);
    return r < 0 ? r : ops_bitmaps(disk, ret_json, err);
}

int platter_bitmap_map(struct platter_disk *disk, const char *bitmap, uint64_t offset,
                       uint64_t length, uint64_t *ret_length, bool *ret_dirty,
                       struct platter_error *err)
{
    int r = need(bitmap, "a bitmap", err);
    if (r == 0)
        r = need(ret_length, "a place for the length", err);
    if (r == 0)
        r = need(ret_dirty, "a place for the answer", err);
    return r < 0 ? r : ops_bitmap_map(disk, bitmap, offset, length, ret_length, ret_dirty, err);
}

/* The options of an image that is opened by the function that works on it. */
static int complete_open(struct platter_open_options *own, const struct platter_open_options *given,
                         const char *what, struct platter_error *err)
{
    int r = complete(own, sizeof *own, given, err);
    if (r == 0)
        r = check_flags(own->flags, CHAIN_FLAGS, what, err);
    if (r == 0 && own->view)
        r = fail(err, EINVAL, "%s works on images, not on views of them", what);
    return r;
}

int platter_commit(const char *name, const struct platter_commit_options *options,
                   struct platter_error *err)
{
    struct platter_commit_options o = {0};
    struct platter_open_options open = {0};
    int r = complete(&o, sizeof o, options, err);
    if (r == 0)
        r = complete_open(&open, o.open, "platter_commit()", err);
    if (r == 0)
        r = check_flags(o.flags, PLATTER_COMMIT_KEEP, "platter_commit()", err);
    if (r == 0)
        r = need(name, "a name", err);
    return r < 0 ? r : ops_commit(name, &o, &open, err);
}

int platter_compact(const char *name, const struct platter_compact_options *options,
                    struct platter_compact_result *result, struct platter_error *err)
{
    const unsigned flags = PLATTER_COMPACT_DRY_RUN | PLATTER_COMPACT_ZEROS;
    struct platter_compact_result full = {.size = sizeof full};
    struct platter_compact_options o = {0};
    struct platter_open_options open = {0};
    int r = complete(&o, sizeof o, options, err);
    if (r == 0)
        r = complete_open(&open, o.open, "platter_compact()", err);
    if (r == 0)
        r = check_flags(o.flags, flags, "platter_compact()", err);
    if (r == 0)
        r = need(name, "a name", err);
    if (r == 0 && result)
        r = check_room(result->size, offsetof(struct platter_compact_result, format), err);
    if (r < 0)
        return r;
    full.size = result ? result->size : sizeof full;
    r = ops_compact(name, &o, &open, &full, err);
    if (result)
        memcpy(result, &full, min_u64(full.size, sizeof full));
    return r;
}

int platter_key(const char *name, const struct platter_key_options *options, unsigned *ret_slot,
                struct platter_error *err)
{
    struct platter_key_options o = {0};
    struct platter_open_options open = {0};
    unsigned slot = 0;
    int r = complete(&o, sizeof o, options, err);
    if (r == 0)
        r = complete_open(&open, o.open, "platter_key()", err);
    if (r == 0)
        r = check_flags(o.flags, PLATTER_KEY_FORCE, "platter_key()", err);
    if (r == 0)
        r = need(name, "a name", err);
    if (r == 0 && o.has_slot && o.slot > 7)
        r = fail(err, EINVAL, "%s: key slots have the numbers 0 to 7, not %u", name, o.slot);
    if (r == 0)
        r = ops_key(name, &o, &open, &slot, err);
    if (ret_slot)
        *ret_slot = slot;
    return r;
}

int platter_rebase(const char *name, const struct platter_rebase_options *options,
                   struct platter_error *err)
{
    struct platter_rebase_options o = {0};
    struct platter_open_options open = {0};
    int r = complete(&o, sizeof o, options, err);
    if (r == 0)
        r = complete_open(&open, o.open, "platter_rebase()", err);
    if (r == 0)
        r = check_flags(o.flags, PLATTER_REBASE_UNSAFE, "platter_rebase()", err);
    if (r == 0)
        r = need(name, "a name", err);
    return r < 0 ? r : ops_rebase(name, &o, &open, err);
}

int platter_amend(const char *name, const struct platter_amend_options *options,
                  struct platter_error *err)
{
    struct platter_amend_options o = {0};
    struct platter_open_options open = {0};
    int r = complete(&o, sizeof o, options, err);
    if (r == 0)
        r = complete_open(&open, o.open, "platter_amend()", err);
    if (r == 0)
        r = check_flags(o.flags, PLATTER_AMEND_FORCE, "platter_amend()", err);
    if (r == 0)
        r = need(name, "a name", err);
    if (r == 0)
        r = need(o.options, "options", err);
    return r < 0 ? r : ops_amend(name, &o, &open, err);
}
