/* SPDX-License-Identifier: MIT */
/* platter bench: how long requests of one size take, so many at a time, as qemu-img bench. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"

enum { COUNT = 75000, DEPTH = 64, BUFFER = 4096, MAX_DEPTH = 1024 };

struct bench {
    struct platter_disk *disk;
    uint64_t count, depth, offset, buffer, step, flush_interval, pattern;
    bool write, random, drain;
    uint64_t size; /* of the disk */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    atomic_uint_fast64_t next; /* number of the request that is sent next */
    uint64_t in_flight;
    uint64_t flushed; /* requests before this number are flushed, or a flush of them runs */
    bool flushing;
    atomic_int code; /* of the first that failed */
    struct platter_error err;
};

/* ---- arguments ------------------------------------------------------------------------------- */

/* A number, in decimal or as C has it; `text` NULL leaves the default. */
static int number(const char *text, const char *what, uint64_t most, uint64_t *ret)
{
    char *end;
    if (!text)
        return 0;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 0);
    if (!isdigit((unsigned char)text[0]) || *end || errno || value > most)
        return usage_error(&verb_bench, "Invalid %s specified: '%s' is no number up to %" PRIu64,
                           what, text, most);
    *ret = value;
    return 0;
}

static bool check_aio(const char *aio)
{
    static const char *const ways[] = {"threads", "native", "io_uring"};
    for (size_t i = 0; aio && i < sizeof ways / sizeof *ways; i++)
        if (strcmp(aio, ways[i]) == 0)
            return true;
    if (aio)
        usage_error(&verb_bench, "Invalid aio option: %s", aio);
    return !aio;
}

static int bench_parse(const struct args *args, struct bench *b)
{
    *b = (struct bench){.count = COUNT,
                        .depth = DEPTH,
                        .offset = args->start,
                        .buffer = args->has_buffer ? args->buffer : BUFFER,
                        .write = args->write,
                        .random = args->random,
                        .drain = !args->no_drain};
    b->step = args->has_step && args->step ? args->step : b->buffer;
    if (args->n_operands != 1)
        return usage_error(&verb_bench, "Expecting one image file name");
    if (!check_aio(args->aio) || !cache_check(&verb_bench, args->cache, "cache") ||
        number(args->count, "request count", INT32_MAX, &b->count) ||
        number(args->depth, "queue depth", MAX_DEPTH, &b->depth) ||
        number(args->flush_interval, "flush interval", INT32_MAX, &b->flush_interval) ||
        number(args->pattern, "pattern byte", 255, &b->pattern))
        return EXIT_FAILED;
    if (b->depth == 0)
        return usage_error(&verb_bench, "Invalid queue depth specified: at least 1 is needed");
    if (b->buffer == 0 || b->buffer > INT32_MAX)
        return usage_error(&verb_bench, "Invalid buffer size specified. Must be between 1 and %d.",
                           INT32_MAX);
    if (!b->write && b->flush_interval)
        return usage_error(&verb_bench, "--flush-interval is only available in write tests");
    if (b->flush_interval && b->flush_interval < b->depth)
        return usage_error(&verb_bench, "Flush interval can't be smaller than depth");
    return EXIT_FINE;
}

/* ---- requests -------------------------------------------------------------------------------- */

/* Well mixed bits of a number: the same requests in each run. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* Where request `n` goes: on by a step each, around and around the disk as the peer does, so that
 * a step which does not divide the size comes to other places each time; or anywhere behind the
 * offset in steps. */
static uint64_t place(const struct bench *b, uint64_t n)
{
    uint64_t places = (b->size - b->offset - b->buffer) / b->step + 1;
    if (b->random)
        return b->offset + mix(n) % places * b->step;
    uint64_t at = (uint64_t)(((unsigned __int128)n * b->step + b->offset) % b->size);
    return at > b->size - b->buffer ? b->size - b->buffer : at;
}

