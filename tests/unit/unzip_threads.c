/* SPDX-License-Identifier: MIT */
/* Compressed files that come slowly, or not at all, whose reader has enough early, or which another
 * program unpacks: the threads of lib/stream/unzip.c. */
#include "unit.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/ckd.h"
#include "packed.h"
#include "support/process.h"

static struct budget *budget;

/* ---- pipes, and ending early ----------------------------------------------------------------- */

struct feeder {
    pthread_t thread;
    int fd;
    const struct buffer *bytes;
    bool slow; /* in small pieces */
};

static void *feed(void *arg)
{
    struct feeder *f = arg;
    ssize_t n = 1;
    for (size_t at = 0; n > 0 && at < f->bytes->size; at += (size_t)n) {
        size_t len = min_u64(f->slow ? 1 + at % 1009 : 1 << 20, f->bytes->size - at);
        n = write(f->fd, f->bytes->bytes + at, len);
        if (f->slow && at % 7 == 0)
            usleep(100);
    }
    close(f->fd);
    return NULL;
}

static struct stream *through_pipe(struct feeder *f, enum wrapper w, int ret_fds[2])
{
    struct stream *base = NULL, *s = NULL;
    assert_int_equal(pipe2(ret_fds, O_CLOEXEC), 0);
    f->fd = ret_fds[1];
    if (f->bytes)
        assert_int_equal(pthread_create(&f->thread, NULL, feed, f), 0);
    assert_works(stream_input_open(ret_fds[0], "packed", &base, &err));
    assert_works(stream_unzip_open(base, w, budget, &s, &err));
    return s;
}

static void test_slow_pipe(void **state)
{
    (void)state;
    struct buffer content = content_new(300000, 10), got;
    for (unsigned i = 0; i < WRAPPERS; i++) {
        struct buffer packed = packed_by(all_wrappers[i], "", &content);
        struct feeder f = {.bytes = &packed, .slow = true};
        int fds[2];
        struct stream *s = through_pipe(&f, all_wrappers[i], fds);
        assert_works(read_out(s, 30000, content.size, &got, &err));
        assert_same(&got, &content);
        pthread_join(f.thread, NULL);
        close(fds[0]);
        buffer_free(&got);
        buffer_free(&packed);
    }
    buffer_free(&content);
}

/* Nothing comes, and who waits for it is told to stop. */
static void *interrupt(void *arg)
{
    usleep(20000);
    stream_interrupt(arg);
    return NULL;
}

static void test_silent_pipe(void **state)
{
    (void)state;
    for (unsigned i = 0; i < WRAPPERS; i++)
        for (unsigned wait = 0; wait < 2; wait++) {
            struct feeder f = {.bytes = NULL};
            int fds[2];
            struct stream *s = through_pipe(&f, all_wrappers[i], fds);
            pthread_t thread;
            size_t n;
            if (wait) {
                assert_int_equal(pthread_create(&thread, NULL, interrupt, s), 0);
                assert_fails(stream_read(s, &(uint8_t){0}, 1, &n, &err), ECANCELED, "cancel");
                assert_int_equal(n, 0);
                pthread_join(thread, NULL);
            }
            stream_close(s);
            close(fds[0]);
            close(fds[1]);
        }
}

