/* SPDX-License-Identifier: MIT */
/*
 * Seeded random calls from several threads on a disk that is not complete, and on a flat array
 * beside it. Threads own stripes that do not line up with units, so that neighbours meet inside of
 * one. After each round the disk is closed and opened again: it must hold what the array does, and
 * still have every unit that it had. Soon it has them all, so this is done again with other seeds.
 *
 * With --fill it is filled from below at the same time, by others.
 *
 * model-partial [--seed N] [--seeds N] [--steps N] [--rounds N] [--fill] [shape ...]
 */
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "support/must.h"
#include "support/partial.h"
#include "support/prng.h"

enum { THREADS = 4, SECTOR = 512 };

struct model_options {
    uint64_t seed;
    unsigned seeds; /* how many, from that one on */
    unsigned steps; /* calls a round, of each thread */
    unsigned rounds;
    bool fill;
};

struct model {
    const struct model_options *options;
    uint64_t seed;
    struct partial_specimen specimen;
    struct buffer map_before; /* at the end of the last round */
    uint64_t size, stripe;
    struct platter_disk *disk;
    pthread_rwlock_t whole; /* held shared by calls in one stripe, else exclusively */
    atomic_bool failed;
};

struct worker {
    struct model *m;
    pthread_t thread;
    unsigned number;
    struct prng prng;
    uint8_t *bytes; /* room for the whole disk */
    char what[96];  /* the call that runs */
};

static int complain(struct worker *w, const char *why)
{
    atomic_store(&w->m->failed, true);
    fprintf(stderr, "%s, seed %llu: %s: %s\n", w->m->specimen.shape->name,
            (unsigned long long)w->m->seed, w->what, why);
    return -1;
}

/* ---- one call each: the range belongs to the worker --------------------------------------------
 */

static int call_read(struct worker *w, uint64_t off, uint64_t len)
{
    struct platter_error err = {0};
    if (disk_read(w->m->disk, w->bytes, len, off, &err) != 0)
        return complain(w, err.message);
    return memcmp(w->bytes, w->m->specimen.content + off, len) == 0 ? 0 : complain(w, "differs");
}

static int call_write(struct worker *w, uint64_t off, uint64_t len)
{
    struct platter_error err = {0};
    uint8_t *flat = w->m->specimen.content + off;
    uint64_t word = prng_next(&w->prng);
    for (uint64_t i = 0; i < len; i++)
        flat[i] = (uint8_t)(word >> i % 8 * 8);
    return disk_write(w->m->disk, flat, len, off, &err) == 0 ? 0 : complain(w, err.message);
}

static int call_zero(struct worker *w, uint64_t off, uint64_t len)
{
    struct platter_error err = {0};
    memset(w->m->specimen.content + off, 0, len);
    return disk_zero(w->m->disk, off, len, prng_chance(&w->prng, 50), &err) == 0
               ? 0
               : complain(w, err.message);
}

/* After a discard each byte is what it was, or zero, and stays what it is. */
static int call_discard(struct worker *w, uint64_t off, uint64_t len)
{
    struct platter_error err = {0};
    uint8_t *flat = w->m->specimen.content + off;
    if (disk_discard(w->m->disk, off, len, &err) != 0 ||
        disk_read(w->m->disk, w->bytes, len, off, &err) != 0)
        return complain(w, err.message);
    for (uint64_t i = 0; i < len; i++) {
        if (w->bytes[i] != 0 && w->bytes[i] != flat[i])
            return complain(w, "neither the old byte nor zero");
    }
    memcpy(flat, w->bytes, len);
    return 0;
}

