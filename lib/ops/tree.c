/* SPDX-License-Identifier: MIT */
/*
 * The SHA-256 tree. Every input of the hash starts with a byte that says what it is (the level, or
 * the first letter of the version for the root), so no leaf can be passed off as a node.
 *
 * Invariant: below the top, fewer than 256 nodes of a level wait; the 256th makes the parent at
 * once.
 */
#include "ops/tree.h"

#include <nettle/sha2.h>
#include <string.h>

#include "base/ckd.h"
#include "base/cursor.h"
#include "base/memory.h"

static const char version[] = "platter tree digest 1\n";

static void hash(uint8_t level, const void *bytes, size_t len, tree_hash ret)
{
    struct sha256_ctx ctx;
    sha256_init(&ctx);
    sha256_update(&ctx, 1, &level);
    sha256_update(&ctx, len, bytes);
    sha256_digest(&ctx, TREE_HASH, ret);
}

void tree_leaf(const struct tree *t, const uint8_t bytes[TREE_LEAF], tree_hash ret)
{
    if (is_zero(bytes, TREE_LEAF))
        memcpy(ret, t->zero[0], TREE_HASH);
    else
        hash(0, bytes, TREE_LEAF, ret);
}

void tree_node(unsigned level, const tree_hash children[TREE_FANOUT], tree_hash ret)
{
    hash((uint8_t)level, children, (size_t)TREE_FANOUT * TREE_HASH, ret);
}

/* The least level, from 1 on, whose node covers `size` bytes. */
static unsigned height_of(uint64_t size)
{
    unsigned height = 1;
    for (uint64_t nodes = div_up(size, TREE_NODE); nodes > 1; nodes = div_up(nodes, TREE_FANOUT))
        height++;
    return height;
}

/* A larger disk only has more levels above those of a smaller one. */
void tree_set_size(struct tree *t, uint64_t size)
{
    t->size = size;
    t->height = height_of(size);
}

void tree_init(struct tree *t, uint64_t size)
{
    memset(t, 0, sizeof *t);
    tree_set_size(t, size);
    static uint8_t zeros[TREE_LEAF]; /* not const, so that it takes no room in the file */
    hash(0, zeros, TREE_LEAF, t->zero[0]);
    tree_hash children[TREE_FANOUT];
    for (unsigned level = 1; level <= TREE_MAX_HEIGHT; level++) {
        for (unsigned i = 0; i < TREE_FANOUT; i++)
            memcpy(children[i], t->zero[level - 1], TREE_HASH);
        tree_node(level, children, t->zero[level]);
    }
}

/* Adds the next node of `level`, and the parents that become complete by it. */
static void add(struct tree *t, unsigned level, const tree_hash node)
{
    tree_hash parent;
    for (; level <= t->height; level++) {
        unsigned *n = &t->n_waiting[level - 1];
        memcpy(t->waiting[level - 1][(*n)++], node, TREE_HASH);
        if (*n < TREE_FANOUT)
            return;
        *n = 0;
        tree_node(level + 1, t->waiting[level - 1], parent);
        node = parent;
    }
}

void tree_add(struct tree *t, const tree_hash node)
{
    add(t, 1, node);
}

/* n zero nodes of `level`: one by one up to the next parent, then whole parents at once. */
static void add_zeros(struct tree *t, unsigned level, uint64_t n)
{
    for (; n > 0 && t->n_waiting[level - 1] != 0; n--)
        add(t, level, t->zero[level]);
    if (n >= TREE_FANOUT)
        add_zeros(t, level + 1, n / TREE_FANOUT);
    for (n %= TREE_FANOUT; n > 0; n--)
        add(t, level, t->zero[level]);
}

void tree_add_zeros(struct tree *t, uint64_t n)
{
    add_zeros(t, 1, n);
}

void tree_root(struct tree *t, tree_hash ret)
{
    if (t->size == 0)
        tree_add_zeros(t, 1);
    for (unsigned level = 1; level < t->height; level++)
        while (t->n_waiting[level - 1] != 0)
            add(t, level, t->zero[level]);
    uint8_t bytes[sizeof version - 1 + 8 + TREE_HASH];
    struct writer w = writer_over(bytes, sizeof bytes);
    write_bytes(&w, version, sizeof version - 1);
    write_le64(&w, t->size);
    write_bytes(&w, t->waiting[t->height - 1][0], TREE_HASH);
    struct sha256_ctx ctx;
    sha256_init(&ctx);
    sha256_update(&ctx, sizeof bytes, bytes);
    sha256_digest(&ctx, TREE_HASH, ret);
}
