/* SPDX-License-Identifier: MIT */
/*
 * Digests of disks as text that is kept beside an archive, or in it: the tree digest of each disk
 * and the nodes over its 16 MiB pieces (docs/digest.md), in JSON:
 *
 *   {"platter-digest": 1, "disks": [{"name": "drive-scsi0", "size": 66048, "digest": "<64 hex>",
 *    "nodes": "<base64 of all nodes, 32 bytes each>"}]}
 *
 * The length of the text follows from names and sizes alone, so that room for it can be left.
 */
#ifndef OPS_DIGEST_FILE_H
#define OPS_DIGEST_FILE_H

#include "base/error.h"
#include "ops/tree.h"

#define DIGEST_CONFIG                                                                              \
    "platter.digest" /* in an archive; what is too long for one goes on in .1, .2 */
#define DIGEST_SUFFIX ".platter.digest" /* of the file beside an archive */

struct disk_digest {
    char *name;
    uint64_t size;
    tree_hash root;
    tree_hash *nodes; /* over each TREE_NODE bytes */
    uint64_t n_nodes; /* div_up(size, TREE_NODE) */
};

struct digest_file {
    struct disk_digest *disks;
    unsigned n;
};

/* `what` names the text in sentences. Everything is checked: lengths, counts, that the nodes give
 * the root. */
int digest_file_parse(const char *what, const char *text, size_t len, struct digest_file *ret,
                      struct platter_error *err);
/* *ret_text is the caller's to free. */
int digest_file_print(const struct digest_file *d, char **ret_text, size_t *ret_len,
                      struct platter_error *err);
void digest_file_free(struct digest_file *d);

#endif
