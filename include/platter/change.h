/* SPDX-License-Identifier: MIT */
/* Images as images: size, backing file, options, keys, snapshots, bitmaps, the room they take.
 * Included by <platter/platter.h>, which has the conventions. */
#ifndef PLATTER_CHANGE_H
#define PLATTER_CHANGE_H

#include "disk.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* ---- resize ---------------------------------------------------------------------------------- */

/** What is done with space that is new. */
enum platter_preallocation {
    PLATTER_PREALLOCATION_OFF = 0,      /**< nothing: it takes room when it is written */
    PLATTER_PREALLOCATION_METADATA = 1, /**< tables name a place for all of it */
    PLATTER_PREALLOCATION_FALLOC = 2,   /**< room in the file system is set aside */
    PLATTER_PREALLOCATION_FULL = 3      /**< zeros are written to all of it */
};

enum {
    /** platter_resize(): a smaller size is meant, and what lies behind it is to be lost. */
    PLATTER_RESIZE_SHRINK = 1u << 0
};

/**
 * Gives a disk that is open for writing another size, in bytes; it is durable on return. New space
 * reads as zeros; that of a LUKS volume as noise, unless FULL writes zeros to it. Fails with EINVAL
 * where the disk would shrink without PLATTER_RESIZE_SHRINK, and with ENOTSUP where the image
 * cannot have that size. Other calls may run; those that reach past the new end fail.
 */
int platter_resize(struct platter_disk *disk, uint64_t size, unsigned flags,
                   enum platter_preallocation preallocation, struct platter_error *err);

/* ---- internal snapshots ---------------------------------------------------------------------- */

enum {
    /** What names a snapshot is its id. */
    PLATTER_SNAPSHOT_BY_ID = 1u << 0,
    /** It is its name, of the first that has it. Neither: an id if there is such, else a name. */
    PLATTER_SNAPSHOT_BY_NAME = 1u << 1,
    /** platter_snapshot_create(): fail with EEXIST where another snapshot has the name. */
    PLATTER_SNAPSHOT_UNIQUE = 1u << 2
};

/** A snapshot to be made. */
struct platter_snapshot_options {
    size_t size;            /**< sizeof(struct platter_snapshot_options) */
    unsigned flags;         /**< PLATTER_SNAPSHOT_UNIQUE or 0 */
    const char *name;       /**< must be given; at most 255 bytes */
    const char *id;         /**< at most 127 bytes; NULL: the next free number */
    bool has_date;          /**< false: now */
    uint32_t date_sec;      /**< seconds since 1970 */
    uint32_t date_nsec;     /**< and nanoseconds */
    uint64_t clock_nsec;    /**< how long the machine had been running, nanoseconds */
    bool has_icount;        /**< false: not recorded */
    uint64_t icount;        /**< instructions the machine had executed */
    uint64_t vm_state_size; /**< bytes that platter_vm_state_write() has written for it; 0: none */
    platter_progress_fn progress; /**< NULL or progress and cancel; bytes are what tables map, for
                                       each time that one is gone through */
    void *opaque;                 /**< for it */
};

/**
 * Makes a snapshot of a disk that is open for writing, inside its image, durably. Time goes with
 * the tables, not the data. *ret_id (may be NULL) is its id and belongs to the caller, or NULL
 * where none was made. Fails with ENOTSUP where the image cannot have snapshots, EEXIST where the
 * id is taken, EOVERFLOW where a count in the image is too narrow for one more, ECANCELED;
 * nothing has changed then. Other calls wait, also those from `progress`.
 */
int platter_snapshot_create(struct platter_disk *disk,
                            const struct platter_snapshot_options *options, char **ret_id,
                            struct platter_error *err);

/**
 * Makes the disk what it was when `snapshot` was made, its size as well, durably; what it is now is
 * lost. `flags` tell what `snapshot` is: PLATTER_SNAPSHOT_BY_*. A crash leaves the old disk or the
 * new one. ENOENT: there is no such snapshot. `progress` (NULL: none) is as that of
 * platter_snapshot_create(); when the disk is the new one a cancel comes too late, and the work
 * goes on to its end.
 */
int platter_snapshot_apply(struct platter_disk *disk, const char *snapshot, unsigned flags,
                           platter_progress_fn progress, void *opaque, struct platter_error *err);

/**
 * Deletes a snapshot, durably, and gives its space back; the disk stays as it is. A cancel can come
 * with the first call of `progress` only.
 */
