/* SPDX-License-Identifier: MIT */
/* Archives: files of several disks and their configurations, as backups are (Proxmox's VMA). Each
 * disk of one that can be read anywhere is also a view, for platter_open(). Included by
 * <platter/platter.h>, which has the conventions. */
#ifndef PLATTER_ARCHIVE_H
#define PLATTER_ARCHIVE_H

#include "disk.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* ---- open ------------------------------------------------------------------------------------ */

/** An archive that is read once, front to back, whatever it comes from. Opaque. */
struct platter_archive;

/** What kind of fault a part of an archive has. */
enum platter_fault_kind {
    PLATTER_FAULT_HEADER = 0,     /**< of the archive: its beginning is damaged */
    PLATTER_FAULT_EXTENT = 1,     /**< the header of a part of it: magic, checksum, uuid, counts */
    PLATTER_FAULT_TRUNCATED = 2,  /**< the archive ends inside of something */
    PLATTER_FAULT_TRAILING = 3,   /**< something follows the end */
    PLATTER_FAULT_LOST = 4,       /**< bytes in which no part of the archive was found */
    PLATTER_FAULT_UNKNOWN = 5,    /**< data of a disk that the archive does not have */
    PLATTER_FAULT_DUPLICATE = 6,  /**< data that was there before */
    PLATTER_FAULT_BEYOND = 7,     /**< data behind the end of its disk */
    PLATTER_FAULT_ORDER = 8,      /**< the state of the machine does not come in order */
    PLATTER_FAULT_MISSING = 9,    /**< a range of a disk is not there */
    PLATTER_FAULT_DIGEST = 10,    /**< a range is there, but its digest says that it is damaged */
    PLATTER_FAULT_WRAPPER = 11,   /**< the compressed file around the archive is damaged */
    PLATTER_FAULT_NOTE = 12,      /**< unusual, but understood: nothing is wrong */
    PLATTER_FAULT_DOUBT = 13,     /**< a range is there, and used, but may be damaged */
    PLATTER_FAULT_UNREADABLE = 14 /**< the disk that the archive is on does not give these bytes */
};

/** One thing that is wrong with an archive. Strings live until the return. */
struct platter_fault {
    size_t size;                  /**< sizeof of the library's structure */
    enum platter_fault_kind kind; /**< which */
    uint64_t archive_offset;      /**< bytes into the archive as it is unpacked */
    const char *disk;             /**< the disk that it is about, or NULL */
    uint64_t offset, length;      /**< the range of that disk, bytes */
    const char *text; /**< a sentence: file, offset, disk, cluster, what was expected there */
    uint64_t archive_length; /**< how many bytes of the archive from there on; 0: not known */
};

/** Receives faults, from the calling thread or one of the library's, one at a time. */
typedef void (*platter_fault_fn)(void *opaque, const struct platter_fault *fault);

enum {
    /** Go on after damage, and after what cannot be read: find what is sound behind it, and the
     *  disks without the beginning. */
    PLATTER_ARCHIVE_SALVAGE = 1u << 0
};

/** How to open an archive. */
struct platter_archive_options {
    size_t size;            /**< sizeof(struct platter_archive_options) */
    unsigned flags;         /**< PLATTER_ARCHIVE_* */
    const char *format;     /**< "vma", or NULL: by content */
    const char *uuid;       /**< SALVAGE: of an archive whose beginning is lost; NULL: find out */
    uint64_t memory_limit;  /**< most bytes of tables and buffers; 0: 64 MiB */
    platter_fault_fn fault; /**< NULL, or receives what is wrong, from now until the close */
    void *opaque;           /**< for it */
    const char *place;      /**< more about where it is, as in platter_open_options; or NULL */
};

/**
 * Opens an archive and reads its beginning. `name` is a path, of a file, a FIFO or the like, a URI,
 * a source-spec, or "-" for standard input; it may be compressed (zstd, gzip, lzop, bzip2, xz:
 * found by content). On success *ret_archive must be given to platter_archive_close(). It can be
 * described and its configurations be read at any time; it can be extracted or verified once. No
 * two calls at once.
 */