static void note_failure(struct bench *b, int code, const struct platter_error *err)
{
    pthread_mutex_lock(&b->lock);
    if (b->code == 0) {
        b->code = code;
        b->err = *err;
    }
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

/* The number of the next request, or -1 when all are sent. With --flush-interval, waits for what
 * must be flushed before it; *ret_flush: the caller is to flush first. */
static int64_t next_request(struct bench *b, bool *ret_flush)
{
    int64_t number = -1;
    *ret_flush = false;
    if (!b->flush_interval) {
        uint64_t n = b->code ? b->count : atomic_fetch_add(&b->next, 1);
        return n < b->count ? (int64_t)n : -1;
    }
    pthread_mutex_lock(&b->lock);
    while (b->code == 0 && b->next < b->count) {
        bool due = b->next - b->flushed >= b->flush_interval;
        if (!b->flushing && (!due || !b->drain || b->in_flight == 0)) {
            number = (int64_t)b->next++;
            b->in_flight++;
            *ret_flush = due;
            b->flushed = due ? (uint64_t)number : b->flushed;
            b->flushing = due && b->drain;
            break;
        }
        pthread_cond_wait(&b->changed, &b->lock);
    }
    pthread_mutex_unlock(&b->lock);
    return number;
}

static void flush_ended(struct bench *b)
{
    pthread_mutex_lock(&b->lock);
    b->flushing = false;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

static void request_ended(struct bench *b)
{
    if (!b->flush_interval)
        return;
    pthread_mutex_lock(&b->lock);
    if (--b->in_flight == 0)
        pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

static void *work(void *opaque)
{
    struct bench *b = opaque;
    struct platter_error err = {.code = ENOMEM, .message = "out of memory"};
    bool flush;
    int r = 0;
    uint8_t *bytes = malloc(b->buffer);
    if (!bytes)
        r = -ENOMEM;
    else
        memset(bytes, (int)b->pattern, b->buffer);
    for (int64_t n; r == 0 && (n = next_request(b, &flush)) >= 0; request_ended(b)) {
        if (flush) {
            r = platter_flush(b->disk, &err);
            flush_ended(b);
        }
        if (r == 0 && b->write)
            r = platter_pwrite(b->disk, bytes, b->buffer, place(b, (uint64_t)n), &err);
        else if (r == 0)
            r = platter_pread(b->disk, bytes, b->buffer, place(b, (uint64_t)n), &err);
    }
    if (r < 0)
        note_failure(b, r, &err);
    free(bytes);
    return NULL;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int run_threads(struct bench *b)
{
    pthread_t threads[MAX_DEPTH];
    uint64_t n = 0, wanted = b->depth < b->count ? b->depth : b->count;
    while (n < wanted && pthread_create(&threads[n], NULL, work, b) == 0)
        n++;
    for (uint64_t i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    if (n < wanted) {
        say("cannot start %" PRIu64 " threads", wanted);
        return EXIT_FAILED;
    }
    return b->code ? say_error(&b->err) : EXIT_FINE;
}

static int measure(struct bench *b, const struct args *args)
{
    const char *way = b->random ? "at random places, " : "";
    if (b->offset > b->size || b->buffer > b->size - b->offset) {
        say("%s: has %" PRIu64 " bytes: no room for a request of %" PRIu64 " at %" PRIu64,
            args->operands[0], b->size, b->buffer, b->offset);
        return EXIT_FAILED;
    }
    if (!args->quiet) {
        printf("Sending %" PRIu64 " %s requests, %" PRIu64 " bytes each, %" PRIu64
               " in parallel (%sstarting at offset %" PRIu64 ", step size %" PRIu64 ")\n",
               b->count, b->write ? "write" : "read", b->buffer, b->depth, way, b->offset, b->step);
        if (b->flush_interval)
            printf("Sending flush every %" PRIu64 " requests\n", b->flush_interval);
        fflush(stdout);
    }
    double started = seconds();
    int code = run_threads(b);
    if (code == EXIT_FINE && !args->quiet)
        printf("Run completed in %3.3f seconds.\n", seconds() - started);
    return code;
}

static int bench_run(const struct args *args)
{
    struct bench b;
    struct platter_error err = {0};
    int code = bench_parse(args, &b);
    if (code || image_open(args, args->operands[0], args->format, b.write ? PLATTER_OPEN_WRITE : 0,
                           &b.disk))
        return EXIT_FAILED;
    pthread_mutex_init(&b.lock, NULL);
    pthread_cond_init(&b.changed, NULL);
    b.size = platter_size(b.disk);
    code = measure(&b, args);
    if (platter_close(b.disk, &err) && code == EXIT_FINE)
        code = say_error(&err);
    return output_end(code);
}

static const struct opt bench_opts[] = {
    OPT_TEXT('c', NULL, "COUNT", OPT_STRING, count, "how many requests are sent (75000)"),
    OPT_TEXT('d', NULL, "DEPTH", OPT_STRING, depth, "how many of them at a time (64)"),
    OPT_INPUT_FORMAT,
    OPT_TEXT(0, "flush-interval", "N", OPT_STRING, flush_interval,
             "flush after each N writes, and send none while that runs"),
    OPT_TEXT('i', NULL, "AIO", OPT_STRING, aio,
             "threads, native or io_uring; taken and ignored: requests are threads"),
    OPT_FLAG_AT('n', NULL, native, "the same as -i native"),
    OPT_FLAG_AT(0, "no-drain", no_drain, "send on while a flush runs"),
    OPT_TEXT('o', NULL, "OFFSET", OPT_SIZE, start, "where the first request goes (0)"),
    OPT_TEXT(0, "pattern", "BYTE", OPT_STRING, pattern, "what is written (0)"),
    OPT_QUIET,
    OPT_FLAG_AT(0, "random", random, "requests go anywhere behind the offset, in steps"),
    {'s', NULL, "SIZE", OPT_SIZE, offsetof(struct args, buffer), offsetof(struct args, has_buffer),
     "bytes of each request (4096)"},
    {'S', NULL, "STEP", OPT_SIZE, offsetof(struct args, step), offsetof(struct args, has_step),
     "how far each request is behind the one before (its size)"},
    OPT_TEXT('t', NULL, "CACHE", OPT_STRING, cache,
             "cache mode, as qemu-img has it; taken and ignored"),
    OPT_FLAG_AT('w', NULL, write, "write instead of read: this destroys what the image holds"),
    OPT_SHARE,
    OPT_VIEW,
    OPT_ALLOWED,
    OPT_IMAGE_OPTS,
    OPT_END};

const struct verb verb_bench = {.name = "bench",
                                .summary = "time requests to a disk",
                                .operands = "IMAGE",
                                .opts = bench_opts,
                                .examples = "platter bench vm.qcow2\n"
                                            "platter bench --random -c 100000 -d 16 vm.vmdk\n"
                                            "platter bench -w --pattern=1 -s 64k scratch.qcow2\n",
                                .run = bench_run};
