/* SPDX-License-Identifier: MIT */
/* Leaves come in order through append(); whatever is left out, or told to be zeros, is zeros. */
#include "ops/digest_tap.h"

#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/memory.h"

enum { HEAD = 64 /* before what the other writer packs: the leaf, and room to align */ };

struct tap {
    struct image_writer w;
    struct image_writer *inner;
    struct disk_digest *digest;
    struct tree *tree;
    tree_hash leaves[TREE_FANOUT]; /* of the node that is being filled */
    uint64_t next;                 /* the leaf that comes next */
};

static struct tap *tap_of(struct image_writer *w)
{
    return (struct tap *)w;
}

/* ---- leaves ------------------------------------------------------------------------------------
 */

static void add_leaf(struct tap *t, const tree_hash leaf)
{
    memcpy(t->leaves[t->next++ % TREE_FANOUT], leaf, TREE_HASH);
    if (t->next % TREE_FANOUT != 0)
        return;
    uint8_t *node = t->digest->nodes[t->next / TREE_FANOUT - 1];
    tree_node(1, t->leaves, node);
    tree_add(t->tree, node);
}

/* Zeros up to the leaf `end`: whole nodes of them are not hashed. */
static void add_zeros(struct tap *t, uint64_t end)
{
    while (t->next < end) {
        uint64_t nodes = t->next % TREE_FANOUT == 0 ? (end - t->next) / TREE_FANOUT : 0;
        for (uint64_t i = 0; i < nodes; i++)
            memcpy(t->digest->nodes[t->next / TREE_FANOUT + i], t->tree->zero[1], TREE_HASH);
        tree_add_zeros(t->tree, nodes);
        t->next += nodes * TREE_FANOUT;
        if (nodes == 0)
            add_leaf(t, t->tree->zero[0]);
    }
}

/* ---- the writer --------------------------------------------------------------------------------
 */

static size_t tap_bound(const struct image_writer *w)
{
    const struct image_writer *inner = ((const struct tap *)w)->inner;
    return HEAD + inner->ops->encode_bound(inner);
}

static int tap_encode(struct image_writer *w, goff off, const void *data, size_t len, void *out,
                      size_t *ret_len, struct platter_error *err)
{
    const struct tap *t = tap_of(w);
    auto_free uint8_t *whole = NULL;
    const uint8_t *leaf = data;
    if (len < TREE_LEAF) {
        whole = calloc(1, TREE_LEAF);
        if (!whole)
            return fail_memory(err, "a digest");
        leaf = memcpy(whole, data, len);
    }
    tree_leaf(t->tree, leaf, out);
    int r = t->inner->ops->encode(t->inner, off, data, len, (uint8_t *)out + HEAD, ret_len, err);
    *ret_len += HEAD;
    return r;
}

static int tap_append(struct image_writer *w, goff off, size_t len, const void *packed,
                      size_t packed_len, struct platter_error *err)
{
    struct tap *t = tap_of(w);
    if (off / TREE_LEAF < t->next || !range_inside(off, len, t->digest->size))
        return fail(err, EINVAL, "guest offset %" PRIu64 " cannot be digested behind %" PRIu64, off,
                    t->next * TREE_LEAF);
    add_zeros(t, off / TREE_LEAF);
    add_leaf(t, packed);
    return t->inner->ops->append(t->inner, off, len, (const uint8_t *)packed + HEAD,
                                 packed_len - HEAD, err);
}

static int tap_zeros(struct image_writer *w, goff off, uint64_t len, struct platter_error *err)
{
    const struct tap *t = tap_of(w);
    return t->inner->ops->zeros ? t->inner->ops->zeros(t->inner, off, len, err) : 0;
}

static int tap_finish(struct image_writer *w, struct platter_error *err)
{
    struct tap *t = tap_of(w);
    add_zeros(t, t->digest->n_nodes * TREE_FANOUT);
    tree_root(t->tree, t->digest->root);
    int r = t->inner->ops->finish(t->inner, err);
    w->zeros = t->inner->zeros;
    return r;
}

static void tap_close(struct image_writer *w)
{
    struct tap *t = tap_of(w);
    t->inner->ops->close(t->inner);
    free(t->tree);
    free(t);
}

static const struct writer_ops tap_ops = {
    .encode_bound = tap_bound,
    .encode = tap_encode,
    .append = tap_append,
    .zeros = tap_zeros,
    .finish = tap_finish,
    .close = tap_close,
};

int digest_tap_open(struct image_writer *w, struct disk_digest *digest, struct image_writer **ret,
                    struct platter_error *err)
{
    struct tap *t = calloc(1, sizeof *t);
    struct tree *tree = malloc(sizeof *tree);
    if (!t || !tree || w->unit != TREE_LEAF) {
        free(t);
        free(tree);
        bool fits = w->unit == TREE_LEAF;
        w->ops->close(w);
        return fits ? fail_memory(err, "a digest")
                    : fail(err, EINVAL, "what is written in such units cannot be digested");
    }
    *t = (struct tap){
        .w = {.ops = &tap_ops, .unit = TREE_LEAF}, .inner = w, .digest = digest, .tree = tree};
    tree_init(tree, digest->size);
    *ret = &t->w;
    return 0;
}
