/* SPDX-License-Identifier: MIT */
/* Reading front to back: the same bytes from every kind of stream, however they are asked for. */
#include "unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "stream/stream.h"
#include "support/prng.h"
#include "support/process.h"

enum { SIZE = 300001 };

static uint8_t content[SIZE];

static void fill(void)
{
    struct prng p = {.state = 7};
    for (size_t i = 0; i < SIZE; i++)
        content[i] = (uint8_t)prng_next(&p);
}

/* ---- who feeds a pipe --------------------------------------------------------------------------
 */

struct feeder {
    pthread_t thread;
    const char *path; /* of a FIFO; or */
    int fd;
};

/* In pieces that are never what is asked for. */
static void *feed(void *arg)
{
    struct feeder *f = arg;
    int fd = f->path ? open(f->path, O_WRONLY) : f->fd;
    for (size_t at = 0, n; at < SIZE; at += n) {
        n = (size_t)min_u64(1 + at % 7001, SIZE - at);
        ssize_t done = write(fd, content + at, n);
        if (done <= 0)
            break;
        n = (size_t)done;
    }
    close(fd);
    return NULL;
}

static struct stream *open_pipe(struct feeder *f)
{
    struct stream *s = NULL;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    *f = (struct feeder){.fd = fds[1]};
    assert_int_equal(pthread_create(&f->thread, NULL, feed, f), 0);
    assert_works(stream_input_open(fds[0], "pipe", &s, &err));
    assert_true(s->sequential);
    return s;
}

/* ---- the same bytes ----------------------------------------------------------------------------
 */

static void check_step(struct stream *s, uint64_t *at, uint64_t how, size_t len)
{
    uint8_t buf[STREAM_MOST_PEEK];
    size_t want = (size_t)min_u64(len, SIZE - *at), got = 0;
    uint64_t skipped = 0;

    switch (how % 3) {
    case 0:
        assert_works(stream_read(s, buf, len, &got, &err));
        break;
    case 1:
        assert_works(stream_peek(s, buf, len, &got, &err));
        break;
    default:
        assert_works(stream_skip(s, len, &skipped, &err));
        assert_int_equal(skipped, want);
    }
    if (how % 3 < 2) {
        assert_int_equal(got, want);
        assert_memory_equal(buf, content + *at, want);
    }
    *at += how % 3 == 1 ? 0 : want;
    assert_int_equal(s->position, *at);
}

static void check_all(struct stream *s, uint64_t seed)
{
    struct prng p = {.state = seed};
    uint64_t at = 0, most = 1 + prng_next(&p) % STREAM_MOST_PEEK;

    while (at < SIZE)
        check_step(s, &at, prng_next(&p), (size_t)(prng_next(&p) % most));
    for (uint64_t how = 0; how < 3; how++)
        check_step(s, &at, how, 100);
    stream_close(s);
}

static void test_pipe(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct feeder f;
        struct stream *s = open_pipe(&f);
        check_all(s, seed);
        pthread_join(f.thread, NULL);
    }
}

static void test_memory(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct stream *s = NULL;
        assert_works(stream_memory_open("memory", SIZE, &s, &err));
        assert_works(stream_pwrite(s, content, SIZE, 0, &err));
        check_all(s, seed);
    }
}

static void test_file(void **state)
{
    (void)state;
    auto_free char *path = scratch_path("sequential");
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_int_equal(write(fd, content, SIZE), SIZE);
    close(fd);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct stream *s = NULL;
        assert_works(stream_source_open(path, &s, &err));
        assert_false(s->sequential);
        check_all(s, seed);
    }
}

static void test_fifo(void **state)
{
    (void)state;
    auto_free char *path = scratch_path("fifo");
    struct feeder f = {.path = path};
    struct stream *s = NULL;
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(pthread_create(&f.thread, NULL, feed, &f), 0);
    assert_works(stream_source_open(path, &s, &err));
    assert_true(s->sequential);
    check_all(s, 3);
    pthread_join(f.thread, NULL);
}

/* ---- what does not work ------------------------------------------------------------------------
 */

static void test_refused(void **state)
{
    (void)state;
    struct feeder f;
    struct stream *s = open_pipe(&f);
    uint8_t buf[8];
    size_t n;
    uint64_t size;
    assert_fails(stream_pread(s, buf, sizeof buf, 0, &err), ENOTSUP, "cannot be read at any place");
    assert_fails(stream_size(s, &size, &err), ENOTSUP, "cannot tell its size");
    assert_fails(stream_peek(s, buf, STREAM_MOST_PEEK + 1, &n, &err), EINVAL, "beforehand");
    check_all(s, 1);
    pthread_join(f.thread, NULL);
    assert_fails(stream_source_open("/nonexistent/file", &s, &err), ENOENT, "/nonexistent/file");
    assert_fails(stream_source_open("/", &s, &err), EISDIR, "/");
    int closed = open("/dev/null", O_WRONLY);
    assert_works(stream_input_open(closed, "one way", &s, &err));
    assert_fails(stream_read(s, buf, sizeof buf, &n, &err), EBADF, "one way: cannot read");
    stream_close(s);
    close(closed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pipe), cmocka_unit_test(test_memory),
                                       cmocka_unit_test(test_file), cmocka_unit_test(test_fifo),
                                       cmocka_unit_test(test_refused)};
    fill();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
