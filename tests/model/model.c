/* SPDX-License-Identifier: MIT */
/*
 * Seeded random calls from several threads on a disk and on a flat array beside it. Threads own
 * stripes of the disk that do not line up with clusters, so that neighbours meet inside of one; now
 * and then one call has the whole disk for itself. After each round the disk is closed, checked by
 * a checker of our own and by qemu-img, opened again and compared with the array byte by byte.
 *
 * model [--seed N] [--steps N] [--rounds N] [--threads N] [case ...]
 */
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "model/cases.h"
#include "support/buffer.h"
#include "support/imagecheck.h"
#include "support/must.h"
#include "support/process.h"

enum { MAX_THREADS = 16 };

struct model_options {
    uint64_t seed;
    unsigned steps;  /* calls a round, of all threads */
    unsigned rounds; /* each ends with close, check, open, compare */
    unsigned threads;
};

struct model {
    const struct model_case *of;
    const struct model_options *options;
    char *path, *flat_path;
    uint8_t *flat;
    uint64_t size, stripe;
    struct platter_disk *disk;
    pthread_rwlock_t whole; /* held shared by calls in one stripe, else exclusively */
    atomic_bool failed;
};

struct worker {
    struct model *m;
    unsigned number;
    struct prng prng;
    uint8_t *bytes; /* room for the whole disk */
    char what[128]; /* the call that runs */
};

static int complain(struct worker *w, const char *why)
{
    atomic_store(&w->m->failed, true);
    fprintf(stderr, "%s, seed %llu: %s: %s\n", w->m->of->name,
            (unsigned long long)w->m->options->seed, w->what, why);
    return -1;
}

static int complain_at(struct worker *w, const char *why, uint64_t off)
{
    char text[128];
    snprintf(text, sizeof text, "%s at %llu", why, (unsigned long long)off);
    return complain(w, text);
}

static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t n)
{
    uint64_t i = 0;
    while (i < n && a[i] == b[i])
        i++;
    return i;
}

/* ---- one call each: the range belongs to the worker ---------------------------------------------
 */

static int call_read(struct worker *w, uint64_t off, uint64_t len)
{
    struct platter_error err = {0};
    if (platter_pread(w->m->disk, w->bytes, len, off, &err) != 0)
        return complain(w, err.message);
    uint64_t same = first_difference(w->bytes, w->m->flat + off, len);
    return same == len ? 0 : complain_at(w, "differs", off + same);
}

static int call_write(struct worker *w, uint64_t off, uint64_t len)
{
    struct platter_error err = {0};
    uint64_t word = prng_next(&w->prng);
    for (uint64_t i = 0; i < len; i++)
        w->m->flat[off + i] = (uint8_t)(word >> i % 8 * 8);
    return platter_pwrite(w->m->disk, w->m->flat + off, len, off, &err) == 0
               ? 0
               : complain(w, err.message);
}

static int call_zero(struct worker *w, uint64_t off, uint64_t len, unsigned flags)
{
    struct platter_error err = {0};
    memset(w->m->flat + off, 0, len);
    return platter_zero(w->m->disk, off, len, flags, &err) == 0 ? 0 : complain(w, err.message);
}

/* After a discard each byte is what it was, or zero, and stays what it is. */
static int call_discard(struct worker *w, uint64_t off, uint64_t len)
{
    struct platter_error err = {0};
    if (platter_discard(w->m->disk, off, len, &err) != 0 ||
        platter_pread(w->m->disk, w->bytes, len, off, &err) != 0)
        return complain(w, err.message);
    for (uint64_t i = 0; i < len; i++) {
        if (w->bytes[i] != 0 && w->bytes[i] != w->m->flat[off + i])
            return complain_at(w, "neither the old byte nor zero", off + i);
    }
    memcpy(w->m->flat + off, w->bytes, len);
    return 0;
}

static int call_flush(struct worker *w)
{
    struct platter_error err = {0};
    return platter_flush(w->m->disk, &err) == 0 ? 0 : complain(w, err.message);
}

/* What an extent claims must be so: zeros, or the bytes at that place of the image's file. */
static int check_extent(struct worker *w, const struct platter_extent *e, uint64_t off)
{
    const uint8_t *flat = w->m->flat + off;
    if (e->flags & PLATTER_EXTENT_ZERO)
        return is_zero(flat, e->length) ? 0 : complain_at(w, "said to be zero", off);
    if (!(e->flags & PLATTER_EXTENT_DATA) || !(e->flags & PLATTER_EXTENT_OFFSET) || e->depth > 0)
        return 0;
    memset(w->bytes, 0, e->length);
    int file = open(e->file, O_RDONLY | O_CLOEXEC);
    MUST(file >= 0 && pread(file, w->bytes, e->length, (off_t)e->host_offset) >= 0);
    close(file);
    uint64_t same = first_difference(w->bytes, flat, e->length);
    return same == e->length ? 0 : complain_at(w, "said to be stored elsewhere", off + same);
}

