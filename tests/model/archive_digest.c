/* SPDX-License-Identifier: MIT */
/*
 * Archives with digests of their data, made by the library out of random disks: they are sound, and
 * hold those disks. Then bytes of the data change, which nothing in the format can tell: the digest
 * does, names the range of 16 MiB that they are in, and no other.
 *
 * archive-digest [--seed N] [--runs N]
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "platter/platter.h"
#include "support/must.h"
#include "support/process.h"
#include "support/vmaimage.h"

enum { NODE = 16 << 20, DISKS = 3, FLIPS = 6 };

struct run {
    uint64_t seed;
    struct prng prng;
    struct vmaimage v; /* for its disks alone */
    char *archive, *digest, *raw[DISKS];
    bool embed; /* the digests are in the archive */
};

static unsigned complaints;

static void complain(const struct run *r, const char *what, const char *why)
{
    complaints++;
    fprintf(stderr, "seed %" PRIu64 ": %s: %s\n", r->seed, what, why);
}

/* ---- making ------------------------------------------------------------------------------------
 */

static void make_disks(struct run *r)
{
    static const char *const names[DISKS] = {"drive-scsi0", "drive-efidisk0", "drive-virtio1"};
    const uint64_t sizes[DISKS] = {NODE + 1 + prng_below(&r->prng, NODE), 540672,
                                   512 + prng_below(&r->prng, 1 << 20)};
    for (unsigned i = 0; i < DISKS; i++) {
        struct vmaimage_disk *d =
            vmaimage_add_disk(&r->v, (uint8_t)(i + 1), names[i], sizes[i], true);
        struct buffer b = {.bytes = d->content, .size = d->size};
        /* In each of them there is something to be changed. */
        d->content[prng_below(&r->prng, d->size)] = 9;
        buffer_save(&b, r->raw[i]);
    }
}

static int create(struct run *r, struct platter_error *err)
{
    struct platter_open_options raw = {.size = sizeof raw, .format = "raw"};
    struct platter_archive_source sources[DISKS] = {0};
    const struct platter_archive_source *list[DISKS];
    struct platter_archive_plan plan = {.size = sizeof plan,
                                        .flags = PLATTER_ARCHIVE_UNSAFE |
                                                 (r->embed ? PLATTER_ARCHIVE_EMBED_DIGEST : 0),
                                        .disks = list,
                                        .n_disks = DISKS,
                                        .digest = r->embed ? NULL : r->digest,
                                        .workers = (unsigned)prng_below(&r->prng, 4)};
    for (unsigned i = 0; i < DISKS; i++) {
        sources[i] =
            (struct platter_archive_source){.size = sizeof sources[i], .name = r->v.disks[i].name};
        MUST(platter_open(r->raw[i], &raw, &sources[i].disk, NULL) == 0);
        list[i] = &sources[i];
    }
    int e = platter_archive_create(r->archive, &plan, NULL, err);
    for (unsigned i = 0; i < DISKS; i++)
        platter_close(sources[i].disk, NULL);
    return e;
}

/* ---- verifying ---------------------------------------------------------------------------------
 */

struct told {
    unsigned faults, digests, right;
    const char *disk; /* and the byte that was changed */
    uint64_t at, size;
    char last[300];
};

static void take_fault(void *opaque, const struct platter_fault *f)
{
    struct told *t = opaque;
    if (f->kind == PLATTER_FAULT_NOTE)
        return;
    t->faults++;
    t->digests += f->kind == PLATTER_FAULT_DIGEST;
    snprintf(t->last, sizeof t->last, "%s", f->text);
    t->right += f->kind == PLATTER_FAULT_DIGEST && f->disk && t->disk &&
                strcmp(f->disk, t->disk) == 0 && f->offset == t->at / NODE * NODE &&
                f->length == (t->size - f->offset < NODE ? t->size - f->offset : NODE);
}

static int verify(struct run *r, struct told *t, struct platter_error *err)
{
    struct platter_archive_options open = {.size = sizeof open, .fault = take_fault, .opaque = t};
    struct platter_verify_options options = {.size = sizeof options,
                                             .digest = r->embed ? NULL : r->digest,
                                             .workers = (unsigned)prng_below(&r->prng, 4)};
    struct platter_verification result = {.size = sizeof result};
    struct platter_archive *a;
    int e = platter_archive_open(r->archive, &open, &a, err);
    if (e < 0)
        return e;
    e = platter_archive_verify(a, &options, &result, err);
    platter_archive_close(a);
    if (e == 0 && (!result.digests || result.faults != t->faults))
        complain(r, "verify", "looked at no digest, or counts other faults than it tells");
    return e;
}

