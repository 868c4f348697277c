/* SPDX-License-Identifier: MIT */
/*
 * One value for the bytes a guest sees, whatever the format: the SHA-256 tree of docs/digest.md,
 * and plain SHA-256.
 *
 * The tree: a chunk of the walk is one node of level 1, read and hashed piece by piece, or a run of
 * zeros of whole nodes, which costs nothing. Nodes are folded into the tree in turn(), in order.
 * Plain SHA-256 has no parallel part but reading: chunks are pieces, hashed in turn().
 */
#include <nettle/sha2.h>
#include <string.h>

#include "base/ckd.h"
#include "ops/ops.h"
#include "ops/pieces.h"
#include "ops/tree.h"
#include "ops/walk.h"

enum { CHUNK_ZERO = 1u << 0 }; /* walk_chunk.flags: all zero, by the map */

struct node {
    tree_hash leaves[TREE_FANOUT];
    tree_hash hash;
};

struct digest {
    struct platter_disk *disk;
    const struct platter_digest_options *options;
    struct pieces pieces;
    struct walk *walk;
    goff next; /* where the next chunk starts */
    struct tree *tree;
    struct node *nodes; /* one for each worker */
    struct sha256_ctx plain;
};

static void digest_close(struct digest *d)
{
    pieces_close(&d->pieces);
    free(d->tree);
    free(d->nodes);
}

static int digest_open(struct digest *d, struct platter_error *err)
{
    bool tree = d->options->algorithm == PLATTER_DIGEST_TREE;
    unsigned workers = d->options->workers;
    if (disk_window(d->disk))
        workers = walk_workers_within(walk_workers(workers, disk_requests(d->disk)),
                                      disk_window(d->disk), tree ? TREE_NODE : WALK_CHUNK);
    int r = pieces_open(&d->pieces, &d->disk, 1, workers, err);
    if (r < 0)
        return r;
    d->tree = malloc(sizeof *d->tree);
    d->nodes = calloc(d->pieces.workers, sizeof *d->nodes);
    if (d->tree == NULL || d->nodes == NULL)
        return fail_memory(err, "the nodes of a digest");
    return 0;
}

/* What has no size yet may get it now: the chunk that is next ends where the disk does. */
static int reach(struct digest *d, uint64_t chunk, struct platter_error *err)
{
    bool known;
    int r = disk_reach(d->disk, d->next + chunk, &known, err);
    d->walk->total = disk_size(d->disk);
    return r;
}

/* How many bytes from `off` on the map calls zero. It stops asking once `enough` are. */
static int zero_run(struct platter_disk *disk, goff off, uint64_t enough, uint64_t *ret,
                    struct platter_error *err)
{
    uint64_t size = disk_size(disk);
    struct disk_extent e;
    *ret = 0;
    while (*ret < enough && off < size) {
        int r = disk_map(disk, off, size - off, &e, err);
        if (r == 0)
            r = disk_find_holes(&e, err);
        if (r < 0)
            return r;
        if (e.e.kind != EXTENT_ZERO)
            break;
        *ret += e.e.len;
        off += e.e.len;
    }
    return 0;
}

/* ---- the tree -------------------------------------------------------------------------------- */

static int tree_next(void *opaque, struct walk_chunk *ret, struct platter_error *err)
{
    struct digest *d = opaque;
    int r = reach(d, TREE_NODE, err);
    uint64_t left = disk_size(d->disk) - d->next;
    if (r < 0 || left == 0)
        return r;
    uint64_t zeros;
    r = zero_run(d->disk, d->next, UINT64_MAX, &zeros, err);
    if (r < 0)
        return r;
    if (zeros < left)
        zeros = round_down(zeros, TREE_NODE);
    ret->off = d->next;
    ret->len = zeros > 0 ? zeros : min_u64(left, TREE_NODE);
    ret->flags = zeros > 0 ? CHUNK_ZERO : 0;
    d->next += ret->len;
    return 1;
}

/* Hashes whole leaves from `off` on (the last may reach past the disk): as many as the map calls
 * zero, or as fit in a piece. *ret_leaves says how many; `most` is what is left of the node. */
static int hash_leaves(struct digest *d, unsigned worker, struct walk_chunk *c, goff off,
                       unsigned most, tree_hash *ret, unsigned *ret_leaves,
                       struct platter_error *err)
{
    uint64_t end = c->off + c->len;
    uint64_t zeros;
    int r = zero_run(d->disk, off, TREE_LEAF, &zeros, err);
    if (r < 0)
        return r;
    zeros = off + zeros >= end ? most : zeros / TREE_LEAF;
    *ret_leaves = (unsigned)min_u64(zeros > 0 ? zeros : d->pieces.len / TREE_LEAF, most);
    if (zeros > 0) {
        for (unsigned i = 0; i < *ret_leaves; i++)
            memcpy(ret[i], d->tree->zero[0], TREE_HASH);
        return 0;
    }
    uint8_t *piece = pieces_of(&d->pieces, worker, 0);
    size_t len = (size_t)min_u64((uint64_t)*ret_leaves * TREE_LEAF, end - off);
    r = disk_read(d->disk, piece, len, off, err);
    if (r < 0)
        return r;
    c->moved += len;
    *ret_leaves = (unsigned)div_up(len, TREE_LEAF);
    memset(piece + len, 0, (size_t)*ret_leaves * TREE_LEAF - len);
    for (unsigned i = 0; i < *ret_leaves; i++)
        tree_leaf(d->tree, piece + (size_t)i * TREE_LEAF, ret[i]);
    return 0;
}