int platter_archive_open(const char *name, const struct platter_archive_options *options,
                         struct platter_archive **ret_archive, struct platter_error *err);

/** Closes. NULL is fine. */
void platter_archive_close(struct platter_archive *archive);

/**
 * Describes the archive as a JSON object: "filename", "format", "compression" (null, or the name of
 * one), "uuid", "ctime" (seconds since 1970), "configs" (objects with "name", "size") and "devices"
 * (by ascending "id", with "name", "size", "vmstate"). *ret_json belongs to the caller.
 */
int platter_archive_info(struct platter_archive *archive, char **ret_json,
                         struct platter_error *err);

/** A disk of an archive. */
struct platter_archive_device {
    size_t size;      /**< sizeof(struct platter_archive_device), set by the caller */
    const char *name; /**< any bytes but NUL; they belong to the archive */
    uint64_t length;  /**< bytes; of a state only a guess */
    unsigned id;      /**< as the archive numbers it */
    bool state;       /**< of a machine's memory */
    bool unsized;     /**< salvaged, and as long as what comes of it; length is 0 */
};

/** The disk number `index` in the order of platter_archive_info(). ENOENT: there is none of that
 *  number. */
int platter_archive_device(struct platter_archive *archive, unsigned index,
                           struct platter_archive_device *device, struct platter_error *err);

/**
 * The content of the configuration number `index` in the order of platter_archive_info(); the bytes
 * belong to the archive. ENOENT: there is none of that number.
 */
int platter_archive_config(struct platter_archive *archive, unsigned index, const char **ret_name,
                           const void **ret_bytes, size_t *ret_length, struct platter_error *err);

/**
 * Writes the configuration number `index` to a new file in `folder` (which exists), under its own
 * name. EINVAL where that name is not safe as the name of a file; EEXIST where there is one:
 * nothing is ever replaced, and no link followed. `flags`: PLATTER_EXTRACT_UNSAFE.
 */
int platter_archive_save_config(struct platter_archive *archive, unsigned index, const char *folder,
                                unsigned flags, struct platter_error *err);

/** Whether a name out of an archive is fit to be a file name as it is: not empty, no dots alone, no
 *  slash, backslash or control character, at most `room` bytes. */
bool platter_archive_name_is_safe(const char *name, size_t room);

/* ---- extract --------------------------------------------------------------------------------- */

enum {
    /** The target is there, at least as large as the disk: write into it, keep its size. */
    PLATTER_EXTRACT_EXISTING = 1u << 0,
    PLATTER_EXTRACT_WRITE_ZEROS = 1u << 1, /**< an existing target may not read as zeros */
    PLATTER_EXTRACT_COMPRESS = 1u << 2,    /**< compress what the format can compress */
    PLATTER_EXTRACT_EXCLUSIVE = 1u << 3,   /**< fail where the target exists, be it as a link */
    PLATTER_EXTRACT_FITTING = 1u << 4      /**< an existing target is at most 4 MiB too large */
};

/** Where one disk of an archive goes. */
struct platter_extract_target {
    size_t size;            /**< sizeof(struct platter_extract_target) */
    const char *disk;       /**< its name in the archive */
    const char *target;     /**< a path */
    unsigned flags;         /**< PLATTER_EXTRACT_* */
    const char *format;     /**< of the target. NULL: raw for a new one, and for one that is there
                                 if it is in /dev or its name ends in .raw, else found out. The
                                 state of a machine is written raw, to a new file */
    const char *options;    /**< creation options, as in platter_create() */
    uint64_t rate;          /**< most bytes a second; 0: no limit */
    const char *rate_group; /**< targets with the same one share the limit; NULL: its own */
};

enum {
    PLATTER_EXTRACT_UNSAFE = 1u << 0 /**< do not wait until the targets are durable */
};