static unsigned open_files(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 200; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* Closed at once, after the first bytes, or when all threads wait for room; nothing is left. */
static void test_close_early(void **state)
{
    (void)state;
    struct buffer content = content_new(PACKED_MUCH, 11);
    for (unsigned i = 0; i < WRAPPERS; i++) {
        struct buffer packed = packed_by(all_wrappers[i], "-1", &content);
        for (unsigned how = 0; how < 3; how++) {
            unsigned before = open_files();
            struct stream *s = NULL;
            uint8_t byte = 0;
            size_t n;
            assert_works(unzip_buffer(&packed, all_wrappers[i], budget, &s, &err));
            if (how)
                assert_works(stream_read(s, &byte, 1, &n, &err));
            if (how == 2)
                usleep(50000);
            stream_close(s);
            assert_true(how == 0 || byte == content.bytes[0]);
            assert_int_equal(open_files(), before);
            assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        }
        buffer_free(&packed);
    }
    buffer_free(&content);
}

/* ---- the program lzop ------------------------------------------------------------------------ */

static void test_no_program(void **state)
{
    (void)state;
    struct buffer content = content_new(PACKED_SMALL, 1), got;
    struct buffer packed = packed_by(WRAP_LZOP, "", &content);
    auto_free char *path = string_copy(getenv("PATH"));
    setenv("PATH", scratch_folder(), 1);
    assert_fails(unpack(&packed, WRAP_LZOP, 10, 10, &got, &err), ENOTSUP, "not installed");
    buffer_free(&got);
    setenv("PATH", path, 1);
    assert_unpacks(&packed, WRAP_LZOP, &content);
    setenv("LZOP", "--list", 1);
    assert_unpacks(&packed, WRAP_LZOP, &content);
    unsetenv("LZOP");
    buffer_free(&packed);
    buffer_free(&content);
}

/* It ends while there is more for it: that is no reason for us to. */
static void test_program_has_enough(void **state)
{
    static uint8_t noise[4 << 20];
    (void)state;
    struct buffer content = content_new(1000, 12), got;
    struct buffer packed = packed_by(WRAP_LZOP, "", &content);
    memset(noise, 'x', sizeof noise);
    struct buffer much = with_behind(&packed, noise, sizeof noise);
    void (*before)(int) = signal(SIGPIPE, SIG_DFL);
    assert_fails(unpack(&much, WRAP_LZOP, 1000, 1000, &got, &err), PLATTER_ECORRUPT, "garbage");
    assert_same(&got, &content);
    signal(SIGPIPE, before);
    buffer_free(&got);
    buffer_free(&much);
    buffer_free(&packed);
    buffer_free(&content);
}

/* How it ended has gone to somebody else: then what came is not known to be all. */
static void test_children_ignored(void **state)
{
    (void)state;
    struct buffer content = content_new(1000, 12), got;
    struct buffer packed = packed_by(WRAP_LZOP, "", &content);
    void (*before)(int) = signal(SIGCHLD, SIG_IGN);
    assert_fails(unpack(&packed, WRAP_LZOP, 1000, 1000, &got, &err), ECHILD, "SIGCHLD");
    signal(SIGCHLD, before);
    buffer_free(&got);
    buffer_free(&packed);
    buffer_free(&content);
}

/* ---- by name --------------------------------------------------------------------------------- */

static void test_by_name(void **state)
{
    (void)state;
    struct buffer content = content_new(70000, 13), got;
    auto_free char *path = scratch_path("a file.vma");
    enum wrapper w;
    struct stream *s = NULL;
    for (unsigned i = 0; i <= WRAPPERS; i++) {
        struct buffer packed =
            i < WRAPPERS ? packed_by(all_wrappers[i], "", &content) : buffer_copy(&content, 0);
        buffer_save(&packed, path);
        assert_works(stream_unwrapped_open(path, budget, &s, &w, &err));
        assert_string_equal(s->name, path);
        assert_int_equal(w, i < WRAPPERS ? all_wrappers[i] : WRAP_NONE);
        assert_works(read_out(s, 7000, content.size, &got, &err));
        assert_same(&got, &content);
        buffer_free(&got);
        buffer_free(&packed);
    }
    unlink(path);
    assert_fails(stream_unwrapped_open(path, budget, &s, &w, &err), ENOENT, path);
    buffer_free(&content);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow_pipe),
        cmocka_unit_test(test_silent_pipe),
        cmocka_unit_test(test_close_early),
        cmocka_unit_test(test_no_program),
        cmocka_unit_test(test_program_has_enough),
        cmocka_unit_test(test_children_ignored),
        cmocka_unit_test(test_by_name),
    };
    budget = budget_new(PACKED_MEMORY);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    budget_unref(budget);
    return failed;
}
