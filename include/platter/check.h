/* SPDX-License-Identifier: MIT */
/* Judging and mending images. Included by <platter/platter.h>, which has the
 * conventions. */
#ifndef PLATTER_CHECK_H
#define PLATTER_CHECK_H

#include "disk.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

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
