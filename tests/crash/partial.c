/* SPDX-License-Identifier: MIT */
/*
 * Cuts the power at every point of the life of a disk that is not complete. All that goes through
 * its two streams is logged, the bytes and the map, while a guest works on it and others flush, and
 * with --fill copy from below, beside the guest; every prefix of the log, and random subsets of
 * what was not flushed with torn sectors, is opened again. What the guest flushed must be there;
 * the rest is as it was below, or as it was written, and never what stood in that place before. The
 * disk must be fit to go on with.
 *
 * crash-partial [--seed N] [--steps N] [--states N] [--fill] [shape ...]
 */
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/memory.h"
#include "stream/inside.h"
#include "support/log.h"
#include "support/must.h"
#include "support/partial.h"
#include "support/seen.h"
#include "support/specimen.h"

enum { RECOVERY_STEPS = 12, MAX_OPS = 1 << 14, DATA = 0, MAP = 1 };

struct crash_options {
    uint64_t seed;
    unsigned steps;  /* random calls after the script */
    unsigned states; /* about as many per shape */
    bool fill;
};

struct crash {
    const struct crash_options *options;
    struct partial_specimen specimen;
    struct write_log *log;
    struct log_state data, map;
    struct seen seen;
    struct ledger *ledger; /* of the guest */
    uint8_t *content, *scratch;
    unsigned states, judged;
};

/* One state to look at. */
struct crash_state {
    size_t position;
    unsigned subset; /* 0: the prefix */
};

static int complain(const struct crash *c, const struct crash_state *s, const char *what,
                    const char *why)
{
    fprintf(stderr, "%s, seed %llu, after %zu log entries, subset %u: %s: %s\n",
            c->specimen.shape->name, (unsigned long long)c->options->seed, s->position, s->subset,
            what, why);
    return -1;
}

static struct workload workload_on(const struct crash *c, struct platter_disk *disk,
                                   struct ledger *ledger, uint64_t seed)
{
    return (struct workload){.disk = disk,
                             .ledger = ledger,
                             .prng = {seed},
                             .sectors = c->specimen.shape->size / SECTOR,
                             .cluster = c->specimen.shape->unit / SECTOR,
                             .scratch = c->scratch};
}

/* ---- a stream whose flushes take their time ----------------------------------------------------
 */

/* What comes to pass while one runs is what its order is about. */
struct slow {
    struct stream head;
    struct stream *base;
};

static struct stream *below(struct stream *s)
{
    return ((struct slow *)s)->base;
}

static int slow_pread(struct stream *s, void *buf, size_t len, hoff off, struct platter_error *err)
{
    return stream_pread(below(s), buf, len, off, err);
}

static int slow_pwrite(struct stream *s, const void *buf, size_t len, hoff off,
                       struct platter_error *err)
{
    return stream_pwrite(below(s), buf, len, off, err);
}

static int slow_flush(struct stream *s, struct platter_error *err)
{
    usleep(500);
    return stream_flush(below(s), err);
}

static int slow_zero(struct stream *s, hoff off, uint64_t len, unsigned flags,
                     struct platter_error *err)
{
    return stream_zero(below(s), off, len, flags, err);
}

static int slow_discard(struct stream *s, hoff off, uint64_t len, struct platter_error *err)
{
    return stream_discard(below(s), off, len, err);
}

static int slow_size(struct stream *s, uint64_t *ret, struct platter_error *err)
{
    return stream_size(below(s), ret, err);
}

static void slow_close(struct stream *s)
{
    stream_close(below(s));
}

static const struct stream_ops slow_ops = {.name = "slow",
                                           .pread = slow_pread,
                                           .pwrite = slow_pwrite,
                                           .flush = slow_flush,
                                           .zero = slow_zero,
                                           .discard = slow_discard,
                                           .size = slow_size,
                                           .close = slow_close};

/* Over a buffer, and logged. */
static struct stream *open_logged(struct crash *c, struct buffer *b, const char *name)
{
    struct slow *slow = stream_new(sizeof *slow, &slow_ops, name, NULL);
    struct stream *s;
    MUST(slow && stream_buffer_open(b, name, true, &slow->base, NULL) == 0);
    slow->head.writable = true;
    MUST(stream_log_open(c->log, &slow->head, &s, NULL) == 0);
    return s;
}

/* ---- the workload ------------------------------------------------------------------------------
 */

