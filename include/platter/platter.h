/* SPDX-License-Identifier: MIT */
/*
 * platter: virtual machine disks in any format.
 *
 * The whole public API. Conventions that hold for every function here:
 *
 * - Sizes and offsets are bytes. A guest offset counts from the start of the disk a virtual machine
 *   sees; a host offset counts from the start of a file that stores it.
 * - Functions that can fail return 0 or a negative code: an errno value or one of PLATTER_E*.
 *   `err`, always last, may be NULL; when it is not, a failure leaves the code and one sentence in
 * it. It is never needed to learn *whether* a call failed. Nothing is printed, nothing exits.
 * - Structures start with `size`, which the caller sets to sizeof(the structure); they only ever
 * grow at the end, so that programs built against an older header keep working. All bits and fields
 * not mentioned must be zero: `struct platter_x x = {.size = sizeof x};` is right. What a newer
 * program asks of an older library that does not know it is EINVAL.
 * - Any call on a disk may run beside any other call on it, from any thread, platter_close()
 * excepted.
 * - Strings are UTF-8 or plain bytes, ended by NUL, and copied when they are kept. A `char **`
 * result belongs to the caller, who gives it back with platter_free().
 */
#ifndef PLATTER_H
#define PLATTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* ---- errors ---------------------------------------------------------------------------------- */

/** The image is damaged: what it says cannot be true. (The value of Linux's EUCLEAN.) */
#define PLATTER_ECORRUPT 117
/** No format that may be guessed fits the file. (The value of Linux's EMEDIUMTYPE.) */
#define PLATTER_ENOFORMAT 124
/** A name inside an image was refused by the gate. (The value of Linux's EKEYREJECTED.) */
#define PLATTER_EGATE 129

/** A code and a sentence, in the caller's own memory. */
struct platter_error {
    int code;           /**< positive: an errno value or PLATTER_E*; 0 when nothing failed */
    char message[1024]; /**< one sentence: file, offset or field, what was expected, what to do */
};

/** Gives back a string or block that this library returned. NULL is fine. */
void platter_free(void *memory);

/** The library's version, "major.minor.patch". */
const char *platter_version(void);

/* ---- the gate: names found inside images ----------------------------------------------------- */

/** What a name found inside an image is for. */
enum platter_name_kind {
    PLATTER_NAME_BACKING = 1,   /**< a backing file or parent, opened as a disk of its own */
    PLATTER_NAME_DATA_FILE = 2, /**< the external data file of a qcow2 */
    PLATTER_NAME_EXTENT = 3     /**< an extent of a VMDK */
};

/** One question to the gate. All strings belong to the library and live until the answer. */
struct platter_name {
    size_t size;                 /**< sizeof of the library's structure */
    enum platter_name_kind kind; /**< what the name is for */
    const char *image;           /**< the image that contains the name, as it was opened */
    const char *name;            /**< the name as it stands in the image */
    const char *path; /**< the local path it means: relative names are resolved against the
                           folder of `image`. NULL if it is no plain path (`nbd:`, `json:`) */
};

/** Answers whether a name may be opened: 0 yes, anything else no. Called from the opening thread.
 */
typedef int (*platter_gate_fn)(void *opaque, const struct platter_name *name);

/* ---- secrets: what encrypted images need ----------------------------------------------------- */

enum {
    PLATTER_MAX_SECRET = 64 << 10 /**< bytes that a passphrase or key file may have */
};

/** What a secret is for. */
enum platter_secret_kind {
    PLATTER_SECRET_OPEN = 1,  /**< opens an image that is there */
    PLATTER_SECRET_NEW = 2,   /**< is to open a new image, or one that gets another key */
    PLATTER_SECRET_REMOVE = 3 /**< is not to open an image any more */
};

