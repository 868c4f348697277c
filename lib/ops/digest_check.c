/* SPDX-License-Identifier: MIT */
#include "ops/digest_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/ckd.h"

/* A disk that has a digest. */
struct checked {
    const struct archive_disk *disk;
    const struct disk_digest *digest;
    uint64_t leaves;                  /* that its digest is over */
    tree_hash (**nodes)[TREE_FANOUT]; /* for each node: its leaves, while some are missing */
    uint16_t *counts;                 /* and how many there are; TREE_FANOUT + 1: it is done */
    bool longer;                      /* of a state: more came than its digest is over */
};

/* The leaf that a worker puts together. */
struct piece {
    uint8_t bytes[TREE_LEAF];
    size_t filled;
};

enum { DONE = TREE_FANOUT + 1 };

struct digest_check {
    struct digest_check_plan plan;
    struct digest_file digests;
    struct tree *tree; /* for its hashes of zeros */
    struct piece *pieces;
    pthread_mutex_t lock; /* nodes and counts of all disks */
    struct checked *disks;
    unsigned n;
};

/* ---- sentences ---------------------------------------------------------------------------------
 */

static void tell(const struct digest_check *d, const struct archive_fault *fault,
                 const char *format, ...) __attribute__((format(printf, 3, 4)));
static void tell(const struct digest_check *d, const struct archive_fault *fault,
                 const char *format, ...)
{
    struct archive_fault f = *fault;
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    f.text = text;
    d->plan.tell(d->plan.opaque, &f);
}

/* ---- open --------------------------------------------------------------------------------------
 */

static const struct disk_digest *find_digest(const struct digest_check *d, const char *name)
{
    for (unsigned i = 0; i < d->digests.n; i++)
        if (strcmp(d->digests.disks[i].name, name) == 0)
            return &d->digests.disks[i];
    return NULL;
}

static int add_disk(struct digest_check *d, const struct archive_disk *disk,
                    struct platter_error *err)
{
    const struct disk_digest *digest = find_digest(d, disk->name);
    struct archive_fault f = {.kind = ARCHIVE_FAULT_NOTE, .disk = disk, .len = disk->size};
    struct checked *c = &d->disks[d->n];

    if (!digest) {
        tell(d, &f, "%s: there is no digest of the disk %s", d->plan.file, disk->name);
        return 0;
    }
    if (!disk->state && !disk->unsized && digest->size != disk->size) {
        f.kind = ARCHIVE_FAULT_DIGEST;
        tell(d, &f,
             "%s: the disk %s has %" PRIu64 " bytes, but its digest is that of %" PRIu64 " bytes",
             d->plan.file, disk->name, disk->size, digest->size);
        return 0;
    }
    *c =
        (struct checked){.disk = disk, .digest = digest, .leaves = div_up(digest->size, TREE_LEAF)};
    d->n++;
    int r = budget_alloc(d->plan.budget, digest->n_nodes * sizeof *c->nodes,
                         "the nodes of a digest", &c->nodes, err);
    if (r == 0)
        r = budget_alloc(d->plan.budget, digest->n_nodes * sizeof *c->counts,
                         "the nodes of a digest", &c->counts, err);
    return r;
}

int digest_check_open(const struct digest_check_plan *plan, struct digest_check **ret,
                      struct platter_error *err)
{
    struct digest_check *d = calloc(1, sizeof *d);
    if (!d) {
        digest_file_free(plan->digests);
        return fail_memory(err, "digests");
    }
    d->plan = *plan;
    d->digests = *plan->digests;
    *plan->digests = (struct digest_file){0};
    pthread_mutex_init(&d->lock, NULL);
    d->tree = malloc(sizeof *d->tree);
    d->disks = calloc(plan->listing->n_disks + 1, sizeof *d->disks);
    int r = d->tree && d->disks ? 0 : fail_memory(err, "digests");
    if (r == 0)
        r = budget_alloc(plan->budget, plan->workers * sizeof *d->pieces, "the leaves of a digest",
                         &d->pieces, err);
    if (r == 0)
        tree_init(d->tree, 0);
    for (unsigned i = 0; r == 0 && i < plan->listing->n_disks; i++)
        r = add_disk(d, &plan->listing->disks[i], err);
    if (r < 0)
        digest_check_close(d);
    else
        *ret = d;
    return r;
}

