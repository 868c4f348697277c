/* SPDX-License-Identifier: MIT */
/*
 * Cuts the power at every point of a workload. All that an image's file goes through is logged;
 * every prefix of the log, and random subsets of what was not yet flushed with torn sectors, is
 * opened again: a checker of our own must find leaks at worst, every sector must hold what was
 * flushed or was written since, and the image must be fit to be written on. qemu-img looks at a
 * sample.
 *
 * With --fill others fill the image from its backing file meanwhile, as a live migration does.
 *
 * crash [--seed N] [--steps N] [--states N] [--fill] [--keep] [specimen ...]
 */
#include <getopt.h>
#include <unistd.h>

#include "base/memory.h"
#include "support/damage.h"
#include "support/imagecheck.h"
#include "support/log.h"
#include "support/must.h"
#include "support/partial.h"
#include "support/process.h"
#include "support/seen.h"
#include "support/specimen.h"

enum { RECOVERY_STEPS = 12, MAX_OPS = 1 << 16 };

struct crash_options {
    uint64_t seed;
    unsigned steps;  /* random calls after the script */
    unsigned states; /* about as many per specimen */
    bool fill;
    bool keep; /* leave a state that fails as a file */
};

struct crash {
    const struct crash_options *options;
    struct specimen specimen;
    struct write_log *log;
    struct log_state state; /* of the file */
    struct seen seen;
    struct ledger *ledger; /* of the workload */
    uint8_t *content;      /* what a state reads as */
    uint8_t *scratch;
    unsigned states, judged, leaked;
};

/* One state to look at. */
struct crash_state {
    size_t position;
    bool subset;
    uint64_t seed;
    const struct log_state *bytes;
};

static int complain(const struct crash *c, const struct crash_state *s, const char *what,
                    const char *why)
{
    fprintf(stderr, "%s, seed %llu, after %zu log entries%s (%llu): %s: %s\n",
            c->specimen.spec->name, (unsigned long long)c->options->seed, s->position,
            s->subset ? ", a subset" : "", (unsigned long long)s->seed, what, why);
    if (c->options->keep) {
        log_state_save(s->bytes, "crash-top");
        buffer_save(&c->specimen.backing, "crash-backing");
    }
    return -1;
}

static struct workload workload_on(const struct crash *c, struct platter_disk *disk,
                                   struct ledger *ledger, uint64_t seed)
{
    return (struct workload){.disk = disk,
                             .ledger = ledger,
                             .prng = {seed},
                             .sectors = c->specimen.spec->size / SECTOR,
                             .cluster = (c->specimen.cluster + SECTOR - 1) / SECTOR,
                             .scratch = c->scratch};
}

/* Who fills the image has what the guest sees where it stores nothing itself. */
struct beside {
    struct partial_shape shape;
    struct partial_specimen specimen;
    struct partial_fillers fillers;
};

static void beside_start(struct beside *b, const struct crash *c, struct platter_disk *disk)
{
    const struct specimen_spec *spec = c->specimen.spec;
    *b = (struct beside){
        .shape = {.size = spec->size, .unit = (uint32_t)c->specimen.cluster},
        .specimen = {.shape = &b->shape,
                     .below = {.bytes = c->specimen.content, .size = spec->size}},
        .fillers = {
            .specimen = &b->specimen, .disk = disk, .pause = 1000, .seed = c->options->seed}};
    partial_fillers_start(&b->fillers);
}

static int beside_stop(struct beside *b, struct platter_disk *disk, struct platter_error *err)
{
    int r = partial_fillers_stop(&b->fillers);
    disk->filling = NULL;
    return r < 0 ? fail(err, EIO, "%u fills failed", b->fillers.failed) : 0;
}

