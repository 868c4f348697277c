/* SPDX-License-Identifier: MIT */
/* The digests of a new archive: room for them, their text, and that as a part of the archive. */
#include <stdio.h>
#include <string.h>

#include "base/ckd.h"
#include "disk/disk.h"
#include "ops/creation.h"
#include "ops/ops.h"

enum { MOST_CONFIG = 65535 /* bytes of a configuration */ };

int creation_make_digests(struct creation *c, struct platter_error *err)
{
    const struct platter_archive_plan *o = c->o;
    uint64_t nodes = 0;
    for (size_t i = 0; i < o->n_disks; i++)
        nodes += div_up(disk_size(o->disks[i]->disk), TREE_NODE);
    /* Each has 32 bytes, and 43 as text, which is there twice while it is made anew. */
    uint64_t bytes = nodes * (TREE_HASH + 2 * (uint64_t)44);
    int r = budget_take(c->budget, bytes, "the digests of the disks", err);
    if (r < 0)
        return r;
    c->nodes_taken = bytes;
    c->digests.disks = calloc(o->n_disks ? o->n_disks : 1, sizeof *c->digests.disks);
    if (!c->digests.disks)
        return fail_memory(err, "digests");
    for (size_t i = 0; i < o->n_disks; i++) {
        struct disk_digest *d = &c->digests.disks[c->digests.n++];
        d->size = disk_size(o->disks[i]->disk);
        d->n_nodes = div_up(d->size, TREE_NODE);
        d->name = string_copy(o->disks[i]->name);
        d->nodes = calloc(d->n_nodes ? d->n_nodes : 1, sizeof *d->nodes);
        if (!d->name || !d->nodes)
            return fail_memory(err, "digests");
    }
    return 0;
}

int creation_print_digests(struct creation *c, struct platter_error *err)
{
    auto_free char *text = NULL;
    size_t len;
    int r = digest_file_print(&c->digests, &text, &len, err);
    if (r < 0)
        return r;
    if (!c->text) {
        c->text = TAKE(text);
        c->text_len = len;
        return 0;
    }
    if (len != c->text_len)
        return fail(err, EINVAL, "%s: its digests do not fit the room that was left for them",
                    c->target);
    memcpy(c->text, text, len);
    return 0;
}

/* One piece of the text after the other becomes a configuration. */
int creation_embed_digests(struct creation *c, struct platter_error *err)
{
    int r = creation_print_digests(c, err);
    if (r < 0)
        return r;
    size_t n = div_up(c->text_len, MOST_CONFIG), before = c->o->n_files;
    struct archive_config *configs = reallocarray(c->configs, before + n, sizeof *configs);
    if (configs)
        c->configs = configs;
    c->piece_names = calloc(n, sizeof *c->piece_names);
    if (!configs || !c->piece_names)
        return fail_memory(err, "digests");
    for (size_t i = 0; i < n; i++) {
        size_t at = i * MOST_CONFIG;
        snprintf(c->piece_names[i], CREATION_PIECE_NAME, i ? DIGEST_CONFIG ".%zu" : DIGEST_CONFIG,
                 i);
        c->configs[before + i] =
            (struct archive_config){.name = c->piece_names[i],
                                    .bytes = (const uint8_t *)c->text + at,
                                    .size = (uint32_t)min_u64(MOST_CONFIG, c->text_len - at)};
    }
    c->plan.configs = c->configs;
    c->plan.n_configs += (unsigned)n;
    return 0;
}

static int keep_node(void *opaque, uint64_t offset, uint64_t length, const uint8_t digest[32])
{
    (void)length;
    struct disk_digest *d = opaque;
    memcpy(d->nodes[offset / TREE_NODE], digest, TREE_HASH);
    return 0;
}

struct digest_pass {
    struct disk_progress progress;
    struct disk_digest *digest;
};

static int pass_node(void *opaque, uint64_t offset, uint64_t length, const uint8_t digest[32])
{
    return keep_node(((struct digest_pass *)opaque)->digest, offset, length, digest);
}

static int pass_tick(void *opaque, const struct platter_progress *now)
{
    return creation_tick(&((struct digest_pass *)opaque)->progress, now);
}

int creation_digest_all(struct creation *c, struct platter_error *err)
{
    int r = 0;
    for (size_t i = 0; i < c->o->n_disks && r == 0; i++) {
        struct digest_pass pass = {.progress = {.c = c}, .digest = &c->digests.disks[i]};
        struct platter_digest_options options = {.size = sizeof options,
                                                 .algorithm = PLATTER_DIGEST_TREE,
                                                 .workers = c->o->workers,
                                                 .node = pass_node,
                                                 .progress = pass_tick,
                                                 .opaque = &pass};
        r = ops_digest(c->o->disks[i]->disk, &options, pass.digest->root, err);
        creation_disk_done(&pass.progress, pass.digest->size);
    }
    return r < 0 ? r : creation_print_digests(c, err);
}
