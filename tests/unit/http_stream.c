/* SPDX-License-Identifier: MIT */
/* What lies on a web server as a stream: threads, interruptions, and memory that runs out. */
#include "unit.h"

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/ckd.h"
#include "stream/place.h"
#include "support/alloc.h"

enum { MIB = 1 << 20, SIZE = 5 * MIB + 100, PIECE = 300000, CONNECTIONS = 32, HEAD = 4096 };

/* ---- a server ----------------------------------------------------------------------------------
 *
 * On one thread, and without taking memory, which is to run out for others.
 */

struct connection {
    int fd; /* 0: none */
    size_t len;
    char head[HEAD];
};

static struct server {
    pthread_t thread;
    int listener, end[2];
    char url[64];
    atomic_bool whole, silent; /* it has no ranges; it says nothing any more */
    atomic_uint requests;
    struct connection connections[CONNECTIONS];
} server;

static uint8_t content[SIZE];

static bool send_all(int fd, const void *bytes, size_t len, int flags)
{
    for (ssize_t n; len > 0; len -= (size_t)n, bytes = (const char *)bytes + n)
        if ((n = send(fd, bytes, len, flags | MSG_NOSIGNAL)) <= 0)
            return false;
    return true;
}

static bool answer(struct connection *c)
{
    char head[256];
    const char *range = strstr(c->head, "Range: bytes=");
    size_t from = 0, to = SIZE - 1;
    atomic_fetch_add(&server.requests, 1);
    if (range && !atomic_load(&server.whole)) {
        char *end;
        from = strtoul(range + strlen("Range: bytes="), &end, 10);
        to = (size_t)min_u64(strtoul(end + 1, NULL, 10), to);
        snprintf(head, sizeof head,
                 "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes %zu-%zu/%d\r\n"
                 "Content-Length: %zu\r\nETag: \"it\"\r\n\r\n",
                 from, to, SIZE, to - from + 1);
    } else {
        snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", SIZE);
    }
    return send_all(c->fd, head, strlen(head), MSG_MORE) &&
           send_all(c->fd, content + from, to - from + 1, 0);
}

static void serve(struct connection *c)
{
    ssize_t n = recv(c->fd, c->head + c->len, HEAD - 1 - c->len, 0);
    c->len += n > 0 ? (size_t)n : 0;
    c->head[c->len] = '\0';
    if (n > 0 && (!strstr(c->head, "\r\n\r\n") || atomic_load(&server.silent)))
        return;
    if (n <= 0 || !answer(c)) {
        close(c->fd);
        c->fd = 0;
    }
    c->len = 0;
}

static void *server_main(void *arg)
{
    (void)arg;
    for (;;) {
        struct pollfd fds[CONNECTIONS + 2] = {{server.end[0], POLLIN, 0},
                                              {server.listener, POLLIN, 0}};
        for (int i = 0; i < CONNECTIONS; i++)
            fds[i + 2] = (struct pollfd){server.connections[i].fd ? server.connections[i].fd : -1,
                                         POLLIN, 0};
        poll(fds, CONNECTIONS + 2, -1);
        if (fds[0].revents)
            return NULL;
        for (int i = 0; i < CONNECTIONS; i++)
            if (fds[i + 2].revents)
                serve(&server.connections[i]);
        for (int i = 0; i < CONNECTIONS && fds[1].revents; i++)
            if (!server.connections[i].fd) {
                server.connections[i].fd = accept(server.listener, NULL, NULL);
                break;
            }
    }
}

static int server_start(void **state)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    (void)state;
    for (size_t i = 0; i < SIZE; i++)
        content[i] = (uint8_t)((i * 0x9e3779b97f4a7c15u) >> 40);
    server.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(server.listener, (struct sockaddr *)&at, len) < 0 ||
        listen(server.listener, CONNECTIONS) < 0 ||
        getsockname(server.listener, (struct sockaddr *)&at, &len) < 0 || pipe(server.end) < 0)
        return -1;
    snprintf(server.url, sizeof server.url, "http://127.0.0.1:%d/disk", ntohs(at.sin_port));
    return pthread_create(&server.thread, NULL, server_main, NULL);
}

static int server_stop(void **state)
{
    (void)state;
    if (write(server.end[1], "", 1) != 1)
        return -1;
    pthread_join(server.thread, NULL);
    for (int i = 0; i < CONNECTIONS; i++)
        if (server.connections[i].fd)
            close(server.connections[i].fd);
    close(server.listener);
    close(server.end[0]);
    close(server.end[1]);
    return 0;
}

/* ---- threads ---------------------------------------------------------------------------------
 */

struct reader {
    pthread_t thread;
    struct stream *s;
    unsigned index;
    bool once; /* one piece, far from those of others */
    int result;
};

enum { READERS = 6 };

