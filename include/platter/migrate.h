/* SPDX-License-Identifier: MIT */
/* Live migration: a disk that is used at its new place while it still comes from the old one.
 * Included by <platter/platter.h>, which has the conventions. */
#ifndef PLATTER_MIGRATE_H
#define PLATTER_MIGRATE_H

#include "disk.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/*
 * The target is a new image that shows the source wherever it holds nothing itself. prepare makes
 * it; from then on it is read and written through platter_migrate_open(), by one process at a time,
 * its owner; execute copies what is missing; commit cuts the link to the source. What was written
 * to the target always counts for more than what comes from the source. The source is never
 * changed, and must not change: another size, ETag, time of change or snapshot ends the reads from
 * it with ESTALE.
 *
 * What is known of a migration is kept in its state, a file (or an image of Ceph) beside the
 * target: TARGET.migration. It may hold secrets, where the source was described with some, and can
 * be read by its owner alone. Any process can be killed at any time: whoever opens the target next
 * goes on with all that was flushed.
 *
 * Until it is committed the target is clearly incomplete: a raw file is called TARGET.part, and a
 * qcow2 names a backing file that nothing opens.
 */

enum {
    /** prepare: bring the snapshots of the source along; they are copied before it returns. */
    PLATTER_MIGRATE_SNAPSHOTS = 1u << 0,
    /** prepare: leave the work to Ceph, whose target it is, where that can do it well. */
    PLATTER_MIGRATE_NATIVE = 1u << 1,
    /** open: what is read from the source is not stored in the target. */
    PLATTER_MIGRATE_NO_COPY_ON_READ = 1u << 2,
    /** abort: what was written to the target since it was prepared may be lost. */
    PLATTER_MIGRATE_DISCARD_WRITES = 1u << 3
};

/** How to prepare a migration. */
struct platter_migrate_prepare_options {
    size_t size;              /**< sizeof(struct platter_migrate_prepare_options) */
    unsigned flags;           /**< PLATTER_MIGRATE_* */
    const char *format;       /**< of the target: "qcow2" or "raw"; NULL: qcow2 in a file, raw
                                   elsewhere */
    const char *options;      /**< creation options, as in platter_create(), or NULL */
    const char *target_place; /**< more about where the target goes, as `place` of
                                   platter_open_options */
    const char *state;        /**< where the state is kept; NULL: TARGET.migration. A target that is
                                   a device needs one */
    bool has_disk_size;       /**< false: the size of the source */
    uint64_t disk_size; /**< of the target, bytes, at least that of the source, behind which it
                             reads as zeros; rounded up to 512 */
    platter_secret_fn secret;     /**< gives what an encrypted target is to open with, or NULL */
    void *secret_opaque;          /**< passed to `secret` */
    platter_progress_fn progress; /**< NULL, or progress and cancel of what is copied at once */
    void *opaque;                 /**< passed to `progress` */
};

/**
 * Prepares a migration: opens the source once, reads from it, and makes target and state, durably.
 * `source` and `open` are as of platter_open(), and are kept in the state, but for secrets,
 * `gate` and everything else that is a function. A failure leaves nothing. Fails with EEXIST where
 * the target or a state of it is there already, and as platter_open() and platter_create() do.
 */
int platter_migrate_prepare(const char *source, const struct platter_open_options *open,
                            const char *target,
                            const struct platter_migrate_prepare_options *options,
                            struct platter_error *err);

/** How to go on with a migration; all functions below take the same. All zero but `size` will do.
 */
struct platter_migrate_options {
    size_t size;              /**< sizeof(struct platter_migrate_options) */
    unsigned flags;           /**< PLATTER_MIGRATE_* */
    const char *target_place; /**< as it was given to prepare */
    const char *state;        /**< likewise */
    /** Another name by which the same source is reached from now on (a URL that was signed anew, a
     *  folder that moved), which is kept if it is the same; NULL: the one that is known. */
    const char *source;
    const char *source_place; /**< as `place` of platter_open_options, instead of what was given to
                                   prepare; NULL: that */
    const char *const *allow; /**< as in platter_open_options, beside what was given to prepare */
    uint64_t memory_limit;    /**< most bytes of tables and caches of the target, and of the source;
                                   0: 64 MiB */
    platter_secret_fn secret; /**< opens encrypted images, of source and target; or NULL */
    void *secret_opaque;      /**< passed to `secret` */
    unsigned workers;         /**< execute: threads at work; 0: as many as help */
    uint64_t rate;            /**< execute: most bytes a second that are copied; 0: no limit */
    platter_progress_fn progress; /**< execute, abort: NULL, or progress and cancel; bytes are those
                                       of the disk */
    void *opaque;                 /**< passed to `progress` */
    const char *keep_writes;      /**< abort: name of a new qcow2 over the source that gets what the
                                       target shows otherwise, or, where the source cannot be opened,
                                       all that the target has; NULL: none */
};

/** A migration that this process owns. Opaque. */
struct platter_migration;

/**
 * Becomes the owner of a migration. Fails with EBUSY while there is another one, ENOENT where there
 * is no migration of this target, ESTALE where the source is not what it was. A source that cannot
 * be reached is no failure: what comes from it cannot be read then. The owner answers the functions
 * below that are called in other processes, in a thread of its own. On success *ret must be given
 * to platter_migrate_close().
 */
int platter_migrate_open(const char *target, const struct platter_migrate_options *options,
                         struct platter_migration **ret, struct platter_error *err);

/** The target as a disk, to be read and written, until platter_migrate_close(); it must not be
 *  given to platter_close(). */
struct platter_disk *platter_migrate_disk(struct platter_migration *migration);

/** Flushes and closes; a copy that runs is ended and can be gone on with. As platter_close(). */
int platter_migrate_close(struct platter_migration *migration, struct platter_error *err);

/**
 * Copies what is missing. In the process of the owner where there is one, else in this one, as the
 * owner, for as long. Ends with 0 only when all of it is in the target, durably: copied, found to
 * be zeros, or written over. What cannot be read from the source is passed over, and is the error
 * in the end (EIO). ECANCELED where `progress` had enough: the work that was done stays done. Only
 * one can run: EALREADY.
 */
int platter_migrate_execute(const char *target, const struct platter_migrate_options *options,
                            struct platter_error *err);

/**
 * Describes a migration as a JSON object: "state" ("prepared", "executing", "executed", "failed"),
 * "source", "target", "format", "virtual-size", bytes "copied" and "left" (null where the source
 * cannot tell), "rate" (bytes a second), "written" (whether the target was written to), "owner" (a
 * process ID, or null), "failed-reads", "error" (null, or the sentence of the last one), "missing"
 * (an array of {"start", "length"}: what is still only in the source, if that cannot be read; at
 * most 1000 of them, "missing-ranges" is their number). *ret_json belongs to the caller.
 */
int platter_migrate_status(const char *target, const struct platter_migrate_options *options,
                           char **ret_json, struct platter_error *err);

/**
 * Cuts the link to the source, durably: the target stands alone, under its name, and there is no
 * migration any more. Also while its owner goes on reading and writing. EAGAIN before execute has
 * ended well.
 */
int platter_migrate_commit(const char *target, const struct platter_migrate_options *options,
                           struct platter_error *err);

/**
 * Gives a migration up: target and state are removed. Not while there is an owner: EBUSY. If the
 * target was written to, `keep_writes` or PLATTER_MIGRATE_DISCARD_WRITES must be given: EPERM.
 */
int platter_migrate_abort(const char *target, const struct platter_migrate_options *options,
                          struct platter_error *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
