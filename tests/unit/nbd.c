/* SPDX-License-Identifier: MIT */
/* Requests of many threads on the connections of an NBD server: their bytes, what an interrupt does
 * to those that wait, and what all of them hear of a server that goes away. */
#include "unit.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/awake.h"
#include "base/cursor.h"
#include "base/memory.h"
#include "stream/nbd.h"
#include "stream/place.h"
#include "support/process.h"

enum { SIZE = 4 << 20, THREADS = 12, ROUNDS = 60, SHARE = 250000, MOST = 48 << 10 };

/* nbdkit 1.32 ends where two threads have answers for a client that is gone. */
#define CALM "-t 1 "

struct server {
    pid_t pid;
    char *socket;
    char *uri; /* ends with a parameter: "&..." may follow */
};

/* nbdkit with filters, a plugin and parameters as they stand. */
static void begin(struct server *s, const char *filters, const char *plugin)
{
    auto_free char *line = string_format("exec nbdkit -f --exit-with-parent -U %s -P %s.pid %s %s",
                                         s->socket, s->socket, filters, plugin);
    auto_free char *ready = string_format("%s.pid", s->socket);
    assert_true(line && ready && s->uri);
    unlink(s->socket); /* of one that was killed */
    unlink(ready);
    s->pid = fork();
    if (s->pid == 0) {
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 3000 && access(ready, F_OK) != 0; i++)
        usleep(10000);
    assert_int_equal(access(ready, F_OK), 0);
}

static struct server serve_plugin(const char *filters, const char *plugin)
{
    static unsigned count;
    char name[32];
    snprintf(name, sizeof name, "nbd%u", count++);
    struct server s = {.socket = scratch_path(name)};
    s.uri = string_format("nbd+unix:///?socket=%s", s.socket);
    begin(&s, filters, plugin);
    return s;
}

/* ... with so much memory. */
static struct server serve(const char *filters, const char *parameters)
{
    auto_free char *plugin = string_format("memory %u %s", SIZE, parameters);
    assert_non_null(plugin);
    return serve_plugin(filters, plugin);
}

static void end(struct server *s)
{
    if (s->pid > 0) {
        kill(s->pid, SIGKILL);
        waitpid(s->pid, NULL, 0);
    }
    s->pid = 0;
}

static void stop(struct server *s)
{
    end(s);
    free(TAKE(s->socket));
    free(TAKE(s->uri));
}

static struct stream *open_at(const struct server *s, const char *more, unsigned flags)
{
    struct stream *stream = NULL;
    auto_free char *uri = string_format("%s%s", s->uri, more);
    assert_works(stream_open(uri, flags, &stream, &err));
    return stream;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

struct worker {
    pthread_t thread;
    struct stream *stream;
    unsigned seed;
    hoff start; /* of the share that is its own */
    uint8_t *shadow;
    atomic_uint *done;
    bool reads; /* also between its writes */
    int result; /* the first failure */
    struct platter_error err;
};

static int change(struct worker *w, size_t at, size_t len, struct platter_error *err)
{
    hoff off = w->start + at;
    switch (rand_r(&w->seed) % 4) {
    case 0:
        memset(w->shadow + at, 0, len);
        return stream_zero(w->stream, off, len, w->seed & 64 ? STREAM_ZERO_UNMAP : 0, err);
    case 1:
        if (w->reads) {
            auto_free uint8_t *got = malloc(len);
            int r = stream_pread(w->stream, got, len, off, err);
            if (r == 0 && memcmp(got, w->shadow + at, len) != 0)
                r = fail(err, EILSEQ, "other bytes at %zu", (size_t)off);
            return r;
        }
        return stream_flush(w->stream, err);
    default:
        for (size_t i = 0; i < len; i++)
            w->shadow[at + i] = (uint8_t)rand_r(&w->seed);
        return stream_pwrite(w->stream, w->shadow + at, len, off, err);
    }
}

static void *work(void *arg)
{
    struct worker *w = arg;
    for (int i = 0; i < ROUNDS && w->result == 0; i++) {
        size_t at = (size_t)rand_r(&w->seed) % (SHARE - MOST);
        size_t len = 1 + (size_t)rand_r(&w->seed) % MOST;
        w->result = change(w, at, len, &w->err);
        atomic_fetch_add(w->done, 1);
    }
    return NULL;
}

static void start(struct worker *workers, struct stream *s, bool reads, atomic_uint *done)
{
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.stream = s,
                                     .seed = i + 1,
                                     .start = (hoff)i * SHARE,
                                     .shadow = calloc(1, SHARE),
                                     .done = done,
                                     .reads = reads};
        assert_non_null(workers[i].shadow);
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
}

