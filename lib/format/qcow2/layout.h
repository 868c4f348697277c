/* SPDX-License-Identifier: MIT */
/* Where everything stands in a new image, computed before a byte is written. */
#ifndef QCOW2_LAYOUT_H
#define QCOW2_LAYOUT_H

#include "format/luks1.h"
#include "format/qcow2/qcow2.h"

enum preallocation {
    PREALLOCATION_OFF,
    PREALLOCATION_METADATA, /* all clusters have a place */
    PREALLOCATION_FALLOC,   /* which the file system has reserved */
    PREALLOCATION_FULL      /* and which is written with zeros */
};

/* What the options of a creation say. */
struct qcow2_choice {
    uint32_t version, cluster_bits, refcount_order;
    bool lazy, extended, zstd;
    const char *data_file; /* name of an external data file, or NULL; the options' */
    bool data_raw;         /* which is to be the disk as it is */
    bool sealed;           /* encrypted, as `luks` says */
    struct luks1_choice luks;
    enum preallocation preallocation;
};

int qcow2_choose(const struct option_values *options, struct qcow2_choice *ret,
                 struct platter_error *err);

/* Sizes of the parts, which follow each other in this order behind the header's cluster; in
 * clusters. */
struct qcow2_layout {
    uint64_t cluster_size;
    uint64_t reftable, blocks, l1, luks, l2;
    uint64_t data; /* clusters that have a place, in the data file if there is one */
    uint64_t l1_entries;
    uint64_t total; /* the header's one included */
};

int qcow2_layout_compute(const struct qcow2_choice *choice, uint64_t size, const char *name,
                         struct qcow2_layout *ret, struct platter_error *err);

#endif
