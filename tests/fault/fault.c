/* SPDX-License-Identifier: MIT */
/*
 * Fails call N of an image's file, and allocation N, for N = 1, 2, ... until all pass: through
 * opening, mapping and reading all of a disk, a workload with flushes, and closing it. Nothing may
 * crash or leak (the sanitizers watch). Afterwards the disk works or refuses all writes (rule 5),
 * and its file is an image that a checker of our own passes and that holds all that was flushed.
 *
 * fault [--every N] [specimen ...]
 */
#include <getopt.h>
#include <unistd.h>

#include "base/memory.h"
#include "support/alloc.h"
#include "support/fault.h"
#include "support/imagecheck.h"
#include "support/must.h"
#include "support/specimen.h"

enum { RANDOM_STEPS = 10, MAX_OPS = 4096, MAX_RUNS = 1 << 20 };

/* What is made to fail, and how. */
struct model_way {
    const char *name;
    unsigned kinds; /* 0: allocations */
    bool lasting, torn;
    bool must_tell; /* some call must fail as well: what was lost must not stay a secret */
    int code;
};

static const struct model_way ways[] = {
    {.name = "one call fails", .kinds = FAULT_ALL, .code = EIO},
    {.name = "one flush fails", .kinds = FAULT_FLUSH, .must_tell = true, .code = EIO},
    {.name = "one write is torn",
     .kinds = FAULT_PWRITE,
     .must_tell = true,
     .torn = true,
     .code = EIO},
    {.name = "no write works any more", .kinds = FAULT_WRITES, .lasting = true, .code = ENOSPC},
    {.name = "one allocation fails"},
    {.name = "no allocation works any more", .lasting = true},
};

struct fault {
    struct specimen specimen;
    const struct model_way *way;
    uint64_t at;
    bool struck; /* it came to that */
    bool told;   /* and some call of ours failed */
    struct fault_plan plan;
    struct ledger *ledger;
    struct buffer file;
    uint8_t *content, *scratch;
};

static int complain(const struct fault *f, const char *what, const char *why)
{
    fprintf(stderr, "%s, %s, number %llu: %s: %s\n", f->specimen.spec->name, f->way->name,
            (unsigned long long)f->at, what, why);
    return -1;
}