/** How to extract. */
struct platter_extract_options {
    size_t size;    /**< sizeof(struct platter_extract_options) */
    unsigned flags; /**< PLATTER_EXTRACT_UNSAFE */
    const struct platter_extract_target *const *targets; /**< at most one for each disk */
    size_t n_targets;             /**< ... and how many; others are passed over */
    unsigned workers;             /**< threads at work; 0: as many as help */
    platter_progress_fn progress; /**< NULL or progress and cancel; bytes of the wanted disks */
    void *opaque;                 /**< for it */
    platter_secret_fn secret; /**< as in platter_create_options, of targets that are encrypted */
    void *secret_opaque;      /**< passed to `secret` */
    const char *target_place; /**< more about where targets are, as in platter_create_options */
    /** Folder for temporary copies of disks whose targets are written front to back or compressed;
     *  NULL: beside a target that is a file. */
    const char *spool;
};

/**
 * Extracts disks. New targets appear under their names only when all of them are complete and
 * durable. All clusters of a wanted disk have to be there, once; otherwise it fails, unless the
 * archive was opened to be salvaged: then what is there is written, the rest is left as zeros and
 * told as a fault of kind MISSING, and *ret_holes (may be NULL) is the number of those. All is well
 * only where no fault but notes was told.
 */
int platter_archive_extract(struct platter_archive *archive,
                            const struct platter_extract_options *options, uint64_t *ret_holes,
                            struct platter_error *err);

/* ---- verify ---------------------------------------------------------------------------------- */

enum {
    /** Read the data as well, though there is no digest of it (of a compressed archive it always
     *  is). */
    PLATTER_VERIFY_DATA = 1u << 0
};

/** How to verify. */
struct platter_verify_options {
    size_t size;                  /**< sizeof(struct platter_verify_options) */
    unsigned flags;               /**< PLATTER_VERIFY_* */
    const char *digest;           /**< path of a file of digests, or NULL: that in the archive */
    unsigned workers;             /**< threads at work; 0: as many as help */
    platter_progress_fn progress; /**< NULL or progress and cancel; bytes of the disks */
    void *opaque;                 /**< for it */
};

/** What a verification found. */
struct platter_verification {
    size_t size;       /**< sizeof(struct platter_verification), set by the caller */
    uint64_t faults;   /**< how many were told, notes aside */
    uint64_t extents;  /**< sound parts that were read */
    uint64_t clusters; /**< clusters that are there */
    uint64_t missing;  /**< bytes of disks that are not */
    bool digests;      /**< digests of the data were there, and compared */
};

/**
 * Verifies all of an archive: every header and checksum, that each cluster of each disk is there
 * exactly once, the checksums of the compression around it, and the data against digests where
 * there are some. 0 when it came to its end, whatever it found (verification->faults).
 */
int platter_archive_verify(struct platter_archive *archive,
                           const struct platter_verify_options *options,
                           struct platter_verification *verification, struct platter_error *err);

/* ---- create ---------------------------------------------------------------------------------- */

/** A disk for a new archive. */
struct platter_archive_source {
    size_t size;               /**< sizeof(struct platter_archive_source) */
    const char *name;          /**< in the archive */
    struct platter_disk *disk; /**< open for reading; stays the caller's */
    bool state;                /**< the state of a machine: its name is "vmstate" */
};

/** A configuration for a new archive. */
struct platter_archive_file {
    size_t size;       /**< sizeof(struct platter_archive_file) */
    const char *name;  /**< in the archive */
    const void *bytes; /**< content */
    size_t length;     /**< of it; at most 65535 */
};

enum {
    /** The same disks and configurations give the same bytes: uuid and date, where they are not
     *  given, follow from names and sizes, so that archives of the same machine have much in
     *  common. */
    PLATTER_ARCHIVE_REPRODUCIBLE = 1u << 0,
    PLATTER_ARCHIVE_EMBED_DIGEST = 1u << 1, /**< digests of the data as a configuration of it */
    PLATTER_ARCHIVE_EXCLUSIVE = 1u << 2,    /**< fail where the target exists */
    PLATTER_ARCHIVE_TO_FD = 1u << 3,        /**< write to `fd`, front to back */
    PLATTER_ARCHIVE_UNSAFE = 1u << 4        /**< do not wait until it is durable */
};