/* Flushes beside the guest, of which no ledger knows: they must not make durable too much. */
struct beside {
    pthread_t thread;
    struct platter_disk *disk;
    atomic_bool over;
    int r;
};

static void *flush_beside(void *opaque)
{
    struct beside *b = opaque;
    while (b->r == 0 && !atomic_load(&b->over)) {
        b->r = disk_flush(b->disk, NULL);
        usleep(300);
    }
    return NULL;
}

static int work(struct crash *c, struct platter_disk *disk, struct platter_error *err)
{
    struct workload w = workload_on(c, disk, c->ledger, c->options->seed);
    struct beside flusher = {.disk = disk};
    struct partial_fillers fillers = {
        .specimen = &c->specimen, .disk = disk, .pause = 1000, .seed = c->options->seed};
    w.log = c->log;
    if (c->options->fill)
        partial_fillers_start(&fillers);
    MUST(pthread_create(&flusher.thread, NULL, flush_beside, &flusher) == 0);
    workload_script(&w);
    for (unsigned i = 0; i < c->options->steps; i++)
        workload_step(&w);
    atomic_store(&flusher.over, true);
    pthread_join(flusher.thread, NULL);
    if (c->options->fill && partial_fillers_stop(&fillers) != 0)
        return fail(err, EIO, "%u fills failed", fillers.failed);
    disk->filling = NULL;
    return w.failed || flusher.r ? fail(err, EIO, "%u calls failed", w.failed) : 0;
}

static int run_workload(struct crash *c)
{
    struct platter_error err = {0};
    struct buffer data = buffer_copy(&c->specimen.data, 0), map = buffer_copy(&c->specimen.map, 0);
    struct stream *first = open_logged(c, &data, "data"), *second = open_logged(c, &map, "map");
    struct platter_disk *disk;
    int r = partial_specimen_open(&c->specimen, first, second, true, &disk, &err);
    if (r == 0) {
        r = work(c, disk, &err);
        int closed = disk_close(disk, r ? NULL : &err);
        r = r ? r : closed;
    }
    buffer_free(&data);
    buffer_free(&map);
    if (r != 0)
        fprintf(stderr, "%s: the workload: %s\n", c->specimen.shape->name, err.message);
    return r;
}

/* ---- looking at what is left -------------------------------------------------------------------
 */

static struct buffer buffer_over(const struct log_state *state)
{
    return (struct buffer){.bytes = state->bytes, .size = state->size, .capacity = state->size};
}

static int read_content(struct crash *c, const struct crash_state *s, struct buffer *data,
                        struct buffer *map)
{
    struct platter_error err = {0};
    struct platter_disk *disk;
    if (partial_specimen_look(&c->specimen, data, map, false, &disk, &err) != 0)
        return complain(c, s, "open", err.message);
    int r = disk_read(disk, c->content, c->specimen.shape->size, 0, &err);
    disk_close(disk, NULL);
    return r ? complain(c, s, "read", err.message) : 0;
}

/* Some more work, and a look at all of it after that. */
static int recover_on(struct crash *c, const struct crash_state *s, struct buffer *data,
                      struct buffer *map)
{
    struct platter_error err = {0};
    struct platter_disk *disk;
    char why[256];
    auto_free uint8_t *initial = malloc(c->specimen.shape->size);
    MUST(initial);
    memcpy(initial, c->content, c->specimen.shape->size);
    struct ledger *ledger = ledger_new(c->specimen.shape->size / SECTOR, initial, 4096);
    int r = partial_specimen_look(&c->specimen, data, map, true, &disk, &err);
    if (r == 0) {
        struct workload w = workload_on(c, disk, ledger, s->subset + s->position);
        for (unsigned i = 0; i < RECOVERY_STEPS; i++)
            workload_step(&w);
        workload_flush(&w);
        r = disk_close(disk, &err);
        if (r == 0 && w.failed)
            r = fail(&err, EIO, "%u calls after the crash failed", w.failed);
    }
    r = r ? complain(c, s, "going on", err.message) : read_content(c, s, data, map);
    if (r == 0 && !ledger_allows(ledger, c->content, SIZE_MAX, why, sizeof why))
        r = complain(c, s, "content after going on", why);
    ledger_free(ledger);
    return r;
}

