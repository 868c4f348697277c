/* SPDX-License-Identifier: MIT */
/*
 * Fails call N of the streams of a disk that is not complete, its bytes, its map and what is below,
 * and allocation N, for N = 1, 2, ... until all pass: through opening it, reading all, a workload
 * with flushes, and closing it. Nothing may crash or leak. Afterwards the disk works or refuses all
 * writes (rule 5), and what it left opens again, with all that was flushed. All of that once more
 * while it is filled from below.
 *
 * fault-partial [--every N] [shape ...]
 */
#include <getopt.h>

#include "base/memory.h"
#include "support/alloc.h"
#include "support/fault.h"
#include "support/must.h"
#include "support/partial.h"
#include "support/specimen.h"

enum { RANDOM_STEPS = 10, MAX_OPS = 4096, MAX_RUNS = 1 << 20 };

static const struct fault_way ways[] = {
    {.name = "one call fails", .kinds = FAULT_ALL, .code = EIO},
    {.name = "one flush fails", .kinds = FAULT_FLUSH, .code = EIO},
    {.name = "one write is torn", .kinds = FAULT_PWRITE, .torn = true, .code = EIO},
    {.name = "no write works any more", .kinds = FAULT_WRITES, .lasting = true, .code = ENOSPC},
    {.name = "one allocation fails"},
    {.name = "no allocation works any more", .lasting = true},
};

struct fault {
    struct partial_specimen specimen;
    const struct fault_way *way;
    uint64_t at;
    bool fill;
    bool struck; /* it came to that */
    bool told;   /* and some call of ours failed */
    struct fault_plan plan;
    struct ledger *ledger;
    struct buffer data, map;
    uint8_t *content, *scratch;
};

static int complain(const struct fault *f, const char *what, const char *why)
{
    fprintf(stderr, "%s%s, %s, number %llu: %s: %s\n", f->specimen.shape->name,
            f->fill ? " filled" : "", f->way->name, (unsigned long long)f->at, what, why);
    return -1;
}

static void arm(struct fault *f)
{
    f->struck = f->told = false;
    f->plan = fault_way_plan(f->way, f->way->kinds ? f->at : 0);
    if (f->way->kinds == 0)
        alloc_fail_at(f->at, f->way->lasting);
}

static bool has_struck(struct fault *f)
{
    f->struck |= atomic_load(&f->plan.failed) > 0 || alloc_failed() > 0;
    return f->struck;
}

static void disarm(struct fault *f)
{
    has_struck(f);
    f->plan.at = 0;
    f->plan.lasting = false;
    alloc_fail_at(0, false);
}

/* What fails must fail with a sentence, what succeeds must be true. */
static int look(struct fault *f, struct platter_disk *disk)
{
    struct platter_error err = {0};
    uint64_t size = f->specimen.shape->size;
    if (disk_read(disk, f->content, size, 0, &err) != 0)
        return err.message[0] ? 0 : complain(f, "a read", "failed without a word");
    if (memcmp(f->content, f->specimen.content, size) != 0)
        return complain(f, "a read", "succeeded with wrong bytes");
    return 0;
}

/* How many fills failed. */
static unsigned fill_half(struct fault *f, struct platter_disk *disk)
{
    enum { PIECE = 64 << 10 };
    unsigned failed = 0;
    for (uint64_t off = 0, len = PIECE; off + len <= f->specimen.shape->size / 2; off += len) {
        struct disk_write w;
        partial_source_bytes(&f->specimen, f->scratch, off, len);
        int r, e = 0;
        if (is_zero(f->scratch, len)) {
            r = disk_fill_zero(disk, off, len, NULL);
        } else {
            r = disk_fill_begin(disk, off, len, &w, NULL);
            e = disk_fill_end(&w, r == 0 ? f->scratch : NULL, NULL);
        }
        failed += r != 0 || e != 0;
    }
    return failed;
}

/* With the faults over: works, or is poisoned and stays so. */
static int go_on(struct fault *f, struct workload *w)
{
    int poison = atomic_load(&disk_top(w->disk)->poison);
    int r = workload_write(w, 0, 1);
    int flushed = workload_flush(w);
    if (poison == 0 && (r != 0 || flushed != 0))
        return complain(f, "going on", "failed though nothing is poisoned");
    if (poison != 0 && (r == 0 || flushed == 0))
        return complain(f, "going on", "a poisoned image took a write, or a flush");
    return 0;
}

static int run_calls(struct fault *f, struct workload *w)
{
    workload_script(w);
    for (unsigned i = 0; i < RANDOM_STEPS; i++)
        workload_step(w);
    f->told = w->failed > 0;
    if (!has_struck(f)) /* then perhaps on closing */
        return w->failed ? complain(f, "a call", "failed though nothing was made to fail") : 0;
    disarm(f);
    if (w->failed_flushes > 0 && atomic_load(&disk_top(w->disk)->poison) == 0)
        return complain(f, "a failed flush", "did not poison the image");
    return go_on(f, w);
}