static void arm(struct fault *f)
{
    f->struck = f->told = false;
    f->plan = (struct fault_plan){.kinds = f->way->kinds,
                                  .at = f->at,
                                  .lasting = f->way->lasting,
                                  .torn = f->way->torn,
                                  .code = f->way->code};
    if (f->way->kinds == 0) {
        f->plan.at = 0;
        alloc_fail_at(f->at, f->way->lasting);
    }
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

/* Maps and reads all; what fails must fail with a sentence, what succeeds must be true. */
static int look(struct fault *f, struct platter_disk *disk)
{
    struct platter_error err = {0};
    uint64_t size = f->specimen.spec->size;
    int r = 0;
    for (uint64_t off = 0; r == 0 && off < size;) {
        struct disk_extent e;
        r = disk_map(disk, off, size - off, &e, &err);
        off += r == 0 ? e.e.len : 0;
    }
    if (r == 0)
        r = specimen_read(&f->specimen, disk, f->content, &err);
    if (r != 0)
        return err.message[0] ? 0 : complain(f, "a read", "failed without a word");
    if (memcmp(f->content, f->specimen.content, size) != 0)
        return complain(f, "a read", "succeeded with wrong bytes");
    return 0;
}

/* With the faults over: works, or is poisoned and stays so. */
static int go_on(struct fault *f, struct workload *w)
{
    int poison = atomic_load(&disk_top(w->disk)->poison);
    int r = workload_write(w, 0, 1);
    int flushed = workload_flush(w);
    if (poison == 0 && (r != 0 || flushed != 0) && !atomic_load(&disk_top(w->disk)->poison))
        return complain(f, "going on", "failed though nothing is poisoned");
    if (poison != 0 && r == 0)
        return complain(f, "going on", "wrote to a poisoned image");
    return 0;
}

static int work(struct fault *f, struct platter_disk *disk)
{
    struct workload w = {.disk = disk,
                         .ledger = f->ledger,
                         .prng = {7},
                         .sectors = f->specimen.spec->size / SECTOR,
                         .cluster = (f->specimen.cluster + SECTOR - 1) / SECTOR,
                         .scratch = f->scratch};
    int r = look(f, disk);
    if (r != 0)
        return r;
    workload_script(&w);
    for (unsigned i = 0; i < RANDOM_STEPS; i++)
        workload_step(&w);
    /* A call may have recovered by itself (a discard that was left, say), but not the reverse. */
    f->told = w.failed > 0;
    if (!has_struck(f)) /* then perhaps on closing */
        return w.failed ? complain(f, "a call", "failed though nothing was made to fail") : 0;
    disarm(f);
    /* A flush writes nothing but tables (rule 5). */
    if (f->plan.kinds == FAULT_PWRITE && w.failed_flushes > 0 &&
        atomic_load(&disk_top(disk)->poison) == 0)
        return complain(f, "a failed write of tables", "did not poison the image");
    return go_on(f, &w);
}

/* The file as a failed program left it. */
static int judge(struct fault *f)
{
    struct platter_error err = {0};
    struct image_report report;
    struct stream *top;
    struct platter_disk *disk;
    char why[256];
    image_check(f->specimen.spec->format, f->file.bytes, f->file.size, &report);
    if (report.errors)
        return complain(f, "the checker", report.first);
    MUST(stream_buffer_open(&f->file, "top", false, &top, NULL) == 0);
    if (specimen_open(&f->specimen, top, false, &disk, &err) != 0)
        return complain(f, "opening it again", err.message);
    int r = specimen_read(&f->specimen, disk, f->content, &err);
    disk_close(disk, NULL);
    if (r != 0)
        return complain(f, "reading it again", err.message);
    if (!ledger_allows(f->ledger, f->content, SIZE_MAX, why, sizeof why))
        return complain(f, "content", why);
    return 0;
}

static int open_faulty(struct fault *f, struct platter_disk **ret, struct platter_error *err)
{
    struct stream *top;
    int r = stream_buffer_open(&f->file, "top", true, &top, err);
    if (r == 0)
        r = stream_fault_open(top, &f->plan, &top, err);
    if (r == 0)
        r = specimen_open(&f->specimen, top, true, ret, err);
    return r;
}

/* One run with fault number f->at. 1: it did not come to that, all have been tried. */
static int run_once(struct fault *f)
{
    struct platter_error err = {0};
    struct platter_disk *disk;
    memcpy(f->file.bytes, f->specimen.top.bytes, f->specimen.top.size);
    f->file.size = f->specimen.top.size;
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
    if (f->struck && f->way->must_tell && !f->told)
        return complain(f, "a failure", "was kept from the caller");
    r = judge(f);
    return r ? r : !f->struck;
}

static int run_way(struct fault *f, const struct model_way *way, unsigned every)
{
    f->way = way;
    int r = 0;
    unsigned runs = 0;
    for (f->at = 1; r == 0 && f->at < MAX_RUNS; f->at += every, runs++)
        r = run_once(f);
    if (r < 0)
        return r;
    printf("%-28s %-30s %6u runs\n", f->specimen.spec->name, way->name, runs);
    fflush(stdout);
    return r == 1 ? 0 : complain(f, "the end", "never came");
}

static int fault_specimen(const struct specimen_spec *spec, unsigned every)
{
    struct fault f = {.specimen = specimen_make(spec)};
    f.ledger = ledger_new(spec->size / SECTOR, f.specimen.content, MAX_OPS);
    f.file = buffer_copy(&f.specimen.top, f.specimen.top.size + (8 << 20) + spec->size);
    f.content = malloc(spec->size);
    f.scratch = malloc(spec->size);
    MUST(f.content && f.scratch);
    int r = 0;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
        r |= run_way(&f, &ways[i], every);
    ledger_free(f.ledger);
    buffer_free(&f.file);
    free(f.content);
    free(f.scratch);
    specimen_free(&f.specimen);
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
    for (const struct specimen_spec *spec = specimens; every && spec->name; spec++) {
        bool wanted = optind == argc;
        for (int i = optind; i < argc; i++)
            wanted |= strncmp(spec->name, argv[i], strlen(argv[i])) == 0;
        if (!wanted)
            continue;
        r |= fault_specimen(spec, every);
        done++;
    }
    return r != 0 || done == 0;
}