/* What is there stands where it says; the rest is not said to be anywhere. */
static int call_map(struct worker *w, uint64_t off, uint64_t len)
{
    struct platter_error err = {0};
    for (uint64_t end = off + len; off < end;) {
        struct disk_extent x;
        if (disk_map(w->m->disk, off, end - off, &x, &err) != 0)
            return complain(w, err.message);
        if (x.e.len == 0 || x.e.len > end - off)
            return complain(w, "an extent of impossible length");
        const uint8_t *flat = w->m->specimen.content + off;
        if (x.e.kind == EXTENT_ZERO && !is_zero(flat, x.e.len))
            return complain(w, "said to be zero");
        if (x.e.kind == EXTENT_DATA &&
            (stream_pread(x.e.stream, w->bytes, x.e.len, x.e.off, &err) != 0 ||
             memcmp(w->bytes, flat, x.e.len) != 0))
            return complain(w, "said to be stored elsewhere");
        off += x.e.len;
    }
    return 0;
}

static int call_flush(struct worker *w)
{
    struct platter_error err = {0};
    return disk_flush(w->m->disk, &err) == 0 ? 0 : complain(w, err.message);
}

static int call_any(struct worker *w, uint64_t off, uint64_t len)
{
    static const char *const names[] = {"write", "read", "zero", "map", "flush", "discard"};
    static const unsigned upto[] = {45, 68, 78, 84, 92, 100};
    uint64_t dice = prng_below(&w->prng, 100);
    unsigned call = 0;
    while (dice >= upto[call])
        call++;
    snprintf(w->what, sizeof w->what, "%s of %llu + %llu", names[call], (unsigned long long)off,
             (unsigned long long)len);
    switch (call) {
    case 0:
        return call_write(w, off, len);
    case 1:
        return call_read(w, off, len);
    case 2:
        return call_zero(w, off, len);
    case 3:
        return call_map(w, off, len);
    case 4:
        return call_flush(w);
    default:
        return call_discard(w, off, len);
    }
}

/* ---- threads -----------------------------------------------------------------------------------
 */

static uint64_t pick_length(struct worker *w, uint64_t most)
{
    uint64_t unit = w->m->specimen.shape->unit;
    uint64_t len = prng_chance(&w->prng, 50) ? 1 + prng_below(&w->prng, 3000)
                                             : unit * (1 + prng_below(&w->prng, 4));
    return min_u64(len, most);
}

/* Inside one of our stripes; the last may be short. */
static void step_in_stripe(struct worker *w)
{
    struct model *m = w->m;
    uint64_t mine = div_up(div_up(m->size, m->stripe) - w->number, THREADS);
    uint64_t start = (w->number + THREADS * prng_below(&w->prng, mine)) * m->stripe;
    uint64_t room = min_u64(m->stripe, m->size - start), skip = prng_below(&w->prng, room);
    pthread_rwlock_rdlock(&m->whole);
    call_any(w, start + skip, pick_length(w, room - skip));
    pthread_rwlock_unlock(&m->whole);
}

static void step_anywhere(struct worker *w)
{
    struct model *m = w->m;
    uint64_t off = prng_below(&w->prng, m->size);
    if (prng_chance(&w->prng, 70))
        off = round_down(off, m->specimen.shape->unit);
    uint64_t len = 1 + prng_below(&w->prng, m->size / 8);
    pthread_rwlock_wrlock(&m->whole);
    call_any(w, off, min_u64(len, m->size - off));
    pthread_rwlock_unlock(&m->whole);
}

static void *work(void *opaque)
{
    struct worker *w = opaque;
    for (unsigned i = 0; i < w->m->options->steps && !atomic_load(&w->m->failed); i++) {
        if (prng_chance(&w->prng, 3))
            step_anywhere(w);
        else
            step_in_stripe(w);
    }
    return NULL;
}

static void run_threads(struct model *m, unsigned round)
{
    struct worker workers[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.m = m, .number = i, .bytes = malloc(m->size)};
        workers[i].prng.state = m->seed << 32 ^ round << 8 ^ i;
        MUST(workers[i].bytes);
        MUST(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        free(workers[i].bytes);
    }
}

/* ---- rounds ------------------------------------------------------------------------------------
 */

