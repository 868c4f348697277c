/* SPDX-License-Identifier: MIT */
/* Whole disks: create, convert, compare, digest, measure. Included by <platter/platter.h>, which
 * has the conventions. */
#ifndef PLATTER_COPY_H
#define PLATTER_COPY_H

#include "disk.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* ---- create ---------------------------------------------------------------------------------- */

enum {
    /** Do not look at the backing file: it may not exist yet. Needs `disk_size`. */
    PLATTER_CREATE_UNSAFE_BACKING = 1u << 0,
    /** Fail with EEXIST instead of replacing a file. */
    PLATTER_CREATE_EXCLUSIVE = 1u << 1,
    /** As PLATTER_OPEN_PROBE_BACKING, for what lies below `backing`. */
    PLATTER_CREATE_PROBE_BACKING = 1u << 2
};

/** What to create. */
struct platter_create_options {
    size_t size;         /**< sizeof(struct platter_create_options) */
    unsigned flags;      /**< PLATTER_CREATE_* */
    const char *format;  /**< must be given */
    bool has_disk_size;  /**< false: take the size of the backing file */
    uint64_t disk_size;  /**< guest size in bytes; rounded up to 512 */
    const char *options; /**< "key=value,key=value" (a comma in a value is doubled), or NULL */
    const char *backing; /**< name to store as the backing file, or NULL */
    const char *backing_format; /**< its format; needed with `backing` */
    const char *const *allow;   /**< as in platter_open_options, for what lies below `backing` */
    platter_secret_fn secret;   /**< gives what an encrypted image is to open with, and opens
                                     `backing`; NULL: neither is encrypted */
    void *secret_opaque;        /**< passed to `secret` */
    const char *target_place;   /**< more about where it goes, as `place` of platter_open_options */
    const char *below_format;   /**< as backing_format of platter_open_options, for what lies below
                                     `backing` */
};

/**
 * Creates an image. It is made beside its name and moved over it when it is complete and durable; a
 * failure leaves whatever was there before. Options are those platter_formats() lists.
 */
int platter_create(const char *name, const struct platter_create_options *options,
                   struct platter_error *err);

/* ---- convert --------------------------------------------------------------------------------- */

enum {
    PLATTER_CONVERT_COMPRESS = 1u << 0,       /**< compress what the format can compress */
    PLATTER_CONVERT_EXISTING = 1u << 1,       /**< the target exists: write into it (`-n`) */
    PLATTER_CONVERT_TARGET_IS_ZERO = 1u << 2, /**< an existing target reads as zeros already */
    PLATTER_CONVERT_SALVAGE = 1u << 3,   /**< go on after read errors; leave zeros and report */
    PLATTER_CONVERT_UNORDERED = 1u << 4, /**< the order of data in the target does not matter */
    PLATTER_CONVERT_TO_FD = 1u << 5,     /**< write to `fd`, front to back; no target name */
    PLATTER_CONVERT_UNSAFE = 1u << 6,    /**< do not wait until the target is durable */
    /** Copy the dirty bitmaps of the top image of the only source as well. */
    PLATTER_CONVERT_BITMAPS = 1u << 7,
    /** With that: leave out bitmaps that are not valid, instead of failing. */
    PLATTER_CONVERT_SKIP_BROKEN_BITMAPS = 1u << 8,
    /** Copy all snapshots inside the source as well, each with its names, dates, size and the
     *  machine's state; what they share there they share in the new image. Between images of
     *  formats that have them (qcow2, and raw disks in Ceph), into a new one without a backing
     *  file. */
    PLATTER_CONVERT_SNAPSHOTS = 1u << 9,
    /** With that: without the machines' states, which only qcow2 can hold. */
    PLATTER_CONVERT_NO_VM_STATE = 1u << 10,
    /** As PLATTER_OPEN_PROBE_BACKING, for what lies below `backing` or an existing target. */
    PLATTER_CONVERT_PROBE_BACKING = 1u << 11
};

/** How to convert. */
struct platter_convert_options {
    size_t size;                /**< sizeof(struct platter_convert_options) */
    unsigned flags;             /**< PLATTER_CONVERT_* */
    const char *format;         /**< the target's format; NULL is "raw" */
    const char *options;        /**< creation options, as in platter_create() */
    const char *backing;        /**< the target's backing file: only what differs is copied */
    const char *backing_format; /**< its format */
    bool has_sparse_size;       /**< false: the default of 4096 */
    uint64_t sparse_size;  /**< runs of zeros of at least this many bytes are not stored; 0: all
                                is written out. A multiple of 512 */
    unsigned workers;      /**< threads at work; 0: as many as help */
    uint64_t rate;         /**< most bytes a second that are written; 0: no limit */
    int fd;                /**< with PLATTER_CONVERT_TO_FD; stays the caller's */
    uint64_t memory_limit; /**< most bytes of tables and buffers; 0: 64 MiB */
    platter_progress_fn progress; /**< NULL or progress and cancel */
    platter_hole_fn hole;         /**< NULL or the holes of a salvage */
    void *opaque;                 /**< for both */
    const char *const *allow; /**< as in platter_open_options, for opening the target's backing */
    platter_secret_fn secret; /**< as in platter_create_options, of the target */
    void *secret_opaque;      /**< passed to `secret` */
    bool has_range;           /**< false: all of the disks */
    /** Only this part of the disks together, as far as they have it, becomes the target. */
    uint64_t range_offset, range_length;
    const char *target_place; /**< as in platter_create_options; of an existing target as well */
    const char *below_format; /**< as backing_format of platter_open_options, for what lies below
                                   `backing` or an existing target */
};