/** One question for a secret. All strings belong to the library and live until the answer. */
struct platter_secret {
    size_t size;                   /**< sizeof of the library's structure */
    enum platter_secret_kind kind; /**< what it is for */
    const char *image;             /**< the image, as it was named */
    const char *id;   /**< what a creation option called the secret (encrypt.key-secret), or NULL */
    unsigned attempt; /**< 0; OPEN: how many secrets did not fit so far. The library asks again
                           until one fits or the answer is not 0 */
};

/**
 * Puts a passphrase or the content of a key file into `buffer`, which has PLATTER_MAX_SECRET bytes
 * and is wiped after use, and its length into *ret_length. Answers 0, or anything else if there is
 * none. Called from the thread that called the library.
 */
typedef int (*platter_secret_fn)(void *opaque, const struct platter_secret *question,
                                 uint8_t *buffer, size_t *ret_length);

/* ---- open and close -------------------------------------------------------------------------- */

/** An open disk: an image with everything below it. Opaque. */
struct platter_disk;

enum {
    /** Open for writing. Backing files are still opened read-only. */
    PLATTER_OPEN_WRITE = 1u << 0,
    /** Open even if a running program has the image open for writing (`-U`); read-only. */
    PLATTER_OPEN_FORCE_SHARE = 1u << 1,
    /** Where no format is named and none is recognised, take the file as raw. */
    PLATTER_OPEN_ALLOW_RAW = 1u << 2,
    /** Do not open backing files: unallocated ranges read as an error. For info and single images.
     */
    PLATTER_OPEN_NO_BACKING = 1u << 3,
    /** Take no locks at all. For file systems without them. */
    PLATTER_OPEN_NO_LOCK = 1u << 4,
    /** Guess the format of a backing file that the image does not name (never guesses raw). */
    PLATTER_OPEN_PROBE_BACKING = 1u << 5,
    /** Only header and tables are wanted: no data is going to be read. Locks as a query does. */
    PLATTER_OPEN_QUERY = 1u << 6,
    /** Read-only. Where the tables that say what stands where are lost or damaged, look for the
     * data itself, as far as the format allows that; what is not found reads as zeros. */
    PLATTER_OPEN_SALVAGE = 1u << 7,
    /** Take the parent of a VMDK although its content ID is not the one that the child remembers:
     *  it was changed since, or is another one, and what is read may make no sense. */
    PLATTER_OPEN_IGNORE_CID = 1u << 8
};

/** How to open a disk. All zero but `size` is: read-only, format found by content, safe gate. */
struct platter_open_options {
    size_t size;        /**< sizeof(struct platter_open_options) */
    unsigned flags;     /**< PLATTER_OPEN_* */
    const char *format; /**< "raw", "qcow2", "vmdk", or NULL: by content, never raw */
    const char *view;   /**< a view of the file (an internal snapshot), or NULL: the disk itself */
    uint64_t
        memory_limit; /**< most bytes that tables and caches of the chain may take; 0: 64 MiB */
    /** Judges names found inside images. NULL: local regular files in the folder of the image that
     *  names them, or below it; and in `allow`. Never devices, other protocols, descriptions. */
    platter_gate_fn gate;
    void *gate_opaque;        /**< passed to `gate` */
    const char *const *allow; /**< NULL, or a NULL-ended list of files and folders that names inside
                                   images may lead to as well; used by the built-in gate only */
    /** Gives the secrets of encrypted images of the chain. NULL: they do not open (but a query
     *  does). */
    platter_secret_fn secret;
    void *secret_opaque; /**< passed to `secret` */
    uint64_t kdf_limit;  /**< most iterations of PBKDF2 for one key slot, which whoever made the
                              image chose; 0: 100 million */
};

/**
 * Opens a disk with all its backing files. `name` is a path. The chain is fixed at open. On success
 * *ret_disk must be given to platter_close(). Fails with PLATTER_ENOFORMAT, PLATTER_ECORRUPT,
 * PLATTER_EGATE, EBUSY (another program holds it), ENOTSUP (a feature we do not know), or errno.
 */