/* The workload itself, all of it logged. */
static int run_workload(struct crash *c)
{
    struct beside beside;
    struct platter_error err = {0};
    struct buffer file = buffer_copy(&c->specimen.top, c->specimen.top.size + (24 << 20));
    struct stream *top;
    struct platter_disk *disk;
    MUST(stream_buffer_open(&file, "top", true, &top, NULL) == 0);
    MUST(stream_log_open(c->log, top, &top, NULL) == 0);
    int r = specimen_open(&c->specimen, top, true, &disk, &err);
    if (r == 0) {
        struct workload w = workload_on(c, disk, c->ledger, c->options->seed);
        w.log = c->log;
        if (c->options->fill)
            beside_start(&beside, c, disk);
        workload_script(&w);
        for (unsigned i = 0; i < c->options->steps; i++)
            workload_step(&w);
        r = c->options->fill ? beside_stop(&beside, disk, &err) : 0;
        int closed = disk_close(disk, r ? NULL : &err);
        r = r ? r : closed;
        if (r == 0 && w.failed)
            r = fail(&err, EIO, "%u calls failed", w.failed);
    }
    buffer_free(&file);
    if (r != 0)
        fprintf(stderr, "%s: the workload: %s\n", c->specimen.spec->name, err.message);
    return r;
}

static int check_bytes(struct crash *c, const struct crash_state *s, const uint8_t *bytes,
                       uint64_t size)
{
    struct image_report report;
    image_check(c->specimen.spec->format, bytes, size, &report);
    c->leaked += report.leaks > 0;
    return report.errors ? complain(c, s, "the checker", report.first) : 0;
}

/* Reads all of an image in memory to c->content. */
static int read_content(struct crash *c, const struct crash_state *s, struct buffer *file)
{
    struct platter_error err = {0};
    struct stream *top;
    struct platter_disk *disk;
    MUST(stream_buffer_open(file, "top", false, &top, NULL) == 0);
    if (specimen_open(&c->specimen, top, false, &disk, &err) != 0)
        return complain(c, s, "open", err.message);
    int r = specimen_read(&c->specimen, disk, c->content, &err);
    disk_close(disk, NULL);
    return r ? complain(c, s, "read", err.message) : 0;
}

/* What a crash left must be a disk to go on with: writes to it, and looks at it all again. */
static int recover(struct crash *c, const struct crash_state *s)
{
    struct platter_error err = {0};
    struct buffer before = {.bytes = s->bytes->bytes, .size = s->bytes->size};
    struct buffer file = buffer_copy(&before, before.size + (2 << 20) + c->specimen.spec->size);
    struct stream *top;
    struct platter_disk *disk;
    char why[256];
    auto_free uint8_t *initial = malloc(c->specimen.spec->size);
    MUST(initial && stream_buffer_open(&file, "top", true, &top, NULL) == 0);
    memcpy(initial, c->content, c->specimen.spec->size);
    struct ledger *ledger = ledger_new(c->specimen.spec->size / SECTOR, initial, 4096);
    int r = specimen_open(&c->specimen, top, true, &disk, &err);
    if (r == 0) {
        struct workload w = workload_on(c, disk, ledger, s->seed + s->position);
        for (unsigned i = 0; i < RECOVERY_STEPS; i++)
            workload_step(&w);
        r = workload_flush(&w);
        if (w.failed)
            r = fail(&err, EIO, "%u writes after the crash failed", w.failed);
        if (disk_close(disk, r ? NULL : &err) != 0)
            r = -1;
    }
    if (r != 0)
        r = complain(c, s, "going on", err.message);
    if (r == 0)
        r = check_bytes(c, s, file.bytes, file.size);
    if (r == 0)
        r = read_content(c, s, &file);
    if (r == 0 && !ledger_allows(ledger, c->content, SIZE_MAX, why, sizeof why))
        r = complain(c, s, "content after going on", why);
    ledger_free(ledger);
    buffer_free(&file);
    return r;
}