int platter_snapshot_delete(struct platter_disk *disk, const char *snapshot, unsigned flags,
                            platter_progress_fn progress, void *opaque, struct platter_error *err);

/** What platter_snapshot_diff() tells of a range. */
struct platter_snapshot_difference {
    size_t size;     /**< sizeof of the library's structure */
    uint64_t offset; /**< guest offset */
    uint64_t length; /**< bytes */
    unsigned flags;  /**< what `to` has there: PLATTER_EXTENT_PRESENT, ZERO, DATA, PACKED; none of
                          them: what is below the image */
};

/** Receives the ranges that differ, in order. Non-zero cancels. */
typedef int (*platter_snapshot_diff_fn)(void *opaque,
                                        const struct platter_snapshot_difference *difference);

/**
 * Tells where two snapshots of the image may differ, from its tables alone: no data is read, and a
 * range that was written anew with the same bytes counts as different. Where `from` has another
 * size, it is taken as cut off or filled up with zeros to the size of `to`: who does that, and
 * takes over the ranges that are told, has `to`. NULL means the disk as it is now. ret_sizes (may
 * be NULL) receives the sizes of both disks.
 */
int platter_snapshot_diff(struct platter_disk *disk, const char *from, const char *to,
                          platter_snapshot_diff_fn fn, void *opaque, uint64_t ret_sizes[2],
                          struct platter_error *err);

/** Tells how many bytes of a machine's state the view that is open holds; 0 for the disk itself. */
int platter_vm_state_size(struct platter_disk *disk, uint64_t *ret_size, struct platter_error *err);

/** Reads a part of the machine's state of the view that is open: all of it or an error. */
int platter_vm_state_read(struct platter_disk *disk, void *buffer, size_t length, uint64_t offset,
                          struct platter_error *err);

/**
 * Writes a part of a machine's state behind a disk that is open for writing. It belongs to the next
 * snapshot that says its size; the image has one such state at a time.
 */
int platter_vm_state_write(struct platter_disk *disk, const void *buffer, size_t length,
                           uint64_t offset, struct platter_error *err);

/** Gives back what platter_vm_state_write() has written for a snapshot that is not going to be. */
int platter_vm_state_drop(struct platter_disk *disk, struct platter_error *err);

/* ---- dirty bitmaps --------------------------------------------------------------------------- */

/** What can be done to a dirty bitmap. */
enum platter_bitmap_action {
    PLATTER_BITMAP_ADD = 1,     /**< a new one, enabled, with nothing dirty */
    PLATTER_BITMAP_REMOVE = 2,  /**< the only thing that can be done to one that is not valid */
    PLATTER_BITMAP_CLEAR = 3,   /**< nothing is dirty any more */
    PLATTER_BITMAP_ENABLE = 4,  /**< it records writes */
    PLATTER_BITMAP_DISABLE = 5, /**< it stays as it is */
    PLATTER_BITMAP_MERGE = 6    /**< what is dirty in another one is dirty in it as well */
};

/** One step of platter_bitmap_change(). */
struct platter_bitmap_change {
    size_t size;                       /**< sizeof(struct platter_bitmap_change) */
    enum platter_bitmap_action action; /**< what is done */
    const char *name;                  /**< to which bitmap */
    uint64_t granularity; /**< ADD: bytes that a bit stands for, a power of 2 from 512 to 2 GiB; 0:
                               the cluster size, or the nearest of 4 KiB and 64 KiB */
    struct platter_disk *source; /**< MERGE: where the other bitmap is, a disk of the same size;
                                      NULL: here */
    const char *source_name;     /**< MERGE: the other bitmap */
};

/**
 * Changes the dirty bitmaps of a disk that is open for writing: carries out `n` steps in order, all
 * of them or none, durably; a crash leaves the bitmaps as they were or as they are to be. All
 * structures have the same size. ENOTSUP: the image cannot have bitmaps. ENOENT, EEXIST: there is
 * none, or one already, of that name.
 *
 * Writes, zeros and discards are recorded by all enabled bitmaps as long as the disk is open. While
 * that goes on they are not valid on the disk, and a crash leaves them so; platter_close() makes
 * them valid again.
 */
int platter_bitmap_change(struct platter_disk *disk, const struct platter_bitmap_change *changes,
                          size_t n, struct platter_error *err);