int platter_open(const char *name, const struct platter_open_options *options,
                 struct platter_disk **ret_disk, struct platter_error *err);

/**
 * Flushes and closes. The disk is gone whatever is returned; an error says that writes may not have
 * become durable, or that dirty bitmaps could not be kept. NULL is fine. No other call may be
 * running on the disk.
 */
int platter_close(struct platter_disk *disk, struct platter_error *err);

/* ---- bytes ----------------------------------------------------------------------------------- */

/** The size of the disk in bytes. */
uint64_t platter_size(const struct platter_disk *disk);

/** The name of the top image's format, a static string. */
const char *platter_format(const struct platter_disk *disk);

/** Bytes that are allocated at once by the top image: cluster or grain size; 512 for raw. */
uint64_t platter_cluster_size(const struct platter_disk *disk);

/** How many images the chain has, top image included. */
unsigned platter_depth(const struct platter_disk *disk);

/**
 * What is doubtful about image `layer` of the chain (0 is the top) although it opened: what a
 * salvage could not find out, a content ID that was ignored, one extent without the rest of its
 * disk. A sentence that belongs to the disk, or NULL.
 */
const char *platter_doubt(const struct platter_disk *disk, unsigned layer);

/**
 * Reads `length` bytes at guest offset `offset`: all of them or an error; never past the end.
 */
int platter_pread(struct platter_disk *disk, void *buffer, size_t length, uint64_t offset,
                  struct platter_error *err);

/** Writes `length` bytes at guest offset `offset`. Durable after the next platter_flush(). */
int platter_pwrite(struct platter_disk *disk, const void *buffer, size_t length, uint64_t offset,
                   struct platter_error *err);

enum {
    /** platter_zero(): host space may be given back. */
    PLATTER_ZERO_UNMAP = 1u << 0
};

/** Makes a range read as zeros, without writing them where the format knows a way. */
int platter_zero(struct platter_disk *disk, uint64_t offset, uint64_t length, unsigned flags,
                 struct platter_error *err);

/** Tells that the content of a range is not needed. Whole clusters inside it may read as zeros
 * after. */
int platter_discard(struct platter_disk *disk, uint64_t offset, uint64_t length,
                    struct platter_error *err);

/** Makes everything written before this call durable. */
int platter_flush(struct platter_disk *disk, struct platter_error *err);

/* ---- map ------------------------------------------------------------------------------------- */

enum {
    PLATTER_EXTENT_PRESENT = 1u << 0, /**< some image of the chain says what is here */
    PLATTER_EXTENT_ZERO = 1u << 1,    /**< reads as zeros */
    PLATTER_EXTENT_DATA = 1u << 2,    /**< is stored as data */
    PLATTER_EXTENT_PACKED = 1u << 3,  /**< is stored compressed */
    PLATTER_EXTENT_OFFSET = 1u << 4   /**< `host_offset` and `file` are valid */
};

/** One run of the disk that is stored in one way. */
struct platter_extent {
    size_t size;          /**< sizeof(struct platter_extent), set by the caller */
    uint64_t length;      /**< bytes, at least 1, from the offset asked */
    unsigned flags;       /**< PLATTER_EXTENT_* */
    unsigned depth;       /**< which image of the chain decides: 0 is the top */
    uint64_t host_offset; /**< where the bytes stand in `file` */
    const char *file;     /**< the file's name; belongs to the disk */
};

/**
 * Tells how the range at `offset` is stored: fills *extent for the first run, which ends at
 * offset + length at the latest. Call again behind it for the next.
 */
int platter_map(struct platter_disk *disk, uint64_t offset, uint64_t length,
                struct platter_extent *extent, struct platter_error *err);

/* ---- info ------------------------------------------------------------------------------------ */

/**
 * Describes image `layer` of the chain (0 is the top) as a JSON object with the fields of
 * `qemu-img info --output=json`. *ret_json belongs to the caller.
 */