static int call_map(struct worker *w, uint64_t off, uint64_t len)
{
    struct platter_error err = {0};
    int r = 0;
    for (uint64_t end = off + len; r == 0 && off < end;) {
        struct platter_extent e = {.size = sizeof e};
        if (platter_map(w->m->disk, off, end - off, &e, &err) != 0)
            return complain(w, err.message);
        if (e.length == 0 || e.length > end - off)
            return complain_at(w, "an extent of impossible length", off);
        r = check_extent(w, &e, off);
        off += e.length;
    }
    return r;
}

static int call_any(struct worker *w, uint64_t off, uint64_t len)
{
    static const char *const names[] = {"write", "read",  "zero",   "zero and unmap",
                                        "map",   "flush", "discard"};
    static const unsigned upto[] = {45, 65, 73, 80, 87, 89, 100};
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
        return call_zero(w, off, len, 0);
    case 3:
        return call_zero(w, off, len, PLATTER_ZERO_UNMAP);
    case 4:
        return call_map(w, off, len);
    case 5:
        return call_flush(w);
    default:
        return call_discard(w, off, len);
    }
}

/* ---- threads ------------------------------------------------------------------------------------
 */

static uint64_t pick_length(struct worker *w, uint64_t most)
{
    uint64_t unit = w->m->of->cluster, len;
    if (prng_chance(&w->prng, 40))
        len = 1 + prng_below(&w->prng, 3000);
    else
        len = unit * (1 + prng_below(&w->prng, 4));
    return min_u64(len, most);
}

/* Inside one of our stripes; the last may be short. */
static int step_in_stripe(struct worker *w)
{
    struct model *m = w->m;
    uint64_t stripes = div_up(m->size, m->stripe), threads = m->options->threads;
    uint64_t mine = div_up(stripes - w->number, threads);
    uint64_t start = (w->number + threads * prng_below(&w->prng, mine)) * m->stripe;
    uint64_t room = min_u64(m->stripe, m->size - start);
    uint64_t skip = prng_below(&w->prng, room);
    if (prng_chance(&w->prng, 50))
        skip = round_down(skip, SECTOR);
    pthread_rwlock_rdlock(&m->whole);
    int r = call_any(w, start + skip, pick_length(w, room - skip));
    pthread_rwlock_unlock(&m->whole);
    return r;
}

static int step_anywhere(struct worker *w)
{
    struct model *m = w->m;
    uint64_t off = prng_below(&w->prng, m->size);
    if (prng_chance(&w->prng, 70))
        off = round_down(off, m->of->cluster);
    uint64_t len = 1 + prng_below(&w->prng, m->size / 4);
    pthread_rwlock_wrlock(&m->whole);
    int r = call_any(w, off, min_u64(len, m->size - off));
    pthread_rwlock_unlock(&m->whole);
    return r;
}

static void *work(void *opaque)
{
    struct worker *w = opaque;
    struct model *m = w->m;
    unsigned steps = m->options->steps / m->options->threads;
    for (unsigned i = 0; i < steps && !atomic_load(&m->failed); i++) {
        if (prng_chance(&w->prng, 4))
            step_anywhere(w);
        else
            step_in_stripe(w);
    }
    return NULL;
}