/* The file to open for one that was saved as "top". */
static char *main_file(const struct crash *c)
{
    const struct specimen_spec *spec = c->specimen.spec;
    if (!spec->esx)
        return scratch_path("top");
    char *path = scratch_path("descriptor");
    auto_free char *text =
        esx_descriptor(spec->esx, spec->size / SECTOR, "top", spec->backing ? "backing" : NULL,
                       spec->backing ? esx_cid_of(&c->specimen.backing) : 0);
    MUST(text);
    struct buffer b = {.bytes = (uint8_t *)text, .size = strlen(text)};
    buffer_save(&b, path);
    return path;
}

/* The check must find what a crash may leave, and no more; a repair takes nothing away that was
 * there. */
static int mend(struct crash *c, const struct crash_state *s)
{
    struct buffer before = {.bytes = s->bytes->bytes, .size = s->bytes->size};
    struct buffer file = buffer_copy(&before, before.size + (2 << 20));
    struct platter_check_result result = {0};
    struct platter_error err = {0};
    struct stream *top;
    char why[256];
    MUST(stream_buffer_open(&file, "top", true, &top, NULL) == 0);
    int r = damage_check(top, true, &result, &err);
    if (r == 0) {
        MUST(stream_buffer_open(&file, "top", false, &top, NULL) == 0);
        r = damage_check(top, false, &result, &err);
    }
    if (r == 0 && (result.corruptions || result.check_errors))
        r = fail(&err, EIO, "it is not clean after a repair");
    if (r != 0)
        r = complain(c, s, "repair", err.message);
    if (r == 0)
        r = check_bytes(c, s, file.bytes, file.size);
    if (r == 0)
        r = read_content(c, s, &file);
    if (r == 0 && !ledger_allows(c->ledger, c->content, s->position, why, sizeof why))
        r = complain(c, s, "content after a repair", why);
    buffer_free(&file);
    return r;
}

/* qemu-img must find leaks at worst (exit 3), and read the same. */
static int ask_qemu(struct crash *c, const struct crash_state *s)
{
    const char *format = c->specimen.spec->format;
    auto_free char *saved = scratch_path("top");
    auto_free char *flat = scratch_path("flat");
    MUST(log_state_save(s->bytes, saved) == 0);
    auto_free char *top = main_file(c);
    char why[256];
    bool checks = strcmp(format, "raw") != 0 && strcmp(format, "qcow") != 0;
    if (checks && run_command(3, "qemu-img check -f %s '%s'", format, top) % 3)
        return complain(c, s, "qemu-img check", "is not content");
    if (run_command(0, "qemu-img convert -f %s -O raw '%s' '%s'", format, top, flat) != 0)
        return complain(c, s, "qemu-img convert", "cannot read it");
    struct buffer content = buffer_load(flat, 0);
    bool good = content.size == c->specimen.spec->size &&
                ledger_allows(c->ledger, content.bytes, s->position, why, sizeof why);
    buffer_free(&content);
    return good ? 0 : complain(c, s, "content by qemu-img", why);
}

static int judge(struct crash *c, const struct crash_state *s)
{
    char why[256];
    struct buffer file = {.bytes = s->bytes->bytes, .size = s->bytes->size};
    unsigned number = c->judged++;
    int r = check_bytes(c, s, s->bytes->bytes, s->bytes->size);
    if (r == 0)
        r = read_content(c, s, &file);
    if (r == 0 && !ledger_allows(c->ledger, c->content, s->position, why, sizeof why))
        r = complain(c, s, "content", why);
    if (r == 0 && number % 8 == 0)
        r = recover(c, s);
    bool leaks = strcmp(c->specimen.spec->format, "vmdk") == 0 ||
                 strcmp(c->specimen.spec->format, "qcow") == 0;
    if (r == 0 && number % 4 == 0 && leaks)
        r = mend(c, s);
    if (r == 0 && number % 128 == 0 && !c->specimen.spec->key)
        r = ask_qemu(c, s);
    return r;
}