/* No bit is ever taken back. */
static int check_map(struct model *m)
{
    const struct buffer *map = &m->specimen.map;
    for (uint64_t i = 0; i < map->size; i++) {
        bool checksum = i % SECTOR >= SECTOR - 4;
        if (!checksum && (m->map_before.bytes[i] & ~map->bytes[i])) {
            fprintf(stderr, "%s: byte %llu of the map lost a bit\n", m->specimen.shape->name,
                    (unsigned long long)i);
            return -1;
        }
    }
    memcpy(m->map_before.bytes, map->bytes, map->size);
    return 0;
}

static int run_round(struct model *m, unsigned round)
{
    struct platter_error err = {0};
    struct worker w = {.m = m, .bytes = malloc(m->size), .what = "after opening it again"};
    struct partial_fillers fillers = {
        .specimen = &m->specimen, .pause = 100, .seed = m->seed << 8 | round};
    MUST(w.bytes);
    int r = partial_specimen_look(&m->specimen, &m->specimen.data, &m->specimen.map, true, &m->disk,
                                  &err);
    if (r == 0) {
        call_read(&w, 0, m->size);
        fillers.disk = m->disk;
        if (m->options->fill)
            partial_fillers_start(&fillers);
        run_threads(m, round);
        if (m->options->fill && partial_fillers_stop(&fillers) != 0)
            complain(&w, "a fill failed");
        r = disk_close(TAKE(m->disk), &err);
    }
    free(w.bytes);
    if (r != 0)
        fprintf(stderr, "%s: %s\n", m->specimen.shape->name, err.message);
    return r == 0 && !atomic_load(&m->failed) ? check_map(m) : -1;
}

static int run_seed(const struct partial_shape *shape, const struct model_options *options,
                    uint64_t seed)
{
    struct model m = {.options = options,
                      .seed = seed,
                      .specimen = partial_specimen_make(shape),
                      .size = shape->size};
    m.stripe = shape->unit + shape->unit / 2 + 700;
    m.map_before = buffer_copy(&m.specimen.map, 0);
    MUST(pthread_rwlock_init(&m.whole, NULL) == 0);
    int r = 0;
    for (unsigned round = 0; r == 0 && round <= options->rounds; round++)
        r = run_round(&m, round);
    pthread_rwlock_destroy(&m.whole);
    buffer_free(&m.map_before);
    partial_specimen_free(&m.specimen);
    return r;
}

static int run_shape(const struct partial_shape *shape, const struct model_options *options)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < options->seeds; i++)
        r = run_seed(shape, options, options->seed + i);
    printf("%-12s %s\n", shape->name, r ? "FAILED" : "ok");
    fflush(stdout);
    return r;
}

static char **parse(int argc, char **argv, struct model_options *options)
{
    static const struct option names[] = {
        {"seed", required_argument, NULL, 's'},  {"seeds", required_argument, NULL, 'm'},
        {"steps", required_argument, NULL, 'n'}, {"rounds", required_argument, NULL, 'r'},
        {"fill", no_argument, NULL, 'f'},        {0}};
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (option == '?')
            exit(2);
        unsigned long long value = optarg ? strtoull(optarg, NULL, 0) : 1;
        if (option == 'f')
            options->fill = true;
        else if (option == 's')
            options->seed = value;
        else if (option == 'm')
            options->seeds = (unsigned)value;
        else if (option == 'n')
            options->steps = (unsigned)value;
        else
            options->rounds = (unsigned)value;
    }
    return argv + optind;
}

int main(int argc, char **argv)
{
    struct model_options options = {.seed = 1, .seeds = 20, .steps = 60, .rounds = 6};
    char **names = parse(argc, argv, &options);
    unsigned failed = 0, done = 0;
    for (const struct partial_shape *shape = partial_shapes; shape->name; shape++) {
        bool wanted = *names == NULL;
        for (char **name = names; *name; name++)
            wanted |= strcmp(*name, shape->name) == 0;
        if (!wanted)
            continue;
        failed += run_shape(shape, &options) != 0;
        done++;
    }
    return failed > 0 || done == 0;
}