/**
 * Lists the dirty bitmaps of the top image as a JSON array of objects with "name", "granularity"
 * (bytes), "recording" (it is enabled), "inconsistent" (it is not valid), and "count" (bytes that
 * are dirty) or, where it cannot be used, "problem" (why). *ret_json belongs to the caller.
 */
int platter_bitmaps(struct platter_disk *disk, char **ret_json, struct platter_error *err);

/**
 * Tells whether the byte at `offset` is dirty in a bitmap of the top image, and for how many bytes
 * from there, `length` at most, the answer holds. Call again behind it for the next.
 */
int platter_bitmap_map(struct platter_disk *disk, const char *bitmap, uint64_t offset,
                       uint64_t length, uint64_t *ret_length, bool *ret_dirty,
                       struct platter_error *err);

/* ---- commit ---------------------------------------------------------------------------------- */

enum {
    /** Do not empty the image: it is going to be thrown away (`-d`). */
    PLATTER_COMMIT_KEEP = 1u << 0
};

/** How to commit. */
struct platter_commit_options {
    size_t size;    /**< sizeof(struct platter_commit_options) */
    unsigned flags; /**< PLATTER_COMMIT_* */
    /** How the image is opened, or NULL: as platter_open() does. Of the flags only NO_LOCK,
     *  PROBE_BACKING and IGNORE_CID are for a commit; memory_limit goes for each image that is
     *  opened, and for the buffers of the copy. */
    const struct platter_open_options *open;
    /** The image of the chain, by its file name, that gets the data; NULL: the backing file. What
     *  lies between is of no use after that, and the image is not emptied. A VMDK that lies between
     *  knows that its parent changed: what is over it opens with PLATTER_OPEN_IGNORE_CID only. */
    const char *base;
    unsigned workers;             /**< 0: as many as help */
    uint64_t rate;                /**< most bytes a second that are written; 0: no limit */
    platter_progress_fn progress; /**< NULL or progress and cancel */
    void *opaque;                 /**< for it */
};

/**
 * Writes what the image `name` stores into its backing file, which grows to its size where it is
 * shorter, and empties the image. A guest sees the same disk before, after, and if it ends in the
 * middle. Other images over the same backing file are of no use after that.
 */
int platter_commit(const char *name, const struct platter_commit_options *options,
                   struct platter_error *err);

/* ---- rebase ---------------------------------------------------------------------------------- */

enum {
    /** Change the name alone: whoever asks for it knows that what it leads to reads the same. */
    PLATTER_REBASE_UNSAFE = 1u << 0
};

/** How to rebase. */
struct platter_rebase_options {
    size_t size;    /**< sizeof(struct platter_rebase_options) */
    unsigned flags; /**< PLATTER_REBASE_* */
    /** How the image is opened, or NULL: as platter_open() does. Of the flags only NO_LOCK,
     *  PROBE_BACKING and IGNORE_CID are for a rebase. All but `format` goes for the
     *  new backing file as well, and memory_limit for the buffers of the copy. */
    const struct platter_open_options *open;
    const char *backing; /**< the new backing file's name, as it is to be stored; NULL: none */
    const char *backing_format;   /**< its format; NULL: what the file is found to be, if not raw */
    unsigned workers;             /**< 0: as many as help */
    uint64_t rate;                /**< most bytes a second that are written; 0: no limit */
    platter_progress_fn progress; /**< NULL or progress and cancel */
    void *opaque;                 /**< for it */
};

/**
 * Gives the image `name` another backing file, or none. What it does not store itself and what
 * reads otherwise there is copied into it first, so that a guest sees the same disk before and
 * after.
 */
int platter_rebase(const char *name, const struct platter_rebase_options *options,
                   struct platter_error *err);

/* ---- amend ----------------------------------------------------------------------------------- */

enum {
    /** What the image cannot have with the new options is lost, where it is no data: the dirty
     *  bitmaps of a qcow2 that becomes version 2. */
    PLATTER_AMEND_FORCE = 1u << 0
};

/** How to amend. */
struct platter_amend_options {
    size_t size;    /**< sizeof(struct platter_amend_options) */
    unsigned flags; /**< PLATTER_AMEND_* */
    /** How the image is opened, or NULL: as platter_open() does. Of the flags only NO_LOCK,
     *  PROBE_BACKING and IGNORE_CID are for this. */
    const struct platter_open_options *open;
    const char *options; /**< "key=value,key=value", what platter_formats() lists as amendable */
    platter_progress_fn progress; /**< NULL or progress and cancel */
    void *opaque;                 /**< for it */
};

