/* SPDX-License-Identifier: MIT */
/*
 * Migrations that the server of the target does by itself (struct place_import_ops): those of Ceph,
 * whose library reads raw disks and QCOW images. It has faults (source-spec.md section 1): some
 * images it reads wrong without a word. So a source is looked at as a whole before it may have one.
 *
 *     native_judge.c    whether what a disk is, and holds, is read right
 *     native_spec.c     where it is, in the words that Ceph knows
 *     migrate_native.c  the verbs
 *
 * There is no state of ours: what is known of such a migration Ceph knows.
 */
#ifndef OPS_MIGRATE_NATIVE_H
#define OPS_MIGRATE_NATIVE_H

#include <platter/migrate.h>

#include "disk/disk.h"
#include "disk/source.h"

/* `name` may not be migrated so: ENOTSUP, and why. */
int native_refuse(struct platter_error *err, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Where there is something to read of a disk, to see whether Ceph reads the same. */
struct native_samples {
    goff first, last; /* bytes of data: of the first extent, and in the last one */
};

/* Whether Ceph reads all of a disk, which is open alone (PLATTER_OPEN_NO_BACKING), right. */
int native_judge(struct platter_disk *disk, const struct platter_migrate_prepare_options *options,
                 struct native_samples *ret, struct platter_error *err);
/* The document that tells Ceph where a source is, which opened as `format`; it may hold secrets. */
int native_spec(const struct source *source, const struct format *format, char **ret,
                struct platter_error *err);

/* platter_migrate_prepare() with PLATTER_MIGRATE_NATIVE. */
int migrate_native_prepare(const char *source, const struct platter_open_options *open,
                           const char *target,
                           const struct platter_migrate_prepare_options *options,
                           struct platter_error *err);

/* Whether a target is in such a migration: 1, and *ret is where, for place_done(); 0; or negative.
 * Of targets that no server could bring anything to nobody is asked. */
int migrate_native_find(const char *target, const struct platter_migrate_options *options,
                        struct place *ret, struct platter_error *err);

/* The verbs, of what that found. */
int migrate_native_execute(const struct place *target,
                           const struct platter_migrate_options *options,
                           struct platter_error *err);
int migrate_native_status(const struct place *target, json_t **ret, struct platter_error *err);
int migrate_native_commit(const struct place *target, struct platter_error *err);
int migrate_native_abort(const struct place *target, const struct platter_migrate_options *options,
                         struct platter_error *err);
/* What there is to say to who would be its owner. */
int migrate_native_refuse_owner(const struct place *target, struct platter_error *err);

#endif
