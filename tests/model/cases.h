/* SPDX-License-Identifier: MIT */
/* The images the model test runs on: every format, cluster size, width and kind of backing file. */
#ifndef MODEL_CASES_H
#define MODEL_CASES_H

#include <platter/platter.h>

#include "support/esx.h"
#include "support/ledger.h"
#include "support/prng.h"

struct model_case {
    const char *name;
    const char *format;
    const char *options;   /* for platter_create() */
    uint64_t size;         /* guest bytes */
    uint64_t cluster;      /* allocation unit */
    const char *backing;   /* format of the backing file; NULL: none */
    uint64_t backing_size; /* guest bytes of it */
    bool packed; /* the backing file's clusters are compressed; without one: the image's own */
    uint64_t memory_limit; /* 0: the default */
    enum esx_kind esx;     /* the image is a descriptor, and beside it this: case_data() */
    uint32_t grain;        /* COWD: in sectors */
    uint64_t piece;        /* guest bytes: the image is extents of that length, each third flat */
    const char *key;       /* qcow: encrypted with this passphrase; NULL: not */
    unsigned cluster_bits, l2_bits; /* qcow: others than new images have; 0: those */
    /* Pieces end inside of a grain: qemu-img takes the rest of that grain for the beginning of the
     * next piece, so it cannot say what the disk holds. */
    bool askew;
};

/* Ends with .name = NULL. */
extern const struct model_case model_cases[];

/* Makes the image (and its backing file beside it); flat is what its disk holds. */
void case_make(const struct model_case *of, const char *path, uint8_t *flat);
/* Tells the key of a case, which is `opaque`: a platter_secret_fn. */
int case_key(void *opaque, const struct platter_secret *question, uint8_t *ret, size_t *ret_len);

/* The nth file with tables; the caller frees the name. NULL: there are no more. */
char *case_data(const struct model_case *of, const char *path, unsigned n);

#endif
