/* SPDX-License-Identifier: MIT */
/* Disks: open, read, write, map, info. Included by <platter/platter.h>, which has the conventions.
 */
#ifndef PLATTER_DISK_H
#define PLATTER_DISK_H

#include "common.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

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
    PLATTER_OPEN_IGNORE_CID = 1u << 8,
    /** The disk will be read once, by platter_convert(), platter_digest() or platter_compare(), so
     *  a raw disk that can only be read front to back (a pipe) will do, however long it is. Where
     *  its size is not known before its end platter_size() is 2^62 until then. */
    PLATTER_OPEN_IN_ORDER = 1u << 9
};

/** How to open a disk. All zero but `size` is: read-only, format found by content, safe gate. */
struct platter_open_options {
    size_t size;        /**< sizeof(struct platter_open_options) */
    unsigned flags;     /**< PLATTER_OPEN_* */
    const char *format; /**< "raw", "qcow", "qcow2", "vmdk", or NULL: by content, never raw */
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
    /** Folder for a temporary unpacked copy of a compressed file that cannot be read at any place
     *  otherwise; NULL: none is made, and such a file does not open. */
    const char *spool;
    /** Formats of backing files whose image does not name them, divided by commas, top first; the
     *  last is for all that follow. NULL: such backing files do not open (but see
     *  PLATTER_OPEN_PROBE_BACKING). */
    const char *backing_format;
    /** NULL or progress and cancel of what has to go through all of a compressed file before it can
     *  be read at any place; bytes are those of the file. */
    platter_progress_fn progress;
    void *progress_opaque; /**< passed to `progress` */
    /** More about where the disk is: "key=value,key=value" with the keys that platter_places()
     * lists for its kind; commas in values are doubled. What only other kinds of places know is
     * passed over. NULL: nothing. */
    const char *place;
};

/**
 * Opens a disk with all its backing files. `name` is a path, a URI (platter_places()), "-" for
 * standard input, or a source-spec: Ceph's JSON, "json:{...}", "{...}" or "json:FILE", with "@VIEW"
 * behind where a view is meant. The chain is fixed at open. On success
 * *ret_disk must be given to platter_close(). Fails with PLATTER_ENOFORMAT, PLATTER_ECORRUPT,
 * PLATTER_EGATE, EBUSY (another program holds it), ENOTSUP (a feature we do not know), or errno. A
 * file that is compressed (found by content) opens as what is inside, read-only, unless the format
 * is "raw"; one of gzip is read as a whole for that.
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
    PLATTER_EXTENT_PACKED = 1u << 3,  /**< is stored compressed, or in a compressed file */
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
 * `qemu-img info --output=json`, and "compression" where its file is compressed. *ret_json belongs
 * to the caller.
 */
int platter_info(struct platter_disk *disk, unsigned layer, char **ret_json,
                 struct platter_error *err);

/**
 * Lists the views of the file as a JSON array of objects with at least "name", "id" (a string of a
 * snapshot, a number of a disk in an archive) and "size" (bytes). Internal snapshots have a
 * "vm-state-size". *ret_json belongs to the caller.
 */
int platter_views(struct platter_disk *disk, char **ret_json, struct platter_error *err);

/** Lists the formats this build knows as a JSON array: "name", "read", "write", "create", options;
 *  "in-order": whether some of it can be written front to back, as to a pipe; "header-last":
 *  the same where the beginning can be written again, as of objects of S3; "needs-file": new
 *  images need a place that grows with them, and is no device. */
int platter_formats(char **ret_json, struct platter_error *err);

/**
 * Lists the kinds of places where this build finds disks as a JSON array: "name" (the type of a
 * stream in a source-spec), "prefixes" of its URIs, "read", "write" (of a disk that is there),
 * "create" ("any", "in-order" where only a disk that is written front to back can be made, or
 * null), "extents" (whether it tells of holes), "snapshots", and "keys", as the options of
 * platter_formats().
 */
int platter_places(char **ret_json, struct platter_error *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