/**
 * Copies whole disks, one behind the other, into a new image (or an existing one). A new file
 * target appears under its name only when it is complete and durable. Sources are not changed.
 * *ret_holes (may be NULL) is the number of ranges a salvage left out.
 */
int platter_convert(struct platter_disk *const *sources, size_t n_sources, const char *target,
                    const struct platter_convert_options *options, uint64_t *ret_holes,
                    struct platter_error *err);

/* ---- compare --------------------------------------------------------------------------------- */

enum {
    PLATTER_COMPARE_STRICT = 1u << 0 /**< sizes and allocation must be equal as well */
};

/** What a comparison found. */
enum platter_difference {
    PLATTER_SAME = 0,
    PLATTER_CONTENT_DIFFERS = 1,    /**< `offset` is the first byte that differs */
    PLATTER_SIZE_DIFFERS = 2,       /**< strict only */
    PLATTER_ALLOCATION_DIFFERS = 3, /**< strict only; `offset` is where */
    PLATTER_TAIL_DIFFERS = 4        /**< the longer disk is not zero behind the shorter one's end */
};

/** How to compare. */
struct platter_compare_options {
    size_t size;                  /**< sizeof(struct platter_compare_options) */
    unsigned flags;               /**< PLATTER_COMPARE_* */
    unsigned workers;             /**< 0: as many as help */
    platter_progress_fn progress; /**< NULL or progress and cancel */
    void *opaque;                 /**< for it */
};

/**
 * Compares what two guests would see. 0 with *ret_difference (and *ret_offset where it has one), or
 * a negative code if a disk could not be read; *ret_failed (may be NULL) is then 0 for `a`, 1 for
 * `b`.
 */
int platter_compare(struct platter_disk *a, struct platter_disk *b,
                    const struct platter_compare_options *options,
                    enum platter_difference *ret_difference, uint64_t *ret_offset, int *ret_failed,
                    struct platter_error *err);

/* ---- digest ---------------------------------------------------------------------------------- */

/** Which digest. */
enum platter_digest_algorithm {
    PLATTER_DIGEST_TREE = 0,  /**< the SHA-256 tree of docs/digest.md: cost follows the data */
    PLATTER_DIGEST_SHA256 = 1 /**< plain SHA-256 of all bytes, as sha256sum of the raw image */
};

/** Receives the node over each 16 MiB of the disk, in order. Non-zero cancels. */
typedef int (*platter_node_fn)(void *opaque, uint64_t offset, uint64_t length,
                               const uint8_t digest[32]);

/** How to digest. */
struct platter_digest_options {
    size_t size;                             /**< sizeof(struct platter_digest_options) */
    enum platter_digest_algorithm algorithm; /**< which */
    unsigned workers;                        /**< 0: as many as help */
    platter_node_fn node;                    /**< NULL, or receives the 16 MiB nodes (tree only) */
    platter_progress_fn progress;            /**< NULL or progress and cancel */
    void *opaque;                            /**< for both */
};

/** One value for the bytes a guest sees, whatever the format and wherever the holes. */
int platter_digest(struct platter_disk *disk, const struct platter_digest_options *options,
                   uint8_t ret_digest[32], struct platter_error *err);

/* ---- measure --------------------------------------------------------------------------------- */

/** What a new image would take. */
struct platter_measurement {
    size_t size;              /**< sizeof(struct platter_measurement), set by the caller */
    uint64_t required;        /**< bytes of the file when it is written now */
    uint64_t fully_allocated; /**< bytes of the file when the guest has written everything */
    bool has_bitmaps;         /**< both images can have dirty bitmaps */
    uint64_t bitmaps;         /**< ... and those of the disk take so many bytes more */
};

/**
 * Tells how large a file an image of `disk` (or, where it is NULL, of an empty disk of `disk_size`
 * bytes) will be in `format` with creation options `options`.
 */
int platter_measure(struct platter_disk *disk, uint64_t disk_size, const char *format,
                    const char *options, struct platter_measurement *measurement,
                    struct platter_error *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