int platter_info(struct platter_disk *disk, unsigned layer, char **ret_json,
                 struct platter_error *err);

/**
 * Lists the views of the file (internal snapshots) as a JSON array of objects with at least "name",
 * "id", "size" (bytes). *ret_json belongs to the caller.
 */
int platter_views(struct platter_disk *disk, char **ret_json, struct platter_error *err);

/** Lists the formats this build knows as a JSON array: "name", "read", "write", "create", options.
 */
int platter_formats(char **ret_json, struct platter_error *err);

/* ---- progress -------------------------------------------------------------------------------- */

/** How far long work has come. */
struct platter_progress {
    size_t size;    /**< sizeof of the library's structure */
    uint64_t done;  /**< bytes of the disk behind us */
    uint64_t total; /**< bytes of the disk */
    uint64_t moved; /**< bytes of data really read or written so far: what a rate is made of */
};

/**
 * Called now and then (about ten times a second at most), never twice at the same time, from a
 * thread of the library's. A non-zero answer cancels the work, which then fails with ECANCELED.
 */
typedef int (*platter_progress_fn)(void *opaque, const struct platter_progress *progress);

/**
 * Removes the new files of this process that are not complete yet. For the handler of a signal that
 * ends the process, and of no use elsewhere: the work itself is left alone. Async-signal-safe.
 */
void platter_remove_unfinished(void);

/** A range that could not be read and was left as zeros. `reason` lives until the return. */
typedef void (*platter_hole_fn)(void *opaque, uint64_t offset, uint64_t length, const char *reason);

/* ---- create ---------------------------------------------------------------------------------- */

enum {
    /** Do not look at the backing file: it may not exist yet. Needs `disk_size`. */
    PLATTER_CREATE_UNSAFE_BACKING = 1u << 0,
    /** Fail with EEXIST instead of replacing a file. */
    PLATTER_CREATE_EXCLUSIVE = 1u << 1
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
     *  machine's state; what they share there they share in the new image. From one qcow2 to a
     *  new one without a backing file. */
    PLATTER_CONVERT_SNAPSHOTS = 1u << 9
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
 * reads as zeros. Fails with EINVAL where the disk would shrink without PLATTER_RESIZE_SHRINK, and
 * with ENOTSUP where the image cannot have that size. Other calls may run; those that reach past
 * the new end fail.
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
};

/**
 * Makes a snapshot of a disk that is open for writing, inside its image, durably. Time goes with
 * the tables, not the data. *ret_id (may be NULL) is its id and belongs to the caller. Fails with
 * ENOTSUP where the image cannot have snapshots, EEXIST where the id is taken, EOVERFLOW where a
 * count in the image is too narrow for one more; nothing has changed then. Other calls wait.
 */
int platter_snapshot_create(struct platter_disk *disk,
                            const struct platter_snapshot_options *options, char **ret_id,
                            struct platter_error *err);

/**
 * Makes the disk what it was when `snapshot` was made, its size as well, durably; what it is now is
 * lost. `flags` tell what `snapshot` is: PLATTER_SNAPSHOT_BY_*. A crash leaves the old disk or the
 * new one. ENOENT: there is no such snapshot.
 */
int platter_snapshot_apply(struct platter_disk *disk, const char *snapshot, unsigned flags,
                           struct platter_error *err);

/** Deletes a snapshot, durably, and gives its space back; the disk stays as it is. */
int platter_snapshot_delete(struct platter_disk *disk, const char *snapshot, unsigned flags,
                            struct platter_error *err);

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
    const char *backing_format;   /**< its format; NULL: the only one there can be, or none named */
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