static void join(struct worker *workers)
{
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
}

static void check_bytes(const struct server *server, const struct worker *workers)
{
    struct stream *s = open_at(server, "", 0);
    auto_free uint8_t *got = malloc(SHARE);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_works(stream_pread(s, got, SHARE, workers[i].start, &err));
        assert_memory_equal(got, workers[i].shadow, SHARE);
    }
    stream_close(s);
}

static void hammer(const char *filters, const char *parameters, const char *more, bool reads,
                   unsigned wires)
{
    struct worker workers[THREADS];
    atomic_uint done = 0;
    struct server server = serve(filters, parameters);
    struct stream *s = open_at(&server, more, STREAM_FILE_WRITE);
    start(workers, s, reads, &done);
    join(workers);
    for (unsigned i = 0; i < THREADS; i++)
        if (workers[i].result != 0)
            fail_msg("%s", workers[i].err.message);
    assert_int_equal(((struct nbd_export *)s)->n_wires, wires);
    assert_works(stream_flush(s, &err));
    stream_close(s);
    check_bytes(&server, workers);
    for (unsigned i = 0; i < THREADS; i++)
        free(workers[i].shadow);
    stop(&server);
}

static void test_writes_on_several(void **state)
{
    (void)state;
    hammer("--filter=delay", "delay-write=1ms", "", false, 4);
}

static void test_one_connection(void **state)
{
    (void)state;
    hammer("--filter=delay", "delay-write=1ms", "&connections=1", true, 1);
}

/* What is read in between is what was written, which takes a single connection in the end. */
static void test_reads_between(void **state)
{
    (void)state;
    struct server server = serve("", "");
    struct stream *s = open_at(&server, "", STREAM_FILE_WRITE);
    struct worker workers[THREADS];
    atomic_uint done = 0;
    start(workers, s, true, &done);
    join(workers);
    for (unsigned i = 0; i < THREADS; i++)
        if (workers[i].result != 0)
            fail_msg("%s", workers[i].err.message);
    assert_true(((struct nbd_export *)s)->settled);
    stream_close(s);
    check_bytes(&server, workers);
    for (unsigned i = 0; i < THREADS; i++)
        free(workers[i].shadow);
    stop(&server);
}

static const char blocks[] = "delay-write=1ms blocksize-minimum=4K blocksize-maximum=16K "
                             "blocksize-error-policy=error";

/* Nothing begins where a block does, or fits into one request. */
static void test_blocks(void **state)
{
    (void)state;
    hammer("--filter=blocksize-policy --filter=delay", blocks, "&connections=2", false, 1);
}

enum { OWN = 100 }; /* bytes of each thread, one behind the other in the same blocks */

static void *work_inside(void *arg)
{
    struct worker *w = arg;
    for (int i = 0; i < ROUNDS / 2 && w->result == 0; i++) {
        hoff off = (hoff)i * 1400 + w->seed * OWN;
        w->result = i % 4 == 3 ? stream_zero(w->stream, off, OWN, 0, &w->err)
                               : stream_pwrite(w->stream, w->shadow, OWN, off, &w->err);
    }
    return NULL;
}

/* Blocks that several threads change parts of: what one wrote stays. */
static void test_shared_blocks(void **state)
{
    (void)state;
    struct worker workers[THREADS];
    uint8_t own[THREADS][OWN], got[OWN];
    struct server server = serve("--filter=blocksize-policy --filter=delay", blocks);
    struct stream *s = open_at(&server, "", STREAM_FILE_WRITE);
    for (unsigned i = 0; i < THREADS; i++) {
        memset(own[i], (int)i + 1, OWN);
        workers[i] = (struct worker){.stream = s, .seed = i, .shadow = own[i]};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work_inside, &workers[i]), 0);
    }
    join(workers);
    for (unsigned i = 0; i < THREADS * ROUNDS / 2; i++) {
        unsigned thread = i % THREADS, round = i / THREADS;
        assert_int_equal(workers[thread].result, 0);
        assert_works(stream_pread(s, got, OWN, (hoff)round * 1400 + thread * OWN, &err));
        for (unsigned k = 0; k < OWN; k++)
            assert_int_equal(got[k], round % 4 == 3 ? 0 : thread + 1);
    }
    stream_close(s);
    stop(&server);
}

