/* SPDX-License-Identifier: MIT */
/*
 * The SHA-256 tree of docs/digest.md, version 1: leaves of 64 KiB, 256 children a node, and a root
 * over version, size and top node. No I/O and no threads here: the caller hashes leaves and the
 * nodes above them where it likes, and adds those nodes in order.
 */
#ifndef OPS_TREE_H
#define OPS_TREE_H

#include <stddef.h>
#include <stdint.h>

enum {
    TREE_HASH = 32,
    TREE_LEAF = 64 << 10, /* bytes of the disk in a leaf, the last one filled up with zeros */
    TREE_FANOUT = 256,
    TREE_NODE = TREE_LEAF * TREE_FANOUT, /* bytes below a node of level 1 */
    TREE_MAX_HEIGHT = 6                  /* 64 KiB * 256^6 = 2^64 bytes */
};

typedef uint8_t tree_hash[TREE_HASH];

struct tree {
    uint64_t size;                       /* of the disk, bytes */
    unsigned height;                     /* level of the top node */
    tree_hash zero[TREE_MAX_HEIGHT + 1]; /* of a subtree of zeros, by level; 0 is a leaf */
    /* What still waits for its parent: nodes of level i + 1. */
    tree_hash waiting[TREE_MAX_HEIGHT][TREE_FANOUT];
    unsigned n_waiting[TREE_MAX_HEIGHT];
};

/* Large: keep it on the heap. Fills all of t. */
void tree_init(struct tree *t, uint64_t size);

/* Another size, where it is known only now; before tree_root(). */
void tree_set_size(struct tree *t, uint64_t size);

/* The hash of a leaf; thread-safe. Zeros cost a look only. */
void tree_leaf(const struct tree *t, const uint8_t bytes[TREE_LEAF], tree_hash ret);

/* The hash of a node of `level` (1 and up) over its children; thread-safe. */
void tree_node(unsigned level, const tree_hash children[TREE_FANOUT], tree_hash ret);

/* Adds the next node of level 1, and the next n that have only zeros below them. */
void tree_add(struct tree *t, const tree_hash node);
void tree_add_zeros(struct tree *t, uint64_t n);

/* The digest, when all nodes of the disk were added: exactly ceil(size / TREE_NODE). */
void tree_root(struct tree *t, tree_hash ret);

#endif