static void run_threads(struct model *m, unsigned round)
{
    pthread_t threads[MAX_THREADS];
    struct worker workers[MAX_THREADS];
    for (unsigned i = 0; i < m->options->threads; i++) {
        workers[i] = (struct worker){.m = m, .number = i, .bytes = malloc(m->size)};
        workers[i].prng.state = m->options->seed << 32 ^ round << 8 ^ i;
        MUST(workers[i].bytes);
        MUST(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
    }
    for (unsigned i = 0; i < m->options->threads; i++) {
        pthread_join(threads[i], NULL);
        free(workers[i].bytes);
    }
}

/* ---- rounds -------------------------------------------------------------------------------------
 */

static int open_disk(struct model *m)
{
    struct platter_error err = {0};
    struct platter_open_options options = {.size = sizeof options,
                                           .flags = PLATTER_OPEN_WRITE,
                                           .format = m->of->format,
                                           .memory_limit = m->of->memory_limit,
                                           .backing_format = m->of->backing,
                                           .secret = m->of->key ? case_key : NULL,
                                           .secret_opaque = (void *)(uintptr_t)m->of};
    if (platter_open(m->path, &options, &m->disk, &err) != 0) {
        fprintf(stderr, "%s: open: %s\n", m->of->name, err.message);
        return -1;
    }
    return 0;
}

static int close_disk(struct model *m)
{
    struct platter_error err = {0};
    if (platter_close(TAKE(m->disk), &err) == 0)
        return 0;
    fprintf(stderr, "%s: close: %s\n", m->of->name, err.message);
    return -1;
}

/* Nothing wrong and, since the image was closed in peace, nothing leaked. */
static int check_image(struct model *m)
{
    /* They keep no list of what is free. */
    bool leak_is_fine = strcmp(m->of->format, "vmdk") == 0 || strcmp(m->of->format, "qcow") == 0;
    for (unsigned n = 0;; n++) {
        auto_free char *path = case_data(m->of, m->path, n);
        if (!path)
            break;
        struct image_report report;
        struct buffer b = buffer_load(path, 0);
        image_check(m->of->format, b.bytes, b.size, &report);
        buffer_free(&b);
        if (report.errors || (report.leaks && !leak_is_fine)) {
            fprintf(stderr, "%s: %s\n", path, report.first);
            return -1;
        }
    }
    if (strcmp(m->of->format, "raw") == 0 || strcmp(m->of->format, "qcow") == 0)
        return 0;
    return run_command(0, "qemu-img check -f %s '%s'", m->of->format, m->path);
}

static int compare_all(struct model *m)
{
    struct worker w = {.m = m, .bytes = malloc(m->size)};
    MUST(w.bytes);
    snprintf(w.what, sizeof w.what, "after opening it again");
    int r = call_read(&w, 0, m->size);
    free(w.bytes);
    return r;
}

static int run_round(struct model *m, unsigned round)
{
    run_threads(m, round);
    if (close_disk(m) != 0 || atomic_load(&m->failed) || check_image(m) != 0)
        return -1;
    return open_disk(m) == 0 && compare_all(m) == 0 ? 0 : -1;
}

/* qemu-img must see the same disk. */
static int compare_by_qemu(struct model *m)
{
    struct buffer flat = {.bytes = m->flat, .size = m->size};
    buffer_save(&flat, m->flat_path);
    if (m->of->key)
        return run_command(0,
                           "qemu-img compare --object 'secret,id=s,data=%s' --image-opts "
                           "driver=raw,file.filename='%s' driver=qcow,file.filename='%s',"
                           "encrypt.format=aes,encrypt.key-secret=s",
                           m->of->key, m->flat_path, m->path);
    return run_command(0, "qemu-img compare -f raw -F %s '%s' '%s'", m->of->format, m->flat_path,
                       m->path);
}

static int run_case(const struct model_case *of, const struct model_options *options)
{
    struct model m = {.of = of, .options = options, .size = of->size};
    m.path = scratch_path("model");
    m.flat_path = scratch_path("model.flat");
    m.flat = calloc(1, of->size);
    m.stripe = of->cluster + of->cluster / 2 + 700;
    MUST(m.flat && pthread_rwlock_init(&m.whole, NULL) == 0);
    case_make(of, m.path, m.flat);
    int r = open_disk(&m);
    if (r == 0)
        r = compare_all(&m);
    for (unsigned round = 0; r == 0 && round < options->rounds; round++)
        r = run_round(&m, round);
    if (m.disk && close_disk(&m) != 0)
        r = -1;
    if (r == 0 && !of->askew)
        r = compare_by_qemu(&m);
    printf("%-32s %s\n", of->name, r ? "FAILED" : "ok");
    fflush(stdout);
    pthread_rwlock_destroy(&m.whole);
    free(m.path);
    free(m.flat_path);
    free(m.flat);
    return r;
}

/* ---- the command line ---------------------------------------------------------------------------
 */

static bool wanted(const char *name, char **names)
{
    bool any = *names == NULL;
    for (; *names; names++)
        any |= strncmp(name, *names, strlen(*names)) == 0;
    return any;
}

static char **parse(int argc, char **argv, struct model_options *options)
{
    static const struct option names[] = {{"seed", required_argument, NULL, 's'},
                                          {"steps", required_argument, NULL, 'n'},
                                          {"rounds", required_argument, NULL, 'r'},
                                          {"threads", required_argument, NULL, 't'},
                                          {0}};
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (option == '?')
            exit(2);
        unsigned long long value = strtoull(optarg, NULL, 0);
        if (option == 's')
            options->seed = value;
        else if (option == 'n')
            options->steps = (unsigned)value;
        else if (option == 'r')
            options->rounds = (unsigned)value;
        else if (option == 't')
            options->threads = (unsigned)min_u64(value, MAX_THREADS);
    }
    return argv + optind;
}

int main(int argc, char **argv)
{
    struct model_options options = {.seed = 1, .steps = 800, .rounds = 3, .threads = 4};
    char **names = parse(argc, argv, &options);
    unsigned failed = 0, done = 0;
    for (const struct model_case *of = model_cases; of->name; of++) {
        if (!wanted(of->name, names))
            continue;
        failed += run_case(of, &options) != 0;
        done++;
    }
    return failed > 0 || done == 0;
}