/* Filled, one half is by fills, and the other by the first reads. */
static int work(struct fault *f, struct platter_disk *disk)
{
    struct workload w = {.disk = disk,
                         .ledger = f->ledger,
                         .prng = {7},
                         .sectors = f->specimen.shape->size / SECTOR,
                         .cluster = f->specimen.shape->unit / SECTOR,
                         .scratch = f->scratch};
    struct filling filling;
    if (f->fill) {
        partial_filling_start(&filling, disk);
        w.failed += fill_half(f, disk);
    }
    int r = look(f, disk);
    if (r == 0)
        r = run_calls(f, &w);
    disk->filling = NULL;
    return r;
}

/* What a failed program left. */
static int judge(struct fault *f)
{
    struct platter_error err = {0};
    struct platter_disk *disk;
    char why[256];
    if (partial_specimen_look(&f->specimen, &f->data, &f->map, false, &disk, &err) != 0)
        return complain(f, "opening it again", err.message);
    int r = disk_read(disk, f->content, f->specimen.shape->size, 0, &err);
    disk_close(disk, NULL);
    if (r != 0)
        return complain(f, "reading it again", err.message);
    if (!ledger_allows(f->ledger, f->content, SIZE_MAX, why, sizeof why))
        return complain(f, "content", why);
    return 0;
}

static int open_faulty(struct fault *f, struct platter_disk **ret, struct platter_error *err)
{
    struct buffer *buffers[3] = {&f->data, &f->map, &f->specimen.below};
    struct stream *s[3] = {0};
    int r = 0;
    for (unsigned i = 0; i < 3 && r == 0; i++) {
        r = stream_buffer_open(buffers[i], "faulty", i < 2, &s[i], err);
        if (r == 0 && (r = stream_fault_open(s[i], &f->plan, &s[i], err)) < 0)
            s[i] = NULL;
    }
    if (r == 0)
        return partial_disk_open(s[0], s[1], s[2], true, 0, ret, err);
    for (unsigned i = 0; i < 3; i++)
        stream_close(s[i]);
    return r;
}

/* One run with fault number f->at. 1: it did not come to that, all have been tried. */
static int run_once(struct fault *f)
{
    struct platter_error err = {0};
    struct platter_disk *disk;
    memcpy(f->data.bytes, f->specimen.data.bytes, f->data.size);
    memcpy(f->map.bytes, f->specimen.map.bytes, f->map.size);
    ledger_reset(f->ledger);
    arm(f);
    int r = open_faulty(f, &disk, &err);
    if (r != 0) {
        disarm(f);
        f->told = true;
        if (err.message[0] == 0)
            return complain(f, "open", "failed without a word");
    } else {
        r = work(f, disk);
        f->told |= disk_close(disk, NULL) != 0;
        disarm(f);
        if (r != 0)
            return r;
    }
    /* What copy on read could not store it has from below again. */
    bool must_tell = f->way->kinds == FAULT_FLUSH || (f->way->kinds == FAULT_PWRITE && !f->fill);
    if (f->struck && must_tell && !f->told)
        return complain(f, "a failure", "was kept from the caller");
    r = judge(f);
    return r ? r : !f->struck;
}

static int run_way(struct fault *f, const struct fault_way *way, unsigned every)
{
    f->way = way;
    int r = 0;
    unsigned runs = 0;
    for (f->at = 1; r == 0 && f->at < MAX_RUNS; f->at += every, runs++)
        r = run_once(f);
    if (r < 0)
        return r;
    printf("%-12s %-8s %-30s %6u runs\n", f->specimen.shape->name, f->fill ? "filled" : "",
           way->name, runs);
    fflush(stdout);
    return r == 1 ? 0 : complain(f, "the end", "never came");
}

static int fault_shape(const struct partial_shape *shape, unsigned every)
{
    struct fault f = {.specimen = partial_specimen_make(shape)};
    f.ledger = ledger_new(shape->size / SECTOR, f.specimen.content, MAX_OPS);
    f.data = buffer_copy(&f.specimen.data, 0);
    f.map = buffer_copy(&f.specimen.map, 0);
    f.content = malloc(shape->size);
    f.scratch = malloc(shape->size);
    MUST(f.content && f.scratch);
    int r = 0;
    for (size_t i = 0; i < 2 * (sizeof ways / sizeof *ways); i++) {
        f.fill = i % 2;
        r |= run_way(&f, &ways[i / 2], every);
    }
    ledger_free(f.ledger);
    buffer_free(&f.data);
    buffer_free(&f.map);
    free(f.content);
    free(f.scratch);
    partial_specimen_free(&f.specimen);
    return r;
}

int main(int argc, char **argv)
{
    unsigned every = 1, done = 0;
    static const struct option names[] = {{"every", required_argument, NULL, 'e'}, {0}};
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (option != 'e')
            return 2;
        every = (unsigned)strtoul(optarg, NULL, 0);
    }
    int r = every ? 0 : 2;
    for (const struct partial_shape *shape = partial_shapes; every && shape->name; shape++) {
        bool wanted = optind == argc;
        for (int i = optind; i < argc; i++)
            wanted |= strcmp(shape->name, argv[i]) == 0;
        if (!wanted)
            continue;
        r |= fault_shape(shape, every);
        done++;
    }
    return r != 0 || done == 0;
}