/** How to amend. */
struct platter_amend_options {
    size_t size;    /**< sizeof(struct platter_amend_options) */
    unsigned flags; /**< 0 */
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

/* ---- keys ------------------------------------------------------------------------------------ */

/** What can be done to the key slots of an image that is encrypted with LUKS. */
enum platter_key_action {
    PLATTER_KEY_ADD = 1,    /**< one more secret opens the image */
    PLATTER_KEY_REMOVE = 2, /**< a secret does not open it any more */
    PLATTER_KEY_CHANGE =
        3 /**< another secret opens it, instead of the one that it is opened with */
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

/* ---- check ----------------------------------------------------------------------------------- */

enum {
    /** Give back space that nothing refers to, once nothing else is wrong. Writes. */
    PLATTER_CHECK_REPAIR_LEAKS = 1u << 0,
    /** Mend all that can be mended; what is lost for good reads as zeros then. Writes. */
    PLATTER_CHECK_REPAIR_ALL = 1u << 1,
    /** Unpack and verify everything that is stored compressed. */
    PLATTER_CHECK_DATA = 1u << 2
};

/** What a finding means. */
enum platter_severity {
    PLATTER_FINDING_NOTE = 0,  /**< unusual, but nothing is wrong */
    PLATTER_FINDING_LEAK = 1,  /**< space is wasted */
    PLATTER_FINDING_ERROR = 2, /**< data is lost or mixed up, or will be by further writes */
    PLATTER_FINDING_UNSEEN = 3 /**< something could not be looked at */
};

/** One thing a check found. `text` lives until the return. */
struct platter_finding {
    size_t size;                    /**< sizeof of the library's structure */
    enum platter_severity severity; /**< how bad it is */
    bool mended;                    /**< it was, by this check */
    bool again;                     /**< of the second look, after a repair */
    const char *text; /**< a sentence: file, offset or field, and what was expected there */
};

/** Receives the findings, from the calling thread or one of the library's, one at a time. */
typedef void (*platter_finding_fn)(void *opaque, const struct platter_finding *finding);

/** How to check. */
struct platter_check_options {
    size_t size;    /**< sizeof(struct platter_check_options) */
    unsigned flags; /**< PLATTER_CHECK_* */
    /** How the image is opened, or NULL: as platter_open() does, but for writing where something is
     *  to be repaired. PLATTER_OPEN_WRITE, QUERY and SALVAGE and a view are not for a check. */
    const struct platter_open_options *open;
    unsigned workers;             /**< threads for PLATTER_CHECK_DATA; 0: as many as help */
    platter_finding_fn finding;   /**< NULL, or receives what is found */
    platter_progress_fn progress; /**< NULL or progress and cancel */
    void *opaque;                 /**< for both */
};

/** What a check says of an image: the numbers of `qemu-img check --output=json`. */
struct platter_check_result {
    size_t size;        /**< sizeof(struct platter_check_result), set by the caller */
    const char *format; /**< of the image, a static string; NULL: it was not even recognised */
    uint64_t image_end_offset;    /**< where the part of the file ends that is in use; 0: unknown */
    uint64_t total_clusters;      /**< allocation units the disk has; 0: has none */
    uint64_t allocated_clusters;  /**< ... that are stored */
    uint64_t fragmented_clusters; /**< ... that do not follow the one before in the file */
    uint64_t compressed_clusters; /**< ... that are compressed */
    uint64_t check_errors;        /**< findings of what could not be looked at */
    uint64_t corruptions;         /**< errors that are there now */
    uint64_t leaks;               /**< units that are wasted now */
    uint64_t corruptions_fixed;   /**< errors that were mended */
    uint64_t leaks_fixed;         /**< wasted units that were given back */
};

/**
 * Looks whether an image makes sense, as far as it can: also one that platter_open() refuses. Data
 * that is not compressed has no checksum and is not read. Nothing is written without one of the
 * REPAIR flags; after a repair the image is checked a second time, and *result is what that found,
 * with the numbers of what was mended.
 *
 * Returns 0 when the check came to its end, whatever it found. -ENOTSUP with result->format set:
 * images of that format cannot be checked.
 */
int platter_check(const char *name, const struct platter_check_options *options,
                  struct platter_check_result *result, struct platter_error *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
