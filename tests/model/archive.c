/* SPDX-License-Identifier: MIT */
/*
 * Archives out of a seed, by a writer of the tests' own: every order of clusters, every shape of
 * extents. As they are they must be found sound, and every disk be read out of them, front to back
 * and at any place, from a file, a pipe and each wrapper. Then they are damaged: what matters must
 * be found, and salvaging must give exactly what is left, byte for byte, and name exactly the
 * holes.
 *
 * archive [--seed N] [--runs N] [--wrecks N]
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "model/archive_run.h"
#include "support/must.h"
#include "support/process.h"

/* ---- sound archives ----------------------------------------------------------------------------
 */

static int extract_sound(struct run *r, const struct oracle *o)
{
    struct platter_error err = {0};
    struct platter_archive *a;
    struct told t = {0};
    struct feeder f;
    uint64_t holes = 0;
    int e = run_open(r, run_begin(r, &f), 0, false, &t, &a, &err);
    if (e < 0) {
        e = complain(r, "open", err.message);
    } else {
        e = run_extract(r, a, &t, &holes, &err);
        platter_archive_close(a);
        if (e < 0)
            e = complain(r, "extract", err.message);
        else if (holes || t.faults)
            e = complain(r, "extract of what is sound", t.first);
        else
            e = run_judge(r, o, &t, true);
    }
    run_end(r, &f);
    told_free(&t);
    return e;
}

static int verify_sound(struct run *r)
{
    struct platter_error err = {0};
    struct told t = {0};
    int e = run_verify(r, prng_chance(&r->prng, 30) ? PLATTER_ARCHIVE_SALVAGE : 0, &t, &err);
    if (e < 0)
        e = complain(r, "verify", err.message);
    else if (t.faults)
        e = complain(r, "a false alarm", t.first);
    told_free(&t);
    return e;
}

/* Some ranges of one disk, at any place; where it can be read, it must be the disk. */
static int read_ranges(struct run *r, const struct remains *d, bool sound,
                       struct platter_disk *disk, struct platter_error *err)
{
    uint64_t size = platter_size(disk);
    auto_free uint8_t *bytes = malloc(size + 1);
    MUST(bytes);
    /* A state that does not come in order is not refused, but ends somewhere. */
    if (d->of->state && size != (uint64_t)d->end * VI_CLUSTER)
        return sound ? complain(r, d->of->name, "has another length as a view") : 0;
    if (!d->of->state && size != d->of->size)
        return complain(r, d->of->name, "has another size as a view");
    for (unsigned i = 0; i < 12; i++) {
        uint64_t off = i ? prng_below(&r->prng, size ? size : 1) : 0;
        uint64_t len = i ? prng_below(&r->prng, size - off + 1) : size;
        int e = platter_pread(disk, bytes, len, off, err);
        if (e < 0)
            return e;
        if (memcmp(bytes, d->content + off, len) != 0)
            return complain(r, d->of->name, "reads as something else as a view");
    }
    return 0;
}

static int read_view(struct run *r, const struct remains *d, bool sound, struct platter_error *err)
{
    struct platter_open_options options = {
        .size = sizeof options, .format = "vma", .view = d->of->name, .spool = scratch_folder()};
    struct platter_disk *disk;
    int e = platter_open(r->path, &options, &disk, err);
    if (e == 0) {
        e = read_ranges(r, d, sound, disk, err);
        platter_close(disk, NULL);
    }
    return e;
}

static int views_of_sound(struct run *r, const struct oracle *o)
{
    struct platter_error err = {0};
    int e = 0;
    for (unsigned i = 0; e == 0 && i < o->n_disks; i++)
        if ((e = read_view(r, &o->disks[i], o->sound, &err)) < 0)
            e = complain(r, o->disks[i].of->name, err.message);
    return e;
}

/* A header of an extent that stands in the data of a disk is nothing but data. */
static void hide_header(struct run *r)
{
    struct vmaimage *v = &r->v;
    struct vmaimage_disk *d = &v->disks[prng_below(&r->prng, v->n_disks)];
    uint64_t at = prng_below(&r->prng, d->clusters) * VI_CLUSTER;
    struct vmaimage_slot *s = vmaimage_find(v, d->id, (uint32_t)(at / VI_CLUSTER));
    if (s->mask & 1)
        memcpy(d->content + at, v->file.bytes + v->extents[0].off, VI_EXTENT);
    vmaimage_write(v);
}

static int run_sound(struct run *r)
{
    struct vmaimage_wreck w;
    struct oracle o;
    int e = 0;
    r->what = "as it is";
    if (prng_chance(&r->prng, 40))
        hide_header(r);
    vmaimage_wreck_start(&w, &r->v);
    oracle_make(&o, &r->v, &w);
    MUST(o.sound);
    for (unsigned i = 0; e == 0 && i < 2; i++) {
        r->way = i ? (enum way)(1 + prng_below(&r->prng, WAYS - 1)) : WAY_FILE;
        run_lay_out(r, &r->v.file);
        e = verify_sound(r);
        if (e == 0)
            e = extract_sound(r, &o);
        if (e == 0)
            e = views_of_sound(r, &o);
    }
    oracle_free(&o);
    vmaimage_wreck_free(&w);
    return e;
}

/* ---- damaged ones ------------------------------------------------------------------------------
 */

