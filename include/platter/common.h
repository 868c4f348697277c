/* SPDX-License-Identifier: MIT */
/* What all of platter's API uses: errors, the gate, secrets, progress. Included by
 * <platter/platter.h>, which has the conventions. */
#ifndef PLATTER_COMMON_H
#define PLATTER_COMMON_H

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
    PLATTER_NAME_EXTENT = 3,    /**< an extent of a VMDK */
    PLATTER_NAME_INDEX = 4      /**< the index of an archive, NAME.index beside it, which is only
                                     asked for: nothing in an archive names it */
};

/** One question to the gate. All strings belong to the library and live until the answer. */
struct platter_name {
    size_t size;                 /**< sizeof of the library's structure */
    enum platter_name_kind kind; /**< what the name is for */
    const char *image;           /**< the image that contains the name, as it was opened */
    const char *name;            /**< the name as it stands in the image */
    const char *path; /**< the local path it means: relative names are resolved against the
                           folder of `image`. Where that is on a server, or the name is a URI, the
                           URI it means ("https://..."). NULL if it is neither (`json:`) */
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

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