static void *read_pieces(void *arg)
{
    struct reader *r = arg;
    uint8_t *buf = malloc(PIECE);
    hoff first = r->index * (hoff)(r->once ? SIZE / READERS : PIECE);
    for (hoff off = first; off + PIECE <= SIZE && r->result == 0; off += (hoff)READERS * PIECE) {
        r->result = buf ? stream_pread(r->s, buf, PIECE, off, NULL) : -ENOMEM;
        if (r->result == 0 && memcmp(buf, content + off, PIECE) != 0)
            r->result = 1;
        if (r->once)
            break;
    }
    free(buf);
    return NULL;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void read_together(const char *keys, bool once)
{
    struct place p;
    struct stream *s;
    struct reader readers[READERS];
    assert_works(place_parse_with(server.url, keys, &p, &err));
    assert_works(place_open(&p, 0, &s, &err));
    place_done(&p);
    for (unsigned i = 0; i < READERS; i++) {
        readers[i] = (struct reader){.s = s, .index = i, .once = once};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_pieces, &readers[i]), 0);
    }
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_int_equal(readers[i].result, 0);
    }
    stream_close(s);
}

static void test_together(void **state)
{
    (void)state;
    read_together(NULL, false);
}

/* A request that had to wait for another begins when that ends. */
static void test_one_connection(void **state)
{
    (void)state;
    double begun = seconds();
    read_together("connections=1", true);
    assert_true(seconds() - begun < 3);
}

/* Who waits for a server that is silent comes back at once when told to. */
static void test_interrupt(void **state)
{
    (void)state;
    struct stream *s;
    assert_works(stream_open(server.url, 0, &s, &err));
    struct reader r = {.s = s, .index = 1};
    atomic_store(&server.silent, true);
    unsigned before = atomic_load(&server.requests);
    assert_int_equal(pthread_create(&r.thread, NULL, read_pieces, &r), 0);
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    double begun = seconds();
    stream_interrupt(s);
    pthread_join(r.thread, NULL);
    assert_int_equal(r.result, -ECANCELED);
    assert_true(seconds() - begun < 5);
    assert_int_equal(atomic_load(&server.requests), before);
    stream_close(s);
    atomic_store(&server.silent, false);
}

/* ---- without ranges --------------------------------------------------------------------------
 */

static int read_first(struct stream *s, size_t len)
{
    static uint8_t buf[SIZE];
    size_t n;
    int r = stream_read(s, buf, len, &n, NULL);
    return r < 0 ? r : n == len && memcmp(buf, content, len) == 0 ? 0 : 1;
}

static void test_sequential(void **state)
{
    (void)state;
    struct stream *s;
    uint8_t byte;
    atomic_store(&server.whole, true);
    assert_works(stream_open(server.url, 0, &s, &err));
    assert_true(s->sequential);
    assert_int_equal(read_first(s, SIZE), 0);
    stream_close(s);
    /* It need not be read to its end. */
    double begun = seconds();
    size_t n;
    assert_works(stream_open(server.url, 0, &s, &err));
    assert_works(stream_read(s, &byte, 1, &n, &err));
    assert_int_equal(byte, content[0]);
    stream_close(s);
    assert_true(seconds() - begun < 5);
    atomic_store(&server.whole, false);
}

/* ---- no memory -------------------------------------------------------------------------------
 */

static int read_here_and_there(void)
{
    enum { LITTLE = 70000 };
    static uint8_t buf[LITTLE];
    static const hoff places[] = {0, 2 * MIB, 2 * MIB + LITTLE, SIZE - LITTLE};
    struct stream *s;
    int r = stream_open(server.url, 0, &s, NULL);
    if (r < 0)
        return r;
    for (size_t i = 0; i < sizeof places / sizeof *places && r == 0; i++) {
        r = stream_pread(s, buf, LITTLE, places[i], NULL);
        if (r == 0 && memcmp(buf, content + places[i], LITTLE) != 0)
            r = 1;
    }
    stream_close(s);
    return r;
}

static int read_front_to_back(void)
{
    struct stream *s;
    int r = stream_open(server.url, 0, &s, NULL);
    if (r < 0)
        return r;
    r = read_first(s, PIECE);
    stream_close(s);
    return r;
}

/* Where an allocation fails, or all from there on, the right bytes come or it is said. */
static void fail_each(int (*work)(void))
{
    for (int lasting = 0; lasting < 2; lasting++) {
        uint64_t failures = 0;
        for (uint64_t n = 1, failed = 1; failed > 0; n++) {
            alloc_fail_at(n, lasting);
            int r = work();
            failed = alloc_failed();
            alloc_fail_at(0, false);
            assert_true(r == 0 || (r == -ENOMEM && failed > 0));
            failures += r < 0;
        }
        assert_true(failures > 20);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    fail_each(read_here_and_there);
    atomic_store(&server.whole, true);
    fail_each(read_front_to_back);
    atomic_store(&server.whole, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_together),  cmocka_unit_test(test_one_connection),
        cmocka_unit_test(test_interrupt), cmocka_unit_test(test_sequential),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, server_start, server_stop);
}