/** What to create. */
struct platter_archive_plan {
    size_t size;             /**< sizeof(struct platter_archive_plan) */
    unsigned flags;          /**< PLATTER_ARCHIVE_REPRODUCIBLE and those behind it */
    const char *format;      /**< NULL is "vma" */
    const char *compression; /**< "zstd", "gzip", or NULL: none */
    int level;               /**< of it; 0: the usual one */
    const struct platter_archive_source *const *disks; /**< in the order they are to have */
    size_t n_disks;                                    /**< ... and how many */
    const struct platter_archive_file *const *files;   /**< configurations */
    size_t n_files;                                    /**< ... and how many */
    bool has_uuid;                /**< false: a random one, or one that follows from the rest */
    uint8_t uuid[16];             /**< of the archive */
    bool has_ctime;               /**< false: now, or (reproducible) SOURCE_DATE_EPOCH, or 0 */
    int64_t ctime;                /**< when the backup began, seconds since 1970 */
    const char *digest;           /**< path of a new file with digests of the data, or NULL: none */
    unsigned workers;             /**< threads at work; 0: as many as help */
    uint64_t memory_limit;        /**< most bytes of buffers; 0: 64 MiB */
    uint64_t rate;                /**< most bytes a second that are read; 0: no limit */
    int fd;                       /**< with PLATTER_ARCHIVE_TO_FD; stays the caller's */
    platter_progress_fn progress; /**< NULL or progress and cancel; bytes of all disks */
    void *opaque;                 /**< for it */
    const char *target_place;     /**< more about where it goes, and `digest`, or NULL */
};

/** What became of one disk of a new archive. */
struct platter_archived {
    size_t size;     /**< sizeof(struct platter_archived), set by the caller in the first */
    uint64_t length; /**< bytes of the disk */
    uint64_t zeros;  /**< ... that are zeros and not stored */
};

/**
 * Writes a new archive of disks and configurations. A new file appears under its name only when it
 * is complete and durable. *ret_archived (may be NULL) is an array of one for each disk.
 */
int platter_archive_create(const char *target, const struct platter_archive_plan *plan,
                           struct platter_archived *ret_archived, struct platter_error *err);

/* ---- repack ---------------------------------------------------------------------------------- */

/** How to repack. */
struct platter_repack_options {
    size_t size;                  /**< sizeof(struct platter_repack_options) */
    unsigned flags;               /**< PLATTER_ARCHIVE_EXCLUSIVE, _TO_FD, _UNSAFE */
    const char *compression;      /**< "zstd", "gzip"; NULL is "zstd" */
    int level;                    /**< of it; 0: the usual one */
    unsigned workers;             /**< threads at work; 0: as many as help */
    uint64_t memory_limit;        /**< most bytes of buffers; 0: 64 MiB */
    int fd;                       /**< with PLATTER_ARCHIVE_TO_FD; stays the caller's */
    platter_progress_fn progress; /**< NULL or progress and cancel */
    void *opaque;                 /**< for it */
    const char *place;            /**< more about where the source is, or NULL */
    const char *target_place;     /**< ... and where the new one goes, or NULL */
};

/**
 * Writes the file `name` ("-": standard input), unpacked if it is compressed, again, compressed so
 * that it can be read at any place afterwards: zstd in several frames with a table of them, which
 * any program that knows zstd reads as well.
 */
int platter_archive_repack(const char *name, const char *target,
                           const struct platter_repack_options *options, struct platter_error *err);

/* ---- index ----------------------------------------------------------------------------------- */

/**
 * Writes the index of an archive that is not compressed to `index` (NULL: beside it, NAME.index),
 * which makes it open at once. It is checked against the archive before use, and not used where
 * they differ.
 */
int platter_archive_index(const char *name, const char *index, struct platter_error *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