/**
 * Changes what `options` say of the image `name`. A guest sees the same disk before, after, and if
 * it ends in the middle.
 */
int platter_amend(const char *name, const struct platter_amend_options *options,
                  struct platter_error *err);

/* ---- compact --------------------------------------------------------------------------------- */

enum {
    /** Change nothing: tell what would be won. */
    PLATTER_COMPACT_DRY_RUN = 1u << 0,
    /** Clusters that read as zeros give up their place, those that were preallocated as well. All
     *  data is read for that. */
    PLATTER_COMPACT_ZEROS = 1u << 1
};

/** How to compact. */
struct platter_compact_options {
    size_t size;    /**< sizeof(struct platter_compact_options) */
    unsigned flags; /**< PLATTER_COMPACT_* */
    /** How the image is opened, or NULL: as platter_open() does. Of the flags only NO_LOCK is for
     *  this; what is below the image is not opened. */
    const struct platter_open_options *open;
    platter_progress_fn progress; /**< NULL or progress and cancel; bytes are those that move */
    void *opaque;                 /**< for it */
};

/** What a compaction did, or would do. */
struct platter_compact_result {
    size_t size;             /**< sizeof(struct platter_compact_result), set by the caller */
    const char *format;      /**< of the image, a static string; NULL: it was not opened */
    uint64_t cluster_size;   /**< bytes */
    uint64_t file_size;      /**< bytes of the file before */
    uint64_t new_size;       /**< ... and after */
    uint64_t clusters_moved; /**< of data and tables */
    uint64_t leaks;          /**< clusters that nothing refers to, and that are given back */
    uint64_t zeros_freed;    /**< clusters that gave up their place as they read as zeros */
};

/**
 * Makes the file of an image as short as what it holds: moves what stands at its end into what is
 * free before it, without a second copy, and cuts the file. Disk, snapshots and bitmaps stay what
 * they are. Needs no room to speak of, and takes time for the tables and for what moves. The image
 * is checked first: one that is damaged is refused (PLATTER_ECORRUPT), leaks are given back.
 *
 * If it ends in the middle, by a crash or by a cancel (ECANCELED), the image is the same, what was
 * moved by then is moved, and it can be done again; after a crash some clusters may be leaked until
 * then. *result (may be NULL) is filled as far as it came, on failure as well. ENOTSUP: images of
 * that format cannot be compacted.
 */
int platter_compact(const char *name, const struct platter_compact_options *options,
                    struct platter_compact_result *result, struct platter_error *err);

/* ---- keys ------------------------------------------------------------------------------------ */

/** What can be done to the key slots of an image that is encrypted with LUKS. */
enum platter_key_action {
    PLATTER_KEY_ADD = 1,    /**< one more secret opens the image */
    PLATTER_KEY_REMOVE = 2, /**< a secret does not open it any more */
    PLATTER_KEY_CHANGE = 3  /**< another secret opens it, instead of the one that it is opened with,
                                 which opens no slot any more */
};

enum {
    /** Overwrite a slot that is in use; remove the last one, without a secret that opens it. */
    PLATTER_KEY_FORCE = 1u << 0
};

/** How to change a key slot. */
struct platter_key_options {
    size_t size;                    /**< sizeof(struct platter_key_options) */
    unsigned flags;                 /**< PLATTER_KEY_FORCE or 0 */
    enum platter_key_action action; /**< what is done */
    bool has_slot;          /**< false: the first free one; REMOVE: all that a secret opens */
    unsigned slot;          /**< 0 to 7 */
    uint64_t iter_time;     /**< milliseconds that trying the new secret takes; 0: 2000 */
    const char *new_secret; /**< id in the question for the new secret, or NULL */
    const char *old_secret; /**< id in the question for what is removed, or NULL */
    /** How the image is opened; of the flags only NO_LOCK is for this. `secret` is asked for what
     *  opens the image now, for the new secret, and for the one to be removed. */
    const struct platter_open_options *open;
};

/**
 * Changes a key slot of the image `name`, durably; a crash leaves the old keys or the new ones. The
 * data's own key stays: who had it, has it still. *ret_slot (may be NULL) is the slot that was
 * filled, or the first that was emptied. EACCES: no secret fits. ENOTSUP: the image has no key
 * slots.
 */
int platter_key(const char *name, const struct platter_key_options *options, unsigned *ret_slot,
                struct platter_error *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
