/* SPDX-License-Identifier: MIT */
/*
 * Whole-disk work, one verb a function. Each mirrors the public function of its name, whose comment
 * in platter.h is its contract; arguments were checked by lib/api.c: no pointer that has to be
 * there is NULL, and option structures are complete (missing tails filled with zeros).
 */
#ifndef OPS_OPS_H
#define OPS_OPS_H

#include "disk/disk.h"

int ops_create(const char *name, const struct platter_create_options *options,
               struct platter_error *err);

int ops_convert(struct platter_disk *const *sources, size_t n_sources, const char *target,
                const struct platter_convert_options *options, uint64_t *ret_holes,
                struct platter_error *err);

/* *ret_failed is -1 where it was neither disk that failed (cancelled, out of memory). */
int ops_compare(struct platter_disk *a, struct platter_disk *b,
                const struct platter_compare_options *options,
                enum platter_difference *ret_difference, uint64_t *ret_offset, int *ret_failed,
                struct platter_error *err);

int ops_digest(struct platter_disk *disk, const struct platter_digest_options *options,
               uint8_t ret_digest[32], struct platter_error *err);

/* disk may be NULL: then an empty disk of disk_size bytes is meant. */
int ops_measure(struct platter_disk *disk, uint64_t disk_size, const char *format,
                const char *options, struct platter_measurement *ret, struct platter_error *err);

/* *ret is complete, and all zero when it comes. */
int ops_check(const char *name, const struct platter_check_options *options,
              const struct platter_open_options *open, struct platter_check_result *ret,
              struct platter_error *err);

int ops_resize(struct platter_disk *disk, uint64_t size, unsigned flags,
               enum platter_preallocation preallocation, struct platter_error *err);

/* *ret_id is the caller's. */
int ops_snapshot_create(struct platter_disk *disk, const struct platter_snapshot_options *options,
                        char **ret_id, struct platter_error *err);
int ops_snapshot_apply(struct platter_disk *disk, const char *snapshot, unsigned by,
                       platter_progress_fn progress, void *opaque, struct platter_error *err);
int ops_snapshot_delete(struct platter_disk *disk, const char *snapshot, unsigned by,
                        platter_progress_fn progress, void *opaque, struct platter_error *err);
int ops_snapshot_diff(struct platter_disk *disk, const char *from, const char *to,
                      platter_snapshot_diff_fn fn, void *opaque, uint64_t ret_sizes[2],
                      struct platter_error *err);

int ops_commit(const char *name, const struct platter_commit_options *options,
               const struct platter_open_options *open, struct platter_error *err);

int ops_key(const char *name, const struct platter_key_options *options,
            const struct platter_open_options *open, unsigned *ret_slot, struct platter_error *err);

int ops_rebase(const char *name, const struct platter_rebase_options *options,
               const struct platter_open_options *open, struct platter_error *err);

int ops_bitmap_change(struct platter_disk *disk, const struct platter_bitmap_change *changes,
                      size_t n, struct platter_error *err);
int ops_bitmap_map(struct platter_disk *disk, const char *bitmap, uint64_t offset, uint64_t length,
                   uint64_t *ret_length, bool *ret_dirty, struct platter_error *err);
/* Leaves a string in *ret_json that is the caller's to free. */
int ops_bitmaps(struct platter_disk *disk, char **ret_json, struct platter_error *err);
/* Whether the bitmaps of a disk can be copied to an image of another format, as it seems; without
 * `skip_broken` one that cannot be used is an error. */
int bitmaps_check_copy(const struct platter_disk *source, const struct format *target,
                       bool skip_broken, struct platter_error *err);
/* Whether that disk can take them; `sized`: it has the size that it will have then. */
int bitmaps_check_target(const struct platter_disk *source, struct platter_disk *target, bool sized,
                         struct platter_error *err);
/* Copies those that can be used to a disk of the same size, when its data is written. */
int bitmaps_copy(struct platter_disk *source, struct platter_disk *target,
                 struct platter_error *err);

/* *ret is complete, and all zero when it comes. */
int ops_compact(const char *name, const struct platter_compact_options *options,
                const struct platter_open_options *open, struct platter_compact_result *ret,
                struct platter_error *err);

int ops_repack(const char *name, const char *target, const struct platter_repack_options *options,
               struct platter_error *err);
int ops_archive_index(const char *name, const char *index, struct platter_error *err);

int ops_amend(const char *name, const struct platter_amend_options *options,
              const struct platter_open_options *open, struct platter_error *err);
/* The work of it, on a disk that is open for writing. */
int amend_disk(struct platter_disk *disk, const struct platter_amend_options *options,
               struct platter_error *err);

/* The work of the two on disks that are open: a chain whose image `base` is open for writing as
 * well; a disk and the new chain below it (NULL: none), where `format` is known to be right. */
int commit_chain(struct platter_disk *disk, unsigned base,
                 const struct platter_commit_options *options, struct platter_error *err);
int rebase_chain(struct platter_disk *disk, const struct platter_disk *below, const char *format,
                 const struct platter_rebase_options *options, struct platter_error *err);

/* The three below leave a string in *ret_json that is the caller's to free. */
int ops_info(struct platter_disk *disk, unsigned layer, char **ret_json, struct platter_error *err);
int ops_views(struct platter_disk *disk, char **ret_json, struct platter_error *err);
int ops_formats(char **ret_json, struct platter_error *err);
int ops_places(char **ret_json, struct platter_error *err);

#endif