/* Whether it is found that something is wrong; nothing is told that is not there. */
static int verify_wreck(struct run *r, const struct oracle *o, bool salvage)
{
    struct platter_error err = {0};
    struct told t = {0};
    int e = run_verify(r, salvage ? PLATTER_ARCHIVE_SALVAGE : 0, &t, &err);
    if (e < 0 && (!err.message[0] || o->header))
        e = complain(r, "verify", err.message);
    else if (e == 0 && (t.faults > 0) == o->sound)
        e = complain(r, o->sound ? "a false alarm" : "nothing is found", t.first);
    else if (e == 0 && salvage)
        e = run_judge(r, o, &t, false);
    else
        e = 0;
    told_free(&t);
    return e;
}

static int extract_strictly(struct run *r, const struct oracle *o)
{
    struct platter_error err = {0};
    struct platter_archive *a;
    struct told t = {0};
    struct feeder f;
    int e = run_open(r, run_begin(r, &f), 0, false, &t, &a, &err);
    if (e == 0) {
        e = run_extract(r, a, &t, NULL, &err);
        platter_archive_close(a);
    }
    run_end(r, &f);
    if (e <= 0 && (e == 0) != o->sound)
        e = complain(r, "extract, strictly", e ? err.message : "no error");
    else
        e = e > 0 ? -1 : 0;
    told_free(&t);
    return e;
}

static int salvage(struct run *r, const struct oracle *o, bool give_uuid)
{
    struct platter_error err = {0};
    struct platter_archive *a;
    struct told t = {0};
    struct feeder f;
    uint64_t holes = 0;
    int e = run_open(r, run_begin(r, &f), PLATTER_ARCHIVE_SALVAGE, give_uuid, &t, &a, &err);
    if (e < 0) {
        e = o->header || o->extents ? complain(r, "open", err.message) : 0;
    } else {
        e = run_extract(r, a, &t, &holes, &err);
        platter_archive_close(a);
        if (e < 0)
            e = complain(r, "salvage", err.message);
        else if (holes != t.holes)
            e = complain(r, "salvage", "counts other holes than it tells");
        else
            e = run_judge(r, o, &t, true);
    }
    run_end(r, &f);
    told_free(&t);
    return e;
}

/* As views: what can be read must be right. */
static int views_of_wreck(struct run *r, const struct oracle *o)
{
    int e = 0;
    for (unsigned i = 0; e == 0 && i < o->n_disks; i++) {
        struct platter_error err = {0};
        if (read_view(r, &o->disks[i], o->sound, &err) < 0)
            e = err.message[0] ? 0 : complain(r, "a view", "failed without a word");
    }
    return e;
}

static int run_wreck(struct run *r)
{
    struct vmaimage_wreck w;
    struct oracle o;
    bool foreign = false;
    char *what = string_copy("damaged");

    vmaimage_wreck_start(&w, &r->v);
    for (uint64_t n = 1 + prng_below(&r->prng, 3); n; n--) {
        char *more = string_format("%s, %s", what, wreck_something(&w, &r->v, &r->prng, &foreign));
        free(what);
        what = more;
    }
    r->what = what;
    oracle_make(&o, &r->v, &w);
    r->way = (enum way)prng_below(&r->prng, WAYS);
    run_lay_out(r, &w.file);
    int e = verify_wreck(r, &o, false);
    if (e == 0)
        e = verify_wreck(r, &o, true);
    if (e == 0)
        e = extract_strictly(r, &o);
    if (e == 0)
        e = salvage(r, &o, foreign || prng_chance(&r->prng, 30));
    if (e == 0 && r->way == WAY_FILE)
        e = views_of_wreck(r, &o);
    oracle_free(&o);
    vmaimage_wreck_free(&w);
    free(what);
    return e;
}

/* ---- runs --------------------------------------------------------------------------------------
 */

static int run_seed(uint64_t seed, uint64_t wrecks)
{
    struct run r = {.seed = seed,
                    .prng = {seed},
                    .path = scratch_path("archive.vma"),
                    .fifo = scratch_path("archive.fifo")};
    vmaimage_random(&r.v, seed);
    int e = run_sound(&r);
    vmaimage_free(&r.v);
    for (uint64_t i = 0; e == 0 && i < wrecks; i++) {
        vmaimage_random(&r.v, seed);
        e = run_wreck(&r);
        vmaimage_free(&r.v);
    }
    free(r.path);
    free(r.fifo);
    return e;
}

int main(int argc, char **argv)
{
    static const struct option names[] = {{"seed", required_argument, NULL, 's'},
                                          {"runs", required_argument, NULL, 'r'},
                                          {"wrecks", required_argument, NULL, 'w'},
                                          {0}};
    uint64_t seed = 1, runs = 40, wrecks = 3;
    int e = 0;
    signal(SIGPIPE, SIG_IGN);
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (option == 's')
            seed = strtoull(optarg, NULL, 0);
        else if (option == 'r')
            runs = strtoull(optarg, NULL, 0);
        else if (option == 'w')
            wrecks = strtoull(optarg, NULL, 0);
        else
            return 2;
    }
    for (uint64_t i = 0; e == 0 && i < runs; i++)
        e = run_seed(seed + i, wrecks);
    printf("%" PRIu64 " archives from seed %" PRIu64 "\n", runs, seed);
    return complaints != 0 || e != 0;
}
