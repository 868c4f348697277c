/* SPDX-License-Identifier: MIT */
/*
 * What lies under a URL of a server without ranges: one answer, read while it comes. A thread waits
 * for its end; the client's puts what comes into a buffer, and lets curl pause where that is full.
 */
#include <inttypes.h>
#include <string.h>

#include "base/ckd.h"
#include "base/memory.h"
#include "base/signals.h"
#include "stream/http_stream.h"

enum { ROOM = 2 << 20 /* more than curl hands over at once */ };

struct http_sequential {
    struct stream head;
    struct http_client *client;
    struct http_hooks hooks;
    void (*release)(void *opaque);
    char *url;
    struct http_request request;
    atomic_bool stop;
    pthread_t thread;
    bool running;

    pthread_mutex_t lock; /* everything below */
    pthread_cond_t changed;
    bool began, ended, paused;
    bool has_size;
    bool endless;          /* the server does not tell the end of it from that of the connection */
    uint64_t size;         /* as the server says */
    char *etag, *modified; /* as the server says, or NULL */
    int result;            /* ended: why; 0 is the end, else `error` tells */
    struct platter_error error;
    uint8_t *bytes; /* a ring */
    uint64_t put, taken;
};

static struct http_sequential *sequential_of(struct stream *s)
{
    return (struct http_sequential *)s;
}

/* ---- what comes: the client's thread -----------------------------------------------------------
 */

static void begin(void *opaque, const struct http_headers *headers)
{
    struct http_sequential *s = opaque;
    WITH_LOCK(&s->lock);
    if (headers->status != 200)
        return;
    s->has_size = http_length(headers, &s->size);
    const char *coding = http_header(headers, "Transfer-Encoding");
    s->endless = !s->has_size && headers->major < 2 && !(coding && strcasestr(coding, "chunked"));
    if (!s->began) { /* no memory for them: they are as good as not said */
        s->etag = string_copy(http_header(headers, "ETag"));
        s->modified = string_copy(http_header(headers, "Last-Modified"));
    }
    s->began = true;
    pthread_cond_broadcast(&s->changed);
}

static bool sink(void *opaque, const void *bytes, size_t len)
{
    struct http_sequential *s = opaque;
    WITH_LOCK(&s->lock);
    s->paused = len > ROOM - (s->put - s->taken);
    if (s->paused)
        return false;
    size_t at = (size_t)(s->put % ROOM), n = (size_t)min_u64(len, ROOM - at);
    memcpy(s->bytes + at, bytes, n);
    memcpy(s->bytes, (const uint8_t *)bytes + n, len - n);
    s->put += len;
    pthread_cond_broadcast(&s->changed);
    return true;
}