static int tree_work(void *opaque, unsigned worker, struct walk_chunk *c, struct platter_error *err)
{
    struct digest *d = opaque;
    struct node *node = &d->nodes[worker];
    if (c->flags & CHUNK_ZERO)
        return 0;
    unsigned done = 0;
    for (unsigned n; done < TREE_FANOUT; done += n) {
        goff off = c->off + (uint64_t)done * TREE_LEAF;
        int r = hash_leaves(d, worker, c, off, TREE_FANOUT - done, node->leaves + done, &n, err);
        if (r < 0)
            return r;
    }
    tree_node(1, node->leaves, node->hash);
    return 0;
}

/* Tells the caller of each node, also of those inside a run of zeros. */
static int report_nodes(struct digest *d, const struct walk_chunk *c, const tree_hash hash,
                        struct platter_error *err)
{
    const struct platter_digest_options *o = d->options;
    for (uint64_t done = 0; o->node != NULL && done < c->len; done += TREE_NODE) {
        uint64_t len = min_u64(TREE_NODE, c->len - done);
        if (o->node(o->opaque, c->off + done, len, hash) != 0)
            return fail(err, ECANCELED, "the digest was cancelled");
    }
    return 0;
}

static int tree_turn(void *opaque, unsigned worker, struct walk_chunk *c, struct platter_error *err)
{
    struct digest *d = opaque;
    bool zero = c->flags & CHUNK_ZERO;
    if (zero)
        tree_add_zeros(d->tree, div_up(c->len, TREE_NODE));
    else
        tree_add(d->tree, d->nodes[worker].hash);
    return report_nodes(d, c, zero ? d->tree->zero[1] : d->nodes[worker].hash, err);
}

static const struct walk_ops tree_ops = {.next = tree_next, .work = tree_work, .turn = tree_turn};

/* ---- plain SHA-256 --------------------------------------------------------------------------- */

static int plain_next(void *opaque, struct walk_chunk *ret, struct platter_error *err)
{
    struct digest *d = opaque;
    int r = reach(d, d->pieces.len, err);
    if (r < 0)
        return r;
    uint64_t left = disk_size(d->disk) - d->next;
    ret->off = d->next;
    ret->len = min_u64(left, d->pieces.len);
    d->next += ret->len;
    return ret->len > 0;
}

static int plain_work(void *opaque, unsigned worker, struct walk_chunk *c,
                      struct platter_error *err)
{
    struct digest *d = opaque;
    c->moved = c->len;
    return disk_read(d->disk, pieces_of(&d->pieces, worker, 0), (size_t)c->len, c->off, err);
}

static int plain_turn(void *opaque, unsigned worker, struct walk_chunk *c,
                      struct platter_error *err)
{
    struct digest *d = opaque;
    (void)err;
    sha256_update(&d->plain, (size_t)c->len, pieces_of(&d->pieces, worker, 0));
    return 0;
}

static const struct walk_ops plain_ops = {
    .next = plain_next, .work = plain_work, .turn = plain_turn};

/* ---- both ------------------------------------------------------------------------------------ */

static void digest_interrupt(void *opaque)
{
    disk_interrupt(((struct digest *)opaque)->disk);
}

static int digest_run(struct digest *d, uint8_t ret_digest[32], struct platter_error *err)
{
    bool tree = d->options->algorithm == PLATTER_DIGEST_TREE;
    struct walk walk = {.ops = tree ? &tree_ops : &plain_ops,
                        .opaque = d,
                        .workers = d->pieces.workers,
                        .total = disk_size(d->disk),
                        .progress = d->options->progress,
                        .progress_opaque = d->options->opaque,
                        .interrupt = disk_requests(d->disk) ? digest_interrupt : NULL};
    tree_init(d->tree, disk_size(d->disk));
    sha256_init(&d->plain);
    d->walk = &walk;
    int r = walk_run(&walk, err);
    if (r == 0)
        r = disk_unchanged(d->disk, err);
    if (r < 0)
        return r;
    tree_set_size(d->tree, disk_size(d->disk));
    if (tree)
        tree_root(d->tree, ret_digest);
    else
        sha256_digest(&d->plain, SHA256_DIGEST_SIZE, ret_digest);
    return 0;
}

int ops_digest(struct platter_disk *disk, const struct platter_digest_options *options,
               uint8_t ret_digest[32], struct platter_error *err)
{
    if (options->algorithm != PLATTER_DIGEST_TREE && options->algorithm != PLATTER_DIGEST_SHA256)
        return fail(err, EINVAL, "%u is no digest algorithm", (unsigned)options->algorithm);
    struct digest d = {.disk = disk, .options = options};
    int r = digest_open(&d, err);
    if (r == 0)
        r = digest_run(&d, ret_digest, err);
    digest_close(&d);
    return r;
}