/* ---- changing data -----------------------------------------------------------------------------
 */

static uint64_t get(const uint8_t *at, unsigned n)
{
    uint64_t value = 0;
    while (n--)
        value = value << 8 | *at++;
    return value;
}

struct spot {
    unsigned disk; /* its index */
    uint64_t at;   /* on it */
    hoff off;      /* in the archive */
};

/* A byte of the data, any with the same chance; what is behind the end of a disk is none. */
static void pick(struct run *r, const struct buffer *b, struct spot *ret)
{
    uint64_t n = 0;
    for (uint64_t e = get(b->bytes + VI_HEADER_SIZE_AT, 4), at; e < b->size; e = at) {
        at = e + VI_EXTENT;
        for (unsigned i = 0; i < VI_SLOTS; i++) {
            const uint8_t *slot = b->bytes + e + VI_SLOTS_AT + i * 8;
            for (unsigned k = 0; slot[3] && k < VI_BLOCKS; k++) {
                if (!(get(slot, 2) >> k & 1))
                    continue;
                uint64_t start = get(slot + 4, 4) * VI_CLUSTER + k * VI_BLOCK;
                uint64_t size = r->v.disks[slot[3] - 1].size - start;
                uint64_t in = prng_below(&r->prng, size < VI_BLOCK ? size : VI_BLOCK);
                if (prng_below(&r->prng, ++n) == 0)
                    *ret = (struct spot){slot[3] - 1u, start + in, at + in};
                at += VI_BLOCK;
            }
        }
    }
    MUST(n > 0);
}

static void change_data(struct run *r)
{
    struct buffer b = buffer_load(r->archive, 0);
    struct platter_error err = {0};
    struct spot s = {0};
    pick(r, &b, &s);
    const struct vmaimage_disk *d = &r->v.disks[s.disk];
    MUST(b.bytes[s.off] == d->content[s.at]);
    struct told t = {.disk = d->name, .at = s.at, .size = d->size};
    b.bytes[s.off] ^= (uint8_t)(1u << prng_below(&r->prng, 8));
    buffer_save(&b, r->archive);
    if (verify(r, &t, &err) < 0)
        complain(r, "verify", err.message);
    else if (t.faults != 1 || t.right != 1)
        complain(r, "a change of data is not told, or not right", t.last);
    b.bytes[s.off] = d->content[s.at];
    buffer_save(&b, r->archive);
    buffer_free(&b);
}

static void run_seed(uint64_t seed)
{
    struct platter_error err = {0};
    struct told t = {0};
    struct run r = {.seed = seed,
                    .prng = {seed},
                    .archive = scratch_path("archive.vma"),
                    .digest = scratch_path("digest"),
                    .raw = {scratch_path("0"), scratch_path("1"), scratch_path("2")},
                    .embed = seed % 2};
    vmaimage_start(&r.v, seed);
    make_disks(&r);
    if (create(&r, &err) < 0)
        complain(&r, "create", err.message);
    else if (verify(&r, &t, &err) < 0)
        complain(&r, "verify", err.message);
    else if (t.faults)
        complain(&r, "a false alarm", t.last);
    for (unsigned i = 0; i < FLIPS && complaints == 0; i++)
        change_data(&r);
    unlink(r.archive);
    unlink(r.digest);
    vmaimage_free(&r.v);
    free(r.archive);
    free(r.digest);
    for (unsigned i = 0; i < DISKS; i++)
        free(r.raw[i]);
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        {"seed", required_argument, NULL, 's'}, {"runs", required_argument, NULL, 'r'}, {0}};
    uint64_t seed = 1, runs = 4;
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (option == 's')
            seed = strtoull(optarg, NULL, 0);
        else if (option == 'r')
            runs = strtoull(optarg, NULL, 0);
        else
            return 2;
    }
    for (uint64_t i = 0; i < runs; i++)
        run_seed(seed + i);
    printf("%" PRIu64 " archives with digests from seed %" PRIu64 "\n", runs, seed);
    return complaints != 0;
}