static void free_disk(struct digest_check *d, struct checked *c)
{
    uint64_t n = c->digest->n_nodes;
    for (uint64_t i = 0; c->nodes && i < n; i++)
        budget_free(d->plan.budget, c->nodes[i], sizeof *c->nodes[i]);
    budget_free(d->plan.budget, c->nodes, n * sizeof *c->nodes);
    budget_free(d->plan.budget, c->counts, n * sizeof *c->counts);
}

void digest_check_close(struct digest_check *d)
{
    if (!d)
        return;
    for (unsigned i = 0; i < d->n; i++)
        free_disk(d, &d->disks[i]);
    budget_free(d->plan.budget, d->pieces, d->plan.workers * sizeof *d->pieces);
    digest_file_free(&d->digests);
    pthread_mutex_destroy(&d->lock);
    free(d->tree);
    free(d->disks);
    free(d);
}

/* ---- nodes -------------------------------------------------------------------------------------
 */

static unsigned leaves_of(const struct checked *c, uint64_t node)
{
    return (unsigned)min_u64(c->leaves - node * TREE_FANOUT, TREE_FANOUT);
}

static void compare(struct digest_check *d, const struct checked *c, uint64_t node,
                    tree_hash leaves[TREE_FANOUT], hoff off)
{
    struct archive_fault f = {.kind = ARCHIVE_FAULT_DIGEST, .off = off, .disk = c->disk};
    tree_hash hash;

    for (unsigned i = leaves_of(c, node); i < TREE_FANOUT; i++)
        memcpy(leaves[i], d->tree->zero[0], TREE_HASH);
    tree_node(1, leaves, hash);
    if (memcmp(hash, c->digest->nodes[node], TREE_HASH) == 0)
        return;
    f.start = node * TREE_NODE;
    f.len = min_u64(TREE_NODE, c->digest->size - f.start);
    tell(d, &f,
         "%s: the data of the disk %s from %" PRIu64 " to %" PRIu64
         " is damaged: it is not what its digest is of",
         d->plan.file, c->disk->name, f.start, f.start + f.len);
}

/* Enters a leaf. The leaves of its node, where it was the last one, are the caller's then. */
static int enter(struct digest_check *d, struct checked *c, uint64_t leaf, const tree_hash hash,
                 tree_hash (**ret)[TREE_FANOUT], struct platter_error *err)
{
    uint64_t node = leaf / TREE_FANOUT;
    WITH_LOCK(&d->lock);
    if (!c->nodes[node]) {
        int r = budget_alloc(d->plan.budget, sizeof *c->nodes[node],
                             "leaves of a digest, which wait for those between them",
                             &c->nodes[node], err);
        if (r < 0)
            return r;
    }
    memcpy((*c->nodes[node])[leaf % TREE_FANOUT], hash, TREE_HASH);
    if (++c->counts[node] == leaves_of(c, node)) {
        *ret = TAKE(c->nodes[node]);
        c->counts[node] = DONE;
    }
    return 0;
}