static void *sender_main(void *arg)
{
    struct http_sequential *s = arg;
    struct platter_error error = {0};
    struct http_answer a;
    int r = http_send(s->client, &s->request, &a, &error);
    if (r == 0) {
        if (a.headers.status != 200)
            r = http_fail(&s->request, &a, "cannot be read", &error);
        http_answer_done(&a);
    }
    WITH_LOCK(&s->lock);
    s->ended = true;
    s->result = r;
    s->error = error;
    pthread_cond_broadcast(&s->changed);
    return NULL;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

/* What is there is taken, in a row; waits until there is something. 0: nothing more comes. */
static size_t take_some(struct http_sequential *s, uint8_t *buf, size_t len, bool *ret_resume)
{
    WITH_LOCK(&s->lock);
    while (s->put == s->taken && !s->ended)
        pthread_cond_wait(&s->changed, &s->lock);
    size_t at = (size_t)(s->taken % ROOM);
    size_t n = (size_t)min_u64(len, min_u64(s->put - s->taken, ROOM - at));
    if (n > 0)
        memcpy(buf, s->bytes + at, n);
    s->taken += n;
    *ret_resume = s->paused && s->put - s->taken <= ROOM / 2;
    s->paused = s->paused && !*ret_resume;
    return n;
}

static int sequential_read(struct stream *stream, void *buf, size_t len, size_t *ret_len,
                           struct platter_error *err)
{
    struct http_sequential *s = sequential_of(stream);
    size_t n = 1;
    for (*ret_len = 0; *ret_len < len && n > 0; *ret_len += n) {
        bool resume;
        n = take_some(s, (uint8_t *)buf + *ret_len, len - *ret_len, &resume);
        if (resume)
            http_resume(s->client, &s->request);
    }
    if (*ret_len == len)
        return 0;
    WITH_LOCK(&s->lock);
    return s->result < 0 ? fail(err, -s->result, "%s", s->error.message) : 0;
}

static int sequential_size(struct stream *stream, uint64_t *ret_size, struct platter_error *err)
{
    struct http_sequential *s = sequential_of(stream);
    if (!s->has_size)
        return fail(err, ENOTSUP, "%s: the server does not say how large it is", stream->name);
    *ret_size = s->size;
    return 0;
}

static int sequential_identity(struct stream *stream, char **text, struct platter_error *err)
{
    struct http_sequential *s = sequential_of(stream);
    if (!s->etag && !s->modified)
        return fail(err, ENOTSUP,
                    "%s: the server does not say by what this is known again: neither an ETag nor "
                    "a date",
                    stream->name);
    int r = s->has_size ? identity_add_size(text, stream, err) : 0;
    return r < 0 ? r : http_identity(text, s->etag, s->modified, err);
}

static void sequential_interrupt(struct stream *stream)
{
    struct http_sequential *s = sequential_of(stream);
    atomic_store(&s->stop, true);
    http_client_wake(s->client);
}

static const char *sequential_url(const struct stream *s)
{
    return ((const struct http_sequential *)s)->url;
}

static void sequential_close(struct stream *stream)
{
    struct http_sequential *s = sequential_of(stream);
    sequential_interrupt(stream);
    if (s->running)
        pthread_join(s->thread, NULL);
    http_client_unref(s->client);
    if (s->release)
        s->release(s->hooks.opaque);
    free(s->url);
    free(s->etag);
    free(s->modified);
    free(s->bytes);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
}

static const struct stream_ops sequential_ops = {
    .name = "http",
    .read = sequential_read,
    .interrupt = sequential_interrupt,
    .size = sequential_size,
    .identity = sequential_identity,
    .url = sequential_url,
    .close = sequential_close,
};

/* ---- opening -----------------------------------------------------------------------------------
 */

static int start(struct http_sequential *s, struct platter_error *err)
{
    if (!s->url || !s->bytes)
        return fail_memory(err, "a source");
    s->request = (struct http_request){.method = "GET",
                                       .url = s->url,
                                       .name = s->head.name,
                                       .sink = sink,
                                       .begin = begin,
                                       .opaque = s,
                                       .hooks = &s->hooks,
                                       .stop = &s->stop};
    int code = thread_start(&s->thread, sender_main, s);
    if (code)
        return fail_errno(err, code, "no thread for what is read over the network");
    s->running = true;
    WITH_LOCK(&s->lock);
    while (!s->began && !s->ended)
        pthread_cond_wait(&s->changed, &s->lock);
    if (s->began && s->endless)
        return fail(err, EPROTO,
                    "%s: the server has no ranges, and does not say how long it is: an end that "
                    "comes too early could not be told; download it first",
                    s->head.name);
    return s->result < 0 ? fail(err, -s->result, "%s", s->error.message) : 0;
}

int stream_http_sequential_open(const struct http_front *front, struct stream **ret,
                                struct platter_error *err)
{
    struct http_sequential *s = stream_new(sizeof *s, &sequential_ops, front->name, err);
    if (!s) {
        if (front->release)
            front->release(front->hooks->opaque);
        return -ENOMEM;
    }
    s->head.sequential = true;
    s->client = http_client_ref(front->client);
    s->hooks = *front->hooks;
    s->release = front->release;
    s->url = string_copy(front->url);
    s->bytes = malloc(ROOM);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    int r = start(s, err);
    if (r < 0)
        stream_close(&s->head);
    else
        *ret = &s->head;
    return r;
}