/* ---- failing --------------------------------------------------------------------------------- */

static void *write_once(void *arg)
{
    struct worker *w = arg;
    w->result = stream_pwrite(w->stream, w->shadow, 1, w->start, &w->err);
    return NULL;
}

static void wait_until(atomic_uint *done, unsigned n)
{
    uint64_t began = now_ns();
    while (atomic_load(done) < n) {
        assert_true(now_ns() - began < 60 * UINT64_C(1000000000));
        usleep(1000);
    }
}

static void end_all(struct worker *workers, struct stream *s, int code, const char *words)
{
    unsigned failed = 0;
    uint64_t began = now_ns();
    join(workers);
    assert_true(now_ns() - began < 40 * UINT64_C(1000000000)); /* a machine may be busy */
    for (unsigned i = 0; i < THREADS; i++) {
        if (workers[i].result == 0) {
            free(workers[i].shadow);
            continue;
        }
        failed++;
        if (code)
            assert_int_equal(workers[i].result, -code);
        if (!strstr(workers[i].err.message, words))
            fail_msg("'%s' does not contain '%s'", workers[i].err.message, words);
        free(workers[i].shadow);
    }
    assert_true(failed > 0);
    uint8_t byte;
    struct platter_error err = {0};
    assert_true(stream_pread(s, &byte, 1, 0, &err) < 0);
    stream_close(s);
}

static void test_killed(void **state)
{
    (void)state;
    for (int alone = 0; alone < 2; alone++) {
        struct worker workers[THREADS];
        atomic_uint done = 0;
        struct server server = serve("--filter=delay", "delay-write=5ms");
        struct stream *s =
            open_at(&server, alone ? "&connections=1" : "&connections=4", STREAM_FILE_WRITE);
        start(workers, s, false, &done);
        wait_until(&done, THREADS * 2);
        kill(server.pid, SIGKILL);
        end_all(workers, s, 0, "cannot ");
        stop(&server);
    }
}

/* A flush that nobody asked for, for what is read in between, fails; all later ones tell of it. */
static void test_flush_lost(void **state)
{
    (void)state;
    auto_free char *once = scratch_path("once");
    auto_free char *plugin = string_format(
        "eval get_size='echo %u' pread='head -c $3 /dev/zero' pwrite='cat >/dev/null' "
        "flush='[ -e %s ] || { touch %s; echo EIO >&2; exit 1; }' can_write='exit 0' "
        "can_flush='exit 0' can_multi_conn='exit 0' can_zero='exit 3' delay-write=50ms",
        SIZE, once, once);
    struct server server = serve_plugin("--filter=delay", plugin);
    struct stream *s = open_at(&server, "", STREAM_FILE_WRITE);
    struct worker workers[3];
    uint8_t byte = 1;
    for (unsigned i = 0; i < 3; i++) {
        workers[i] = (struct worker){.stream = s, .start = i * SHARE, .shadow = calloc(1, 1)};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, write_once, &workers[i]), 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(workers[i].result, 0);
        free(workers[i].shadow);
    }
    assert_true(((struct nbd_export *)s)->n_wires > 1);
    assert_works(stream_pread(s, &byte, 1, 0, &err));
    assert_int_equal(access(once, F_OK), 0);
    for (int i = 0; i < 2; i++)
        assert_fails(stream_flush(s, &err), EIO, "cannot flush: the server answers");
    stream_close(s);
    stop(&server);
    unlink(once);
}

static void test_interrupted(void **state)
{
    (void)state;
    struct worker workers[THREADS];
    atomic_uint done = 0;
    struct server server = serve(CALM "--filter=delay", "wdelay=100");
    struct stream *s = open_at(&server, "", STREAM_FILE_WRITE);
    start(workers, s, false, &done);
    usleep(200000);
    stream_interrupt(s);
    end_all(workers, s, ECANCELED, "cancelled");
    stop(&server);
}