static int add_leaf(struct digest_check *d, struct checked *c, goff off, const tree_hash hash,
                    hoff archive_off, struct platter_error *err)
{
    tree_hash(*leaves)[TREE_FANOUT] = NULL;
    uint64_t leaf = off / TREE_LEAF;

    if (leaf >= c->leaves) { /* only a state can be longer */
        struct archive_fault f = {
            .kind = ARCHIVE_FAULT_DIGEST, .off = archive_off, .disk = c->disk, .start = off};
        pthread_mutex_lock(&d->lock);
        bool told = c->longer;
        c->longer = true;
        pthread_mutex_unlock(&d->lock);
        f.len = TREE_LEAF;
        if (!told)
            tell(d, &f, "%s: %s is longer than the %" PRIu64 " bytes that its digest is of",
                 d->plan.file, c->disk->name, c->digest->size);
        return 0;
    }
    int r = enter(d, c, leaf, hash, &leaves, err);
    if (leaves)
        compare(d, c, leaf / TREE_FANOUT, *leaves, archive_off);
    budget_free(d->plan.budget, leaves, sizeof *leaves);
    return r;
}

/* ---- leaves ------------------------------------------------------------------------------------
 */

static struct checked *find(const struct digest_check *d, const struct archive_disk *disk)
{
    for (unsigned i = 0; i < d->n; i++)
        if (d->disks[i].disk == disk)
            return &d->disks[i];
    return NULL;
}

/* Bytes of the leaf that begins at `start`: the last one of a disk may be short. */
static size_t leaf_length(const struct checked *c, goff start)
{
    bool endless = c->disk->state || c->disk->unsized;
    return endless ? TREE_LEAF : (size_t)min_u64(TREE_LEAF, c->disk->size - start);
}

/* A part of a leaf: when all of it is there, it is hashed. */
static int add_part(struct digest_check *d, struct piece *p, struct checked *c,
                    const struct archive_run *part, hoff archive_off, struct platter_error *err)
{
    goff start = round_down(part->off, TREE_LEAF);
    tree_hash hash;

    if (part->len == leaf_length(c, start) && part->zero)
        return add_leaf(d, c, start, d->tree->zero[0], archive_off, err);
    if (part->len == TREE_LEAF) {
        tree_leaf(d->tree, part->bytes, hash);
        return add_leaf(d, c, start, hash, archive_off, err);
    }
    if (part->off == start) {
        memset(p->bytes, 0, sizeof p->bytes);
        p->filled = 0;
    }
    if (!part->zero)
        memcpy(p->bytes + (part->off - start), part->bytes, part->len);
    p->filled += part->len;
    if (p->filled < leaf_length(c, start))
        return 0;
    tree_leaf(d->tree, p->bytes, hash);
    return add_leaf(d, c, start, hash, archive_off, err);
}

int digest_check_batch(struct digest_check *d, unsigned worker, const struct archive_batch *batch,
                       struct platter_error *err)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < batch->n_runs; i++) {
        const struct archive_run *run = &batch->runs[i];
        struct checked *c = find(d, run->disk);
        for (uint64_t done = 0, n; c && r == 0 && done < run->len; done += n) {
            struct archive_run part = *run;
            part.off += done;
            n = min_u64(run->len - done, TREE_LEAF - part.off % TREE_LEAF);
            part.len = n;
            part.bytes = run->zero ? NULL : run->bytes + done;
            r = add_part(d, &d->pieces[worker], c, &part, batch->off, err);
        }
    }
    return r;
}

int digest_check_finish(struct digest_check *d, struct platter_error *err)
{
    (void)err;
    for (unsigned i = 0; i < d->n; i++) {
        const struct checked *c = &d->disks[i];
        struct archive_fault f = {.kind = ARCHIVE_FAULT_DIGEST, .disk = c->disk};
        uint64_t node = 0;
        while (node < c->digest->n_nodes && c->counts[node] == DONE)
            node++;
        f.start = node * TREE_NODE;
        /* What is missing of a disk was told; where a state ends, its digest knows. */
        if (node == c->digest->n_nodes || !(c->disk->state || c->disk->unsized))
            continue;
        f.len = c->digest->size - f.start;
        tell(d, &f,
             "%s: of the %" PRIu64 " bytes of %s that its digest is of, not all that follow "
             "%" PRIu64 " are there",
             d->plan.file, c->digest->size, c->disk->name, f.start);
    }
    return 0;
}