/* A state that was met since the last flush of the guest need not be judged again: more of what may
 * be there has begun since, and nothing more is settled. */
static bool is_new(struct crash *c, size_t position)
{
    uint32_t flush = ledger_last_flush(c->ledger, position);
    return seen_add(&c->seen, seen_hash(c->state.bytes, c->state.size, flush));
}

static int judge_position(struct crash *c, size_t position, unsigned subsets)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i <= subsets; i++) {
        struct crash_state s = {
            .position = position, .subset = i > 0, .seed = i, .bytes = &c->state};
        if (i)
            write_log_crash(c->log, 0, position, c->options->seed * 1000 + i, &c->state);
        else
            write_log_prefix(c->log, 0, position, &c->state);
        c->states++;
        if (is_new(c, position))
            r = judge(c, &s);
    }
    return r;
}

/* Every position and one subset at least, more subsets where the log is short; where it is longer
 * than the number of states asked for allows, evenly spread positions. */
static int judge_all(struct crash *c)
{
    size_t n = write_log_length(c->log), each = c->options->states / (n + 1);
    size_t step = each >= 2 ? 1 : 2 * n / c->options->states + 1;
    int r = 0;
    for (size_t position = 0; r == 0 && position <= n; position += step)
        r = judge_position(c, position, each >= 2 ? (unsigned)each - 1 : 1);
    if (r == 0)
        printf("%-28s %6zu log entries, %6u states, %6u of them distinct, %6u with leaks\n",
               c->specimen.spec->name, n, c->states, c->judged, c->leaked);
    fflush(stdout);
    return r;
}

static int crash_specimen(const struct specimen_spec *spec, const struct crash_options *options)
{
    struct crash c = {.options = options, .specimen = specimen_make(spec), .log = write_log_new()};
    c.ledger = ledger_new(spec->size / SECTOR, c.specimen.content, MAX_OPS);
    c.content = malloc(spec->size);
    c.scratch = malloc(spec->size);
    MUST(c.log && c.content && c.scratch);
    int r = run_workload(&c);
    if (r == 0)
        r = judge_all(&c);
    write_log_free(c.log);
    log_state_free(&c.state);
    seen_free(&c.seen);
    ledger_free(c.ledger);
    free(c.content);
    free(c.scratch);
    specimen_free(&c.specimen);
    return r;
}

static bool wanted(const char *name, char **names)
{
    if (!*names)
        return true;
    for (; *names; names++) {
        if (strncmp(name, *names, strlen(*names)) == 0)
            return true;
    }
    return false;
}

static char **parse(int argc, char **argv, struct crash_options *options)
{
    static const struct option names[] = {
        {"seed", required_argument, NULL, 's'},   {"steps", required_argument, NULL, 'n'},
        {"states", required_argument, NULL, 'c'}, {"fill", no_argument, NULL, 'f'},
        {"keep", no_argument, NULL, 'k'},         {0}};
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (option == 's')
            options->seed = strtoull(optarg, NULL, 0);
        else if (option == 'n')
            options->steps = (unsigned)strtoul(optarg, NULL, 0);
        else if (option == 'c')
            options->states = (unsigned)strtoul(optarg, NULL, 0);
        else if (option == 'f')
            options->fill = true;
        else if (option == 'k')
            options->keep = true;
        else
            exit(2);
    }
    return argv + optind;
}

int main(int argc, char **argv)
{
    struct crash_options options = {.seed = 1, .steps = 60, .states = 1000};
    char **names = parse(argc, argv, &options);
    unsigned failed = 0, done = 0;
    for (const struct specimen_spec *spec = specimens; spec->name; spec++) {
        if (!wanted(spec->name, names))
            continue;
        failed += crash_specimen(spec, &options) != 0;
        done++;
    }
    if (done == 0)
        fprintf(stderr, "no specimen has such a name\n");
    return failed > 0 || done == 0;
}