static int recover(struct crash *c, const struct crash_state *s)
{
    struct buffer data = buffer_over(&c->data), map = buffer_over(&c->map);
    data = buffer_copy(&data, 0);
    map = buffer_copy(&map, 0);
    int r = recover_on(c, s, &data, &map);
    buffer_free(&data);
    buffer_free(&map);
    return r;
}

static int judge(struct crash *c, const struct crash_state *s)
{
    char why[256];
    struct buffer data = buffer_over(&c->data), map = buffer_over(&c->map);
    int r = read_content(c, s, &data, &map);
    if (r == 0 && !ledger_allows(c->ledger, c->content, s->position, why, sizeof why))
        r = complain(c, s, "content", why);
    if (r == 0 && c->judged++ % 8 == 0)
        r = recover(c, s);
    return r;
}

/* As in crash.c: what was met since the last flush need not be judged again. */
static bool is_new(struct crash *c, size_t position)
{
    uint64_t hash = seen_hash(c->map.bytes, c->map.size, ledger_last_flush(c->ledger, position));
    return seen_add(&c->seen, seen_hash(c->data.bytes, c->data.size, hash));
}

static int judge_position(struct crash *c, size_t position, unsigned subsets)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i <= subsets; i++) {
        struct crash_state s = {.position = position, .subset = i};
        uint64_t seed = c->options->seed * 1000 + i;
        if (i) {
            write_log_crash(c->log, DATA, position, seed, &c->data);
            write_log_crash(c->log, MAP, position, seed, &c->map);
        } else {
            write_log_prefix(c->log, DATA, position, &c->data);
            write_log_prefix(c->log, MAP, position, &c->map);
        }
        c->states++;
        if (is_new(c, position))
            r = judge(c, &s);
    }
    return r;
}

static int judge_all(struct crash *c)
{
    size_t n = write_log_length(c->log), each = c->options->states / (n + 1);
    size_t step = each >= 2 ? 1 : 2 * n / c->options->states + 1;
    int r = 0;
    for (size_t position = 0; r == 0 && position <= n; position += step)
        r = judge_position(c, position, each >= 2 ? (unsigned)each - 1 : 1);
    if (r == 0)
        printf("%-12s %6zu log entries, %6u states, %6u of them distinct\n",
               c->specimen.shape->name, n, c->states, c->judged);
    fflush(stdout);
    return r;
}

static int crash_shape(const struct partial_shape *shape, const struct crash_options *options)
{
    struct crash c = {
        .options = options, .specimen = partial_specimen_make(shape), .log = write_log_new()};
    c.ledger = ledger_new(shape->size / SECTOR, c.specimen.content, MAX_OPS);
    c.content = malloc(shape->size);
    c.scratch = malloc(shape->size);
    MUST(c.log && c.content && c.scratch);
    int r = run_workload(&c);
    if (r == 0)
        r = judge_all(&c);
    write_log_free(c.log);
    log_state_free(&c.data);
    log_state_free(&c.map);
    seen_free(&c.seen);
    ledger_free(c.ledger);
    free(c.content);
    free(c.scratch);
    partial_specimen_free(&c.specimen);
    return r;
}

/* ---- the command line --------------------------------------------------------------------------
 */

static char **parse(int argc, char **argv, struct crash_options *options)
{
    static const struct option names[] = {{"seed", required_argument, NULL, 's'},
                                          {"steps", required_argument, NULL, 'n'},
                                          {"states", required_argument, NULL, 'c'},
                                          {"fill", no_argument, NULL, 'f'},
                                          {0}};
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (option == '?')
            exit(2);
        unsigned long long value = optarg ? strtoull(optarg, NULL, 0) : 1;
        if (option == 'f')
            options->fill = true;
        else if (option == 's')
            options->seed = value;
        else if (option == 'n')
            options->steps = (unsigned)value;
        else
            options->states = (unsigned)value;
    }
    return argv + optind;
}

int main(int argc, char **argv)
{
    struct crash_options options = {.seed = 1, .steps = 80, .states = 1000};
    char **names = parse(argc, argv, &options);
    unsigned failed = 0, done = 0;
    for (const struct partial_shape *shape = partial_shapes; shape->name; shape++) {
        bool wanted = *names == NULL;
        for (char **name = names; *name; name++)
            wanted |= strcmp(*name, shape->name) == 0;
        if (!wanted)
            continue;
        failed += crash_shape(shape, &options) != 0;
        done++;
    }
    return failed > 0 || done == 0;
}