/* A server that is there, and does not say a word any more. */
static void test_timeout(void **state)
{
    (void)state;
    struct worker workers[THREADS];
    struct server server = serve(CALM "--filter=delay", "wdelay=100");
    struct stream *s = open_at(&server, "&timeout=1", STREAM_FILE_WRITE);
    for (unsigned i = 0; i < THREADS; i++) { /* no flush among them, which may take longer */
        workers[i] = (struct worker){.stream = s, .start = i * SHARE, .shadow = calloc(1, 1)};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, write_once, &workers[i]), 0);
    }
    end_all(workers, s, ETIMEDOUT, "did not answer for 1 seconds");
    stop(&server);
}

/* ---- coming back ----------------------------------------------------------------------------- */

struct visitor {
    pthread_t thread;
    struct stream *stream;
    unsigned seed;
    atomic_bool *over;
    atomic_uint *good;
    bool wrong;
};

/* What the plugin "pattern" has: in every eight bytes the offset of the first of them. */
static void *read_on(void *arg)
{
    struct visitor *r = arg;
    uint8_t got[4096];
    struct platter_error err;
    while (!atomic_load(r->over)) {
        hoff off = (hoff)rand_r(&r->seed) % ((SIZE - sizeof got) / 8) * 8;
        if (stream_pread(r->stream, got, sizeof got, off, &err) < 0) {
            usleep(1000);
            continue;
        }
        for (size_t i = 0; i < sizeof got; i += 8)
            r->wrong |= get_be(got + i, 8) != off + i;
        atomic_fetch_add(r->good, 1);
    }
    return NULL;
}

static unsigned generation(struct nbd_export *x)
{
    pthread_rwlock_rdlock(&x->laying);
    unsigned n = x->generation;
    pthread_rwlock_unlock(&x->laying);
    return n;
}

/* A source that is held to stay as it is is connected to anew, by whoever reads next. */
static void test_comes_back(void **state)
{
    (void)state;
    struct visitor visitors[THREADS];
    atomic_bool over = false;
    atomic_uint good = 0;
    struct server server = serve_plugin("", "pattern 4M");
    struct stream *s = open_at(&server, "", 0);
    struct nbd_export *x = (struct nbd_export *)s;
    bool hole;
    uint64_t len;
    stream_persist(s);
    for (unsigned i = 0; i < THREADS; i++) {
        visitors[i] = (struct visitor){.stream = s, .seed = i, .over = &over, .good = &good};
        assert_int_equal(pthread_create(&visitors[i].thread, NULL, read_on, &visitors[i]), 0);
    }
    for (unsigned i = 1; i <= 4; i++) {
        wait_until(&good, atomic_load(&good) + 200);
        end(&server);
        usleep(i % 2 ? 0 : 300000);
        begin(&server, "", "pattern 4M");
        wait_until(&good, atomic_load(&good) + 200);
        assert_int_equal(generation(x), i);
    }
    atomic_store(&over, true);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(visitors[i].thread, NULL);
        assert_false(visitors[i].wrong);
    }
    end(&server);
    begin(&server, "", "pattern 4M"); /* and who asks what there is */
    assert_works(stream_extents(s, 0, SIZE, &len, &hole, &err));
    assert_int_equal(generation(x), 5);
    stream_close(s);
    stop(&server);
}

static void test_another_comes_back(void **state)
{
    (void)state;
    uint8_t byte;
    struct server server = serve_plugin("", "pattern 4M");
    struct stream *s = open_at(&server, "", 0), *plain = open_at(&server, "", 0);
    stream_persist(s);
    end(&server);
    begin(&server, "", "pattern 8M");
    assert_fails(stream_pread(s, &byte, 1, 0, &err), ESTALE,
                 "has 8388608 bytes now, and had 4194304");
    end(&server);
    begin(&server, "", "pattern 4M");
    for (int i = 0; i < 300 && stream_pread(s, &byte, 1, 0, NULL) < 0; i++)
        usleep(100000);
    assert_works(stream_pread(s, &byte, 1, 0, &err));
    /* Of all others a connection that broke stays so. */
    assert_true(stream_pread(plain, &byte, 1, 0, NULL) < 0);
    stream_close(plain);
    stream_close(s);
    stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writes_on_several),
        cmocka_unit_test(test_one_connection),
        cmocka_unit_test(test_reads_between),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_shared_blocks),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_flush_lost),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_comes_back),
        cmocka_unit_test(test_another_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
